/* The file of a backup: a journal's records as they are stored, from the first on, what the Merkle tree over them comes
 * to, and the journal's signature of that, if it signs.
 *
 *	file    = "CAIRNBK1" frame*
 *	frame   = kind (1 byte) length (fixed32) crc32c (fixed32, over the frame's offset (fixed64), kind, length and
 *	          payload) payload
 *	kinds   = 'H' BackupHead, once and first; 'R' a run of records, each with the tag and length that it has in a
 *	          ReadResponse; 'E' BackupEnd, once and last
 *
 * A file that was cut off has no end; a frame that was changed or moved has another CRC; records that are left out,
 * doubled or changed give another root. Writers and readers are pure: bytes go through callbacks. */
#ifndef CAIRN_JOURNAL_BACKUP_H
#define CAIRN_JOURNAL_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "record/record.h"

/* A Merkle tree's root over leaves that come one after the other (RFC 6962, section 2.1), in a hash a level. */
struct leaf_sum {
	uint64_t count;
	uint8_t nodes[64][RECORD_HASH_BYTES]; /* of the whole subtrees on the left, as the count's bits say */
};
void leaf_sum_add(struct leaf_sum *sum, const uint8_t leaf[RECORD_HASH_BYTES]);
void leaf_sum_root(const struct leaf_sum *sum, uint8_t ret[RECORD_HASH_BYTES]);

struct backup_head {
	uint8_t journal_id[16];
	uint64_t incarnation;
};
struct backup_end {
	uint64_t records;
	uint8_t root[RECORD_HASH_BYTES];
	struct span checkpoint; /* empty: unsigned */
};

/* ---- writing ---------------------------------------------------------------------------------- */

struct backup_writer {
	/* Writes all of it, or says why not. */
	enum err_code (*write)(void *arg, struct span bytes, struct err *err);
	void *arg;
	/* Its own. */
	uint64_t offset;
	struct buf run;
	struct leaf_sum sum;
};
void backup_writer_init(struct backup_writer *w, enum err_code (*write)(void *, struct span, struct err *), void *arg);
void backup_writer_release(struct backup_writer *w);
enum err_code backup_begin(struct backup_writer *w, const struct backup_head *head, struct err *err);
/* The next record: ERR_CORRUPT if its position is not the next. */
enum err_code backup_add(struct backup_writer *w, const struct record_view *record, struct span entry, struct err *err);
/* ERR_CORRUPT: the journal's root is not that of what came. */
enum err_code backup_finish(struct backup_writer *w, const struct backup_end *end, struct err *err);

/* ---- reading ---------------------------------------------------------------------------------- */

struct backup_reader {
	/* Exactly n bytes into p; *ret_n less at the end of the file. */
	enum err_code (*read)(void *read_arg, uint8_t *p, size_t n, size_t *ret_n, struct err *err);
	void *read_arg;
	/* Called in the order of the file; all may be NULL. A run's bytes live until the callback returns. */
	enum err_code (*on_head)(void *arg, const struct backup_head *head, struct err *err);
	enum err_code (*on_run)(void *arg, struct span run, struct err *err);
	enum err_code (*on_end)(void *arg, const struct backup_end *end, struct err *err);
	void *arg;
};
/* Reads and verifies all of it: CRCs, positions, leaves, the root. ERR_CORRUPT names the byte. */
enum err_code backup_read(const struct backup_reader *reader, struct err *err);

#endif
