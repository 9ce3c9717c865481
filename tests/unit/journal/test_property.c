/* Threads that race, retry and lose connections, over a storage that moves, fills up and loses answers:
 * afterwards the log has no gap, nothing twice, nothing that was refused, all that was acknowledged, in
 * order; and a subscriber has seen exactly the log. CAIRN_SEED repeats a run. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"

#define WORKERS 4
#define APPENDS 250 /* each worker */
#define STREAMS 6

struct rng {
	uint64_t state;
};

static unsigned rng_below(struct rng *r, unsigned n)
{
	r->state = r->state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(r->state >> 33) % n;
}

/* What a worker was told about each of its appends. */
struct told {
	unsigned first_id, events; /* ids first_id ... */
	unsigned stream;
	bool acknowledged, refused;
	uint64_t position, sequence;
};

struct worker {
	struct journal *journal;
	struct mailbox mailbox;
	pthread_t thread;
	struct rng rng;
	unsigned number;
	struct told told[APPENDS], *now;
	uint64_t seen[STREAMS]; /* newest sequence it knows of each stream */
	unsigned pending;       /* appends not answered */
	unsigned unknown;
};

static void worker_answered(struct append *a, void *arg)
{
	struct worker *w = arg;
	struct told *t = w->now;
	const struct append_answer *answer = append_answer(a);
	w->pending--;
	if (answer->code == ERR_OK) {
		/* A repetition gets the first result. */
		must(!t->acknowledged || t->position == answer->first_position);
		t->acknowledged = true;
		t->position = answer->first_position;
		append_answer_stream(a, 0, &t->sequence);
		w->seen[t->stream] = t->sequence;
	} else if (answer->code == ERR_CONFLICT) {
		t->refused = true;
		w->seen[t->stream] = answer->refusal->sequence_found;
	} else {
		must(answer->code == ERR_UNAVAILABLE || answer->code == ERR_FULL);
		w->unknown++;
	}
	append_unref(a);
}

static void worker_send(struct worker *w, const struct part *part)
{
	struct append *a = append_of(part, 1, NULL, 0);
	w->pending++;
	must(journal_append(w->journal, &a, &w->mailbox, worker_answered, w, NULL) == ERR_OK);
}

/* One append, repeated as a client would until its outcome is known. */
static void worker_append(struct worker *w, struct told *t)
{
	char stream[16];
	struct part part = {.stream = stream};
	snprintf(stream, sizeof(stream), "s|%u", t->stream);
	for (unsigned i = 0; i < t->events; i++)
		part.ids[i] = t->first_id + i;
	if (rng_below(&w->rng, 3) == 0) {
		part.expect = APPEND_EXACTLY;
		part.sequence = w->seen[t->stream];
	} else if (rng_below(&w->rng, 2) == 0 && w->seen[t->stream]) {
		part.expect = APPEND_EXISTS;
	}
	w->now = t;
	do {
		worker_send(w, &part);
		if (rng_below(&w->rng, 8) == 0)
			worker_send(w, &part); /* twice at once, as after a lost answer */
		while (w->pending > 0)
			if (!mailbox_drain(&w->mailbox))
				sched_yield();
	} while (!t->acknowledged && !t->refused);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	for (unsigned i = 0; i < APPENDS; i++) {
		struct told *t = &w->told[i];
		t->stream = rng_below(&w->rng, STREAMS);
		t->events = 1 + rng_below(&w->rng, 4);
		t->first_id = w->number * 1000000 + i * 10 + 1;
		worker_append(w, t);
	}
	return NULL;
}

/* ---- what the log must be --------------------------------------------------------------------------- */

struct log_entry {
	unsigned id;
	unsigned stream;
	uint64_t sequence;
	bool last;
};
struct log {
	struct log_entry *entries;
	size_t count, cap;
};

static void log_add(struct log *log, struct span body)
{
	struct span entry;
	while (body.n > 0) {
		struct record_view v;
		must(record_next(&body, &entry, NULL, NULL) == ERR_OK);
		must(record_decode(entry, &v, NULL) == ERR_OK);
		if (log->count == log->cap) {
			log->cap = log->cap ? log->cap * 2 : 1024;
			log->entries = mem_xrealloc(log->entries, log->cap * sizeof(*log->entries));
		}
		cr_assert(v.position == log->count, "a gap at %zu: %llu", log->count,
			  (unsigned long long)v.position);
		unsigned id = 0;
		for (size_t i = 12; i < 16; i++)
			id = id << 8 | v.id.p[i];
		must(v.stream.n == 3);
		log->entries[log->count++] = (struct log_entry){.id = id,
								.stream = v.stream.p[2] - '0',
								.sequence = v.sequence,
								.last = v.last_of_append};
	}
}

