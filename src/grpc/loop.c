#include <config.h>

#include "grpc/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/mem.h"
#include "base/must.h"

#define LOOP_MAGIC 0x6c6f6f70u
#define LOOP_TIMER_MAGIC 0x74696d65u

struct loop_signal {
	struct list_node node;
	struct event *event;
	void (*fn)(int signo, void *arg);
	void *arg;
};

struct loop {
	uint32_t magic;
	struct event_base *base;
	struct list tasks; /* put off to the end of the turn */
	struct list signals;
	unsigned long ran; /* callbacks, ever */
	uint8_t *read_buffer;

	/* Any thread. */
	struct mailbox mailbox;
	int wake_fd;
	atomic_bool stop;
	_Atomic(pthread_t) owner;

	pthread_t thread; /* loop_thread_start() to loop_thread_join() */
	bool has_thread;
	char name[16]; /* the kernel's limit */
};

struct loop_timer {
	uint32_t magic;
	struct loop *loop;
	struct event event;
	void (*fn)(void *arg);
	void *arg;
};

static void loop_wake(void *arg)
{
	struct loop *loop = OBJ_CAST(struct loop, arg, LOOP_MAGIC);
	uint64_t one = 1;
	/* Only EAGAIN can happen: the counter is full, so the loop is awake already. */
	ssize_t n = write(loop->wake_fd, &one, sizeof(one));
	must(n == (ssize_t)sizeof(one) || errno == EAGAIN);
}

static void loop_on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = OBJ_CAST(struct loop, arg, LOOP_MAGIC);
	(void)what;
	uint64_t count;
	if (read(fd, &count, sizeof(count)) < 0)
		must(errno == EAGAIN || errno == EINTR);
	loop->ran += mailbox_drain(&loop->mailbox);
}

struct loop *loop_new(void)
{
	struct loop *loop = mem_xalloc(sizeof(*loop));
	loop->magic = LOOP_MAGIC;
	list_init(&loop->tasks);
	list_init(&loop->signals);
	loop->read_buffer = mem_xalloc(LOOP_READ_BYTES);
	mailbox_init(&loop->mailbox, loop_wake, loop);
	atomic_init(&loop->stop, false);
	atomic_init(&loop->owner, pthread_self());
	struct event_config *config = event_config_new();
	must(config);
	/* Nothing here is called by another thread but event_base_loop()'s owner; the mailbox wakes it. */
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	loop->base = event_base_new_with_config(config);
	event_config_free(config);
	must(loop->base);
	loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(loop->wake_fd >= 0);
	struct event *wake = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, loop_on_wake, loop);
	must(wake);
	must(event_add(wake, NULL) == 0);
	struct loop_signal *keep = mem_xalloc(sizeof(*keep));
	keep->event = wake; /* freed with the signals: both live as long as the loop */
	list_push_back(&loop->signals, &keep->node);
	return loop;
}

static bool loop_run_tasks(struct loop *loop)
{
	struct list now;
	list_init(&now);
	struct list_node *node;
	while ((node = list_pop_front(&loop->tasks)))
		list_push_back(&now, node);
	bool any = false;
	/* A task may take another off this list (loop_undefer), which is why it is popped one by one. */
	while ((node = list_pop_front(&now))) {
		struct loop_task *task = CONTAINER_OF(node, struct loop_task, node);
		task->run(task);
		any = true;
	}
	return any;
}

bool loop_run_once(struct loop *loop, bool block)
{
	must(loop->magic == LOOP_MAGIC);
	atomic_store_explicit(&loop->owner, pthread_self(), memory_order_relaxed);
	unsigned long before = loop->ran;
	bool wait = block && list_empty(&loop->tasks);
	int r = event_base_loop(loop->base, wait ? EVLOOP_ONCE : EVLOOP_NONBLOCK | EVLOOP_ONCE);
	must(r >= 0);
	bool any = loop_run_tasks(loop);
	return any || loop->ran != before;
}

void loop_run(struct loop *loop)
{
	while (!atomic_load_explicit(&loop->stop, memory_order_acquire))
		loop_run_once(loop, true);
	atomic_store_explicit(&loop->stop, false, memory_order_relaxed);
}

