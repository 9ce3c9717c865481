/* The rows of sessions, for backends of one writing process: in memory, gone with it. What they must do is
 * in storage.h. The sequencer's thread alone uses them. Private to storage/. */
#ifndef CAIRN_STORAGE_SESSIONS_H
#define CAIRN_STORAGE_SESSIONS_H

#include "base/map.h"
#include "storage/storage.h"

struct session_rows {
	struct map rows; /* id -> struct row */
};
void session_rows_init(struct session_rows *rows);
void session_rows_release(struct session_rows *rows);

/* Before the batch: is every row that it ends as expected? */
bool session_rows_hold(const struct session_rows *rows, const struct storage_record *records, size_t count);
/* The batch is durable. */
void session_rows_commit(struct session_rows *rows, const struct storage_record *records, size_t count);
void session_rows_beat(struct session_rows *rows, enum storage_beat beat, struct storage_session *sessions,
		       size_t count);

#endif
