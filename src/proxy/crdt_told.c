/* What a function believes, and what it has to be told (contract, section 7, rule 3). */
#include <config.h>

#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "proxy/crdt_node.h"
#include "proxy/wire.h"

struct crdt_told {
	struct crdt_node *value; /* NULL: it has none */
};

/* Makes deltas. Whatever it makes is NULL once the arena is full. */
struct maker {
	struct arena *arena;
	const struct crdt_fold *fold;
	const struct crdt_nodes *nodes;
};

enum difference { SAME, DIFFERS, INEXPRESSIBLE, FULL };

static enum difference differ(struct maker *m, const struct crdt_node *from, const struct crdt_node *to,
			      crdt_delta **ret);

/* --- making messages ----------------------------------------------------------------------------------- */

static crdt_delta *make_delta(struct maker *m, enum crdt_type type)
{
	/* Any of the eight, and the delta that holds it. */
	struct {
		crdt_delta delta;
		union {
			Cloudstate__Crdt__GCounterDelta gcounter;
			Cloudstate__Crdt__PNCounterDelta pncounter;
			Cloudstate__Crdt__GSetDelta gset;
			Cloudstate__Crdt__ORSetDelta orset;
			Cloudstate__Crdt__LWWRegisterDelta lwwregister;
			Cloudstate__Crdt__FlagDelta flag;
			Cloudstate__Crdt__ORMapDelta ormap;
			Cloudstate__Crdt__VoteDelta vote;
		} of;
	} *both = arena_zalloc(m->arena, sizeof *both);
	if (!both)
		return NULL;
	crdt_delta *d = &both->delta;
	cloudstate__crdt__crdt_delta__init(d);
	d->delta_case = (Cloudstate__Crdt__CrdtDelta__DeltaCase)type;
	switch (type) {
	case CRDT_GCOUNTER:
		cloudstate__crdt__gcounter_delta__init(d->gcounter = &both->of.gcounter);
		return d;
	case CRDT_PNCOUNTER:
		cloudstate__crdt__pncounter_delta__init(d->pncounter = &both->of.pncounter);
		return d;
	case CRDT_GSET:
		cloudstate__crdt__gset_delta__init(d->gset = &both->of.gset);
		return d;
	case CRDT_ORSET:
		cloudstate__crdt__orset_delta__init(d->orset = &both->of.orset);
		return d;
	case CRDT_LWWREGISTER:
		cloudstate__crdt__lwwregister_delta__init(d->lwwregister = &both->of.lwwregister);
		return d;
	case CRDT_FLAG:
		cloudstate__crdt__flag_delta__init(d->flag = &both->of.flag);
		return d;
	case CRDT_ORMAP:
		cloudstate__crdt__ormap_delta__init(d->ormap = &both->of.ormap);
		return d;
	case CRDT_VOTE:
		cloudstate__crdt__vote_delta__init(d->vote = &both->of.vote);
		return d;
	case CRDT_NONE:
		break;
	}
	unreachable_state("crdt type");
}

static crdt_any *make_any(struct maker *m, struct span type_url, struct span value)
{
	crdt_any *any = arena_zalloc(m->arena, sizeof *any);
	struct any copy = {arena_dup(m->arena, type_url), arena_dup(m->arena, value)};
	if (!any || !copy.type_url.p || !copy.value.p)
		return NULL;
	wire_any_set(any, copy);
	return any;
}

static crdt_any *make_key(struct maker *m, const struct crdt_item *i)
{
	return make_any(m, crdt_item_type_url(i), crdt_item_value(i));
}

/* --- sets ---------------------------------------------------------------------------------------------- */

struct keys {
	crdt_any **p;
	size_t n;
};

/* The items of `of` that are not in `in` (NULL: all). */
static bool keys_not_in(struct maker *m, const struct crdt_items *of, const struct crdt_items *in,
			struct keys *ret)
{
	size_t n = 0;
	for (struct crdt_item *i = crdt_items_first(of); i; i = crdt_items_next(of, i))
		n += !in || !crdt_items_find_same(in, i);
	ret->n = 0;
	ret->p = arena_alloc(m->arena, (n + 1) * sizeof *ret->p);
	if (!ret->p)
		return false;
	for (struct crdt_item *i = crdt_items_first(of); i; i = crdt_items_next(of, i))
		if ((!in || !crdt_items_find_same(in, i)) && !(ret->p[ret->n++] = make_key(m, i)))
			return false;
	return true;
}

static enum difference differ_gset(struct maker *m, const struct crdt_items *from, const struct crdt_items *to,
				   Cloudstate__Crdt__GSetDelta *d)
{
	struct keys gone, added;
	if (!keys_not_in(m, from, to, &gone) || !keys_not_in(m, to, from, &added))
		return FULL;
	d->added = added.p;
	d->n_added = added.n;
	return gone.n ? INEXPRESSIBLE : added.n ? DIFFERS : SAME;
}

