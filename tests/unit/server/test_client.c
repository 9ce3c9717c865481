/* The client against a server that is made to misbehave, both on one loop. */
#include <config.h>

#include <stdio.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "grpc/grpc.h"
#include "journal/client.h"
#include "journal/wire.h"

/* What the server does with the n-th append request it sees. */
enum deed { ANSWER, REFUSE, UNAVAILABLE, BREAK, SILENCE, MALFORMED };

struct rig {
	struct loop *loop;
	struct grpc_server *server;
	struct client *client;
	const enum deed *deeds; /* the last one goes on for ever */
	size_t deed_count;
	size_t seen;		/* requests */
	struct buf requests[64];
	uint64_t numbers[64];
	/* answers to the client */
	size_t done_count, ok_count;
	enum grpc_code code;
	bool unknown, unreachable, has_sequence_found, repeated;
	uint64_t sequence_found, sequence, position;
	size_t pages, records;
	bool read_done;
	enum grpc_code read_code;
	char text[512];
};

static void answer(struct grpc_call *call, uint64_t number, size_t stream_count)
{
	PB(AppendResponse) pb = CAIRN__JOURNAL__V1__APPEND_RESPONSE__INIT;
	PB(StreamAppended) stream = CAIRN__JOURNAL__V1__STREAM_APPENDED__INIT, *streams = &stream;

	pb.request = number;
	stream.sequence = 7;
	pb.n_streams = stream_count;
	pb.streams = &streams;
	pb.first_position = 41;
	pb.count = 1;
	pb.repeated = true;
	grpc_call_send_pb(call, &pb.base);
}

static void refuse(struct grpc_call *call, uint64_t number, enum grpc_code code)
{
	PB(AppendResponse) pb = CAIRN__JOURNAL__V1__APPEND_RESPONSE__INIT;
	PB(Refusal) refusal = CAIRN__JOURNAL__V1__REFUSAL__INIT;

	pb.request = number;
	pb.refusal = &refusal;
	refusal.code = (uint32_t)code;
	refusal.text = pb_bytes(SPAN("not so"));
	if (code == GRPC_FAILED_PRECONDITION) {
		refusal.has_sequence_found_case =
			CAIRN__JOURNAL__V1__REFUSAL__HAS_SEQUENCE_FOUND_SEQUENCE_FOUND;
		refusal.sequence_found = 12;
	}
	grpc_call_send_pb(call, &pb.base);
}

static void server_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct rig *rig = user;
	enum deed deed = rig->deeds[rig->seen < rig->deed_count ? rig->seen : rig->deed_count - 1];
	PB(AppendRequest) *pb;
	struct arena a;

	arena_init(&a, 64 * MIB);
	pb = (void *)grpc_unpack(PB_TYPE(append_request), &a, message);
	cr_assert(pb);
	cr_assert_lt(rig->seen, ARRAY_LEN(rig->requests));
	buf_init(&rig->requests[rig->seen], MIB);
	buf_append_span(&rig->requests[rig->seen], message);
	rig->numbers[rig->seen++] = pb->request;
	switch (deed) {
	case ANSWER: answer(call, pb->request, 1); break;
	case REFUSE: refuse(call, pb->request, GRPC_FAILED_PRECONDITION); break;
	case UNAVAILABLE: refuse(call, pb->request, GRPC_UNAVAILABLE); break;
	case BREAK: grpc_call_cancel(call); break;
	case MALFORMED: grpc_call_send(call, SPAN("\xff\xff\xff")); break;
	case SILENCE: break;
	}
	arena_release(&a);
}

static void server_on_half_close(struct grpc_call *call, void *user)
{
	(void)user;
	grpc_call_finish(call, GRPC_OK, SPAN(""), NULL);
}

static void server_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	(void)call;
	(void)result;
	(void)user;
}

static const struct grpc_call_ops server_ops = {
	.on_message = server_on_message,
	.on_half_close = server_on_half_close,
	.on_done = server_on_done,
};

static void server_open(struct grpc_call *call, void *arg)
{
	grpc_call_bind(call, &server_ops, arg);
}

