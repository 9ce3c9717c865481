/* The value tree that folds and told values are made of. Private to crdt_*.c.
 *
 * One tree serves both: a told value is one in which every removal has seen everything and no clock counts
 * (enum crdt_mode), so it needs no numbers of its own. Items keep the order in which they came to be. */
#ifndef CAIRN_PROXY_CRDT_NODE_H
#define CAIRN_PROXY_CRDT_NODE_H

#include "base/list.h"
#include "cloudstate/crdt.pb-c.h"
#include "proxy/crdt_fold.h"

typedef Cloudstate__Crdt__CrdtDelta crdt_delta;
typedef Cloudstate__Crdt__ORMapEntryDelta crdt_entry;
typedef Google__Protobuf__Any crdt_any;
#define CRDT_DELTA(NAME) CLOUDSTATE__CRDT__CRDT_DELTA__DELTA_##NAME

struct crdt_node;

/* A session's newest add or update of an item. Session 0: all those that have ended. */
struct crdt_number {
	uint32_t session;
	uint64_t sequence;
};

struct crdt_item {
	struct list_node node;		/* crdt_items.order */
	struct crdt_item *next_in_bucket;
	uint64_t hash;
	uint8_t *key; /* type_url and value, one behind the other */
	uint32_t type_url_bytes, value_bytes;
	uint32_t number_count;
	struct crdt_number *numbers;
	struct crdt_node *entry; /* of a map's */
};

struct crdt_items {
	struct list order;
	struct crdt_item **buckets; /* bucket_count of them, a power of two; NULL while there is no item */
	size_t bucket_count, count;
	uint64_t seed[2];
};

struct crdt_register {
	bool set; /* a value was given: an Any that is not there differs from an empty one */
	uint8_t *value;
	uint32_t type_url_bytes, value_bytes;
	int64_t clock;
};

struct crdt_vote {
	uint32_t *sessions; /* a fold's: whose vote is yes */
	size_t session_count;
	bool self_vote; /* a told value's */
	int32_t votes_for, total_voters;
};

struct crdt_node {
	enum crdt_type type;
	union {
		uint64_t counter; /* of both kinds; two's complement */
		bool flag;
		struct crdt_items items;
		struct crdt_register reg;
		struct crdt_vote vote;
	};
};

enum crdt_mode {
	CRDT_LOG,  /* a record: numbers and clocks decide */
	CRDT_OWN,  /* the function's own change of its value */
	CRDT_TELL, /* a change that the function is told */
};
struct crdt_write {
	enum crdt_mode mode;
	uint32_t session;
	uint64_t sequence, observed;
	bool *ret_switched_off; /* CRDT_OWN: set when a Flag that is set is switched off */
};

struct crdt_node *crdt_node_new(enum crdt_type type); /* at zero */
void crdt_node_free(struct crdt_node *n);	      /* NULL is fine */
/* Applies a delta of the node's type; false: out of memory, the node is half changed. */
bool crdt_node_apply(struct crdt_node *n, const crdt_delta *delta, const struct crdt_write *w);
/* Each item's and vote's numbers of `session` become those of the ended. */
void crdt_node_end_session(struct crdt_node *n, uint32_t session);

size_t crdt_node_bytes(const struct crdt_node *n); /* of memory, about; NULL is fine */
bool crdt_node_has_votes(const struct crdt_node *n);

/* delta_case is one of the eight's. */
enum crdt_type crdt_delta_type(const crdt_delta *delta); /* NULL or unset: CRDT_NONE */

struct crdt_item *crdt_items_find(const struct crdt_items *items, const crdt_any *key);
struct crdt_item *crdt_items_find_same(const struct crdt_items *items, const struct crdt_item *other);
/* The item with that key, made if it is not there; NULL: out of memory. */
struct crdt_item *crdt_items_put(struct crdt_items *items, struct span type_url, struct span value);
bool crdt_item_set_number(struct crdt_item *item, uint32_t session, uint64_t sequence);
bool crdt_register_set(struct crdt_register *reg, bool set, struct span type_url, struct span value);
bool crdt_vote_set(struct crdt_vote *vote, uint32_t session, bool yes);

static inline struct span crdt_item_type_url(const struct crdt_item *i)
{
	return span_of(i->key, i->type_url_bytes);
}
static inline struct span crdt_item_value(const struct crdt_item *i)
{
	return span_of(i->key + i->type_url_bytes, i->value_bytes);
}
static inline struct crdt_item *crdt_items_first(const struct crdt_items *items)
{
	struct list_node *n = list_first(&items->order);
	return n ? (struct crdt_item *)(void *)n : NULL; /* its first member */
}
static inline struct crdt_item *crdt_items_next(const struct crdt_items *items, const struct crdt_item *i)
{
	struct list_node *n = list_next(&items->order, &i->node);
	return n ? (struct crdt_item *)(void *)n : NULL;
}

struct crdt_fold {
	uint32_t magic;
	uint64_t sequence;
	bool deleted;
	uint8_t (*sessions)[CRDT_SESSION_BYTES]; /* session i is at i - 1; all zero: nobody's */
	uint64_t *before; /* session i began before position before[i - 1] */
	size_t session_count;
	struct crdt_node *value; /* NULL: none */
};
#define CRDT_FOLD_MAGIC 0x43724664u
/* The session's number in this fold; 0: it has none. */
uint32_t crdt_fold_session(const struct crdt_fold *f, const uint8_t session[CRDT_SESSION_BYTES]);

#endif
