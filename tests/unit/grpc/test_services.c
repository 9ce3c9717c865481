#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/must.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "rig.h"

/* Health and reflection, asked over loopback. */

TestSuite(services, .timeout = 60);

struct service_rig {
	struct loop *loop;
	struct grpc_server *server;
	struct grpc_health *health;
	struct grpc_channel *channel;
	char target[32];
};

/* Two files, b needs a; two services, one type with extensions. */
static void source_services(void *arg, void (*add)(void *to, struct span name), void *to)
{
	(void)arg;
	add(to, SPAN("shop.a"));
	add(to, SPAN("shop.B"));
}

static void source_file(void *arg, struct span name,
			void (*add)(void *to, struct span file_name, struct span file), void *to)
{
	(void)arg;
	if (span_eq(name, SPAN("b.proto")) || span_eq(name, SPAN("shop.B"))) {
		add(to, SPAN("b.proto"), SPAN("bytes of b"));
		add(to, SPAN("a.proto"), SPAN("bytes of a"));
	} else if (span_eq(name, SPAN("a.proto"))) {
		add(to, SPAN("a.proto"), SPAN("bytes of a"));
	}
}

static void source_extension(void *arg, struct span type, int32_t number,
			     void (*add)(void *to, struct span file_name, struct span file), void *to)
{
	(void)arg;
	if (span_eq(type, SPAN("shop.T")) && number == 7)
		add(to, SPAN("a.proto"), SPAN("bytes of a"));
}

static bool source_numbers(void *arg, struct span type, void (*add)(void *to, int32_t number), void *to)
{
	(void)arg;
	if (!span_eq(type, SPAN("shop.T")))
		return false;
	add(to, 9);
	add(to, 7);
	return true;
}

static void service_rig_start(struct service_rig *rig)
{
	static const struct grpc_reflection_source source = {.services = source_services,
							     .file_by_name = source_file,
							     .file_by_symbol = source_file,
							     .file_by_extension = source_extension,
							     .extension_numbers = source_numbers};
	struct grpc_server_config config = {.listen = "127.0.0.1:0"};
	*rig = (struct service_rig){.loop = loop_new()};
	rig->server = grpc_server_new(&config, &rig->loop, 1);
	rig->health = grpc_health_new(rig->server);
	grpc_reflection_add(rig->server, &source);
	must(grpc_server_listen(rig->server, NULL) == ERR_OK);
	snprintf(rig->target, sizeof(rig->target), "127.0.0.1:%d", grpc_server_port(rig->server));
	struct grpc_channel_config client = {.target = rig->target};
	rig->channel = grpc_channel_new(rig->loop, &client, NULL, NULL);
}

static void service_rig_stop(struct service_rig *rig)
{
	grpc_channel_free(rig->channel);
	grpc_server_free(rig->server);
	grpc_health_free(rig->health);
	loop_free(rig->loop);
}

static void turn_until(struct service_rig *rig, const unsigned *count, unsigned n)
{
	struct rig turner = {.loop = rig->loop};
	RIG_UNTIL(&turner, *count >= n);
	cr_assert_eq(*count, n);
}

/* ---- health ---------------------------------------------------------------------------------------- */

struct checked {
	unsigned done;
	enum grpc_code code;
	int status;
};

static int status_of(struct span bytes)
{
	Grpc__Health__V1__HealthCheckResponse *m =
		grpc__health__v1__health_check_response__unpack(NULL, bytes.n, bytes.p);
	cr_assert_not_null(m);
	int status = (int)m->status;
	grpc__health__v1__health_check_response__free_unpacked(m, NULL);
	return status;
}

static void on_checked(const struct grpc_result *result, struct span reply, void *arg)
{
	struct checked *checked = arg;
	checked->done++;
	checked->code = result->code;
	checked->status = result->code == GRPC_OK ? status_of(reply) : -1;
}

static struct checked check(struct service_rig *rig, struct span request)
{
	struct checked checked = {0};
	grpc_channel_unary(rig->channel, "/grpc.health.v1.Health/Check", request, 5000, true, on_checked,
			   &checked);
	turn_until(rig, &checked.done, 1);
	return checked;
}

