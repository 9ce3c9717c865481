/* gRPC over HTTP/2, and plain HTTP beside it on the same port: servers, clients, event loops.
 *
 * What this is not: it knows no journal, no entity, no JSON. Its core (session.c) does no I/O.
 *
 * Threads: a loop is run by one thread; a server's connections are spread over the loops it was given
 * and never move; a channel belongs to one loop. Everything that concerns a call, an exchange, a
 * channel or a timer happens on its loop's thread: callbacks are called there, and functions must be
 * called there, unless said otherwise. Other threads post to loop_mailbox(). Callbacks never run
 * inside the call that caused them: completion is always asynchronous.
 *
 *	struct loop *loop = loop_new();
 *	struct grpc_server *server = grpc_server_new(&config, &loop, 1);
 *	grpc_server_add(server, methods, ARRAY_LEN(methods));
 *	grpc_server_listen(server, &err);
 *	loop_run(loop);
 */
#ifndef CAIRN_GRPC_H
#define CAIRN_GRPC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/mailbox.h"
#include "base/span.h"

/* ---- event loops and timers -------------------------------------------------------------------- */

struct loop;
struct loop *loop_new(void);
void loop_free(struct loop *loop); /* not while it runs */
void loop_run(struct loop *loop);  /* until loop_stop() */
void loop_stop(struct loop *loop); /* any thread */
bool loop_run_once(struct loop *loop, bool block); /* one turn, for tests; true if anything ran */
struct mailbox *loop_mailbox(struct loop *loop);   /* posting wakes the loop; any thread */
/* A thread that runs the loop; join stops the loop and waits for it. */
void loop_thread_start(struct loop *loop, const char *name);
void loop_thread_join(struct loop *loop);
bool loop_is_current(const struct loop *loop); /* is this the loop's thread? */
/* fn runs on the loop when the process gets the signal (one loop a process). */
void loop_on_signal(struct loop *loop, int signo, void (*fn)(int signo, void *arg), void *arg);

struct loop_timer;
struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg);
void loop_timer_free(struct loop_timer *timer);
void loop_timer_set(struct loop_timer *timer, int64_t after_ms); /* replaces an earlier setting */
void loop_timer_cancel(struct loop_timer *timer);

/* ---- addresses ------------------------------------------------------------------------------------- */

/* Is this "HOST:PORT", "[IPV6]:PORT" or ":PORT"? Names are not looked up. The error says what is wrong with it. */
enum err_code grpc_address_check(const char *text, struct err *err);

/* ---- headers, metadata, status --------------------------------------------------------------------- */

/* Names are lower case. For gRPC metadata a value whose name ends in "-bin" is the raw bytes here; the
 * library does the base64 of the wire. */
struct header {
	struct span name, value;
};
struct headers {
	const struct header *items;
	size_t n;
};
/* The first value of a name (p is NULL if there is none). */
struct span headers_get(const struct headers *h, const char *name);

enum grpc_code {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_ABORTED = 10,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15,
	GRPC_UNAUTHENTICATED = 16
};
const char *grpc_code_name(enum grpc_code code); /* "INVALID_ARGUMENT" */
enum grpc_code grpc_code_of(enum err_code code); /* the one table from our errors to gRPC's */

/* How a call ended. Spans are valid during on_done only. */
struct grpc_result {
	enum grpc_code code;
	struct span message;
	struct headers trailers;
	bool not_sent; /* client: nothing of the request can have reached the server */
	bool reset;    /* the peer or the connection broke it off: code is what that maps to */
	uint32_t http2_error; /* with reset: RST_STREAM's code, or 0 for a lost connection */
	bool local;    /* it was this side that ended it: cancelled, timed out, a message over its limits */
};

/* ---- calls, on either side ---------------------------------------------------------------------------- */

struct grpc_call;

