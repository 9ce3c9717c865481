/* WatchGrants: who serves a service and who holds its slots, and every change.
 *
 *	request ──▶ a look, decided by the sequencer ──▶ all there is ──▶ two live reads from there on:
 *	"$sessions" and "$grants-SERVICE" ──▶ what their records say, a response a page
 *
 * No page is asked for while the client does not take what was sent. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/acts.h"

#define WATCH_CALL_MAGIC 0x3a7c4ca1
/* What the messages of one page take, unpacked. */
#define WATCH_ARENA_BYTES (16 * LIMIT_RESPONSE_BYTES)

struct watch_source {
	struct watch_call *wc;
	struct journal_read *read;
	bool asked; /* a page is under way */
	uint64_t position;
};

struct watch_call {
	uint32_t magic;
	struct journal_service *service;
	struct service_loop *loop;
	struct grpc_call *call; /* a reference */
	struct list_node node;	/* in loop->watches */
	bool got_request, over;
	size_t refs;		/* the call itself, the look under way */
	struct span name;	/* of the service; owned */
	struct map known;	/* ids of sessions that were told of and live -> itself */
	struct watch_source sessions, grants;
};

static void watch_unref(struct watch_call *wc)
{
	if (--wc->refs)
		return;
	map_release(&wc->known);
	mem_free((void *)(uintptr_t)wc->name.p);
	grpc_call_unref(wc->call);
	wc->magic = 0;
	mem_free(wc);
}

static void watch_end(struct watch_call *wc, enum grpc_code code, struct span text)
{
	if (wc->over)
		return;
	wc->over = true;
	grpc_call_finish(wc->call, code, text, NULL);
	journal_read_close(wc->sessions.read); /* after it: the text may be the read's own */
	journal_read_close(wc->grants.read);
	wc->sessions.read = wc->grants.read = NULL;
}

static void watch_fail(struct watch_call *wc, const struct err *err)
{
	watch_end(wc, grpc_code_of(err->code), span_str(err->text));
}

static void watch_next(struct watch_call *wc)
{
	struct watch_source *sources[] = {&wc->sessions, &wc->grants};

	for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
		if (wc->over || !sources[i]->read || sources[i]->asked || !grpc_call_writable(wc->call))
			continue;
		sources[i]->asked = true;
		journal_read_next(sources[i]->read);
	}
}

/* ---- what records say --------------------------------------------------------------------------- */

struct told {
	PB(WatchGrantsResponse) pb;
	size_t session_cap, ended_cap, grant_cap;
};

static void told_release(struct told *t)
{
	mem_free((void *)t->pb.sessions);
	mem_free(t->pb.ended);
	mem_free((void *)t->pb.grants);
}

static void *told_grow(void *list, size_t count, size_t *cap, size_t size)
{
	if (count < *cap)
		return list;
	*cap = *cap ? 2 * *cap : 8;
	return mem_xrealloc(list, *cap * size);
}

static void tell_session(struct told *t, PB(SessionBegun) *session)
{
	t->pb.sessions = told_grow((void *)t->pb.sessions, t->pb.n_sessions, &t->session_cap,
				   sizeof(PB(SessionBegun) *));
	t->pb.sessions[t->pb.n_sessions++] = session;
}

static void tell_ended(struct told *t, ProtobufCBinaryData id)
{
	t->pb.ended = told_grow(t->pb.ended, t->pb.n_ended, &t->ended_cap, sizeof(*t->pb.ended));
	t->pb.ended[t->pb.n_ended++] = id;
}

static void tell_grant(struct told *t, PB(Grant) *grant)
{
	t->pb.grants = told_grow((void *)t->pb.grants, t->pb.n_grants, &t->grant_cap, sizeof(PB(Grant) *));
	t->pb.grants[t->pb.n_grants++] = grant;
}

static bool serves(const PB(SessionBegun) *session, struct span service)
{
	for (size_t i = 0; i < session->n_services; i++)
		if (span_eq(pb_span(session->services[i]), service))
			return true;
	return false;
}

static void tell_record(struct watch_call *wc, const struct record_view *v, struct arena *a, struct told *t)
{
	if (v->content != RECORD_BODY)
		return;
	if (v->kind == RECORD_SESSION_BEGUN) {
		PB(SessionBegun) *pb = (void *)grpc_unpack(PB_TYPE(session_begun), a, v->data);

		if (!pb || !serves(pb, wc->name))
			return;
		map_put(&wc->known, pb_span(pb->session), wc);
		tell_session(t, pb);
	} else if (v->kind == RECORD_SESSION_ENDED) {
		PB(SessionEnded) *pb = (void *)grpc_unpack(PB_TYPE(session_ended), a, v->data);

		if (pb && map_remove(&wc->known, pb_span(pb->session)))
			tell_ended(t, pb->session);
	} else if (v->kind == RECORD_GRANT) {
		PB(Grant) *pb = (void *)grpc_unpack(PB_TYPE(grant), a, v->data);

		if (pb) {
			pb->service = (ProtobufCBinaryData){0};
			tell_grant(t, pb);
		}
	}
}

