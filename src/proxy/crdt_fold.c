#include <config.h>

#include "proxy/crdt_fold.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "cairn/crdt/v1/fold.pb-c.h"
#include "proxy/crdt_node.h"
#include "proxy/wire.h"

static const uint8_t nobody[CRDT_SESSION_BYTES];

struct crdt_fold *crdt_fold_new(void)
{
	struct crdt_fold *f = mem_xalloc(sizeof *f);
	f->magic = CRDT_FOLD_MAGIC;
	return f;
}

void crdt_fold_free(struct crdt_fold *f)
{
	if (!f)
		return;
	must(f->magic == CRDT_FOLD_MAGIC);
	crdt_node_free(f->value);
	mem_free(f->sessions);
	mem_free(f->before);
	f->magic = 0;
	mem_free(f);
}

size_t crdt_fold_bytes(const struct crdt_fold *f)
{
	return f ? sizeof *f + f->session_count * (CRDT_SESSION_BYTES + sizeof *f->before) + crdt_node_bytes(f->value)
		 : 0;
}

uint64_t crdt_fold_sequence(const struct crdt_fold *f)
{
	return f->sequence;
}

bool crdt_fold_deleted(const struct crdt_fold *f)
{
	return f->deleted;
}

enum crdt_type crdt_fold_type(const struct crdt_fold *f)
{
	return f->value ? f->value->type : CRDT_NONE;
}

/* --- sessions ------------------------------------------------------------------------------------------- */

uint32_t crdt_fold_session(const struct crdt_fold *f, const uint8_t session[CRDT_SESSION_BYTES])
{
	for (size_t i = 0; i < f->session_count; i++)
		if (memcmp(f->sessions[i], session, CRDT_SESSION_BYTES) == 0)
			return (uint32_t)i + 1;
	return 0;
}

static bool sessions_grow(struct crdt_fold *f, size_t count)
{
	uint8_t(*sessions)[CRDT_SESSION_BYTES] = mem_try_realloc(f->sessions, count * CRDT_SESSION_BYTES);
	f->sessions = sessions ? sessions : f->sessions;
	uint64_t *before = sessions ? mem_try_realloc(f->before, count * sizeof *before) : NULL;
	f->before = before ? before : f->before;
	return before != NULL;
}

/* 0: out of memory. */
static uint32_t session_put(struct crdt_fold *f, const uint8_t session[CRDT_SESSION_BYTES], uint64_t position)
{
	uint32_t number = crdt_fold_session(f, session);
	if (number)
		return number;
	number = crdt_fold_session(f, nobody);
	if (!number && !sessions_grow(f, f->session_count + 1))
		return 0;
	if (!number)
		number = (uint32_t)++f->session_count;
	memcpy(f->sessions[number - 1], session, CRDT_SESSION_BYTES);
	f->before[number - 1] = position;
	return number;
}

void crdt_fold_began_before(struct crdt_fold *f, uint64_t position)
{
	for (size_t i = 0; i < f->session_count; i++)
		f->before[i] = position;
}

static bool is_live(const struct crdt_nodes *nodes, const uint8_t session[CRDT_SESSION_BYTES])
{
	for (size_t i = 0; i < nodes->live_count; i++)
		if (memcmp(nodes->live[i], session, CRDT_SESSION_BYTES) == 0)
			return true;
	return false;
}

size_t crdt_fold_ended(const struct crdt_fold *f, const struct crdt_nodes *nodes, uint64_t position,
		       uint8_t (**ret)[CRDT_SESSION_BYTES])
{
	size_t count = 0;
	*ret = NULL;
	for (size_t i = 0; i < f->session_count; i++) {
		const uint8_t *session = f->sessions[i];
		if (memcmp(session, nobody, CRDT_SESSION_BYTES) == 0 || f->before[i] >= position ||
		    is_live(nodes, session))
			continue;
		if (!*ret)
			*ret = mem_xalloc(f->session_count * CRDT_SESSION_BYTES);
		memcpy((*ret)[count++], session, CRDT_SESSION_BYTES);
	}
	return count;
}

