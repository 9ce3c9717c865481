/* One event sourced machine between a host and a test that tells it what happens: a command, a record, an
 * answer of the journal, a message, time. The host of es_log.c writes down what it is asked for, a line each;
 * the fuzz target has one that checks it. */
#ifndef ES_RIG_H
#define ES_RIG_H

#include "base/clock.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

#define RIG_PASSIVATION_MS 30000
#define RIG_TIMEOUT_MS 60000
#define RIG_GRACE_MS 5000
#define RIG_COMMANDS 32

struct rig {
	struct entity *e;
	struct buf log;
	struct clock clock;
	int64_t now_us;
	int64_t wake_us; /* the wish; 0: none */
	bool gone;
	struct entity_command commands[RIG_COMMANDS];
	char names[RIG_COMMANDS][16];
	size_t command_count;
};

/* A machine, of that kind or another that takes one command at a time, under another host, whose argument begins
 * with the rig (rig_wake_at wants that). */
void rig_init_with(struct rig *r, const struct entity_ops *kind, const struct entity_host *ops, void *host);
void rig_wake_at(void *host, struct mono_time at);

/* A command named name, whose payload is a "Payload" with the name's bytes. */
struct entity_command *rig_command(struct rig *r, const char *name);
void rig_event(struct rig *r, uint64_t sequence, const char *data);
void rig_snapshot(struct rig *r, uint64_t sequence, const char *data);
void rig_record(struct rig *r, uint32_t kind, uint64_t sequence, const char *data,
		struct span metadata_fields);
void rig_loaded(struct rig *r, uint64_t sequence);
void rig_load_failed(struct rig *r, enum grpc_code code, const char *text);
void rig_appended(struct rig *r, uint64_t sequence);
void rig_append_failed(struct rig *r, enum grpc_code code, const char *text, bool stale);
void rig_end(struct rig *r, enum grpc_code code, bool unreached);
void rig_end_too_large(struct rig *r, const char *text);
void rig_message(struct rig *r, struct span message);
/* Moves the time and, if the machine's wish is due then, tells it. */
void rig_pass(struct rig *r, int64_t ms);

/* Messages of the function. events and snapshot: data of Anys of type "T"; NULL ends, NULL: none. */
void rig_reply(struct rig *r, int64_t id, const char *reply, const char *const *events, const char *snapshot);
void rig_failure_reply(struct rig *r, int64_t id, const char *text, bool restart, const char *const *events);
void rig_no_action(struct rig *r, int64_t id);
void rig_failure(struct rig *r, int64_t id, const char *text);

/* Of es_log.c. */
void rig_init(struct rig *r);
void rig_release(struct rig *r);
/* The lines since the last look, joined by "; ". */
#define rig_expect(r, text) rig_expect_at((r), (text), __FILE__, __LINE__)
void rig_expect_at(struct rig *r, const char *text, const char *file, int line);
/* Loads an entity without records and sends it the first command: the log is empty then. */
void rig_start(struct rig *r);

#endif
