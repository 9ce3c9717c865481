/* A router whose entities and publisher are the test's own: they keep what they are given, and the test answers for
 * them. What is asked of them, and what the callers get, is written down in one line, which expect() compares. */
#ifndef ROUTER_RIG_H
#define ROUTER_RIG_H

#include "proxy/router_core.h"
#include "proxy/wire.h"

#define TIMEOUT_MS 50 /* of a command */
#define ITEMS "type.googleapis.com/shop.Items"

struct router_rig {
	struct command *waiting[64]; /* not sent */
	size_t count;
	enum err_code refuse; /* by the entities, and by the publisher */
	enum err_code publisher_refuses;
	bool full;	     /* input() says so */
	bool refuse_at_once; /* by command_ended(), inside the call */
	size_t more_bytes;   /* of the next answer that is followed by more */
	struct buf log;
	int64_t now_us;
	struct router *router;
	struct spec *spec;
	struct loop *loop;
};
extern struct router_rig rig;

/* For a suite's .init and .fini; the latter expects that nothing is left to be expected. */
void router_rig_begin(void);
void router_rig_end(void);
void run_loop(void); /* until there is nothing to do */
/* A spec with actions in it, in place of the first. */
void take_over_actions(void);

__attribute__((format(printf, 1, 2))) void say(const char *fmt, ...);
/* What was written down since the last time. */
void expect_at(const char *text, int line);
#define expect(text) expect_at((text), __LINE__)

/* ---- the caller -------------------------------------------------------------------------------------------- */

struct command *call(const char *path, const char *payload, const char *who);
/* Writes down what it gets, for the name that is its argument; and its second half, how a call ended. */
extern const struct reply_sink sink;
void on_end(void *arg, const struct outcome *outcome);

/* ---- the function, which answers the command with this payload ------------------------------------------------ */

struct effect {
	const char *service, *name, *payload; /* service NULL: the end */
	bool synchronous;
};
#define EFFECTS(...) ((const struct effect[]){__VA_ARGS__, {0}})

struct command *find(const char *payload);
struct command *take(const char *payload); /* it is no longer waiting */
/* `more`: it is not the last. */
void give(struct command *c, Cloudstate__ClientAction *action, const struct effect *effects, bool more);
void answer(const char *payload, Cloudstate__ClientAction *action, const struct effect *effects);
void answer_reply(const char *payload, const char *type, const char *text, const struct effect *effects);
void answer_failure(const char *payload, const char *text, const struct effect *effects);
void answer_forward(const char *payload, const char *service, const char *name, const char *to,
		    const struct effect *effects);
/* More follows. `echo`: with that metadata. */
extern struct metadata_entry echoed;
void stream_reply(const char *payload, const char *text, const struct effect *effects, bool echo);
void stream_forward(const char *payload, const char *service, const char *name, const char *to);
void function_ends(const char *payload, enum grpc_code code);

/* The publisher has done, or could not do, what it was given last. */
void published(enum grpc_code code);

#endif
