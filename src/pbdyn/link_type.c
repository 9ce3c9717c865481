/* What one message type needs beyond its pointers: JSON names, lookup tables, declared defaults, and the
 * check that a well-known type is what its name says. */
#include <config.h>

#include "pbdyn/load.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/text.h"

/* --- JSON names --- */

/* lowerCamelCase, as protoc derives it: underscores go and raise the letter behind them. */
static struct span derive_json_name(struct arena *arena, struct span name)
{
	uint8_t *p = arena_alloc(arena, name.n + 1);
	size_t n = 0;
	bool raise = false;
	for (size_t i = 0; p && i < name.n; i++) {
		uint8_t c = name.p[i];
		if (c == '_') {
			raise = true;
			continue;
		}
		p[n++] = raise && c >= 'a' && c <= 'z' ? (uint8_t)(c - 'a' + 'A') : c;
		raise = false;
	}
	return span_of(p, n);
}

static int compare_json_names(const void *a, const void *b)
{
	return span_cmp((*(struct pb_field *const *)a)->json_name, (*(struct pb_field *const *)b)->json_name);
}

/* Whoever shares its JSON name with another field goes by its proto name, which is unique; that may
 * collide with a third field's JSON name, which then does the same. Ends because each round makes at
 * least one more field go by its proto name; where it goes on for long, all do. */
static enum err_code settle_json_names(struct loader *l, struct load_type *t)
{
	size_t n = t->type->field_count;
	bool changed = true;
	unsigned rounds = 0;
	struct pb_field **sorted = arena_alloc(&l->scratch, (n + 1) * sizeof(struct pb_field *));
	if (!sorted)
		return load_exhausted(l);
	for (size_t i = 0; i < n; i++)
		sorted[i] = &t->fields[i];
	for (; changed && rounds < 10; rounds++) {
		changed = false;
		qsort(sorted, n, sizeof(struct pb_field *), compare_json_names);
		for (size_t i = 0, end; i < n; i = end) {
			struct span name = sorted[i]->json_name;
			for (end = i + 1; end < n && span_eq(sorted[end]->json_name, name); end++)
				;
			for (size_t k = i; k < end && end > i + 1; k++) {
				changed = changed || !span_eq(sorted[k]->name, name);
				sorted[k]->json_name = sorted[k]->name;
			}
		}
	}
	for (size_t i = 0; changed && i < n; i++)
		t->fields[i].json_name = t->fields[i].name;
	return ERR_OK;
}

/* --- lookup tables --- */

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x = (*(const struct pb_field *const *)a)->number;
	uint32_t y = (*(const struct pb_field *const *)b)->number;
	return (x > y) - (x < y);
}

static int compare_names(const void *a, const void *b) /* shorter first: most differ in length */
{
	const struct pb_name *x = a, *y = b;
	if (x->name.n != y->name.n)
		return x->name.n < y->name.n ? -1 : 1;
	return x->name.n ? memcmp(x->name.p, y->name.p, x->name.n) : 0;
}

static int compare_names_json_first(const void *a, const void *b)
{
	const struct pb_name *x = a, *y = b;
	int c = compare_names(a, b);
	bool xj = span_eq(x->name, x->field->json_name), yj = span_eq(y->name, y->field->json_name);
	return c ? c : (int)yj - (int)xj;
}

static enum err_code index_fields(struct loader *l, struct load_type *t)
{
	struct pb_type *type = t->type;
	size_t n = type->field_count, kept = 0;
	const struct pb_field **by_number = arena_alloc(&l->pool->arena, (n + 1) * sizeof(*by_number));
	struct pb_name *names = arena_alloc(&l->pool->arena, (2 * n + 1) * sizeof(*names));
	if (!by_number || !names)
		return load_exhausted(l);
	for (size_t i = 0; i < n; i++) {
		by_number[i] = &t->fields[i];
		names[2 * i] = (struct pb_name){t->fields[i].json_name, &t->fields[i]};
		names[2 * i + 1] = (struct pb_name){t->fields[i].name, &t->fields[i]};
	}
	qsort(by_number, n, sizeof(*by_number), compare_numbers);
	for (size_t i = 1; i < n; i++) {
		if (by_number[i]->number == by_number[i - 1]->number)
			return load_fail(l, type->file, "%.*s and %.*s have the same number %u",
					 SPAN_ARG(by_number[i - 1]->full_name), SPAN_ARG(by_number[i]->name),
					 by_number[i]->number);
	}
	qsort(names, 2 * n, sizeof(*names), compare_names_json_first);
	for (size_t i = 0; i < 2 * n; i++) { /* a JSON name hides the proto name of another */
		if (kept == 0 || !span_eq(names[kept - 1].name, names[i].name))
			names[kept++] = names[i];
	}
	type->by_number = by_number;
	type->names = names;
	type->name_count = kept;
	return ERR_OK;
}

const struct pb_field *pb_field_by_name(const struct pb_type *type, struct span name)
{
	struct pb_name key = {.name = name};
	const struct pb_name *found =
		type->name_count ? bsearch(&key, type->names, type->name_count, sizeof(key), compare_names)
				 : NULL;
	return found ? found->field : NULL;
}

