/* Consume: one consumer of a group, from its first request to its end. Its partitions are consume_part.c's.
 *
 *	request ──▶ session ──▶ the group is made, or is there ──▶ a look: who consumes it, who has which partition
 *	        ──▶ its share of them is claimed, or given back; again with each change that the log tells of
 *
 * Each call has a session of its own, beaten while the call lives and ended with it; should the server die, the
 * session runs out. Who has no partition appends nothing but beats. */
#include <config.h>

#include "journal/consume.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/group_load.h"

#define CONSUME_TTL_MS 5000
#define CONSUME_BEAT_MS 1000
#define CONSUME_AGAIN_MS 250 /* after the storage could not be reached */
/* The first request and what is kept of it. */
#define CONSUME_OPEN_BYTES (4 * MIB)
#define CONSUME_PAGE_ARENA_BYTES (16 * LIMIT_RESPONSE_BYTES)

const char consume_too_many[] = "10000 streams of the group wait: replay, skip or acknowledge what they wait for "
				"(`cairn group` shows them), then consume again";

static void consume_close(struct consume_call *cc);

void consume_unref(struct consume_call *cc)
{
	if (--cc->refs)
		return;
	loop_timer_free(cc->beat);
	loop_timer_free(cc->again);
	for (uint32_t i = 0; i < cc->part_count; i++)
		part_release(&cc->parts[i]);
	mem_free(cc->parts);
	mem_free(cc->others);
	buf_release(&cc->told);
	arena_release(&cc->arena);
	grpc_call_unref(cc->call);
	cc->magic = 0;
	mem_free(cc);
}

void consume_end(struct consume_call *cc, enum grpc_code code, struct span text)
{
	if (!cc->over) {
		cc->over = true;
		grpc_call_finish(cc->call, code, text, NULL);
	}
	consume_close(cc);
}

void consume_fail(struct consume_call *cc, const struct err *err)
{
	consume_end(cc, grpc_code_of(err->code), span_str(err->text));
}

void consume_lost(struct consume_call *cc)
{
	consume_end(cc, GRPC_UNAVAILABLE,
		    SPAN("the group may have another consumer now: consume again, and wait for your turn"));
}

/* ---- acts --------------------------------------------------------------------------------------- */

struct consume_op {
	struct consume_call *cc;
	struct consume_part *part;
	consume_act_fn *fn;
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
		op->fn(cc, op->part, append, op->position);
	append_unref(append);
	mem_free(op);
	consume_finish_if_idle(cc);
	consume_unref(cc);
}

void consume_act(struct consume_call *cc, struct append *append, consume_act_fn *fn, struct consume_part *part,
		 uint64_t position)
{
	struct consume_op *op = mem_xalloc(sizeof(*op));
	struct err err = {0};

	*op = (struct consume_op){cc, part, fn, position};
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

/* Whatever is under way is let go; what was reached is written down and the session ended, so that the next
 * consumer begins at once and where this one was. */
static void consume_close(struct consume_call *cc)
{
	struct append_refusal refusal;
	struct append *append = NULL;

	if (cc->state == CONSUME_CLOSED)
		return;
	cc->state = CONSUME_CLOSED;
	loop_timer_cancel(cc->beat);
	loop_timer_cancel(cc->again);
	journal_read_close(cc->sessions);
	journal_read_close(cc->owners);
	cc->sessions = cc->owners = NULL;
	for (uint32_t i = 0; i < cc->part_count; i++)
		part_close(&cc->parts[i]);
	if (cc->began && !journal_session_end_new(cc->service->journal, cc->session, span_str(cc->actor), &append,
						  &refusal))
		consume_act(cc, append, NULL, NULL, 0);
}

/* ---- shares ------------------------------------------------------------------------------------- */

static bool is_me(const struct consume_call *cc, const uint8_t id[RECORD_ID_BYTES])
{
	return memcmp(cc->session, id, RECORD_ID_BYTES) == 0;
}

/* The session that lives and has the partition; NULL: none, it is free. */
static const struct journal_session *holder_of(const struct journal_grants *all, uint32_t partition)
{
	for (size_t i = 0; i < all->grant_count; i++) {
		const struct journal_grant *g = &all->grants[i];

		for (size_t k = 0; g->slot == partition && !g->released && k < all->session_count; k++)
			if (memcmp(g->session, all->sessions[k].id, RECORD_ID_BYTES) == 0)
				return &all->sessions[k];
	}
	return NULL;
}

static uint32_t has_of(const struct consume_call *cc, const struct journal_grants *all,
		       const struct journal_session *session)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < cc->part_count; i++)
		n += holder_of(all, i) == session;
	return n;
}

