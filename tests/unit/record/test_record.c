#include <config.h>

#include <criterion/criterion.h>
#include <openssl/evp.h>

#include "base/endian.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "samples.h"

Test(crc, is_crc32c)
{
	cr_assert_eq(record_crc32c(0, SPAN("")), 0u);
	cr_assert_eq(record_crc32c(0, SPAN("123456789")), 0xe3069283u);
	/* RFC 3720, B.4: 32 bytes of zeros, of ones. */
	uint8_t bytes[32] = {0};
	cr_assert_eq(record_crc32c(0, span_of(bytes, 32)), 0x8a9136aau);
	memset(bytes, 0xff, 32);
	cr_assert_eq(record_crc32c(0, span_of(bytes, 32)), 0x62a8ab43u);
}

Test(crc, goes_on_where_it_stopped)
{
	uint32_t part = record_crc32c(0, SPAN("1234"));
	cr_assert_eq(record_crc32c(part, SPAN("56789")), 0xe3069283u);
}

static struct span only_entry(struct span run)
{
	struct span entry, whole;
	cr_assert_eq(record_next(&run, &entry, &whole, NULL), ERR_OK);
	cr_assert_eq(run.n, 0u);
	return entry;
}

Test(record, comes_back_as_it_was_put_in)
{
	for (size_t i = 0; i < SAMPLE_COUNT; i++) {
		struct sample s;
		struct buf buf;
		struct record_view v;
		struct err err = {0};
		buf_init(&buf, MIB);
		sample_get(i, &s);
		sample_encode(&s, &buf);
		struct span entry = only_entry(buf_span(&buf));
		cr_assert_eq(record_decode(entry, &v, &err), ERR_OK, "%s", err.text);
		cr_assert_eq(v.position, s.position);
		cr_assert_eq(record_position(entry), s.position);
		cr_assert_eq(v.sequence, s.sequence);
		cr_assert_eq(v.commit_time.us, s.time_us);
		cr_assert_eq(v.format, RECORD_FORMAT);
		cr_assert_eq(v.kind, s.record.kind);
		cr_assert(span_eq(v.stream, s.record.stream));
		cr_assert(span_eq(v.id, span_of(s.record.id, RECORD_ID_BYTES)));
		cr_assert(span_eq(v.type, s.record.type));
		cr_assert(span_eq(v.content_type, s.record.content_type));
		cr_assert(span_eq(v.actor, s.record.actor));
		cr_assert(span_eq(v.key_id, s.record.key_id));
		cr_assert(span_eq(v.data, s.record.data));
		cr_assert_eq(v.last_of_append, s.record.last_of_append);
		uint32_t kind;
		struct span stream;
		cr_assert(record_peek(entry, &kind, &stream));
		cr_assert_eq(kind, s.record.kind);
		cr_assert(span_eq(stream, s.record.stream));
		cr_assert_eq(v.content, RECORD_BODY);
		cr_assert_eq(v.salt.n, RECORD_SALT_BYTES);
		size_t state = 0, n = 0;
		struct record_metadata m;
		while (record_metadata_next(&v, &state, &m)) {
			cr_assert_lt(n, s.record.metadata_count);
			cr_assert(span_eq(m.key, s.record.metadata[n].key));
			cr_assert(span_eq(m.value, s.record.metadata[n].value));
			n++;
		}
		cr_assert_eq(n, s.record.metadata_count);
		buf_release(&buf);
	}
}

Test(record, every_record_has_its_own_salt)
{
	struct sample s;
	struct buf buf;
	struct record_place a, b;
	struct record_view va, vb;
	buf_init(&buf, MIB);
	sample_get(0, &s);
	cr_assert_eq(record_encode(&buf, &s.record, &a, NULL), ERR_OK);
	cr_assert_eq(record_encode(&buf, &s.record, &b, NULL), ERR_OK);
	struct span run = buf_span(&buf), entry;
	cr_assert_eq(record_next(&run, &entry, NULL, NULL), ERR_OK);
	cr_assert_eq(record_decode_trusted(entry, &va, NULL), ERR_OK);
	cr_assert_eq(record_next(&run, &entry, NULL, NULL), ERR_OK);
	cr_assert_eq(record_decode_trusted(entry, &vb, NULL), ERR_OK);
	cr_assert_eq(record_next(&run, &entry, NULL, NULL), ERR_NOT_FOUND);
	cr_assert(!span_eq(va.salt, vb.salt));
	buf_release(&buf);
}

