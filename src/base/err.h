/* Errors: one shape for the whole program.
 *
 * A function that can fail returns `enum err_code` (ERR_OK is 0); where a human will read the reason
 * it also takes `struct err *err` last, which may be NULL. The first cause wins: err_set() on an error
 * that is already set does nothing; callers add context with err_wrap(). Output parameters are named
 * ret_x, stand before err, and are written only on success.
 *
 *	struct err err = {0};
 *	if (file_open(path, &ret, &err))
 *		return err_wrap(&err, "index of %s", dir);	// returns err.code
 *
 * Mapping to gRPC status, HTTP status and exit code is done in three tables elsewhere, never here.
 * Thread rule: a struct err belongs to one thread at a time. */
#ifndef CAIRN_BASE_ERR_H
#define CAIRN_BASE_ERR_H

#include <stddef.h>

enum err_code {
	ERR_OK = 0,
	ERR_INVALID,	 /* the request is malformed or breaks a form rule */
	ERR_NOT_FOUND,	 /* what was named does not exist */
	ERR_EXISTS,	 /* part of it exists already (an append that repeats in part) */
	ERR_CONFLICT,	 /* an expectation, condition or fence did not hold */
	ERR_LIMIT,	 /* a named limit was exceeded */
	ERR_FULL,	 /* no room on the disk or in a quota; known not to have happened */
	ERR_UNAVAILABLE, /* try again later; if it was a write, its outcome may be unknown */
	ERR_TIMEOUT,	 /* the deadline passed */
	ERR_IO,		 /* a system call failed; sys_errno says how */
	ERR_CORRUPT,	 /* stored bytes are not what was written */
	ERR_NOMEM,	 /* a peer-sized allocation failed */
	ERR_CANCELLED,	 /* the caller withdrew it */
	ERR_UNSUPPORTED, /* known, legal, not offered here */
	ERR_INTERNAL,	 /* a fault of ours that was caught */
	ERR_CODE_COUNT
};

#define ERR_TEXT_MAX 1024

struct err {
	enum err_code code;
	int sys_errno; /* 0, or the errno that caused it */
	char text[ERR_TEXT_MAX]; /* one line, no full stop at the end; cut with "..." if longer */
};

/* The lower-case name of a code ("ok", "invalid", ...); never NULL. */
const char *err_name(enum err_code code);

/* Sets *err unless it is NULL or already set; returns code always (which must not be ERR_OK). */
enum err_code err_set(struct err *err, enum err_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same for a failed system call: keeps errno_value and appends ": " and its text. */
enum err_code err_set_errno(struct err *err, enum err_code code, int errno_value, const char *fmt,
			    ...) __attribute__((format(printf, 4, 5)));

/* Puts "context: " before the text; returns err->code (ERR_INTERNAL if err is NULL). */
enum err_code err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *err);

/* None of the three returns ERR_OK; told to the compiler, so that it sees outputs set on every success. */
static inline enum err_code err_never_ok(enum err_code code)
{
	if (code == ERR_OK)
		__builtin_unreachable();
	return code;
}
#define err_set(...) err_never_ok(err_set(__VA_ARGS__))
#define err_set_errno(...) err_never_ok(err_set_errno(__VA_ARGS__))
#define err_wrap(...) err_never_ok(err_wrap(__VA_ARGS__))

#endif
