#include <config.h>

#include "proxy/members.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"
#include "base/text.h"
#include "journal/client_acts.h"
#include "proxy/crdt_text.h"
#include "proxy/feed.h"

#define MAGIC 0x4d656d62u
/* Between attempts to reach the journal. */
#define AGAIN_MS 250
#define CALL_MS 5000
#define CONFIRM_MS 5000
#define END_MS 1000
/* Beats in a ttl. */
#define BEATS 3
#define APPLIED_PREFIX "$applied-"

/* A service with CRDTs. One that is no longer served stays, and is not told of to the journal. */
struct served {
	struct list_node node; /* members.all */
	struct members *members;
	struct entity_peers peers;
	struct entity_peer *others; /* peers.others */
	size_t cap;
	bool serves, live, complete; /* the feed of its category is live; the watch has told all */
	char *name, *full, *category, *applied_stream;
	struct client_watch *watch;
	struct loop_timer *timer; /* the watch again */
	bool again;		  /* at once */
	uint64_t to_confirm, confirmed;
	bool confirming;
};

enum session_state { SESSION_NONE, SESSION_BEGINNING, SESSION_LIVE, SESSION_ENDING };

struct members {
	uint32_t magic;
	struct members_config config;
	struct list all;
	struct feeds *applied; /* the streams of confirmations */
	enum session_state state;
	bool warned;		  /* that none can be begun */
	struct loop_timer *timer; /* the next attempt or beat; ENDING: patience */
	bool calling;		  /* a begin or beat is under way: a session is left only behind it */
	void (*ended)(void *arg);
	void *ended_arg;
};

static void advance(struct members *m);

static bool is_self(const struct members *m, const uint8_t session[RECORD_ID_BYTES])
{
	return memcmp(session, m->config.session, RECORD_ID_BYTES) == 0;
}

/* --- telling ------------------------------------------------------------------------------------------------- */

static void update(struct served *s)
{
	const struct members *m = s->members;
	s->peers.alive = m->state == SESSION_LIVE;
	s->peers.version++;
	s->peers.known = s->peers.known || (s->peers.alive && s->complete);
	m->config.on_change(m->config.arg, span_str(s->name), true);
}

static void update_all(struct members *m)
{
	for (struct list_node *n = list_first(&m->all); n; n = list_next(&m->all, n))
		update(CONTAINER_OF(n, struct served, node));
}

/* --- the session --------------------------------------------------------------------------------------------- */

static void lost(struct members *m)
{
	if (m->state == SESSION_LIVE)
		log_warn("the session with the journal has ended: another is begun");
	m->state = SESSION_NONE;
	update_all(m);
	loop_timer_set(m->timer, 0);
}

static void on_begun(const struct client_act *act, const struct client_error *error, void *arg)
{
	struct members *m = arg;
	m->calling = false;
	if (error->code == GRPC_CANCELLED)
		return;
	if (m->state != SESSION_BEGINNING) { /* it was given up meanwhile */
		advance(m);
		return;
	}
	if (!act) {
		LOG_AT(m->warned ? LOG_DEBUG : LOG_WARN, "no session with the journal: CRDTs cannot be changed",
		       LOG_STR("code", grpc_code_name(error->code)), LOG_SPAN("error", error->text));
		m->warned = true;
		loop_timer_set(m->timer, AGAIN_MS);
		return;
	}
	m->warned = false;
	m->state = SESSION_LIVE;
	loop_timer_set(m->timer, m->config.ttl_ms / BEATS);
	update_all(m);
}

static size_t services_of(const struct members *m, struct span *services)
{
	size_t count = 0;
	for (struct list_node *n = list_first(&m->all); n; n = list_next(&m->all, n)) {
		const struct served *s = CONTAINER_OF(n, struct served, node);
		if (s->serves && services)
			services[count] = span_str(s->full);
		count += s->serves;
	}
	return count;
}

/* The same id until an answer has come: it may have been begun. */
static void begin(struct members *m)
{
	struct client_session session = {.service_count = services_of(m, NULL), .ttl_ms = (uint32_t)m->config.ttl_ms};
	struct span *services = mem_xalloc((session.service_count + 1) * sizeof *services);
	(void)services_of(m, services);
	session.services = services;
	memcpy(session.id, m->config.session, sizeof session.id);
	m->calling = true;
	client_session_begin(m->config.journal, &session, CALL_MS, on_begun, m);
	mem_free(services);
}

