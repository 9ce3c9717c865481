#include <config.h>

#include "crdt_model.h"

#include "base/mem.h"
#include "base/must.h"
#include "proxy/wire.h"

uint64_t model_random(uint64_t *state, uint64_t below)
{
	*state += 0x9e3779b97f4a7c15u;
	uint64_t z = *state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) % below;
}

/* --- messages ------------------------------------------------------------------------------------------- */

static void *made(struct arena *a, size_t n)
{
	void *p = arena_zalloc(a, n);
	must(p);
	return p;
}

delta_t *model_delta(struct arena *a, enum crdt_type type)
{
	delta_t *d = made(a, sizeof *d);
	cloudstate__crdt__crdt_delta__init(d);
	d->delta_case = (Cloudstate__Crdt__CrdtDelta__DeltaCase)type;
	d->ormap = made(a, 256); /* every one of them is smaller */
	if (type == CRDT_GCOUNTER)
		cloudstate__crdt__gcounter_delta__init(d->gcounter);
	else if (type == CRDT_PNCOUNTER)
		cloudstate__crdt__pncounter_delta__init(d->pncounter);
	else if (type == CRDT_GSET)
		cloudstate__crdt__gset_delta__init(d->gset);
	else if (type == CRDT_ORSET)
		cloudstate__crdt__orset_delta__init(d->orset);
	else if (type == CRDT_LWWREGISTER)
		cloudstate__crdt__lwwregister_delta__init(d->lwwregister);
	else if (type == CRDT_FLAG)
		cloudstate__crdt__flag_delta__init(d->flag);
	else if (type == CRDT_ORMAP)
		cloudstate__crdt__ormap_delta__init(d->ormap);
	else
		cloudstate__crdt__vote_delta__init(d->vote);
	return d;
}

Google__Protobuf__Any *model_key(struct arena *a, unsigned key)
{
	Google__Protobuf__Any *any = made(a, sizeof *any);
	uint8_t *byte = made(a, 1);
	*byte = (uint8_t)key;
	wire_any_set(any, (struct any){SPAN("t/k"), span_of(byte, key ? 1 : 0)});
	return any;
}

unsigned model_key_of(const Google__Protobuf__Any *any)
{
	must(any);
	must(span_eq_str(wire_span(any->type_url), "t/k"));
	unsigned key = any->value.len ? any->value.data[0] : 0;
	must(key < MODEL_KEYS);
	return key;
}

static bool has(Google__Protobuf__Any *const *keys, size_t n, unsigned key)
{
	for (size_t i = 0; i < n; i++)
		if (model_key_of(keys[i]) == key)
			return true;
	return false;
}

static const delta_t *entry_of(Cloudstate__Crdt__ORMapEntryDelta *const *entries, size_t n, unsigned key)
{
	for (size_t i = 0; i < n; i++)
		if (model_key_of(entries[i]->key) == key)
			return entries[i]->delta;
	return NULL;
}

/* --- messages in text --------------------------------------------------------------------------------------- */

static void print_keys(const char *name, Google__Protobuf__Any *const *of, size_t n, FILE *out)
{
	if (n)
		fprintf(out, " %s", name);
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%u", model_key_of(of[i]));
}

static void print_entries(const char *name, Cloudstate__Crdt__ORMapEntryDelta *const *of, size_t n, FILE *out)
{
	for (size_t i = 0; i < n; i++) {
		fprintf(out, " %s%u:", name, model_key_of(of[i]->key));
		model_delta_print(of[i]->delta, out);
	}
}

