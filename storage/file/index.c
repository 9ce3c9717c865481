/* Opening and deleting the index, and views of it. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/index_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"

#define MAX_READERS 512
#define CONDEMNED "damaged"

enum err_code file_index_fail(struct err *err, int r, const char *what)
{
	must(r != 0);
	if (r == ENOSPC || r == EDQUOT)
		return err_set_errno(err, ERR_FULL, r, "index: cannot %s", what);
	if (r > 0)
		return err_set_errno(err, ERR_IO, r, "index: cannot %s", what);
	return err_set(err, r == MDB_MAP_FULL ? ERR_LIMIT : ERR_CORRUPT, "index: cannot %s: %s", what,
		       mdb_strerror(r));
}

static const char *const names[] = {
	"meta",      "streams",   "categories", "stream_chunks", "category_chunks",
	"sequences", "snapshots", "ids",        "live",
	"acts",      "places"};

static int open_databases(struct index *index, bool read_only)
{
	MDB_dbi *const handles[] = {&index->meta,
				    &index->names[INDEX_STREAM],
				    &index->names[INDEX_CATEGORY],
				    &index->chunks[INDEX_STREAM],
				    &index->chunks[INDEX_CATEGORY],
				    &index->sequences,
				    &index->snapshots,
				    &index->ids,
				    &index->live,
				    &index->acts,
				    &index->places};
	_Static_assert(ARRAY_LEN(handles) == ARRAY_LEN(names), "one name a database");
	MDB_txn *txn;
	int r = mdb_txn_begin(index->env, NULL, read_only ? MDB_RDONLY : 0, &txn);
	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(handles) && !r; i++)
		r = mdb_dbi_open(txn, names[i], read_only ? 0 : MDB_CREATE, handles[i]);
	if (r) {
		mdb_txn_abort(txn);
		return r;
	}
	return mdb_txn_commit(txn);
}

enum err_code file_index_open(const char *dir, size_t map_bytes, bool read_only, struct index **ret,
			      struct err *err)
{
	must(dir);
	if (!read_only && mkdir(dir, 0750) < 0 && errno != EEXIST)
		return err_set_errno(err, ERR_IO, errno, "cannot make %s", dir);
	struct index *index = mem_xalloc(sizeof(*index));
	/* Who lets it grow must not starve behind those who look. */
	pthread_rwlockattr_t attr;
	must(pthread_rwlockattr_init(&attr) == 0);
	must(pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
	must(pthread_rwlock_init(&index->map_lock, &attr) == 0);
	pthread_rwlockattr_destroy(&attr);
	must(pthread_mutex_init(&index->write_lock, NULL) == 0);
	index->map_bytes = map_bytes;
	unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | (read_only ? MDB_RDONLY : 0);
	int r = mdb_env_create(&index->env);
	if (!r)
		r = mdb_env_set_maxdbs(index->env, ARRAY_LEN(names));
	if (!r)
		r = mdb_env_set_maxreaders(index->env, MAX_READERS);
	if (!r)
		r = mdb_env_set_mapsize(index->env, index->map_bytes);
	if (!r)
		r = mdb_env_open(index->env, dir, flags, 0640);
	if (!r) {
		int dead;
		mdb_reader_check(index->env, &dead);
		r = open_databases(index, read_only);
	}
	if (r) {
		enum err_code code = r > 0 && r != ENOENT ? ERR_IO : ERR_CORRUPT;
		err_set(err, code, "cannot open the index in %s: %s", dir, mdb_strerror(r));
		file_index_close(index);
		return code;
	}
	/* A file that an earlier run has let grow is larger than the first size. */
	MDB_envinfo info;
	mdb_env_info(index->env, &info);
	index->map_bytes = info.me_mapsize;
	*ret = index;
	return ERR_OK;
}

void file_index_close(struct index *index)
{
	if (!index)
		return;
	if (index->env)
		mdb_env_close(index->env);
	pthread_rwlock_destroy(&index->map_lock);
	pthread_mutex_destroy(&index->write_lock);
	mem_free(index);
}

void file_index_condemn(const char *dir)
{
	char *path = mem_xprintf("%s/" CONDEMNED, dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	if (fd >= 0)
		close(fd);
	else
		log_warn("the next start will not know that the index is damaged: delete it by hand before",
			 LOG_STR("index", dir), LOG_STR("error", strerror(errno)));
	mem_free(path);
}

bool file_index_is_condemned(const char *dir)
{
	char *path = mem_xprintf("%s/" CONDEMNED, dir);
	bool is = access(path, F_OK) == 0;
	mem_free(path);
	return is;
}

enum err_code file_index_delete(const char *dir, struct err *err)
{
	/* The mark of its damage goes last: a start that dies in between begins again. */
	static const char *const files[] = {"data.mdb", "lock.mdb", CONDEMNED};
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char *path = mem_xprintf("%s/%s", dir, files[i]);
		int r = unlink(path) < 0 && errno != ENOENT ? errno : 0;
		mem_free(path);
		if (r)
			return err_set_errno(err, ERR_IO, r, "cannot delete the index in %s", dir);
	}
	return ERR_OK;
}

enum err_code file_index_view_new(struct index *index, struct index_view **ret, struct err *err)
{
	must(index);
	struct index_view *v = mem_xalloc(sizeof(*v));
	v->index = index;
	must(pthread_rwlock_rdlock(&index->map_lock) == 0);
	int r = mdb_txn_begin(index->env, NULL, MDB_RDONLY, &v->txn);
	if (!r)
		mdb_txn_reset(v->txn);
	must(pthread_rwlock_unlock(&index->map_lock) == 0);
	if (r) {
		mem_free(v);
		return file_index_fail(err, r, "begin to read");
	}
	*ret = v;
	return ERR_OK;
}

void file_index_view_free(struct index_view *v)
{
	if (!v)
		return;
	must(!v->begun);
	mdb_txn_abort(v->txn);
	mem_free(v);
}

enum err_code file_index_view_begin(struct index_view *v, struct err *err)
{
	must(!v->begun);
	must(pthread_rwlock_rdlock(&v->index->map_lock) == 0);
	int r = mdb_txn_renew(v->txn);
	if (r) {
		must(pthread_rwlock_unlock(&v->index->map_lock) == 0);
		return file_index_fail(err, r, "begin to read");
	}
	v->begun = true;
	struct index_mark mark;
	enum err_code code = file_index_mark_get(v, &mark, err);
	v->below = code ? 0 : mark.position + 1;
	if (code && code != ERR_NOT_FOUND) {
		file_index_view_end(v);
		return code;
	}
	return ERR_OK;
}

void file_index_view_end(struct index_view *v)
{
	must(v->begun);
	mdb_txn_reset(v->txn);
	v->begun = false;
	must(pthread_rwlock_unlock(&v->index->map_lock) == 0);
}

uint64_t file_index_view_below(const struct index_view *v)
{
	must(v->begun);
	return v->below;
}
