/* Looking things up in the index; see index.h for the keys. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/index_internal.h"

#include "base/must.h"

static enum err_code get(struct index_view *v, MDB_dbi db, struct span key, size_t least_bytes, MDB_val *ret,
			 struct err *err)
{
	must(v->begun);
	MDB_val k = val_span(key);
	int r = mdb_get(v->txn, db, &k, ret);
	if (r == MDB_NOTFOUND)
		return ERR_NOT_FOUND;
	if (r)
		return file_index_fail(err, r, "read");
	if (ret->mv_size < least_bytes)
		return err_set(err, ERR_CORRUPT, "index: a value is too short");
	return ERR_OK;
}

/* Moves; *ret_found says whether there is something there. */
static enum err_code step(MDB_cursor *cursor, MDB_val *key, MDB_val *value, MDB_cursor_op op, bool *ret_found,
			  struct err *err)
{
	int r = mdb_cursor_get(cursor, key, value, op);
	if (r && r != MDB_NOTFOUND)
		return file_index_fail(err, r, "read");
	*ret_found = r == 0;
	return ERR_OK;
}

/* Goes to the last key below the one given; the cursor is anywhere. */
static enum err_code step_below(MDB_cursor *cursor, struct span bound, MDB_val *key, MDB_val *value,
				bool *ret_found, struct err *err)
{
	bool found = false;
	*key = val_span(bound);
	enum err_code code = step(cursor, key, value, MDB_SET_RANGE, &found, err);
	return code ? code : step(cursor, key, value, found ? MDB_PREV : MDB_LAST, ret_found, err);
}

static enum err_code open_cursor(struct index_view *v, MDB_dbi db, MDB_cursor **ret, struct err *err)
{
	must(v->begun);
	int r = mdb_cursor_open(v->txn, db, ret);
	return r ? file_index_fail(err, r, "read") : ERR_OK;
}

enum err_code file_index_mark_get(struct index_view *v, struct index_mark *ret, struct err *err)
{
	MDB_val value;
	enum err_code code = get(v, v->index->meta, SPAN("mark"), MARK_BYTES, &value, err);
	if (code)
		return code;
	const uint8_t *p = value.mv_data;
	if (get_le32(p + MARK_BYTES - 4) != INDEX_FORMAT)
		return err_set(err, ERR_CORRUPT, "index: it has another program's format");
	memcpy(ret->journal_id, p, 16);
	ret->position = get_le64(p + 16);
	memcpy(ret->leaf, p + 24, RECORD_HASH_BYTES);
	ret->segment = get_le64(p + 24 + RECORD_HASH_BYTES);
	ret->frame_offset = get_le64(p + 32 + RECORD_HASH_BYTES);
	return ERR_OK;
}

enum err_code file_index_number(struct index_view *v, enum index_list list, struct span name,
				uint64_t *ret_number, struct err *err)
{
	MDB_val value;
	if (name.n > LIMIT_STREAM_NAME_BYTES)
		return ERR_NOT_FOUND;
	enum err_code code = get(v, v->index->names[list], name_key(name), 8, &value, err);
	if (!code)
		*ret_number = get_le64(value.mv_data);
	return code;
}

enum err_code file_index_fact(struct index_view *v, uint64_t number, struct index_fact *ret, struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	uint8_t bound[16];
	bool found = false;
	enum err_code code = open_cursor(v, v->index->chunks[INDEX_STREAM], &cursor, err);
	if (code)
		return code;
	key_put(bound, number + 1, 0);
	code = step_below(cursor, span_of(bound, sizeof(bound)), &key, &value, &found, err);
	if (!code && (!found || !key_is(key, number) || chunk_count(value) == 0))
		code = err_set(err, ERR_CORRUPT, "index: a stream has a name and no records");
	if (!code) {
		size_t n = chunk_count(value);
		ret->sequence = get_le64(value.mv_data);
		for (size_t i = 0; i < n; i++)
			ret->sequence += entry_takes_sequence(chunk_entry(value, i));
		ret->live = get_le64((const uint8_t *)value.mv_data + 8) + n;
		ret->last_position = entry_position(chunk_entry(value, n - 1));
		ret->hidden_below = 0;
	}
	mdb_cursor_close(cursor);
	if (code)
		return code;
	uint8_t row_key[8];
	put_be64(row_key, number);
	code = get(v, v->index->live, span_of(row_key, sizeof(row_key)), LIVE_BYTES, &value, err);
	if (!code) {
		struct live_row row = live_get(value);
		ret->live = row.live;
		ret->hidden_below = row.hidden_below;
	}
	return code == ERR_NOT_FOUND ? ERR_OK : code;
}

