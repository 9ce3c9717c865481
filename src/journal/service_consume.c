/* Consume: one consumer of a group, from its first request to its end. What the group has in hand is group.h's;
 * here are its session and grant, what is read, sent, and written down.
 *
 *	request ──▶ session ──▶ claim, until it is ours ──▶ the newest offset ──▶ records ⇄ acknowledgements
 *
 * Each call has a session of its own, beaten while the call lives and ended with it; should the server die, the
 * session runs out. Offsets and parked records are fenced by its grant. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/acts.h"
#include "journal/group.h"

#define CONSUME_CALL_MAGIC 0xc0254ca1
#define CONSUME_TTL_MS 5000
#define CONSUME_BEAT_MS 1000
#define CONSUME_CLAIM_MS 250
#define CONSUME_WRITE_MS 5000
#define CONSUME_WINDOW 100
/* The first request and what is kept of it. */
#define CONSUME_OPEN_BYTES (4 * MIB)
#define EVENTS (UINT32_C(1) << RECORD_EVENT)

enum consume_state { CONSUME_OPENING, CONSUME_CLAIMING, CONSUME_LOADING, CONSUME_ACTIVE, CONSUME_CLOSED };

struct consume_call {
	uint32_t magic;
	struct journal_service *service;
	struct service_loop *loop;
	struct grpc_call *call; /* a reference */
	struct list_node node;	/* in loop->consumers */
	enum consume_state state;
	bool over;	  /* the end has been sent or has come */
	bool half_closed; /* no acknowledgements come any more */
	size_t refs;	  /* the call itself, acts under way */
	size_t under_way;

	struct arena arena; /* what the first request says */
	PB(ConsumeRequest) *open;
	struct span group, grants; /* its name, and that of its service */
	uint8_t session[RECORD_ID_BYTES];
	bool began;
	struct journal_fence fence;
	struct journal_cursor claimed;

	struct group *hand;
	struct journal_read *offset, *records, *behind; /* behind: of a stream that catches up */
	bool asked;				        /* a page of records is under way */
	struct journal_page *page;		        /* being handed out */
	struct span run;			        /* what is left of it */
	struct loop_timer *claim, *beat, *due, *write;
	bool write_set, rewrite;
};

static void consume_pump(struct consume_call *cc);
static void consume_close(struct consume_call *cc);

static void consume_unref(struct consume_call *cc)
{
	if (--cc->refs)
		return;
	loop_timer_free(cc->claim);
	loop_timer_free(cc->beat);
	loop_timer_free(cc->due);
	loop_timer_free(cc->write);
	group_free(cc->hand);
	arena_release(&cc->arena);
	grpc_call_unref(cc->call);
	cc->magic = 0;
	mem_free(cc);
}

static void consume_end(struct consume_call *cc, enum grpc_code code, struct span text)
{
	if (!cc->over) {
		cc->over = true;
		grpc_call_finish(cc->call, code, text, NULL);
	}
	consume_close(cc);
}

static void consume_fail(struct consume_call *cc, const struct err *err)
{
	consume_end(cc, grpc_code_of(err->code), span_str(err->text));
}

static void consume_lost(struct consume_call *cc)
{
	consume_end(cc, GRPC_UNAVAILABLE,
		    SPAN("the group may have another consumer now: consume again, and wait for your turn"));
}

/* ---- acts --------------------------------------------------------------------------------------- */

struct consume_op {
	struct consume_call *cc;
	void (*fn)(struct consume_call *cc, const struct append *append, uint64_t position);
	uint64_t position;
};

/* All acknowledgements have come: what they moved is written down, then the call ends. */
static void consume_finish_if_idle(struct consume_call *cc)
{
	if (!cc->half_closed || cc->under_way || cc->over)
		return;
	if (cc->state != CONSUME_CLOSED)
		consume_close(cc);
	if (!cc->under_way)
		consume_end(cc, GRPC_OK, SPAN(""));
}

