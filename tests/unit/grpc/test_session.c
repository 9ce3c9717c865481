#include <config.h>

#include <criterion/criterion.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/session.h"

/* Two sessions, a client's and a server's, joined in memory: the bytes of one go to the other in pieces of
 * any size. The server echoes a request's body once it is whole, with a trailer. */

TestSuite(session, .timeout = 60);

struct pair {
	struct session *client, *server;
	struct outq to_server, to_client;
	uint64_t random;
	size_t chunk;     /* of what is handed over at once; 0: random */
	bool failed;      /* some function failed; the scenario is over */
	size_t handed[2]; /* bytes to server, to client */
	unsigned requests, server_ended, server_closed, settings, goaways;
	uint32_t server_error;
	bool answers_early, never_answers, holds;
	bool too_large; /* the newest request's headers */
};

struct peer { /* the owner of one stream on either side */
	struct pair *pair;
	struct stream *stream;
	struct buf bytes;
	unsigned headers, ended, closed, writable;
	uint32_t error;
	bool lost, trailer;
};

static uint64_t pair_random(struct pair *p)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 7;
	p->random ^= p->random << 17;
	return p->random;
}

static struct peer *peer_new(struct pair *pair)
{
	struct peer *peer = mem_xalloc(sizeof(*peer));
	peer->pair = pair;
	buf_init(&peer->bytes, 64 * MIB);
	return peer;
}

static void peer_free(struct peer *peer)
{
	if (peer->stream)
		stream_detach(peer->stream);
	buf_release(&peer->bytes);
	mem_free(peer);
}

/* ---- the server's side --------------------------------------------------------------------------- */

static void echo_on_data(struct stream *s, struct span piece)
{
	struct peer *peer = s->user;
	if (buf_append_span(&peer->bytes, piece))
		stream_reset(s, HTTP2_INTERNAL_ERROR);
}

static void echo_on_end(struct stream *s)
{
	struct peer *peer = s->user;
	struct header status = {SPAN(":status"), SPAN("200")}, trailer = {SPAN("x-end"), SPAN("yes")};
	struct headers head = {&status, 1}, trailers = {&trailer, 1};
	peer->pair->server_ended++;
	if (peer->pair->never_answers)
		return;
	stream_respond(s, &head, false);
	stream_write(s, buf_span(&peer->bytes));
	stream_end(s, &trailers);
}

static void echo_on_close(struct stream *s, uint32_t http2_error, bool lost)
{
	struct peer *peer = s->user;
	(void)lost;
	peer->pair->server_closed++;
	peer->pair->server_error = http2_error;
	peer_free(peer);
}

static const struct stream_ops echo_ops = {
	.on_data = echo_on_data, .on_end = echo_on_end, .on_close = echo_on_close};

static void pair_on_request(struct stream *s, void *user)
{
	struct pair *pair = user;
	struct peer *peer = peer_new(pair);
	pair->requests++;
	pair->too_large = s->headers_too_large;
	peer->stream = stream_ref(s);
	s->ops = &echo_ops;
	s->user = peer;
	if (pair->holds && pair->requests == 1)
		stream_hold(s, true);
	if (pair->answers_early) {
		struct header status = {SPAN(":status"), SPAN("200")};
		struct headers head = {&status, 1};
		stream_respond(s, &head, true);
	}
}

static void pair_on_settings(struct session *session, void *user)
{
	struct pair *pair = user;
	(void)session;
	pair->settings++;
}

static void pair_on_goaway(struct session *session, uint32_t http2_error, void *user)
{
	struct pair *pair = user;
	(void)session;
	(void)http2_error;
	pair->goaways++;
}

static const struct session_ops pair_ops = {
	.on_request = pair_on_request, .on_settings = pair_on_settings, .on_goaway = pair_on_goaway};

/* ---- the client's side --------------------------------------------------------------------------- */

static void peer_on_headers(struct stream *s)
{
	((struct peer *)s->user)->headers++;
}

static void peer_on_end(struct stream *s)
{
	struct peer *peer = s->user;
	peer->ended++;
	peer->trailer = span_eq(headers_get(&s->trailers.h, "x-end"), SPAN("yes"));
}

static void peer_on_writable(struct stream *s)
{
	((struct peer *)s->user)->writable++;
}

