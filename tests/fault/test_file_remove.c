/* Cuts of the power, deaths of the process and errors while records are removed: whatever comes of it, a record
 * is as it was or as it was to be, no other has changed, and every leaf is what it was. */
#include <config.h>

#include "fault.h"
#include "tests/unit/scale.h"

struct removal {
	struct storage_removal list[400];
	size_t n;
	uint64_t segment_end;
};

static const struct storage_removal *listed(const struct removal *r, uint64_t position)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->list[i].position == position)
			return &r->list[i];
	return NULL;
}

static bool is_newest(const struct fault *f, size_t i)
{
	for (size_t k = i + 1; k < f->n; k++)
		if (span_eq(f->records[k].stream, f->records[i].stream))
			return false;
	return true;
}

/* Of the first segment about half, some of them only their bodies. */
static void choose(struct fault *f, struct storage_reader *reader, struct removal *r)
{
	struct storage_unit unit;
	r->n = 0;
	cr_assert_eq(storage_unit(reader, 0, &unit, &f->err), ERR_OK, "%s", f->err.text);
	cr_assert(!unit.open);
	r->segment_end = unit.end;
	for (uint64_t i = unit.first; i < unit.end; i++) {
		uint64_t what = simdisk_random(f->disk, 4);
		if (what > 1 || is_newest(f, i))
			continue;
		cr_assert_lt(r->n, ARRAY_LEN(r->list));
		r->list[r->n++] = (struct storage_removal){i, what == 1};
	}
}

static void form_of(const struct fault_record *record, bool body_only, struct buf *out)
{
	struct span run = record->bytes, entry;
	struct record_view view;
	cr_assert_eq(record_next(&run, &entry, NULL, NULL), ERR_OK);
	cr_assert_eq(record_decode(entry, &view, NULL), ERR_OK);
	buf_clear(out);
	cr_assert_eq(body_only ? record_put_erased(out, &view) : record_put_removed(out, &view), ERR_OK);
}

/* Every record, as stored. *ret_done: how many of those to be removed are. */
static void check_raw(struct fault *f, const struct removal *r, size_t *ret_done)
{
	struct storage_query q = {.include_system = true,
				  .raw = true,
				  .below_position = UINT64_MAX,
				  .max_bytes = 8 * MIB};
	struct storage_page page;
	struct storage_reader *reader;
	struct buf out, form;
	struct span entry, whole;
	size_t at = 0;
	*ret_done = 0;
	buf_init(&out, 16 * MIB);
	buf_init(&form, 4 * MIB);
	cr_assert_eq(storage_reader_open(f->s, &reader, &f->err), ERR_OK, "%s", f->err.text);
	cr_assert_eq(storage_read(reader, &q, &out, &page, &f->err), ERR_OK, "%s", f->err.text);
	cr_assert(page.end);
	struct span run = buf_span(&out);
	for (; record_next(&run, &entry, &whole, NULL) == ERR_OK; at++) {
		const struct storage_removal *it = listed(r, at);
		cr_assert_lt(at, f->n);
		if (span_eq(whole, f->records[at].bytes))
			continue;
		cr_assert(it, "seed %llu: record %zu has changed", (unsigned long long)f->seed, at);
		form_of(&f->records[at], it->body_only, &form);
		cr_assert(span_eq(whole, buf_span(&form)), "seed %llu: record %zu is a third thing",
			  (unsigned long long)f->seed, at);
		++*ret_done;
	}
	cr_assert_eq(at, f->n);
	storage_reader_close(reader);
	buf_release(&out);
	buf_release(&form);
}

/* Streams by the index: nothing that was not to be removed is missing, and the counts are right. */
static void check_streams(struct fault *f, const struct removal *r, bool done)
{
	struct storage_reader *reader;
	struct arena arena;
	struct buf out;
	arena_init(&arena, MIB);
	buf_init(&out, 16 * MIB);
	cr_assert_eq(storage_reader_open(f->s, &reader, &f->err), ERR_OK, "%s", f->err.text);
	for (size_t i = 0; i < f->n; i++) {
		if (!is_newest(f, i))
			continue;
		struct span name = f->records[i].stream, entry;
		struct storage_query q = {.source = STORAGE_STREAM,
					  .name = name,
					  .below_position = UINT64_MAX,
					  .max_bytes = 8 * MIB};
		struct storage_page page;
		struct storage_stream_fact fact = {.name = name};
		uint64_t head, seen = 0, least = 0;
		buf_clear(&out);
		cr_assert_eq(storage_read(reader, &q, &out, &page, &f->err), ERR_OK, "%s", f->err.text);
		for (size_t k = 0; k < f->n; k++) {
			const struct storage_removal *it = listed(r, k);
			least += span_eq(f->records[k].stream, name) && (!it || it->body_only);
		}
		struct span run = buf_span(&out);
		while (record_next(&run, &entry, NULL, NULL) == ERR_OK) {
			const struct storage_removal *it = listed(r, record_position(entry));
			seen += !it || it->body_only;
		}
		cr_assert_eq(seen, least, "seed %llu: %.*s has %llu records instead of %llu",
			     (unsigned long long)f->seed, SPAN_ARG(name), (unsigned long long)seen,
			     (unsigned long long)least);
		cr_assert_eq(storage_lookup(f->s, &fact, 1, NULL, 0, &arena, &head, &f->err), ERR_OK);
		cr_assert_eq(fact.sequence, f->records[i].sequence);
		cr_assert_geq(fact.live_records, least);
		if (done)
			cr_assert_eq(fact.live_records, least);
	}
	storage_reader_close(reader);
	buf_release(&out);
	arena_release(&arena);
}

