/* Unary calls that are acts: given to the sequencer, answered when all that they ask for is durable. First what
 * they share, then those of sessions and grants. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/acts.h"

/* ---- what they share ---------------------------------------------------------------------------- */

struct acts_op {
	struct acts_call *ac;
	size_t index;
};

struct acts_call *service_acts_new(struct grpc_call *call, struct journal_service *s, size_t count,
				   void (*reply)(struct acts_call *ac))
{
	struct acts_call *ac = mem_xalloc(sizeof(*ac));

	ac->service = s;
	ac->call = grpc_call_ref(call);
	ac->count = count;
	ac->appends = mem_xalloc((count + 1) * sizeof(struct append *));
	ac->reply = reply;
	service_actor_of(call, ac->actor, sizeof(ac->actor));
	return ac;
}

static void acts_free(struct acts_call *ac)
{
	for (size_t i = 0; i < ac->count; i++)
		append_unref(ac->appends[i]);
	mem_free((void *)ac->appends);
	grpc_call_unref(ac->call);
	mem_free(ac);
}

/* All are answered: the first that was refused, or could not be asked for, answers for the call. */
static void acts_done(struct acts_call *ac)
{
	for (size_t i = 0; i < ac->count && !ac->err.code; i++) {
		const struct append_answer *answer = append_answer(ac->appends[i]);

		if (answer->code)
			ac->err = answer->refusal->err;
	}
	if (ac->err.code)
		grpc_call_finish_err(ac->call, &ac->err);
	else
		ac->reply(ac);
	acts_free(ac);
}

static void acts_on_done(struct append *append, void *arg)
{
	struct acts_op *op = arg;
	struct acts_call *ac = op->ac;

	ac->appends[op->index] = append;
	mem_free(op);
	must(ac->under_way > 0);
	if (--ac->under_way == 0)
		acts_done(ac);
}

void service_acts_run(struct acts_call *ac)
{
	struct mailbox *mailbox = loop_mailbox(grpc_call_loop(ac->call));

	for (size_t i = 0; i < ac->count && !ac->err.code; i++) {
		struct acts_op *op = mem_xalloc(sizeof(*op));

		*op = (struct acts_op){ac, i};
		if (journal_append(ac->service->journal, &ac->appends[i], mailbox, acts_on_done, op, &ac->err))
			mem_free(op);
		else
			ac->under_way++;
	}
	if (ac->under_way == 0 && ac->err.code) {
		grpc_call_finish_err(ac->call, &ac->err);
		acts_free(ac);
	} else if (ac->under_way == 0) {
		acts_done(ac); /* nothing was asked for */
	}
}

struct journal_cursor service_acts_cursor(const struct acts_call *ac)
{
	uint64_t position = ac->count ? 0 : journal_head(ac->service->journal);

	for (size_t i = 0; i < ac->count; i++) {
		const struct append_answer *answer = append_answer(ac->appends[i]);

		if (answer->cursor_position > position)
			position = answer->cursor_position;
	}
	return journal_cursor_at(ac->service->journal, position);
}

/* One act; or why it is none. */
static void run_one(struct acts_call *ac, enum err_code code, const struct append_refusal *refusal)
{
	if (code)
		ac->err = refusal->err;
	service_acts_run(ac);
}

static enum err_code session_id_of(ProtobufCBinaryData bytes, uint8_t ret[RECORD_ID_BYTES], struct err *err)
{
	if (bytes.len != RECORD_ID_BYTES)
		return err_set(err, ERR_INVALID, "session: its id has %zu bytes, not %d", bytes.len,
			       RECORD_ID_BYTES);
	memcpy(ret, bytes.data, RECORD_ID_BYTES);
	return ERR_OK;
}

/* ---- sessions ----------------------------------------------------------------------------------- */

static void begin_reply(struct acts_call *ac)
{
	PB(BeginSessionResponse) pb = CAIRN__JOURNAL__V1__BEGIN_SESSION_RESPONSE__INIT;
	struct journal_cursor at = service_acts_cursor(ac);
	PB(Cursor) cursor;

	service_cursor_to(&at, &cursor);
	pb.cursor = &cursor;
	grpc_call_reply_pb(ac->call, &pb.base);
}

