/* Tiles: see tree_tiles.h. */
#include <config.h>

#include "journal/tree_tiles.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"

#define TILE_HEIGHT 8
#define PAGE_BYTES (1 * MIB)

_Static_assert(STORAGE_TILE_HASHES == 1 << TILE_HEIGHT, "a tile is a whole subtree");
_Static_assert(sizeof(struct tile) == STORAGE_TILE_BYTES, "a tile is stored as it is");

void tiles_init(struct tiles *t, struct storage_reader *reader, atomic_bool *stop)
{
	*t = (struct tiles){.reader = reader, .stop = stop};
	buf_init(&t->page, PAGE_BYTES + LIMIT_RECORD_BYTES);
}

void tiles_release(struct tiles *t)
{
	buf_release(&t->page);
}

static enum err_code check_stop(const struct tiles *t, struct err *err)
{
	return atomic_load(t->stop) ? err_set(err, ERR_UNAVAILABLE, "the journal is stopping") : ERR_OK;
}

/* ---- leaves ------------------------------------------------------------------------------------ */

/* One page of the log from the position on, at most `max` records, as leaf hashes. */
static enum err_code read_leaves(struct tiles *t, uint64_t from, uint64_t below, size_t max, struct tree_hash *ret,
				 size_t *ret_count, struct err *err)
{
	struct storage_query q = {.source = STORAGE_ALL,
				  .include_system = true,
				  .raw = true,
				  .from = from,
				  .below_position = below,
				  .max_bytes = PAGE_BYTES,
				  .max_records = max};
	struct storage_page page;
	struct span entry;
	size_t n = 0;
	buf_clear(&t->page);
	enum err_code code = storage_read(t->reader, &q, &t->page, &page, err);
	for (struct span run = buf_span(&t->page); !code && run.n > 0; n++) {
		struct record_view view;
		must(n < max);
		code = record_next(&run, &entry, NULL, err);
		if (!code)
			code = record_decode(entry, &view, err);
		if (!code && view.position != from + n)
			code = err_set(err, ERR_CORRUPT, "the log has position %llu where %llu should be",
				       (unsigned long long)view.position, (unsigned long long)(from + n));
		if (!code && !(plant("tree-leaf-skipped") && (from + n) % 64 == 5))
			record_leaf(&view, ret[n].bytes);
	}
	if (!code && n == 0)
		code = err_set(err, ERR_CORRUPT, "the log has no record at position %llu", (unsigned long long)from);
	*ret_count = n;
	return code;
}

/* The leaves of one whole tile. */
static enum err_code hash_tile(struct tiles *t, uint64_t index, struct tile *ret, struct err *err)
{
	uint64_t first = index << TILE_HEIGHT, end = first + STORAGE_TILE_HASHES;
	enum err_code code = ERR_OK;
	for (uint64_t at = first; !code && at < end;) {
		size_t n = 0;
		code = read_leaves(t, at, end, (size_t)(end - at), ret->hashes + (at - first), &n, err);
		at += n;
	}
	return code;
}

/* ---- whole tiles ------------------------------------------------------------------------------- */

static void put_tile(struct tiles *t, unsigned level, uint64_t index, const struct tile *tile)
{
	struct err err = {0};
	/* What is not stored now is made again when it is wanted. */
	bool failed = storage_tile_put(t->reader, level, index, tile->hashes[0].bytes, &err) != ERR_OK;
	if (failed && !t->put_failed)
		log_warn("a tile of the tree was not stored; it is made again when it is wanted", LOG_ERR(&err));
	t->put_failed = failed;
}

/* Makes a tile that is not in storage, from the log and from tiles below. */
static enum err_code make_tile(struct tiles *t, unsigned level, uint64_t index, struct tile *ret, struct err *err);

static enum err_code get_tile(struct tiles *t, unsigned level, uint64_t index, struct tile *ret, struct err *err)
{
	enum err_code code = storage_tile_get(t->reader, level, index, ret->hashes[0].bytes, err);
	if (code != ERR_NOT_FOUND)
		return code;
	code = make_tile(t, level, index, ret, err);
	if (!code) {
		metric_add(METRIC_TREE_TILES_REMADE, 1);
		put_tile(t, level, index, ret);
	}
	return code;
}

