/* Events of topics, between records and the protocol's payloads and metadata. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/limits.h"
#include "proxy/cloud_event.h"

static struct arena arena;
static char text[4096];

static void begin(void)
{
	arena_init(&arena, LIMIT_CLOUD_EVENT_BYTES);
}

static void end(void)
{
	arena_release(&arena);
}

TestSuite(cloud_event, .init = begin, .fini = end);

static const uint8_t id[RECORD_ID_BYTES] = {0x01, 0x93, [15] = 0x07};
#define ID "01930000-0000-0000-0000-000000000007"
#define TIME "1970-01-01T00:00:01.500000Z"

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list args;
	size_t n = strlen(text);
	va_start(args, fmt);
	vsnprintf(text + n, sizeof text - n, fmt, args);
	va_end(args);
}

/* --- from records ------------------------------------------------------------------------------------------ */

struct pair {
	const char *key, *value; /* key NULL: the end */
};

/* A record of the topic "t", as it would come from the journal, as payload and metadata. */
static const char *read_event(const char *stream, const char *type, const char *content_type, const char *data,
			      const struct pair *pairs)
{
	struct record_metadata list[8];
	struct record_new new = {.kind = RECORD_EVENT,
				 .stream = span_str(stream),
				 .type = span_str(type),
				 .content_type = span_str(content_type),
				 .data = span_str(data),
				 .metadata = list};
	struct record_place place;
	struct record_view view;
	struct span run, entry;
	struct metadata metadata;
	struct buf encoded;
	struct any payload;
	for (; pairs && pairs->key; pairs++)
		list[new.metadata_count++] = (struct record_metadata){span_str(pairs->key), span_str(pairs->value)};
	memcpy(new.id, id, sizeof id);
	buf_init(&encoded, MIB);
	cr_assert(!record_encode(&encoded, &new, &place, NULL));
	record_patch(encoded.p, &place, 3, 1, (struct wall_time){1500000});
	run = buf_span(&encoded);
	cr_assert(!record_next(&run, &entry, NULL, NULL) && !record_decode(entry, &view, NULL));
	cr_assert(!cloud_event_read(&view, SPAN("t"), &arena, &payload, &metadata));
	text[0] = 0;
	say("%.*s=", SPAN_ARG(payload.type_url));
	for (size_t i = 0; i < payload.value.n; i++)
		say(payload.value.p[i] < ' ' ? "\\%d" : "%c", payload.value.p[i]);
	for (size_t i = 0; i < metadata.n; i++)
		say(" %.*s%s=%.*s", SPAN_ARG(metadata.items[i].key), metadata.items[i].bytes ? "(bytes)" : "",
		    SPAN_ARG(metadata.items[i].value));
	buf_release(&encoded);
	return text;
}

static const char *payload_of(const char *type, const char *content_type, const char *data)
{
	read_event("$topic-t|", type, content_type, data, NULL);
	*strchr(text, ' ') = 0;
	return text;
}

Test(cloud_event, maps_content_types_to_payloads)
{
	cr_expect_str_eq(payload_of("a.B", "application/protobuf", "x"), "type.googleapis.com/a.B=x");
	cr_expect_str_eq(payload_of("e", "Application/Protobuf; proto=a.B", "x"), "type.googleapis.com/a.B=x");
	cr_expect_str_eq(payload_of("e", "application/protobuf;a=b; messageType=\"a.C\" ;d", "x"),
			 "type.googleapis.com/a.C=x");
	cr_expect_str_eq(payload_of("e", "application/protobuf; proto=\"p.cloudstate.io/int32\"", "x"),
			 "p.cloudstate.io/int32=x");
	cr_expect_str_eq(payload_of("e", "application/json; charset=utf-8", "{}"), "json.cloudstate.io/e=\\10\\2{}");
	cr_expect_str_eq(payload_of("a/b/C", "application/cloudevents+JSON", "{}"),
			 "json.cloudstate.io/a/b/C=\\10\\2{}");
	cr_expect_str_eq(payload_of("e", "text/csv; header=present", "a,b"), "p.cloudstate.io/string=\\10\\3a,b");
	cr_expect_str_eq(payload_of("e", "text/plain", ""), "p.cloudstate.io/string=");
	cr_expect_str_eq(payload_of("e", "image/png", "png"), "p.cloudstate.io/bytes=\\10\\3png");
	cr_expect_str_eq(payload_of("e", "+json", "x"), "p.cloudstate.io/bytes=\\10\\1x");
	cr_expect_str_eq(payload_of("e", "application/jsonx", "x"), "p.cloudstate.io/bytes=\\10\\1x");
	cr_expect_str_eq(payload_of("e", "", "x"), "p.cloudstate.io/bytes=\\10\\1x");
}