void model_delta_print(const delta_t *d, FILE *out)
{
	switch (d->delta_case) {
	case DELTA(GCOUNTER):
		fprintf(out, "(gcounter %llu)", (unsigned long long)d->gcounter->increment);
		break;
	case DELTA(GSET):
		fprintf(out, "(gset");
		print_keys("+", d->gset->added, d->gset->n_added, out);
		fprintf(out, ")");
		break;
	case DELTA(ORSET):
		fprintf(out, "(orset%s", d->orset->cleared ? " cleared" : "");
		print_keys("-", d->orset->removed, d->orset->n_removed, out);
		print_keys("+", d->orset->added, d->orset->n_added, out);
		fprintf(out, ")");
		break;
	case DELTA(LWWREGISTER):
		fprintf(out, "(lww %u clock %d %lld)", model_key_of(d->lwwregister->value),
			(int)d->lwwregister->clock, (long long)d->lwwregister->custom_clock_value);
		break;
	case DELTA(FLAG):
		fprintf(out, "(flag %d)", d->flag->value);
		break;
	case DELTA(ORMAP):
		fprintf(out, "(ormap%s", d->ormap->cleared ? " cleared" : "");
		print_keys("-", d->ormap->removed, d->ormap->n_removed, out);
		print_entries("~", d->ormap->updated, d->ormap->n_updated, out);
		print_entries("+", d->ormap->added, d->ormap->n_added, out);
		fprintf(out, ")");
		break;
	case DELTA(VOTE):
		fprintf(out, "(vote %d %d/%d)", d->vote->self_vote, d->vote->votes_for, d->vote->total_voters);
		break;
	default:
		fprintf(out, "(?)");
		break;
	}
}

/* --- the history by brute force ------------------------------------------------------------------------- */

/* Every add of one key ever, and whether a removal that had seen it has struck it. */
struct tags {
	struct {
		unsigned session;
		uint64_t sequence;
		bool struck;
	} tag[512];
	size_t n;
};

static void tag_add(struct tags *t, const struct model_op *op)
{
	must(t->n < ARRAY_LEN(t->tag));
	t->tag[t->n].session = op->session;
	t->tag[t->n].sequence = op->sequence;
	t->tag[t->n++].struck = false;
}

static bool tags_live(const struct tags *t)
{
	for (size_t i = 0; i < t->n; i++)
		if (!t->tag[i].struck)
			return true;
	return false;
}

static void tags_strike(struct tags *t, const struct model_op *op)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->tag[i].session == op->session || t->tag[i].sequence <= op->observed)
			t->tag[i].struck = true;
}

static bool in_orset(const struct model_op *ops, size_t n, unsigned key)
{
	struct tags *t = mem_xalloc(sizeof *t);
	for (size_t i = 0; i < n; i++) {
		const Cloudstate__Crdt__ORSetDelta *d = ops[i].delta->orset;
		if (d->cleared || has(d->removed, d->n_removed, key))
			tags_strike(t, &ops[i]);
		if (has(d->added, d->n_added, key))
			tag_add(t, &ops[i]);
	}
	bool live = tags_live(t);
	mem_free(t);
	return live;
}

/* The key's own history since it last came to be; returns its length. */
static size_t entry_history(const struct model_op *ops, size_t n, unsigned key, struct model_op *ret)
{
	struct tags *t = mem_xalloc(sizeof *t);
	size_t count = 0;
	for (size_t i = 0; i < n; i++) {
		const Cloudstate__Crdt__ORMapDelta *d = ops[i].delta->ormap;
		const delta_t *changes[2] = {entry_of(d->updated, d->n_updated, key),
					     entry_of(d->added, d->n_added, key)};
		if (d->cleared || has(d->removed, d->n_removed, key))
			tags_strike(t, &ops[i]);
		if (!tags_live(t))
			count = 0;
		for (unsigned k = 0; k < 2; k++) {
			bool other = changes[k] && count && ret[0].delta->delta_case != changes[k]->delta_case;
			if (!changes[k] || (other && k == 0))
				continue;
			if (other)
				count = 0;
			ret[count] = ops[i];
			ret[count++].delta = changes[k];
			tag_add(t, &ops[i]);
		}
	}
	mem_free(t);
	return count;
}

static void history_print(const struct model_op *ops, size_t n, unsigned live, FILE *out);

static void map_print(const struct model_op *ops, size_t n, unsigned live, FILE *out)
{
	struct model_op *own = mem_xalloc((2 * n + 1) * sizeof *own);
	fprintf(out, "M{");
	for (unsigned key = 0; key < MODEL_KEYS; key++) {
		size_t count = entry_history(ops, n, key, own);
		if (!count)
			continue;
		fprintf(out, "%u:", key);
		history_print(own, count, live, out);
		fprintf(out, " ");
	}
	fprintf(out, "}");
	mem_free(own);
}

static void set_print(char name, unsigned keys, FILE *out)
{
	fprintf(out, "%c{", name);
	for (unsigned key = 0; key < MODEL_KEYS; key++)
		if (keys >> key & 1)
			fprintf(out, "%u", key);
	fprintf(out, "}");
}