static enum err_code tell_page(struct watch_call *wc, const struct journal_page *page, struct arena *a,
			       struct told *t, struct err *err)
{
	struct span run = buf_span(&page->body), entry;

	while (run.n > 0) {
		struct record_view v;
		enum err_code code = record_next(&run, &entry, NULL, err);

		if (!code)
			code = record_decode(entry, &v, err);
		if (code)
			return code;
		tell_record(wc, &v, a, t);
	}
	return ERR_OK;
}

static void watch_send(struct watch_call *wc, struct told *t)
{
	uint64_t position = wc->sessions.position < wc->grants.position ? wc->sessions.position
									: wc->grants.position;
	struct journal_cursor at = journal_cursor_at(wc->service->journal, position);
	PB(Cursor) cursor;

	service_cursor_to(&at, &cursor);
	t->pb.cursor = &cursor;
	grpc_call_send_pb(wc->call, &t->pb.base);
}

static void watch_on_page(struct journal_read *read, struct journal_page *page, const struct err *err,
			  void *arg)
{
	struct watch_source *source = arg;
	struct watch_call *wc = OBJ_CAST(struct watch_call, source->wc, WATCH_CALL_MAGIC);
	struct told t = {.pb = CAIRN__JOURNAL__V1__WATCH_GRANTS_RESPONSE__INIT};
	struct err why = {0};
	struct arena a;

	(void)read;
	source->asked = false;
	if (!page) {
		watch_fail(wc, err);
		return;
	}
	arena_init(&a, WATCH_ARENA_BYTES);
	source->position = page->next.position;
	if (tell_page(wc, page, &a, &t, &why))
		watch_fail(wc, &why);
	else if (t.pb.n_sessions + t.pb.n_ended + t.pb.n_grants > 0)
		watch_send(wc, &t);
	told_release(&t);
	arena_release(&a);
	journal_page_free(page);
	watch_next(wc);
}

/* ---- all there is, first ------------------------------------------------------------------------ */

static void watch_tell_all(struct watch_call *wc, const struct journal_grants *all)
{
	struct told t = {.pb = CAIRN__JOURNAL__V1__WATCH_GRANTS_RESPONSE__INIT};
	PB(SessionBegun) *sessions = mem_xalloc((all->session_count + 1) * sizeof(*sessions));
	PB(Grant) *grants = mem_xalloc((all->grant_count + 1) * sizeof(*grants));

	for (size_t i = 0; i < all->session_count; i++) {
		const struct journal_session *s = &all->sessions[i];

		cairn__journal__v1__session_begun__init(&sessions[i]);
		sessions[i].session = pb_bytes(span_of(s->id, sizeof(s->id)));
		sessions[i].ttl_ms = s->ttl_ms;
		sessions[i].address = pb_bytes(s->address);
		map_put(&wc->known, span_of(s->id, sizeof(s->id)), wc);
		tell_session(&t, &sessions[i]);
	}
	for (size_t i = 0; i < all->grant_count; i++) {
		service_grant_to(&all->grants[i], &grants[i]);
		tell_grant(&t, &grants[i]);
	}
	t.pb.complete = true;
	watch_send(wc, &t);
	told_release(&t);
	mem_free(sessions);
	mem_free(grants);
}

static enum err_code watch_source_open(struct watch_call *wc, struct watch_source *source, struct span stream,
				       uint32_t kinds, uint64_t position, struct err *err)
{
	struct journal_query query = {.source = STORAGE_STREAM,
				      .name = stream,
				      .live = true,
				      .from = FROM_POSITION,
				      .from_value = position,
				      .kinds = kinds};

	source->wc = wc;
	source->position = position;
	return journal_read_open(wc->service->journal, &query, loop_mailbox(wc->loop->loop), watch_on_page,
				 source, &source->read, err);
}

static enum err_code watch_open_sources(struct watch_call *wc, uint64_t position, struct err *err)
{
	char stream[sizeof(GRANTS_STREAM_PREFIX) + LIMIT_SERVICE_NAME_BYTES];
	size_t n = sizeof(GRANTS_STREAM_PREFIX) - 1;

