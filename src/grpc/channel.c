#include <config.h>

#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/random.h"
#include "grpc/addr.h"
#include "grpc/call.h"
#include "grpc/channel_resolve.h"
#include "grpc/conn.h"

#define CHANNEL_MAGIC 0x6368616eu
#define CHANNEL_WINDOW_BYTES (1 * MIB)
#define CHANNEL_CONNECTION_WINDOW_BYTES (16 * MIB)

/* One attempt to connect: from socket() until the peer's SETTINGS have come. */
struct channel_attempt {
	bool running;
	struct addrinfo *addresses, *next; /* those still to be tried */
	int fd;                            /* connecting; -1: none */
	struct event connected;
	bool event_set;
	struct conn *conn; /* connected, SETTINGS are due */
	struct loop_timer *timeout;
	struct loop_task begin;
	struct resolve *resolve; /* under way, or NULL */
	struct err why;
};

/* A change of state that is still to be told. */
struct channel_change {
	struct list_node node;
	enum grpc_channel_state state;
	struct err why;
};

struct grpc_channel {
	uint32_t magic;
	struct loop *loop;
	char *target, *user_agent;
	char *peer, *advice; /* for errors: "the journal at 127.0.0.1:7117" and what to do; or NULL */
	size_t message_max_bytes;
	int64_t backoff_min_ms, backoff_max_ms, connect_timeout_ms;
	struct session_config session;
	void (*on_state)(struct grpc_channel *ch, enum grpc_channel_state state, const struct err *why,
			 void *arg);
	void *arg;

	struct list conns;   /* whose SETTINGS have come */
	struct list waiting; /* calls without a connection */
	struct list calls;   /* calls under way */
	struct channel_attempt attempt;
	struct loop_timer *backoff;
	bool backing_off;
	int64_t backoff_ms; /* the next wait */
	bool closing;
	bool refused;   /* the last attempt has failed */
	struct err why; /* of the last failure */

	enum grpc_channel_state state;
	struct list changes;
	struct loop_task change_task;
};

static void channel_attempt_next(struct grpc_channel *ch);
static void channel_start_waiting(struct grpc_channel *ch);

/* ---- state ------------------------------------------------------------------------------------------- */

static void channel_run_change(struct loop_task *task)
{
	struct grpc_channel *ch = CONTAINER_OF(task, struct grpc_channel, change_task);
	struct list_node *node = list_pop_front(&ch->changes);
	if (!list_empty(&ch->changes))
		loop_defer(ch->loop, &ch->change_task);
	struct channel_change change = *CONTAINER_OF(node, struct channel_change, node);
	mem_free(CONTAINER_OF(node, struct channel_change, node));
	ch->on_state(ch, change.state, &change.why, ch->arg); /* may free the channel */
}

static bool conn_usable(const struct conn *conn)
{
	return conn->state == CONN_HTTP2 && !conn->draining && !conn->closing;
}

/* Whoever opens another connection because those there are full, and is refused, has not reached the peer: they
 * may be what is left of one that is gone. */
static enum grpc_channel_state channel_find_state(const struct grpc_channel *ch)
{
	struct list_node *node;
	for (node = list_first(&ch->conns); node && !ch->refused; node = list_next(&ch->conns, node))
		if (conn_usable(CONTAINER_OF(node, struct conn, node)))
			return GRPC_CHANNEL_READY;
	if (ch->attempt.running)
		return GRPC_CHANNEL_CONNECTING;
	return ch->backing_off ? GRPC_CHANNEL_FAILED : GRPC_CHANNEL_IDLE;
}

/* The state follows from what there is; why: the reason, if it has changed for the worse. */
static void channel_update(struct grpc_channel *ch, const struct err *why)
{
	enum grpc_channel_state state = channel_find_state(ch);
	if (state == ch->state || ch->closing)
		return;
	ch->state = state;
	if (!ch->on_state)
		return;
	struct channel_change *change = mem_xalloc(sizeof(*change));
	change->state = state;
	if (why)
		change->why = *why;
	list_push_back(&ch->changes, &change->node);
	loop_defer(ch->loop, &ch->change_task);
}

enum grpc_channel_state grpc_channel_state(const struct grpc_channel *ch)
{
	return ch->state;
}

/* ---- connecting --------------------------------------------------------------------------------------- */

