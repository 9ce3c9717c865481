#include <config.h>

#include "fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/log.h"

static const char *const streams[] = {"cart|1", "cart|2", "$acts", "order|1"};

void fault_init(struct fault *f, uint64_t seed)
{
	*f = (struct fault){.seed = seed};
	log_setup(LOG_OFF, LOG_LOGFMT);
	f->disk = simdisk_new(seed);
	/* LMDB syncs for real: where there is a file system in memory, that costs nothing. */
	bool shm = access("/dev/shm", W_OK) == 0;
	snprintf(f->index_dir, sizeof(f->index_dir), "%s/cairn-fault.XXXXXX", shm ? "/dev/shm" : "/tmp");
	cr_assert(mkdtemp(f->index_dir), "cannot make %s", f->index_dir);
	f->options = file_options_default;
	f->options.io = simdisk_io(f->disk);
	f->options.index_dir = f->index_dir;
	f->options.index_by_hand = true;
	f->options.segment_bytes = 4096 + 4096 * simdisk_random(f->disk, 4);
	f->options.recent_records = 10 + simdisk_random(f->disk, 60);
}

void fault_delete_index(struct fault *f)
{
	cr_assert_eq(file_index_delete(f->index_dir, &f->err), ERR_OK, "%s", f->err.text);
}

static void forget_last(struct fault *f)
{
	f->n--;
	mem_free((void *)(uintptr_t)f->records[f->n].bytes.p);
	mem_free((void *)(uintptr_t)f->records[f->n].stream.p);
}

void fault_release(struct fault *f)
{
	fault_drop(f);
	while (f->n > 0)
		forget_last(f);
	mem_free(f->records);
	simdisk_free(f->disk);
	fault_delete_index(f);
	rmdir(f->index_dir);
}

static enum err_code try_open(struct fault *f)
{
	struct storage_config config = {.location = SPAN("sim"), .clock = &clock_system};
	must(!f->s);
	f->err = (struct err){0};
	return file_open_with(&config, &f->options, &f->s, &f->err);
}

enum err_code fault_open(struct fault *f)
{
	enum err_code code = try_open(f);
	if (!code) {
		simdisk_pause(f->disk, true);
		fault_check(f);
		simdisk_pause(f->disk, false);
	}
	return code;
}

void fault_must_open(struct fault *f)
{
	enum err_code code = fault_open(f);
	cr_assert_eq(code, ERR_OK, "seed %llu: %s", (unsigned long long)f->seed, f->err.text);
}

void fault_close(struct fault *f)
{
	storage_close(f->s);
	f->s = NULL;
}

void fault_drop(struct fault *f)
{
	if (f->s)
		file_abandon(f->s);
	f->s = NULL;
}

static uint64_t next_sequence(const struct fault *f, struct span stream)
{
	for (size_t i = f->n; i > 0; i--)
		if (span_eq(f->records[i - 1].stream, stream))
			return f->records[i - 1].sequence + 1;
	return 1;
}

static void add(struct fault *f, size_t data_bytes)
{
	struct fault_record r = {0};
	struct buf bytes;
	struct record_place place;
	const char *name = streams[simdisk_random(f->disk, ARRAY_LEN(streams))];
	uint8_t *data = mem_xalloc(data_bytes + 1);
	for (size_t i = 0; i < data_bytes; i++)
		data[i] = (uint8_t)("CFrm\x0a"[simdisk_random(f->disk, 5)]);
	r.stream = span_of(mem_xstrdup(name), strlen(name));
	r.sequence = next_sequence(f, r.stream);
	put_be64(r.id, ++f->next_id);
	struct record_new fresh = {.kind = RECORD_EVENT,
				   .stream = r.stream,
				   .data = span_of(data, data_bytes),
				   .last_of_append = true};
	memcpy(fresh.id, r.id, sizeof(r.id));
	buf_init(&bytes, LIMIT_RECORD_BYTES);
	cr_assert_eq(record_encode(&bytes, &fresh, &place, &f->err), ERR_OK);
	record_patch(bytes.p, &place, f->n, r.sequence, (struct wall_time){(int64_t)f->n});
	size_t n;
	uint8_t *p = buf_detach(&bytes, &n);
	r.bytes = span_of(p, n);
	mem_free(data);
	if (f->n == f->cap) {
		f->cap = f->cap ? 2 * f->cap : 64;
		f->records = mem_xrealloc(f->records, f->cap * sizeof(*f->records));
	}
	f->records[f->n++] = r;
}

enum storage_outcome fault_append(struct fault *f, size_t count, size_t data_bytes)
{
	struct storage_record *batch = mem_xalloc(count * sizeof(*batch) + 1);
	size_t head = f->n;
	must(f->unknown == 0);
	for (size_t i = 0; i < count; i++)
		add(f, data_bytes); /* may move the records: pointers to them are taken below */
	for (size_t i = 0; i < count; i++) {
		const struct fault_record *r = &f->records[head + i];
		batch[i] = (struct storage_record){.bytes = r->bytes,
						   .position = head + i,
						   .sequence = r->sequence,
						   .kind = RECORD_EVENT,
						   .stream = r->stream,
						   .id = r->id,
						   .commit_time = {(int64_t)(head + i)},
						   .last_of_append = true};
	}
	f->err = (struct err){0};
	enum storage_outcome outcome = storage_append(f->s, head, batch, count, &f->err);
	mem_free(batch);
	if (outcome == STORAGE_FAILED || outcome == STORAGE_UNKNOWN)
		f->unknown = count;
	else
		while (outcome != STORAGE_OK && f->n > head)
			forget_last(f);
	return outcome;
}

