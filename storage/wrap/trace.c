/* Every call, as a line of the log. */
#include <config.h>

#include "storage/wrap/wrap.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"

struct trace {
	struct storage base;
	struct storage *inner;
};
struct trace_reader {
	struct storage_reader base;
	struct storage_reader *inner;
};

static struct trace *trace_of(struct storage *s)
{
	must(s->ops == &storage_trace);
	return (struct trace *)s;
}

static struct storage_reader *inner_of(struct storage_reader *r)
{
	trace_of(r->storage);
	return ((struct trace_reader *)r)->inner;
}

static int64_t since_us(struct mono_time begun)
{
	return mono_since_us(clock_mono(&clock_system), begun);
}

static const char *outcome_name(enum storage_outcome outcome)
{
	static const char *const names[] = {"ok", "moved", "full", "refused", "unknown", "failed"};
	must((size_t)outcome < ARRAY_LEN(names));
	return names[outcome];
}

static const char *source_name(enum storage_source source)
{
	static const char *const names[] = {"all", "stream", "category"};
	must((size_t)source < ARRAY_LEN(names));
	return names[source];
}

struct storage *storage_trace_new(struct storage *inner)
{
	must(inner);
	struct trace *t = mem_xalloc(sizeof(*t));
	t->base.ops = &storage_trace;
	t->inner = inner;
	return &t->base;
}

static enum err_code trace_open(const struct storage_config *config, struct storage **ret, struct err *err)
{
	struct storage *inner;
	struct mono_time begun = clock_mono(&clock_system);
	char *uri = mem_xdup(config->location.p, config->location.n), shown[512];
	enum err_code code = storage_open(uri, config, &inner, err);
	storage_uri_show(uri, shown, sizeof(shown));
	log_info("storage open", LOG_STR("uri", shown), LOG_STR("result", err_name(code)),
		 LOG_I64("us", since_us(begun)));
	mem_free(uri);
	if (!code)
		*ret = storage_trace_new(inner);
	return code;
}

static void trace_close(struct storage *s)
{
	struct trace *t = trace_of(s);
	log_info("storage close");
	storage_close(t->inner);
	mem_free(t);
}

static void trace_head(struct storage *s, struct storage_head *ret)
{
	storage_head(trace_of(s)->inner, ret);
	log_info("storage head", LOG_U64("head", ret->head));
}

static enum err_code trace_lookup(struct storage *s, struct storage_stream_fact *streams, size_t stream_count,
				  struct storage_id_fact *ids, size_t id_count, struct arena *a,
				  uint64_t *ret_head, struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	uint64_t head = 0;
	size_t found = 0;
	enum err_code code =
		storage_lookup(trace_of(s)->inner, streams, stream_count, ids, id_count, a, &head, err);
	for (size_t i = 0; i < id_count && !code; i++)
		found += ids[i].exists;
	log_info("storage lookup", LOG_U64("streams", stream_count), LOG_U64("ids", id_count),
		 LOG_U64("ids_found", found), LOG_U64("head", head), LOG_STR("result", err_name(code)),
		 LOG_I64("us", since_us(begun)));
	if (!code)
		*ret_head = head;
	return code;
}

static enum storage_outcome trace_append(struct storage *s, uint64_t expected_head,
					 const struct storage_record *records, size_t count, struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	enum storage_outcome outcome = storage_append(trace_of(s)->inner, expected_head, records, count, err);
	log_info("storage append", LOG_U64("head", expected_head), LOG_U64("records", count),
		 LOG_SPAN("stream", count ? records[0].stream : SPAN("")),
		 LOG_STR("result", outcome_name(outcome)), LOG_I64("us", since_us(begun)));
	return outcome;
}

static enum err_code trace_session_beat(struct storage *s, enum storage_beat beat,
					struct storage_session *sessions, size_t count, struct err *err)
{
	static const char *const names[] = {"read", "beat", "make"};
	struct mono_time begun = clock_mono(&clock_system);
	must((size_t)beat < ARRAY_LEN(names));
	enum err_code code = storage_session_beat(trace_of(s)->inner, beat, sessions, count, err);
	log_info("storage session beat", LOG_STR("what", names[beat]), LOG_U64("sessions", count),
		 LOG_STR("result", err_name(code)), LOG_I64("us", since_us(begun)));
	return code;
}

static enum err_code trace_reader_open(struct storage *s, struct storage_reader **ret, struct err *err)
{
	struct storage_reader *inner;
	enum err_code code = storage_reader_open(trace_of(s)->inner, &inner, err);
	log_info("storage reader open", LOG_STR("result", err_name(code)));
	if (code)
		return code;
	struct trace_reader *r = mem_xalloc(sizeof(*r));
	r->base.storage = s;
	r->inner = inner;
	*ret = &r->base;
	return ERR_OK;
}

static void trace_reader_close(struct storage_reader *r)
{
	storage_reader_close(inner_of(r));
	log_info("storage reader close");
	mem_free(r);
}

