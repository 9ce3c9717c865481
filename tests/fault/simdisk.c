#include <config.h>

#include "simdisk.h"

#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/must.h"

#define SECTOR_BYTES ((size_t)512)
#define MAX_FDS 64

struct bytes {
	uint8_t *p;
	size_t n, cap;
};

/* A write, or (p NULL) a cut to `offset` bytes. */
struct change {
	struct change *next;
	uint64_t offset;
	size_t n;
	uint8_t *p;
};

struct inode {
	struct inode *next;
	struct bytes cached, durable;
	struct change *changes, **last;
};

struct name {
	char *path;
	struct inode *inode;
};
struct names {
	struct name *items;
	size_t n, cap;
};

/* A change of names: inode given: path is made; else: renamed to `to`, or (to NULL) deleted. */
struct renaming {
	char *path, *to;
	struct inode *inode;
};

struct simdisk {
	struct fileio io;
	struct inode *inodes;
	struct names cached, durable;
	struct renaming *renamings;
	size_t renaming_n;
	struct inode *fds[MAX_FDS];
	uint64_t seed, calls, fail_at, gone_at, limit;
	int fail_error;
	enum simdisk_call failed;
	bool paused;
};

uint64_t simdisk_random(struct simdisk *d, uint64_t below)
{
	d->seed ^= d->seed << 13;
	d->seed ^= d->seed >> 7;
	d->seed ^= d->seed << 17;
	return (d->seed * 0x2545f4914f6cdd1du >> 16) % below;
}

/* --- bytes ---------------------------------------------------------------------------------------------- */

static void bytes_resize(struct bytes *b, size_t n)
{
	if (n > b->cap) {
		b->cap = 2 * n;
		b->p = mem_xrealloc(b->p, b->cap);
	}
	if (n > b->n)
		memset(b->p + b->n, 0, n - b->n);
	b->n = n;
}

static void bytes_put(struct bytes *b, uint64_t offset, const uint8_t *p, size_t n)
{
	if (n == 0)
		return;
	if (offset + n > b->n)
		bytes_resize(b, offset + n);
	memcpy(b->p + offset, p, n);
}

static void bytes_copy(struct bytes *to, const struct bytes *from)
{
	bytes_resize(to, 0);
	bytes_put(to, 0, from->p, from->n);
}

static void change_apply(struct bytes *b, const struct change *c)
{
	if (c->p)
		bytes_put(b, c->offset, c->p, c->n);
	else
		bytes_resize(b, c->offset);
}

static void changes_drop(struct inode *inode)
{
	while (inode->changes) {
		struct change *next = inode->changes->next;
		mem_free(inode->changes->p);
		mem_free(inode->changes);
		inode->changes = next;
	}
	inode->last = &inode->changes;
}

static void change_add(struct inode *inode, uint64_t offset, const void *p, size_t n)
{
	struct change *c = mem_xalloc(sizeof(*c));
	c->offset = offset;
	c->n = n;
	c->p = p ? mem_xdup(p, n) : NULL;
	*inode->last = c;
	inode->last = &c->next;
	change_apply(&inode->cached, c);
}

/* What a success (or a failure) of a sync makes of the list. */
static void changes_sync(struct inode *inode, bool success)
{
	struct change *c = inode->changes;
	inode->changes = NULL;
	inode->last = &inode->changes;
	while (c) {
		struct change *next = c->next;
		if (success)
			change_apply(&inode->durable, c);
		if (success || c->p) {
			mem_free(c->p);
			mem_free(c);
		} else {
			c->next = NULL;
			*inode->last = c;
			inode->last = &c->next;
		}
		c = next;
	}
}

/* What a cut of the power leaves of a write: any of its sectors, and elsewhere what was there, or (the file
 * has grown, the bytes have not come) zeros, or now and then something else; but that only in sectors that
 * have nothing of the first `held` bytes, which were durable before the cut. */
static void change_tear(struct simdisk *d, struct bytes *b, const struct change *c, size_t held)
{
	uint64_t all = simdisk_random(d, 4);
	if (all == 0)
		return;
	if (all == 1 || !c->p) {
		change_apply(b, c);
		return;
	}
	if (simdisk_random(d, 2) && c->offset + c->n > b->n)
		bytes_resize(b, c->offset + c->n);
	for (size_t at = 0; at < c->n;) {
		size_t before = (size_t)((c->offset + at) % SECTOR_BYTES), n = SECTOR_BYTES - before;
		if (n > c->n - at)
			n = c->n - at;
		uint64_t what = simdisk_random(d, 16);
		if (what < 8)
			bytes_put(b, c->offset + at, c->p + at, n);
		else if (what == 8 && c->offset + at + n <= b->n && c->offset + at - before >= held)
			memset(b->p + c->offset + at, 0x0a, n);
		at += n;
	}
}

