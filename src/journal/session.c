/* Sessions begun and ended: see session.h. */
#include <config.h>

#include "journal/session.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "base/text.h"
#include "journal/wire.h"

/* What is read back was written by us; the messages in it are many times as large in memory. */
#define SESSION_ARENA_BYTES (1 * MIB)

/* ---- beginning ------------------------------------------------------------------------------- */

struct session_begin {
	struct act act;
	uint8_t id[RECORD_ID_BYTES];
	uint32_t ttl_ms;
	struct buf data;
};

static enum act_verdict begin_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	struct session_begin *b = CONTAINER_OF(act, struct session_begin, act);
	/* One that has begun and ended is found by its id, as a repeat. */
	must(!ledger_session(facts->ledger, b->id));
	(void)a;
	act->changes_session = true;
	act->change = (struct storage_session_change){.ttl_ms = b->ttl_ms};
	memcpy(act->change.id, b->id, sizeof(b->id));
	return ACT_WRITES;
}

static void begin_encode(struct act *act, size_t i, struct buf *out)
{
	const struct session_begin *b = CONTAINER_OF(act, struct session_begin, act);
	must(i == 0);
	enum err_code code = buf_append_span(out, buf_span(&b->data));
	must(code == ERR_OK);
}

static void begin_free(struct act *act)
{
	struct session_begin *b = CONTAINER_OF(act, struct session_begin, act);
	buf_release(&b->data);
	mem_free(b);
}

static const struct act_ops begin_ops = {begin_decide, begin_encode, begin_free};

/* A service's name becomes part of a stream's, "$grants-SERVICE". */
enum err_code session_check_service(struct span service, struct err *err)
{
	if (service.n == 0 || service.n > LIMIT_SERVICE_NAME_BYTES)
		return err_set(err, ERR_INVALID, "service name has %zu bytes: it has 1 to %zu", service.n,
			       LIMIT_SERVICE_NAME_BYTES);
	if (!utf8_valid_no_controls(service))
		return err_set(err, ERR_INVALID,
			       "service name is not valid UTF-8 without control characters");
	return ERR_OK;
}

static enum err_code begin_check(const struct journal_session_begin *request, struct err *err)
{
	static const uint8_t zeros[RECORD_ID_BYTES];
	if (memcmp(request->id, zeros, sizeof(zeros)) == 0)
		return err_set(err, ERR_INVALID, "session: its id is all zeros: make one (a UUID)");
	if (request->ttl_ms < LIMIT_SESSION_TTL_MIN_MS || request->ttl_ms > LIMIT_SESSION_TTL_MAX_MS)
		return err_set(err, ERR_INVALID, "session: ttl is %u ms: it is %d to %d", request->ttl_ms,
			       LIMIT_SESSION_TTL_MIN_MS, LIMIT_SESSION_TTL_MAX_MS);
	if (request->service_count > LIMIT_SESSION_SERVICES)
		return err_set(err, ERR_INVALID, "session: it serves %zu services: at most %zu are allowed",
			       request->service_count, LIMIT_SESSION_SERVICES);
	for (size_t i = 0; i < request->service_count; i++)
		if (session_check_service(request->services[i], err))
			return err_wrap(err, "session");
	if (request->address.n > LIMIT_SESSION_ADDRESS_BYTES || !utf8_valid_no_controls(request->address))
		return err_set(err, ERR_INVALID,
			       "session: its address is not UTF-8 of at most %zu bytes without control "
			       "characters",
			       LIMIT_SESSION_ADDRESS_BYTES);
	return ERR_OK;
}

enum err_code journal_session_begin_new(const struct journal *j, const struct journal_session_begin *request,
					struct append **ret, struct append_refusal *ret_refusal)
{
	*ret_refusal = (struct append_refusal){0};
	if (begin_check(request, &ret_refusal->err))
		return ret_refusal->err.code;
	struct session_begin *b = mem_xalloc(sizeof(*b));
	PB(SessionBegun) pb = CAIRN__JOURNAL__V1__SESSION_BEGUN__INIT;
	ProtobufCBinaryData *services = mem_xalloc((request->service_count + 1) * sizeof(*services));
	b->act.ops = &begin_ops;
	memcpy(b->id, request->id, sizeof(b->id));
	b->ttl_ms = request->ttl_ms;
	for (size_t i = 0; i < request->service_count; i++)
		services[i] = pb_bytes(request->services[i]);
	pb.session = pb_bytes(span_of(request->id, RECORD_ID_BYTES));
	pb.n_services = request->service_count;
	pb.services = services;
	pb.ttl_ms = request->ttl_ms;
	pb.address = pb_bytes(request->address);
	buf_init(&b->data, LIMIT_RECORD_BYTES);
	act_pack(&pb.base, &b->data);
	mem_free(services);
	struct act_record record = {RECORD_SESSION_BEGUN, SPAN(SESSIONS_STREAM_NAME),
				    span_of(request->id, RECORD_ID_BYTES)};
	struct act_request act = {.act = &b->act,
				  .records = &record,
				  .record_count = 1,
				  .data_max = b->data.n,
				  .actor = request->actor};
	return act_append_new(j, &act, ret, ret_refusal);
}

