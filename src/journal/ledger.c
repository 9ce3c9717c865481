/* The ledger: see ledger.h. Entries stay where they are while anything may be undone, so that a change is
 * taken back by putting the old bytes back. */
#include <config.h>

#include "journal/ledger.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "journal/act.h"
#include "journal/acts.h"
#include "journal/incarnation.h"
#include "journal/wire.h"

#define LEDGER_MAGIC 0x6c656467u
/* One page of a system stream, when they are read. */
#define LOAD_PAGE_BYTES LIMIT_RESPONSE_BYTES
#define LOAD_NAMES ((size_t)256)
#define LOAD_ARENA_BYTES (16 * MIB)

/* What was at a place before it was changed. */
struct saved {
	struct saved *before;
	struct ledger_session *made; /* was made then: it goes again */
	void *at;
	size_t n;
	uint8_t bytes[];
};

struct ledger {
	uint32_t magic;
	uint64_t head;
	struct saved *saved; /* newest first */
	struct map sessions; /* id -> struct ledger_session */
	size_t session_count;
	struct ledger_session *dead; /* in the map until the batch is kept */
	struct map services;         /* name -> struct service_grants */
	struct cuts *cuts;
	const struct ledger_record *record; /* that is applied */
	ledger_spent_fn *on_spent;	    /* or NULL */
	void *on_spent_arg;
	bool may_be_missing; /* of what was read: others have compacted there */
	bool confirming;     /* beginnings of sessions only confirm those that are known */
	/* Of the batch that is decided; they are cuts when it is kept. */
	struct ledger_cut {
		uint64_t incarnation, fork;
	} *pending;
	size_t pending_count;
};

struct service_grants {
	struct ledger_grant **slots; /* NULL: never granted; one that was undone has the epoch 0 */
	uint32_t cap;
};

static void session_free(struct ledger_session *s)
{
	mem_free(s); /* one block */
}

static void session_free_entry(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	session_free(value);
}

static void service_free_entry(struct span key, void *value, void *arg)
{
	struct service_grants *service = value;
	(void)key;
	(void)arg;
	for (uint32_t i = 0; i < service->cap; i++)
		mem_free(service->slots[i]);
	mem_free((void *)service->slots);
	mem_free(service);
}

static void saved_drop(struct ledger *l)
{
	while (l->saved) {
		struct saved *before = l->saved->before;
		mem_free(l->saved);
		l->saved = before;
	}
}

struct ledger *ledger_new(struct cuts *cuts)
{
	struct ledger *l = mem_xalloc(sizeof(*l));
	l->cuts = cuts;
	l->magic = LEDGER_MAGIC;
	map_init(&l->sessions);
	map_init(&l->services);
	return l;
}

void ledger_free(struct ledger *l)
{
	if (!l)
		return;
	must(l->magic == LEDGER_MAGIC);
	saved_drop(l);
	map_each(&l->sessions, session_free_entry, NULL);
	map_release(&l->sessions);
	map_each(&l->services, service_free_entry, NULL);
	map_release(&l->services);
	mem_free(l->pending);
	l->magic = 0;
	mem_free(l);
}

uint64_t ledger_head(const struct ledger *l)
{
	return l->head;
}

/* ---- a batch --------------------------------------------------------------------------------- */

void ledger_begin(struct ledger *l)
{
	must(!l->saved);
	must(!l->dead);
}

static struct saved *save(struct ledger *l, void *at, size_t n)
{
	struct saved *s = mem_xalloc(sizeof(*s) + n);
	s->before = l->saved;
	s->at = at;
	s->n = n;
	memcpy(s->bytes, at, n);
	l->saved = s;
	return s;
}

void ledger_save(struct ledger *l, void *at, size_t n)
{
	save(l, at, n);
}

void ledger_apply(struct ledger *l, const struct ledger_record *record)
{
	const struct act_kind *kind = act_kind_find(record->kind);
	l->record = record;
	if (kind && kind->apply)
		kind->apply(l, record);
	l->record = NULL;
}

void ledger_on_spent(struct ledger *l, ledger_spent_fn *fn, void *arg)
{
	l->on_spent = fn;
	l->on_spent_arg = arg;
}

/* The record at the position says nothing any more, for the one that is applied. */
static void tell_spent(struct ledger *l, uint64_t position, uint64_t after)
{
	if (l->on_spent)
		l->on_spent(l->on_spent_arg, position, after, l->record->commit_time);
}

