#include <config.h>

#include "proxy/crdt_node.h"

#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"
#include "proxy/wire.h"

#define BUCKETS_MIN 8u
#define MALLOC_BYTES 16u /* of each allocation, about */

const char *crdt_type_name(enum crdt_type type)
{
	static const char *const names[] = {"none", "GCounter",	   "PNCounter", "GSet", "ORSet",
					    "LWWRegister", "Flag", "ORMap",	"Vote"};
	return (size_t)type < ARRAY_LEN(names) ? names[type] : "unknown";
}

enum crdt_type crdt_delta_type(const crdt_delta *delta)
{
	return delta ? (enum crdt_type)delta->delta_case : CRDT_NONE;
}

/* --- items -------------------------------------------------------------------------------------------- */

/* Seeded, for an entity's clients may choose its elements. */
static uint64_t hash_key(const struct crdt_items *items, struct span type_url, struct span value)
{
	return hash_bytes(items->seed, value) + 3 * hash_bytes(items->seed, type_url);
}

static struct crdt_item *items_find(const struct crdt_items *items, struct span type_url, struct span value)
{
	if (!items->bucket_count)
		return NULL;
	uint64_t hash = hash_key(items, type_url, value);
	struct crdt_item *i = items->buckets[hash & (items->bucket_count - 1)];
	for (; i; i = i->next_in_bucket)
		if (i->hash == hash && span_eq(crdt_item_type_url(i), type_url) &&
		    span_eq(crdt_item_value(i), value))
			return i;
	return NULL;
}

struct crdt_item *crdt_items_find(const struct crdt_items *items, const crdt_any *key)
{
	struct any any = wire_any(key);
	return items_find(items, any.type_url, any.value);
}

struct crdt_item *crdt_items_find_same(const struct crdt_items *items, const struct crdt_item *other)
{
	return items_find(items, crdt_item_type_url(other), crdt_item_value(other));
}

static void bucket_add(struct crdt_items *items, struct crdt_item *i)
{
	struct crdt_item **bucket = &items->buckets[i->hash & (items->bucket_count - 1)];
	i->next_in_bucket = *bucket;
	*bucket = i;
}

/* A table that cannot grow only gets slower; there must be one. */
static bool buckets_grow(struct crdt_items *items)
{
	size_t count = items->bucket_count ? items->bucket_count * 2 : BUCKETS_MIN;
	if (items->count < items->bucket_count)
		return true;
	struct crdt_item **buckets = mem_try_alloc(count * sizeof *buckets);
	if (!buckets)
		return items->bucket_count > 0;
	if (!items->bucket_count)
		random_bytes(items->seed, sizeof items->seed);
	memset(buckets, 0, count * sizeof *buckets);
	mem_free(items->buckets);
	items->buckets = buckets;
	items->bucket_count = count;
	for (struct crdt_item *i = crdt_items_first(items); i; i = crdt_items_next(items, i))
		bucket_add(items, i);
	return true;
}

static uint8_t *dup_both(struct span type_url, struct span value)
{
	uint8_t *p = mem_try_alloc(type_url.n + value.n + 1);
	if (p && type_url.n)
		memcpy(p, type_url.p, type_url.n);
	if (p && value.n)
		memcpy(p + type_url.n, value.p, value.n);
	return p;
}

struct crdt_item *crdt_items_put(struct crdt_items *items, struct span type_url, struct span value)
{
	struct crdt_item *i = items_find(items, type_url, value);
	if (i)
		return i;
	if (type_url.n > UINT32_MAX || value.n > UINT32_MAX || !buckets_grow(items))
		return NULL;
	uint8_t *key = dup_both(type_url, value);
	if (!key)
		return NULL;
	i = mem_xalloc(sizeof *i);
	i->hash = hash_key(items, type_url, value);
	i->key = key;
	i->type_url_bytes = (uint32_t)type_url.n;
	i->value_bytes = (uint32_t)value.n;
	list_push_back(&items->order, &i->node);
	bucket_add(items, i);
	items->count++;
	return i;
}

static void item_free(struct crdt_item *i)
{
	crdt_node_free(i->entry);
	mem_free(i->numbers);
	mem_free(i->key);
	mem_free(i);
}