/* How many partitions are this consumer's share: an equal number for each, and the rest one each to those that have
 * most already, so that nothing is moved that need not be. All consumers come to the same. */
static uint32_t share_of(const struct consume_call *cc, const struct journal_grants *all)
{
	uint32_t mine = 0, before = 0;

	for (size_t i = 0; i < all->session_count; i++)
		if (is_me(cc, all->sessions[i].id))
			mine = has_of(cc, all, &all->sessions[i]);
	for (size_t i = 0; i < all->session_count; i++) {
		uint32_t theirs = has_of(cc, all, &all->sessions[i]);

		before += theirs > mine ||
			  (theirs == mine && memcmp(all->sessions[i].id, cc->session, RECORD_ID_BYTES) < 0);
	}
	return cc->part_count / (uint32_t)all->session_count +
	       (before < cc->part_count % (uint32_t)all->session_count ? 1 : 0);
}

static uint32_t parts_held(const struct consume_call *cc)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < cc->part_count; i++) {
		enum part_state state = cc->parts[i].state;

		n += state == PART_CLAIMING || state == PART_LOADING || state == PART_ACTIVE;
	}
	return n;
}

static void part_on_claimed(struct consume_call *cc, struct consume_part *part, const struct append *append,
			    uint64_t position)
{
	const struct append_answer *answer = append_answer(append);
	const struct journal_grant *grant;

	(void)position;
	part->state = PART_IDLE;
	if (answer->code == ERR_UNAVAILABLE || answer->code == ERR_FULL) {
		loop_timer_set(cc->again, CONSUME_AGAIN_MS);
		return;
	}
	if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
		return;
	}
	grant = journal_grant_of(append);
	if (!is_me(cc, grant->session)) {
		consume_share(cc); /* somebody was first */
		return;
	}
	part->fence = (struct journal_fence){.service = cc->grants, .slot = grant->slot, .epoch = grant->epoch};
	part->claimed = answer->cursor_position;
	part_take(part);
}

static void part_claim(struct consume_part *part)
{
	struct consume_call *cc = part->call;
	struct journal_claim claim = {
		.service = cc->grants, .slot = part->index, .actor = span_str(cc->actor)};
	struct append_refusal refusal;
	struct append *append = NULL;

	memcpy(claim.session, cc->session, sizeof(claim.session));
	part->state = PART_CLAIMING;
	if (journal_grant_claim_new(cc->service->journal, &claim, &append, &refusal))
		consume_fail(cc, &refusal.err);
	else
		consume_act(cc, append, part_on_claimed, part, 0);
}

/* Who has none is told who has them. */
static void tell_holders(struct consume_call *cc, const struct journal_grants *all)
{
	PB(ConsumeResponse) pb = CAIRN__JOURNAL__V1__CONSUME_RESPONSE__INIT;
	PB(GroupHolder) holders[LIMIT_GROUP_PARTITIONS], *pointers[LIMIT_GROUP_PARTITIONS];
	struct buf packed;
	size_t n;

	for (uint32_t i = 0; i < cc->part_count; i++) {
		const struct journal_session *s = holder_of(all, i);

		if (!s)
			continue;
		cairn__journal__v1__group_holder__init(&holders[i]);
		holders[i].partition = i;
		holders[i].address = pb_bytes(s->address);
		pointers[pb.n_held++] = &holders[i];
	}
	pb.held = pointers;
	n = protobuf_c_message_get_packed_size(&pb.base);
	buf_init(&packed, n + 1);
	must(buf_reserve(&packed, n + 1) == ERR_OK);
	packed.n = protobuf_c_message_pack(&pb.base, packed.p);
	if (n > 0 && !span_eq(buf_span(&packed), buf_span(&cc->told)))
		grpc_call_send(cc->call, buf_span(&packed));
	buf_release(&cc->told);
	cc->told = packed;
}

