/* The sequencer: see sequencer.h. */
#include <config.h>

#include "journal/sequencer.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"
#include "journal/act.h"
#include "journal/decide.h"
#include "journal/notice.h"
#include "journal/watch.h"

#define MOVED_LOG_EVERY 3
#define FACTS_ARENA_BYTES (64 * MIB)

/* Appends that are answered on one mailbox with one task. */
struct chain {
	struct mailbox *mailbox;
	struct append *first, *last;
};

struct sequencer {
	struct sequencer_config config;
	struct storage_reader *reader; /* for what precedes a repeat, and for the ledger */
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* guards the queue */
	pthread_cond_t wake;
	struct append *first, **last_next;
	size_t waiting, wake_at; /* wake_at: the thread sleeps until so many wait; 0: it is awake */
	struct journal_room *rooms;
	bool stopping;
	bool look; /* the head may have moved */
	atomic_bool failed; /* set under the lock; whoever only wants to know looks without */
	atomic_size_t queue_bytes; /* accepted and not answered */

	/* The sequencer's thread alone. */
	struct decide decide;
	struct ledger *ledger;
	struct watch *watch;
	struct append **batch;
	struct append **written; /* of the batch, those that wrote */
	size_t batch_count;
	struct storage_record *records;
	size_t record_cap;
	struct chain *chains;
	size_t chain_count, chain_cap;
	struct wall_time last_commit;
	struct notices notices;
	uint64_t head; /* as far as is known */
	size_t last_batch;
	int64_t recent_sync_us;
};

/* ---- the queue ------------------------------------------------------------------------------- */

enum err_code sequencer_append(struct sequencer *s, struct append **append, struct err *err)
{
	struct append *a = *append;
	must(a->state == APPEND_BUILT);
	/* The journal's own have no mailbox. */
	must(!a->mailbox == !a->done);
	a->queued = clock_mono(s->config.clock);
	a->next = NULL;
	pthread_mutex_lock(&s->lock);
	if (s->stopping || s->failed) {
		bool failed = s->failed;
		pthread_mutex_unlock(&s->lock);
		return err_set(err, ERR_UNAVAILABLE,
			       failed ? "the storage has failed and takes no appends until a restart: "
					"nothing was written"
				      : "the journal is stopping: nothing was written");
	}
	a->state = APPEND_QUEUED;
	*s->last_next = a;
	s->last_next = &a->next;
	s->waiting++;
	atomic_fetch_add_explicit(&s->queue_bytes, a->queue_bytes, memory_order_relaxed);
	bool wake = s->wake_at && s->waiting >= s->wake_at;
	if (wake)
		s->wake_at = 0;
	pthread_mutex_unlock(&s->lock);
	if (wake)
		pthread_cond_signal(&s->wake);
	*append = NULL;
	return ERR_OK;
}

bool sequencer_cancel(struct sequencer *s, struct append *a)
{
	pthread_mutex_lock(&s->lock);
	bool withdrawn = a->state == APPEND_QUEUED;
	if (withdrawn)
		a->state = APPEND_WITHDRAWN;
	pthread_mutex_unlock(&s->lock);
	return withdrawn;
}

bool sequencer_takes_appends(const struct sequencer *s)
{
	return !atomic_load_explicit(&s->failed, memory_order_relaxed);
}

bool sequencer_has_room(const struct sequencer *s)
{
	return atomic_load_explicit(&s->queue_bytes, memory_order_relaxed) < LIMIT_SEQUENCER_QUEUE_BYTES;
}

void sequencer_look(struct sequencer *s)
{
	pthread_mutex_lock(&s->lock);
	s->look = true;
	pthread_mutex_unlock(&s->lock);
	pthread_cond_signal(&s->wake);
}

static void room_run(struct task *task)
{
	struct journal_room *room = CONTAINER_OF(task, struct journal_room, task);
	room->fn(room->arg);
}

