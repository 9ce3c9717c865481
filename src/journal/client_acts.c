/* Sessions and grants of the client: unary calls, and one that watches. */
#include <config.h>

#include "journal/client_acts.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/client_internal.h"

#define ACT_ARENA_BYTES (4 * LIMIT_GRPC_MESSAGE_BYTES)

static const struct client_error malformed_answer = {
	.code = GRPC_INTERNAL,
	.text = {(const uint8_t *)"the server's answer is malformed", 32},
};

static ProtobufCBinaryData pack_id(const uint8_t *id)
{
	return pb_bytes(span_of(id, RECORD_ID_BYTES));
}

static bool grants_of(PB(Grant) *const *pb, size_t n, struct arena *a, const struct client_grant **ret)
{
	struct client_grant *grants = arena_zalloc(a, (n + 1) * sizeof(*grants));

	*ret = grants;
	for (size_t i = 0; grants && i < n; i++) {
		grants[i] = (struct client_grant){
			.slot = pb[i]->slot, .epoch = pb[i]->epoch, .released = pb[i]->released};
		if (pb[i]->session.len == sizeof(grants[i].session))
			memcpy(grants[i].session, pb[i]->session.data, sizeof(grants[i].session));
		else if (pb[i]->epoch)
			return false;
	}
	return grants != NULL;
}

/* ---- unary calls -------------------------------------------------------------------------------- */

/* Turns an answer into what the caller is told. */
typedef bool read_fn(struct span reply, struct arena *a, struct client_act *ret);

struct act_call {
	struct client *client;
	read_fn *read;
	client_act_fn *done;
	void *arg;
};

static void act_on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct act_call *call = arg;
	struct client_act act = {0};
	struct client_error error;
	struct arena a;

	arena_init(&a, ACT_ARENA_BYTES);
	client_error_of_result(call->client, result, &error);
	if (result->code == GRPC_OK && !call->read(reply, &a, &act))
		error = malformed_answer;
	call->done(error.code == GRPC_OK ? &act : NULL, &error, call->arg);
	arena_release(&a);
	mem_free(call);
}

static void act_start(struct client *c, const char *path, const ProtobufCMessage *message, int64_t deadline_ms,
		      read_fn *read, client_act_fn *done, void *arg)
{
	struct act_call *call = mem_xalloc(sizeof(*call));
	size_t n = 0;
	uint8_t *bytes = client_pack(message, &n);

	must(bytes); /* names and numbers */
	must(!c->closing);
	*call = (struct act_call){c, read, done, arg};
	grpc_channel_unary(c->channel, path, span_of(bytes, n), deadline_ms > 0 ? deadline_ms : -1,
			   deadline_ms > 0, act_on_done, call);
	mem_free(bytes);
}

static bool read_begin(struct span reply, struct arena *a, struct client_act *ret)
{
	PB(BeginSessionResponse) *pb = (void *)grpc_unpack(PB_TYPE(begin_session_response), a, reply);

	if (pb)
		client_unpack_cursor(pb->cursor, &ret->cursor);
	return pb != NULL;
}

void client_session_begin(struct client *c, const struct client_session *session, int64_t deadline_ms,
			  client_act_fn *done, void *arg)
{
	PB(BeginSessionRequest) pb = CAIRN__JOURNAL__V1__BEGIN_SESSION_REQUEST__INIT;
	ProtobufCBinaryData *services = mem_xalloc((session->service_count + 1) * sizeof(*services));

	for (size_t i = 0; i < session->service_count; i++)
		services[i] = pb_bytes(session->services[i]);
	pb.journal = pb_bytes(span_str(c->journal));
	pb.session = pack_id(session->id);
	pb.n_services = session->service_count;
	pb.services = services;
	pb.ttl_ms = session->ttl_ms;
	pb.address = pb_bytes(session->address);
	act_start(c, JOURNAL_METHOD("BeginSession"), &pb.base, deadline_ms, read_begin, done, arg);
	mem_free(services);
}