/* A subscriber, and at the end a reader: they must see the same. */
struct subscriber {
	struct log log;
	struct journal_read *read;
	unsigned halves; /* pages that end within an append */
};

static void on_subscribed(struct journal_read *read, struct journal_page *page, const struct err *err,
			  void *arg)
{
	struct subscriber *s = arg;
	cr_assert(page, "%s", err->text);
	log_add(&s->log, buf_span(&page->body));
	if (page->records && !s->log.entries[s->log.count - 1].last)
		s->halves++;
	bool end = page->end;
	journal_page_free(page);
	if (!end)
		journal_read_next(read);
}

static void check_told(const struct log *log, const struct worker *w)
{
	for (unsigned i = 0; i < APPENDS; i++) {
		const struct told *t = &w->told[i];
		if (!t->acknowledged)
			continue;
		cr_assert(t->position + t->events <= log->count);
		for (unsigned k = 0; k < t->events; k++) {
			const struct log_entry *e = &log->entries[t->position + k];
			cr_assert(e->id == t->first_id + k, "position %llu: id %u, acknowledged as %u",
				  (unsigned long long)t->position + k, e->id, t->first_id + k);
			cr_assert(e->stream == t->stream);
			cr_assert(e->sequence == t->sequence - t->events + 1 + k);
			cr_assert(e->last == (k + 1 == t->events));
		}
	}
}

/* Nothing twice, nothing that was refused, no gap in any stream. */
static void check_log(const struct log *log, const struct worker *workers)
{
	uint64_t sequences[STREAMS] = {0};
	struct map seen;
	map_init(&seen);
	for (size_t i = 0; i < log->count; i++) {
		const struct log_entry *e = &log->entries[i];
		cr_assert(e->sequence == ++sequences[e->stream], "position %zu", i);
		cr_assert(!map_put(&seen, span_of(&e->id, sizeof(e->id)), &seen), "id %u twice", e->id);
		const struct told *t = &workers[e->id / 1000000 - 1].told[e->id % 1000000 / 10];
		cr_assert(t->acknowledged || !t->refused, "id %u was refused", e->id);
	}
	map_release(&seen);
}

static void lose_answers(struct fake *f, const struct storage_record *records, size_t count)
{
	struct rng *rng = f->arg;
	(void)records;
	(void)count;
	for (unsigned n = rng_below(rng, 8); n > 0; n--)
		sched_yield(); /* others come in between */
	static const enum storage_outcome bad[] = {STORAGE_UNKNOWN, STORAGE_FULL, STORAGE_MOVED};
	f->script_at = f->script_count = 0;
	if (rng_below(rng, 6) == 0)
		f->script[f->script_count++] = bad[rng_below(rng, 3)];
	f->unknown_writes = rng_below(rng, 2);
}

static void catch_up(struct journal *j, struct mailbox *m, struct subscriber *s)
{
	for (unsigned i = 0; i < 20000 && s->log.count < journal_head(j); i++)
		if (!mailbox_drain(m))
			usleep(500);
	cr_assert(s->log.count == journal_head(j));
}

