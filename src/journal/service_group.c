/* ListGroups, ListGroupMarks, ActOnGroup: what consumer groups are at, and what operators want done about it.
 *
 * Each looks at groups one after another: all partitions as the log says they are (group_load.h) and who has been
 * granted them. That is at most 5 s old for what consumers have acknowledged, and exact for what is parked.
 *
 *	names ──▶ who has it ──▶ partition 0, 1, ... ──▶ the next group, or the answer
 */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/acts.h"
#include "journal/group_load.h"

#define GROUP_CALL_MAGIC 0x6e0097ca
#define GROUPS_A_PAGE 100
#define MARKS_A_PAGE 2000
/* What one answer is made of. */
#define GROUP_ARENA_BYTES (64 * MIB)

struct group_call {
	uint32_t magic;
	struct journal_service *service;
	struct grpc_call *call; /* a reference */
	struct mailbox *mailbox;
	struct arena arena; /* of the request, and of names */
	char actor[SERVICE_ACTOR_BYTES];

	struct span *names; /* of groups; in the arena */
	size_t name_count, at;
	bool more;
	struct append *look; /* who has the group at hand */
	struct group *hands[LIMIT_GROUP_PARTITIONS];
	uint32_t partition, partitions;
	/* All partitions of a group are there: goes on, with group_call_next() or the answer. */
	void (*on_group)(struct group_call *gc);

	PB(GroupPartition) **rows;
	size_t row_count, row_cap;
	PB(ActOnGroupRequest) *act; /* in the arena */
	PB(ListGroupMarksRequest) *marks;
	struct journal_read *read; /* of the record that is to be parked */
	struct span stream;
	uint64_t records;
};

static struct group_call *group_call_new(struct grpc_call *call, struct journal_service *s,
					 void (*on_group)(struct group_call *gc))
{
	struct group_call *gc = mem_xalloc(sizeof(*gc));

	gc->magic = GROUP_CALL_MAGIC;
	gc->service = s;
	gc->call = grpc_call_ref(call);
	gc->mailbox = loop_mailbox(grpc_call_loop(call));
	gc->on_group = on_group;
	arena_init(&gc->arena, GROUP_ARENA_BYTES);
	service_actor_of(call, gc->actor, sizeof(gc->actor));
	return gc;
}

static void group_call_forget(struct group_call *gc)
{
	for (uint32_t i = 0; i < LIMIT_GROUP_PARTITIONS; i++) {
		group_free(gc->hands[i]);
		gc->hands[i] = NULL;
	}
	append_unref(gc->look);
	gc->look = NULL;
	gc->partition = gc->partitions = 0;
}

static void group_call_free(struct group_call *gc)
{
	group_call_forget(gc);
	journal_read_close(gc->read);
	mem_free((void *)gc->rows);
	arena_release(&gc->arena);
	grpc_call_unref(gc->call);
	gc->magic = 0;
	mem_free(gc);
}

static void group_call_fail(struct group_call *gc, const struct err *err)
{
	grpc_call_finish_err(gc->call, err);
	group_call_free(gc);
}

static void *keep(struct group_call *gc, size_t n)
{
	void *p = arena_alloc(&gc->arena, n);

	must(p); /* a page's worth: the arena is larger */
	return p;
}

static struct span keep_span(struct group_call *gc, struct span s)
{
	struct span kept = arena_dup(&gc->arena, s);

	must(kept.p || s.n == 0);
	return kept;
}

/* ---- one group ---------------------------------------------------------------------------------- */

static void group_call_load(struct group_call *gc);

static void group_on_loaded(struct group_loaded *loaded, const struct err *err, void *arg)
{
	struct group_call *gc = OBJ_CAST(struct group_call, arg, GROUP_CALL_MAGIC);
	struct err why = {0};

	if (!err && !loaded->hand)
		err_set(&why, ERR_NOT_FOUND, "there is no group \"%.*s\": `cairn group list` shows those there are",
			SPAN_ARG(gc->names[gc->at]));
	if (err || why.code) {
		group_call_fail(gc, err ? err : &why);
		return;
	}
	gc->partitions = loaded->partitions;
	gc->hands[gc->partition++] = loaded->hand;
	loaded->hand = NULL;
	if (gc->partition < gc->partitions)
		group_call_load(gc);
	else
		gc->on_group(gc);
}

static void group_call_load(struct group_call *gc)
{
	group_load(gc->service->journal,
		   &(struct group_load){.group = gc->names[gc->at], .partition = gc->partition, .window = 1},
		   gc->mailbox, group_on_loaded, gc);
}

