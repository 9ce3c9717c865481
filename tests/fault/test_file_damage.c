/* Damage: bits that have changed, files that are gone or are another's. It is found and named, or (what no
 * check of ours covers, as nobody had been told of it) cut off; wrong records are never served. */
#include <config.h>

#include <stdio.h>

#include "base/endian.h"
#include "base/limits.h"
#include "base/random.h"
#include "fault.h"
#include "tests/unit/scale.h"

static bool is_segment(const char *path)
{
	return strstr(path, ".segment") != NULL;
}

/* A small log of two segments, closed cleanly. */
static void make_log(struct fault *f)
{
	fault_init(f, 9);
	f->options.segment_bytes = 1000;
	fault_must_open(f);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(fault_append(f, 2, 30), STORAGE_OK);
	fault_close(f);
	simdisk_cut_all(f->disk);
}

/* The path of the only segment. */
static void only_segment(struct fault *f, char path[128])
{
	path[0] = '\0';
	for (size_t i = 0; simdisk_name(f->disk, i); i++)
		if (is_segment(simdisk_name(f->disk, i)))
			snprintf(path, 128, "%s", simdisk_name(f->disk, i));
	cr_assert_neq(path[0], '\0');
}

static size_t segments_of(struct fault *f, const char *paths[8])
{
	size_t n = 0;
	for (size_t i = 0; simdisk_name(f->disk, i); i++)
		if (is_segment(simdisk_name(f->disk, i)) && n < 8)
			paths[n++] = simdisk_name(f->disk, i);
	cr_assert_geq(n, 2u);
	return n;
}

