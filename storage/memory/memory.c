/* The memory backend: the log in memory, gone with the process. For tests, for development, and as the
 * plainest statement of the contract.
 *
 * One read-write lock. Streams and categories are only ever added to, and so are the lists of positions, which
 * ascend: every read is a binary search followed by a walk, which passes over what is withheld or removed. */
#include <config.h>

#include "storage/memory/memory.h"

#include "base/mem.h"
#include "storage/memory/internal.h"

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
	.unit = memory_unit,
	.close_unit = memory_close_unit,
	.remove = memory_remove,
	.tile_put = memory_tile_put,
	.tile_get = memory_tile_get,
};

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
	m->marks = marks_new();
	map_init(&m->streams);
	map_init(&m->categories);
	map_init(&m->tiles);
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
	memory_tiles_free(m);
	for (size_t i = 0; i < m->count; i++)
		memory_bytes_drop(&m->records[i]);
	marks_free(m->marks);
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
	*ret = (struct storage_head){.head = m->count};
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
	fact->exists = slot != 0 && !m->records[slot - 1].removed;
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
		streams[i].live_records = stream ? stream->live : 0;
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

static void act_apply(struct memory *m, struct stream *stream, const struct storage_record *r)
{
	struct span run = r->bytes, entry;
	struct record_view view;
	struct record_act act;
	if (record_next(&run, &entry, NULL, NULL) || record_decode_trusted(entry, &view, NULL) ||
	    !record_act_get(&view, &act))
		return;
	marks_apply(m->marks, stream->name, r->position, &act);
	if (act.hide_below <= stream->hidden_below)
		return;
	for (size_t i = 0; i < stream->all.n && stream->all.p[i] < act.hide_below; i++)
		stream->live -= memory_is_live(stream, &m->records[stream->all.p[i]], stream->all.p[i]);
	stream->hidden_below = act.hide_below;
}

static void append_one(struct memory *m, const struct storage_record *r, struct block *block, uint8_t *bytes)
{
	struct stream *stream = map_get(&m->streams, r->stream);
	uint64_t position = m->count;
	must(stream);
	must(r->position == position);
	memcpy(bytes, r->bytes.p, r->bytes.n);
	struct record *record = &m->records[m->count];
	*record = (struct record){.bytes = span_of(bytes, r->bytes.n),
				  .block = block,
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
	stream->live += record_kind_is_content(r->kind);
	block->used++;
	act_apply(m, stream, r);
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
			block->used = 0;
			uint8_t *at = (uint8_t *)(block + 1);
			for (size_t i = 0; i < count; i++) {
				append_one(m, &records[i], block, at);
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

/* The first of the records with a sequence, from the i-th on, that is given to readers. */
static size_t next_given(const struct memory *m, const struct stream *stream, size_t i)
{
	for (; i < stream->sequenced.n; i++) {
		uint64_t position = stream->sequenced.p[i];
		const struct record *r = &m->records[position];
		if (!r->removed && (!record_kind_is_content(r->kind) || position >= stream->hidden_below))
			break;
	}
	return i;
}

static uint64_t walk_from_sequence(const struct memory *m, const struct stream *stream,
				   const struct storage_query *q, bool *ret_nothing)
{
	const struct positions *list = &stream->sequenced;
	if (!q->backward) {
		size_t before = next_given(m, stream, q->from ? sequences_up_to(m, list, q->from - 1) : 0);
		*ret_nothing = before == list->n;
		return *ret_nothing ? m->count : list->p[before];
	}
	size_t upto = next_given(m, stream, sequences_up_to(m, list, q->from));
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
	if (q->raw)
		return true;
	if (r->removed)
		return false;
	if (q->kinds && (r->kind > 31 || !(q->kinds & 1u << r->kind)))
		return false;
	return q->source != STORAGE_ALL || q->include_system || !record_stream_is_system(r->stream->name);
}

struct memory_page {
	const struct storage_query *q;
	struct storage_page page;
	size_t start; /* out->n before */
};

/* Counts what was looked at and is not wanted; is it enough? */
static bool scan_is_over(struct memory_page *p, size_t bytes)
{
	p->page.scanned_bytes += p->q->source == STORAGE_ALL ? bytes : STORAGE_ENTRY_BYTES;
	return p->q->max_scan_bytes && p->page.scanned_bytes >= p->q->max_scan_bytes;
}

static bool page_is_full(const struct memory_page *p, const struct buf *out, size_t bytes)
{
	const struct storage_query *q = p->q;
	return p->page.records > 0 && (out->n - p->start + bytes > q->max_bytes ||
				       (q->max_records && p->page.records == q->max_records));
}

/* Appends the record as it is given, if it is, unless there is no room for it in the page. */
static enum err_code put_marked(const struct memory *m, const struct record *r, struct memory_page *page,
				struct buf *out, bool *ret_full, bool *ret_hidden)
{
	struct span run = r->bytes, entry;
	size_t before = out->n;
	enum err_code code = ERR_OK;
	must(record_next(&run, &entry, NULL, NULL) == ERR_OK);
	enum mark mark = page->q->raw ? MARK_NONE : marks_look(m->marks, entry);
	*ret_full = false;
	*ret_hidden = mark == MARK_HIDDEN;
	if (*ret_hidden)
		return ERR_OK;
	if (mark == MARK_ERASED) {
		struct record_view view;
		must(record_decode_trusted(entry, &view, NULL) == ERR_OK);
		code = record_put_erased(out, &view);
		size_t bytes = out->n - before;
		out->n = before;
		*ret_full = page_is_full(page, out, bytes);
		out->n += *ret_full ? 0 : bytes;
	} else {
		*ret_full = page_is_full(page, out, r->bytes.n);
		if (!*ret_full)
			code = buf_append_span(out, r->bytes);
	}
	page->page.records += !*ret_full && !code;
	return code;
}

static enum err_code read_walk(const struct memory *m, const struct storage_query *q, const struct walk *w,
			       struct buf *out, struct storage_page *ret)
{
	struct memory_page page = {.q = q, .start = out->n};
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
	while (low < high) {
		size_t i = q->backward ? high - 1 : low;
		uint64_t position = w->list ? w->list->p[i] : i;
		const struct record *r = &m->records[position];
		bool given = wanted(q, r);
		if (given) {
			bool full, hidden;
			enum err_code code = put_marked(m, r, &page, out, &full, &hidden);
			given = !hidden;
			if (code)
				return code;
			if (full) {
				*ret = page.page;
				ret->next = position;
				return ERR_OK;
			}
		}
		if (q->backward)
			high--;
		else
			low++;
		if (!given && scan_is_over(&page, r->bytes.n) && low < high) {
			*ret = page.page;
			ret->next = q->backward ? position - 1 : position + 1;
			return ERR_OK;
		}
	}
	*ret = page.page;
	ret->end = true;
	ret->next = q->backward ? 0 : w->below > w->from ? w->below : w->from;
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

static bool snapshot_is_given(const struct memory *m, uint64_t position)
{
	struct span run = m->records[position].bytes, entry;
	struct record_view view;
	must(record_next(&run, &entry, NULL, NULL) == ERR_OK);
	must(record_decode_trusted(entry, &view, NULL) == ERR_OK);
	return view.content == RECORD_BODY && marks_look(m->marks, entry) == MARK_NONE;
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
		while (n > 0 && !snapshot_is_given(m, s->snapshots.p[n - 1]))
			n--;
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
