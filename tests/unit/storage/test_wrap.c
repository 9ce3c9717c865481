#include <config.h>

#include "base/log.h"
#include "helper.h"
#include "storage/wrap/wrap.h"

static struct storage *memory(void)
{
	struct storage_config config = {.clock = &clock_system};
	struct storage *s;
	cr_assert_eq(storage_open("memory", &config, &s, NULL), ERR_OK);
	return s;
}

/* --- trace ---------------------------------------------------------------------------------------------- */

static void collect(struct span line, void *arg)
{
	cr_assert_eq(buf_append_span(arg, line), ERR_OK);
}

Test(trace, writes_a_line_for_every_call)
{
	static const char *const lines[] = {
		"storage open",     "storage reader open", "storage append",       "stream=cart|1",
		"result=ok",        "storage lookup",      "storage read",         "source=all",
		"storage snapshot", "result=not-found",    "storage list",         "storage stat",
		"exists=yes",       "storage head",        "storage reader close", "storage close"};
	struct rig rig;
	struct buf text, out;
	struct arena a;
	struct storage *s;
	struct storage_reader *r;
	struct storage_config config = {.clock = &clock_system};
	struct storage_stream_info info;
	uint64_t head;
	size_t n;
	bool exists;
	rig_init(&rig);
	buf_init(&text, MIB);
	buf_init(&out, MIB);
	arena_init(&a, MIB);
	log_setup(LOG_INFO, LOG_LOGFMT);
	log_set_sink(collect, &text);
	cr_assert_eq(storage_open("trace:memory", &config, &s, &rig.err), ERR_OK, "%s", rig.err.text);
	cr_assert_eq(storage_reader_open(s, &r, &rig.err), ERR_OK);
	cr_assert_eq(rig_append(&rig, s, "cart|1", 1), STORAGE_OK);
	cr_assert_eq(storage_lookup(s, NULL, 0, NULL, 0, &a, &head, &rig.err), ERR_OK);
	cr_assert_eq(head, 1u);
	cr_assert_eq(rig_count(&rig, s), 1u);
	cr_assert_eq(storage_snapshot(r, SPAN("x"), 1, 1, &out, &rig.err), ERR_NOT_FOUND);
	cr_assert_eq(storage_list(r, SPAN(""), SPAN(""), 1, &a, &info, &n, &rig.err), ERR_OK);
	cr_assert_eq(storage_stat(r, SPAN("cart|1"), &a, &info, &exists, &rig.err), ERR_OK);
	storage_reader_close(r);
	storage_close(s);
	log_set_sink(NULL, NULL);
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		const char *word = lines[i];
		if (strcmp(word, "result=not-found") == 0)
			word = err_name(ERR_NOT_FOUND);
		cr_assert(strstr(buf_cstr(&text), word), "no \"%s\" in %s", word, buf_cstr(&text));
	}
	arena_release(&a);
	buf_release(&out);
	buf_release(&text);
	rig_release(&rig);
}

/* --- faulty --------------------------------------------------------------------------------------------- */

static void add(struct storage *s, enum faulty_op op, uint64_t nth, enum storage_outcome outcome,
		enum err_code code, bool done)
{
	const struct faulty_rule rule = {
		.op = op, .nth = nth, .outcome = outcome, .code = code, .done = done};
	storage_faulty_add(s, &rule);
}

Test(faulty, strikes_the_nth_append_once)
{
	static const enum storage_outcome outcomes[] = {STORAGE_MOVED, STORAGE_FULL, STORAGE_REFUSED,
							STORAGE_UNKNOWN};
	for (size_t i = 0; i < ARRAY_LEN(outcomes); i++) {
		struct rig rig;
		rig_init(&rig);
		struct storage *s = storage_faulty_new(memory(), 1);
		add(s, FAULTY_APPEND, 2, outcomes[i], ERR_OK, false);
		cr_assert_eq(rig_append(&rig, s, "a", 1), STORAGE_OK);
		cr_assert_eq(rig_append(&rig, s, "a", 2), outcomes[i]);
		cr_assert_eq(rig.err.code == ERR_OK, outcomes[i] == STORAGE_MOVED);
		cr_assert_eq(rig_count(&rig, s), 1u);
		cr_assert_eq(rig_append(&rig, s, "a", 2), STORAGE_OK);
		cr_assert_eq(rig_count(&rig, s), 2u);
		cr_assert_eq(storage_faulty_calls(s, FAULTY_APPEND), 3u);
		storage_close(s);
		rig_release(&rig);
	}
}