static unsigned history_keys(const struct model_op *ops, size_t n)
{
	unsigned keys = 0;
	for (unsigned key = 0; key < MODEL_KEYS; key++) {
		bool in = false;
		if (ops[0].delta->delta_case == DELTA(ORSET))
			in = in_orset(ops, n, key);
		else
			for (size_t i = 0; i < n; i++)
				in = in || has(ops[i].delta->gset->added, ops[i].delta->gset->n_added, key);
		keys |= (unsigned)in << key;
	}
	return keys;
}

static int history_register(const struct model_op *ops, size_t n)
{
	size_t best = 0;
	for (size_t i = 1; i < n; i++)
		if (ops[i].delta->lwwregister->custom_clock_value >=
		    ops[best].delta->lwwregister->custom_clock_value)
			best = i;
	return (int)model_key_of(ops[best].delta->lwwregister->value);
}

static unsigned history_votes(const struct model_op *ops, size_t n, unsigned live)
{
	unsigned votes = 0;
	for (unsigned s = 1; s <= MODEL_SESSIONS; s++) {
		bool vote = false;
		for (size_t i = 0; i < n; i++)
			if (ops[i].session == s)
				vote = ops[i].delta->vote->self_vote;
		votes += vote && live >> s & 1;
	}
	return votes;
}

static void history_print(const struct model_op *ops, size_t n, unsigned live, FILE *out)
{
	int64_t sum = 0;
	bool flag = false;
	enum crdt_type type = (enum crdt_type)ops[0].delta->delta_case;
	for (size_t i = 0; i < n; i++) {
		const delta_t *d = ops[i].delta;
		sum += type == CRDT_GCOUNTER	? (int64_t)d->gcounter->increment
		       : type == CRDT_PNCOUNTER ? d->pncounter->change
						: 0;
		flag = flag || (type == CRDT_FLAG && d->flag->value);
	}
	if (type == CRDT_GCOUNTER || type == CRDT_PNCOUNTER)
		fprintf(out, "N%lld", (long long)sum);
	else if (type == CRDT_GSET || type == CRDT_ORSET)
		set_print('S', history_keys(ops, n), out);
	else if (type == CRDT_LWWREGISTER)
		fprintf(out, "L%d", history_register(ops, n));
	else if (type == CRDT_FLAG)
		fprintf(out, "F%d", flag);
	else if (type == CRDT_VOTE)
		fprintf(out, "V%u/%d", history_votes(ops, n, live), __builtin_popcount(live));
	else
		map_print(ops, n, live, out);
}

void model_history_print(const struct model_op *ops, size_t n, unsigned live, FILE *out)
{
	for (size_t i = 0; i < n; i++)
		if (!ops[i].delta) {
			fprintf(out, "deleted");
			return;
		}
	if (n)
		history_print(ops, n, live, out);
	else
		fprintf(out, "none");
}

void model_whole_print(const delta_t *d, FILE *out)
{
	struct fn_value *v = d ? fn_new((enum crdt_type)d->delta_case) : NULL;
	if (v)
		fn_told(v, d);
	fn_print(v, out);
	fn_free(v);
}

/* --- the function ---------------------------------------------------------------------------------------- */

struct fn_value *fn_new(enum crdt_type type)
{
	struct fn_value *v = mem_xalloc(sizeof *v);
	v->type = type;
	v->number = type == CRDT_LWWREGISTER ? -1 : 0;
	v->total_voters = 1;
	return v;
}

void fn_free(struct fn_value *v)
{
	for (unsigned key = 0; v && key < MODEL_KEYS; key++)
		fn_free(v->entries[key]);
	mem_free(v);
}

static void fn_drop(struct fn_value *v, unsigned key)
{
	fn_free(v->entries[key]);
	v->entries[key] = NULL;
	v->keys &= ~(1u << key);
}

static void told_set(struct fn_value *v, bool cleared, Google__Protobuf__Any *const *removed, size_t n_removed,
		     Google__Protobuf__Any *const *added, size_t n_added)
{
	if (cleared) {
		must(!n_removed);
		v->keys = 0;
	}
	for (size_t i = 0; i < n_removed; i++) {
		must(v->keys >> model_key_of(removed[i]) & 1);
		v->keys &= ~(1u << model_key_of(removed[i]));
	}
	for (size_t i = 0; i < n_added; i++) {
		must(!(v->keys >> model_key_of(added[i]) & 1));
		v->keys |= 1u << model_key_of(added[i]);
	}
}