Test(record, places_are_offsets_that_survive_growth)
{
	struct buf buf;
	struct record_place places[200];
	struct sample s;
	buf_init(&buf, MIB);
	sample_get(1, &s);
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		cr_assert_eq(record_encode(&buf, &s.record, &places[i], NULL), ERR_OK);
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		record_patch(buf.p, &places[i], 1000 + i, 1 + i, (struct wall_time){(int64_t)i});
	struct span run = buf_span(&buf), entry, whole;
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		struct record_view v;
		cr_assert_eq(record_next(&run, &entry, &whole, NULL), ERR_OK);
		cr_assert_eq((size_t)(whole.p - buf.p), places[i].at);
		cr_assert_eq(whole.n, places[i].n);
		cr_assert_eq(record_decode(entry, &v, NULL), ERR_OK);
		cr_assert_eq(v.position, 1000 + i);
		cr_assert_eq(v.sequence, 1 + i);
	}
	buf_release(&buf);
}

Test(record, any_changed_bit_is_found)
{
	struct sample s;
	struct buf buf;
	buf_init(&buf, MIB);
	sample_get(1, &s);
	sample_encode(&s, &buf);
	struct span entry = only_entry(buf_span(&buf));
	size_t at = (size_t)(entry.p - buf.p);
	for (size_t bit = 0; bit < entry.n * 8; bit++) {
		struct record_view v;
		struct err err = {0};
		buf.p[at + bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_eq(record_decode(entry, &v, &err), ERR_CORRUPT, "bit %zu", bit);
		cr_assert_neq(err.text[0], '\0');
		buf.p[at + bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	buf_release(&buf);
}

Test(record, any_cut_is_found)
{
	struct sample s;
	struct buf buf;
	buf_init(&buf, MIB);
	sample_get(1, &s);
	sample_encode(&s, &buf);
	for (size_t n = 1; n < buf.n; n++) {
		struct span run = span_first(buf_span(&buf), n), entry;
		struct err err = {0};
		cr_assert_eq(record_next(&run, &entry, NULL, &err), ERR_CORRUPT, "cut at %zu", n);
	}
	struct span entry = only_entry(buf_span(&buf));
	for (size_t n = 0; n < entry.n; n++) {
		struct record_view v;
		cr_assert_eq(record_decode(span_first(entry, n), &v, NULL), ERR_CORRUPT);
		cr_assert_eq(record_decode_trusted(span_first(entry, n), &v, NULL), ERR_CORRUPT);
	}
	buf_release(&buf);
}

/* Puts one more field behind the header's or body's own. */
static size_t insert(uint8_t *p, size_t n, size_t at, const char *bytes, size_t bytes_n)
{
	memmove(p + at + bytes_n, p + at, n - at);
	memcpy(p + at, bytes, bytes_n);
	return n + bytes_n;
}

Test(record, unknown_fields_are_skipped_and_hashed)
{
	struct sample s;
	struct buf buf;
	struct record_view v, w;
	uint8_t entry[512], leaf_v[RECORD_HASH_BYTES], leaf_w[RECORD_HASH_BYTES];
	buf_init(&buf, MIB);
	sample_get(0, &s);
	sample_encode(&s, &buf);
	struct span original = only_entry(buf_span(&buf));
	cr_assert_eq(record_decode(original, &v, NULL), ERR_OK);
	memcpy(entry, original.p, original.n);

	/* Header: field 40 (varint) and field 12 (fixed32). The header's length is one byte, at 10. */
	static const char extra[] = "\xc0\x02\x2a\x65" "abcd";
	size_t header_end = (size_t)(v.header.p + v.header.n - original.p);
	size_t n = insert(entry, original.n, header_end, extra, sizeof(extra) - 1);
	entry[10] = (uint8_t)(entry[10] + sizeof(extra) - 1);
	put_le32(entry + n - 4, record_crc32c(0, span_of(entry, n - 5)));
	struct err err = {0};
	cr_assert_eq(record_decode(span_of(entry, n), &w, &err), ERR_OK, "%s", err.text);
	cr_assert(span_eq(v.stream, w.stream));
	cr_assert_eq(w.header.n, v.header.n + sizeof(extra) - 1);
	record_leaf(&v, leaf_v);
	record_leaf(&w, leaf_w);
	cr_assert(memcmp(leaf_v, leaf_w, sizeof(leaf_v)) != 0);
	buf_release(&buf);
}

/* An erased record keeps its leaf, and so does a removed one. */
Test(record, leaf_stays_when_the_content_goes)
{
	struct sample s;
	struct buf buf;
	struct record_view v;
	uint8_t leaf[RECORD_HASH_BYTES], again[RECORD_HASH_BYTES];
	buf_init(&buf, MIB);
	sample_get(1, &s);
	sample_encode(&s, &buf);
	struct span entry = only_entry(buf_span(&buf));
	cr_assert_eq(record_decode(entry, &v, NULL), ERR_OK);
	record_leaf(&v, leaf);

	/* Erased: position and header as they were, the body's hash, a new CRC. */
	uint8_t erased[512], *p = erased;
	size_t before_body = (size_t)(v.header.p + v.header.n - entry.p);
	memcpy(p, entry.p, before_body);
	p += before_body;
	*p++ = 0x22;
	*p++ = RECORD_HASH_BYTES;
	cr_assert(EVP_Digest(v.body.p, v.body.n, p, NULL, EVP_sha256(), NULL) == 1);
	p += RECORD_HASH_BYTES;
	*p++ = 0x7d;
	put_le32(p, record_crc32c(0, span_of(erased, (size_t)(p - erased - 1))));
	p += 4;
	cr_assert_eq(record_decode(span_of(erased, (size_t)(p - erased)), &v, NULL), ERR_OK);
	cr_assert_eq(v.content, RECORD_BODY_HASH);
	cr_assert(span_eq(v.stream, s.record.stream));
	record_leaf(&v, again);
	cr_assert(memcmp(leaf, again, sizeof(leaf)) == 0);

	/* Removed: position and leaf hash. */
	uint32_t kind;
	struct span stream;
	uint8_t removed[9 + 2 + RECORD_HASH_BYTES + 5] = {0x09};
	removed[9] = 0x2a;
	removed[10] = RECORD_HASH_BYTES;
	memcpy(removed + 11, leaf, RECORD_HASH_BYTES);
	removed[11 + RECORD_HASH_BYTES] = 0x7d;
	put_le32(removed + sizeof(removed) - 4, record_crc32c(0, span_of(removed, sizeof(removed) - 5)));
	cr_assert_eq(record_decode(span_of(removed, sizeof(removed)), &v, NULL), ERR_OK);
	cr_assert_eq(v.content, RECORD_LEAF_HASH);
	cr_assert(!record_peek(span_of(removed, sizeof(removed)), &kind, &stream));
	record_leaf(&v, again);
	cr_assert(memcmp(leaf, again, sizeof(leaf)) == 0);
	buf_release(&buf);
}

Test(record, header_field_of_a_wrong_type_is_corrupt)
{
	struct sample s;
	struct buf buf;
	struct record_view v;
	struct err err = {0};
	buf_init(&buf, MIB);
	sample_get(0, &s);
	sample_encode(&s, &buf);
	struct span entry = only_entry(buf_span(&buf));
	size_t tag = (size_t)(entry.p - buf.p) + 11; /* format: varint -> fixed32 */
	buf.p[tag] = 1 << 3 | 5;
	cr_assert_eq(record_decode_trusted(entry, &v, &err), ERR_CORRUPT);
	buf_release(&buf);
}

/* --- form rules ---------------------------------------------------------------------------------------- */

static enum err_code check_with(void (*change)(struct record_new *r), struct err *err)
{
	struct sample s;
	sample_get(1, &s);
	change(&s.record);
	*err = (struct err){0};
	return record_check(&s.record, err);
}

static uint8_t big[4 * 1024 * 1024];
static struct record_metadata many[2];

static void no_change(struct record_new *r) { (void)r; }
static void no_kind(struct record_new *r) { r->kind = 0; }
static void no_id(struct record_new *r) { memset(r->id, 0, RECORD_ID_BYTES); }
static void no_stream(struct record_new *r) { r->stream.n = 0; }
static void long_stream(struct record_new *r) { r->stream = span_of(big, 501); }
static void longest_stream(struct record_new *r) { r->stream = span_of(big, 500); }
static void bad_stream(struct record_new *r) { r->stream = SPAN("a\xff"); }
static void control_stream(struct record_new *r) { r->stream = SPAN("a\nb"); }
static void long_type(struct record_new *r) { r->type = span_of(big, 257); }
static void bad_type(struct record_new *r) { r->type = SPAN("\xc0\x80"); }
static void long_content_type(struct record_new *r) { r->content_type = span_of(big, 257); }
static void long_actor(struct record_new *r) { r->actor = span_of(big, 257); }
static void long_key_id(struct record_new *r) { r->key_id = span_of(big, 257); }
static void big_metadata(struct record_new *r)
{
	many[0] = (struct record_metadata){SPAN("k"), span_of(big, 60 * 1024)};
	many[1] = (struct record_metadata){SPAN("l"), span_of(big, 5 * 1024)};
	r->metadata = many;
	r->metadata_count = 2;
}
static void no_metadata_key(struct record_new *r)
{
	many[0] = (struct record_metadata){{NULL, 0}, SPAN("v")};
	r->metadata = many;
	r->metadata_count = 1;
}
static void big_data(struct record_new *r) { r->data = span_of(big, LIMIT_RECORD_BYTES); }
static void biggest_data(struct record_new *r) { r->data = span_of(big, LIMIT_RECORD_BYTES - 1024); }

Test(check, names_the_field_and_the_rule)
{
	static const struct {
		void (*change)(struct record_new *r);
		enum err_code code;
		const char *word;
	} rows[] = {
		{no_change, ERR_OK, ""},
		{no_kind, ERR_INVALID, "kind"},
		{no_id, ERR_INVALID, "id"},
		{no_stream, ERR_INVALID, "stream"},
		{long_stream, ERR_LIMIT, "501"},
		{longest_stream, ERR_OK, ""},
		{bad_stream, ERR_INVALID, "UTF-8"},
		{control_stream, ERR_INVALID, "control"},
		{long_type, ERR_LIMIT, "type"},
		{bad_type, ERR_INVALID, "type"},
		{long_content_type, ERR_LIMIT, "content type"},
		{long_actor, ERR_LIMIT, "actor"},
		{long_key_id, ERR_LIMIT, "key id"},
		{big_metadata, ERR_LIMIT, "metadata"},
		{no_metadata_key, ERR_INVALID, "metadata"},
		{big_data, ERR_LIMIT, "record exceeds"},
		{biggest_data, ERR_OK, ""},
	};
	memset(big, 'x', sizeof(big));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err;
		cr_assert_eq(check_with(rows[i].change, &err), rows[i].code, "row %zu: %s", i, err.text);
		cr_assert(strstr(err.text, rows[i].word), "row %zu: %s", i, err.text);
	}
}

Test(record, too_large_is_refused_and_leaves_the_buffer_as_it_was)
{
	struct sample s;
	struct buf buf;
	struct record_place place;
	struct err err = {0};
	sample_get(1, &s);
	s.record.data = span_of(big, LIMIT_RECORD_BYTES - 10);
	buf_init(&buf, 8 * MIB);
	cr_assert_eq(buf_append_str(&buf, "x"), ERR_OK);
	cr_assert_eq(record_encode(&buf, &s.record, &place, &err), ERR_LIMIT);
	cr_assert_eq(buf.n, 1u);
	buf_release(&buf);
}

Test(record, out_of_memory_is_an_error)
{
	struct sample s;
	struct buf buf;
	struct record_place place;
	struct err err = {0};
	sample_get(1, &s);
	buf_init(&buf, MIB);
	mem_test_fail_at(1);
	cr_assert_eq(record_encode(&buf, &s.record, &place, &err), ERR_NOMEM);
	mem_test_fail_at(0);
	buf_release(&buf);
}

Test(record, what_is_erased_or_removed_keeps_position_and_leaf)
{
	for (size_t i = 0; i < SAMPLE_COUNT; i++) {
		struct sample s;
		struct buf buf, out;
		struct record_view view, erased, removed;
		struct span run, entry;
		struct err err = {0};
		uint8_t leaf[RECORD_HASH_BYTES], other[RECORD_HASH_BYTES];
		buf_init(&buf, 4 * MIB);
		buf_init(&out, 4 * MIB);
		sample_get(i, &s);
		sample_encode(&s, &buf);
		run = buf_span(&buf);
		cr_assert_eq(record_next(&run, &entry, NULL, &err), ERR_OK);
		cr_assert_eq(record_decode(entry, &view, &err), ERR_OK);
		cr_assert(record_has_body(entry));
		cr_assert(!record_is_removed(entry));
		record_leaf(&view, leaf);
		cr_assert_eq(record_put_erased(&out, &view), ERR_OK);
		cr_assert_eq(record_put_removed(&out, &view), ERR_OK);
		run = buf_span(&out);
		cr_assert_eq(record_next(&run, &entry, NULL, &err), ERR_OK);
		cr_assert_eq(record_decode(entry, &erased, &err), ERR_OK, "%s", err.text);
		cr_assert_eq(erased.content, RECORD_BODY_HASH);
		cr_assert(span_eq(erased.header, view.header));
		cr_assert(!record_has_body(entry));
		record_leaf(&erased, other);
		cr_assert(memcmp(leaf, other, sizeof(leaf)) == 0);
		cr_assert_eq(record_next(&run, &entry, NULL, &err), ERR_OK);
		cr_assert_eq(record_decode(entry, &removed, &err), ERR_OK, "%s", err.text);
		cr_assert(record_is_removed(entry));
		cr_assert_eq(removed.position, view.position);
		record_leaf(&removed, other);
		cr_assert(memcmp(leaf, other, sizeof(leaf)) == 0);
		/* What has been erased can be erased again, and removed. */
		out.n = 0;
		cr_assert_eq(record_put_removed(&out, &erased), ERR_OK);
		run = buf_span(&out);
		cr_assert_eq(record_next(&run, &entry, NULL, &err), ERR_OK);
		cr_assert_eq(record_decode(entry, &removed, &err), ERR_OK);
		record_leaf(&removed, other);
		cr_assert(memcmp(leaf, other, sizeof(leaf)) == 0);
		buf_release(&buf);
		buf_release(&out);
	}
}

static bool act_of(uint32_t kind, struct span data, struct record_act *ret)
{
	struct record_view v = {.kind = kind, .position = 9, .content = RECORD_BODY, .data = data};
	return record_act_get(&v, ret);
}

Test(record, acts_say_what_they_do)
{
	struct record_act act;
	cr_assert(act_of(RECORD_DELETE, SPAN("\x0a\x01r"), &act));
	cr_assert_eq(act.hide_below, 9u);
	cr_assert(!act.erases);
	cr_assert(act_of(RECORD_TRUNCATE, SPAN("\x10\x05\x18\x03"), &act));
	cr_assert_eq(act.hide_below, 3u);
	cr_assert(act_of(RECORD_TRUNCATE, SPAN("\x10\x05"), &act));
	cr_assert_eq(act.hide_below, 9u);
	cr_assert(act_of(RECORD_ERASE, SPAN(""), &act));
	cr_assert(act.erases && act.erase_all && act.erase_snapshots);
	cr_assert(act_of(RECORD_ERASE, SPAN("\x10\x02\x18\x03\x20\x01"), &act));
	cr_assert(act.erases && !act.erase_all && !act.erase_snapshots);
	struct record_view event = {.kind = RECORD_EVENT, .position = 4, .sequence = 3};
	cr_assert(record_act_erases(&act, 9, &event));
	cr_assert(!record_act_erases(&act, 4, &event));
	event.sequence = 4;
	cr_assert(!record_act_erases(&act, 9, &event));
	cr_assert(!act_of(RECORD_ERASE, SPAN("\x2a\x01p"), &act)); /* of a prefix: it names what was done */
	cr_assert(!act_of(RECORD_ERASE, SPAN("\x2a\x05p"), &act));
	cr_assert(!act_of(RECORD_EVENT, SPAN(""), &act));
}

Test(record, category_is_what_stands_before_the_bar)
{
	cr_assert(span_eq_str(record_category(SPAN("cart|user|1")), "cart"));
	cr_assert(span_eq_str(record_category(SPAN("cart")), "cart"));
	cr_assert(span_eq_str(record_category(SPAN("|x")), ""));
	cr_assert(record_stream_is_system(SPAN("$acts")));
	cr_assert(!record_stream_is_system(SPAN("acts$")));
	cr_assert_str_eq(record_kind_name(RECORD_SNAPSHOT), "snapshot");
	cr_assert_str_eq(record_kind_name(77), "unknown");
	cr_assert(record_kind_takes_sequence(RECORD_EVENT));
	cr_assert(!record_kind_takes_sequence(RECORD_SNAPSHOT));
}
