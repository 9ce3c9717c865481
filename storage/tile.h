/* Tiles of the Merkle tree over the log: 256 hashes each, made by src/journal/tree.c, by level and index. A part of
 * storage.h, which includes it. They can be made again from the log at any time, so they need not be durable, and one
 * that is damaged is one that is not there. */
#ifndef CAIRN_STORAGE_TILE_H
#define CAIRN_STORAGE_TILE_H

#include <stdint.h>

#include "base/err.h"
#include "record/record.h"

struct storage_reader;

#define STORAGE_TILE_HASHES 256
#define STORAGE_TILE_BYTES ((size_t)STORAGE_TILE_HASHES * RECORD_HASH_BYTES)
#define STORAGE_TILE_LEVELS 8

/* On the reader's own thread. The last put of a tile counts. */
typedef enum err_code storage_tile_put_fn(struct storage_reader *r, unsigned level, uint64_t index,
					  const uint8_t *tile, struct err *err);
/* ERR_NOT_FOUND (err untouched) if there is none. */
typedef enum err_code storage_tile_get_fn(struct storage_reader *r, unsigned level, uint64_t index, uint8_t *ret,
					  struct err *err);

storage_tile_put_fn storage_tile_put;
storage_tile_get_fn storage_tile_get;

#endif
