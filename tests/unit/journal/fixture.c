/* What the tests of src/journal share. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"

/* ---- a clock by hand ------------------------------------------------------------------------- */

static struct mono_time hand_mono(void *arg)
{
	return (struct mono_time){((struct hand_clock *)arg)->mono_us};
}

static struct wall_time hand_wall(void *arg)
{
	return (struct wall_time){((struct hand_clock *)arg)->wall_us};
}

void hand_clock_init(struct hand_clock *h)
{
	h->clock = (struct clock){hand_mono, hand_wall, h};
	h->mono_us = 1000000;
	h->wall_us = 1700000000000000;
}

/* ---- a scripted storage ---------------------------------------------------------------------- */

static struct fake *fake_of(struct storage *s)
{
	return CONTAINER_OF(s, struct fake, base);
}

static void fake_close(struct storage *s)
{
	if (!fake_of(s)->keep_inner)
		storage_close(fake_of(s)->inner);
	mem_free(fake_of(s));
}

static void fake_head(struct storage *s, struct storage_head *ret)
{
	storage_head(fake_of(s)->inner, ret);
}

static enum err_code fake_lookup(struct storage *s, struct storage_stream_fact *streams, size_t stream_count,
				 struct storage_id_fact *ids, size_t id_count, struct arena *a,
				 uint64_t *ret_head, struct err *err)
{
	struct fake *f = fake_of(s);
	f->lookups++;
	if (f->lookup_fails) {
		f->lookup_fails = false;
		return err_set(err, ERR_IO, "fake look-up");
	}
	uint8_t damaged[RECORD_ID_BYTES];
	id_of(f->damaged_id, damaged);
	for (size_t i = 0; i < id_count && f->damaged_id; i++)
		if (memcmp(ids[i].id, damaged, RECORD_ID_BYTES) == 0)
			return err_set(err, ERR_CORRUPT, "fake damage");
	return storage_lookup(f->inner, streams, stream_count, ids, id_count, a, ret_head, err);
}

static bool has_stream(const struct storage_record *records, size_t count, const char *name)
{
	for (size_t i = 0; name && i < count; i++)
		if (span_eq_str(records[i].stream, name))
			return true;
	return false;
}

static enum storage_outcome fake_append(struct storage *s, uint64_t expected_head,
					const struct storage_record *records, size_t count, struct err *err)
{
	struct fake *f = fake_of(s);
	f->appends++;
	f->last_count = count;
	if (f->on_append)
		f->on_append(f, records, count);
	if (has_stream(records, count, f->refuse_stream)) {
		err_set(err, ERR_INTERNAL, "fake refuses %s", f->refuse_stream);
		return STORAGE_REFUSED;
	}
	enum storage_outcome outcome =
		f->script_at < f->script_count ? f->script[f->script_at++] : STORAGE_OK;
	if (outcome == STORAGE_MOVED && f->on_moved)
		f->on_moved(f);
	if (outcome == STORAGE_OK || (outcome == STORAGE_UNKNOWN && f->unknown_writes)) {
		enum storage_outcome inner = storage_append(f->inner, expected_head, records, count, err);
		if (outcome == STORAGE_OK)
			return inner;
	}
	if (outcome == STORAGE_FULL)
		err_set(err, ERR_FULL, "fake disk is full");
	else if (outcome != STORAGE_MOVED)
		err_set(err, ERR_IO, "fake disk broke");
	return outcome;
}

static enum err_code fake_session_beat(struct storage *s, enum storage_beat beat,
				       struct storage_session *sessions, size_t count, struct err *err)
{
	struct fake *f = fake_of(s);
	if (f->beats_fail)
		return err_set(err, ERR_IO, "fake beat");
	return storage_session_beat(f->inner, beat, sessions, count, err);
}

static enum err_code fake_reader_open(struct storage *s, struct storage_reader **ret, struct err *err)
{
	/* The inner store's reader, but of this store, as the wrapper asserts. */
	struct storage_reader **reader = mem_xalloc(sizeof(struct storage_reader) + sizeof(*reader));
	struct storage_reader *mine = (void *)(reader + 1);
	enum err_code code = storage_reader_open(fake_of(s)->inner, reader, err);
	must(code == ERR_OK);
	mine->storage = s;
	*ret = mine;
	return ERR_OK;
}

static struct storage_reader *inner_of(struct storage_reader *r)
{
	return ((struct storage_reader **)(void *)r)[-1];
}

static void fake_reader_close(struct storage_reader *r)
{
	storage_reader_close(inner_of(r));
	mem_free((struct storage_reader **)(void *)r - 1);
}

static enum err_code fake_read(struct storage_reader *r, const struct storage_query *q, struct buf *out,
			       struct storage_page *ret, struct err *err)
{
	if (fake_of(r->storage)->reads_fail)
		return err_set(err, ERR_CORRUPT, "fake damage");
	enum err_code code = storage_read(inner_of(r), q, out, ret, err);
	void (*after)(struct fake *) = fake_of(r->storage)->after_page;
	if (!code && after && !ret->end) {
		fake_of(r->storage)->after_page = NULL;
		after(fake_of(r->storage));
	}
	return code;
}

