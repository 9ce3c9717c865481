#include <config.h>

#include "proxy/feed.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"

#define MAGIC 0x46656564u
/* Between attempts to subscribe while the journal is away. */
#define AGAIN_MS 500

struct feed {
	struct list_node node; /* feeds.all */
	struct feeds *feeds;   /* NULL: left behind by feeds_free(), goes with its last callback */
	struct span category;  /* behind it */
	struct client_read *read;
	struct loop_timer *timer;
	struct client_cursor cursor; /* where it goes on; incarnation 0: at the end */
	bool live;
};

struct feeds {
	uint32_t magic;
	struct feeds_config config;
	struct list all;
	struct map followers; /* by stream */
};

static void subscribe(struct feed *f);

struct visit {
	struct feed *feed;
	struct list found; /* of struct found */
};
struct found {
	struct list_node node;
	char *stream;
	size_t n;
};

static void find_follower(struct span stream, void *follower, void *arg)
{
	struct visit *v = arg;
	(void)follower;
	if (!span_eq(record_category(stream), v->feed->category))
		return;
	struct found *found = mem_xalloc(sizeof *found);
	found->stream = mem_xdup(stream.p, stream.n);
	found->n = stream.n;
	list_push_back(&v->found, &found->node);
}

/* One may leave while another is told. */
static void tell_behind(struct feed *f)
{
	struct feeds *feeds = f->feeds;
	struct visit v = {.feed = f};
	struct list_node *n;
	list_init(&v.found);
	map_each(&feeds->followers, find_follower, &v);
	while ((n = list_pop_front(&v.found))) {
		struct found *found = CONTAINER_OF(n, struct found, node);
		void *follower = map_get(&feeds->followers, span_of(found->stream, found->n));
		if (follower)
			feeds->config.on_record(follower, NULL);
		mem_free(found->stream);
		mem_free(found);
	}
}

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct feed *f = arg;
	(void)r;
	void *follower = f->feeds ? map_get(&f->feeds->followers, record->stream) : NULL;
	if (follower)
		f->feeds->config.on_record(follower, record);
	if (f->feeds && f->feeds->config.on_heard)
		f->feeds->config.on_heard(f->feeds->config.arg, record);
}

static void on_page(struct client_read *r, const struct client_page *page, void *arg)
{
	struct feed *f = arg;
	(void)r;
	if (!f->feeds)
		return;
	if (page->cursor.incarnation)
		f->cursor = page->cursor;
	if (f->live || !page->caught_up)
		return;
	f->live = true;
	tell_behind(f);
	if (f->feeds->config.on_live)
		f->feeds->config.on_live(f->feeds->config.arg, f->category, page->cursor.position);
}

static void feed_free(struct feed *f)
{
	loop_timer_free(f->timer);
	mem_free(f);
}

static void on_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct feed *f = arg;
	(void)r;
	f->read = NULL;
	if (!f->feeds) {
		feed_free(f);
		return;
	}
	if (error->code == GRPC_CANCELLED)
		return; /* the client goes */
	if (!error->unreachable && error->code != GRPC_UNAVAILABLE) { /* it cannot go on where it was */
		log_warn("subscription ended: it begins anew", LOG_SPAN("category", f->category),
			 LOG_STR("code", grpc_code_name(error->code)), LOG_SPAN("error", error->text));
		f->cursor = (struct client_cursor){0};
		f->live = false;
	}
	loop_timer_set(f->timer, AGAIN_MS);
}

static const struct client_read_ops read_ops = {.on_record = on_record, .on_page = on_page, .on_done = on_done};

static void subscribe(struct feed *f)
{
	struct client_query query = {.category = f->category, .from = CLIENT_FROM_END};
	if (f->cursor.incarnation) {
		query.from = CLIENT_FROM_CURSOR;
		query.from_cursor = f->cursor;
	}
	f->read = client_subscribe(f->feeds->config.journal, &query, &read_ops, f);
}

static void on_timer(void *arg)
{
	struct feed *f = arg;
	if (!f->read)
		subscribe(f);
}

void feeds_begin(struct feeds *feeds, struct span category)
{
	must(feeds->magic == MAGIC);
	for (struct list_node *n = list_first(&feeds->all); n; n = list_next(&feeds->all, n))
		if (span_eq(CONTAINER_OF(n, struct feed, node)->category, category))
			return;
	struct feed *f = mem_xalloc(sizeof *f + category.n);
	memcpy(f + 1, category.p, category.n);
	f->category = span_of(f + 1, category.n);
	f->feeds = feeds;
	f->timer = loop_timer_new(feeds->config.loop, on_timer, f);
	list_push_back(&feeds->all, &f->node);
	subscribe(f);
}

struct feeds *feeds_new(const struct feeds_config *config)
{
	struct feeds *f = mem_xalloc(sizeof *f);
	f->magic = MAGIC;
	f->config = *config;
	list_init(&f->all);
	map_init(&f->followers);
	return f;
}

void feeds_free(struct feeds *feeds)
{
	struct list_node *n;
	if (!feeds)
		return;
	must(feeds->magic == MAGIC && !feeds->followers.count);
	while ((n = list_pop_front(&feeds->all))) {
		struct feed *f = CONTAINER_OF(n, struct feed, node);
		f->feeds = NULL;
		if (f->read)
			client_read_cancel(f->read); /* on_done() follows and frees */
		else
			feed_free(f);
	}
	map_release(&feeds->followers);
	feeds->magic = 0;
	mem_free(feeds);
}

void feeds_follow(struct feeds *feeds, struct span stream, void *follower)
{
	must(feeds->magic == MAGIC);
	map_put(&feeds->followers, stream, follower);
	feeds_begin(feeds, record_category(stream));
}

void feeds_leave(struct feeds *feeds, struct span stream, const void *follower)
{
	must(feeds->magic == MAGIC);
	if (map_get(&feeds->followers, stream) == follower)
		map_remove(&feeds->followers, stream);
}
