#include <config.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/must.h"
#include "rig.h"

/* Connections: made, lost, made again, more than one, spread over loops, drained. */

TestSuite(channel, .timeout = 60);

struct answer {
	unsigned done;
	enum grpc_code code;
	bool not_sent;
};

static void on_answer(const struct grpc_result *result, struct span reply, void *arg)
{
	struct answer *answer = arg;
	(void)reply;
	answer->done++;
	answer->code = result->code;
	answer->not_sent = result->not_sent;
}

static struct answer ask(struct rig *rig, struct grpc_channel *ch, int64_t deadline_ms, bool wait)
{
	struct answer answer = {0};
	grpc_channel_unary(ch, "/test.Echo/Unary", SPAN("x"), deadline_ms, wait, on_answer, &answer);
	RIG_UNTIL(rig, answer.done);
	return answer;
}

Test(channel, connects_on_need_and_tells_each_state)
{
	struct rig rig;
	rig_start(&rig);
	rig_settle(&rig);
	cr_assert_eq(grpc_channel_state(rig.channel), GRPC_CHANNEL_IDLE);
	cr_assert_eq(ask(&rig, rig.channel, 5000, false).code, GRPC_OK);
	rig_turn(&rig);
	cr_assert_eq(rig.state_n, 2);
	cr_assert_eq(rig.states[0], GRPC_CHANNEL_CONNECTING);
	cr_assert_eq(rig.states[1], GRPC_CHANNEL_READY);
	rig_stop(&rig);
}

/* On most machines a line of /etc/hosts; a root directory alone need not have one. */
static bool localhost_is_known(void)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
	if (getaddrinfo("localhost", "1", &hints, &list) != 0)
		return false;
	freeaddrinfo(list);
	return true;
}

Test(channel, a_name_is_resolved_without_blocking)
{
	struct rig rig;
	if (!localhost_is_known())
		cr_skip_test("nobody here knows the name localhost: /etc/hosts is missing");
	rig_start(&rig);
	char target[32];
	snprintf(target, sizeof(target), "localhost:%d", grpc_server_port(rig.server));
	struct grpc_channel_config config = {.target = target};
	struct grpc_channel *ch = grpc_channel_new(rig.loop, &config, NULL, NULL);
	cr_assert_eq(ask(&rig, ch, 5000, false).code, GRPC_OK);
	grpc_channel_free(ch);
	rig_stop(&rig);
}

Test(channel, a_name_that_is_none_is_said_to_be_none)
{
	struct rig rig;
	struct grpc_channel_config config = {.target = "name.that.is.none.invalid:1"};
	rig_start(&rig);
	struct grpc_channel *ch = grpc_channel_new(rig.loop, &config, NULL, NULL);
	struct answer answer = ask(&rig, ch, 9000, false);
	cr_assert_eq(answer.code, GRPC_UNAVAILABLE);
	cr_assert(answer.not_sent);
	grpc_channel_free(ch);
	/* One that goes while it is being asked for. */
	ch = grpc_channel_new(rig.loop, &config, NULL, NULL);
	grpc_channel_connect(ch);
	rig_turn(&rig);
	grpc_channel_free(ch);
	rig_stop(&rig);
}

Test(channel, a_target_without_a_port_fails_with_its_reason)
{
	struct rig rig;
	struct got got;
	rig_start(&rig);
	got_init(&got);
	struct grpc_channel_config config = {.target = "nowhere"};
	struct grpc_channel *ch = grpc_channel_new(rig.loop, &config, NULL, NULL);
	grpc_channel_call(ch, "/a/B", NULL, -1, false, &got_ops, &got);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	cr_assert(strstr(got.text, "HOST:PORT"), "%s", got.text);
	grpc_channel_free(ch);
	got_release(&got);
	rig_stop(&rig);
}

/* Frees the server and listens on its port again. */
static void restart_server(struct rig *rig)
{
	grpc_server_free(rig->server);
	struct grpc_server_config config = {.listen = rig->target};
	rig->server = grpc_server_new(&config, &rig->loop, 1);
	rig_add_methods(rig);
	must(grpc_server_listen(rig->server, NULL) == ERR_OK);
}

