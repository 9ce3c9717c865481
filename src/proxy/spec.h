/* What a function serves: its EntitySpec, linked and checked. No I/O.
 *
 * A spec never changes once built and is counted: commands under way keep the one they began with, so a
 * method, a service and every name below live as long as the caller's reference, or as his command. One
 * thread, the proxy's loop. */
#ifndef CAIRN_PROXY_SPEC_H
#define CAIRN_PROXY_SPEC_H

#include "base/err.h"
#include "base/span.h"
#include "pbdyn/pbdyn.h"

struct entity_ops;
struct http_bindings;
struct spec;

/* Whose events call a method. */
enum spec_source_kind { SPEC_SOURCE_NONE, SPEC_SOURCE_EVENT_LOG, SPEC_SOURCE_TOPIC };
struct spec_source {
	enum spec_source_kind kind;
	struct span name;  /* a persistence id, or a topic */
	struct span group; /* of consumers: the service's name where none is given */
};

struct spec_method {
	const struct spec_service *service;
	const struct pb_method *pb;
	const struct pb_field *const *keys; /* the fields whose values are the entity's id, in order */
	size_t key_count;
	struct span input_url, output_url; /* "type.googleapis.com/" + the message's full name */
	struct spec_source source;
	struct span out_topic; /* its replies are published to; empty: none */
};

struct spec_service {
	struct spec *spec;
	struct span name; /* full: "shop.Cart" */
	const struct pb_service *pb;
	const struct entity_ops *kind;
	struct span persistence_id;
	int64_t passivation_ms; /* > 0 */
	const struct spec_method *methods; /* in declaration order */
	size_t method_count;
};

struct spec {
	unsigned refs;
	struct span bytes; /* the EntitySpec as it came */
	const struct pb_pool *pool;
	const struct spec_service *services; /* in the spec's order */
	size_t service_count;
	struct http_bindings *bindings; /* of all services' methods (http_binding.h) */
	struct span function_name, function_version, library; /* as announced; may be empty */
	void *memory; /* private */
};

struct spec_rules {
	bool check_protocol;	/* refuse another protocol version than ours */
	int64_t passivation_ms; /* where the function says nothing */
};

/* Parses, links and checks by the rules of the contract, section 1, "Discovery". ERR_INVALID: refused, and
 * err says why in the words that the function's author is to read. The caller owns one reference. */
enum err_code spec_build(struct span entity_spec, const struct spec_rules *rules, struct spec **ret,
			 struct err *err);
struct spec *spec_ref(struct spec *spec);
void spec_unref(struct spec *spec); /* NULL is fine; frees with the last reference */

/* NULL when there is none of that name. */
const struct spec_service *spec_find_service(const struct spec *spec, struct span full_name);
const struct spec_method *spec_find_method(const struct spec_service *service, struct span name);
/* The method of a gRPC path, "/package.Service/Method". */
const struct spec_method *spec_find_path(const struct spec *spec, struct span path);

#endif