static void channel_attempt_end(struct grpc_channel *ch)
{
	struct channel_attempt *attempt = &ch->attempt;
	attempt->running = false;
	loop_timer_cancel(attempt->timeout);
	resolve_cancel(attempt->resolve);
	attempt->resolve = NULL;
	if (attempt->event_set)
		event_del(&attempt->connected);
	attempt->event_set = false;
	if (attempt->fd >= 0)
		close(attempt->fd);
	attempt->fd = -1;
	if (attempt->addresses)
		freeaddrinfo(attempt->addresses);
	attempt->addresses = attempt->next = NULL;
	struct conn *conn = attempt->conn;
	attempt->conn = NULL;
	if (conn) {
		conn->owner = NULL;
		conn_abort(conn, NULL);
	}
}

static void channel_explain(struct grpc_channel *ch)
{
	const struct err *cause = &ch->attempt.why;
	err_clear(&ch->why);
	if (ch->peer)
		err_set(&ch->why, cause->code, "%s cannot be reached (%s): %s", ch->peer, cause->text, ch->advice);
	else
		err_set(&ch->why, cause->code, "connect to %s: %s", ch->target, cause->text);
}

static void channel_attempt_failed(struct grpc_channel *ch)
{
	metric_add(METRIC_GRPC_CONNECT_FAILURES, 1);
	channel_explain(ch);
	ch->refused = true;
	channel_attempt_end(ch);
	struct list_node *node, *next;
	for (node = list_first(&ch->waiting); node; node = next) {
		next = list_next(&ch->waiting, node);
		struct grpc_call *call = CONTAINER_OF(node, struct grpc_call, node);
		if (!call->wait_for_ready)
			call_end_later(call, GRPC_UNAVAILABLE, ch->why.text, true);
	}
	int64_t spread = ch->backoff_ms / 5;
	int64_t wait = ch->backoff_ms - spread;
	if (spread)
		wait += (int64_t)(random_u64() % (uint64_t)(2 * spread + 1));
	ch->backing_off = true;
	loop_timer_set(ch->backoff, wait);
	ch->backoff_ms = ch->backoff_ms * 2 < ch->backoff_max_ms ? ch->backoff_ms * 2 : ch->backoff_max_ms;
	channel_update(ch, &ch->why);
}

static void channel_on_timeout(void *arg)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, arg, CHANNEL_MAGIC);
	const char *what = ch->attempt.conn ? "connected, but no HTTP/2 SETTINGS came" : "no connection";
	err_clear(&ch->attempt.why);
	err_set(&ch->attempt.why, ERR_TIMEOUT, "%s within %lld ms", what, (long long)ch->connect_timeout_ms);
	channel_attempt_failed(ch);
}

static const struct conn_ops channel_conn_ops;

static void channel_attempt_connected(struct grpc_channel *ch)
{
	int fd = ch->attempt.fd;
	ch->attempt.fd = -1;
	ch->attempt.conn = conn_new(ch->loop, fd, &ch->session, &channel_conn_ops, ch);
}

static void channel_attempt_error(struct grpc_channel *ch, int errno_value)
{
	err_clear(&ch->attempt.why);
	err_set_errno(&ch->attempt.why, ERR_UNAVAILABLE, errno_value, "no connection");
	if (ch->attempt.fd >= 0)
		close(ch->attempt.fd);
	ch->attempt.fd = -1;
}

static void channel_on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, arg, CHANNEL_MAGIC);
	(void)what;
	loop_count(ch->loop);
	ch->attempt.event_set = false;
	int errno_value = 0;
	socklen_t n = sizeof(errno_value);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &errno_value, &n);
	if (errno_value == 0) {
		channel_attempt_connected(ch);
		return;
	}
	channel_attempt_error(ch, errno_value);
	channel_attempt_next(ch);
}

static void channel_attempt_next(struct grpc_channel *ch)
{
	struct channel_attempt *attempt = &ch->attempt;
	while (attempt->next) {
		const struct addrinfo *ai = attempt->next;
		attempt->next = ai->ai_next;
		attempt->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (attempt->fd < 0) {
			channel_attempt_error(ch, errno);
			continue;
		}
		if (connect(attempt->fd, ai->ai_addr, ai->ai_addrlen) == 0) {
			channel_attempt_connected(ch);
			return;
		}
		if (errno != EINPROGRESS) {
			channel_attempt_error(ch, errno);
			continue;
		}
		event_assign(&attempt->connected, loop_base(ch->loop), attempt->fd, EV_WRITE,
			     channel_on_connected, ch);
		event_add(&attempt->connected, NULL);
		attempt->event_set = true;
		return;
	}
	channel_attempt_failed(ch);
}

