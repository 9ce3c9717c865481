#include <config.h>

#include "proxy/publish.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "proxy/cloud_event.h"
#include "proxy/event_source.h"

#define PUBLISHER_MAGIC 0x5075626cu

struct publisher {
	uint32_t magic;
	struct publisher_config config;
	size_t sent_bytes;   /* of those that the journal has not answered */
	struct list waiting; /* for room among them */
	bool closed;	     /* the journal's client goes */
};

struct publication {
	struct list_node node;
	struct publisher *publisher;
	const struct spec_method *method;
	struct arena arena; /* owns what the record does not borrow from the reply */
	char *stream;
	struct client_record record;
	size_t bytes;
	struct mono_time began;
	void (*done)(void *arg, const struct outcome *outcome);
	void *arg;
};

struct publisher *publisher_new(const struct publisher_config *config)
{
	struct publisher *p = mem_xalloc(sizeof *p);
	p->magic = PUBLISHER_MAGIC;
	p->config = *config;
	list_init(&p->waiting);
	return p;
}

void publisher_free(struct publisher *p)
{
	if (!p)
		return;
	must(p->magic == PUBLISHER_MAGIC && list_empty(&p->waiting) && !p->sent_bytes);
	p->magic = 0;
	mem_free(p);
}

static void publication_free(struct publication *n)
{
	list_remove(&n->node);
	arena_release(&n->arena);
	mem_free(n->stream);
	mem_free(n);
}

/* --- what is to be written ---------------------------------------------------------------------------------- */

/* The stream's name; the key is left out where it makes none. */
static char *stream_name(const struct publisher *p, struct span topic, struct span key)
{
	struct span ns = p->config.name_space;
	struct err err = {0};
	char *name = mem_xprintf(TOPIC_PREFIX "%.*s%.*s|%.*s", SPAN_ARG(ns), SPAN_ARG(topic), SPAN_ARG(key));
	struct span whole = span_str(name);
	if (key.n < LIMIT_STREAM_NAME_BYTES && span_find(key, '\0') == key.n && !record_check_stream(whole, &err))
		return name;
	mem_free(name);
	return mem_xprintf(TOPIC_PREFIX "%.*s%.*s|", SPAN_ARG(ns), SPAN_ARG(topic));
}

/* The journal's own rules, asked here: what breaks them fails at once and in words about the reply. */
static enum err_code check(const struct publication *n, struct err *err)
{
	const struct client_record *r = &n->record;
	struct record_new record = {.kind = RECORD_EVENT,
				    .stream = span_str(n->stream),
				    .type = r->type,
				    .content_type = r->content_type,
				    .data = r->data,
				    .metadata = r->metadata,
				    .metadata_count = r->metadata_count};
	memcpy(record.id, r->id, sizeof record.id);
	return record_check(&record, err);
}

static size_t bytes_of(const struct client_record *r)
{
	size_t n = r->data.n + r->type.n + r->content_type.n;
	for (size_t i = 0; i < r->metadata_count; i++)
		n += r->metadata[i].key.n + r->metadata[i].value.n;
	return n;
}

static enum err_code prepare(struct publication *n, const struct any *payload, const struct metadata *metadata,
			     struct err *err)
{
	struct publisher *p = n->publisher;
	struct cloud_event_reply reply = {.payload = payload,
					  .metadata = metadata,
					  .service = n->method->service->name,
					  .now = clock_wall(p->config.clock)};
	struct span key;
	uuid_v7(p->config.clock, reply.id);
	enum err_code code = cloud_event_write(&reply, &n->arena, &n->record, &key, err);
	if (code)
		return code;
	n->stream = stream_name(p, n->method->out_topic, key);
	n->bytes = bytes_of(&n->record);
	return check(n, err);
}

/* --- on its way ------------------------------------------------------------------------------------------------ */

