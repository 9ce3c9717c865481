/* HTTP bindings: which request reaches which method, by google.api.http rules (method option 72295728) or,
 * without one, by POST /package.Service/Method with the whole body. No I/O. A table never changes once
 * built and may be read by any thread; it points into the pool, which must outlive it. */
#ifndef CAIRN_PROXY_HTTP_BINDING_H
#define CAIRN_PROXY_HTTP_BINDING_H

#include "base/arena.h"
#include "base/err.h"
#include "pbdyn/pbdyn.h"
#include "proxy/path_template.h"

enum http_body_rule { HTTP_BODY_NONE, HTTP_BODY_ALL, HTTP_BODY_FIELD };

struct http_binding {
	const struct pb_method *method;
	struct span verb; /* "GET", ...; "*" matches every one; owned by the table */
	struct path_template *path;
	struct pb_path *variables; /* one a variable of the path, ending in a singular scalar */
	enum http_body_rule body;
	const struct pb_field *body_field;     /* HTTP_BODY_FIELD: a singular message */
	const struct pb_field *response_field; /* the field of the reply that is the answer; or NULL */
};

struct http_bindings;

/* Builds the table for the services' methods, in that order. ERR_INVALID names method, rule and fault: an
 * unknown or repeated field in a path, body on GET, a body field that is no message, `**` that is not last,
 * nested additional bindings, a selector of another method. */
enum err_code http_bindings_new(const struct pb_service *const *services, size_t service_count,
				struct http_bindings **ret, struct err *err);
void http_bindings_free(struct http_bindings *b); /* NULL is fine */

struct http_match {
	const struct http_binding *binding;
	struct span values[PATH_VARIABLES_MAX]; /* of the path's variables, in the arena */
};

/* Finds the binding for a request: of several that match, the one with more literal segments, then the
 * later declared. A ":word" at the end of the path is the verb where some binding has it. ERR_NOT_FOUND:
 * none, err says whether the path or the method is unknown; ERR_INVALID: a broken escape. */
enum err_code http_bindings_find(const struct http_bindings *b, struct span verb, struct span path,
				 struct arena *a, struct http_match *ret, struct err *err);

/* The first binding of a method; NULL if it is not in the table. For tools that print an example. */
const struct http_binding *http_bindings_of(const struct http_bindings *b, const struct pb_method *method);

#endif
