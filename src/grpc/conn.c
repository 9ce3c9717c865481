#include <config.h>

#include "grpc/conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/http1.h"

#define CONN_BLOCK_BYTES ((size_t)16384)
/* What may wait for one socket before nghttp2 is asked for no more. */
#define CONN_OUT_BYTES (256 * KIB)
#define CONN_IOV 64
#define CONN_LINGER_MS 1000

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
_Static_assert(sizeof(preface) - 1 == 24, "the client connection preface of RFC 9113");

static void conn_flush(struct conn *conn);

static void conn_destroy(struct conn *conn)
{
	loop_undefer(&conn->flush_task);
	event_del(&conn->readable);
	event_del(&conn->writable);
	if (conn->session) {
		session_abort(conn->session);
		session_free(conn->session);
	}
	http1_free(conn->http1);
	outq_release(&conn->out);
	close(conn->fd);
	if (!conn->told && conn->owner) {
		conn->told = true;
		conn->ops->on_closed(conn, &conn->why);
	}
	conn->magic = 0;
	mem_free(conn);
}

static void conn_leave(struct conn *conn)
{
	must(conn->busy > 0);
	if (--conn->busy == 0 && conn->state == CONN_DEAD)
		conn_destroy(conn);
}

static void conn_die(struct conn *conn)
{
	conn->state = CONN_DEAD;
	event_del(&conn->readable);
	event_del(&conn->writable);
	if (conn->busy == 0)
		conn_destroy(conn);
}

void conn_abort(struct conn *conn, const struct err *why)
{
	must(conn->magic == CONN_MAGIC);
	if (conn->state == CONN_DEAD)
		return;
	if (why)
		err_set(&conn->why, why->code, "%s", why->text);
	conn_die(conn);
}

static void conn_fail_errno(struct conn *conn, int errno_value, const char *doing)
{
	err_set_errno(&conn->why, ERR_UNAVAILABLE, errno_value, "%s %s", doing, conn->peer);
	conn_die(conn);
}

/* ---- output ------------------------------------------------------------------------------------------ */

static void conn_run_flush(struct loop_task *task)
{
	struct conn *conn = CONTAINER_OF(task, struct conn, flush_task);
	conn_flush(conn);
}

void conn_flush_later(struct conn *conn)
{
	if (conn->state != CONN_DEAD)
		loop_defer(conn->loop, &conn->flush_task);
}

/* Writes what it can; false when the socket is full or the connection has died. */
static bool conn_write(struct conn *conn, size_t *written)
{
	while (conn->out.n) {
		struct iovec iov[CONN_IOV];
		int count = outq_iov(&conn->out, iov, CONN_IOV);
		ssize_t n = writev(conn->fd, iov, count);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			event_add(&conn->writable, NULL);
			return false;
		}
		if (n < 0) {
			conn_fail_errno(conn, errno, "write to");
			return false;
		}
		outq_consume(&conn->out, (size_t)n);
		*written += (size_t)n;
	}
	return true;
}

static void conn_on_linger_over(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = OBJ_CAST(struct conn, arg, CONN_MAGIC);
	(void)fd;
	(void)what;
	loop_count(conn->loop);
	conn_die(conn);
}

/* All is written and nothing more will come: end our half, and wait for the peer's so that the kernel
 * does not answer his last bytes with a reset that eats ours. */
static void conn_linger(struct conn *conn)
{
	if (!conn->config.server || conn->in_ended) {
		conn_die(conn);
		return;
	}
	conn->state = CONN_LINGER;
	if (conn->session)
		session_abort(conn->session);
	shutdown(conn->fd, SHUT_WR);
	struct timeval tv = {.tv_sec = CONN_LINGER_MS / 1000, .tv_usec = CONN_LINGER_MS % 1000 * 1000};
	/* Nothing is written any more: the event is free to be the clock. One of readable's own would begin anew
	 * with every byte of a peer that never stops. */
	event_del(&conn->writable);
	event_assign(&conn->writable, loop_base(conn->loop), -1, 0, conn_on_linger_over, conn);
	event_add(&conn->writable, &tv);
	event_add(&conn->readable, NULL);
}

