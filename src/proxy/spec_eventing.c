#include <config.h>

#include "proxy/spec_eventing.h"

#include "base/limits.h"
#include "base/must.h"
#include "base/text.h"
#include "record/record.h"

#define OPTION_EVENTING 1081u

/* Field numbers of cloudstate.Eventing, EventSource and EventDestination. */
enum { EVENTING_IN = 1, EVENTING_OUT = 2 };
enum { SOURCE_GROUP = 1, SOURCE_TOPIC = 2, SOURCE_LOG = 3 };
enum { DESTINATION_TOPIC = 1 };

static enum err_code refuse(const struct spec_method *m, struct err *err, const char *what, struct span subject)
{
	return err_set(err, ERR_INVALID, "cloudstate.eventing of %.*s: %s%s%.*s%s", SPAN_ARG(m->pb->full_name),
		       what, subject.n ? " \"" : "", SPAN_ARG(subject), subject.n ? "\"" : "");
}

static bool read_source(struct span bytes, struct spec_source *ret)
{
	struct pb_wire_field f;
	int got;
	while ((got = pb_wire_next(&bytes, &f)) > 0) {
		if (f.wire != PB_BYTES_FIELD)
			continue;
		if (f.number == SOURCE_GROUP) {
			ret->group = f.bytes;
		} else if (f.number == SOURCE_TOPIC || f.number == SOURCE_LOG) {
			ret->kind = f.number == SOURCE_LOG ? SPEC_SOURCE_EVENT_LOG : SPEC_SOURCE_TOPIC;
			ret->name = f.bytes;
		}
	}
	return got == 0;
}

static bool read_destination(struct span bytes, struct span *ret_topic)
{
	struct pb_wire_field f;
	int got;
	while ((got = pb_wire_next(&bytes, &f)) > 0)
		if (f.wire == PB_BYTES_FIELD && f.number == DESTINATION_TOPIC)
			*ret_topic = f.bytes;
	return got == 0;
}

static bool read_option(struct span bytes, struct spec_method *m)
{
	struct pb_wire_field f;
	int got;
	bool fine = true;
	while (fine && (got = pb_wire_next(&bytes, &f)) > 0) {
		if (f.wire != PB_BYTES_FIELD)
			continue;
		if (f.number == EVENTING_IN)
			fine = read_source(f.bytes, &m->source);
		else if (f.number == EVENTING_OUT)
			fine = read_destination(f.bytes, &m->out_topic);
	}
	return fine && got == 0;
}

/* It is a category of streams, with a prefix before it, and part of a group's name. */
static enum err_code check_topic(const struct spec_method *m, struct span topic, struct err *err)
{
	if (!topic.p)
		return ERR_OK; /* not given */
	if (!topic.n || topic.n > LIMIT_TOPIC_NAME_BYTES || span_find(topic, '|') < topic.n ||
	    !utf8_valid_no_controls(topic))
		return refuse(m, err, "the topic is no name of 1 to 200 bytes without | or control characters:",
			      topic);
	return ERR_OK;
}

static enum err_code check_source(const struct spec_method *m, struct err *err)
{
	const struct spec_source *s = &m->source;
	struct err why = {0};
	if (s->kind == SPEC_SOURCE_NONE)
		return ERR_OK;
	if (!s->name.n)
		return refuse(m, err, "the source has no name", SPAN(""));
	if (s->kind == SPEC_SOURCE_TOPIC && span_eq(s->name, m->out_topic))
		return refuse(m, err, "it takes its events from the topic that it publishes to:", s->name);
	if (s->kind == SPEC_SOURCE_TOPIC && check_topic(m, s->name, err))
		return ERR_INVALID;
	if (s->kind == SPEC_SOURCE_EVENT_LOG &&
	    (span_find(s->name, '|') < s->name.n || s->name.p[0] == '$' || record_check_stream(s->name, &why)))
		return refuse(m, err, "the event log is no persistence id (it must not hold a |, nor begin with a $):",
			      s->name);
	if (record_check_stream(s->group, &why))
		return refuse(m, err, "the consumer group is no name of 1 to 500 bytes without control characters:",
			      s->group);
	return ERR_OK;
}

enum err_code spec_eventing_read(struct arena *a, struct spec_method *m, struct err *err)
{
	struct span option;
	if (!pb_option_message(m->pb->options, OPTION_EVENTING, a, &option))
		return ERR_OK;
	if (!read_option(option, m))
		return refuse(m, err, "malformed", SPAN(""));
	if (m->source.kind != SPEC_SOURCE_NONE && !m->source.group.n)
		m->source.group = m->service->name;
	if (check_topic(m, m->out_topic, err))
		return ERR_INVALID;
	return check_source(m, err);
}

bool spec_source_eq(const struct spec_source *a, const struct spec_source *b)
{
	return a->kind == b->kind && span_eq(a->name, b->name) && span_eq(a->group, b->group);
}

bool spec_source_is_first(const struct spec_method *m)
{
	if (m->source.kind == SPEC_SOURCE_NONE)
		return false;
	for (const struct spec_method *o = m->service->methods; o < m; o++)
		if (spec_source_eq(&o->source, &m->source))
			return false;
	return true;
}

enum err_code spec_eventing_check(const struct spec_service *s, struct err *err)
{
	for (size_t i = 0; i < s->method_count; i++) {
		const struct spec_method *m = &s->methods[i];
		for (const struct spec_method *o = s->methods; o < m && m->source.kind; o++) {
			if (o->pb->input != m->pb->input || !spec_source_eq(&o->source, &m->source))
				continue;
			return err_set(err, ERR_INVALID,
				       "methods %.*s and %.*s of the service %.*s take the same events, %.*s of "
				       "\"%.*s\" for the group \"%.*s\"",
				       SPAN_ARG(o->pb->name), SPAN_ARG(m->pb->name), SPAN_ARG(s->name),
				       SPAN_ARG(m->pb->input->full_name), SPAN_ARG(m->source.name),
				       SPAN_ARG(m->source.group));
		}
	}
	return ERR_OK;
}

const struct spec_method *spec_method_of_event(const struct spec_service *s, const struct spec_source *source,
					       struct span type_url)
{
	const struct spec_method *any = NULL;
	size_t slash = span_find(type_url, '/');
	struct span type = slash < type_url.n ? span_skip(type_url, slash + 1) : type_url;
	bool opaque = span_starts(type_url, SPAN("json.cloudstate.io/")) ||
		      span_starts(type_url, SPAN("p.cloudstate.io/"));
	for (size_t i = 0; i < s->method_count; i++) {
		const struct spec_method *m = &s->methods[i];
		if (!spec_source_eq(&m->source, source))
			continue;
		if (!opaque && span_eq(m->pb->input->full_name, type))
			return m;
		if (span_eq_str(m->pb->input->full_name, "google.protobuf.Any"))
			any = m;
	}
	return any;
}
