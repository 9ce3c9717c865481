/* A command under way, as the router and the table of entities share it. Private to src/proxy. */
#ifndef CAIRN_PROXY_COMMAND_H
#define CAIRN_PROXY_COMMAND_H

#include "base/mailbox.h"
#include "proxy/entity.h"
#include "proxy/stats.h"

#define COMMAND_MAGIC 0x436f6d6du

struct slot;

/* One hop on the way to a command: how it came to be, and what by. Counted, for a side effect may outlive
 * the command that caused it. */
struct hop {
	unsigned refs;
	bool effect; /* a side effect, otherwise a forward */
	struct spec *spec;
	const struct spec_method *from;
	struct hop *before;
};

struct command {
	uint32_t magic;
	struct router *router;
	struct spec *spec;
	const struct spec_method *method;
	const struct spec_method *asked; /* whose output type the final reply should have; NULL: any */
	const struct spec_method *publishes; /* to whose topic the final replies go first; NULL: to none */
	struct service_stats *stats;
	struct entity_command entity;
	struct any input; /* of a streamed input that is this one message: forwards, effects, events */
	bool one_input;
	uint8_t *payload; /* owns what entity.payload or input points to */
	struct arena arena; /* owns the metadata */
	struct delivery *delivery; /* that ends when it has, and all that it starts; NULL: none waits so */
	struct hop *hops; /* newest first; NULL for a client's command */
	unsigned depth;
	struct mono_time began;

	const struct reply_sink *sink; /* NULL: nobody listens any more */
	void *sink_arg;

	struct slot *slot;         /* where it waits or is outstanding; NULL: its machine is done with it */
	struct list_node deadline; /* in router->deadlines while the function's (first) answer is due */
	struct mono_time due_from;
	struct list_node deferred; /* the table's: what could not be told to the machine inside its own call */
	bool withdrawing;          /* of that */

	bool beginning; /* inside entities_command(): what ends it now is told later */
	bool answered;  /* by the function: `answer` is held and worked off */
	bool withdrawn; /* the machine was told */
	bool held;      /* the caller takes no replies */
	bool holding;   /* as the machine was told */
	struct entity_answer answer;
	size_t effect_next;
	struct command *child; /* the forward or synchronous effect that is waited for */
	bool child_forward;
	struct any reply; /* that is being published */
	const struct metadata *reply_metadata;
	bool publishing;
	struct list later; /* of struct later_answer: came while another one was worked off */
	size_t later_bytes;

	bool over;          /* the machine has ended it: `outcome` follows what waits in `later` */
	struct task task;   /* carries `outcome`, or the going on after a hold, out of the call that caused it */
	bool posted, freed; /* the task is; and only it keeps the memory */
	enum grpc_code end_code;
	char *end_text;
	bool end_failure; /* outcome.failure */
};

/* A command's life (router.c). payload: of a streamed input that input's only message, or NULL. Whatever is
 * wrong is told later, by the end. */
struct command *command_new(struct router *r, const struct spec_method *method, const struct any *payload,
			    const struct metadata *metadata, const struct reply_sink *sink, void *sink_arg);
void command_begin(struct command *c);
int64_t command_deadline_left_ms(const struct command *c); /* the client's; < 0: none */
/* The function's time for its next answer begins: of a command that no client can end. */
void command_expect_next(struct command *c);
void command_set_outcome(struct command *c, const struct outcome *outcome); /* behind what waits */
void command_end_later(struct command *c, const struct outcome *outcome);   /* outside of this call */
void command_go_on_later(struct command *c);
void command_update_hold(struct command *c);
/* Nobody waits for it any more: its machine is told, once. It may be gone afterwards. */
void command_withdraw(struct command *c);
/* Tells whoever listens, and nobody later. */
void command_tell_end(struct command *c, const struct outcome *outcome);
void command_free(struct command *c);

/* Its answers (answers.c). Goes on with the one at hand, those that wait, its end; it may be gone afterwards. */
void command_go_on(struct command *c);
void command_finish_answer(struct command *c);
/* The client's end is here, though the machine may have more to say. It may be gone afterwards. */
void command_fail(struct command *c, const struct outcome *outcome);
void command_drop_later(struct command *c);
void hop_unref(struct hop *h);

/* The table to the router. Any number of answers with `more`, then exactly one answer without, or end, or
 * withdrawal. */
void command_answered(struct command *c, struct entity_answer *answer);
void command_ended(struct command *c, const struct outcome *outcome);
void command_withdrawn(struct command *c); /* by an entities_withdraw() that could not do so at once */
void command_input_wanted(struct command *c);

#endif