Test(faulty, an_unknown_outcome_may_have_happened)
{
	struct rig rig;
	rig_init(&rig);
	struct storage *s = storage_faulty_new(memory(), 1);
	add(s, FAULTY_APPEND, 1, STORAGE_UNKNOWN, ERR_OK, true);
	cr_assert_eq(rig_append(&rig, s, "a", 1), STORAGE_UNKNOWN);
	cr_assert_eq(rig_count(&rig, s), 1u);
	cr_assert_eq(rig_append(&rig, s, "a", 2), STORAGE_OK);
	storage_close(s);
	rig_release(&rig);
}

Test(faulty, a_failure_lasts_until_it_is_healed)
{
	struct rig rig;
	struct err err = {0};
	rig_init(&rig);
	struct storage *s = storage_faulty_new(memory(), 1);
	add(s, FAULTY_APPEND, 1, STORAGE_FAILED, ERR_OK, true);
	cr_assert_eq(rig_append(&rig, s, "a", 1), STORAGE_FAILED);
	cr_assert_eq(rig_append(&rig, s, "a", 2), STORAGE_FAILED);
	cr_assert_eq(storage_append(s, 1, NULL, 0, &err), STORAGE_FAILED);
	cr_assert_eq(rig_count(&rig, s), 1u);
	storage_faulty_heal(s);
	cr_assert_eq(rig_append(&rig, s, "a", 2), STORAGE_OK);
	storage_close(s);
	rig_release(&rig);
}

Test(faulty, strikes_reads_and_lookups)
{
	struct rig rig;
	struct arena a;
	struct buf out;
	uint64_t head;
	rig_init(&rig);
	arena_init(&a, MIB);
	buf_init(&out, MIB);
	struct storage *s = storage_faulty_new(memory(), 1);
	add(s, FAULTY_LOOKUP, 1, STORAGE_OK, ERR_IO, false);
	add(s, FAULTY_READ, 1, STORAGE_OK, ERR_CORRUPT, false);
	add(s, FAULTY_SNAPSHOT, 1, STORAGE_OK, ERR_NOT_FOUND, false);
	cr_assert_eq(storage_lookup(s, NULL, 0, NULL, 0, &a, &head, &rig.err), ERR_IO);
	cr_assert_eq(storage_lookup(s, NULL, 0, NULL, 0, &a, &head, &rig.err), ERR_OK);
	cr_assert_eq(rig_append(&rig, s, "a", 1), STORAGE_OK);
	cr_assert_eq(rig_count(&rig, s), 0u);
	cr_assert_eq(rig.err.code, ERR_CORRUPT);
	cr_assert_eq(rig_count(&rig, s), 1u);
	struct storage_reader *r;
	cr_assert_eq(storage_reader_open(s, &r, &rig.err), ERR_OK);
	cr_assert_eq(storage_snapshot(r, SPAN("a"), 9, 9, &out, &rig.err), ERR_NOT_FOUND);
	storage_reader_close(r);
	storage_close(s);
	buf_release(&out);
	arena_release(&a);
	rig_release(&rig);
}

Test(faulty, chance_is_the_seeds)
{
	struct rig rig;
	unsigned struck[2] = {0};
	rig_init(&rig);
	for (int run = 0; run < 2; run++) {
		struct storage *s = storage_faulty_new(memory(), 42);
		const struct faulty_rule rule = {
			.op = FAULTY_APPEND, .per_mille = 300, .outcome = STORAGE_FULL};
		storage_faulty_add(s, &rule);
		uint64_t sequence = 1;
		for (int i = 0; i < 200; i++) {
			if (rig_append(&rig, s, "a", sequence) == STORAGE_OK)
				sequence++;
			else
				struck[run] += (unsigned)i;
		}
		storage_close(s);
	}
	cr_assert_gt(struck[0], 0u);
	cr_assert_eq(struck[0], struck[1]);
	rig_release(&rig);
}
