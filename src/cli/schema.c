/* Records in the words of their types: what functions serve is in the journal (DESIGN 5), one stream a function, and
 * with it what their Anys are. */
#include <config.h>

#include "cli/session.h"

#include <string.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/client.h"
#include "pbdyn/pbdyn.h"

#define PREFIX "$schema-"
#define CATEGORIES_KEY "cairn-categories"
#define VERSIONS_MAX 16	     /* of one function, the newest ones */
#define SCHEMAS_MAX 1000u    /* of all */
#define JSON_MAX_BYTES (64 * MIB)
#define JSON_URL "json.cloudstate.io/"
#define PRIMITIVE_URL "p.cloudstate.io/"

/* One record of descriptors: the pool is made when it is needed first. */
struct schema {
	struct schema *next;
	uint64_t position;
	struct span categories; /* behind it, as the set is */
	struct span set;
	bool tried;
	struct pb_pool *pool; /* NULL: it does not link */
};

struct cli_schemas {
	struct schema *newest; /* in order, the newest first */
	size_t count;
	struct pb_pool *builtin; /* wrappers, for primitive values */
	/* while they are loaded */
	struct client *client;
	int64_t timeout_ms;
	struct span *streams;
	char *names;
	size_t stream_count, stream_next;
	void (*done)(void *arg);
	void *arg;
};

struct cli_schemas *cli_schemas_new(void)
{
	struct cli_schemas *s = mem_xalloc(sizeof *s);
	must(!pb_pool_new(NULL, 0, &s->builtin, NULL));
	return s;
}

void cli_schemas_free(struct cli_schemas *s)
{
	struct schema *next;
	if (!s)
		return;
	for (struct schema *one = s->newest; one; one = next) {
		next = one->next;
		pb_pool_unref(one->pool);
		mem_free(one);
	}
	pb_pool_unref(s->builtin);
	mem_free(s->streams);
	mem_free(s->names);
	mem_free(s);
}

/* ---- loading ------------------------------------------------------------------------------------ */

static void add(struct cli_schemas *s, const struct record_view *record)
{
	struct record_metadata m;
	struct span categories = SPAN("");
	size_t state = 0;
	while (record_metadata_next(record, &state, &m))
		if (span_eq_str(m.key, CATEGORIES_KEY))
			categories = m.value;
	struct schema *one = mem_try_alloc(sizeof *one + record->data.n + categories.n + 1);
	if (!one)
		return;
	*one = (struct schema){.position = record->position};
	one->set = span_of(one + 1, record->data.n);
	one->categories = span_of(one->set.p + record->data.n, categories.n);
	if (record->data.n)
		memcpy(one + 1, record->data.p, record->data.n);
	if (categories.n)
		memcpy((uint8_t *)(one + 1) + record->data.n, categories.p, categories.n);
	struct schema **at = &s->newest;
	while (*at && (*at)->position > one->position)
		at = &(*at)->next;
	one->next = *at;
	*at = one;
	s->count++;
}

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	(void)r;
	if (record->content == RECORD_BODY)
		add(arg, record);
}

static void load_next(struct cli_schemas *s);

static void on_done(struct client_read *r, const struct client_error *error, void *arg)
{
	(void)r;
	if (error->code != GRPC_CANCELLED) /* else the session is over; what cannot be had is shown as bytes */
		load_next(arg);
}

static void load_next(struct cli_schemas *s)
{
	static const struct client_read_ops ops = {.on_record = on_record, .on_done = on_done};
	if (s->stream_next == s->stream_count || s->count >= SCHEMAS_MAX) {
		s->done(s->arg);
		return;
	}
	client_read(s->client,
		    &(struct client_query){.stream = s->streams[s->stream_next++],
					   .include_system = true,
					   .backward = true,
					   .max_records = VERSIONS_MAX,
					   .kinds = 1u << RECORD_EVENT,
					   .deadline_ms = s->timeout_ms},
		    &ops, s);
}

