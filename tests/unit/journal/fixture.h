/* What the tests of src/journal share: a clock by hand, a scripted storage, short forms for appends. */
#ifndef CAIRN_TESTS_JOURNAL_FIXTURE_H
#define CAIRN_TESTS_JOURNAL_FIXTURE_H

#include "base/arena.h"
#include "base/random.h"
#include "journal/append.h"
#include "journal/journal.h"

/* ---- a clock by hand ------------------------------------------------------------------------- */

struct hand_clock {
	struct clock clock;
	int64_t mono_us, wall_us;
};
void hand_clock_init(struct hand_clock *h);

/* ---- a scripted storage ---------------------------------------------------------------------- */

/* Memory behind a script: the next appends answer what the script says, in order; then OK. */
struct fake {
	struct storage base;
	struct storage *inner;
	bool keep_inner; /* it outlives this one: bench_restart() */
	enum storage_outcome script[64];
	size_t script_at, script_count;
	bool lookup_fails;         /* the next look-up fails */
	unsigned damaged_id;       /* look-ups that ask for it meet a damaged record; 0: none */
	bool beats_fail;
	bool reads_fail; /* reads find damage */
	bool shared;     /* other processes may append, too */
	bool unknown_writes;       /* UNKNOWN: written after all */
	const char *refuse_stream; /* batches with a record of it are REFUSED */
	void (*on_append)(struct fake *f, const struct storage_record *records, size_t count);
	void (*on_moved)(struct fake *f); /* what another writer does meanwhile */
	void (*after_page)(struct fake *f); /* once, after a page that is not the last */
	void *arg;
	size_t appends, lookups, last_count;
};
struct fake *fake_new(void); /* owned by whoever closes the storage */
struct fake *fake_over(const char *uri); /* another backend than memory */
void fake_script(struct fake *f, const enum storage_outcome *outcomes, size_t count);
#define FAKE_SCRIPT(f, ...)                                   \
	fake_script(f, (enum storage_outcome[]){__VA_ARGS__}, \
		    sizeof((enum storage_outcome[]){__VA_ARGS__}) / sizeof(enum storage_outcome))
/* Another writer's append, straight into the inner store: one event. */
void fake_write_behind(struct fake *f, const char *stream, unsigned id);
/* The same with any record: its id is made. */
void fake_write_record(struct fake *f, const char *stream, uint32_t kind, struct span data);

/* ---- appends --------------------------------------------------------------------------------- */

struct part { /* one stream of an append */
	const char *stream;
	enum append_expect expect;
	uint64_t sequence;
	unsigned ids[8];   /* of events; 0 ends them */
	unsigned snapshot; /* its id; 0: none */
};
struct test_request {
	struct append_request request;
	struct append_stream streams[16];
	struct append_condition conditions[16];
	struct append_record records[16][9];
	uint8_t ids[16][9][RECORD_ID_BYTES];
	char data[16][9][32];
};
void id_of(unsigned n, uint8_t ret[RECORD_ID_BYTES]);
/* Data of event n is "event N". */
void request_of(struct test_request *r, const struct part *parts, size_t part_count,
		const struct append_condition *conditions, size_t condition_count);
/* Must be well-formed. */
struct append *append_of(const struct part *parts, size_t part_count,
			 const struct append_condition *conditions, size_t condition_count);
#define PARTS(...) \
	(const struct part[]){__VA_ARGS__}, sizeof((const struct part[]){__VA_ARGS__}) / sizeof(struct part)
#define CONDITIONS(...)                                 \
	(const struct append_condition[]){__VA_ARGS__}, \
		sizeof((const struct append_condition[]){__VA_ARGS__}) / sizeof(struct append_condition)
#define APPEND(...) append_of(PARTS(__VA_ARGS__), NULL, 0)

/* ---- a journal by hand, and what came back ---------------------------------------------------- */

struct done { /* of one append */
	unsigned calls;
	struct append *append; /* a reference */
	enum err_code code;
};
void on_done(struct append *append, void *arg); /* arg: struct done */
void done_release(struct done *d);

struct got { /* of one read */
	unsigned calls;
	struct journal_page *page; /* the last; owned */
	struct err err;
};
void on_page(struct journal_read *read, struct journal_page *page, const struct err *err, void *arg);
void got_clear(struct got *g);
/* "0 1 2": positions of the page's records. */
const char *got_positions(struct got *g);

struct bench {
	struct hand_clock clock;
	struct fake *fake;
	struct journal *journal;
	struct mailbox mailbox;
};
void bench_open(struct bench *b); /* journal by hand over a fake storage */
void bench_close(struct bench *b);
/* Closes the journal and opens another one on the same log. */
void bench_restart(struct bench *b);
void bench_run(struct bench *b); /* steps and drains until nothing happens */
/* Appends and runs; the caller releases. */
void bench_append(struct bench *b, struct append *a, struct done *d);
/* A read to its next page. */
void bench_next(struct bench *b, struct journal_read *read, struct got *g);

#endif
