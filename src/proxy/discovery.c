#include <config.h>

#include "proxy/discovery.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

enum state { WAITING, ASKING, PAUSING, ACCEPTED, REFUSED };

struct discovery {
	const struct discovery_host *host;
	void *host_arg;
	struct spec_rules rules;
	enum state state;
	int64_t pause_ms;
	struct spec *spec;  /* in force */
	struct map reasons; /* refusals that were reported */
	char *last_error;   /* of an attempt without answer, logged once while it is the same */
};

const char *discovery_state_name(const struct discovery *d)
{
	static const char *const names[] = {"waiting", "asking", "pausing", "accepted", "refused"};
	return names[d->state];
}

struct discovery *discovery_new(const struct discovery_host *host, void *host_arg,
				const struct spec_rules *rules)
{
	struct discovery *d = mem_xalloc(sizeof *d);
	d->host = host;
	d->host_arg = host_arg;
	d->rules = *rules;
	d->pause_ms = DISCOVERY_PAUSE_MIN_MS;
	map_init(&d->reasons);
	return d;
}

void discovery_free(struct discovery *d)
{
	if (!d)
		return;
	spec_unref(d->spec);
	map_release(&d->reasons);
	mem_free(d->last_error);
	mem_free(d);
}

static void ask(struct discovery *d)
{
	Cloudstate__ProxyInfo info = CLOUDSTATE__PROXY_INFO__INIT;
	ProtobufCBinaryData types[16];
	struct buf out;
	must(entity_kind_count <= ARRAY_LEN(types));
	info.protocol_major_version = DISCOVERY_PROTOCOL_MAJOR;
	info.protocol_minor_version = DISCOVERY_PROTOCOL_MINOR;
	info.proxy_name = wire_bytes(SPAN("cairn-proxy"));
	info.proxy_version = wire_bytes(SPAN(PACKAGE_VERSION));
	for (size_t i = 0; i < entity_kind_count; i++)
		types[i] = wire_bytes(span_str(entity_kinds[i]->type));
	info.supported_entity_types = types;
	info.n_supported_entity_types = entity_kind_count;
	buf_init(&out, 4 * KIB);
	must(wire_pack(&info.base, &out));
	d->state = ASKING;
	d->host->ask(d->host_arg, buf_span(&out));
	d->host->wake_in(d->host_arg, DISCOVERY_ANSWER_MS);
	buf_release(&out);
}

/* Doubling from 100 ms to 2 s, and a fifth more or less of it. */
static void pause_asking(struct discovery *d)
{
	int64_t ms = d->pause_ms * (80 + (int64_t)(random_u64() % 41)) / 100;
	d->pause_ms = d->pause_ms * 2 > DISCOVERY_PAUSE_MAX_MS ? DISCOVERY_PAUSE_MAX_MS : d->pause_ms * 2;
	d->state = PAUSING;
	d->host->wake_in(d->host_arg, ms);
}

static void log_no_answer(struct discovery *d, const char *text)
{
	if (d->last_error && strcmp(d->last_error, text) == 0)
		return;
	mem_free(d->last_error);
	d->last_error = mem_xstrdup(text);
	log_warn("function does not answer discover, trying again", LOG_STR("error", text));
}

void discovery_connected(struct discovery *d)
{
	if (d->state == ASKING)
		return;
	ask(d);
}

void discovery_lost(struct discovery *d)
{
	if (d->state == ASKING)
		d->host->forget(d->host_arg);
	d->state = WAITING;
}

/* Where a spec is in force only the question is given up: entities may live on the connection. */
static void give_up(struct discovery *d, const char *text)
{
	log_no_answer(d, text);
	if (d->spec) {
		pause_asking(d);
		return;
	}
	d->state = WAITING;
	d->host->drop(d->host_arg);
}

void discovery_no_answer(struct discovery *d, enum grpc_code code, struct span message)
{
	char text[ERR_TEXT_MAX];
	if (d->state != ASKING)
		return;
	snprintf(text, sizeof text, "%s: %.*s", grpc_code_name(code), SPAN_ARG(message));
	log_no_answer(d, text);
	pause_asking(d);
}

static void refuse(struct discovery *d, const struct err *err)
{
	struct span reason = span_str(err->text);
	d->state = REFUSED;
	d->host->wake_in(d->host_arg, DISCOVERY_REASK_MS);
	if (map_get(&d->reasons, reason))
		return;
	map_put(&d->reasons, reason, d);
	log_error("function refused", LOG_ERR(err));
	d->host->report(d->host_arg, reason);
}

void discovery_answer(struct discovery *d, struct span bytes)
{
	struct spec *spec;
	struct err err = {0};
	if (d->state != ASKING)
		return;
	d->pause_ms = DISCOVERY_PAUSE_MIN_MS;
	mem_free(d->last_error);
	d->last_error = NULL;
	if (d->spec && span_eq(d->spec->bytes, bytes)) {
		d->state = ACCEPTED;
		return;
	}
	if (spec_build(bytes, &d->rules, &spec, &err)) {
		refuse(d, &err);
		return;
	}
	struct spec *old = d->spec;
	d->spec = spec;
	d->state = ACCEPTED;
	d->host->take_over(d->host_arg, spec);
	spec_unref(old);
}

void discovery_on_time(struct discovery *d)
{
	switch (d->state) {
	case ASKING:
		d->host->forget(d->host_arg);
		give_up(d, "no answer within 10 s");
		break;
	case PAUSING:
	case REFUSED: ask(d); break;
	case WAITING:
	case ACCEPTED: break;
	}
}