/* --- names ---------------------------------------------------------------------------------------------- */

static struct name *names_find(struct names *names, const char *path)
{
	for (size_t i = 0; i < names->n; i++)
		if (strcmp(names->items[i].path, path) == 0)
			return &names->items[i];
	return NULL;
}

static void names_remove(struct names *names, const char *path)
{
	struct name *it = names_find(names, path);
	if (!it)
		return;
	mem_free(it->path);
	*it = names->items[--names->n];
}

static void names_put(struct names *names, const char *path, struct inode *inode)
{
	struct name *it = names_find(names, path);
	if (it) {
		it->inode = inode;
		return;
	}
	if (names->n == names->cap) {
		names->cap = names->cap ? 2 * names->cap : 8;
		names->items = mem_xrealloc(names->items, names->cap * sizeof(*names->items));
	}
	names->items[names->n++] = (struct name){mem_xstrdup(path), inode};
}

static void names_clear(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		mem_free(names->items[i].path);
	names->n = 0;
}

static void names_copy(struct names *to, const struct names *from)
{
	names_clear(to);
	for (size_t i = 0; i < from->n; i++)
		names_put(to, from->items[i].path, from->items[i].inode);
}

static void renaming_apply(struct names *names, const struct renaming *r)
{
	if (r->inode) {
		names_put(names, r->path, r->inode);
		return;
	}
	struct name *it = names_find(names, r->path);
	if (it && r->to)
		names_put(names, r->to, it->inode);
	names_remove(names, r->path);
}

static void renaming_add(struct simdisk *d, const char *path, const char *to, struct inode *inode)
{
	d->renamings = mem_xrealloc(d->renamings, (d->renaming_n + 1) * sizeof(*d->renamings));
	struct renaming *r = &d->renamings[d->renaming_n++];
	*r = (struct renaming){mem_xstrdup(path), to ? mem_xstrdup(to) : NULL, inode};
	renaming_apply(&d->cached, r);
}

static void renamings_drop(struct simdisk *d)
{
	for (size_t i = 0; i < d->renaming_n; i++) {
		mem_free(d->renamings[i].path);
		mem_free(d->renamings[i].to);
	}
	d->renaming_n = 0;
}

/* --- calls ---------------------------------------------------------------------------------------------- */

static bool gone(const struct simdisk *d)
{
	return !d->paused && d->gone_at && d->calls >= d->gone_at;
}

static int enter(struct simdisk *d, enum simdisk_call call)
{
	if (d->paused)
		return 0;
	d->calls++;
	if (gone(d)) {
		d->failed = call;
		return -EIO;
	}
	if (d->fail_at && d->calls == d->fail_at) {
		d->failed = call;
		d->fail_at = 0;
		return -d->fail_error;
	}
	return 0;
}

static struct inode *inode_of(struct simdisk *d, int fd)
{
	must(fd >= 0);
	must(fd < MAX_FDS);
	must(d->fds[fd]);
	return d->fds[fd];
}

static int sim_open(void *arg, const char *path, int flags)
{
	struct simdisk *d = arg;
	int r = enter(d, SIM_OPEN);
	if (r)
		return r;
	struct name *it = names_find(&d->cached, path);
	struct inode *inode = it ? it->inode : NULL;
	if (!inode) {
		if (!(flags & FILEIO_CREATE))
			return -ENOENT;
		inode = mem_xalloc(sizeof(*inode));
		inode->last = &inode->changes;
		inode->next = d->inodes;
		d->inodes = inode;
		renaming_add(d, path, NULL, inode);
	} else if (flags & FILEIO_EMPTY) {
		change_add(inode, 0, NULL, 0);
	}
	for (int fd = 0; fd < MAX_FDS; fd++) {
		if (d->fds[fd])
			continue;
		d->fds[fd] = inode;
		return fd;
	}
	return -EMFILE;
}

static int sim_close(void *arg, int fd)
{
	struct simdisk *d = arg;
	inode_of(d, fd);
	d->fds[fd] = NULL;
	return 0;
}