static void on_beaten(const struct client_act *act, const struct client_error *error, void *arg)
{
	struct members *m = arg;
	m->calling = false;
	if (error->code == GRPC_CANCELLED)
		return;
	if (m->state != SESSION_LIVE)
		advance(m);
	else if (error->code == GRPC_NOT_FOUND)
		lost(m);
	else
		loop_timer_set(m->timer, act ? m->config.ttl_ms / BEATS : AGAIN_MS);
}

static void ended(struct members *m)
{
	void (*done)(void *arg) = m->ended;
	m->ended = NULL;
	loop_timer_cancel(m->timer);
	if (done)
		done(m->ended_arg);
}

static void on_ended(const struct client_act *act, const struct client_error *error, void *arg)
{
	struct members *m = arg;
	(void)act;
	if (error->code != GRPC_CANCELLED && m->state == SESSION_ENDING)
		ended(m);
}

static void ignore(const struct client_act *act, const struct client_error *error, void *arg)
{
	(void)act;
	(void)error;
	(void)arg;
}

static bool ready(const struct members *m)
{
	bool any = false;
	for (struct list_node *n = list_first(&m->all); n; n = list_next(&m->all, n)) {
		const struct served *s = CONTAINER_OF(n, struct served, node);
		if (s->serves && !s->live)
			return false;
		any = any || s->serves;
	}
	return any;
}

static void advance(struct members *m)
{
	if (m->calling)
		return;
	if (m->state == SESSION_NONE && ready(m)) {
		m->state = SESSION_BEGINNING;
		uuid_v7(m->config.clock, m->config.session);
	}
	if (m->state == SESSION_BEGINNING)
		begin(m);
}

static void on_timer(void *arg)
{
	struct members *m = arg;
	if (m->state == SESSION_ENDING) {
		ended(m);
	} else if (m->state != SESSION_LIVE) {
		advance(m);
	} else if (!m->calling) {
		m->calling = true;
		client_session_beat(m->config.journal, m->config.session, CALL_MS, on_beaten, m);
	}
}

void members_fenced(struct members *m, const uint8_t session[RECORD_ID_BYTES])
{
	if (m->state == SESSION_LIVE && is_self(m, session))
		lost(m);
}

void members_end(struct members *m, void (*done)(void *arg), void *arg)
{
	bool any = m->state == SESSION_LIVE || m->state == SESSION_BEGINNING;
	m->ended = done;
	m->ended_arg = arg;
	m->state = SESSION_ENDING;
	loop_timer_set(m->timer, any ? END_MS : 0);
	if (any)
		client_session_end(m->config.journal, m->config.session, END_MS, on_ended, m);
}

/* --- who else there is --------------------------------------------------------------------------------------- */

static struct entity_peer *find_peer(struct served *s, const uint8_t session[RECORD_ID_BYTES])
{
	for (size_t i = 0; i < s->peers.count; i++)
		if (memcmp(s->others[i].session, session, RECORD_ID_BYTES) == 0)
			return &s->others[i];
	return NULL;
}

static void peer_add(struct served *s, const uint8_t session[RECORD_ID_BYTES])
{
	if (is_self(s->members, session) || find_peer(s, session))
		return;
	if (s->peers.count == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 8;
		s->others = mem_xrealloc(s->others, s->cap * sizeof *s->others);
		s->peers.others = s->others;
	}
	struct entity_peer *p = &s->others[s->peers.count++];
	*p = (struct entity_peer){.applied = 0};
	memcpy(p->session, session, sizeof p->session);
}

static void peer_drop(struct served *s, const uint8_t session[RECORD_ID_BYTES])
{
	struct entity_peer *p = find_peer(s, session);
	if (p && !plant("session-end-ignored"))
		*p = s->others[--s->peers.count];
}

static bool is_told(const struct client_change *change, const uint8_t session[RECORD_ID_BYTES])
{
	for (size_t i = 0; i < change->session_count; i++)
		if (memcmp(change->sessions[i].id, session, RECORD_ID_BYTES) == 0)
			return true;
	return false;
}

