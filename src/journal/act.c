/* Acts: see act.h. */
#include <config.h>

#include "journal/act.h"

#include <protobuf-c/protobuf-c.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/grant.h"
#include "journal/incarnation.h"
#include "journal/internal.h"
#include "journal/session.h"
#include "journal/withhold.h"

static const struct act_kind kinds[] = {
	{.kind = RECORD_DELETE, .type = "cairn.journal.v1.Deletion", .touch = withhold_touch_delete},
	{.kind = RECORD_TRUNCATE, .type = "cairn.journal.v1.Truncation", .touch = withhold_touch_other},
	{.kind = RECORD_ERASE, .type = "cairn.journal.v1.Erasure", .touch = withhold_touch_other},
	{.kind = RECORD_RETENTION, .type = "cairn.journal.v1.Retention", .touch = withhold_touch_other},
	{.kind = RECORD_COMPACTION, .type = "cairn.journal.v1.Compaction", .touch = withhold_touch_other},
	{.kind = RECORD_SESSION_BEGUN,
	 .type = "cairn.journal.v1.SessionBegun",
	 .apply = session_apply_begun,
	 .streams = SESSIONS_STREAM_NAME},
	{.kind = RECORD_SESSION_ENDED,
	 .type = "cairn.journal.v1.SessionEnded",
	 .apply = session_apply_ended,
	 .streams = SESSIONS_STREAM_NAME},
	{.kind = RECORD_GRANT,
	 .type = "cairn.journal.v1.Grant",
	 .apply = grant_apply,
	 .streams = GRANTS_STREAM_PREFIX},
	{.kind = RECORD_INCARNATION,
	 .type = "cairn.journal.v1.Incarnation",
	 .apply = incarnation_apply,
	 .streams = INCARNATIONS_STREAM},
	{.kind = RECORD_GROUP_OFFSET, .type = "cairn.journal.v1.GroupOffset"},
	{.kind = RECORD_PARKED, .type = "cairn.journal.v1.Parked"},
	{.kind = RECORD_GROUP_ACT, .type = "cairn.journal.v1.GroupAct"},
};

const struct act_kind *act_kind_find(uint32_t kind)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].kind == kind)
			return &kinds[i];
	return NULL;
}

const struct act_kind *act_kinds(size_t *ret_count)
{
	*ret_count = ARRAY_LEN(kinds);
	return kinds;
}

/* ---- messages -------------------------------------------------------------------------------- */

void act_pack(const struct ProtobufCMessage *message, struct buf *out)
{
	size_t n = protobuf_c_message_get_packed_size(message);
	enum err_code code = buf_reserve(out, n);
	must(code == ERR_OK);
	must(protobuf_c_message_pack(message, out->p + out->n) == n);
	out->n += n;
}

static void *unpack_alloc(void *arg, size_t n)
{
	return arena_alloc(arg, n);
}

static void unpack_free(void *arg, void *p)
{
	(void)arg; /* dies with the arena */
	(void)p;
}

void *act_unpack(const struct ProtobufCMessageDescriptor *type, struct arena *a, struct span data)
{
	ProtobufCAllocator allocator = {.alloc = unpack_alloc, .free = unpack_free, .allocator_data = a};
	return protobuf_c_message_unpack(type, &allocator, data.n, data.p);
}

/* ---- deciding and encoding ------------------------------------------------------------------- */

enum act_verdict act_decide(struct append *a, const struct act_facts *facts)
{
	return a->act->ops->decide(a->act, a, facts);
}

void act_encode_data(struct append *a)
{
	buf_clear(&a->act_data);
	for (size_t i = 0; i < a->item_count; i++) {
		struct append_item *item = &a->items[i];
		item->data_at = a->act_data.n;
		a->act->ops->encode(a->act, i, &a->act_data);
		item->data_n = a->act_data.n - item->data_at;
		must(item->data_n <= a->act_data_max);
	}
}

struct span act_item_data(const struct append *a, const struct append_item *item)
{
	return span_of(a->act_data.p + item->data_at, item->data_n);
}

void act_encode_records(struct append *a)
{
	buf_clear(&a->bytes);
	for (size_t i = 0; i < a->item_count; i++) {
		struct append_item *item = &a->items[i];
		const struct act_kind *kind = act_kind_find(item->kind);
		must(kind);
		struct record_new n = {.kind = item->kind,
				       .stream = a->targets[item->target].name,
				       .type = span_str(kind->type),
				       .content_type = SPAN(ACT_CONTENT_TYPE),
				       .actor = a->actor,
				       .data = act_item_data(a, item),
				       .last_of_append = i + 1 == a->item_count};
		struct err err = {0};
		memcpy(n.id, item->id, RECORD_ID_BYTES);
		/* Form and limits were checked when it was asked for. */
		enum err_code code = record_encode(&a->bytes, &n, &item->place, &err);
		must(code == ERR_OK);
	}
}

struct act *append_act(const struct append *a)
{
	return a->act;
}

enum err_code act_append_new(const struct journal *j, const struct act_request *request, struct append **ret,
			     struct append_refusal *ret_refusal)
{
	return act_append_build(request, j->seed, j->clock, ret, ret_refusal);
}
