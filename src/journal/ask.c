/* Facts: lists of streams, one stream's numbers. One job of the pool each, answered on the mailbox. */
#include <config.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "journal/internal.h"

struct ask {
	struct journal *journal;
	struct job job;
	journal_list_fn *done;
	void *arg;

	bool one;         /* one stream's numbers; otherwise a list */
	struct span name; /* the stream, or the prefix; owned, as is `after` */
	struct span after;
	size_t max;
	bool include_system;
	uint64_t not_before;

	struct arena arena; /* of the names */
	struct journal_stream_info *items;
	size_t count;
	bool more;
	struct err err;
};

static struct span span_keep(struct span s)
{
	return span_of(mem_xdup(s.p, s.n), s.n);
}

static void ask_free(struct ask *ask)
{
	mem_free((void *)(uintptr_t)ask->name.p);
	mem_free((void *)(uintptr_t)ask->after.p);
	mem_free(ask->items);
	arena_release(&ask->arena);
	mem_free(ask);
}

static void ask_done(struct job *job)
{
	struct ask *ask = CONTAINER_OF(job, struct ask, job);
	if (job->refused)
		err_set(&ask->err, ERR_UNAVAILABLE, "the journal is stopping");
	bool ok = ask->err.code == ERR_OK;
	ask->done(ask->items, ok ? ask->count : 0, ok && ask->more, ok ? NULL : &ask->err, ask->arg);
	ask_free(ask);
}

static void item_set(struct journal_stream_info *item, const struct storage_stream_info *info)
{
	*item = (struct journal_stream_info){.name = info->name,
					     .sequence = info->sequence,
					     .records = info->records,
					     .first_position = info->first_position,
					     .last_position = info->last_position};
}

static void run_one(struct ask *ask, struct storage_reader *reader)
{
	struct storage_stream_info info;
	bool exists;
	if (ask->name.n == 0)
		return;
	if (storage_stat(reader, ask->name, &ask->arena, &info, &exists, &ask->err))
		return;
	if (!exists) {
		err_set(&ask->err, ERR_NOT_FOUND, "there is no stream \"%.*s\"", SPAN_ARG(ask->name));
		return;
	}
	ask->items = mem_xalloc(sizeof(*ask->items));
	item_set(ask->items, &info);
	ask->count = 1;
}

/* One more than asked for is read, to know whether there are more. System streams stand side by side in
 * the order of names, and are skipped in one step. */
static void run_list(struct ask *ask, struct storage_reader *reader)
{
	/* The greatest character there is: no system stream's name has it. */
	const struct span behind_system = span_str("$\xf4\x8f\xbf\xbf");
	bool skip_system = !ask->include_system && !record_stream_is_system(ask->name);
	struct span after = ask->after;
	struct storage_stream_info *infos = mem_xalloc((ask->max + 1) * sizeof(*infos));
	ask->items = mem_xalloc((ask->max + 1) * sizeof(*ask->items));
	for (bool again = true; again && ask->count <= ask->max;) {
		size_t count, want = ask->max + 1 - ask->count;
		again = false;
		if (storage_list(reader, ask->name, after, want, &ask->arena, infos, &count, &ask->err))
			break;
		for (size_t i = 0; i < count; i++) {
			if (skip_system && record_stream_is_system(infos[i].name)) {
				after = span_cmp(infos[i].name, behind_system) < 0 ? behind_system : infos[i].name;
				again = true;
				break;
			}
			item_set(&ask->items[ask->count++], &infos[i]);
		}
	}
	mem_free(infos);
	ask->more = ask->count > ask->max;
	if (ask->more)
		ask->count = ask->max;
}

static void ask_run(struct job *job, struct storage_reader *reader, bool in_time)
{
	struct ask *ask = CONTAINER_OF(job, struct ask, job);
	if (!in_time)
		err_set(&ask->err, ERR_UNAVAILABLE,
			"not_before position %llu was not reached in %lld ms: the head is at %llu, try again",
			(unsigned long long)ask->not_before,
			(long long)(ask->journal->not_before_wait_us / 1000),
			(unsigned long long)journal_head(ask->journal));
	else if (ask->one)
		run_one(ask, reader);
	else
		run_list(ask, reader);
}

static enum err_code ask_check(const struct journal *j, const struct journal_cursor *not_before,
			       const char *what, struct span name, struct err *err)
{
	if (!utf8_valid_no_controls(name))
		return err_set(err, ERR_INVALID, "%s is not valid UTF-8 without control characters", what);
	if (name.n > LIMIT_STREAM_NAME_BYTES)
		return err_set(err, ERR_INVALID, "%s has %zu bytes: a stream's name has 1 to %zu", what,
			       name.n, LIMIT_STREAM_NAME_BYTES);
	if (!not_before->incarnation)
		return ERR_OK;
	enum err_code code = journal_cursor_check(j, not_before, true, NULL, err);
	if (code && err)
		err_wrap(err, "not_before");
	return code;
}

static void ask_submit(struct journal *j, struct ask *ask, struct mailbox *mailbox,
		       const struct journal_cursor *not_before)
{
	arena_init(&ask->arena, (LIMIT_PAGE_ITEMS + 1) * 4 * (LIMIT_STREAM_NAME_BYTES + 64));
	ask->journal = j;
	ask->job.run = ask_run;
	ask->job.done = ask_done;
	ask->job.mailbox = mailbox;
	ask->not_before = not_before->incarnation ? not_before->position : 0;
	pool_submit(j->pool, &ask->job, ask->not_before, j->not_before_wait_us);
}

enum err_code journal_list_streams(struct journal *j, const struct journal_list *list,
				   struct mailbox *mailbox, journal_list_fn *done, void *arg, struct err *err)
{
	must(mailbox);
	must(done);
	enum err_code code = ask_check(j, &list->not_before, "prefix", list->prefix, err);
	if (!code)
		code = ask_check(j, &list->not_before, "page_token", list->after, err);
	if (code)
		return code;
	struct ask *ask = mem_xalloc(sizeof(*ask));
	ask->done = done;
	ask->arg = arg;
	ask->name = span_keep(list->prefix);
	ask->after = span_keep(list->after);
	ask->max = list->max && list->max < LIMIT_PAGE_ITEMS ? list->max : LIMIT_PAGE_ITEMS;
	ask->include_system = list->include_system;
	ask_submit(j, ask, mailbox, &list->not_before);
	return ERR_OK;
}

enum err_code journal_stat(struct journal *j, struct span stream, const struct journal_cursor *not_before,
			   struct mailbox *mailbox, journal_list_fn *done, void *arg, struct err *err)
{
	must(mailbox);
	must(done);
	static const struct journal_cursor none = {.incarnation = 0};
	if (!not_before)
		not_before = &none;
	enum err_code code = ask_check(j, not_before, "stream", stream, err);
	if (!code && stream.n > 0)
		code = record_check_stream(stream, err);
	if (code)
		return code;
	struct ask *ask = mem_xalloc(sizeof(*ask));
	ask->done = done;
	ask->arg = arg;
	ask->one = true;
	ask->name = span_keep(stream);
	ask_submit(j, ask, mailbox, not_before);
	return ERR_OK;
}
