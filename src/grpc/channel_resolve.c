#include <config.h>

#include "grpc/channel_resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/mem.h"
#include "base/must.h"

/* Counted by the thread that asks and by the loop that waits: whoever comes last frees it, so that a
 * name server that does not answer holds up nobody's end. */
struct resolve {
	atomic_int refs;
	int fd; /* the thread has written to it: the fields below are the loop's */
	char *host;
	char port[8];
	struct addrinfo *list;
	int code;

	/* The loop's alone. */
	struct loop *loop;
	struct event event;
	void (*fn)(struct addrinfo *list, const char *why, void *arg);
	void *arg;
};

static void resolve_unref(struct resolve *r)
{
	if (atomic_fetch_sub(&r->refs, 1) != 1)
		return;
	if (r->list)
		freeaddrinfo(r->list);
	close(r->fd);
	mem_free(r->host);
	mem_free(r);
}

static int resolve_ask(struct resolve *r, int flags)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
	return getaddrinfo(r->host[0] ? r->host : NULL, r->port, &hints, &r->list);
}

static void resolve_tell(struct resolve *r)
{
	uint64_t one = 1;
	must(write(r->fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
}

static void *resolve_thread(void *arg)
{
	struct resolve *r = arg;
	r->code = resolve_ask(r, 0);
	if (r->code)
		r->list = NULL;
	resolve_tell(r);
	resolve_unref(r);
	return NULL;
}

static void resolve_on_answer(evutil_socket_t fd, short what, void *arg)
{
	struct resolve *r = arg;
	uint64_t count;
	(void)what;
	must(read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count));
	loop_count(r->loop);
	struct addrinfo *list = r->list;
	const char *why = r->code ? gai_strerror(r->code) : NULL;
	r->list = NULL;
	r->fn(list, why, r->arg);
	resolve_unref(r);
}

static bool resolve_start_thread(struct resolve *r)
{
	pthread_t thread;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	atomic_fetch_add(&r->refs, 1);
	int failed = pthread_create(&thread, &attr, resolve_thread, r);
	pthread_attr_destroy(&attr);
	if (failed)
		atomic_fetch_sub(&r->refs, 1);
	return !failed;
}

struct resolve *resolve_start(struct loop *loop, const char *host, int port,
			      void (*fn)(struct addrinfo *list, const char *why, void *arg), void *arg)
{
	struct resolve *r = mem_xalloc(sizeof(*r));
	atomic_init(&r->refs, 1);
	r->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(r->fd >= 0);
	r->host = mem_xstrdup(host);
	snprintf(r->port, sizeof(r->port), "%d", port);
	r->loop = loop;
	r->fn = fn;
	r->arg = arg;
	event_assign(&r->event, loop_base(loop), r->fd, EV_READ, resolve_on_answer, r);
	event_add(&r->event, NULL);
	r->code = resolve_ask(r, AI_NUMERICHOST);
	if (r->code == 0) {
		resolve_tell(r);
	} else if (r->code != EAI_NONAME || !resolve_start_thread(r)) {
		r->list = NULL;
		resolve_tell(r);
	}
	return r;
}

void resolve_cancel(struct resolve *r)
{
	if (!r)
		return;
	event_del(&r->event);
	resolve_unref(r);
}
