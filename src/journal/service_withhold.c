/* Delete, Truncate, Erase: from a request to acts of the sequencer, and its answers back.
 *
 *	Delete                                     ──▶ act ──▶ answer
 *	Truncate ──where is the sequence? a read───▶ act ──▶ answer
 *	Erase of a prefix ──which streams? lists───▶ act, act, ... ──▶ answer
 *
 * A call object lives until its last callback; that the client has gone does not stop it, for what it asked for
 * may be half done. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/endian.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/acts.h"

#define ANSWER_STREAMS ((size_t)1000)
/* The names that a prefix stands for, above all. */
#define ACT_ARENA_BYTES (256 * MIB)

#define ACT_CALL_MAGIC 0xac7ca110
struct act_call {
	uint32_t magic;
	struct journal_service *service;
	struct grpc_call *call; /* a reference */
	struct mailbox *mailbox;
	struct journal_withhold act;
	struct arena arena; /* what act points to */
	char actor[80];
	struct journal_read *read; /* of the record with a sequence */

	/* Of a prefix. */
	struct span *names;
	size_t name_count, name_cap, done_count;

	struct buf answer; /* PB(StreamAppended), packed one by one */
	size_t answer_count;
	bool wrote;
	uint64_t position; /* behind the last act */
};

static struct act_call *act_call_new(struct grpc_call *call, struct journal_service *s, uint32_t kind)
{
	struct act_call *ac = mem_xalloc(sizeof(*ac));

	ac->magic = ACT_CALL_MAGIC;
	ac->service = s;
	ac->call = grpc_call_ref(call);
	ac->mailbox = loop_mailbox(grpc_call_loop(call));
	ac->act.kind = kind;
	arena_init(&ac->arena, ACT_ARENA_BYTES);
	service_actor_of(call, ac->actor, sizeof(ac->actor));
	ac->act.actor = span_str(ac->actor);
	buf_init(&ac->answer, ANSWER_STREAMS * (LIMIT_STREAM_NAME_BYTES + 32));
	return ac;
}

static void act_call_free(struct act_call *ac)
{
	journal_read_close(ac->read);
	grpc_call_unref(ac->call);
	arena_release(&ac->arena);
	buf_release(&ac->answer);
	mem_free(ac->names);
	ac->magic = 0;
	mem_free(ac);
}

static struct span keep(struct act_call *ac, ProtobufCBinaryData text)
{
	struct span kept = arena_dup(&ac->arena, pb_span(text));

	must(kept.p || text.len == 0);
	return kept;
}

/* ---- answers ------------------------------------------------------------------------------------ */

static void act_call_fail(struct act_call *ac, const struct err *err)
{
	grpc_call_finish_err(ac->call, err);
	act_call_free(ac);
}

static void note_stream(struct act_call *ac, const struct append *append, size_t i)
{
	PB(StreamAppended) pb;
	uint8_t size[4];

	if (ac->answer_count == ANSWER_STREAMS)
		return;
	cairn__journal__v1__stream_appended__init(&pb);
	pb.stream = pb_bytes(append_answer_stream(append, i, &pb.sequence));
	size_t n = protobuf_c_message_get_packed_size(&pb.base);
	put_le32(size, (uint32_t)n);
	must(buf_append(&ac->answer, size, sizeof(size)) == ERR_OK);
	must(buf_reserve(&ac->answer, n) == ERR_OK);
	ac->answer.n += protobuf_c_message_pack(&pb.base, ac->answer.p + ac->answer.n);
	ac->answer_count++;
}

static void act_call_reply(struct act_call *ac)
{
	PB(ActResponse) pb = CAIRN__JOURNAL__V1__ACT_RESPONSE__INIT;
	PB(StreamAppended) **streams;
	PB(Cursor) cursor;
	struct arena a;
	struct journal_cursor at = journal_cursor_at(ac->service->journal, ac->position);
	struct span rest = buf_span(&ac->answer);

	arena_init(&a, SIZE_MAX);
	streams = arena_alloc(&a, (ac->answer_count + 1) * sizeof(*streams));
	must(streams);
	for (size_t i = 0; i < ac->answer_count; i++) {
		size_t n = get_le32(rest.p);

		streams[i] = (void *)grpc_unpack(PB_TYPE(stream_appended), &a, span_of(rest.p + 4, n));
		must(streams[i]);
		rest = span_skip(rest, 4 + n);
	}
	service_cursor_to(&at, &cursor);
	pb.n_streams = ac->answer_count;
	pb.streams = streams;
	pb.stream_count = ac->wrote ? (ac->name_count ? ac->name_count : 1) : 0;
	pb.nothing = !ac->wrote;
	pb.cursor = &cursor;
	grpc_call_reply_pb(ac->call, &pb.base);
	arena_release(&a);
	act_call_free(ac);
}

