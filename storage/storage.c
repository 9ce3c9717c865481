/* The registry of backends, and the wrappers through which they are used: what the contract says is
 * asserted on the way in and on the way out, counted and timed. */
#include <config.h>

#include "storage/storage.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/metrics.h"
#include "base/must.h"
#include "storage/file/backend.h"
#include "storage/memory/memory.h"
#include "storage/postgres/backend.h"
#include "storage/wrap/wrap.h"

static const struct storage_ops *const backends[] = {
	&storage_file,
	&storage_memory,
	&storage_postgres,
	&storage_trace,
};

static void check_ops(const struct storage_ops *ops)
{
	must(ops->name);
	must(ops->open);
	must(ops->close);
	must(ops->head);
	must(ops->lookup);
	must(ops->append);
	must(ops->session_beat);
	must(ops->reader_open);
	must(ops->reader_close);
	must(ops->read);
	must(ops->snapshot);
	must(ops->list);
	must(ops->stat);
	must(ops->unit);
	must(ops->close_unit);
	must(ops->remove);
	must(ops->tile_put);
	must(ops->tile_get);
}

static enum err_code unknown_backend(struct span uri, struct err *err)
{
	char names[128] = "";
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
		int len =
			snprintf(names + n, sizeof(names) - n, "%s\"%s\"", i ? ", " : "", backends[i]->name);
		must(len > 0);
		n += (size_t)len;
		must(n < sizeof(names));
	}
	if (span_find(uri, ':') == uri.n)
		return err_set(
			err, ERR_INVALID,
			"storage \"%.*s\" names no backend (%s): a directory is given as \"file:%.*s\"",
			SPAN_ARG(uri), names, SPAN_ARG(uri));
	return err_set(err, ERR_INVALID, "storage \"%.*s\" names no backend: there are %s", SPAN_ARG(uri),
		       names);
}

static const struct storage_ops *find_backend(struct span uri)
{
	struct span name = span_first(uri, span_find(uri, ':'));
	if (span_eq_str(name, "postgresql")) /* libpq knows both spellings */
		name = SPAN("postgres");
	for (size_t i = 0; i < ARRAY_LEN(backends); i++)
		if (span_eq_str(name, backends[i]->name))
			return backends[i];
	return NULL;
}

enum err_code storage_uri_check(const char *uri, struct err *err)
{
	must(uri);
	struct span all = span_str(uri);
	return find_backend(all) ? ERR_OK : unknown_backend(all, err);
}

/* Where the password is, of "//USER:PASSWORD@..." or "...password=PASSWORD...". */
static struct span find_password(struct span uri)
{
	static const char key[] = "password=";
	size_t slashes = 3;
	for (size_t i = 0; i + strlen(key) <= uri.n; i++) {
		if (!span_starts(span_skip(uri, i), span_str(key)))
			continue;
		struct span value = span_skip(uri, i + strlen(key));
		size_t n = 0;
		while (n < value.n && value.p[n] != '&' && value.p[n] != ' ')
			n++;
		return span_first(value, n);
	}
	while (slashes <= uri.n && memcmp(uri.p + slashes - 3, "://", 3) != 0)
		slashes++;
	if (slashes > uri.n)
		return (struct span){0};
	struct span user = span_skip(uri, slashes);
	size_t at = user.n;
	while (at > 0 && user.p[at - 1] != '@')
		at--;
	size_t colon = span_find(user, ':');
	if (at == 0 || colon >= at)
		return (struct span){0};
	return span_of(user.p + colon + 1, at - 1 - colon - 1);
}

void storage_uri_show(const char *uri, char *ret, size_t size)
{
	must(uri);
	must(size > 4);
	struct span all = span_str(uri), password = find_password(all);
	size_t before = password.n ? (size_t)(password.p - all.p) : all.n;
	int n = snprintf(ret, size, "%.*s%s%s", (int)(before < 4096 ? before : 4096), uri,
			 password.n ? "..." : "", password.n ? (const char *)password.p + password.n : "");
	if (n < 0 || (size_t)n >= size)
		memcpy(ret + size - 4, "...", 4);
}