static enum difference differ_orset(struct maker *m, const struct crdt_items *from, const struct crdt_items *to,
				    Cloudstate__Crdt__ORSetDelta *d)
{
	struct keys gone, added;
	if (!to->count) {
		d->cleared = from->count > 0;
		return d->cleared ? DIFFERS : SAME;
	}
	if (!keys_not_in(m, from, to, &gone) || !keys_not_in(m, to, from, &added))
		return FULL;
	if (gone.n + added.n > to->count) {
		d->cleared = from->count > 0;
		gone.n = 0;
		if (d->cleared && !keys_not_in(m, to, NULL, &added))
			return FULL;
	}
	d->removed = gone.p;
	d->n_removed = gone.n;
	d->added = added.p;
	d->n_added = added.n;
	return d->cleared || gone.n || added.n ? DIFFERS : SAME;
}

/* --- maps ---------------------------------------------------------------------------------------------- */

struct map_difference {
	crdt_any **removed;
	crdt_entry **updated, **added;
	size_t removed_count, updated_count, added_count;
};

static crdt_entry *make_entry(struct maker *m, const struct crdt_item *i, crdt_delta *delta)
{
	crdt_entry *e = arena_zalloc(m->arena, sizeof *e);
	if (!e)
		return NULL;
	cloudstate__crdt__ormap_entry_delta__init(e);
	e->key = make_key(m, i);
	e->delta = delta;
	return e->key ? e : NULL;
}

/* An entry of the new map, with the old one's of that key or NULL. */
static bool differ_entry(struct maker *m, const struct crdt_item *was, const struct crdt_item *i,
			 struct map_difference *d)
{
	crdt_delta *delta = NULL;
	enum difference difference = INEXPRESSIBLE;
	if (was && was->entry->type == i->entry->type)
		difference = differ(m, was->entry, i->entry, &delta);
	if (difference == SAME)
		return true;
	if (difference == DIFFERS)
		return (d->updated[d->updated_count++] = make_entry(m, i, delta)) != NULL;
	if (difference == FULL || differ(m, NULL, i->entry, &delta) == FULL)
		return false;
	if (was && !(d->removed[d->removed_count++] = make_key(m, i)))
		return false;
	return (d->added[d->added_count++] = make_entry(m, i, delta)) != NULL;
}

static enum difference differ_ormap(struct maker *m, const struct crdt_items *from, const struct crdt_items *to,
				    Cloudstate__Crdt__ORMapDelta *ret)
{
	struct map_difference d = {0};
	if (!to->count) {
		ret->cleared = from->count > 0;
		return ret->cleared ? DIFFERS : SAME;
	}
	d.removed = arena_alloc(m->arena, (from->count + 1) * sizeof *d.removed);
	d.updated = arena_alloc(m->arena, to->count * sizeof(crdt_entry *));
	d.added = arena_alloc(m->arena, to->count * sizeof(crdt_entry *));
	if (!d.removed || !d.updated || !d.added)
		return FULL;
	for (struct crdt_item *i = crdt_items_first(from); i; i = crdt_items_next(from, i))
		if (!crdt_items_find_same(to, i) && !(d.removed[d.removed_count++] = make_key(m, i)))
			return FULL;
	for (struct crdt_item *i = crdt_items_first(to); i; i = crdt_items_next(to, i))
		if (!differ_entry(m, crdt_items_find_same(from, i), i, &d))
			return FULL;
	ret->removed = d.removed;
	ret->n_removed = d.removed_count;
	ret->updated = d.updated;
	ret->n_updated = d.updated_count;
	ret->added = d.added;
	ret->n_added = d.added_count;
	return d.removed_count || d.updated_count || d.added_count ? DIFFERS : SAME;
}

/* --- the others ---------------------------------------------------------------------------------------- */

static enum difference differ_register(struct maker *m, const struct crdt_register *from,
				       const struct crdt_register *to, Cloudstate__Crdt__LWWRegisterDelta *d)
{
	struct span url = span_of(to->value, to->type_url_bytes);
	struct span value = span_of(to->value + to->type_url_bytes, to->value_bytes);
	if (to->set && !(d->value = make_any(m, url, value)))
		return FULL;
	bool same = from->set == to->set && from->type_url_bytes == to->type_url_bytes &&
		    span_eq(span_of(from->value, from->type_url_bytes + from->value_bytes),
			    span_of(to->value, url.n + value.n));
	if (same || plant("losing-register-write-not-corrected"))
		return SAME;
	return to->set ? DIFFERS : INEXPRESSIBLE;
}

static bool in_vote(const struct crdt_vote *vote, uint32_t session)
{
	for (size_t i = 0; i < vote->session_count; i++)
		if (vote->sessions[i] == session)
			return session != 0;
	return false;
}

