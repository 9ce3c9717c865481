/* Acts upon streams: see withhold.h. */
#include <config.h>

#include "journal/withhold.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "journal/acts.h"
#include "journal/wire.h"

/* What a record says besides its reason and a prefix. */
#define MESSAGE_BYTES ((size_t)64)

struct withhold {
	struct act act;
	uint32_t kind;
	uint64_t before_sequence, before_position; /* truncate */
	bool has_position;
	uint64_t from_sequence, to_sequence; /* erase */
	bool keep_snapshots;
	bool has_prefix;
	uint64_t prefix_streams;
	struct span reason, prefix; /* behind the struct */
};

static struct withhold *withhold_of(struct act *act)
{
	return CONTAINER_OF(act, struct withhold, act);
}

void withhold_touch_delete(struct storage_stream_fact *fact)
{
	fact->live_records = 0;
}

void withhold_touch_other(struct storage_stream_fact *fact)
{
	must(fact->live_records > 0);
	fact->live_records--; /* no act is one: it has been counted as every record is */
}

bool withhold_is_kind(uint32_t kind)
{
	return kind == RECORD_DELETE || kind == RECORD_TRUNCATE || kind == RECORD_ERASE;
}

bool withhold_is_in(const struct append *a)
{
	for (size_t i = 0; a->act && i < a->item_count; i++)
		if (withhold_is_kind(a->items[i].kind) || a->items[i].kind == RECORD_COMPACTION)
			return true;
	return false;
}

/* ---- rules ----------------------------------------------------------------------------------- */

static enum act_verdict refuse_missing(struct append *a, const struct storage_stream_fact *fact)
{
	struct append_refusal *r = append_refuse(a, ERR_NOT_FOUND);
	r->stream = fact->name;
	err_set(&r->err, ERR_NOT_FOUND, "there is no stream \"%.*s\"", SPAN_ARG(fact->name));
	return ACT_REFUSED;
}

static struct append_refusal *refuse_sequence(struct append *a, const struct storage_stream_fact *fact)
{
	struct append_refusal *r = append_refuse(a, ERR_CONFLICT);
	r->stream = fact->name;
	r->has_sequence_found = true;
	r->sequence_found = fact->sequence;
	return r;
}

static enum act_verdict decide_truncate(const struct withhold *w, struct append *a,
					const struct storage_stream_fact *fact)
{
	if (w->before_sequence > fact->sequence + 1) {
		err_set(&refuse_sequence(a, fact)->err, ERR_CONFLICT,
			"cannot truncate stream \"%.*s\" before sequence %llu: its newest is %llu",
			SPAN_ARG(fact->name), (unsigned long long)w->before_sequence,
			(unsigned long long)fact->sequence);
		return ACT_REFUSED;
	}
	/* Where the record is was looked up before, and then it was not there. */
	if (!w->has_position && w->before_sequence <= fact->sequence) {
		err_set(&refuse_sequence(a, fact)->err, ERR_CONFLICT,
			"stream \"%.*s\" has grown to sequence %llu meanwhile: truncate it again",
			SPAN_ARG(fact->name), (unsigned long long)fact->sequence);
		return ACT_REFUSED;
	}
	return w->has_position || fact->live_records > 0 ? ACT_WRITES : ACT_HOLDS;
}

static enum act_verdict decide_erase(const struct withhold *w, struct append *a,
				     const struct storage_stream_fact *fact)
{
	if (w->to_sequence <= fact->sequence)
		return ACT_WRITES;
	err_set(&refuse_sequence(a, fact)->err, ERR_CONFLICT,
		"cannot erase sequence %llu of stream \"%.*s\": its newest is %llu",
		(unsigned long long)w->to_sequence, SPAN_ARG(fact->name), (unsigned long long)fact->sequence);
	return ACT_REFUSED;
}

static enum act_verdict withhold_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	const struct withhold *w = withhold_of(act);
	/* What a prefix stands for was listed before: its streams are there. */
	const struct storage_stream_fact *fact = facts->streams[a->item_count - 1];
	if (!fact->exists)
		return refuse_missing(a, fact);
	switch (w->kind) {
	case RECORD_DELETE: return fact->live_records > 0 ? ACT_WRITES : ACT_HOLDS;
	case RECORD_TRUNCATE: return decide_truncate(w, a, fact);
	case RECORD_ERASE: return decide_erase(w, a, fact);
	default: unreachable_state("withhold kind");
	}
}

static void encode_erasure(const struct withhold *w, bool summary, struct buf *out)
{
	PB(Erasure) pb;
	cairn__journal__v1__erasure__init(&pb);
	pb.reason = pb_bytes(w->reason);
	pb.from_sequence = w->from_sequence;
	pb.to_sequence = w->to_sequence;
	pb.keep_snapshots = w->keep_snapshots;
	if (summary) {
		pb.has_prefix_case = CAIRN__JOURNAL__V1__ERASURE__HAS_PREFIX_PREFIX;
		pb.prefix = pb_bytes(w->prefix);
		pb.streams = w->prefix_streams;
	}
	act_pack(&pb.base, out);
}

