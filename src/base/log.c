#include <config.h>

#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/must.h"
#include "base/text.h"

/* The one log of the process: set up once, before other threads, but for tests. */
static atomic_int threshold = LOG_INFO;
static enum log_format line_format = LOG_LOGFMT;
static void (*line_sink)(struct span line, void *arg);
static void *line_sink_arg;
static pthread_mutex_t line_lock = PTHREAD_MUTEX_INITIALIZER;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level level, enum log_format format)
{
	pthread_mutex_lock(&line_lock);
	atomic_store(&threshold, (int)level);
	line_format = format;
	pthread_mutex_unlock(&line_lock);
}

void log_set_sink(void (*sink)(struct span line, void *arg), void *arg)
{
	pthread_mutex_lock(&line_lock);
	line_sink = sink;
	line_sink_arg = arg;
	pthread_mutex_unlock(&line_lock);
}

bool log_enabled(enum log_level level)
{
	return level < LOG_OFF && (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed);
}

static enum err_code append_escaped_char(struct buf *b, uint32_t c, struct span bytes)
{
	switch (c) {
	case '"': return buf_append_str(b, "\\\"");
	case '\\': return buf_append_str(b, "\\\\");
	case '\n': return buf_append_str(b, "\\n");
	case '\r': return buf_append_str(b, "\\r");
	case '\t': return buf_append_str(b, "\\t");
	default: break;
	}
	if (c < 0x20 || (c >= 0x7F && c < 0xA0)) /* a terminal must not obey what a peer sent */
		return buf_printf(b, "\\u%04x", (unsigned int)c);
	return buf_append_span(b, bytes);
}

/* The text in quotes, escaped as in JSON; what is no UTF-8 becomes U+FFFD, a byte at a time. */
static enum err_code append_quoted(struct buf *b, struct span s)
{
	size_t whole = s.n;
	if (s.n > LIMIT_LOG_VALUE_BYTES)
		for (s.n = LIMIT_LOG_VALUE_BYTES; s.n > LIMIT_LOG_VALUE_BYTES - 4; s.n--)
			if ((s.p[s.n] & 0xC0) != 0x80)
				break; /* between two characters */
	enum err_code e = buf_append_byte(b, '"');
	for (size_t i = 0; i < s.n && !e;) {
		uint32_t c;
		size_t n = utf8_char(span_skip(s, i), &c);
		e = n ? append_escaped_char(b, c, span_of(s.p + i, n)) : buf_append_str(b, "\xEF\xBF\xBD");
		i += n ? n : 1;
	}
	if (!e && whole > s.n)
		e = buf_printf(b, "...(%zu bytes)", whole);
	return e ? e : buf_append_byte(b, '"');
}

/* logfmt leaves the quotes away where the value cannot be misread. */
static enum err_code append_text(struct buf *b, struct span s)
{
	bool plain = s.n > 0 && s.n <= LIMIT_LOG_VALUE_BYTES && utf8_valid_no_controls(s);
	for (size_t i = 0; i < s.n && plain; i++)
		plain = s.p[i] != ' ' && s.p[i] != '"' && s.p[i] != '=' && s.p[i] != '\\';
	return plain && line_format == LOG_LOGFMT ? buf_append_span(b, s) : append_quoted(b, s);
}

static enum err_code append_double(struct buf *b, double v)
{
	if (!isfinite(v)) /* JSON has no number for it */
		return append_text(b, span_str(isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity"));
	return buf_printf(b, "%.15g", v);
}

static enum err_code append_key(struct buf *b, const char *key)
{
	bool json = line_format == LOG_JSON;
	return buf_printf(b, json ? "%s\"%s\":" : "%s%s=", b->n <= 1 ? "" : json ? "," : " ", key);
}

static enum err_code append_field(struct buf *b, const struct log_field *field)
{
	enum err_code e = append_key(b, field->key);
	if (e)
		return e;
	switch (field->type) {
	case LOG_FIELD_SPAN: return append_text(b, field->v.span);
	case LOG_FIELD_I64: return buf_printf(b, "%lld", (long long)field->v.i64);
	case LOG_FIELD_U64: return buf_printf(b, "%llu", (unsigned long long)field->v.u64);
	case LOG_FIELD_F64: return append_double(b, field->v.f64);
	case LOG_FIELD_END: break;
	}
	unreachable_state("of a log field");
}

static enum err_code line_build(struct buf *b, enum log_level level, const char *message,
				const struct log_field *fields)
{
	char now[32];
	wall_format(clock_wall(&clock_system), now);
	const struct log_field head[] = {LOG_STR("time", now), LOG_STR("level", level_names[level]),
					 LOG_STR("msg", message)};
	enum err_code e = line_format == LOG_JSON ? buf_append_byte(b, '{') : ERR_OK;
	for (size_t i = 0; i < ARRAY_LEN(head) && !e; i++)
		e = append_field(b, &head[i]);
	for (; fields->type != LOG_FIELD_END && !e; fields++)
		e = append_field(b, fields);
	return e ? e : buf_append_str(b, line_format == LOG_JSON ? "}\n" : "\n");
}

static void line_write(struct span line)
{
	if (line_sink) {
		line_sink(line, line_sink_arg);
		return;
	}
	while (line.n) {
		ssize_t n = write(STDERR_FILENO, line.p, line.n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody can be told that the log is gone */
		line = span_skip(line, (size_t)n);
	}
}

void log_emit(enum log_level level, const char *message, const struct log_field *fields)
{
	must(level < LOG_OFF);
	struct buf b;
	buf_init(&b, LIMIT_LOG_LINE_BYTES);
	pthread_mutex_lock(&line_lock);
	if (line_build(&b, level, message, fields))
		line_write(SPAN("level=error msg=\"a log line was lost: out of memory or longer than "
				"its limit\"\n"));
	else
		line_write(buf_span(&b));
	pthread_mutex_unlock(&line_lock);
	buf_release(&b);
}
