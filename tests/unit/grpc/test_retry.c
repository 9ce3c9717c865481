#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/endian.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/conn.h"
#include "rig.h"

/* What a server refuses without having looked at it is begun again, once, on another connection; nothing else is.
 * gRPC's rule of transparent retries; RFC 9113, 5.1.2, 6.8 and 8.7. */

TestSuite(retry, .timeout = 60);

#define CONNS_MAX 8
#define STREAMS_MAX 16

/* A server by hand: it keeps what it is asked, and the test says what becomes of it. */
struct hand {
	int fd, port;
	struct loop *loop;
	struct conn *conns[CONNS_MAX];
	unsigned conn_n, stream_n;
	struct hand_stream {
		struct hand *hand;
		struct stream *stream;
		unsigned conn; /* its number */
		struct buf bytes;
		bool ended, closed;
	} streams[STREAMS_MAX];
	unsigned refuse; /* so many streams are refused at once */
};

static void hand_on_data(struct stream *s, struct span piece)
{
	struct hand_stream *hs = s->user;
	must(buf_append_span(&hs->bytes, piece) == ERR_OK);
}

static void hand_on_end(struct stream *s)
{
	struct hand_stream *hs = s->user;
	hs->ended = true;
}

static void hand_on_close(struct stream *s, uint32_t http2_error, bool lost)
{
	struct hand_stream *hs = s->user;
	(void)http2_error;
	(void)lost;
	hs->closed = true;
	hs->stream = NULL;
	stream_detach(s);
}

static const struct stream_ops hand_ops = {
	.on_data = hand_on_data, .on_end = hand_on_end, .on_close = hand_on_close};

static void hand_on_request(struct conn *conn, struct stream *s)
{
	struct hand *hand = conn->owner;
	must(hand->stream_n < STREAMS_MAX);
	struct hand_stream *hs = &hand->streams[hand->stream_n++];
	*hs = (struct hand_stream){.hand = hand, .stream = stream_ref(s)};
	while (hand->conns[hs->conn] != conn)
		hs->conn++;
	buf_init(&hs->bytes, 1 * MIB);
	s->ops = &hand_ops;
	s->user = hs;
	if (hand->refuse) {
		hand->refuse--;
		stream_reset(s, HTTP2_REFUSED_STREAM);
	}
}

static struct http1 *hand_on_http1(struct conn *conn)
{
	(void)conn;
	must(false); /* the client speaks HTTP/2 alone */
	return NULL;
}

static void hand_on_closed(struct conn *conn, const struct err *why)
{
	struct hand *hand = conn->owner;
	(void)why;
	for (unsigned i = 0; i < hand->conn_n; i++)
		if (hand->conns[i] == conn)
			hand->conns[i] = NULL;
}

static const struct conn_ops hand_conn_ops = {
	.on_request = hand_on_request, .on_http1 = hand_on_http1, .on_closed = hand_on_closed};

