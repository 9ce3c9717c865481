/* Publishing: replies of methods with the option (cloudstate.eventing).out.topic become events of a topic (contract,
 * section 8, "Publishing"), records of the journal's stream "$topic-[NS/]T|KEY", KEY being the event's subject.
 *
 *	if (!publisher_publish(p, method, &payload, &metadata, on_published, arg, &err)) ...
 *	... on_published(arg, outcome): durable, or not known to be; then the reply may go on
 *
 * Each call is one publication: its record's id is made once and kept over whatever repetition the journal's client
 * needs, so it happens once, or (of a proxy that dies, or a journal that stays away) not. In the order of the calls of
 * one caller, who waits for one before the next. More bytes than LIMIT_PUBLISHING_BYTES are not on their way at once:
 * what is beyond waits, and holds no copy.
 *
 * One thread, the proxy's loop. Private to src/proxy. */
#ifndef CAIRN_PROXY_PUBLISH_H
#define CAIRN_PROXY_PUBLISH_H

#include "base/clock.h"
#include "journal/client.h"
#include "proxy/router.h"
#include "proxy/stats.h"

struct publisher;
struct publisher_config {
	const struct clock *clock;
	struct client *journal;
	struct span name_space; /* "" or "NS/" */
	int64_t timeout_ms;	/* of an append; what had to wait as long before it is not begun */
	struct stats *stats;
};

struct publisher *publisher_new(const struct publisher_config *config);
/* After the journal's client. NULL is fine. */
void publisher_free(struct publisher *p);

/* Publishes a reply to the method's topic. Payload and metadata are borrowed until done(arg, outcome), which comes
 * exactly once, not inside this call: GRPC_OK when the event is durable, else GRPC_UNAVAILABLE with the reason. An
 * error is told at once, and done does not come: ERR_INVALID the reply's fault, ERR_LIMIT it is too large,
 * ERR_UNAVAILABLE the proxy stops. */
enum err_code publisher_publish(struct publisher *p, const struct spec_method *method, const struct any *payload,
				const struct metadata *metadata,
				void (*done)(void *arg, const struct outcome *outcome), void *arg, struct err *err);

#endif
