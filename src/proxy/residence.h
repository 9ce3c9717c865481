/* Who stays in memory: how many bytes entities hold in sum, and which of the idle ones was used longest ago.
 * Everything is O(1). No I/O, no clock. Private to src/proxy. */
#ifndef CAIRN_PROXY_RESIDENCE_H
#define CAIRN_PROXY_RESIDENCE_H

#include "base/list.h"

struct residence {
	size_t bytes, max_bytes;
	struct list idle; /* resident.node, the least recently used first */
};
struct resident { /* embedded in whoever is in memory; zeroed at first */
	struct list_node node;
	size_t bytes; /* as counted in the sum */
};

void residence_init(struct residence *r, size_t max_bytes);
/* So much it holds now, and whether it could leave. One that becomes idle was used just now; one that was idle
 * before keeps its turn. */
void residence_settle(struct residence *r, struct resident *one, size_t bytes, bool idle);
/* It leaves, or is on its way out: it counts no more. */
void residence_leave(struct residence *r, struct resident *one);
/* Who is to leave: NULL while the sum is within its bound, or nobody is idle. */
struct resident *residence_surplus(const struct residence *r);

#endif
