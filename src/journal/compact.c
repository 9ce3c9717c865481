/* Compaction: see compact.h. */
#include <config.h>

#include "journal/compact.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"
#include "journal/internal.h"
#include "journal/retention.h"
#include "journal/spent.h"
#include "journal/turn.h"
#include "journal/withhold.h"
#include "journal/wire.h"

#define PAGE_BYTES (1 * MIB)
/* Streams whose newest records are remembered within a unit. */
#define STREAMS_KEPT ((size_t)65536)
/* Of the list in the record: what is beyond goes with the next pass. */
#define LIST_BYTES (2 * MIB)
/* How long a pass waits for the tree, and how often it looks whether it is to end. */
#define TREE_WAIT_MS 30000
#define TREE_LOOK_MS 100
#define BEAT_US 1000000
/* So many records of sessions and grants that are not needed any more are worth a unit's rewriting; of a small unit,
 * fewer if they are one in so many: not as few as the passes themselves leave, or one would give rise to the next. */
#define SPENT_DUE ((size_t)1024)
#define SPENT_DUE_SMALL ((size_t)64)
#define SPENT_DUE_OF 4

struct request {
	struct task task;
	struct request *next;
	struct mailbox *mailbox;
	journal_compact_fn *done;
	void *arg;
	struct journal_compacted result;
	struct err err;
	char actor[LIMIT_ACTOR_BYTES + 1];
};

struct compactor {
	struct compactor_config config;
	struct journal *journal;
	struct storage_reader *reader;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct request *first, **last_next; /* under lock */
	bool stopping;			    /* under lock */

	/* The thread's own. Acts that lie below acts_to have been carried out, but for what was left, as too
	 * young or in the open unit, from todo_from on. */
	uint64_t acts_to, todo_from;
	size_t spent_seen; /* what may have come of such records since they were last looked for */
	bool spent_later;  /* and there were many that are too young */
	struct await await;
	struct turn turn;
};

/* ---- records of a unit, as stored and as given ----------------------------------------------- */

struct feed {
	struct storage_query q;
	struct buf buf;
	struct span run;
	bool end;
};

static void feed_init(struct feed *f, const struct storage_unit *unit, bool raw)
{
	*f = (struct feed){.q = {.source = STORAGE_ALL,
				 .include_system = true,
				 .raw = raw,
				 .from = unit->first,
				 .below_position = unit->end,
				 .max_bytes = PAGE_BYTES}};
	buf_init(&f->buf, PAGE_BYTES + LIMIT_RECORD_BYTES);
}

/* The next entry; one without bytes behind the last. */
static enum err_code feed_next(struct compactor *c, struct feed *f, struct span *ret, struct err *err)
{
	enum err_code code = ERR_OK;
	while (!code && f->run.n == 0 && !f->end) {
		struct storage_page page;
		buf_clear(&f->buf);
		code = storage_read(c->reader, &f->q, &f->buf, &page, err);
		f->run = buf_span(&f->buf);
		f->end = !code && page.end;
		f->q.from = code ? 0 : page.next;
	}
	*ret = (struct span){0};
	return code || f->run.n == 0 ? code : record_next(&f->run, ret, NULL, err);
}

/* ---- what of a unit goes ---------------------------------------------------------------------- */

/* The newest of a stream, which stay. */
struct newest {
	uint64_t sequence, snapshot;
};

struct unit_plan {
	struct storage_unit unit;
	struct storage_removal *list;
	size_t n, cap;
	bool left; /* something that is to go stays for now */
	bool done; /* it was carried out */
	size_t removed, erased, spent;
	uint64_t live_bytes, dead_bytes, spent_bytes; /* dead: spent, too */
	struct map streams; /* name -> struct newest */
};

struct pass {
	struct compactor *c;
	struct retention_rules *rules;
	struct spent spent;
	struct wall_time now;
	uint64_t head;
	uint64_t begin;	    /* below it, only what is spent is looked for */
	uint64_t todo_from; /* the first unit of which something was left */
	bool by_itself;
	struct span actor;
	struct journal_compacted result;
};

