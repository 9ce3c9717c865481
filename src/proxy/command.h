/* A command under way, as the router and the table of entities share it. Private to src/proxy. */
#ifndef CAIRN_PROXY_COMMAND_H
#define CAIRN_PROXY_COMMAND_H

#include "base/mailbox.h"
#include "proxy/entity.h"
#include "proxy/stats.h"

struct slot;

/* One hop on the way to a command: how it came to be, and what by. Counted, for a side effect may outlive
 * the command that caused it. */
struct hop {
	unsigned refs;
	bool effect; /* a side effect, otherwise a forward */
	struct spec *spec;
	const struct spec_method *from;
	struct hop *before;
};

struct command {
	uint32_t magic;
	struct router *router;
	struct spec *spec;
	const struct spec_method *method;
	const struct spec_method *asked; /* whose output type the final reply should have; NULL: any */
	struct service_stats *stats;
	struct entity_command entity;
	uint8_t *payload; /* owns what entity.payload.value (and type_url, of a forward) points to */
	struct hop *hops; /* newest first; NULL for a client's command */
	unsigned depth;
	struct mono_time began;

	const struct reply_sink *sink; /* NULL: nobody listens any more */
	void *sink_arg;

	struct slot *slot;         /* where it waits or is outstanding; NULL: it was answered */
	struct list_node deadline; /* in router->deadlines while slot is set */

	bool beginning; /* inside entities_command(): what ends it now is told later */
	bool answered;  /* by the function: `answer` is held and worked off */
	struct entity_answer answer;
	size_t effect_next;

	struct task failed; /* carries `failure` out of the call that found it */
	enum grpc_code failure_code;
	char *failure_text;
	bool failure_of_function; /* outcome.failure */
};

/* The table's answers to the router: exactly one of them for each command that it was given. */
void command_answered(struct command *c, struct entity_answer *answer);
void command_refused(struct command *c, const struct outcome *outcome);

#endif