static void items_remove(struct crdt_items *items, struct crdt_item *i)
{
	struct crdt_item **at = &items->buckets[i->hash & (items->bucket_count - 1)];
	while (*at != i)
		at = &(*at)->next_in_bucket;
	*at = i->next_in_bucket;
	list_remove(&i->node);
	items->count--;
	item_free(i);
}

static void items_release(struct crdt_items *items)
{
	struct list_node *n;
	while ((n = list_pop_front(&items->order)))
		item_free(CONTAINER_OF(n, struct crdt_item, node));
	mem_free(items->buckets);
}

bool crdt_item_set_number(struct crdt_item *i, uint32_t session, uint64_t sequence)
{
	for (uint32_t k = 0; k < i->number_count; k++)
		if (i->numbers[k].session == session) {
			if (i->numbers[k].sequence < sequence)
				i->numbers[k].sequence = sequence;
			return true;
		}
	struct crdt_number *numbers =
		mem_try_realloc(i->numbers, (i->number_count + 1) * sizeof *i->numbers);
	if (!numbers)
		return false;
	i->numbers = numbers;
	i->numbers[i->number_count++] = (struct crdt_number){session, sequence};
	return true;
}

/* Strikes what the removal has seen. */
static void item_strike(struct crdt_items *items, struct crdt_item *i, const struct crdt_write *w)
{
	uint32_t left = 0;
	for (uint32_t k = 0; w->mode == CRDT_LOG && k < i->number_count; k++)
		if (i->numbers[k].session != w->session && i->numbers[k].sequence > w->observed &&
		    !plant("removal-strikes-what-it-had-not-seen"))
			i->numbers[left++] = i->numbers[k];
	i->number_count = left;
	if (!left)
		items_remove(items, i);
}

static void items_clear(struct crdt_items *items, const struct crdt_write *w)
{
	struct crdt_item *next;
	for (struct crdt_item *i = crdt_items_first(items); i; i = next) {
		next = crdt_items_next(items, i);
		item_strike(items, i, w);
	}
}

static void items_strike(struct crdt_items *items, crdt_any *const *keys, size_t n, const struct crdt_write *w)
{
	for (size_t k = 0; k < n; k++) {
		struct crdt_item *i = crdt_items_find(items, keys[k]);
		if (i)
			item_strike(items, i, w);
	}
}

static struct crdt_item *items_put_any(struct crdt_items *items, const crdt_any *key)
{
	struct any any = wire_any(key);
	return crdt_items_put(items, any.type_url, any.value);
}

static bool set_add(struct crdt_items *items, crdt_any *const *keys, size_t n, const struct crdt_write *w,
		    bool numbers)
{
	for (size_t k = 0; k < n; k++) {
		struct crdt_item *i = items_put_any(items, keys[k]);
		if (!i)
			return false;
		if (numbers && w->mode == CRDT_LOG && !crdt_item_set_number(i, w->session, w->sequence))
			return false;
	}
	return true;
}

/* --- map entries -------------------------------------------------------------------------------------- */

static bool entry_apply(struct crdt_item *i, const crdt_entry *e, const struct crdt_write *w)
{
	enum crdt_type type = crdt_delta_type(e->delta);
	if (!i->entry || i->entry->type != type) {
		crdt_node_free(i->entry);
		i->entry = crdt_node_new(type);
	}
	return crdt_node_apply(i->entry, e->delta, w) &&
	       (w->mode != CRDT_LOG || crdt_item_set_number(i, w->session, w->sequence));
}

static bool map_update(struct crdt_items *items, crdt_entry *const *entries, size_t n,
		       const struct crdt_write *w)
{
	for (size_t k = 0; k < n; k++) {
		enum crdt_type type = crdt_delta_type(entries[k]->delta);
		struct crdt_item *i = crdt_items_find(items, entries[k]->key);
		/* Of another kind now: somebody replaced it meanwhile. A function that updates what it does
		 * not have changes nothing. */
		if (type == CRDT_NONE || (i && i->entry->type != type) || (!i && w->mode != CRDT_LOG))
			continue;
		if (!i)
			i = items_put_any(items, entries[k]->key);
		if (!i || !entry_apply(i, entries[k], w))
			return false;
	}
	return true;
}