static void take_share(struct consume_call *cc, const struct journal_grants *all)
{
	uint32_t share = share_of(cc, all), held = parts_held(cc);

	for (uint32_t i = cc->part_count; i-- > 0 && held > share;) {
		if (cc->parts[i].state != PART_ACTIVE)
			continue;
		held--;
		part_leave(&cc->parts[i]);
	}
	for (uint32_t i = 0; i < cc->part_count && held < share && cc->state == CONSUME_OPEN; i++) {
		const struct journal_session *s = holder_of(all, i);

		if (cc->parts[i].state != PART_IDLE || (s && !is_me(cc, s->id)))
			continue;
		held++;
		part_claim(&cc->parts[i]);
	}
	if (cc->state == CONSUME_OPEN && held == 0)
		tell_holders(cc, all);
}

/* ---- looking ------------------------------------------------------------------------------------ */

static bool is_known(const struct consume_call *cc, struct span id)
{
	for (size_t i = 0; i < cc->other_count; i++)
		if (span_eq(id, span_of(cc->others + i * RECORD_ID_BYTES, RECORD_ID_BYTES)))
			return true;
	return false;
}

/* Does the record change who there is, or who has what? */
static bool is_change(const struct consume_call *cc, const struct record_view *v, struct arena *a)
{
	const PB(SessionBegun) *begun;
	const PB(SessionEnded) *ended;

	if (v->kind == RECORD_GRANT)
		return true;
	if (v->kind == RECORD_SESSION_ENDED) {
		ended = (void *)grpc_unpack(PB_TYPE(session_ended), a, v->data);
		return ended && is_known(cc, pb_span(ended->session));
	}
	begun = (void *)grpc_unpack(PB_TYPE(session_begun), a, v->data);
	for (size_t i = 0; begun && i < begun->n_services; i++)
		if (span_eq(pb_span(begun->services[i]), cc->grants))
			return true;
	return false;
}

static void consume_on_change(struct journal_read *read, struct journal_page *page, const struct err *err,
			      void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);
	struct span run, entry;
	struct err why = {0};
	struct arena a;
	bool changed = false;

	if (!page) {
		consume_fail(cc, err);
		return;
	}
	arena_init(&a, CONSUME_PAGE_ARENA_BYTES);
	run = buf_span(&page->body);
	while (run.n > 0 && !why.code && !changed) {
		struct record_view v;

		if (!record_next(&run, &entry, NULL, &why) && !record_decode(entry, &v, &why))
			changed = v.content == RECORD_BODY && is_change(cc, &v, &a);
	}
	arena_release(&a);
	journal_page_free(page);
	if (why.code) {
		consume_fail(cc, &why);
		return;
	}
	journal_read_next(read);
	if (changed)
		consume_share(cc);
}

static enum err_code watch_stream(struct consume_call *cc, struct span stream, uint32_t kinds, uint64_t from,
				  struct journal_read **ret, struct err *err)
{
	struct journal_query q = {.source = STORAGE_STREAM,
				  .name = stream,
				  .live = true,
				  .from = FROM_POSITION,
				  .from_value = from,
				  .kinds = kinds};

	if (!journal_read_open(cc->service->journal, &q, loop_mailbox(cc->loop->loop), consume_on_change, cc, ret,
			       err))
		journal_read_next(*ret);
	return err->code;
}

static void consume_watch(struct consume_call *cc, uint64_t from)
{
	char name[sizeof(GRANTS_STREAM_PREFIX) + GROUP_STREAM_BYTES];
	size_t n = sizeof(GRANTS_STREAM_PREFIX) - 1;
	struct err err = {0};

	memcpy(name, GRANTS_STREAM_PREFIX, n);
	memcpy(name + n, cc->grants.p, cc->grants.n);
	if (watch_stream(cc, SPAN(SESSIONS_STREAM_NAME),
			 UINT32_C(1) << RECORD_SESSION_BEGUN | UINT32_C(1) << RECORD_SESSION_ENDED, from,
			 &cc->sessions, &err) ||
	    watch_stream(cc, span_of(name, n + cc->grants.n), UINT32_C(1) << RECORD_GRANT, from, &cc->owners, &err))
		consume_fail(cc, &err);
}

