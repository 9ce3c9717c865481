/* SetRetention and Compact. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/acts.h"

/* ---- SetRetention ------------------------------------------------------------------------------- */

struct retention_call {
	struct journal_service *service;
	struct grpc_call *call; /* a reference */
};

static void retention_end(struct retention_call *rc, const struct err *err)
{
	if (err)
		grpc_call_finish_err(rc->call, err);
	grpc_call_unref(rc->call);
	mem_free(rc);
}

static void retention_on_done(struct append *append, void *arg)
{
	struct retention_call *rc = arg;
	const struct append_answer *answer = append_answer(append);
	struct err err = {0};

	if (answer->code) {
		err = answer->refusal->err;
		append_unref(append);
		retention_end(rc, &err);
		return;
	}
	PB(ActResponse) pb = CAIRN__JOURNAL__V1__ACT_RESPONSE__INIT;
	PB(Cursor) cursor;
	struct journal_cursor at = journal_cursor_at(rc->service->journal, answer->cursor_position);
	service_cursor_to(&at, &cursor);
	pb.cursor = &cursor;
	grpc_call_reply_pb(rc->call, &pb.base);
	append_unref(append);
	retention_end(rc, NULL);
}

static enum err_code retention_start(struct retention_call *rc, struct span request, struct arena *a,
				     struct err *err)
{
	struct journal_retention q = {0};
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	char actor[80];
	const PB(SetRetentionRequest) *pb = (void *)grpc_unpack(PB_TYPE(set_retention_request), a, request);

	if (!pb)
		return err_set(err, ERR_INVALID, "the request is no SetRetentionRequest");
	if (service_check_journal(pb->journal, err))
		return err->code;
	if (pb->what_case != CAIRN__JOURNAL__V1__SET_RETENTION_REQUEST__WHAT_STREAM &&
	    pb->what_case != CAIRN__JOURNAL__V1__SET_RETENTION_REQUEST__WHAT_CATEGORY)
		return err_set(err, ERR_INVALID, "neither a stream nor a category is named");
	if (pb->max_age_ms > INT64_MAX / 1000)
		return err_set(err, ERR_INVALID, "max_age_ms %llu is beyond what a time can be",
			       (unsigned long long)pb->max_age_ms);
	service_actor_of(rc->call, actor, sizeof(actor));
	q.category = pb->what_case == CAIRN__JOURNAL__V1__SET_RETENTION_REQUEST__WHAT_CATEGORY;
	q.name = pb_span(q.category ? pb->category : pb->stream);
	q.reason = pb_span(pb->reason);
	q.actor = span_str(actor);
	q.max_count = pb->max_count;
	q.max_age_us = (int64_t)pb->max_age_ms * 1000;
	q.before_sequence = pb->before_sequence;
	if (q.category && q.before_sequence)
		return err_set(err, ERR_INVALID, "sequences are of one stream: a category has no before_sequence");
	if (journal_retention_new(rc->service->journal, &q, &append, &refusal) ||
	    journal_append(rc->service->journal, &append, loop_mailbox(grpc_call_loop(rc->call)),
			   retention_on_done, rc, &refusal.err)) {
		append_unref(append);
		*err = refusal.err;
		return err->code;
	}
	return ERR_OK;
}

void service_set_retention(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct retention_call *rc = mem_xalloc(sizeof(*rc));
	struct err err = {0};
	struct arena a;

	*rc = (struct retention_call){s, grpc_call_ref(call)};
	arena_init(&a, SERVICE_ARENA_BYTES);
	if (retention_start(rc, request, &a, &err))
		retention_end(rc, &err);
	arena_release(&a);
}

/* ---- Compact ------------------------------------------------------------------------------------ */

static void compact_on_done(const struct journal_compacted *result, const struct err *err, void *arg)
{
	struct grpc_call *call = arg;

	if (err) {
		grpc_call_finish_err(call, err);
	} else {
		PB(CompactResponse) pb = CAIRN__JOURNAL__V1__COMPACT_RESPONSE__INIT;
		pb.units = result->units;
		pb.rewritten = result->rewritten;
		pb.removed = result->removed;
		pb.erased = result->erased;
		pb.bytes_before = result->bytes_before;
		pb.bytes_after = result->bytes_after;
		grpc_call_reply_pb(call, &pb.base);
	}
	grpc_call_unref(call);
}

void service_compact(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct err err = {0};
	char actor[80];
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	const PB(CompactRequest) *pb = (void *)grpc_unpack(PB_TYPE(compact_request), &a, request);
	service_actor_of(call, actor, sizeof(actor));
	grpc_call_ref(call);
	if (!pb)
		err_set(&err, ERR_INVALID, "the request is no CompactRequest");
	else if (!service_check_journal(pb->journal, &err))
		journal_compact(s->journal, span_str(actor), loop_mailbox(grpc_call_loop(call)), compact_on_done,
				call, &err);
	if (err.code) {
		grpc_call_finish_err(call, &err);
		grpc_call_unref(call);
	}
	arena_release(&a);
}