static void group_on_look(struct append *append, void *arg)
{
	struct group_call *gc = OBJ_CAST(struct group_call, arg, GROUP_CALL_MAGIC);

	gc->look = append;
	if (append_answer(append)->code)
		group_call_fail(gc, &append_answer(append)->refusal->err);
	else
		group_call_load(gc);
}

/* Looks at the group that gc->at names. */
static void group_call_begin(struct group_call *gc)
{
	char name[GROUP_STREAM_BYTES];
	struct append_refusal refusal = {0};
	struct append *look = NULL;
	struct err err = {0};

	if (journal_group_check(gc->names[gc->at], &err)) {
		group_call_fail(gc, &err);
	} else if (journal_grants_look_new(gc->service->journal, journal_group_stream(gc->names[gc->at], 0, name),
					   &look, &refusal)) {
		group_call_fail(gc, &refusal.err);
	} else if (journal_append(gc->service->journal, &look, gc->mailbox, group_on_look, gc, &err)) {
		append_unref(look);
		group_call_fail(gc, &err);
	}
}

/* ---- ListGroups --------------------------------------------------------------------------------- */

static void list_reply(struct group_call *gc)
{
	PB(ListGroupsResponse) pb = CAIRN__JOURNAL__V1__LIST_GROUPS_RESPONSE__INIT;

	pb.n_partitions = gc->row_count;
	pb.partitions = gc->rows;
	if (gc->more && gc->name_count)
		pb.next_page_token = pb_bytes(gc->names[gc->name_count - 1]);
	grpc_call_reply_pb(gc->call, &pb.base);
	group_call_free(gc);
}

static void row_consumer(struct group_call *gc, PB(GroupPartition) *row)
{
	const struct journal_grants *all = journal_grants_of(gc->look);

	for (size_t i = 0; i < all->grant_count; i++)
		for (size_t k = 0; k < all->session_count; k++) {
			const struct journal_grant *g = &all->grants[i];
			const struct journal_session *s = &all->sessions[k];

			if (g->slot != row->partition || g->released ||
			    memcmp(g->session, s->id, RECORD_ID_BYTES) != 0)
				continue;
			row->consumer = pb_bytes(keep_span(gc, s->address));
			row->session = pb_bytes(keep_span(gc, span_of(s->id, RECORD_ID_BYTES)));
		}
}

static void list_on_group(struct group_call *gc)
{
	uint64_t head = journal_head(gc->service->journal);

	for (uint32_t i = 0; i < gc->partitions; i++) {
		PB(GroupPartition) *row = keep(gc, sizeof(*row));

		cairn__journal__v1__group_partition__init(row);
		row->group = pb_bytes(gc->names[gc->at]);
		row->partition = i;
		row->partitions = gc->partitions;
		row->position = group_below(gc->hands[i]);
		row->behind = head > row->position ? head - row->position : 0;
		row->waiting = group_waiting_count(gc->hands[i]);
		row->parked = group_parked_count(gc->hands[i]);
		row_consumer(gc, row);
		if (gc->row_count == gc->row_cap) {
			gc->row_cap = gc->row_cap ? 2 * gc->row_cap : 16;
			gc->rows = mem_xrealloc((void *)gc->rows, gc->row_cap * sizeof(PB(GroupPartition) *));
		}
		gc->rows[gc->row_count++] = row;
	}
	group_call_forget(gc);
	if (++gc->at < gc->name_count)
		group_call_begin(gc);
	else
		list_reply(gc);
}

static void list_on_names(const struct journal_stream_info *items, size_t count, bool more, const struct err *err,
			  void *arg)
{
	struct group_call *gc = OBJ_CAST(struct group_call, arg, GROUP_CALL_MAGIC);
	size_t prefix = sizeof(GROUP_STREAM_PREFIX) - 1;

	if (err) {
		group_call_fail(gc, err);
		return;
	}
	gc->names = keep(gc, (count + 1) * sizeof(*gc->names));
	for (size_t i = 0; i < count; i++)
		gc->names[i] = keep_span(gc, span_skip(items[i].name, prefix));
	gc->name_count = count;
	gc->more = more;
	if (count)
		group_call_begin(gc);
	else
		list_reply(gc);
}

/* The group's name as that of a stream. */
static struct span stream_name(struct group_call *gc, ProtobufCBinaryData name)
{
	size_t n = sizeof(GROUP_STREAM_PREFIX) - 1;
	uint8_t *full = keep(gc, n + name.len);