static void consume_on_act(struct append *append, void *arg)
{
	struct consume_op *op = arg;
	struct consume_call *cc = OBJ_CAST(struct consume_call, op->cc, CONSUME_CALL_MAGIC);

	must(cc->under_way > 0);
	cc->under_way--;
	if (cc->state != CONSUME_CLOSED && op->fn)
		op->fn(cc, append, op->position);
	append_unref(append);
	mem_free(op);
	consume_finish_if_idle(cc);
	consume_unref(cc);
}

/* Takes the append; fn is called with the outcome unless the call is closed by then. */
static void consume_act(struct consume_call *cc, struct append *append,
			void (*fn)(struct consume_call *cc, const struct append *append, uint64_t position),
			uint64_t position)
{
	struct consume_op *op = mem_xalloc(sizeof(*op));
	struct err err = {0};

	*op = (struct consume_op){cc, fn, position};
	if (journal_append(cc->service->journal, &append, loop_mailbox(cc->loop->loop), consume_on_act, op,
			   &err)) {
		append_unref(append);
		mem_free(op);
		if (cc->state != CONSUME_CLOSED)
			consume_fail(cc, &err);
		return;
	}
	cc->under_way++;
	cc->refs++;
}

/* ---- what is written down ----------------------------------------------------------------------- */

static void consume_on_written(struct consume_call *cc, const struct append *append, uint64_t position)
{
	const struct append_answer *answer = append_answer(append);

	(void)position;
	if (answer->code == ERR_CONFLICT)
		consume_lost(cc);
	else if (answer->code)
		cc->rewrite = true; /* at the next time */
}

static void consume_write(struct consume_call *cc)
{
	size_t n = group_waiting_count(cc->hand);
	struct journal_group_waiting *waiting = mem_xalloc((n + 1) * sizeof(*waiting));
	struct journal_group_offset offset = {
		.group = cc->group, .position = group_below(cc->hand), .waiting = waiting, .waiting_count = n};
	struct append_refusal refusal;
	struct append *append = NULL;

	for (size_t i = 0; i < n; i++)
		waiting[i].stream = group_waiting(cc->hand, i, &waiting[i].position);
	group_written(cc->hand);
	cc->rewrite = false;
	if (!journal_group_offset_new(cc->service->journal, &offset, &cc->fence, &append, &refusal))
		consume_act(cc, append, consume_on_written, 0);
	else if (cc->state != CONSUME_CLOSED)
		consume_fail(cc, &refusal.err);
	mem_free(waiting);
}

static void consume_on_write_timer(void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);

	cc->write_set = false;
	if (cc->state != CONSUME_ACTIVE || !(group_moved(cc->hand) || cc->rewrite))
		return;
	consume_write(cc);
	if (cc->state == CONSUME_ACTIVE) {
		cc->write_set = true;
		loop_timer_set(cc->write, CONSUME_WRITE_MS);
	}
}

/* At most once in a while, and only when it has moved. */
static void consume_will_write(struct consume_call *cc)
{
	if (cc->write_set || !group_moved(cc->hand))
		return;
	cc->write_set = true;
	loop_timer_set(cc->write, CONSUME_WRITE_MS);
}

/* Whatever is under way is let go; what was reached is written down and the session ended, so that the next
 * consumer begins at once and where this one was. */
static void consume_close(struct consume_call *cc)
{
	struct append_refusal refusal;
	struct append *append = NULL;
	enum consume_state was = cc->state;

	if (was == CONSUME_CLOSED)
		return;
	cc->state = CONSUME_CLOSED;
	loop_timer_cancel(cc->claim);
	loop_timer_cancel(cc->beat);
	loop_timer_cancel(cc->due);
	loop_timer_cancel(cc->write);
	journal_read_close(cc->offset);
	journal_read_close(cc->records);
	journal_read_close(cc->behind);
	journal_page_free(cc->page);
	cc->offset = cc->records = cc->behind = NULL;
	cc->page = NULL;
	if (was == CONSUME_ACTIVE && (group_moved(cc->hand) || cc->rewrite))
		consume_write(cc);
	if (cc->began &&
	    !journal_session_end_new(cc->service->journal, cc->session, SPAN(""), &append, &refusal))
		consume_act(cc, append, NULL, 0);
}