Test(services, health_check_tells_each_service)
{
	struct service_rig rig;
	service_rig_start(&rig);
	cr_assert_eq(check(&rig, SPAN("")).status, 1);
	cr_assert_eq(check(&rig, SPAN("\x0a\x01x")).code, GRPC_NOT_FOUND);
	grpc_health_set(rig.health, "x", true);
	cr_assert_eq(check(&rig, SPAN("\x0a\x01x")).status, 1);
	grpc_health_set(rig.health, "x", false);
	cr_assert_eq(check(&rig, SPAN("\x0a\x01x")).status, 2);
	grpc_health_forget(rig.health, "x");
	cr_assert_eq(check(&rig, SPAN("\x0a\x01x")).code, GRPC_NOT_FOUND);
	cr_assert_eq(check(&rig, SPAN("\x0a\x05x")).code, GRPC_INVALID_ARGUMENT);
	cr_assert_eq(check(&rig, SPAN("\x0a\x02x\0")).code, GRPC_NOT_FOUND, "a NUL ends no name");
	service_rig_stop(&rig);
}

struct watched {
	unsigned n, done;
	int status[8];
	enum grpc_code code;
};

static void watched_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct watched *w = user;
	(void)call;
	cr_assert_lt(w->n, 8);
	w->status[w->n++] = status_of(message);
}

static void watched_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct watched *w = user;
	(void)call;
	w->done++;
	w->code = result->code;
}

static const struct grpc_call_ops watched_ops = {.on_message = watched_on_message,
						 .on_done = watched_on_done};

static void note_drained(void *arg)
{
	*(unsigned *)arg = 1;
}

Test(services, health_watch_tells_every_change_and_ends_with_the_server)
{
	struct service_rig rig;
	struct watched w = {0};
	unsigned drained = 0;
	service_rig_start(&rig);
	struct grpc_call *call = grpc_channel_call(rig.channel, "/grpc.health.v1.Health/Watch", NULL, -1,
						   true, &watched_ops, &w);
	grpc_call_send(call, SPAN("\x0a\x01x"));
	grpc_call_half_close(call);
	turn_until(&rig, &w.n, 1);
	cr_assert_eq(w.status[0], 3, "SERVICE_UNKNOWN");
	grpc_health_set(rig.health, "x", true);
	turn_until(&rig, &w.n, 2);
	cr_assert_eq(w.status[1], 1);
	grpc_health_set(rig.health, "x", true);
	grpc_health_set(rig.health, "y", false);
	grpc_health_set(rig.health, "x", false);
	turn_until(&rig, &w.n, 3);
	cr_assert_eq(w.status[2], 2);
	grpc_health_forget(rig.health, "x");
	turn_until(&rig, &w.n, 4);
	cr_assert_eq(w.status[3], 3);
	grpc_server_drain(rig.server, 5000, note_drained, &drained);
	turn_until(&rig, &drained, 1);
	cr_assert_eq(w.done, 1);
	cr_assert_eq(w.code, GRPC_UNAVAILABLE);
	service_rig_stop(&rig);
}

/* ---- reflection -------------------------------------------------------------------------------------- */

struct reflected {
	unsigned n, done;
	Grpc__Reflection__V1__ServerReflectionResponse *last;
	enum grpc_code code;
};

static void reflected_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct reflected *r = user;
	(void)call;
	if (r->last)
		grpc__reflection__v1__server_reflection_response__free_unpacked(r->last, NULL);
	r->last = grpc__reflection__v1__server_reflection_response__unpack(NULL, message.n, message.p);
	cr_assert_not_null(r->last);
	r->n++;
}

static void reflected_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct reflected *r = user;
	(void)call;
	r->done++;
	r->code = result->code;
}

static const struct grpc_call_ops reflected_ops = {.on_message = reflected_on_message,
						   .on_done = reflected_on_done};

static bool bytes_are(ProtobufCBinaryData b, const char *text)
{
	return span_eq_str(span_of(b.data, b.len), text);
}

static void reflect(struct service_rig *rig, struct grpc_call *call, struct reflected *r, struct span request)
{
	unsigned next = r->n + 1;
	grpc_call_send(call, request);
	turn_until(rig, &r->n, next);
}

