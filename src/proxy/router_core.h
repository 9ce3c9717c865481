/* The router as its owner (proxy.c) sees it; fronts see router.h alone. */
#ifndef CAIRN_PROXY_ROUTER_CORE_H
#define CAIRN_PROXY_ROUTER_CORE_H

#include "proxy/entities.h"
#include "proxy/publish.h"
#include "proxy/router.h"
#include "proxy/stats.h"

struct router_config {
	struct loop *loop;
	const struct clock *clock;
	struct entities_config entities;
	void (*report)(void *arg, struct span text); /* to the function's author */
	void *report_arg;
};
struct router *router_new(const struct router_config *config);
void router_free(struct router *r); /* when no command is under way */

/* The spec comes into force (a reference is taken); watchers are told. */
void router_take_over(struct router *r, struct spec *spec);
struct entities *router_entities(struct router *r);
struct publisher *router_publisher(struct router *r);
const struct stats *router_stats(const struct router *r);
struct service_stats *router_stats_of(struct router *r, struct span service);

#endif
