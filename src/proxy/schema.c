#include <config.h>

#include "proxy/schema.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"
#include "journal/client.h"
#include "proxy/entity.h"

#define SCHEMA_MAGIC 0x53636865u
#define PREFIX "$schema-"
#define SET_TYPE "type.googleapis.com/google.protobuf.FileDescriptorSet"
#define READ_MS 10000
#define APPEND_MS 20000
#define AGAIN_MS 2000 /* when the journal could not be reached */
#define SPEC_PROTO 1  /* EntitySpec's field */
#define SET_FILE 1    /* FileDescriptorSet's */
/* What an encoded record has besides data, stream and metadata. */
#define RECORD_OVERHEAD_BYTES ((size_t)1024)

struct schema {
	uint32_t magic;
	struct schema_config config;
	struct spec *spec; /* to be kept, or kept; NULL: none yet */
	bool busy;	   /* with the journal, or waits to be so again */
	bool again;	   /* another spec has come meanwhile */
	struct loop_timer *timer;
	/* of the spec */
	struct span set;
	struct buf stream, categories;
	/* as the newest record has it */
	bool same;
	uint64_t sequence; /* 0: there is none */
	uint64_t refused;  /* an append was, by records that are no events: the stream's newest sequence */
};

static void begin(struct schema *s);

/* --- files ------------------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
	return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* The set's files by their bytes; the caller frees them. */
static struct span *sorted_files(struct span set, size_t *ret_count)
{
	struct pb_wire_field field;
	struct span *files = NULL;
	size_t count = 0, cap = 0;
	while (pb_wire_next(&set, &field) == 1) {
		if (field.number != SET_FILE || field.wire != PB_BYTES_FIELD || !field.bytes.n)
			continue;
		if (count == cap) {
			cap = cap ? cap * 2 : 32;
			files = mem_xrealloc(files, cap * sizeof *files);
		}
		files[count++] = field.bytes;
	}
	if (count)
		qsort(files, count, sizeof *files, compare);
	*ret_count = count;
	return files;
}

bool schema_same_files(struct span a, struct span b)
{
	size_t a_count, b_count;
	struct span *as = sorted_files(a, &a_count), *bs = sorted_files(b, &b_count);
	bool same = a_count == b_count;
	for (size_t i = 0; same && i < a_count; i++)
		same = span_eq(as[i], bs[i]);
	mem_free(as);
	mem_free(bs);
	return same;
}

/* --- what is to be kept ----------------------------------------------------------------------------------- */

static struct span set_of(const struct spec *spec)
{
	struct span rest = spec->bytes, set = SPAN("");
	struct pb_wire_field field;
	while (pb_wire_next(&rest, &field) == 1)
		if (field.number == SPEC_PROTO && field.wire == PB_BYTES_FIELD)
			set = field.bytes;
	return set;
}

/* The stateful services' categories in order, and the first service of all. */
static void describe(struct schema *s)
{
	const struct spec *spec = s->spec;
	struct span *names = mem_xalloc((spec->service_count + 1) * sizeof *names);
	struct span first = spec->services[0].name;
	size_t count = 0;
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct spec_service *service = &spec->services[i];
		if (compare(&service->name, &first) < 0)
			first = service->name;
		if (service->kind->stateful)
			names[count++] = service->persistence_id;
	}
	qsort(names, count, sizeof *names, compare);
	s->set = set_of(spec);
	buf_clear(&s->stream);
	buf_clear(&s->categories);
	must(!buf_printf(&s->stream, PREFIX "%.*s%.*s", SPAN_ARG(s->config.name_space), SPAN_ARG(first)));
	for (size_t i = 0; i < count; i++)
		must(!buf_printf(&s->categories, "%s%.*s%.*s", i ? "\n" : "", SPAN_ARG(s->config.name_space),
				 SPAN_ARG(names[i])));
	mem_free(names);
}

/* Can it be a record? If not that is logged, and tools show what this function keeps as bytes. */
static bool fits(const struct schema *s)
{
	struct err err = {0};
	if (s->set.n + RECORD_OVERHEAD_BYTES + s->categories.n + s->stream.n > LIMIT_RECORD_BYTES)
		(void)err_set(&err, ERR_LIMIT, "they have %zu bytes, a record of the journal at most %zu", s->set.n,
			      LIMIT_RECORD_BYTES);
	else if (s->categories.n + RECORD_OVERHEAD_BYTES > LIMIT_METADATA_BYTES)
		(void)err_set(&err, ERR_LIMIT, "the persistence ids have %zu bytes in sum, metadata at most %zu",
			      s->categories.n, LIMIT_METADATA_BYTES);
	else
		(void)record_check_stream(buf_span(&s->stream), &err);
	if (err.code)
		log_warn("the function's descriptors are not kept: tools will show its records as bytes",
			 LOG_ERR(&err));
	return !err.code;
}

/* --- the journal ------------------------------------------------------------------------------------------ */

