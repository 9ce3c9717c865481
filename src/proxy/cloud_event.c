#include <config.h>

#include "proxy/cloud_event.h"

#include <string.h>

#include "base/must.h"
#include "base/random.h"
#include "base/text.h"
#include "pbdyn/pbdyn.h"

#define PROTOBUF_HOST "type.googleapis.com/"
#define JSON_HOST "json.cloudstate.io/"
#define PRIMITIVE_HOST "p.cloudstate.io/"
#define TIME_TEXT_BYTES 32

/* --- content types ----------------------------------------------------------------------------------------- */

enum form { FORM_PROTOBUF, FORM_JSON, FORM_TEXT, FORM_BYTES };
static const char *const usual_type[] = {
	[FORM_PROTOBUF] = "application/protobuf",
	[FORM_JSON] = "application/json",
	[FORM_TEXT] = "text/plain; charset=utf-8",
	[FORM_BYTES] = "application/octet-stream",
};

static enum form form_of(struct span content_type)
{
	const size_t suffix = sizeof "+json" - 1, text = sizeof "text/" - 1;
	struct span media = span_trim(span_first(content_type, span_find(content_type, ';')));
	if (span_eq_nocase(media, SPAN("application/protobuf")))
		return FORM_PROTOBUF;
	if (span_eq_nocase(media, SPAN("application/json")) ||
	    (media.n > suffix && span_eq_nocase(span_skip(media, media.n - suffix), SPAN("+json"))))
		return FORM_JSON;
	return media.n > text && span_eq_nocase(span_first(media, text), SPAN("text/")) ? FORM_TEXT : FORM_BYTES;
}

/* The message's type that a content type's parameter names; empty: none does. */
static struct span message_type_of(struct span content_type)
{
	struct span rest = span_skip(content_type, span_find(content_type, ';'));
	while (rest.n) {
		rest = span_skip(rest, 1);
		struct span parameter = span_first(rest, span_find(rest, ';'));
		size_t equals = span_find(parameter, '=');
		rest = span_skip(rest, parameter.n);
		if (equals == parameter.n)
			continue;
		struct span name = span_trim(span_first(parameter, equals));
		struct span value = span_trim(span_skip(parameter, equals + 1));
		if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"')
			value = span_of(value.p + 1, value.n - 2);
		if (span_eq_nocase(name, SPAN("proto")) || span_eq_nocase(name, SPAN("messagetype")))
			return value;
	}
	return SPAN("");
}

/* --- the data of JSON, text and bytes: field 1 of a message ---------------------------------------------- */

static enum err_code wrap(struct span raw, struct arena *a, struct span *ret)
{
	struct buf head;
	enum err_code code = ERR_NOMEM;
	*ret = SPAN("");
	if (!raw.n)
		return ERR_OK; /* at its zero a field is left out */
	buf_init(&head, 16);
	if (!pb_put_tag(&head, 1, PB_BYTES_FIELD) && !pb_put_varint(&head, raw.n)) {
		uint8_t *all = arena_alloc(a, head.n + raw.n);
		if (all) {
			memcpy(all, head.p, head.n);
			memcpy(all + head.n, raw.p, raw.n);
			*ret = span_of(all, head.n + raw.n);
			code = ERR_OK;
		}
	}
	buf_release(&head);
	return code;
}

static bool unwrap(struct span value, struct span *ret)
{
	struct pb_wire_field f;
	int got;
	*ret = SPAN("");
	while ((got = pb_wire_next(&value, &f)) > 0)
		if (f.number == 1 && f.wire == PB_BYTES_FIELD)
			*ret = f.bytes;
	return got == 0;
}

/* --- from the journal ---------------------------------------------------------------------------------------- */

/* The attributes that have a place of their own; all others that begin with ce- follow them. */
enum attribute {
	CE_ID, CE_SOURCE, CE_SPECVERSION, CE_TYPE, CONTENT_TYPE, CE_DATASCHEMA, CE_SUBJECT, CE_TIME, ATTRIBUTES
};
static const char *const attribute_names[] = {
	[CE_ID] = "ce-id",
	[CE_SOURCE] = "ce-source",
	[CE_SPECVERSION] = "ce-specversion",
	[CE_TYPE] = "ce-type",
	[CONTENT_TYPE] = "Content-Type",
	[CE_DATASCHEMA] = "ce-dataschema",
	[CE_SUBJECT] = "ce-subject",
	[CE_TIME] = "ce-time",
};

static enum attribute attribute_of(struct span key)
{
	for (enum attribute at = 0; at < ATTRIBUTES; at++)
		if (span_eq_str(key, attribute_names[at]))
			return at;
	return ATTRIBUTES;
}

/* What the record says of itself: the first of each name. Those that are not told have p NULL. */
static void attributes_read(const struct record_view *record, struct span values[ATTRIBUTES], size_t *ret_others)
{
	struct record_metadata m;
	size_t state = 0;
	*ret_others = 0;
	while (record_metadata_next(record, &state, &m)) {
		enum attribute at = attribute_of(m.key);
		if (at < ATTRIBUTES && !values[at].p)
			values[at] = m.value.n ? m.value : SPAN("");
		else if (at == ATTRIBUTES && span_starts(m.key, SPAN("ce-")))
			++*ret_others;
	}
}

