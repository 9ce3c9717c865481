#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/fileio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/must.h"

static int posix_open(void *arg, const char *path, int flags)
{
	(void)arg;
	int native = O_CLOEXEC | (flags & FILEIO_WRITE ? O_RDWR : O_RDONLY);
	if (flags & FILEIO_CREATE)
		native |= O_CREAT;
	if (flags & FILEIO_EMPTY)
		native |= O_TRUNC;
	int fd;
	do
		fd = open(path, native, 0640);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

static int posix_close(void *arg, int fd)
{
	(void)arg;
	return close(fd) < 0 ? -errno : 0; /* never repeated: the descriptor is gone in any case */
}

static int64_t posix_pread(void *arg, int fd, void *p, size_t n, uint64_t offset)
{
	(void)arg;
	ssize_t got;
	do
		got = pread(fd, p, n, (off_t)offset);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

static int64_t posix_pwrite(void *arg, int fd, const void *p, size_t n, uint64_t offset)
{
	(void)arg;
	ssize_t put;
	do
		put = pwrite(fd, p, n, (off_t)offset);
	while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : put;
}

static int posix_fdatasync(void *arg, int fd)
{
	(void)arg;
	/* Not repeated on EINTR either: what a broken-off sync left behind is not known. */
	return fdatasync(fd) < 0 ? -errno : 0;
}

static int posix_ftruncate(void *arg, int fd, uint64_t size_bytes)
{
	(void)arg;
	int r;
	do
		r = ftruncate(fd, (off_t)size_bytes);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int posix_preallocate(void *arg, int fd, uint64_t size_bytes)
{
	(void)arg;
	int r;
	do
		r = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size_bytes);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int64_t posix_size(void *arg, int fd)
{
	(void)arg;
	struct stat st;
	return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

static int posix_rename(void *arg, const char *from, const char *to)
{
	(void)arg;
	return rename(from, to) < 0 ? -errno : 0;
}

static int posix_unlink(void *arg, const char *path)
{
	(void)arg;
	return unlink(path) < 0 ? -errno : 0;
}

static int posix_make_dir(void *arg, const char *path)
{
	(void)arg;
	return mkdir(path, 0750) < 0 ? -errno : 0;
}

static int posix_sync_dir(void *arg, const char *path)
{
	(void)arg;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int posix_list(void *arg, const char *path, void (*on_name)(const char *name, void *name_arg),
		      void *name_arg)
{
	(void)arg;
	DIR *dir = opendir(path);
	if (!dir)
		return -errno;
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry)
			break;
		on_name(entry->d_name, name_arg);
	}
	int r = -errno;
	closedir(dir);
	return r;
}

static int posix_lock(void *arg, int fd, bool exclusive)
{
	(void)arg;
	/* A lock of the open file, not of the process: closing another descriptor keeps it. */
	struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

const struct fileio file_posix = {
	.open = posix_open,
	.close = posix_close,
	.pread = posix_pread,
	.pwrite = posix_pwrite,
	.fdatasync = posix_fdatasync,
	.ftruncate = posix_ftruncate,
	.preallocate = posix_preallocate,
	.size = posix_size,
	.rename = posix_rename,
	.unlink = posix_unlink,
	.make_dir = posix_make_dir,
	.sync_dir = posix_sync_dir,
	.list = posix_list,
	.lock = posix_lock,
};

int file_io_read_all(const struct fileio *io, int fd, void *p, size_t n, uint64_t offset, size_t *ret_n)
{
	size_t done = 0;
	while (done < n) {
		int64_t got = io->pread(io->arg, fd, (uint8_t *)p + done, n - done, offset + done);
		if (got < 0)
			return (int)got;
		if (got == 0)
			break;
		must((uint64_t)got <= n - done);
		done += (size_t)got;
	}
	*ret_n = done;
	return 0;
}

int file_io_write_all(const struct fileio *io, int fd, const void *p, size_t n, uint64_t offset)
{
	size_t done = 0;
	while (done < n) {
		int64_t put = io->pwrite(io->arg, fd, (const uint8_t *)p + done, n - done, offset + done);
		if (put < 0)
			return (int)put;
		if (put == 0)
			return -EIO;
		must((uint64_t)put <= n - done);
		done += (size_t)put;
	}
	return 0;
}