static bool fake_is_shared(struct storage *s)
{
	return fake_of(s)->shared;
}

static enum err_code fake_snapshot(struct storage_reader *r, struct span stream, uint64_t at_sequence,
				   uint64_t below_position, struct buf *out, struct err *err)
{
	return storage_snapshot(inner_of(r), stream, at_sequence, below_position, out, err);
}

static enum err_code fake_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
			       struct arena *a, struct storage_stream_info *ret, size_t *ret_count,
			       struct err *err)
{
	return storage_list(inner_of(r), prefix, after, max, a, ret, ret_count, err);
}

static enum err_code fake_stat(struct storage_reader *r, struct span stream, struct arena *a,
			       struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	return storage_stat(inner_of(r), stream, a, ret, ret_exists, err);
}

static enum err_code fake_tile_put(struct storage_reader *r, unsigned level, uint64_t index, const uint8_t *tile,
				   struct err *err)
{
	return storage_tile_put(inner_of(r), level, index, tile, err);
}

static enum err_code fake_tile_get(struct storage_reader *r, unsigned level, uint64_t index, uint8_t *ret,
				   struct err *err)
{
	return storage_tile_get(inner_of(r), level, index, ret, err);
}

static const struct storage_ops fake_ops = {
	.name = "fake",
	.close = fake_close,
	.head = fake_head,
	.lookup = fake_lookup,
	.append = fake_append,
	.session_beat = fake_session_beat,
	.reader_open = fake_reader_open,
	.reader_close = fake_reader_close,
	.is_shared = fake_is_shared,
	.read = fake_read,
	.snapshot = fake_snapshot,
	.list = fake_list,
	.stat = fake_stat,
	.tile_put = fake_tile_put,
	.tile_get = fake_tile_get,
};

static struct fake *fake_around(struct storage *inner)
{
	struct fake *f = mem_xalloc(sizeof(*f));
	log_setup(LOG_OFF, LOG_LOGFMT); /* its faults are scripted */
	f->base.ops = &fake_ops;
	f->inner = inner;
	return f;
}

struct fake *fake_over(const char *uri)
{
	struct storage_config config = {0};
	struct storage *inner;
	enum err_code code = storage_open(uri, &config, &inner, NULL);
	must(code == ERR_OK);
	return fake_around(inner);
}

struct fake *fake_new(void)
{
	return fake_over("memory");
}

void fake_script(struct fake *f, const enum storage_outcome *outcomes, size_t count)
{
	must(count <= ARRAY_LEN(f->script));
	memcpy(f->script, outcomes, count * sizeof(*outcomes));
	f->script_at = 0;
	f->script_count = count;
}

static void write_behind(struct fake *f, struct record_new *n)
{
	struct storage_head head;
	struct storage_stream_fact fact = {.name = n->stream};
	struct record_place place;
	struct arena a;
	struct buf buf;
	uint64_t at;
	struct err err = {0};
	arena_init(&a, 1024);
	buf_init(&buf, LIMIT_RECORD_BYTES);
	storage_head(f->inner, &head);
	must(storage_lookup(f->inner, &fact, 1, NULL, 0, &a, &at, NULL) == ERR_OK);
	uint64_t sequence = fact.sequence + record_kind_takes_sequence(n->kind);
	must(record_encode(&buf, n, &place, NULL) == ERR_OK);
	record_patch(buf.p, &place, at, sequence, head.last_commit);
	struct storage_record record = {.bytes = buf_span(&buf),
					.position = at,
					.sequence = sequence,
					.kind = n->kind,
					.stream = fact.name,
					.id = n->id,
					.commit_time = head.last_commit,
					.last_of_append = true};
	must(storage_append(f->inner, at, &record, 1, &err) == STORAGE_OK);
	buf_release(&buf);
	arena_release(&a);
}

void fake_write_behind(struct fake *f, const char *stream, unsigned id)
{
	struct record_new n = {.kind = RECORD_EVENT,
			       .stream = span_str(stream),
			       .type = SPAN("t"),
			       .data = SPAN("behind"),
			       .last_of_append = true};
	id_of(id, n.id);
	write_behind(f, &n);
}

void fake_write_record(struct fake *f, const char *stream, uint32_t kind, struct span data)
{
	struct record_new n = {.kind = kind,
			       .stream = span_str(stream),
			       .type = SPAN("t"),
			       .data = data,
			       .last_of_append = true};
	uuid_v4(n.id);
	write_behind(f, &n);
}

/* ---- appends --------------------------------------------------------------------------------- */

void id_of(unsigned n, uint8_t ret[RECORD_ID_BYTES])
{
	memset(ret, 0, RECORD_ID_BYTES);
	ret[0] = 0xc1;
	for (int i = 0; i < 4; i++)
		ret[12 + i] = (uint8_t)(n >> (24 - 8 * i));
}

