/* Scalars as text, by the rules of proto3 JSON without its quotes. */
#include <config.h>

#include "pbdyn/internal.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"

/* --- numbers in --- */

static size_t count_digits(struct span s)
{
	size_t n = 0;
	while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
		n++;
	return n;
}

/* A JSON number in its parts. */
struct number {
	bool negative;
	struct span whole, fraction;
	int64_t exponent;
};

static bool split_number(struct span s, struct number *ret)
{
	struct number n = {0};
	n.negative = s.n && s.p[0] == '-';
	if (n.negative)
		s = span_skip(s, 1);
	n.whole = span_first(s, count_digits(s));
	if (n.whole.n == 0 || (n.whole.n > 1 && s.p[0] == '0'))
		return false;
	s = span_skip(s, n.whole.n);
	if (s.n && s.p[0] == '.') {
		s = span_skip(s, 1);
		n.fraction = span_first(s, count_digits(s));
		if (n.fraction.n == 0)
			return false;
		s = span_skip(s, n.fraction.n);
	}
	if (s.n && (s.p[0] == 'e' || s.p[0] == 'E')) {
		bool minus = s.n > 1 && s.p[1] == '-';
		s = span_skip(s, s.n > 1 && (s.p[1] == '-' || s.p[1] == '+') ? 2 : 1);
		size_t digits = count_digits(s);
		if (digits == 0)
			return false;
		for (size_t i = 0; i < digits && n.exponent < INT32_MAX;
		     i++) /* beyond it all is 0 or too large */
			n.exponent = n.exponent * 10 + (s.p[i] - '0');
		n.exponent = minus ? -n.exponent : n.exponent;
		s = span_skip(s, digits);
	}
	*ret = n;
	return s.n == 0;
}

bool number_is_json(struct span text)
{
	struct number n;
	return split_number(text, &n);
}

static uint8_t digit_at(const struct number *n, size_t i)
{
	return (uint8_t)((i < n->whole.n ? n->whole.p[i] : n->fraction.p[i - n->whole.n]) - '0');
}

/* The exact integer a number stands for, 1.50e1 too: its digits without the point, times a power of ten. */
static bool number_to_integer(const struct number *n, uint64_t *ret)
{
	size_t first = 0, end = n->whole.n + n->fraction.n;
	uint64_t v = 0;
	while (first < end && digit_at(n, first) == 0)
		first++;
	while (end > first && digit_at(n, end - 1) == 0)
		end--;
	int64_t scale = n->exponent - ((int64_t)end - (int64_t)n->whole.n);
	*ret = 0;
	if (first == end)
		return true;
	if (scale < 0 || (int64_t)(end - first) + scale > 20)
		return false;
	for (size_t i = first; i < end; i++) {
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, digit_at(n, i), &v))
			return false;
	}
	for (int64_t i = 0; i < scale; i++) {
		if (__builtin_mul_overflow(v, (uint64_t)10, &v))
			return false;
	}
	*ret = v;
	return true;
}

static bool parse_signed(struct span text, int64_t min, int64_t max, int64_t *ret)
{
	struct number n;
	uint64_t magnitude;
	if (!split_number(text, &n) || !number_to_integer(&n, &magnitude))
		return false;
	if (magnitude > (n.negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX))
		return false;
	int64_t v = n.negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
	*ret = v;
	return v >= min && v <= max;
}

static bool parse_unsigned(struct span text, uint64_t max, uint64_t *ret)
{
	struct number n;
	return split_number(text, &n) && number_to_integer(&n, ret) && *ret <= max &&
	       (!n.negative || *ret == 0);
}

/* strtod() wants a final 0, which the text does not have. */
static bool parse_double(struct span text, struct arena *arena, double *ret)
{
	char small[64];
	const char *p = small;
	if (span_eq_str(text, "NaN") || span_eq_str(text, "Infinity") || span_eq_str(text, "-Infinity")) {
		*ret = text.p[0] == 'N'   ? (double)NAN
		       : text.p[0] == 'I' ? (double)INFINITY
					  : -(double)INFINITY;
		return true;
	}
	if (!number_is_json(text))
		return false;
	if (text.n < sizeof(small)) {
		memcpy(small, text.p, text.n);
		small[text.n] = 0;
	} else {
		p = (const char *)arena_dup(arena, text).p;
		if (!p)
			return false;
	}
	*ret = strtod(p, NULL);
	return isfinite(*ret);
}

