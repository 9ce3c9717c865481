/* What is written down for a consumer group: its offsets, and what it parks. */
#include <config.h>

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "journal/act.h"
#include "journal/acts.h"
#include "journal/wire.h"

/* An act whose data is known when it is asked for; its fences are its rule. */
struct group_act {
	struct act act;
	struct buf data;
};

static enum act_verdict group_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	(void)act;
	(void)a;
	(void)facts;
	return ACT_WRITES;
}

static void group_encode(struct act *act, size_t i, struct buf *out)
{
	const struct group_act *ga = CONTAINER_OF(act, struct group_act, act);
	must(i == 0);
	enum err_code code = buf_append_span(out, buf_span(&ga->data));
	must(code == ERR_OK);
}

static void group_act_free(struct act *act)
{
	struct group_act *ga = CONTAINER_OF(act, struct group_act, act);
	buf_release(&ga->data);
	mem_free(ga);
}

static const struct act_ops group_ops = {group_decide, group_encode, group_act_free};

static enum err_code group_append(const struct journal *j, const ProtobufCMessage *message, uint32_t kind,
				  const char *prefix, struct span group, const struct journal_fence *fence,
				  struct append **ret, struct append_refusal *refusal)
{
	char stream[32 + LIMIT_GROUP_NAME_BYTES];
	int n = snprintf(stream, sizeof(stream), "%s%.*s", prefix, SPAN_ARG(group));
	must(n > 0 && (size_t)n < sizeof(stream));
	struct group_act *ga = mem_xalloc(sizeof(*ga));
	ga->act.ops = &group_ops;
	buf_init(&ga->data, LIMIT_APPEND_BYTES);
	act_pack(message, &ga->data);
	struct act_record record = {.kind = kind, .stream = span_of(stream, (size_t)n)};
	struct act_request act = {.act = &ga->act,
				  .records = &record,
				  .record_count = 1,
				  .data_max = ga->data.n,
				  .fences = fence,
				  .fence_count = 1};
	return act_append_new(j, &act, ret, refusal);
}

enum err_code journal_group_check(struct span group, struct err *err)
{
	if (group.n == 0 || group.n > LIMIT_GROUP_NAME_BYTES)
		return err_set(err, ERR_INVALID, "group name has %zu bytes: it has 1 to %zu", group.n,
			       LIMIT_GROUP_NAME_BYTES);
	if (!utf8_valid_no_controls(group))
		return err_set(err, ERR_INVALID, "group name is not valid UTF-8 without control characters");
	return ERR_OK;
}

enum err_code journal_group_offset_new(const struct journal *j, const struct journal_group_offset *offset,
				       const struct journal_fence *fence, struct append **ret,
				       struct append_refusal *ret_refusal)
{
	PB(GroupOffset) pb = CAIRN__JOURNAL__V1__GROUP_OFFSET__INIT;
	size_t n = offset->waiting_count, bytes = 0;
	*ret_refusal = (struct append_refusal){0};
	if (journal_group_check(offset->group, &ret_refusal->err))
		return ret_refusal->err.code;
	for (size_t i = 0; i < n; i++)
		bytes += offset->waiting[i].stream.n + 32;
	if (bytes > LIMIT_RECORD_BYTES / 2)
		return err_set(&ret_refusal->err, ERR_LIMIT, "the names of the %zu streams that wait are too long "
			       "for one record", n);
	PB(GroupWaiting) *waiting = mem_xalloc((n + 1) * sizeof(*waiting));
	PB(GroupWaiting) **pointers = mem_xalloc((n + 1) * sizeof(PB(GroupWaiting) *));
	for (size_t i = 0; i < n; i++) {
		cairn__journal__v1__group_waiting__init(&waiting[i]);
		waiting[i].stream = pb_bytes(offset->waiting[i].stream);
		waiting[i].position = offset->waiting[i].position;
		pointers[i] = &waiting[i];
	}
	pb.group = pb_bytes(offset->group);
	pb.position = offset->position;
	pb.n_waiting = n;
	pb.waiting = pointers;
	enum err_code code = group_append(j, &pb.base, RECORD_GROUP_OFFSET, GROUP_STREAM_PREFIX, offset->group,
					  fence, ret, ret_refusal);
	mem_free((void *)pointers);
	mem_free(waiting);
	return code;
}

enum err_code journal_park_new(const struct journal *j, const struct journal_park *park,
			       const struct journal_fence *fence, struct append **ret,
			       struct append_refusal *ret_refusal)
{
	PB(Parked) pb = CAIRN__JOURNAL__V1__PARKED__INIT;
	*ret_refusal = (struct append_refusal){0};
	if (journal_group_check(park->group, &ret_refusal->err))
		return ret_refusal->err.code;
	if (park->reason.n > LIMIT_PARK_REASON_BYTES || !utf8_valid(park->reason))
		return err_set(&ret_refusal->err, ERR_INVALID,
			       "park: its reason is not UTF-8 of at most %zu bytes", LIMIT_PARK_REASON_BYTES);
	pb.group = pb_bytes(park->group);
	pb.position = park->position;
	pb.stream = pb_bytes(park->stream);
	pb.reason = pb_bytes(park->reason);
	return group_append(j, &pb.base, RECORD_PARKED, PARKED_STREAM_PREFIX, park->group, fence, ret, ret_refusal);
}
