#include <config.h>

#include "proxy/residence.h"

#include "base/must.h"

void residence_init(struct residence *r, size_t max_bytes)
{
	r->bytes = 0;
	r->max_bytes = max_bytes;
	list_init(&r->idle);
}

void residence_settle(struct residence *r, struct resident *one, size_t bytes, bool idle)
{
	must(r->bytes >= one->bytes);
	r->bytes += bytes - one->bytes;
	one->bytes = bytes;
	if (!idle)
		list_remove(&one->node);
	else if (!list_linked(&one->node))
		list_push_back(&r->idle, &one->node);
}

void residence_leave(struct residence *r, struct resident *one)
{
	residence_settle(r, one, 0, false);
}

struct resident *residence_surplus(const struct residence *r)
{
	struct list_node *n = r->bytes > r->max_bytes ? list_first(&r->idle) : NULL;
	return n ? CONTAINER_OF(n, struct resident, node) : NULL;
}
