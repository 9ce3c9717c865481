/* What only some backends have: those that several processes write to, and that keep a schema. A part of
 * storage.h, which includes it; in the tables of the others these are NULL. */
#ifndef CAIRN_STORAGE_SHARED_H
#define CAIRN_STORAGE_SHARED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct storage;
struct storage_config;

/* Waits until the log goes beyond `known`, for at most timeout_ms; *ret_head is how far it goes, storage_head()
 * and reads know of it. An error (the backend cannot be reached) comes after the time, too. One thread, not the
 * sequencer's; appends of this process are told to the others by it. ERR_UNSUPPORTED at once: nobody else
 * writes. */
typedef enum err_code storage_watch_fn(struct storage *s, uint64_t known, int64_t timeout_ms, uint64_t *ret_head,
				       struct err *err);
/* Before closing: a wait ends, and no other begins. Any thread. */
typedef void storage_watch_end_fn(struct storage *s);
/* Can it be reached, as far as is known? False: err says why not. Any thread, never blocks. */
typedef bool storage_ready_fn(struct storage *s, struct err *err);

enum storage_migrate { STORAGE_MIGRATE_STATUS, STORAGE_MIGRATE_DRY_RUN, STORAGE_MIGRATE_UP };
/* Brings the backend's schema up to this program, or only says (lines of text, in *out) what there is to do. */
typedef enum err_code storage_migrate_fn(const struct storage_config *config, enum storage_migrate what,
					 struct buf *out, struct err *err);

/* Where the store keeps its files, for what else belongs to this journal alone. Lives as long as the store. */
typedef const char *storage_directory_fn(struct storage *s);
/* May other processes append to it, too? */
typedef bool storage_is_shared_fn(struct storage *s);
/* A store that is opened with config.restore must be empty (ERR_CONFLICT), and nobody else can open it until this
 * says that all is there: from then on it is a journal like any other. */
typedef enum err_code storage_restored_fn(struct storage *s, struct err *err);
/* Of a store opened with config.accept_loss, which is refused to others as long as acknowledged history is missing:
 * from which position on. ERR_NOT_FOUND: none is. storage_restored() opens it to others again. */
typedef enum err_code storage_lost_from_fn(struct storage *s, uint64_t *ret, struct err *err);

storage_watch_fn storage_watch;
storage_watch_end_fn storage_watch_end;
storage_ready_fn storage_ready;
/* ERR_UNSUPPORTED: the backend of this URI has no schema. */
enum err_code storage_migrate(const char *uri, enum storage_migrate what, struct buf *out, struct err *err);

/* NULL: it has none. */
storage_directory_fn storage_directory;
storage_is_shared_fn storage_is_shared;
storage_restored_fn storage_restored;
storage_lost_from_fn storage_lost_from;

#endif