/* --- text in --- */

static const char *kind_name(enum pb_kind kind)
{
	static const char *const names[] = {
		[PB_DOUBLE] = "a double",      [PB_FLOAT] = "a float",
		[PB_INT64] = "an int64",       [PB_UINT64] = "a uint64",
		[PB_INT32] = "an int32",       [PB_FIXED64] = "a fixed64",
		[PB_FIXED32] = "a fixed32",    [PB_BOOL] = "true or false",
		[PB_STRING] = "UTF-8 text",    [PB_GROUP] = "a group",
		[PB_MESSAGE] = "a message",    [PB_BYTES] = "base64",
		[PB_UINT32] = "a uint32",      [PB_ENUM] = "a name or number of",
		[PB_SFIXED32] = "an sfixed32", [PB_SFIXED64] = "an sfixed64",
		[PB_SINT32] = "an sint32",     [PB_SINT64] = "an sint64",
	};
	return names[kind];
}

static bool parse_enum(const struct pb_enum *e, struct span text, int32_t *ret)
{
	const struct pb_enum_value *named = pb_enum_by_name(e, text);
	int64_t number;
	if (!named && !parse_signed(text, INT32_MIN, INT32_MAX, &number))
		return false;
	*ret = named ? named->number : (int32_t)number;
	return true;
}

static enum err_code parse_bytes(struct span text, struct arena *arena, struct span *ret)
{
	struct buf decoded;
	buf_init(&decoded, text.n + 4);
	enum err_code code = base64_decode(&decoded, text);
	if (!code) {
		*ret = arena_dup(arena, buf_span(&decoded));
		if (!ret->p && decoded.n)
			code = ERR_LIMIT;
	}
	buf_release(&decoded);
	return code;
}

/* Where rounding to a float becomes infinite: half a step above FLT_MAX, whose shortest text is above it. */
#define FLOAT_BEYOND 0x1.ffffffp+127

static bool parse_number_kind(const struct pb_field *field, struct span text, struct arena *arena,
			      union pb_value *v)
{
	int64_t i;
	uint64_t u;
	double d;
	bool fits;
	switch (field->kind) {
	case PB_DOUBLE: return parse_double(text, arena, &v->d);
	case PB_FLOAT:
		fits = parse_double(text, arena, &d) && (!isfinite(d) || fabs(d) < FLOAT_BEYOND);
		v->f = fits ? (float)d : 0;
		return fits;
	case PB_INT64:
	case PB_SINT64:
	case PB_SFIXED64: return parse_signed(text, INT64_MIN, INT64_MAX, &v->i64);
	case PB_UINT64:
	case PB_FIXED64: return parse_unsigned(text, UINT64_MAX, &v->u64);
	case PB_INT32:
	case PB_SINT32:
	case PB_SFIXED32:
		fits = parse_signed(text, INT32_MIN, INT32_MAX, &i);
		v->i32 = fits ? (int32_t)i : 0;
		return fits;
	case PB_UINT32:
	case PB_FIXED32:
		fits = parse_unsigned(text, UINT32_MAX, &u);
		v->u32 = fits ? (uint32_t)u : 0;
		return fits;
	default: return false;
	}
}