static int64_t sim_pread(void *arg, int fd, void *p, size_t n, uint64_t offset)
{
	struct simdisk *d = arg;
	struct inode *inode = inode_of(d, fd);
	int r = enter(d, SIM_PREAD);
	if (r)
		return r;
	if (offset >= inode->cached.n)
		return 0;
	if (n > inode->cached.n - offset)
		n = inode->cached.n - (size_t)offset;
	if (n > 1 && simdisk_random(d, 8) == 0)
		n = 1 + (size_t)simdisk_random(d, n - 1); /* short reads are legal */
	memcpy(p, inode->cached.p + offset, n);
	return (int64_t)n;
}

static uint64_t used(const struct simdisk *d)
{
	uint64_t n = 0;
	for (size_t i = 0; i < d->cached.n; i++)
		n += d->cached.items[i].inode->cached.n;
	return n;
}

static int64_t sim_pwrite(void *arg, int fd, const void *p, size_t n, uint64_t offset)
{
	struct simdisk *d = arg;
	struct inode *inode = inode_of(d, fd);
	int r = enter(d, SIM_PWRITE);
	if (r) {
		change_add(inode, offset, p, (size_t)simdisk_random(d, n + 1));
		return r;
	}
	uint64_t grows = offset + n > inode->cached.n ? offset + n - inode->cached.n : 0;
	if (d->limit && grows > 0 && used(d) + grows > d->limit) {
		uint64_t room = d->limit > used(d) ? d->limit - used(d) : 0;
		if (room == 0 || n <= grows - room)
			return -ENOSPC;
		n -= (size_t)(grows - room);
	} else if (n > 1 && simdisk_random(d, 8) == 0) {
		n = 1 + (size_t)simdisk_random(d, n - 1); /* so are short writes */
	}
	change_add(inode, offset, p, n);
	return (int64_t)n;
}

static int sim_fdatasync(void *arg, int fd)
{
	struct simdisk *d = arg;
	struct inode *inode = inode_of(d, fd);
	int r = enter(d, SIM_FDATASYNC);
	if (!gone(d))
		changes_sync(inode, !r);
	return r;
}

static int sim_ftruncate(void *arg, int fd, uint64_t size_bytes)
{
	struct simdisk *d = arg;
	struct inode *inode = inode_of(d, fd);
	int r = enter(d, SIM_FTRUNCATE);
	if (!r)
		change_add(inode, size_bytes, NULL, 0);
	return r;
}

static int sim_preallocate(void *arg, int fd, uint64_t size_bytes)
{
	struct simdisk *d = arg;
	inode_of(d, fd);
	(void)size_bytes;
	return enter(d, SIM_PREALLOCATE);
}

static int64_t sim_size(void *arg, int fd)
{
	struct simdisk *d = arg;
	const struct inode *inode = inode_of(d, fd);
	int r = enter(d, SIM_SIZE);
	return r ? r : (int64_t)inode->cached.n;
}

static int sim_rename(void *arg, const char *from, const char *to)
{
	struct simdisk *d = arg;
	int r = enter(d, SIM_RENAME);
	if (r)
		return r;
	if (!names_find(&d->cached, from))
		return -ENOENT;
	renaming_add(d, from, to, NULL);
	return 0;
}

static int sim_unlink(void *arg, const char *path)
{
	struct simdisk *d = arg;
	int r = enter(d, SIM_UNLINK);
	if (r)
		return r;
	if (!names_find(&d->cached, path))
		return -ENOENT;
	renaming_add(d, path, NULL, NULL);
	return 0;
}

static int sim_make_dir(void *arg, const char *path)
{
	struct simdisk *d = arg;
	(void)path;
	int r = enter(d, SIM_MAKE_DIR);
	return r ? r : -EEXIST;
}

static int sim_sync_dir(void *arg, const char *path)
{
	struct simdisk *d = arg;
	(void)path;
	int r = enter(d, SIM_SYNC_DIR);
	if (r)
		return r;
	names_copy(&d->durable, &d->cached);
	renamings_drop(d);
	return 0;
}

static int sim_list(void *arg, const char *path, void (*on_name)(const char *name, void *name_arg),
		    void *name_arg)
{
	struct simdisk *d = arg;
	size_t prefix = strlen(path) + 1;
	int r = enter(d, SIM_LIST);
	for (size_t i = 0; i < d->cached.n && !r; i++)
		on_name(d->cached.items[i].path + prefix, name_arg);
	return r;
}