/* The whole log, record by record. */
static void check_log(struct fault *f, struct storage_reader *r, uint64_t head)
{
	struct storage_query q = {
		.include_system = true, .below_position = UINT64_MAX, .max_bytes = 64 * KIB};
	struct storage_page page = {0};
	struct buf out;
	uint64_t at = 0;
	buf_init(&out, 4 * MIB);
	do {
		struct span entry, whole;
		buf_clear(&out);
		enum err_code code = storage_read(r, &q, &out, &page, &f->err);
		cr_assert_eq(code, ERR_OK, "seed %llu: %s", (unsigned long long)f->seed, f->err.text);
		struct span run = buf_span(&out);
		while (record_next(&run, &entry, &whole, NULL) == ERR_OK) {
			cr_assert_lt(at, f->n);
			cr_assert(span_eq(whole, f->records[at].bytes),
				  "seed %llu: record %llu is another one", (unsigned long long)f->seed,
				  (unsigned long long)at);
			at++;
		}
		q.from = page.next;
	} while (!page.end);
	cr_assert_eq(at, head);
	buf_release(&out);
}

static void check_facts(struct fault *f, uint64_t head)
{
	struct arena arena;
	struct storage_stream_fact facts[ARRAY_LEN(streams)];
	struct storage_id_fact ids[3];
	uint64_t at, count[ARRAY_LEN(streams)] = {0};
	arena_init(&arena, MIB);
	memset(ids, 0, sizeof(ids));
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		facts[i] = (struct storage_stream_fact){.name = span_str(streams[i])};
		for (size_t j = 0; j < head; j++)
			count[i] += span_eq(f->records[j].stream, facts[i].name);
	}
	for (size_t i = 0; i + 1 < ARRAY_LEN(ids) && head > 0; i++)
		memcpy(ids[i].id, f->records[simdisk_random(f->disk, head)].id, RECORD_ID_BYTES);
	put_be64(ids[2].id, f->next_id + 1);
	enum err_code code =
		storage_lookup(f->s, facts, ARRAY_LEN(streams), ids, ARRAY_LEN(ids), &arena, &at, &f->err);
	cr_assert_eq(code, ERR_OK, "seed %llu: %s", (unsigned long long)f->seed, f->err.text);
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		cr_assert_eq(facts[i].sequence, count[i], "seed %llu: %s has sequence %llu instead of %llu",
			     (unsigned long long)f->seed, streams[i], (unsigned long long)facts[i].sequence,
			     (unsigned long long)count[i]);
		cr_assert_eq(facts[i].live_records, count[i]);
	}
	for (size_t i = 0; i + 1 < ARRAY_LEN(ids) && head > 0; i++) {
		cr_assert(ids[i].exists, "seed %llu: an id is not known", (unsigned long long)f->seed);
		cr_assert(memcmp(f->records[ids[i].position].id, ids[i].id, RECORD_ID_BYTES) == 0);
	}
	cr_assert(!ids[2].exists);
	arena_release(&arena);
}

/* Each stream by the index, in order. */
static void check_streams(struct fault *f, struct storage_reader *r, uint64_t head)
{
	for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
		struct storage_query q = {.source = STORAGE_STREAM,
					  .name = span_str(streams[i]),
					  .below_position = UINT64_MAX,
					  .max_bytes = MIB};
		struct storage_page page;
		struct buf out;
		size_t at = 0;
		buf_init(&out, 4 * MIB);
		cr_assert_eq(storage_read(r, &q, &out, &page, &f->err), ERR_OK, "%s", f->err.text);
		struct span run = buf_span(&out), entry, whole;
		while (record_next(&run, &entry, &whole, NULL) == ERR_OK) {
			while (at < head && !span_eq(f->records[at].stream, q.name))
				at++;
			cr_assert_lt(at, head);
			cr_assert(span_eq(whole, f->records[at++].bytes));
		}
		while (at < head && !span_eq(f->records[at].stream, q.name))
			at++;
		cr_assert(!page.end || at == head, "seed %llu: %s misses records",
			  (unsigned long long)f->seed, streams[i]);
		buf_release(&out);
	}
}

void fault_check(struct fault *f)
{
	struct storage_head head;
	struct storage_reader *r;
	storage_head(f->s, &head);
	cr_assert(head.head == f->n || head.head == f->n - f->unknown,
		  "seed %llu: %llu records, acknowledged were %zu, unknown are %zu",
		  (unsigned long long)f->seed, (unsigned long long)head.head, f->n - f->unknown, f->unknown);
	while (f->n > head.head)
		forget_last(f);
	f->unknown = 0;
	cr_assert_eq(storage_reader_open(f->s, &r, &f->err), ERR_OK, "%s", f->err.text);
	check_log(f, r, head.head);
	check_streams(f, r, head.head);
	storage_reader_close(r);
	check_facts(f, head.head);
}