static bool map_add(struct crdt_items *items, crdt_entry *const *entries, size_t n, const struct crdt_write *w)
{
	for (size_t k = 0; k < n; k++) {
		if (crdt_delta_type(entries[k]->delta) == CRDT_NONE)
			continue;
		struct crdt_item *i = items_put_any(items, entries[k]->key);
		if (!i || !entry_apply(i, entries[k], w))
			return false;
	}
	return true;
}

/* --- registers, votes --------------------------------------------------------------------------------- */

bool crdt_register_set(struct crdt_register *reg, bool set, struct span type_url, struct span value)
{
	uint8_t *copy = type_url.n > UINT32_MAX || value.n > UINT32_MAX ? NULL : dup_both(type_url, value);
	if (!copy)
		return false;
	mem_free(reg->value);
	reg->set = set;
	reg->value = copy;
	reg->type_url_bytes = (uint32_t)type_url.n;
	reg->value_bytes = (uint32_t)value.n;
	return true;
}

static bool register_apply(struct crdt_register *reg, const Cloudstate__Crdt__LWWRegisterDelta *d,
			   const struct crdt_write *w)
{
	struct any any = wire_any(d->value);
	if (w->mode == CRDT_LOG && reg->value && d->custom_clock_value < reg->clock)
		return true;
	reg->clock = d->custom_clock_value;
	return crdt_register_set(reg, d->value != NULL, any.type_url, any.value);
}

bool crdt_vote_set(struct crdt_vote *vote, uint32_t session, bool yes)
{
	for (size_t i = 0; i < vote->session_count; i++)
		if (vote->sessions[i] == session) {
			if (!yes)
				vote->sessions[i] = vote->sessions[--vote->session_count];
			return true;
		}
	if (!yes)
		return true;
	uint32_t *sessions = mem_try_realloc(vote->sessions, (vote->session_count + 1) * sizeof *sessions);
	if (!sessions)
		return false;
	vote->sessions = sessions;
	vote->sessions[vote->session_count++] = session;
	return true;
}

/* The function counts its own vote by itself, and begins at (false, 0 of 1). */
static bool vote_apply(struct crdt_vote *vote, const Cloudstate__Crdt__VoteDelta *d, const struct crdt_write *w)
{
	if (w->mode == CRDT_LOG)
		return crdt_vote_set(vote, w->session, d->self_vote);
	if (w->mode == CRDT_TELL) {
		vote->votes_for = d->votes_for;
		vote->total_voters = d->total_voters;
	} else if (vote->self_vote != (bool)d->self_vote && !plant("own-vote-echoed")) {
		vote->votes_for += d->self_vote ? 1 : -1;
	}
	vote->self_vote = d->self_vote;
	return true;
}

/* --- nodes -------------------------------------------------------------------------------------------- */

struct crdt_node *crdt_node_new(enum crdt_type type)
{
	struct crdt_node *n = mem_xalloc(sizeof *n);
	must(type > CRDT_NONE && type <= CRDT_VOTE);
	n->type = type;
	if (type == CRDT_GSET || type == CRDT_ORSET || type == CRDT_ORMAP)
		list_init(&n->items.order);
	else if (type == CRDT_VOTE)
		n->vote.total_voters = 1;
	return n;
}

void crdt_node_free(struct crdt_node *n)
{
	if (!n)
		return;
	if (n->type == CRDT_GSET || n->type == CRDT_ORSET || n->type == CRDT_ORMAP)
		items_release(&n->items);
	else if (n->type == CRDT_LWWREGISTER)
		mem_free(n->reg.value);
	else if (n->type == CRDT_VOTE)
		mem_free(n->vote.sessions);
	mem_free(n);
}

static bool orset_apply(struct crdt_items *items, const Cloudstate__Crdt__ORSetDelta *d,
			const struct crdt_write *w)
{
	if (d->cleared)
		items_clear(items, w);
	items_strike(items, d->removed, d->n_removed, w);
	return set_add(items, d->added, d->n_added, w, true);
}

