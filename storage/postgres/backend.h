/* The Postgres backend: "postgres:" and a libpq URI's rest, "postgresql:" the same. See postgres.h. */
#ifndef CAIRN_STORAGE_POSTGRES_BACKEND_H
#define CAIRN_STORAGE_POSTGRES_BACKEND_H

#include "storage/storage.h"

extern const struct storage_ops storage_postgres;

#endif