/* Begins; the outcome is always told later. */
static void channel_connect(struct grpc_channel *ch)
{
	struct channel_attempt *attempt = &ch->attempt;
	if (attempt->running || ch->closing)
		return;
	loop_timer_cancel(ch->backoff);
	ch->backing_off = false;
	attempt->running = true;
	err_clear(&attempt->why);
	loop_timer_set(attempt->timeout, ch->connect_timeout_ms);
	loop_defer(ch->loop, &attempt->begin);
	channel_update(ch, NULL);
}

static void channel_on_resolved(struct addrinfo *list, const char *why, void *arg)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, arg, CHANNEL_MAGIC);
	ch->attempt.resolve = NULL;
	if (!list)
		err_set(&ch->attempt.why, ERR_UNAVAILABLE, "name not found: %s", why);
	ch->attempt.addresses = ch->attempt.next = list;
	channel_attempt_next(ch);
}

static void channel_run_begin(struct loop_task *task)
{
	struct grpc_channel *ch = CONTAINER_OF(task, struct grpc_channel, attempt.begin);
	char host[ADDR_HOST_BYTES];
	int port;
	if (!ch->attempt.running || ch->attempt.addresses || ch->attempt.resolve)
		return;
	if (addr_split(ch->target, host, &port, &ch->attempt.why))
		channel_attempt_failed(ch);
	else
		ch->attempt.resolve = resolve_start(ch->loop, host, port, channel_on_resolved, ch);
}

static void channel_on_backoff_over(void *arg)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, arg, CHANNEL_MAGIC);
	ch->backing_off = false;
	channel_connect(ch);
}

void grpc_channel_connect(struct grpc_channel *ch)
{
	must(ch->magic == CHANNEL_MAGIC);
	if (ch->state == GRPC_CHANNEL_IDLE || ch->state == GRPC_CHANNEL_FAILED)
		channel_connect(ch);
}

/* ---- connections --------------------------------------------------------------------------------------- */

static void channel_conn_on_settings(struct conn *conn)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, conn->owner, CHANNEL_MAGIC);
	if (conn == ch->attempt.conn) {
		ch->attempt.conn = NULL;
		list_push_back(&ch->conns, &conn->node);
		channel_attempt_end(ch);
		ch->backoff_ms = ch->backoff_min_ms;
		ch->refused = false;
		err_clear(&ch->why);
		channel_update(ch, NULL);
	}
	channel_start_waiting(ch);
}

static void channel_conn_on_room(struct conn *conn)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, conn->owner, CHANNEL_MAGIC);
	if (conn->draining)
		channel_update(ch, conn->why.code ? &conn->why : NULL);
	channel_start_waiting(ch);
}

static void channel_conn_on_closed(struct conn *conn, const struct err *why)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, conn->owner, CHANNEL_MAGIC);
	if (conn == ch->attempt.conn) {
		ch->attempt.conn = NULL;
		err_clear(&ch->attempt.why);
		err_set(&ch->attempt.why, ERR_UNAVAILABLE, "%s",
			why->code ? why->text : "closed before HTTP/2 began");
		channel_attempt_next(ch);
		return;
	}
	list_remove(&conn->node);
	channel_update(ch, why->code ? why : NULL);
	channel_start_waiting(ch);
}

static const struct conn_ops channel_conn_ops = {
	.on_settings = channel_conn_on_settings,
	.on_room = channel_conn_on_room,
	.on_closed = channel_conn_on_closed,
};

/* ---- calls --------------------------------------------------------------------------------------------- */

/* A connection with room that has not refused the call (which may be NULL). If there is none, *ret_more says
 * whether another one may help: not where one that carries nothing has no room either. */
static struct conn *channel_pick(struct grpc_channel *ch, const struct grpc_call *call, bool *ret_more)
{
	*ret_more = true;
	for (struct list_node *node = list_first(&ch->conns); node; node = list_next(&ch->conns, node)) {
		struct conn *conn = CONTAINER_OF(node, struct conn, node);
		if (!conn_usable(conn) || (call && call->refused && call->conn == conn))
			continue;
		if (session_can_start(conn->session))
			return conn;
		if (session_stream_count(conn->session) == 0)
			*ret_more = false;
	}
	return NULL;
}