static void told_map(struct fn_value *v, const Cloudstate__Crdt__ORMapDelta *d)
{
	must(!d->cleared || (!d->n_removed && !d->n_added && !d->n_updated));
	for (unsigned key = 0; d->cleared && key < MODEL_KEYS; key++)
		fn_drop(v, key);
	for (size_t i = 0; i < d->n_removed; i++) {
		must(v->entries[model_key_of(d->removed[i])]);
		fn_drop(v, model_key_of(d->removed[i]));
	}
	for (size_t i = 0; i < d->n_updated; i++) {
		must(v->entries[model_key_of(d->updated[i]->key)]);
		fn_told(v->entries[model_key_of(d->updated[i]->key)], d->updated[i]->delta);
	}
	for (size_t i = 0; i < d->n_added; i++) {
		unsigned key = model_key_of(d->added[i]->key);
		must(!v->entries[key]);
		v->entries[key] = fn_new((enum crdt_type)d->added[i]->delta->delta_case);
		fn_told(v->entries[key], d->added[i]->delta);
	}
}

void fn_told(struct fn_value *v, const delta_t *d)
{
	must((int)v->type == (int)d->delta_case);
	if (v->type == CRDT_GCOUNTER) {
		v->number += (int64_t)d->gcounter->increment;
	} else if (v->type == CRDT_PNCOUNTER) {
		v->number += d->pncounter->change;
	} else if (v->type == CRDT_GSET) {
		told_set(v, false, NULL, 0, d->gset->added, d->gset->n_added);
	} else if (v->type == CRDT_ORSET) {
		must(d->orset->cleared + (d->orset->n_removed > 0) < 2);
		told_set(v, d->orset->cleared, d->orset->removed, d->orset->n_removed, d->orset->added,
			 d->orset->n_added);
	} else if (v->type == CRDT_LWWREGISTER) {
		must(!d->lwwregister->clock && !d->lwwregister->custom_clock_value);
		v->number = model_key_of(d->lwwregister->value);
	} else if (v->type == CRDT_FLAG) {
		v->flag = d->flag->value;
	} else if (v->type == CRDT_VOTE) {
		v->self = d->vote->self_vote;
		v->votes_for = d->vote->votes_for;
		v->total_voters = d->vote->total_voters;
	} else {
		told_map(v, d->ormap);
	}
}

void fn_print(const struct fn_value *v, FILE *out)
{
	if (!v) {
		fprintf(out, "none");
	} else if (v->type == CRDT_GCOUNTER || v->type == CRDT_PNCOUNTER) {
		fprintf(out, "N%lld", (long long)v->number);
	} else if (v->type == CRDT_GSET || v->type == CRDT_ORSET) {
		set_print('S', v->keys, out);
	} else if (v->type == CRDT_LWWREGISTER) {
		fprintf(out, "L%lld", (long long)v->number);
	} else if (v->type == CRDT_FLAG) {
		fprintf(out, "F%d", v->flag);
	} else if (v->type == CRDT_VOTE) {
		fprintf(out, "V%d/%d", v->votes_for, v->total_voters);
	} else {
		fprintf(out, "M{");
		for (unsigned key = 0; key < MODEL_KEYS; key++)
			if (v->entries[key]) {
				fprintf(out, "%u:", key);
				fn_print(v->entries[key], out);
				fprintf(out, " ");
			}
		fprintf(out, "}");
	}
}

/* --- the function's own changes --------------------------------------------------------------------------- */

static Google__Protobuf__Any **key_list(struct arena *a, unsigned keys, size_t *ret_n)
{
	Google__Protobuf__Any **list = made(a, MODEL_KEYS * sizeof *list);
	*ret_n = 0;
	for (unsigned key = 0; key < MODEL_KEYS; key++)
		if (keys >> key & 1)
			list[(*ret_n)++] = model_key(a, key);
	return list;
}

