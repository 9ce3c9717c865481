/* Sessions: the liveness of processes. A session is begun by a record in "$sessions", whose id is the
 * session's own, and ended by another. Private to src/journal; acts.h has what others call. */
#ifndef CAIRN_JOURNAL_SESSION_H
#define CAIRN_JOURNAL_SESSION_H

#include "journal/act.h"
#include "journal/acts.h"

#define SESSIONS_STREAM "$sessions"

enum err_code session_check_service(struct span service, struct err *err);
ledger_apply_fn session_apply_begun, session_apply_ended;

#endif
