/* Cuts of the power and deaths of the process at any moment. */
#include <config.h>

#include "fault.h"
#include "tests/unit/scale.h"

/* The smallest: what was acknowledged is there when all that was not synced is lost. */
Test(sync, an_acknowledged_record_survives_the_loss_of_all_that_was_not_synced)
{
	struct fault f;
	fault_init(&f, 1);
	fault_must_open(&f);
	cr_assert_eq(fault_append(&f, 1, 10), STORAGE_OK);
	cr_assert_eq(fault_append(&f, 3, 10), STORAGE_OK);
	fault_drop(&f);
	simdisk_cut_all(f.disk);
	fault_must_open(&f);
	cr_assert_eq(f.n, 4u);
	fault_release(&f);
}

/* A batch whose sync failed is in the page cache only. A start that finds it there serves it, so it must be
 * on the disk by then. */
Test(sync, what_a_start_has_found_and_served_survives_a_cut)
{
	struct fault f;
	fault_init(&f, 2);
	fault_must_open(&f);
	cr_assert_eq(fault_append(&f, 1, 10), STORAGE_OK);
	uint64_t calls = simdisk_calls(f.disk);
	cr_assert_eq(fault_append(&f, 1, 10), STORAGE_OK);
	uint64_t sync = simdisk_calls(f.disk) - calls; /* the sync is an append's last call */
	for (int tries = 0; tries < 20; tries++) {
		simdisk_fail_at(f.disk, sync, 5);
		if (fault_append(&f, 2, 10) == STORAGE_FAILED && simdisk_failed(f.disk) == SIM_FDATASYNC)
			break;
		fault_drop(&f);
		simdisk_kill(f.disk);
		fault_must_open(&f);
	}
	cr_assert_eq(simdisk_failed(f.disk), SIM_FDATASYNC);
	size_t with = f.n;
	fault_drop(&f);
	simdisk_kill(f.disk);
	fault_must_open(&f); /* finds it in the cache */
	cr_assert_eq(f.n, with);
	fault_drop(&f);
	simdisk_cut_all(f.disk);
	fault_must_open(&f); /* and it is not lost now */
	cr_assert_eq(f.n, with);
	fault_release(&f);
}

/* The last commit, whole or not, is there when the power fails; and then again at the first call of the start
 * that follows, at the second of the next, and so on. Above all while the last whole commit, which has been
 * acknowledged, is written again in place. */
Test(sync, starts_that_are_cut_at_every_call_lose_nothing)
{
	size_t rewritten = 0;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct fault f;
		fault_init(&f, seed);
		fault_must_open(&f);
		for (int i = 0; i < 3; i++)
			cr_assert_eq(fault_append(&f, 2, 900), STORAGE_OK);
		if (seed % 2) {
			simdisk_gone_at(f.disk, 2);
			cr_assert_neq(fault_append(&f, 2, 900), STORAGE_FULL);
		}
		fault_drop(&f);
		simdisk_cut(f.disk);
		for (uint64_t n = 1;; n++) {
			simdisk_gone_at(f.disk, n);
			enum err_code code = fault_open(&f);
			if (!code)
				break;
			cr_assert_eq(code, ERR_IO, "seed %llu: %s", (unsigned long long)seed, f.err.text);
			rewritten += strstr(f.err.text, "again") != NULL;
			simdisk_cut(f.disk);
			cr_assert_lt(n, 1000u);
		}
		fault_release(&f);
	}
	cr_assert_geq(rewritten, 40u);
}

/* A batch whose sync failed is in the page cache only, and the power fails at the n-th call of the start that
 * finds it there. The index, which is on the disk, has not been told of it by then. */
Test(sync, a_start_that_is_cut_has_indexed_nothing_but_what_is_durable)
{
	size_t cached = 0;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct fault f;
		fault_init(&f, seed);
		f.options.segment_bytes = 64 * KIB;
		fault_must_open(&f);
		cr_assert_eq(fault_append(&f, 1, 10), STORAGE_OK);
		enum storage_outcome outcome = STORAGE_OK;
		while (outcome == STORAGE_OK) {
			simdisk_fail_at(f.disk, 2, 5);
			outcome = fault_append(&f, 1, 1500);
		}
		cr_assert_eq(outcome, STORAGE_FAILED);
		cached += simdisk_failed(f.disk) == SIM_FDATASYNC;
		fault_drop(&f);
		simdisk_kill(f.disk);
		f.options.recent_records = 1;
		simdisk_gone_at(f.disk, 1 + seed % 30);
		if (fault_open(&f) == ERR_OK)
			simdisk_gone_at(f.disk, 0);
		fault_drop(&f);
		simdisk_cut(f.disk);
		fault_must_open(&f);
		fault_release(&f);
	}
	cr_assert_gt(cached, 100u);
}