static void race(const char *uri)
{
	const char *given = getenv("CAIRN_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : random_u64();
	struct rng storage_rng = {seed};
	struct fake *f = fake_over(uri);
	struct journal *j;
	struct mailbox m;
	struct subscriber live = {0}, reader = {0};
	static struct worker workers[WORKERS];
	fprintf(stderr, "# CAIRN_SEED=%llu\n", (unsigned long long)seed);
	f->on_append = lose_answers;
	f->arg = &storage_rng;
	mailbox_init(&m, NULL, NULL);
	struct journal_config config = {.storage = &f->base, .threads = true};
	cr_assert(journal_open(&config, &j, NULL) == ERR_OK);
	struct journal_query q = {.source = STORAGE_ALL, .live = true};
	cr_assert(journal_read_open(j, &q, &m, on_subscribed, &live, &live.read, NULL) == ERR_OK);
	journal_read_next(live.read);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct worker *w = &workers[i];
		w->journal = j;
		w->number = i + 1;
		w->rng.state = seed + i + 1;
		mailbox_init(&w->mailbox, NULL, NULL);
		pthread_create(&w->thread, NULL, worker_main, w);
	}
	unsigned unknown = 0;
	for (unsigned i = 0; i < WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		unknown += workers[i].unknown;
	}
	cr_expect(unknown > 0, "no answer was lost: the test shows less than it should");
	catch_up(j, &m, &live);
	q.live = false;
	cr_assert(journal_read_open(j, &q, &m, on_subscribed, &reader, &reader.read, NULL) == ERR_OK);
	journal_read_next(reader.read);
	catch_up(j, &m, &reader);
	journal_read_close(live.read);
	while (mailbox_drain(&m))
		;
	journal_read_close(reader.read);
	cr_expect(live.halves == 0);
	cr_assert(live.log.count == reader.log.count);
	for (size_t i = 0; i < live.log.count; i++)
		cr_assert(live.log.entries[i].id == reader.log.entries[i].id);
	check_log(&reader.log, workers);
	for (unsigned i = 0; i < WORKERS; i++)
		check_told(&reader.log, &workers[i]);
	journal_stop(j);
	while (mailbox_drain(&m))
		;
	journal_close(j);
	for (unsigned i = 0; i < WORKERS; i++)
		mailbox_release(&workers[i].mailbox);
	mailbox_release(&m);
	mem_free(live.log.entries);
	mem_free(reader.log.entries);
}

Test(property, racing_appends_leave_a_log_without_gaps_or_doubles)
{
	race("memory");
}

/* ---- subscribers that come and go ------------------------------------------------------------ */

#define VISITORS 2
#define VISITS 60

/* One subscription: what was asked for, how far it came, and what it gave. */
struct visit {
	enum storage_source source;
	unsigned stream;
	uint64_t from, to;
	struct log_positions {
		uint64_t *p;
		size_t n, cap;
	} got;
	struct journal_read *read;
	unsigned pages, pages_wanted;
	bool over;
};

struct visitor {
	struct journal *journal;
	struct mailbox mailbox;
	pthread_t thread;
	struct rng rng;
	struct visit visits[VISITS];
	atomic_bool *stop;
};

static void on_visit_page(struct journal_read *read, struct journal_page *page, const struct err *err,
			  void *arg)
{
	struct visit *v = arg;
	must(page);
	must(!err);
	struct span run = buf_span(&page->body), entry;
	while (run.n > 0) {
		must(record_next(&run, &entry, NULL, NULL) == ERR_OK);
		if (v->got.n == v->got.cap) {
			v->got.cap = v->got.cap ? v->got.cap * 2 : 64;
			v->got.p = mem_xrealloc(v->got.p, v->got.cap * sizeof(*v->got.p));
		}
		v->got.p[v->got.n++] = record_position(entry);
	}
	v->to = page->next.position;
	journal_page_free(page);
	if (++v->pages < v->pages_wanted) {
		journal_read_next(read);
	} else {
		journal_read_close(read); /* inside its own callback */
		v->over = true;
	}
}

static void visit_open(struct visitor *w, struct visit *v)
{
	static const enum storage_source sources[] = {STORAGE_ALL, STORAGE_STREAM, STORAGE_CATEGORY};
	char stream[16];
	uint64_t head = journal_head(w->journal);
	v->source = sources[rng_below(&w->rng, 3)];
	v->stream = rng_below(&w->rng, STREAMS);
	/* Far back, so that storage is read, or near the head. */
	v->from = rng_below(&w->rng, 2) ? rng_below(&w->rng, (unsigned)head + 1) : head;
	v->to = v->from;
	v->pages_wanted = 1 + rng_below(&w->rng, 20);
	snprintf(stream, sizeof(stream), "s|%u", v->stream);
	struct journal_query q = {
		.source = v->source, .live = true, .from = FROM_POSITION, .from_value = v->from};
	if (v->source != STORAGE_ALL)
		q.name = v->source == STORAGE_STREAM ? span_str(stream) : SPAN("s");
	must(journal_read_open(w->journal, &q, &w->mailbox, on_visit_page, v, &v->read, NULL) == ERR_OK);
	journal_read_next(v->read);
}

/* They have not all ended by themselves, and so many pages together have not come yet. */
static bool visits_go_on(const struct visit *v, size_t count, unsigned pages)
{
	unsigned came = 0, over = 0;
	for (size_t i = 0; i < count; i++) {
		came += v[i].pages;
		over += v[i].over;
	}
	return came < pages && over < count;
}