Test(channel, a_lost_connection_ends_its_calls_and_is_made_again_on_need)
{
	struct rig rig;
	struct got got;
	rig_start(&rig);
	got_init(&got);
	rig_call(&rig, "Never", &got);
	RIG_UNTIL(&rig, rig.opened == 1);
	restart_server(&rig);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	cr_assert(got.reset);
	cr_assert_not(got.not_sent);
	RIG_UNTIL(&rig, rig.state_n == 3);
	cr_assert_eq(rig.states[2], GRPC_CHANNEL_IDLE);
	cr_assert_eq(ask(&rig, rig.channel, 5000, false).code, GRPC_OK);
	got_release(&got);
	rig_stop(&rig);
}

Test(channel, a_call_that_waits_is_carried_out_when_the_server_comes)
{
	struct rig rig;
	struct answer waiting = {0}, hasty = {0};
	rig_start(&rig);
	cr_assert_eq(ask(&rig, rig.channel, 5000, false).code, GRPC_OK);
	grpc_server_free(rig.server);
	RIG_UNTIL(&rig, grpc_channel_state(rig.channel) == GRPC_CHANNEL_IDLE);
	grpc_channel_unary(rig.channel, "/test.Echo/Unary", SPAN("x"), -1, true, on_answer, &waiting);
	grpc_channel_unary(rig.channel, "/test.Echo/Unary", SPAN("x"), -1, false, on_answer, &hasty);
	RIG_UNTIL(&rig, hasty.done);
	cr_assert_eq(hasty.code, GRPC_UNAVAILABLE);
	cr_assert_eq(ask(&rig, rig.channel, 5000, false).code, GRPC_UNAVAILABLE);
	cr_assert_eq(ask(&rig, rig.channel, 50, true).code, GRPC_DEADLINE_EXCEEDED);
	cr_assert_eq(waiting.done, 0);
	struct grpc_server_config config = {.listen = rig.target};
	rig.server = grpc_server_new(&config, &rig.loop, 1);
	rig_add_methods(&rig);
	must(grpc_server_listen(rig.server, NULL) == ERR_OK);
	RIG_UNTIL(&rig, waiting.done);
	cr_assert_eq(waiting.code, GRPC_OK);
	rig_stop(&rig);
}

struct attempts {
	unsigned n;
	int64_t at_ms[16];
};

static void note_attempt(struct grpc_channel *ch, enum grpc_channel_state state, const struct err *why,
			 void *arg)
{
	struct attempts *attempts = arg;
	(void)ch;
	if (state != GRPC_CHANNEL_FAILED)
		return;
	cr_assert_eq(why->code, ERR_UNAVAILABLE);
	cr_assert(strstr(why->text, "127.0.0.1:1"), "%s", why->text);
	if (attempts->n < ARRAY_LEN(attempts->at_ms))
		attempts->at_ms[attempts->n++] = rig_now_ms();
}

Test(channel, attempts_are_spread_by_a_growing_pause)
{
	struct rig rig;
	struct attempts attempts = {0};
	rig_start(&rig);
	struct grpc_channel_config config = {
		.target = "127.0.0.1:1", .backoff_min_ms = 40, .backoff_max_ms = 120};
	struct grpc_channel *ch = grpc_channel_new(rig.loop, &config, note_attempt, &attempts);
	int64_t began = rig_now_ms();
	grpc_channel_connect(ch);
	RIG_UNTIL(&rig, attempts.n == 5);
	/* Pauses of 40, 80, 120, 120, each less a fifth at most. All in all: of two neighbours the first may
	 * be told late, where the machine is busy. */
	static const int64_t least_ms[] = {0, 31, 94, 189, 284};
	for (size_t i = 0; i < ARRAY_LEN(least_ms); i++)
		cr_assert_geq(attempts.at_ms[i] - began, least_ms[i]);
	grpc_channel_free(ch);
	rig_stop(&rig);
}

