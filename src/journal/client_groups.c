/* What groups are at, and acts upon them: one unary call each of the client. */
#include <config.h>

#include "journal/client_group.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/client_internal.h"

struct groups_call {
	struct client *client;
	/* Of the three the one that was asked for. */
	client_groups_fn *on_groups;
	client_marks_fn *on_marks;
	client_group_act_fn *on_acted;
	void *arg;
};

static void tell_groups(struct groups_call *gc, const PB(ListGroupsResponse) *pb, const struct client_error *error)
{
	struct client_page_of_groups page = {.count = pb ? pb->n_partitions : 0};
	struct client_group_partition *rows = mem_xalloc((page.count + 1) * sizeof(*rows));

	for (size_t i = 0; i < page.count; i++) {
		const PB(GroupPartition) *p = pb->partitions[i];

		rows[i] = (struct client_group_partition){.group = pb_span(p->group),
							  .consumer = pb_span(p->consumer),
							  .partition = p->partition,
							  .partitions = p->partitions,
							  .position = p->position,
							  .behind = p->behind,
							  .waiting = p->waiting,
							  .parked = p->parked};
	}
	page.partitions = rows;
	if (pb)
		page.next_page_token = pb_span(pb->next_page_token);
	gc->on_groups(pb ? &page : NULL, error, gc->arg);
	mem_free(rows);
}

static void tell_marks(struct groups_call *gc, const PB(ListGroupMarksResponse) *pb,
		       const struct client_error *error)
{
	struct client_page_of_marks page = {.count = pb ? pb->n_marks : 0, .next = pb ? pb->next : 0};
	struct client_group_mark *marks = mem_xalloc((page.count + 1) * sizeof(*marks));

	for (size_t i = 0; i < page.count; i++) {
		const PB(GroupWaiting) *w = pb->marks[i];

		marks[i] = (struct client_group_mark){.stream = pb_span(w->stream),
						      .position = w->position,
						      .parked = w->has_parked_at_case && !w->skip,
						      .parked_at = w->has_parked_at_case ? w->parked_at : 0,
						      .alone = w->alone};
	}
	page.marks = marks;
	gc->on_marks(pb ? &page : NULL, error, gc->arg);
	mem_free(marks);
}

static void tell_acted(struct groups_call *gc, const PB(ActOnGroupResponse) *pb, const struct client_error *error)
{
	struct client_group_acted acted = {.records = pb ? pb->records : 0};

	if (pb)
		client_unpack_cursor(pb->cursor, &acted.cursor);
	gc->on_acted(pb ? &acted : NULL, error, gc->arg);
}

static void groups_on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct groups_call *gc = arg;
	const ProtobufCMessageDescriptor *type = gc->on_groups  ? PB_TYPE(list_groups_response)
						 : gc->on_marks ? PB_TYPE(list_group_marks_response)
								: PB_TYPE(act_on_group_response);
	struct client_error error;
	void *pb = NULL;
	struct arena a;

	arena_init(&a, 16 * LIMIT_GRPC_MESSAGE_BYTES);
	client_error_of_result(gc->client, result, &error);
	if (result->code == GRPC_OK) {
		pb = grpc_unpack(type, &a, reply);
		if (!pb)
			error = (struct client_error){.code = GRPC_INTERNAL,
						      .text = SPAN("the server's answer is malformed")};
	}
	if (gc->on_groups)
		tell_groups(gc, pb, &error);
	else if (gc->on_marks)
		tell_marks(gc, pb, &error);
	else
		tell_acted(gc, pb, &error);
	arena_release(&a);
	mem_free(gc);
}

static void groups_start(const char *path, const ProtobufCMessage *message, int64_t deadline_ms,
			 const struct groups_call *what)
{
	struct groups_call *gc = mem_xalloc(sizeof(*gc));
	size_t n = 0;
	uint8_t *bytes = client_pack(message, &n);

	must(bytes); /* names, a reason and some numbers */
	*gc = *what;
	grpc_channel_unary(gc->client->channel, path, span_of(bytes, n), deadline_ms > 0 ? deadline_ms : -1,
			   deadline_ms > 0, groups_on_done, gc);
	mem_free(bytes);
}

void client_list_groups(struct client *c, struct span prefix, struct span page_token, int64_t deadline_ms,
			client_groups_fn *done, void *arg)
{
	PB(ListGroupsRequest) pb = CAIRN__JOURNAL__V1__LIST_GROUPS_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.prefix = pb_bytes(prefix);
	pb.page_token = pb_bytes(page_token);
	groups_start(JOURNAL_METHOD("ListGroups"), &pb.base, deadline_ms,
		     &(struct groups_call){.client = c, .on_groups = done, .arg = arg});
}

void client_list_group_marks(struct client *c, struct span group, uint64_t from, int64_t deadline_ms,
			     client_marks_fn *done, void *arg)
{
	PB(ListGroupMarksRequest) pb = CAIRN__JOURNAL__V1__LIST_GROUP_MARKS_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.group = pb_bytes(group);
	pb.from = from;
	groups_start(JOURNAL_METHOD("ListGroupMarks"), &pb.base, deadline_ms,
		     &(struct groups_call){.client = c, .on_marks = done, .arg = arg});
}

void client_act_on_group(struct client *c, const struct client_group_act *act, int64_t deadline_ms,
			 client_group_act_fn *done, void *arg)
{
	PB(ActOnGroupRequest) pb = CAIRN__JOURNAL__V1__ACT_ON_GROUP_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.group = pb_bytes(act->group);
	pb.act = act->kind == CLIENT_GROUP_REPLAY ? CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_REPLAY
		 : act->kind == CLIENT_GROUP_SKIP ? CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_SKIP
						  : CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_PARK;
	pb.stream = pb_bytes(act->stream);
	if (act->by_position) {
		pb.has_position_case = CAIRN__JOURNAL__V1__ACT_ON_GROUP_REQUEST__HAS_POSITION_POSITION;
		pb.position = act->position;
	}
	pb.reason = pb_bytes(act->reason);
	pb.goes_on = act->goes_on;
	groups_start(JOURNAL_METHOD("ActOnGroup"), &pb.base, deadline_ms,
		     &(struct groups_call){.client = c, .on_acted = done, .arg = arg});
}
