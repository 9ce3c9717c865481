#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "base/must.h"
#include "rig.h"

TestSuite(http1, .timeout = 60);

Test(http1, answers_a_get_and_keeps_the_connection)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	for (unsigned i = 1; i <= 3; i++) {
		raw_send_str(&raw, "GET /hello?a=b HTTP/1.1\r\nHost: x\r\nX-Mine: yes \r\n\r\n");
		RAW_UNTIL(&rig, &raw, raw_count(&raw, "\r\n\r\nhello") == i);
		RIG_UNTIL(&rig, rig.http_done == i);
	}
	cr_assert_eq(raw_count(&raw, "HTTP/1.1 200 OK\r\n"), 3);
	cr_assert_eq(raw_count(&raw, "content-length: 5\r\n"), 3);
	cr_assert_eq(raw_count(&raw, "x-mine: yes\r\n"), 3);
	cr_assert_eq(raw_count(&raw, "date: "), 3);
	cr_assert_not(raw_has(&raw, "connection: close"));
	raw_close(&raw);
	rig_stop(&rig);
}

Test(http1, pipelined_requests_are_answered_in_order)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(
		&raw,
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\noneGET /none HTTP/1.1\r\nHost: "
		"x\r\n\r\n"
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nthreeGET /hello?a=b HTTP/1.1\r\n"
		"Host: x\r\nConnection: close\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw.eof);
	const char *all = buf_cstr(&raw.got);
	const char *one = strstr(all, "\r\n\r\none"), *none = strstr(all, "no such thing");
	const char *three = strstr(all, "\r\n\r\nthree"), *hello = strstr(all, "\r\n\r\nhello");
	cr_assert(one && none && three && hello);
	cr_assert(one < none && none < three && three < hello);
	cr_assert_eq(raw_count(&raw, "connection: close\r\n"), 1);
	raw_close(&raw);
	rig_stop(&rig);
}

Test(http1, any_split_of_the_bytes_gives_the_same_answer)
{
	const char *text = "POST /stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
			   "chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world"
			   "\r\n0\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: "
			   "close\r\n\r\nok";
	struct rig rig;
	rig_start(&rig);
	for (size_t step = 1; step < strlen(text); step += step < 8 ? 1 : 13) {
		struct raw raw;
		raw_connect(&raw, &rig);
		for (size_t at = 0; at < strlen(text); at += step) {
			size_t n = strlen(text) - at;
			raw_send(&raw, text + at, n < step ? n : step);
			loop_run_once(rig.loop, false);
			loop_run_once(rig.loop, false);
		}
		RAW_UNTIL(&rig, &raw, raw.eof);
		cr_assert_eq(raw_count(&raw, "HTTP/1.1 200 OK\r\n"), 2);
		cr_assert(raw_has(&raw, "transfer-encoding: chunked\r\n"));
		cr_assert(raw_has(&raw, "\r\n0\r\n\r\nHTTP/1.1 200 OK"));
		cr_assert(raw_has(&raw, "\r\n\r\nok"));
		raw_close(&raw);
	}
	rig_stop(&rig);
}

Test(http1, head_has_the_length_and_no_body)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "HEAD /hello?a=b HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.1\r\nHost: "
			   "x\r\nConnection: close\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "content-length: 5\r\n"));
	cr_assert_not(raw_has(&raw, "hello"));
	cr_assert(raw_has(&raw, "no such thing"));
	raw_close(&raw);
	rig_stop(&rig);
}

Test(http1, expect_is_answered_with_continue)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw,
		     "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw_has(&raw, "HTTP/1.1 100 Continue\r\n\r\n"));
	cr_assert_not(raw_has(&raw, "200"));
	raw_send_str(&raw, "body");
	RAW_UNTIL(&rig, &raw, raw_has(&raw, "\r\n\r\nbody"));
	raw_close(&raw);
	rig_stop(&rig);
}

/* Whether a body follows, nobody can know then: what comes next must not be taken for it, nor it for what comes
 * next. */
