#include <config.h>

#include "proxy/front.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/entity.h"
#include "proxy/headers.h"

#define FRONT_MAGIC 0x46726f6eu
#define CALL_MAGIC 0x4663616cu

struct front {
	uint32_t magic;
	struct router *router;
	struct grpc_health *health;
	struct grpc_reflection_source source;
	struct spec *known; /* whose services health knows */
	bool serving;
};

/* One call of a client. */
struct front_call {
	uint32_t magic;
	struct front *front;
	struct spec *spec;
	const struct spec_method *method;
	struct grpc_call *call;  /* NULL: it is over */
	struct command *command; /* NULL: none yet, or over */
	bool asked, replied;
};

/* --- calls ------------------------------------------------------------------------------------------------
 */

static void send_metadata(struct grpc_call *call, const struct metadata *metadata)
{
	struct arena a;
	struct headers headers;
	arena_init(&a, 4 * LIMIT_HEADER_BYTES);
	if (headers_from_metadata(metadata, HEADERS_GRPC, &a, &headers))
		log_warn("a reply's metadata is dropped: too large for headers",
			 LOG_SPAN("path", grpc_call_path(call)), LOG_U64("entries", metadata->n));
	else
		grpc_call_send_headers(call, &headers);
	arena_release(&a);
}

static void command_on_reply(void *arg, const struct any *payload, const struct metadata *metadata)
{
	struct front_call *fc = OBJ_CAST(struct front_call, arg, CALL_MAGIC);
	if (!fc->replied && metadata && metadata->n)
		send_metadata(fc->call, metadata);
	fc->replied = true;
	if (!grpc_call_send(fc->call, payload->value) && fc->method->pb->server_streaming)
		command_hold(fc->command, true);
}

static void command_on_end(void *arg, const struct outcome *outcome)
{
	struct front_call *fc = OBJ_CAST(struct front_call, arg, CALL_MAGIC);
	fc->command = NULL;
	if (outcome->code == GRPC_OK && !fc->replied && !fc->method->pb->server_streaming)
		grpc_call_send(fc->call, SPAN(""));
	grpc_call_finish(fc->call, outcome->code, outcome->message, NULL);
}

static void command_on_writable(void *arg)
{
	struct front_call *fc = OBJ_CAST(struct front_call, arg, CALL_MAGIC);
	grpc_call_hold_read(fc->call, false);
}

static const struct reply_sink sink = {
	.on_reply = command_on_reply, .on_end = command_on_end, .on_writable = command_on_writable};

/* Hands the call in; message is its input where that does not stream. */
static void begin(struct front_call *fc, struct span message)
{
	struct router_request request = {.method = fc->method,
					 .payload = message,
					 .deadline_ms = grpc_call_remaining_ms(fc->call)};
	struct metadata metadata = {0};
	struct arena a;
	arena_init(&a, 4 * LIMIT_HEADER_BYTES);
	fc->asked = true;
	if (fc->method->service->kind->takes_metadata) {
		if (headers_to_metadata(grpc_call_metadata(fc->call), HEADERS_GRPC, &a, &metadata)) {
			grpc_call_finish(fc->call, GRPC_RESOURCE_EXHAUSTED,
					 SPAN("the request's headers are too large"), NULL);
			arena_release(&a);
			return;
		}
		request.metadata = &metadata;
	}
	fc->command = router_open(fc->front->router, &request, &sink, fc);
	arena_release(&a);
}

static void call_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct front_call *fc = OBJ_CAST(struct front_call, user, CALL_MAGIC);
	if (fc->method->pb->client_streaming) {
		if (fc->command && !command_send(fc->command, message))
			grpc_call_hold_read(call, true);
		return;
	}
	if (!fc->asked) {
		begin(fc, message);
		return;
	}
	if (fc->command)
		command_cancel(fc->command);
	fc->command = NULL;
	grpc_call_finish(call, GRPC_INVALID_ARGUMENT, SPAN("a unary method takes one message"), NULL);
}

static void call_on_half_close(struct grpc_call *call, void *user)
{
	struct front_call *fc = OBJ_CAST(struct front_call, user, CALL_MAGIC);
	if (fc->method->pb->client_streaming) {
		if (fc->command)
			command_half_close(fc->command);
		return;
	}
	if (!fc->asked)
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT,
				 SPAN("a unary method takes one message, none came"), NULL);
	fc->asked = true;
}

static void call_on_writable(struct grpc_call *call, void *user)
{
	struct front_call *fc = OBJ_CAST(struct front_call, user, CALL_MAGIC);
	(void)call;
	if (fc->command)
		command_hold(fc->command, false);
}

static void call_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct front_call *fc = OBJ_CAST(struct front_call, user, CALL_MAGIC);
	(void)call;
	(void)result;
	if (fc->command)
		command_cancel(fc->command);
	spec_unref(fc->spec);
	fc->magic = 0;
	mem_free(fc);
}

static const struct grpc_call_ops call_ops = {
	.on_message = call_on_message,
	.on_half_close = call_on_half_close,
	.on_writable = call_on_writable,
	.on_done = call_on_done,
};