/* A read of two records and one whose CRC is wrong, by the stream's name. */
static void server_read(struct grpc_call *call, struct span request, void *arg)
{
	PB(ReadResponse) fields = CAIRN__JOURNAL__V1__READ_RESPONSE__INIT;
	struct record_new r = {.kind = RECORD_EVENT, .stream = SPAN("s"), .type = SPAN("t"),
			       .last_of_append = true};
	struct record_place place;
	struct buf body;
	PB(ReadRequest) *pb;
	struct arena a;
	bool spoil;

	(void)arg;
	arena_init(&a, MIB);
	pb = (void *)grpc_unpack(PB_TYPE(read_request), &a, request);
	cr_assert(pb);
	spoil = span_eq_str(pb_span(pb->stream), "spoilt");
	buf_init(&body, MIB);
	for (uint64_t i = 0; i < 2; i++) {
		cr_assert_eq(record_encode(&body, &r, &place, NULL), ERR_OK);
		record_patch(body.p, &place, i, i + 1, (struct wall_time){1});
	}
	if (spoil)
		body.p[place.at + place.n - 8] ^= 1;
	fields.end = true;
	cr_assert_eq(buf_reserve(&body, 16), ERR_OK);
	body.n += protobuf_c_message_pack(&fields.base, body.p + body.n);
	grpc_call_reply(call, buf_span(&body));
	buf_release(&body);
	arena_release(&a);
}

static struct rig *rig_new(const enum deed *deeds, size_t deed_count)
{
	static struct grpc_method methods[2];
	struct rig *rig = mem_xalloc(sizeof(*rig));
	char target[32];

	rig->deeds = deeds;
	rig->deed_count = deed_count;
	rig->loop = loop_new();
	rig->server = grpc_server_new(&(struct grpc_server_config){.listen = "127.0.0.1:0"}, &rig->loop, 1);
	methods[0] = (struct grpc_method){.path = JOURNAL_METHOD("AppendStream"), .open = server_open,
					  .arg = rig};
	methods[1] = (struct grpc_method){.path = JOURNAL_METHOD("Read"), .unary = server_read, .arg = rig};
	grpc_server_add(rig->server, methods, 2);
	cr_assert_eq(grpc_server_listen(rig->server, NULL), ERR_OK);
	snprintf(target, sizeof(target), "127.0.0.1:%d", grpc_server_port(rig->server));
	rig->client = client_new(rig->loop, &(struct client_config){.target = target});
	return rig;
}

static void rig_free(struct rig *rig)
{
	client_free(rig->client);
	grpc_server_free(rig->server);
	loop_free(rig->loop);
	for (size_t i = 0; i < rig->seen; i++)
		buf_release(&rig->requests[i]);
	mem_free(rig);
}

static void on_appended(const struct client_appended *appended, const struct client_error *error, void *arg)
{
	struct rig *rig = arg;

	rig->done_count++;
	rig->code = error->code;
	rig->unknown = error->unknown;
	rig->unreachable = error->unreachable;
	rig->has_sequence_found = error->has_sequence_found;
	rig->sequence_found = error->sequence_found;
	snprintf(rig->text, sizeof(rig->text), "%.*s", SPAN_ARG(error->text));
	cr_assert_eq(appended == NULL, error->code != GRPC_OK);
	if (appended) {
		rig->ok_count++;
		rig->repeated = appended->repeated;
		rig->sequence = appended->sequences[0];
		rig->position = appended->first_position;
	}
}

static void append_one(struct rig *rig, int64_t deadline_ms)
{
	struct client_record event = {.type = SPAN("Added"), .data = SPAN("{}")};
	struct client_stream stream = {.stream = SPAN("s"), .expect = CLIENT_EXACTLY, .sequence = 6,
				       .events = &event, .event_count = 1};
	struct client_append append = {.streams = &stream, .stream_count = 1};

	uuid_v7(&clock_system, event.id);
	client_append(rig->client, &append, deadline_ms, on_appended, rig);
}

static void wait_done(struct rig *rig, size_t n)
{
	while (rig->done_count < n)
		loop_run_once(rig->loop, true);
}

