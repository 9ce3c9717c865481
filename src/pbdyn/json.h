/* Reading JSON token by token. Numbers stay text (a uint64 and 1.50e1 must be read exactly), every token
 * knows its place, and nothing is built that the message does not need. */
#ifndef CAIRN_PBDYN_JSON_H
#define CAIRN_PBDYN_JSON_H

#include "pbdyn/internal.h"

enum json_token {
	JSON_OBJECT, JSON_OBJECT_END, JSON_ARRAY, JSON_ARRAY_END, JSON_COLON, JSON_COMMA, JSON_STRING,
	JSON_NUMBER, JSON_TRUE, JSON_FALSE, JSON_NULL, JSON_END
};

/* Where in the message the reader is, for errors: a chain of the caller's stack frames. */
struct json_place {
	const struct json_place *up;
	struct span name; /* of a field or key; p is NULL for a list item */
	size_t index;
};

struct json_reader {
	struct span text;
	size_t at; /* what follows the token */
	enum json_token token;
	size_t token_at;
	struct span raw; /* STRING: between the quotes; NUMBER: all of it */
	bool escaped;	 /* STRING: raw has escapes */

	struct arena *arena;
	struct err *err;
	const struct json_place *place;
	size_t lookahead_left; /* bytes that may be read twice in search of "@type" */
};

/* Begins with the first token. The text must be UTF-8 as a whole. */
enum err_code pbjson_begin(struct json_reader *r, struct span text, struct arena *arena, struct err *err);
enum err_code pbjson_advance(struct json_reader *r);
/* Sets the error "line 1, column 2, at a.b[3]: ..." and returns ERR_INVALID. */
enum err_code pbjson_fail(const struct json_reader *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Puts the place before an error that was set without one; returns code. */
enum err_code pbjson_locate(const struct json_reader *r, enum err_code code);
/* "expected WHAT, found a string". */
enum err_code pbjson_expected(const struct json_reader *r, const char *what);

/* The text of the STRING token: borrowed from the input if it has no escapes, else in the arena. */
enum err_code pbjson_string(const struct json_reader *r, struct span *ret);
/* The same, always in the arena. */
enum err_code pbjson_string_dup(const struct json_reader *r, struct span *ret);

/* Steps through an object: *first is true before the first call, the token then the opening brace. Either
 * *ret_done and the object is behind, or the token is the value of *ret_key; the caller consumes it. */
enum err_code pbjson_object_next(struct json_reader *r, bool *first, struct span *ret_key, bool *ret_done);
enum err_code pbjson_array_next(struct json_reader *r, bool *first, bool *ret_done);
/* Consumes one value of any kind. */
enum err_code pbjson_skip(struct json_reader *r);

/* --- between json_parse.c and json_wkt.c --- */

enum err_code pbjson_message(struct json_reader *r, struct pb_msg *msg, unsigned depth);
/* The fields of an object; with_type: "@type" among them is passed over. */
enum err_code pbjson_fields(struct json_reader *r, struct pb_msg *msg, unsigned depth, bool with_type);
enum err_code pbjson_scalar(struct json_reader *r, const struct pb_field *field, union pb_value *ret);
enum err_code pbjson_map(struct json_reader *r, struct pb_msg *msg, const struct pb_field *field,
		       unsigned depth);
enum err_code pbjson_list(struct json_reader *r, struct pb_msg *msg, const struct pb_field *field,
			unsigned depth);
/* A message whose type has a JSON form of its own. */
enum err_code pbjson_known_type(struct json_reader *r, struct pb_msg *msg, unsigned depth);

#endif
