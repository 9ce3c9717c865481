/* Which events call a method and where its replies go: the option (cloudstate.eventing) of the contract's section
 * 8, read and checked. No I/O. Private to src/proxy. */
#ifndef CAIRN_PROXY_SPEC_EVENTING_H
#define CAIRN_PROXY_SPEC_EVENTING_H

#include "base/arena.h"
#include "proxy/spec.h"

/* Fills in the method's source and out_topic. ERR_INVALID: refused, in words for the function's author. */
enum err_code spec_eventing_read(struct arena *a, struct spec_method *m, struct err *err);
/* Among a service's methods: no two take the same events. */
enum err_code spec_eventing_check(const struct spec_service *s, struct err *err);

/* Do they share their events? */
bool spec_source_eq(const struct spec_source *a, const struct spec_source *b);
/* Is it the first method of its service with this source? So each source is met once. */
bool spec_source_is_first(const struct spec_method *m);
/* The service's method that takes an event of this type from the source: the one whose input it is, else the one
 * that takes any; JSON and primitive values (json.cloudstate.io/, p.cloudstate.io/) always the latter. NULL: none. */
const struct spec_method *spec_method_of_event(const struct spec_service *s, const struct spec_source *source,
					       struct span type_url);

#endif
