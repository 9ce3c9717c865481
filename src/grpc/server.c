#include <config.h>

#include "grpc/server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "grpc/addr.h"
#include "grpc/call.h"
#include "grpc/conn.h"
#include "grpc/http1.h"
#include "grpc/wire.h"

#define SERVER_MAGIC 0x73657276u
#define SERVER_CALL_WINDOW_BYTES (256 * KIB)
#define SERVER_CONNECTION_WINDOW_BYTES (8 * MIB)
#define SERVER_ACCEPTS_PER_TURN 64
#define SERVER_BACKLOG 1024
/* Out of descriptors: the listener rests so long instead of spinning. */
#define SERVER_ACCEPT_REST_MS 100

#define SERVER_IDLE_TICKS 4

/* Draining: so long a client may take to answer the ping behind the notice. One that is idle may not read its
 * connection at all (grpcio does not while it has no call) and must not hold up the end. On HTTP/1, which has no
 * notice, an idle connection is kept so long for the request that may be on its way; its answer says "close". */
#define SERVER_NOTICE_MS 1000

/* One loop's share of the server. All but `count` belongs to the loop's thread. */
struct server_loop {
	struct grpc_server *server;
	struct loop *loop;
	struct list conns;
	atomic_size_t count; /* connections here or on their way here */
	bool draining, drained;
	struct loop_timer *grace, *notice;
	struct loop_timer *idle_clock; /* NULL: connections may be idle for ever */
	struct task drain_task;
};

struct grpc_server {
	uint32_t magic;
	char *listen;
	size_t message_max_bytes;
	struct session_config session;
	int64_t idle_timeout_ms, request_silence_ms;
	struct server_loop *loops;
	size_t loop_count;

	/* Before listening; read by every loop afterwards. */
	struct map methods;
	bool (*resolve)(struct grpc_call *call, void *arg);
	void *resolve_arg;
	exchange_handle_fn *handle;
	void *handle_arg;
	void (*on_drain)(struct loop *loop, void *arg);
	void *on_drain_arg;
	struct list owned;

	/* The first loop's. */
	int fd;
	int port;
	struct event accept;
	bool accepting;
	struct loop_timer *accept_rest;

	/* Draining. */
	int64_t grace_ms;
	void (*drained)(void *arg);
	void *drained_arg;
	atomic_size_t undrained; /* loops that still have connections */
	struct task drained_task;
};

struct server_owned {
	struct list_node node;
	void (*free_fn)(void *arg);
	void *arg;
};

/* A connection on its way to the loop that will keep it. */
struct server_handover {
	struct task task;
	struct server_loop *to;
	int fd;
};

/* ---- requests ---------------------------------------------------------------------------------------- */

static void server_on_grpc(struct grpc_server *server, struct server_loop *at, struct stream *s)
{
	if (!span_eq(headers_get(&s->headers.h, ":method"), SPAN("POST"))) {
		struct header h = {SPAN(":status"), SPAN("405")};
		struct headers headers = {&h, 1};
		stream_respond(s, &headers, true);
		return;
	}
	struct grpc_call *call = call_accept(at->loop, s, server->message_max_bytes);
	if (!call)
		return;
	metric_add(METRIC_GRPC_CALLS, 1);
	const struct grpc_method *method = map_get(&server->methods, call->path);
	if (method)
		call_begin_method(call, method);
	else if (!server->resolve || !server->resolve(call, server->resolve_arg))
		call_unimplemented(call);
}

static void server_on_request(struct conn *conn, struct stream *s)
{
	struct server_loop *at = conn->owner;
	struct grpc_server *server = at->server;
	if (wire_is_grpc(headers_get(&s->headers.h, "content-type")))
		server_on_grpc(server, at, s);
	else
		exchange_accept(at->loop, s, server->message_max_bytes, server->handle, server->handle_arg);
}

static struct http1 *server_on_http1(struct conn *conn)
{
	struct server_loop *at = conn->owner;
	struct http1_config config = {.body_max_bytes = at->server->message_max_bytes,
				      .silence_ms = at->server->request_silence_ms,
				      .handle = at->server->handle,
				      .arg = at->server->handle_arg};
	return http1_new(conn, &config);
}

/* ---- connections ------------------------------------------------------------------------------------- */

static void server_check_drained(struct server_loop *at)
{
	if (!at->draining || at->drained || !list_empty(&at->conns))
		return;
	at->drained = true;
	loop_timer_free(at->grace);
	loop_timer_free(at->notice);
	at->grace = at->notice = NULL;
	struct grpc_server *server = at->server;
	if (atomic_fetch_sub(&server->undrained, 1) == 1)
		mailbox_post(loop_mailbox(server->loops[0].loop), &server->drained_task);
}

