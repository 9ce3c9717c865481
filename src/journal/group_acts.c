/* What is written down for a consumer group: its offsets, what it parks, and what is done about that. */
#include <config.h>

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "journal/act.h"
#include "journal/acts.h"
#include "journal/group.h"
#include "journal/group_load.h"
#include "journal/wire.h"

/* An act whose data is known when it is asked for. */
struct group_act {
	struct act act;
	bool makes; /* the group, unless it is there: its first stream has a record then */
	size_t count;
	struct buf data[];
};

static enum act_verdict group_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	const struct group_act *ga = CONTAINER_OF(act, struct group_act, act);
	(void)a;
	return ga->makes && facts->streams[0]->exists ? ACT_HOLDS : ACT_WRITES;
}

static void group_encode(struct act *act, size_t i, struct buf *out)
{
	const struct group_act *ga = CONTAINER_OF(act, struct group_act, act);
	must(i < ga->count);
	enum err_code code = buf_append_span(out, buf_span(&ga->data[i]));
	must(code == ERR_OK);
}

static void group_act_free(struct act *act)
{
	struct group_act *ga = CONTAINER_OF(act, struct group_act, act);
	for (size_t i = 0; i < ga->count; i++)
		buf_release(&ga->data[i]);
	mem_free(ga);
}

static const struct act_ops group_ops = {group_decide, group_encode, group_act_free};

static struct group_act *group_act_new(size_t count)
{
	struct group_act *ga = mem_xalloc(sizeof(*ga) + count * sizeof(ga->data[0]));
	ga->act.ops = &group_ops;
	ga->count = count;
	for (size_t i = 0; i < count; i++)
		buf_init(&ga->data[i], LIMIT_APPEND_BYTES);
	return ga;
}

/* Of the one record of an act. */
static enum err_code append_one(const struct journal *j, const ProtobufCMessage *message, uint32_t kind,
				struct span stream, const struct journal_fence *fence, struct span actor,
				struct append **ret, struct append_refusal *refusal)
{
	struct group_act *ga = group_act_new(1);
	act_pack(message, &ga->data[0]);
	struct act_record record = {.kind = kind, .stream = stream};
	struct act_request act = {.act = &ga->act,
				  .records = &record,
				  .record_count = 1,
				  .data_max = ga->data[0].n,
				  .fences = fence,
				  .fence_count = fence ? 1 : 0,
				  .actor = actor};
	return act_append_new(j, &act, ret, refusal);
}

/* ---- names ----------------------------------------------------------------------------------- */

enum err_code journal_group_check(struct span group, struct err *err)
{
	if (group.n == 0 || group.n > LIMIT_GROUP_NAME_BYTES)
		return err_set(err, ERR_INVALID, "group name has %zu bytes: it has 1 to %zu", group.n,
			       LIMIT_GROUP_NAME_BYTES);
	if (!utf8_valid_no_controls(group))
		return err_set(err, ERR_INVALID, "group name is not valid UTF-8 without control characters");
	return ERR_OK;
}

struct span journal_group_stream(struct span group, uint32_t partition, char *buf)
{
	int n = partition ? snprintf(buf, GROUP_STREAM_BYTES, "$group.%u-%.*s", partition, SPAN_ARG(group))
			  : snprintf(buf, GROUP_STREAM_BYTES, GROUP_STREAM_PREFIX "%.*s", SPAN_ARG(group));
	must(n > 0 && (size_t)n < GROUP_STREAM_BYTES);
	return span_of(buf, (size_t)n);
}

struct span journal_parked_stream(struct span group, char *buf)
{
	int n = snprintf(buf, GROUP_STREAM_BYTES, "$parked-%.*s", SPAN_ARG(group));
	must(n > 0 && (size_t)n < GROUP_STREAM_BYTES);
	return span_of(buf, (size_t)n);
}

uint32_t journal_group_partition_of(struct span stream, uint32_t partitions)
{
	return record_crc32c(0, stream) % partitions;
}

/* ---- offsets --------------------------------------------------------------------------------- */

enum err_code journal_group_make_new(const struct journal *j, struct span group, uint32_t partitions,
				     uint64_t position, struct span actor, struct append **ret,
				     struct append_refusal *ret_refusal)
{
	char names[LIMIT_GROUP_PARTITIONS][GROUP_STREAM_BYTES];
	struct act_record records[LIMIT_GROUP_PARTITIONS];
	*ret_refusal = (struct append_refusal){0};
	must(partitions > 0 && partitions <= LIMIT_GROUP_PARTITIONS);
	if (journal_group_check(group, &ret_refusal->err))
		return ret_refusal->err.code;
	struct group_act *ga = group_act_new(partitions);
	size_t data_max = 0;
	ga->makes = true;
	for (uint32_t i = 0; i < partitions; i++) {
		PB(GroupOffset) pb = CAIRN__JOURNAL__V1__GROUP_OFFSET__INIT;
		pb.group = pb_bytes(group);
		pb.position = position;
		pb.partition = i;
		pb.partitions = partitions;
		act_pack(&pb.base, &ga->data[i]);
		data_max = ga->data[i].n > data_max ? ga->data[i].n : data_max;
		records[i] = (struct act_record){.kind = RECORD_GROUP_OFFSET,
						 .stream = journal_group_stream(group, i, names[i])};
	}
	struct act_request act = {.act = &ga->act,
				  .records = records,
				  .record_count = partitions,
				  .data_max = data_max,
				  .actor = actor};
	return act_append_new(j, &act, ret, ret_refusal);
}

