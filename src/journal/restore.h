/* Restoring a backup into an empty store, and accepting that history was lost. Blocking; any thread, no journal need be
 * open. */
#ifndef CAIRN_JOURNAL_RESTORE_H
#define CAIRN_JOURNAL_RESTORE_H

#include "journal/backup.h"

struct journal_restore {
	const char *storage_uri; /* "file:DIR" or "postgres:..." */
	/* Of the backup: as in struct backup_reader. What is wrong with it is found while it is restored, and again
	 * nothing can be opened then; to leave the store empty verify the whole of it before. */
	enum err_code (*read)(void *read_arg, uint8_t *p, size_t n, size_t *ret_n, struct err *err);
	void *read_arg;
	struct span reason, actor; /* for the record of the new incarnation */
	/* Told now and then; may be NULL. */
	void (*progress)(void *arg, uint64_t records);
	void *arg;
};
struct journal_restored {
	uint8_t journal_id[16];
	uint64_t incarnation, records; /* the new incarnation, which forks from the old one behind the records */
};
/* ERR_CONFLICT: the store is not empty. ERR_CORRUPT: of the backup. Whatever goes wrong, and if the process dies, the
 * store is no journal that could be opened. */
enum err_code journal_restore(const struct journal_restore *request, struct journal_restored *ret, struct err *err);

/* Goes on with a database that has lost acknowledged history, which is refused until then: a new incarnation, whose
 * fork (ret->records) is the last position that somebody who noticed knows to be the same. ERR_NOT_FOUND: nothing was
 * lost. Needs the schema's owner. */
enum err_code journal_accept_loss(const char *storage_uri, struct span reason, struct span actor,
				  struct journal_restored *ret, struct err *err);

#endif
