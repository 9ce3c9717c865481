/* What a CRDT entity holds, known at any time without going through it: its value is measured again once what came
 * since is a part of it, so that the cost of measuring is one of what comes. */
#include <config.h>

#include "proxy/crdt.h"

/* How much memory a byte that comes may take: a small element has a struct, a key, a number and a bucket, in the
 * fold and in what the function was told. */
#define FACTOR 8u
#define AGAIN_BYTES ((size_t)4096)
#define FLIGHT_PLACE_BYTES 96u /* in the map, about */

void crdt_grew(struct crdt *c, size_t bytes)
{
	c->grown_bytes += bytes;
	if (c->grown_bytes * FACTOR > c->value_bytes / 4 + AGAIN_BYTES)
		crdt_measure(c);
}

void crdt_measure(struct crdt *c)
{
	c->value_bytes = crdt_fold_bytes(c->fold) + crdt_fold_bytes(c->fresh) + crdt_told_bytes(c->told);
	c->grown_bytes = 0;
}

size_t crdt_bytes(const struct entity *e)
{
	const struct crdt *c = (const struct crdt *)(const void *)e;
	return sizeof *c + c->value_bytes + c->grown_bytes * FACTOR + c->inbox_bytes + c->arena.used_bytes +
	       c->flights.count * (sizeof(struct crdt_flight) + FLIGHT_PLACE_BYTES);
}
