/* Single rules of the CRDT fold, of what functions are told and of what they may change; the whole of it is
 * held against a model in test_crdt_property.c. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/mem.h"
#include "crdt_model.h"

static struct arena arena;
static struct crdt_fold *fold;
static struct crdt_told *told;
static const uint8_t sessions[3][CRDT_SESSION_BYTES] = {{1}, {2}, {3}};
static size_t live = 1;

static void setup(void)
{
	arena_init(&arena, 16 * MIB);
	fold = crdt_fold_new();
	told = crdt_told_new();
}

static void teardown(void)
{
	crdt_fold_free(fold);
	crdt_told_free(told);
	arena_release(&arena);
}

TestSuite(crdt, .init = setup, .fini = teardown);

/* --- deltas, in short ------------------------------------------------------------------------------------- */

static Google__Protobuf__Any **keys(const char *of, size_t *ret_n)
{
	Google__Protobuf__Any **list = arena_alloc(&arena, 16 * sizeof *list);
	for (*ret_n = 0; of[*ret_n]; ++*ret_n)
		list[*ret_n] = model_key(&arena, (unsigned)(of[*ret_n] - '0'));
	return list;
}

static delta_t *orset(bool cleared, const char *removed, const char *added)
{
	delta_t *d = model_delta(&arena, CRDT_ORSET);
	d->orset->cleared = cleared;
	d->orset->removed = keys(removed, &d->orset->n_removed);
	d->orset->added = keys(added, &d->orset->n_added);
	return d;
}

static delta_t *lww(char value, Cloudstate__Crdt__CrdtClock clock, int64_t custom)
{
	delta_t *d = model_delta(&arena, CRDT_LWWREGISTER);
	d->lwwregister->value = model_key(&arena, (unsigned)(value - '0'));
	d->lwwregister->clock = clock;
	d->lwwregister->custom_clock_value = custom;
	return d;
}
#define CLOCK(NAME) CLOUDSTATE__CRDT__CRDT_CLOCK__##NAME

static delta_t *counter(uint64_t increment)
{
	delta_t *d = model_delta(&arena, CRDT_GCOUNTER);
	d->gcounter->increment = increment;
	return d;
}

static delta_t *flag(bool value)
{
	delta_t *d = model_delta(&arena, CRDT_FLAG);
	d->flag->value = value;
	return d;
}

static delta_t *vote(bool value)
{
	delta_t *d = model_delta(&arena, CRDT_VOTE);
	d->vote->self_vote = value;
	return d;
}

static delta_t *map(void)
{
	return model_delta(&arena, CRDT_ORMAP);
}

static delta_t *map_with(delta_t *m, bool update, unsigned key, delta_t *delta)
{
	Cloudstate__Crdt__ORMapEntryDelta *e = arena_alloc(&arena, sizeof *e);
	Cloudstate__Crdt__ORMapEntryDelta ***list = update ? &m->ormap->updated : &m->ormap->added;
	size_t *n = update ? &m->ormap->n_updated : &m->ormap->n_added;
	cloudstate__crdt__ormap_entry_delta__init(e);
	e->key = model_key(&arena, key);
	e->delta = delta;
	if (!*n)
		*list = arena_alloc(&arena, 16 * sizeof **list);
	(*list)[(*n)++] = e;
	return m;
}

static delta_t *map_without(delta_t *m, const char *removed)
{
	m->ormap->removed = keys(removed, &m->ormap->n_removed);
	return m;
}

/* --- the steps ---------------------------------------------------------------------------------------------- */

static void apply(unsigned session, uint64_t observed, const delta_t *delta)
{
	struct crdt_record r = {
		.sequence = crdt_fold_sequence(fold) + 1, .observed = observed, .delta = delta};
	memcpy(r.session, sessions[session], sizeof r.session);
	cr_assert_eq(crdt_fold_apply(fold, &r, NULL), ERR_OK);
}

static void expect_delta(const delta_t *d, const char *want, int line)
{
	char *got = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&got, &n);
	if (d)
		model_delta_print(d, out);
	fclose(out);
	cr_assert_str_eq(got, want, "line %d: %s, expected %s", line, got, want);
	free(got);
}

/* What the function of session 1 is told. */
static void expect_told_at(const char *want, int line)
{
	struct crdt_nodes nodes = {.live = sessions, .live_count = live};
	const delta_t *d = NULL;
	memcpy(nodes.self, sessions[0], sizeof nodes.self);
	cr_assert_eq(crdt_told_tell(told, fold, &nodes, &arena, &d, NULL), ERR_OK, "line %d", line);
	expect_delta(d, want, line);
}
#define expect_told(want) expect_told_at((want), __LINE__)