static bool conn_is_finished(const struct conn *conn)
{
	if (conn->out.n)
		return false;
	if (conn->closing)
		return true;
	if (conn->state != CONN_HTTP2)
		return false;
	if (session_done(conn->session))
		return true;
	/* A server waits for the answer to its ping: before that, calls may be on their way to it. */
	bool told = !conn->config.server || conn->goaway_sent;
	return conn->draining && told && session_stream_count(conn->session) == 0 &&
	       !session_wants_output(conn->session);
}

static void conn_flush(struct conn *conn)
{
	must(conn->magic == CONN_MAGIC);
	size_t written = 0;
	conn->busy++;
	loop_count(conn->loop);
	while (conn->state != CONN_DEAD && conn->state != CONN_LINGER) {
		struct err err = {0};
		if (conn->state == CONN_HTTP2 && !conn->closing &&
		    session_send(conn->session, &conn->out, CONN_OUT_BYTES, &err)) {
			err_set(&conn->why, err.code, "%s", err.text);
			conn->closing = true;
		}
		if (conn->state == CONN_DEAD)
			break; /* a callback has closed it */
		bool more = conn->out.n > 0;
		if (!conn_write(conn, &written))
			break;
		if (conn->http1)
			http1_on_output(conn->http1);
		if (conn_is_finished(conn)) {
			conn_linger(conn);
			break;
		}
		if (!more)
			break;
		if (written >= LIMIT_CONNECTION_TURN_BYTES) {
			conn_flush_later(conn);
			break;
		}
	}
	conn_leave(conn);
}

static void conn_on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = OBJ_CAST(struct conn, arg, CONN_MAGIC);
	(void)fd;
	(void)what;
	conn_flush(conn);
}

/* ---- input ------------------------------------------------------------------------------------------- */

static void conn_begin_http2(struct conn *conn);

static void conn_recv_http2(struct conn *conn, struct span bytes)
{
	struct err err = {0};
	if (session_recv(conn->session, bytes, &err) == ERR_OK)
		return;
	/* What is ready to be said, above all the GOAWAY, still goes out. */
	err_set(&conn->why, err.code, "%s", err.text);
	if (conn->state == CONN_DEAD)
		return;
	struct err ignored = {0};
	session_send(conn->session, &conn->out, CONN_OUT_BYTES, &ignored);
	conn->closing = true;
}

static void conn_recv(struct conn *conn, struct span bytes);
static void conn_tell_drain(struct conn *conn);

static void conn_sniff(struct conn *conn, struct span bytes)
{
	size_t room = sizeof(conn->sniffed) - conn->sniffed_n;
	size_t take = bytes.n < room ? bytes.n : room;
	memcpy(conn->sniffed + conn->sniffed_n, bytes.p, take);
	conn->sniffed_n += take;
	bytes = span_skip(bytes, take);
	struct span seen = span_of(conn->sniffed, conn->sniffed_n);
	if (memcmp(seen.p, preface, seen.n) != 0) {
		conn->state = CONN_HTTP1;
		conn->http1 = conn->ops->on_http1(conn);
	} else if (seen.n == sizeof(conn->sniffed)) {
		conn_begin_http2(conn);
	} else {
		return;
	}
	if (conn->draining && conn->state != CONN_DEAD)
		conn_tell_drain(conn);
	conn_recv(conn, seen);
	if (bytes.n && !conn->closing)
		conn_recv(conn, bytes);
}

static void conn_recv(struct conn *conn, struct span bytes)
{
	switch (conn->state) {
	case CONN_SNIFF: conn_sniff(conn, bytes); break;
	case CONN_HTTP2: conn_recv_http2(conn, bytes); break;
	case CONN_HTTP1: http1_recv(conn->http1, bytes); break;
	case CONN_LINGER:
	case CONN_DEAD: break;
	}
}

static void conn_on_readable(evutil_socket_t fd, short what, void *arg);

/* The peer has sent its last byte and still wants ours. Level-triggered, its end would be told over and over;
 * edge-triggered, what comes after it is told: that the connection was reset. All events of a descriptor must be
 * of one sort. */
static void conn_watch_reset(struct conn *conn)
{
	event_del(&conn->readable);
	event_del(&conn->writable);
	event_assign(&conn->readable, loop_base(conn->loop), conn->fd, EV_READ | EV_ET | EV_PERSIST,
		     conn_on_readable, conn);
	event_assign(&conn->writable, loop_base(conn->loop), conn->fd, EV_WRITE | EV_ET, conn_on_writable, conn);
	event_add(&conn->readable, NULL);
}

