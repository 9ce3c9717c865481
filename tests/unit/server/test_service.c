/* The service on a journal that is moved by hand, with the client, all on one loop and one thread. */
#include <config.h>

#include <stdio.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/random.h"
#include "grpc/grpc.h"
#include "journal/client.h"
#include "journal/journal.h"
#include "journal/service.h"
#include "journal/wire.h"

TestSuite(service, .timeout = 60);

struct rig {
	struct loop *loop;
	struct journal *journal;
	struct grpc_server *server;
	struct journal_service *service;
	struct client *client;
	char target[32];
	size_t done_count, ok_count;
	size_t records, pages, reads_done;
	bool caught_up;
	enum grpc_code code, read_code;
	bool drained;
};

static struct rig *rig_new(void)
{
	struct rig *rig = mem_xalloc(sizeof(*rig));

	rig->loop = loop_new();
	cr_assert_eq(journal_open(&(struct journal_config){.storage_uri = "memory"}, &rig->journal, NULL), 0);
	rig->server = grpc_server_new(&(struct grpc_server_config){.listen = "127.0.0.1:0"}, &rig->loop, 1);
	rig->service = journal_service_new(rig->journal, rig->server, &rig->loop, 1);
	cr_assert_eq(grpc_server_listen(rig->server, NULL), 0);
	snprintf(rig->target, sizeof(rig->target), "127.0.0.1:%d", grpc_server_port(rig->server));
	rig->client = client_new(rig->loop, &(struct client_config){.target = rig->target});
	return rig;
}

static void rig_free(struct rig *rig)
{
	client_free(rig->client);
	journal_stop(rig->journal);
	while (journal_step(rig->journal) || loop_run_once(rig->loop, false))
		;
	grpc_server_free(rig->server);
	while (loop_run_once(rig->loop, false))
		;
	journal_service_free(rig->service);
	journal_close(rig->journal);
	loop_free(rig->loop);
	mem_free(rig);
}

static void on_settled(const struct grpc_result *result, struct span reply, void *arg)
{
	(void)reply;
	cr_assert_eq(result->code, GRPC_UNIMPLEMENTED);
	*(bool *)arg = true;
}

/* What was written before has arrived and been acted on, while the sequencer stands still: calls have been
 * made and answered since, on connections of their own, by the same loop. */
static void settle(struct rig *rig)
{
	for (int i = 0; i < 3; i++) {
		bool done = false;
		struct grpc_channel *ch = grpc_channel_new(
			rig->loop, &(struct grpc_channel_config){.target = rig->target}, NULL, NULL);

		grpc_channel_unary(ch, "/no.such/Call", SPAN(""), -1, false, on_settled, &done);
		while (!done)
			loop_run_once(rig->loop, true);
		grpc_channel_free(ch);
	}
}

#define run_until(rig, condition) \
	do { \
		while (!(condition)) \
			if (!journal_step((rig)->journal)) \
				loop_run_once((rig)->loop, false); \
	} while (0)

static void on_appended(const struct client_appended *appended, const struct client_error *error, void *arg)
{
	struct rig *rig = arg;

	rig->done_count++;
	rig->ok_count += appended != NULL;
	rig->code = error->code;
}

static void append_bytes_of(struct rig *rig, size_t size)
{
	uint8_t *data = mem_xalloc(size + 1);
	struct client_record event = {.type = SPAN("Added"), .data = span_of(data, size)};
	struct client_stream stream = {.stream = SPAN("s"), .events = &event, .event_count = 1};

	uuid_v7(&clock_system, event.id);
	client_append(rig->client, &(struct client_append){.streams = &stream, .stream_count = 1}, 50000,
		      on_appended, rig);
	mem_free(data);
}

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	(void)r;
	(void)record;
	((struct rig *)arg)->records++;
}

static void on_page(struct client_read *r, const struct client_page *page, void *arg)
{
	struct rig *rig = arg;

	(void)r;
	rig->pages++;
	rig->caught_up |= page->caught_up;
}

static void on_read_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct rig *rig = arg;

	(void)r;
	rig->reads_done++;
	rig->read_code = error->code;
}

static const struct client_read_ops read_ops = {
	.on_record = on_record, .on_page = on_page, .on_done = on_read_done};