/* Done with this spec, one way or another. */
static void finish(struct schema *s)
{
	s->busy = false;
	if (s->again) {
		s->again = false;
		begin(s);
	}
}

static void on_timer(void *arg)
{
	struct schema *s = OBJ_CAST(struct schema, arg, SCHEMA_MAGIC);
	s->again = false;
	begin(s);
}

static void fail(struct schema *s, const struct client_error *error)
{
	if (error->code == GRPC_CANCELLED)
		return; /* the client is being freed */
	if (error->unreachable || error->code == GRPC_UNAVAILABLE) {
		loop_timer_set(s->timer, AGAIN_MS);
		return;
	}
	log_warn("the function's descriptors were not kept: tools will show its records as bytes",
		 LOG_SPAN("stream", buf_span(&s->stream)), LOG_STR("code", grpc_code_name(error->code)),
		 LOG_SPAN("error", error->text));
	finish(s);
}

static void on_appended(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct schema *s = OBJ_CAST(struct schema, arg, SCHEMA_MAGIC);
	if (answer) {
		log_info("the function's descriptors are kept", LOG_SPAN("stream", buf_span(&s->stream)),
			 LOG_U64("sequence", answer->sequences[0]));
		finish(s);
	} else if (error->has_sequence_found) { /* another proxy was first: with the same ones, probably */
		s->refused = error->sequence_found;
		begin(s);
	} else {
		fail(s, error);
	}
}

static void append(struct schema *s)
{
	uint64_t expected = s->sequence > s->refused ? s->sequence : s->refused;
	struct record_metadata metadata = {SPAN(SCHEMA_CATEGORIES_KEY), buf_span(&s->categories)};
	struct client_record record = {
		.type = SPAN(SET_TYPE), .data = s->set, .metadata = &metadata, .metadata_count = 1};
	struct client_stream stream = {.stream = buf_span(&s->stream),
				       .expect = expected ? CLIENT_EXACTLY : CLIENT_NONE,
				       .sequence = expected,
				       .events = &record,
				       .event_count = 1};
	if (plant("schema-not-exactly-once"))
		stream.expect = CLIENT_ANY;
	uuid_v7(&clock_system, record.id);
	client_append(s->config.journal, &(struct client_append){.streams = &stream, .stream_count = 1}, APPEND_MS,
		      on_appended, s);
}

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct schema *s = OBJ_CAST(struct schema, arg, SCHEMA_MAGIC);
	struct record_metadata m;
	size_t state = 0;
	(void)r;
	s->sequence = record->sequence;
	s->same = record->content == RECORD_BODY && schema_same_files(record->data, s->set);
	while (s->same && record_metadata_next(record, &state, &m))
		if (span_eq_str(m.key, SCHEMA_CATEGORIES_KEY))
			s->same = span_eq(m.value, buf_span(&s->categories));
}

static void on_read(struct client_read *r, const struct client_error *error, void *arg)
{
	struct schema *s = OBJ_CAST(struct schema, arg, SCHEMA_MAGIC);
	(void)r;
	if (error->code != GRPC_OK)
		fail(s, error);
	else if (s->same || s->again)
		finish(s);
	else
		append(s);
}

static const struct client_read_ops read_ops = {.on_record = on_record, .on_done = on_read};

static void begin(struct schema *s)
{
	describe(s);
	s->same = false;
	s->sequence = 0;
	s->busy = fits(s);
	if (s->busy)
		client_read(s->config.journal,
			    &(struct client_query){.stream = buf_span(&s->stream),
						   .include_system = true,
						   .backward = true,
						   .max_records = 1,
						   .kinds = 1u << RECORD_EVENT,
						   .deadline_ms = READ_MS},
			    &read_ops, s);
}

/* --- life ------------------------------------------------------------------------------------------------- */

void schema_keep(struct schema *s, struct spec *spec)
{
	must(s->magic == SCHEMA_MAGIC);
	struct spec *old = s->spec;
	if (old && span_eq(old->bytes, spec->bytes))
		return;
	s->again = s->busy;
	s->spec = spec_ref(spec);
	if (!s->busy)
		begin(s);
	else
		s->set = set_of(spec); /* what is under way has been copied */
	spec_unref(old);
}

struct schema *schema_new(const struct schema_config *config)
{
	struct schema *s = mem_xalloc(sizeof *s);
	s->magic = SCHEMA_MAGIC;
	s->config = *config;
	s->timer = loop_timer_new(config->loop, on_timer, s);
	buf_init(&s->stream, LIMIT_FUNCTION_MESSAGE_BYTES);
	buf_init(&s->categories, LIMIT_FUNCTION_MESSAGE_BYTES);
	return s;
}

void schema_free(struct schema *s)
{
	if (!s)
		return;
	must(s->magic == SCHEMA_MAGIC);
	loop_timer_free(s->timer);
	spec_unref(s->spec);
	buf_release(&s->stream);
	buf_release(&s->categories);
	s->magic = 0;
	mem_free(s);
}
