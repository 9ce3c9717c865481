/* EntitySpecs of the services in spec_test.proto, as a function would announce them. */
#ifndef SPEC_RIG_H
#define SPEC_RIG_H

#include "base/buf.h"
#include "proxy/spec.h"
#include "proxy/wire.h"

#define SPEC_RIG_MAX 8

struct spec_entity {
	const char *service, *persistence_id; /* service NULL: the end */
	const char *type;		      /* NULL: event sourced */
	int64_t passivation_ms;		      /* 0: none is announced */
};

struct spec_rig {
	struct spec_entity entities[SPEC_RIG_MAX];
	int major, minor;
	struct span set; /* descriptors; NULL: those of spec_test.proto */
};

/* Appends the EntitySpec's bytes. */
void spec_rig_bytes(const struct spec_rig *rig, struct buf *out);
/* Builds it with the strict rules and a default passivation of 30 s. */
enum err_code spec_rig_build(const struct spec_rig *rig, struct spec **ret, struct err *err);

extern const struct spec_rules spec_rig_rules;
/* Two carts that pass every rule. */
extern const struct spec_rig spec_rig_shop;

#endif
