/* Path templates of google.api.http rules: parsing and matching. No I/O; any thread.
 *
 *	Template = "/" Segments [ ":" Verb ]		Segments = Segment { "/" Segment }
 *	Segment  = "*" | "**" | LITERAL | Variable	Variable = "{" FieldPath [ "=" Segments ] "}"
 *
 * (the grammar of google/api/http.proto). A "*" and a plain variable match one segment of at least one
 * character, "**" the rest (none, one or many segments) and stands last. Literals are compared after
 * percent-decoding; what a variable matched is percent-decoded once, "%2F" included; '+' stays '+'. */
#ifndef CAIRN_PROXY_PATH_TEMPLATE_H
#define CAIRN_PROXY_PATH_TEMPLATE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define PATH_SEGMENTS_MAX 64  /* of a template; a request's path may have any number */
#define PATH_VARIABLES_MAX 32

struct path_template;

/* Parses and checks the form: `**` last, variables not nested, field paths of identifiers. The text is
 * copied. ERR_INVALID names the place. */
enum err_code path_template_parse(struct span text, struct path_template **ret, struct err *err);
void path_template_free(struct path_template *t); /* NULL is fine */

size_t path_template_variables(const struct path_template *t);
struct span path_template_variable(const struct path_template *t, size_t i); /* "a.b": the field path */
struct span path_template_verb(const struct path_template *t); /* without ':'; empty if there is none */
size_t path_template_literals(const struct path_template *t);  /* more of them win over fewer */

/* Does the path (no query) match? With a verb, the path must end in ":verb". Values, decoded, one a
 * variable in order, are in the arena; values has room for PATH_VARIABLES_MAX. ERR_NOT_FOUND: no match;
 * ERR_INVALID: it matches but for a broken escape; ERR_NOMEM. */
enum err_code path_template_match(const struct path_template *t, struct span path, struct arena *a,
				  struct span *ret_values, struct err *err);

/* A path that matches: literals as they stand, one value a variable (NULL: "0"; a "*" of its own gets "x").
 * For examples: values are taken to need no escaping. */
enum err_code path_template_expand(const struct path_template *t, const char *const *values, struct buf *out);

#endif