	memcpy(full, GROUP_STREAM_PREFIX, n);
	if (name.len)
		memcpy(full + n, name.data, name.len);
	return span_of(full, n + name.len);
}

void service_list_groups(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct group_call *gc = group_call_new(call, s, list_on_group);
	struct journal_list list = {.max = GROUPS_A_PAGE, .include_system = true};
	struct err err = {0};
	const PB(ListGroupsRequest) *pb = (void *)grpc_unpack(PB_TYPE(list_groups_request), &gc->arena, request);

	if (!pb) {
		err_set(&err, ERR_INVALID, "the request is no ListGroupsRequest");
	} else if (!service_check_journal(pb->journal, &err) &&
		   !service_cursor_of(pb->not_before, "not_before", &list.not_before, &err)) {
		list.prefix = stream_name(gc, pb->prefix);
		if (pb->page_token.len)
			list.after = stream_name(gc, pb->page_token);
		journal_list_streams(s->journal, &list, gc->mailbox, list_on_names, gc, &err);
	}
	if (err.code)
		group_call_fail(gc, &err);
}

/* ---- ListGroupMarks ----------------------------------------------------------------------------- */

static void marks_on_group(struct group_call *gc)
{
	PB(ListGroupMarksResponse) pb = CAIRN__JOURNAL__V1__LIST_GROUP_MARKS_RESPONSE__INIT;
	PB(GroupWaiting) *marks = keep(gc, MARKS_A_PAGE * sizeof(*marks));
	PB(GroupWaiting) **pointers = keep(gc, MARKS_A_PAGE * sizeof(PB(GroupWaiting) *));
	uint64_t number = 0;

	for (uint32_t i = 0; i < gc->partitions; i++)
		for (size_t k = 0; k < group_waiting_count(gc->hands[i]) && !pb.next; k++) {
			struct group_mark mark;

			group_waiting(gc->hands[i], k, &mark);
			if ((gc->marks->parked_only && (!mark.parked || mark.skip)) || number++ < gc->marks->from)
				continue;
			if (pb.n_marks == MARKS_A_PAGE) {
				pb.next = number - 1;
				continue;
			}
			mark.stream = keep_span(gc, mark.stream);
			group_mark_to(&mark, &marks[pb.n_marks]);
			pointers[pb.n_marks] = &marks[pb.n_marks];
			pb.n_marks++;
		}
	pb.marks = pointers;
	grpc_call_reply_pb(gc->call, &pb.base);
	group_call_free(gc);
}

static void group_call_of(struct group_call *gc, ProtobufCBinaryData group)
{
	gc->names = keep(gc, sizeof(*gc->names));
	gc->names[0] = pb_span(group);
	gc->name_count = 1;
	group_call_begin(gc);
}

void service_list_group_marks(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct group_call *gc = group_call_new(call, s, marks_on_group);
	struct err err = {0};

	gc->marks = (void *)grpc_unpack(PB_TYPE(list_group_marks_request), &gc->arena, request);
	if (!gc->marks)
		err_set(&err, ERR_INVALID, "the request is no ListGroupMarksRequest");
	else
		service_check_journal(gc->marks->journal, &err);
	if (err.code)
		group_call_fail(gc, &err);
	else
		group_call_of(gc, gc->marks->group);
}

/* ---- ActOnGroup --------------------------------------------------------------------------------- */

static void act_on_done(struct append *append, void *arg)
{
	struct group_call *gc = OBJ_CAST(struct group_call, arg, GROUP_CALL_MAGIC);
	const struct append_answer *answer = append_answer(append);
	PB(ActOnGroupResponse) pb = CAIRN__JOURNAL__V1__ACT_ON_GROUP_RESPONSE__INIT;
	struct journal_cursor at;
	PB(Cursor) cursor;

	if (answer->code) {
		group_call_fail(gc, &answer->refusal->err);
	} else {
		at = journal_cursor_at(gc->service->journal, answer->cursor_position);
		service_cursor_to(&at, &cursor);
		pb.cursor = &cursor;
		pb.records = gc->records;
		grpc_call_reply_pb(gc->call, &pb.base);
		group_call_free(gc);
	}
	append_unref(append);
}

