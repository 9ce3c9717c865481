#include <config.h>

#include <pthread.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/server.h"

#define HEALTH_MAGIC 0x686c7468u
#define HEALTH_ARENA_BYTES (4 * KIB + LIMIT_HEADER_BYTES)

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus health_status;
#define HEALTH_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define HEALTH_NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define HEALTH_SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

/* The Watch calls of one loop; only its thread touches them. */
struct health_loop {
	struct grpc_health *health;
	struct loop *loop;
	struct list watches;
	struct task task;
	bool posted; /* under the lock */
};

struct health_watch {
	struct list_node node;
	struct health_loop *at;
	struct grpc_call *call;
	char *service; /* NULL until the request has come */
	size_t service_n;
	health_status told;
};

struct grpc_health {
	uint32_t magic;
	pthread_mutex_t lock;
	struct map services; /* under the lock; the values are the two below */
	struct health_loop *loops;
	size_t loop_count;
	struct grpc_method methods[2];
};

/* Map values: which of the two a service is. */
static char serving, not_serving;

static health_status health_find(struct grpc_health *health, struct span service)
{
	pthread_mutex_lock(&health->lock);
	const void *value = map_get(&health->services, service);
	pthread_mutex_unlock(&health->lock);
	if (!value)
		return HEALTH_SERVICE_UNKNOWN;
	return value == &serving ? HEALTH_SERVING : HEALTH_NOT_SERVING;
}

/* ---- Check --------------------------------------------------------------------------------------------- */

static Grpc__Health__V1__HealthCheckRequest *health_parse(struct arena *a, struct span bytes)
{
	return (Grpc__Health__V1__HealthCheckRequest *)grpc_unpack(
		&grpc__health__v1__health_check_request__descriptor, a, bytes);
}

static void health_check(struct grpc_call *call, struct span bytes, void *arg)
{
	struct grpc_health *health = OBJ_CAST(struct grpc_health, arg, HEALTH_MAGIC);
	struct arena a;
	arena_init(&a, HEALTH_ARENA_BYTES);
	const Grpc__Health__V1__HealthCheckRequest *request = health_parse(&a, bytes);
	Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	if (request) {
		response.status = health_find(health, span_of(request->service.data, request->service.len));
		if (response.status == HEALTH_SERVICE_UNKNOWN)
			grpc_call_finish(call, GRPC_NOT_FOUND, SPAN("unknown service"), NULL);
		else
			grpc_call_reply_pb(call, &response.base);
	} else {
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, SPAN("malformed HealthCheckRequest"), NULL);
	}
	arena_release(&a);
}

/* ---- Watch --------------------------------------------------------------------------------------------- */

static void watch_tell(struct health_watch *watch, bool first)
{
	Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	if (!watch->service)
		return;
	response.status = health_find(watch->at->health, span_of(watch->service, watch->service_n));
	if (!first && response.status == watch->told)
		return;
	/* A watcher that does not read is told the newest status once it does. */
	if (!grpc_call_writable(watch->call))
		return;
	watch->told = response.status;
	grpc_call_send_pb(watch->call, &response.base);
}

static void watch_on_message(struct grpc_call *call, struct span bytes, void *user)
{
	struct health_watch *watch = user;
	struct arena a;
	if (watch->service)
		return;
	arena_init(&a, HEALTH_ARENA_BYTES);
	const Grpc__Health__V1__HealthCheckRequest *request = health_parse(&a, bytes);
	if (request) {
		watch->service_n = request->service.len;
		watch->service = mem_xdup(request->service.data, request->service.len);
		watch_tell(watch, true);
	} else {
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, SPAN("malformed HealthCheckRequest"), NULL);
	}
	arena_release(&a);
}

static void watch_on_half_close(struct grpc_call *call, void *user)
{
	struct health_watch *watch = user;
	if (!watch->service)
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, SPAN("no HealthCheckRequest"), NULL);
}

static void watch_on_writable(struct grpc_call *call, void *user)
{
	(void)call;
	watch_tell(user, false);
}

static void watch_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct health_watch *watch = user;
	(void)call;
	(void)result;
	list_remove(&watch->node);
	mem_free(watch->service);
	mem_free(watch);
}

static const struct grpc_call_ops watch_ops = {.on_message = watch_on_message,
					       .on_half_close = watch_on_half_close,
					       .on_writable = watch_on_writable,
					       .on_done = watch_on_done};

