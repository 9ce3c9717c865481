/* The memory backend: the log in memory, gone with the process. For tests, for development, and as the
 * plainest statement of the contract.
 *
 * One read-write lock. Batches, streams and categories are only ever added to, so a record's bytes stay
 * where they are until the store is closed. Lists of positions ascend, and every read is a binary
 * search followed by a walk. */
#include <config.h>

#include "storage/memory/memory.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "storage/sessions.h"

#define MEMORY_MAGIC 0x6d656d73u
#define READER_MAGIC 0x6d656d72u

/* Positions, ascending. */
struct positions {
	uint64_t *p;
	size_t n, cap, pending; /* pending: room that the batch being prepared will need */
};

struct stream {
	struct span name; /* owned */
	struct category *category;
	struct positions all, sequenced, snapshots; /* sequenced: kinds that take a sequence */
	uint64_t sequence;
};

struct category {
	struct positions all;
};

struct record {
	struct span bytes; /* in a batch's block */
	struct stream *stream;
	uint64_t sequence;
	struct wall_time commit_time;
	uint8_t id[RECORD_ID_BYTES];
	uint32_t kind;
	bool last_of_append;
};

struct block { /* of one batch's bytes */
	struct block *next;
};

struct memory {
	struct storage base;
	uint32_t magic;
	uint8_t journal_id[UUID_BYTES];

	struct session_rows sessions; /* the sequencer's thread alone */
	pthread_rwlock_t lock; /* guards all below */
	struct record *records;
	size_t count, cap;
	struct block *blocks;
	struct map streams, categories; /* name -> struct stream, struct category */
	/* Ids: position + 1 by hash, linear probing, at most half full. */
	uint64_t *ids;
	size_t ids_cap;
	uint64_t ids_seed[2];
	/* All streams by name: the first `sorted` of them are in order. */
	struct stream **by_name;
	size_t by_name_count, by_name_cap, sorted;
};

struct memory_reader {
	struct storage_reader base;
	uint32_t magic;
	struct memory *memory;
};

static storage_open_fn memory_open;
static storage_close_fn memory_close;
static storage_head_fn memory_head;
static storage_lookup_fn memory_lookup;
static storage_append_fn memory_append;
static storage_session_beat_fn memory_session_beat;
static storage_reader_open_fn memory_reader_open;
static storage_reader_close_fn memory_reader_close;
static storage_read_fn memory_read;
static storage_snapshot_fn memory_snapshot;
static storage_list_fn memory_list;
static storage_stat_fn memory_stat;

const struct storage_ops storage_memory = {
	.name = "memory",
	.open = memory_open,
	.close = memory_close,
	.head = memory_head,
	.lookup = memory_lookup,
	.append = memory_append,
	.session_beat = memory_session_beat,
	.reader_open = memory_reader_open,
	.reader_close = memory_reader_close,
	.read = memory_read,
	.snapshot = memory_snapshot,
	.list = memory_list,
	.stat = memory_stat,
};

static struct memory *memory_of(struct storage *s)
{
	struct memory *m = CONTAINER_OF(s, struct memory, base);
	must(m->magic == MEMORY_MAGIC);
	return m;
}

static struct memory *memory_of_reader(struct storage_reader *r)
{
	struct memory_reader *reader = CONTAINER_OF(r, struct memory_reader, base);
	must(reader->magic == READER_MAGIC);
	return reader->memory;
}

static void lock_read(struct memory *m)
{
	int r = pthread_rwlock_rdlock(&m->lock);
	must(r == 0);
}

static void lock_write(struct memory *m)
{
	int r = pthread_rwlock_wrlock(&m->lock);
	must(r == 0);
}

static void unlock(struct memory *m)
{
	int r = pthread_rwlock_unlock(&m->lock);
	must(r == 0);
}

/* ---- opening --------------------------------------------------------------------------------- */

