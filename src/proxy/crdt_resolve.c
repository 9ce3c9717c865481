/* A function's delta, checked and made fit for the log (contract, section 7, rules 3, 4 and 9). */
#include <config.h>

#include "base/must.h"
#include "proxy/crdt_node.h"
#include "proxy/wire.h"

#define CLOCK(NAME) CLOUDSTATE__CRDT__CRDT_CLOCK__##NAME
#define INCREMENT_END ((uint64_t)1 << 63)

struct resolver {
	int64_t wall_ms;
	struct arena *arena;
	struct err *err;
};

/* node: the present value of that type, or NULL. Returns NULL with r->err set. */
static crdt_delta *resolve(struct resolver *r, const struct crdt_node *node, const crdt_delta *delta);

static void *copy_of(struct resolver *r, const void *p, size_t n)
{
	void *copy = arena_alloc(r->arena, n);
	if (copy)
		memcpy(copy, p, n);
	else
		(void)err_set(r->err, ERR_LIMIT, "the delta is larger than a message may be");
	return copy;
}

/* --- registers ------------------------------------------------------------------------------------------ */

static int64_t plus_one(int64_t clock)
{
	return clock == INT64_MAX ? clock : clock + 1;
}
static int64_t minus_one(int64_t clock)
{
	return clock == INT64_MIN ? clock : clock - 1;
}

static Cloudstate__Crdt__LWWRegisterDelta *resolve_register(struct resolver *r, const struct crdt_node *node,
							     const Cloudstate__Crdt__LWWRegisterDelta *d)
{
	const int64_t *now = node && node->reg.value ? &node->reg.clock : NULL;
	int64_t clock = r->wall_ms;
	Cloudstate__Crdt__LWWRegisterDelta *to = copy_of(r, d, sizeof *d);
	if (!to)
		return NULL;
	switch ((int)d->clock) {
	case CLOCK(DEFAULT):
		if (now && clock < plus_one(*now))
			clock = plus_one(*now);
		break;
	case CLOCK(REVERSE):
		clock = -clock;
		if (now && clock > minus_one(*now))
			clock = minus_one(*now);
		break;
	case CLOCK(CUSTOM):
		clock = d->custom_clock_value;
		break;
	case CLOCK(CUSTOM_AUTO_INCREMENT):
		clock = d->custom_clock_value;
		if (now && clock <= *now)
			clock = plus_one(*now);
		break;
	default:
		(void)err_set(r->err, ERR_INVALID, "a register's clock is %d, which there is not", (int)d->clock);
		return NULL;
	}
	to->clock = CLOCK(CUSTOM);
	to->custom_clock_value = clock;
	return to;
}

/* --- maps ----------------------------------------------------------------------------------------------- */

/* The keys that the delta itself removes: what comes behind does not find them. */
struct struck {
	bool all;
	struct crdt_node *keys; /* a gset; NULL: none */
};

static bool struck_init(struct struck *s, const Cloudstate__Crdt__ORMapDelta *d)
{
	*s = (struct struck){.all = d->cleared};
	if (s->all || !d->n_removed)
		return true;
	s->keys = crdt_node_new(CRDT_GSET);
	for (size_t i = 0; i < d->n_removed; i++) {
		struct any key = wire_any(d->removed[i]);
		if (!crdt_items_put(&s->keys->items, key.type_url, key.value))
			return false;
	}
	return true;
}

static struct crdt_node *entry_now(const struct struck *s, const struct crdt_node *map, const crdt_any *key)
{
	if (!map || s->all || (s->keys && crdt_items_find(&s->keys->items, key)))
		return NULL;
	struct crdt_item *i = crdt_items_find(&map->items, key);
	return i ? i->entry : NULL;
}

static crdt_entry *resolve_entry(struct resolver *r, const struct crdt_node *now, const crdt_entry *e)
{
	enum crdt_type type = crdt_delta_type(e->delta);
	crdt_entry *to = copy_of(r, e, sizeof *e);
	if (!to)
		return NULL;
	if (type == CRDT_NONE) {
		(void)err_set(r->err, ERR_INVALID, "a map's entry has an empty delta");
		return NULL;
	}
	to->delta = resolve(r, now && now->type == type ? now : NULL, e->delta);
	return to->delta ? to : NULL;
}