const struct pb_field *pb_field_by_number(const struct pb_type *type, uint32_t number)
{
	size_t low = 0, high = type->field_count;
	/* Most types number their fields 1, 2, 3 ... */
	if (number - 1 < high && type->by_number[number - 1]->number == number)
		return type->by_number[number - 1];
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (type->by_number[middle]->number == number)
			return type->by_number[middle];
		if (type->by_number[middle]->number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* --- well-known types --- */

struct known_field {
	uint32_t number;
	enum pb_kind kind;
	bool repeated;
	const char *sub; /* the full name of its message type, or NULL for any */
};

static const struct known_type {
	const char *name; /* within google.protobuf */
	enum pb_wkt wkt;
	struct known_field fields[7];
} known_types[] = {
	{"Any", PB_WKT_ANY, {{1, PB_STRING, false, NULL}, {2, PB_BYTES, false, NULL}}},
	{"Timestamp", PB_WKT_TIMESTAMP, {{1, PB_INT64, false, NULL}, {2, PB_INT32, false, NULL}}},
	{"Duration", PB_WKT_DURATION, {{1, PB_INT64, false, NULL}, {2, PB_INT32, false, NULL}}},
	{"FieldMask", PB_WKT_FIELD_MASK, {{1, PB_STRING, true, NULL}}},
	{"Struct", PB_WKT_STRUCT, {{1, PB_MESSAGE, true, "google.protobuf.Struct.FieldsEntry"}}},
	{"Value",
	 PB_WKT_VALUE,
	 {{1, PB_ENUM, false, NULL},
	  {2, PB_DOUBLE, false, NULL},
	  {3, PB_STRING, false, NULL},
	  {4, PB_BOOL, false, NULL},
	  {5, PB_MESSAGE, false, "google.protobuf.Struct"},
	  {6, PB_MESSAGE, false, "google.protobuf.ListValue"}}},
	{"ListValue", PB_WKT_LIST_VALUE, {{1, PB_MESSAGE, true, "google.protobuf.Value"}}},
	{"Struct.FieldsEntry",
	 PB_WKT_NONE,
	 {{1, PB_STRING, false, NULL}, {2, PB_MESSAGE, false, "google.protobuf.Value"}}},
	{"DoubleValue", PB_WKT_WRAPPER, {{1, PB_DOUBLE, false, NULL}}},
	{"FloatValue", PB_WKT_WRAPPER, {{1, PB_FLOAT, false, NULL}}},
	{"Int64Value", PB_WKT_WRAPPER, {{1, PB_INT64, false, NULL}}},
	{"UInt64Value", PB_WKT_WRAPPER, {{1, PB_UINT64, false, NULL}}},
	{"Int32Value", PB_WKT_WRAPPER, {{1, PB_INT32, false, NULL}}},
	{"UInt32Value", PB_WKT_WRAPPER, {{1, PB_UINT32, false, NULL}}},
	{"BoolValue", PB_WKT_WRAPPER, {{1, PB_BOOL, false, NULL}}},
	{"StringValue", PB_WKT_WRAPPER, {{1, PB_STRING, false, NULL}}},
	{"BytesValue", PB_WKT_WRAPPER, {{1, PB_BYTES, false, NULL}}},
};

/* The JSON code reads the fields of these types by number and must find what it expects. */
static enum err_code check_known_type(struct loader *l, struct pb_type *type)
{
	struct span prefix = SPAN("google.protobuf.");
	if (!span_starts(type->full_name, prefix))
		return ERR_OK;
	for (size_t i = 0; i < ARRAY_LEN(known_types); i++) {
		const struct known_type *k = &known_types[i];
		size_t n = 0;
		if (!span_eq_str(span_skip(type->full_name, prefix.n), k->name))
			continue;
		for (; k->fields[n].number; n++) {
			const struct known_field *want = &k->fields[n];
			const struct pb_field *f = pb_field_by_number(type, want->number);
			bool fits = f && f->kind == want->kind && f->repeated == want->repeated &&
				    (!want->sub || (f->sub && span_eq_str(f->sub->full_name, want->sub))) &&
				    (k->wkt != PB_WKT_STRUCT || f->map);
			if (!fits)
				return load_fail(l, type->file,
						 "%.*s lacks field %u as the well-known type has it",
						 SPAN_ARG(type->full_name), want->number);
		}
		bool shaped = type->field_count == n && (k->wkt != PB_WKT_VALUE || type->oneof_count == 1);
		for (size_t m = 0; k->wkt == PB_WKT_VALUE && m < n; m++)
			shaped = shaped && type->fields[m].oneof;
		if (!shaped)
			return load_fail(l, type->file, "%.*s has other fields than the well-known type",
					 SPAN_ARG(type->full_name));
		type->wkt = k->wkt;
	}
	return ERR_OK;
}

static enum err_code check_map_entry(struct loader *l, const struct pb_type *type)
{
	const struct pb_field *key = pb_field_by_number(type, 1), *value = pb_field_by_number(type, 2);
	bool fits = type->field_count == 2 && type->oneof_count == 0 && key && value && !key->repeated &&
		    !value->repeated && key->kind != PB_DOUBLE && key->kind != PB_FLOAT &&
		    key->kind != PB_BYTES && key->kind != PB_ENUM && key->kind != PB_MESSAGE &&
		    key->kind != PB_GROUP && value->kind != PB_GROUP;
	return fits ? ERR_OK
		    : load_fail(l, type->file, "%.*s is marked as a map entry but is none",
				SPAN_ARG(type->full_name));
}

enum err_code link_type(struct loader *l, struct load_type *t)
{
	enum err_code code;
	for (size_t i = 0; i < t->type->field_count; i++) {
		struct pb_field *f = &t->fields[i];
		if (f->json_name.n == 0)
			f->json_name = derive_json_name(&l->pool->arena, f->name);
		if (!f->json_name.p)
			return load_exhausted(l);
	}
	if ((code = settle_json_names(l, t)) || (code = index_fields(l, t)))
		return code;
	if (t->type->map_entry && (code = check_map_entry(l, t->type)))
		return code;
	return check_known_type(l, t->type);
}

/* --- defaults --- */

/* A bytes default is written with C escapes. */
static bool unescape(struct arena *arena, struct span text, struct span *ret)
{
	static const char letters[] = "abfnrtv\\'\"?", meanings[] = "\a\b\f\n\r\t\v\\'\"?";
	uint8_t *p = arena_alloc(arena, text.n + 1);
	size_t n = 0;
	if (!p)
		return false;
	for (size_t i = 0; i < text.n;) {
		uint8_t c = text.p[i++];
		if (c != '\\') {
			p[n++] = c;
			continue;
		}
		if (i == text.n)
			return false;
		c = text.p[i++];
		const char *letter = c ? strchr(letters, c) : NULL;
		if (letter) {
			p[n++] = (uint8_t)meanings[letter - letters];
		} else if (c >= '0' && c <= '7') {
			unsigned v = (unsigned)(c - '0');
			for (int k = 0; k < 2 && i < text.n && text.p[i] >= '0' && text.p[i] <= '7'; k++)
				v = v * 8 + (unsigned)(text.p[i++] - '0');
			p[n++] = (uint8_t)v;
		} else {
			return false;
		}
	}
	*ret = span_of(p, n);
	return true;
}

static bool parse_float_default(struct span text, struct arena *scratch, double *ret)
{
	struct span copy = arena_dup(scratch, text);
	char *end;
	if (!copy.p || text.n == 0)
		return false;
	*ret = strtod((const char *)copy.p, &end);
	return (const uint8_t *)end == copy.p + copy.n;
}

static bool parse_default(struct loader *l, const struct pb_field *f, struct span text, union pb_value *v)
{
	double d;
	const struct pb_enum_value *named;
	switch (f->kind) {
	case PB_DOUBLE: return parse_float_default(text, &l->scratch, &v->d);
	case PB_FLOAT:
		if (!parse_float_default(text, &l->scratch, &d))
			return false;
		v->f = (float)d;
		return true;
	case PB_INT64:
	case PB_SINT64:
	case PB_SFIXED64: return parse_i64(text, &v->i64);
	case PB_UINT64:
	case PB_FIXED64: return parse_u64(text, &v->u64);
	case PB_INT32:
	case PB_SINT32:
	case PB_SFIXED32: {
		int64_t wide;
		bool fits = parse_i64(text, &wide) && wide >= INT32_MIN && wide <= INT32_MAX;
		v->i32 = fits ? (int32_t)wide : 0;
		return fits;
	}
	case PB_UINT32:
	case PB_FIXED32: {
		uint64_t wide;
		bool fits = parse_u64(text, &wide) && wide <= UINT32_MAX;
		v->u32 = fits ? (uint32_t)wide : 0;
		return fits;
	}
	case PB_BOOL: v->b = span_eq_str(text, "true"); return v->b || span_eq_str(text, "false");
	case PB_STRING: v->bytes = text; return true;
	case PB_BYTES: return unescape(&l->pool->arena, text, &v->bytes);
	case PB_ENUM:
		named = f->enum_type ? pb_enum_by_name(f->enum_type, text) : NULL;
		v->i32 = named ? named->number : 0;
		return named || f->extension;
	case PB_MESSAGE:
	case PB_GROUP: break;
	}
	return false;
}

enum err_code link_fallback(struct loader *l, const struct load_field *pending)
{
	struct pb_field *f = pending->field;
	if (f->kind == PB_ENUM && f->enum_type && !f->file->proto3)
		f->fallback.i32 = f->enum_type->values[0].number;
	if (!pending->has_fallback || f->repeated)
		return ERR_OK;
	if (!parse_default(l, f, pending->fallback, &f->fallback))
		return load_fail(l, f->file, "%.*s: \"%.*s\" is not a default for its type",
				 SPAN_ARG(f->full_name), SPAN_ARG(pending->fallback));
	return ERR_OK;
}
