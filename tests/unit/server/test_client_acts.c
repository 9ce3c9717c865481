/* Sessions, grants and fences of the client, with the real service on a journal that is moved by hand. */
#include <config.h>

#include <stdio.h>

#include <criterion/criterion.h>

#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "grpc/grpc.h"
#include "journal/client_acts.h"
#include "journal/client_group.h"
#include "journal/journal.h"
#include "journal/service.h"

TestSuite(client_acts, .timeout = 60);

struct rig {
	struct loop *loop;
	struct journal *journal;
	struct grpc_server *server;
	struct journal_service *service;
	struct client *client;
	/* The last answer. */
	size_t done_count;
	enum grpc_code code;
	uint64_t beats, position;
	struct client_grant grants[8];
	size_t grant_count;
	bool has_fence_found;
	struct client_fence fence_found;
	char fence_service[64];
	/* The watch. */
	size_t changes;
	bool complete, watch_done;
	enum grpc_code watch_code;
	uint8_t sessions[8][RECORD_ID_BYTES];
	size_t session_count, watched_grants;
	struct client_grant watched[8];
	char address[64];
};

static struct rig *rig_new(void)
{
	struct rig *rig = mem_xalloc(sizeof(*rig));
	char target[32];

	rig->loop = loop_new();
	cr_assert_eq(journal_open(&(struct journal_config){.storage_uri = "memory"}, &rig->journal, NULL), 0);
	rig->server = grpc_server_new(&(struct grpc_server_config){.listen = "127.0.0.1:0"}, &rig->loop, 1);
	rig->service = journal_service_new(rig->journal, rig->server, &rig->loop, 1);
	cr_assert_eq(grpc_server_listen(rig->server, NULL), 0);
	snprintf(target, sizeof(target), "127.0.0.1:%d", grpc_server_port(rig->server));
	rig->client = client_new(rig->loop, &(struct client_config){.target = target});
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

#define run_until(rig, condition)                                 \
	do {                                                      \
		while (!(condition))                              \
			if (!journal_step((rig)->journal))        \
				loop_run_once((rig)->loop, false); \
	} while (0)

static void on_act(const struct client_act *answer, const struct client_error *error, void *arg)
{
	struct rig *rig = arg;

	rig->done_count++;
	rig->code = error->code;
	cr_assert_eq(answer == NULL, error->code != GRPC_OK);
	if (!answer)
		return;
	rig->beats = answer->beats;
	rig->position = answer->cursor.position;
	cr_assert_leq(answer->grant_count, ARRAY_LEN(rig->grants));
	rig->grant_count = answer->grant_count;
	for (size_t i = 0; i < answer->grant_count; i++)
		rig->grants[i] = answer->grants[i];
}

#define WAIT(rig, call, expected)                                            \
	do {                                                                 \
		size_t before_ = (rig)->done_count;                          \
		call;                                                        \
		cr_assert_eq((rig)->done_count, before_);                    \
		run_until(rig, (rig)->done_count > before_);                 \
		cr_assert_eq((rig)->code, expected, "%s", grpc_code_name((rig)->code)); \
	} while (0)

static void id_of(unsigned n, uint8_t ret[RECORD_ID_BYTES])
{
	memset(ret, (int)n, RECORD_ID_BYTES);
}

static void begin(struct rig *rig, unsigned n)
{
	static const struct span services[] = {{(const uint8_t *)"carts", 5}};
	struct client_session s = {
		.services = services, .service_count = 1, .ttl_ms = 60000, .address = SPAN("here:1")};

	id_of(n, s.id);
	WAIT(rig, client_session_begin(rig->client, &s, 5000, on_act, rig), GRPC_OK);
}

Test(client_acts, a_session_begins_beats_and_ends)
{
	struct rig *rig = rig_new();
	uint8_t id[RECORD_ID_BYTES];

	id_of(1, id);
	WAIT(rig, client_session_beat(rig->client, id, 5000, on_act, rig), GRPC_NOT_FOUND);
	begin(rig, 1);
	cr_assert_eq(rig->position, 1);
	WAIT(rig, client_session_beat(rig->client, id, 5000, on_act, rig), GRPC_OK);
	WAIT(rig, client_session_beat(rig->client, id, 5000, on_act, rig), GRPC_OK);
	cr_assert_eq(rig->beats, 2);
	WAIT(rig, client_session_end(rig->client, id, 5000, on_act, rig), GRPC_OK);
	cr_assert_eq(rig->position, 2);
	WAIT(rig, client_session_beat(rig->client, id, 5000, on_act, rig), GRPC_NOT_FOUND);
	rig_free(rig);
}

Test(client_acts, slots_are_claimed_and_released)
{
	struct rig *rig = rig_new();
	uint8_t one[RECORD_ID_BYTES], two[RECORD_ID_BYTES];
	static const uint32_t slots[] = {3, 4, 5};
	struct client_grant back[] = {{.slot = 3, .epoch = 1}, {.slot = 5, .epoch = 9}};

	id_of(1, one);
	id_of(2, two);
	begin(rig, 1);
	begin(rig, 2);
	WAIT(rig, client_grants_claim(rig->client, SPAN("carts"), one, slots, 2, 5000, on_act, rig), GRPC_OK);
	cr_assert_eq(rig->grant_count, 2);
	cr_assert(rig->grants[1].slot == 4 && rig->grants[1].epoch == 1);
	WAIT(rig, client_grants_claim(rig->client, SPAN("carts"), two, slots, 3, 5000, on_act, rig), GRPC_OK);
	cr_assert_eq(rig->grant_count, 3);
	cr_assert(memcmp(rig->grants[0].session, one, sizeof(one)) == 0);
	cr_assert(memcmp(rig->grants[2].session, two, sizeof(two)) == 0);
	WAIT(rig, client_grants_release(rig->client, SPAN("carts"), one, back, 2, 5000, on_act, rig), GRPC_OK);
	cr_assert(rig->grants[0].released && !rig->grants[1].released);
	WAIT(rig, client_grants_claim(rig->client, SPAN("carts"), two, slots, 1, 5000, on_act, rig), GRPC_OK);
	cr_assert_eq(rig->grants[0].epoch, 2);
	WAIT(rig, client_grants_claim(rig->client, SPAN("users"), two, slots, 1, 5000, on_act, rig),
	     GRPC_FAILED_PRECONDITION);
	rig_free(rig);
}

static void on_appended(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct rig *rig = arg;

	(void)answer;
	rig->done_count++;
	rig->code = error->code;
	rig->has_fence_found = error->has_fence_found;
	rig->fence_found = error->fence_found;
	snprintf(rig->fence_service, sizeof(rig->fence_service), "%.*s", SPAN_ARG(error->fence_found.service));
}

static void append(struct rig *rig, const struct client_fence *fence, enum grpc_code code)
{
	struct client_record event = {.type = SPAN("Added")};
	struct client_stream stream = {.stream = SPAN("s"), .events = &event, .event_count = 1};
	struct client_append a = {
		.streams = &stream, .stream_count = 1, .fences = fence, .fence_count = fence ? 1 : 0};

	uuid_v7(&clock_system, event.id);
	WAIT(rig, client_append(rig->client, &a, 5000, on_appended, rig), code);
}

Test(client_acts, appends_are_fenced)
{
	struct rig *rig = rig_new();
	struct client_fence grant = {.service = SPAN("carts"), .slot = 3, .epoch = 1};
	struct client_fence session = {.by_session = true};
	static const uint32_t slot = 3;

	id_of(1, session.session);
	begin(rig, 1);
	append(rig, &session, GRPC_OK);
	append(rig, &grant, GRPC_FAILED_PRECONDITION);
	cr_assert(rig->has_fence_found);
	cr_assert_eq(rig->fence_found.epoch, 0);
	WAIT(rig, client_grants_claim(rig->client, SPAN("carts"), session.session, &slot, 1, 5000, on_act, rig),
	     GRPC_OK);
	append(rig, &grant, GRPC_OK);
	grant.epoch = 2;
	append(rig, &grant, GRPC_FAILED_PRECONDITION);
	cr_assert(rig->has_fence_found && !rig->fence_found.by_session);
	cr_assert_eq(rig->fence_found.epoch, 1);
	cr_assert_eq(rig->fence_found.slot, 3);
	cr_assert_str_eq(rig->fence_service, "carts");
	cr_assert(memcmp(rig->fence_found.session, session.session, RECORD_ID_BYTES) == 0);
	WAIT(rig, client_session_end(rig->client, session.session, 5000, on_act, rig), GRPC_OK);
	append(rig, &session, GRPC_FAILED_PRECONDITION);
	cr_assert(rig->has_fence_found && rig->fence_found.by_session);
	rig_free(rig);
}

static void on_change(struct client_watch *w, const struct client_change *change, void *arg)
{
	struct rig *rig = arg;

	(void)w;
	rig->changes++;
	rig->complete = rig->complete || change->complete;
	for (size_t i = 0; i < change->session_count; i++) {
		memcpy(rig->sessions[rig->session_count++], change->sessions[i].id, RECORD_ID_BYTES);
		snprintf(rig->address, sizeof(rig->address), "%.*s", SPAN_ARG(change->sessions[i].address));
	}
	rig->session_count -= change->ended_count;
	for (size_t i = 0; i < change->grant_count; i++)
		rig->watched[rig->watched_grants++] = change->grants[i];
}

static void on_watch_done(struct client_watch *w, const struct client_error *error, void *arg)
{
	struct rig *rig = arg;

	(void)w;
	rig->watch_done = true;
	rig->watch_code = error->code;
}

Test(client_acts, owners_are_watched)
{
	static const struct client_watch_ops ops = {on_change, on_watch_done};
	struct rig *rig = rig_new();
	uint8_t one[RECORD_ID_BYTES];
	static const uint32_t slots[] = {3, 4};

	id_of(1, one);
	begin(rig, 1);
	WAIT(rig, client_grants_claim(rig->client, SPAN("carts"), one, slots, 1, 5000, on_act, rig), GRPC_OK);
	struct client_watch *w = client_grants_watch(rig->client, SPAN("carts"), &ops, rig);
	cr_assert_eq(rig->changes, 0);
	run_until(rig, rig->changes == 1);
	cr_assert(rig->complete && rig->session_count == 1 && rig->watched_grants == 1);
	cr_assert_str_eq(rig->address, "here:1");
	begin(rig, 2);
	run_until(rig, rig->session_count == 2);
	WAIT(rig, client_grants_claim(rig->client, SPAN("carts"), one, slots + 1, 1, 5000, on_act, rig), GRPC_OK);
	run_until(rig, rig->watched_grants == 2);
	cr_assert_eq(rig->watched[1].slot, 4);
	cr_assert(memcmp(rig->watched[1].session, one, sizeof(one)) == 0);
	WAIT(rig, client_session_end(rig->client, one, 5000, on_act, rig), GRPC_OK);
	run_until(rig, rig->session_count == 1);
	client_watch_cancel(w);
	run_until(rig, rig->watch_done);
	cr_assert_eq(rig->watch_code, GRPC_CANCELLED);
	rig_free(rig);
}

Test(client_acts, what_is_open_ends_with_the_client)
{
	static const struct client_watch_ops ops = {on_change, on_watch_done};
	struct rig *rig = rig_new();

	client_grants_watch(rig->client, SPAN("carts"), &ops, rig);
	run_until(rig, rig->changes == 1);
	client_free(rig->client);
	cr_assert(rig->watch_done);
	rig->client = NULL;
	rig_free(rig);
}

/* ---- consumers ---------------------------------------------------------------------------------- */

struct consumer {
	struct client_consumer *k;
	bool active, done;
	uint64_t active_at, parked[4];
	size_t count, parked_count;
	uint64_t positions[64];
	enum grpc_code code;
};

static void on_active(struct client_consumer *k, uint64_t position, void *arg)
{
	struct consumer *c = arg;

	(void)k;
	c->active = true;
	c->active_at = position;
}

static void on_consumed(struct client_consumer *k, const struct record_view *record, void *arg)
{
	struct consumer *c = arg;

	(void)k;
	cr_assert(c->active);
	cr_assert_lt(c->count, ARRAY_LEN(c->positions));
	c->positions[c->count++] = record->position;
}

static void on_parked(struct client_consumer *k, uint64_t position, void *arg)
{
	struct consumer *c = arg;

	(void)k;
	cr_assert_lt(c->parked_count, ARRAY_LEN(c->parked));
	c->parked[c->parked_count++] = position;
}

static void on_consumer_done(struct client_consumer *k, const struct client_error *error, void *arg)
{
	struct consumer *c = arg;

	(void)k;
	c->done = true;
	c->code = error->code;
}

static const struct client_consumer_ops consumer_ops = {on_active, on_consumed, on_parked, on_consumer_done};

static void consume(struct rig *rig, struct consumer *c)
{
	*c = (struct consumer){0};
	c->k = client_consume(rig->client, &(struct client_consume){.group = SPAN("mail"), .window = 10},
			      &consumer_ops, c);
}

Test(client_acts, a_group_is_consumed)
{
	struct rig *rig = rig_new();
	struct consumer first, second;

	for (int i = 0; i < 4; i++)
		append(rig, NULL, GRPC_OK);
	consume(rig, &first);
	run_until(rig, first.count == 4);
	cr_assert(first.active && first.active_at == 0);
	cr_assert_eq(first.positions[3], 3);
	client_consumer_ack(first.k, 0);
	client_consumer_park(first.k, 1, SPAN("no use"), true);
	run_until(rig, first.parked_count == 1);
	cr_assert_eq(first.parked[0], 1);
	client_consumer_nack(first.k, 2, 0); /* takes 3 back with it */
	run_until(rig, first.count == 5);
	cr_assert_eq(first.positions[4], 2);
	client_consumer_ack(first.k, 2);
	run_until(rig, first.count == 6);
	cr_assert_eq(first.positions[5], 3);
	consume(rig, &second); /* waits for its turn */
	client_consumer_finish(first.k);
	run_until(rig, first.done);
	cr_assert_eq(first.code, GRPC_OK);
	run_until(rig, second.count == 1);
	cr_assert_eq(second.positions[0], 3);
	client_consumer_ack(second.k, 3);
	client_consumer_cancel(second.k);
	run_until(rig, second.done);
	cr_assert_eq(second.code, GRPC_CANCELLED);
	rig_free(rig);
}
