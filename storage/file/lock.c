/* One writing process a directory, by a lock on a file that names it. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/must.h"
#include "storage/file/file.h"

#define LOCK_TEXT_BYTES 512

static enum err_code taken(const struct file_store *s, int fd, struct err *err)
{
	char text[LOCK_TEXT_BYTES + 1], address[LOCK_TEXT_BYTES + 1] = "";
	size_t n = 0;
	long pid = 0;
	file_io_read_all(s->io, fd, text, LOCK_TEXT_BYTES, 0, &n);
	text[n] = '\0';
	if (sscanf(text, "pid %ld\naddress %500s", &pid, address) < 1)
		return err_set(err, ERR_CONFLICT, "%s is in use by another process", s->dir);
	bool serves = address[0] && strcmp(address, "-") != 0;
	return err_set(err, ERR_CONFLICT, "%s is in use by process %ld%s%s: use that one, or stop it first",
		       s->dir, pid, serves ? ", which serves " : "", serves ? address : "");
}

enum err_code file_lock(struct file_store *s, const char *address, struct err *err)
{
	char *path = mem_xprintf("%s/lock", s->dir);
	int fd = s->io->open(s->io->arg, path, s->read_only ? FILEIO_READ : FILEIO_WRITE | FILEIO_CREATE);
	enum err_code code = ERR_OK;
	if (fd < 0 && s->read_only && fd == -ENOENT) {
		mem_free(path);
		return ERR_OK; /* a copy of a journal: nobody writes it */
	}
	if (fd < 0) {
		code = err_set_errno(err, ERR_IO, -fd, "cannot open %s", path);
		mem_free(path);
		return code;
	}
	int r = s->io->lock(s->io->arg, fd, !s->read_only);
	if (r == -EAGAIN)
		code = taken(s, fd, err);
	else if (r)
		code = err_set_errno(err, ERR_IO, -r, "cannot lock %s", path);
	if (!code && !s->read_only) {
		char *text = mem_xprintf("pid %ld\naddress %s\n", (long)getpid(), address ? address : "-");
		r = s->io->ftruncate(s->io->arg, fd, 0);
		if (!r)
			r = file_io_write_all(s->io, fd, text, strlen(text), 0);
		mem_free(text);
		/* A full disk must not keep a journal from being served: the lock holds without its text. */
		if (r && r != -ENOSPC && r != -EDQUOT)
			code = err_set_errno(err, ERR_IO, -r, "cannot write %s", path);
	}
	mem_free(path);
	if (code)
		s->io->close(s->io->arg, fd);
	else
		s->lock_fd = fd;
	return code;
}
