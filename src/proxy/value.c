/* The value kind (contract, section 4): its messages and records. How it lives is serial.c's.
 *
 * Records: an update is an event with the value's type_url as its type and the value's bytes as its data; a
 * delete is an event without data, said to be one by its metadata. Besides, once in SNAPSHOT_EVENTS of them,
 * or SNAPSHOT_BYTES, the same is written as a snapshot: an activation reads no more than that, and retention
 * may take everything before it. Both are marked as this kind's. */
#include <config.h>

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "proxy/serial.h"

typedef Cloudstate__Valueentity__ValueEntityStreamIn stream_in;
typedef Cloudstate__Valueentity__ValueEntityStreamOut stream_out;
typedef Cloudstate__Valueentity__ValueEntityReply value_reply;
#define IN(NAME) CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_IN__MESSAGE_##NAME
#define OUT(NAME) CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_OUT__MESSAGE_##NAME
#define STATE(NAME) CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_ACTION__ACTION_##NAME

#define MARK "value"
#define DELETED_TYPE "cairn.value.Deleted"
#define DELETED_KEY "cairn-deleted"
#define SNAPSHOT_EVENTS 32u
#define SNAPSHOT_BYTES (4 * MIB)

struct value {
	struct serial serial;
	/* While it is loaded: the newest value. */
	bool present;
	uint8_t *bytes; /* type_url, then value */
	size_t type_n, n;
	/* Since the newest snapshot. */
	size_t events, event_bytes;
	/* Of the append under way. */
	bool with_snapshot;
	size_t append_bytes;
};

static struct value *value_of(struct serial *m)
{
	return (struct value *)(void *)m;
}

/* --- loading ------------------------------------------------------------------------------------------ */

static void forget(struct value *v)
{
	mem_free(v->bytes);
	v->bytes = NULL;
	v->present = false;
}

static bool is_delete(const struct record_view *record)
{
	struct record_metadata m;
	size_t state = 0;
	while (record_metadata_next(record, &state, &m))
		if (span_eq_str(m.key, DELETED_KEY))
			return true;
	return false;
}

static void count(struct value *v, bool snapshot, size_t bytes)
{
	v->events = snapshot ? 0 : v->events + 1;
	v->event_bytes = snapshot ? 0 : v->event_bytes + bytes;
}

static bool on_record(struct serial *m, const struct record_view *record)
{
	struct value *v = value_of(m);
	forget(v);
	count(v, record->kind == RECORD_SNAPSHOT, record->data.n);
	if (is_delete(record))
		return true;
	v->type_n = record->type.n;
	v->n = record->data.n;
	v->bytes = mem_try_alloc(v->type_n + v->n + 1);
	if (!v->bytes)
		return false;
	if (v->type_n)
		memcpy(v->bytes, record->type.p, v->type_n);
	if (v->n)
		memcpy(v->bytes + v->type_n, record->data.p, v->n);
	v->present = true;
	return true;
}

static bool begin(struct serial *m)
{
	struct value *v = value_of(m);
	stream_in in = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_IN__INIT;
	Cloudstate__Valueentity__ValueEntityInit init = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_INIT__INIT;
	Cloudstate__Valueentity__ValueEntityInitState state =
		CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_INIT_STATE__INIT;
	Google__Protobuf__Any value;

	serial_open(m);
	init.service_name = wire_bytes(m->config.service);
	init.entity_id = wire_bytes(m->config.entity_id);
	init.state = &state;
	if (v->present) {
		wire_any_set(&value, (struct any){span_of(v->bytes, v->type_n),
						  span_of(v->bytes + v->type_n, v->n)});
		state.value = &value;
	}
	in.message_case = IN(INIT);
	in.init = &init;
	bool sent = serial_send(m, &in.base);
	forget(v); /* the function has it */
	return sent;
}

static void reload(struct serial *m)
{
	struct value *v = value_of(m);
	forget(v);
	count(v, true, 0);
}

static bool send_command(struct serial *m, Cloudstate__Command *command)
{
	stream_in in = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_IN__INIT;
	in.message_case = IN(COMMAND);
	in.command = command;
	return serial_send(m, &in.base);
}

/* --- the function's answers --------------------------------------------------------------------------- */