enum err_code file_index_acts(struct index_view *v, index_act_fn *fn, void *arg, struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	bool found = false;
	enum err_code code = open_cursor(v, v->index->acts, &cursor, err);
	if (code)
		return code;
	code = step(cursor, &key, &value, MDB_FIRST, &found, err);
	while (!code && found) {
		if (key.mv_size != 8 || value.mv_size <= ACT_BYTES) {
			code = err_set(err, ERR_CORRUPT, "index: an act is malformed");
			break;
		}
		const uint8_t *p = value.mv_data;
		const struct record_act act = {.erases = p[0] & 1,
					       .erase_snapshots = p[0] >> 1 & 1,
					       .erase_all = p[0] >> 2 & 1,
					       .hide_below = get_le64(p + 1),
					       .erase_from = get_le64(p + 9),
					       .erase_to = get_le64(p + 17)};
		fn(span_skip(val_get(value), ACT_BYTES), get_be64(key.mv_data), &act, arg);
		code = step(cursor, &key, &value, MDB_NEXT, &found, err);
	}
	mdb_cursor_close(cursor);
	return code;
}

/* Puts the cursor on the chunk in which reading begins. */
static enum err_code first_chunk(MDB_cursor *cursor, uint64_t number, uint64_t from, bool backward,
				 MDB_val *key, MDB_val *value, bool *ret_found, struct err *err)
{
	uint8_t bound[16];
	enum err_code code;
	if (from == UINT64_MAX)
		key_put(bound, number + 1, 0);
	else
		key_put(bound, number, from + 1);
	code = step_below(cursor, span_of(bound, sizeof(bound)), key, value, ret_found, err);
	if (code || (*ret_found && key_is(*key, number)))
		return code;
	*ret_found = false;
	if (backward)
		return ERR_OK;
	/* Nothing begins at or before: forwards it is the first one after. */
	key_put(bound, number, from);
	*key = val_of(bound, sizeof(bound));
	code = step(cursor, key, value, MDB_SET_RANGE, ret_found, err);
	*ret_found = *ret_found && key_is(*key, number);
	return code;
}

enum err_code file_index_live(struct index_view *v, uint64_t number, uint64_t from, uint64_t *ret,
			      struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	bool found = false;
	enum err_code code = open_cursor(v, v->index->chunks[INDEX_STREAM], &cursor, err);
	if (code)
		return code;
	*ret = 0;
	code = first_chunk(cursor, number, from, false, &key, &value, &found, err);
	while (!code && found && key_is(key, number)) {
		for (size_t i = 0; i < chunk_count(value); i++)
			*ret += entry_is_content(chunk_entry(value, i)) &&
				entry_position(chunk_entry(value, i)) >= from;
		code = step(cursor, &key, &value, MDB_NEXT, &found, err);
	}
	mdb_cursor_close(cursor);
	return code;
}

/* One chunk's entries within bounds; false when the bound below is reached. */
static bool take_chunk(MDB_val value, uint64_t from, bool backward, uint64_t below, uint64_t *entries,
		       size_t room, size_t *n)
{
	size_t count = chunk_count(value);
	for (size_t i = 0; i < count && *n < room; i++) {
		uint64_t entry = chunk_entry(value, backward ? count - 1 - i : i);
		uint64_t position = entry_position(entry);
		if (!backward && position >= below)
			return false;
		if (position >= below || (backward ? position > from : position < from))
			continue;
		entries[(*n)++] = entry;
	}
	return true;
}

enum err_code file_index_entries(struct index_view *v, enum index_list list, uint64_t number, uint64_t from,
				 bool backward, uint64_t below, uint64_t *entries, size_t *n, bool *ret_end,
				 struct err *err)
{
	size_t room = *n, have = 0;
	MDB_cursor *cursor;
	MDB_val key, value;
	bool found = false, more = true;
	must(room > 0);
	enum err_code code = open_cursor(v, v->index->chunks[list], &cursor, err);
	if (code)
		return code;
	code = first_chunk(cursor, number, from, backward, &key, &value, &found, err);
	while (!code && found && more && have < room) {
		more = take_chunk(value, from, backward, below, entries, room, &have);
		if (more && have < room) {
			code = step(cursor, &key, &value, backward ? MDB_PREV : MDB_NEXT, &found, err);
			found = found && key_is(key, number);
		}
	}
	mdb_cursor_close(cursor);
	if (code)
		return code;
	*n = have;
	*ret_end = !found || !more;
	return ERR_OK;
}

/* The last chunk whose base sequence is below the one looked for: where to begin. */
static enum err_code sequence_chunk(struct index_view *v, uint64_t number, uint64_t sequence,
				    uint64_t *ret_first, struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	uint8_t bound[16];
	bool found = false;
	enum err_code code = open_cursor(v, v->index->sequences, &cursor, err);
	if (code)
		return code;
	key_put(bound, number, sequence);
	code = step_below(cursor, span_of(bound, sizeof(bound)), &key, &value, &found, err);
	if (!code) {
		bool first = !found || !key_is(key, number) || value.mv_size < 8;
		*ret_first = first ? number : get_le64(value.mv_data);
	}
	mdb_cursor_close(cursor);
	return code;
}

