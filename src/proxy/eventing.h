/* Event logs and topics: the events of entities, and what was published, handed to the methods of the function that
 * ask for them by the option (cloudstate.eventing).in (contract, section 8).
 *
 *	struct eventing *e = eventing_new(&config);	// follows the router's spec from now on
 *	eventing_drain(e, done, arg);			// no more deliveries; those under way end first
 *	eventing_free(e);				// after the journal's client
 *
 * Each source of a service is one subscription: a consumer of a durable group of the journal (journal/
 * client_group.h), of which one is active across all proxies. Of one entity's events, or of one key's of a topic, one
 * is delivered at a time, in order; others' go on. An event is acknowledged when its method has answered, forwards,
 * effects and publications included; one that fails is given back and comes again after a delay, its entity's later
 * ones behind it, and is parked after 16 tries:
 *
 *	             ┌─────────────── none of its entity is under way ───────────────┐
 *	arrives ──▶ waits ──▶ under way ──OK──▶ acknowledged                        the next one
 *	                          └─failed──▶ given back, with all that wait behind it
 *
 * One thread, the proxy's loop. Private to src/proxy. */
#ifndef CAIRN_PROXY_EVENTING_H
#define CAIRN_PROXY_EVENTING_H

#include "base/clock.h"
#include "journal/client.h"
#include "proxy/router_core.h"

struct eventing;
struct eventing_config {
	struct loop *loop;
	const struct clock *clock;
	struct client *journal;
	struct router *router;
	struct span name_space; /* "" or "NS/": before logs' and groups' names */
	int64_t retry_ms;	/* after a first failed delivery; doubles up to ten times as much */
	bool failure_is_done;	/* a Failure of the function counts as an answer */
};

struct eventing *eventing_new(const struct eventing_config *config);
/* done(arg) when nothing is under way any more and the groups are left, maybe at once. */
void eventing_drain(struct eventing *e, void (*done)(void *arg), void *arg);
/* When no delivery is under way. NULL is fine. */
void eventing_free(struct eventing *e);

#endif