static enum err_code memory_open(const struct storage_config *config, struct storage **ret, struct err *err)
{
	if (config->location.n > 0)
		return err_set(err, ERR_INVALID, "storage \"memory\" takes no location: \"%.*s\" was given",
			       SPAN_ARG(config->location));
	struct memory *m = mem_xalloc(sizeof(*m));
	m->base.ops = &storage_memory;
	m->magic = MEMORY_MAGIC;
	uuid_v4(m->journal_id);
	session_rows_init(&m->sessions);
	map_init(&m->streams);
	map_init(&m->categories);
	m->ids_seed[0] = random_u64();
	m->ids_seed[1] = random_u64();
	/* The one writer must not starve behind readers that follow one another. */
	pthread_rwlockattr_t attr;
	int r = pthread_rwlockattr_init(&attr);
	must(r == 0);
	r = pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	must(r == 0);
	r = pthread_rwlock_init(&m->lock, &attr);
	must(r == 0);
	pthread_rwlockattr_destroy(&attr);
	*ret = &m->base;
	return ERR_OK;
}

static void stream_free(struct stream *s)
{
	mem_free(s->all.p);
	mem_free(s->sequenced.p);
	mem_free(s->snapshots.p);
	mem_free((void *)(uintptr_t)s->name.p);
	mem_free(s);
}

static void category_free(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	struct category *c = value;
	mem_free(c->all.p);
	mem_free(c);
}

static void memory_close(struct storage *s)
{
	struct memory *m = memory_of(s);
	for (size_t i = 0; i < m->by_name_count; i++)
		stream_free(m->by_name[i]);
	map_each(&m->categories, category_free, NULL);
	map_release(&m->streams);
	map_release(&m->categories);
	while (m->blocks) {
		struct block *next = m->blocks->next;
		mem_free(m->blocks);
		m->blocks = next;
	}
	session_rows_release(&m->sessions);
	mem_free(m->by_name);
	mem_free(m->ids);
	mem_free(m->records);
	pthread_rwlock_destroy(&m->lock);
	m->magic = 0;
	mem_free(m);
}

static void memory_head(struct storage *s, struct storage_head *ret)
{
	struct memory *m = memory_of(s);
	lock_read(m);
	*ret = (struct storage_head){.incarnation = 1, .head = m->count};
	memcpy(ret->journal_id, m->journal_id, sizeof(ret->journal_id));
	if (m->count > 0)
		ret->last_commit = m->records[m->count - 1].commit_time;
	unlock(m);
}

/* ---- facts ----------------------------------------------------------------------------------- */

/* The slot of an id: the one that holds it, or the free one where it belongs. */
static uint64_t *id_slot(struct memory *m, const uint8_t *id)
{
	must(m->ids_cap > 0);
	size_t i = hash_bytes(m->ids_seed, span_of(id, RECORD_ID_BYTES)) & (m->ids_cap - 1);
	while (m->ids[i] && memcmp(m->records[m->ids[i] - 1].id, id, RECORD_ID_BYTES) != 0)
		i = (i + 1) & (m->ids_cap - 1);
	return &m->ids[i];
}

static enum err_code id_fact(struct memory *m, struct storage_id_fact *fact, struct arena *a)
{
	uint64_t slot = m->ids_cap ? *id_slot(m, fact->id) : 0;
	fact->exists = slot != 0;
	if (!fact->exists)
		return ERR_OK;
	const struct record *r = &m->records[slot - 1];
	fact->position = slot - 1;
	fact->sequence = r->sequence;
	fact->commit_time = r->commit_time;
	fact->kind = r->kind;
	fact->last_of_append = r->last_of_append;
	fact->stream = arena_dup(a, r->stream->name);
	return fact->stream.p ? ERR_OK : ERR_NOMEM;
}

