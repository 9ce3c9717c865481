/* Facts about streams and ids: what the sequencer decides by, and what lists and statistics show.
 *
 * A fact is the index's as of one moment plus what the tables of newest records add. The tables are
 * looked at first: what moves in between is then in both, and a table that the index has got is left
 * out by its first position. So nothing is missed or counted twice. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "base/mem.h"
#include "base/must.h"
#include "storage/file/file.h"

/* A stream as of now, from index and tables. */
struct file_stream {
	bool exists;
	uint64_t sequence, live, first_position, last_position;
};

/* What one table adds to a stream. */
struct part {
	uint64_t table_first;
	uint64_t records, live, sequence, first_position, last_position;
};
/* What the tables have of it, and what of it is hidden. */
struct parts {
	uint64_t hidden_below;
	struct part tables[2];
};

static struct part part_of(const struct recent *table, struct span name, uint64_t hidden_below)
{
	const struct recent_list *list = table ? file_recent_stream(table, name) : NULL;
	if (!list)
		return (struct part){0};
	return (struct part){table->first,
			     list->n,
			     file_recent_list_live(list, hidden_below),
			     list->sequence,
			     entry_position(list->entries[0]),
			     entry_position(list->entries[list->n - 1])};
}

/* The caller has the lock. */
static void parts_take(const struct file_store *s, struct span name, struct parts *parts)
{
	parts->hidden_below = marks_hidden_below(s->marks, name);
	parts->tables[0] = part_of(s->moving, name, parts->hidden_below);
	parts->tables[1] = part_of(s->filling, name, parts->hidden_below);
}

/* What the index has of it. ERR_NOT_FOUND: nothing. */
static enum err_code stream_in_index(struct index_view *view, struct span name, uint64_t hidden_below,
				     struct file_stream *ret, struct err *err)
{
	struct index_fact fact = {0};
	uint64_t number;
	enum err_code code = file_index_number(view, INDEX_STREAM, name, &number, err);
	if (!code)
		code = file_index_fact(view, number, &fact, err);
	/* By an act that the index has not got yet. */
	if (!code && hidden_below > fact.last_position)
		fact.live = 0;
	else if (!code && hidden_below > fact.hidden_below)
		code = file_index_live(view, number, hidden_below, &fact.live, err);
	if (!code)
		*ret = (struct file_stream){true, fact.sequence, fact.live, number, fact.last_position};
	return code;
}

/* The same with the index (view NULL: nothing), as of a view that was begun after the parts were taken. */
static enum err_code combine(struct index_view *view, struct span name, const struct parts *parts,
			     struct file_stream *ret, struct err *err)
{
	struct file_stream stream = {0};
	uint64_t below = 0;
	if (view) {
		below = file_index_view_below(view);
		enum err_code code = stream_in_index(view, name, parts->hidden_below, &stream, err);
		if (code && code != ERR_NOT_FOUND)
			return code;
	}
	for (size_t i = 0; i < 2; i++) {
		const struct part *part = &parts->tables[i];
		if (part->records == 0 || part->table_first < below)
			continue;
		if (!stream.exists)
			stream.first_position = part->first_position;
		stream.exists = true;
		stream.live += part->live;
		if (part->sequence)
			stream.sequence = part->sequence;
		stream.last_position = part->last_position;
	}
	*ret = stream;
	return ERR_OK;
}

static enum err_code stream_get(struct file_store *s, struct index_view *view, struct span name,
				struct file_stream *ret, struct err *err)
{
	struct parts parts;
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	parts_take(s, name, &parts);
	must(pthread_rwlock_unlock(&s->lock) == 0);
	enum err_code code = view ? file_index_view_begin(view, err) : ERR_OK;
	if (code)
		return code;
	code = combine(view, name, &parts, ret, err);
	if (view)
		file_index_view_end(view);
	return code;
}

/* --- the facts of the streams used last ------------------------------------------------------------------
 */