static void expect_files(const struct reflected *r, size_t n, const char *first, const char *second)
{
	cr_assert_eq(
		r->last->message_response_case,
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE);
	const Grpc__Reflection__V1__FileDescriptorResponse *files = r->last->file_descriptor_response;
	cr_assert_eq(files->n_file_descriptor_proto, n);
	cr_assert(n < 1 || bytes_are(files->file_descriptor_proto[0], first));
	cr_assert(n < 2 || bytes_are(files->file_descriptor_proto[1], second));
}

static void expect_list(const struct reflected *r, const char *own)
{
	cr_assert_eq(
		r->last->message_response_case,
		GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE);
	const Grpc__Reflection__V1__ListServiceResponse *list = r->last->list_services_response;
	cr_assert_eq(list->n_service, 3);
	cr_assert(bytes_are(list->service[0]->name, own));
	cr_assert(bytes_are(list->service[1]->name, "shop.B"));
	cr_assert(bytes_are(list->service[2]->name, "shop.a"));
}

static void reflection_conversation(const char *name, const char *path)
{
	struct service_rig rig;
	struct reflected r = {0};
	service_rig_start(&rig);
	struct grpc_call *call = grpc_channel_call(rig.channel, path, NULL, -1, true, &reflected_ops, &r);
	reflect(&rig, call, &r, SPAN("\x0a\x01h\x3a\x01*"));
	expect_list(&r, name);
	cr_assert(bytes_are(r.last->valid_host, "h"));
	cr_assert(bytes_are(r.last->original_request->host, "h"));
	cr_assert(bytes_are(r.last->original_request->list_services, "*"));
	reflect(&rig, call, &r, SPAN("\x22\x06shop.B"));
	expect_files(&r, 2, "bytes of b", "bytes of a");
	reflect(&rig, call, &r,
		SPAN("\x1a\x07"
		     "b.proto"));
	expect_files(&r, 1, "bytes of b", NULL); /* its dependency was sent before */
	reflect(&rig, call, &r, SPAN("\x1a\x07z.proto"));
	expect_files(&r, 0, NULL, NULL);
	reflect(&rig, call, &r, SPAN("\x2a\x0a\x0a\x06shop.T\x10\x07"));
	expect_files(&r, 1, "bytes of a", NULL);
	reflect(&rig, call, &r, SPAN("\x32\x06shop.T"));
	cr_assert_eq(r.last->all_extension_numbers_response->n_extension_number, 2);
	cr_assert_eq(r.last->all_extension_numbers_response->extension_number[0], 7);
	reflect(&rig, call, &r, SPAN("\x32\x06shop.U"));
	cr_assert_eq(r.last->all_extension_numbers_response->n_extension_number, 0);
	cr_assert(bytes_are(r.last->all_extension_numbers_response->base_type_name, "shop.U"));
	reflect(&rig, call, &r, SPAN(""));
	cr_assert_eq(r.last->error_response->error_code, GRPC_INVALID_ARGUMENT);
	grpc_call_half_close(call);
	turn_until(&rig, &r.done, 1);
	cr_assert_eq(r.code, GRPC_OK);
	grpc__reflection__v1__server_reflection_response__free_unpacked(r.last, NULL);
	service_rig_stop(&rig);
}

Test(services, reflection_v1_answers_every_request)
{
	reflection_conversation("grpc.reflection.v1.ServerReflection",
				"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
}

Test(services, reflection_v1alpha_answers_every_request)
{
	reflection_conversation("grpc.reflection.v1alpha.ServerReflection",
				"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
}

Test(services, own_descriptors_are_a_set_of_three_files)
{
	struct span set = grpc_own_descriptors();
	unsigned files = 0;
	while (set.n) {
		/* field 1, length of one or two bytes */
		cr_assert_eq(set.p[0], 0x0a);
		size_t n = set.p[1], head = 2;
		if (n & 0x80) {
			n = (n & 0x7f) | (size_t)set.p[2] << 7;
			head = 3;
		}
		cr_assert_geq(set.n, head + n);
		set = span_skip(set, head + n);
		files++;
	}
	cr_assert_eq(files, 3);
}
