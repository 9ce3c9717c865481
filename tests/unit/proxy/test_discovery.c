/* When the function is asked, and what becomes of the answer (contract, section 1, "Discovery"). */
#include <config.h>

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "proxy/discovery.h"
#include "proxy/entity.h"
#include "spec_rig.h"

static struct rig {
	struct discovery *d;
	struct buf log;
	int64_t wake_ms;
	struct spec *spec;
} rig;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char line[512];
	va_list args;
	va_start(args, fmt);
	vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	cr_assert(!buf_printf(&rig.log, "%s%s", rig.log.n ? "; " : "", line));
}

static void host_ask(void *host, struct span proxy_info)
{
	struct arena a;
	(void)host;
	arena_init(&a, MIB);
	const Cloudstate__ProxyInfo *info =
		(const void *)grpc_unpack(&cloudstate__proxy_info__descriptor, &a, proxy_info);
	cr_assert(info);
	cr_assert_eq(info->protocol_major_version, 0);
	cr_assert_eq(info->protocol_minor_version, 2);
	cr_assert_eq(info->n_supported_entity_types, entity_kind_count);
	for (size_t i = 0; i < entity_kind_count; i++)
		cr_assert(span_eq_str(wire_span(info->supported_entity_types[i]), entity_kinds[i]->type));
	cr_assert(span_eq_str(wire_span(info->proxy_name), "cairn-proxy"));
	cr_assert(info->proxy_version.len > 0);
	arena_release(&a);
	say("ask");
}

static void host_forget(void *host)
{
	(void)host;
	say("forget");
}

static void host_drop(void *host)
{
	(void)host;
	say("drop");
}

static void host_take_over(void *host, struct spec *spec)
{
	(void)host;
	spec_unref(rig.spec);
	rig.spec = spec_ref(spec);
	say("take over %.*s", SPAN_ARG(spec->services[0].persistence_id));
}

static void host_report(void *host, struct span text)
{
	(void)host;
	say("report %.*s", SPAN_ARG(text));
}

static void host_wake_in(void *host, int64_t after_ms)
{
	(void)host;
	rig.wake_ms = after_ms;
}

static const struct discovery_host ops = {.ask = host_ask,
					  .forget = host_forget,
					  .drop = host_drop,
					  .take_over = host_take_over,
					  .report = host_report,
					  .wake_in = host_wake_in};

static void begin(void)
{
	log_setup(LOG_OFF, LOG_LOGFMT);
	buf_init(&rig.log, MIB);
	rig.d = discovery_new(&ops, &rig, &spec_rig_rules);
}

static void expect(const char *text)
{
	const char *got = buf_cstr(&rig.log);
	cr_assert_str_eq(got, text);
	buf_clear(&rig.log);
}

static void end(void)
{
	expect("");
	discovery_free(rig.d);
	spec_unref(rig.spec);
	buf_release(&rig.log);
}

TestSuite(discovery, .init = begin, .fini = end);

static void answer(const char *persistence_id)
{
	struct buf bytes;
	struct spec_rig shop = {.entities = {{.service = "shop.Cart", .persistence_id = persistence_id}},
				.minor = 2};
	buf_init(&bytes, MIB);
	spec_rig_bytes(&shop, &bytes);
	discovery_answer(rig.d, buf_span(&bytes));
	buf_release(&bytes);
}

Test(discovery, asks_once_and_takes_over)
{
	discovery_connected(rig.d);
	expect("ask");
	cr_assert_eq(rig.wake_ms, DISCOVERY_ANSWER_MS);
	answer("cart");
	expect("take over cart");
	discovery_on_time(rig.d);
	expect("");
}

Test(discovery, asks_again_when_the_function_is_back_and_keeps_an_equal_spec)
{
	discovery_connected(rig.d);
	answer("cart");
	discovery_lost(rig.d);
	discovery_on_time(rig.d);
	expect("ask; take over cart");
	discovery_connected(rig.d);
	answer("cart");
	expect("ask");
	discovery_lost(rig.d);
	discovery_connected(rig.d);
	answer("other");
	expect("ask; take over other");
}

Test(discovery, reports_a_refusal_once_and_asks_again_after_30_s)
{
	discovery_connected(rig.d);
	answer("a|b");
	expect("ask; report service shop.Cart has the persistence id a|b: it must not hold a | nor begin "
	       "with a $");
	cr_assert_eq(rig.wake_ms, 30000);
	discovery_on_time(rig.d);
	answer("a|b");
	expect("ask");
	discovery_on_time(rig.d);
	answer("");
	expect("ask; report service shop.Cart has no persistence id");
	discovery_lost(rig.d);
	discovery_connected(rig.d);
	answer("a|b");
	expect("ask");
	discovery_on_time(rig.d);
	answer("cart");
	expect("ask; take over cart");
}

Test(discovery, a_refused_spec_leaves_the_old_one_in_force)
{
	discovery_connected(rig.d);
	answer("cart");
	discovery_lost(rig.d);
	discovery_connected(rig.d);
	answer("$x");
	expect("ask; take over cart; ask; "
	       "report service shop.Cart has the persistence id $x: it must not hold a | nor begin with a $");
	cr_assert(span_eq_str(rig.spec->services[0].persistence_id, "cart"));
	discovery_on_time(rig.d);
	answer("cart"); /* equal to the one in force: nothing happens */
	expect("ask");
}

Test(discovery, drops_a_connection_that_does_not_answer_in_10_s)
{
	discovery_connected(rig.d);
	discovery_on_time(rig.d);
	expect("ask; forget; drop");
	answer("cart"); /* too late */
	expect("");
	discovery_connected(rig.d);
	answer("cart");
	expect("ask; take over cart");
}

Test(discovery, keeps_the_connection_where_a_spec_is_in_force)
{
	discovery_connected(rig.d);
	answer("cart");
	discovery_lost(rig.d);
	discovery_connected(rig.d);
	discovery_on_time(rig.d);
	expect("ask; take over cart; ask; forget");
	discovery_on_time(rig.d);
	expect("ask");
}

Test(discovery, pauses_between_attempts_100_ms_doubling_to_2_s)
{
	int64_t middle_ms = 100;
	discovery_connected(rig.d);
	expect("ask");
	for (int i = 0; i < 10; i++) {
		discovery_no_answer(rig.d, GRPC_UNIMPLEMENTED, SPAN("no such method"));
		cr_assert_geq(rig.wake_ms, middle_ms * 80 / 100);
		cr_assert_leq(rig.wake_ms, middle_ms * 120 / 100);
		middle_ms = middle_ms * 2 > 2000 ? 2000 : middle_ms * 2;
		discovery_on_time(rig.d);
		expect("ask");
	}
}

Test(discovery, gives_up_the_question_when_the_connection_breaks)
{
	discovery_connected(rig.d);
	discovery_lost(rig.d);
	expect("ask; forget");
	discovery_no_answer(rig.d, GRPC_UNAVAILABLE, SPAN("broken"));
	discovery_on_time(rig.d);
	expect("");
	discovery_connected(rig.d);
	expect("ask");
}