static enum err_code make_tile(struct tiles *t, unsigned level, uint64_t index, struct tile *ret, struct err *err)
{
	enum err_code code = check_stop(t, err);
	if (code || level == 0)
		return code ? code : hash_tile(t, index, ret, err);
	struct tile *below = mem_xalloc(sizeof(*below));
	for (size_t i = 0; i < STORAGE_TILE_HASHES && !code; i++) {
		code = get_tile(t, level - 1, (index << TILE_HEIGHT) + i, below, err);
		if (!code)
			tree_fold(below->hashes, STORAGE_TILE_HASHES, &ret->hashes[i]);
	}
	mem_free(below);
	return code;
}

/* The same, remembered; *ret is good until the next call. */
static enum err_code look_tile(struct tiles *t, unsigned level, uint64_t index, const struct tile **ret,
			       struct err *err)
{
	size_t oldest = 0;
	for (size_t i = 0; i < TILES_CACHED; i++) {
		if (t->cached_is[i].used && t->cached_is[i].level == level && t->cached_is[i].index == index) {
			t->cached_is[i].used = ++t->clock;
			*ret = &t->cached[i];
			return ERR_OK;
		}
		if (t->cached_is[i].used < t->cached_is[oldest].used)
			oldest = i;
	}
	t->cached_is[oldest].used = 0;
	enum err_code code = get_tile(t, level, index, &t->cached[oldest], err);
	if (code)
		return code;
	t->cached_is[oldest].level = level;
	t->cached_is[oldest].index = index;
	t->cached_is[oldest].used = ++t->clock;
	*ret = &t->cached[oldest];
	return ERR_OK;
}

/* ---- growing ----------------------------------------------------------------------------------- */

static unsigned edge_count(const struct tiles *t, unsigned level)
{
	return (unsigned)(t->size >> (TILE_HEIGHT * level)) % STORAGE_TILE_HASHES;
}

/* The tile of level 0 behind the size is whole. Its root goes one level up, and so on. */
static void close_tile(struct tiles *t)
{
	struct tree_hash root;
	tree_fold(t->edge[0].hashes, STORAGE_TILE_HASHES, &root);
	for (unsigned level = 1; level < STORAGE_TILE_LEVELS; level++) {
		/* The size has this tile already: its last hash is the one before the next. */
		uint64_t at = (t->size >> (TILE_HEIGHT * level)) - 1;
		t->edge[level].hashes[at % STORAGE_TILE_HASHES] = root;
		if (at % STORAGE_TILE_HASHES != STORAGE_TILE_HASHES - 1)
			return;
		put_tile(t, level, at >> TILE_HEIGHT, &t->edge[level]);
		tree_fold(t->edge[level].hashes, STORAGE_TILE_HASHES, &root);
	}
}

static enum err_code take_tile(struct tiles *t, struct err *err)
{
	enum err_code code = storage_tile_get(t->reader, 0, t->size >> TILE_HEIGHT, t->edge[0].hashes[0].bytes, err);
	if (code)
		return code;
	t->size += STORAGE_TILE_HASHES;
	close_tile(t);
	return ERR_OK;
}

enum err_code tiles_step(struct tiles *t, uint64_t head, bool shared, struct err *err)
{
	unsigned have = edge_count(t, 0);
	size_t n = 0;
	must(t->size < head);
	if (shared && have == 0 && head - t->size >= STORAGE_TILE_HASHES) {
		enum err_code code = take_tile(t, err);
		if (code != ERR_NOT_FOUND)
			return code;
	}
	enum err_code code =
		read_leaves(t, t->size, head, STORAGE_TILE_HASHES - have, t->edge[0].hashes + have, &n, err);
	if (code)
		return code;
	t->size += n;
	if (have + n == STORAGE_TILE_HASHES) {
		put_tile(t, 0, (t->size >> TILE_HEIGHT) - 1, &t->edge[0]);
		close_tile(t);
	}
	return ERR_OK;
}