static void withhold_encode(struct act *act, size_t i, struct buf *out)
{
	const struct withhold *w = withhold_of(act);
	if (w->kind == RECORD_DELETE) {
		PB(Deletion) pb = CAIRN__JOURNAL__V1__DELETION__INIT;
		pb.reason = pb_bytes(w->reason);
		act_pack(&pb.base, out);
	} else if (w->kind == RECORD_TRUNCATE) {
		PB(Truncation) pb;
		cairn__journal__v1__truncation__init(&pb);
		pb.reason = pb_bytes(w->reason);
		pb.before_sequence = w->before_sequence;
		if (w->has_position) {
			pb.has_before_position_case =
				CAIRN__JOURNAL__V1__TRUNCATION__HAS_BEFORE_POSITION_BEFORE_POSITION;
			pb.before_position = w->before_position;
		}
		act_pack(&pb.base, out);
	} else {
		encode_erasure(w, w->has_prefix && i == 0, out);
	}
}

static void withhold_free(struct act *act)
{
	mem_free(withhold_of(act));
}

static const struct act_ops withhold_ops = {withhold_decide, withhold_encode, withhold_free};

/* ---- asking ---------------------------------------------------------------------------------- */

/* Which streams are anybody's to delete: those that are anybody's to append to. */
enum err_code withhold_check_stream(struct span stream, struct err *err)
{
	enum err_code code = record_check_stream(stream, err);
	if (code)
		return code == ERR_LIMIT ? err_set(err, ERR_INVALID, "%s", err->text) : code;
	if (record_stream_is_system(stream) && !span_starts(stream, SPAN("$schema-")) &&
	    !span_starts(stream, SPAN("$topic-")) && !span_starts(stream, SPAN("$applied-")))
		return err_set(err, ERR_INVALID,
			       "stream \"%.*s\" is the journal's own: it cannot be deleted, truncated or erased",
			       SPAN_ARG(stream));
	return ERR_OK;
}

enum err_code withhold_check_reason(struct span reason, struct err *err)
{
	if (reason.n == 0)
		return err_set(err, ERR_INVALID, "a reason is missing: say why this is done, it is recorded");
	if (reason.n > LIMIT_REASON_BYTES || !utf8_valid_no_controls(reason))
		return err_set(err, ERR_INVALID,
			       "the reason is not UTF-8 of at most %zu bytes without control characters",
			       LIMIT_REASON_BYTES);
	return ERR_OK;
}

static enum err_code check(const struct journal_withhold *q, struct err *err)
{
	if (withhold_check_reason(q->reason, err))
		return err->code;
	for (size_t i = 0; i < q->stream_count; i++)
		if (withhold_check_stream(q->streams[i], err))
			return err->code;
	if (q->kind == RECORD_TRUNCATE && q->before_sequence < 2)
		return err_set(err, ERR_INVALID,
			       "nothing is before sequence %llu: sequences begin with 1",
			       (unsigned long long)q->before_sequence);
	if (q->kind == RECORD_ERASE && (q->from_sequence > q->to_sequence || (!q->from_sequence && q->to_sequence)))
		return err_set(err, ERR_INVALID, "sequences %llu to %llu are none: they begin with 1, and both "
						 "are inclusive",
			       (unsigned long long)q->from_sequence, (unsigned long long)q->to_sequence);
	return ERR_OK;
}

static struct withhold *withhold_new(const struct journal_withhold *q)
{
	struct withhold *w = mem_xalloc(sizeof(*w) + q->reason.n + q->prefix.n);
	uint8_t *text = (uint8_t *)(w + 1);
	w->act.ops = &withhold_ops;
	w->kind = q->kind;
	w->before_sequence = q->before_sequence;
	w->before_position = q->before_position;
	w->has_position = q->has_before_position;
	w->from_sequence = q->from_sequence;
	w->to_sequence = q->to_sequence;
	w->keep_snapshots = q->keep_snapshots;
	w->has_prefix = q->has_prefix;
	w->prefix_streams = q->prefix_streams;
	memcpy(text, q->reason.p, q->reason.n);
	w->reason = span_of(text, q->reason.n);
	if (q->prefix.n)
		memcpy(text + q->reason.n, q->prefix.p, q->prefix.n);
	w->prefix = span_of(text + q->reason.n, q->prefix.n);
	return w;
}

enum err_code journal_withhold_new(const struct journal *j, const struct journal_withhold *q,
				   struct append **ret, struct append_refusal *ret_refusal)
{
	must(q->stream_count > 0);
	must(q->kind == RECORD_ERASE || (q->stream_count == 1 && !q->has_prefix));
	*ret_refusal = (struct append_refusal){0};
	if (check(q, &ret_refusal->err))
		return ret_refusal->err.code;
	size_t n = 0;
	struct act_record *records = mem_xalloc((q->stream_count + 1) * sizeof(*records));
	if (q->has_prefix)
		records[n++] = (struct act_record){.kind = RECORD_ERASE, .stream = SPAN(ACTS_STREAM)};
	for (size_t i = 0; i < q->stream_count; i++)
		records[n++] = (struct act_record){.kind = q->kind, .stream = q->streams[i]};
	struct act_request request = {.act = &withhold_new(q)->act,
				      .records = records,
				      .record_count = n,
				      .data_max = MESSAGE_BYTES + q->reason.n + q->prefix.n,
				      .actor = q->actor};
	enum err_code code = act_append_new(j, &request, ret, ret_refusal);
	mem_free(records);
	return code;
}