/* All members are optional but on_done. Borrowed data is valid during the callback only. */
struct grpc_call_ops {
	/* Client: the server's initial metadata arrived. */
	void (*on_headers)(struct grpc_call *call, const struct headers *metadata, void *user);
	/* One whole message, decompressed. */
	void (*on_message)(struct grpc_call *call, struct span message, void *user);
	/* Server: the client has sent all it will. */
	void (*on_half_close)(struct grpc_call *call, void *user);
	/* Output has fallen below the low-water mark after grpc_call_send() said false. */
	void (*on_writable)(struct grpc_call *call, void *user);
	/* Exactly once, and last: ended, cancelled, timed out or broken. Later sends do nothing. */
	void (*on_done)(struct grpc_call *call, const struct grpc_result *result, void *user);
};

void grpc_call_bind(struct grpc_call *call, const struct grpc_call_ops *ops, void *user);
/* A call lives until on_done has returned, and as long as references are held (same thread). */
struct grpc_call *grpc_call_ref(struct grpc_call *call);
void grpc_call_unref(struct grpc_call *call);

/* Sends one message (copied, or by reference until free_fn(free_arg), which is always called once). True while more
 * is welcome; after false wait for on_writable: what is sent nevertheless is queued, bounded by memory alone. */
bool grpc_call_send(struct grpc_call *call, struct span message);
bool grpc_call_send_ref(struct grpc_call *call, struct span message, void (*free_fn)(void *arg),
			void *free_arg);
bool grpc_call_writable(const struct grpc_call *call);
size_t grpc_call_memory_bytes(const struct grpc_call *call); /* about: it, unsent output, a message in part */

/* Server: metadata before the first message; the end with status and trailers (copied). */
void grpc_call_send_headers(struct grpc_call *call, const struct headers *metadata);
void grpc_call_finish(struct grpc_call *call, enum grpc_code code, struct span message,
		      const struct headers *trailers);
void grpc_call_finish_err(struct grpc_call *call, const struct err *err);
void grpc_call_reply(struct grpc_call *call, struct span message); /* server, unary: the one answer and OK */
/* Client: no more messages from here. */
void grpc_call_half_close(struct grpc_call *call);
/* Either side: breaks it off (RST_STREAM CANCEL); on_done follows with CANCELLED. */
void grpc_call_cancel(struct grpc_call *call);
/* Flow control: while held, received bytes are not given back to the peer's window. */
void grpc_call_hold_read(struct grpc_call *call, bool hold);

struct span grpc_call_path(const struct grpc_call *call);
const struct headers *grpc_call_metadata(const struct grpc_call *call); /* server: the request's */
const char *grpc_call_peer(const struct grpc_call *call);		/* "127.0.0.1:4711" */
int64_t grpc_call_remaining_ms(const struct grpc_call *call); /* to the deadline; -1 if none */
struct loop *grpc_call_loop(const struct grpc_call *call);

/* protobuf-c messages. Unpacked ones die with the arena. NULL: malformed, or the arena's maximum. */
struct ProtobufCMessage;
struct ProtobufCMessageDescriptor;
struct ProtobufCMessage *grpc_unpack(const struct ProtobufCMessageDescriptor *type, struct arena *a,
				      struct span bytes);
bool grpc_call_send_pb(struct grpc_call *call, const struct ProtobufCMessage *message);
void grpc_call_reply_pb(struct grpc_call *call, const struct ProtobufCMessage *message);

/* ---- plain HTTP on the same port: one exchange, HTTP/1.1 or HTTP/2 ----------------------------------- */

struct http_exchange;

struct http_request {
	struct span method, target; /* target as sent: path, and query from '?' on */
	struct span authority;
	struct headers headers; /* names in lower case; pseudo-headers left out */
	bool http2;
};
struct http_exchange_ops {
	void (*on_body)(struct http_exchange *x, struct span piece, void *user);
	void (*on_body_end)(struct http_exchange *x, void *user);
	void (*on_writable)(struct http_exchange *x, void *user);
	void (*on_done)(struct http_exchange *x, void *user); /* exactly once, last */
};
void http_exchange_bind(struct http_exchange *x, const struct http_exchange_ops *ops, void *user);
/* A whole answer; headers without content-length, which is added. */
void http_respond(struct http_exchange *x, int status, const struct headers *headers,
		  struct span body);
