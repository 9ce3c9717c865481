/* What is counted for each service, and of each topic, as Prometheus text. One thread, the proxy's loop. */
#ifndef CAIRN_PROXY_STATS_H
#define CAIRN_PROXY_STATS_H

#include "base/buf.h"
#include "base/map.h"

struct service_stats {
	char *service;
	const char *kind; /* in words, as the spec in force has it; static */
	uint64_t commands;	     /* handed in by clients, forwards and effects */
	uint64_t ok, failures, errors; /* their ends: answered; the function's failures; the proxy's errors */
	uint64_t forwards, effects;  /* that the service's replies asked for */
	uint64_t events, snapshots;  /* made durable */
	uint64_t activations, passivations, restarts;
	uint64_t time_us;	     /* from a command's arrival to its end, in sum */
	uint64_t active;	     /* entities in memory now */
	uint64_t bytes;		     /* that they hold, about */
	uint64_t waiting;	     /* commands that are not answered yet */
	uint64_t delivered, delivery_failures, parked; /* events of logs and topics to the service's methods */
	uint64_t delivering;		       /* events in hand */
	uint64_t published, publish_failures;  /* replies of the service's methods to topics */
	uint64_t delivery_lag_us; /* of the one delivered last: from its commit to the end of its delivery */
};

struct stats {
	struct map services; /* of struct service_stats, kept for good */
	struct map topics;   /* of what was published to each: uint64_t; at most LIMIT_TOPICS_COUNTED */
};

void stats_init(struct stats *s);
void stats_release(struct stats *s);
struct service_stats *stats_of(struct stats *s, struct span service); /* made if new */
/* One more event of the topic; one topic too many is not counted by itself. */
void stats_count_published(struct stats *s, struct span topic);
enum err_code stats_render(const struct stats *s, struct buf *out);

#endif
