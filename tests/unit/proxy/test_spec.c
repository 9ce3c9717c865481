/* What a function may announce (contract, section 1, "Discovery", rule 2). */
#include <config.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/entity.h"
#include "spec_rig.h"

static void expect_refused(struct spec_rig rig, const char *text, int line)
{
	struct spec *spec;
	struct err err = {0};
	if (!rig.major && !rig.minor)
		rig.minor = 2;
	cr_assert_eq(spec_rig_build(&rig, &spec, &err), ERR_INVALID, "line %d: it was accepted", line);
	cr_assert(strstr(err.text, text), "line %d:\n  expected: %s\n  got:      %s", line, text, err.text);
}
#define EXPECT_REFUSED(text, ...) expect_refused((struct spec_rig){__VA_ARGS__}, (text), __LINE__)
#define ENTITIES(...) .entities = {__VA_ARGS__}

Test(spec, knows_services_methods_and_keys)
{
	struct spec *spec;
	struct err err = {0};
	cr_assert_eq(spec_rig_build(&spec_rig_shop, &spec, &err), ERR_OK, "%s", err.text);
	cr_assert_eq(spec->service_count, 2u);
	const struct spec_method *m = spec_find_path(spec, SPAN("/shop.Cart/AddItem"));
	cr_assert(m);
	cr_assert(span_eq_str(m->service->name, "shop.Cart"));
	cr_assert(span_eq_str(m->input_url, "type.googleapis.com/shop.Item"));
	cr_assert(span_eq_str(m->output_url, "type.googleapis.com/google.protobuf.Empty"));
	cr_assert_eq(m->key_count, 1u);
	cr_assert_eq(m->service->passivation_ms, 30000);
	const struct spec_method *w = spec_find_path(spec, SPAN("/shop.Wishes/Wish"));
	cr_assert(w);
	cr_assert_eq(w->key_count, 2u);
	cr_assert(span_eq_str(w->keys[0]->name, "number"));
	cr_assert(span_eq_str(w->keys[1]->name, "user"));
	cr_assert_eq(w->service->passivation_ms, 1500);
	cr_assert_null(spec_find_path(spec, SPAN("/shop.Cart/Nope")));
	cr_assert_null(spec_find_path(spec, SPAN("/shop.NoKey/Get")));
	cr_assert_null(spec_find_path(spec, SPAN("shop.Cart/AddItem")));
	cr_assert_null(spec_find_path(spec, SPAN("/shop.Cart")));
	spec_unref(spec);
}

Test(spec, refuses_another_protocol_version_unless_told_not_to)
{
	struct spec_rig rig = spec_rig_shop;
	struct spec_rules off = {.check_protocol = false, .passivation_ms = 1};
	struct buf bytes;
	struct spec *spec;
	struct err err = {0};
	rig.minor = 0;
	cr_assert_eq(spec_rig_build(&rig, &spec, &err), ERR_INVALID);
	cr_assert(strstr(err.text, "speaks version 0.0 of the Cloudstate protocol, this proxy 0.2"));
	rig.major = 1;
	err_clear(&err);
	cr_assert_eq(spec_rig_build(&rig, &spec, &err), ERR_INVALID);
	buf_init(&bytes, MIB);
	spec_rig_bytes(&rig, &bytes);
	cr_assert_eq(spec_build(buf_span(&bytes), &off, &spec, NULL), ERR_OK);
	spec_unref(spec);
	buf_release(&bytes);
}