/* What the journal knows of it besides. False: no memory. */
static bool attributes_complete(const struct record_view *record, struct span topic, struct arena *a,
				struct span values[ATTRIBUTES])
{
	struct span category = record_category(record->stream), key = span_skip(record->stream, category.n);
	char *id = arena_alloc(a, UUID_TEXT_BYTES), *time = arena_alloc(a, TIME_TEXT_BYTES);
	if (!id || !time)
		return false;
	if (!values[CE_ID].p) {
		must(record->id.n == RECORD_ID_BYTES);
		uuid_format(record->id.p, id);
		values[CE_ID] = span_str(id);
	}
	if (!values[CE_SOURCE].p)
		values[CE_SOURCE] = topic;
	values[CE_SPECVERSION] = SPAN("1.0");
	if (!values[CE_TYPE].p)
		values[CE_TYPE] = record->type;
	values[CONTENT_TYPE] = record->content_type.n ? record->content_type : span_str(usual_type[FORM_BYTES]);
	if (!values[CE_SUBJECT].p && key.n > 1)
		values[CE_SUBJECT] = span_skip(key, 1);
	if (!values[CE_TIME].p) {
		wall_format(record->commit_time, time);
		values[CE_TIME] = span_str(time);
	}
	return true;
}

/* A string of the protocol is UTF-8; a record's may be any bytes. */
static struct metadata_entry entry_of(struct span key, struct span value)
{
	return (struct metadata_entry){.key = key, .value = value, .bytes = !utf8_valid(value)};
}

static struct span join(const char *host, struct span type, struct arena *a)
{
	size_t n = strlen(host);
	uint8_t *all = arena_alloc(a, n + type.n + 1);
	if (!all)
		return (struct span){0};
	memcpy(all, host, n);
	if (type.n)
		memcpy(all + n, type.p, type.n);
	return span_of(all, n + type.n);
}

static enum err_code payload_read(const struct record_view *record, struct span type, struct arena *a, struct any *ret)
{
	enum form form = form_of(record->content_type);
	struct span named = message_type_of(record->content_type);
	if (form == FORM_PROTOBUF && named.n)
		type = named;
	const char *host = form == FORM_JSON ? JSON_HOST : PROTOBUF_HOST;
	if (form == FORM_TEXT)
		ret->type_url = SPAN(PRIMITIVE_HOST "string");
	else if (form == FORM_BYTES)
		ret->type_url = SPAN(PRIMITIVE_HOST "bytes");
	else if (form == FORM_PROTOBUF && span_starts(type, SPAN(PRIMITIVE_HOST)))
		ret->type_url = type;
	else
		ret->type_url = join(host, type, a);
	if (!ret->type_url.p)
		return ERR_NOMEM;
	if (form != FORM_PROTOBUF)
		return wrap(record->data, a, &ret->value);
	ret->value = record->data;
	return ERR_OK;
}

enum err_code cloud_event_read(const struct record_view *record, struct span topic, struct arena *a, struct any *ret,
			       struct metadata *ret_metadata)
{
	struct span values[ATTRIBUTES] = {0};
	struct record_metadata m;
	size_t others, n = 0, state = 0;
	attributes_read(record, values, &others);
	struct metadata_entry *items = arena_alloc(a, (ATTRIBUTES + others) * sizeof *items);
	if (!items || !attributes_complete(record, topic, a, values) ||
	    payload_read(record, values[CE_TYPE], a, ret))
		return ERR_NOMEM;
	for (enum attribute at = 0; at < ATTRIBUTES; at++)
		if (values[at].p)
			items[n++] = entry_of(span_str(attribute_names[at]), values[at]);
	while (others && record_metadata_next(record, &state, &m))
		if (attribute_of(m.key) == ATTRIBUTES && span_starts(m.key, SPAN("ce-")))
			items[n++] = entry_of(m.key, m.value);
	*ret_metadata = (struct metadata){items, n};
	return ERR_OK;
}

/* --- to the journal -------------------------------------------------------------------------------------------- */

/* What a payload is by its type_url, and the type that it names. */
static enum form form_of_payload(struct span type_url, struct span *ret_type)
{
	size_t slash = span_find(type_url, '/');
	*ret_type = SPAN("");
	if (span_eq_str(type_url, PRIMITIVE_HOST "string"))
		return FORM_TEXT;
	if (span_eq_str(type_url, PRIMITIVE_HOST "bytes"))
		return FORM_BYTES;
	*ret_type = slash < type_url.n ? span_skip(type_url, slash + 1) : type_url;
	if (span_starts(type_url, SPAN(JSON_HOST)))
		return FORM_JSON;
	if (span_starts(type_url, SPAN(PRIMITIVE_HOST)))
		*ret_type = type_url; /* a number or so: no other form has a place for it */
	return FORM_PROTOBUF;
}

