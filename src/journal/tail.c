/* The tail: see tail.h. */
#include <config.h>

#include "journal/tail.h"

#include <pthread.h>

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"

struct interest {
	struct list waiting;
	size_t joined;    /* reads that have it */
	struct span name; /* owned */
	bool category;
};

/* One a mailbox: what its thread is to look at. */
struct tail_desk {
	struct tail *tail;
	struct tail_desk *next;
	struct mailbox *mailbox;
	struct task task;
	bool posted;
	struct list ready;
	struct list waiting_for_all;
	bool all_ready;
};

struct tail {
	pthread_mutex_t lock;
	struct append **ring; /* LIMIT_TAIL_APPENDS of them, a power of two */
	uint64_t first, end;  /* numbers of appends; slot = number % LIMIT_TAIL_APPENDS */
	size_t bytes;
	uint64_t first_position, end_position;
	struct map streams, categories; /* name -> struct interest */
	struct tail_desk *desks;
	size_t joined;
	struct list all;  /* that have joined */
	struct list idle; /* who waits for a stream or category, longest first */
};

_Static_assert((LIMIT_TAIL_APPENDS & (LIMIT_TAIL_APPENDS - 1)) == 0, "slots are found by masking");

struct tail *tail_new(uint64_t head)
{
	struct tail *t = mem_xalloc(sizeof(*t));
	int r = pthread_mutex_init(&t->lock, NULL);
	must(r == 0);
	t->ring = mem_xalloc(LIMIT_TAIL_APPENDS * sizeof(struct append *));
	t->first_position = t->end_position = head;
	map_init(&t->streams);
	map_init(&t->categories);
	list_init(&t->idle);
	list_init(&t->all);
	return t;
}

static struct append **slot(struct tail *t, uint64_t number)
{
	return &t->ring[number & (LIMIT_TAIL_APPENDS - 1)];
}

static void ring_drop(struct tail *t)
{
	struct append **a = slot(t, t->first++);
	t->bytes -= (*a)->memory_bytes;
	t->first_position = (*a)->answer.first_position + (*a)->item_count;
	append_unref(*a);
	*a = NULL;
}

void tail_free(struct tail *t)
{
	if (!t)
		return;
	must(t->joined == 0);
	while (t->first < t->end)
		ring_drop(t);
	while (t->desks) {
		struct tail_desk *next = t->desks->next;
		must(!t->desks->posted);
		mem_free(t->desks);
		t->desks = next;
	}
	map_release(&t->streams);
	map_release(&t->categories);
	mem_free(t->ring);
	pthread_mutex_destroy(&t->lock);
	mem_free(t);
}

/* ---- waking ---------------------------------------------------------------------------------- */

static void desk_run(struct task *task)
{
	struct tail_desk *desk = CONTAINER_OF(task, struct tail_desk, task);
	struct tail *t = desk->tail;
	struct list batch;
	struct list_node *n;
	list_init(&batch);
	pthread_mutex_lock(&t->lock);
	desk->posted = false;
	while ((n = list_pop_front(&desk->ready)))
		list_push_back(&batch, n);
	while (desk->all_ready && (n = list_pop_front(&desk->waiting_for_all))) {
		CONTAINER_OF(n, struct tail_waiter, node)->waiting = false;
		list_push_back(&batch, n);
	}
	desk->all_ready = false;
	pthread_mutex_unlock(&t->lock);
	/* Only this thread's waiters are in the batch, and only this thread touches them now; one that is
	 * closed by another's callback takes itself out. */
	while ((n = list_pop_front(&batch))) {
		struct tail_waiter *w = CONTAINER_OF(n, struct tail_waiter, node);
		w->wake(w);
	}
}

/* Under the lock. */
static void desk_post(struct tail_desk *desk)
{
	if (desk->posted)
		return;
	desk->posted = true;
	mailbox_post(desk->mailbox, &desk->task);
}

static void waiter_ready(struct tail_waiter *w)
{
	must(w->waiting);
	w->waiting = false;
	list_remove(&w->node);
	list_remove(&w->idle);
	list_push_back(&w->desk->ready, &w->node);
	desk_post(w->desk);
}