Test(service, an_append_waits_for_the_sequencer)
{
	struct rig *rig = rig_new();

	append_bytes_of(rig, 10);
	settle(rig);
	cr_assert_eq(rig->done_count, 0);
	run_until(rig, rig->done_count == 1);
	cr_assert_eq(rig->ok_count, 1);
	cr_assert_eq(journal_head(rig->journal), 1);
	rig_free(rig);
}

Test(service, reading_stops_while_the_queue_is_full)
{
	struct rig *rig = rig_new();
	const size_t each = 3 * MIB / 2, count = 120; /* 180 MiB */

	for (size_t i = 0; i < count; i++)
		append_bytes_of(rig, each);
	while (metric_get(METRIC_JOURNAL_APPEND_HELD) == 0)
		loop_run_once(rig->loop, true);
	settle(rig);
	/* What has been taken is what the queue holds, and a little. The rest is not lost: it goes on. */
	client_free(rig->client);
	rig->client = NULL;
	while (metric_get(METRIC_JOURNAL_APPEND_STREAMS) > 0)
		loop_run_once(rig->loop, true);
	while (journal_step(rig->journal))
		;
	size_t taken = (size_t)journal_head(rig->journal);
	cr_assert_geq(taken * each, LIMIT_SEQUENCER_QUEUE_BYTES - each);
	cr_assert_leq(taken * each, LIMIT_SEQUENCER_QUEUE_BYTES + 4 * MIB, "%zu MiB", taken * each / MIB);
	cr_assert_eq(rig->done_count, count); /* cancelled, by closing the client */
	rig_free(rig);
}

Test(service, reading_goes_on_when_there_is_room)
{
	struct rig *rig = rig_new();

	for (size_t i = 0; i < 80; i++)
		append_bytes_of(rig, 3 * MIB / 2);
	while (journal_has_room(rig->journal))
		loop_run_once(rig->loop, false);
	run_until(rig, rig->done_count == 80);
	cr_assert_eq(rig->ok_count, 80);
	cr_assert_eq(journal_head(rig->journal), 80);
	rig_free(rig);
}

Test(service, appends_outlive_their_call)
{
	struct rig *rig = rig_new();

	for (int i = 0; i < 10; i++)
		append_bytes_of(rig, 100);
	settle(rig);
	client_free(rig->client); /* the call breaks; the appends are under way */
	rig->client = NULL;
	cr_assert_eq(rig->done_count, 10);
	while (metric_get(METRIC_JOURNAL_APPEND_STREAMS) > 0)
		loop_run_once(rig->loop, true);
	cr_assert_eq(journal_head(rig->journal), 0);
	while (journal_step(rig->journal))
		;
	settle(rig);
	cr_assert_eq(journal_head(rig->journal), 10);
	rig_free(rig);
}

Test(service, a_read_is_cancelled_at_any_stage)
{
	struct rig *rig = rig_new();
	size_t started = 0;

	for (int i = 0; i < 10; i++)
		append_bytes_of(rig, MIB / 2);
	run_until(rig, rig->done_count == 10);
	for (int turns = 0; turns < 60; turns++) {
		struct client_read *r =
			client_read(rig->client, &(struct client_query){.stream = SPAN("s")}, &read_ops, rig);

		started++;
		for (int i = 0; i < turns && rig->reads_done < started; i++) {
			loop_run_once(rig->loop, false);
			if (turns % 3)
				journal_step(rig->journal);
		}
		if (rig->reads_done < started)
			client_read_cancel(r);
		run_until(rig, rig->reads_done == started);
	}
	rig_free(rig);
}

static void on_drained(void *arg)
{
	((struct rig *)arg)->drained = true;
}

Test(service, a_drain_ends_what_does_not_end_by_itself)
{
	struct rig *rig = rig_new();

	append_bytes_of(rig, 10);
	run_until(rig, rig->done_count == 1);
	client_subscribe(rig->client, &(struct client_query){.stream = SPAN("s")}, &read_ops, rig);
	run_until(rig, rig->caught_up);
	cr_assert_eq(metric_get(METRIC_JOURNAL_SUBSCRIPTIONS), 1);
	append_bytes_of(rig, 10);
	settle(rig); /* it is under way */
	journal_service_drain(rig->service);
	grpc_server_drain(rig->server, 30000, on_drained, rig);
	run_until(rig, rig->reads_done == 1);
	cr_assert_eq(rig->read_code, GRPC_UNAVAILABLE);
	run_until(rig, rig->drained);
	cr_assert_eq(rig->ok_count, 2, "what was under way was answered");
	cr_assert_eq(metric_get(METRIC_JOURNAL_SUBSCRIPTIONS), 0);
	cr_assert_eq(metric_get(METRIC_JOURNAL_APPEND_STREAMS), 0);
	rig_free(rig);
}

