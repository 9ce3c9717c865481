/* Output of the sub-commands: rows of fields, as a table, a JSON array or JSON lines.
 *
 * A row is collected field by field as (key, text for the table, JSON), and written at its end. Tables
 * hold rows back to measure the columns, but not many and not for long. */
#include <config.h>

#include "cli/session.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "base/text.h"

#define ROW_FIELDS_MAX 24
#define COLUMNS_MAX 12
#define ROWS_HELD 100
#define TEXT_SHOWN_BYTES ((size_t)100) /* of data, in a table */
#define OUTPUT_MAX_BYTES (64 * MIB) /* one value; a record is far smaller, however it is written */

struct cli_out {
	enum { OUT_TABLE, OUT_JSON, OUT_JSONL } format;
	const struct cli_column *columns;
	size_t column_count;
	bool color, failed;
	const struct cli_schemas *schemas; /* or NULL */
	size_t row_count;
	struct {
		const char *key;
		char *text; /* for the table */
		char *json;
	} fields[ROW_FIELDS_MAX];
	size_t field_count;
	char **held; /* cells, row after row */
	size_t held_rows;
	bool titled;
	size_t widths[COLUMNS_MAX];
};

const struct cli_column cli_record_columns[] = {
	{"position", "POSITION", true}, {"time", "TIME", false},   {"stream", "STREAM", false},
	{"sequence", "SEQUENCE", true}, {"kind", "KIND", false},   {"type", "TYPE", false},
	{"data", "DATA", false},
};
const size_t cli_record_column_count = ARRAY_LEN(cli_record_columns);

struct cli_out *cli_out_new(const struct cli_options *options, const struct cli_column *columns, size_t n)
{
	struct cli_out *out = mem_xalloc(sizeof(*out));
	const char *no_color = getenv("NO_COLOR");

	must(n <= COLUMNS_MAX);
	out->format = strcmp(options->output, "json") == 0    ? OUT_JSON
		      : strcmp(options->output, "jsonl") == 0 ? OUT_JSONL
							       : OUT_TABLE;
	out->columns = columns;
	out->column_count = n;
	out->color = isatty(STDOUT_FILENO) && !(no_color && *no_color);
	out->held = mem_xalloc(ROWS_HELD * n * sizeof(char *));
	return out;
}

static void out_write(struct cli_out *out, const char *text)
{
	if (!out->failed && fputs(text, stdout) < 0)
		out->failed = true;
}

/* ---- fields ------------------------------------------------------------------------------------- */

static char *json_text_of(json_t *value /* stolen */)
{
	char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

	json_decref(value);
	must(text); /* a number, a flag, or a string that is UTF-8 */
	return text;
}

/* text and json are taken; json comes from malloc(), as Jansson's do. */
static void field_add(struct cli_out *out, const char *key, char *text, char *json)
{
	must(out->field_count < ROW_FIELDS_MAX);
	out->fields[out->field_count].key = key;
	out->fields[out->field_count].text = text;
	out->fields[out->field_count].json = json;
	out->field_count++;
}

static json_t *json_of_text(struct span text)
{
	struct buf hex;
	json_t *value;

	if (utf8_valid(text))
		return json_stringn(text.n ? (const char *)text.p : "", text.n);
	/* Names are UTF-8; what is not came from elsewhere than a journal, and is shown all the same. */
	buf_init(&hex, OUTPUT_MAX_BYTES);
	must(!hex_encode(&hex, text));
	value = json_stringn((const char *)hex.p, hex.n);
	buf_release(&hex);
	return value;
}