static void consume_on_look(struct consume_call *cc, struct consume_part *part, const struct append *append,
			    uint64_t position)
{
	const struct append_answer *answer = append_answer(append);
	const struct journal_grants *all;

	(void)part;
	(void)position;
	cc->looking = false;
	if (answer->code == ERR_UNAVAILABLE || answer->code == ERR_FULL) {
		loop_timer_set(cc->again, CONSUME_AGAIN_MS);
		return;
	}
	if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
		return;
	}
	all = journal_grants_of(append);
	mem_free(cc->others);
	cc->others = mem_xalloc((all->session_count + 1) * RECORD_ID_BYTES);
	cc->other_count = all->session_count;
	for (size_t i = 0; i < all->session_count; i++)
		memcpy(cc->others + i * RECORD_ID_BYTES, all->sessions[i].id, RECORD_ID_BYTES);
	if (!is_known(cc, span_of(cc->session, RECORD_ID_BYTES))) {
		consume_lost(cc);
		return;
	}
	if (!cc->sessions)
		consume_watch(cc, answer->cursor_position);
	if (cc->state == CONSUME_OPEN)
		take_share(cc, all);
	if (cc->look_again && cc->state == CONSUME_OPEN) {
		cc->look_again = false;
		consume_share(cc);
	}
}

void consume_share(struct consume_call *cc)
{
	struct append_refusal refusal;
	struct append *append = NULL;

	if (cc->looking) {
		cc->look_again = true;
		return;
	}
	cc->looking = true;
	if (journal_grants_look_new(cc->service->journal, cc->grants, &append, &refusal))
		consume_fail(cc, &refusal.err);
	else
		consume_act(cc, append, consume_on_look, NULL, 0);
}

static void consume_on_again(void *arg)
{
	consume_share(OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC));
}

/* ---- becoming one of the consumers ---------------------------------------------------------------- */

static void consume_on_group(struct group_loaded *loaded, const struct err *err, void *arg)
{
	struct consume_call *cc = OBJ_CAST(struct consume_call, arg, CONSUME_CALL_MAGIC);
	struct err why = {0};

	if (cc->state != CONSUME_CLOSED && err) {
		consume_fail(cc, err);
	} else if (cc->state != CONSUME_CLOSED && cc->open->partitions &&
		   cc->open->partitions != loaded->partitions) {
		err_set(&why, ERR_CONFLICT, "group \"%.*s\" was made with %u partitions, which stay: ask for that many "
			"or for none, not for %u", SPAN_ARG(cc->group), loaded->partitions, cc->open->partitions);
		consume_fail(cc, &why);
	} else if (cc->state != CONSUME_CLOSED) {
		cc->parts = mem_xalloc(loaded->partitions * sizeof(*cc->parts));
		for (uint32_t i = 0; i < loaded->partitions; i++)
			part_init(&cc->parts[i], cc, i);
		cc->part_count = loaded->partitions;
		cc->state = CONSUME_OPEN;
		consume_share(cc);
	}
	consume_unref(cc);
}

static void consume_on_made(struct consume_call *cc, struct consume_part *part, const struct append *append,
			    uint64_t position)
{
	const struct append_answer *answer = append_answer(append);

	(void)part;
	(void)position;
	if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
		return;
	}
	cc->refs++;
	group_load(cc->service->journal,
		   &(struct group_load){.group = cc->group, .window = 1, .not_before = answer->cursor_position},
		   loop_mailbox(cc->loop->loop), consume_on_group, cc);
}

static void consume_on_beaten(struct consume_call *cc, struct consume_part *part, const struct append *append,
			      uint64_t position)
{
	(void)part;
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
		consume_act(cc, append, consume_on_beaten, NULL, 0);
}

static void consume_on_begun(struct consume_call *cc, struct consume_part *part, const struct append *append,
			     uint64_t position)
{
	const struct append_answer *answer = append_answer(append);
	uint64_t from = cc->open->from_end ? answer->cursor_position : 0;
	uint32_t partitions = cc->open->partitions ? cc->open->partitions : 1;
	struct append_refusal refusal;
	struct append *make = NULL;

	(void)part;
	(void)position;
	if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
		return;
	}
	loop_timer_set(cc->beat, CONSUME_BEAT_MS);
	if (journal_group_make_new(cc->service->journal, cc->group, partitions, from, span_str(cc->actor), &make,
				   &refusal))
		consume_fail(cc, &refusal.err);
	else
		consume_act(cc, make, consume_on_made, NULL, 0);
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

