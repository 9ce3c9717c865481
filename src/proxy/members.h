/* This process among the others that serve the same CRDTs: its session with the journal, who else has one, and
 * how far each has got. Private to src/proxy. One thread, the loop's; no callback comes inside a call.
 *
 *	NONE ─all feeds live─▶ BEGINNING ─begun─▶ LIVE ─ended by the journal, other services─▶ NONE
 *	                                            └─members_end()─▶ ENDING
 *
 * A session is begun only when everything that is written from then on will be heard, so that each record that
 * its writer wants confirmed is confirmed by every session that lives at it: by a record in `$applied-SERVICE`,
 * which says that all before a position has been handed to whoever follows it here. One that could not be written
 * is said again with the next; many are said by one. */
#ifndef CAIRN_PROXY_MEMBERS_H
#define CAIRN_PROXY_MEMBERS_H

#include "proxy/entity.h"

struct members;
struct members_config {
	struct loop *loop;
	const struct clock *clock;
	struct client *journal;
	struct span name_space; /* before each service's name and each stream's: "" or "NS/" */
	int64_t ttl_ms;		/* of the session */
	uint8_t *session;	/* 16 bytes, the caller's: the session's id is put there */
	/* Everything before the category's present must be followed: members_live() says when. */
	void (*follow)(void *arg, struct span category);
	/* A service's peers, or this process's own session, have changed; `who` false: only how far they are. */
	void (*on_change)(void *arg, struct span service, bool who);
	void *arg;
};
struct members *members_new(const struct members_config *config);
/* After the journal's client has gone. NULL is fine. */
void members_free(struct members *m);

/* These CRDTs are served from now on. */
void members_serve(struct members *m, const struct spec *spec);
/* Of a service's full name, once it was served; NULL: it never was. Lives as long as m. */
const struct entity_peers *members_peers(const struct members *m, struct span service);

/* What the feed of a category says. */
void members_live(struct members *m, struct span category, uint64_t position);
void members_heard(struct members *m, const struct record_view *record);
/* An append fenced by this session was refused for it. */
void members_fenced(struct members *m, const uint8_t session[RECORD_ID_BYTES]);

/* Ends the session, then done(arg): at once if there is none, at the latest after a second. No other is begun. */
void members_end(struct members *m, void (*done)(void *arg), void *arg);

#endif