static void peer_on_close(struct stream *s, uint32_t http2_error, bool lost)
{
	struct peer *peer = s->user;
	peer->closed++;
	peer->error = http2_error;
	peer->lost = lost;
}

static const struct stream_ops peer_ops = {.on_headers = peer_on_headers,
					   .on_data = echo_on_data,
					   .on_end = peer_on_end,
					   .on_writable = peer_on_writable,
					   .on_close = peer_on_close};

static const struct header request_items[] = {{SPAN(":method"), SPAN("POST")},
					      {SPAN(":scheme"), SPAN("http")},
					      {SPAN(":path"), SPAN("/x")},
					      {SPAN(":authority"), SPAN("here")},
					      {SPAN("te"), SPAN("trailers")}};
static const struct headers request_headers = {request_items, ARRAY_LEN(request_items)};

static struct peer *pair_request(struct pair *pair, struct span body, bool end)
{
	struct peer *peer = peer_new(pair);
	peer->stream = stream_new(&peer_ops, peer);
	if (!peer->stream || session_start(pair->client, peer->stream, &request_headers, false)) {
		pair->failed = true;
		return peer;
	}
	stream_write(peer->stream, body);
	if (end)
		stream_end(peer->stream, NULL);
	stream_written(peer->stream);
	return peer;
}

/* ---- the pipe ------------------------------------------------------------------------------------- */

static void pair_start(struct pair *pair, size_t window_bytes, size_t chunk)
{
	*pair = (struct pair){.random = 88172645463325252u, .chunk = chunk};
	struct session_config config = {.window_bytes = window_bytes, .connection_window_bytes = 8 * MIB};
	outq_init(&pair->to_server, 4096);
	outq_init(&pair->to_client, 4096);
	pair->client = session_new(&config, &pair_ops, pair);
	config.server = true;
	pair->server = session_new(&config, &pair_ops, pair);
	if (!pair->client || !pair->server)
		pair->failed = true;
}

static void pair_stop(struct pair *pair)
{
	if (pair->client)
		session_abort(pair->client);
	if (pair->server)
		session_abort(pair->server);
	session_free(pair->client);
	session_free(pair->server);
	outq_release(&pair->to_server);
	outq_release(&pair->to_client);
}

static bool pair_carry(struct pair *pair, struct outq *from, struct session *to, size_t *handed)
{
	struct iovec iov;
	struct err err = {0};
	if (outq_iov(from, &iov, 1) == 0)
		return false;
	size_t n = pair->chunk ? pair->chunk : 1 + pair_random(pair) % 5000;
	if (n > iov.iov_len)
		n = iov.iov_len;
	/* A copy of its own, so that a sanitizer sees who looks beyond it. */
	uint8_t *bytes = mem_xdup(iov.iov_base, n);
	if (session_recv(to, span_of(bytes, n), &err))
		pair->failed = true;
	mem_free(bytes);
	outq_consume(from, n);
	*handed += n;
	return true;
}

/* Until nothing moves any more. */
static void pair_pump(struct pair *pair)
{
	bool moved = true;
	struct err err = {0};
	if (pair->failed)
		return;
	while (moved && !pair->failed) {
		if (session_send(pair->client, &pair->to_server, 64 * KIB, &err) ||
		    session_send(pair->server, &pair->to_client, 64 * KIB, &err))
			pair->failed = true;
		moved = pair_carry(pair, &pair->to_server, pair->server, &pair->handed[0]);
		moved |= pair_carry(pair, &pair->to_client, pair->client, &pair->handed[1]);
	}
}

static struct span bytes_of(struct buf *b, size_t n)
{
	buf_init(b, 64 * MIB);
	cr_assert_eq(buf_reserve(b, n), ERR_OK);
	for (size_t i = 0; i < n; i++)
		b->p[i] = (uint8_t)(i * 31 + i / 253);
	b->n = n;
	return buf_span(b);
}

/* ---- tests ----------------------------------------------------------------------------------------- */