void group_mark_to(const struct group_mark *mark, PB(GroupWaiting) *ret)
{
	cairn__journal__v1__group_waiting__init(ret);
	ret->stream = pb_bytes(mark->stream);
	ret->position = mark->position;
	if (mark->parked) {
		ret->has_parked_at_case = CAIRN__JOURNAL__V1__GROUP_WAITING__HAS_PARKED_AT_PARKED_AT;
		ret->parked_at = mark->parked_at;
	}
	ret->skip = mark->skip;
	ret->alone = mark->alone;
}

enum err_code journal_group_offset_new(const struct journal *j, const struct journal_group_offset *offset,
				       const struct journal_fence *fence, struct append **ret,
				       struct append_refusal *ret_refusal)
{
	PB(GroupOffset) pb = CAIRN__JOURNAL__V1__GROUP_OFFSET__INIT;
	char stream[GROUP_STREAM_BYTES];
	size_t n = offset->mark_count, bytes = 0;
	*ret_refusal = (struct append_refusal){0};
	if (journal_group_check(offset->group, &ret_refusal->err))
		return ret_refusal->err.code;
	for (size_t i = 0; i < n; i++)
		bytes += offset->marks[i].stream.n + 48;
	if (bytes > LIMIT_RECORD_BYTES / 2)
		return err_set(&ret_refusal->err, ERR_LIMIT, "the names of the %zu streams that wait are too long "
			       "for one record", n);
	PB(GroupWaiting) *waiting = mem_xalloc((n + 1) * sizeof(*waiting));
	PB(GroupWaiting) **pointers = mem_xalloc((n + 1) * sizeof(PB(GroupWaiting) *));
	for (size_t i = 0; i < n; i++) {
		group_mark_to(&offset->marks[i], &waiting[i]);
		pointers[i] = &waiting[i];
	}
	pb.group = pb_bytes(offset->group);
	pb.position = offset->position;
	pb.n_waiting = n;
	pb.waiting = pointers;
	pb.acts_below = offset->acts_below;
	pb.partition = offset->partition;
	pb.partitions = offset->partitions;
	enum err_code code = append_one(j, &pb.base, RECORD_GROUP_OFFSET,
					journal_group_stream(offset->group, offset->partition, stream), fence,
					(struct span){0}, ret, ret_refusal);
	mem_free((void *)pointers);
	mem_free(waiting);
	return code;
}

/* ---- parking --------------------------------------------------------------------------------- */

static enum err_code check_park(struct span group, struct span reason, struct append_refusal *refusal)
{
	*refusal = (struct append_refusal){0};
	if (journal_group_check(group, &refusal->err))
		return refusal->err.code;
	if (reason.n > LIMIT_PARK_REASON_BYTES || !utf8_valid(reason))
		return err_set(&refusal->err, ERR_INVALID, "park: its reason is not UTF-8 of at most %zu bytes",
			       LIMIT_PARK_REASON_BYTES);
	return ERR_OK;
}

enum err_code journal_park_new(const struct journal *j, const struct journal_park *park,
			       const struct journal_fence *fence, struct append **ret,
			       struct append_refusal *ret_refusal)
{
	PB(Parked) pb = CAIRN__JOURNAL__V1__PARKED__INIT;
	char stream[GROUP_STREAM_BYTES];
	if (check_park(park->group, park->reason, ret_refusal))
		return ret_refusal->err.code;
	pb.group = pb_bytes(park->group);
	pb.position = park->position;
	pb.stream = pb_bytes(park->stream);
	pb.reason = pb_bytes(park->reason);
	pb.goes_on = park->goes_on;
	return append_one(j, &pb.base, RECORD_PARKED, journal_parked_stream(park->group, stream), fence,
			  (struct span){0}, ret, ret_refusal);
}

enum err_code journal_group_act_new(const struct journal *j, const struct journal_group_act *request,
				    struct append **ret, struct append_refusal *ret_refusal)
{
	PB(GroupAct) pb = CAIRN__JOURNAL__V1__GROUP_ACT__INIT;
	char stream[GROUP_STREAM_BYTES];
	if (check_park(request->group, request->reason, ret_refusal))
		return ret_refusal->err.code;
	pb.group = pb_bytes(request->group);
	pb.act = (PB(GroupAct__Act))request->act;
	pb.stream = pb_bytes(request->stream);
	if (request->by_position) {
		pb.has_position_case = CAIRN__JOURNAL__V1__GROUP_ACT__HAS_POSITION_POSITION;
		pb.position = request->position;
	}
	pb.reason = pb_bytes(request->reason);
	pb.goes_on = request->goes_on;
	return append_one(j, &pb.base, RECORD_GROUP_ACT, journal_parked_stream(request->group, stream), NULL,
			  request->actor, ret, ret_refusal);
}