enum err_code storage_open(const char *uri, const struct storage_config *config, struct storage **ret,
			   struct err *err)
{
	must(uri);
	must(config);
	must(ret);
	struct span all = span_str(uri);
	size_t colon = span_find(all, ':');
	struct storage_config c = *config;
	c.location = colon < all.n ? span_skip(all, colon + 1) : (struct span){0};
	if (!c.clock)
		c.clock = &clock_system;
	const struct storage_ops *ops = find_backend(all);
	if (!ops)
		return unknown_backend(all, err);
	check_ops(ops);
	if (c.restore && !ops->restored)
		return err_set(err, ERR_UNSUPPORTED, "a backup cannot be restored into storage \"%s\"", ops->name);
	if (c.accept_loss && !ops->lost_from)
		return err_set(err, ERR_UNSUPPORTED, "storage \"%s\" does not lose what it has acknowledged",
			       ops->name);
	enum err_code code = ops->open(&c, ret, err);
	if (!code)
		must((*ret)->ops);
	return code;
}

void storage_close(struct storage *s)
{
	if (s)
		s->ops->close(s);
}

void storage_head(struct storage *s, struct storage_head *ret)
{
	must(s);
	s->ops->head(s, ret);
}

enum err_code storage_lookup(struct storage *s, struct storage_stream_fact *streams, size_t stream_count,
			     struct storage_id_fact *ids, size_t id_count, struct arena *a,
			     uint64_t *ret_head, struct err *err)
{
	must(s);
	must(a);
	must(ret_head);
	must(streams || stream_count == 0);
	must(ids || id_count == 0);
	struct mono_time start = clock_mono(&clock_system);
	enum err_code code = s->ops->lookup(s, streams, stream_count, ids, id_count, a, ret_head, err);
	metric_observe_us(METRIC_STORAGE_LOOKUP_SECONDS, mono_since_us(clock_mono(&clock_system), start));
	if (code) {
		metric_add(METRIC_STORAGE_ERRORS, 1);
		return code;
	}
	for (size_t i = 0; i < stream_count; i++) {
		must(streams[i].exists || streams[i].sequence == 0);
		must(streams[i].exists || streams[i].live_records == 0);
	}
	for (size_t i = 0; i < id_count; i++)
		must(!ids[i].exists || ids[i].position < *ret_head);
	return ERR_OK;
}

static size_t check_batch(uint64_t expected_head, const struct storage_record *records, size_t count)
{
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++) {
		const struct storage_record *r = &records[i];
		must(r->position == expected_head + i);
		must(r->bytes.n > 0);
		must(r->bytes.n <= LIMIT_RECORD_BYTES);
		must(r->removed == records[0].removed);
		must(r->removed || (r->stream.n > 0 && r->id && r->kind != 0));
		must(i == 0 || r->commit_time.us >= records[i - 1].commit_time.us);
		bytes += r->bytes.n;
	}
	return bytes;
}

static enum storage_outcome append(struct storage *s, uint64_t expected_head, const struct storage_record *records,
				   size_t count, struct err *err)
{
	must(s);
	must(err);
	must(err->code == ERR_OK);
	size_t bytes = check_batch(expected_head, records, count);
	struct mono_time start = clock_mono(&clock_system);
	enum storage_outcome outcome = s->ops->append(s, expected_head, records, count, err);
	metric_observe_us(METRIC_STORAGE_APPEND_SECONDS, mono_since_us(clock_mono(&clock_system), start));
	switch (outcome) {
	case STORAGE_OK:
		must(err->code == ERR_OK);
		metric_add(METRIC_STORAGE_APPENDED_RECORDS, (int64_t)count);
		metric_add(METRIC_STORAGE_APPENDED_BYTES, (int64_t)bytes);
		break;
	case STORAGE_MOVED: must(err->code == ERR_OK); break;
	case STORAGE_FULL:
	case STORAGE_REFUSED:
	case STORAGE_UNKNOWN:
	case STORAGE_FAILED:
		must(err->code != ERR_OK);
		metric_add(METRIC_STORAGE_ERRORS, 1);
		break;
	default: unreachable_state("storage outcome");
	}
	return outcome;
}

enum storage_outcome storage_append(struct storage *s, uint64_t expected_head,
				    const struct storage_record *records, size_t count, struct err *err)
{
	/* Half an append is never made durable. */
	must(count == 0 || (records[count - 1].last_of_append && !records[count - 1].removed));
	return append(s, expected_head, records, count, err);
}

