/* The table of entities, as its files share it: entities.c who there is, entity_io.c what each does with the
 * function and the journal. Private to them. */
#ifndef CAIRN_PROXY_ENTITIES_CORE_H
#define CAIRN_PROXY_ENTITIES_CORE_H

#include "base/map.h"
#include "base/must.h"
#include "proxy/entities.h"
#include "proxy/residence.h"

#define TABLE_MAGIC 0x456e5462u
#define SLOT_MAGIC 0x456e536cu

struct entities {
	uint32_t magic;
	struct entities_config config;
	struct map by_name; /* "service/id" -> slot; only those that take new commands */
	struct feeds *feeds;
	struct members *members;
	uint8_t session[RECORD_ID_BYTES]; /* this process's, kept by members */
	struct list awaiting; /* slot.awaiting: those that want to know how far their peers are */
	struct list all;    /* slot.all */
	size_t count;
	struct residence residence; /* of those that are not retiring */
	struct task relief;	    /* passivates who is too much */
	bool relieving;		    /* it is posted */
	bool ending_streams; /* the proxy stops: no stream is opened that its client would end */
	bool draining;
	void (*drained)(void *arg);
	void *drained_arg;
};

/* One active entity: a machine and what it was given. */
struct slot {
	uint32_t magic;
	struct entities *table;
	struct list_node all, awaiting;
	struct resident resident;
	size_t bytes;	      /* that it holds, as stats count it */
	size_t command_bytes; /* of its commands */
	struct command *only; /* of a kind without state: the one that it is there for */
	struct entity *machine;
	struct spec *spec;
	const struct spec_service *service;
	struct service_stats *stats;
	char *key;      /* "service/id" */
	struct span id; /* in key */
	char *stream;   /* the journal's stream */
	bool in_map, retiring, gone;
	unsigned depth;       /* calls of the machine on the stack */
	struct list deferred; /* command.deferred: to be told when there are none */

	struct grpc_call *call; /* the function's stream */
	struct load *load;
	bool appending, append_snapshot;
	size_t append_events;
	uint8_t append_session[RECORD_ID_BYTES]; /* that it is fenced by */

	struct loop_timer *timer;
	int64_t armed_us; /* 0: not armed */
};

static inline struct slot *slot_of(void *arg)
{
	return OBJ_CAST(struct slot, arg, SLOT_MAGIC);
}

/* Around every call of a slot's machine. The slot may be gone after slot_leave(). */
void slot_enter(struct slot *s);
void slot_leave(struct slot *s);

/* entity_io.c: of struct entity_host. */
void slot_open(void *host, const char *path, int64_t deadline_ms);
bool slot_send(void *host, struct span message);
void slot_half_close(void *host);
void slot_hold_read(void *host, bool hold);
void slot_reset(void *host);
void slot_load(void *host);
void slot_load_cancel(void *host);
void slot_append(void *host, const struct entity_append *append);

void slot_drop_call(struct slot *s);
void slot_drop_load(struct slot *s);

#endif