static bool ormap_apply(struct crdt_items *items, const Cloudstate__Crdt__ORMapDelta *d,
			const struct crdt_write *w)
{
	if (d->cleared)
		items_clear(items, w);
	items_strike(items, d->removed, d->n_removed, w);
	return map_update(items, d->updated, d->n_updated, w) && map_add(items, d->added, d->n_added, w);
}

bool crdt_node_apply(struct crdt_node *n, const crdt_delta *d, const struct crdt_write *w)
{
	must(n->type == crdt_delta_type(d));
	switch (n->type) {
	case CRDT_GCOUNTER:
		n->counter += d->gcounter->increment;
		return true;
	case CRDT_PNCOUNTER:
		n->counter += (uint64_t)d->pncounter->change;
		return true;
	case CRDT_GSET:
		return set_add(&n->items, d->gset->added, d->gset->n_added, w, false);
	case CRDT_ORSET:
		return orset_apply(&n->items, d->orset, w);
	case CRDT_LWWREGISTER:
		return register_apply(&n->reg, d->lwwregister, w);
	case CRDT_FLAG:
		if (w->mode == CRDT_OWN && n->flag && !d->flag->value)
			*w->ret_switched_off = true;
		n->flag = n->flag || d->flag->value;
		return true;
	case CRDT_ORMAP:
		return ormap_apply(&n->items, d->ormap, w);
	case CRDT_VOTE:
		return vote_apply(&n->vote, d->vote, w);
	case CRDT_NONE:
		break;
	}
	unreachable_state("crdt type");
}

/* The ended sessions' number is the greatest of theirs. */
static void item_end_session(struct crdt_item *i, uint32_t session)
{
	uint32_t ended = UINT32_MAX, its = UINT32_MAX;
	for (uint32_t k = 0; k < i->number_count; k++) {
		if (i->numbers[k].session == session)
			its = k;
		else if (i->numbers[k].session == 0)
			ended = k;
	}
	if (its == UINT32_MAX)
		return;
	i->numbers[its].session = 0;
	if (ended == UINT32_MAX)
		return;
	if (i->numbers[ended].sequence < i->numbers[its].sequence)
		i->numbers[ended].sequence = i->numbers[its].sequence;
	i->numbers[its] = i->numbers[--i->number_count];
}

void crdt_node_end_session(struct crdt_node *n, uint32_t session)
{
	if (n->type == CRDT_VOTE)
		crdt_vote_set(&n->vote, session, false);
	if (n->type != CRDT_ORSET && n->type != CRDT_ORMAP)
		return;
	for (struct crdt_item *i = crdt_items_first(&n->items); i; i = crdt_items_next(&n->items, i)) {
		item_end_session(i, session);
		if (i->entry)
			crdt_node_end_session(i->entry, session);
	}
}

static size_t items_bytes(const struct crdt_items *items)
{
	size_t bytes = items->bucket_count * sizeof *items->buckets;
	for (struct crdt_item *i = crdt_items_first(items); i; i = crdt_items_next(items, i))
		bytes += sizeof *i + MALLOC_BYTES + i->type_url_bytes + i->value_bytes + MALLOC_BYTES +
			 i->number_count * sizeof *i->numbers + crdt_node_bytes(i->entry);
	return bytes;
}

size_t crdt_node_bytes(const struct crdt_node *n)
{
	if (!n)
		return 0;
	size_t bytes = sizeof *n + MALLOC_BYTES;
	if (n->type == CRDT_GSET || n->type == CRDT_ORSET || n->type == CRDT_ORMAP)
		bytes += items_bytes(&n->items);
	else if (n->type == CRDT_LWWREGISTER)
		bytes += n->reg.type_url_bytes + n->reg.value_bytes;
	else if (n->type == CRDT_VOTE)
		bytes += n->vote.session_count * sizeof *n->vote.sessions;
	return bytes;
}

bool crdt_node_has_votes(const struct crdt_node *n)
{
	if (n->type != CRDT_ORMAP)
		return n->type == CRDT_VOTE;
	for (struct crdt_item *i = crdt_items_first(&n->items); i; i = crdt_items_next(&n->items, i))
		if (i->entry && crdt_node_has_votes(i->entry))
			return true;
	return false;
}