static bool read_beat(struct span reply, struct arena *a, struct client_act *ret)
{
	PB(BeatSessionResponse) *pb = (void *)grpc_unpack(PB_TYPE(beat_session_response), a, reply);

	if (pb)
		ret->beats = pb->beats;
	return pb != NULL;
}

void client_session_beat(struct client *c, const uint8_t session[RECORD_ID_BYTES], int64_t deadline_ms,
			 client_act_fn *done, void *arg)
{
	PB(BeatSessionRequest) pb = CAIRN__JOURNAL__V1__BEAT_SESSION_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.session = pack_id(session);
	act_start(c, JOURNAL_METHOD("BeatSession"), &pb.base, deadline_ms, read_beat, done, arg);
}

static bool read_end(struct span reply, struct arena *a, struct client_act *ret)
{
	PB(EndSessionResponse) *pb = (void *)grpc_unpack(PB_TYPE(end_session_response), a, reply);

	if (pb)
		client_unpack_cursor(pb->cursor, &ret->cursor);
	return pb != NULL;
}

void client_session_end(struct client *c, const uint8_t session[RECORD_ID_BYTES], int64_t deadline_ms,
			client_act_fn *done, void *arg)
{
	PB(EndSessionRequest) pb = CAIRN__JOURNAL__V1__END_SESSION_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.session = pack_id(session);
	act_start(c, JOURNAL_METHOD("EndSession"), &pb.base, deadline_ms, read_end, done, arg);
}

static bool read_claim(struct span reply, struct arena *a, struct client_act *ret)
{
	PB(ClaimGrantsResponse) *pb = (void *)grpc_unpack(PB_TYPE(claim_grants_response), a, reply);

	if (!pb || !grants_of(pb->grants, pb->n_grants, a, &ret->grants))
		return false;
	ret->grant_count = pb->n_grants;
	client_unpack_cursor(pb->cursor, &ret->cursor);
	return true;
}

void client_grants_claim(struct client *c, struct span service, const uint8_t session[RECORD_ID_BYTES],
			 const uint32_t *slots, size_t count, int64_t deadline_ms, client_act_fn *done,
			 void *arg)
{
	PB(ClaimGrantsRequest) pb = CAIRN__JOURNAL__V1__CLAIM_GRANTS_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.service = pb_bytes(service);
	pb.session = pack_id(session);
	pb.n_slots = count;
	pb.slots = (uint32_t *)(uintptr_t)slots; /* packing only reads */
	act_start(c, JOURNAL_METHOD("ClaimGrants"), &pb.base, deadline_ms, read_claim, done, arg);
}

static bool read_release(struct span reply, struct arena *a, struct client_act *ret)
{
	PB(ReleaseGrantsResponse) *pb = (void *)grpc_unpack(PB_TYPE(release_grants_response), a, reply);

	if (!pb || !grants_of(pb->grants, pb->n_grants, a, &ret->grants))
		return false;
	ret->grant_count = pb->n_grants;
	client_unpack_cursor(pb->cursor, &ret->cursor);
	return true;
}

void client_grants_release(struct client *c, struct span service, const uint8_t session[RECORD_ID_BYTES],
			   const struct client_grant *grants, size_t count, int64_t deadline_ms,
			   client_act_fn *done, void *arg)
{
	PB(ReleaseGrantsRequest) pb = CAIRN__JOURNAL__V1__RELEASE_GRANTS_REQUEST__INIT;
	PB(Grant) *items = mem_xalloc((count + 1) * sizeof(*items));
	PB(Grant) **pointers = mem_xalloc((count + 1) * sizeof(PB(Grant) *));

	for (size_t i = 0; i < count; i++) {
		cairn__journal__v1__grant__init(&items[i]);
		items[i].slot = grants[i].slot;
		items[i].epoch = grants[i].epoch;
		pointers[i] = &items[i];
	}
	pb.journal = pb_bytes(span_str(c->journal));
	pb.service = pb_bytes(service);
	pb.session = pack_id(session);
	pb.n_grants = count;
	pb.grants = pointers;
	act_start(c, JOURNAL_METHOD("ReleaseGrants"), &pb.base, deadline_ms, read_release, done, arg);
	mem_free((void *)pointers);
	mem_free(items);
}

