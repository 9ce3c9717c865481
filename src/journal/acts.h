/* What the journal writes itself at someone's request. Each function makes an append: it is given to
 * journal_append() and answered like any other (journal.h), and it is the caller's until then. They check
 * form: ERR_INVALID or ERR_LIMIT say what is wrong. Any thread. */
#ifndef CAIRN_JOURNAL_ACTS_H
#define CAIRN_JOURNAL_ACTS_H

#include "journal/journal.h"

/* ---- sessions -------------------------------------------------------------------------------- */

/* The liveness of a process: what it holds is its own until the log says that the session has ended. */
struct journal_session_begin {
	uint8_t id[RECORD_ID_BYTES]; /* chosen by the caller (uuid_v7()); repeating it begins it once */
	const struct span *services; /* that it serves, namespace included */
	size_t service_count;
	uint32_t ttl_ms;     /* without a beat for so long it ends */
	struct span address; /* where others reach the process, or empty */
	struct span actor;
};
enum err_code journal_session_begin_new(const struct journal *j, const struct journal_session_begin *request,
					struct append **ret, struct append_refusal *ret_refusal);
/* One that has ended, or never was, is no error. */
enum err_code journal_session_end_new(const struct journal *j, const uint8_t session[RECORD_ID_BYTES],
				      struct span actor, struct append **ret,
				      struct append_refusal *ret_refusal);

#endif