Test(channel, a_peer_that_says_nothing_is_given_up)
{
	struct rig rig;
	struct got got;
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t addr_n = sizeof(addr);
	char target[32];
	rig_start(&rig);
	got_init(&got);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	must(bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 1) == 0);
	must(getsockname(fd, (struct sockaddr *)&addr, &addr_n) == 0);
	snprintf(target, sizeof(target), "127.0.0.1:%d", ntohs(addr.sin_port));
	struct grpc_channel_config config = {.target = target, .connect_timeout_ms = 100};
	struct grpc_channel *ch = grpc_channel_new(rig.loop, &config, NULL, NULL);
	grpc_channel_call(ch, "/a/B", NULL, -1, false, &got_ops, &got);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	cr_assert(strstr(got.text, "SETTINGS"), "%s", got.text);
	grpc_channel_free(ch);
	got_release(&got);
	close(fd);
	rig_stop(&rig);
}

Test(channel, another_connection_is_opened_at_the_stream_limit)
{
	enum { CALLS = LIMIT_STREAMS_PER_CONNECTION + 200 };
	struct rig rig;
	rig_start(&rig);
	struct got *got = mem_xalloc(CALLS * sizeof(*got));
	for (size_t i = 0; i < CALLS; i++) {
		got_init(&got[i]);
		rig_call(&rig, "Chat", &got[i]);
	}
	RIG_UNTIL(&rig, rig.opened == CALLS);
	/* And each works. */
	struct got more;
	got_init(&more);
	struct grpc_call *call = rig_call(&rig, "Chat", &more);
	grpc_call_send(call, SPAN("hello"));
	RIG_UNTIL(&rig, more.messages == 1);
	rig_stop(&rig);
	for (size_t i = 0; i < CALLS; i++) {
		cr_assert_eq(got[i].done, 1);
		got_release(&got[i]);
	}
	got_release(&more);
	mem_free(got);
}

static void note_drained(void *arg)
{
	((struct rig *)arg)->drained = true;
}

Test(channel, drain_waits_for_calls_and_takes_no_more)
{
	struct rig rig;
	struct got got;
	rig_start(&rig);
	got_init(&got);
	struct grpc_call *call = rig_call(&rig, "Chat", &got);
	grpc_call_send(call, SPAN("1"));
	RIG_UNTIL(&rig, got.messages == 1);
	grpc_server_drain(rig.server, 10000, note_drained, &rig);
	/* Once the channel has seen the GOAWAY, a new call goes elsewhere, and there is nobody. */
	enum grpc_code code;
	while ((code = ask(&rig, rig.channel, 2000, false).code) == GRPC_OK)
		;
	cr_assert_eq(code, GRPC_UNAVAILABLE);
	cr_assert_not(rig.drained);
	grpc_call_send(call, SPAN("2"));
	RIG_UNTIL(&rig, got.messages == 2);
	cr_assert_not(rig.drained);
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, rig.drained);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_OK);
	got_release(&got);
	rig_stop(&rig);
}

/* Adds what has come to what has. */
static bool receive(int fd, struct buf *got)
{
	uint8_t bytes[512];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (n > 0)
		must(buf_append(got, bytes, (size_t)n) == ERR_OK);
	return n > 0 || got->n > 0;
}

/* A peer that has nothing to say reads nothing either: no answer to the ping will come. */
Test(channel, drain_does_not_wait_for_an_idle_client_that_is_silent)
{
	struct rig rig;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
	static const char heard[9] = {0, 0, 0, 4, 1}; /* the server's SETTINGS with ACK: it has read ours */
	struct buf got;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	buf_init(&got, MIB);
	rig_start(&rig);
	to.sin_port = htons((uint16_t)grpc_server_port(rig.server));
	cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	cr_assert_eq(write(fd, hello, sizeof(hello)), (ssize_t)sizeof(hello));
	RIG_UNTIL(&rig, receive(fd, &got) && memmem(got.p, got.n, heard, sizeof(heard)));
	grpc_server_drain(rig.server, 60000, note_drained, &rig);
	RIG_UNTIL(&rig, rig.drained);
	buf_release(&got);
	close(fd);
	rig_stop(&rig);
}

