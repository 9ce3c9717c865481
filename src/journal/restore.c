/* Restoring a backup, and accepting a loss: see restore.h. Records go to storage as they are; then the journal is
 * opened, so that the record of its new incarnation is an append like any other; then the store is made one that others
 * may open. */
#include <config.h>

#include "journal/restore.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/acts.h"
#include "journal/internal.h"

#define BATCH_RECORDS ((size_t)4096)

struct restoring {
	const struct journal_restore *request;
	struct storage *storage;
	struct journal_restored done;
	struct storage_record *batch;
	struct record_view *views; /* of the batch: what its records point to */
	size_t count;
	struct wall_time last_commit; /* a record that is only a leaf has the time of the one before */
};

static enum err_code flush(struct restoring *g, struct err *err)
{
	struct err why = {0};
	if (g->count == 0)
		return ERR_OK;
	enum storage_outcome outcome = storage_restore(g->storage, g->batch[0].position, g->batch, g->count, &why);
	if (outcome != STORAGE_OK)
		return err_set(err, why.code ? why.code : ERR_CONFLICT, "%s",
			       why.code ? why.text : "somebody else has written to the store meanwhile");
	g->done.records = g->batch[g->count - 1].position + 1;
	g->count = 0;
	if (g->request->progress)
		g->request->progress(g->request->arg, g->done.records);
	return ERR_OK;
}

static enum err_code on_head(void *arg, const struct backup_head *head, struct err *err)
{
	struct restoring *g = arg;
	struct storage_config config = {.restore = head->journal_id};
	memcpy(g->done.journal_id, head->journal_id, sizeof(g->done.journal_id));
	return storage_open(g->request->storage_uri, &config, &g->storage, err);
}

static enum err_code on_run(void *arg, struct span run, struct err *err)
{
	struct restoring *g = arg;
	size_t bytes = 0;
	enum err_code code = ERR_OK;
	while (run.n > 0 && !code) {
		struct span entry, whole;
		struct record_view *v = &g->views[g->count];
		code = record_next(&run, &entry, &whole, err);
		if (!code)
			code = record_decode(entry, v, err);
		if (code)
			break;
		bool removed = v->content == RECORD_LEAF_HASH;
		if (g->count > 0 && (g->count == BATCH_RECORDS || removed != g->batch[0].removed ||
				     bytes + whole.n > LIMIT_BATCH_BYTES)) {
			struct record_view kept = *v;
			code = flush(g, err);
			bytes = 0;
			v = &g->views[0];
			*v = kept;
		}
		if (!removed)
			g->last_commit = v->commit_time;
		bytes += whole.n;
		g->batch[g->count++] = (struct storage_record){.bytes = whole,
							       .position = v->position,
							       .sequence = v->sequence,
							       .kind = v->kind,
							       .stream = v->stream,
							       .id = v->id.p,
							       .commit_time = g->last_commit,
							       .last_of_append = v->last_of_append,
							       .removed = removed};
	}
	return code ? code : flush(g, err); /* the run's bytes live no longer */
}

static void on_wake(void *arg)
{
	(void)arg; /* there is one thread, which looks by itself */
}

static void on_answered(struct append *append, void *arg)
{
	*(struct append **)arg = append;
}

static enum err_code append_incarnation(struct journal *j, const struct journal_incarnation *request, struct err *err)
{
	struct append_refusal refusal = {0};
	struct append *append = NULL, *answered = NULL;
	struct mailbox mailbox;
	if (journal_incarnation_new(j, request, &append, &refusal))
		return err_set(err, refusal.err.code, "%s", refusal.err.text);
	mailbox_init(&mailbox, on_wake, NULL);
	enum err_code code = journal_append(j, &append, &mailbox, on_answered, &answered, err);
	while (!code && !answered) {
		journal_step(j);
		mailbox_drain(&mailbox);
	}
	if (!code && append_answer(answered)->code)
		code = err_set(err, append_answer(answered)->code, "%s", append_answer(answered)->refusal->err.text);
	append_unref(answered ? answered : append);
	mailbox_release(&mailbox);
	return code;
}

/* Takes the storage. */
static enum err_code begin_incarnation(struct storage *storage, const struct journal_incarnation *request,
				       uint64_t *ret_incarnation, struct err *err)
{
	struct journal_config config = {.storage = storage};
	struct journal *j = NULL;
	enum err_code code = journal_open(&config, &j, err);
	if (!code)
		code = append_incarnation(j, request, err);
	if (!code)
		code = storage_restored(j->storage, err);
	if (!code)
		*ret_incarnation = journal_cursor_at(j, 0).incarnation;
	journal_close(j);
	return code;
}

enum err_code journal_restore(const struct journal_restore *request, struct journal_restored *ret, struct err *err)
{
	struct restoring g = {.request = request,
			      .batch = mem_xalloc(BATCH_RECORDS * sizeof(*g.batch)),
			      .views = mem_xalloc(BATCH_RECORDS * sizeof(*g.views))};
	struct backup_reader reader = {.read = request->read,
				       .read_arg = request->read_arg,
				       .on_head = on_head,
				       .on_run = on_run,
				       .arg = &g};
	enum err_code code = backup_read(&reader, err);
	struct journal_incarnation incarnation = {
		.fork = g.done.records, .reason = request->reason, .actor = request->actor};
	if (code)
		storage_close(g.storage);
	else
		code = begin_incarnation(g.storage, &incarnation, &g.done.incarnation, err);
	mem_free(g.batch);
	mem_free(g.views);
	*ret = g.done;
	return code;
}

enum err_code journal_accept_loss(const char *storage_uri, struct span reason, struct span actor,
				  struct journal_restored *ret, struct err *err)
{
	struct storage_config config = {.accept_loss = true};
	struct journal_incarnation incarnation = {.loss = true, .reason = reason, .actor = actor};
	struct storage *storage;
	*ret = (struct journal_restored){0};
	enum err_code code = storage_open(storage_uri, &config, &storage, err);
	if (code)
		return code;
	code = storage_lost_from(storage, &incarnation.fork, err);
	if (code) {
		storage_close(storage);
		return code;
	}
	struct storage_head head;
	storage_head(storage, &head);
	memcpy(ret->journal_id, head.journal_id, sizeof(ret->journal_id));
	if (incarnation.fork > head.head)
		incarnation.fork = head.head;
	ret->records = incarnation.fork;
	return begin_incarnation(storage, &incarnation, &ret->incarnation, err);
}