static int sim_lock(void *arg, int fd, bool exclusive)
{
	struct simdisk *d = arg;
	inode_of(d, fd);
	(void)exclusive;
	return enter(d, SIM_LOCK);
}

/* --- the disk ------------------------------------------------------------------------------------------- */

struct simdisk *simdisk_new(uint64_t seed)
{
	static const struct fileio io = {
		.open = sim_open,
		.close = sim_close,
		.pread = sim_pread,
		.pwrite = sim_pwrite,
		.fdatasync = sim_fdatasync,
		.ftruncate = sim_ftruncate,
		.preallocate = sim_preallocate,
		.size = sim_size,
		.rename = sim_rename,
		.unlink = sim_unlink,
		.make_dir = sim_make_dir,
		.sync_dir = sim_sync_dir,
		.list = sim_list,
		.lock = sim_lock,
	};
	struct simdisk *d = mem_xalloc(sizeof(*d));
	d->io = io;
	d->io.arg = d;
	d->seed = seed * 0x9e3779b97f4a7c15u + 1;
	d->failed = SIM_CALLS;
	for (int i = 0; i < 8; i++)
		simdisk_random(d, 2);
	return d;
}

void simdisk_free(struct simdisk *d)
{
	while (d->inodes) {
		struct inode *next = d->inodes->next;
		changes_drop(d->inodes);
		mem_free(d->inodes->cached.p);
		mem_free(d->inodes->durable.p);
		mem_free(d->inodes);
		d->inodes = next;
	}
	names_clear(&d->cached);
	names_clear(&d->durable);
	renamings_drop(d);
	mem_free(d->cached.items);
	mem_free(d->durable.items);
	mem_free(d->renamings);
	mem_free(d);
}

const struct fileio *simdisk_io(struct simdisk *d)
{
	return &d->io;
}

void simdisk_kill(struct simdisk *d)
{
	memset(d->fds, 0, sizeof(d->fds));
	d->gone_at = d->fail_at = 0;
	d->failed = SIM_CALLS;
}

static void cut(struct simdisk *d, bool keep_some)
{
	simdisk_kill(d);
	for (size_t i = 0; i < d->renaming_n && keep_some; i++)
		if (simdisk_random(d, 2))
			renaming_apply(&d->durable, &d->renamings[i]);
	renamings_drop(d);
	names_copy(&d->cached, &d->durable);
	for (struct inode *inode = d->inodes; inode; inode = inode->next) {
		size_t held = inode->durable.n;
		for (const struct change *c = inode->changes; c && keep_some; c = c->next)
			change_tear(d, &inode->durable, c, held);
		changes_drop(inode);
		bytes_copy(&inode->cached, &inode->durable);
	}
}

void simdisk_cut(struct simdisk *d)
{
	cut(d, true);
}

void simdisk_cut_all(struct simdisk *d)
{
	cut(d, false);
}

uint64_t simdisk_calls(const struct simdisk *d)
{
	return d->calls;
}

void simdisk_fail_at(struct simdisk *d, uint64_t n, int error)
{
	d->fail_at = n ? d->calls + n : 0;
	d->fail_error = error;
	d->failed = SIM_CALLS;
}

void simdisk_gone_at(struct simdisk *d, uint64_t n)
{
	d->gone_at = n ? d->calls + n : 0;
	d->failed = SIM_CALLS;
}

void simdisk_pause(struct simdisk *d, bool on)
{
	d->paused = on;
}

enum simdisk_call simdisk_failed(const struct simdisk *d)
{
	return d->failed;
}

void simdisk_limit(struct simdisk *d, uint64_t bytes)
{
	d->limit = bytes;
}

uint8_t *simdisk_bytes(struct simdisk *d, const char *path, size_t *ret_n)
{
	const struct name *it = names_find(&d->durable, path);
	if (!it)
		return NULL;
	must(!it->inode->changes);
	*ret_n = it->inode->cached.n;
	return it->inode->cached.p;
}

const char *simdisk_name(struct simdisk *d, size_t i)
{
	return i < d->cached.n ? d->cached.items[i].path : NULL;
}

void simdisk_truncate(struct simdisk *d, const char *path, size_t n)
{
	struct name *it = names_find(&d->cached, path);
	must(it);
	bytes_resize(&it->inode->cached, n);
	bytes_copy(&it->inode->durable, &it->inode->cached);
}
