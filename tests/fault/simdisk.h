/* A disk in memory that forgets like a real one: what was not synced may be lost, torn or reordered when
 * the power is cut. Implements the file backend's system calls (storage/file/fileio.h).
 *
 * A write goes into the cache, which everyone reads, and onto a list; a sync applies the file's list to
 * what is durable. A cut of the power applies a random part of every list instead, sector by sector, and
 * forgets the cache. Names are the same: creations, renames and deletions are a list until the directory
 * is synced. A sync that fails drops the writes of its list, as Linux does: the cache still has the bytes,
 * the disk gets them only when they are written again. (Sizes are the file system's own and stay listed.)
 *
 * A sector that has durable bytes is, after a cut, what it was or what was being written, never a third
 * thing: storage/file/format.h says that the backend relies on this, and why any log must that does not
 * begin every commit in a sector of its own. So bytes written over the same bytes change nothing. Sectors
 * behind the durable end can have anything in them.
 *
 * One thread at a time. */
#ifndef CAIRN_TEST_SIMDISK_H
#define CAIRN_TEST_SIMDISK_H

#include "storage/file/fileio.h"

struct simdisk;

enum simdisk_call {
	SIM_OPEN,
	SIM_CLOSE,
	SIM_PREAD,
	SIM_PWRITE,
	SIM_FDATASYNC,
	SIM_FTRUNCATE,
	SIM_PREALLOCATE,
	SIM_SIZE,
	SIM_RENAME,
	SIM_UNLINK,
	SIM_MAKE_DIR,
	SIM_SYNC_DIR,
	SIM_LIST,
	SIM_LOCK,
	SIM_CALLS
};

struct simdisk *simdisk_new(uint64_t seed);
void simdisk_free(struct simdisk *d);
const struct fileio *simdisk_io(struct simdisk *d);
uint64_t simdisk_random(struct simdisk *d, uint64_t below);

/* The process dies: its files are closed, the cache stays. */
void simdisk_kill(struct simdisk *d);
/* The power is cut: see above. */
void simdisk_cut(struct simdisk *d);
/* The power is cut and everything that was not synced is gone. */
void simdisk_cut_all(struct simdisk *d);

/* Calls so far, but for close (which changes nothing here). */
uint64_t simdisk_calls(const struct simdisk *d);
/* The n-th call from now fails with the error once (0: none does). A write that fails has written a part. */
void simdisk_fail_at(struct simdisk *d, uint64_t n, int error);
/* From the n-th call on every call fails with EIO, as if the disk were gone (0: none does). What was waiting
 * for a sync goes on waiting: a cut of the power or the death of the process at this call comes next. */
void simdisk_gone_at(struct simdisk *d, uint64_t n);
/* While paused, calls are not counted and none fails. */
void simdisk_pause(struct simdisk *d, bool on);
/* The call that failed last, or SIM_CALLS. */
enum simdisk_call simdisk_failed(const struct simdisk *d);
/* Writes beyond so many bytes in all files together fail with ENOSPC (0: there is room). */
void simdisk_limit(struct simdisk *d, uint64_t bytes);

/* A file's bytes, all of them synced, for flipping bits; NULL when it is not there. That changes the cache,
 * not what a cut of the power brings back. */
uint8_t *simdisk_bytes(struct simdisk *d, const char *path, size_t *ret_n);
/* Names of the files there are, in no order: NULL behind the last. */
const char *simdisk_name(struct simdisk *d, size_t i);
/* Cuts a durable file. */
void simdisk_truncate(struct simdisk *d, const char *path, size_t n);

#endif