/* Tells its caller, whose spans it borrows, last. */
static void finish(struct publication *n, const struct client_error *error)
{
	struct publisher *p = n->publisher;
	struct service_stats *stats = stats_of(p->config.stats, n->method->service->name);
	struct outcome outcome = {.code = GRPC_OK};
	void (*done)(void *arg, const struct outcome *outcome) = n->done;
	void *arg = n->arg;
	char text[ERR_TEXT_MAX];
	if (!error) {
		stats->published++;
		stats_count_published(p->config.stats, n->method->out_topic);
	} else {
		stats->publish_failures++;
		snprintf(text, sizeof text, "the reply of %.*s.%.*s %s published to the topic \"%.*s\": %.*s",
			 SPAN_ARG(n->method->service->name), SPAN_ARG(n->method->pb->name),
			 error->unknown ? "may or may not have been" : "could not be", SPAN_ARG(n->method->out_topic),
			 SPAN_ARG(error->text));
		outcome = (struct outcome){.code = GRPC_UNAVAILABLE, .message = span_str(text)};
	}
	publication_free(n);
	done(arg, &outcome);
}

static void send_next(struct publisher *p);

static void on_appended(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct publication *n = arg;
	struct publisher *p = OBJ_CAST(struct publisher, n->publisher, PUBLISHER_MAGIC);
	must(p->sent_bytes >= n->bytes);
	p->sent_bytes -= n->bytes;
	if (!answer && error->code == GRPC_CANCELLED)
		p->closed = true;
	finish(n, answer ? NULL : error);
	send_next(p);
}

static void send(struct publication *n, int64_t timeout_ms)
{
	struct publisher *p = n->publisher;
	struct client_stream stream = {.stream = span_str(n->stream), .events = &n->record, .event_count = 1};
	p->sent_bytes += n->bytes;
	client_append(p->config.journal, &(struct client_append){.streams = &stream, .stream_count = 1}, timeout_ms,
		      on_appended, n);
}

static bool has_room(const struct publisher *p, const struct publication *n)
{
	return !p->sent_bytes || p->sent_bytes + n->bytes <= LIMIT_PUBLISHING_BYTES;
}

static void send_next(struct publisher *p)
{
	struct list_node *first;
	while ((first = list_first(&p->waiting))) {
		struct publication *n = CONTAINER_OF(first, struct publication, node);
		int64_t waited_ms = mono_since_us(clock_mono(p->config.clock), n->began) / 1000;
		if (!p->closed && waited_ms < p->config.timeout_ms) {
			if (!has_room(p, n))
				return;
			list_remove(&n->node);
			send(n, p->config.timeout_ms - waited_ms);
			continue;
		}
		list_remove(&n->node);
		finish(n, &(struct client_error){
				  .code = GRPC_UNAVAILABLE,
				  .text = p->closed ? SPAN("the proxy stops")
						    : SPAN("the journal has not taken what came before it in time")});
	}
}

enum err_code publisher_publish(struct publisher *p, const struct spec_method *method, const struct any *payload,
				const struct metadata *metadata,
				void (*done)(void *arg, const struct outcome *outcome), void *arg, struct err *err)
{
	must(p->magic == PUBLISHER_MAGIC && method->out_topic.n && done);
	struct publication *n = mem_xalloc(sizeof *n);
	n->publisher = p;
	n->method = method;
	n->began = clock_mono(p->config.clock);
	n->done = done;
	n->arg = arg;
	arena_init(&n->arena, LIMIT_CLOUD_EVENT_BYTES);
	enum err_code code = p->closed ? err_set(err, ERR_UNAVAILABLE, "the proxy stops")
				       : prepare(n, payload, metadata, err);
	if (code) {
		stats_of(p->config.stats, method->service->name)->publish_failures++;
		publication_free(n);
		return err_wrap(err, "the reply of %.*s.%.*s could not be published to the topic \"%.*s\"",
				SPAN_ARG(method->service->name), SPAN_ARG(method->pb->name),
				SPAN_ARG(method->out_topic));
	}
	if (!list_empty(&p->waiting) || !has_room(p, n))
		list_push_back(&p->waiting, &n->node);
	else
		send(n, p->config.timeout_ms);
	return ERR_OK;
}