static void channel_start(struct grpc_channel *ch, struct grpc_call *call, struct conn *conn)
{
	list_remove(&call->node);
	call->conn = conn;
	enum err_code rc = call_start(call, conn->session, span_str(ch->target), span_str(ch->user_agent));
	if (rc == ERR_OK)
		list_push_back(&ch->calls, &call->node);
	else
		call_end_later(call, rc == ERR_NOMEM ? GRPC_RESOURCE_EXHAUSTED : GRPC_UNAVAILABLE,
			       rc == ERR_NOMEM ? "out of memory" : "the connection takes no more calls",
			       true);
}

static void channel_start_waiting(struct grpc_channel *ch)
{
	struct list_node *node, *next;
	for (node = list_first(&ch->waiting); node; node = next) {
		struct grpc_call *call = CONTAINER_OF(node, struct grpc_call, node);
		next = list_next(&ch->waiting, node);
		bool more;
		struct conn *conn = channel_pick(ch, call, &more);
		if (conn) {
			channel_start(ch, call, conn);
			continue;
		}
		if (more && !ch->backing_off)
			channel_connect(ch);
		if (!call->refused)
			return; /* nor is there one for those behind it */
	}
}

/* Its connection tells of the room next, and so it is started again. */
static void channel_on_refused(struct grpc_call *call)
{
	struct grpc_channel *ch = OBJ_CAST(struct grpc_channel, call->channel, CHANNEL_MAGIC);
	metric_add(METRIC_GRPC_CLIENT_RETRIES, 1);
	list_remove(&call->node);
	list_push_front(&ch->waiting, &call->node);
}

struct grpc_call *grpc_channel_call(struct grpc_channel *ch, const char *path, const struct headers *metadata,
				    int64_t deadline_ms, bool wait_for_ready, const struct grpc_call_ops *ops,
				    void *user)
{
	must(ch->magic == CHANNEL_MAGIC);
	must(ops->on_done);
	metric_add(METRIC_GRPC_CLIENT_CALLS, 1);
	struct grpc_call *call =
		call_new_client(ch->loop, span_str(path), metadata, ch->message_max_bytes, ops, user);
	if (call->state != CALL_WAITING)
		return call;
	call->wait_for_ready = wait_for_ready;
	call->channel = ch;
	call->peer = ch->peer;
	call->on_refused = channel_on_refused;
	if (deadline_ms >= 0)
		call_set_deadline(call, deadline_ms);
	if (ch->closing) {
		call_end_later(call, GRPC_CANCELLED, "the channel is closed", true);
		return call;
	}
	bool more;
	if (ch->state == GRPC_CHANNEL_FAILED && !wait_for_ready && !channel_pick(ch, NULL, &more)) {
		call_end_later(call, GRPC_UNAVAILABLE, ch->why.text, true);
		return call;
	}
	list_push_back(&ch->waiting, &call->node);
	channel_start_waiting(ch);
	return call;
}

/* ---- unary --------------------------------------------------------------------------------------------- */

struct channel_unary {
	void (*done)(const struct grpc_result *result, struct span reply, void *arg);
	void *arg;
	struct buf reply;
	unsigned count; /* of replies; more than 2 count as 2 */
	bool nomem;
};

static void unary_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct channel_unary *u = user;
	(void)call;
	if (u->count < 2)
		u->count++;
	if (u->count == 1 && buf_append_span(&u->reply, message))
		u->nomem = true;
}

static void unary_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct channel_unary *u = user;
	struct grpc_result changed = *result;
	(void)call;
	if (result->code == GRPC_OK && u->nomem) {
		changed.code = GRPC_RESOURCE_EXHAUSTED;
		changed.message = SPAN("out of memory for the reply");
	} else if (result->code == GRPC_OK && u->count != 1) {
		changed.code = GRPC_UNIMPLEMENTED;
		changed.message = u->count ? SPAN("more than one reply to a unary call")
					   : SPAN("no reply to a unary call");
	}
	u->done(&changed, changed.code == GRPC_OK ? buf_span(&u->reply) : SPAN(""), u->arg);
	buf_release(&u->reply);
	mem_free(u);
}

