/* Every error at every call, and a disk that is full. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "fault.h"

#define STEPS 14

/* A life of fixed steps, with room for a segment's end among them. Stops at the first error that ends it;
 * an append that finds no room is tried again at once. */
static void run(struct fault *f, bool *ret_opened)
{
	*ret_opened = fault_open(f) == ERR_OK;
	for (int i = 0; i < STEPS && f->s; i++) {
		enum storage_outcome outcome = fault_append(f, 1 + (size_t)i % 3, 300 * (size_t)(i % 2));
		if (outcome == STORAGE_FULL)
			outcome = fault_append(f, 1, 10);
		if (outcome == STORAGE_FAILED) {
			/* It stays so, and what was there can be read. */
			struct err err = {0};
			cr_assert_eq(storage_append(f->s, f->n - f->unknown, NULL, 0, &err), STORAGE_FAILED);
			return;
		}
		cr_assert_eq(outcome, STORAGE_OK, "%s", f->err.text);
		if (i == 5)
			file_index_now(f->s, &f->err);
	}
}

static void end_life(struct fault *f, uint64_t how)
{
	simdisk_fail_at(f->disk, 0, 0);
	if (how == 0 && f->s) {
		fault_close(f);
		simdisk_kill(f->disk);
		return;
	}
	fault_drop(f);
	if (how == 1)
		simdisk_kill(f->disk);
	else
		simdisk_cut(f->disk);
}

/* The n-th call fails; afterwards everything acknowledged is there, however the process ends. Returns which
 * call it was, SIM_CALLS when there were fewer. */
static enum simdisk_call fail_nth(uint64_t seed, uint64_t n, int error, uint64_t how)
{
	struct fault f;
	bool opened;
	fault_init(&f, seed);
	f.options.segment_bytes = 2048;
	simdisk_fail_at(f.disk, n, error);
	run(&f, &opened);
	enum simdisk_call failed = simdisk_failed(f.disk);
	if (!opened)
		cr_assert(f.err.text[0] != '\0');
	end_life(&f, how);
	fault_must_open(&f);
	cr_assert_eq(fault_append(&f, 2, 50), STORAGE_OK, "%s", f.err.text);
	fault_close(&f);
	simdisk_kill(f.disk);
	/* And once more while opening what is there. */
	simdisk_fail_at(f.disk, n, error);
	if (fault_open(&f) == ERR_OK)
		fault_close(&f);
	else
		cr_assert(f.err.text[0] != '\0');
	end_life(&f, 1);
	fault_must_open(&f);
	fault_release(&f);
	return failed;
}

Test(errors, every_error_at_every_call)
{
	static const int errors[] = {EIO, ENOSPC, EDQUOT};
	bool seen[SIM_CALLS] = {false};
	for (size_t e = 0; e < ARRAY_LEN(errors); e++)
		for (uint64_t how = 0; how < 3; how++) {
			uint64_t n = 1;
			for (; n < 2000; n++) {
				enum simdisk_call failed = fail_nth(77 + how, n, errors[e], how);
				if (failed == SIM_CALLS)
					break;
				seen[failed] = true;
			}
			cr_assert_gt(n, 50u, "the scenario makes few calls");
			cr_assert_lt(n, 2000u);
		}
	/* All kinds of calls were among them (but for those that cannot fail here). */
	for (int call = 0; call < SIM_CALLS; call++)
		cr_assert(seen[call] || call == SIM_CLOSE || call == SIM_UNLINK, "call %d never failed",
			  call);
}

Test(full, is_refused_rolled_back_and_resumed)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct fault f;
		struct storage_head before, after;
		fault_init(&f, seed);
		fault_must_open(&f);
		uint64_t room = 3000 + 700 * seed, refused = 0;
		simdisk_limit(f.disk, room);
		for (int i = 0; i < 60; i++) {
			storage_head(f.s, &before);
			enum storage_outcome outcome = fault_append(&f, 1 + (size_t)i % 4, 100);
			storage_head(f.s, &after);
			if (outcome == STORAGE_FULL) {
				refused++;
				cr_assert_eq(f.err.code, ERR_FULL);
				cr_assert_eq(before.head, after.head);
				fault_check(&f); /* reads go on */
				if (refused % 3 == 0)
					simdisk_limit(f.disk, room += 2500);
				continue;
			}
			cr_assert_eq(outcome, STORAGE_OK, "seed %llu: %s", (unsigned long long)seed,
				     f.err.text);
		}
		cr_assert_gt(refused, 2u);
		fault_drop(&f);
		simdisk_limit(f.disk, 0);
		simdisk_cut(f.disk);
		fault_must_open(&f);
		fault_release(&f);
	}
}

/* A clean stop says where the log ends: what was cut back for want of room must not come back behind that. */
Test(full, what_was_cut_back_does_not_come_back_behind_a_clean_stop)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct fault f;
		fault_init(&f, seed);
		f.options.segment_bytes = 64 * KIB;
		fault_must_open(&f);
		cr_assert_eq(fault_append(&f, 2, 500), STORAGE_OK);
		simdisk_limit(f.disk, 3000);
		cr_assert_eq(fault_append(&f, 4, 1000), STORAGE_FULL);
		simdisk_limit(f.disk, 0);
		fault_close(&f);
		simdisk_cut(f.disk);
		fault_must_open(&f);
		cr_assert_eq(f.n, 2u);
		fault_release(&f);
	}
}

Test(full, a_sync_error_is_not_taken_for_a_full_disk)
{
	struct fault f;
	fault_init(&f, 5);
	fault_must_open(&f);
	enum storage_outcome outcome = STORAGE_OK;
	while (simdisk_failed(f.disk) != SIM_FDATASYNC) {
		if (!f.s)
			fault_must_open(&f);
		simdisk_fail_at(f.disk, 1 + simdisk_random(f.disk, 4), ENOSPC);
		outcome = fault_append(&f, 1, 10);
		if (outcome == STORAGE_FAILED && simdisk_failed(f.disk) != SIM_FDATASYNC) {
			fault_drop(&f);
			simdisk_kill(f.disk);
		}
	}
	cr_assert_eq(outcome, STORAGE_FAILED);
	cr_assert(strstr(f.err.text, "restart"), "%s", f.err.text);
	fault_release(&f);
}