/* ---- acts --------------------------------------------------------------------------------------- */

static void act_call_go(struct act_call *ac);

static void act_on_done(struct append *append, void *arg)
{
	struct act_call *ac = OBJ_CAST(struct act_call, arg, ACT_CALL_MAGIC);
	const struct append_answer *answer = append_answer(append);
	bool ok = answer->code == ERR_OK;

	if (!ok) {
		act_call_fail(ac, &answer->refusal->err);
		append_unref(append);
		return;
	}
	ac->position = answer->cursor_position;
	if (answer->record_count) {
		bool summary = ac->act.has_prefix;

		ac->wrote = true;
		for (size_t i = summary; i < answer->stream_count; i++)
			note_stream(ac, append, i);
	}
	append_unref(append);
	if (ac->done_count < ac->name_count)
		act_call_go(ac);
	else
		act_call_reply(ac);
}

/* The next act: the only one, but for a prefix of many streams. */
static void act_call_go(struct act_call *ac)
{
	struct append_refusal refusal = {0};
	struct append *append = NULL;

	if (ac->name_count) {
		size_t left = ac->name_count - ac->done_count;

		ac->act.has_prefix = ac->done_count == 0;
		ac->act.streams = ac->names + ac->done_count;
		ac->act.stream_count = left < LIMIT_ERASE_STREAMS ? left : LIMIT_ERASE_STREAMS;
		ac->done_count += ac->act.stream_count;
	}
	if (journal_withhold_new(ac->service->journal, &ac->act, &append, &refusal) ||
	    journal_append(ac->service->journal, &append, ac->mailbox, act_on_done, ac, &refusal.err)) {
		append_unref(append);
		act_call_fail(ac, &refusal.err);
	}
}

/* Request errors that need no stream: told before anything is looked up. */
static bool act_call_is_fine(struct act_call *ac, struct err *err)
{
	if (!err->code && ac->act.reason.n == 0)
		err_set(err, ERR_INVALID, "a reason is missing: say why this is done, it is recorded");
	if (!err->code)
		return true;
	act_call_fail(ac, err);
	return false;
}

/* ---- Delete, Truncate ---------------------------------------------------------------------------- */

static void one_stream(struct act_call *ac, ProtobufCBinaryData name)
{
	struct span *stream = arena_alloc(&ac->arena, sizeof(*stream));

	must(stream);
	*stream = keep(ac, name);
	ac->act.streams = stream;
	ac->act.stream_count = 1;
}

void service_delete(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct act_call *ac = act_call_new(call, s, RECORD_DELETE);
	struct err err = {0};
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	const PB(DeleteRequest) *pb = (void *)grpc_unpack(PB_TYPE(delete_request), &a, request);
	if (!pb) {
		err_set(&err, ERR_INVALID, "the request is no DeleteRequest");
	} else if (!service_check_journal(pb->journal, &err)) {
		one_stream(ac, pb->stream);
		ac->act.reason = keep(ac, pb->reason);
	}
	if (act_call_is_fine(ac, &err))
		act_call_go(ac);
	arena_release(&a);
}

static void truncate_on_page(struct journal_read *read, struct journal_page *page, const struct err *err,
			     void *arg)
{
	struct act_call *ac = OBJ_CAST(struct act_call, arg, ACT_CALL_MAGIC);
	struct err copy = {0};

	(void)read;
	if (!page) {
		copy = *err; /* it dies with the read */
		act_call_fail(ac, &copy);
		return;
	}
	if (page->records > 0) {
		struct span run = buf_span(&page->body), entry;

		must(record_next(&run, &entry, NULL, NULL) == ERR_OK);
		ac->act.has_before_position = true;
		ac->act.before_position = record_position(entry);
	}
	bool more = page->records == 0 && !page->end;
	journal_page_free(page);
	if (more)
		journal_read_next(ac->read);
	else
		act_call_go(ac);
}