static void act_append(struct group_call *gc)
{
	const PB(ActOnGroupRequest) *pb = gc->act;
	struct journal_group_act act = {.group = pb_span(pb->group),
					.stream = gc->stream,
					.reason = pb_span(pb->reason),
					.actor = span_str(gc->actor),
					.act = pb->act,
					.by_position = pb->has_position_case != 0,
					.position = pb->has_position_case ? pb->position : 0,
					.goes_on = pb->goes_on};
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	struct err err = {0};

	if (journal_group_act_new(gc->service->journal, &act, &append, &refusal)) {
		group_call_fail(gc, &refusal.err);
	} else if (journal_append(gc->service->journal, &append, gc->mailbox, act_on_done, gc, &err)) {
		append_unref(append);
		group_call_fail(gc, &err);
	}
}

/* The record that is to be parked: its stream is noted with it. */
static void act_on_record(struct journal_read *read, struct journal_page *page, const struct err *err, void *arg)
{
	struct group_call *gc = OBJ_CAST(struct group_call, arg, GROUP_CALL_MAGIC);
	struct span run, entry;
	struct record_view v;
	struct err why = {0};

	must(read == gc->read);
	if (!page) {
		group_call_fail(gc, err);
		return;
	}
	run = buf_span(&page->body);
	if (page->records == 0 && !page->end) {
		journal_page_free(page);
		journal_read_next(read);
		return;
	}
	if (page->records == 0)
		err_set(&why, ERR_NOT_FOUND, "there is no event at position %llu",
			(unsigned long long)gc->act->position);
	else if (!record_next(&run, &entry, NULL, &why) && !record_decode(entry, &v, &why))
		gc->stream = keep_span(gc, v.stream);
	journal_page_free(page);
	if (why.code)
		group_call_fail(gc, &why);
	else
		act_append(gc);
}

static void act_park(struct group_call *gc)
{
	struct journal_query q = {.source = STORAGE_ALL,
				  .kinds = UINT32_C(1) << RECORD_EVENT,
				  .include_system = true,
				  .from = FROM_POSITION,
				  .from_value = gc->act->position,
				  .to = TO_POSITION,
				  .to_value = gc->act->position};
	struct err err = {0};

	gc->records = 1;
	if (journal_read_open(gc->service->journal, &q, gc->mailbox, act_on_record, gc, &gc->read, &err))
		group_call_fail(gc, &err);
	else
		journal_read_next(gc->read);
}

static void act_on_group(struct group_call *gc)
{
	const PB(ActOnGroupRequest) *pb = gc->act;
	struct group_choice choice = {.stream = pb_span(pb->stream),
				      .by_position = pb->has_position_case != 0,
				      .position = pb->has_position_case ? pb->position : 0,
				      .skip = pb->act == CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_SKIP};
	struct err err = {0};

	if (pb->act == CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_PARK) {
		act_park(gc);
		return;
	}
	for (uint32_t i = 0; i < gc->partitions; i++)
		gc->records += group_unpark(gc->hands[i], &choice);
	gc->stream = choice.stream;
	if (gc->records) {
		act_append(gc);
		return;
	}
	err_set(&err, ERR_CONFLICT,
		"nothing of the kind is parked in group \"%.*s\": `cairn group parked` shows what is",
		SPAN_ARG(gc->names[gc->at]));
	group_call_fail(gc, &err);
}

static enum err_code act_check(const PB(ActOnGroupRequest) *pb, struct err *err)
{
	if (pb->act != CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_REPLAY &&
	    pb->act != CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_SKIP &&
	    pb->act != CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_PARK)
		return err_set(err, ERR_INVALID, "act is %d: replay, skip or park", (int)pb->act);
	if (pb->act == CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_PARK && !pb->has_position_case)
		return err_set(err, ERR_INVALID, "position is missing: say which record is to be parked");
	if (pb->reason.len == 0 || pb->reason.len > LIMIT_PARK_REASON_BYTES)
		return err_set(err, ERR_INVALID, "reason has %zu bytes: it has 1 to %zu", pb->reason.len,
			       LIMIT_PARK_REASON_BYTES);
	return ERR_OK;
}

void service_act_on_group(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct group_call *gc = group_call_new(call, s, act_on_group);
	struct err err = {0};

	gc->act = (void *)grpc_unpack(PB_TYPE(act_on_group_request), &gc->arena, request);
	if (!gc->act)
		err_set(&err, ERR_INVALID, "the request is no ActOnGroupRequest");
	else if (!service_check_journal(gc->act->journal, &err))
		act_check(gc->act, &err);
	if (err.code)
		group_call_fail(gc, &err);
	else
		group_call_of(gc, gc->act->group);
}