enum storage_outcome storage_restore(struct storage *s, uint64_t expected_head,
				     const struct storage_record *records, size_t count, struct err *err)
{
	must(s);
	must(s->ops->restored);
	must(count > 0);
	return append(s, expected_head, records, count, err);
}

enum err_code storage_session_beat(struct storage *s, enum storage_beat beat,
				   struct storage_session *sessions, size_t count, struct err *err)
{
	must(s);
	must(sessions || count == 0);
	if (count == 0)
		return ERR_OK;
	enum err_code code = s->ops->session_beat(s, beat, sessions, count, err);
	if (code) {
		metric_add(METRIC_STORAGE_ERRORS, 1);
		return code;
	}
	for (size_t i = 0; i < count; i++) {
		must(sessions[i].exists || sessions[i].beats == 0);
		must(!sessions[i].exists || beat != STORAGE_BEAT || sessions[i].beats > 0);
	}
	return ERR_OK;
}

enum err_code storage_reader_open(struct storage *s, struct storage_reader **ret, struct err *err)
{
	must(s);
	must(ret);
	enum err_code code = s->ops->reader_open(s, ret, err);
	if (!code)
		must((*ret)->storage == s);
	return code;
}

void storage_reader_close(struct storage_reader *r)
{
	if (r)
		r->storage->ops->reader_close(r);
}

enum err_code storage_read(struct storage_reader *r, const struct storage_query *q, struct buf *out,
			   struct storage_page *ret, struct err *err)
{
	must(r);
	must(q->max_bytes > 0);
	must((q->source == STORAGE_ALL) == (q->name.n == 0));
	must(!q->by_sequence || q->source == STORAGE_STREAM);
	must(!q->raw || (q->source == STORAGE_ALL && q->include_system && !q->backward && !q->kinds));
	size_t before = out->n;
	struct mono_time start = clock_mono(&clock_system);
	enum err_code code = r->storage->ops->read(r, q, out, ret, err);
	metric_observe_us(METRIC_STORAGE_READ_SECONDS, mono_since_us(clock_mono(&clock_system), start));
	if (code) {
		metric_add(METRIC_STORAGE_ERRORS, 1);
		must(out->n == before);
		return code;
	}
	bool scanned_enough = q->max_scan_bytes && ret->scanned_bytes >= q->max_scan_bytes;
	must(ret->end || ret->records > 0 || scanned_enough);
	must((ret->records == 0) == (out->n == before));
	must(ret->records <= 1 || out->n - before <= q->max_bytes);
	must(q->max_records == 0 || ret->records <= q->max_records);
	metric_add(METRIC_STORAGE_READ_RECORDS, (int64_t)ret->records);
	metric_add(METRIC_STORAGE_READ_BYTES, (int64_t)(out->n - before));
	return ERR_OK;
}

enum err_code storage_snapshot(struct storage_reader *r, struct span stream, uint64_t at_sequence,
			       uint64_t below_position, struct buf *out, struct err *err)
{
	must(r);
	must(stream.n > 0);
	size_t before = out->n;
	enum err_code code = r->storage->ops->snapshot(r, stream, at_sequence, below_position, out, err);
	must((code == ERR_OK) == (out->n > before));
	if (code && code != ERR_NOT_FOUND)
		metric_add(METRIC_STORAGE_ERRORS, 1);
	return code;
}

enum err_code storage_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
			   struct arena *a, struct storage_stream_info *ret, size_t *ret_count,
			   struct err *err)
{
	must(r);
	must(max > 0);
	enum err_code code = r->storage->ops->list(r, prefix, after, max, a, ret, ret_count, err);
	if (code) {
		metric_add(METRIC_STORAGE_ERRORS, 1);
		return code;
	}
	must(*ret_count <= max);
	for (size_t i = 0; i < *ret_count; i++) {
		must(span_starts(ret[i].name, prefix));
		must(span_cmp(ret[i].name, i ? ret[i - 1].name : after) > 0);
	}
	return ERR_OK;
}

