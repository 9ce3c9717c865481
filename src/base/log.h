/* The log: one line an event, in logfmt or JSON, on stderr. Lines are whole: one write() each, from any
 * thread. A line has time, level, message, and fields; the layer that can decide logs, once.
 *
 *	log_info("journal opened", LOG_STR("path", path), LOG_U64("head", head));
 */
#ifndef CAIRN_BASE_LOG_H
#define CAIRN_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };
enum log_format { LOG_LOGFMT, LOG_JSON };

enum log_field_type { LOG_FIELD_END, LOG_FIELD_SPAN, LOG_FIELD_I64, LOG_FIELD_U64, LOG_FIELD_F64 };
struct log_field {
	const char *key;
	enum log_field_type type;
	union {
		struct span span;
		int64_t i64;
		uint64_t u64;
		double f64;
	} v;
};

#define LOG_STR(k, text) ((struct log_field){(k), LOG_FIELD_SPAN, {.span = span_str(text)}})
#define LOG_SPAN(k, s) ((struct log_field){(k), LOG_FIELD_SPAN, {.span = (s)}})
#define LOG_I64(k, n) ((struct log_field){(k), LOG_FIELD_I64, {.i64 = (int64_t)(n)}})
#define LOG_U64(k, n) ((struct log_field){(k), LOG_FIELD_U64, {.u64 = (uint64_t)(n)}})
#define LOG_F64(k, n) ((struct log_field){(k), LOG_FIELD_F64, {.f64 = (double)(n)}})
#define LOG_ERR(e) ((struct log_field){"error", LOG_FIELD_SPAN, {.span = span_str((e)->text)}})

void log_setup(enum log_level level, enum log_format format);
/* Tests: lines go to sink instead of stderr (NULL restores stderr). */
void log_set_sink(void (*sink)(struct span line, void *arg), void *arg);
bool log_enabled(enum log_level level);
void log_emit(enum log_level level, const char *message, const struct log_field *fields);

#define LOG_AT(level, message, ...) \
	do { \
		if (log_enabled(level)) \
			log_emit((level), (message), \
				 (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}}); \
	} while (0)
#define log_debug(message, ...) LOG_AT(LOG_DEBUG, message __VA_OPT__(, ) __VA_ARGS__)
#define log_info(message, ...) LOG_AT(LOG_INFO, message __VA_OPT__(, ) __VA_ARGS__)
#define log_warn(message, ...) LOG_AT(LOG_WARN, message __VA_OPT__(, ) __VA_ARGS__)
#define log_error(message, ...) LOG_AT(LOG_ERROR, message __VA_OPT__(, ) __VA_ARGS__)

#endif
