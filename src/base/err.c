#include <config.h>

#include "base/err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/must.h"

static const char *const names[ERR_CODE_COUNT] = {
	[ERR_OK] = "ok",
	[ERR_INVALID] = "invalid",
	[ERR_NOT_FOUND] = "not found",
	[ERR_EXISTS] = "exists",
	[ERR_CONFLICT] = "conflict",
	[ERR_LIMIT] = "limit",
	[ERR_FULL] = "full",
	[ERR_UNAVAILABLE] = "unavailable",
	[ERR_TIMEOUT] = "timeout",
	[ERR_IO] = "io",
	[ERR_CORRUPT] = "corrupt",
	[ERR_NOMEM] = "out of memory",
	[ERR_CANCELLED] = "cancelled",
	[ERR_UNSUPPORTED] = "unsupported",
	[ERR_INTERNAL] = "internal",
};

const char *err_name(enum err_code code)
{
	unsigned int i = (unsigned int)code;
	return i < ERR_CODE_COUNT ? names[i] : "unknown";
}

/* Ends a text that did not fit with "...", without splitting a UTF-8 character. */
static void text_cut(char text[ERR_TEXT_MAX])
{
	size_t at = ERR_TEXT_MAX - 4;
	while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80)
		at--;
	memcpy(text + at, "...", 4);
}

/* One line, and nothing that a terminal would act on: what a peer sent may stand in it. */
static void text_one_line(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f; /* UTF-8 of U+0080 to U+009F */
		if (c1)
			p[1] = ' ';
		if (c1 || *p < ' ' || *p == 0x7f)
			*p = ' ';
	}
}

static void __attribute__((format(printf, 2, 0))) text_vprintf(char text[ERR_TEXT_MAX], const char *fmt,
							       va_list ap)
{
	int n = vsnprintf(text, ERR_TEXT_MAX, fmt, ap);
	must(n >= 0);
	if (n >= ERR_TEXT_MAX)
		text_cut(text);
	text_one_line(text);
}

/* text = a ": " b */
static void text_join(char text[ERR_TEXT_MAX], const char *a, const char *b)
{
	int n = snprintf(text, ERR_TEXT_MAX, "%s: %s", a, b);
	must(n >= 0);
	if (n >= ERR_TEXT_MAX)
		text_cut(text);
}

enum err_code (err_set)(struct err *err, enum err_code code, const char *fmt, ...)
{
	must(code != ERR_OK);
	if (!err || err->code != ERR_OK)
		return code;
	err->code = code;
	err->sys_errno = 0;
	va_list ap;
	va_start(ap, fmt);
	text_vprintf(err->text, fmt, ap);
	va_end(ap);
	return code;
}

enum err_code (err_set_errno)(struct err *err, enum err_code code, int errno_value, const char *fmt, ...)
{
	must(code != ERR_OK);
	if (!err || err->code != ERR_OK)
		return code;
	err->code = code;
	err->sys_errno = errno_value;
	char what[ERR_TEXT_MAX], why_buf[128];
	va_list ap;
	va_start(ap, fmt);
	text_vprintf(what, fmt, ap);
	va_end(ap);
	text_join(err->text, what, strerror_r(errno_value, why_buf, sizeof(why_buf)));
	return code;
}

enum err_code (err_wrap)(struct err *err, const char *fmt, ...)
{
	if (!err)
		return ERR_INTERNAL;
	must(err->code != ERR_OK);
	char context[ERR_TEXT_MAX], cause[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	text_vprintf(context, fmt, ap);
	va_end(ap);
	memcpy(cause, err->text, sizeof(cause));
	text_join(err->text, context, cause);
	return err->code;
}

void err_clear(struct err *err)
{
	err->code = ERR_OK;
	err->sys_errno = 0;
	err->text[0] = 0;
}