/* Could it stand in a content type's parameter? */
static bool is_type_name(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i];
		bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
		if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '.' && c != '/')
			return false;
	}
	return s.n > 0;
}

/* The first string of that name; p NULL: none. */
static struct span given(const struct metadata *metadata, const char *name)
{
	for (size_t i = 0; i < metadata->n; i++) {
		const struct metadata_entry *e = &metadata->items[i];
		if (!e->bytes && span_eq_str(e->key, name))
			return e->value.n ? e->value : SPAN("");
	}
	return (struct span){0};
}

/* The metadata's, where it means the same form: JSON of another kind, another kind of text, an image. */
static struct span content_type_given(const struct metadata *metadata, enum form form)
{
	for (size_t i = 0; i < metadata->n; i++) {
		const struct metadata_entry *e = &metadata->items[i];
		if (!e->bytes && span_eq_nocase(e->key, SPAN("content-type")) && e->value.n &&
		    form_of(e->value) == form)
			return e->value;
	}
	return span_str(usual_type[form]);
}

/* A message whose event is called otherwise says by its content type what it is. */
static enum err_code content_type_write(struct span message, struct span type, struct arena *a, struct span *ret,
					struct err *err)
{
	const char *quote = span_find(message, '/') < message.n ? "\"" : "";
	*ret = span_str(usual_type[FORM_PROTOBUF]);
	if (span_eq(message, type))
		return ERR_OK;
	if (!is_type_name(message))
		return err_set(err, ERR_INVALID, "its payload's type \"%.*s\" is no name of a message",
			       SPAN_ARG(message));
	*ret = span_str(
		arena_printf(a, "%s; proto=%s%.*s%s", usual_type[FORM_PROTOBUF], quote, SPAN_ARG(message), quote));
	return ret->p ? ERR_OK : err_set(err, ERR_NOMEM, "out of memory for its content type");
}

static enum err_code metadata_write(const struct cloud_event_reply *reply, struct span type, struct arena *a,
				    struct client_record *ret, struct err *err)
{
	const struct metadata *from = reply->metadata;
	struct record_metadata *to = arena_alloc(a, (ATTRIBUTES + from->n) * sizeof *to);
	char *id = arena_alloc(a, UUID_TEXT_BYTES), *time = arena_alloc(a, TIME_TEXT_BYTES);
	struct span values[ATTRIBUTES] = {0};
	size_t n = 0;
	if (!to || !id || !time)
		return err_set(err, ERR_NOMEM, "out of memory for its metadata");
	uuid_format(reply->id, id);
	wall_format(reply->now, time);
	values[CE_ID] = span_str(id);
	values[CE_SOURCE] = reply->service;
	values[CE_TIME] = span_str(time);
	for (enum attribute at = 0; at < ATTRIBUTES; at++) {
		struct span value = given(from, attribute_names[at]);
		if (at == CE_SPECVERSION || at == CE_TYPE || at == CONTENT_TYPE)
			value = (struct span){0};
		if (at == CE_TYPE && !type.n)
			value = SPAN(""); /* a record cannot have none */
		if (!value.p)
			value = values[at];
		if (value.p)
			to[n++] = (struct record_metadata){span_str(attribute_names[at]), value};
	}
	for (size_t i = 0; i < from->n; i++)
		if (!from->items[i].bytes && span_starts(from->items[i].key, SPAN("ce-")) &&
		    attribute_of(from->items[i].key) == ATTRIBUTES)
			to[n++] = (struct record_metadata){from->items[i].key, from->items[i].value};
	ret->metadata = to;
	ret->metadata_count = n;
	return ERR_OK;
}

enum err_code cloud_event_write(const struct cloud_event_reply *reply, struct arena *a, struct client_record *ret,
				struct span *ret_subject, struct err *err)
{
	struct span named, subject = given(reply->metadata, attribute_names[CE_SUBJECT]);
	enum form form = form_of_payload(reply->payload->type_url, &named);
	struct span type = given(reply->metadata, attribute_names[CE_TYPE]);
	struct client_record record = {.data = reply->payload->value};
	enum err_code code = ERR_OK;
	if (!type.n)
		type = named;
	if (form == FORM_PROTOBUF)
		code = content_type_write(named, type, a, &record.content_type, err);
	else if (unwrap(reply->payload->value, &record.data))
		record.content_type = content_type_given(reply->metadata, form);
	else
		code = err_set(err, ERR_INVALID, "its payload is malformed: one of type %.*s has its data in field 1",
			       SPAN_ARG(reply->payload->type_url));
	if (!code)
		code = metadata_write(reply, type, a, &record, err);
	if (code)
		return code;
	record.type = type.n ? type : reply->payload->type_url;
	memcpy(record.id, reply->id, sizeof record.id);
	*ret = record;
	*ret_subject = subject.n ? subject : SPAN("");
	return ERR_OK;
}