static enum err_code trace_read(struct storage_reader *r, const struct storage_query *q, struct buf *out,
				struct storage_page *ret, struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	struct storage_page page = {0};
	enum err_code code = storage_read(inner_of(r), q, out, &page, err);
	log_info("storage read", LOG_STR("source", source_name(q->source)), LOG_SPAN("name", q->name),
		 LOG_U64("from", q->from), LOG_STR("by", q->by_sequence ? "sequence" : "position"),
		 LOG_STR("direction", q->backward ? "backward" : "forward"), LOG_U64("records", page.records),
		 LOG_U64("scanned_bytes", page.scanned_bytes), LOG_STR("end", page.end ? "yes" : "no"),
		 LOG_U64("next", page.next),
		 LOG_STR("result", err_name(code)), LOG_I64("us", since_us(begun)));
	if (!code)
		*ret = page;
	return code;
}

static enum err_code trace_snapshot(struct storage_reader *r, struct span stream, uint64_t at_sequence,
				    uint64_t below_position, struct buf *out, struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	enum err_code code = storage_snapshot(inner_of(r), stream, at_sequence, below_position, out, err);
	log_info("storage snapshot", LOG_SPAN("stream", stream), LOG_U64("at_sequence", at_sequence),
		 LOG_STR("result", err_name(code)), LOG_I64("us", since_us(begun)));
	return code;
}

static enum err_code trace_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
				struct arena *a, struct storage_stream_info *ret, size_t *ret_count,
				struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	size_t count = 0;
	enum err_code code = storage_list(inner_of(r), prefix, after, max, a, ret, &count, err);
	log_info("storage list", LOG_SPAN("prefix", prefix), LOG_SPAN("after", after),
		 LOG_U64("streams", count), LOG_STR("result", err_name(code)),
		 LOG_I64("us", since_us(begun)));
	if (!code)
		*ret_count = count;
	return code;
}

static enum err_code trace_stat(struct storage_reader *r, struct span stream, struct arena *a,
				struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	enum err_code code = storage_stat(inner_of(r), stream, a, ret, ret_exists, err);
	log_info("storage stat", LOG_SPAN("stream", stream),
		 LOG_STR("exists", code          ? "unknown"
				   : *ret_exists ? "yes"
						 : "no"),
		 LOG_STR("result", err_name(code)), LOG_I64("us", since_us(begun)));
	return code;
}

static enum err_code trace_unit(struct storage_reader *r, uint64_t position, struct storage_unit *ret,
				struct err *err)
{
	struct storage_unit unit = {0};
	enum err_code code = storage_unit(inner_of(r), position, &unit, err);
	log_info("storage unit", LOG_U64("position", position), LOG_U64("first", unit.first),
		 LOG_U64("end", unit.end), LOG_U64("bytes", unit.bytes),
		 LOG_STR("open", unit.open ? "yes" : "no"), LOG_STR("result", err_name(code)));
	if (!code)
		*ret = unit;
	return code;
}

static void trace_close_unit(struct storage *s)
{
	storage_close_unit(trace_of(s)->inner);
	log_info("storage close unit");
}

static enum err_code trace_remove(struct storage_reader *r, const struct storage_removal *list, size_t count,
				  struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	enum err_code code = storage_remove(inner_of(r), list, count, err);
	log_info("storage remove", LOG_U64("first", list[0].position), LOG_U64("records", count),
		 LOG_STR("result", err_name(code)), LOG_I64("us", since_us(begun)));
	return code;
}

static enum err_code trace_tile_put(struct storage_reader *r, unsigned level, uint64_t index, const uint8_t *tile,
				    struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	enum err_code code = storage_tile_put(inner_of(r), level, index, tile, err);
	log_info("storage tile put", LOG_U64("level", level), LOG_U64("index", index),
		 LOG_STR("result", err_name(code)), LOG_I64("us", since_us(begun)));
	return code;
}

static enum err_code trace_tile_get(struct storage_reader *r, unsigned level, uint64_t index, uint8_t *ret,
				    struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	enum err_code code = storage_tile_get(inner_of(r), level, index, ret, err);
	log_info("storage tile get", LOG_U64("level", level), LOG_U64("index", index),
		 LOG_STR("result", err_name(code)), LOG_I64("us", since_us(begun)));
	return code;
}

static bool trace_is_shared(struct storage *s)
{
	return storage_is_shared(trace_of(s)->inner);
}

static const char *trace_directory(struct storage *s)
{
	return storage_directory(trace_of(s)->inner);
}

static enum err_code trace_watch(struct storage *s, uint64_t known, int64_t timeout_ms, uint64_t *ret_head,
			       struct err *err)
{
	return storage_watch(trace_of(s)->inner, known, timeout_ms, ret_head, err);
}

static void trace_watch_end(struct storage *s)
{
	storage_watch_end(trace_of(s)->inner);
}

static bool trace_ready(struct storage *s, struct err *err)
{
	return storage_ready(trace_of(s)->inner, err);
}

const struct storage_ops storage_trace = {
	.name = "trace",
	.open = trace_open,
	.close = trace_close,
	.head = trace_head,
	.lookup = trace_lookup,
	.append = trace_append,
	.session_beat = trace_session_beat,
	.reader_open = trace_reader_open,
	.reader_close = trace_reader_close,
	.read = trace_read,
	.snapshot = trace_snapshot,
	.list = trace_list,
	.stat = trace_stat,
	.unit = trace_unit,
	.close_unit = trace_close_unit,
	.remove = trace_remove,
	.tile_put = trace_tile_put,
	.tile_get = trace_tile_get,
	.watch = trace_watch,
	.watch_end = trace_watch_end,
	.ready = trace_ready,
	.directory = trace_directory,
	.is_shared = trace_is_shared,
};