/* An answer in pieces (chunked on HTTP/1.1); http_write() as grpc_call_send(). */
void http_start(struct http_exchange *x, int status, const struct headers *headers);
bool http_write(struct http_exchange *x, struct span piece);
void http_end(struct http_exchange *x);
/* Breaks it off: RST_STREAM, or the connection closed without the last chunk. */
void http_reset(struct http_exchange *x);
void http_hold_read(struct http_exchange *x, bool hold);
/* The caller holds so many bytes of the request's body. False: all requests of this connection together hold more
 * than LIMIT_CONNECTION_BUFFER_BYTES: this one is to be refused. */
bool http_charge(struct http_exchange *x, size_t held_bytes);
struct loop *http_exchange_loop(const struct http_exchange *x);
struct http_exchange *http_exchange_ref(struct http_exchange *x); /* as grpc_call_ref() */
void http_exchange_unref(struct http_exchange *x);

/* ---- servers ------------------------------------------------------------------------------------------- */

struct grpc_server;
struct grpc_server_config {
	const char *listen;	   /* "127.0.0.1:7117", "[::]:9000", ":9000" (all interfaces); port 0: any */
	size_t message_max_bytes;  /* 0: LIMIT_GRPC_MESSAGE_BYTES */
	size_t call_window_bytes;  /* HTTP/2 window of one call; 0: a default */
	int64_t idle_timeout_ms;   /* closes connections without calls; 0: never */
	int64_t request_silence_ms; /* HTTP/1: 408 in the middle of a request; 0: LIMIT_REQUEST_SILENCE_MS */
};

/* A method with a fixed path. Unary: `unary` gets the whole request, after which grpc_call_reply() or
 * grpc_call_finish() is due (at once or later, with a reference held). Otherwise `open` binds ops. */
struct grpc_method {
	const char *path; /* "/package.Service/Method" */
	void (*unary)(struct grpc_call *call, struct span request, void *arg);
	void (*open)(struct grpc_call *call, void *arg);
	void *arg;
};

/* The loops are the caller's, run by him; the server spreads connections over them. */
struct grpc_server *grpc_server_new(const struct grpc_server_config *config, struct loop **loops,
				    size_t loop_count);
/* Before listening. The table must outlive the server. */
void grpc_server_add(struct grpc_server *server, const struct grpc_method *methods, size_t n);
/* For paths that are in no table: true if it has bound the call. Without it: UNIMPLEMENTED. */
void grpc_server_set_resolver(struct grpc_server *server, bool (*open)(struct grpc_call *call, void *arg), void *arg);
/* Requests that are not gRPC, on HTTP/1.1 and HTTP/2. Without it: 404. */
void grpc_server_set_http(struct grpc_server *server,
			  void (*handle)(struct http_exchange *x, const struct http_request *request, void *arg),
			  void *arg);
/* Takes the address only, to know early that it can be had. Listening does it, where it was not done. */
enum err_code grpc_server_bind(struct grpc_server *server, struct err *err);
enum err_code grpc_server_listen(struct grpc_server *server, struct err *err);
int grpc_server_port(const struct grpc_server *server); /* the port that was bound */
/* Stops accepting, sends GOAWAY, lets calls end; done(arg) on the first loop when none is left or after grace_ms,
 * when the rest is reset. Any thread. */
void grpc_server_drain(struct grpc_server *server, int64_t grace_ms, void (*done)(void *arg), void *arg);
void grpc_server_free(struct grpc_server *server); /* loops must not be running */

/* grpc.health.v1: "" and each service named; Watch included. Set from any thread. */
struct grpc_health;
struct grpc_health *grpc_health_new(struct grpc_server *server);
void grpc_health_set(struct grpc_health *health, const char *service, bool serving);
void grpc_health_forget(struct grpc_health *health, const char *service);
void grpc_health_free(struct grpc_health *health); /* after the server */