static void own(const delta_t *d)
{
	cr_assert_eq(crdt_told_own(told, d, NULL), ERR_OK);
}

static void expect_resolved_at(const delta_t *d, int64_t wall_ms, const char *want, int line)
{
	const delta_t *resolved = NULL;
	cr_assert_eq(crdt_resolve(fold, d, wall_ms, &arena, &resolved, NULL), ERR_OK, "line %d", line);
	expect_delta(resolved, want, line);
}
#define expect_resolved(d, wall_ms, want) expect_resolved_at((d), (wall_ms), (want), __LINE__)

static void expect_refused(const delta_t *d, const char *why)
{
	struct err err = {0};
	const delta_t *resolved = NULL;
	cr_assert_eq(crdt_resolve(fold, d, 0, &arena, &resolved, &err), ERR_INVALID);
	cr_assert(strstr(err.text, why), "%s", err.text);
}

/* --- what functions are told --------------------------------------------------------------------------------- */

Test(crdt, a_value_that_was_never_told_goes_out_whole)
{
	expect_told("");
	apply(1, 0, orset(false, "", "12"));
	expect_told("(orset +12)");
	expect_told("");
}

Test(crdt, at_zero_it_is_the_types_empty_message)
{
	apply(1, 0, counter(0));
	expect_told("(gcounter 0)");
	expect_told("");
}

Test(crdt, a_set_is_cleared_alone_or_with_all_or_told_in_both_lists)
{
	apply(1, 0, orset(false, "", "123"));
	expect_told("(orset +123)");
	apply(1, 1, orset(false, "1", "4"));
	expect_told("(orset -1 +4)");
	apply(1, 2, orset(false, "23", "0"));
	expect_told("(orset cleared +40)");
	apply(1, 3, orset(true, "", ""));
	expect_told("(orset cleared)");
}

Test(crdt, a_map_is_told_by_entry)
{
	apply(1, 0, map_with(map_with(map(), false, 1, counter(5)), false, 2, orset(false, "", "1")));
	expect_told("(ormap +1:(gcounter 5) +2:(orset +1))");
	apply(1, 1, map_with(map_with(map_without(map(), "2"), true, 1, counter(2)), false, 3, flag(false)));
	expect_told("(ormap -2 ~1:(gcounter 2) +3:(flag 0))");
	apply(1, 2, map_without(map(), "13"));
	expect_told("(ormap cleared)");
}

Test(crdt, what_no_delta_can_say_is_removed_and_added)
{
	apply(1, 0, map_with(map_with(map(), false, 1, counter(5)), false, 2, flag(true)));
	expect_told("(ormap +1:(gcounter 5) +2:(flag 1))");
	apply(1, 1, map_with(map_with(map_without(map(), "12"), false, 1, counter(3)), false, 2,
			     orset(false, "", "4")));
	expect_told("(ormap -12 +1:(gcounter 3) +2:(orset +4))");
}

Test(crdt, a_functions_own_change_is_not_echoed)
{
	own(counter(3));
	apply(0, 0, counter(3));
	expect_told("");
	apply(1, 0, counter(2));
	expect_told("(gcounter 2)");
}

Test(crdt, a_register_write_that_lost_is_corrected)
{
	apply(1, 0, lww('1', CLOCK(CUSTOM), 9));
	expect_told("(lww 1 clock 0 0)");
	own(lww('2', CLOCK(CUSTOM), 5));
	expect_resolved(lww('2', CLOCK(CUSTOM), 5), 0, "(lww 2 clock 2 5)");
	apply(0, 1, lww('2', CLOCK(CUSTOM), 5));
	expect_told("(lww 1 clock 0 0)");
}

/* --- votes ---------------------------------------------------------------------------------------------------- */

Test(crdt, on_one_node_a_vote_is_never_told)
{
	own(vote(true));
	apply(0, 0, vote(true));
	expect_told("");
	own(vote(false));
	apply(0, 0, vote(false));
	expect_told("");
}

Test(crdt, on_three_nodes_the_first_vote_is_answered_with_all_fields)
{
	live = 3;
	own(vote(true));
	apply(0, 0, vote(true));
	expect_told("(vote 1 1/3)");
	apply(1, 0, vote(true));
	expect_told("(vote 1 2/3)");
	crdt_fold_end_session(fold, sessions[1]);
	expect_told("(vote 1 1/3)");
	live = 2;
	expect_told("(vote 1 1/2)");
}