static void consume_on_no_page(struct journal_read *read, struct journal_page *page, const struct err *err,
			       void *arg)
{
	(void)read;
	(void)page;
	(void)err;
	(void)arg;
	unreachable_state("a page of a read that was only checked");
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
	if (pb->partitions > LIMIT_GROUP_PARTITIONS)
		return err_set(err, ERR_INVALID, "partitions is %u: a group has at most %zu", pb->partitions,
			       LIMIT_GROUP_PARTITIONS);
	if (pb->window && pb->window < pb->partitions)
		return err_set(err, ERR_INVALID, "window is %u: it is divided among %u partitions, so it must be at "
			       "least that", pb->window, pb->partitions);
	consume_query(cc, &q, &spans);
	if (!journal_read_open(cc->service->journal, &q, loop_mailbox(cc->loop->loop), consume_on_no_page, cc,
			       &read, err))
		journal_read_close(read);
	mem_free(spans);
	return err->code;
}

static enum err_code consume_start(struct consume_call *cc, struct span message, struct err *err)
{
	struct journal_session_begin begin = {.ttl_ms = CONSUME_TTL_MS, .service_count = 1};
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
	uuid_v7(&clock_system, cc->session);
	memcpy(begin.id, cc->session, sizeof(begin.id));
	begin.services = &cc->grants;
	service_actor_of(cc->call, cc->actor, sizeof(cc->actor));
	begin.actor = span_str(cc->actor);
	begin.address = cc->open->address.len ? pb_span(cc->open->address) : begin.actor;
	if (journal_session_begin_new(cc->service->journal, &begin, &append, &refusal)) {
		*err = refusal.err;
		return err->code;
	}
	cc->state = CONSUME_BEGINNING;
	cc->began = true;
	consume_act(cc, append, consume_on_begun, NULL, 0);
	return ERR_OK;
}

/* The partition whose record at the position is with the consumer; NULL: it is none's. */
static struct consume_part *part_of(struct consume_call *cc, uint64_t position)
{
	struct span stream;

	for (uint32_t i = 0; i < cc->part_count; i++)
		if (cc->parts[i].hand && group_has(cc->parts[i].hand, position, &stream))
			return &cc->parts[i];
	return NULL;
}

static void consume_take(struct consume_call *cc, const PB(ConsumeRequest) *pb)
{
	int64_t now_us = clock_mono(&clock_system).us;
	struct consume_part *part;

	for (size_t i = 0; i < pb->n_ack; i++)
		if ((part = part_of(cc, pb->ack[i])))
			group_ack(part->hand, pb->ack[i]);
	for (size_t i = 0; i < pb->n_nack && cc->state == CONSUME_OPEN; i++)
		if ((part = part_of(cc, pb->nack[i]->position)) &&
		    group_nack(part->hand, pb->nack[i]->position,
			       now_us + pb->nack[i]->delay_ms * INT64_C(1000)) == GROUP_TOO_MANY_WAIT)
			consume_end(cc, GRPC_RESOURCE_EXHAUSTED, span_str(consume_too_many));
	for (size_t i = 0; i < pb->n_park && cc->state == CONSUME_OPEN; i++)
		if ((part = part_of(cc, pb->park[i]->position)))
			part_park(part, pb->park[i]->position, pb_span(pb->park[i]->reason),
				  pb->park[i]->goes_on);
}

static void consume_pump(struct consume_call *cc)
{
	for (uint32_t i = 0; i < cc->part_count; i++)
		part_pump(&cc->parts[i]);
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
	else if (pb->group.len || pb->source_case || pb->window || pb->partitions)
		consume_end(cc, GRPC_INVALID_ARGUMENT, SPAN("only the first request names a group and what it reads"));
	else if (cc->state == CONSUME_OPEN)
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
	cc->beat = loop_timer_new(cc->loop->loop, consume_beat, cc);
	cc->again = loop_timer_new(cc->loop->loop, consume_on_again, cc);
	buf_init(&cc->told, LIMIT_GRPC_MESSAGE_BYTES);
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
