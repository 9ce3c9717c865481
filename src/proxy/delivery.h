/* An event's delivery to a method: it is done when the method has answered and everything that its answers started has
 * ended, the side effects that nobody else waits for among them, and what follows from those.
 *
 *	command ──ends──▶ outcome is kept ──no effect is under way──▶ on_end of whoever delivers
 *
 * One thread. Private to src/proxy. */
#ifndef CAIRN_PROXY_DELIVERY_H
#define CAIRN_PROXY_DELIVERY_H

#include <stddef.h>

#include "proxy/router.h"

struct delivery;

/* The sink that the command is to have, with the delivery as its argument: it frees itself when it has told `sink`,
 * which is called for the end alone. */
struct delivery *delivery_new(const struct reply_sink *sink, void *arg);
extern const struct reply_sink delivery_command_sink;
/* An asynchronous effect has begun, and has ended. */
void delivery_effect_begins(struct delivery *d);
void delivery_effect_ends(struct delivery *d);

#endif