static enum err_code memory_lookup(struct storage *s, struct storage_stream_fact *streams,
				   size_t stream_count, struct storage_id_fact *ids, size_t id_count,
				   struct arena *a, uint64_t *ret_head, struct err *err)
{
	struct memory *m = memory_of(s);
	enum err_code code = ERR_OK;
	lock_read(m);
	for (size_t i = 0; i < stream_count; i++) {
		const struct stream *stream = map_get(&m->streams, streams[i].name);
		streams[i].exists = stream && stream->all.n > 0;
		streams[i].sequence = stream ? stream->sequence : 0;
		streams[i].live_records = stream ? stream->all.n : 0;
	}
	for (size_t i = 0; i < id_count && !code; i++)
		code = id_fact(m, &ids[i], a);
	if (!code)
		*ret_head = m->count;
	unlock(m);
	return code ? err_set(err, code, "no memory for the facts of %zu records", id_count) : ERR_OK;
}

/* ---- appending ------------------------------------------------------------------------------- */

static bool positions_room(struct positions *list)
{
	size_t need = list->n + ++list->pending;
	if (need <= list->cap)
		return true;
	size_t cap = list->cap ? list->cap * 2 : 4;
	uint64_t *p = mem_try_realloc(list->p, cap * sizeof(*p));
	if (!p)
		return false;
	list->p = p;
	list->cap = cap;
	return true;
}

static void positions_add(struct positions *list, uint64_t position)
{
	must(list->n < list->cap);
	list->p[list->n++] = position;
	list->pending = 0;
}

static struct stream *stream_of(struct memory *m, struct span name)
{
	struct stream *stream = map_get(&m->streams, name);
	if (stream)
		return stream;
	stream = mem_xalloc(sizeof(*stream));
	stream->name = span_of(mem_xdup(name.p, name.n), name.n);
	struct span category = record_category(name);
	stream->category = map_get(&m->categories, category);
	if (!stream->category) {
		stream->category = mem_xalloc(sizeof(*stream->category));
		map_put(&m->categories, category, stream->category);
	}
	map_put(&m->streams, name, stream);
	if (m->by_name_count == m->by_name_cap) {
		m->by_name_cap = m->by_name_cap ? m->by_name_cap * 2 : 64;
		m->by_name = mem_xrealloc(m->by_name, m->by_name_cap * sizeof(struct stream *));
	}
	m->by_name[m->by_name_count++] = stream;
	return stream;
}

static bool ids_room(struct memory *m, size_t more)
{
	size_t need = (m->count + more) * 2;
	if (need <= m->ids_cap)
		return true;
	size_t cap = m->ids_cap ? m->ids_cap : 256;
	while (cap < need)
		cap *= 2;
	uint64_t *ids = mem_try_alloc(cap * sizeof(*ids));
	if (!ids)
		return false;
	memset(ids, 0, cap * sizeof(*ids));
	mem_free(m->ids);
	m->ids = ids;
	m->ids_cap = cap;
	for (size_t i = 0; i < m->count; i++)
		*id_slot(m, m->records[i].id) = i + 1;
	return true;
}

static bool records_room(struct memory *m, size_t more)
{
	if (m->count + more <= m->cap)
		return true;
	size_t cap = m->cap ? m->cap * 2 : 256;
	while (cap < m->count + more)
		cap *= 2;
	struct record *records = mem_try_realloc(m->records, cap * sizeof(*records));
	if (!records)
		return false;
	m->records = records;
	m->cap = cap;
	return true;
}

/* All memory that the batch needs, so that nothing can fail once it is being written. */
static struct block *append_prepare(struct memory *m, const struct storage_record *records, size_t count)
{
	size_t bytes = 0;
	if (!records_room(m, count) || !ids_room(m, count))
		return NULL;
	for (size_t i = 0; i < count; i++) {
		struct stream *stream = stream_of(m, records[i].stream);
		bytes += records[i].bytes.n;
		if (!positions_room(&stream->all) || !positions_room(&stream->category->all))
			return NULL;
		if (record_kind_takes_sequence(records[i].kind) && !positions_room(&stream->sequenced))
			return NULL;
		if (records[i].kind == RECORD_SNAPSHOT && !positions_room(&stream->snapshots))
			return NULL;
	}
	return mem_try_alloc(sizeof(struct block) + bytes);
}