static void conn_on_eof(struct conn *conn)
{
	if (conn->in_ended) {
		/* read() goes on to say that the input is over; what came after that is told here. */
		int errno_value = 0;
		socklen_t n = sizeof(errno_value);
		getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &errno_value, &n);
		if (errno_value)
			conn_fail_errno(conn, errno_value, "read from");
		return;
	}
	conn->in_ended = true;
	if (conn->state == CONN_HTTP1 && http1_on_eof(conn->http1)) {
		conn_watch_reset(conn);
		return;
	}
	bool calls = conn->session && session_stream_count(conn->session) > 0;
	if (calls)
		err_set(&conn->why, ERR_UNAVAILABLE, "%s closed the connection", conn->peer);
	conn_die(conn);
}

static void conn_on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = OBJ_CAST(struct conn, arg, CONN_MAGIC);
	uint8_t *buffer = loop_read_buffer(conn->loop);
	conn->busy++;
	loop_count(conn->loop);
	(void)what;
	/* What it still sends is nobody's business until all is written, or that fails. */
	if (conn->closing && conn->state != CONN_LINGER && !conn->in_ended)
		event_del(&conn->readable);
	for (size_t total = 0; conn->state != CONN_DEAD && total < LIMIT_CONNECTION_TURN_BYTES;) {
		if (conn->closing && conn->state != CONN_LINGER)
			break;
		ssize_t n = read(fd, buffer, LOOP_READ_BYTES);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			conn_fail_errno(conn, errno, "read from");
		else if (n == 0)
			conn_on_eof(conn);
		else
			conn_recv(conn, span_of(buffer, (size_t)n));
		if (n <= 0 || (size_t)n < LOOP_READ_BYTES || conn->read_paused)
			break;
		total += (size_t)n;
	}
	if (conn->state != CONN_LINGER)
		conn_flush_later(conn);
	conn_leave(conn);
}

void conn_pause_read(struct conn *conn, bool pause)
{
	if (conn->read_paused == pause || conn->state == CONN_DEAD || conn->state == CONN_LINGER ||
	    conn->in_ended)
		return;
	conn->read_paused = pause;
	if (pause)
		event_del(&conn->readable);
	else
		event_add(&conn->readable, NULL);
}

/* ---- what the session tells -------------------------------------------------------------------------- */

static void conn_on_request(struct stream *s, void *user)
{
	struct conn *conn = OBJ_CAST(struct conn, user, CONN_MAGIC);
	conn_touch(conn);
	if (conn->owner)
		conn->ops->on_request(conn, s);
}

static void conn_on_settings(struct session *session, void *user)
{
	struct conn *conn = OBJ_CAST(struct conn, user, CONN_MAGIC);
	(void)session;
	if (conn->owner && conn->ops->on_settings)
		conn->ops->on_settings(conn);
}

static void conn_on_stream_closed(struct session *session, void *user)
{
	struct conn *conn = OBJ_CAST(struct conn, user, CONN_MAGIC);
	(void)session;
	if (conn->owner && conn->ops->on_room)
		conn->ops->on_room(conn);
	if (conn->draining)
		conn_flush_later(conn);
}

static void conn_on_goaway(struct session *session, uint32_t http2_error, void *user)
{
	struct conn *conn = OBJ_CAST(struct conn, user, CONN_MAGIC);
	(void)session;
	if (http2_error)
		err_set(&conn->why, ERR_UNAVAILABLE, "%s sent GOAWAY with error %u", conn->peer, http2_error);
	conn->draining = true;
	conn_on_stream_closed(session, user);
}

void conn_drain_now(struct conn *conn)
{
	if (!conn->draining || !conn->config.server || conn->goaway_sent)
		return;
	if (conn->state == CONN_SNIFF)
		conn_close_after_flush(conn);
	if (conn->state == CONN_HTTP1)
		http1_drain_now(conn->http1);
	if (conn->state != CONN_HTTP2)
		return;
	session_goaway(conn->session, HTTP2_NO_ERROR);
	conn->goaway_sent = true;
	conn_flush_later(conn);
}

static void conn_on_ping_ack(struct session *session, void *user)
{
	(void)session;
	/* The answer to the ping behind the shutdown notice: what was on its way has arrived. */
	conn_drain_now(OBJ_CAST(struct conn, user, CONN_MAGIC));
}