/* ---- records ------------------------------------------------------------------------------------ */

static enum err_code consume_query(struct consume_call *cc, struct journal_query *q, struct span **ret_spans)
{
	const PB(ConsumeRequest) *pb = cc->open;
	struct span *spans = mem_xalloc((pb->n_types + pb->n_stream_prefixes + 1) * sizeof(*spans));

	*q = (struct journal_query){.kinds = EVENTS, .types = spans, .type_count = pb->n_types};
	if (pb->source_case == CAIRN__JOURNAL__V1__CONSUME_REQUEST__SOURCE_STREAM) {
		q->source = STORAGE_STREAM;
		q->name = pb_span(pb->stream);
	} else if (pb->source_case == CAIRN__JOURNAL__V1__CONSUME_REQUEST__SOURCE_CATEGORY) {
		q->source = STORAGE_CATEGORY;
		q->name = pb_span(pb->category);
	}
	for (size_t i = 0; i < pb->n_types; i++)
		spans[i] = pb_span(pb->types[i]);
	for (size_t i = 0; i < pb->n_stream_prefixes; i++)
		spans[pb->n_types + i] = pb_span(pb->stream_prefixes[i]);
	q->stream_prefixes = spans + pb->n_types;
	q->stream_prefix_count = pb->n_stream_prefixes;
	*ret_spans = spans;
	return ERR_OK;
}

static void consume_on_page(struct journal_read *read, struct journal_page *page, const struct err *err,
			    void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);

	must(read == cc->records);
	cc->asked = false;
	if (!page) {
		consume_fail(cc, err);
		return;
	}
	must(!cc->page);
	cc->page = page;
	cc->run = buf_span(&page->body);
	consume_pump(cc);
}

static void consume_on_behind(struct journal_read *read, struct journal_page *page, const struct err *err,
			      void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);
	struct span run, entry, stream;
	struct record_view v;
	struct err why = {0};

	must(read == cc->behind);
	if (!page) {
		consume_fail(cc, err);
		return;
	}
	run = buf_span(&page->body);
	if (page->records == 0 && !page->end) {
		journal_page_free(page);
		journal_read_next(read);
		return;
	}
	cc->behind = NULL;
	if (page->records == 0) {
		group_caught(cc->hand, false, 0);
	} else if (record_next(&run, &entry, NULL, &why) || record_decode_trusted(entry, &v, &why)) {
		consume_fail(cc, &why);
	} else {
		group_caught(cc->hand, true, v.position);
		/* Unless an earlier record was given back meanwhile. */
		if (group_has(cc->hand, v.position, &stream))
			grpc_call_send(cc->call, buf_span(&page->body));
	}
	journal_page_free(page);
	journal_read_close(read);
	if (cc->state == CONSUME_ACTIVE)
		consume_pump(cc);
}

/* Streams that wait, when they are due: one at a time. */
static void consume_catch_up(struct consume_call *cc)
{
	struct span stream, *spans;
	uint64_t from, below;
	struct journal_query q;
	struct err err = {0};

	while (!cc->behind && group_catch_up(cc->hand, clock_mono(&clock_system).us, &stream, &from, &below)) {
		if (from >= below) {
			group_caught(cc->hand, false, 0);
			continue;
		}
		consume_query(cc, &q, &spans);
		q.source = STORAGE_STREAM;
		q.name = stream;
		q.from = FROM_POSITION;
		q.from_value = from;
		q.to = TO_POSITION;
		q.to_value = below - 1;
		q.max_records = 1;
		journal_read_open(cc->service->journal, &q, loop_mailbox(cc->loop->loop), consume_on_behind, cc,
				  &cc->behind, &err);
		mem_free(spans);
		if (err.code) {
			consume_fail(cc, &err);
			return;
		}
		journal_read_next(cc->behind);
	}
}

