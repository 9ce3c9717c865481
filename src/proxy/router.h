/* The router: how a front (gRPC, HTTP/JSON, and whatever comes later) hands in a command and gets its
 * answer, and how forwards and side effects go on. Knows no wire format but the payload it carries.
 *
 * One thread, the proxy's loop. No callback runs inside the call that caused it.
 *
 *	struct spec *spec = router_spec(router);			// NULL before discovery
 *	const struct spec_method *m = spec_find_path(spec, path);
 *	call->command = router_call(router, m, payload, NULL, &my_sink, call);
 *	... my_sink.on_reply(...), at most once for a unary method; my_sink.on_end(...), once and last
 *	... if the client leaves before on_end: command_cancel(call->command); */
#ifndef CAIRN_PROXY_ROUTER_H
#define CAIRN_PROXY_ROUTER_H

#include <stdbool.h>

#include "base/span.h"
#include "grpc/grpc.h"
#include "proxy/spec.h"

struct router;
struct command;

/* A google.protobuf.Any, and cloudstate.Metadata: borrowed. */
struct any {
	struct span type_url, value;
};
struct metadata_entry {
	struct span key, value;
	bool bytes; /* bytes_value, otherwise string_value */
};
struct metadata {
	const struct metadata_entry *items;
	size_t n;
};

/* How a command ended. */
struct outcome {
	enum grpc_code code;
	struct span message;
	bool failure; /* the function's own Failure, or a fault of its stream: UNKNOWN for gRPC, 500 with
			 the message as the whole body for HTTP; otherwise it is the proxy's error */
};

/* What the caller of a command implements. Spans are valid during the callback only. */
struct reply_sink {
	/* A reply. Its payload is to be sent even where its type is not the method's output (the router
	 * has told the function). A unary command that ends OK without a reply is answered with an empty
	 * message of the output type. */
	void (*on_reply)(void *arg, const struct any *payload, const struct metadata *metadata);
	/* Exactly once, and last. Not called after command_cancel(). */
	void (*on_end)(void *arg, const struct outcome *outcome);
	/* command_send() said false: there is room again. May be NULL where the input does not stream. */
	void (*on_writable)(void *arg);
};

struct router_request {
	const struct spec_method *method;
	struct span payload; /* the bytes of the method's input message; not used where the input streams */
	const struct metadata *metadata; /* may be NULL; goes to the kinds that take it */
	int64_t deadline_ms;		 /* that the client has left; < 0: none */
};

/* Runs a command, of any streaming kind. What it is given is copied; the command holds its spec. The handle
 * is valid until on_end has been called or command_cancel() was. Never NULL: whatever goes wrong comes by
 * on_end. Where the input streams, it begins at once, and each message is given by command_send(). */
struct command *router_open(struct router *router, const struct router_request *request,
			    const struct reply_sink *sink, void *arg);
/* The same with one message of input (and then its end), and without a deadline. */
struct command *router_call(struct router *router, const struct spec_method *method, struct span payload,
			    const struct metadata *metadata, const struct reply_sink *sink, void *arg);

/* The same with an event: the payload's type is the event's own, and metadata comes with it. Nobody's client
 * waits, so its answer is always due, and its replies have no type to be of. */
struct command *router_deliver(struct router *router, const struct spec_method *method, const struct any *payload,
			       const struct metadata *metadata, const struct reply_sink *sink, void *arg);

/* Input that streams: a message (copied or sent), and the end of them. False: wait for on_writable. */
bool command_send(struct command *command, struct span payload);
void command_half_close(struct command *command);

/* The caller takes no more replies for now (a few may still come), or takes them again. */
void command_hold(struct command *command, bool hold);

/* The client has left: nothing more is called back. A command that was not sent to the function yet is
 * withdrawn; a call to an action is cancelled, a stream is ended; any other command is carried through and
 * its events are kept. */
void command_cancel(struct command *command);

/* The proxy stops: streams of entities that only their clients would end come to an end with OK. */
void router_end_streams(struct router *router);
/* Its time to stop is nearly over: streamed calls to actions, which may have no end, are ended with UNAVAILABLE. */
void router_break_off_streams(struct router *router);

/* The spec in force; NULL before the first one was accepted. Borrowed: spec_ref() what is kept. */
struct spec *router_spec(const struct router *router);

/* fn(arg, spec) whenever another spec has come into force (and now, if one is). Not removed again. */
void router_watch(struct router *router, void (*fn)(void *arg, struct spec *spec), void *arg);

/* Tells the function's author of a fault of the function: reportError and a log line. */
void router_report(struct router *router, struct span text);

#endif