/* ---- calls that are not as they should be --------------------------------------------------------- */

struct raw {
	bool done;
	enum grpc_code code;
	size_t messages;
};

static void raw_on_message(struct grpc_call *call, struct span message, void *user)
{
	(void)call;
	(void)message;
	((struct raw *)user)->messages++;
}

static void raw_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct raw *raw = user;

	(void)call;
	raw->done = true;
	raw->code = result->code;
}

static const struct grpc_call_ops raw_ops = {.on_message = raw_on_message, .on_done = raw_on_done};

static void raw_call(struct rig *rig, const char *path, size_t messages, struct raw *raw)
{
	static const struct headers none = {0};
	struct grpc_channel *channel =
		grpc_channel_new(rig->loop, &(struct grpc_channel_config){.target = rig->target}, NULL, NULL);
	struct grpc_call *call = grpc_channel_call(channel, path, &none, -1, true, &raw_ops, raw);

	*raw = (struct raw){0};
	for (size_t i = 0; i < messages; i++)
		grpc_call_send(call, SPAN(""));
	grpc_call_half_close(call);
	run_until(rig, raw->done);
	grpc_channel_free(channel);
}

/* Sends requests as long as they are welcome and lets the journal work, until nothing moves any more. */
static size_t send_until_stuck(struct rig *rig, struct grpc_call *call, size_t sent, size_t most)
{
	for (int still = 0; still < 3;) {
		still++;
		while (sent < most && grpc_call_writable(call)) {
			grpc_call_send(call, SPAN("\x10\x07")); /* request 7, of nothing */
			sent++;
			still = 0;
		}
		while (journal_step(rig->journal) || loop_run_once(rig->loop, false))
			;
		settle(rig);
	}
	return sent;
}

Test(service, reading_stops_while_answers_are_not_taken)
{
	static const struct headers none = {0};
	enum { MANY = 300000 };
	struct rig *rig = rig_new();
	struct raw raw = {0};
	struct grpc_channel *channel = grpc_channel_new(
		rig->loop,
		&(struct grpc_channel_config){.target = rig->target, .window_bytes = 65535}, NULL, NULL);
	struct grpc_call *call = grpc_channel_call(channel, JOURNAL_METHOD("AppendStream"), &none, -1, true,
						   &raw_ops, &raw);
	size_t sent;

	grpc_call_hold_read(call, true);
	sent = send_until_stuck(rig, call, 0, MANY);
	cr_assert_lt(sent, MANY, "the server took all of them and keeps their answers");
	cr_assert_geq(sent, 1000);
	grpc_call_hold_read(call, false);
	while (sent < MANY)
		sent = send_until_stuck(rig, call, sent, MANY);
	grpc_call_half_close(call);
	run_until(rig, raw.done);
	cr_assert_eq(raw.code, GRPC_OK);
	cr_assert_eq(raw.messages, sent);
	grpc_channel_free(channel);
	rig_free(rig);
}

Test(service, calls_without_a_request_and_with_two)
{
	static const char *const unary[] = {"Append", "Read", "Load", "Subscribe", "Stat", "ListStreams"};
	struct rig *rig = rig_new();
	struct raw raw;

	for (size_t i = 0; i < ARRAY_LEN(unary); i++) {
		char path[64];

		snprintf(path, sizeof(path), "/" JOURNAL_SERVICE_NAME "/%s", unary[i]);
		raw_call(rig, path, 0, &raw);
		cr_assert_neq(raw.code, GRPC_OK, "%s", path);
		cr_assert_eq(raw.messages, 0);
		raw_call(rig, path, 2, &raw);
		cr_assert_neq(raw.code, GRPC_OK, "%s", path);
	}
	raw_call(rig, JOURNAL_METHOD("AppendStream"), 0, &raw);
	cr_assert_eq(raw.code, GRPC_OK);
	cr_assert_eq(raw.messages, 0);
	/* An append of nothing is one that only checks its conditions, of which there are none. */
	raw_call(rig, JOURNAL_METHOD("AppendStream"), 3, &raw);
	cr_assert_eq(raw.code, GRPC_OK);
	cr_assert_eq(raw.messages, 3);
	rig_free(rig);
}
