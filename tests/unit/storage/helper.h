/* A directory of one's own and records to append, for the tests of storage's parts. */
#ifndef CAIRN_TEST_STORAGE_HELPER_H
#define CAIRN_TEST_STORAGE_HELPER_H

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "storage/storage.h"

struct rig {
	char dir[64];
	struct err err;
	uint32_t last_id;
};

void rig_init(struct rig *r); /* quiet, with an empty directory */
void rig_release(struct rig *r);
bool rig_has(const struct rig *r, const char *name); /* a file in the directory */

/* Appends one event to the stream at the head; `sequence` is what it takes. */
enum storage_outcome rig_append(struct rig *r, struct storage *s, const char *stream, uint64_t sequence);
enum storage_outcome rig_append_kind(struct rig *r, struct storage *s, const char *stream, uint64_t sequence,
				     uint32_t kind);
enum storage_outcome rig_append_large(struct rig *r, struct storage *s, const char *stream, uint64_t sequence,
				      size_t data_bytes);
/* How many records a read of everything gives; err is set when it fails. */
size_t rig_count(struct rig *r, struct storage *s);

#endif
