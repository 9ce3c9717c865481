#include <config.h>

#include "spec_rig.h"

#include <criterion/criterion.h>

#include "base/limits.h"

extern const unsigned char spec_test_set[];
extern const size_t spec_test_set_bytes;

const struct spec_rules spec_rig_rules = {.check_protocol = true, .passivation_ms = 30000};
const struct spec_rig spec_rig_shop = {
	.entities = {{.service = "shop.Cart", .persistence_id = "cart"},
		     {.service = "shop.Wishes", .persistence_id = "wishes", .passivation_ms = 1500}},
	.minor = 2};

void spec_rig_bytes(const struct spec_rig *rig, struct buf *out)
{
	Cloudstate__EntitySpec spec = CLOUDSTATE__ENTITY_SPEC__INIT;
	Cloudstate__ServiceInfo info = CLOUDSTATE__SERVICE_INFO__INIT;
	Cloudstate__Entity entities[SPEC_RIG_MAX], *list[SPEC_RIG_MAX];
	Cloudstate__EntityPassivationStrategy strategies[SPEC_RIG_MAX];
	Cloudstate__TimeoutPassivationStrategy timeouts[SPEC_RIG_MAX];
	size_t n = 0;
	for (const struct spec_entity *e = rig->entities; e->service; e++, n++) {
		cloudstate__entity__init(&entities[n]);
		list[n] = &entities[n];
		entities[n].service_name = wire_bytes(span_str(e->service));
		entities[n].persistence_id = wire_bytes(span_str(e->persistence_id));
		entities[n].entity_type =
			wire_bytes(span_str(e->type ? e->type : "cloudstate.eventsourced.EventSourced"));
		if (!e->passivation_ms)
			continue;
		cloudstate__entity_passivation_strategy__init(&strategies[n]);
		cloudstate__timeout_passivation_strategy__init(&timeouts[n]);
		timeouts[n].timeout = e->passivation_ms;
		strategies[n].strategy_case = CLOUDSTATE__ENTITY_PASSIVATION_STRATEGY__STRATEGY_TIMEOUT;
		strategies[n].timeout = &timeouts[n];
		entities[n].passivation_strategy = &strategies[n];
	}
	info.protocol_major_version = rig->major;
	info.protocol_minor_version = rig->minor;
	spec.service_info = &info;
	spec.entities = list;
	spec.n_entities = n;
	spec.proto = wire_bytes(rig->set.p ? rig->set : span_of(spec_test_set, spec_test_set_bytes));
	cr_assert(wire_pack(&spec.base, out));
}

enum err_code spec_rig_build(const struct spec_rig *rig, struct spec **ret, struct err *err)
{
	struct buf bytes;
	buf_init(&bytes, MIB);
	spec_rig_bytes(rig, &bytes);
	enum err_code code = spec_build(buf_span(&bytes), &spec_rig_rules, ret, err);
	buf_release(&bytes);
	return code;
}