static void record_of(struct test_request *r, size_t i, size_t k, unsigned id)
{
	id_of(id, r->ids[i][k]);
	snprintf(r->data[i][k], sizeof(r->data[i][k]), "event %u", id);
	r->records[i][k] = (struct append_record){.id = span_of(r->ids[i][k], RECORD_ID_BYTES),
						  .type = SPAN("type"),
						  .data = span_str(r->data[i][k])};
}

void request_of(struct test_request *r, const struct part *parts, size_t part_count,
		const struct append_condition *conditions, size_t condition_count)
{
	must(part_count <= ARRAY_LEN(r->streams));
	must(condition_count <= ARRAY_LEN(r->conditions));
	memset(&r->request, 0, sizeof(r->request));
	for (size_t i = 0; i < part_count; i++) {
		const struct part *p = &parts[i];
		struct append_stream *s = &r->streams[i];
		*s = (struct append_stream){.name = span_str(p->stream),
					    .expect = p->expect,
					    .sequence = p->sequence,
					    .events = r->records[i]};
		while (s->event_count < 8 && p->ids[s->event_count]) {
			record_of(r, i, s->event_count, p->ids[s->event_count]);
			s->event_count++;
		}
		if (p->snapshot) {
			record_of(r, i, 8, p->snapshot);
			s->snapshot = &r->records[i][8];
		}
	}
	if (condition_count)
		memcpy(r->conditions, conditions, condition_count * sizeof(*conditions));
	r->request.streams = r->streams;
	r->request.stream_count = part_count;
	r->request.conditions = r->conditions;
	r->request.condition_count = condition_count;
}

struct append *append_of(const struct part *parts, size_t part_count,
			 const struct append_condition *conditions, size_t condition_count)
{
	static const uint64_t seed[2] = {1, 2};
	struct test_request *r = mem_xalloc(sizeof(*r));
	struct append_refusal *refusal = mem_xalloc(sizeof(*refusal));
	struct append *a = NULL;
	request_of(r, parts, part_count, conditions, condition_count);
	if (append_build(&r->request, seed, &clock_system, &a, refusal))
		cr_assert_fail("%s", refusal->err.text);
	mem_free(refusal);
	mem_free(r);
	return a;
}

/* ---- a journal by hand ------------------------------------------------------------------------ */

void on_done(struct append *append, void *arg)
{
	struct done *d = arg;
	d->calls++;
	d->append = append;
	d->code = append_answer(append)->code;
}

void done_release(struct done *d)
{
	append_unref(d->append);
	*d = (struct done){0};
}

void on_page(struct journal_read *read, struct journal_page *page, const struct err *err, void *arg)
{
	struct got *g = arg;
	(void)read;
	got_clear(g);
	g->calls++;
	g->page = page;
	cr_assert((page == NULL) == (err != NULL));
	if (err)
		g->err = *err;
}

void got_clear(struct got *g)
{
	journal_page_free(g->page);
	g->page = NULL;
	err_clear(&g->err);
}

const char *got_positions(struct got *g)
{
	static char text[65536];
	size_t n = 0, records = 0;
	text[0] = 0;
	if (!g->page)
		return g->err.text;
	struct span run = buf_span(&g->page->body), entry;
	while (run.n > 0) {
		struct record_view v;
		cr_assert(record_next(&run, &entry, NULL, NULL) == ERR_OK);
		cr_assert(record_decode(entry, &v, NULL) == ERR_OK);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%llu", records ? " " : "",
				      (unsigned long long)v.position);
		cr_assert(n < sizeof(text));
		records++;
	}
	cr_assert(records == g->page->records);
	return text;
}

static void open_on(struct bench *b, struct fake *fake)
{
	struct err err = {0};
	b->fake = fake;
	mailbox_init(&b->mailbox, NULL, NULL);
	struct journal_config config = {.storage = &b->fake->base, .clock = &b->clock.clock};
	cr_assert(journal_open(&config, &b->journal, &err) == ERR_OK, "%s", err.text);
}

void bench_open(struct bench *b)
{
	*b = (struct bench){0};
	hand_clock_init(&b->clock);
	open_on(b, fake_new());
}

void bench_restart(struct bench *b)
{
	struct storage *inner = b->fake->inner;
	b->fake->keep_inner = true;
	bench_close(b);
	open_on(b, fake_around(inner));
}

void bench_close(struct bench *b)
{
	journal_stop(b->journal);
	while (mailbox_drain(&b->mailbox))
		;
	journal_close(b->journal);
	mailbox_release(&b->mailbox);
}

void bench_run(struct bench *b)
{
	bool any;
	do {
		any = journal_step(b->journal);
		any = mailbox_drain(&b->mailbox) || any;
	} while (any);
}

void bench_append(struct bench *b, struct append *a, struct done *d)
{
	cr_assert(journal_append(b->journal, &a, &b->mailbox, on_done, d, NULL) == ERR_OK);
	cr_assert(a == NULL);
	bench_run(b);
	cr_assert(d->calls == 1);
}

void bench_next(struct bench *b, struct journal_read *read, struct got *g)
{
	unsigned before = g->calls;
	journal_read_next(read);
	cr_assert(g->calls == before); /* never before the call returns */
	bench_run(b);
	cr_assert(g->calls == before + 1);
}