void service_begin_session(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct acts_call *ac = service_acts_new(call, s, 1, begin_reply);
	struct append_refusal refusal = {0};
	struct journal_session_begin begin = {.actor = span_str(ac->actor)};
	enum err_code code = ERR_INVALID;
	PB(BeginSessionRequest) *pb;
	struct arena a;
	struct span *services;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(begin_session_request), &a, request);
	services = pb ? arena_alloc(&a, (pb->n_services + 1) * sizeof(*services)) : NULL;
	if (!services) {
		err_set(&refusal.err, ERR_INVALID, "the request is no BeginSessionRequest");
	} else if (!service_check_journal(pb->journal, &refusal.err) &&
		   !session_id_of(pb->session, begin.id, &refusal.err)) {
		for (size_t i = 0; i < pb->n_services; i++)
			services[i] = pb_span(pb->services[i]);
		begin.services = services;
		begin.service_count = pb->n_services;
		begin.ttl_ms = pb->ttl_ms;
		begin.address = pb_span(pb->address);
		code = journal_session_begin_new(s->journal, &begin, &ac->appends[0], &refusal);
	}
	arena_release(&a);
	run_one(ac, code, &refusal);
}

static void beat_reply(struct acts_call *ac)
{
	PB(BeatSessionResponse) pb = CAIRN__JOURNAL__V1__BEAT_SESSION_RESPONSE__INIT;

	pb.beats = journal_session_beats(ac->appends[0]);
	grpc_call_reply_pb(ac->call, &pb.base);
}

void service_beat_session(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct acts_call *ac = service_acts_new(call, s, 1, beat_reply);
	struct append_refusal refusal = {0};
	uint8_t session[RECORD_ID_BYTES];
	enum err_code code = ERR_INVALID;
	PB(BeatSessionRequest) *pb;
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(beat_session_request), &a, request);
	if (!pb)
		err_set(&refusal.err, ERR_INVALID, "the request is no BeatSessionRequest");
	else if (!service_check_journal(pb->journal, &refusal.err) &&
		 !session_id_of(pb->session, session, &refusal.err))
		code = journal_session_beat_new(s->journal, session, &ac->appends[0], &refusal);
	arena_release(&a);
	run_one(ac, code, &refusal);
}

static void end_reply(struct acts_call *ac)
{
	PB(EndSessionResponse) pb = CAIRN__JOURNAL__V1__END_SESSION_RESPONSE__INIT;
	struct journal_cursor at = service_acts_cursor(ac);
	PB(Cursor) cursor;

	service_cursor_to(&at, &cursor);
	pb.cursor = &cursor;
	grpc_call_reply_pb(ac->call, &pb.base);
}

void service_end_session(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct acts_call *ac = service_acts_new(call, s, 1, end_reply);
	struct append_refusal refusal = {0};
	uint8_t session[RECORD_ID_BYTES];
	enum err_code code = ERR_INVALID;
	PB(EndSessionRequest) *pb;
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(end_session_request), &a, request);
	if (!pb)
		err_set(&refusal.err, ERR_INVALID, "the request is no EndSessionRequest");
	else if (!service_check_journal(pb->journal, &refusal.err) &&
		 !session_id_of(pb->session, session, &refusal.err))
		code = journal_session_end_new(s->journal, session, span_str(ac->actor), &ac->appends[0],
					       &refusal);
	arena_release(&a);
	run_one(ac, code, &refusal);
}

/* ---- grants ------------------------------------------------------------------------------------- */

void service_grant_to(const struct journal_grant *g, PB(Grant) *ret)
{
	cairn__journal__v1__grant__init(ret);
	ret->slot = g->slot;
	ret->epoch = g->epoch;
	ret->released = g->released;
	if (g->epoch)
		ret->session = pb_bytes(span_of(g->session, sizeof(g->session)));
}