/* Hands out what is there of the page, as far as there is room; false if it is not over. */
static bool consume_page(struct consume_call *cc)
{
	struct buf out;
	struct err err = {0};

	buf_init(&out, LIMIT_RESPONSE_BYTES + 2 * LIMIT_RECORD_BYTES);
	while (cc->run.n > 0 && group_has_room(cc->hand) && !err.code) {
		struct span entry, whole;
		struct record_view v;

		if (record_next(&cc->run, &entry, &whole, &err) || record_decode_trusted(entry, &v, &err))
			break;
		if (group_offer(cc->hand, v.position, v.stream) && buf_append_span(&out, whole))
			err_set(&err, ERR_NOMEM, "no memory for a response");
	}
	if (!err.code && out.n > 0)
		grpc_call_send(cc->call, buf_span(&out));
	buf_release(&out);
	if (err.code)
		consume_fail(cc, &err);
	return !err.code && cc->run.n == 0;
}

static void consume_pump(struct consume_call *cc)
{
	int64_t due_us;

	if (cc->state != CONSUME_ACTIVE || cc->half_closed)
		return;
	consume_catch_up(cc);
	if (cc->state == CONSUME_ACTIVE && cc->page && grpc_call_writable(cc->call) && consume_page(cc)) {
		group_passed(cc->hand, cc->page->next.position);
		journal_page_free(cc->page);
		cc->page = NULL;
	}
	if (cc->state != CONSUME_ACTIVE)
		return;
	if (!cc->page && !cc->asked && grpc_call_writable(cc->call)) {
		cc->asked = true;
		journal_read_next(cc->records);
	}
	if (!cc->behind && group_due(cc->hand, &due_us)) {
		int64_t now_us = clock_mono(&clock_system).us;

		/* One that is due already waits for room, and acknowledgements give that. */
		if (due_us > now_us)
			loop_timer_set(cc->due, (due_us - now_us) / 1000 + 1);
	}
	consume_will_write(cc);
}

static void consume_on_due(void *arg)
{
	consume_pump(OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC));
}

/* ---- becoming active ---------------------------------------------------------------------------- */

static void consume_activate(struct consume_call *cc, uint64_t below)
{
	PB(ConsumeResponse) pb = CAIRN__JOURNAL__V1__CONSUME_RESPONSE__INIT;
	struct journal_cursor at = journal_cursor_at(cc->service->journal, below);
	struct journal_query q;
	struct span *spans;
	struct err err = {0};
	PB(Cursor) cursor;

	cc->state = CONSUME_ACTIVE;
	consume_query(cc, &q, &spans);
	q.live = true;
	q.from = FROM_POSITION;
	q.from_value = below;
	journal_read_open(cc->service->journal, &q, loop_mailbox(cc->loop->loop), consume_on_page, cc,
			  &cc->records, &err);
	mem_free(spans);
	if (err.code) {
		consume_fail(cc, &err);
		return;
	}
	service_cursor_to(&at, &cursor);
	pb.active = &cursor;
	grpc_call_send_pb(cc->call, &pb.base);
	consume_pump(cc);
}

static bool consume_restore(struct consume_call *cc, struct span data, uint64_t *ret_below)
{
	PB(GroupOffset) *pb;
	struct arena a;
	bool ok;

	arena_init(&a, 16 * LIMIT_RECORD_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(group_offset), &a, data);
	ok = pb && pb->n_waiting <= LIMIT_GROUP_WAITING;
	if (ok) {
		*ret_below = pb->position;
		group_restore(cc->hand, pb->position);
		for (size_t i = 0; i < pb->n_waiting; i++)
			group_restore_waiting(cc->hand, pb_span(pb->waiting[i]->stream),
					      pb->waiting[i]->position);
	}
	arena_release(&a);
	return ok;
}

