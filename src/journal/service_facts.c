/* Stat and ListStreams. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

#define FACTS_MAGIC 0xfac75000
struct facts_call {
	uint32_t magic;
	struct journal_service *service;
	struct grpc_call *call; /* a reference */
};

static struct facts_call *facts_call_new(struct grpc_call *call, struct journal_service *s)
{
	struct facts_call *f = mem_xalloc(sizeof(*f));

	f->magic = FACTS_MAGIC;
	f->service = s;
	f->call = grpc_call_ref(call);
	return f;
}

static void facts_call_free(struct facts_call *f)
{
	grpc_call_unref(f->call);
	f->magic = 0;
	mem_free(f);
}

static void info_to(const struct journal_stream_info *info, PB(StreamInfo) *ret)
{
	cairn__journal__v1__stream_info__init(ret);
	ret->name = pb_bytes(info->name);
	ret->sequence = info->sequence;
	ret->records = info->records;
	ret->first_position = info->first_position;
	ret->last_position = info->last_position;
}

/* ---- Stat --------------------------------------------------------------------------------------- */

static const char *const features[] = {
	"append", "append-stream", "read", "load", "subscribe", "list-streams",
	"sessions", "grants", "fences", "time-bounds", "groups", "group-partitions", "group-acts",
	"delete", "truncate", "erase", "retention", "compact", "backup", "checkpoint", "proofs",
};
static const struct {
	const char *name;
	uint64_t value;
} limits[] = {
	{"stream_name_bytes", LIMIT_STREAM_NAME_BYTES},
	{"type_bytes", LIMIT_TYPE_BYTES},
	{"content_type_bytes", LIMIT_CONTENT_TYPE_BYTES},
	{"metadata_bytes", LIMIT_METADATA_BYTES},
	{"record_bytes", LIMIT_RECORD_BYTES},
	{"append_bytes", LIMIT_APPEND_BYTES},
	{"append_records", LIMIT_APPEND_RECORDS},
	{"response_bytes", LIMIT_RESPONSE_BYTES},
	{"page_items", LIMIT_PAGE_ITEMS},
	{"append_fences", LIMIT_APPEND_FENCES},
	{"slots", LIMIT_SLOTS},
	{"group_window", LIMIT_GROUP_WINDOW},
	{"group_waiting", LIMIT_GROUP_WAITING},
	{"group_partitions", LIMIT_GROUP_PARTITIONS},
	{"claim_slots", LIMIT_CLAIM_SLOTS},
};

static void stat_reply(struct facts_call *f, const struct journal_stream_info *stream)
{
	PB(StatResponse) pb = CAIRN__JOURNAL__V1__STAT_RESPONSE__INIT;
	ProtobufCBinaryData names[ARRAY_LEN(features)];
	PB(Limit) values[ARRAY_LEN(limits)], *value_pointers[ARRAY_LEN(limits)];
	PB(StreamInfo) info;
	PB(Cursor) head;
	struct journal_info journal;

	journal_info(f->service->journal, &journal);
	service_cursor_to(&journal.head, &head);
	for (size_t i = 0; i < ARRAY_LEN(features); i++)
		names[i] = pb_bytes(span_str(features[i]));
	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		cairn__journal__v1__limit__init(&values[i]);
		values[i].name = pb_bytes(span_str(limits[i].name));
		values[i].value = limits[i].value;
		value_pointers[i] = &values[i];
	}
	pb.head = &head;
	pb.last_commit_time_us = (uint64_t)journal.last_commit.us;
	pb.storage = pb_bytes(span_str(journal.storage_name));
	pb.version = pb_bytes(SPAN(PACKAGE_VERSION));
	pb.n_features = ARRAY_LEN(features);
	pb.features = names;
	pb.n_limits = ARRAY_LEN(limits);
	pb.limits = value_pointers;
	if (stream) {
		info_to(stream, &info);
		pb.stream = &info;
	}
	grpc_call_reply_pb(f->call, &pb.base);
}

static void stat_on_facts(const struct journal_stream_info *items, size_t count, bool more,
			  const struct err *err, void *arg)
{
	struct facts_call *f = OBJ_CAST(struct facts_call, arg, FACTS_MAGIC);

	(void)more;
	if (err)
		grpc_call_finish_err(f->call, err);
	else
		stat_reply(f, count ? &items[0] : NULL);
	facts_call_free(f);
}

void service_stat(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct journal_cursor not_before;
	struct facts_call *f = facts_call_new(call, s);
	struct err err = {0};
	PB(StatRequest) *pb;
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(stat_request), &a, request);
	if (!pb)
		err_set(&err, ERR_INVALID, "the request is no StatRequest");
	else if (!service_check_journal(pb->journal, &err) &&
		 !service_cursor_of(pb->not_before, "not_before", &not_before, &err))
		journal_stat(s->journal, pb_span(pb->stream), &not_before,
			     loop_mailbox(grpc_call_loop(call)), stat_on_facts, f, &err);
	if (err.code) {
		grpc_call_finish_err(call, &err);
		facts_call_free(f);
	}
	arena_release(&a);
}

/* ---- ListStreams -------------------------------------------------------------------------------- */

static void list_on_facts(const struct journal_stream_info *items, size_t count, bool more,
			  const struct err *err, void *arg)
{
	struct facts_call *f = OBJ_CAST(struct facts_call, arg, FACTS_MAGIC);
	PB(ListStreamsResponse) pb = CAIRN__JOURNAL__V1__LIST_STREAMS_RESPONSE__INIT;

	if (err) {
		grpc_call_finish_err(f->call, err);
	} else {
		PB(StreamInfo) *infos = mem_xalloc((count + 1) * sizeof(*infos));
		PB(StreamInfo) **pointers = mem_xalloc((count + 1) * sizeof(*pointers));

		must(count <= LIMIT_PAGE_ITEMS);
		for (size_t i = 0; i < count; i++) {
			info_to(&items[i], &infos[i]);
			pointers[i] = &infos[i];
		}
		pb.n_streams = count;
		pb.streams = pointers;
		/* Names are the token: they are text, and the list is in their order. */
		if (more && count)
			pb.next_page_token = infos[count - 1].name;
		grpc_call_reply_pb(f->call, &pb.base);
		mem_free(infos);
		mem_free(pointers);
	}
	facts_call_free(f);
}

void service_list_streams(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct facts_call *f = facts_call_new(call, s);
	struct journal_list list = {0};
	struct err err = {0};
	PB(ListStreamsRequest) *pb;
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(list_streams_request), &a, request);
	if (!pb) {
		err_set(&err, ERR_INVALID, "the request is no ListStreamsRequest");
	} else if (!service_check_journal(pb->journal, &err) &&
		   !service_cursor_of(pb->not_before, "not_before", &list.not_before, &err)) {
		list.prefix = pb_span(pb->prefix);
		list.after = pb_span(pb->page_token);
		list.max = pb->page_size;
		list.include_system = pb->include_system;
		journal_list_streams(s->journal, &list, loop_mailbox(grpc_call_loop(call)), list_on_facts, f,
				     &err);
	}
	if (err.code) {
		grpc_call_finish_err(call, &err);
		facts_call_free(f);
	}
	arena_release(&a);
}