/* Of a log that was closed cleanly no bit may change: with the index gone all of it is read at start. */
Test(damage, every_changed_bit_is_found_and_named)
{
	struct fault f;
	const char *paths[8];
	make_log(&f);
	size_t files = segments_of(&f, paths), bits = 0;
	for (size_t i = 0; i < files; i++) {
		char path[128];
		size_t n;
		snprintf(path, sizeof(path), "%s", paths[i]);
		uint8_t *bytes = simdisk_bytes(f.disk, path, &n);
		for (size_t bit = 0; bit < 8 * n; bit++, bits++) {
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
			fault_delete_index(&f);
			enum err_code code = fault_open(&f);
			cr_assert_eq(code, ERR_CORRUPT, "%s: bit %zu of byte %zu: %s", path, bit % 8, bit / 8,
				     f.err.text);
			cr_assert(strstr(f.err.text, path), "%s", f.err.text);
			cr_assert(strstr(f.err.text, "byte "), "%s", f.err.text);
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
	cr_assert_gt(bits, 8000u);
	fault_must_open(&f);
	fault_release(&f);
}

/* A log of at least so many bytes in segments of this size, closed cleanly; returns the first one's path. */
static void make_large_log(struct fault *f, uint64_t segment_bytes, size_t bytes, size_t data_bytes, char path[128])
{
	const char *paths[8];
	fault_init(f, 9);
	f->options.segment_bytes = segment_bytes;
	fault_must_open(f);
	for (size_t made = 0; made <= bytes; made += data_bytes)
		cr_assert_eq(fault_append(f, 1, data_bytes), STORAGE_OK);
	fault_close(f);
	simdisk_cut_all(f->disk);
	segments_of(f, paths);
	snprintf(path, 128, "%s", paths[0]);
}

static void flip(struct fault *f, const char *path, size_t bit)
{
	size_t n;
	uint8_t *bytes = simdisk_bytes(f->disk, path, &n);
	bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	fault_delete_index(f);
	enum err_code code = fault_open(f);
	cr_assert_eq(code, ERR_CORRUPT, "%s: bit %zu of byte %zu: %s", path, bit % 8, bit / 8, f->err.text);
	cr_assert(strstr(f->err.text, path) && strstr(f->err.text, "byte "), "%s", f->err.text);
	bytes = simdisk_bytes(f->disk, path, &n);
	bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* Every bit when it is scaled by 10, as in a soak; else one in eleven. */
Test(damage, every_changed_bit_of_a_segment_of_16_kib_is_found)
{
	struct fault f;
	char path[128];
	size_t n, flips = 0, step = test_scaled(10) >= 100 ? 1 : test_scaled(10) >= 10 ? 11 : 110;
	make_large_log(&f, 16 * KIB, 24 * KIB, 700, path);
	simdisk_bytes(f.disk, path, &n);
	cr_assert_geq(n, 15 * KIB);
	for (size_t bit = (size_t)(random_u64() % step); bit < 8 * n; bit += step, flips++)
		flip(&f, path, bit);
	fault_must_open(&f);
	fault_release(&f);
	printf("# %zu bits of a segment of %zu bytes\n", flips, n);
}

Test(damage, random_bits_of_a_segment_of_64_mib_are_found)
{
	struct fault f;
	char path[128];
	size_t n, flips = test_scaled(100);
	make_large_log(&f, 64 * MIB, 65 * MIB, 256 * KIB, path);
	simdisk_bytes(f.disk, path, &n);
	cr_assert_geq(n, 63 * MIB);
	for (size_t i = 0; i < flips; i++)
		flip(&f, path, (size_t)(random_u64() % (8 * n)));
	fault_must_open(&f);
	fault_release(&f);
}

/* With the index at hand a start reads only the end; what is damaged before is found by whoever reads it. */
Test(damage, is_never_served)
{
	struct fault f;
	const char *paths[8];
	make_log(&f);
	size_t files = segments_of(&f, paths);
	for (size_t i = 0; i < files; i++) {
		char path[128];
		size_t n;
		snprintf(path, sizeof(path), "%s", paths[i]);
		uint8_t *bytes = simdisk_bytes(f.disk, path, &n);
		for (size_t byte = 0; byte < n; byte++) {
			struct storage_config config = {.location = SPAN("sim"), .read_only = true};
			struct storage_query q = {
				.include_system = true, .below_position = UINT64_MAX, .max_bytes = MIB};
			struct storage_page page;
			struct storage_reader *r;
			struct err err = {0};
			struct buf out;
			bytes[byte] ^= 0x10;
			enum err_code code = file_open_with(&config, &f.options, &f.s, &err);
			if (!code) {
				buf_init(&out, 2 * MIB);
				cr_assert_eq(storage_reader_open(f.s, &r, &err), ERR_OK);
				code = storage_read(r, &q, &out, &page, &err);
				if (!code) {
					struct span run = buf_span(&out), entry, whole;
					size_t at = 0;
					while (record_next(&run, &entry, &whole, NULL) == ERR_OK)
						cr_assert(span_eq(whole, f.records[at++].bytes));
					cr_assert_eq(at, f.n);
				}
				buf_release(&out);
				storage_reader_close(r);
				fault_drop(&f);
			}
			if (code)
				cr_assert_eq(code, ERR_CORRUPT, "byte %zu: %s", byte, err.text);
			bytes[byte] ^= 0x10;
		}
	}
	fault_release(&f);
}

/* After a crash the last commit may be damaged only if the index has not seen it. */
Test(damage, before_the_mark_of_the_index_is_refused)
{
	struct fault f;
	fault_init(&f, 3);
	f.options.segment_bytes = 64 * KIB;
	fault_must_open(&f);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(fault_append(&f, 2, 30), STORAGE_OK);
	cr_assert_eq(file_index_now(f.s, &f.err), ERR_OK);
	fault_drop(&f);
	simdisk_cut_all(f.disk);
	char path[128];
	only_segment(&f, path);
	size_t n;
	uint8_t *bytes = simdisk_bytes(f.disk, path, &n);
	bytes[n - 20] ^= 1;
	for (int tries = 0; tries < 2; tries++) { /* the witness is not thrown away by the first */
		enum err_code code = fault_open(&f);
		cr_assert_eq(code, ERR_CORRUPT, "%s", f.err.text);
		cr_assert(strstr(f.err.text, "synced before"), "%s", f.err.text);
	}
	bytes[n - 20] ^= 1;
	fault_must_open(&f);
	fault_release(&f);
}

Test(damage, a_bad_frame_that_a_valid_one_follows_is_refused)
{
	struct fault f;
	fault_init(&f, 4);
	f.options.segment_bytes = 64 * KIB;
	fault_must_open(&f);
	cr_assert_eq(fault_append(&f, 1, 30), STORAGE_OK);
	cr_assert_eq(fault_append(&f, 1, 30), STORAGE_OK);
	fault_drop(&f);
	simdisk_cut_all(f.disk);
	fault_delete_index(&f);
	size_t n;
	uint8_t *bytes = NULL;
	char path[128];
	only_segment(&f, path);
	bytes = simdisk_bytes(f.disk, path, &n);
	bytes[SEGMENT_HEADER_BYTES + 9] ^= 1; /* its length */
	cr_assert_eq(fault_open(&f), ERR_CORRUPT);
	cr_assert(strstr(f.err.text, "valid one follows"), "%s", f.err.text);
	cr_assert(strstr(f.err.text, "byte 64:"), "%s", f.err.text);
	fault_release(&f);
}

/* A seal that is not whole is what a crash leaves, but the commits before the offset that its trailer names
 * had been synced. */
Test(damage, a_bad_commit_before_a_torn_seal_is_refused)
{
	struct fault f;
	char path[128];
	size_t n;
	fault_init(&f, 13);
	f.options.segment_bytes = 1000;
	fault_must_open(&f);
	for (int i = 0; i < 10 && simdisk_failed(f.disk) == SIM_CALLS; i++) {
		simdisk_gone_at(f.disk, 3); /* a commit is a write and a sync, a seal a cut to size as well */
		fault_append(&f, 1, 250);
	}
	cr_assert_eq(simdisk_failed(f.disk), SIM_FTRUNCATE);
	size_t acknowledged = f.n - f.unknown;
	fault_drop(&f);
	simdisk_cut_all(f.disk);
	fault_delete_index(&f);
	only_segment(&f, path);
	uint8_t *bytes = simdisk_bytes(f.disk, path, &n);
	size_t seal = (size_t)get_le64(bytes + n - TRAILER_BYTES);
	bytes[seal] ^= 1;
	bytes[seal - 1] ^= 1;
	cr_assert_eq(fault_open(&f), ERR_CORRUPT);
	cr_assert(strstr(f.err.text, "synced before"), "%s", f.err.text);
	bytes[seal - 1] ^= 1;
	fault_must_open(&f);
	cr_assert_eq(f.n, acknowledged);
	fault_release(&f);
}

/* An older log under a newer index: the index is made anew and nothing that is gone is believed. */
Test(index, a_mark_that_is_ahead_of_the_log_makes_it_anew)
{
	struct fault f;
	fault_init(&f, 6);
	f.options.segment_bytes = 64 * KIB;
	fault_must_open(&f);
	cr_assert_eq(fault_append(&f, 3, 30), STORAGE_OK);
	fault_drop(&f);
	simdisk_cut_all(f.disk);
	size_t old = 0, n = 0;
	char path[128];
	only_segment(&f, path);
	cr_assert(simdisk_bytes(f.disk, path, &old));
	fault_must_open(&f);
	cr_assert_eq(fault_append(&f, 4, 30), STORAGE_OK);
	cr_assert_eq(file_index_now(f.s, &f.err), ERR_OK);
	fault_drop(&f);
	simdisk_cut_all(f.disk);
	cr_assert(simdisk_bytes(f.disk, path, &n));
	cr_assert_gt(n, old);
	simdisk_truncate(f.disk, path, old);
	f.unknown = 4; /* gone by the operator's hand */
	fault_must_open(&f);
	cr_assert_eq(f.n, 3u);
	cr_assert_eq(fault_append(&f, 2, 30), STORAGE_OK, "%s", f.err.text);
	fault_check(&f);
	fault_release(&f);
}

Test(index, is_made_anew_when_it_is_of_another_journal)
{
	struct fault a, b;
	fault_init(&a, 7);
	fault_init(&b, 8);
	fault_must_open(&a);
	fault_must_open(&b);
	cr_assert_eq(fault_append(&a, 5, 30), STORAGE_OK);
	cr_assert_eq(fault_append(&b, 7, 30), STORAGE_OK);
	fault_close(&a);
	fault_close(&b);
	simdisk_kill(b.disk);
	b.options.index_dir = a.index_dir;
	fault_must_open(&b);
	fault_release(&b);
	fault_release(&a);
}

Test(damage, missing_segments_are_named)
{
	struct fault f;
	const char *paths[8];
	make_log(&f);
	size_t files = segments_of(&f, paths);
	const struct fileio *io = simdisk_io(f.disk);
	const char *first = paths[0];
	for (size_t i = 1; i < files; i++)
		first = strcmp(paths[i], first) < 0 ? paths[i] : first;
	cr_assert_eq(io->rename(io->arg, first, "sim/elsewhere"), 0);
	cr_assert_eq(fault_open(&f), ERR_CORRUPT);
	cr_assert(strstr(f.err.text, "segment 1 is missing"), "%s", f.err.text);
	fault_release(&f);
}

Test(damage, a_journal_without_segments_is_not_begun_anew)
{
	struct fault f;
	fault_init(&f, 11);
	f.options.segment_bytes = 64 * KIB;
	fault_must_open(&f);
	cr_assert_eq(fault_append(&f, 3, 30), STORAGE_OK);
	fault_close(&f);
	simdisk_kill(f.disk);
	const struct fileio *io = simdisk_io(f.disk);
	char path[128];
	only_segment(&f, path);
	cr_assert_eq(io->rename(io->arg, path, "sim/elsewhere"), 0);
	for (int tries = 0; tries < 2; tries++) {
		cr_assert_eq(fault_open(&f), ERR_CORRUPT);
		cr_assert(strstr(f.err.text, "segments are gone"), "%s", f.err.text);
	}
	cr_assert_eq(io->unlink(io->arg, "sim/clean"), 0);
	cr_assert_eq(fault_open(&f), ERR_CORRUPT); /* the index has a mark as well */
	fault_release(&f);
}

Test(damage, a_log_cut_at_a_frames_border_after_a_clean_stop_is_refused)
{
	struct fault f;
	fault_init(&f, 12);
	f.options.segment_bytes = 64 * KIB;
	fault_must_open(&f);
	size_t at[3] = {0};
	char path[128];
	only_segment(&f, path);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(fault_append(&f, 3, 30), STORAGE_OK);
		cr_assert(simdisk_bytes(f.disk, path, &at[i]));
	}
	fault_close(&f);
	simdisk_cut_all(f.disk);
	simdisk_truncate(f.disk, path, at[0]);
	cr_assert_eq(fault_open(&f), ERR_CORRUPT);
	cr_assert(strstr(f.err.text, "closed cleanly"), "%s", f.err.text);
	fault_release(&f);
}