/* Those that have waited longest are told how far the log has come: at most four for each record of the
 * commit, and each of them seldom enough that they cost a record next to nothing. */
static void nudge_idle(struct tail *t, uint64_t records)
{
	uint64_t behind = TAIL_IDLE_RECORDS > 16 * t->joined ? TAIL_IDLE_RECORDS : 16 * t->joined;
	struct list_node *n;
	for (uint64_t left = 4 * records; left > 0 && (n = list_first(&t->idle)); left--) {
		struct tail_waiter *w = CONTAINER_OF(n, struct tail_waiter, idle);
		if (w->told > t->end_position || t->end_position - w->told < behind)
			break;
		w->position = t->end_position; /* it waits, so nothing that it wants is below */
		waiter_ready(w);
	}
}

/* What they want is at this position: nothing below it needs to be looked at. */
static void interest_touched(struct map *table, struct span name, uint64_t position)
{
	struct interest *interest = map_get(table, name);
	struct list_node *n;
	while (interest && (n = list_first(&interest->waiting))) {
		struct tail_waiter *w = CONTAINER_OF(n, struct tail_waiter, node);
		w->position = position;
		waiter_ready(w);
	}
}

static void wake_all_readers(struct tail *t)
{
	for (struct tail_desk *desk = t->desks; desk; desk = desk->next) {
		if (list_empty(&desk->waiting_for_all))
			continue;
		desk->all_ready = true;
		desk_post(desk);
	}
}

void tail_publish(struct tail *t, struct append **appends, size_t count, uint64_t head)
{
	must(count > 0);
	pthread_mutex_lock(&t->lock);
	uint64_t records = head - t->end_position;
	for (size_t i = 0; i < count; i++) {
		struct append *a = appends[i];
		must(a->answer.first_position == t->end_position);
		must(a->item_count > 0);
		while (t->first < t->end && (t->end - t->first == LIMIT_TAIL_APPENDS ||
					     t->bytes + a->memory_bytes > LIMIT_TAIL_BYTES))
			ring_drop(t);
		*slot(t, t->end++) = append_ref(a);
		t->bytes += a->memory_bytes;
		t->end_position += a->item_count;
		for (size_t k = 0; k < a->target_count; k++) {
			const struct append_target *target = &a->targets[k];
			uint64_t position = a->answer.first_position + target->first;
			if (t->streams.count > 0)
				interest_touched(&t->streams, target->name, position);
			if (t->categories.count > 0)
				interest_touched(&t->categories, record_category(target->name), position);
		}
	}
	must(t->end_position == head);
	nudge_idle(t, records);
	wake_all_readers(t);
	pthread_mutex_unlock(&t->lock);
}

static void wake_interest(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	struct interest *interest = value;
	struct list_node *n;
	while ((n = list_first(&interest->waiting)))
		waiter_ready(CONTAINER_OF(n, struct tail_waiter, node));
}

void tail_skip(struct tail *t, uint64_t head)
{
	pthread_mutex_lock(&t->lock);
	while (t->first < t->end)
		ring_drop(t);
	t->first_position = t->end_position = head;
	map_each(&t->streams, wake_interest, NULL);
	map_each(&t->categories, wake_interest, NULL);
	wake_all_readers(t);
	pthread_mutex_unlock(&t->lock);
}

/* ---- coming, waiting, going ------------------------------------------------------------------ */

static struct tail_desk *desk_of(struct tail *t, struct mailbox *mailbox)
{
	struct tail_desk *desk = t->desks;
	while (desk && desk->mailbox != mailbox)
		desk = desk->next;
	if (desk)
		return desk;
	desk = mem_xalloc(sizeof(*desk));
	desk->tail = t;
	desk->mailbox = mailbox;
	desk->task.run = desk_run;
	list_init(&desk->ready);
	list_init(&desk->waiting_for_all);
	desk->next = t->desks;
	t->desks = desk;
	return desk;
}

