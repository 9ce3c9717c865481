/* What the fault tests of the file backend share: a store on a simulated disk, and a record of what was
 * acknowledged. After every start all of that must be there, and nothing else but the one batch whose
 * outcome was unknown, as a whole or not at all. */
#ifndef CAIRN_TEST_FAULT_H
#define CAIRN_TEST_FAULT_H

#include <criterion/criterion.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "simdisk.h"
#include "storage/file/file.h"

struct fault_record {
	struct span bytes, stream; /* owned */
	uint64_t sequence;
	uint8_t id[RECORD_ID_BYTES];
};

struct fault {
	struct simdisk *disk;
	uint64_t seed;
	char index_dir[64]; /* a real directory: LMDB's own crashes are not what is tested here */
	struct file_options options;
	struct storage *s; /* NULL: not open */
	struct err err;
	struct fault_record *records;
	size_t n, cap;
	size_t unknown; /* the last so many records may be there or not */
	uint64_t next_id;
};

void fault_init(struct fault *f, uint64_t seed);
void fault_release(struct fault *f);

/* Opens; on success everything is checked. */
enum err_code fault_open(struct fault *f);
void fault_must_open(struct fault *f);
/* A clean stop. */
void fault_close(struct fault *f);
/* The process dies: what it had in memory is gone. */
void fault_drop(struct fault *f);
void fault_delete_index(struct fault *f);

/* Appends a batch of so many records to random streams. */
enum storage_outcome fault_append(struct fault *f, size_t count, size_t data_bytes);
void fault_check(struct fault *f);

#endif