static void on_streams(const struct client_page_of_streams *page, const struct client_error *error, void *arg)
{
	struct cli_schemas *s = arg;
	size_t bytes = 0, n = 0;
	if (error->code == GRPC_CANCELLED)
		return;
	for (size_t i = 0; page && i < page->count; i++)
		bytes += page->streams[i].name.n;
	s->names = mem_xalloc(bytes + 1);
	s->streams = mem_xalloc((page ? page->count + 1 : 1) * sizeof *s->streams);
	for (size_t i = 0; page && i < page->count; i++) {
		struct span name = page->streams[i].name;
		memcpy(s->names + n, name.p, name.n);
		s->streams[s->stream_count++] = span_of(s->names + n, name.n);
		n += name.n;
	}
	load_next(s);
}

void cli_schemas_load(struct cli_schemas *s, struct client *client, int64_t timeout_ms, void (*done)(void *arg),
		      void *arg)
{
	must(!s->names);
	s->client = client;
	s->timeout_ms = timeout_ms;
	s->done = done;
	s->arg = arg;
	client_list_streams(client, SPAN(PREFIX), true, SPAN(""), SCHEMAS_MAX, timeout_ms, on_streams, s);
}

/* ---- decoding ----------------------------------------------------------------------------------- */

static bool names(const struct schema *one, struct span category)
{
	struct span rest = one->categories;
	while (rest.n) {
		struct span name = span_first(rest, span_find(rest, '\n'));
		if (span_eq(name, category))
			return true;
		rest = span_skip(rest, name.n < rest.n ? name.n + 1 : name.n);
	}
	return false;
}

static const struct pb_type *type_in(struct schema *one, struct span url)
{
	if (!one->tried)
		(void)pb_pool_new(&one->set, 1, &one->pool, NULL);
	one->tried = true;
	return one->pool ? pb_find_type_by_url(one->pool, url) : NULL;
}

/* The newest one that names the record's category knows best, then whichever knows the type. */
static const struct pb_type *find(const struct cli_schemas *s, struct span stream, struct span url)
{
	struct span category = span_first(stream, span_find(stream, '|'));
	const struct pb_type *type = NULL;
	for (int own = 1; own >= 0; own--)
		for (struct schema *one = s->newest; one && !type; one = one->next)
			if (names(one, category) == (bool)own)
				type = type_in(one, url);
	return type;
}

static bool print(const struct pb_type *type, struct span data, struct buf *out)
{
	struct arena arena;
	struct pb_msg *msg;
	arena_init(&arena, JSON_MAX_BYTES);
	bool done = !pb_msg_parse(type, data, &arena, &msg, NULL) && !pb_json_print(msg, out, NULL);
	arena_release(&arena);
	return done;
}

/* A primitive value is a message with the value as field 1, as the wrappers are. */
static const struct pb_type *wrapper(const struct cli_schemas *s, struct span name)
{
	static const char *const types[][2] = {
		{"string", "google.protobuf.StringValue"}, {"bytes", "google.protobuf.BytesValue"},
		{"int32", "google.protobuf.Int32Value"},   {"int64", "google.protobuf.Int64Value"},
		{"float", "google.protobuf.FloatValue"},   {"double", "google.protobuf.DoubleValue"},
		{"bool", "google.protobuf.BoolValue"},
	};
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (span_eq_str(name, types[i][0]))
			return pb_find_type(s->builtin, span_str(types[i][1]));
	return NULL;
}

/* JSON stands in field 1 as it is. */
static bool print_json(struct span data, struct buf *out)
{
	struct pb_wire_field field;
	struct span json = SPAN("");
	int more;
	while ((more = pb_wire_next(&data, &field)) == 1)
		if (field.number == 1 && field.wire == PB_BYTES_FIELD)
			json = field.bytes;
	return more == 0 && cli_is_json(json) && !buf_append_span(out, json);
}

bool cli_schemas_print(const struct cli_schemas *s, const struct record_view *record, struct buf *out)
{
	struct span type = record->type;
	const struct pb_type *known;
	if (record->content_type.n || span_find(type, '/') == type.n)
		return false;
	buf_clear(out);
	if (span_starts(type, SPAN(JSON_URL)))
		return print_json(record->data, out);
	if (span_starts(type, SPAN(PRIMITIVE_URL)))
		known = wrapper(s, span_skip(type, sizeof PRIMITIVE_URL - 1));
	else
		known = find(s, record->stream, type);
	return known && print(known, record->data, out);
}