Test(http1, expect_that_is_answered_at_once_ends_the_connection)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw,
		     "POST /none HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "HTTP/1.1 404 "));
	cr_assert(raw_has(&raw, "connection: close\r\n"));
	raw_close(&raw);
	rig_stop(&rig);
}

/* RFC 9112, 3.2.2: what a client says to a proxy must be understood by a server too. */
Test(http1, a_target_with_scheme_and_host_is_its_path)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "GET http://there:9000/hello?a=b HTTP/1.1\r\nHost: x\r\n\r\n"
			   "GET HTTP://there HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "HTTP/1.1 200 "));
	cr_assert(raw_has(&raw, "HTTP/1.1 404 "));
	raw_close(&raw);
	rig_stop(&rig);
}

/* At whatever byte the input is cut, a folded line is seen, and a line that is not folded is none. */
Test(http1, a_folded_header_is_refused_at_any_split)
{
	static const char *const texts[] = {"GET /hello?a=b HTTP/1.1\r\nHost: x\r\nX-A: one\r\n two\r\n\r\n",
					    "GET /hello?a=b HTTP/1.1\r\nHost: x\r\nX-A: one two\r\n\r\n"};
	struct rig rig;
	rig_start(&rig);
	for (size_t t = 0; t < 2; t++) {
		for (size_t i = 1; i < strlen(texts[t]); i++) {
			struct raw raw;
			raw_connect(&raw, &rig);
			raw_send(&raw, texts[t], i);
			for (int turn = 0; turn < 3; turn++)
				rig_turn(&rig);
			raw_send_str(&raw, texts[t] + i);
			RAW_UNTIL(&rig, &raw, raw_has(&raw, "HTTP/1.1 "));
			cr_assert(raw_has(&raw, t == 0 ? " 400 " : " 200 "), "text %zu cut at %zu", t, i);
			raw_close(&raw);
		}
	}
	rig_stop(&rig);
}

Test(http1, http_1_0_is_closed_after_the_answer)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "POST /stream HTTP/1.0\r\nContent-Length: 4\r\n\r\nabcd");
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "\r\n\r\nabcd"));
	cr_assert_not(raw_has(&raw, "chunked"));
	raw_close(&raw);
	rig_stop(&rig);
}

static void expect_refusal(struct rig *rig, const char *request, const char *status)
{
	struct raw raw;
	raw_connect(&raw, rig);
	raw_send_str(&raw, request);
	for (int64_t end = rig_now_ms() + 10000; !raw.eof && rig_now_ms() < end; raw_poll(&raw))
		rig_turn(rig);
	cr_assert(raw.eof && raw_has(&raw, status), "for %.40s: %.*s", request, (int)raw.got.n,
		  (const char *)raw.got.p);
	raw_close(&raw);
}