/* For a cell: control characters as \xNN, so that data can do nothing to a terminal. */
static char *cell_of_text(struct span text, size_t max_bytes)
{
	struct buf cell;
	size_t n = text.n, cut = 0;
	const char *s;
	char *result;

	buf_init(&cell, OUTPUT_MAX_BYTES);
	if (n > max_bytes) {
		n = max_bytes;
		while (n > 0 && (text.p[n] & 0xc0) == 0x80)
			n--; /* not in the middle of a character */
		cut = text.n - n;
	}
	for (size_t i = 0; i < n; i++) {
		uint8_t c = text.p[i];

		if (c < 0x20 || c == 0x7f)
			must(!buf_printf(&cell, "\\x%02x", c));
		else
			must(!buf_append_byte(&cell, c));
	}
	if (cut)
		must(!buf_printf(&cell, "... (%zu bytes more)", cut));
	s = buf_cstr(&cell);
	must(s);
	result = mem_xstrdup(s);
	buf_release(&cell);
	return result;
}

void cli_field_text(struct cli_out *out, const char *key, struct span text)
{
	field_add(out, key, cell_of_text(text, SIZE_MAX), json_text_of(json_of_text(text)));
}

void cli_field_u64(struct cli_out *out, const char *key, uint64_t value)
{
	char *text = mem_xprintf("%llu", (unsigned long long)value);
	char *json = strdup(text);

	must(json);
	field_add(out, key, text, json);
}

void cli_field_bool(struct cli_out *out, const char *key, bool value)
{
	field_add(out, key, mem_xstrdup(value ? "yes" : "no"), json_text_of(json_boolean(value)));
}

void cli_field_time(struct cli_out *out, const char *key, struct wall_time time)
{
	char text[32];

	wall_format(time, text);
	cli_field_text(out, key, span_str(text));
}

void cli_field_uuid(struct cli_out *out, const char *key, struct span id)
{
	char text[UUID_TEXT_BYTES];

	if (id.n != UUID_BYTES) {
		cli_field_text(out, key, SPAN(""));
		return;
	}
	uuid_format(id.p, text);
	cli_field_text(out, key, span_str(text));
}

void cli_field_texts(struct cli_out *out, const char *key, const struct span *items, size_t n)
{
	json_t *list = json_array();
	char *json;

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_of_text(items[i]));
	json = json_text_of(list);
	field_add(out, key, mem_xstrdup(json), json);
}

void cli_field_numbers(struct cli_out *out, const char *key, const struct span *names,
		       const uint64_t *values, size_t n)
{
	json_t *object = json_object();
	char *json;

	for (size_t i = 0; i < n; i++) {
		char *name = cell_of_text(names[i], SIZE_MAX);

		json_object_set_new(object, name, json_integer((json_int_t)values[i]));
		mem_free(name);
	}
	json = json_text_of(object);
	field_add(out, key, mem_xstrdup(json), json);
}

bool cli_out_is_table(const struct cli_out *out)
{
	return out->format == OUT_TABLE;
}

/* ---- data --------------------------------------------------------------------------------------- */

/* Numbers as reals: one that is no 64-bit integer is JSON all the same. */
#define CLI_JSON_FLAGS (JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES)

bool cli_is_json(struct span text)
{
	json_error_t error;
	json_t *value = text.n ? json_loadb((const char *)text.p, text.n,
					    CLI_JSON_FLAGS, &error)
			       : NULL;
	bool is = value != NULL;

	json_decref(value);
	return is;
}

/* JSON without the white space between its tokens: numbers and strings stay as they were written. */
static char *json_compacted(struct span text)
{
	char *out = malloc(text.n + 1);
	size_t n = 0;
	bool in_string = false;

	must(out);
	for (size_t i = 0; i < text.n; i++) {
		char c = (char)text.p[i];

		if (in_string) {
			out[n++] = c;
			if (c == '\\' && i + 1 < text.n)
				out[n++] = (char)text.p[++i];
			else if (c == '"')
				in_string = false;
		} else if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
			out[n++] = c;
			in_string = c == '"';
		}
	}
	out[n] = '\0';
	return out;
}

static bool is_text(struct span data)
{
	if (!utf8_valid(data))
		return false;
	for (size_t i = 0; i < data.n; i++)
		if (data.p[i] < 0x20 && data.p[i] != '\t' && data.p[i] != '\n' && data.p[i] != '\r')
			return false;
	return true;
}