void service_truncate(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct act_call *ac = act_call_new(call, s, RECORD_TRUNCATE);
	struct journal_query query = {.source = STORAGE_STREAM, .from = FROM_SEQUENCE, .max_records = 1};
	struct err err = {0};
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	const PB(TruncateRequest) *pb = (void *)grpc_unpack(PB_TYPE(truncate_request), &a, request);
	if (!pb) {
		err_set(&err, ERR_INVALID, "the request is no TruncateRequest");
	} else if (!service_check_journal(pb->journal, &err)) {
		one_stream(ac, pb->stream);
		ac->act.reason = keep(ac, pb->reason);
		ac->act.before_sequence = pb->before_sequence;
		query.name = ac->act.streams[0];
		query.from_value = pb->before_sequence;
		journal_read_open(s->journal, &query, ac->mailbox, truncate_on_page, ac, &ac->read, &err);
	}
	if (act_call_is_fine(ac, &err))
		journal_read_next(ac->read);
	arena_release(&a);
}

/* ---- Erase -------------------------------------------------------------------------------------- */

static void erase_list(struct act_call *ac, struct span after);

static void erase_on_list(const struct journal_stream_info *items, size_t count, bool more,
			  const struct err *err, void *arg)
{
	struct act_call *ac = OBJ_CAST(struct act_call, arg, ACT_CALL_MAGIC);

	if (err) {
		act_call_fail(ac, err);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (ac->name_count == ac->name_cap) {
			ac->name_cap = ac->name_cap ? 2 * ac->name_cap : 64;
			ac->names = mem_xrealloc(ac->names, ac->name_cap * sizeof(*ac->names));
		}
		ac->names[ac->name_count] = arena_dup(&ac->arena, items[i].name);
		if (!ac->names[ac->name_count++].p) {
			struct err many = {0};

			err_set(&many, ERR_LIMIT, "\"%.*s\" stands for more than %zu streams, too many for one "
				"request: nothing was erased, name longer prefixes", SPAN_ARG(ac->act.prefix),
				ac->name_count - 1);
			act_call_fail(ac, &many);
			return;
		}
	}
	if (more && count) {
		erase_list(ac, ac->names[ac->name_count - 1]);
	} else if (ac->name_count == 0) {
		struct err none = {0};

		err_set(&none, ERR_NOT_FOUND, "there is no stream whose name begins with \"%.*s\"",
			SPAN_ARG(ac->act.prefix));
		act_call_fail(ac, &none);
	} else {
		ac->act.prefix_streams = ac->name_count;
		act_call_go(ac);
	}
}

static void erase_list(struct act_call *ac, struct span after)
{
	struct journal_list list = {.prefix = ac->act.prefix, .after = after};
	struct err err = {0};

	if (journal_list_streams(ac->service->journal, &list, ac->mailbox, erase_on_list, ac, &err))
		act_call_fail(ac, &err);
}

static enum err_code erase_of(struct act_call *ac, const PB(EraseRequest) *pb, struct err *err)
{
	ac->act.reason = keep(ac, pb->reason);
	ac->act.from_sequence = pb->from_sequence;
	ac->act.to_sequence = pb->to_sequence ? pb->to_sequence : pb->from_sequence;
	ac->act.keep_snapshots = pb->keep_snapshots;
	if (pb->what_case == CAIRN__JOURNAL__V1__ERASE_REQUEST__WHAT_STREAM) {
		one_stream(ac, pb->stream);
		return ERR_OK;
	}
	if (pb->what_case != CAIRN__JOURNAL__V1__ERASE_REQUEST__WHAT_PREFIX || pb->prefix.len == 0)
		return err_set(err, ERR_INVALID, "neither a stream nor a prefix to erase is named");
	ac->act.prefix = keep(ac, pb->prefix);
	if (ac->act.prefix.n > LIMIT_STREAM_NAME_BYTES || ac->act.prefix.p[0] == '$')
		return err_set(err, ERR_INVALID, "\"%.*s\" is no prefix of streams that can be erased",
			       SPAN_ARG(ac->act.prefix));
	if (pb->from_sequence || pb->to_sequence)
		return err_set(err, ERR_INVALID, "sequences are of one stream: a prefix is erased as a whole");
	return ERR_OK;
}

void service_erase(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct act_call *ac = act_call_new(call, s, RECORD_ERASE);
	struct err err = {0};
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	const PB(EraseRequest) *pb = (void *)grpc_unpack(PB_TYPE(erase_request), &a, request);
	if (!pb)
		err_set(&err, ERR_INVALID, "the request is no EraseRequest");
	else if (!service_check_journal(pb->journal, &err))
		erase_of(ac, pb, &err);
	if (act_call_is_fine(ac, &err)) {
		if (ac->act.prefix.n)
			erase_list(ac, (struct span){0});
		else
			act_call_go(ac);
	}
	arena_release(&a);
}
