/* The connection to the function: discovery with sockets and timers, reportError, and calls. One thread, the
 * proxy's loop. Private to src/proxy. */
#ifndef CAIRN_PROXY_FUNCTION_H
#define CAIRN_PROXY_FUNCTION_H

#include "grpc/grpc.h"
#include "proxy/spec.h"

struct function;
struct function_config {
	struct loop *loop;
	const char *target; /* "host:port" */
	size_t message_max_bytes;
	struct spec_rules rules;
	/* A spec has come into force: take a reference. */
	void (*take_over)(void *arg, struct spec *spec);
	void *arg;
};

struct function *function_new(const struct function_config *config);
void function_start(struct function *f);
void function_free(struct function *f); /* NULL is fine */

/* A call of one of its methods; never NULL, fails at once while the function cannot be reached.
 * deadline_ms < 0: none. */
struct grpc_call *function_call(struct function *f, const char *path, int64_t deadline_ms,
				const struct grpc_call_ops *ops, void *user);
/* reportError, and a log line. Kept back while the function cannot be reached. */
void function_report(struct function *f, struct span text);
/* Nothing is reported and asked any more: a drain has begun. */
void function_quiet(struct function *f);

#endif