static enum difference differ_vote(struct maker *m, const struct crdt_vote *from, const struct crdt_vote *to,
				   Cloudstate__Crdt__VoteDelta *d)
{
	d->self_vote = in_vote(to, crdt_fold_session(m->fold, m->nodes->self));
	d->total_voters = (int32_t)m->nodes->live_count;
	for (size_t i = 0; i < m->nodes->live_count; i++)
		d->votes_for += in_vote(to, crdt_fold_session(m->fold, m->nodes->live[i]));
	return from->self_vote == (bool)d->self_vote && from->votes_for == d->votes_for &&
			       from->total_voters == d->total_voters
		       ? SAME
		       : DIFFERS;
}

/* --- of any type ---------------------------------------------------------------------------------------- */

static enum difference differ_from(struct maker *m, const struct crdt_node *from, const struct crdt_node *to,
				   crdt_delta *d)
{
	switch (to->type) {
	case CRDT_GCOUNTER:
		d->gcounter->increment = to->counter - from->counter;
		return to->counter < from->counter ? INEXPRESSIBLE : to->counter > from->counter ? DIFFERS : SAME;
	case CRDT_PNCOUNTER:
		d->pncounter->change = (int64_t)(to->counter - from->counter);
		return to->counter != from->counter ? DIFFERS : SAME;
	case CRDT_GSET:
		return differ_gset(m, &from->items, &to->items, d->gset);
	case CRDT_ORSET:
		return differ_orset(m, &from->items, &to->items, d->orset);
	case CRDT_LWWREGISTER:
		return differ_register(m, &from->reg, &to->reg, d->lwwregister);
	case CRDT_FLAG:
		d->flag->value = to->flag;
		return from->flag == to->flag ? SAME : to->flag ? DIFFERS : INEXPRESSIBLE;
	case CRDT_ORMAP:
		return differ_ormap(m, &from->items, &to->items, d->ormap);
	case CRDT_VOTE:
		return differ_vote(m, &from->vote, &to->vote, d->vote);
	case CRDT_NONE:
		break;
	}
	unreachable_state("crdt type");
}

/* from NULL: the whole value, which always differs. Otherwise it is of the same type. */
static enum difference differ(struct maker *m, const struct crdt_node *from, const struct crdt_node *to,
			      crdt_delta **ret)
{
	crdt_delta *d = make_delta(m, to->type);
	if (!d)
		return FULL;
	struct crdt_node *zero = from ? NULL : crdt_node_new(to->type);
	enum difference difference = differ_from(m, from ? from : zero, to, d);
	crdt_node_free(zero);
	*ret = d;
	return difference == FULL || from ? difference : DIFFERS;
}

/* --- told values ---------------------------------------------------------------------------------------- */

struct crdt_told *crdt_told_new(void)
{
	return mem_xalloc(sizeof(struct crdt_told));
}

void crdt_told_free(struct crdt_told *t)
{
	if (!t)
		return;
	crdt_node_free(t->value);
	mem_free(t);
}

size_t crdt_told_bytes(const struct crdt_told *t)
{
	return t ? sizeof *t + crdt_node_bytes(t->value) : 0;
}

static enum err_code told_apply(struct crdt_told *t, const crdt_delta *delta, enum crdt_mode mode,
				struct err *err)
{
	enum crdt_type type = crdt_delta_type(delta);
	/* What does not fit is the function's fault, which crdt_resolve() finds. */
	if (type == CRDT_NONE || (t->value && t->value->type != type))
		return ERR_OK;
	if (!t->value)
		t->value = crdt_node_new(type);
	bool switched_off = false;
	if (!crdt_node_apply(t->value, delta,
			     &(struct crdt_write){.mode = mode, .ret_switched_off = &switched_off}))
		return err_set(err, ERR_NOMEM, "out of memory for a CRDT");
	return switched_off ? err_set(err, ERR_INVALID, "a Flag that is set is switched off") : ERR_OK;
}

enum err_code crdt_told_own(struct crdt_told *t, const crdt_delta *delta, struct err *err)
{
	return told_apply(t, delta, CRDT_OWN, err);
}

enum err_code crdt_told_tell(struct crdt_told *t, const struct crdt_fold *f, const struct crdt_nodes *nodes,
			     struct arena *a, const crdt_delta **ret, struct err *err)
{
	struct maker m = {.arena = a, .fold = f, .nodes = nodes};
	crdt_delta *delta = NULL;
	enum difference difference = SAME;
	if (f->value && t->value && f->value->type != t->value->type)
		difference = INEXPRESSIBLE;
	else if (f->value)
		difference = differ(&m, t->value, f->value, &delta);
	if (difference == INEXPRESSIBLE)
		return err_set(err, ERR_CONFLICT, "no delta makes the function's %s the %s that there is",
			       crdt_type_name(t->value->type), crdt_type_name(f->value->type));
	if (difference == FULL)
		return err_set(err, ERR_LIMIT, "the CRDT's value is larger than a message may be");
	if (difference == DIFFERS) {
		enum err_code code = told_apply(t, delta, CRDT_TELL, err);
		if (code)
			return code;
	}
	*ret = difference == DIFFERS ? delta : NULL;
	return ERR_OK;
}
