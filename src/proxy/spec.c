#include <config.h>

#include "proxy/spec.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/discovery.h"
#include "proxy/entity.h"
#include "proxy/http_binding.h"
#include "proxy/spec_eventing.h"
#include "proxy/wire.h"

#define OPTION_ENTITY_KEY 1080u
#define OPTION_LEGACY_ENTITY_KEY 50002u
/* The descriptors of a large function are some MiB; unpacking copies them once. */
#define SPEC_ARENA_BYTES (4 * LIMIT_FUNCTION_MESSAGE_BYTES)

/* Everything of a spec lives in one arena, the descriptors in the pool beside it. */
struct spec_memory {
	struct arena arena;
};

static enum err_code no_memory(struct err *err)
{
	return err_set(err, ERR_NOMEM, "the spec is too large: more than %zu bytes of memory",
		       SPEC_ARENA_BYTES);
}

/* --- rules ---------------------------------------------------------------------------------------- */

static enum err_code check_version(const Cloudstate__ServiceInfo *info, const struct spec_rules *rules,
				   struct err *err)
{
	int major = info ? info->protocol_major_version : 0, minor = info ? info->protocol_minor_version : 0;
	if (!rules->check_protocol ||
	    (major == DISCOVERY_PROTOCOL_MAJOR && minor == DISCOVERY_PROTOCOL_MINOR))
		return ERR_OK;
	return err_set(
		err, ERR_INVALID,
		"the function speaks version %d.%d of the Cloudstate protocol, this proxy %d.%d: use a "
		"library of that version, or start the proxy with --protocol-check=off",
		major, minor, DISCOVERY_PROTOCOL_MAJOR, DISCOVERY_PROTOCOL_MINOR);
}

/* Names that a proxy itself serves or calls. */
static bool is_reserved(struct span name)
{
	static const char *const names[] = {
		"grpc.health.v1.Health",
		"cloudstate.EntityDiscovery",
		"cloudstate.eventsourced.EventSourced",
		"cloudstate.valueentity.ValueEntity",
		"cloudstate.action.ActionProtocol",
		"cloudstate.crdt.Crdt",
	};
	if (span_starts(name, SPAN("grpc.reflection.")))
		return true;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (span_eq_str(name, names[i]))
			return true;
	return false;
}

static enum err_code refuse_kind(struct span service, struct span type, struct err *err)
{
	struct buf known;
	buf_init(&known, 4 * KIB);
	for (size_t i = 0; i < entity_kind_count; i++)
		buf_printf(&known, "%s%s", i ? ", " : "", entity_kinds[i]->type);
	const char *text = buf_cstr(&known);
	enum err_code code =
		err_set(err, ERR_INVALID,
			"service %.*s has the entity type %.*s, which this proxy does not know: it "
			"knows %s",
			SPAN_ARG(service), SPAN_ARG(type), text ? text : "");
	buf_release(&known);
	return code;
}

static enum err_code check_persistence_id(const struct spec_service *s, struct err *err)
{
	struct span id = s->persistence_id;
	if (!id.n)
		return err_set(err, ERR_INVALID, "service %.*s has no persistence id", SPAN_ARG(s->name));
	if (span_find(id, '|') < id.n || id.p[0] == '$')
		return err_set(
			err, ERR_INVALID,
			"service %.*s has the persistence id %.*s: it must not hold a | nor begin with a $",
			SPAN_ARG(s->name), SPAN_ARG(id));
	struct err why = {0};
	if (record_check_stream(id, &why))
		return err_set(err, ERR_INVALID, "persistence id of service %.*s: %s", SPAN_ARG(s->name),
			       why.text);
	return ERR_OK;
}

static enum err_code check_others(const struct spec *spec, const struct spec_service *s, struct err *err)
{
	for (const struct spec_service *o = spec->services; o < s; o++) {
		if (span_eq(o->name, s->name))
			return err_set(err, ERR_INVALID, "service %.*s is listed twice", SPAN_ARG(s->name));
		if (o->kind->stateful && s->kind->stateful && span_eq(o->persistence_id, s->persistence_id))
			return err_set(
				err, ERR_INVALID,
				"services %.*s and %.*s have the same persistence id, %.*s: their journal "
				"streams would be the same",
				SPAN_ARG(o->name), SPAN_ARG(s->name), SPAN_ARG(s->persistence_id));
	}
	return ERR_OK;
}