void ledger_keep(struct ledger *l, uint64_t head)
{
	must(head >= l->head);
	saved_drop(l);
	while (l->dead) {
		struct ledger_session *s = l->dead;
		l->dead = s->next_dead;
		void *removed = map_remove(&l->sessions, span_of(s->id, sizeof(s->id)));
		must(removed == s);
		session_free(s);
	}
	for (size_t i = 0; i < l->pending_count; i++)
		cuts_add(l->cuts, l->pending[i].incarnation, l->pending[i].fork);
	l->pending_count = 0;
	l->head = head;
}

void ledger_undo(struct ledger *l)
{
	l->pending_count = 0;
	while (l->saved) {
		struct saved *s = l->saved;
		memcpy(s->at, s->bytes, s->n);
		if (s->made) {
			map_remove(&l->sessions, span_of(s->made->id, sizeof(s->made->id)));
			session_free(s->made);
		}
		l->saved = s->before;
		mem_free(s);
	}
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Another process has taken records away, or is about to: was one there that has not been read yet? */
static void note_compaction(struct ledger *l, struct span data)
{
	struct arena arena;
	arena_init(&arena, LOAD_ARENA_BYTES);
	const PB(Compaction) *pb = act_unpack(PB_TYPE(compaction), &arena, data);
	if (!pb || pb->end > l->head)
		l->may_be_missing = true;
	arena_release(&arena);
}

static enum err_code apply_run(struct ledger *l, struct span run, struct err *err)
{
	struct span entry;
	while (run.n > 0) {
		struct record_view v;
		enum err_code code = record_next(&run, &entry, NULL, err);
		if (!code)
			code = record_decode(entry, &v, err);
		if (code)
			return code;
		if (v.content == RECORD_BODY && v.kind == RECORD_COMPACTION)
			note_compaction(l, v.data);
		else if (v.content == RECORD_BODY && v.id.n == RECORD_ID_BYTES)
			ledger_apply(l, &(struct ledger_record){.kind = v.kind,
								.position = v.position,
								.commit_time = v.commit_time,
								.stream = v.stream,
								.data = v.data,
								.id = v.id.p});
	}
	return ERR_OK;
}

/* Reads to the end of the query and applies what it finds, a page at a time. */
static enum err_code apply_query(struct ledger *l, struct storage_reader *reader, struct storage_query *q,
				 struct err *err)
{
	struct storage_page page = {0};
	struct buf buf;
	enum err_code code = ERR_OK;
	q->max_bytes = LOAD_PAGE_BYTES;
	buf_init(&buf, LOAD_PAGE_BYTES + LIMIT_RECORD_BYTES);
	while (!page.end && !code) {
		buf_clear(&buf);
		code = storage_read(reader, q, &buf, &page, err);
		if (code)
			break;
		code = apply_run(l, buf_span(&buf), err);
		q->from = page.next;
		ledger_keep(l, l->head);
	}
	buf_release(&buf);
	return code;
}

static enum err_code load_stream(struct ledger *l, struct storage_reader *reader, struct span stream,
				 uint32_t kinds, uint64_t head, struct err *err)
{
	struct storage_query q = {
		.source = STORAGE_STREAM, .name = stream, .kinds = kinds, .below_position = head};
	return apply_query(l, reader, &q, err);
}

/* All streams whose name begins so. */
static enum err_code load_streams(struct ledger *l, struct storage_reader *reader, struct span prefix,
				  uint32_t kinds, uint64_t head, struct err *err)
{
	struct storage_stream_info *infos = mem_xalloc(LOAD_NAMES * sizeof(*infos));
	struct arena arena;
	uint8_t after[LIMIT_STREAM_NAME_BYTES];
	size_t after_n = 0, count = LOAD_NAMES;
	enum err_code code = ERR_OK;
	while (!code && count == LOAD_NAMES) {
		arena_init(&arena, LOAD_ARENA_BYTES);
		code = storage_list(reader, prefix, span_of(after, after_n), LOAD_NAMES, &arena, infos, &count,
				    err);
		for (size_t i = 0; i < count && !code; i++)
			code = load_stream(l, reader, infos[i].name, kinds, head, err);
		if (!code && count > 0) {
			struct span last = infos[count - 1].name;
			must(last.n <= sizeof(after));
			memcpy(after, last.p, last.n);
			after_n = last.n;
		}
		arena_release(&arena);
	}
	mem_free(infos);
	return code;
}

static void drop_unconfirmed(struct ledger_session *s, void *arg)
{
	struct ledger *l = arg;
	if (s->confirmed)
		return;
	s->live = false;
	l->session_count--;
	s->next_dead = l->dead;
	l->dead = s;
}

/* Another process may have taken a session off the log while it was read, its beginning behind us and its end before
 * we came to it: a beginning that is still there on a second look was not taken, so its end was not either. */
static enum err_code confirm_sessions(struct ledger *l, struct storage_reader *reader, uint64_t head, struct err *err)
{
	if (l->session_count == 0 || plant("sessions-not-confirmed"))
		return ERR_OK;
	l->confirming = true;
	enum err_code code = load_stream(l, reader, SPAN(SESSIONS_STREAM_NAME), 1u << RECORD_SESSION_BEGUN, head, err);
	l->confirming = false;
	if (!code)
		ledger_each_session(l, drop_unconfirmed, l);
	return code;
}

/* All kinds that are kept in the same streams as the i-th, if it is the first of them; else 0. */
static uint32_t kinds_of_streams(const struct act_kind *kinds, size_t count, size_t i)
{
	uint32_t mask = 0;
	for (size_t k = 0; k < count; k++) {
		if (!kinds[k].apply || !span_eq(span_str(kinds[k].streams), span_str(kinds[i].streams)))
			continue;
		if (k < i)
			return 0;
		mask |= UINT32_C(1) << kinds[k].kind;
	}
	return mask;
}

enum err_code ledger_load(struct ledger *l, struct storage_reader *reader, uint64_t head, struct err *err)
{
	size_t count;
	const struct act_kind *kinds = act_kinds(&count);
	enum err_code code = ERR_OK;
	must(l->head == 0);
	for (size_t i = 0; i < count && !code; i++) {
		struct span streams = kinds[i].apply ? span_str(kinds[i].streams) : SPAN("");
		uint32_t mask = streams.n ? kinds_of_streams(kinds, count, i) : 0;
		if (!mask)
			continue;
		if (streams.p[streams.n - 1] == '-')
			code = load_streams(l, reader, streams, mask, head, err);
		else
			code = load_stream(l, reader, streams, mask, head, err);
	}
	if (!code && storage_is_shared(reader->storage))
		code = confirm_sessions(l, reader, head, err);
	if (code)
		return err_wrap(err, "the journal's own streams could not be read");
	ledger_keep(l, head);
	return ERR_OK;
}

/* Takes the place of what is known. */
static enum err_code load_anew(struct ledger *l, struct storage_reader *reader, uint64_t head, struct err *err)
{
	struct ledger *fresh = ledger_new(l->cuts);
	enum err_code code = ledger_load(fresh, reader, head, err);
	if (!code) {
		struct ledger old = *l;
		*l = *fresh;
		*fresh = old;
	}
	ledger_free(fresh);
	return code;
}

enum err_code ledger_catch_up(struct ledger *l, struct storage_reader *reader, uint64_t head, struct err *err)
{
	size_t count;
	const struct act_kind *kinds = act_kinds(&count);
	struct storage_query q = {
		.source = STORAGE_ALL, .include_system = true, .from = l->head, .below_position = head};
	must(!l->saved);
	must(head >= l->head);
	if (head == l->head)
		return ERR_OK;
	for (size_t i = 0; i < count; i++)
		if (kinds[i].apply)
			q.kinds |= UINT32_C(1) << kinds[i].kind;
	q.kinds |= UINT32_C(1) << RECORD_COMPACTION;
	l->may_be_missing = false;
	enum err_code code = apply_query(l, reader, &q, err);
	if (!code && l->may_be_missing && !plant("foreign-compaction-overlooked"))
		code = load_anew(l, reader, head, err);
	if (code)
		return err_wrap(err, "what another writer has appended could not be read");
	ledger_keep(l, head);
	return ERR_OK;
}

/* ---- incarnations ---------------------------------------------------------------------------- */

uint64_t ledger_incarnation(const struct ledger *l)
{
	return l->pending_count ? l->pending[l->pending_count - 1].incarnation : cuts_incarnation(l->cuts);
}

void ledger_cut(struct ledger *l, uint64_t incarnation, uint64_t fork)
{
	l->pending = mem_xrealloc(l->pending, (l->pending_count + 1) * sizeof(*l->pending));
	l->pending[l->pending_count++] = (struct ledger_cut){incarnation, fork};
}

/* ---- sessions -------------------------------------------------------------------------------- */

static struct ledger_session *session_find(const struct ledger *l, const uint8_t *id)
{
	return map_get(&l->sessions, span_of(id, RECORD_ID_BYTES));
}

const struct ledger_session *ledger_session(const struct ledger *l, const uint8_t id[RECORD_ID_BYTES])
{
	const struct ledger_session *s = session_find(l, id);
	return s && s->live ? s : NULL;
}

size_t ledger_session_count(const struct ledger *l)
{
	return l->session_count;
}

struct each {
	void (*fn)(struct ledger_session *s, void *arg);
	void *arg;
};

static void each_session(struct span key, void *value, void *arg)
{
	struct ledger_session *s = value;
	const struct each *each = arg;
	(void)key;
	if (s->live)
		each->fn(s, each->arg);
}

void ledger_each_session(const struct ledger *l, void (*fn)(struct ledger_session *s, void *arg), void *arg)
{
	map_each((struct map *)(uintptr_t)&l->sessions, each_session, &(struct each){fn, arg});
}

/* With all that it points to in its own block. */
static struct ledger_session *session_copy(const struct ledger_session *of)
{
	size_t n = sizeof(*of) + of->service_count * sizeof(*of->services) + of->address.n;
	for (size_t i = 0; i < of->service_count; i++)
		n += of->services[i].n;
	struct ledger_session *s = mem_xalloc(n);
	*s = *of;
	s->services = (void *)(s + 1);
	uint8_t *text = (void *)(s->services + of->service_count);
	for (size_t i = 0; i < of->service_count; i++) {
		s->services[i] = span_of(text, of->services[i].n);
		memcpy(text, of->services[i].p, of->services[i].n);
		text += of->services[i].n;
	}
	s->address = span_of(text, of->address.n);
	if (of->address.n > 0)
		memcpy(text, of->address.p, of->address.n);
	s->live = false;
	s->next_dead = NULL;
	return s;
}

void ledger_session_begin(struct ledger *l, const struct ledger_session *session)
{
	struct ledger_session *s = session_find(l, session->id);
	if (s)
		s->confirmed = true;
	if (s || l->confirming)
		return; /* an id begins one session */
	s = session_copy(session);
	map_put(&l->sessions, span_of(s->id, sizeof(s->id)), s);
	save(l, &l->session_count, sizeof(l->session_count))->made = s;
	s->confirmed = false;
	s->begun = l->record->position;
	s->live = true;
	l->session_count++;
}

/* It stays in the map until the batch is kept, for the end may be undone. */
void ledger_session_end(struct ledger *l, const uint8_t id[RECORD_ID_BYTES])
{
	struct ledger_session *s = session_find(l, id);
	if (!s || !s->live) {
		tell_spent(l, l->record->position, UINT64_MAX);
		return;
	}
	tell_spent(l, s->begun, UINT64_MAX);
	tell_spent(l, l->record->position, s->begun);
	ledger_save(l, s, sizeof(*s));
	ledger_save(l, &l->session_count, sizeof(l->session_count));
	ledger_save(l, &l->dead, sizeof(l->dead));
	s->live = false;
	l->session_count--;
	s->next_dead = l->dead;
	l->dead = s;
}

/* ---- grants ---------------------------------------------------------------------------------- */

const struct ledger_grant *ledger_grant(const struct ledger *l, struct span service, uint32_t slot)
{
	const struct service_grants *s = map_get(&l->services, service);
	const struct ledger_grant *g = s && slot < s->cap ? s->slots[slot] : NULL;
	return g && g->epoch ? g : NULL;
}

void ledger_each_grant(const struct ledger *l, struct span service,
		       void (*fn)(const struct ledger_grant *g, void *arg), void *arg)
{
	const struct service_grants *s = map_get(&l->services, service);
	for (uint32_t i = 0; s && i < s->cap; i++)
		if (s->slots[i] && s->slots[i]->epoch)
			fn(s->slots[i], arg);
}

static void slots_room(struct service_grants *s, uint32_t slot)
{
	if (slot < s->cap)
		return;
	uint32_t cap = s->cap ? s->cap : 16;
	while (cap <= slot)
		cap *= 2;
	s->slots = mem_xrealloc((void *)s->slots, cap * sizeof(struct ledger_grant *));
	memset((void *)(s->slots + s->cap), 0, (cap - s->cap) * sizeof(struct ledger_grant *));
	s->cap = cap;
}

void ledger_grant_set(struct ledger *l, struct span service, const struct ledger_grant *grant)
{
	must(grant->slot < LIMIT_SLOTS);
	must(grant->epoch > 0);
	struct service_grants *s = map_get(&l->services, service);
	if (!s) {
		s = mem_xalloc(sizeof(*s));
		map_put(&l->services, service, s);
	}
	slots_room(s, grant->slot);
	if (!s->slots[grant->slot])
		s->slots[grant->slot] = mem_xalloc(sizeof(*grant));
	struct ledger_grant *newest = s->slots[grant->slot];
	if (newest->epoch > 0)
		tell_spent(l, newest->position, UINT64_MAX);
	ledger_save(l, newest, sizeof(*newest));
	*newest = *grant;
	newest->position = l->record->position;
}
