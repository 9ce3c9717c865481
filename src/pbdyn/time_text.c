/* Timestamp, Duration and FieldMask paths as text. */
#include <config.h>

#include "pbdyn/internal.h"

#include <inttypes.h>

#define TIMESTAMP_MIN INT64_C(-62135596800) /* 0001-01-01T00:00:00Z */
#define TIMESTAMP_MAX INT64_C(253402300799) /* 9999-12-31T23:59:59Z */
#define DURATION_MAX INT64_C(315576000000)  /* 10,000 years */

/* Days since 1970 to a date and back: years begin in March, so that the leap day is the last. */
static void date_of_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day)
{
	int64_t z = days + 719468; /* days since 0000-03-01 */
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	*ret_day = (int)(doy - (153 * mp + 2) / 5 + 1);
	*ret_month = (int)(mp < 10 ? mp + 3 : mp - 9);
	*ret_year = yoe + era * 400 + (*ret_month <= 2);
}

static int64_t days_of_date(int64_t year, int month, int day)
{
	year -= month <= 2;
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t yoe = year - era * 400;
	int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
	return era * 146097 + doe - 719468;
}

static int days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return days[month - 1] + (month == 2 && leap);
}

/* Nothing, or a point and 3, 6 or 9 digits. */
static enum err_code print_fraction(struct buf *out, int32_t nanos)
{
	if (nanos == 0)
		return ERR_OK;
	if (nanos % 1000000 == 0)
		return buf_printf(out, ".%03" PRId32, nanos / 1000000);
	if (nanos % 1000 == 0)
		return buf_printf(out, ".%06" PRId32, nanos / 1000);
	return buf_printf(out, ".%09" PRId32, nanos);
}

/* ".5" and up to nine digits; nothing is 0. */
static bool take_fraction(struct span *s, int32_t *ret_nanos)
{
	int32_t nanos = 0, unit = 100000000;
	size_t n = 0;
	*ret_nanos = 0;
	if (s->n == 0 || s->p[0] != '.')
		return true;
	*s = span_skip(*s, 1);
	for (; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++, unit /= 10) {
		if (n == 9)
			return false;
		nanos += (s->p[n] - '0') * unit;
	}
	*s = span_skip(*s, n);
	*ret_nanos = nanos;
	return n > 0;
}

/* Exactly `digits` digits and then `after` (0: nothing). */
static bool take_digits(struct span *s, size_t digits, char after, int *ret)
{
	int v = 0;
	if (s->n < digits + (after != 0))
		return false;
	for (size_t i = 0; i < digits; i++) {
		if (s->p[i] < '0' || s->p[i] > '9')
			return false;
		v = v * 10 + (s->p[i] - '0');
	}
	if (after && s->p[digits] != (uint8_t)after)
		return false;
	*s = span_skip(*s, digits + (after != 0));
	*ret = v;
	return true;
}

enum err_code timestamp_print(struct buf *out, int64_t seconds, int32_t nanos, struct err *err)
{
	int64_t year;
	int month, day;
	if (seconds < TIMESTAMP_MIN || seconds > TIMESTAMP_MAX || nanos < 0 || nanos > 999999999)
		return err_set(err, ERR_INVALID,
			       "a Timestamp of %" PRId64 " s and %" PRId32 " ns is outside years 1 to 9999",
			       seconds, nanos);
	int64_t days = (seconds - TIMESTAMP_MIN) / 86400 + TIMESTAMP_MIN / 86400;
	int rest = (int)((seconds - TIMESTAMP_MIN) % 86400);
	date_of_days(days, &year, &month, &day);
	enum err_code code = buf_printf(out, "%04" PRId64 "-%02d-%02dT%02d:%02d:%02d", year, month, day,
					rest / 3600, rest / 60 % 60, rest % 60);
	if (code || (code = print_fraction(out, nanos)) || (code = buf_append_byte(out, 'Z')))
		return err_set(err, code, "a Timestamp does not fit");
	return ERR_OK;
}

/* "Z" or "+hh:mm" in seconds east, which must be all that is left. */
static bool take_zone(struct span s, int *ret_east)
{
	int hours, minutes;
	*ret_east = 0;
	if (span_eq_str(s, "Z"))
		return true;
	if (s.n == 0 || (s.p[0] != '+' && s.p[0] != '-'))
		return false;
	int sign = s.p[0] == '-' ? -1 : 1;
	s = span_skip(s, 1);
	if (!take_digits(&s, 2, ':', &hours) || !take_digits(&s, 2, 0, &minutes) || s.n || hours > 23 ||
	    minutes > 59)
		return false;
	*ret_east = sign * (hours * 3600 + minutes * 60);
	return true;
}