void loop_stop(struct loop *loop)
{
	atomic_store_explicit(&loop->stop, true, memory_order_release);
	loop_wake(loop);
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	must(loop->magic == LOOP_MAGIC);
	must(!loop->has_thread);
	/* What was posted or put off may hold memory: let it run, also what it causes, but not for ever. */
	for (int i = 0; i < 1000; i++)
		if (mailbox_drain(&loop->mailbox) == 0 && !loop_run_tasks(loop))
			break;
	struct list_node *node;
	while ((node = list_pop_front(&loop->signals))) {
		struct loop_signal *sig = CONTAINER_OF(node, struct loop_signal, node);
		event_free(sig->event);
		mem_free(sig);
	}
	mailbox_release(&loop->mailbox);
	close(loop->wake_fd);
	event_base_free(loop->base);
	mem_free(loop->read_buffer);
	loop->magic = 0;
	mem_free(loop);
}

struct mailbox *loop_mailbox(struct loop *loop)
{
	return &loop->mailbox;
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

uint8_t *loop_read_buffer(struct loop *loop)
{
	return loop->read_buffer;
}

void loop_count(struct loop *loop)
{
	loop->ran++;
}

bool loop_is_current(const struct loop *loop)
{
	return pthread_equal(atomic_load_explicit(&loop->owner, memory_order_relaxed), pthread_self()) != 0;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	must_slow(loop_is_current(loop));
	if (!list_linked(&task->node))
		list_push_back(&loop->tasks, &task->node);
}

void loop_undefer(struct loop_task *task)
{
	list_remove(&task->node);
}

/* ---- threads ----------------------------------------------------------------------------------- */

static void *loop_thread_main(void *arg)
{
	struct loop *loop = OBJ_CAST(struct loop, arg, LOOP_MAGIC);
	pthread_setname_np(pthread_self(), loop->name);
	loop_run(loop);
	return NULL;
}

void loop_thread_start(struct loop *loop, const char *name)
{
	must(!loop->has_thread);
	size_t n = strlen(name);
	must(n < sizeof(loop->name));
	memcpy(loop->name, name, n + 1);
	loop->has_thread = true;
	int r = pthread_create(&loop->thread, NULL, loop_thread_main, loop);
	must(r == 0);
}

void loop_thread_join(struct loop *loop)
{
	must(loop->has_thread);
	loop_stop(loop);
	int r = pthread_join(loop->thread, NULL);
	must(r == 0);
	loop->has_thread = false;
	atomic_store(&loop->owner, pthread_self());
}

/* ---- signals and timers -------------------------------------------------------------------------- */

static void loop_on_signal_event(evutil_socket_t signo, short what, void *arg)
{
	struct loop_signal *sig = arg;
	(void)what;
	sig->fn((int)signo, sig->arg);
}

void loop_on_signal(struct loop *loop, int signo, void (*fn)(int signo, void *arg), void *arg)
{
	struct loop_signal *sig = mem_xalloc(sizeof(*sig));
	sig->fn = fn;
	sig->arg = arg;
	sig->event = evsignal_new(loop->base, signo, loop_on_signal_event, sig);
	must(sig->event);
	must(event_add(sig->event, NULL) == 0);
	list_push_back(&loop->signals, &sig->node);
}

static void loop_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct loop_timer *timer = OBJ_CAST(struct loop_timer, arg, LOOP_TIMER_MAGIC);
	(void)fd;
	(void)what;
	timer->loop->ran++;
	timer->fn(timer->arg);
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	must(loop->magic == LOOP_MAGIC);
	struct loop_timer *timer = mem_xalloc(sizeof(*timer));
	timer->magic = LOOP_TIMER_MAGIC;
	timer->loop = loop;
	timer->fn = fn;
	timer->arg = arg;
	event_assign(&timer->event, loop->base, -1, 0, loop_on_timer, timer);
	return timer;
}

void loop_timer_free(struct loop_timer *timer)
{
	if (!timer)
		return;
	must(timer->magic == LOOP_TIMER_MAGIC);
	event_del(&timer->event);
	timer->magic = 0;
	mem_free(timer);
}

void loop_timer_set(struct loop_timer *timer, int64_t after_ms)
{
	must_slow(loop_is_current(timer->loop));
	if (after_ms < 0)
		after_ms = 0;
	struct timeval tv = {.tv_sec = after_ms / 1000, .tv_usec = (after_ms % 1000) * 1000};
	must(event_add(&timer->event, &tv) == 0);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	event_del(&timer->event);
}