enum err_code storage_stat(struct storage_reader *r, struct span stream, struct arena *a,
			   struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	must(r);
	must(stream.n > 0);
	enum err_code code = r->storage->ops->stat(r, stream, a, ret, ret_exists, err);
	if (code)
		metric_add(METRIC_STORAGE_ERRORS, 1);
	return code;
}

enum err_code storage_unit(struct storage_reader *r, uint64_t position, struct storage_unit *ret,
			   struct err *err)
{
	must(r);
	enum err_code code = r->storage->ops->unit(r, position, ret, err);
	if (code) {
		metric_add(METRIC_STORAGE_ERRORS, 1);
		return code;
	}
	must(ret->first <= position);
	must(position < ret->end);
	return ERR_OK;
}

void storage_close_unit(struct storage *s)
{
	must(s);
	s->ops->close_unit(s);
}

enum err_code storage_remove(struct storage_reader *r, const struct storage_removal *list, size_t count,
			     struct err *err)
{
	must(r);
	must(list);
	must(count > 0);
	for (size_t i = 1; i < count; i++)
		must(list[i].position > list[i - 1].position);
	enum err_code code = r->storage->ops->remove(r, list, count, err);
	if (code)
		metric_add(METRIC_STORAGE_ERRORS, 1);
	else
		metric_add(METRIC_STORAGE_REMOVED_RECORDS, (int64_t)count);
	return code;
}

enum err_code storage_tile_put(struct storage_reader *r, unsigned level, uint64_t index, const uint8_t *tile,
			       struct err *err)
{
	must(r);
	must(tile);
	must(level < STORAGE_TILE_LEVELS);
	enum err_code code = r->storage->ops->tile_put(r, level, index, tile, err);
	metric_add(code ? METRIC_STORAGE_ERRORS : METRIC_STORAGE_TILES_WRITTEN, 1);
	return code;
}

enum err_code storage_tile_get(struct storage_reader *r, unsigned level, uint64_t index, uint8_t *ret,
			       struct err *err)
{
	must(r);
	must(ret);
	must(level < STORAGE_TILE_LEVELS);
	enum err_code code = r->storage->ops->tile_get(r, level, index, ret, err);
	if (code && code != ERR_NOT_FOUND)
		metric_add(METRIC_STORAGE_ERRORS, 1);
	return code;
}

enum err_code storage_restored(struct storage *s, struct err *err)
{
	must(s);
	must(s->ops->restored);
	return s->ops->restored(s, err);
}

enum err_code storage_lost_from(struct storage *s, uint64_t *ret, struct err *err)
{
	must(s);
	must(s->ops->lost_from);
	return s->ops->lost_from(s, ret, err);
}

bool storage_is_shared(struct storage *s)
{
	must(s);
	return s->ops->is_shared && s->ops->is_shared(s);
}

const char *storage_directory(struct storage *s)
{
	must(s);
	return s->ops->directory ? s->ops->directory(s) : NULL;
}

enum err_code storage_watch(struct storage *s, uint64_t known, int64_t timeout_ms, uint64_t *ret_head,
			    struct err *err)
{
	must(s);
	must(ret_head);
	if (!s->ops->watch)
		return err_set(err, ERR_UNSUPPORTED, "nobody else writes to storage \"%s\"", s->ops->name);
	return s->ops->watch(s, known, timeout_ms, ret_head, err);
}

void storage_watch_end(struct storage *s)
{
	must(s);
	if (s->ops->watch_end)
		s->ops->watch_end(s);
}

bool storage_ready(struct storage *s, struct err *err)
{
	must(s);
	return !s->ops->ready || s->ops->ready(s, err);
}

enum err_code storage_migrate(const char *uri, enum storage_migrate what, struct buf *out, struct err *err)
{
	must(uri);
	must(out);
	struct span all = span_str(uri);
	size_t colon = span_find(all, ':');
	struct storage_config config = {.clock = &clock_system};
	config.location = colon < all.n ? span_skip(all, colon + 1) : (struct span){0};
	const struct storage_ops *ops = find_backend(all);
	if (!ops)
		return unknown_backend(all, err);
	if (!ops->migrate)
		return err_set(err, ERR_UNSUPPORTED, "storage \"%s\" has no schema to migrate", ops->name);
	return ops->migrate(&config, what, out, err);
}