/* Server reflection, v1 and v1alpha, over whatever holds the descriptors. File descriptors are given as serialized
 * FileDescriptorProtos through add(); an unknown name adds none. Called on any of the server's loops; answers for
 * list_services come sorted, after the reflection service's own name. */
struct grpc_reflection_source {
	void (*services)(void *arg, void (*add)(void *to, struct span name), void *to);
	/* The file first, then its dependencies, each once. */
	void (*file_by_name)(void *arg, struct span name, void (*add)(void *to, struct span file_name,
			     struct span file), void *to);
	void (*file_by_symbol)(void *arg, struct span symbol, void (*add)(void *to, struct span file_name,
			       struct span file), void *to);
	void (*file_by_extension)(void *arg, struct span type, int32_t number,
				  void (*add)(void *to, struct span file_name, struct span file), void *to);
	/* False if the type is unknown. */
	bool (*extension_numbers)(void *arg, struct span type, void (*add)(void *to, int32_t number),
				  void *to);
	void *arg;
};
void grpc_reflection_add(struct grpc_server *server, const struct grpc_reflection_source *source);
/* A serialized FileDescriptorSet of health and reflection, for such a source. */
struct span grpc_own_descriptors(void);

/* ---- clients ---------------------------------------------------------------------------------------- */

struct grpc_channel;
enum grpc_channel_state { GRPC_CHANNEL_IDLE, GRPC_CHANNEL_CONNECTING, GRPC_CHANNEL_READY,
			  GRPC_CHANNEL_FAILED /* waits, then connects again */ };
struct grpc_channel_config {
	const char *target;	      /* "host:port" */
	size_t message_max_bytes;     /* of messages received; 0: LIMIT_GRPC_MESSAGE_BYTES */
	size_t window_bytes;	      /* HTTP/2 windows; 0: a default of 1 MiB */
	int64_t backoff_min_ms, backoff_max_ms; /* between attempts, doubling, +-20 %; 0: 100 and 2000 */
	int64_t connect_timeout_ms;   /* 0: 5000 */
	const char *user_agent;	      /* NULL: "cairn/VERSION" */
	const char *peer, *advice;    /* of errors: "the journal", "start it"; both or none */
};
/* on_state (may be NULL) tells of every change, with the reason of a failure. */
struct grpc_channel *grpc_channel_new(struct loop *loop, const struct grpc_channel_config *config,
				      void (*on_state)(struct grpc_channel *ch,
						       enum grpc_channel_state state,
						       const struct err *why, void *arg),
				      void *arg);
/* Calls still open end with CANCELLED first, before this returns: the one function that calls back. */
void grpc_channel_free(struct grpc_channel *ch);
void grpc_channel_connect(struct grpc_channel *ch); /* now, without waiting for a call */
enum grpc_channel_state grpc_channel_state(const struct grpc_channel *ch);

/* Starts a call; never NULL, failures come by on_done. deadline_ms < 0: none. wait_for_ready: waits for a connection
 * as long as the deadline allows; otherwise UNAVAILABLE (not_sent) while none can be had. At the peer's stream limit
 * another connection is opened. What the peer has refused unseen (REFUSED_STREAM, GOAWAY) is begun again once, on
 * another connection, if no more than LIMIT_RESEND_BYTES were sent. */
struct grpc_call *grpc_channel_call(struct grpc_channel *ch, const char *path,
				    const struct headers *metadata, int64_t deadline_ms,
				    bool wait_for_ready, const struct grpc_call_ops *ops, void *user);
/* One message out, one in: done is called exactly once; reply is empty unless the code is OK. */
void grpc_channel_unary(struct grpc_channel *ch, const char *path, struct span request,
			int64_t deadline_ms, bool wait_for_ready,
			void (*done)(const struct grpc_result *result, struct span reply, void *arg),
			void *arg);

#endif