void tail_join(struct tail *t, struct tail_waiter *w, struct mailbox *mailbox, enum storage_source source,
	       struct span name)
{
	must(w->wake);
	w->waiting = false;
	pthread_mutex_lock(&t->lock);
	w->desk = desk_of(t, mailbox);
	w->interest = NULL;
	t->joined++;
	atomic_store_explicit(&w->reached, UINT64_MAX, memory_order_relaxed);
	list_push_back(&t->all, &w->joined);
	if (source != STORAGE_ALL) {
		struct map *table = source == STORAGE_STREAM ? &t->streams : &t->categories;
		struct interest *interest = map_get(table, name);
		if (!interest) {
			interest = mem_xalloc(sizeof(*interest));
			list_init(&interest->waiting);
			interest->name = span_of(mem_xdup(name.p, name.n), name.n);
			interest->category = source == STORAGE_CATEGORY;
			map_put(table, name, interest);
		}
		interest->joined++;
		w->interest = interest;
	}
	pthread_mutex_unlock(&t->lock);
}

void tail_leave(struct tail *t, struct tail_waiter *w)
{
	pthread_mutex_lock(&t->lock);
	must(t->joined > 0);
	t->joined--;
	list_remove(&w->node);
	list_remove(&w->idle);
	list_remove(&w->joined);
	w->waiting = false;
	struct interest *interest = w->interest;
	w->interest = NULL;
	if (interest && --interest->joined == 0) {
		must(list_empty(&interest->waiting));
		map_remove(interest->category ? &t->categories : &t->streams, interest->name);
		mem_free((void *)(uintptr_t)interest->name.p);
		mem_free(interest);
	}
	pthread_mutex_unlock(&t->lock);
}

bool tail_wait(struct tail *t, struct tail_waiter *w, uint64_t position, uint64_t told)
{
	must(w->desk);
	must(!w->waiting);
	pthread_mutex_lock(&t->lock);
	bool waits = position >= t->end_position;
	if (waits) {
		list_remove(&w->node);
		w->waiting = true;
		w->position = position;
		w->told = told;
		list_push_back(w->interest ? &w->interest->waiting : &w->desk->waiting_for_all, &w->node);
		if (w->interest)
			list_push_back(&t->idle, &w->idle);
	}
	pthread_mutex_unlock(&t->lock);
	return waits;
}

/* ---- reading --------------------------------------------------------------------------------- */

void tail_lag(struct tail *t, uint64_t *ret_greatest, size_t *ret_behind)
{
	*ret_greatest = 0;
	*ret_behind = 0;
	pthread_mutex_lock(&t->lock);
	for (struct list_node *n = list_first(&t->all); n; n = list_next(&t->all, n)) {
		const struct tail_waiter *w = CONTAINER_OF(n, struct tail_waiter, joined);
		uint64_t reached = atomic_load_explicit(&w->reached, memory_order_relaxed);
		if (w->waiting || reached >= t->end_position) /* who waits has all that he wants */
			continue;
		if (t->end_position - reached > *ret_greatest)
			*ret_greatest = t->end_position - reached;
		++*ret_behind;
	}
	pthread_mutex_unlock(&t->lock);
}

uint64_t tail_end(struct tail *t)
{
	pthread_mutex_lock(&t->lock);
	uint64_t end = t->end_position;
	pthread_mutex_unlock(&t->lock);
	return end;
}

bool tail_collect(struct tail *t, uint64_t position, struct append **ret, size_t max, size_t *ret_count)
{
	size_t count = 0;
	pthread_mutex_lock(&t->lock);
	bool here = position >= t->first_position;
	uint64_t low = t->first, high = t->end;
	if (here && position < t->end_position) {
		while (high - low > 1) { /* the last append that begins at or before the position */
			uint64_t mid = low + (high - low) / 2;
			if ((*slot(t, mid))->answer.first_position <= position)
				low = mid;
			else
				high = mid;
		}
		for (; low < t->end && count < max; low++)
			ret[count++] = append_ref(*slot(t, low));
	}
	pthread_mutex_unlock(&t->lock);
	*ret_count = count;
	return here;
}
