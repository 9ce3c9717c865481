/* What the contract tests share: the table of backends, records made and kept in a naive model that
 * answers the same questions by looking at everything. */
#ifndef CAIRN_CONTRACT_FIXTURE_H
#define CAIRN_CONTRACT_FIXTURE_H

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "storage/storage.h"

/* One row a backend; a test is given the index of its row. */
struct contract_row {
	const char *name;
	bool durable; /* what was appended is there after closing and opening */
	enum err_code (*open)(const struct storage_config *config, struct storage **ret, struct err *err);
	struct storage *(*wrap)(struct storage *inner); /* or NULL */
	bool postgres;					/* needs one: tests/contract/postgres.h */
};
extern const struct contract_row contract_rows[];
extern const size_t contract_row_count;

/* A query for all that a source gives. */
#define EVERYTHING                                             \
	(struct storage_query)                                 \
	{                                                      \
		.below_position = UINT64_MAX, .max_bytes = MIB \
	}

struct model_record {
	struct span stream; /* owned */
	uint32_t kind;
	uint64_t sequence;
	uint8_t id[RECORD_ID_BYTES];
	int64_t time_us;
	bool last_of_append;
	struct span bytes; /* owned */
	struct storage_session_change session;
	bool has_session;
	struct record_act act;
	bool hidden, erased, removed; /* what acts before it and removals have made of it */
};

struct fixture {
	const struct contract_row *row;
	char dir[64];
	struct storage *s;
	struct storage_reader *r;
	struct arena arena;
	struct err err;
	struct model_record *records;
	size_t n, cap;
	size_t batch_at; /* the first that is not appended yet */
	uint64_t next_id;
	uint64_t seed;
};

void fixture_init(struct fixture *f, size_t row);
void fixture_release(struct fixture *f);
void fixture_reopen(struct fixture *f);

uint64_t fixture_random(struct fixture *f, uint64_t below);

/* Adds a record to the batch. A snapshot names the stream's newest sequence, or `sequence` if not 0. */
void batch_add(struct fixture *f, const char *stream, uint32_t kind, size_t data_bytes, uint64_t sequence);
/* The last record of the batch begins or ends a session. */
void batch_session(struct fixture *f, const struct storage_session_change *change);
/* Adds an act upon the stream: TRUNCATE hides what is below from; ERASE erases [from, to], 0 and 0 all. */
void batch_add_act(struct fixture *f, const char *stream, uint32_t kind, uint64_t from, uint64_t to,
		   bool keep_snapshots);
/* Removes what `pick` says of the unit that holds the position: 0 nothing, 1 the body, 2 the record. Acts, and of
 * a stream the newest record with a sequence, are kept whatever it says. */
typedef int fixture_pick(struct fixture *f, size_t position);
void fixture_remove(struct fixture *f, size_t position, fixture_pick *pick);
/* Closes, deletes the index, opens. */
void fixture_reopen_unindexed(struct fixture *f);
/* Appends the batch as one and expects it to succeed. */
void batch_append(struct fixture *f);
/* Tries to; on anything but STORAGE_OK the model forgets the batch. */
enum storage_outcome batch_try(struct fixture *f, uint64_t expected_head, struct err *err);
void append_one(struct fixture *f, const char *stream, uint32_t kind);

uint64_t model_sequence(const struct fixture *f, struct span stream, size_t below);

/* Asks storage and model the same, following pages to the end; fails the test where they differ. */
void check_read(struct fixture *f, const struct storage_query *q);
void check_facts(struct fixture *f, struct span stream);
void check_snapshot(struct fixture *f, struct span stream, uint64_t at_sequence, uint64_t below);

/* CONTRACT(suite, name) { ... f-> ... } runs once a row; CONTRACT_DURABLE leaves the others out. */
struct criterion_test_params contract_params(bool durable_only);
#define CONTRACT_ROWS(suite_, name_, durable_)                  \
	static void suite_##_##name_##_body(struct fixture *f); \
	ParameterizedTestParameters(suite_, name_)              \
	{                                                       \
		return contract_params(durable_);               \
	}                                                       \
	ParameterizedTest(size_t *row, suite_, name_)           \
	{                                                       \
		struct fixture f;                               \
		fixture_init(&f, *row);                         \
		suite_##_##name_##_body(&f);                    \
		fixture_release(&f);                            \
	}                                                       \
	static void suite_##_##name_##_body(struct fixture *f)
#define CONTRACT(suite_, name_) CONTRACT_ROWS(suite_, name_, false)
#define CONTRACT_DURABLE(suite_, name_) CONTRACT_ROWS(suite_, name_, true)

#endif