bool crdt_fold_has_votes(const struct crdt_fold *f)
{
	return f->value && crdt_node_has_votes(f->value);
}

size_t crdt_fold_session_count(const struct crdt_fold *f)
{
	size_t count = 0;
	for (size_t i = 0; i < f->session_count; i++)
		count += memcmp(f->sessions[i], nobody, CRDT_SESSION_BYTES) != 0;
	return count;
}

void crdt_fold_end_session(struct crdt_fold *f, const uint8_t session[CRDT_SESSION_BYTES])
{
	uint32_t number = crdt_fold_session(f, session);
	if (!number)
		return;
	if (f->value)
		crdt_node_end_session(f->value, number);
	memset(f->sessions[number - 1], 0, CRDT_SESSION_BYTES);
}

/* --- records -------------------------------------------------------------------------------------------- */

enum err_code crdt_fold_apply(struct crdt_fold *f, const struct crdt_record *r, struct err *err)
{
	must(r->sequence > f->sequence);
	enum crdt_type type = crdt_delta_type(r->delta);
	f->sequence = r->sequence;
	if (!r->delta) {
		f->deleted = true;
		crdt_node_free(f->value);
		f->value = NULL;
		mem_free(f->sessions);
		mem_free(f->before);
		f->sessions = NULL;
		f->before = NULL;
		f->session_count = 0;
	}
	if (f->deleted || type == CRDT_NONE || (f->value && f->value->type != type))
		return ERR_OK;
	if (!f->value)
		f->value = crdt_node_new(type);
	struct crdt_write w = {.mode = CRDT_LOG,
			       .session = session_put(f, r->session, r->position),
			       .sequence = r->sequence,
			       .observed = r->observed};
	if (!w.session || !crdt_node_apply(f->value, r->delta, &w))
		return err_set(err, ERR_NOMEM, "out of memory for a CRDT");
	return ERR_OK;
}

void crdt_fold_skip_to(struct crdt_fold *f, uint64_t sequence)
{
	if (sequence > f->sequence)
		f->sequence = sequence;
}

/* --- snapshots: out ------------------------------------------------------------------------------------- */

typedef Cairn__Crdt__V1__Fold pb_fold;
typedef Cairn__Crdt__V1__Value pb_value;
typedef Cairn__Crdt__V1__Item pb_item;
#define VALUE(NAME) CAIRN__CRDT__V1__VALUE__VALUE_##NAME

static pb_value *save_value(struct arena *a, const struct crdt_node *n);

static bool save_numbers(struct arena *a, const struct crdt_item *i, pb_item *to)
{
	Cairn__Crdt__V1__Number *numbers = arena_zalloc(a, (i->number_count + 1) * sizeof *numbers);
	to->numbers = arena_alloc(a, (i->number_count + 1) * sizeof *to->numbers);
	if (!numbers || !to->numbers)
		return false;
	for (uint32_t k = 0; k < i->number_count; k++) {
		cairn__crdt__v1__number__init(&numbers[k]);
		numbers[k].session = i->numbers[k].session;
		numbers[k].sequence = i->numbers[k].sequence;
		to->numbers[to->n_numbers++] = &numbers[k];
	}
	return true;
}

static pb_item *save_item(struct arena *a, const struct crdt_item *i)
{
	pb_item *to = arena_alloc(a, sizeof *to);
	if (!to)
		return NULL;
	cairn__crdt__v1__item__init(to);
	to->type_url = wire_bytes(crdt_item_type_url(i));
	to->value = wire_bytes(crdt_item_value(i));
	if (i->entry && !(to->entry = save_value(a, i->entry)))
		return NULL;
	return save_numbers(a, i, to) ? to : NULL;
}

static Cairn__Crdt__V1__Items *save_items(struct arena *a, const struct crdt_items *items)
{
	Cairn__Crdt__V1__Items *to = arena_alloc(a, sizeof *to);
	if (!to)
		return NULL;
	cairn__crdt__v1__items__init(to);
	to->items = arena_alloc(a, (items->count + 1) * sizeof *to->items);
	if (!to->items)
		return NULL;
	for (struct crdt_item *i = crdt_items_first(items); i; i = crdt_items_next(items, i))
		if (!(to->items[to->n_items++] = save_item(a, i)))
			return NULL;
	return to;
}