static void server_on_closed(struct conn *conn, const struct err *why)
{
	struct server_loop *at = conn->owner;
	if (why->code)
		log_debug("connection closed", LOG_STR("peer", conn->peer), LOG_ERR(why));
	list_remove(&conn->node);
	metric_add(METRIC_GRPC_CONNECTIONS, -1);
	atomic_fetch_sub(&at->count, 1);
	server_check_drained(at);
}

static const struct conn_ops server_conn_ops = {
	.on_request = server_on_request,
	.on_http1 = server_on_http1,
	.on_closed = server_on_closed,
};

/* Closes what has been idle for SERVER_IDLE_TICKS ticks; the clock stops with the last connection. */
static void server_on_idle_tick(void *arg)
{
	struct server_loop *at = arg;
	struct list_node *node, *next;
	for (node = list_first(&at->conns); node; node = next) {
		next = list_next(&at->conns, node);
		struct conn *conn = CONTAINER_OF(node, struct conn, node);
		if (!conn_idle(conn))
			conn->idle_ticks = 0;
		else if (++conn->idle_ticks > 2 * SERVER_IDLE_TICKS)
			conn_abort(conn, NULL); /* it does not even answer the drain's ping */
		else if (conn->idle_ticks > SERVER_IDLE_TICKS) {
			conn_drain(conn);
			if (conn->state != CONN_HTTP2) /* it hears of it by the end alone */
				conn_drain_now(conn);
		}
	}
	if (!list_empty(&at->conns))
		loop_timer_set(at->idle_clock, at->server->idle_timeout_ms / SERVER_IDLE_TICKS);
}

static void server_watch_idle(struct server_loop *at)
{
	if (at->server->idle_timeout_ms == 0 || !list_empty(&at->conns))
		return;
	if (!at->idle_clock)
		at->idle_clock = loop_timer_new(at->loop, server_on_idle_tick, at);
	loop_timer_set(at->idle_clock, at->server->idle_timeout_ms / SERVER_IDLE_TICKS);
}

static void server_take(struct server_loop *at, int fd)
{
	server_watch_idle(at);
	struct conn *conn = conn_new(at->loop, fd, &at->server->session, &server_conn_ops, at);
	list_push_back(&at->conns, &conn->node);
	metric_add(METRIC_GRPC_CONNECTIONS, 1);
	if (at->draining) {
		conn_drain(conn);
		if (at->notice)
			loop_timer_set(at->notice, SERVER_NOTICE_MS);
	}
}

static void server_run_handover(struct task *task)
{
	struct server_handover *handover = CONTAINER_OF(task, struct server_handover, task);
	server_take(handover->to, handover->fd);
	mem_free(handover);
}

static struct server_loop *server_pick(struct grpc_server *server)
{
	struct server_loop *best = &server->loops[0];
	if (best->draining)
		return best; /* the others may have come to their end */
	for (size_t i = 1; i < server->loop_count; i++)
		if (atomic_load(&server->loops[i].count) < atomic_load(&best->count))
			best = &server->loops[i];
	return best;
}

static void server_hand_over(struct grpc_server *server, int fd)
{
	struct server_loop *to = server_pick(server);
	atomic_fetch_add(&to->count, 1);
	if (to == &server->loops[0]) {
		server_take(to, fd);
		return;
	}
	struct server_handover *handover = mem_xalloc(sizeof(*handover));
	*handover = (struct server_handover){.task.run = server_run_handover, .to = to, .fd = fd};
	mailbox_post(loop_mailbox(to->loop), &handover->task);
}

static void server_on_rested(void *arg)
{
	struct grpc_server *server = OBJ_CAST(struct grpc_server, arg, SERVER_MAGIC);
	if (server->accepting)
		event_add(&server->accept, NULL);
}

/* Takes up to n connections that wait. False: there are none left. */
static bool server_accept(struct grpc_server *server, int n)
{
	for (int i = 0; i < n; i++) {
		int got = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (got >= 0) {
			server_hand_over(server, got);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno == EAGAIN)
			return false;
		struct err err = {0};
		err_set_errno(&err, ERR_IO, errno, "accept on %s", server->listen);
		log_warn("cannot take a connection; waiting", LOG_ERR(&err));
		event_del(&server->accept);
		loop_timer_set(server->accept_rest, SERVER_ACCEPT_REST_MS);
		return false;
	}
	return true;
}

static void server_on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	struct grpc_server *server = OBJ_CAST(struct grpc_server, arg, SERVER_MAGIC);
	(void)fd;
	(void)what;
	loop_count(server->loops[0].loop);
	server_accept(server, SERVER_ACCEPTS_PER_TURN);
}

/* ---- listening --------------------------------------------------------------------------------------- */

