/* Discovery: when the function is asked what it serves, and what becomes of the answer. A state machine
 * without I/O: connections, answers and the time in; requests out. function.c is its host.
 *
 *	            connected           answered
 *	WAITING ──────────────▶ ASKING ───────────▶ ACCEPTED ── connection lost ─▶ WAITING
 *	   ▲                     │  │                  ▲ the same bytes: nothing else happens
 *	   │ connection lost     │  └── refused ──▶ REFUSED ── every 30 s, or connection back ─▶ ASKING
 *	   └─────────────────────┤
 *	                         └── no answer in 10 s, or an error: the connection is dropped (nothing in
 *	                             force) or asked again after a pause of 100 ms doubling to 2 s, ±20 %
 *
 * A spec that was accepted stays in force until another one is. */
#ifndef CAIRN_PROXY_DISCOVERY_H
#define CAIRN_PROXY_DISCOVERY_H

#include "base/clock.h"
#include "grpc/grpc.h"
#include "proxy/spec.h"

#define DISCOVERY_PROTOCOL_MAJOR 0
#define DISCOVERY_PROTOCOL_MINOR 2
#define DISCOVERY_ANSWER_MS 10000
#define DISCOVERY_REASK_MS 30000
#define DISCOVERY_PAUSE_MIN_MS 100
#define DISCOVERY_PAUSE_MAX_MS 2000

/* What the machine asks for; nothing calls back inside. */
struct discovery_host {
	void (*ask)(void *host, struct span proxy_info);   /* answered by answer() or no_answer() */
	void (*forget)(void *host);			   /* the question: no answer is wanted any more */
	void (*drop)(void *host);			   /* the connection: make another one */
	void (*take_over)(void *host, struct spec *spec);  /* in force now; take a reference */
	void (*report)(void *host, struct span text);	   /* reportError, and the log */
	void (*wake_in)(void *host, int64_t after_ms);	   /* on_time(); replaces an earlier wish */
};

struct discovery;
struct discovery *discovery_new(const struct discovery_host *host, void *host_arg,
				const struct spec_rules *rules);
void discovery_free(struct discovery *d);

void discovery_connected(struct discovery *d);
void discovery_lost(struct discovery *d);
void discovery_answer(struct discovery *d, struct span entity_spec);
void discovery_no_answer(struct discovery *d, enum grpc_code code, struct span message);
void discovery_on_time(struct discovery *d);

const char *discovery_state_name(const struct discovery *d);

#endif