static enum err_code check_method(const struct spec_method *m, struct err *err)
{
	const struct entity_ops *kind = m->service->kind;
	const char *way = m->pb->client_streaming && !kind->streamed_in    ? "in"
			  : m->pb->server_streaming && !kind->streamed_out ? "out"
									   : NULL;
	if (way)
		return err_set(err, ERR_INVALID,
			       "method %.*s of the service %.*s is streamed %s, which %s "
			       "entities cannot be",
			       SPAN_ARG(m->pb->name), SPAN_ARG(m->service->name), way, kind->name);
	if (kind->stateful && !m->key_count)
		return err_set(
			err, ERR_INVALID,
			"method %.*s of the service %.*s has no entity key: mark a field of its input %.*s "
			"with the option (cloudstate.entity_key)",
			SPAN_ARG(m->pb->name), SPAN_ARG(m->service->name), SPAN_ARG(m->pb->input->full_name));
	return ERR_OK;
}

/* --- building ----------------------------------------------------------------------------------------- */

static bool is_key(const struct pb_field *f)
{
	bool key = false;
	return (pb_option_bool(f->options, OPTION_ENTITY_KEY, &key) && key) ||
	       (pb_option_bool(f->options, OPTION_LEGACY_ENTITY_KEY, &key) && key);
}

static enum err_code find_keys(struct arena *a, struct spec_method *m, struct err *err)
{
	const struct pb_type *input = m->pb->input;
	const struct pb_field **keys = arena_zalloc(a, (input->field_count + 1) * sizeof *keys);
	if (!keys)
		return no_memory(err);
	for (size_t i = 0; i < input->field_count; i++) {
		const struct pb_field *f = &input->fields[i];
		if (!is_key(f))
			continue;
		if (f->repeated || f->sub)
			return err_set(err, ERR_INVALID, "entity key %.*s of %.*s is no single scalar field",
				       SPAN_ARG(f->name), SPAN_ARG(input->full_name));
		keys[m->key_count++] = f;
	}
	m->keys = keys;
	return ERR_OK;
}

static struct span type_url(struct arena *a, const struct pb_type *type)
{
	return span_str(arena_printf(a, "type.googleapis.com/%.*s", SPAN_ARG(type->full_name)));
}

static enum err_code build_methods(struct arena *a, struct spec_service *s, struct err *err)
{
	struct spec_method *methods = arena_zalloc(a, (s->pb->method_count + 1) * sizeof *methods);
	if (!methods)
		return no_memory(err);
	s->methods = methods;
	s->method_count = s->pb->method_count;
	for (size_t i = 0; i < s->method_count; i++) {
		struct spec_method *m = &methods[i];
		m->service = s;
		m->pb = &s->pb->methods[i];
		m->input_url = type_url(a, m->pb->input);
		m->output_url = type_url(a, m->pb->output);
		if (!m->input_url.p || !m->output_url.p)
			return no_memory(err);
		enum err_code code = find_keys(a, m, err);
		if (!code)
			code = check_method(m, err);
		if (!code)
			code = spec_eventing_read(a, m, err);
		if (code)
			return code;
	}
	return spec_eventing_check(s, err);
}

static enum err_code build_service(struct spec *spec, struct spec_service *s, const Cloudstate__Entity *e,
				   const struct spec_rules *rules, struct err *err)
{
	struct spec_memory *memory = spec->memory;
	const Cloudstate__EntityPassivationStrategy *strategy = e->passivation_strategy;
	enum err_code code;
	s->spec = spec;
	s->name = wire_span(e->service_name);
	s->persistence_id = wire_span(e->persistence_id);
	s->kind = entity_kind_find(wire_span(e->entity_type));
	s->passivation_ms = rules->passivation_ms;
	if (strategy &&
	    strategy->strategy_case == CLOUDSTATE__ENTITY_PASSIVATION_STRATEGY__STRATEGY_TIMEOUT &&
	    strategy->timeout->timeout > 0)
		s->passivation_ms = strategy->timeout->timeout;
	if (s->passivation_ms > INT64_MAX / 4000)
		s->passivation_ms =
			INT64_MAX / 4000; /* for ever, and its microseconds can be added to a time */
	if (is_reserved(s->name))
		return err_set(err, ERR_INVALID, "the service name %.*s is reserved", SPAN_ARG(s->name));
	if (!s->kind)
		return refuse_kind(s->name, wire_span(e->entity_type), err);
	if (!(s->pb = pb_find_service(spec->pool, s->name)))
		return err_set(err, ERR_INVALID, "service %.*s is not in the descriptors", SPAN_ARG(s->name));
	if (s->kind->stateful && (code = check_persistence_id(s, err)))
		return code;
	if ((code = check_others(spec, s, err)))
		return code;
	return build_methods(&memory->arena, s, err);
}