static void on_change(struct client_watch *w, const struct client_change *change, void *arg)
{
	struct served *s = arg;
	for (size_t i = s->peers.count; change->complete && i-- > 0;)
		if (!is_told(change, s->others[i].session))
			peer_drop(s, s->others[i].session);
	for (size_t i = 0; i < change->session_count; i++)
		peer_add(s, change->sessions[i].id);
	for (size_t i = 0; i < change->ended_count; i++)
		peer_drop(s, change->ended[i]);
	s->complete = s->complete || change->complete;
	if (change->complete)
		s->peers.position = change->cursor.position;
	log_info("proxies that serve these CRDTs, this one among them", LOG_STR("service", s->full),
		 LOG_U64("count", s->peers.count + 1));
	update(s);
	if (change->ended_count && !s->again) { /* up to where all is told is said by the first answer alone */
		s->again = true;
		client_watch_cancel(w);
	}
}

static void on_watched(struct client_watch *w, const struct client_error *error, void *arg)
{
	struct served *s = arg;
	(void)w;
	s->watch = NULL;
	if (error->code != GRPC_CANCELLED || s->again)
		loop_timer_set(s->timer, s->again ? 0 : AGAIN_MS);
	s->again = false;
}

static const struct client_watch_ops watch_ops = {.on_change = on_change, .on_done = on_watched};

static void watch(void *arg)
{
	struct served *s = arg;
	if (!s->watch)
		s->watch = client_grants_watch(s->members->config.journal, span_str(s->full), &watch_ops, s);
}

/* --- confirmations ------------------------------------------------------------------------------------------- */

static void confirm(struct served *s);

static void on_confirmed(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct served *s = arg;
	(void)answer;
	s->confirming = false;
	if (error->code == GRPC_CANCELLED)
		return;
	if (error->has_fence_found && error->fence_found.by_session)
		members_fenced(s->members, error->fence_found.session);
	if (error->code == GRPC_OK)
		confirm(s); /* what came meanwhile */
}

/* One at a time: what comes meanwhile is confirmed by the next. */
static void confirm(struct served *s)
{
	const struct members *m = s->members;
	struct crdt_text text = {.count = 0};
	if (m->state != SESSION_LIVE || s->confirming || s->to_confirm <= s->confirmed)
		return;
	struct client_record record = {.type = SPAN(CRDT_APPLIED_TYPE)};
	struct client_stream stream = {.stream = span_str(s->applied_stream), .events = &record, .event_count = 1};
	struct client_fence fence = {.by_session = true};
	uuid_v7(m->config.clock, record.id);
	crdt_text_set(&text, m->config.session, CRDT_APPLIED_KEY, s->to_confirm);
	record.metadata = text.metadata;
	record.metadata_count = text.count;
	memcpy(fence.session, m->config.session, sizeof fence.session);
	s->confirming = true;
	s->confirmed = s->to_confirm;
	struct client_append append = {
		.streams = &stream, .stream_count = 1, .fences = &fence, .fence_count = 1};
	client_append(m->config.journal, &append, CONFIRM_MS, on_confirmed, s);
}

static struct served *of_category(const struct members *m, struct span category)
{
	for (struct list_node *n = list_first(&m->all); n; n = list_next(&m->all, n)) {
		struct served *s = CONTAINER_OF(n, struct served, node);
		if (s->serves && span_eq_str(category, s->category))
			return s;
	}
	return NULL;
}

void members_heard(struct members *m, const struct record_view *record)
{
	struct crdt_said said;
	if (record->kind != RECORD_EVENT || !crdt_text_read(record, &said) || !said.confirm ||
	    is_self(m, said.session))
		return;
	struct served *s = of_category(m, record_category(record->stream));
	if (!s)
		return;
	s->to_confirm = record->position + 1;
	confirm(s);
}

void members_live(struct members *m, struct span category, uint64_t position)
{
	struct served *s = of_category(m, category);
	if (!s)
		return;
	s->live = true;
	if (position > s->to_confirm)
		s->to_confirm = position;
	if (m->state == SESSION_NONE)
		s->confirmed = s->to_confirm; /* nobody asks for what was before the session */
	confirm(s);
	advance(m);
}

