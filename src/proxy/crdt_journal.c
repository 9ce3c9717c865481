/* A CRDT entity's records: deltas, the delete, snapshots. */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/random.h"
#include "proxy/crdt.h"

#define DELTA_TYPE "type.googleapis.com/cloudstate.crdt.CrdtDelta"
#define DELETE_TYPE "type.googleapis.com/cloudstate.crdt.CrdtDelete"
#define FOLD_TYPE "type.googleapis.com/cairn.crdt.v1.Fold"
#define SESSION_KEY "cairn-session"
#define OBSERVED_KEY "cairn-observed"
/* Deltas that a load reads at most behind a snapshot, about. */
#define SNAPSHOT_EVERY 100u

static void make(const struct crdt *c, const char *type, struct span data, struct client_record *ret)
{
	*ret = (struct client_record){.type = span_str(type), .data = data};
	uuid_v7(c->config.clock, ret->id);
}

void crdt_record_make(const struct crdt *c, bool delete, struct span delta, struct crdt_record_text *text,
		      struct client_record *ret)
{
	make(c, delete ? DELETE_TYPE : DELTA_TYPE, delta, ret);
	uuid_format(c->config.session, text->session);
	snprintf(text->observed, sizeof text->observed, "%" PRIu64, c->told_sequence);
	text->metadata[0] = (struct record_metadata){SPAN(ENTITY_MARK_KEY), span_str(entity_crdt.mark)};
	text->metadata[1] = (struct record_metadata){SPAN(SESSION_KEY), span_str(text->session)};
	text->metadata[2] = (struct record_metadata){SPAN(OBSERVED_KEY), span_str(text->observed)};
	ret->metadata = text->metadata;
	ret->metadata_count = CRDT_METADATA_MAX;
}

static bool parse_number(struct span text, uint64_t *ret)
{
	uint64_t n = 0;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9' || n > (UINT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (uint64_t)(text.p[i] - '0');
	}
	*ret = n;
	return text.n > 0;
}

static bool read_metadata(const struct record_view *record, struct crdt_record *ret)
{
	struct record_metadata m;
	size_t state = 0;
	bool session = false, observed = false;
	while (record_metadata_next(record, &state, &m))
		if (span_eq_str(m.key, SESSION_KEY))
			session = uuid_parse(m.value, ret->session) == 0;
		else if (span_eq_str(m.key, OBSERVED_KEY))
			observed = parse_number(m.value, &ret->observed);
	return session && observed;
}

enum err_code crdt_record_read(struct crdt_fold *f, const struct record_view *record, const uint8_t *session,
			       bool *ret_own, const struct Cloudstate__Crdt__CrdtDelta **ret_delta,
			       struct arena *a, struct err *err)
{
	struct crdt_record r = {.sequence = record->sequence};
	bool delete = span_eq_str(record->type, DELETE_TYPE);
	const char *what = NULL;
	if (!delete && !span_eq_str(record->type, DELTA_TYPE))
		what = "has a type that no CRDT's record has";
	else if (!read_metadata(record, &r))
		what = "names no session, or not what its function had observed";
	else if (!delete && !(r.delta = (const void *)crdt_unpack(&cloudstate__crdt__crdt_delta__descriptor, a,
								  record->data)))
		what = "is no delta";
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

/* Of the state as it is: refused, and tried again later, if somebody has written since. */
void crdt_snapshot_append(struct crdt *c)
{
	struct buf data;
	struct client_record record;
	struct record_metadata mark = {SPAN(ENTITY_MARK_KEY), span_str(entity_crdt.mark)};
	buf_init(&data, LIMIT_RECORD_BYTES - LIMIT_STREAM_NAME_BYTES - KIB);
	c->snapshot_sequence = crdt_fold_sequence(c->fold);
	if (crdt_fold_save(c->fold, &data, NULL)) {
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
