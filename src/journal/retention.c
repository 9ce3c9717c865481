/* Retention: see retention.h. */
#include <config.h>

#include "journal/retention.h"

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "journal/acts.h"
#include "journal/wire.h"
#include "journal/withhold.h"

#define RULE_BYTES (4 * KIB)
#define PAGE_BYTES (256 * KIB)

/* ---- an act whose record is ready ------------------------------------------------------------ */

struct ready_act {
	struct act act;
	struct buf data;
};

static enum act_verdict ready_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	(void)act;
	(void)a;
	(void)facts;
	return ACT_WRITES;
}

static void ready_encode(struct act *act, size_t i, struct buf *out)
{
	const struct ready_act *r = CONTAINER_OF(act, struct ready_act, act);
	must(i == 0);
	must(buf_append_span(out, buf_span(&r->data)) == ERR_OK);
}

static void ready_free(struct act *act)
{
	struct ready_act *r = CONTAINER_OF(act, struct ready_act, act);
	buf_release(&r->data);
	mem_free(r);
}

static const struct act_ops ready_ops = {ready_decide, ready_encode, ready_free};

enum err_code acts_record_new(const struct journal *j, uint32_t kind, struct buf *data, struct span actor,
			      struct append **ret, struct append_refusal *ret_refusal)
{
	struct ready_act *r = mem_xalloc(sizeof(*r));
	r->act.ops = &ready_ops;
	r->data = *data;
	buf_init(data, 1);
	struct act_record record = {.kind = kind, .stream = SPAN(ACTS_STREAM)};
	struct act_request request = {.act = &r->act,
				      .records = &record,
				      .record_count = 1,
				      .data_max = r->data.n,
				      .actor = actor};
	return act_append_new(j, &request, ret, ret_refusal);
}

/* ---- setting a rule -------------------------------------------------------------------------- */

static enum err_code check_rule(const struct journal_retention *q, struct err *err)
{
	if (withhold_check_reason(q->reason, err) || withhold_check_stream(q->name, err))
		return err->code;
	if (q->category && span_find(q->name, '|') < q->name.n)
		return err_set(err, ERR_INVALID,
			       "category \"%.*s\" has a '|': a category is the part of a stream's name before it",
			       SPAN_ARG(q->name));
	if (q->max_age_us < 0)
		return err_set(err, ERR_INVALID, "an age is not negative");
	return ERR_OK;
}

enum err_code journal_retention_new(const struct journal *j, const struct journal_retention *q,
				    struct append **ret, struct append_refusal *ret_refusal)
{
	PB(Retention) pb;
	struct buf data;
	*ret_refusal = (struct append_refusal){0};
	if (check_rule(q, &ret_refusal->err))
		return ret_refusal->err.code;
	cairn__journal__v1__retention__init(&pb);
	pb.reason = pb_bytes(q->reason);
	if (q->category)
		pb.category = pb_bytes(q->name);
	else
		pb.stream = pb_bytes(q->name);
	pb.max_count = q->max_count;
	pb.max_age_us = (uint64_t)q->max_age_us;
	pb.before_sequence = q->before_sequence;
	buf_init(&data, RULE_BYTES);
	act_pack(&pb.base, &data);
	return acts_record_new(j, RECORD_RETENTION, &data, q->actor, ret, ret_refusal);
}

/* ---- reading them ---------------------------------------------------------------------------- */

struct retention_rules {
	struct map streams, categories; /* name -> struct retention_rule */
};

static void rule_free(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

void retention_free(struct retention_rules *rules)
{
	if (!rules)
		return;
	map_each(&rules->streams, rule_free, NULL);
	map_each(&rules->categories, rule_free, NULL);
	map_release(&rules->streams);
	map_release(&rules->categories);
	mem_free(rules);
}

bool retention_any(const struct retention_rules *rules)
{
	return rules->streams.count + rules->categories.count > 0;
}

const struct retention_rule *retention_of(const struct retention_rules *rules, struct span stream)
{
	const struct retention_rule *rule = map_get(&rules->streams, stream);
	return rule ? rule : map_get(&rules->categories, record_category(stream));
}

bool retention_expired(const struct retention_rule *rule, const struct record_view *record,
		       uint64_t newest_sequence, struct wall_time now)
{
	if (rule->max_count && record->sequence + rule->max_count <= newest_sequence)
		return true;
	if (rule->max_age_us && record->commit_time.us < now.us - rule->max_age_us)
		return true;
	return record->sequence < rule->before_sequence;
}

/* The newest rule for a name counts; one without a bound is none. What a later version writes is left alone. */
static void take_rule(struct retention_rules *rules, struct span data)
{
	struct arena arena;
	arena_init(&arena, 64 * KIB);
	const PB(Retention) *pb = act_unpack(PB_TYPE(retention), &arena, data);
	if (pb && pb->stream.len + pb->category.len > 0) {
		struct map *map = pb->stream.len ? &rules->streams : &rules->categories;
		struct span name = pb_span(pb->stream.len ? pb->stream : pb->category);
		mem_free(map_remove(map, name));
		if (pb->max_count || pb->max_age_us || pb->before_sequence) {
			struct retention_rule *rule = mem_xalloc(sizeof(*rule));
			*rule = (struct retention_rule){pb->max_count, (int64_t)pb->max_age_us,
							pb->before_sequence};
			map_put(map, name, rule);
		}
	}
	arena_release(&arena);
}

static enum err_code take_run(struct retention_rules *rules, struct span run, struct err *err)
{
	while (run.n > 0) {
		struct span entry;
		struct record_view v;
		enum err_code code = record_next(&run, &entry, NULL, err);
		if (!code)
			code = record_decode(entry, &v, err);
		if (code)
			return code;
		if (v.content == RECORD_BODY)
			take_rule(rules, v.data);
	}
	return ERR_OK;
}

enum err_code retention_load(struct storage_reader *reader, uint64_t head, struct retention_rules **ret,
			     struct err *err)
{
	struct retention_rules *rules = mem_xalloc(sizeof(*rules));
	struct storage_query q = {.source = STORAGE_STREAM,
				  .name = SPAN(ACTS_STREAM),
				  .kinds = 1u << RECORD_RETENTION,
				  .below_position = head,
				  .max_bytes = PAGE_BYTES};
	struct storage_page page = {0};
	struct buf buf;
	enum err_code code = ERR_OK;
	map_init(&rules->streams);
	map_init(&rules->categories);
	buf_init(&buf, PAGE_BYTES + LIMIT_RECORD_BYTES);
	while (!code && !page.end) {
		buf_clear(&buf);
		code = storage_read(reader, &q, &buf, &page, err);
		if (!code)
			code = take_run(rules, buf_span(&buf), err);
		q.from = page.next;
	}
	buf_release(&buf);
	if (code)
		retention_free(rules);
	else
		*ret = rules;
	return code;
}