	must(n + wc->name.n <= sizeof(stream));
	memcpy(stream, GRANTS_STREAM_PREFIX, n);
	memcpy(stream + n, wc->name.p, wc->name.n);
	if (watch_source_open(wc, &wc->sessions, SPAN(SESSIONS_STREAM_NAME),
			      UINT32_C(1) << RECORD_SESSION_BEGUN | UINT32_C(1) << RECORD_SESSION_ENDED,
			      position, err))
		return err->code;
	return watch_source_open(wc, &wc->grants, span_of(stream, n + wc->name.n), UINT32_C(1) << RECORD_GRANT,
				 position, err);
}

static void watch_on_look(struct append *append, void *arg)
{
	struct watch_call *wc = OBJ_CAST(struct watch_call, arg, WATCH_CALL_MAGIC);
	const struct append_answer *answer = append_answer(append);
	struct err err = {0};

	if (!wc->over && answer->code) {
		watch_fail(wc, &answer->refusal->err);
	} else if (!wc->over && watch_open_sources(wc, answer->cursor_position, &err)) {
		watch_fail(wc, &err);
	} else if (!wc->over) {
		watch_tell_all(wc, journal_grants_of(append));
		watch_next(wc);
	}
	append_unref(append);
	watch_unref(wc);
}

/* ---- the call ----------------------------------------------------------------------------------- */

static enum err_code watch_start(struct watch_call *wc, struct span message, struct err *err)
{
	struct append_refusal refusal = {0};
	struct append *look = NULL;
	PB(WatchGrantsRequest) *pb;
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(watch_grants_request), &a, message);
	if (!pb)
		err_set(&refusal.err, ERR_INVALID, "the request is no WatchGrantsRequest");
	else if (!service_check_journal(pb->journal, &refusal.err) &&
		 !journal_grants_look_new(wc->service->journal, pb_span(pb->service), &look, &refusal))
		wc->name = span_of(mem_xdup(pb->service.data, pb->service.len), pb->service.len);
	arena_release(&a);
	*err = refusal.err;
	if (!err->code && journal_append(wc->service->journal, &look, loop_mailbox(wc->loop->loop),
					 watch_on_look, wc, err))
		append_unref(look);
	if (!err->code)
		wc->refs++;
	return err->code;
}

static void watch_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct watch_call *wc = OBJ_CAST(struct watch_call, user, WATCH_CALL_MAGIC);
	struct err err = {0};

	(void)call;
	if (wc->over)
		return;
	if (wc->got_request) {
		watch_end(wc, GRPC_INVALID_ARGUMENT, SPAN("this operation takes one request"));
		return;
	}
	wc->got_request = true;
	if (watch_start(wc, message, &err))
		watch_fail(wc, &err);
}

static void watch_on_half_close(struct grpc_call *call, void *user)
{
	struct watch_call *wc = OBJ_CAST(struct watch_call, user, WATCH_CALL_MAGIC);

	(void)call;
	if (!wc->got_request)
		watch_end(wc, GRPC_INVALID_ARGUMENT, SPAN("a call without a request"));
}

static void watch_on_writable(struct grpc_call *call, void *user)
{
	(void)call;
	watch_next(OBJ_CAST(struct watch_call, user, WATCH_CALL_MAGIC));
}

static void watch_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct watch_call *wc = OBJ_CAST(struct watch_call, user, WATCH_CALL_MAGIC);

	(void)call;
	(void)result;
	wc->over = true;
	list_remove(&wc->node);
	journal_read_close(wc->sessions.read);
	journal_read_close(wc->grants.read);
	wc->sessions.read = wc->grants.read = NULL;
	watch_unref(wc);
}

static const struct grpc_call_ops watch_ops = {
	.on_message = watch_on_message,
	.on_half_close = watch_on_half_close,
	.on_writable = watch_on_writable,
	.on_done = watch_on_done,
};

void service_watch_grants_open(struct grpc_call *call, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct watch_call *wc = mem_xalloc(sizeof(*wc));

	wc->magic = WATCH_CALL_MAGIC;
	wc->service = s;
	wc->loop = service_loop_of(s, grpc_call_loop(call));
	wc->call = grpc_call_ref(call);
	wc->refs = 1;
	map_init(&wc->known);
	list_push_back(&wc->loop->watches, &wc->node);
	grpc_call_bind(call, &watch_ops, wc);
	if (wc->loop->draining)
		watch_end(wc, GRPC_UNAVAILABLE, SPAN("the server is shutting down"));
}

void service_watches_drain(struct service_loop *l)
{
	struct list_node *node = list_first(&l->watches);

	while (node) {
		struct watch_call *wc = CONTAINER_OF(node, struct watch_call, node);

		node = list_next(&l->watches, node);
		watch_end(wc, GRPC_UNAVAILABLE, SPAN("the server is shutting down"));
	}
}
