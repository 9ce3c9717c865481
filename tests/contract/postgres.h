/* Databases for tests, on the server that tests/postgres/with has started. */
#ifndef CAIRN_CONTRACT_POSTGRES_H
#define CAIRN_CONTRACT_POSTGRES_H

#include <stddef.h>

#include "base/span.h"

/* Skips the test, saying why, where there is no server. */
void postgres_needed(void);
/* The URI of this database, which is made unless it is there. */
void postgres_uri(struct span name, char *uri, size_t size);
void postgres_drop(struct span name);
/* Statements as the superuser, in this database; the first field of the last result, or "" (static). */
const char *postgres_do(struct span name, const char *sql);

#endif