void sequencer_when_room(struct sequencer *s, struct journal_room *room)
{
	must(room->mailbox);
	must(room->fn);
	room->task.run = room_run;
	pthread_mutex_lock(&s->lock);
	bool now = atomic_load(&s->queue_bytes) <= LIMIT_SEQUENCER_QUEUE_BYTES / 2;
	if (!now) {
		room->next = s->rooms;
		s->rooms = room;
	}
	pthread_mutex_unlock(&s->lock);
	if (now)
		mailbox_post(room->mailbox, &room->task);
}

static void give_room(struct sequencer *s, size_t bytes)
{
	size_t left = atomic_fetch_sub(&s->queue_bytes, bytes) - bytes;
	if (left > LIMIT_SEQUENCER_QUEUE_BYTES / 2)
		return;
	pthread_mutex_lock(&s->lock);
	struct journal_room *room = s->rooms;
	s->rooms = NULL;
	pthread_mutex_unlock(&s->lock);
	while (room) {
		struct journal_room *next = room->next;
		mailbox_post(room->mailbox, &room->task);
		room = next;
	}
}

/* Takes one batch off the queue; under the lock. */
static void take_batch(struct sequencer *s)
{
	size_t bytes = 0, keys = 0;
	s->batch_count = 0;
	while (s->first && s->batch_count < LIMIT_BATCH_APPENDS) {
		struct append *a = s->first;
		size_t more_keys = a->target_count + a->check_count + a->item_count;
		if (s->batch_count > 0 &&
		    (bytes + a->batch_bytes > LIMIT_BATCH_BYTES || keys + more_keys > LIMIT_BATCH_KEYS))
			break;
		bytes += a->batch_bytes;
		keys += more_keys;
		s->first = a->next;
		a->next = NULL;
		s->waiting--;
		if (a->state == APPEND_QUEUED)
			a->state = APPEND_TAKEN;
		else
			must(a->state == APPEND_WITHDRAWN);
		s->batch[s->batch_count++] = a;
	}
	if (!s->first)
		s->last_next = &s->first;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void chain_run(struct task *task)
{
	struct append *a = CONTAINER_OF(task, struct append, task);
	while (a) {
		struct append *next = a->next;
		a->next = NULL;
		a->done(a, a->arg);
		a = next;
	}
}

static void chain_add(struct sequencer *s, struct append *a)
{
	size_t i = 0;
	while (i < s->chain_count && s->chains[i].mailbox != a->mailbox)
		i++;
	if (i == s->chain_cap) {
		s->chain_cap = s->chain_cap ? s->chain_cap * 2 : 8;
		s->chains = mem_xrealloc(s->chains, s->chain_cap * sizeof(*s->chains));
	}
	a->next = NULL;
	if (i == s->chain_count) {
		s->chains[s->chain_count++] = (struct chain){a->mailbox, a, a};
		return;
	}
	s->chains[i].last->next = a;
	s->chains[i].last = a;
}

static void count_answer(const struct append *a, struct mono_time now)
{
	metric_observe_us(METRIC_APPEND_SECONDS, mono_since_us(now, a->queued));
	if (a->answer.code == ERR_OK)
		metric_add(a->answer.repeated ? METRIC_APPENDS_REPEATED : METRIC_APPENDS_OK, 1);
	else if (a->answer.code == ERR_CONFLICT || a->answer.code == ERR_EXISTS)
		metric_add(METRIC_APPENDS_REFUSED, 1);
	else if (a->answer.code == ERR_FULL)
		metric_add(METRIC_APPENDS_NO_ROOM, 1);
	else
		metric_add(METRIC_APPENDS_FAILED, 1);
}

/* Every append of the batch is answered here, once. */
static void answer_batch(struct sequencer *s, struct append **appends, size_t count)
{
	struct mono_time now = clock_mono(s->config.clock);
	size_t bytes = 0;
	s->chain_count = 0;
	for (size_t i = 0; i < count; i++) {
		struct append *a = appends[i];
		must(a->state == APPEND_TAKEN || a->state == APPEND_WITHDRAWN);
		bytes += a->queue_bytes;
		count_answer(a, now);
		a->state = APPEND_ANSWERED;
		if (!a->mailbox) {
			append_unref(a);
			continue;
		}
		a->task.run = chain_run;
		chain_add(s, a);
	}
	give_room(s, bytes);
	for (size_t i = 0; i < s->chain_count; i++)
		mailbox_post(s->chains[i].mailbox, &s->chains[i].first->task);
}

static void fail_all(struct append **appends, size_t count, enum err_code code, const struct err *why,
		     const char *what)
{
	for (size_t i = 0; i < count; i++) {
		struct append *a = appends[i];
		append_reset(a);
		struct append_refusal *r = append_refuse(a, code);
		err_set(&r->err, code, "%s: %s", what, why->text);
	}
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* Does the record before this position end an append? */
static enum err_code ends_before(struct sequencer *s, uint64_t position, bool *ret, struct err *err)
{
	struct storage_query q = {.source = STORAGE_ALL,
				  .include_system = true,
				  .from = position - 1,
				  .below_position = position,
				  .max_bytes = 1,
				  .max_records = 1};
	struct storage_page page;
	struct buf buf;
	buf_init(&buf, LIMIT_RECORD_BYTES + 1);
	enum err_code code = storage_read(s->reader, &q, &buf, &page, err);
	*ret = true; /* of a record that is no longer there nothing else can be said */
	if (!code && page.records == 1) {
		struct span run = buf_span(&buf), entry;
		struct record_view view;
		code = record_next(&run, &entry, NULL, err);
		if (!code)
			code = record_decode(entry, &view, err);
		if (!code)
			*ret = view.last_of_append;
	}
	buf_release(&buf);
	return code;
}

static enum err_code look_up(struct sequencer *s, struct append **appends, size_t count, struct arena *arena,
			     uint64_t *ret_head, struct err *err)
{
	struct decide *d = &s->decide;
	enum err_code code = storage_lookup(s->config.storage, d->streams, d->stream_count, d->ids,
					    d->id_count, arena, ret_head, err);
	for (size_t i = 0; i < count && !code; i++) {
		uint64_t position;
		if (decide_asks_before(d, appends[i], &position))
			code = ends_before(s, position, &appends[i]->repeats_whole, err);
	}
	if (!code)
		code = ledger_catch_up(s->ledger, s->reader, *ret_head, err);
	return code ? code : watch_read(s->watch, appends, count, err);
}

static struct storage_record *records_room(struct sequencer *s, size_t count)
{
	if (count > s->record_cap) {
		s->record_cap = count > 2 * s->record_cap ? count : 2 * s->record_cap;
		s->records = mem_xrealloc(s->records, s->record_cap * sizeof(*s->records));
	}
	return s->records;
}

static const struct storage_session_change *session_change(const struct append *a)
{
	return a->act && a->act->changes_session ? &a->act->change : NULL;
}

/* Patches the records of those that write, and lists them for storage. */
static void write_out(struct sequencer *s, struct append **appends, size_t count, uint64_t head,
		      const struct decide_outcome *outcome)
{
	struct storage_record *r = records_room(s, outcome->records);
	uint64_t position = head;
	for (size_t i = 0; i < count; i++) {
		struct append *a = appends[i];
		if (a->writes && a->act)
			act_encode_records(a);
		for (size_t k = 0; a->writes && k < a->item_count; k++) {
			const struct append_item *item = &a->items[k];
			record_patch(a->bytes.p, &item->place, position, item->sequence,
				     outcome->commit_time);
			*r++ = (struct storage_record){.bytes = append_item_bytes(a, item),
						       .position = position++,
						       .sequence = item->sequence,
						       .kind = item->kind,
						       .stream = a->targets[item->target].name,
						       .id = item->id,
						       .commit_time = outcome->commit_time,
						       .last_of_append = k + 1 == a->item_count,
						       .session = k == 0 ? session_change(a) : NULL};
		}
	}
	must(position == head + outcome->records);
}

static void committed(struct sequencer *s, uint64_t head, struct append **appends, size_t count,
		      const struct decide_outcome *outcome)
{
	ledger_keep(s->ledger, head + outcome->records);
	metric_set(METRIC_SESSIONS, (int64_t)ledger_session_count(s->ledger));
	if (outcome->records == 0)
		return;
	notice_room(&s->notices);
	size_t written = 0;
	for (size_t i = 0; i < count; i++)
		if (appends[i]->writes)
			s->written[written++] = appends[i];
	s->head = head + outcome->records;
	s->last_commit = outcome->commit_time;
	s->config.committed(s->config.arg, s->head, s->last_commit, s->written, written);
}

/* Another writer has appended, or a batch of unknown outcome was written after all. */
static void catch_up(struct sequencer *s, uint64_t head)
{
	if (head == s->head)
		return;
	struct storage_head now;
	storage_head(s->config.storage, &now);
	s->head = head;
	if (now.last_commit.us > s->last_commit.us)
		s->last_commit = now.last_commit;
	s->config.committed(s->config.arg, head, s->last_commit, NULL, 0);
}

/* The outcome is unknown to storage, but its head is not; or others have appended. What was written is shown to
 * readers now, who would else wait for the next append. */
static void look_again(struct sequencer *s)
{
	struct storage_head now;
	storage_head(s->config.storage, &now);
	catch_up(s, now.head);
}

struct batch_times {
	int64_t sync_us;
	size_t bytes;
	size_t damaged; /* appends that met a damaged record; the first is logged */
};

/* Looks up, decides and appends, until storage has not moved. */
static enum storage_outcome attempt(struct sequencer *s, struct append **appends, size_t count,
				    uint64_t *ret_head, struct decide_outcome *ret_decided,
				    struct batch_times *times, bool *ret_looked_up, struct err *err)
{
	struct arena arena;
	enum storage_outcome outcome;
	unsigned moved = 0;
	*ret_looked_up = false;
	do {
		arena_init(&arena, FACTS_ARENA_BYTES);
		enum err_code code = look_up(s, appends, count, &arena, ret_head, err);
		if (code) {
			arena_release(&arena);
			return STORAGE_UNKNOWN;
		}
		*ret_looked_up = true;
		catch_up(s, *ret_head);
		ledger_begin(s->ledger);
		decide_run(&s->decide, *ret_head, notice_clock(&s->notices, s->last_commit), s->last_commit,
			   appends, count, ret_decided);
		arena_release(&arena);
		write_out(s, appends, count, *ret_head, ret_decided);
		if (plant("reply-before-durable") && s->batch_count == count) {
			for (size_t i = 0; i < count; i++)
				append_ref(appends[i]); /* for what still looks at them here */
			answer_batch(s, appends, count);
			s->batch_count = 0;
		}
		struct mono_time start = clock_mono(s->config.clock);
		outcome = storage_append(s->config.storage, *ret_head, s->records, ret_decided->records, err);
		times->sync_us = mono_since_us(clock_mono(s->config.clock), start);
		if (outcome == STORAGE_MOVED && ++moved % MOVED_LOG_EVERY == 0)
			log_info("other writers keep moving the log, deciding again",
				 LOG_U64("times", moved));
		metric_add(METRIC_APPEND_MOVED, outcome == STORAGE_MOVED);
		if (outcome != STORAGE_OK)
			ledger_undo(s->ledger);
	} while (outcome == STORAGE_MOVED);
	return outcome;
}

/* FULL: nothing of the batch is written. What is repeated from the log has been written all the same, and
 * must not be told that it is not; that the log is still the one it was found in is asked once more. And
 * processes live on, though their disk is full. */
static void fail_full(struct sequencer *s, struct append **appends, size_t count, uint64_t head,
		      const struct err *why)
{
	bool asked = false, still = false;
	for (size_t i = 0; i < count; i++) {
		const struct append_answer *answer = &appends[i]->answer;
		bool in_log = answer->code == ERR_OK && answer->repeated && answer->first_position < head;
		bool beats = answer->code == ERR_OK && appends[i]->act && appends[i]->act->beats;
		if (!in_log && !beats) {
			fail_all(&appends[i], 1, ERR_FULL, why, "no room, nothing was written");
			continue;
		}
		if (!asked) {
			struct err err = {0};
			asked = true;
			still = storage_append(s->config.storage, head, NULL, 0, &err) == STORAGE_OK;
		}
		if (!still)
			fail_all(&appends[i], 1, ERR_UNAVAILABLE, why,
				 "the outcome is unknown, repeat it with the same ids");
	}
	watch_beat(s->watch, appends, count);
}

static void commit(struct sequencer *s, struct append **appends, size_t count, struct batch_times *times);

/* REFUSED: each alone. */
static void commit_each(struct sequencer *s, struct append **appends, size_t count, const struct err *why,
			struct batch_times *times)
{
	if (count > 1) {
		for (size_t i = 0; i < count; i++)
			commit(s, &appends[i], 1, times);
		return;
	}
	log_error("storage refused an append", LOG_ERR(why),
		  LOG_SPAN("stream",
			   appends[0]->target_count ? appends[0]->targets[0].name : (struct span){0}));
	fail_all(appends, count, ERR_INTERNAL, why, "storage refused the append, nothing was written");
}

/* What one of these is looked up by is damaged: only that one fails. */
static void commit_halves(struct sequencer *s, struct append **appends, size_t count, const struct err *why,
			  struct batch_times *times)
{
	if (count > 1) {
		commit(s, appends, count / 2, times);
		commit(s, appends + count / 2, count - count / 2, times);
		return;
	}
	if (times->damaged++ == 0)
		log_error("an append met a damaged record", LOG_ERR(why));
	fail_all(appends, count, ERR_CORRUPT, why,
		 "nothing was written: whether this is a repeat cannot be told, for what it is looked up by is "
		 "damaged");
}

/* Decides these and makes them durable; leaves an answer in each. */
static void commit(struct sequencer *s, struct append **appends, size_t count, struct batch_times *times)
{
	struct err err = {0};
	uint64_t head = 0;
	struct decide_outcome decided = {0};
	bool looked_up;
	decide_begin(&s->decide);
	for (size_t i = 0; i < count; i++)
		decide_add(&s->decide, appends[i]);
	enum storage_outcome outcome = attempt(s, appends, count, &head, &decided, times, &looked_up, &err);
	if (!looked_up && err.code == ERR_CORRUPT) {
		commit_halves(s, appends, count, &err, times);
		return;
	}
	switch (outcome) {
	case STORAGE_OK:
		committed(s, head, appends, count, &decided);
		watch_beat(s->watch, appends, count);
		return;
	case STORAGE_FULL:
		notice_full(&s->notices, &err, count);
		fail_full(s, appends, count, head, &err);
		return;
	case STORAGE_REFUSED: commit_each(s, appends, count, &err, times); return;
	case STORAGE_FAILED:
		pthread_mutex_lock(&s->lock);
		s->failed = true;
		pthread_mutex_unlock(&s->lock);
		__attribute__((fallthrough));
	case STORAGE_UNKNOWN:
		log_error(outcome == STORAGE_FAILED ? "storage failed: no more appends until a restart"
						    : "appends failed",
			  LOG_ERR(&err), LOG_U64("appends", count));
		look_again(s);
		fail_all(appends, count, ERR_UNAVAILABLE, &err,
			 looked_up ? "the outcome is unknown, repeat it with the same ids"
				   : "facts could not be looked up, nothing was written");
		return;
	case STORAGE_MOVED:
	default: unreachable_state("storage outcome");
	}
}

static void batch_metrics(struct sequencer *s, size_t count, struct mono_time start, struct mono_time oldest,
			  const struct batch_times *times)
{
	int64_t total_us = mono_since_us(clock_mono(s->config.clock), start);
	int64_t wait_us = mono_since_us(start, oldest);
	metric_add(METRIC_APPEND_BATCHES, 1);
	metric_add(METRIC_APPEND_BATCHED, (int64_t)count);
	metric_observe_us(METRIC_APPEND_WAIT_SECONDS, wait_us);
	metric_observe_us(METRIC_APPEND_SYNC_SECONDS, times->sync_us);
	/* The recent sync time forgets a seventh with every batch. */
	s->recent_sync_us += (times->sync_us - s->recent_sync_us) / 8;
	if (wait_us + total_us > s->config.slow_append_us)
		log_warn("slow append", LOG_U64("appends", count), LOG_U64("bytes", times->bytes),
			 LOG_I64("wait_us", wait_us), LOG_I64("sync_us", times->sync_us),
			 LOG_I64("total_us", total_us));
}

/* Those withdrawn in time are answered without being decided; the rest stay, in order. */
static size_t drop_withdrawn(struct sequencer *s)
{
	size_t left = 0, withdrawn = 0;
	for (size_t i = 0; i < s->batch_count; i++) {
		struct append *a = s->batch[i];
		if (a->state != APPEND_WITHDRAWN) {
			s->batch[left++] = a;
			continue;
		}
		err_set(&append_refuse(a, ERR_CANCELLED)->err, ERR_CANCELLED,
			"withdrawn before it was taken up: nothing was written");
		s->written[withdrawn++] = a;
	}
	s->batch_count = left;
	if (withdrawn > 0)
		answer_batch(s, s->written, withdrawn);
	return left;
}

static void run_batch(struct sequencer *s)
{
	if (drop_withdrawn(s) == 0)
		return;
	size_t count = s->batch_count;
	struct batch_times times = {0};
	struct mono_time oldest = s->batch[0]->queued, start = clock_mono(s->config.clock);
	for (size_t i = 0; i < count; i++)
		times.bytes += s->batch[i]->batch_bytes;
	if (s->failed) { /* only this thread sets it */
		struct err why = {0};
		err_set(&why, ERR_UNAVAILABLE, "the storage takes no appends until a restart");
		fail_all(s->batch, count, ERR_UNAVAILABLE, &why, "nothing was written");
	} else {
		commit(s, s->batch, count, &times);
	}
	s->last_batch = count;
	batch_metrics(s, count, start, oldest, &times);
	/* Zero only under the planted bug, which has answered already. */
	if (s->batch_count > 0)
		answer_batch(s, s->batch, s->batch_count);
}

/* ---- the thread ------------------------------------------------------------------------------ */

int64_t sequencer_gather_us(size_t last_batch, int64_t recent_sync_us)
{
	return last_batch > 1 ? recent_sync_us / 10 : 0;
}

/* Sleeps until `count` wait, it is to stop, or (deadline given) it is time; under the lock. */
static void sleep_for(struct sequencer *s, size_t count, const struct timespec *deadline)
{
	while (s->waiting < count && !s->stopping && !s->look) {
		s->wake_at = count;
		int r = deadline ? pthread_cond_timedwait(&s->wake, &s->lock, deadline)
				 : pthread_cond_wait(&s->wake, &s->lock);
		if (r == ETIMEDOUT)
			break;
		must(r == 0);
	}
	s->wake_at = 0;
	s->look = false;
}

static struct timespec deadline_in(int64_t us)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	int64_t nsec = t.tv_nsec + (us > 0 ? us : 0) * 1000;
	t.tv_sec += (time_t)(nsec / 1000000000);
	t.tv_nsec = (long)(nsec % 1000000000);
	return t;
}

/* Group commit: lets the batch grow to the size of the last one, for a bounded time. */
static void gather(struct sequencer *s)
{
	int64_t us = sequencer_gather_us(s->last_batch, s->recent_sync_us);
	if (us <= 0 || s->waiting >= s->last_batch || s->stopping)
		return;
	struct timespec deadline = deadline_in(us);
	sleep_for(s, s->last_batch, &deadline);
}

/* When it is time: who beats no more is ended. */
static bool look_at_sessions(struct sequencer *s)
{
	struct mono_time due;
	if (s->failed || !watch_due(s->watch, &due) || mono_since_us(clock_mono(s->config.clock), due) < 0)
		return false;
	struct append *end = watch_look(s->watch);
	bool any = end != NULL;
	while (end) {
		struct append *next = end->next;
		struct err err = {0};
		if (sequencer_append(s, &end, &err))
			append_unref(end); /* stopping */
		end = next;
	}
	return any;
}

static void *sequencer_thread(void *arg)
{
	struct sequencer *s = arg;
	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct mono_time due;
		if (watch_due(s->watch, &due) && !s->failed) {
			struct timespec deadline =
				deadline_in(mono_since_us(due, clock_mono(s->config.clock)));
			sleep_for(s, 1, &deadline);
		} else {
			sleep_for(s, 1, NULL);
		}
		if (s->waiting == 0 && s->stopping)
			break;
		if (s->waiting > 0)
			gather(s);
		take_batch(s);
		pthread_mutex_unlock(&s->lock);
		if (s->batch_count > 0)
			run_batch(s);
		else
			look_again(s);
		look_at_sessions(s);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

bool sequencer_step(struct sequencer *s)
{
	must(!s->started);
	pthread_mutex_lock(&s->lock);
	take_batch(s);
	pthread_mutex_unlock(&s->lock);
	bool any = s->batch_count > 0;
	if (any)
		run_batch(s);
	return look_at_sessions(s) || any;
}

enum err_code sequencer_new(const struct sequencer_config *config, struct sequencer **ret, struct err *err)
{
	must(config->storage);
	must(config->clock);
	must(config->committed);
	struct sequencer *s = mem_xalloc(sizeof(*s));
	s->config = *config;
	enum err_code code = storage_reader_open(config->storage, &s->reader, err);
	if (code) {
		mem_free(s);
		return code;
	}
	struct storage_head head;
	storage_head(config->storage, &head);
	s->ledger = ledger_new(config->cuts);
	code = ledger_load(s->ledger, s->reader, head.head, err);
	if (!code)
		code = watch_new(config->storage, s->ledger, config->clock, config->seed, &s->watch, err);
	if (code) {
		storage_reader_close(s->reader);
		ledger_free(s->ledger);
		mem_free(s);
		return code;
	}
	metric_set(METRIC_SESSIONS, (int64_t)ledger_session_count(s->ledger));
	s->head = head.head;
	s->last_commit = head.last_commit;
	notice_init(&s->notices, config->clock);
	notice_clock(&s->notices, s->last_commit);
	s->last_next = &s->first;
	s->batch = mem_xalloc(LIMIT_BATCH_APPENDS * sizeof(struct append *));
	s->written = mem_xalloc(LIMIT_BATCH_APPENDS * sizeof(struct append *));
	decide_init(&s->decide);
	s->decide.ledger = s->ledger;
	int r = pthread_mutex_init(&s->lock, NULL);
	must(r == 0);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	must(r == 0);
	r = pthread_cond_init(&s->wake, &attr);
	must(r == 0);
	pthread_condattr_destroy(&attr);
	*ret = s;
	return ERR_OK;
}

void sequencer_start(struct sequencer *s)
{
	must(!s->started);
	int r = pthread_create(&s->thread, NULL, sequencer_thread, s);
	must(r == 0);
	s->started = true;
}

void sequencer_stop(struct sequencer *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_mutex_unlock(&s->lock);
	pthread_cond_signal(&s->wake);
	if (s->started) {
		pthread_join(s->thread, NULL);
		s->started = false;
	}
	while (sequencer_step(s))
		;
	must(!s->first);
	/* No more room will come to be: those who wait for it are told now. */
	give_room(s, 0);
}

void sequencer_free(struct sequencer *s)
{
	if (!s)
		return;
	must(s->stopping);
	must(!s->first);
	must(!s->rooms);
	storage_reader_close(s->reader);
	decide_release(&s->decide);
	watch_free(s->watch);
	ledger_free(s->ledger);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	mem_free(s->chains);
	mem_free(s->records);
	mem_free(s->written);
	mem_free(s->batch);
	mem_free(s);
}
