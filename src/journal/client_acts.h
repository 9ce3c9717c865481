/* What the journal's client asks for besides appends and reads: sessions, grants. The rules are those of
 * client.h: on the loop's thread, what is borrowed is copied, each callback runs once.
 *
 * Beginning, beating, ending, claiming and releasing may be repeated when their outcome is unknown: with the
 * same session they come to the same. */
#ifndef CAIRN_JOURNAL_CLIENT_ACTS_H
#define CAIRN_JOURNAL_CLIENT_ACTS_H

#include "journal/client.h"

/* One slot's newest grant. */
struct client_grant {
	uint32_t slot;
	uint64_t epoch; /* 0: never granted */
	uint8_t session[RECORD_ID_BYTES];
	bool released;
};

/* What came of it; what an operation does not tell is zero. */
struct client_act {
	struct client_cursor cursor;
	uint64_t beats;
	const struct client_grant *grants; /* claim, release: of each slot, in the request's order */
	size_t grant_count;
};
/* answer is NULL when error->code is not GRPC_OK; NOT_FOUND: the session has ended. */
typedef void client_act_fn(const struct client_act *answer, const struct client_error *error, void *arg);

struct client_session {
	uint8_t id[RECORD_ID_BYTES]; /* uuid_v7() */
	const struct span *services;
	size_t service_count;
	uint32_t ttl_ms;
	struct span address; /* or empty */
};
void client_session_begin(struct client *c, const struct client_session *session, int64_t deadline_ms,
			  client_act_fn *done, void *arg);
/* Whoever counts on his session counts from before he called this, when it is answered. */
void client_session_beat(struct client *c, const uint8_t session[RECORD_ID_BYTES], int64_t deadline_ms,
			 client_act_fn *done, void *arg);
void client_session_end(struct client *c, const uint8_t session[RECORD_ID_BYTES], int64_t deadline_ms,
			client_act_fn *done, void *arg);

/* Those of them that are free become the session's; the grants in the answer say whose each is. The answer's
 * cursor, as not_before of a load, sees all that earlier holders have appended. */
void client_grants_claim(struct client *c, struct span service, const uint8_t session[RECORD_ID_BYTES],
			 const uint32_t *slots, size_t count, int64_t deadline_ms, client_act_fn *done,
			 void *arg);
/* Slot and epoch of each are used; what is no longer the session's own is left alone. */
void client_grants_release(struct client *c, struct span service, const uint8_t session[RECORD_ID_BYTES],
			   const struct client_grant *grants, size_t count, int64_t deadline_ms,
			   client_act_fn *done, void *arg);

/* Who serves a service and who holds its slots: the first change tells all there is, the later ones what has
 * changed. A watch ends with the connection; the caller opens another, which tells all again. */
struct client_watch;
struct client_live_session {
	uint8_t id[RECORD_ID_BYTES];
	uint32_t ttl_ms;
	struct span address;
};
struct client_change {
	bool complete; /* the first: what is not in it is not so */
	const struct client_live_session *sessions;
	size_t session_count;
	const uint8_t (*ended)[RECORD_ID_BYTES];
	size_t ended_count;
	const struct client_grant *grants;
	size_t grant_count;
	struct client_cursor cursor;
};
struct client_watch_ops {
	void (*on_change)(struct client_watch *w, const struct client_change *change, void *arg);
	/* Exactly once, and last; w is gone afterwards. */
	void (*on_done)(struct client_watch *w, const struct client_error *error, void *arg);
};
struct client_watch *client_grants_watch(struct client *c, struct span service,
					 const struct client_watch_ops *ops, void *arg);
/* on_done follows with CANCELLED. */
void client_watch_cancel(struct client_watch *w);

#endif