Test(channel, drain_resets_what_is_left_after_the_grace)
{
	struct rig rig;
	struct got got;
	rig_start(&rig);
	got_init(&got);
	rig_call(&rig, "Never", &got);
	RIG_UNTIL(&rig, rig.opened == 1);
	grpc_server_drain(rig.server, 50, note_drained, &rig);
	RIG_UNTIL(&rig, rig.drained);
	RIG_UNTIL(&rig, got.done && rig.done == 1);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	got_release(&got);
	rig_stop(&rig);
}

Test(channel, an_idle_connection_is_closed_and_a_busy_one_kept)
{
	struct rig rig;
	struct got got;
	struct grpc_server_config server = {.idle_timeout_ms = 80};
	struct grpc_channel_config channel = {0};
	rig_start_with(&rig, &server, &channel);
	got_init(&got);
	struct grpc_call *call = rig_call(&rig, "Chat", &got);
	grpc_call_send(call, SPAN("1"));
	RIG_UNTIL(&rig, got.messages == 1);
	/* As long as the busy one is busy, an idle one is closed, and another one. */
	for (int i = 0; i < 2; i++) {
		struct grpc_channel_config config = {.target = rig.target};
		struct grpc_channel *idle = grpc_channel_new(rig.loop, &config, NULL, NULL);
		cr_assert_eq(ask(&rig, idle, 5000, false).code, GRPC_OK);
		RIG_UNTIL(&rig, grpc_channel_state(idle) == GRPC_CHANNEL_IDLE);
		grpc_channel_free(idle);
	}
	cr_assert_eq(grpc_channel_state(rig.channel), GRPC_CHANNEL_READY);
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, got.done);
	RIG_UNTIL(&rig, grpc_channel_state(rig.channel) == GRPC_CHANNEL_IDLE);
	cr_assert_eq(ask(&rig, rig.channel, 5000, false).code, GRPC_OK);
	got_release(&got);
	rig_stop(&rig);
}

static void free_in_callback(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct rig *rig = user;
	(void)call;
	(void)result;
	grpc_channel_free(rig->channel);
	rig->channel = NULL;
	rig->drained = true;
}

Test(channel, may_be_freed_in_a_callback_of_its_call)
{
	static const struct grpc_call_ops ops = {.on_done = free_in_callback};
	struct rig rig;
	struct got got;
	rig_start(&rig);
	got_init(&got);
	rig_call(&rig, "Never", &got);
	RIG_UNTIL(&rig, rig.opened == 1);
	struct grpc_call *call =
		grpc_channel_call(rig.channel, "/test.Echo/Fail", NULL, -1, false, &ops, &rig);
	grpc_call_send(call, SPAN("x"));
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, rig.drained);
	cr_assert_eq(got.done, 1);
	cr_assert_eq(got.code, GRPC_CANCELLED);
	RIG_UNTIL(&rig, rig.done == 1);
	got_release(&got);
	rig_stop(&rig);
}

static void hold_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct got *got = user;
	got->messages++;
	(void)message;
	grpc_call_hold_read(call, true);
}

static void hold_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct got *got = user;
	(void)call;
	got->code = result->code;
	got->done++;
}