static void echo_scenario(size_t window_bytes, size_t chunk, size_t n)
{
	struct pair pair;
	struct buf body;
	bytes_of(&body, n);
	pair_start(&pair, window_bytes, chunk);
	struct peer *a = pair_request(&pair, buf_span(&body), true);
	struct peer *b = pair_request(&pair, SPAN(""), true);
	pair_pump(&pair);
	cr_assert_not(pair.failed);
	cr_assert_eq(pair.server_ended, 2);
	cr_assert_eq(pair.server_closed, 2);
	cr_assert_eq(pair.server_error, 0);
	cr_assert_eq(pair.settings, 2);
	cr_assert_eq(a->headers, 1);
	cr_assert_eq(a->ended, 1);
	cr_assert_eq(a->closed, 1);
	cr_assert_eq(a->error, 0);
	cr_assert(a->trailer && b->trailer);
	cr_assert(span_eq(buf_span(&a->bytes), buf_span(&body)));
	cr_assert_eq(b->bytes.n, 0);
	cr_assert_eq(session_stream_count(pair.client), 0);
	peer_free(a);
	peer_free(b);
	pair_stop(&pair);
	buf_release(&body);
}

Test(session, echoes_byte_by_byte)
{
	echo_scenario(64 * KIB, 1, 3000);
}

Test(session, echoes_in_random_pieces)
{
	echo_scenario(64 * KIB, 0, 300000);
}

/* Red under the planted bug "window-update-forgotten". */
Test(session, large_message_needs_window_updates)
{
	echo_scenario(64 * KIB, 16384, 4 * MIB);
}

/* Red under the planted bug "reset-instead-of-half-close". */
Test(session, half_close_is_no_reset)
{
	struct pair pair;
	pair_start(&pair, 64 * KIB, 0);
	pair.never_answers = true;
	struct peer *peer = pair_request(&pair, SPAN("all"), false);
	pair_pump(&pair);
	cr_assert_eq(pair.server_ended, 0);
	stream_end(peer->stream, NULL);
	pair_pump(&pair);
	cr_assert_eq(pair.server_ended, 1);
	cr_assert_eq(pair.server_closed, 0);
	cr_assert_eq(peer->closed, 0);
	pair_stop(&pair);
	cr_assert(peer->lost);
	peer_free(peer);
}

Test(session, early_answer_stops_the_client_without_an_error)
{
	struct pair pair;
	pair_start(&pair, 64 * KIB, 0);
	pair.answers_early = true;
	struct peer *peer = pair_request(&pair, SPAN("beginning"), false);
	pair_pump(&pair);
	cr_assert_eq(peer->ended, 1);
	cr_assert_eq(peer->closed, 1);
	cr_assert_eq(peer->error, HTTP2_NO_ERROR);
	cr_assert_eq(pair.server_error, HTTP2_NO_ERROR);
	cr_assert_not(pair.failed);
	peer_free(peer);
	pair_stop(&pair);
}

Test(session, a_held_stream_stops_itself_and_no_other)
{
	struct pair pair;
	struct buf body;
	bytes_of(&body, 1 * MIB);
	pair_start(&pair, 64 * KIB, 0);
	pair.holds = true;
	struct peer *held = pair_request(&pair, buf_span(&body), true);
	pair_pump(&pair);
	cr_assert_eq(pair.requests, 1);
	cr_assert_lt(pair.handed[0], 70 * KIB, "no more than the window has come");
	cr_assert_eq(pair.server_ended, 0);
	struct peer *free_one = pair_request(&pair, buf_span(&body), true);
	pair_pump(&pair);
	cr_assert_eq(free_one->ended, 1);
	cr_assert(span_eq(buf_span(&free_one->bytes), buf_span(&body)));
	cr_assert_eq(held->ended, 0);
	peer_free(held);
	peer_free(free_one);
	pair_stop(&pair);
	buf_release(&body);
}

Test(session, a_full_queue_asks_the_producer_to_wait)
{
	struct pair pair;
	struct buf body;
	bytes_of(&body, 1 * MIB);
	pair_start(&pair, 64 * KIB, 0);
	struct peer *peer = pair_request(&pair, buf_span(&body), false);
	cr_assert_not(stream_writable(peer->stream));
	pair_pump(&pair);
	cr_assert_eq(peer->writable, 1);
	cr_assert(stream_writable(peer->stream));
	stream_end(peer->stream, NULL);
	pair_pump(&pair);
	cr_assert_eq(peer->bytes.n, 1 * MIB);
	cr_assert_eq(peer->writable, 1);
	peer_free(peer);
	pair_stop(&pair);
	buf_release(&body);
}

static void count_free(void *arg)
{
	++*(unsigned *)arg;
}