/* --- what is recorded ------------------------------------------------------------------------------------------- */

Test(crdt, clocks_become_numbers)
{
	expect_resolved(lww('1', CLOCK(DEFAULT), 0), 100, "(lww 1 clock 2 100)");
	expect_resolved(lww('1', CLOCK(REVERSE), 0), 100, "(lww 1 clock 2 -100)");
	expect_resolved(lww('1', CLOCK(CUSTOM_AUTO_INCREMENT), 7), 100, "(lww 1 clock 2 7)");
	apply(1, 0, lww('3', CLOCK(CUSTOM), 200));
	expect_resolved(lww('1', CLOCK(DEFAULT), 0), 100, "(lww 1 clock 2 201)");
	expect_resolved(lww('1', CLOCK(DEFAULT), 0), 300, "(lww 1 clock 2 300)");
	expect_resolved(lww('1', CLOCK(REVERSE), 0), 100, "(lww 1 clock 2 -100)");
	expect_resolved(lww('1', CLOCK(CUSTOM), 7), 100, "(lww 1 clock 2 7)");
	expect_resolved(lww('1', CLOCK(CUSTOM_AUTO_INCREMENT), 200), 0, "(lww 1 clock 2 201)");
	expect_resolved(lww('1', CLOCK(CUSTOM_AUTO_INCREMENT), 202), 0, "(lww 1 clock 2 202)");
	apply(1, 0, lww('3', CLOCK(CUSTOM), INT64_MAX));
	expect_resolved(lww('1', CLOCK(DEFAULT), 0), 100, "(lww 1 clock 2 9223372036854775807)");
}

Test(crdt, of_equal_clocks_the_later_write_wins)
{
	apply(1, 0, lww('1', CLOCK(CUSTOM), 5));
	apply(0, 0, lww('2', CLOCK(CUSTOM), 5));
	expect_told("(lww 2 clock 0 0)");
}

Test(crdt, an_update_of_an_entry_that_is_gone_or_replaced_is_left_out)
{
	apply(1, 0, map_with(map(), false, 1, counter(1)));
	delta_t *d = map_with(map_with(map(), true, 1, counter(2)), true, 2, counter(3));
	expect_resolved(d, 0, "(ormap ~1:(gcounter 2))");
	expect_resolved(map_with(map_without(map(), "1"), true, 1, counter(2)), 0, "(ormap -1)");
	expect_resolved(map_with(map(), true, 1, flag(true)), 0, "");
	expect_resolved(map_with(map(), false, 1, flag(true)), 0, "(ormap +1:(flag 1))");
}

Test(crdt, a_map_entrys_clock_is_of_what_the_delta_leaves_of_it)
{
	apply(1, 0, map_with(map(), false, 1, lww('1', CLOCK(CUSTOM), 50)));
	delta_t *d = map_with(map_without(map(), "1"), false, 1, lww('2', CLOCK(DEFAULT), 0));
	expect_resolved(d, 9, "(ormap -1 +1:(lww 2 clock 2 9))");
	expect_resolved(map_with(map(), true, 1, lww('2', CLOCK(DEFAULT), 0)), 9,
			"(ormap ~1:(lww 2 clock 2 51))");
}

Test(crdt, what_changes_nothing_is_not_recorded_unless_it_creates)
{
	expect_resolved(counter(0), 0, "(gcounter 0)");
	apply(1, 0, counter(0));
	expect_resolved(counter(0), 0, "");
}

Test(crdt, faults_of_the_function_are_refused_with_a_reason)
{
	delta_t empty = CLOUDSTATE__CRDT__CRDT_DELTA__INIT;
	expect_refused(&empty, "empty");
	expect_refused(counter((uint64_t)1 << 63), "2^63");
	expect_refused(map_with(map(), false, 1, &empty), "entry has an empty delta");
	expect_refused(lww('1', (Cloudstate__Crdt__CrdtClock)9, 0), "clock is 9");
	apply(1, 0, flag(true));
	expect_refused(counter(1), "a GCounter delta for what is a Flag");
	expect_told("(flag 1)");
	cr_assert_eq(crdt_told_own(told, flag(false), NULL), ERR_INVALID);
}

Test(crdt, switching_off_a_flag_that_the_function_holds_for_unset_is_nothing)
{
	own(flag(false));
	apply(1, 0, flag(true));
	own(flag(false));
	expect_resolved(flag(false), 0, "");
	expect_told("(flag 1)");
}