/* ---- beginning --------------------------------------------------------------------------------- */

static enum err_code is_there(struct tiles *t, uint64_t index, struct tile *room, bool *ret, struct err *err)
{
	enum err_code code = storage_tile_get(t->reader, 0, index, room->hashes[0].bytes, err);
	*ret = code == ERR_OK;
	return code == ERR_NOT_FOUND ? ERR_OK : code;
}

/* How many tiles of level 0 there are, at most `most`: the last of them is there, and the one behind it is not. */
static enum err_code count_tiles(struct tiles *t, uint64_t most, struct tile *room, uint64_t *ret, struct err *err)
{
	uint64_t low = most, high = most, stride = 1;
	bool there = false;
	enum err_code code = ERR_OK;
	while (low > 0 && !there && !code) {
		high = low;
		code = is_there(t, low - 1, room, &there, err);
		if (!there) {
			low = low > stride ? low - stride : 0;
			stride *= 2;
		}
	}
	/* low tiles are there (or none), the one at high - 1 is not, unless they are the same. */
	while (!code && high - low > 1) {
		uint64_t middle = low + (high - low) / 2;
		code = is_there(t, middle - 1, room, &there, err);
		*(there ? &low : &high) = middle;
	}
	*ret = low;
	return code;
}

static enum err_code fill_edge(struct tiles *t, struct tile *room, struct err *err)
{
	enum err_code code = ERR_OK;
	for (unsigned level = 1; level < STORAGE_TILE_LEVELS && !code; level++) {
		uint64_t end = t->size >> (TILE_HEIGHT * level);
		uint64_t first = end & ~(uint64_t)(STORAGE_TILE_HASHES - 1);
		for (uint64_t at = first; at < end && !code; at++) {
			code = get_tile(t, level - 1, at, room, err);
			if (!code)
				tree_fold(room->hashes, STORAGE_TILE_HASHES, &t->edge[level].hashes[at - first]);
		}
	}
	return code;
}

enum err_code tiles_resume(struct tiles *t, uint64_t head, struct err *err)
{
	struct tile *stored = mem_xalloc(sizeof(*stored)), *hashed = mem_xalloc(sizeof(*hashed));
	uint64_t count = 0;
	enum err_code code = count_tiles(t, head >> TILE_HEIGHT, stored, &count, err);
	if (!code && count > 0) {
		code = storage_tile_get(t->reader, 0, count - 1, stored->hashes[0].bytes, err);
		if (!code)
			code = hash_tile(t, count - 1, hashed, err);
		if (!code && memcmp(stored, hashed, sizeof(*stored)) != 0) {
			log_warn("the tiles of the tree are not of this log: they are made anew",
				 LOG_U64("position", (count - 1) << TILE_HEIGHT));
			count = 0;
		}
	}
	t->size = count << TILE_HEIGHT;
	memset(t->cached_is, 0, sizeof(t->cached_is));
	if (!code)
		code = fill_edge(t, stored, err);
	mem_free(stored);
	mem_free(hashed);
	return code;
}

/* ---- a source for proofs ----------------------------------------------------------------------- */

static enum err_code tiles_node(void *arg, unsigned height, uint64_t index, struct tree_hash *ret, struct err *err)
{
	struct tiles *t = arg;
	unsigned level = height / TILE_HEIGHT, above = height % TILE_HEIGHT;
	uint64_t first = index << above, tile = first >> TILE_HEIGHT;
	const struct tile *hashes = &t->edge[level];
	must(level < STORAGE_TILE_LEVELS);
	must((index + 1) << height <= t->size);
	if (level + 1 < STORAGE_TILE_LEVELS && tile < t->size >> (TILE_HEIGHT * (level + 1))) {
		enum err_code code = look_tile(t, level, tile, &hashes, err);
		if (code)
			return code;
	}
	tree_fold(hashes->hashes + first % STORAGE_TILE_HASHES, (size_t)1 << above, ret);
	return ERR_OK;
}

struct tree_source tiles_source(struct tiles *t)
{
	return (struct tree_source){tiles_node, t};
}