static int server_bind_one(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	int one = 1, zero = 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

enum err_code grpc_server_bind(struct grpc_server *server, struct err *err)
{
	must(server->magic == SERVER_MAGIC);
	must(server->fd < 0);
	char host[ADDR_HOST_BYTES], port[8];
	int port_number;
	enum err_code rc = addr_split(server->listen, host, &port_number, err);
	if (rc)
		return rc;
	snprintf(port, sizeof(port), "%d", port_number);
	struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	int r = getaddrinfo(host[0] ? host : NULL, port, &hints, &list);
	if (r)
		return err_set(err, ERR_INVALID, "listen on %s: %s", server->listen, gai_strerror(r));
	/* All interfaces: an IPv6 socket takes IPv4 too, so it goes first. */
	for (int pass = 0; pass < 2 && server->fd < 0; pass++)
		for (struct addrinfo *ai = list; ai && server->fd < 0; ai = ai->ai_next)
			if (host[0] || (ai->ai_family == AF_INET6) == (pass == 0))
				server->fd = server_bind_one(ai);
	int saved = errno;
	freeaddrinfo(list);
	if (server->fd < 0)
		return err_set_errno(err, ERR_IO, saved, "listen on %s", server->listen);
	struct sockaddr_storage addr;
	socklen_t addr_n = sizeof(addr);
	must(getsockname(server->fd, (struct sockaddr *)&addr, &addr_n) == 0);
	server->port = addr.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)(void *)&addr)->sin6_port)
						  : ntohs(((struct sockaddr_in *)(void *)&addr)->sin_port);
	return ERR_OK;
}

enum err_code grpc_server_listen(struct grpc_server *server, struct err *err)
{
	must(server->magic == SERVER_MAGIC);
	must(!server->accepting);
	enum err_code rc = server->fd < 0 ? grpc_server_bind(server, err) : ERR_OK;
	if (rc)
		return rc;
	/* Two that have only bound an address may both have it; one listens. */
	if (listen(server->fd, SERVER_BACKLOG) < 0)
		return err_set_errno(err, ERR_IO, errno, "listen on %s", server->listen);
	struct loop *first = server->loops[0].loop;
	event_assign(&server->accept, loop_base(first), server->fd, EV_READ | EV_PERSIST,
		     server_on_acceptable, server);
	server->accept_rest = loop_timer_new(first, server_on_rested, server);
	server->accepting = true;
	event_add(&server->accept, NULL);
	return ERR_OK;
}

int grpc_server_port(const struct grpc_server *server)
{
	return server->port;
}

static void server_stop_accepting(struct grpc_server *server)
{
	if (!server->accepting)
		return;
	server->accepting = false;
	event_del(&server->accept);
	loop_timer_free(server->accept_rest);
	server->accept_rest = NULL;
	close(server->fd);
	server->fd = -1;
}

/* ---- draining ---------------------------------------------------------------------------------------- */

static void server_abort_all(struct server_loop *at)
{
	struct list_node *node;
	while ((node = list_first(&at->conns))) {
		/* The node leaves the list in on_closed; a connection whose callback is on the stack leaves
		 * later, so it is taken off here. */
		struct conn *conn = CONTAINER_OF(node, struct conn, node);
		list_remove(node);
		conn_abort(conn, NULL);
	}
}

static void server_on_grace_over(void *arg)
{
	struct server_loop *at = arg;
	server_abort_all(at);
	server_check_drained(at);
}

static void server_on_notice_over(void *arg)
{
	struct server_loop *at = arg;
	for (struct list_node *node = list_first(&at->conns); node; node = list_next(&at->conns, node))
		conn_drain_now(CONTAINER_OF(node, struct conn, node));
}

static void server_run_drain(struct task *task)
{
	struct server_loop *at = CONTAINER_OF(task, struct server_loop, drain_task);
	at->draining = true;
	at->grace = loop_timer_new(at->loop, server_on_grace_over, at);
	loop_timer_set(at->grace, at->server->grace_ms);
	at->notice = loop_timer_new(at->loop, server_on_notice_over, at);
	loop_timer_set(at->notice, SERVER_NOTICE_MS);
	if (at == &at->server->loops[0]) {
		/* Whoever is connected, as he sees it, is not turned away. */
		if (at->server->accepting)
			server_accept(at->server, SERVER_BACKLOG);
		server_stop_accepting(at->server);
	}
	if (at->server->on_drain)
		at->server->on_drain(at->loop, at->server->on_drain_arg);
	for (struct list_node *node = list_first(&at->conns); node; node = list_next(&at->conns, node))
		conn_drain(CONTAINER_OF(node, struct conn, node));
	server_check_drained(at);
}

static void server_run_drained(struct task *task)
{
	struct grpc_server *server = CONTAINER_OF(task, struct grpc_server, drained_task);
	if (server->drained)
		server->drained(server->drained_arg);
}