/* Somebody else's, or this process's own. */
static void on_applied(void *follower, const struct record_view *record)
{
	struct served *s = follower;
	struct crdt_said said;
	if (!record || record->kind != RECORD_EVENT || !crdt_text_read(record, &said))
		return;
	struct entity_peer *p = find_peer(s, said.session);
	if (!p || said.applied <= p->applied)
		return;
	p->applied = said.applied;
	s->members->config.on_change(s->members->config.arg, span_str(s->name), false);
}

/* --- services ------------------------------------------------------------------------------------------------ */

static struct served *find(const struct members *m, struct span name)
{
	for (struct list_node *n = list_first(&m->all); n; n = list_next(&m->all, n))
		if (span_eq_str(name, CONTAINER_OF(n, struct served, node)->name))
			return CONTAINER_OF(n, struct served, node);
	return NULL;
}

static struct served *served_new(struct members *m, struct span name)
{
	struct served *s = mem_xalloc(sizeof *s);
	s->members = m;
	s->name = mem_xdup(name.p, name.n);
	s->full = mem_xprintf("%.*s%s", SPAN_ARG(m->config.name_space), s->name);
	s->applied_stream = mem_xprintf(APPLIED_PREFIX "%s", s->full);
	s->timer = loop_timer_new(m->config.loop, watch, s);
	list_push_back(&m->all, &s->node);
	feeds_follow(m->applied, span_str(s->applied_stream), s);
	watch(s);
	return s;
}

/* Its category is new, too, when it was served under another. */
static void serve(struct members *m, struct served *s, struct span persistence_id)
{
	char *category = mem_xprintf("%.*s%.*s", SPAN_ARG(m->config.name_space), SPAN_ARG(persistence_id));
	s->serves = true;
	if (s->category && strcmp(s->category, category) == 0) {
		mem_free(category);
		return;
	}
	mem_free(s->category);
	s->category = category;
	s->live = false;
	m->config.follow(m->config.arg, span_str(category));
}

void members_serve(struct members *m, const struct spec *spec)
{
	bool other = false;
	for (struct list_node *n = list_first(&m->all); n; n = list_next(&m->all, n)) {
		struct served *s = CONTAINER_OF(n, struct served, node);
		const struct spec_service *service = spec_find_service(spec, span_str(s->name));
		bool serves = service && service->kind == &entity_crdt;
		other = other || s->serves != serves;
		s->serves = serves;
	}
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct spec_service *service = &spec->services[i];
		struct served *s = find(m, service->name);
		if (service->kind != &entity_crdt)
			continue;
		other = other || !s;
		serve(m, s ? s : served_new(m, service->name), service->persistence_id);
	}
	if (other && (m->state == SESSION_LIVE || m->state == SESSION_BEGINNING)) { /* it does not name them */
		client_session_end(m->config.journal, m->config.session, CALL_MS, ignore, NULL);
		m->state = SESSION_NONE;
		update_all(m);
		loop_timer_set(m->timer, 0);
	}
	advance(m);
}

const struct entity_peers *members_peers(const struct members *m, struct span service)
{
	const struct served *s = find(m, service);
	return s ? &s->peers : NULL;
}

struct members *members_new(const struct members_config *config)
{
	struct members *m = mem_xalloc(sizeof *m);
	m->magic = MAGIC;
	m->config = *config;
	list_init(&m->all);
	m->applied = feeds_new(
		&(struct feeds_config){.loop = config->loop, .journal = config->journal, .on_record = on_applied});
	m->timer = loop_timer_new(config->loop, on_timer, m);
	uuid_v7(config->clock, config->session);
	return m;
}

void members_free(struct members *m)
{
	struct list_node *n;
	if (!m)
		return;
	must(m->magic == MAGIC);
	while ((n = list_pop_front(&m->all))) {
		struct served *s = CONTAINER_OF(n, struct served, node);
		must(!s->watch);
		feeds_leave(m->applied, span_str(s->applied_stream), s);
		loop_timer_free(s->timer);
		mem_free(s->others);
		mem_free(s->name);
		mem_free(s->full);
		mem_free(s->category);
		mem_free(s->applied_stream);
		mem_free(s);
	}
	feeds_free(m->applied);
	loop_timer_free(m->timer);
	m->magic = 0;
	mem_free(m);
}