/* Entries of `from` into `to`; with `present`, those that are not there or of another kind are left out. */
static bool resolve_entries(struct resolver *r, const struct struck *s, const struct crdt_node *map,
			    bool present, crdt_entry *const *from, size_t n, crdt_entry **to, size_t *ret_n)
{
	for (size_t k = 0; k < n; k++) {
		const struct crdt_node *now = entry_now(s, map, from[k]->key);
		enum crdt_type type = crdt_delta_type(from[k]->delta);
		if (present && type != CRDT_NONE && (!now || now->type != type))
			continue;
		if (!(to[*ret_n] = resolve_entry(r, now, from[k])))
			return false;
		++*ret_n;
	}
	return true;
}

static Cloudstate__Crdt__ORMapDelta *resolve_map(struct resolver *r, const struct crdt_node *map,
						  const Cloudstate__Crdt__ORMapDelta *d)
{
	struct struck s;
	Cloudstate__Crdt__ORMapDelta *to = copy_of(r, d, sizeof *d);
	bool done = false;
	if (!to)
		return NULL;
	to->n_updated = to->n_added = 0;
	to->updated = arena_alloc(r->arena, (d->n_updated + 1) * sizeof *to->updated);
	to->added = arena_alloc(r->arena, (d->n_added + 1) * sizeof *to->added);
	if (struck_init(&s, d) && to->updated && to->added)
		done = resolve_entries(r, &s, map, true, d->updated, d->n_updated, to->updated,
				       &to->n_updated) &&
		       resolve_entries(r, &s, map, false, d->added, d->n_added, to->added, &to->n_added);
	else
		(void)err_set(r->err, ERR_LIMIT, "the delta is larger than a message may be");
	crdt_node_free(s.keys);
	return done ? to : NULL;
}

/* --- of any type ---------------------------------------------------------------------------------------- */

static crdt_delta *resolve(struct resolver *r, const struct crdt_node *node, const crdt_delta *delta)
{
	crdt_delta *to = copy_of(r, delta, sizeof *delta);
	if (!to)
		return NULL;
	switch (crdt_delta_type(delta)) {
	case CRDT_GCOUNTER:
		if (delta->gcounter->increment < INCREMENT_END)
			return to;
		(void)err_set(r->err, ERR_INVALID, "a GCounter is incremented by %llu, at most 2^63 - 1 is taken",
			      (unsigned long long)delta->gcounter->increment);
		return NULL;
	case CRDT_LWWREGISTER:
		to->lwwregister = resolve_register(r, node, delta->lwwregister);
		return to->lwwregister ? to : NULL;
	case CRDT_ORMAP:
		to->ormap = resolve_map(r, node, delta->ormap);
		return to->ormap ? to : NULL;
	case CRDT_PNCOUNTER:
	case CRDT_GSET:
	case CRDT_ORSET:
	case CRDT_FLAG:
	case CRDT_VOTE:
		return to;
	case CRDT_NONE:
		break;
	}
	unreachable_state("crdt type");
}

/* It would change nothing in a CRDT that exists. */
static bool is_nothing(const crdt_delta *d)
{
	switch (crdt_delta_type(d)) {
	case CRDT_GCOUNTER:
		return !d->gcounter->increment;
	case CRDT_PNCOUNTER:
		return !d->pncounter->change;
	case CRDT_GSET:
		return !d->gset->n_added;
	case CRDT_ORSET:
		return !d->orset->cleared && !d->orset->n_removed && !d->orset->n_added;
	case CRDT_FLAG:
		return !d->flag->value;
	case CRDT_ORMAP:
		return !d->ormap->cleared && !d->ormap->n_removed && !d->ormap->n_updated && !d->ormap->n_added;
	case CRDT_LWWREGISTER:
	case CRDT_VOTE:
	case CRDT_NONE:
		break;
	}
	return false;
}

enum err_code crdt_resolve(const struct crdt_fold *f, const crdt_delta *delta, int64_t wall_ms, struct arena *a,
			   const crdt_delta **ret, struct err *err)
{
	struct err why = {0};
	struct resolver r = {.wall_ms = wall_ms, .arena = a, .err = err ? err : &why};
	enum crdt_type type = crdt_delta_type(delta), now = crdt_fold_type(f);
	must(!r.err->code);
	if (type == CRDT_NONE)
		return err_set(err, ERR_INVALID, "a CRDT's delta is empty");
	if (now != CRDT_NONE && now != type)
		return err_set(err, ERR_INVALID, "a %s delta for what is a %s", crdt_type_name(type),
			       crdt_type_name(now));
	const crdt_delta *to = resolve(&r, f->value, delta);
	if (!to)
		return r.err->code;
	*ret = now != CRDT_NONE && is_nothing(to) ? NULL : to;
	return ERR_OK;
}
