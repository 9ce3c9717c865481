/* The simulated disk itself: what it may forget, and what it may not. */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

#include "base/mem.h"
#include "simdisk.h"

#define SECTOR 512u

static int make_file(struct simdisk *d, char fill, size_t n)
{
	const struct fileio *io = simdisk_io(d);
	char *bytes = mem_xalloc(n);
	memset(bytes, fill, n);
	int fd = io->open(io->arg, "sim/x", FILEIO_WRITE | FILEIO_CREATE);
	cr_assert_geq(fd, 0);
	cr_assert_eq(file_io_write_all(io, fd, bytes, n, 0), 0);
	cr_assert_eq(io->fdatasync(io->arg, fd), 0);
	cr_assert_eq(io->sync_dir(io->arg, "sim"), 0);
	mem_free(bytes);
	return fd;
}

/* Durable are 'a' up to 2148; 'b' are written from 700 to 3700. */
Test(simdisk, a_sector_with_durable_bytes_is_old_or_new)
{
	bool old = false, new = false, other = false;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct simdisk *d = simdisk_new(seed);
		const struct fileio *io = simdisk_io(d);
		char b[3000];
		memset(b, 'b', sizeof(b));
		int fd = make_file(d, 'a', 2148);
		cr_assert_eq(file_io_write_all(io, fd, b, sizeof(b), 700), 0);
		simdisk_cut(d);
		size_t n;
		const uint8_t *p = simdisk_bytes(d, "sim/x", &n);
		cr_assert_geq(n, 2148u);
		for (size_t at = 0; at < 2148; at++) {
			cr_assert(p[at] == 'a' || (at >= 700 && p[at] == 'b'), "seed %zu: byte %zu is %u",
				  (size_t)seed, at, p[at]);
			old |= at >= 700 && p[at] == 'a';
			new |= p[at] == 'b';
		}
		for (size_t at = 5 * SECTOR; at < n; at++)
			other |= p[at] != 'b' && p[at] != 0;
		simdisk_free(d);
	}
	cr_assert(old && new && other);
}

Test(simdisk, bytes_written_over_the_same_bytes_are_never_lost)
{
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct simdisk *d = simdisk_new(seed);
		const struct fileio *io = simdisk_io(d);
		char a[2000];
		memset(a, 'a', sizeof(a));
		int fd = make_file(d, 'a', sizeof(a));
		cr_assert_eq(file_io_write_all(io, fd, a + 100, sizeof(a) - 100, 100), 0);
		simdisk_cut(d);
		size_t n;
		const uint8_t *p = simdisk_bytes(d, "sim/x", &n);
		cr_assert_eq(n, sizeof(a));
		cr_assert_eq(memcmp(p, a, n), 0);
		simdisk_free(d);
	}
}

Test(simdisk, a_failed_sync_takes_the_writes_with_it_and_a_later_one_does_not_bring_them)
{
	struct simdisk *d = simdisk_new(1);
	const struct fileio *io = simdisk_io(d);
	char byte = 'b';
	size_t n;
	int fd = make_file(d, 'a', 1000);
	cr_assert_eq(io->pwrite(io->arg, fd, &byte, 1, 10), 1);
	cr_assert_eq(io->ftruncate(io->arg, fd, 600), 0);
	simdisk_fail_at(d, 1, EIO);
	cr_assert_eq(io->fdatasync(io->arg, fd), -EIO);
	cr_assert_eq(io->pwrite(io->arg, fd, &byte, 1, 20), 1);
	cr_assert_eq(io->fdatasync(io->arg, fd), 0);
	byte = 0;
	cr_assert_eq(io->pread(io->arg, fd, &byte, 1, 10), 1);
	cr_assert_eq(byte, 'b', "the cache has it");
	simdisk_cut_all(d);
	const uint8_t *p = simdisk_bytes(d, "sim/x", &n);
	cr_assert_eq(n, 600u);
	cr_assert_eq(p[10], 'a');
	cr_assert_eq(p[20], 'b');
	simdisk_free(d);
}
