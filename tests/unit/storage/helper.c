#include <config.h>

#include "helper.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/log.h"

void rig_init(struct rig *r)
{
	*r = (struct rig){.last_id = 0};
	const char *tmp = getenv("TMPDIR");
	log_setup(LOG_OFF, LOG_LOGFMT);
	snprintf(r->dir, sizeof(r->dir), "%.32s/storage.XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(mkdtemp(r->dir), "cannot make %s", r->dir);
}

void rig_release(struct rig *r)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", r->dir);
	cr_assert_eq(system(command), 0);
}

bool rig_has(const struct rig *r, const char *name)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", r->dir, name);
	return access(path, F_OK) == 0;
}

static enum storage_outcome append_data(struct rig *r, struct storage *s, const char *stream,
					uint64_t sequence, uint32_t kind, struct span data)
{
	struct storage_head head;
	struct buf bytes;
	struct record_place place;
	struct record_new fresh = {.kind = kind,
				   .stream = span_str(stream),
				   .type = SPAN("t"),
				   .data = data,
				   .last_of_append = true};
	fresh.id[0] = 1;
	put_be32(fresh.id + 12, ++r->last_id);
	storage_head(s, &head);
	buf_init(&bytes, LIMIT_RECORD_BYTES);
	cr_assert_eq(record_encode(&bytes, &fresh, &place, &r->err), ERR_OK);
	record_patch(bytes.p, &place, head.head, sequence, (struct wall_time){(int64_t)head.head + 1});
	struct storage_record record = {.bytes = buf_span(&bytes),
					.position = head.head,
					.sequence = sequence,
					.kind = kind,
					.stream = fresh.stream,
					.id = fresh.id,
					.commit_time = {(int64_t)head.head + 1},
					.last_of_append = true};
	r->err = (struct err){0};
	enum storage_outcome outcome = storage_append(s, head.head, &record, 1, &r->err);
	buf_release(&bytes);
	return outcome;
}

enum storage_outcome rig_append(struct rig *r, struct storage *s, const char *stream, uint64_t sequence)
{
	return rig_append_kind(r, s, stream, sequence, RECORD_EVENT);
}

enum storage_outcome rig_append_kind(struct rig *r, struct storage *s, const char *stream, uint64_t sequence,
				     uint32_t kind)
{
	return append_data(r, s, stream, sequence, kind, SPAN("data"));
}

enum storage_outcome rig_append_large(struct rig *r, struct storage *s, const char *stream, uint64_t sequence,
				      size_t data_bytes)
{
	uint8_t *data = mem_xalloc(data_bytes);
	enum storage_outcome outcome =
		append_data(r, s, stream, sequence, RECORD_EVENT, span_of(data, data_bytes));
	mem_free(data);
	return outcome;
}

size_t rig_count(struct rig *r, struct storage *s)
{
	struct storage_query q = {.include_system = true, .below_position = UINT64_MAX, .max_bytes = MIB};
	struct storage_reader *reader;
	struct storage_page page;
	struct buf out;
	size_t n = 0;
	r->err = (struct err){0};
	buf_init(&out, 8 * MIB);
	cr_assert_eq(storage_reader_open(s, &reader, &r->err), ERR_OK, "%s", r->err.text);
	do {
		buf_clear(&out);
		if (storage_read(reader, &q, &out, &page, &r->err))
			break;
		n += page.records;
		q.from = page.next;
	} while (!page.end);
	storage_reader_close(reader);
	buf_release(&out);
	return n;
}
