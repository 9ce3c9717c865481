#include <config.h>

#include <stdlib.h>

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/server.h"

#define REFLECTION_MAGIC 0x7265666cu
/* Of one request, with all that answers it; files are sent as the source has them, not copied. */
#define REFLECTION_ARENA_BYTES (4 * MIB)

extern const uint8_t grpc_own_set[]; /* own_set.c, made by embed.sh */
extern const size_t grpc_own_set_bytes;

#define ANSWER(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

/* The messages of v1alpha are the same on the wire. */
typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

/* One of the two services; lives as long as the server. */
struct reflection {
	uint32_t magic;
	struct grpc_reflection_source source;
	const char *name; /* the service's own */
	struct grpc_method method;
};

struct reflection_stream {
	const struct reflection *reflection;
	struct map sent; /* names of the files that this stream has had */
};

/* A growing array in the arena; what fails to fit is remembered and fails the answer. */
struct gather {
	struct arena *arena;
	struct reflection_stream *stream;
	ProtobufCBinaryData *items;
	int32_t *numbers;
	size_t n, cap;
	bool failed;
};

static bool gather_room(struct gather *g, size_t item_bytes, void **items)
{
	if (g->n < g->cap)
		return true;
	size_t cap = g->cap ? g->cap * 2 : 16;
	void *room = arena_alloc(g->arena, cap * item_bytes);
	if (!room) {
		g->failed = true;
		return false;
	}
	if (g->n)
		memcpy(room, *items, g->n * item_bytes);
	*items = room;
	g->cap = cap;
	return true;
}

static void gather_bytes(struct gather *g, struct span s)
{
	void *items = g->items;
	if (!gather_room(g, sizeof(*g->items), &items))
		return;
	g->items = items;
	struct span copy = arena_dup(g->arena, s);
	if (!copy.p)
		g->failed = true;
	else
		g->items[g->n++] = (ProtobufCBinaryData){copy.n, (uint8_t *)(uintptr_t)copy.p};
}

static void gather_service(void *to, struct span name)
{
	gather_bytes(to, name);
}

/* The file asked for always; of its dependencies those that this stream has not had. */
static void gather_file(void *to, struct span file_name, struct span file)
{
	struct gather *g = to;
	bool first = g->n == 0;
	if (map_get(&g->stream->sent, file_name) && !first)
		return;
	map_put(&g->stream->sent, file_name, g->stream);
	gather_bytes(g, file);
}

static void gather_number(void *to, int32_t number)
{
	struct gather *g = to;
	void *items = g->numbers;
	if (!gather_room(g, sizeof(*g->numbers), &items))
		return;
	g->numbers = items;
	g->numbers[g->n++] = number;
}

static int compare_names(const void *a, const void *b)
{
	const ProtobufCBinaryData *x = a, *y = b;
	return span_cmp(span_of(x->data, x->len), span_of(y->data, y->len));
}

