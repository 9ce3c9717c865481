/* The file backend: the one export, and opening and closing. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/file.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "storage/file/backend.h"

#define RESTORING_NAME "restoring"

const struct file_options file_options_default = {
	.io = &file_posix,
	.segment_bytes = FILE_SEGMENT_BYTES,
	.recent_bytes = LIMIT_FILE_RECENT_BYTES,
	.recent_records = LIMIT_FILE_RECENT_RECORDS,
	.index_map_bytes = (size_t)16 << 30,
};

/* The directory, made if it is missing. */
static enum err_code make_dir(struct file_store *s, struct err *err)
{
	int r = s->io->make_dir(s->io->arg, s->dir);
	return r && r != -EEXIST ? err_set_errno(err, ERR_IO, -r, "cannot make %s", s->dir) : ERR_OK;
}

enum err_code file_sync_parent(struct file_store *s, struct err *err)
{
	char *parent = mem_xstrdup(s->dir), *slash;
	size_t n = strlen(parent);
	while (n > 1 && parent[n - 1] == '/')
		parent[--n] = '\0';
	slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = '\0';
	int r = s->io->sync_dir(s->io->arg, slash ? parent : ".");
	mem_free(parent);
	/* Who may not even open it has not made the directory: it was given to him. */
	if (r == -EACCES || r == -EPERM)
		r = 0;
	return r ? err_set_errno(err, ERR_IO, -r, "cannot sync the directory of %s", s->dir) : ERR_OK;
}