Test(client, an_append_is_answered)
{
	static const enum deed deeds[] = {ANSWER};
	struct rig *rig = rig_new(deeds, 1);

	append_one(rig, 5000);
	cr_assert_eq(rig->done_count, 0, "never inside the call");
	cr_assert_eq(client_appends_open(rig->client), 1);
	wait_done(rig, 1);
	cr_assert_eq(rig->code, GRPC_OK);
	cr_assert_eq(rig->sequence, 7);
	cr_assert_eq(rig->position, 41);
	cr_assert(rig->repeated);
	cr_assert_eq(client_appends_open(rig->client), 0);
	rig_free(rig);
}

Test(client, a_refusal_is_final)
{
	static const enum deed deeds[] = {REFUSE};
	struct rig *rig = rig_new(deeds, 1);

	append_one(rig, 5000);
	wait_done(rig, 1);
	cr_assert_eq(rig->code, GRPC_FAILED_PRECONDITION);
	cr_assert(rig->has_sequence_found);
	cr_assert_eq(rig->sequence_found, 12);
	cr_assert_not(rig->unknown);
	cr_assert_eq(rig->seen, 1);
	rig_free(rig);
}

static void check_same_requests(const struct rig *rig)
{
	for (size_t i = 1; i < rig->seen; i++)
		cr_assert(span_eq(buf_span(&rig->requests[0]), buf_span(&rig->requests[i])), "%zu", i);
}

Test(client, an_unknown_outcome_is_settled_by_the_same_request)
{
	static const enum deed deeds[] = {BREAK, UNAVAILABLE, MALFORMED, BREAK, ANSWER};
	struct rig *rig = rig_new(deeds, 5);

	append_one(rig, 20000);
	wait_done(rig, 1);
	cr_assert_eq(rig->code, GRPC_OK, "%s", rig->text);
	cr_assert_eq(rig->seen, 5);
	check_same_requests(rig);
	rig_free(rig);
}

Test(client, a_deadline_says_that_the_outcome_is_unknown)
{
	static const enum deed deeds[] = {SILENCE};
	struct rig *rig = rig_new(deeds, 1);

	append_one(rig, 100);
	wait_done(rig, 1);
	cr_assert_eq(rig->code, GRPC_DEADLINE_EXCEEDED);
	cr_assert(rig->unknown);
	cr_assert_eq(rig->seen, 1);
	/* An answer that comes late is dropped, and the stream goes on. */
	rig->deeds = (const enum deed[]){ANSWER};
	append_one(rig, 5000);
	wait_done(rig, 2);
	cr_assert_eq(rig->code, GRPC_OK);
	rig_free(rig);
}

Test(client, without_a_server_nothing_has_happened)
{
	struct loop *loop = loop_new();
	struct rig rig = {.loop = loop};

	rig.client = client_new(loop, &(struct client_config){.target = "127.0.0.1:1"});
	append_one(&rig, 200);
	wait_done(&rig, 1);
	cr_assert_eq(rig.code, GRPC_DEADLINE_EXCEEDED);
	cr_assert_not(rig.unknown);
	cr_assert(rig.unreachable);
	cr_assert(strstr(rig.text, "refused"), "%s", rig.text);
	client_free(rig.client);
	loop_free(loop);
}

Test(client, another_service_is_no_journal)
{
	static const enum deed deeds[] = {ANSWER};
	struct rig *rig = rig_new(deeds, 1);
	struct client *other;
	char target[32];

	/* A server without the method: trying again would change nothing. */
	struct grpc_server *server =
		grpc_server_new(&(struct grpc_server_config){.listen = "127.0.0.1:0"}, &rig->loop, 1);
	cr_assert_eq(grpc_server_listen(server, NULL), ERR_OK);
	snprintf(target, sizeof(target), "127.0.0.1:%d", grpc_server_port(server));
	other = rig->client;
	rig->client = client_new(rig->loop, &(struct client_config){.target = target});
	append_one(rig, 20000);
	wait_done(rig, 1);
	cr_assert_eq(rig->code, GRPC_UNIMPLEMENTED);
	client_free(rig->client);
	grpc_server_free(server);
	rig->client = other;
	rig_free(rig);
}