static void free_fact(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

static void facts_drop(struct map *map)
{
	map_each(map, free_fact, NULL);
	map_release(map);
}

void file_facts_release(struct file_store *s)
{
	facts_drop(&s->facts[0]);
	facts_drop(&s->facts[1]);
}

static void fact_put(struct file_store *s, struct span name, struct file_fact *fact)
{
	if (s->facts[0].count >= LIMIT_FILE_FACTS / 2) {
		facts_drop(&s->facts[1]);
		s->facts[1] = s->facts[0];
		map_init(&s->facts[0]);
	}
	must(map_put(&s->facts[0], name, fact) == NULL);
}

static struct file_fact *fact_get(struct file_store *s, struct span name)
{
	struct file_fact *fact = map_get(&s->facts[0], name);
	if (fact)
		return fact;
	fact = map_remove(&s->facts[1], name);
	if (fact)
		fact_put(s, name, fact);
	return fact;
}

bool file_act_of(const struct storage_record *record, struct record_act *ret)
{
	struct span run = record->bytes, entry;
	struct record_view view;
	return !record_kind_is_content(record->kind) && record_next(&run, &entry, NULL, NULL) == ERR_OK &&
	       record_decode_trusted(entry, &view, NULL) == ERR_OK && record_act_get(&view, ret);
}

static void fact_drop(struct file_store *s, struct span name)
{
	mem_free(map_remove(&s->facts[0], name));
	mem_free(map_remove(&s->facts[1], name));
}

void file_facts_update(struct file_store *s, const struct storage_record *record)
{
	struct file_fact *fact = fact_get(s, record->stream);
	if (!fact)
		return; /* looked up by nobody: the next look-up finds it */
	if (!record_kind_is_content(record->kind)) {
		fact_drop(s, record->stream); /* what it hides is counted when it is looked up */
		return;
	}
	fact->exists = true;
	fact->live++;
	if (record_kind_takes_sequence(record->kind))
		fact->sequence = record->sequence;
}

static void fact_give(const struct file_fact *fact, struct storage_stream_fact *ret)
{
	ret->exists = fact->exists;
	ret->sequence = fact->sequence;
	ret->live_records = fact->live;
}

/* A stream that the facts do not have, and what the tables have of it. */
struct missing {
	size_t index;
	struct parts parts;
};

/* Facts of many streams: each of the two places is asked once for all. */
static enum err_code lookup_missing(struct file_store *s, struct storage_stream_fact *streams,
				    struct missing *missing, size_t count, struct err *err)
{
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	for (size_t i = 0; i < count; i++)
		parts_take(s, streams[missing[i].index].name, &missing[i].parts);
	must(pthread_rwlock_unlock(&s->lock) == 0);
	enum err_code code = s->view ? file_index_view_begin(s->view, err) : ERR_OK;
	if (code)
		return code;
	for (size_t i = 0; i < count && !code; i++) {
		struct storage_stream_fact *out = &streams[missing[i].index];
		struct file_stream stream;
		struct file_fact *fact = fact_get(s, out->name); /* asked for twice */
		if (!fact) {
			code = combine(s->view, out->name, &missing[i].parts, &stream, err);
			if (code)
				break;
			fact = mem_xalloc(sizeof(*fact));
			*fact = (struct file_fact){stream.exists, stream.sequence, stream.live};
			fact_put(s, out->name, fact);
		}
		fact_give(fact, out);
	}
	if (s->view)
		file_index_view_end(s->view);
	return code;
}

static enum err_code lookup_streams(struct file_store *s, struct storage_stream_fact *streams, size_t count,
				    struct arena *a, struct err *err)
{
	struct missing *missing = NULL;
	size_t n = 0;
	for (size_t i = 0; i < count; i++) {
		const struct file_fact *fact = fact_get(s, streams[i].name);
		if (fact) {
			fact_give(fact, &streams[i]);
			continue;
		}
		if (!missing)
			missing = arena_alloc(a, (count - i) * sizeof(*missing));
		if (!missing)
			return err_set(err, ERR_LIMIT, "no room for a look-up of %zu streams", count);
		missing[n++].index = i;
	}
	return n ? lookup_missing(s, streams, missing, n, err) : ERR_OK;
}

/* Everything about an id but where it is stands in the record itself. */
static enum err_code fill_id(struct file_store *s, struct storage_id_fact *fact, uint64_t position,
			     struct arena *a, struct err *err)
{
	struct window_record found;
	struct record_view record;
	enum err_code code = file_fetch(&s->window, position, &found, err);
	if (!code)
		code = record_decode_trusted(found.entry, &record, err);
	if (code || record.content == RECORD_LEAF_HASH)
		return code; /* removed: the id may be used again */
	if (!span_eq(record.id, span_of(fact->id, RECORD_ID_BYTES)))
		return file_segment_corrupt(&s->segments, s->window.segment, found.offset,
					    "the record has another id than the index says", err);
	fact->stream = arena_dup(a, record.stream);
	if (!fact->stream.p)
		return err_set(err, ERR_LIMIT, "no room for the answer of a look-up");
	fact->exists = true;
	fact->position = position;
	fact->sequence = record.sequence;
	fact->commit_time = record.commit_time;
	fact->kind = record.kind;
	fact->last_of_append = record.last_of_append;
	return ERR_OK;
}

/* Positions of ids that the tables have; UINT64_MAX for the others. */
static size_t ids_in_tables(struct file_store *s, const struct storage_id_fact *ids, size_t count,
			    uint64_t *positions)
{
	size_t missing = 0;
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	for (size_t i = 0; i < count; i++) {
		positions[i] = UINT64_MAX;
		if (!file_recent_id(s->filling, ids[i].id, &positions[i]) &&
		    !(s->moving && file_recent_id(s->moving, ids[i].id, &positions[i])))
			missing++;
	}
	must(pthread_rwlock_unlock(&s->lock) == 0);
	return missing;
}

static enum err_code ids_in_index(struct file_store *s, const struct storage_id_fact *ids, size_t count,
				  uint64_t *positions, struct err *err)
{
	enum err_code code = file_index_view_begin(s->view, err);
	if (code)
		return code;
	for (size_t i = 0; i < count && !code; i++) {
		if (positions[i] != UINT64_MAX)
			continue;
		code = file_index_id(s->view, ids[i].id, &positions[i], err);
		if (code == ERR_NOT_FOUND)
			code = ERR_OK;
	}
	file_index_view_end(s->view);
	return code;
}

static enum err_code lookup_ids(struct file_store *s, struct storage_id_fact *ids, size_t count,
				struct arena *a, struct err *err)
{
	uint64_t *positions = arena_alloc(a, count * sizeof(*positions) + 1);
	if (!positions)
		return err_set(err, ERR_LIMIT, "no room for a look-up of %zu ids", count);
	enum err_code code = ERR_OK;
	if (ids_in_tables(s, ids, count, positions) > 0 && s->view)
		code = ids_in_index(s, ids, count, positions, err);
	for (size_t i = 0; i < count && !code; i++) {
		ids[i].exists = false;
		if (positions[i] != UINT64_MAX)
			code = fill_id(s, &ids[i], positions[i], a, err);
	}
	file_window_trim(&s->window);
	return code;
}

enum err_code file_lookup(struct storage *storage, struct storage_stream_fact *streams, size_t stream_count,
			  struct storage_id_fact *ids, size_t id_count, struct arena *a, uint64_t *ret_head,
			  struct err *err)
{
	struct file_store *s = file_store_of(storage);
	if (atomic_exchange(&s->facts_stale, false)) {
		file_facts_release(s);
		map_init(&s->facts[0]);
		map_init(&s->facts[1]);
	}
	enum err_code code = lookup_streams(s, streams, stream_count, a, err);
	if (!code && id_count > 0)
		code = lookup_ids(s, ids, id_count, a, err);
	if (!code)
		*ret_head = atomic_load(&s->head);
	return code;
}

/* --- lists ------------------------------------------------------------------------------------------------
 */

/* Names that are collected in the caller's arena, in order. */
struct names {
	struct span *items;
	size_t n, max;
	struct arena *a;
	bool no_room;
};

static bool take_name(const struct recent_list *list, void *arg)
{
	struct names *names = arg;
	if (names->n == names->max)
		return false;
	struct span name = arena_dup(names->a, list->name);
	names->no_room = !name.p;
	if (name.p)
		names->items[names->n++] = name;
	return name.p != NULL;
}

/* The first names in each of the tables, by name. */
static enum err_code names_in_tables(struct file_store *s, struct span prefix, struct span after,
				     struct names names[2], struct err *err)
{
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	struct recent_names tables[2] = {file_recent_names(s->moving), file_recent_names(s->filling)};
	must(pthread_rwlock_unlock(&s->lock) == 0);
	for (size_t i = 0; i < 2; i++) {
		file_recent_each_name(&tables[i], prefix, after, take_name, &names[i]);
		file_recent_unref(tables[i].table);
	}
	if (names[0].no_room || names[1].no_room)
		return err_set(err, ERR_LIMIT, "no room for the names of %zu streams", names[0].max);
	return ERR_OK;
}

static enum err_code names_in_index(struct index_view *view, struct span prefix, struct span after,
				    size_t max, struct arena *a, struct index_name *ret, size_t *ret_n,
				    struct err *err)
{
	*ret_n = 0;
	if (!view)
		return ERR_OK;
	enum err_code code = file_index_view_begin(view, err);
	if (code)
		return code;
	code = file_index_names(view, prefix, after, max, a, ret, ret_n, err);
	file_index_view_end(view);
	return code;
}

static enum err_code stream_info(struct file_reader *reader, struct span name,
				 struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	struct file_stream stream;
	enum err_code code = stream_get(reader->store, reader->view, name, &stream, err);
	if (code)
		return code;
	*ret_exists = stream.exists;
	if (stream.exists)
		*ret = (struct storage_stream_info){
			name,
			stream.sequence,
			stream.live,
			stream.first_position,
			stream.last_position,
			marks_erased_below(reader->store->marks, name),
		};
	return ERR_OK;
}

/* The lowest of what the three places have next; each that has it goes on. */
static struct span next_name(struct names names[2], const struct index_name *old, size_t old_n, size_t at[3])
{
	struct span heads[3] = {{0}}, lowest = {0};
	for (size_t i = 0; i < 2; i++)
		if (at[i] < names[i].n)
			heads[i] = names[i].items[at[i]];
	if (at[2] < old_n)
		heads[2] = old[at[2]].name;
	for (size_t i = 0; i < 3; i++)
		if (heads[i].p && (!lowest.p || span_cmp(heads[i], lowest) < 0))
			lowest = heads[i];
	for (size_t i = 0; i < 3; i++)
		at[i] += lowest.p && heads[i].p && span_eq(heads[i], lowest);
	return lowest;
}

enum err_code file_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
			struct arena *a, struct storage_stream_info *ret, size_t *ret_count, struct err *err)
{
	struct file_reader *reader = (struct file_reader *)r;
	must(reader->magic == FILE_READER_MAGIC);
	size_t old_n = 0, at[3] = {0}, n = 0;
	struct span *items = mem_xalloc(2 * max * sizeof(*items) + 1), name;
	struct names names[2] = {{.items = items, .max = max, .a = a}, {.items = items + max, .max = max, .a = a}};
	struct index_name *old = mem_xalloc(max * sizeof(*old) + 1);
	enum err_code code = names_in_tables(reader->store, prefix, after, names, err);
	if (!code)
		code = names_in_index(reader->view, prefix, after, max, a, old, &old_n, err);
	while (!code && n < max && (name = next_name(names, old, old_n, at)).p) {
		bool exists;
		code = stream_info(reader, name, &ret[n], &exists, err);
		n += !code && exists;
	}
	mem_free(items);
	mem_free(old);
	if (!code)
		*ret_count = n;
	return code;
}

enum err_code file_stat(struct storage_reader *r, struct span stream, struct arena *a,
			struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	struct file_reader *reader = (struct file_reader *)r;
	must(reader->magic == FILE_READER_MAGIC);
	struct storage_stream_info info = {0};
	bool exists;
	enum err_code code = stream_info(reader, stream, &info, &exists, err);
	if (!code && exists) {
		info.name = arena_dup(a, stream);
		if (!info.name.p)
			return err_set(err, ERR_LIMIT, "no room for a stream's name");
		*ret = info;
	}
	if (!code)
		*ret_exists = exists;
	return code;
}