Test(http1, malformed_requests_are_refused)
{
	struct rig rig;
	rig_start(&rig);
	expect_refusal(&rig, "GET / NONSENSE\r\n\r\n", "HTTP/1.1 400 ");
	expect_refusal(&rig, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 ");
	expect_refusal(&rig, "GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", "HTTP/1.1 400 ");
	expect_refusal(
		&rig, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 400 ");
	expect_refusal(&rig, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		       "HTTP/1.1 400 ");
	expect_refusal(&rig, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "HTTP/1.1 400 ");
	expect_refusal(&rig, "GET *no HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 ");
	expect_refusal(&rig, "GET / HTTP/1.1\r\nHost: x\r\nX-A: folded\r\n value\r\n\r\n", "HTTP/1.1 400 ");
	expect_refusal(&rig, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
		       "HTTP/1.1 413 ");
	rig_stop(&rig);
}

Test(http1, what_is_not_http_is_closed_without_a_word)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "\x16\x03\x01 nonsense\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert_eq(raw.got.n, 0);
	raw_close(&raw);
	rig_stop(&rig);
}

Test(http1, large_headers_are_refused)
{
	struct rig rig;
	rig_start(&rig);
	struct buf b;
	buf_init(&b, 256 * KIB);
	buf_append_str(&b, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Large: ");
	for (int i = 0; i < 20000; i++)
		buf_append_byte(&b, 'a');
	buf_append_str(&b, "\r\n\r\n");
	expect_refusal(&rig, buf_cstr(&b), "HTTP/1.1 431 ");
	buf_clear(&b);
	buf_append_str(&b, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
	for (int i = 0; i < 200; i++)
		buf_printf(&b, "x%d: y\r\n", i);
	buf_append_str(&b, "\r\n");
	expect_refusal(&rig, buf_cstr(&b), "HTTP/1.1 431 ");
	buf_release(&b);
	rig_stop(&rig);
}

Test(http1, body_beyond_the_limit_is_refused_as_it_comes)
{
	struct rig rig;
	struct raw raw;
	struct grpc_server_config server = {.message_max_bytes = 1000};
	struct grpc_channel_config channel = {0};
	rig_start_with(&rig, &server, &channel);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	char chunk[512];
	for (int i = 0; i < 3; i++) {
		int n = snprintf(chunk, sizeof(chunk), "190\r\n%0400d\r\n", i);
		raw_send(&raw, chunk, (size_t)n);
		loop_run_once(rig.loop, false);
	}
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "HTTP/1.1 413 "));
	raw_close(&raw);
	rig_stop(&rig);
}

/* A FIN alone does not say that a client has left; a reset does, also after a FIN, and it is provoked. */
Test(http1, a_client_that_leaves_ends_its_exchange)
{
	for (int way = 0; way < 3; way++) {
		struct rig rig;
		struct raw raw;
		struct linger reset = {.l_onoff = 1};
		rig_start(&rig);
		raw_connect(&raw, &rig);
		raw_send_str(&raw, "GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
		RIG_UNTIL(&rig, rig.held);
		if (way == 1) {
			shutdown(raw.fd, SHUT_WR);
			rig_settle(&rig);
			cr_assert_eq(rig.http_done, 0);
		}
		if (way < 2)
			cr_assert_eq(setsockopt(raw.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
		raw_close(&raw);
		RIG_UNTIL(&rig, rig.http_done == 1);
		http_respond(rig.held, 200, NULL, SPAN("too late"));
		http_exchange_unref(rig.held);
		rig_stop(&rig);
	}
}

/* RFC 9112, 9.6: a client may close its half and still be owed answers, to pipelined requests too. */
Test(http1, a_client_that_shuts_down_its_half_is_answered)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "GET /never HTTP/1.1\r\nHost: x\r\n\r\n"
			   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\ntwo");
	RIG_UNTIL(&rig, rig.held);
	shutdown(raw.fd, SHUT_WR);
	rig_settle(&rig);
	RIG_UNTIL(&rig, !loop_run_once(rig.loop, false));
	for (int turns = 0; turns < 10; turns++)
		cr_assert_not(loop_run_once(rig.loop, false), "it spins");
	cr_assert_eq(rig.http_done, 0);
	http_start(rig.held, 200, NULL);
	http_write(rig.held, SPAN("at last"));
	rig_turn(&rig);
	http_end(rig.held);
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"));
	cr_assert(raw_has(&raw, "7\r\nat last\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"));
	cr_assert(raw_has(&raw, "\r\n\r\ntwo"));
	cr_assert_eq(rig.http_done, 2);
	http_exchange_unref(rig.held);
	raw_close(&raw);
	rig_stop(&rig);
}

Test(http1, half_a_request_and_the_end_of_input_is_the_end)
{
	static const char *const texts[] = {
		"GET /ne", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct rig rig;
		struct raw raw;
		rig_start(&rig);
		raw_connect(&raw, &rig);
		raw_send_str(&raw, "GET /hello?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
		raw_send_str(&raw, texts[i]);
		shutdown(raw.fd, SHUT_WR);
		RAW_UNTIL(&rig, &raw, raw.eof);
		cr_assert_eq(raw_count(&raw, "HTTP/1.1 "), 1);
		cr_assert(raw_has(&raw, "\r\n\r\nhello"));
		cr_assert_eq(rig.http_done, 1 + i);
		raw_close(&raw);
		rig_stop(&rig);
	}
}

/* RFC 9110, 15.5.9. */
Test(http1, silence_in_the_middle_of_a_request_is_answered_408)
{
	static const char *const texts[] = {
		"GET /hello", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct rig rig;
		struct raw raw;
		struct grpc_server_config server = {.request_silence_ms = 50};
		struct grpc_channel_config channel = {0};
		rig_start_with(&rig, &server, &channel);
		raw_connect(&raw, &rig);
		raw_send_str(&raw, texts[i]);
		RAW_UNTIL(&rig, &raw, raw.eof);
		cr_assert_eq(raw_count(&raw, "HTTP/1.1 408 Request Timeout\r\n"), 1);
		cr_assert(raw_has(&raw, "connection: close\r\n"));
		cr_assert(raw_has(&raw, "content-length: 40\r\n"));
		cr_assert_eq(strlen(strstr(buf_cstr(&raw.got), "\r\n\r\n") + 4), 40);
		cr_assert_eq(rig.http_done, i);
		raw_close(&raw);
		rig_stop(&rig);
	}
}

/* Until silence that began now is too long: another client's, in the middle of a request, was. */
static void pass_silence(struct rig *rig)
{
	struct raw raw;
	raw_connect(&raw, rig);
	raw_send_str(&raw, "GET /ne");
	RAW_UNTIL(rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "HTTP/1.1 408 "));
	raw_close(&raw);
}

/* Between requests, while the answer is made, and while it is we who do not read, silence is in order. */
Test(http1, other_silence_is_nobody_s_fault)
{
	struct rig rig;
	struct raw raw;
	struct grpc_server_config server = {.request_silence_ms = 50};
	struct grpc_channel_config channel = {0};
	rig_start_with(&rig, &server, &channel);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "GET /hello?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw_has(&raw, "hello"));
	pass_silence(&rig);
	raw_send_str(&raw, "POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nha");
	RIG_UNTIL(&rig, rig.held);
	http_hold_read(rig.held, true);
	pass_silence(&rig);
	raw_send_str(&raw, "lf a da");
	http_hold_read(rig.held, false);
	pass_silence(&rig);
	cr_assert_eq(rig.http_done, 1);
	http_respond(rig.held, 200, NULL, SPAN("slow"));
	RAW_UNTIL(&rig, &raw, raw_has(&raw, "\r\n\r\nslow"));
	cr_assert_not(raw_has(&raw, "408"));
	http_exchange_unref(rig.held);
	raw_close(&raw);
	rig_stop(&rig);
}

/* The refusal comes before anyone has looked at Expect: whether the client sends the body is not known. */
Test(http1, a_refused_head_with_expect_ends_the_connection)
{
	struct rig rig;
	struct raw raw;
	struct buf b;
	rig_start(&rig);
	buf_init(&b, 64 * KIB);
	buf_append_str(&b, "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 44\r\n");
	for (int i = 0; i < 200; i++)
		buf_printf(&b, "x%d: y\r\n", i);
	buf_append_str(&b, "\r\n");
	raw_connect(&raw, &rig);
	raw_send_str(&raw, buf_cstr(&b));
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert_eq(raw_count(&raw, "HTTP/1.1 "), 1);
	cr_assert(raw_has(&raw, "HTTP/1.1 431 "));
	cr_assert(raw_has(&raw, "connection: close\r\n"));
	buf_release(&b);
	raw_close(&raw);
	rig_stop(&rig);
}

static void note_drained(void *arg)
{
	((struct rig *)arg)->drained = true;
}

/* HTTP/1 has no notice of a server's going: what is on its way then is answered, and hears of it. */
Test(http1, a_drain_answers_what_is_on_its_way)
{
	struct rig rig;
	struct raw kept, fresh, silent;
	rig_start(&rig);
	raw_connect(&kept, &rig);
	raw_send_str(&kept, "GET /hello?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
	RAW_UNTIL(&rig, &kept, raw_has(&kept, "hello"));
	cr_assert_not(raw_has(&kept, "connection: close"));
	raw_connect(&silent, &rig);
	rig_turn(&rig);
	raw_connect(&fresh, &rig); /* not accepted yet */
	int64_t begun = rig_now_ms();
	grpc_server_drain(rig.server, 5000, note_drained, &rig);
	rig_turn(&rig);
	raw_send_str(&kept, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
	raw_send_str(&fresh, "GET /hello?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
	RAW_UNTIL(&rig, &kept, kept.eof);
	cr_assert(raw_has(&kept, "HTTP/1.1 404 "));
	cr_assert(raw_has(&kept, "connection: close\r\n"));
	RAW_UNTIL(&rig, &fresh, fresh.eof);
	cr_assert(raw_has(&fresh, "connection: close\r\n"));
	cr_assert(raw_has(&fresh, "\r\n\r\nhello"));
	/* Who says nothing does not hold it up. */
	RAW_UNTIL(&rig, &silent, rig.drained);
	cr_assert_lt(rig_now_ms() - begun, 4500);
	raw_close(&kept);
	raw_close(&fresh);
	raw_close(&silent);
	rig_stop(&rig);
}

/* A client that goes on sending after its last answer does not keep the connection for ever. */
Test(http1, lingering_has_an_end)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "GET /hello?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	RAW_UNTIL(&rig, &raw, raw.eof);
	bool open = true;
	for (int64_t end = rig_now_ms() + 8000; open && rig_now_ms() < end;) {
		rig_turn(&rig);
		open = send(raw.fd, "x", 1, MSG_NOSIGNAL) == 1;
	}
	cr_assert_not(open, "still open 8 s after the last answer");
	raw_close(&raw);
	rig_stop(&rig);
}

Test(http1, reset_closes_without_the_last_chunk)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "GET /never HTTP/1.1\r\nHost: x\r\n\r\n");
	RIG_UNTIL(&rig, rig.held);
	http_start(rig.held, 200, NULL);
	http_write(rig.held, SPAN("part"));
	http_reset(rig.held);
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert(raw_has(&raw, "4\r\npart\r\n"));
	cr_assert_not(raw_has(&raw, "\r\n0\r\n"));
	cr_assert_eq(rig.http_done, 1);
	http_exchange_unref(rig.held);
	raw_close(&raw);
	rig_stop(&rig);
}

Test(http1, a_reader_that_stops_stops_the_writer)
{
	struct rig rig;
	struct raw raw;
	rig_start(&rig);
	raw_connect(&raw, &rig);
	raw_send_str(&raw, "GET /never HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	RIG_UNTIL(&rig, rig.held);
	http_start(rig.held, 200, NULL);
	uint8_t *block = mem_xalloc(64 * KIB);
	size_t sent = 0;
	/* What the two sockets hold goes out; then no more is wanted. */
	for (int quiet = 0; quiet < 20;) {
		if (http_write(rig.held, span_of(block, 64 * KIB)))
			quiet = 0;
		else
			quiet++;
		sent += 64 * KIB;
		loop_run_once(rig.loop, false);
		if (quiet)
			break;
	}
	cr_assert_lt(sent, 32 * MIB);
	cr_assert_eq(rig.http_writable, 0);
	RAW_UNTIL(&rig, &raw, rig.http_writable == 1);
	http_end(rig.held);
	RAW_UNTIL(&rig, &raw, raw.eof);
	cr_assert_geq(raw.got.n, sent);
	cr_assert(raw_has(&raw, "\r\n0\r\n\r\n"));
	http_exchange_unref(rig.held);
	mem_free(block);
	raw_close(&raw);
	rig_stop(&rig);
}