static void change_orset(struct fn_value *v, struct arena *a, uint64_t *random, delta_t *d)
{
	unsigned removed = v->keys & (unsigned)model_random(random, 1u << MODEL_KEYS);
	unsigned added = (unsigned)model_random(random, 1u << MODEL_KEYS);
	if (!model_random(random, 6)) {
		d->orset->cleared = true;
		v->keys = 0;
	} else if (model_random(random, 2)) {
		d->orset->removed = key_list(a, removed, &d->orset->n_removed);
		v->keys &= ~removed;
	}
	if (model_random(random, 2)) {
		d->orset->added = key_list(a, added, &d->orset->n_added);
		v->keys |= added;
	}
}

static void change_register(struct fn_value *v, struct arena *a, uint64_t *random, delta_t *d)
{
	v->number = (int64_t)model_random(random, MODEL_KEYS);
	d->lwwregister->value = model_key(a, (unsigned)v->number);
	d->lwwregister->clock = (Cloudstate__Crdt__CrdtClock)model_random(random, 4);
	d->lwwregister->custom_clock_value = (int64_t)model_random(random, 2000) - 1000;
}

static Cloudstate__Crdt__ORMapEntryDelta *change_entry(struct fn_value *v, unsigned key, struct arena *a,
							uint64_t *random, unsigned depth)
{
	Cloudstate__Crdt__ORMapEntryDelta *e = made(a, sizeof *e);
	cloudstate__crdt__ormap_entry_delta__init(e);
	e->key = model_key(a, key);
	if (!v->entries[key]) {
		enum crdt_type type = (enum crdt_type)(1 + model_random(random, CRDT_VOTE));
		if (type == CRDT_ORMAP && !depth)
			type = CRDT_ORSET;
		v->entries[key] = fn_new(type);
	}
	e->delta = fn_change(v->entries[key], a, random, depth);
	return e;
}

static void change_map(struct fn_value *v, struct arena *a, uint64_t *random, delta_t *d, unsigned depth)
{
	Cloudstate__Crdt__ORMapDelta *m = d->ormap;
	m->updated = made(a, MODEL_KEYS * sizeof(void *));
	m->added = made(a, MODEL_KEYS * sizeof(void *));
	m->removed = made(a, MODEL_KEYS * sizeof(void *));
	m->cleared = !model_random(random, 8);
	for (unsigned key = 0; key < MODEL_KEYS; key++) {
		bool there = v->entries[key] != NULL;
		if (m->cleared)
			fn_drop(v, key);
		switch (model_random(random, 5)) {
		case 0: /* removed, and now and then added anew */
			if (v->entries[key]) {
				m->removed[m->n_removed++] = model_key(a, key);
				fn_drop(v, key);
			}
			if (there && model_random(random, 2))
				m->added[m->n_added++] = change_entry(v, key, a, random, depth - 1);
			break;
		case 1:
			if (v->entries[key])
				m->updated[m->n_updated++] = change_entry(v, key, a, random, depth - 1);
			else
				m->added[m->n_added++] = change_entry(v, key, a, random, depth - 1);
			break;
		default:
			break;
		}
	}
}

delta_t *fn_change(struct fn_value *v, struct arena *a, uint64_t *random, unsigned depth)
{
	delta_t *d = model_delta(a, v->type);
	unsigned keys;
	switch (v->type) {
	case CRDT_GCOUNTER:
		d->gcounter->increment = model_random(random, 4);
		v->number += (int64_t)d->gcounter->increment;
		break;
	case CRDT_PNCOUNTER:
		d->pncounter->change = (int64_t)model_random(random, 7) - 3;
		v->number += d->pncounter->change;
		break;
	case CRDT_GSET:
		keys = (unsigned)model_random(random, 1u << MODEL_KEYS) & ~v->keys;
		d->gset->added = key_list(a, keys, &d->gset->n_added);
		v->keys |= keys;
		break;
	case CRDT_ORSET:
		change_orset(v, a, random, d);
		break;
	case CRDT_LWWREGISTER:
		change_register(v, a, random, d);
		break;
	case CRDT_FLAG:
		d->flag->value = v->flag = v->flag || model_random(random, 2);
		break;
	case CRDT_VOTE:
		d->vote->self_vote = (protobuf_c_boolean)model_random(random, 2);
		v->votes_for += (int)d->vote->self_vote - (int)v->self;
		v->self = d->vote->self_vote;
		break;
	default:
		change_map(v, a, random, d, depth);
		break;
	}
	return d;
}