static void fill(struct fault *f)
{
	struct storage_unit unit = {.open = true};
	struct storage_reader *reader;
	fault_must_open(f);
	while (unit.open) {
		cr_assert_eq(fault_append(f, 1 + (size_t)simdisk_random(f->disk, 4),
					  (size_t)simdisk_random(f->disk, 200)),
			     STORAGE_OK, "%s", f->err.text);
		cr_assert_eq(storage_reader_open(f->s, &reader, &f->err), ERR_OK);
		cr_assert_eq(storage_unit(reader, 0, &unit, &f->err), ERR_OK, "%s", f->err.text);
		storage_reader_close(reader);
	}
}

static enum err_code open_only(struct fault *f)
{
	struct storage_config config = {.location = SPAN("sim"), .clock = &clock_system};
	f->err = (struct err){0};
	return file_open_with(&config, &f->options, &f->s, &f->err);
}

static enum err_code remove_now(struct fault *f, struct removal *r)
{
	struct storage_reader *reader;
	cr_assert_eq(storage_reader_open(f->s, &reader, &f->err), ERR_OK, "%s", f->err.text);
	if (r->segment_end == 0)
		choose(f, reader, r);
	enum err_code code = r->n ? storage_remove(reader, r->list, r->n, &f->err) : ERR_OK;
	storage_reader_close(reader);
	return code;
}

/* Cut at the n-th call of a removal, for every n until it comes through. */
Test(remove, a_cut_at_any_call_leaves_every_record_whole)
{
	size_t before = 0, after = 0;
	uint64_t first = 1;
	for (size_t made = 0; made < test_scaled(60); made++, first++) {
		struct fault f;
		fault_init(&f, first);
		fill(&f);
		struct removal r = {0};
		size_t done = 0;
		for (uint64_t n = 1;; n++) {
			simdisk_gone_at(f.disk, n + 2); /* opening a reader and asking take none or few */
			enum err_code code = remove_now(&f, &r);
			simdisk_gone_at(f.disk, 0);
			if (!code)
				break;
			cr_assert_lt(n, 1000u);
			fault_drop(&f);
			if (simdisk_random(f.disk, 3))
				simdisk_cut(f.disk);
			else
				simdisk_kill(f.disk);
			if (simdisk_random(f.disk, 3) == 0)
				fault_delete_index(&f);
			cr_assert_eq(open_only(&f), ERR_OK, "seed %llu: %s", (unsigned long long)f.seed,
				     f.err.text);
			check_raw(&f, &r, &done);
			check_streams(&f, &r, false);
			before += done == 0;
			after += done > 0;
		}
		check_raw(&f, &r, &done);
		cr_assert_eq(done, r.n, "seed %llu: %zu of %zu are removed", (unsigned long long)f.seed, done,
			     r.n);
		check_streams(&f, &r, true);
		fault_drop(&f);
		simdisk_cut_all(f.disk);
		fault_delete_index(&f);
		cr_assert_eq(open_only(&f), ERR_OK, "%s", f.err.text);
		check_raw(&f, &r, &done);
		cr_assert_eq(done, r.n, "seed %llu: what was removed is back", (unsigned long long)f.seed);
		check_streams(&f, &r, true);
		fault_release(&f);
	}
	cr_assert_gt(before, 0u);
	(void)after; /* only a cut between the rename and its sync: rare */
}

/* No room: the old segment stays, appends and reads go on. */
Test(remove, without_room_nothing_changes)
{
	struct fault f;
	fault_init(&f, 7);
	fill(&f);
	struct removal r = {0};
	size_t done;
	for (uint64_t n = 1; n < 6; n++) {
		simdisk_fail_at(f.disk, n + 2, 28 /* ENOSPC */);
		enum err_code code = remove_now(&f, &r);
		simdisk_fail_at(f.disk, 0, 0);
		if (code) {
			cr_assert(code == ERR_FULL || code == ERR_IO, "%s", f.err.text);
			check_raw(&f, &r, &done);
			cr_assert_eq(fault_append(&f, 1, 10), STORAGE_OK, "%s", f.err.text);
		}
	}
	cr_assert_eq(remove_now(&f, &r), ERR_OK, "%s", f.err.text);
	check_raw(&f, &r, &done);
	cr_assert_eq(done, r.n);
	fault_release(&f);
}