Test(cloud_event, says_what_the_journal_knows_where_the_record_does_not)
{
	cr_expect_str_eq(read_event("$topic-ns/t|k|1", "e", "text/plain", "x", NULL),
			 "p.cloudstate.io/string=\\10\\1x ce-id=" ID " ce-source=t ce-specversion=1.0 ce-type=e "
			 "Content-Type=text/plain ce-subject=k|1 ce-time=" TIME);
	cr_expect_str_eq(read_event("$topic-t|", "e", "", "x", NULL),
			 "p.cloudstate.io/bytes=\\10\\1x ce-id=" ID " ce-source=t ce-specversion=1.0 ce-type=e "
			 "Content-Type=application/octet-stream ce-time=" TIME);
	cr_expect_str_eq(read_event("$topic-t", "e", "", "", NULL),
			 "p.cloudstate.io/bytes= ce-id=" ID " ce-source=t ce-specversion=1.0 ce-type=e "
			 "Content-Type=application/octet-stream ce-time=" TIME);
}

Test(cloud_event, says_what_the_record_does_first)
{
	static const struct pair pairs[] = {{"ce-time", "then"}, {"trace", "not told"}, {"ce-more", "1"},
					    {"ce-id", "7"},	 {"ce-id", "8"},	{"ce-source", "s"},
					    {"ce-subject", ""}};
	struct pair all[9] = {0};
	memcpy(all, pairs, sizeof pairs);
	all[7] = (struct pair){"ce-odd", "\xff"};
	cr_expect_str_eq(read_event("$topic-t|k", "e", "text/plain", "x", all),
			 "p.cloudstate.io/string=\\10\\1x ce-id=7 ce-source=s ce-specversion=1.0 ce-type=e "
			 "Content-Type=text/plain ce-subject= ce-time=then ce-more=1 ce-odd(bytes)=\xff");
	cr_expect_str_eq(read_event("$topic-t|k", "p.cloudstate.io/string", "text/plain", "x",
				    (const struct pair[]){{"ce-type", ""}, {"ce-dataschema", "d"}, {0}}),
			 "p.cloudstate.io/string=\\10\\1x ce-id=" ID " ce-source=t ce-specversion=1.0 ce-type= "
			 "Content-Type=text/plain ce-dataschema=d ce-subject=k ce-time=" TIME);
}

/* --- to records ---------------------------------------------------------------------------------------------- */

static const char *write_event(const char *type_url, struct span value, const struct pair *pairs)
{
	struct metadata_entry list[8];
	struct metadata metadata = {list, 0};
	struct any payload = {span_str(type_url), value};
	struct cloud_event_reply reply = {.payload = &payload,
					  .metadata = &metadata,
					  .service = SPAN("s.S"),
					  .now = {1500000}};
	struct client_record record;
	struct span subject;
	struct err err = {0};
	for (; pairs && pairs->key; pairs++)
		list[metadata.n++] =
			(struct metadata_entry){span_str(pairs->key), span_str(pairs->value), pairs->key[0] == 'b'};
	memcpy(reply.id, id, sizeof id);
	text[0] = 0;
	if (cloud_event_write(&reply, &arena, &record, &subject, &err)) {
		say("%s", err.text);
		return text;
	}
	cr_expect(memcmp(record.id, id, sizeof id) == 0);
	say("%.*s: %.*s=%.*s", SPAN_ARG(record.content_type), SPAN_ARG(record.type), SPAN_ARG(record.data));
	for (size_t i = 0; i < record.metadata_count; i++)
		say(" %.*s=%.*s", SPAN_ARG(record.metadata[i].key), SPAN_ARG(record.metadata[i].value));
	if (subject.n)
		say(" for %.*s", SPAN_ARG(subject));
	return text;
}