enum err_code scalar_parse(const struct pb_field *field, struct span text, struct arena *arena,
			   union pb_value *ret, struct err *err)
{
	union pb_value v = {.u64 = 0};
	bool fits = false;
	struct span shown = text.n > 64 ? span_first(text, 64) : text;
	switch (field->kind) {
	case PB_BOOL:
		v.b = span_eq_str(text, "true");
		fits = v.b || span_eq_str(text, "false");
		break;
	case PB_STRING:
		fits = utf8_valid(text);
		v.bytes = fits ? arena_dup(arena, text) : text;
		if (fits && text.n && !v.bytes.p)
			return arena_exhausted(err);
		break;
	case PB_BYTES: {
		enum err_code code = parse_bytes(text, arena, &v.bytes);
		if (code && code != ERR_INVALID)
			return arena_exhausted(err);
		fits = code == ERR_OK;
		break;
	}
	case PB_ENUM: fits = parse_enum(field->enum_type, text, &v.i32); break;
	case PB_MESSAGE:
	case PB_GROUP: break;
	default: fits = parse_number_kind(field, text, arena, &v); break;
	}
	if (!fits) {
		struct span name = field->kind == PB_ENUM ? field->enum_type->full_name : (struct span){0};
		return err_set(err, ERR_INVALID, "\"%.*s\"%s is not %s%s%.*s", SPAN_ARG(shown),
			       shown.n < text.n ? "..." : "", kind_name(field->kind), name.n ? " " : "",
			       SPAN_ARG(name));
	}
	*ret = v;
	return ERR_OK;
}

/* --- text out --- */

enum err_code print_u64(struct buf *out, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	return buf_append(out, digits + at, sizeof(digits) - at);
}

enum err_code print_i64(struct buf *out, int64_t value)
{
	enum err_code code = value < 0 ? buf_append_byte(out, '-') : ERR_OK;
	return code ? code : print_u64(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

static const char *not_finite(double value)
{
	return isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

/* Of the decimal texts that read back the same, the one with the fewest digits: below DBL_DIG digits any
 * text survives the way there and back, so 15 digits less trailing zeros are it if they read back; only
 * subnormal numbers have fewer to give and are tried from one digit on. */
enum err_code print_double(struct buf *out, double value)
{
	char text[40];
	if (!isfinite(value))
		return buf_append_str(out, not_finite(value));
	for (int digits = value != 0 && fabs(value) < DBL_MIN ? 1 : DBL_DIG; digits <= DBL_DIG + 2;
	     digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	return buf_append_str(out, text);
}

enum err_code print_float(struct buf *out, float value)
{
	char text[40];
	if (!isfinite(value))
		return buf_append_str(out, not_finite((double)value));
	for (int digits = value != 0 && fabsf(value) < FLT_MIN ? 1 : FLT_DIG; digits <= FLT_DIG + 3;
	     digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, (double)value);
		if (strtof(text, NULL) == value)
			break;
	}
	return buf_append_str(out, text);
}

static enum err_code print_enum(struct buf *out, const struct pb_enum *e, int32_t number)
{
	if (e->null_value)
		return buf_append_str(out, "null");
	const struct pb_enum_value *named = pb_enum_by_number(e, number);
	return named ? buf_append_span(out, named->name) : print_i64(out, number);
}

enum err_code pb_scalar_print(const struct pb_field *field, union pb_value v, struct buf *out,
			      struct err *err)
{
	enum err_code code = ERR_OK;
	switch (field->kind) {
	case PB_DOUBLE: code = print_double(out, v.d); break;
	case PB_FLOAT: code = print_float(out, v.f); break;
	case PB_INT64:
	case PB_SINT64:
	case PB_SFIXED64: code = print_i64(out, v.i64); break;
	case PB_UINT64:
	case PB_FIXED64: code = print_u64(out, v.u64); break;
	case PB_INT32:
	case PB_SINT32:
	case PB_SFIXED32: code = print_i64(out, v.i32); break;
	case PB_UINT32:
	case PB_FIXED32: code = print_u64(out, v.u32); break;
	case PB_BOOL: code = buf_append_str(out, v.b ? "true" : "false"); break;
	case PB_STRING: code = buf_append_span(out, v.bytes); break;
	case PB_BYTES: code = base64_encode(out, v.bytes, true); break;
	case PB_ENUM: code = print_enum(out, field->enum_type, v.i32); break;
	case PB_MESSAGE:
	case PB_GROUP:
		return err_set(err, ERR_INVALID, "field %.*s is no scalar", SPAN_ARG(field->full_name));
	}
	return code ? err_set(err, code, "the text of %.*s does not fit", SPAN_ARG(field->full_name))
		    : ERR_OK;
}
