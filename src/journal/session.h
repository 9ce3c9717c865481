/* Sessions: the liveness of processes. A session is begun by a record in "$sessions", whose id is the
 * session's own, and ended by another. Private to src/journal; acts.h has what others call. */
#ifndef CAIRN_JOURNAL_SESSION_H
#define CAIRN_JOURNAL_SESSION_H

#include "journal/act.h"
#include "journal/acts.h"

enum err_code session_check_service(struct span service, struct err *err);
/* Of an append that cannot go on: the session has ended, or never began. */
void session_refuse_ended(struct append *a, const uint8_t session[RECORD_ID_BYTES]);
/* An end that is written only if the session still has so many beats. */
enum err_code session_expire_build(const uint8_t session[RECORD_ID_BYTES], uint64_t beats,
				   const uint64_t seed[2], const struct clock *clock, struct append **ret,
				   struct append_refusal *ret_refusal);
ledger_apply_fn session_apply_begun, session_apply_ended;

#endif