/* ---- watching ----------------------------------------------------------------------------------- */

struct client_watch {
	struct client *client;
	struct list_node node; /* in client->reads */
	struct grpc_call *call;
	struct client_watch_ops ops;
	void *arg;
	bool malformed;
};

static bool change_of(const PB(WatchGrantsResponse) *pb, struct arena *a, struct client_change *ret)
{
	struct client_live_session *sessions = arena_zalloc(a, (pb->n_sessions + 1) * sizeof(*sessions));
	uint8_t(*ended)[RECORD_ID_BYTES] = arena_zalloc(a, (pb->n_ended + 1) * sizeof(*ended));

	if (!sessions || !ended || !grants_of(pb->grants, pb->n_grants, a, &ret->grants))
		return false;
	for (size_t i = 0; i < pb->n_sessions; i++) {
		if (pb->sessions[i]->session.len != RECORD_ID_BYTES)
			return false;
		memcpy(sessions[i].id, pb->sessions[i]->session.data, RECORD_ID_BYTES);
		sessions[i].ttl_ms = pb->sessions[i]->ttl_ms;
		sessions[i].address = pb_span(pb->sessions[i]->address);
	}
	for (size_t i = 0; i < pb->n_ended; i++) {
		if (pb->ended[i].len != RECORD_ID_BYTES)
			return false;
		memcpy(ended[i], pb->ended[i].data, RECORD_ID_BYTES);
	}
	ret->complete = pb->complete;
	ret->sessions = sessions;
	ret->session_count = pb->n_sessions;
	ret->ended = (const uint8_t(*)[RECORD_ID_BYTES])ended;
	ret->ended_count = pb->n_ended;
	ret->grant_count = pb->n_grants;
	client_unpack_cursor(pb->cursor, &ret->cursor);
	return true;
}

static void watch_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct client_watch *w = user;
	struct client_change change = {0};
	PB(WatchGrantsResponse) *pb;
	struct arena a;

	if (w->malformed)
		return; /* what had arrived before the cancellation took effect */
	arena_init(&a, ACT_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(watch_grants_response), &a, message);
	w->malformed = !pb || !change_of(pb, &a, &change);
	if (w->malformed)
		grpc_call_cancel(call);
	else
		w->ops.on_change(w, &change, w->arg);
	arena_release(&a);
}

static void watch_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct client_watch *w = user;
	struct client_error error;

	(void)call;
	client_error_of_result(w->client, result, &error);
	list_remove(&w->node);
	w->ops.on_done(w, w->malformed ? &malformed_answer : &error, w->arg);
	mem_free(w);
}

static const struct grpc_call_ops watch_ops = {
	.on_message = watch_on_message,
	.on_done = watch_on_done,
};

struct client_watch *client_grants_watch(struct client *c, struct span service,
					 const struct client_watch_ops *ops, void *arg)
{
	static const struct headers none = {0};
	PB(WatchGrantsRequest) pb = CAIRN__JOURNAL__V1__WATCH_GRANTS_REQUEST__INIT;
	struct client_watch *w = mem_xalloc(sizeof(*w));
	size_t n = 0;
	uint8_t *bytes;

	must(ops->on_change);
	must(ops->on_done);
	must(!c->closing);
	pb.journal = pb_bytes(span_str(c->journal));
	pb.service = pb_bytes(service);
	bytes = client_pack(&pb.base, &n);
	must(bytes);
	w->client = c;
	w->ops = *ops;
	w->arg = arg;
	list_push_back(&c->reads, &w->node);
	w->call = grpc_channel_call(c->channel, JOURNAL_METHOD("WatchGrants"), &none, -1, false, &watch_ops, w);
	grpc_call_send(w->call, span_of(bytes, n));
	grpc_call_half_close(w->call);
	mem_free(bytes);
	return w;
}

void client_watch_cancel(struct client_watch *w)
{
	grpc_call_cancel(w->call);
}