static void append_forget(struct memory *m, const struct storage_record *records, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct stream *stream = map_get(&m->streams, records[i].stream);
		if (!stream)
			continue;
		stream->all.pending = stream->sequenced.pending = stream->snapshots.pending = 0;
		stream->category->all.pending = 0;
	}
}

static void append_one(struct memory *m, const struct storage_record *r, uint8_t *bytes)
{
	struct stream *stream = map_get(&m->streams, r->stream);
	uint64_t position = m->count;
	must(stream);
	must(r->position == position);
	memcpy(bytes, r->bytes.p, r->bytes.n);
	struct record *record = &m->records[m->count];
	*record = (struct record){.bytes = span_of(bytes, r->bytes.n),
				  .stream = stream,
				  .sequence = r->sequence,
				  .commit_time = r->commit_time,
				  .kind = r->kind,
				  .last_of_append = r->last_of_append};
	memcpy(record->id, r->id, RECORD_ID_BYTES);
	*id_slot(m, r->id) = position + 1;
	m->count++;
	positions_add(&stream->all, position);
	positions_add(&stream->category->all, position);
	if (record_kind_takes_sequence(r->kind)) {
		positions_add(&stream->sequenced, position);
		stream->sequence = r->sequence;
	}
	if (r->kind == RECORD_SNAPSHOT)
		positions_add(&stream->snapshots, position);
}

static enum storage_outcome memory_append(struct storage *s, uint64_t expected_head,
					  const struct storage_record *records, size_t count, struct err *err)
{
	struct memory *m = memory_of(s);
	enum storage_outcome outcome = STORAGE_OK;
	lock_write(m);
	if (expected_head != m->count || !session_rows_hold(&m->sessions, records, count)) {
		outcome = STORAGE_MOVED;
	} else if (count > 0) {
		struct block *block = append_prepare(m, records, count);
		if (block) {
			block->next = m->blocks;
			m->blocks = block;
			uint8_t *at = (uint8_t *)(block + 1);
			for (size_t i = 0; i < count; i++) {
				append_one(m, &records[i], at);
				at += records[i].bytes.n;
			}
			session_rows_commit(&m->sessions, records, count);
		} else {
			append_forget(m, records, count);
			outcome = STORAGE_FULL;
			err_set(err, ERR_FULL, "no memory for %zu more records", count);
		}
	}
	unlock(m);
	return outcome;
}