static const struct grpc_call_ops unary_ops = {.on_message = unary_on_message, .on_done = unary_on_done};

void grpc_channel_unary(struct grpc_channel *ch, const char *path, struct span request, int64_t deadline_ms,
			bool wait_for_ready,
			void (*done)(const struct grpc_result *result, struct span reply, void *arg),
			void *arg)
{
	struct channel_unary *u = mem_xalloc(sizeof(*u));
	u->done = done;
	u->arg = arg;
	buf_init(&u->reply, ch->message_max_bytes);
	struct grpc_call *call =
		grpc_channel_call(ch, path, NULL, deadline_ms, wait_for_ready, &unary_ops, u);
	grpc_call_send(call, request);
	grpc_call_half_close(call);
}

/* ---- life ---------------------------------------------------------------------------------------------- */

struct grpc_channel *grpc_channel_new(struct loop *loop, const struct grpc_channel_config *config,
				      void (*on_state)(struct grpc_channel *ch, enum grpc_channel_state state,
						       const struct err *why, void *arg),
				      void *arg)
{
	struct grpc_channel *ch = mem_xalloc(sizeof(*ch));
	ch->magic = CHANNEL_MAGIC;
	ch->loop = loop;
	ch->target = mem_xstrdup(config->target);
	ch->user_agent = mem_xstrdup(config->user_agent ? config->user_agent : "cairn/" PACKAGE_VERSION);
	if (config->peer) {
		ch->peer = mem_xprintf("%s at %s", config->peer, config->target);
		ch->advice = mem_xstrdup(config->advice);
	}
	ch->message_max_bytes =
		config->message_max_bytes ? config->message_max_bytes : LIMIT_GRPC_MESSAGE_BYTES;
	ch->backoff_min_ms = config->backoff_min_ms ? config->backoff_min_ms : 100;
	ch->backoff_max_ms = config->backoff_max_ms ? config->backoff_max_ms : 2000;
	ch->backoff_ms = ch->backoff_min_ms;
	ch->connect_timeout_ms = config->connect_timeout_ms ? config->connect_timeout_ms : 5000;
	ch->session = (struct session_config){.server = false,
					      .window_bytes = config->window_bytes ? config->window_bytes
										   : CHANNEL_WINDOW_BYTES,
					      .connection_window_bytes = CHANNEL_CONNECTION_WINDOW_BYTES};
	ch->on_state = on_state;
	ch->arg = arg;
	list_init(&ch->conns);
	list_init(&ch->waiting);
	list_init(&ch->calls);
	list_init(&ch->changes);
	ch->change_task.run = channel_run_change;
	ch->attempt.begin.run = channel_run_begin;
	ch->attempt.fd = -1;
	ch->attempt.timeout = loop_timer_new(loop, channel_on_timeout, ch);
	ch->backoff = loop_timer_new(loop, channel_on_backoff_over, ch);
	return ch;
}

static void channel_end_calls(struct list *calls)
{
	struct list_node *node;
	while ((node = list_first(calls)))
		call_end(CONTAINER_OF(node, struct grpc_call, node), GRPC_CANCELLED, "the channel is closed",
			 false);
}

void grpc_channel_free(struct grpc_channel *ch)
{
	if (!ch)
		return;
	must(ch->magic == CHANNEL_MAGIC);
	ch->closing = true;
	channel_end_calls(&ch->waiting);
	channel_end_calls(&ch->calls);
	channel_attempt_end(ch);
	struct list_node *node;
	while ((node = list_pop_front(&ch->conns))) {
		struct conn *conn = CONTAINER_OF(node, struct conn, node);
		conn->owner = NULL;
		conn_finish(conn); /* the resets of its calls still go out */
	}
	while ((node = list_pop_front(&ch->changes)))
		mem_free(CONTAINER_OF(node, struct channel_change, node));
	loop_undefer(&ch->change_task);
	loop_undefer(&ch->attempt.begin);
	loop_timer_free(ch->attempt.timeout);
	loop_timer_free(ch->backoff);
	mem_free(ch->target);
	mem_free(ch->user_agent);
	mem_free(ch->peer);
	mem_free(ch->advice);
	ch->magic = 0;
	mem_free(ch);
}
