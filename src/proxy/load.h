/* One entity's replay from the journal: tried again while the journal is away for a moment and nothing was
 * replayed yet, given up when the journal falls silent in the middle. Private to src/proxy. One thread, the
 * loop's; no callback comes inside a call. */
#ifndef CAIRN_PROXY_LOAD_H
#define CAIRN_PROXY_LOAD_H

#include "base/clock.h"
#include "journal/client.h"

struct load;
struct load_config {
	struct loop *loop;
	const struct clock *clock;
	struct client *journal;
	struct span stream; /* borrowed until it ends */
	int64_t timeout_ms; /* without a sign of the journal */
	void (*on_record)(void *arg, const struct record_view *record);
	/* Once, and last, unless it was cancelled. GRPC_OK: sequence is the stream's newest. */
	void (*on_done)(void *arg, const struct client_error *error, uint64_t sequence);
	void *arg;
};
struct load *load_begin(const struct load_config *config);
/* Nothing is called back any more. NULL is fine. */
void load_cancel(struct load *load);
/* While held no more than a window arrives, and silence is not the journal's. */
void load_hold(struct load *load, bool hold);

/* A journal that cannot be reached is UNAVAILABLE, however that was found out. */
struct client_error load_journal_error(const struct client_error *error);

#endif