bool session_apply_begun(struct ledger *l, const struct ledger_record *record)
{
	struct arena arena;
	arena_init(&arena, SESSION_ARENA_BYTES);
	const PB(SessionBegun) *pb = act_unpack(PB_TYPE(session_begun), &arena, record->data);
	bool ok = pb && pb->session.len == RECORD_ID_BYTES;
	struct span *services = ok ? arena_alloc(&arena, (pb->n_services + 1) * sizeof(*services)) : NULL;
	if (services) {
		struct ledger_session s = {.ttl_ms = pb->ttl_ms,
					   .address = pb_span(pb->address),
					   .services = services,
					   .service_count = pb->n_services};
		memcpy(s.id, pb->session.data, RECORD_ID_BYTES);
		for (size_t i = 0; i < pb->n_services; i++)
			services[i] = pb_span(pb->services[i]);
		ledger_session_begin(l, &s);
	}
	arena_release(&arena);
	return services != NULL;
}

/* ---- beating --------------------------------------------------------------------------------- */

struct session_beat {
	struct act act;
	uint8_t id[RECORD_ID_BYTES];
};

void session_refuse_ended(struct append *a, const uint8_t session[RECORD_ID_BYTES])
{
	char id[UUID_TEXT_BYTES];
	uuid_format(session, id);
	err_set(&append_refuse(a, ERR_NOT_FOUND)->err, ERR_NOT_FOUND,
		"session %s has ended, or never began: what was granted to it may be another's; begin a new one",
		id);
}

static enum act_verdict beat_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	const struct session_beat *b = CONTAINER_OF(act, struct session_beat, act);
	if (ledger_session(facts->ledger, b->id))
		return ACT_HOLDS;
	session_refuse_ended(a, b->id);
	return ACT_REFUSED;
}

static void beat_free(struct act *act)
{
	mem_free(CONTAINER_OF(act, struct session_beat, act));
}

static const struct act_ops beat_ops = {beat_decide, NULL, beat_free};

enum err_code journal_session_beat_new(const struct journal *j, const uint8_t session[RECORD_ID_BYTES],
				       struct append **ret, struct append_refusal *ret_refusal)
{
	struct session_beat *b = mem_xalloc(sizeof(*b));
	b->act.ops = &beat_ops;
	memcpy(b->id, session, sizeof(b->id));
	b->act.beats = b->id;
	return act_append_new(j, &(struct act_request){.act = &b->act}, ret, ret_refusal);
}

uint64_t journal_session_beats(const struct append *a)
{
	struct act *act = append_act(a);
	must(act);
	must(act->ops == &beat_ops);
	must(append_answer(a)->code == ERR_OK);
	return act->row.beats;
}

/* ---- ending ---------------------------------------------------------------------------------- */

struct session_end {
	struct act act;
	uint8_t id[RECORD_ID_BYTES];
	bool expires;
	uint64_t beats; /* expires: only if there are still so many */
};

static enum act_verdict end_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	struct session_end *e = CONTAINER_OF(act, struct session_end, act);
	(void)a;
	if (!ledger_session(facts->ledger, e->id))
		return ACT_HOLDS;
	if (e->expires && act->row.beats != e->beats)
		return ACT_HOLDS;
	act->changes_session = true;
	act->change = (struct storage_session_change){.ends = true, .beats = act->row.beats};
	memcpy(act->change.id, e->id, sizeof(e->id));
	return ACT_WRITES;
}

static void end_encode(struct act *act, size_t i, struct buf *out)
{
	const struct session_end *e = CONTAINER_OF(act, struct session_end, act);
	PB(SessionEnded) pb = CAIRN__JOURNAL__V1__SESSION_ENDED__INIT;
	must(i == 0);
	pb.session = pb_bytes(span_of(e->id, RECORD_ID_BYTES));
	pb.expired = e->expires;
	act_pack(&pb.base, out);
}

static void end_free(struct act *act)
{
	mem_free(CONTAINER_OF(act, struct session_end, act));
}

static const struct act_ops end_ops = {end_decide, end_encode, end_free};

static struct session_end *end_new(const uint8_t *session)
{
	struct session_end *e = mem_xalloc(sizeof(*e));
	e->act.ops = &end_ops;
	memcpy(e->id, session, sizeof(e->id));
	e->act.session = e->id;
	return e;
}

static const struct act_record end_record = {.kind = RECORD_SESSION_ENDED,
					     .stream = {(const uint8_t *)SESSIONS_STREAM_NAME,
							sizeof(SESSIONS_STREAM_NAME) - 1}};
#define END_DATA_BYTES 64

enum err_code journal_session_end_new(const struct journal *j, const uint8_t session[RECORD_ID_BYTES],
				      struct span actor, struct append **ret,
				      struct append_refusal *ret_refusal)
{
	struct act_request act = {.act = &end_new(session)->act,
				  .records = &end_record,
				  .record_count = 1,
				  .data_max = END_DATA_BYTES,
				  .actor = actor};
	return act_append_new(j, &act, ret, ret_refusal);
}

enum err_code session_expire_build(const uint8_t session[RECORD_ID_BYTES], uint64_t beats,
				   const uint64_t seed[2], const struct clock *clock, struct append **ret,
				   struct append_refusal *ret_refusal)
{
	struct session_end *e = end_new(session);
	e->expires = true;
	e->beats = beats;
	struct act_request act = {
		.act = &e->act, .records = &end_record, .record_count = 1, .data_max = END_DATA_BYTES};
	return act_append_build(&act, seed, clock, ret, ret_refusal);
}

bool session_apply_ended(struct ledger *l, const struct ledger_record *record)
{
	struct arena arena;
	arena_init(&arena, SESSION_ARENA_BYTES);
	const PB(SessionEnded) *pb = act_unpack(PB_TYPE(session_ended), &arena, record->data);
	bool ok = pb && pb->session.len == RECORD_ID_BYTES;
	if (ok)
		ledger_session_end(l, pb->session.data);
	arena_release(&arena);
	return ok;
}