Test(client, many_are_under_way_and_all_are_answered_once)
{
	static const enum deed deeds[] = {ANSWER, ANSWER, ANSWER, ANSWER, BREAK, ANSWER};
	struct rig *rig = rig_new(deeds, 6);

	for (int i = 0; i < 20; i++)
		append_one(rig, 20000);
	cr_assert_eq(client_appends_open(rig->client), 20);
	wait_done(rig, 20);
	cr_assert_eq(rig->ok_count, 20);
	for (int i = 0; i < 20; i++) /* and no more come */
		loop_run_once(rig->loop, false);
	cr_assert_eq(rig->done_count, 20);
	rig_free(rig);
}

Test(client, closing_ends_what_is_open)
{
	static const enum deed deeds[] = {SILENCE};
	struct rig *rig = rig_new(deeds, 1);

	append_one(rig, 20000);
	while (!rig->seen)
		loop_run_once(rig->loop, true);
	append_one(rig, 20000);
	client_free(rig->client);
	rig->client = NULL;
	cr_assert_eq(rig->done_count, 2);
	cr_assert_eq(rig->code, GRPC_CANCELLED);
	rig_free(rig);
}

Test(client, what_is_too_large_for_a_request_is_refused_here)
{
	static const enum deed deeds[] = {ANSWER};
	struct rig *rig = rig_new(deeds, 1);
	uint8_t *data = mem_xalloc(LIMIT_GRPC_MESSAGE_BYTES);
	struct client_record event = {.type = SPAN("Added"), .data = span_of(data, LIMIT_GRPC_MESSAGE_BYTES)};
	struct client_stream stream = {.stream = SPAN("s"), .events = &event, .event_count = 1};

	client_append(rig->client, &(struct client_append){.streams = &stream, .stream_count = 1}, 5000,
		      on_appended, rig);
	cr_assert_eq(rig->done_count, 0);
	wait_done(rig, 1);
	cr_assert_eq(rig->code, GRPC_INVALID_ARGUMENT);
	mem_free(data);
	rig_free(rig);
}

/* ---- reading ------------------------------------------------------------------------------------ */

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct rig *rig = arg;

	(void)r;
	cr_assert_eq(record->position, rig->records);
	rig->records++;
}

static void on_page(struct client_read *r, const struct client_page *page, void *arg)
{
	struct rig *rig = arg;

	(void)r;
	rig->pages++;
	cr_assert(page->end);
	cr_assert_eq(page->records, 2);
}

static void on_read_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct rig *rig = arg;

	(void)r;
	rig->read_done = true;
	rig->read_code = error->code;
	snprintf(rig->text, sizeof(rig->text), "%.*s", SPAN_ARG(error->text));
}

static const struct client_read_ops read_ops = {
	.on_record = on_record, .on_page = on_page, .on_done = on_read_done};

static void read_stream(struct rig *rig, const char *name)
{
	client_read(rig->client, &(struct client_query){.stream = span_str(name)}, &read_ops, rig);
	cr_assert_not(rig->read_done);
	while (!rig->read_done)
		loop_run_once(rig->loop, true);
}

Test(client, a_read_hands_records_over)
{
	static const enum deed deeds[] = {ANSWER};
	struct rig *rig = rig_new(deeds, 1);

	read_stream(rig, "s");
	cr_assert_eq(rig->read_code, GRPC_OK);
	cr_assert_eq(rig->records, 2);
	cr_assert_eq(rig->pages, 1);
	rig_free(rig);
}

Test(client, a_spoilt_record_is_data_loss)
{
	static const enum deed deeds[] = {ANSWER};
	struct rig *rig = rig_new(deeds, 1);

	read_stream(rig, "spoilt");
	cr_assert_eq(rig->read_code, GRPC_DATA_LOSS, "%s", rig->text);
	cr_assert_eq(rig->pages, 0);
	rig_free(rig);
}

Test(client, errors_become_ours)
{
	struct client_error e = {.code = GRPC_FAILED_PRECONDITION, .text = SPAN("found 3")};
	struct err err = {0};

	cr_assert_eq(client_error_to_err(&e, &err), ERR_CONFLICT);
	cr_assert_str_eq(err.text, "FAILED_PRECONDITION: found 3");
	e.code = GRPC_OK;
	cr_assert_eq(client_error_to_err(&e, NULL), ERR_OK);
}