static void consume_on_offset(struct journal_read *read, struct journal_page *page, const struct err *err,
			      void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);
	uint64_t below = cc->open->from_end ? cc->claimed.position : 0;
	struct span run, entry;
	struct record_view v;
	struct err why = {0};

	must(read == cc->offset);
	if (!page) {
		consume_fail(cc, err);
		return;
	}
	if (page->records == 0 && !page->end) {
		journal_page_free(page);
		journal_read_next(read);
		return;
	}
	run = buf_span(&page->body);
	if (page->records == 0)
		group_restore(cc->hand, below);
	else if (record_next(&run, &entry, NULL, &why) || record_decode(entry, &v, &why))
		consume_fail(cc, &why);
	else if (!consume_restore(cc, v.data, &below))
		consume_end(cc, GRPC_DATA_LOSS, SPAN("the group's newest offset cannot be understood"));
	journal_page_free(page);
	if (cc->state != CONSUME_LOADING)
		return; /* closed, and the read with it */
	cc->offset = NULL;
	journal_read_close(read);
	consume_activate(cc, below);
}

static void consume_load(struct consume_call *cc)
{
	char stream[sizeof(GROUP_STREAM_PREFIX) + LIMIT_GROUP_NAME_BYTES];
	struct err err = {0};

	must(cc->grants.n <= sizeof(stream));
	memcpy(stream, cc->grants.p, cc->grants.n);
	struct journal_query q = {.source = STORAGE_STREAM,
				  .name = span_of(stream, cc->grants.n),
				  .backward = true,
				  .kinds = UINT32_C(1) << RECORD_GROUP_OFFSET,
				  .max_records = 1,
				  .not_before = cc->claimed};
	cc->state = CONSUME_LOADING;
	if (journal_read_open(cc->service->journal, &q, loop_mailbox(cc->loop->loop), consume_on_offset, cc,
			      &cc->offset, &err))
		consume_fail(cc, &err);
	else
		journal_read_next(cc->offset);
}

static void consume_on_claimed(struct consume_call *cc, const struct append *append, uint64_t position)
{
	const struct append_answer *answer = append_answer(append);
	const struct journal_grant *grant;

	(void)position;
	if (answer->code == ERR_UNAVAILABLE || answer->code == ERR_FULL) {
		loop_timer_set(cc->claim, CONSUME_CLAIM_MS);
		return;
	}
	if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
		return;
	}
	grant = journal_grant_of(append);
	if (memcmp(grant->session, cc->session, sizeof(cc->session)) != 0) {
		loop_timer_set(cc->claim, CONSUME_CLAIM_MS);
		return;
	}
	cc->fence = (struct journal_fence){.service = cc->grants, .slot = grant->slot, .epoch = grant->epoch};
	cc->claimed = journal_cursor_at(cc->service->journal, answer->cursor_position);
	consume_load(cc);
}

static void consume_claim(void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);
	struct journal_claim claim = {.service = cc->grants};
	struct append_refusal refusal;
	struct append *append = NULL;

	memcpy(claim.session, cc->session, sizeof(claim.session));
	if (journal_grant_claim_new(cc->service->journal, &claim, &append, &refusal))
		consume_fail(cc, &refusal.err);
	else
		consume_act(cc, append, consume_on_claimed, 0);
}

static void consume_on_beaten(struct consume_call *cc, const struct append *append, uint64_t position)
{
	(void)position;
	if (append_answer(append)->code == ERR_NOT_FOUND)
		consume_lost(cc);
}

static void consume_beat(void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);
	struct append_refusal refusal;
	struct append *append = NULL;

	loop_timer_set(cc->beat, CONSUME_BEAT_MS);
	if (!journal_session_beat_new(cc->service->journal, cc->session, &append, &refusal))
		consume_act(cc, append, consume_on_beaten, 0);
}

static void consume_on_begun(struct consume_call *cc, const struct append *append, uint64_t position)
{
	const struct append_answer *answer = append_answer(append);

	(void)position;
	if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
		return;
	}
	loop_timer_set(cc->beat, CONSUME_BEAT_MS);
	consume_claim(cc);
}

/* ---- requests ----------------------------------------------------------------------------------- */

static struct span consume_grants_name(struct arena *a, struct span group)
{
	size_t n = sizeof(GROUP_STREAM_PREFIX) - 1;
	uint8_t *name = arena_alloc(a, n + group.n);

