/* What others write to the streams that active entities follow: one subscription to each category, whose records
 * are handed to whoever follows their stream. Private to src/proxy. One thread, the loop's.
 *
 * A subscription begins at the journal's end and goes on where it was when its connection is back. Whoever may
 * have missed something (the subscription was not there yet, or cannot go on) is told so, and loads anew. */
#ifndef CAIRN_PROXY_FEED_H
#define CAIRN_PROXY_FEED_H

#include "base/list.h"
#include "base/map.h"
#include "journal/client.h"

struct feeds;
struct feeds_config {
	struct loop *loop;
	struct client *journal;
	/* A record of the follower's stream, in order; NULL: it may have missed some. */
	void (*on_record)(void *follower, const struct record_view *record);
	/* May be NULL: any record of a category, after its follower was told; and that everything after this
	 * position will come (again, after a subscription that could not go on). */
	void (*on_heard)(void *arg, const struct record_view *record);
	void (*on_live)(void *arg, struct span category, uint64_t position);
	void *arg;
};
struct feeds *feeds_new(const struct feeds_config *config);
/* When nobody follows any more; before the client goes. NULL is fine. */
void feeds_free(struct feeds *f);

/* Subscribes, though nobody may follow yet. Nothing more happens if it has. */
void feeds_begin(struct feeds *f, struct span category);
/* From now on the follower is told of its stream, until it leaves or another one follows that. */
void feeds_follow(struct feeds *f, struct span stream, void *follower);
void feeds_leave(struct feeds *f, struct span stream, const void *follower);

#endif