static bool open_call(struct grpc_call *call, void *arg)
{
	struct front *front = OBJ_CAST(struct front, arg, FRONT_MAGIC);
	struct spec *spec = router_spec(front->router);
	const struct spec_method *method = spec ? spec_find_path(spec, grpc_call_path(call)) : NULL;
	if (!method)
		return false;
	struct front_call *fc = mem_xalloc(sizeof *fc);
	fc->magic = CALL_MAGIC;
	fc->front = front;
	fc->spec = spec_ref(spec);
	fc->method = method;
	fc->call = call;
	grpc_call_bind(call, &call_ops, fc);
	if (method->pb->client_streaming)
		begin(fc, SPAN(""));
	return true;
}

/* --- reflection ------------------------------------------------------------------------------------------
 */

typedef void add_file(void *to, struct span file_name, struct span file);

static const struct pb_pool *pool_of(void *arg)
{
	struct front *front = OBJ_CAST(struct front, arg, FRONT_MAGIC);
	struct spec *spec = router_spec(front->router);
	return spec ? spec->pool : NULL;
}

static void reflect_services(void *arg, void (*add)(void *to, struct span name), void *to)
{
	struct front *front = OBJ_CAST(struct front, arg, FRONT_MAGIC);
	struct spec *spec = router_spec(front->router);
	for (size_t i = 0; spec && i < spec->service_count; i++)
		add(to, spec->services[i].name);
}

struct walk {
	struct map seen;
	add_file *add;
	void *to;
};

/* The file, then what it imports, each once. A placeholder is not given: nobody could link it. */
static void walk_file(struct walk *w, const struct pb_file *file, unsigned depth)
{
	if (file->placeholder || depth > 256 || map_get(&w->seen, file->name))
		return;
	map_put(&w->seen, file->name, w);
	w->add(w->to, file->name, file->raw);
	for (size_t i = 0; i < file->dep_count; i++)
		walk_file(w, file->deps[i], depth + 1);
}

static void add_files(const struct pb_file *file, add_file *add, void *to)
{
	struct walk w = {.add = add, .to = to};
	if (!file)
		return;
	map_init(&w.seen);
	walk_file(&w, file, 0);
	map_release(&w.seen);
}

static void reflect_file(void *arg, struct span name, add_file *add, void *to)
{
	const struct pb_pool *pool = pool_of(arg);
	add_files(pool ? pb_find_file(pool, name) : NULL, add, to);
}

static void reflect_symbol(void *arg, struct span symbol, add_file *add, void *to)
{
	const struct pb_pool *pool = pool_of(arg);
	add_files(pool ? pb_find_symbol_file(pool, symbol) : NULL, add, to);
}

static void reflect_extension(void *arg, struct span type, int32_t number, add_file *add, void *to)
{
	const struct pb_pool *pool = pool_of(arg);
	const struct pb_field *f =
		pool && number > 0 ? pb_find_extension(pool, type, (uint32_t)number) : NULL;
	add_files(f ? f->file : NULL, add, to);
}

static bool reflect_extension_numbers(void *arg, struct span type, void (*add)(void *to, int32_t number),
				      void *to)
{
	const struct pb_pool *pool = pool_of(arg);
	size_t n = 0;
	const struct pb_field *const *fields = pool ? pb_find_extensions(pool, type, &n) : NULL;
	for (size_t i = 0; i < n; i++)
		add(to, (int32_t)fields[i]->number);
	return n > 0 || (pool && pb_find_type(pool, type));
}

/* --- health ------------------------------------------------------------------------------------------------
 */

static void set_services(struct front *front, struct spec *spec, bool serving)
{
	for (size_t i = 0; i < spec->service_count; i++) {
		char *name = mem_xdup(spec->services[i].name.p, spec->services[i].name.n);
		grpc_health_set(front->health, name, serving);
		mem_free(name);
	}
}

static void forget_services(struct front *front, const struct spec *old, const struct spec *spec)
{
	for (size_t i = 0; old && i < old->service_count; i++) {
		struct span name = old->services[i].name;
		if (spec_find_service(spec, name))
			continue;
		char *text = mem_xdup(name.p, name.n);
		grpc_health_forget(front->health, text);
		mem_free(text);
	}
}

static void on_spec(void *arg, struct spec *spec)
{
	struct front *front = OBJ_CAST(struct front, arg, FRONT_MAGIC);
	forget_services(front, front->known, spec);
	set_services(front, spec, front->serving);
	grpc_health_set(front->health, "", front->serving);
	spec_unref(front->known);
	front->known = spec_ref(spec);
}

void front_not_serving(struct front *front)
{
	front->serving = false;
	grpc_health_set(front->health, "", false);
	if (front->known)
		set_services(front, front->known, false);
}

struct front *front_new(struct grpc_server *server, struct router *router)
{
	struct front *front = mem_xalloc(sizeof *front);
	front->magic = FRONT_MAGIC;
	front->router = router;
	front->serving = true;
	front->health = grpc_health_new(server);
	grpc_server_set_resolver(server, open_call, front);
	front->source = (struct grpc_reflection_source){.services = reflect_services,
							.file_by_name = reflect_file,
							.file_by_symbol = reflect_symbol,
							.file_by_extension = reflect_extension,
							.extension_numbers = reflect_extension_numbers,
							.arg = front};
	grpc_reflection_add(server, &front->source);
	router_watch(router, on_spec, front);
	return front;
}

void front_free(struct front *front)
{
	if (!front)
		return;
	grpc_health_free(front->health);
	spec_unref(front->known);
	front->magic = 0;
	mem_free(front);
}