enum err_code file_index_sequence(struct index_view *v, uint64_t number, uint64_t sequence,
				  uint64_t hidden_below, uint64_t *ret_position, struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	uint8_t start[16];
	uint64_t first;
	bool found = false, done = false;
	enum err_code code = sequence_chunk(v, number, sequence, &first, err);
	if (!code)
		code = open_cursor(v, v->index->chunks[INDEX_STREAM], &cursor, err);
	if (code)
		return code;
	key_put(start, number, first);
	key = val_of(start, sizeof(start));
	code = step(cursor, &key, &value, MDB_SET_RANGE, &found, err);
	while (!code && !done && found && key_is(key, number)) {
		uint64_t at = chunk_count(value) ? get_le64(value.mv_data) : 0;
		for (size_t i = 0; i < chunk_count(value) && !done; i++) {
			uint64_t entry = chunk_entry(value, i);
			at += entry_takes_sequence(entry);
			done = entry_takes_sequence(entry) && at >= sequence &&
			       entry_is_given(entry, hidden_below);
			if (done)
				*ret_position = entry_position(entry);
		}
		if (!done)
			code = step(cursor, &key, &value, MDB_NEXT, &found, err);
	}
	mdb_cursor_close(cursor);
	return code ? code : done ? ERR_OK : ERR_NOT_FOUND;
}

enum err_code file_index_snapshot(struct index_view *v, uint64_t number, uint64_t at_sequence, uint64_t below,
				  struct recent_snapshot *ret, struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	uint8_t bound[24];
	bool found = false, done = false;
	enum err_code code = open_cursor(v, v->index->snapshots, &cursor, err);
	if (code)
		return code;
	key_put(bound, number, at_sequence);
	put_be64(bound + 16, below);
	code = step_below(cursor, span_of(bound, sizeof(bound)), &key, &value, &found, err);
	while (!code && !done && found && key_is(key, number) && key.mv_size == sizeof(bound)) {
		uint64_t position = get_be64((const uint8_t *)key.mv_data + 16);
		done = position < below;
		if (done)
			*ret = (struct recent_snapshot){key_position(key), position};
		else
			code = step(cursor, &key, &value, MDB_PREV, &found, err);
	}
	mdb_cursor_close(cursor);
	return code ? code : done ? ERR_OK : ERR_NOT_FOUND;
}

enum err_code file_index_id(struct index_view *v, const uint8_t id[RECORD_ID_BYTES], uint64_t *ret_position,
			    struct err *err)
{
	MDB_val value;
	enum err_code code = get(v, v->index->ids, span_of(id, RECORD_ID_BYTES), 8, &value, err);
	if (!code)
		*ret_position = get_le64(value.mv_data);
	return code;
}

enum err_code file_index_names(struct index_view *v, struct span prefix, struct span after, size_t max,
			       struct arena *a, struct index_name *ret, size_t *ret_n, struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	size_t n = 0;
	bool found = false;
	struct span start = span_cmp(after, prefix) > 0 ? after : prefix;
	*ret_n = 0;
	if (start.n > LIMIT_STREAM_NAME_BYTES)
		return ERR_OK;
	enum err_code code = open_cursor(v, v->index->names[INDEX_STREAM], &cursor, err);
	if (code)
		return code;
	key = val_span(start);
	code = step(cursor, &key, &value, start.n ? MDB_SET_RANGE : MDB_FIRST, &found, err);
	while (!code && found && n < max && span_starts(val_get(key), prefix)) {
		if (value.mv_size < 8) {
			code = err_set(err, ERR_CORRUPT, "index: a value is too short");
			break;
		}
		if (span_cmp(val_get(key), after) > 0) {
			ret[n].name = arena_dup(a, val_get(key));
			ret[n].number = get_le64(value.mv_data);
			if (!ret[n].name.p)
				code = err_set(err, ERR_LIMIT, "no room for the names of %zu streams", n + 1);
			n++;
		}
		if (!code)
			code = step(cursor, &key, &value, MDB_NEXT, &found, err);
	}
	mdb_cursor_close(cursor);
	if (!code)
		*ret_n = n;
	return code;
}

enum err_code file_index_places(struct index_view *v, struct segment *segment, struct err *err)
{
	MDB_cursor *cursor;
	MDB_val key, value;
	uint8_t start[16];
	bool found = false;
	enum err_code code = open_cursor(v, v->index->places, &cursor, err);
	if (code)
		return code;
	key_put(start, segment->number, 0);
	key = val_of(start, sizeof(start));
	code = step(cursor, &key, &value, MDB_SET_RANGE, &found, err);
	while (!code && found && key_is(key, segment->number) && value.mv_size >= 8) {
		file_segment_note(segment, segment->first + key_position(key), get_le64(value.mv_data));
		code = step(cursor, &key, &value, MDB_NEXT, &found, err);
	}
	mdb_cursor_close(cursor);
	return code;
}
