/* The memory backend's one export. Private to storage/. */
#ifndef CAIRN_STORAGE_MEMORY_H
#define CAIRN_STORAGE_MEMORY_H

#include "storage/storage.h"

extern const struct storage_ops storage_memory;

#endif