static Cairn__Crdt__V1__Register *save_register(struct arena *a, const struct crdt_register *reg)
{
	Cairn__Crdt__V1__Register *to = arena_alloc(a, sizeof *to);
	if (!to)
		return NULL;
	cairn__crdt__v1__register__init(to);
	to->set = reg->set;
	to->type_url = wire_bytes(span_of(reg->value, reg->type_url_bytes));
	to->value = wire_bytes(span_of(reg->value + reg->type_url_bytes, reg->value_bytes));
	to->clock = reg->clock;
	return to;
}

static Cairn__Crdt__V1__Votes *save_votes(struct arena *a, const struct crdt_vote *vote)
{
	Cairn__Crdt__V1__Votes *to = arena_alloc(a, sizeof *to);
	if (!to)
		return NULL;
	cairn__crdt__v1__votes__init(to);
	to->sessions = vote->sessions;
	to->n_sessions = vote->session_count;
	return to;
}

static pb_value *save_value(struct arena *a, const struct crdt_node *n)
{
	pb_value *to = arena_alloc(a, sizeof *to);
	if (!to)
		return NULL;
	cairn__crdt__v1__value__init(to);
	to->value_case = (Cairn__Crdt__V1__Value__ValueCase)n->type;
	switch (n->type) {
	case CRDT_GCOUNTER:
		to->gcounter = n->counter;
		return to;
	case CRDT_PNCOUNTER:
		to->pncounter = (int64_t)n->counter;
		return to;
	case CRDT_FLAG:
		to->flag = n->flag;
		return to;
	case CRDT_GSET:
	case CRDT_ORSET:
	case CRDT_ORMAP: /* one member of the union: they are of one type */
		to->gset = save_items(a, &n->items);
		return to->gset ? to : NULL;
	case CRDT_LWWREGISTER:
		to->lwwregister = save_register(a, &n->reg);
		return to->lwwregister ? to : NULL;
	case CRDT_VOTE:
		to->vote = save_votes(a, &n->vote);
		return to->vote ? to : NULL;
	case CRDT_NONE:
		break;
	}
	unreachable_state("crdt type");
}

enum err_code crdt_fold_save(const struct crdt_fold *f, struct buf *out, struct err *err)
{
	pb_fold to = CAIRN__CRDT__V1__FOLD__INIT;
	struct arena a;
	arena_init(&a, CRDT_ARENA_BYTES(out->max_bytes));
	to.sequence = f->sequence;
	to.deleted = f->deleted;
	to.sessions = arena_alloc(&a, (f->session_count + 1) * sizeof *to.sessions);
	for (size_t i = 0; to.sessions && i < f->session_count; i++) {
		bool free_place = memcmp(f->sessions[i], nobody, CRDT_SESSION_BYTES) == 0;
		to.sessions[to.n_sessions++] =
			wire_bytes(span_of(f->sessions[i], free_place ? 0 : CRDT_SESSION_BYTES));
	}
	if (f->value)
		to.value = save_value(&a, f->value);
	bool saved = to.sessions && (!f->value || to.value) && wire_pack(&to.base, out);
	arena_release(&a);
	return saved ? ERR_OK : err_set(err, ERR_LIMIT, "the CRDT's fold has more than %zu bytes", out->max_bytes);
}

/* --- snapshots: in -------------------------------------------------------------------------------------- */

static bool load_value(const struct crdt_fold *f, const pb_value *from, struct crdt_node **ret);

static bool load_item(const struct crdt_fold *f, enum crdt_type type, const pb_item *from,
		      struct crdt_items *items)
{
	size_t before = items->count;
	struct crdt_item *i = crdt_items_put(items, wire_span(from->type_url), wire_span(from->value));
	bool numbered = type == CRDT_ORSET || type == CRDT_ORMAP;
	if (!i || items->count == before || (from->n_numbers > 0) != numbered ||
	    (from->entry != NULL) != (type == CRDT_ORMAP))
		return false;
	for (size_t k = 0; k < from->n_numbers; k++)
		if (from->numbers[k]->session > f->session_count || from->numbers[k]->sequence > f->sequence ||
		    !crdt_item_set_number(i, from->numbers[k]->session, from->numbers[k]->sequence))
			return false;
	return !from->entry || load_value(f, from->entry, &i->entry);
}