static char *base64_of(struct span data)
{
	struct buf b;
	char *text;

	buf_init(&b, OUTPUT_MAX_BYTES);
	must(!base64_encode(&b, data, true));
	text = mem_xprintf("%s", buf_cstr(&b));
	buf_release(&b);
	return text;
}

static bool content_type_is_json(struct span content_type)
{
	struct span type = span_first(content_type, span_find(content_type, ';'));

	return span_eq_str(type, "application/json") ||
	       (type.n > 5 && memcmp(type.p + type.n - 5, "+json", 5) == 0);
}

void cli_field_data(struct cli_out *out, struct span data, struct span content_type)
{
	if (content_type_is_json(content_type) && cli_is_json(data)) {
		char *json = json_compacted(data);

		field_add(out, "data", cell_of_text(span_str(json), TEXT_SHOWN_BYTES), json);
	} else if (is_text(data)) {
		field_add(out, "data_text", cell_of_text(data, TEXT_SHOWN_BYTES),
			  json_text_of(json_of_text(data)));
	} else {
		char *base64 = base64_of(data);
		char *shown = cell_of_text(span_str(base64), TEXT_SHOWN_BYTES);

		field_add(out, "data_base64", mem_xprintf("%zu bytes: %s", data.n, shown),
			  json_text_of(json_string(base64)));
		mem_free(shown);
		mem_free(base64);
	}
}

/* An object of texts; a value that is no text is base64 behind "base64:". */
void cli_field_metadata(struct cli_out *out, const struct record_view *record)
{
	json_t *object = json_object();
	struct record_metadata item;
	size_t state = 0;
	char *json;

	while (record_metadata_next(record, &state, &item)) {
		char *key = cell_of_text(item.key, SIZE_MAX);

		if (is_text(item.value)) {
			json_object_set_new(object, key, json_of_text(item.value));
		} else {
			char *base64 = base64_of(item.value);

			json_object_set_new(object, key, json_sprintf("base64:%s", base64));
			mem_free(base64);
		}
		mem_free(key);
	}
	json = json_text_of(object);
	field_add(out, "metadata", mem_xstrdup(json), json);
}

/* ---- tables ------------------------------------------------------------------------------------- */

/* Columns of a terminal: characters, not bytes. */
static size_t text_width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((uint8_t)*text & 0xc0) != 0x80;
	return n;
}

static void cell_write(struct cli_out *out, const char *text, size_t i)
{
	bool last = i + 1 == out->column_count;
	size_t width = text_width(text);
	size_t pad = width < out->widths[i] ? out->widths[i] - width : 0;

	if (out->columns[i].right)
		for (; pad; pad--)
			out_write(out, " ");
	out_write(out, text);
	for (; pad && !last; pad--)
		out_write(out, " ");
	out_write(out, last ? "" : "  ");
}

void cli_out_flush(struct cli_out *out)
{
	size_t n = out->column_count;

	for (size_t i = 0; i < out->held_rows * n; i++) {
		size_t width = text_width(out->held[i]);

		if (width > out->widths[i % n])
			out->widths[i % n] = width;
	}
	if (out->format == OUT_TABLE && !out->titled && out->held_rows) {
		out->titled = true;
		for (size_t i = 0; i < n; i++)
			if (text_width(out->columns[i].title) > out->widths[i])
				out->widths[i] = text_width(out->columns[i].title);
		out_write(out, out->color ? "\033[1m" : "");
		for (size_t i = 0; i < n; i++)
			cell_write(out, out->columns[i].title, i);
		out_write(out, out->color ? "\033[0m\n" : "\n");
	}
	for (size_t i = 0; i < out->held_rows * n; i++) {
		cell_write(out, out->held[i], i % n);
		if ((i + 1) % n == 0)
			out_write(out, "\n");
		mem_free(out->held[i]);
	}
	out->held_rows = 0;
	if (fflush(stdout))
		out->failed = true;
}