Test(spec, refuses_what_the_contract_lists)
{
	EXPECT_REFUSED("no entities", .minor = 2);
	EXPECT_REFUSED("service shop.Nobody is not in the descriptors",
		       ENTITIES({"shop.Nobody", "x", NULL, 0}));
	EXPECT_REFUSED("shop.Cart is listed twice",
		       ENTITIES({"shop.Cart", "x", NULL, 0}, {"shop.Cart", "y", NULL, 0}));
	EXPECT_REFUSED("the service name grpc.health.v1.Health is reserved",
		       ENTITIES({"grpc.health.v1.Health", "x", NULL, 0}));
	EXPECT_REFUSED("grpc.reflection.v1alpha.ServerReflection is reserved",
		       ENTITIES({"grpc.reflection.v1alpha.ServerReflection", "x", NULL, 0}));
	EXPECT_REFUSED("cloudstate.EntityDiscovery is reserved",
		       ENTITIES({"cloudstate.EntityDiscovery", "x", NULL, 0}));
	EXPECT_REFUSED("cloudstate.crdt.Crdt is reserved", ENTITIES({"cloudstate.crdt.Crdt", "x", NULL, 0}));
	EXPECT_REFUSED(
		"service shop.Cart has the entity type cloudstate.graph.Graph, which this proxy does not "
		"know: it knows cloudstate.action.ActionProtocol, cloudstate.valueentity.ValueEntity, "
		"cloudstate.eventsourced.EventSourced, cloudstate.crdt.Crdt",
		ENTITIES({"shop.Cart", "x", "cloudstate.graph.Graph", 0}));
	EXPECT_REFUSED("method Watch of the service shop.StreamedOut is streamed out, which value based",
		       ENTITIES({"shop.StreamedOut", "x", "cloudstate.valueentity.ValueEntity", 0}));
	EXPECT_REFUSED("method Get of the service shop.NoKey has no entity key",
		       ENTITIES({"shop.NoKey", "x", "cloudstate.valueentity.ValueEntity", 0}));
	EXPECT_REFUSED("shop.Cart and shop.Wishes have the same persistence id, one",
		       ENTITIES({"shop.Cart", "one", NULL, 0},
				{"shop.Wishes", "one", "cloudstate.valueentity.ValueEntity", 0}));
	EXPECT_REFUSED("method Fill of the service shop.StreamedIn is streamed in, which CRDT",
		       ENTITIES({"shop.StreamedIn", "x", "cloudstate.crdt.Crdt", 0}));
	EXPECT_REFUSED("method Get of the service shop.NoKey has no entity key",
		       ENTITIES({"shop.NoKey", "x", NULL, 0}));
	EXPECT_REFUSED("method Watch of the service shop.StreamedOut is streamed out, which event sourced",
		       ENTITIES({"shop.StreamedOut", "x", NULL, 0}));
	EXPECT_REFUSED("method Fill of the service shop.StreamedIn is streamed in",
		       ENTITIES({"shop.StreamedIn", "x", NULL, 0}));
	EXPECT_REFUSED("entity key user of shop.Many is no single scalar field",
		       ENTITIES({"shop.BadKey", "x", NULL, 0}));
	EXPECT_REFUSED("nobody", ENTITIES({"shop.BadRule", "x", NULL, 0}));
	EXPECT_REFUSED("service shop.Cart has no persistence id", ENTITIES({"shop.Cart", "", NULL, 0}));
	EXPECT_REFUSED("it must not hold a |", ENTITIES({"shop.Cart", "a|b", NULL, 0}));
	EXPECT_REFUSED("nor begin with a $", ENTITIES({"shop.Cart", "$a", NULL, 0}));
	EXPECT_REFUSED("control", ENTITIES({"shop.Cart", "a\nb", NULL, 0}));
	EXPECT_REFUSED("shop.Cart and shop.Wishes have the same persistence id, one",
		       ENTITIES({"shop.Cart", "one", NULL, 0}, {"shop.Wishes", "one", NULL, 0}));
	EXPECT_REFUSED("do not link", ENTITIES({"shop.Cart", "x", NULL, 0}),
		       .set = SPAN("\x0a\x7f no descriptor"));
}

/* They need no keys, no persistence id, and stream in every way. */
Test(spec, takes_actions_of_every_streaming_kind)
{
	struct spec_rig rig = {ENTITIES({"shop.Cart", "one", NULL, 0},
					{"shop.Wishes", "one", "cloudstate.action.ActionProtocol", 0},
					{"shop.NoKey", "", "cloudstate.action.ActionProtocol", 0},
					{"shop.StreamedOut", "a|b", "cloudstate.action.ActionProtocol", 0},
					{"shop.StreamedIn", "", "cloudstate.action.ActionProtocol", 0}),
			       .minor = 2};
	struct spec *spec;
	struct err err = {0};
	cr_assert_eq(spec_rig_build(&rig, &spec, &err), ERR_OK, "%s", err.text);
	cr_assert_eq(spec->services[4].kind, &entity_action);
	spec_unref(spec);
}

Test(spec, refuses_bytes_that_are_no_spec)
{
	struct spec *spec;
	struct err err = {0};
	cr_assert_eq(spec_build(SPAN("\x0a\xff\xff\xff"), &spec_rig_rules, &spec, &err), ERR_INVALID);
	cr_assert(strstr(err.text, "no EntitySpec"));
}

/* Cut at any place it is refused, never a crash; the last cut that parses lacks something. */
Test(spec, survives_every_truncation)
{
	struct buf bytes;
	buf_init(&bytes, MIB);
	spec_rig_bytes(&spec_rig_shop, &bytes);
	for (size_t n = 0; n < bytes.n; n++) {
		struct spec *spec;
		struct err err = {0};
		uint8_t *cut = mem_xdup(bytes.p, n);
		if (spec_build(span_of(cut, n), &spec_rig_rules, &spec, &err) == ERR_OK)
			spec_unref(spec);
		mem_free(cut);
	}
	buf_release(&bytes);
}

Test(spec, survives_every_failed_allocation)
{
	struct buf bytes;
	struct spec *spec;
	buf_init(&bytes, MIB);
	spec_rig_bytes(&spec_rig_shop, &bytes);
	mem_test_fail_at(0);
	cr_assert_eq(spec_build(buf_span(&bytes), &spec_rig_rules, &spec, NULL), ERR_OK);
	spec_unref(spec);
	unsigned long count = mem_test_fail_at(0);
	cr_assert_gt(count, 0u);
	for (unsigned long n = 1; n <= count; n++) {
		struct err err = {0};
		mem_test_fail_at(n);
		if (spec_build(buf_span(&bytes), &spec_rig_rules, &spec, &err) == ERR_OK)
			spec_unref(spec); /* what failed was a growth that could be done without */
		else
			cr_assert(err.text[0]);
	}
	mem_test_fail_at(0);
	buf_release(&bytes);
}