static bool load_votes(const struct crdt_fold *f, const Cairn__Crdt__V1__Votes *from, struct crdt_vote *vote)
{
	for (size_t i = 0; i < from->n_sessions; i++)
		if (!from->sessions[i] || from->sessions[i] > f->session_count ||
		    !crdt_vote_set(vote, from->sessions[i], true))
			return false;
	return true;
}

static bool load_register(const Cairn__Crdt__V1__Register *from, struct crdt_register *reg)
{
	/* What is not set has no value, whatever a snapshot says: no delta could tell it. */
	struct span url = from->set ? wire_span(from->type_url) : SPAN("");
	struct span value = from->set ? wire_span(from->value) : SPAN("");
	reg->clock = from->clock;
	return crdt_register_set(reg, from->set, url, value);
}

/* *ret is set also on failure, for whoever frees the fold. */
static bool load_value(const struct crdt_fold *f, const pb_value *from, struct crdt_node **ret)
{
	enum crdt_type type = (enum crdt_type)from->value_case;
	if (type == CRDT_NONE)
		return false;
	struct crdt_node *n = *ret = crdt_node_new(type);
	if (type == CRDT_GCOUNTER)
		n->counter = from->gcounter;
	else if (type == CRDT_PNCOUNTER)
		n->counter = (uint64_t)from->pncounter;
	else if (type == CRDT_FLAG)
		n->flag = from->flag;
	else if (type == CRDT_LWWREGISTER)
		return load_register(from->lwwregister, &n->reg);
	else if (type == CRDT_VOTE)
		return load_votes(f, from->vote, &n->vote);
	else
		for (size_t i = 0; i < from->gset->n_items; i++)
			if (!load_item(f, type, from->gset->items[i], &n->items))
				return false;
	return true;
}

static bool load_fold(struct crdt_fold *f, const pb_fold *from)
{
	f->sequence = from->sequence;
	f->deleted = from->deleted;
	if (f->deleted && from->value)
		return false;
	if (from->n_sessions && !sessions_grow(f, from->n_sessions))
		return false;
	for (size_t i = 0; i < from->n_sessions; i++) {
		struct span id = wire_span(from->sessions[i]);
		if (id.n && id.n != CRDT_SESSION_BYTES)
			return false;
		f->before[f->session_count] = UINT64_MAX;
		memcpy(f->sessions[f->session_count++], id.n ? id.p : nobody, CRDT_SESSION_BYTES);
	}
	return !from->value || load_value(f, from->value, &f->value);
}

enum err_code crdt_fold_load(struct span bytes, struct crdt_fold **ret, struct err *err)
{
	struct arena a;
	struct crdt_fold *f = crdt_fold_new();
	arena_init(&a, CRDT_ARENA_BYTES(bytes.n));
	/* A value in a snapshot is a little deeper than the deltas that it came from. */
	pb_fold *from = NULL;
	if (wire_nesting_fits(&cairn__crdt__v1__fold__descriptor, bytes, LIMIT_NESTING + 4))
		from = (pb_fold *)(void *)grpc_unpack(&cairn__crdt__v1__fold__descriptor, &a, bytes);
	bool loaded = from && load_fold(f, from);
	arena_release(&a);
	if (!loaded) {
		crdt_fold_free(f);
		return err_set(err, ERR_INVALID, "%s",
			       from ? "the snapshot of a CRDT contradicts itself"
				    : "the snapshot of a CRDT does not parse");
	}
	*ret = f;
	return ERR_OK;
}

/* --- unpacking ------------------------------------------------------------------------------------------ */

struct ProtobufCMessage *crdt_unpack(const struct ProtobufCMessageDescriptor *type, struct arena *a,
				     struct span bytes)
{
	return wire_nesting_fits(type, bytes, LIMIT_NESTING) ? grpc_unpack(type, a, bytes) : NULL;
}