static void conn_on_output(struct session *session, void *user)
{
	struct conn *conn = OBJ_CAST(struct conn, user, CONN_MAGIC);
	(void)session;
	conn_flush_later(conn);
}

static const struct session_ops conn_session_ops = {
	.on_request = conn_on_request,
	.on_settings = conn_on_settings,
	.on_goaway = conn_on_goaway,
	.on_ping_ack = conn_on_ping_ack,
	.on_stream_closed = conn_on_stream_closed,
	.on_output = conn_on_output,
};

static void conn_begin_http2(struct conn *conn)
{
	conn->session = session_new(&conn->config, &conn_session_ops, conn);
	conn->state = CONN_HTTP2;
	if (conn->session) {
		conn_flush_later(conn);
		return;
	}
	err_set(&conn->why, ERR_NOMEM, "connection with %s: out of memory", conn->peer);
	conn_die(conn);
}

/* ---- life -------------------------------------------------------------------------------------------- */

static void conn_name_peer(struct conn *conn)
{
	struct sockaddr_storage addr;
	socklen_t addr_n = sizeof(addr);
	char host[48], port[8];
	memcpy(conn->peer, "unknown", 8);
	if (getpeername(conn->fd, (struct sockaddr *)&addr, &addr_n) ||
	    getnameinfo((struct sockaddr *)&addr, addr_n, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	const char *text = strncmp(host, "::ffff:", 7) == 0 ? host + 7 : host;
	bool v6 = strchr(text, ':') != NULL;
	snprintf(conn->peer, sizeof(conn->peer), v6 ? "[%s]:%s" : "%s:%s", text, port);
}

/* A peer that vanished without a word is found by TCP's own probes: HTTP/2 PINGs while idle would make gRPC
 * servers end the connection ("too_many_pings"). None of these can fail on a TCP socket, or matter. */
static void conn_tune(int fd)
{
	int one = 1, idle_s = 60, interval_s = 15, count = 4;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

struct conn *conn_new(struct loop *loop, int fd, const struct session_config *config,
		      const struct conn_ops *ops, void *owner)
{
	struct conn *conn = mem_xalloc(sizeof(*conn));
	conn->magic = CONN_MAGIC;
	conn->loop = loop;
	conn->fd = fd;
	conn->config = *config;
	conn->ops = ops;
	conn->owner = owner;
	conn->flush_task.run = conn_run_flush;
	outq_init(&conn->out, CONN_BLOCK_BYTES);
	conn_name_peer(conn);
	conn_tune(fd);
	event_assign(&conn->readable, loop_base(loop), fd, EV_READ | EV_PERSIST, conn_on_readable, conn);
	event_assign(&conn->writable, loop_base(loop), fd, EV_WRITE, conn_on_writable, conn);
	event_add(&conn->readable, NULL);
	conn->busy++;
	if (!config->server)
		conn_begin_http2(conn);
	conn->busy--;
	if (conn->state == CONN_DEAD)
		loop_defer(loop, &conn->flush_task); /* frees it, and tells, when the caller has returned */
	return conn;
}

static void conn_tell_drain(struct conn *conn)
{
	if (conn->state == CONN_HTTP2 && conn->config.server) {
		session_shutdown_notice(conn->session);
		session_ping(conn->session);
	}
	if (conn->state == CONN_HTTP1)
		http1_drain(conn->http1);
	conn_flush_later(conn);
}

void conn_drain(struct conn *conn)
{
	if (conn->draining || conn->state == CONN_DEAD)
		return;
	conn->draining = true;
	conn_tell_drain(conn);
}

void conn_touch(struct conn *conn)
{
	conn->idle_ticks = 0;
}

bool conn_idle(const struct conn *conn)
{
	if (conn->out.n)
		return false;
	if (conn->http1)
		return http1_idle(conn->http1);
	return !conn->session || session_stream_count(conn->session) == 0;
}

void conn_close_after_flush(struct conn *conn)
{
	conn->closing = true;
	conn_flush_later(conn);
}

void conn_finish(struct conn *conn)
{
	must(conn->magic == CONN_MAGIC);
	conn->busy++;
	if (conn->busy == 1)
		conn_flush(conn);
	conn_abort(conn, NULL);
	conn_leave(conn);
}