static bool unpack(struct span message, struct arena *a, struct serial_out *ret)
{
	const stream_out *out = (const stream_out *)(const void *)grpc_unpack(
		&cloudstate__valueentity__value_entity_stream_out__descriptor, a, message);
	if (!out)
		return false;
	if (out->message_case == OUT(FAILURE))
		ret->failure = out->failure;
	if (out->message_case != OUT(REPLY))
		return true;
	const value_reply *r = out->reply;
	ret->is_reply = true;
	ret->reply = (struct serial_reply){.command_id = r->command_id,
					   .action = r->client_action,
					   .effects = r->side_effects,
					   .effect_count = r->n_side_effects,
					   .changes = r->state_action && r->state_action->action_case,
					   .own = r};
	return true;
}

static void mark(struct client_record *r, bool deleted)
{
	static const struct record_metadata metadata[] = {
		{.key = {(const uint8_t *)ENTITY_MARK_KEY, sizeof ENTITY_MARK_KEY - 1},
		 .value = {(const uint8_t *)MARK, sizeof MARK - 1}},
		{.key = {(const uint8_t *)DELETED_KEY, sizeof DELETED_KEY - 1},
		 .value = {(const uint8_t *)"true", 4}},
	};
	r->metadata = metadata;
	r->metadata_count = deleted ? 2 : 1;
	if (deleted)
		r->type = SPAN(DELETED_TYPE);
}

static enum serial_keep keep(struct serial *m, struct entity_append *append, char why[ERR_TEXT_MAX])
{
	struct value *v = value_of(m);
	const Cloudstate__Valueentity__ValueEntityAction *action =
		((const value_reply *)m->reply.own)->state_action;
	if (!action || !action->action_case)
		return SERIAL_NOTHING;
	bool deleted = action->action_case == STATE(DELETE);
	const Google__Protobuf__Any *value = deleted ? NULL : action->update->value;
	if (!deleted && !value) {
		serial_report(m, "an update has no value: it is dropped");
		return SERIAL_NOTHING;
	}
	v->append_bytes = 0;
	if (value && !serial_fits_record(m, value, &v->append_bytes)) {
		snprintf(why, ERR_TEXT_MAX,
			 "the value has %zu bytes and a type of %zu; the journal takes records of at most %zu "
			 "with a type of 1 to %zu",
			 value->value.len, value->type_url.len, LIMIT_RECORD_BYTES, LIMIT_TYPE_BYTES);
		return SERIAL_REFUSED;
	}
	struct client_record *records = arena_alloc(&m->arena, 2 * sizeof *records);
	if (!records)
		return SERIAL_REFUSED;
	v->with_snapshot = v->events + 1 >= SNAPSHOT_EVENTS || v->event_bytes + v->append_bytes >= SNAPSHOT_BYTES;
	for (size_t i = 0; i < 2; i++) {
		serial_set_record(m, &records[i], value);
		mark(&records[i], deleted);
	}
	append->events = records;
	append->event_count = 1;
	append->snapshot = v->with_snapshot ? &records[1] : NULL;
	return SERIAL_APPEND;
}

static void kept(struct serial *m)
{
	struct value *v = value_of(m);
	count(v, v->with_snapshot, v->append_bytes);
}

static const struct serial_kind kind = {
	.path = "/cloudstate.valueentity.ValueEntity/handle",
	.failure = "Unexpected Value entity failure",
	.reply = "Unexpected Value entity reply",
	.message = "Unexpected Value entity failure",
	.termination = "Unexpected Value entity termination",
	.terminated = "Value entity terminated",
	.changes = "a state action",
	.reload = reload,
	.on_record = on_record,
	.begin = begin,
	.send_command = send_command,
	.unpack = unpack,
	.keep = keep,
	.kept = kept,
};

static size_t bytes(const struct entity *e)
{
	const struct value *v = (const struct value *)(const void *)e;
	return serial_bytes(e) + sizeof *v - sizeof v->serial + (v->bytes ? v->type_n + v->n : 0);
}

static struct entity *create(const struct entity_config *config)
{
	struct value *v = mem_xalloc(sizeof *v);
	serial_init(&v->serial, &kind, &entity_value, config);
	return &v->serial.base;
}

static void destroy(struct entity *e)
{
	struct value *v = (struct value *)(void *)e;
	forget(v);
	serial_release(&v->serial);
	mem_free(v);
}

const struct entity_ops entity_value = {
	.type = "cloudstate.valueentity.ValueEntity",
	.name = "value based",
	.mark = MARK,
	SERIAL_ENTITY_OPS,
	.bytes = bytes,
	.create = create,
	.free = destroy,
};