static struct health_loop *health_loop_of(struct grpc_health *health, const struct loop *loop)
{
	size_t i = 0;
	while (health->loops[i].loop != loop) {
		i++;
		must(i < health->loop_count);
	}
	return &health->loops[i];
}

static void health_watch(struct grpc_call *call, void *arg)
{
	struct grpc_health *health = OBJ_CAST(struct grpc_health, arg, HEALTH_MAGIC);
	struct health_watch *watch = mem_xalloc(sizeof(*watch));
	watch->at = health_loop_of(health, grpc_call_loop(call));
	watch->call = call;
	list_push_back(&watch->at->watches, &watch->node);
	grpc_call_bind(call, &watch_ops, watch);
}

static void health_run_changed(struct task *task)
{
	struct health_loop *at = CONTAINER_OF(task, struct health_loop, task);
	pthread_mutex_lock(&at->health->lock);
	at->posted = false;
	pthread_mutex_unlock(&at->health->lock);
	for (struct list_node *node = list_first(&at->watches); node; node = list_next(&at->watches, node))
		watch_tell(CONTAINER_OF(node, struct health_watch, node), false);
}

static void health_on_drain(struct loop *loop, void *arg)
{
	struct grpc_health *health = OBJ_CAST(struct grpc_health, arg, HEALTH_MAGIC);
	struct health_loop *at = health_loop_of(health, loop);
	for (struct list_node *node = list_first(&at->watches); node; node = list_next(&at->watches, node))
		grpc_call_finish(CONTAINER_OF(node, struct health_watch, node)->call, GRPC_UNAVAILABLE,
				 SPAN("the server is going away"), NULL);
}

/* ---- the table ----------------------------------------------------------------------------------------- */

/* With the lock held. */
static void health_changed(struct grpc_health *health)
{
	for (size_t i = 0; i < health->loop_count; i++) {
		struct health_loop *at = &health->loops[i];
		if (at->posted)
			continue;
		at->posted = true;
		mailbox_post(loop_mailbox(at->loop), &at->task);
	}
}

void grpc_health_set(struct grpc_health *health, const char *service, bool is_serving)
{
	must(health->magic == HEALTH_MAGIC);
	pthread_mutex_lock(&health->lock);
	map_put(&health->services, span_str(service), is_serving ? &serving : &not_serving);
	health_changed(health);
	pthread_mutex_unlock(&health->lock);
}

void grpc_health_forget(struct grpc_health *health, const char *service)
{
	must(health->magic == HEALTH_MAGIC);
	pthread_mutex_lock(&health->lock);
	map_remove(&health->services, span_str(service));
	health_changed(health);
	pthread_mutex_unlock(&health->lock);
}

struct grpc_health *grpc_health_new(struct grpc_server *server)
{
	struct grpc_health *health = mem_xalloc(sizeof(*health));
	health->magic = HEALTH_MAGIC;
	must(pthread_mutex_init(&health->lock, NULL) == 0);
	map_init(&health->services);
	map_put(&health->services, SPAN(""), &serving);
	health->loop_count = server_loop_count(server);
	health->loops = mem_xalloc(health->loop_count * sizeof(*health->loops));
	for (size_t i = 0; i < health->loop_count; i++) {
		struct health_loop *at = &health->loops[i];
		at->health = health;
		at->loop = server_loop_at(server, i);
		at->task.run = health_run_changed;
		list_init(&at->watches);
	}
	health->methods[0] = (struct grpc_method){
		.path = "/grpc.health.v1.Health/Check", .unary = health_check, .arg = health};
	health->methods[1] = (struct grpc_method){
		.path = "/grpc.health.v1.Health/Watch", .open = health_watch, .arg = health};
	grpc_server_add(server, health->methods, 2);
	server_set_drain_listener(server, health_on_drain, health);
	return health;
}

void grpc_health_free(struct grpc_health *health)
{
	if (!health)
		return;
	must(health->magic == HEALTH_MAGIC);
	for (size_t i = 0; i < health->loop_count; i++) {
		if (health->loops[i].posted)
			mailbox_drain(loop_mailbox(health->loops[i].loop));
		must(list_empty(&health->loops[i].watches));
	}
	map_release(&health->services);
	pthread_mutex_destroy(&health->lock);
	mem_free(health->loops);
	health->magic = 0;
	mem_free(health);
}