static void *visitor_main(void *arg)
{
	struct visitor *w = arg;
	/* A few at a time. Some are closed in the middle, from outside of their callback. */
	for (unsigned i = 0; i < VISITS; i += 6) {
		for (unsigned k = i; k < i + 6; k++)
			visit_open(w, &w->visits[k]);
		unsigned wanted = rng_below(&w->rng, 40);
		while (visits_go_on(&w->visits[i], 6, wanted) && !atomic_load(w->stop))
			if (!mailbox_drain(&w->mailbox))
				sched_yield();
		for (unsigned k = i; k < i + 6; k++)
			if (!w->visits[k].over)
				journal_read_close(w->visits[k].read);
	}
	return NULL;
}

/* It gave exactly what the log has of what it asked for, from its beginning to where it came. */
static void check_visit(const struct log *log, const struct visit *v)
{
	size_t n = 0;
	cr_assert(v->to <= log->count);
	for (uint64_t p = v->from; p < v->to; p++) {
		if (v->source == STORAGE_STREAM && log->entries[p].stream != v->stream)
			continue;
		cr_assert(n < v->got.n, "position %llu was not given (%llu to %llu)", (unsigned long long)p,
			  (unsigned long long)v->from, (unsigned long long)v->to);
		cr_assert(v->got.p[n] == p, "position %llu was given for %llu",
			  (unsigned long long)v->got.p[n], (unsigned long long)p);
		n++;
	}
	cr_assert(n == v->got.n, "more than asked for");
	mem_free(v->got.p);
}

Test(property, subscribers_that_come_and_go_see_exactly_the_log)
{
	struct rng storage_rng = {random_u64()};
	struct fake *f = fake_new();
	struct journal *j;
	struct mailbox m;
	struct subscriber reader = {0};
	static struct worker workers[2];
	static struct visitor visitors[VISITORS];
	atomic_bool stop = false;
	f->on_append = lose_answers;
	f->arg = &storage_rng;
	mailbox_init(&m, NULL, NULL);
	struct journal_config config = {.storage = &f->base, .threads = true};
	cr_assert(journal_open(&config, &j, NULL) == ERR_OK);
	for (unsigned i = 0; i < 2; i++) {
		workers[i] = (struct worker){.journal = j, .number = i + 1, .rng = {random_u64()}};
		mailbox_init(&workers[i].mailbox, NULL, NULL);
		pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
	}
	for (unsigned i = 0; i < VISITORS; i++) {
		visitors[i] = (struct visitor){.journal = j, .rng = {random_u64()}, .stop = &stop};
		mailbox_init(&visitors[i].mailbox, NULL, NULL);
		pthread_create(&visitors[i].thread, NULL, visitor_main, &visitors[i]);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < VISITORS; i++)
		pthread_join(visitors[i].thread, NULL);
	struct journal_query q = {.source = STORAGE_ALL};
	cr_assert(journal_read_open(j, &q, &m, on_subscribed, &reader, &reader.read, NULL) == ERR_OK);
	journal_read_next(reader.read);
	catch_up(j, &m, &reader);
	journal_read_close(reader.read);
	journal_stop(j);
	while (mailbox_drain(&m))
		;
	for (unsigned i = 0; i < VISITORS; i++) {
		while (mailbox_drain(&visitors[i].mailbox))
			;
		for (unsigned k = 0; k < VISITS; k++)
			check_visit(&reader.log, &visitors[i].visits[k]);
	}
	journal_close(j);
	for (unsigned i = 0; i < VISITORS; i++)
		mailbox_release(&visitors[i].mailbox);
	for (unsigned i = 0; i < 2; i++)
		mailbox_release(&workers[i].mailbox);
	mailbox_release(&m);
	mem_free(reader.log.entries);
}

static void remove_tree(const char *dir)
{
	char *command = mem_xprintf("rm -rf '%s'", dir);
	cr_expect(system(command) == 0);
	mem_free(command);
}

Test(property, racing_appends_over_the_file_backend)
{
	char dir[] = "/tmp/cairn-property-XXXXXX";
	cr_assert(mkdtemp(dir));
	char *uri = mem_xprintf("file:%s/data", dir);
	race(uri);
	mem_free(uri);
	remove_tree(dir);
}