static enum err_code build_bindings(struct spec *spec, struct err *err)
{
	struct spec_memory *memory = spec->memory;
	const struct pb_service **services =
		arena_alloc(&memory->arena, spec->service_count * sizeof(struct pb_service *));
	if (!services)
		return no_memory(err);
	for (size_t i = 0; i < spec->service_count; i++)
		services[i] = spec->services[i].pb;
	return http_bindings_new(services, spec->service_count, &spec->bindings, err);
}

static enum err_code build(struct spec *spec, const struct spec_rules *rules, struct err *err)
{
	struct spec_memory *memory = spec->memory;
	const Cloudstate__EntitySpec *es = (const Cloudstate__EntitySpec *)(const void *)grpc_unpack(
		&cloudstate__entity_spec__descriptor, &memory->arena, spec->bytes);
	if (!es)
		return err_set(err, ERR_INVALID,
			       "the answer to discover is no EntitySpec, or needs more than %zu "
			       "bytes of memory",
			       SPEC_ARENA_BYTES);
	enum err_code code = check_version(es->service_info, rules, err);
	if (code)
		return code;
	if (es->service_info) {
		spec->function_name = wire_span(es->service_info->service_name);
		spec->function_version = wire_span(es->service_info->service_version);
		spec->library = wire_span(es->service_info->support_library_name);
	}
	if (!es->n_entities)
		return err_set(err, ERR_INVALID, "the function has no entities");
	/* The services of our own are in the pool so that reflection can show them. */
	struct span sets[] = {wire_span(es->proto), grpc_own_descriptors()};
	struct pb_pool *pool;
	if ((code = pb_pool_new(sets, ARRAY_LEN(sets), &pool, err)))
		return err_wrap(err, "the descriptors do not link");
	spec->pool = pool;
	struct spec_service *services = arena_zalloc(&memory->arena, es->n_entities * sizeof *services);
	if (!services)
		return no_memory(err);
	spec->services = services;
	for (size_t i = 0; i < es->n_entities; i++) {
		if ((code = build_service(spec, &services[i], es->entities[i], rules, err)))
			return code;
		spec->service_count++;
	}
	return build_bindings(spec, err);
}

enum err_code spec_build(struct span entity_spec, const struct spec_rules *rules, struct spec **ret,
			 struct err *err)
{
	struct spec *spec = mem_xalloc(sizeof *spec);
	struct spec_memory *memory = mem_xalloc(sizeof *memory);
	enum err_code code = ERR_OK;
	spec->refs = 1;
	spec->memory = memory;
	arena_init(&memory->arena, SPEC_ARENA_BYTES);
	spec->bytes = arena_dup(&memory->arena, entity_spec);
	code = spec->bytes.p ? build(spec, rules, err) : no_memory(err);
	if (code) {
		spec_unref(spec);
		return code;
	}
	*ret = spec;
	return ERR_OK;
}

struct spec *spec_ref(struct spec *spec)
{
	must(spec->refs > 0);
	spec->refs++;
	return spec;
}

void spec_unref(struct spec *spec)
{
	if (!spec || --spec->refs)
		return;
	struct spec_memory *memory = spec->memory;
	http_bindings_free(spec->bindings);
	pb_pool_unref(spec->pool);
	arena_release(&memory->arena);
	mem_free(memory);
	mem_free(spec);
}

/* --- lookups -------------------------------------------------------------------------------------------- */

const struct spec_service *spec_find_service(const struct spec *spec, struct span full_name)
{
	for (size_t i = 0; i < spec->service_count; i++)
		if (span_eq(spec->services[i].name, full_name))
			return &spec->services[i];
	return NULL;
}

const struct spec_method *spec_find_method(const struct spec_service *service, struct span name)
{
	for (size_t i = 0; i < service->method_count; i++)
		if (span_eq(service->methods[i].pb->name, name))
			return &service->methods[i];
	return NULL;
}

const struct spec_method *spec_find_path(const struct spec *spec, struct span path)
{
	if (path.n < 2 || path.p[0] != '/')
		return NULL;
	struct span rest = span_skip(path, 1);
	size_t slash = span_find(rest, '/');
	const struct spec_service *s = spec_find_service(spec, span_first(rest, slash));
	return s && slash < rest.n ? spec_find_method(s, span_skip(rest, slash + 1)) : NULL;
}