static void hand_listen(struct hand *hand)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t addr_n = sizeof(addr);
	*hand = (struct hand){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
	hand->loop = loop_new();
	must(bind(hand->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(hand->fd, 8) == 0);
	must(getsockname(hand->fd, (struct sockaddr *)&addr, &addr_n) == 0);
	hand->port = ntohs(addr.sin_port);
}

static void hand_tick(void *arg)
{
	(void)arg;
}

static void hand_turn(struct hand *hand)
{
	static const struct session_config config = {
		.server = true, .window_bytes = 256 * KIB, .connection_window_bytes = 1 * MIB};
	int fd = hand->fd < 0 ? -1 : accept4(hand->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		must(hand->conn_n < CONNS_MAX);
		hand->conns[hand->conn_n++] = conn_new(hand->loop, fd, &config, &hand_conn_ops, hand);
	}
	struct loop_timer *timer = loop_timer_new(hand->loop, hand_tick, NULL);
	loop_timer_set(timer, 5);
	loop_run_once(hand->loop, true);
	loop_timer_free(timer);
}

#define HAND_UNTIL(hand, cond)                                                     \
	do {                                                                       \
		int64_t hand_end = rig_now_ms() + 10000;                           \
		while (!(cond) && rig_now_ms() < hand_end)                         \
			hand_turn(hand);                                           \
		cr_assert(cond, "not within 10 s: %s", #cond);                     \
	} while (0)

static void hand_answer(struct hand_stream *hs, struct span message)
{
	struct header head[] = {{SPAN(":status"), SPAN("200")},
				{SPAN("content-type"), SPAN("application/grpc")}};
	struct header status = {SPAN("grpc-status"), SPAN("0")};
	uint8_t prefix[5] = {0};
	put_be32(prefix + 1, (uint32_t)message.n);
	stream_respond(hs->stream, &(struct headers){head, 2}, false);
	stream_write(hs->stream, span_of(prefix, sizeof(prefix)));
	stream_write(hs->stream, message);
	stream_end(hs->stream, &(struct headers){&status, 1});
}

static void hand_close(struct hand *hand)
{
	for (unsigned i = 0; i < hand->conn_n; i++)
		if (hand->conns[i])
			conn_abort(hand->conns[i], NULL);
	for (unsigned i = 0; i < hand->stream_n; i++)
		buf_release(&hand->streams[i].bytes);
	if (hand->fd >= 0)
		close(hand->fd);
	loop_free(hand->loop);
}

static struct grpc_channel *hand_channel(struct hand *hand, const struct grpc_channel_config *more)
{
	char target[32];
	struct grpc_channel_config config = *more;
	snprintf(target, sizeof(target), "127.0.0.1:%d", hand->port);
	config.target = target;
	return grpc_channel_new(hand->loop, &config, NULL, NULL);
}

static struct grpc_call *hand_call(struct grpc_channel *ch, struct got *got)
{
	struct header h = {SPAN("x-ask"), SPAN("me")};
	got_init(got);
	return grpc_channel_call(ch, "/test.Echo/Chat", &(struct headers){&h, 1}, -1, false, &got_ops, got);
}

static const struct grpc_channel_config plain = {0};

Test(retry, a_refused_stream_is_begun_again_on_another_connection)
{
	struct hand hand;
	struct got got;
	hand_listen(&hand);
	hand.refuse = 1;
	struct grpc_channel *ch = hand_channel(&hand, &plain);
	struct grpc_call *call = hand_call(ch, &got);
	grpc_call_send(call, SPAN("one"));
	grpc_call_send(call, SPAN("two"));
	grpc_call_half_close(call);
	HAND_UNTIL(&hand, hand.stream_n == 2 && hand.streams[1].ended);
	cr_assert_eq(hand.streams[0].conn, 0);
	cr_assert_eq(hand.streams[1].conn, 1);
	cr_assert(span_eq(buf_span(&hand.streams[1].bytes), SPAN("\0\0\0\0\3one\0\0\0\0\3two")));
	const struct headers *asked = &hand.streams[1].stream->headers.h;
	cr_assert(span_eq(headers_get(asked, ":path"), SPAN("/test.Echo/Chat")));
	cr_assert(span_eq(headers_get(asked, "x-ask"), SPAN("me")));
	cr_assert_eq(got.done, 0);
	hand_answer(&hand.streams[1], SPAN("yes"));
	HAND_UNTIL(&hand, got.done);
	cr_assert_eq(got.code, GRPC_OK, "%s", got.text);
	cr_assert(span_eq(buf_span(&got.bytes), SPAN("yes")));
	grpc_channel_free(ch);
	got_release(&got);
	hand_close(&hand);
}

/* What is sent after the refusal follows what was sent before it. */
Test(retry, a_call_that_goes_on_sending_loses_nothing)
{
	struct hand hand;
	struct got got;
	hand_listen(&hand);
	hand.refuse = 1;
	struct grpc_channel *ch = hand_channel(&hand, &plain);
	struct grpc_call *call = hand_call(ch, &got);
	grpc_call_send(call, SPAN("a"));
	HAND_UNTIL(&hand, hand.stream_n == 2);
	grpc_call_send(call, SPAN("b"));
	grpc_call_half_close(call);
	HAND_UNTIL(&hand, hand.streams[1].ended);
	cr_assert(span_eq(buf_span(&hand.streams[1].bytes), SPAN("\0\0\0\0\1a\0\0\0\0\1b")));
	grpc_call_cancel(call);
	HAND_UNTIL(&hand, got.done);
	grpc_channel_free(ch);
	got_release(&got);
	hand_close(&hand);
}

Test(retry, the_second_refusal_is_told)
{
	struct hand hand;
	struct got got;
	hand_listen(&hand);
	hand.refuse = 9;
	struct grpc_channel *ch = hand_channel(&hand, &plain);
	grpc_call_send(hand_call(ch, &got), SPAN("x"));
	HAND_UNTIL(&hand, got.done);
	cr_assert_eq(hand.stream_n, 2);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	cr_assert(got.not_sent);
	cr_assert(got.reset);
	grpc_channel_free(ch);
	got_release(&got);
	hand_close(&hand);
}

Test(retry, a_goaway_moves_what_it_leaves_out)
{
	struct hand hand;
	struct got got[2];
	static const uint8_t goaway[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0};
	hand_listen(&hand);
	struct grpc_channel *ch = hand_channel(&hand, &plain);
	for (int i = 0; i < 2; i++)
		grpc_call_send(hand_call(ch, &got[i]), i ? SPAN("second") : SPAN("first"));
	HAND_UNTIL(&hand, hand.stream_n == 2 && hand.streams[1].bytes.n == 11);
	must(outq_append(&hand.conns[0]->out, goaway, sizeof(goaway)) == ERR_OK);
	conn_flush_later(hand.conns[0]);
	HAND_UNTIL(&hand, hand.stream_n == 3 && hand.streams[2].bytes.n == 11);
	cr_assert_eq(hand.streams[2].conn, 1);
	cr_assert(span_eq(buf_span(&hand.streams[2].bytes), SPAN("\0\0\0\0\6second")));
	cr_assert_eq(got[0].done + got[1].done, 0);
	hand_answer(&hand.streams[0], SPAN("1"));
	hand_answer(&hand.streams[2], SPAN("2"));
	HAND_UNTIL(&hand, got[0].done && got[1].done);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(got[i].code, GRPC_OK, "%s", got[i].text);
	cr_assert(span_eq(buf_span(&got[1].bytes), SPAN("2")));
	grpc_channel_free(ch);
	for (int i = 0; i < 2; i++)
		got_release(&got[i]);
	hand_close(&hand);
}

/* A refusal after the server's headers contradicts them: it may have done anything. */
Test(retry, what_was_begun_is_not_begun_again)
{
	struct hand hand;
	struct got got;
	struct header head[] = {{SPAN(":status"), SPAN("200")},
				{SPAN("content-type"), SPAN("application/grpc")}};
	hand_listen(&hand);
	struct grpc_channel *ch = hand_channel(&hand, &plain);
	grpc_call_send(hand_call(ch, &got), SPAN("x"));
	HAND_UNTIL(&hand, hand.stream_n == 1);
	stream_respond(hand.streams[0].stream, &(struct headers){head, 2}, false);
	HAND_UNTIL(&hand, got.headers == 1);
	stream_reset(hand.streams[0].stream, HTTP2_REFUSED_STREAM);
	HAND_UNTIL(&hand, got.done);
	cr_assert_eq(hand.stream_n, 1);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	grpc_channel_free(ch);
	got_release(&got);
	hand_close(&hand);
}

Test(retry, other_resets_and_lost_connections_are_told)
{
	for (int lost = 0; lost < 2; lost++) {
		struct hand hand;
		struct got got;
		hand_listen(&hand);
		struct grpc_channel *ch = hand_channel(&hand, &plain);
		grpc_call_send(hand_call(ch, &got), SPAN("x"));
		HAND_UNTIL(&hand, hand.stream_n == 1);
		if (lost)
			conn_abort(hand.conns[0], NULL);
		else
			stream_reset(hand.streams[0].stream, HTTP2_INTERNAL_ERROR);
		HAND_UNTIL(&hand, got.done);
		cr_assert_eq(hand.stream_n, 1);
		cr_assert_not(got.not_sent);
		grpc_channel_free(ch);
		got_release(&got);
		hand_close(&hand);
	}
}

Test(retry, more_than_is_kept_cannot_be_sent_again)
{
	struct hand hand;
	struct got got;
	hand_listen(&hand);
	hand.refuse = 1;
	struct grpc_channel *ch = hand_channel(&hand, &plain);
	struct grpc_call *call = hand_call(ch, &got);
	uint8_t *large = mem_xalloc(LIMIT_RESEND_BYTES);
	grpc_call_send(call, span_of(large, LIMIT_RESEND_BYTES));
	HAND_UNTIL(&hand, got.done);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	cr_assert(got.not_sent);
	mem_free(large);
	grpc_channel_free(ch);
	got_release(&got);
	hand_close(&hand);
}

/* The deadline runs on, and a call that waits to be begun again can be cancelled. */
Test(retry, a_refused_call_that_finds_no_connection_fails)
{
	struct hand hand;
	struct got got;
	hand_listen(&hand);
	struct grpc_channel_config config = {.peer = "the function", .advice = "start it"};
	struct grpc_channel *ch = hand_channel(&hand, &config);
	grpc_call_send(hand_call(ch, &got), SPAN("x"));
	HAND_UNTIL(&hand, hand.stream_n == 1);
	close(hand.fd);
	hand.fd = -1;
	stream_reset(hand.streams[0].stream, HTTP2_REFUSED_STREAM);
	HAND_UNTIL(&hand, got.done);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	cr_assert(got.not_sent);
	char begin[64];
	snprintf(begin, sizeof(begin), "the function at 127.0.0.1:%d cannot be reached (", hand.port);
	cr_assert_eq(strncmp(got.text, begin, strlen(begin)), 0, "%s", got.text);
	cr_assert(strstr(got.text, "): start it"), "%s", got.text);
	/* The connection that is left does not make the channel look well; calls still find it. */
	cr_assert_neq(grpc_channel_state(ch), GRPC_CHANNEL_READY);
	struct got more;
	grpc_call_send(hand_call(ch, &more), SPAN("x"));
	HAND_UNTIL(&hand, hand.stream_n == 2);
	hand_answer(&hand.streams[1], SPAN("y"));
	HAND_UNTIL(&hand, more.done);
	cr_assert_eq(more.code, GRPC_OK);
	grpc_channel_free(ch);
	got_release(&got);
	got_release(&more);
	hand_close(&hand);
}