#define FRESH " ce-id=" ID " ce-source=s.S ce-time=" TIME
#define FRESH_UNTYPED " ce-id=" ID " ce-source=s.S ce-type= ce-time=" TIME

Test(cloud_event, maps_payloads_to_content_types)
{
	cr_expect_str_eq(write_event("type.googleapis.com/a.B", SPAN("x"), NULL),
			 "application/protobuf: a.B=x" FRESH);
	cr_expect_str_eq(write_event("a.B", SPAN("x"), NULL), "application/protobuf: a.B=x" FRESH);
	cr_expect_str_eq(write_event("json.cloudstate.io/a/b/C", SPAN("\n\2{}"), NULL),
			 "application/json: a/b/C={}" FRESH);
	cr_expect_str_eq(write_event("p.cloudstate.io/string", SPAN("\n\1x"), NULL),
			 "text/plain; charset=utf-8: p.cloudstate.io/string=x" FRESH_UNTYPED);
	cr_expect_str_eq(write_event("p.cloudstate.io/bytes", SPAN(""), NULL),
			 "application/octet-stream: p.cloudstate.io/bytes=" FRESH_UNTYPED);
	cr_expect_str_eq(write_event("p.cloudstate.io/int32", SPAN("\10\1"), NULL),
			 "application/protobuf: p.cloudstate.io/int32=\10\1" FRESH);
	cr_expect_str_eq(write_event("json.cloudstate.io/C", SPAN("\n\7{}"), NULL),
			 "its payload is malformed: one of type json.cloudstate.io/C has its data in field 1");
}

Test(cloud_event, takes_what_the_reply_says_of_itself)
{
	cr_expect_str_eq(write_event("json.cloudstate.io/C", SPAN("\n\2{}"),
				     (const struct pair[]){{"ce-type", "t"},
							   {"ce-subject", "k"},
							   {"ce-specversion", "0.3"},
							   {"Content-Type", "application/x+json"},
							   {"ce-more", "1"},
							   {"other", "2"},
							   {"bce-id", "3"},
							   {0}}),
			 "application/x+json: t={} ce-id=" ID " ce-source=s.S ce-subject=k ce-time=" TIME
			 " ce-more=1 for k");
	cr_expect_str_eq(write_event("p.cloudstate.io/bytes", SPAN("\n\1x"),
				     (const struct pair[]){{"ce-id", "7"},
							   {"ce-id", "8"},
							   {"ce-source", "elsewhere"},
							   {"ce-dataschema", "d"},
							   {"ce-time", "then"},
							   {"content-type", "image/png"},
							   {0}}),
			 "image/png: p.cloudstate.io/bytes=x ce-id=7 ce-source=elsewhere ce-type= ce-dataschema=d "
			 "ce-time=then");
	/* One that would make it something else is none. */
	cr_expect_str_eq(write_event("p.cloudstate.io/string", SPAN("\n\1x"),
				     (const struct pair[]){
					     {"content-type", "application/json"}, {"ce-type", "t"}, {0}}),
			 "text/plain; charset=utf-8: t=x" FRESH);
}

Test(cloud_event, a_message_under_another_type_says_what_it_is)
{
	static const struct pair type[] = {{"ce-type", "created"}, {0}};
	cr_expect_str_eq(write_event("type.googleapis.com/a.B", SPAN("x"), type),
			 "application/protobuf; proto=a.B: created=x" FRESH);
	cr_expect_str_eq(write_event("p.cloudstate.io/int32", SPAN("x"), type),
			 "application/protobuf; proto=\"p.cloudstate.io/int32\": created=x" FRESH);
	cr_expect_str_eq(write_event("type.googleapis.com/a;b", SPAN("x"), type),
			 "its payload's type \"a;b\" is no name of a message");
}