	if (!name)
		return (struct span){0};
	memcpy(name, GROUP_STREAM_PREFIX, n);
	memcpy(name + n, group.p, group.n);
	return span_of(name, n + group.n);
}

/* What is asked for is checked as if it were read now. */
static enum err_code consume_check(struct consume_call *cc, struct err *err)
{
	const PB(ConsumeRequest) *pb = cc->open;
	struct journal_read *read = NULL;
	struct journal_query q;
	struct span *spans;

	if (service_check_journal(pb->journal, err) || journal_group_check(pb_span(pb->group), err))
		return err->code;
	if (pb->window > LIMIT_GROUP_WINDOW)
		return err_set(err, ERR_INVALID, "window is %u: at most %zu records may be unacknowledged",
			       pb->window, LIMIT_GROUP_WINDOW);
	if (pb->n_ack || pb->n_nack || pb->n_park)
		return err_set(err, ERR_INVALID, "the first request names the group; nothing is delivered yet that "
			       "could be acknowledged");
	consume_query(cc, &q, &spans);
	if (!journal_read_open(cc->service->journal, &q, loop_mailbox(cc->loop->loop), consume_on_page, cc, &read,
			       err))
		journal_read_close(read);
	mem_free(spans);
	return err->code;
}

static enum err_code consume_start(struct consume_call *cc, struct span message, struct err *err)
{
	struct journal_session_begin begin = {.ttl_ms = CONSUME_TTL_MS, .service_count = 1};
	char actor[SERVICE_ACTOR_BYTES];
	struct append_refusal refusal;
	struct append *append = NULL;

	cc->open = (void *)grpc_unpack(PB_TYPE(consume_request), &cc->arena, message);
	if (!cc->open)
		return err_set(err, ERR_INVALID, "the request is no ConsumeRequest, or it has too many parts");
	if (consume_check(cc, err))
		return err->code;
	cc->group = pb_span(cc->open->group);
	cc->grants = consume_grants_name(&cc->arena, cc->group);
	if (!cc->grants.p)
		return err_set(err, ERR_LIMIT, "the request has too many parts");
	cc->hand = group_new(cc->open->window ? cc->open->window : CONSUME_WINDOW);
	uuid_v7(&clock_system, cc->session);
	memcpy(begin.id, cc->session, sizeof(begin.id));
	begin.services = &cc->grants;
	begin.address = pb_span(cc->open->address);
	service_actor_of(cc->call, actor, sizeof(actor));
	begin.actor = span_str(actor);
	if (journal_session_begin_new(cc->service->journal, &begin, &append, &refusal)) {
		*err = refusal.err;
		return err->code;
	}
	cc->state = CONSUME_CLAIMING;
	cc->began = true;
	consume_act(cc, append, consume_on_begun, 0);
	return ERR_OK;
}

static void consume_on_parked(struct consume_call *cc, const struct append *append, uint64_t position)
{
	const struct append_answer *answer = append_answer(append);
	PB(ConsumeResponse) pb = CAIRN__JOURNAL__V1__CONSUME_RESPONSE__INIT;

	if (answer->code == ERR_CONFLICT) {
		consume_lost(cc);
	} else if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
	} else {
		group_ack(cc->hand, position);
		pb.n_parked = 1;
		pb.parked = &position;
		grpc_call_send_pb(cc->call, &pb.base);
		consume_pump(cc);
	}
}

static void consume_park(struct consume_call *cc, const PB(Park) *pb)
{
	struct journal_park park = {
		.group = cc->group, .reason = pb_span(pb->reason), .position = pb->position};
	struct append_refusal refusal;
	struct append *append = NULL;

	if (!group_has(cc->hand, pb->position, &park.stream))
		return;
	if (journal_park_new(cc->service->journal, &park, &cc->fence, &append, &refusal))
		consume_fail(cc, &refusal.err);
	else
		consume_act(cc, append, consume_on_parked, pb->position);
}