/* --- concurrency ------------------------------------------------------------------------------------------------ */

Test(crdt, an_add_wins_over_a_removal_that_had_not_seen_it)
{
	apply(0, 0, orset(false, "", "12"));
	apply(1, 1, orset(false, "", "1"));
	apply(0, 1, orset(false, "12", ""));
	expect_told("(orset +1)");
}

Test(crdt, an_entry_that_was_removed_begins_at_zero_for_an_update_that_had_not_seen_that)
{
	apply(0, 0, map_with(map(), false, 1, counter(5)));
	apply(0, 1, map_without(map(), "1"));
	apply(1, 1, map_with(map(), true, 1, counter(2)));
	expect_told("(ormap +1:(gcounter 2))");
}

Test(crdt, an_update_that_the_removal_had_not_seen_keeps_the_entry)
{
	apply(0, 0, map_with(map(), false, 1, counter(5)));
	apply(1, 1, map_with(map(), true, 1, counter(2)));
	apply(0, 1, map_without(map(), "1"));
	expect_told("(ormap +1:(gcounter 7))");
}

Test(crdt, ended_sessions_share_the_greatest_number)
{
	apply(0, 0, orset(false, "", "1"));
	apply(1, 0, orset(false, "", "1"));
	crdt_fold_end_session(fold, sessions[0]);
	crdt_fold_end_session(fold, sessions[1]);
	apply(2, 1, orset(false, "1", ""));
	expect_told("(orset +1)");
	apply(2, 2, orset(false, "1", ""));
	expect_told("(orset cleared)");
}

Test(crdt, the_first_delta_fixes_the_type)
{
	apply(0, 0, counter(5));
	apply(1, 0, flag(true));
	expect_told("(gcounter 5)");
}

Test(crdt, after_a_delete_nothing_counts)
{
	apply(0, 0, counter(5));
	apply(1, 0, NULL);
	apply(0, 0, counter(5));
	cr_assert(crdt_fold_deleted(fold));
	cr_assert_eq(crdt_fold_type(fold), CRDT_NONE);
	cr_assert_eq(crdt_fold_sequence(fold), 3);
	expect_told("");
}

/* --- bytes ------------------------------------------------------------------------------------------------------- */

Test(crdt, a_snapshot_is_refused_when_it_is_cut_or_contradicts_itself)
{
	struct buf bytes;
	struct crdt_fold *back = NULL;
	buf_init(&bytes, 1 * MIB);
	apply(0, 0, map_with(map(), false, 1, orset(false, "", "12")));
	cr_assert_eq(crdt_fold_save(fold, &bytes, NULL), ERR_OK);
	for (size_t n = 1; n < bytes.n; n++)
		if (crdt_fold_load(span_first(buf_span(&bytes), n), &back, NULL) == ERR_OK) {
			crdt_fold_free(back); /* a whole field was cut off: the value is not there */
			cr_assert_lt(n, 24);
		}
	bytes.p[1] = 0; /* the sequence: now below the elements' numbers */
	cr_assert_eq(crdt_fold_load(buf_span(&bytes), &back, NULL), ERR_INVALID);
	buf_release(&bytes);
}

Test(crdt, a_snapshot_larger_than_the_record_is_an_error)
{
	struct buf bytes;
	buf_init(&bytes, 8);
	apply(0, 0, orset(false, "", "1234"));
	cr_assert_eq(crdt_fold_save(fold, &bytes, NULL), ERR_LIMIT);
	buf_release(&bytes);
}

Test(crdt, maps_nested_without_end_do_not_parse)
{
	uint8_t *bytes = mem_xalloc(4096);
	size_t at = 4096, n = 0;
	for (unsigned i = 0; i < 200; i++) { /* ormap { added { delta { ... } } } */
		static const uint8_t tags[3] = {0x12, 0x22, 0x3a};
		for (unsigned k = 0; k < 3; k++) {
			size_t size = n;
			if (size >= 128) {
				bytes[--at] = (uint8_t)(size >> 7);
				bytes[--at] = (uint8_t)(size | 0x80);
			} else {
				bytes[--at] = (uint8_t)size;
			}
			bytes[--at] = tags[k];
			n = 4096 - at;
		}
	}
	const struct ProtobufCMessageDescriptor *type = &cloudstate__crdt__crdt_delta__descriptor;
	cr_assert_null(crdt_unpack(type, &arena, span_of(bytes + at, n)));
	mem_free(bytes);
}
