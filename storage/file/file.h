/* The file backend's state, private to storage/file. Which thread touches what is said by group. */
#ifndef CAIRN_STORAGE_FILE_FILE_H
#define CAIRN_STORAGE_FILE_FILE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"
#include "base/must.h"
#include "storage/file/fileio.h"
#include "storage/file/index.h"
#include "storage/file/recent.h"
#include "storage/file/segment.h"
#include "storage/file/window.h"
#include "storage/marks.h"
#include "storage/sessions.h"
#include "storage/storage.h"

#define FILE_STORE_MAGIC 0x46534c31u
#define FILE_READER_MAGIC 0x46524c31u

#define FILE_SEGMENT_BYTES (64 * MIB)
#define FILE_INDEX_EVERY_MS 1000

/* What tests change: the disk, small segments, where the index is. */
struct file_options {
	const struct fileio *io;
	size_t segment_bytes;
	const char *index_dir; /* NULL: "index" in the journal's directory */
	size_t recent_bytes;   /* of log before the indexer is woken */
	size_t recent_records;
	size_t index_map_bytes; /* address space at first; it grows */
	bool index_by_hand;     /* no indexer thread: file_index_now() */
	const _Atomic int *index_fault; /* NULL, or the enum err_code with which writes of the index fail */
};
extern const struct file_options file_options_default;

enum err_code file_open_with(const struct storage_config *config, const struct file_options *options,
			     struct storage **ret, struct err *err);
/* Moves all that is durable into the index, in this thread (index_by_hand, or before the thread runs). */
enum err_code file_index_now(struct storage *s, struct err *err);
/* Frees the store without the work of a clean stop, as if the process had died. Tests. */
void file_abandon(struct storage *s);

/* The newest sequence of a stream and how many live records it has, kept for the streams used last. */
struct file_fact {
	bool exists;
	uint64_t sequence, live;
};

struct file_store {
	struct storage base;
	uint32_t magic;

	/* Set at open. */
	struct file_options options;
	const struct fileio *io;
	const struct clock *clock;
	char *dir, *index_dir;
	bool read_only;
	int lock_fd;
	bool restoring; /* a backup is to be restored into it: journal_id is given */
	struct index *index;
	struct segments segments;
	uint8_t journal_id[16];
	struct marks *marks;
	atomic_bool facts_stale;   /* records have been removed: facts are looked up anew */
	atomic_bool close_segment; /* the next append begins a new one */

	/* The sequencer's thread. */
	struct segment *last; /* being written; held */
	uint64_t last_end;    /* offset behind its last frame */
	bool last_sealed;     /* the next append begins a new segment */
	uint8_t *frame;
	size_t frame_cap;
	struct window window;
	struct index_view *view; /* NULL when there is no index (read-only, none made yet) */
	struct map facts[2];     /* newer and older half */
	struct session_rows sessions;
	struct err failed;       /* set: no appends until restart */

	/* Under lock; head also without it. */
	pthread_rwlock_t lock;
	struct recent *filling, *moving; /* moving: NULL unless the indexer is at work on it */
	struct wall_time last_commit;
	_Atomic uint64_t head;

	/* The indexer. */
	pthread_t indexer;
	bool indexer_runs;
	pthread_mutex_t indexer_lock;
	pthread_cond_t indexer_wake, indexer_done;
	bool indexer_asked, indexer_stop; /* under indexer_lock */
	struct err indexer_err;           /* the last attempt's, under indexer_lock */
	struct window indexer_window;
};

struct file_reader {
	struct storage_reader base;
	uint32_t magic;
	struct file_store *store;
	struct window window;
	struct index_view *view; /* NULL as above */
};

static inline struct file_store *file_store_of(struct storage *s)
{
	struct file_store *store = (struct file_store *)s;
	must(store->magic == FILE_STORE_MAGIC);
	return store;
}

/* lock.c: takes the directory's lock, or says who has it. */
enum err_code file_lock(struct file_store *s, const char *address, struct err *err);

/* recovery.c: brings up segments, index and the newest facts; see format.h. */
enum err_code file_recover(struct file_store *s, struct err *err);

/* file.c: makes the journal's own directory durable, before anything is in it: it may be there because an
 * operator, or a start that was cut short, has just made it. */
enum err_code file_sync_parent(struct file_store *s, struct err *err);
/* Marks the directory, durably, as one that nobody can open until file_restored(). */
enum err_code file_begin_restoring(struct file_store *s, struct err *err);

/* writer.c */
storage_append_fn file_append;
/* Makes a segment file that is whole or not there, and opens it for writing; *ret_fd. */
enum err_code file_make_segment(struct file_store *s, uint64_t number, uint64_t first, int *ret_fd,
				struct err *err);
/* The mark of a clean stop: written last, removed first. */
enum err_code file_put_clean(struct file_store *s, struct err *err);

/* facts.c */
storage_lookup_fn file_lookup;
storage_list_fn file_list;
storage_stat_fn file_stat;
/* Keeps the facts of the streams written last true. */
void file_facts_update(struct file_store *s, const struct storage_record *record);
void file_facts_release(struct file_store *s);

/* What the record does to its stream; false: nothing. */
bool file_act_of(const struct storage_record *record, struct record_act *ret);

/* compact.c */
storage_unit_fn file_unit;
storage_close_unit_fn file_close_unit;
storage_remove_fn file_remove;

/* tiles.c */
storage_tile_put_fn file_tile_put;
storage_tile_get_fn file_tile_get;
storage_directory_fn file_directory;

/* query.c */
storage_read_fn file_read;
storage_snapshot_fn file_snapshot;
/* Reads one record and checks it. */
enum err_code file_fetch(struct window *w, uint64_t position, struct window_record *ret, struct err *err);

/* indexer.c */
void file_indexer_start(struct file_store *s);
void file_indexer_stop(struct file_store *s); /* moves what is left */
/* Wakes it, or waits for it when the tables have grown too large. */
enum err_code file_indexer_keep_up(struct file_store *s, struct err *err);
/* Waits until all that is below the position is in the index. ERR_UNAVAILABLE: it did not come in time. */
enum err_code file_indexer_wait(struct file_store *s, uint64_t below, struct err *err);
/* Moves a whole table; for recovery, which runs before the thread. */
enum err_code file_index_table(struct file_store *s, const struct recent *recent, struct err *err);

#endif