Test(session, bytes_by_reference_are_given_back_once)
{
	struct pair pair;
	struct buf body;
	unsigned freed = 0;
	bytes_of(&body, 200000);
	pair_start(&pair, 64 * KIB, 0);
	struct peer *peer = pair_request(&pair, SPAN(""), false);
	stream_write_ref(peer->stream, buf_span(&body), count_free, &freed);
	stream_end(peer->stream, NULL);
	cr_assert_eq(freed, 0);
	pair_pump(&pair);
	cr_assert_eq(freed, 1);
	cr_assert(span_eq(buf_span(&peer->bytes), buf_span(&body)));
	/* After the end, and on a stream that is reset, it comes back at once. */
	stream_write_ref(peer->stream, buf_span(&body), count_free, &freed);
	cr_assert_eq(freed, 2);
	struct peer *other = pair_request(&pair, SPAN(""), false);
	pair_pump(&pair);
	stream_write_ref(other->stream, buf_span(&body), count_free, &freed);
	stream_reset(other->stream, HTTP2_CANCEL);
	cr_assert_eq(freed, 3);
	pair_pump(&pair);
	cr_assert_eq(other->closed, 1);
	cr_assert_eq(pair.server_error, HTTP2_CANCEL);
	peer_free(peer);
	peer_free(other);
	pair_stop(&pair);
	buf_release(&body);
}

Test(session, after_goaway_no_stream_is_started)
{
	struct pair pair;
	pair_start(&pair, 64 * KIB, 0);
	pair_pump(&pair);
	cr_assert(session_can_start(pair.client));
	session_goaway(pair.server, HTTP2_NO_ERROR);
	/* On its way while the GOAWAY is: refused, so that it may be tried elsewhere. */
	struct peer *peer = pair_request(&pair, SPAN("late"), true);
	pair_pump(&pair);
	cr_assert_eq(pair.goaways, 1);
	cr_assert_not(session_can_start(pair.client));
	cr_assert_eq(peer->closed, 1);
	cr_assert_eq(peer->error, HTTP2_REFUSED_STREAM);
	cr_assert_eq(pair.requests, 0);
	peer_free(peer);
	pair_stop(&pair);
}