static void consume_take(struct consume_call *cc, const PB(ConsumeRequest) *pb)
{
	int64_t now_us = clock_mono(&clock_system).us;

	for (size_t i = 0; i < pb->n_ack; i++)
		group_ack(cc->hand, pb->ack[i]);
	for (size_t i = 0; i < pb->n_nack && cc->state == CONSUME_ACTIVE; i++)
		if (group_nack(cc->hand, pb->nack[i]->position, now_us + pb->nack[i]->delay_ms * INT64_C(1000)) ==
		    GROUP_TOO_MANY_WAIT)
			consume_end(cc, GRPC_RESOURCE_EXHAUSTED,
				    SPAN("10000 streams of the group wait: park or acknowledge what cannot be "
					 "done, then consume again"));
	for (size_t i = 0; i < pb->n_park && cc->state == CONSUME_ACTIVE; i++)
		consume_park(cc, pb->park[i]);
}

static void consume_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, user, CONSUME_CALL_MAGIC);
	struct err err = {0};
	PB(ConsumeRequest) *pb;
	struct arena a;

	(void)call;
	if (cc->over || cc->state == CONSUME_CLOSED)
		return;
	if (cc->state == CONSUME_OPENING) {
		if (consume_start(cc, message, &err))
			consume_fail(cc, &err);
		return;
	}
	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(consume_request), &a, message);
	if (!pb)
		consume_end(cc, GRPC_INVALID_ARGUMENT, SPAN("the request is no ConsumeRequest"));
	else if (pb->group.len || pb->source_case || pb->window)
		consume_end(cc, GRPC_INVALID_ARGUMENT, SPAN("only the first request names a group and what it reads"));
	else if (cc->state == CONSUME_ACTIVE)
		consume_take(cc, pb);
	arena_release(&a);
	consume_pump(cc);
}

/* ---- calls -------------------------------------------------------------------------------------- */

static void consume_on_half_close(struct grpc_call *call, void *user)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, user, CONSUME_CALL_MAGIC);

	(void)call;
	cc->half_closed = true;
	if (cc->state == CONSUME_OPENING)
		consume_end(cc, GRPC_INVALID_ARGUMENT, SPAN("a call without a request"));
	else
		consume_finish_if_idle(cc);
}

static void consume_on_writable(struct grpc_call *call, void *user)
{
	(void)call;
	consume_pump(OBJ_CAST(struct consume_call, user, CONSUME_CALL_MAGIC));
}

static void consume_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, user, CONSUME_CALL_MAGIC);

	(void)call;
	(void)result;
	cc->over = true;
	consume_close(cc);
	list_remove(&cc->node);
	consume_unref(cc);
}

static const struct grpc_call_ops consume_ops = {
	.on_message = consume_on_message,
	.on_half_close = consume_on_half_close,
	.on_writable = consume_on_writable,
	.on_done = consume_on_done,
};

void service_consume_open(struct grpc_call *call, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct consume_call *cc = mem_xalloc(sizeof(*cc));

	cc->magic = CONSUME_CALL_MAGIC;
	cc->service = s;
	cc->loop = service_loop_of(s, grpc_call_loop(call));
	cc->call = grpc_call_ref(call);
	cc->refs = 1;
	arena_init(&cc->arena, CONSUME_OPEN_BYTES);
	cc->claim = loop_timer_new(cc->loop->loop, consume_claim, cc);
	cc->beat = loop_timer_new(cc->loop->loop, consume_beat, cc);
	cc->due = loop_timer_new(cc->loop->loop, consume_on_due, cc);
	cc->write = loop_timer_new(cc->loop->loop, consume_on_write_timer, cc);
	list_push_back(&cc->loop->consumers, &cc->node);
	grpc_call_bind(call, &consume_ops, cc);
	if (cc->loop->draining)
		consume_end(cc, GRPC_UNAVAILABLE, SPAN("the server is shutting down"));
}

void service_consumers_drain(struct service_loop *l)
{
	struct list_node *node = list_first(&l->consumers);

	while (node) {
		struct consume_call *cc = CONTAINER_OF(node, struct consume_call, node);

		node = list_next(&l->consumers, node);
		consume_end(cc, GRPC_UNAVAILABLE, SPAN("the server is shutting down"));
	}
}