static int compare_numbers(const void *a, const void *b)
{
	const int32_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static struct span span_of_bytes(ProtobufCBinaryData b)
{
	return span_of(b.data, b.len);
}

static bool answer_list(struct reflection_stream *s, struct gather *g, reflection_response *response)
{
	const struct reflection *r = s->reflection;
	r->source.services(r->source.arg, gather_service, g);
	if (g->n)
		qsort(g->items, g->n, sizeof(*g->items), compare_names);
	Grpc__Reflection__V1__ListServiceResponse *list = arena_zalloc(g->arena, sizeof(*list));
	Grpc__Reflection__V1__ServiceResponse *items = arena_alloc(g->arena, (g->n + 1) * sizeof(*items));
	Grpc__Reflection__V1__ServiceResponse **pointers =
		arena_alloc(g->arena, (g->n + 1) * sizeof(*pointers));
	if (!list || !items || !pointers || g->failed)
		return false;
	grpc__reflection__v1__list_service_response__init(list);
	struct span own = span_str(r->name);
	for (size_t i = 0; i <= g->n; i++) {
		grpc__reflection__v1__service_response__init(&items[i]);
		items[i].name =
			i ? g->items[i - 1] : (ProtobufCBinaryData){own.n, (uint8_t *)(uintptr_t)own.p};
		pointers[i] = &items[i];
	}
	list->n_service = g->n + 1;
	list->service = pointers;
	response->message_response_case = ANSWER(LIST_SERVICES_RESPONSE);
	response->list_services_response = list;
	return true;
}

static bool answer_numbers(struct reflection_stream *s, struct gather *g, const reflection_request *request,
			   reflection_response *response)
{
	const struct grpc_reflection_source *source = &s->reflection->source;
	Grpc__Reflection__V1__ExtensionNumberResponse *numbers = arena_zalloc(g->arena, sizeof(*numbers));
	source->extension_numbers(source->arg, span_of_bytes(request->all_extension_numbers_of_type),
				  gather_number, g);
	if (!numbers || g->failed)
		return false;
	if (g->n)
		qsort(g->numbers, g->n, sizeof(*g->numbers), compare_numbers);
	grpc__reflection__v1__extension_number_response__init(numbers);
	numbers->base_type_name = request->all_extension_numbers_of_type;
	numbers->n_extension_number = g->n;
	numbers->extension_number = g->numbers;
	response->message_response_case = ANSWER(ALL_EXTENSION_NUMBERS_RESPONSE);
	response->all_extension_numbers_response = numbers;
	return true;
}

static bool answer_files(struct gather *g, reflection_response *response)
{
	Grpc__Reflection__V1__FileDescriptorResponse *files = arena_zalloc(g->arena, sizeof(*files));
	if (!files || g->failed)
		return false;
	grpc__reflection__v1__file_descriptor_response__init(files);
	files->n_file_descriptor_proto = g->n;
	files->file_descriptor_proto = g->items;
	response->message_response_case = ANSWER(FILE_DESCRIPTOR_RESPONSE);
	response->file_descriptor_response = files;
	return true;
}

static bool answer_none(struct arena *a, reflection_response *response)
{
	static const char text[] = "the request asks for nothing";
	Grpc__Reflection__V1__ErrorResponse *error = arena_zalloc(a, sizeof(*error));
	if (!error)
		return false;
	grpc__reflection__v1__error_response__init(error);
	error->error_code = GRPC_INVALID_ARGUMENT;
	error->error_message = (ProtobufCBinaryData){sizeof(text) - 1, (uint8_t *)(uintptr_t)text};
	response->message_response_case = ANSWER(ERROR_RESPONSE);
	response->error_response = error;
	return true;
}

static bool reflection_answer(struct reflection_stream *s, struct arena *a, reflection_request *request,
			      reflection_response *response)
{
	const struct grpc_reflection_source *source = &s->reflection->source;
	struct gather g = {.arena = a, .stream = s};
	switch (request->message_request_case) {
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
		source->file_by_name(source->arg, span_of_bytes(request->file_by_filename), gather_file, &g);
		return answer_files(&g, response);
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
		source->file_by_symbol(source->arg, span_of_bytes(request->file_containing_symbol),
				       gather_file, &g);
		return answer_files(&g, response);
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
		source->file_by_extension(
			source->arg, span_of_bytes(request->file_containing_extension->containing_type),
			request->file_containing_extension->extension_number, gather_file, &g);
		return answer_files(&g, response);
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
		return answer_numbers(s, &g, request, response);
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
		return answer_list(s, &g, response);
	default: return answer_none(a, response);
	}
}

/* ---- the stream ---------------------------------------------------------------------------------------- */

static void reflection_on_message(struct grpc_call *call, struct span bytes, void *user)
{
	struct reflection_stream *s = user;
	struct arena a;
	arena_init(&a, REFLECTION_ARENA_BYTES);
	reflection_request *request = (reflection_request *)grpc_unpack(
		&grpc__reflection__v1__server_reflection_request__descriptor, &a, bytes);
	reflection_response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
	if (!request) {
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, SPAN("malformed ServerReflectionRequest"),
				 NULL);
	} else if (!reflection_answer(s, &a, request, &response)) {
		grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, SPAN("the answer is too large"), NULL);
	} else {
		response.valid_host = request->host;
		response.original_request = request;
		if (!grpc_call_send_pb(call, &response.base))
			grpc_call_hold_read(call, true);
	}
	arena_release(&a);
}

static void reflection_on_writable(struct grpc_call *call, void *user)
{
	(void)user;
	grpc_call_hold_read(call, false);
}

static void reflection_on_half_close(struct grpc_call *call, void *user)
{
	(void)user;
	grpc_call_finish(call, GRPC_OK, SPAN(""), NULL);
}

static void reflection_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct reflection_stream *s = user;
	(void)call;
	(void)result;
	map_release(&s->sent);
	mem_free(s);
}

static const struct grpc_call_ops reflection_ops = {.on_message = reflection_on_message,
						    .on_half_close = reflection_on_half_close,
						    .on_writable = reflection_on_writable,
						    .on_done = reflection_on_done};

static void reflection_open(struct grpc_call *call, void *arg)
{
	struct reflection_stream *s = mem_xalloc(sizeof(*s));
	s->reflection = OBJ_CAST(struct reflection, arg, REFLECTION_MAGIC);
	map_init(&s->sent);
	grpc_call_bind(call, &reflection_ops, s);
}

static void reflection_free(void *arg)
{
	struct reflection *r = OBJ_CAST(struct reflection, arg, REFLECTION_MAGIC);
	r->magic = 0;
	mem_free(r);
}

static void reflection_add_one(struct grpc_server *server, const struct grpc_reflection_source *source,
			       const char *name, const char *path)
{
	struct reflection *r = mem_xalloc(sizeof(*r));
	r->magic = REFLECTION_MAGIC;
	r->source = *source;
	r->name = name;
	r->method = (struct grpc_method){.path = path, .open = reflection_open, .arg = r};
	grpc_server_add(server, &r->method, 1);
	server_own(server, reflection_free, r);
}

void grpc_reflection_add(struct grpc_server *server, const struct grpc_reflection_source *source)
{
	reflection_add_one(server, source, "grpc.reflection.v1.ServerReflection",
			   "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
	reflection_add_one(server, source, "grpc.reflection.v1alpha.ServerReflection",
			   "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
}

struct span grpc_own_descriptors(void)
{
	return span_of(grpc_own_set, grpc_own_set_bytes);
}