static PB(Grant) **grants_of(const struct acts_call *ac, PB(Grant) **ret_grants)
{
	PB(Grant) *grants = mem_xalloc((ac->count + 1) * sizeof(*grants));
	PB(Grant) **pointers = mem_xalloc((ac->count + 1) * sizeof(PB(Grant) *));

	for (size_t i = 0; i < ac->count; i++) {
		service_grant_to(journal_grant_of(ac->appends[i]), &grants[i]);
		pointers[i] = &grants[i];
	}
	*ret_grants = grants;
	return pointers;
}

static void claim_reply(struct acts_call *ac)
{
	PB(ClaimGrantsResponse) pb = CAIRN__JOURNAL__V1__CLAIM_GRANTS_RESPONSE__INIT;
	struct journal_cursor at = service_acts_cursor(ac);
	PB(Cursor) cursor;
	PB(Grant) *grants;

	service_cursor_to(&at, &cursor);
	pb.cursor = &cursor;
	pb.n_grants = ac->count;
	pb.grants = grants_of(ac, &grants);
	grpc_call_reply_pb(ac->call, &pb.base);
	mem_free((void *)pb.grants);
	mem_free(grants);
}

static void release_reply(struct acts_call *ac)
{
	PB(ReleaseGrantsResponse) pb = CAIRN__JOURNAL__V1__RELEASE_GRANTS_RESPONSE__INIT;
	struct journal_cursor at = service_acts_cursor(ac);
	PB(Cursor) cursor;
	PB(Grant) *grants;

	service_cursor_to(&at, &cursor);
	pb.cursor = &cursor;
	pb.n_grants = ac->count;
	pb.grants = grants_of(ac, &grants);
	grpc_call_reply_pb(ac->call, &pb.base);
	mem_free((void *)pb.grants);
	mem_free(grants);
}

static enum err_code check_slots(size_t count, struct err *err)
{
	if (count <= LIMIT_CLAIM_SLOTS)
		return ERR_OK;
	return err_set(err, ERR_INVALID, "%zu slots: at most %zu are claimed or released at once", count,
		       LIMIT_CLAIM_SLOTS);
}

/* Journal, service and session, which both requests have. */
static enum err_code claim_of(ProtobufCBinaryData journal, ProtobufCBinaryData service,
			      ProtobufCBinaryData session, size_t count, struct journal_claim *ret,
			      struct err *err)
{
	ret->service = pb_span(service);
	if (service_check_journal(journal, err) || check_slots(count, err))
		return err->code;
	return session_id_of(session, ret->session, err);
}

void service_claim_grants(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct append_refusal refusal = {0};
	struct journal_claim claim = {0};
	struct acts_call *ac;
	PB(ClaimGrantsRequest) *pb;
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(claim_grants_request), &a, request);
	if (!pb)
		err_set(&refusal.err, ERR_INVALID, "the request is no ClaimGrantsRequest");
	else
		claim_of(pb->journal, pb->service, pb->session, pb->n_slots, &claim, &refusal.err);
	ac = service_acts_new(call, s, refusal.err.code ? 0 : pb->n_slots, claim_reply);
	claim.actor = span_str(ac->actor);
	for (size_t i = 0; i < ac->count && !refusal.err.code; i++) {
		claim.slot = pb->slots[i];
		journal_grant_claim_new(s->journal, &claim, &ac->appends[i], &refusal);
	}
	arena_release(&a);
	run_one(ac, refusal.err.code, &refusal);
}

void service_release_grants(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct append_refusal refusal = {0};
	struct journal_claim claim = {0};
	struct acts_call *ac;
	PB(ReleaseGrantsRequest) *pb;
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(release_grants_request), &a, request);
	if (!pb)
		err_set(&refusal.err, ERR_INVALID, "the request is no ReleaseGrantsRequest");
	else
		claim_of(pb->journal, pb->service, pb->session, pb->n_grants, &claim, &refusal.err);
	ac = service_acts_new(call, s, refusal.err.code ? 0 : pb->n_grants, release_reply);
	claim.actor = span_str(ac->actor);
	for (size_t i = 0; i < ac->count && !refusal.err.code; i++) {
		claim.slot = pb->grants[i]->slot;
		journal_grant_release_new(s->journal, &claim, pb->grants[i]->epoch, &ac->appends[i], &refusal);
	}
	arena_release(&a);
	run_one(ac, refusal.err.code, &refusal);
}
