/* The table of active entities: gives each machine its stream to the function, its journal, its timer and a
 * place in the order of passivation. One thread, the proxy's loop. Private to src/proxy. */
#ifndef CAIRN_PROXY_ENTITIES_H
#define CAIRN_PROXY_ENTITIES_H

#include "base/clock.h"
#include "proxy/command.h"

struct entities;
struct entities_config {
	struct loop *loop;
	const struct clock *clock;
	struct client *journal;
	/* A new call on the function's channel; never NULL. deadline_ms < 0: none. */
	struct grpc_call *(*call)(void *arg, const char *path, int64_t deadline_ms,
				  const struct grpc_call_ops *ops, void *user);
	void (*report)(void *arg, struct span text);
	void *arg;
	int64_t session_ttl_ms; /* with the journal, where there are CRDTs */
	struct span name_space; /* before every stream's name: "" or "NS/" */
	int64_t command_timeout_ms, append_timeout_ms, close_grace_ms;
	int64_t load_timeout_ms; /* without a sign of the journal while an entity is replayed */
	size_t reply_max_bytes;	 /* of one message of the function */
	size_t entity_memory_bytes; /* what all may hold: beyond it the least recently used idle ones are passivated */
	size_t max_waiting;  /* for one entity */
};

struct entities *entities_new(const struct entities_config *config);
/* Entities that still run are dropped: call it when the loop has stopped, before the journal's client and
 * the function's channel go. */
void entities_free(struct entities *t);

/* Gives the command to its entity, activating it; one of a kind without state has a machine of its own. On
 * success answers and an end follow (command.h), unless it is withdrawn. On an error nothing follows. */
enum err_code entities_command(struct entities *t, struct command *c, struct err *err);
/* The client has left. True: the command is the caller's again. False: answers and an end still follow, or
 * command_withdrawn(). At most once a command. */
bool entities_withdraw(struct command *c);
/* Input that streams, as entity_ops has it. */
bool entities_input(struct command *c, const struct any *payload);
void entities_half_close(struct command *c);
/* Tells the machine c->holding. */
void entities_hold(struct command *c);
/* The proxy stops: ends the streams that only clients would end. */
void entities_end_streams(struct entities *t);
/* Ends the clients' streamed calls to kinds without state so. */
void entities_break_off_streams(struct entities *t, const struct outcome *outcome);

/* A spec has come into force: entities whose service has changed finish what they have and go. */
void entities_take_over(struct entities *t, const struct spec *spec);

/* Passivates all as they become idle; done(arg) once none is left, and the session with the journal has ended. */
void entities_drain(struct entities *t, void (*done)(void *arg), void *arg);
size_t entities_active(const struct entities *t);

#endif
