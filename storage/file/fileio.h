/* The system calls of the file backend, behind a table: the disk that tests simulate (tests/fault/
 * simdisk.c) is another one. Every function returns 0 or a count, or -errno; calls that a signal broke
 * off are repeated inside. Any thread. */
#ifndef CAIRN_STORAGE_FILE_FILEIO_H
#define CAIRN_STORAGE_FILE_FILEIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fileio_open_flags {
	FILEIO_READ = 0,
	FILEIO_WRITE = 1 << 0,  /* and read */
	FILEIO_CREATE = 1 << 1, /* if it is not there */
	FILEIO_EMPTY = 1 << 2   /* and cut to nothing if it is */
};

struct fileio {
	int (*open)(void *arg, const char *path, int flags); /* a descriptor */
	int (*close)(void *arg, int fd);
	int64_t (*pread)(void *arg, int fd, void *p, size_t n, uint64_t offset);
	int64_t (*pwrite)(void *arg, int fd, const void *p, size_t n, uint64_t offset);
	int (*fdatasync)(void *arg, int fd);
	int (*ftruncate)(void *arg, int fd, uint64_t size_bytes);
	/* Room for n bytes without changing the size. */
	int (*preallocate)(void *arg, int fd, uint64_t size_bytes);
	int64_t (*size)(void *arg, int fd);
	int (*rename)(void *arg, const char *from, const char *to);
	int (*unlink)(void *arg, const char *path);
	int (*make_dir)(void *arg, const char *path);
	int (*sync_dir)(void *arg, const char *path);
	int (*list)(void *arg, const char *path, void (*on_name)(const char *name, void *name_arg),
		    void *name_arg);
	int (*lock)(void *arg, int fd, bool exclusive); /* -EAGAIN when another process has it */
	void *arg;
};

extern const struct fileio file_posix;

/* The same until all is done: 0 or -errno; -EIO for a read or write that makes no progress. */
int file_io_read_all(const struct fileio *io, int fd, void *p, size_t n, uint64_t offset, size_t *ret_n);
int file_io_write_all(const struct fileio *io, int fd, const void *p, size_t n, uint64_t offset);

#endif