Test(channel, a_held_call_stops_the_sender)
{
	static const struct grpc_call_ops ops = {.on_message = hold_on_message, .on_done = hold_on_done};
	struct rig rig;
	struct got got, other;
	rig_start(&rig);
	got_init(&got);
	got_init(&other);
	struct grpc_call *call =
		grpc_channel_call(rig.channel, "/test.Echo/Chat", NULL, -1, false, &ops, &got);
	uint8_t *block = mem_xalloc(64 * KIB);
	size_t sent = 0;
	/* Chat answers without heed, so that it is our window which stops it; then its input is held too,
	 * as ours is by our own queue. */
	while (sent < 64 * MIB && grpc_call_send(call, span_of(block, 64 * KIB))) {
		sent += 64 * KIB;
		rig_turn(&rig);
	}
	rig_settle(&rig);
	cr_assert_lt((size_t)got.messages * 64 * KIB, 4 * MIB);
	struct grpc_call *second = rig_call(&rig, "Chat", &other);
	grpc_call_send(second, SPAN("through"));
	RIG_UNTIL(&rig, other.messages == 1);
	grpc_call_cancel(call);
	RIG_UNTIL(&rig, got.done);
	got_release(&got);
	got_release(&other);
	mem_free(block);
	rig_stop(&rig);
}

/* ---- several loops ------------------------------------------------------------------------------------ */

enum { LOOPS = 3, CHANNELS = 12, CALLS_EACH = 40 };

struct spread {
	struct loop *loops[LOOPS];
	atomic_uint served[LOOPS];
	atomic_uint astray; /* callbacks on a wrong thread */
	atomic_bool drained;
};

static void spread_drained(void *arg)
{
	atomic_store(&((struct spread *)arg)->drained, true);
}

static void spread_echo(struct grpc_call *call, struct span request, void *arg)
{
	struct spread *spread = arg;
	for (size_t i = 0; i < LOOPS; i++)
		if (spread->loops[i] == grpc_call_loop(call))
			atomic_fetch_add(&spread->served[i], 1);
	if (!loop_is_current(grpc_call_loop(call)))
		atomic_fetch_add(&spread->astray, 1);
	grpc_call_reply(call, request);
}

Test(channel, connections_are_spread_over_the_loops)
{
	static struct spread spread;
	struct rig rig = {.loop = loop_new()};
	struct grpc_method method = {.path = "/test.Echo/Unary", .unary = spread_echo, .arg = &spread};
	struct grpc_server_config config = {.listen = "127.0.0.1:0"};
	struct grpc_channel *channels[CHANNELS];
	struct answer answers[CHANNELS] = {0};
	for (size_t i = 0; i < LOOPS; i++)
		spread.loops[i] = loop_new();
	rig.server = grpc_server_new(&config, spread.loops, LOOPS);
	grpc_server_add(rig.server, &method, 1);
	must(grpc_server_listen(rig.server, NULL) == ERR_OK);
	for (size_t i = 0; i < LOOPS; i++)
		loop_thread_start(spread.loops[i], "test");
	snprintf(rig.target, sizeof(rig.target), "127.0.0.1:%d", grpc_server_port(rig.server));
	struct grpc_channel_config client = {.target = rig.target};
	for (size_t i = 0; i < CHANNELS; i++) {
		channels[i] = grpc_channel_new(rig.loop, &client, NULL, NULL);
		for (unsigned n = 0; n < CALLS_EACH; n++)
			grpc_channel_unary(channels[i], "/test.Echo/Unary", SPAN("x"), -1, true, on_answer,
					   &answers[i]);
	}
	for (size_t i = 0; i < CHANNELS; i++)
		RIG_UNTIL(&rig, answers[i].done == CALLS_EACH);
	for (size_t i = 0; i < LOOPS; i++)
		cr_assert_eq(atomic_load(&spread.served[i]), CHANNELS / LOOPS * CALLS_EACH);
	cr_assert_eq(atomic_load(&spread.astray), 0);
	grpc_server_drain(rig.server, 5000, spread_drained, &spread);
	for (size_t i = 0; i < CHANNELS; i++)
		grpc_channel_free(channels[i]);
	RIG_UNTIL(&rig, atomic_load(&spread.drained));
	for (size_t i = 0; i < LOOPS; i++)
		loop_thread_join(spread.loops[i]);
	grpc_server_free(rig.server);
	for (size_t i = 0; i < LOOPS; i++)
		loop_free(spread.loops[i]);
	loop_free(rig.loop);
}