static struct file_store *store_new(const struct storage_config *config, const struct file_options *options)
{
	struct file_store *s = mem_xalloc(sizeof(*s));
	s->base.ops = &storage_file;
	s->magic = FILE_STORE_MAGIC;
	s->options = *options;
	s->io = options->io;
	s->clock = config->clock ? config->clock : &clock_system;
	s->dir = mem_xdup(config->location.p, config->location.n);
	s->index_dir = options->index_dir ? mem_xstrdup(options->index_dir) : mem_xprintf("%s/index", s->dir);
	s->read_only = config->read_only;
	s->restoring = config->restore != NULL;
	if (config->restore)
		memcpy(s->journal_id, config->restore, sizeof(s->journal_id));
	s->lock_fd = -1;
	s->marks = marks_new();
	file_segments_init(&s->segments, s->io, s->dir, options->segment_bytes);
	file_window_init(&s->window, &s->segments);
	file_window_init(&s->indexer_window, &s->segments);
	session_rows_init(&s->sessions);
	map_init(&s->facts[0]);
	map_init(&s->facts[1]);
	pthread_condattr_t attr;
	must(pthread_condattr_init(&attr) == 0);
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	must(pthread_cond_init(&s->indexer_wake, &attr) == 0);
	must(pthread_cond_init(&s->indexer_done, &attr) == 0);
	pthread_condattr_destroy(&attr);
	must(pthread_mutex_init(&s->indexer_lock, NULL) == 0);
	/* The one writer must not starve behind readers that follow one another. */
	pthread_rwlockattr_t lock_attr;
	must(pthread_rwlockattr_init(&lock_attr) == 0);
	must(pthread_rwlockattr_setkind_np(&lock_attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
	must(pthread_rwlock_init(&s->lock, &lock_attr) == 0);
	pthread_rwlockattr_destroy(&lock_attr);
	return s;
}

static void store_free(struct file_store *s)
{
	file_window_release(&s->window);
	file_window_release(&s->indexer_window);
	file_index_view_free(s->view);
	file_index_close(s->index);
	file_segment_put(&s->segments, s->last);
	file_segments_release(&s->segments);
	file_recent_unref(s->filling);
	file_recent_unref(s->moving);
	file_facts_release(s);
	session_rows_release(&s->sessions);
	marks_free(s->marks);
	if (s->lock_fd >= 0)
		s->io->close(s->io->arg, s->lock_fd);
	pthread_cond_destroy(&s->indexer_wake);
	pthread_cond_destroy(&s->indexer_done);
	pthread_mutex_destroy(&s->indexer_lock);
	pthread_rwlock_destroy(&s->lock);
	mem_free(s->frame);
	mem_free(s->dir);
	mem_free(s->index_dir);
	s->magic = 0;
	mem_free(s);
}

/* While a backup is restored a file says so, which is there before the first segment and goes last. */
static enum err_code check_restoring(struct file_store *s, struct err *err)
{
	char *path = mem_xprintf("%s/" RESTORING_NAME, s->dir);
	int fd = s->io->open(s->io->arg, path, FILEIO_READ);
	enum err_code code = ERR_OK;
	if (fd >= 0) {
		s->io->close(s->io->arg, fd);
		code = err_set(err, ERR_CONFLICT,
			       "%s holds a restore that has not come to its end: delete it and restore again",
			       s->dir);
	} else if (fd != -ENOENT) {
		code = err_set_errno(err, ERR_IO, -fd, "cannot open %s", path);
	}
	mem_free(path);
	return code;
}

enum err_code file_begin_restoring(struct file_store *s, struct err *err)
{
	char *path = mem_xprintf("%s/" RESTORING_NAME, s->dir);
	int fd = s->io->open(s->io->arg, path, FILEIO_WRITE | FILEIO_CREATE | FILEIO_EMPTY);
	int r = fd < 0 ? fd : s->io->fdatasync(s->io->arg, fd);
	if (fd >= 0)
		s->io->close(s->io->arg, fd);
	if (!r)
		r = s->io->sync_dir(s->io->arg, s->dir);
	enum err_code code = r ? err_set_errno(err, ERR_IO, -r, "cannot make %s", path) : ERR_OK;
	mem_free(path);
	return code;
}

static enum err_code file_restored(struct storage *storage, struct err *err)
{
	struct file_store *s = file_store_of(storage);
	char *path = mem_xprintf("%s/" RESTORING_NAME, s->dir);
	int r = s->io->unlink(s->io->arg, path);
	if (!r)
		r = s->io->sync_dir(s->io->arg, s->dir);
	mem_free(path);
	return r ? err_set_errno(err, ERR_IO, -r, "cannot take the mark of restoring out of %s", s->dir) : ERR_OK;
}

enum err_code file_open_with(const struct storage_config *config, const struct file_options *options,
			     struct storage **ret, struct err *err)
{
	must(config);
	must(ret);
	if (config->location.n == 0)
		return err_set(err, ERR_INVALID, "the file backend needs a directory: file:DIR");
	struct file_store *s = store_new(config, options);
	enum err_code code = s->read_only ? ERR_OK : make_dir(s, err);
	if (!code)
		code = file_lock(s, config->address, err);
	if (!code)
		code = check_restoring(s, err);
	if (!code)
		code = file_recover(s, err);
	if (code) {
		store_free(s);
		return code;
	}
	file_indexer_start(s);
	log_info("journal opened", LOG_STR("directory", s->dir), LOG_U64("head", atomic_load(&s->head)),
		 LOG_U64("segments", s->segments.count));
	*ret = &s->base;
	return ERR_OK;
}

static enum err_code file_open(const struct storage_config *config, struct storage **ret, struct err *err)
{
	return file_open_with(config, &file_options_default, ret, err);
}

static void file_close(struct storage *storage)
{
	struct file_store *s = file_store_of(storage);
	file_indexer_stop(s);
	if (!s->read_only) {
		struct err err = {0}, mark_err = {0};
		if (file_index_now(storage, &err))
			log_warn("the index lags behind the log, the next start reads on", LOG_ERR(&err));
		/* A mark of a clean stop says that the log is as it was written; after a failure it is not
		 * known, and the next start looks. */
		if (!s->failed.code && file_put_clean(s, &mark_err))
			log_warn("the next start recovers as after a crash", LOG_ERR(&mark_err));
	}
	store_free(s);
}

void file_abandon(struct storage *storage)
{
	struct file_store *s = file_store_of(storage);
	file_indexer_stop(s);
	store_free(s);
}

static enum err_code file_session_beat(struct storage *storage, enum storage_beat beat,
				       struct storage_session *sessions, size_t count, struct err *err)
{
	(void)err;
	session_rows_beat(&file_store_of(storage)->sessions, beat, sessions, count);
	return ERR_OK;
}

static void file_head(struct storage *storage, struct storage_head *ret)
{
	struct file_store *s = file_store_of(storage);
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	memcpy(ret->journal_id, s->journal_id, sizeof(ret->journal_id));
	ret->head = atomic_load(&s->head);
	ret->last_commit = s->last_commit;
	must(pthread_rwlock_unlock(&s->lock) == 0);
}

static enum err_code file_reader_open(struct storage *storage, struct storage_reader **ret, struct err *err)
{
	struct file_store *s = file_store_of(storage);
	struct file_reader *r = mem_xalloc(sizeof(*r));
	r->base.storage = storage;
	r->magic = FILE_READER_MAGIC;
	r->store = s;
	file_window_init(&r->window, &s->segments);
	enum err_code code = s->index ? file_index_view_new(s->index, &r->view, err) : ERR_OK;
	if (code)
		mem_free(r);
	else
		*ret = &r->base;
	return code;
}

static void file_reader_close(struct storage_reader *reader)
{
	struct file_reader *r = (struct file_reader *)reader;
	must(r->magic == FILE_READER_MAGIC);
	file_window_release(&r->window);
	file_index_view_free(r->view);
	r->magic = 0;
	mem_free(r);
}

const struct storage_ops storage_file = {
	.name = "file",
	.open = file_open,
	.close = file_close,
	.head = file_head,
	.lookup = file_lookup,
	.append = file_append,
	.session_beat = file_session_beat,
	.reader_open = file_reader_open,
	.reader_close = file_reader_close,
	.read = file_read,
	.snapshot = file_snapshot,
	.list = file_list,
	.stat = file_stat,
	.unit = file_unit,
	.close_unit = file_close_unit,
	.remove = file_remove,
	.tile_put = file_tile_put,
	.tile_get = file_tile_get,
	.directory = file_directory,
	.restored = file_restored,
};