enum err_code timestamp_parse(struct span text, int64_t *ret_seconds, int32_t *ret_nanos, struct err *err)
{
	int year, month, day, hour, minute, second, east;
	int32_t nanos;
	struct span s = text;
	bool fits = take_digits(&s, 4, '-', &year) && take_digits(&s, 2, '-', &month) &&
		    take_digits(&s, 2, 'T', &day) && take_digits(&s, 2, ':', &hour) &&
		    take_digits(&s, 2, ':', &minute) && take_digits(&s, 2, 0, &second) &&
		    take_fraction(&s, &nanos) && take_zone(s, &east) && year >= 1 && month >= 1 &&
		    month <= 12 && day >= 1 && day <= days_in_month(year, month) && hour < 24 &&
		    minute < 60 && second < 60;
	int64_t at =
		fits ? days_of_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - east : 0;
	if (!fits || at < TIMESTAMP_MIN || at > TIMESTAMP_MAX)
		return err_set(err, ERR_INVALID,
			       "\"%.*s\" is not a time like 2006-01-02T15:04:05.999Z in years 1 to 9999",
			       SPAN_ARG(text));
	*ret_seconds = at;
	*ret_nanos = nanos;
	return ERR_OK;
}

enum err_code duration_print(struct buf *out, int64_t seconds, int32_t nanos, struct err *err)
{
	bool fits = seconds >= -DURATION_MAX && seconds <= DURATION_MAX && nanos > -1000000000 &&
		    nanos < 1000000000 && !(seconds < 0 && nanos > 0) && !(seconds > 0 && nanos < 0);
	if (!fits)
		return err_set(err, ERR_INVALID, "%" PRId64 " s and %" PRId32 " ns are no Duration", seconds,
			       nanos);
	bool negative = seconds < 0 || nanos < 0;
	enum err_code code =
		buf_printf(out, "%s%" PRId64, negative ? "-" : "", negative ? -seconds : seconds);
	if (code || (code = print_fraction(out, negative ? -nanos : nanos)) ||
	    (code = buf_append_byte(out, 's')))
		return err_set(err, code, "a Duration does not fit");
	return ERR_OK;
}

enum err_code duration_parse(struct span text, int64_t *ret_seconds, int32_t *ret_nanos, struct err *err)
{
	struct span s = text;
	int64_t seconds = 0;
	int32_t nanos = 0;
	size_t digits = 0;
	bool negative = s.n && s.p[0] == '-';
	if (negative)
		s = span_skip(s, 1);
	for (; digits < s.n && digits < 13 && s.p[digits] >= '0' && s.p[digits] <= '9'; digits++)
		seconds = seconds * 10 + (s.p[digits] - '0');
	s = span_skip(s, digits);
	if (digits == 0 || !take_fraction(&s, &nanos) || !span_eq_str(s, "s") || seconds > DURATION_MAX)
		return err_set(err, ERR_INVALID, "\"%.*s\" is not a duration like 1.5s", SPAN_ARG(text));
	*ret_seconds = negative ? -seconds : seconds;
	*ret_nanos = negative ? -nanos : nanos;
	return ERR_OK;
}

/* Only paths that come back the same may be printed, as protobuf asks. */
enum err_code mask_path_print(struct buf *out, struct span path, struct err *err)
{
	enum err_code code = ERR_OK;
	for (size_t i = 0; i < path.n && !code; i++) {
		uint8_t c = path.p[i];
		bool raise = c == '_' && i + 1 < path.n && path.p[i + 1] >= 'a' && path.p[i + 1] <= 'z';
		if ((c >= 'A' && c <= 'Z') || (c == '_' && !raise))
			return err_set(err, ERR_INVALID, "the FieldMask path \"%.*s\" has no JSON form",
				       SPAN_ARG(path));
		code = buf_append_byte(out, raise ? (uint8_t)(path.p[++i] - 'a' + 'A') : c);
	}
	return code ? err_set(err, code, "a FieldMask does not fit") : ERR_OK;
}

enum err_code mask_path_parse(struct buf *out, struct span text, struct err *err)
{
	enum err_code code = ERR_OK;
	for (size_t i = 0; i < text.n && !code; i++) {
		uint8_t c = text.p[i];
		if (c == '_')
			return err_set(err, ERR_INVALID,
				       "the FieldMask path \"%.*s\" must be in lowerCamelCase",
				       SPAN_ARG(text));
		if (c >= 'A' && c <= 'Z') {
			code = buf_append_byte(out, '_');
			c = (uint8_t)(c - 'A' + 'a');
		}
		if (!code)
			code = buf_append_byte(out, c);
	}
	return code ? err_set(err, code, "a FieldMask does not fit") : ERR_OK;
}