void grpc_server_drain(struct grpc_server *server, int64_t grace_ms, void (*done)(void *arg), void *arg)
{
	must(server->magic == SERVER_MAGIC);
	server->grace_ms = grace_ms;
	server->drained = done;
	server->drained_arg = arg;
	atomic_store(&server->undrained, server->loop_count);
	server->drained_task.run = server_run_drained;
	for (size_t i = 0; i < server->loop_count; i++) {
		server->loops[i].drain_task.run = server_run_drain;
		mailbox_post(loop_mailbox(server->loops[i].loop), &server->loops[i].drain_task);
	}
}

/* ---- life -------------------------------------------------------------------------------------------- */

struct grpc_server *grpc_server_new(const struct grpc_server_config *config, struct loop **loops,
				    size_t loop_count)
{
	must(loop_count > 0);
	struct grpc_server *server = mem_xalloc(sizeof(*server));
	server->magic = SERVER_MAGIC;
	server->listen = mem_xstrdup(config->listen);
	server->message_max_bytes =
		config->message_max_bytes ? config->message_max_bytes : LIMIT_GRPC_MESSAGE_BYTES;
	size_t window = config->call_window_bytes ? config->call_window_bytes : SERVER_CALL_WINDOW_BYTES;
	server->session = (struct session_config){.server = true,
						  .window_bytes = window,
						  .connection_window_bytes = SERVER_CONNECTION_WINDOW_BYTES};
	server->idle_timeout_ms = config->idle_timeout_ms;
	server->request_silence_ms =
		config->request_silence_ms ? config->request_silence_ms : LIMIT_REQUEST_SILENCE_MS;
	server->fd = -1;
	map_init(&server->methods);
	list_init(&server->owned);
	server->loop_count = loop_count;
	server->loops = mem_xalloc(loop_count * sizeof(*server->loops));
	for (size_t i = 0; i < loop_count; i++) {
		server->loops[i].server = server;
		server->loops[i].loop = loops[i];
		list_init(&server->loops[i].conns);
		atomic_init(&server->loops[i].count, 0);
	}
	return server;
}

void grpc_server_add(struct grpc_server *server, const struct grpc_method *methods, size_t n)
{
	must(!server->accepting);
	for (size_t i = 0; i < n; i++) {
		/* The map holds plain pointers; it is only ever read back as const. */
		void *method = (void *)(uintptr_t)&methods[i];
		must(!map_put(&server->methods, span_str(methods[i].path), method));
	}
}

void grpc_server_set_resolver(struct grpc_server *server, bool (*open)(struct grpc_call *call, void *arg),
			      void *arg)
{
	must(!server->accepting);
	server->resolve = open;
	server->resolve_arg = arg;
}

void grpc_server_set_http(struct grpc_server *server,
			  void (*handle)(struct http_exchange *x, const struct http_request *request,
					 void *arg),
			  void *arg)
{
	must(!server->accepting);
	server->handle = handle;
	server->handle_arg = arg;
}

size_t server_loop_count(const struct grpc_server *server)
{
	return server->loop_count;
}

struct loop *server_loop_at(const struct grpc_server *server, size_t i)
{
	must(i < server->loop_count);
	return server->loops[i].loop;
}

void server_set_drain_listener(struct grpc_server *server, void (*fn)(struct loop *loop, void *arg),
			       void *arg)
{
	must(!server->on_drain);
	server->on_drain = fn;
	server->on_drain_arg = arg;
}

void server_own(struct grpc_server *server, void (*free_fn)(void *arg), void *arg)
{
	struct server_owned *owned = mem_xalloc(sizeof(*owned));
	owned->free_fn = free_fn;
	owned->arg = arg;
	list_push_back(&server->owned, &owned->node);
}

void grpc_server_free(struct grpc_server *server)
{
	if (!server)
		return;
	must(server->magic == SERVER_MAGIC);
	server_stop_accepting(server);
	if (server->fd >= 0)
		close(server->fd);
	for (size_t i = 0; i < server->loop_count; i++) {
		/* A connection may still be on its way in the mailbox. */
		mailbox_drain(loop_mailbox(server->loops[i].loop));
		server->loops[i].draining = false;
		server_abort_all(&server->loops[i]);
		loop_timer_free(server->loops[i].grace);
		loop_timer_free(server->loops[i].notice);
		loop_timer_free(server->loops[i].idle_clock);
	}
	struct list_node *node;
	while ((node = list_pop_front(&server->owned))) {
		struct server_owned *owned = CONTAINER_OF(node, struct server_owned, node);
		owned->free_fn(owned->arg);
		mem_free(owned);
	}
	map_release(&server->methods);
	mem_free(server->loops);
	mem_free(server->listen);
	server->magic = 0;
	mem_free(server);
}
