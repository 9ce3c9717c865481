/* A CRDT entity's records: deltas, the delete, snapshots. */
#include <config.h>

#include <inttypes.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "proxy/crdt.h"

#define DELTA_TYPE "type.googleapis.com/cloudstate.crdt.CrdtDelta"
#define DELETE_TYPE "type.googleapis.com/cloudstate.crdt.CrdtDelete"
#define FOLD_TYPE "type.googleapis.com/cairn.crdt.v1.Fold"
/* Deltas that a load reads at most behind a snapshot, about. */
#define SNAPSHOT_EVERY 100u

static void make(const struct crdt *c, const char *type, struct span data, struct client_record *ret)
{
	*ret = (struct client_record){.type = span_str(type), .data = data};
	uuid_v7(c->config.clock, ret->id);
}

void crdt_record_make(const struct crdt *c, bool delete, struct span delta, const char *confirm,
		      struct crdt_text *text, struct client_record *ret)
{
	make(c, delete ? DELETE_TYPE : DELTA_TYPE, delta, ret);
	text->count = 0;
	crdt_text_add(text, ENTITY_MARK_KEY, span_str(entity_crdt.mark));
	crdt_text_set(text, c->session, CRDT_OBSERVED_KEY, c->told_sequence);
	if (confirm)
		crdt_text_add(text, CRDT_CONFIRM_KEY, span_str(confirm));
	ret->metadata = text->metadata;
	ret->metadata_count = text->count;
}

enum err_code crdt_record_read(struct crdt_fold *f, const struct record_view *record, const uint8_t *session,
			       bool *ret_own, const struct Cloudstate__Crdt__CrdtDelta **ret_delta,
			       struct arena *a, struct err *err)
{
	struct crdt_record r = {.sequence = record->sequence, .position = record->position};
	struct crdt_said said = {.observed = 0};
	bool delete = span_eq_str(record->type, DELETE_TYPE);
	const char *what = NULL;
	if (!delete && !span_eq_str(record->type, DELTA_TYPE))
		what = "has a type that no CRDT's record has";
	else if (!crdt_text_read(record, &said) || !said.has_observed)
		what = "names no session, or not what its function had observed";
	else if (!delete && !(r.delta = (const void *)crdt_unpack(&cloudstate__crdt__crdt_delta__descriptor, a,
								  record->data)))
		what = "is no delta";
	r.observed = said.observed;
	memcpy(r.session, said.session, sizeof r.session);
	if (what)
		return err_set(err, ERR_CORRUPT, "record %" PRIu64 " of stream %.*s %s", record->sequence,
			       SPAN_ARG(record->stream), what);
	if (ret_own)
		*ret_own = memcmp(r.session, session, sizeof r.session) == 0;
	if (ret_delta)
		*ret_delta = r.delta;
	return crdt_fold_apply(f, &r, err);
}

bool crdt_snapshot_due(const struct crdt *c)
{
	return !c->no_snapshot && !crdt_fold_deleted(c->fold) &&
	       crdt_fold_sequence(c->fold) - c->snapshot_sequence >= SNAPSHOT_EVERY;
}

/* The sessions that have written and ended are one in a snapshot, or its table would grow with every start of a
 * proxy. Only once it is durable is that so here: it is refused if something of theirs was still to come. */
static bool find_ended(struct crdt *c)
{
	struct crdt_nodes nodes;
	if (!c->config.peers)
		return false;
	crdt_nodes_make(c, &nodes);
	mem_free(c->ending);
	c->ending = NULL;
	c->ending_count = crdt_fold_ended(c->fold, &nodes, c->config.peers->position, &c->ending);
	mem_free((void *)(uintptr_t)nodes.live);
	return c->ending_count > 0;
}

static void end_sessions(const struct crdt *c, struct crdt_fold *f)
{
	for (size_t i = 0; i < c->ending_count; i++)
		crdt_fold_end_session(f, c->ending[i]);
}

static enum err_code save(struct crdt *c, struct buf *data)
{
	struct crdt_fold *copy = NULL;
	enum err_code code = crdt_fold_save(c->fold, data, NULL);
	if (code || !find_ended(c))
		return code;
	if (crdt_fold_load(buf_span(data), &copy, NULL)) {
		c->ending_count = 0; /* no memory for it: the next time */
		return ERR_OK;
	}
	end_sessions(c, copy);
	buf_clear(data);
	code = crdt_fold_save(copy, data, NULL);
	crdt_fold_free(copy);
	return code;
}

void crdt_snapshot_appended(struct crdt *c, const struct client_error *error)
{
	c->work = CRDT_IDLE;
	if (error->code == GRPC_OK)
		end_sessions(c, c->fold);
	c->ending_count = 0;
}

/* Of the state as it is: refused, and tried again later, if somebody has written since. */
void crdt_snapshot_append(struct crdt *c)
{
	struct buf data;
	struct client_record record;
	struct record_metadata mark = {SPAN(ENTITY_MARK_KEY), span_str(entity_crdt.mark)};
	buf_init(&data, LIMIT_RECORD_BYTES - LIMIT_STREAM_NAME_BYTES - KIB);
	c->snapshot_sequence = crdt_fold_sequence(c->fold);
	c->ending_count = 0;
	if (save(c, &data)) {
		c->no_snapshot = true;
		log_warn("a CRDT is too large for a snapshot: it is rebuilt from all its deltas",
			 LOG_SPAN("stream", c->config.stream));
	} else {
		make(c, FOLD_TYPE, buf_span(&data), &record);
		record.metadata = &mark;
		record.metadata_count = 1;
		c->work = CRDT_SNAPSHOTTING;
		c->config.host->append(c->config.host_arg,
				       &(struct entity_append){.expect = CLIENT_EXACTLY,
							       .expected_sequence = c->snapshot_sequence,
							       .snapshot = &record});
	}
	buf_release(&data);
}