/* Of a seal that was being written the end may come and the beginning not. */
Test(sync, a_torn_seal_is_cut_off)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct fault f;
		fault_init(&f, seed);
		f.options.segment_bytes = 320 * KIB;
		f.options.recent_records = 10000;
		fault_must_open(&f);
		for (int i = 0; i < 24; i++) /* a place every 4 KiB: the seal is longer than a sector */
			cr_assert_eq(fault_append(&f, 40, 220), STORAGE_OK);
		simdisk_gone_at(f.disk, 2); /* the first is a write of the seal */
		cr_assert_eq(fault_append(&f, 8, 6000), STORAGE_FAILED);
		fault_drop(&f);
		simdisk_cut(f.disk);
		fault_must_open(&f);
		cr_assert_eq(f.n, 960u);
		cr_assert_eq(fault_append(&f, 8, 6000), STORAGE_OK);
		fault_drop(&f);
		simdisk_cut_all(f.disk);
		fault_must_open(&f);
		cr_assert_eq(f.n, 968u);
		fault_release(&f);
	}
}

/* Opens, through as many cuts while it does so as there come. */
static void open_through_cuts(struct fault *f)
{
	for (int tries = 0; tries < 3; tries++) {
		if (simdisk_random(f->disk, 3))
			break;
		simdisk_gone_at(f->disk, 1 + simdisk_random(f->disk, 30));
		enum err_code code = fault_open(f);
		if (!code) {
			simdisk_gone_at(f->disk, 0);
			return;
		}
		cr_assert_eq(code, ERR_IO, "seed %llu: %s", (unsigned long long)f->seed, f->err.text);
		simdisk_cut(f->disk);
		if (simdisk_random(f->disk, 4) == 0)
			fault_delete_index(f);
	}
	fault_must_open(f);
}

/* One life of the process, up to its end by one of three causes. */
static void live(struct fault *f)
{
	uint64_t appends = simdisk_random(f->disk, 25);
	for (uint64_t i = 0; i < appends; i++) {
		size_t count = 1 + (size_t)simdisk_random(f->disk, 4);
		size_t bytes = (size_t)(simdisk_random(f->disk, 8) ? simdisk_random(f->disk, 120)
								   : simdisk_random(f->disk, 4000));
		cr_assert_eq(fault_append(f, count, bytes), STORAGE_OK, "%s", f->err.text);
		if (simdisk_random(f->disk, 6) == 0)
			cr_assert_eq(file_index_now(f->s, &f->err), ERR_OK, "%s", f->err.text);
	}
	if (simdisk_random(f->disk, 5) == 0) {
		fault_close(f);
		simdisk_kill(f->disk);
		return;
	}
	/* Dies in the middle of an append, or of a clean stop. */
	simdisk_gone_at(f->disk, 1 + simdisk_random(f->disk, 12));
	while (simdisk_failed(f->disk) == SIM_CALLS) {
		if (simdisk_random(f->disk, 8) == 0) {
			fault_close(f);
			simdisk_gone_at(f->disk, 0);
			break;
		}
		enum storage_outcome outcome = fault_append(f, 1 + (size_t)simdisk_random(f->disk, 5),
							    (size_t)simdisk_random(f->disk, 900));
		cr_assert(outcome == STORAGE_OK || outcome == STORAGE_FAILED, "seed %llu: outcome %d: %s",
			  (unsigned long long)f->seed, outcome, f->err.text);
		if (outcome == STORAGE_FAILED)
			break;
	}
	fault_drop(f);
	if (simdisk_random(f->disk, 4))
		simdisk_cut(f->disk);
	else
		simdisk_kill(f->disk);
}

Test(crash, nothing_acknowledged_is_missing_and_nothing_invented)
{
	size_t images = test_scaled(1000);
	uint64_t first = 1000;
	if (getenv("CAIRN_SEED"))
		first = strtoull(getenv("CAIRN_SEED"), NULL, 10);
	for (size_t made = 0; made < images; first++) {
		struct fault f;
		fault_init(&f, first);
		fault_must_open(&f);
		for (int lives = 0; lives < 5; lives++, made++) {
			live(&f);
			if (simdisk_random(f.disk, 5) == 0)
				fault_delete_index(&f);
			open_through_cuts(&f);
		}
		fault_release(&f);
	}
}