static void newest_free(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

static void plan_forget_streams(struct unit_plan *plan)
{
	map_each(&plan->streams, newest_free, NULL);
	map_release(&plan->streams);
	map_init(&plan->streams);
}

static enum err_code newest_of(struct pass *p, struct unit_plan *plan, struct span stream,
			       struct newest *ret, struct err *err)
{
	struct newest *known = map_get(&plan->streams, stream);
	if (known) {
		*ret = *known;
		return ERR_OK;
	}
	struct storage_stream_info info = {0};
	struct arena arena;
	struct buf buf;
	bool exists = false;
	struct newest newest = {.snapshot = UINT64_MAX};
	arena_init(&arena, 4 * KIB);
	buf_init(&buf, LIMIT_RECORD_BYTES + 1);
	enum err_code code = storage_stat(p->c->reader, stream, &arena, &info, &exists, err);
	newest.sequence = info.sequence;
	if (!code)
		code = storage_snapshot(p->c->reader, stream, UINT64_MAX, UINT64_MAX, &buf, err);
	if (!code) {
		struct span run = buf_span(&buf), entry;
		code = record_next(&run, &entry, NULL, err);
		newest.snapshot = code ? 0 : record_position(entry);
	} else if (code == ERR_NOT_FOUND) {
		code = ERR_OK;
	}
	buf_release(&buf);
	arena_release(&arena);
	if (code)
		return code;
	if (plan->streams.count >= STREAMS_KEPT)
		plan_forget_streams(plan);
	known = mem_xalloc(sizeof(*known));
	*known = newest;
	map_put(&plan->streams, stream, known);
	*ret = newest;
	return ERR_OK;
}

enum fate { FATE_STAYS, FATE_BODY_GOES, FATE_GOES };

/* given: as readers get it; without bytes if they do not. */
static enum err_code fate_of(struct pass *p, struct unit_plan *plan, struct span stored, struct span given,
			     enum fate *ret, struct err *err)
{
	struct record_view v;
	struct newest newest;
	*ret = FATE_STAYS;
	if (!record_decode_header(stored, &v) || !record_kind_is_content(v.kind) || v.position + 1 >= p->head)
		return ERR_OK;
	bool hidden = given.n == 0, young = v.commit_time.us > p->now.us - p->c->config.min_age_us;
	bool erased = !hidden && record_has_body(stored) && !record_has_body(given);
	if (young) {
		plan->left = plan->left || hidden || erased;
		return ERR_OK;
	}
	if (spent_take(&p->spent, v.position)) {
		plan->spent++;
		plan->spent_bytes += stored.n;
		*ret = FATE_GOES;
		return ERR_OK;
	}
	const struct retention_rule *rule = hidden ? NULL : retention_of(p->rules, v.stream);
	if (erased)
		*ret = FATE_BODY_GOES;
	if (!hidden && !rule)
		return ERR_OK;
	enum err_code code = newest_of(p, plan, v.stream, &newest, err);
	if (code)
		return code;
	bool last = record_kind_takes_sequence(v.kind) && v.sequence >= newest.sequence;
	if (hidden)
		*ret = !last ? FATE_GOES : record_has_body(stored) ? FATE_BODY_GOES : FATE_STAYS;
	else if (!last && v.position != newest.snapshot &&
		 retention_expired(rule, &v, newest.sequence, p->now))
		*ret = FATE_GOES;
	return ERR_OK;
}

static void plan_add(struct unit_plan *plan, uint64_t position, enum fate fate, size_t bytes)
{
	if (fate == FATE_STAYS) {
		plan->live_bytes += bytes;
		return;
	}
	if (plan->n == plan->cap) {
		plan->cap = plan->cap ? 2 * plan->cap : 1024;
		plan->list = mem_xrealloc(plan->list, plan->cap * sizeof(*plan->list));
	}
	plan->list[plan->n++] = (struct storage_removal){position, fate == FATE_BODY_GOES};
	plan->dead_bytes += bytes;
	if (fate == FATE_GOES)
		plan->removed++;
	else
		plan->erased++;
}

/* So many microseconds from now, for the condition. */
static struct timespec wake_at(int64_t us)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += us % 1000000 * 1000;
	t.tv_sec += us / 1000000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

static bool is_stopping(struct compactor *c)
{
	pthread_mutex_lock(&c->lock);
	bool stopping = c->stopping;
	pthread_mutex_unlock(&c->lock);
	return stopping;
}

/* Goes through the unit, as stored and as given, side by side. */
static enum err_code make_plan(struct pass *p, struct unit_plan *plan, struct err *err)
{
	struct feed stored, given;
	struct span s = {0}, g = {0};
	uint64_t seen = 0;
	feed_init(&stored, &plan->unit, true);
	feed_init(&given, &plan->unit, false);
	enum err_code code = feed_next(p->c, &given, &g, err);
	if (!code)
		code = feed_next(p->c, &stored, &s, err);
	while (!code && s.n > 0) {
		uint64_t position = record_position(s);
		enum fate fate;
		bool is_given = g.n > 0 && record_position(g) == position;
		code = fate_of(p, plan, s, is_given ? g : (struct span){0}, &fate, err);
		if (!code)
			plan_add(plan, position, fate, s.n);
		if (!code && is_given)
			code = feed_next(p->c, &given, &g, err);
		if (!code)
			code = feed_next(p->c, &stored, &s, err);
		if (++seen % 4096 != 0)
			continue;
		turn_beat(&p->c->turn);
		if (!code && is_stopping(p->c))
			code = err_set(err, ERR_UNAVAILABLE, "the journal is stopping: the rest was not compacted");
	}
	buf_release(&stored.buf);
	buf_release(&given.buf);
	return code;
}

/* ---- doing it --------------------------------------------------------------------------------- */

/* Runs of positions: how many are passed over, how many are taken, from `first` on. */
static size_t runs_of(const struct unit_plan *plan, size_t count, bool body_only, uint64_t *runs)
{
	uint64_t at = plan->unit.first;
	size_t n = 0;
	for (size_t i = 0; i < count; i++) {
		const struct storage_removal *r = &plan->list[i];
		if (r->body_only != body_only)
			continue;
		if (n > 0 && r->position == at) {
			runs[n - 1]++;
		} else {
			runs[n++] = r->position - at;
			runs[n++] = 1;
		}
		at = r->position + 1;
	}
	return n;
}

/* The record that lists what goes; the list is cut to what a record can hold. */
static void pack_record(struct unit_plan *plan, struct buf *ret)
{
	for (;;) {
		PB(Compaction) pb;
		cairn__journal__v1__compaction__init(&pb);
		uint64_t *removed = mem_xalloc((2 * plan->n + 1) * sizeof(*removed));
		uint64_t *erased = mem_xalloc((2 * plan->n + 1) * sizeof(*erased));
		pb.first = plan->unit.first;
		pb.end = plan->unit.end;
		pb.removed = removed;
		pb.n_removed = runs_of(plan, plan->n, false, removed);
		pb.erased = erased;
		pb.n_erased = runs_of(plan, plan->n, true, erased);
		pb.removed_count = plan->removed;
		pb.erased_count = plan->erased;
		pb.bytes = plan->unit.bytes;
		bool fits = protobuf_c_message_get_packed_size(&pb.base) <= LIST_BYTES;
		if (fits) {
			buf_init(ret, LIST_BYTES);
			act_pack(&pb.base, ret);
		}
		mem_free(removed);
		mem_free(erased);
		if (fits)
			return;
		plan->n /= 2;
		plan->left = true;
		plan->removed = plan->erased = 0;
		for (size_t i = 0; i < plan->n; i++)
			*(plan->list[i].body_only ? &plan->erased : &plan->removed) += 1;
	}
}

/* Announces it in the log and waits until that is durable. */
static enum err_code announce(struct pass *p, struct unit_plan *plan, struct err *err)
{
	struct compactor *c = p->c;
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	struct buf data;
	pack_record(plan, &data);
	if (acts_record_new(c->journal, RECORD_COMPACTION, &data, p->actor, &append, &refusal))
		return err_set(err, refusal.err.code, "%s", refusal.err.text);
	return await_append(&c->await, append, NULL, err);
}

/* Waits as long as so many bytes take at the rate it may have. */
static void spend(struct compactor *c, uint64_t bytes)
{
	if (!c->config.rate_bytes_second)
		return;
	int64_t until_us = clock_mono(&clock_system).us +
			   (int64_t)(bytes * 1000000 / (uint64_t)c->config.rate_bytes_second);
	for (int64_t left_us; (left_us = until_us - clock_mono(&clock_system).us) > 0 && !is_stopping(c);) {
		struct timespec until = wake_at(left_us < BEAT_US ? left_us : BEAT_US);
		turn_beat(&c->turn);
		pthread_mutex_lock(&c->lock);
		while (!c->stopping && pthread_cond_timedwait(&c->wake, &c->lock, &until) != ETIMEDOUT)
			;
		pthread_mutex_unlock(&c->lock);
	}
}

static enum err_code carry_out(struct pass *p, struct unit_plan *plan, struct err *err)
{
	struct compactor *c = p->c;
	struct storage_unit unit;
	if (plan->unit.open)
		storage_close_unit(c->journal->storage);
	enum err_code code = announce(p, plan, err);
	if (!code)
		code = storage_unit(c->reader, plan->unit.first, &unit, err);
	if (!code && unit.open)
		code = err_set(err, ERR_UNAVAILABLE, "the newest part of the log could not be closed: try again");
	if (!code)
		code = storage_remove(c->reader, plan->list, plan->n, err);
	if (!code)
		code = storage_unit(c->reader, plan->unit.first, &unit, err);
	if (code)
		return code;
	plan->done = true;
	p->result.rewritten++;
	p->result.removed += plan->removed;
	p->result.erased += plan->erased;
	p->result.bytes_before += plan->unit.bytes;
	p->result.bytes_after += unit.bytes;
	metric_add(METRIC_COMPACTED_UNITS, 1);
	if (unit.bytes < plan->unit.bytes)
		metric_add(METRIC_COMPACTED_BYTES, (int64_t)(plan->unit.bytes - unit.bytes));
	log_info("compacted", LOG_U64("first", plan->unit.first), LOG_U64("end", plan->unit.end),
		 LOG_U64("removed", plan->removed), LOG_U64("erased", plan->erased),
		 LOG_U64("bytes_before", plan->unit.bytes), LOG_U64("bytes_after", unit.bytes));
	spend(c, plan->unit.bytes + unit.bytes);
	return ERR_OK;
}

static bool spent_is_due(const struct storage_unit *unit, size_t spent)
{
	return spent >= SPENT_DUE || (!unit->open && spent >= SPENT_DUE_SMALL &&
				      spent >= (unit->end - unit->first) / SPENT_DUE_OF);
}

static enum err_code compact_unit(struct pass *p, const struct storage_unit *unit, struct err *err)
{
	struct unit_plan plan = {.unit = *unit};
	map_init(&plan.streams);
	enum err_code code = ERR_OK;
	if (!unit->removable)
		code = err_set(err, ERR_UNSUPPORTED, "storage \"%s\" does not remove records",
			       p->c->journal->storage->ops->name);
	if (!code)
		code = make_plan(p, &plan, err);
	p->result.units++;
	/* By itself: when a body waits that is to be gone, or less than half of it lives and nothing is added. */
	bool due = !p->by_itself || plan.erased > 0 || spent_is_due(unit, plan.spent) ||
		   (!unit->open && plan.dead_bytes - plan.spent_bytes > plan.live_bytes);
	spend(p->c, 2 * unit->bytes);
	if (!code && plan.n > 0 && due)
		code = carry_out(p, &plan, err);
	spent_give_back(&p->spent, plan.done ? plan.list[plan.n - 1].position + 1 : unit->first, unit->end);
	if (plan.left || (unit->open && plan.n > 0 && !due))
		p->todo_from = unit->first < p->todo_from ? unit->first : p->todo_from;
	plan_forget_streams(&plan);
	map_release(&plan.streams);
	mem_free(plan.list);
	return code;
}

/* What is removed is in the tree: whoever hashes it later gets the same from what is left, but only what has been
 * hashed while it was whole is known to have been. */
static enum err_code wait_for_tree(struct compactor *c, uint64_t head, struct err *err)
{
	for (int i = 0; i < TREE_WAIT_MS / TREE_LOOK_MS && !is_stopping(c); i++)
		if (tree_reached(c->journal->tree, head, TREE_LOOK_MS))
			return ERR_OK;
	return err_set(err, ERR_UNAVAILABLE, "the tree has not come to position %llu: nothing was compacted",
		       (unsigned long long)head);
}

static bool kind_is_spent(uint32_t kind)
{
	return kind == RECORD_SESSION_ENDED || kind == RECORD_GRANT || kind == RECORD_GROUP_OFFSET;
}

/* Whether there is an act that withholds between the positions, whoever has written it; and how many records that
 * make others needless. */
static enum err_code find_acts(struct compactor *c, uint64_t from, uint64_t head, bool *ret, size_t *ret_spent,
			       struct err *err)
{
	struct storage_unit range = {.first = from, .end = head};
	struct feed feed;
	struct span entry = {0};
	uint64_t seen = 0;
	enum err_code code = ERR_OK;
	*ret = false;
	feed_init(&feed, &range, false);
	while (!code && !*ret && from < head) {
		struct record_view v;
		code = feed_next(c, &feed, &entry, err);
		if (code || entry.n == 0)
			break;
		bool known = record_decode_header(entry, &v);
		*ret = known && withhold_is_kind(v.kind) && !plant("acts-of-others-overlooked");
		*ret_spent += known && kind_is_spent(v.kind);
		seen += entry.n;
		if (seen >= PAGE_BYTES) {
			spend(c, seen);
			seen = 0;
			if (is_stopping(c))
				code = err_set(err, ERR_UNAVAILABLE, "the journal is stopping");
		}
	}
	buf_release(&feed.buf);
	return code;
}

/* Where a pass has to begin: at the head, if there is nothing to do but with what is spent. */
static enum err_code begin_at(struct pass *p, uint64_t *ret, struct err *err)
{
	struct compactor *c = p->c;
	bool acts = true;
	size_t spent = c->spent_seen;
	*ret = 0;
	if (p->by_itself && !retention_any(p->rules) && c->todo_from > 0 &&
	    find_acts(c, c->acts_to, p->head, &acts, &spent, err))
		return err->code;
	if (!acts)
		*ret = c->todo_from < p->head ? c->todo_from : p->head;
	else
		spent = SPENT_DUE;
	c->spent_seen = spent;
	if (spent < SPENT_DUE && !c->spent_later)
		return ERR_OK;
	struct wall_time until = {p->now.us - c->config.min_age_us};
	return spent_load(c->reader, p->head, until, &p->spent, err);
}

/* The next position that is to be looked at, from this one on. */
static uint64_t next_at(struct pass *p, uint64_t at)
{
	uint64_t first = SPENT_NONE;
	if (at < p->begin)
		spent_between(&p->spent, at, p->begin, &first);
	return first != SPENT_NONE ? first : at < p->begin ? p->begin : at;
}

static enum err_code go_through(struct pass *p, struct err *err)
{
	struct compactor *c = p->c;
	struct storage_unit unit;
	enum err_code code = ERR_OK;
	for (uint64_t at = next_at(p, 0); !code && at < p->head; at = next_at(p, unit.end)) {
		uint64_t first;
		code = storage_unit(c->reader, at, &unit, err);
		if (!code &&
		    (unit.end > p->begin ||
		     spent_is_due(&unit, spent_between(&p->spent, unit.first, unit.end, &first))))
			code = compact_unit(p, &unit, err);
		turn_beat(&c->turn);
	}
	return code;
}

static enum err_code run_pass(struct compactor *c, bool by_itself, struct span actor,
			      struct journal_compacted *ret, struct err *err)
{
	struct pass p = {.c = c,
			 .now = clock_wall(c->journal->clock),
			 .head = journal_head(c->journal),
			 .todo_from = UINT64_MAX,
			 .by_itself = by_itself,
			 .actor = actor};
	struct mono_time begun = clock_mono(&clock_system);
	bool ours = true;
	enum err_code code = retention_load(c->reader, p.head, &p.rules, err);
	if (code)
		return code;
	code = begin_at(&p, &p.begin, err);
	bool work = p.begin < p.head || p.spent.n >= SPENT_DUE;
	if (!code && work)
		code = wait_for_tree(c, p.head, err);
	if (!code && work)
		code = turn_take(&c->turn, &ours, err);
	if (!code && !ours && !by_itself)
		code = err_set(err, ERR_UNAVAILABLE, "another cairnd is compacting this journal: try again later");
	if (!code && work && ours)
		code = go_through(&p, err);
	if (work && ours)
		metric_observe_us(METRIC_COMPACTION_SECONDS, mono_since_us(clock_mono(&clock_system), begun));
	turn_give(&c->turn);
	if (!code && ours) {
		c->acts_to = p.head;
		c->todo_from = p.todo_from;
		if (c->spent_seen >= SPENT_DUE)
			c->spent_seen = 0;
		c->spent_later = p.spent.later >= SPENT_DUE;
	}
	retention_free(p.rules);
	spent_release(&p.spent);
	*ret = p.result;
	return code;
}

/* ---- the thread ------------------------------------------------------------------------------- */

static void request_run(struct task *task)
{
	struct request *r = CONTAINER_OF(task, struct request, task);
	r->done(r->err.code ? NULL : &r->result, r->err.code ? &r->err : NULL, r->arg);
	mem_free(r);
}

static void request_answer(struct request *r)
{
	r->task.run = request_run;
	mailbox_post(r->mailbox, &r->task);
}

/* The next request, NULL when it is time to look by itself; false: it is to end. */
static bool wait_for_work(struct compactor *c, struct request **ret)
{
	int64_t ms = c->config.every_ms;
	struct timespec until = wake_at(ms * 1000);
	pthread_mutex_lock(&c->lock);
	bool in_time = true;
	while (!c->stopping && !c->first && in_time) {
		if (ms)
			in_time = pthread_cond_timedwait(&c->wake, &c->lock, &until) != ETIMEDOUT;
		else
			pthread_cond_wait(&c->wake, &c->lock);
	}
	*ret = c->stopping ? NULL : c->first;
	if (*ret) {
		c->first = (*ret)->next;
		if (!c->first)
			c->last_next = &c->first;
	}
	bool go_on = !c->stopping;
	pthread_mutex_unlock(&c->lock);
	return go_on;
}

static void *compactor_main(void *arg)
{
	struct compactor *c = arg;
	struct request *r;
	while (wait_for_work(c, &r)) {
		struct journal_compacted result;
		struct err err = {0};
		if (r) {
			run_pass(c, false, span_str(r->actor), &r->result, &r->err);
			request_answer(r);
		} else if (run_pass(c, true, SPAN("cairnd"), &result, &err) && err.code != ERR_UNSUPPORTED) {
			log_warn("compaction did not come through", LOG_ERR(&err));
		}
	}
	return NULL;
}

enum err_code journal_compact(struct journal *j, struct span actor, struct mailbox *mailbox,
			      journal_compact_fn *done, void *arg, struct err *err)
{
	struct compactor *c = j->compactor;
	if (!c)
		return err_set(err, ERR_UNSUPPORTED, "this journal has no thread that compacts it");
	struct request *r = mem_xalloc(sizeof(*r));
	r->mailbox = mailbox;
	r->done = done;
	r->arg = arg;
	must(actor.n <= LIMIT_ACTOR_BYTES);
	memcpy(r->actor, actor.p, actor.n);
	pthread_mutex_lock(&c->lock);
	bool stopping = c->stopping;
	if (!stopping) {
		*c->last_next = r;
		c->last_next = &r->next;
		pthread_cond_broadcast(&c->wake);
	}
	pthread_mutex_unlock(&c->lock);
	if (stopping) {
		mem_free(r);
		return err_set(err, ERR_UNAVAILABLE, "the journal is stopping");
	}
	return ERR_OK;
}

enum err_code compactor_new(const struct compactor_config *config, struct compactor **ret, struct err *err)
{
	struct compactor *c = mem_xalloc(sizeof(*c));
	c->config = *config;
	c->journal = config->journal;
	enum err_code code = storage_reader_open(c->journal->storage, &c->reader, err);
	if (code) {
		mem_free(c);
		return code;
	}
	c->last_next = &c->first;
	await_init(&c->await, c->journal);
	c->turn = (struct turn){.await = &c->await, .service = SPAN("$compaction")};
	pthread_condattr_t attr;
	must(pthread_condattr_init(&attr) == 0);
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	must(pthread_cond_init(&c->wake, &attr) == 0);
	pthread_condattr_destroy(&attr);
	must(pthread_mutex_init(&c->lock, NULL) == 0);
	*ret = c;
	return ERR_OK;
}

void compactor_start(struct compactor *c)
{
	must(pthread_create(&c->thread, NULL, compactor_main, c) == 0);
	c->started = true;
}

void compactor_stop(struct compactor *c)
{
	if (!c || !c->started)
		return;
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_broadcast(&c->wake);
	pthread_mutex_unlock(&c->lock);
	must(pthread_join(c->thread, NULL) == 0);
	c->started = false;
	while (c->first) {
		struct request *r = c->first;
		c->first = r->next;
		err_set(&r->err, ERR_UNAVAILABLE, "the journal is stopping: it was not compacted");
		request_answer(r);
	}
}

void compactor_free(struct compactor *c)
{
	if (!c)
		return;
	must(!c->started);
	storage_reader_close(c->reader);
	await_release(&c->await);
	pthread_cond_destroy(&c->wake);
	pthread_mutex_destroy(&c->lock);
	mem_free(c);
}