/* The cell of a column: the field of its key, or one of the forms that data has. */
static const char *row_cell(const struct cli_out *out, const char *key)
{
	for (size_t i = 0; i < out->field_count; i++) {
		const char *name = out->fields[i].key;

		if (strcmp(name, key) == 0)
			return out->fields[i].text;
		if (strcmp(key, "data") == 0 &&
		    (strcmp(name, "data_text") == 0 || strcmp(name, "data_base64") == 0))
			return out->fields[i].text;
	}
	return "";
}

static void row_hold(struct cli_out *out)
{
	for (size_t i = 0; i < out->column_count; i++)
		out->held[out->held_rows * out->column_count + i] =
			mem_xstrdup(row_cell(out, out->columns[i].key));
	if (++out->held_rows == ROWS_HELD)
		cli_out_flush(out);
}

static void row_write_json(struct cli_out *out)
{
	const char *gap = out->format == OUT_JSON ? (out->row_count ? ",\n  " : "[\n  ") : "";

	out_write(out, gap);
	for (size_t i = 0; i < out->field_count; i++) {
		out_write(out, i ? ", \"" : "{\"");
		out_write(out, out->fields[i].key);
		out_write(out, "\": ");
		out_write(out, out->fields[i].json);
	}
	out_write(out, out->format == OUT_JSON ? "}" : "}\n");
}

void cli_row_end(struct cli_out *out)
{
	if (out->format == OUT_TABLE)
		row_hold(out);
	else
		row_write_json(out);
	out->row_count++;
	for (size_t i = 0; i < out->field_count; i++) {
		mem_free(out->fields[i].text);
		free(out->fields[i].json);
	}
	out->field_count = 0;
}

void cli_out_decode(struct cli_out *out, const struct cli_schemas *s)
{
	out->schemas = s;
}

static void field_record_data(struct cli_out *out, const struct record_view *r)
{
	struct buf json;

	buf_init(&json, OUTPUT_MAX_BYTES);
	if (out->schemas && cli_schemas_print(out->schemas, r, &json))
		cli_field_data(out, buf_span(&json), SPAN("application/json"));
	else
		cli_field_data(out, r->data, r->content_type);
	buf_release(&json);
}

void cli_row_record(struct cli_out *out, const struct record_view *r)
{
	cli_field_u64(out, "position", r->position);
	cli_field_text(out, "stream", r->stream);
	cli_field_u64(out, "sequence", r->sequence);
	cli_field_time(out, "time", r->commit_time);
	cli_field_text(out, "kind", span_str(record_kind_name(r->kind)));
	cli_field_uuid(out, "id", r->id);
	cli_field_text(out, "type", r->type);
	cli_field_text(out, "content_type", r->content_type);
	cli_field_text(out, "actor", r->actor);
	cli_field_bool(out, "last_of_append", r->last_of_append);
	if (r->content == RECORD_BODY) {
		cli_field_metadata(out, r);
		field_record_data(out, r);
	} else {
		cli_field_bool(out, "erased", true);
	}
	cli_row_end(out);
}

enum cli_exit cli_out_close(struct cli_out *out)
{
	bool failed;

	if (out->format == OUT_JSON)
		out_write(out, out->row_count ? "\n]\n" : "[]\n");
	cli_out_flush(out);
	failed = out->failed;
	if (failed)
		fprintf(stderr, "cairn: writing to standard output: %s\n", strerror(errno));
	mem_free(out->held);
	mem_free(out);
	return failed ? CLI_FINDING : CLI_OK;
}

enum cli_exit cli_out_end(struct cli_out *out, enum cli_exit code)
{
	enum cli_exit written;

	if (code && !out->row_count)
		out->format = OUT_TABLE; /* an error alone: not even an empty array */
	written = cli_out_close(out);
	return code ? code : written;
}