/* Nothing of it has left: that is a refusal, not an error of ours. */
Test(session, headers_that_a_goaway_overtakes_were_never_sent)
{
	struct pair pair;
	struct err err = {0};
	static const uint8_t goaway[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
	pair_start(&pair, 64 * KIB, 0);
	pair_pump(&pair);
	struct peer *peer = pair_request(&pair, SPAN("late"), true);
	cr_assert_eq(session_recv(pair.client, span_of(goaway, sizeof(goaway)), &err), ERR_OK);
	pair_pump(&pair);
	cr_assert_eq(peer->closed, 1);
	cr_assert_eq(peer->error, HTTP2_REFUSED_STREAM);
	cr_assert_eq(pair.requests, 0);
	peer_free(peer);
	pair_stop(&pair);
}

Test(session, headers_over_the_limit_are_flagged)
{
	struct pair pair;
	struct buf large;
	bytes_of(&large, LIMIT_HEADER_BYTES);
	memset(large.p, 'a', large.n);
	pair_start(&pair, 64 * KIB, 0);
	struct header items[] = {request_items[0],
				 request_items[1],
				 request_items[2],
				 request_items[3],
				 {SPAN("x"), buf_span(&large)},
				 {SPAN("y"), SPAN("z")}};
	struct headers request = {items, ARRAY_LEN(items)};
	struct peer *peer = peer_new(&pair);
	peer->stream = stream_new(&peer_ops, peer);
	pair.never_answers = true;
	cr_assert_eq(session_start(pair.client, peer->stream, &request, true), ERR_OK);
	pair_pump(&pair);
	cr_assert_eq(pair.requests, 1);
	cr_assert(pair.too_large);
	cr_assert_not(pair.failed);
	peer_free(peer);
	pair_stop(&pair);
	buf_release(&large);
}

/* ---- what is not HTTP/2 ------------------------------------------------------------------------------ */

/* A session is fed until it fails or the bytes are over; what it wants to say goes nowhere. */
static void feed(bool server, struct span bytes, size_t chunk)
{
	struct pair pair;
	struct err err = {0};
	struct outq out;
	pair_start(&pair, 64 * KIB, 0);
	outq_init(&out, 4096);
	struct peer *peer = server ? NULL : pair_request(&pair, SPAN("hello"), true);
	struct session *session = server ? pair.server : pair.client;
	cr_assert_eq(session_send(session, &out, 1 * MIB, &err), ERR_OK);
	while (bytes.n) {
		size_t n = bytes.n < chunk ? bytes.n : chunk;
		uint8_t *piece = mem_xdup(bytes.p, n);
		enum err_code rc = session_recv(session, span_of(piece, n), &err);
		mem_free(piece);
		if (rc) {
			cr_assert_neq(err.text[0], 0);
			break;
		}
		if (session_send(session, &out, 16 * MIB, &err))
			break;
		outq_release(&out);
		bytes = span_skip(bytes, n);
	}
	outq_release(&out);
	session_abort(session);
	if (peer) {
		cr_assert_eq(peer->closed, 1);
		peer_free(peer);
	}
	pair_stop(&pair);
}

static struct buf record(bool from_client)
{
	struct pair pair;
	struct buf body, recorded;
	bytes_of(&body, 3000);
	buf_init(&recorded, 1 * MIB);
	pair_start(&pair, 64 * KIB, 1);
	struct peer *peer = pair_request(&pair, buf_span(&body), true);
	bool moved = true;
	struct err err = {0};
	while (moved) {
		session_send(pair.client, &pair.to_server, 64 * KIB, &err);
		session_send(pair.server, &pair.to_client, 64 * KIB, &err);
		struct iovec iov;
		if (outq_iov(from_client ? &pair.to_server : &pair.to_client, &iov, 1))
			buf_append(&recorded, iov.iov_base, 1);
		moved = pair_carry(&pair, &pair.to_server, pair.server, &pair.handed[0]);
		moved |= pair_carry(&pair, &pair.to_client, pair.client, &pair.handed[1]);
	}
	cr_assert_eq(peer->ended, 1);
	peer_free(peer);
	pair_stop(&pair);
	buf_release(&body);
	return recorded;
}

Test(session, garbage_is_an_error_and_never_more)
{
	struct pair dice = {.random = 7};
	uint8_t bytes[512];
	for (int round = 0; round < 300; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)pair_random(&dice);
		feed(round % 2 == 0, span_of(bytes, sizeof(bytes)), 1 + (size_t)round);
	}
}

static void mutate_and_feed(bool server, int rounds)
{
	struct pair dice = {.random = 99};
	struct buf good = record(server);
	cr_assert_gt(good.n, 60);
	for (int round = 0; round < rounds; round++) {
		uint8_t *bytes = mem_xdup(good.p, good.n);
		size_t n = good.n;
		for (int i = 0; i <= round % 4; i++)
			bytes[pair_random(&dice) % n] = (uint8_t)pair_random(&dice);
		if (round % 5 == 0)
			n = pair_random(&dice) % n;
		feed(server, span_of(bytes, n), 1 + pair_random(&dice) % 200);
		mem_free(bytes);
	}
	buf_release(&good);
}

Test(session, a_mutated_client_cannot_harm_the_server)
{
	mutate_and_feed(true, 1000);
}

Test(session, a_mutated_server_cannot_harm_the_client)
{
	mutate_and_feed(false, 1000);
}

/* ---- memory ------------------------------------------------------------------------------------------- */

static void memory_scenario(void)
{
	struct pair pair;
	static const uint8_t body[20000];
	pair_start(&pair, 64 * KIB, 8192);
	struct peer *peer = NULL;
	if (!pair.failed)
		peer = pair_request(&pair, span_of(body, sizeof(body)), true);
	pair_pump(&pair);
	pair_stop(&pair);
	if (peer) {
		/* Closed once if it ever ran; whole, or not at all. */
		cr_assert_leq(peer->closed, 1);
		cr_assert(peer->ended == 0 || peer->bytes.n == sizeof(body) || peer->error);
		peer_free(peer);
	}
}

Test(session, every_failing_allocation_is_survived)
{
	mem_test_fail_at(0);
	memory_scenario();
	unsigned long count = mem_test_fail_at(0);
	cr_assert_gt(count, 50);
	for (unsigned long i = 1; i <= count; i++) {
		mem_test_fail_at(i);
		memory_scenario();
	}
	mem_test_fail_at(0);
}