static enum err_code memory_session_beat(struct storage *s, enum storage_beat beat,
					 struct storage_session *sessions, size_t count, struct err *err)
{
	(void)err;
	session_rows_beat(&memory_of(s)->sessions, beat, sessions, count);
	return ERR_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum err_code memory_reader_open(struct storage *s, struct storage_reader **ret, struct err *err)
{
	(void)err;
	struct memory_reader *reader = mem_xalloc(sizeof(*reader));
	reader->base.storage = s;
	reader->magic = READER_MAGIC;
	reader->memory = memory_of(s);
	*ret = &reader->base;
	return ERR_OK;
}

static void memory_reader_close(struct storage_reader *r)
{
	struct memory_reader *reader = CONTAINER_OF(r, struct memory_reader, base);
	must(reader->magic == READER_MAGIC);
	reader->magic = 0;
	mem_free(reader);
}

/* How many of the list are below the position. */
static size_t positions_below(const struct positions *list, uint64_t position)
{
	size_t low = 0, high = list->n;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (list->p[mid] < position)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* How many of the list's records have a sequence of at most this one. */
static size_t sequences_up_to(const struct memory *m, const struct positions *list, uint64_t sequence)
{
	size_t low = 0, high = list->n;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (m->records[list->p[mid]].sequence <= sequence)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Where a read walks: a list of positions, or (list NULL) all of them. */
struct walk {
	const struct positions *list;
	uint64_t from, below; /* positions; backward: from is inclusive */
	bool nothing;
};

static uint64_t walk_from_sequence(const struct memory *m, const struct stream *stream,
				   const struct storage_query *q, bool *ret_nothing)
{
	const struct positions *list = &stream->sequenced;
	if (!q->backward) {
		size_t before = q->from ? sequences_up_to(m, list, q->from - 1) : 0;
		*ret_nothing = before == list->n;
		return *ret_nothing ? m->count : list->p[before];
	}
	size_t upto = sequences_up_to(m, list, q->from);
	if (upto == list->n)
		return UINT64_MAX;
	*ret_nothing = list->p[upto] == 0;
	return *ret_nothing ? 0 : list->p[upto] - 1;
}

static struct walk walk_of(const struct memory *m, const struct storage_query *q)
{
	struct walk w = {.from = q->from, .below = q->below_position};
	if (w.below > m->count)
		w.below = m->count;
	if (q->source == STORAGE_CATEGORY) {
		const struct category *category = map_get(&m->categories, q->name);
		w.list = category ? &category->all : NULL;
		w.nothing = !category;
	} else if (q->source == STORAGE_STREAM) {
		const struct stream *stream = map_get(&m->streams, q->name);
		w.list = stream ? &stream->all : NULL;
		w.nothing = !stream;
		if (stream && q->by_sequence)
			w.from = walk_from_sequence(m, stream, q, &w.nothing);
	}
	return w;
}

static bool wanted(const struct storage_query *q, const struct record *r)
{
	if (q->kinds && (r->kind > 31 || !(q->kinds & 1u << r->kind)))
		return false;
	return q->source != STORAGE_ALL || q->include_system || !record_stream_is_system(r->stream->name);
}

/* Counts what was looked at and is not wanted; is it enough? */
static bool scan_is_over(const struct storage_query *q, size_t bytes, struct storage_page *page)
{
	page->scanned_bytes += q->source == STORAGE_ALL ? bytes : STORAGE_ENTRY_BYTES;
	return q->max_scan_bytes && page->scanned_bytes >= q->max_scan_bytes;
}

static enum err_code read_walk(const struct memory *m, const struct storage_query *q, const struct walk *w,
			       struct buf *out, struct storage_page *page)
{
	/* Indexes into the list, or positions: [low, high). */
	size_t low, high;
	if (q->backward) {
		uint64_t top = w->from < w->below ? w->from + 1 : w->below;
		low = 0;
		high = w->list ? positions_below(w->list, top) : top;
	} else {
		low = w->list ? positions_below(w->list, w->from) : w->from;
		high = w->list ? positions_below(w->list, w->below) : w->below;
	}
	size_t start = out->n;
	while (low < high) {
		size_t i = q->backward ? high - 1 : low;
		uint64_t position = w->list ? w->list->p[i] : i;
		const struct record *r = &m->records[position];
		if (wanted(q, r)) {
			bool full = out->n - start + r->bytes.n > q->max_bytes ||
				    (q->max_records && page->records == q->max_records);
			if (page->records > 0 && full) {
				page->next = position;
				return ERR_OK;
			}
			enum err_code code = buf_append_span(out, r->bytes);
			if (code)
				return code;
			page->records++;
		}
		if (q->backward)
			high--;
		else
			low++;
		if (!wanted(q, r) && scan_is_over(q, r->bytes.n, page) && low < high) {
			page->next = q->backward ? position - 1 : position + 1;
			return ERR_OK;
		}
	}
	page->end = true;
	page->next = q->backward ? 0 : w->below > w->from ? w->below : w->from;
	return ERR_OK;
}

static enum err_code memory_read(struct storage_reader *r, const struct storage_query *q, struct buf *out,
				 struct storage_page *ret, struct err *err)
{
	struct memory *m = memory_of_reader(r);
	struct storage_page page = {0};
	size_t start = out->n;
	enum err_code code = ERR_OK;
	lock_read(m);
	struct walk w = walk_of(m, q);
	if (w.nothing) {
		page.end = true;
		bool beyond = !q->by_sequence && q->from > w.below;
		page.next = q->backward ? 0 : beyond ? q->from : w.below;
	} else {
		code = read_walk(m, q, &w, out, &page);
	}
	unlock(m);
	if (code) {
		out->n = start;
		return err_set(err, code, "no room for a page of %zu bytes", q->max_bytes);
	}
	*ret = page;
	return ERR_OK;
}

static enum err_code memory_snapshot(struct storage_reader *r, struct span stream, uint64_t at_sequence,
				     uint64_t below_position, struct buf *out, struct err *err)
{
	struct memory *m = memory_of_reader(r);
	enum err_code code = ERR_NOT_FOUND;
	lock_read(m);
	const struct stream *s = map_get(&m->streams, stream);
	if (s) {
		size_t n = positions_below(&s->snapshots, below_position);
		size_t upto = sequences_up_to(m, &s->snapshots, at_sequence);
		n = upto < n ? upto : n;
		if (n > 0) {
			struct span bytes = m->records[s->snapshots.p[n - 1]].bytes;
			code = buf_append_span(out, bytes);
			if (code)
				err_set(err, code, "no room for a snapshot of %zu bytes", bytes.n);
		}
	}
	unlock(m);
	return code;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static int by_name_compare(const void *a, const void *b)
{
	return span_cmp((*(struct stream *const *)a)->name, (*(struct stream *const *)b)->name);
}

/* Under the write lock. */
static void by_name_sort(struct memory *m)
{
	if (m->sorted == m->by_name_count)
		return;
	qsort(m->by_name, m->by_name_count, sizeof(*m->by_name), by_name_compare);
	m->sorted = m->by_name_count;
}

static bool info_of(const struct stream *s, struct arena *a, struct storage_stream_info *ret)
{
	*ret = (struct storage_stream_info){.name = arena_dup(a, s->name),
					    .sequence = s->sequence,
					    .records = s->all.n,
					    .first_position = s->all.p[0],
					    .last_position = s->all.p[s->all.n - 1]};
	return ret->name.p != NULL;
}

/* Index of the first name that is not below prefix and is above `after`. */
static size_t list_start(const struct memory *m, struct span prefix, struct span after)
{
	size_t low = 0, high = m->by_name_count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		struct span name = m->by_name[mid]->name;
		bool below = span_cmp(name, prefix) < 0 || (after.n > 0 && span_cmp(name, after) <= 0);
		if (below)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static enum err_code memory_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
				 struct arena *a, struct storage_stream_info *ret, size_t *ret_count,
				 struct err *err)
{
	struct memory *m = memory_of_reader(r);
	size_t count = 0;
	enum err_code code = ERR_OK;
	lock_write(m);
	by_name_sort(m);
	for (size_t i = list_start(m, prefix, after); i < m->by_name_count && count < max && !code; i++) {
		const struct stream *s = m->by_name[i];
		if (!span_starts(s->name, prefix))
			break;
		if (s->all.n == 0) /* only ever in a batch that did not fit */
			continue;
		if (info_of(s, a, &ret[count]))
			count++;
		else
			code = ERR_NOMEM;
	}
	unlock(m);
	if (code)
		return err_set(err, code, "no memory for a list of %zu streams", max);
	*ret_count = count;
	return ERR_OK;
}

static enum err_code memory_stat(struct storage_reader *r, struct span stream, struct arena *a,
				 struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	struct memory *m = memory_of_reader(r);
	bool ok = true;
	lock_read(m);
	const struct stream *s = map_get(&m->streams, stream);
	bool exists = s && s->all.n > 0;
	if (exists)
		ok = info_of(s, a, ret);
	unlock(m);
	if (!ok)
		return err_set(err, ERR_NOMEM, "no memory for a stream's name");
	*ret_exists = exists;
	return ERR_OK;
}
