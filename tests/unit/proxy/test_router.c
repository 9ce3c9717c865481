/* A command's way through effects, forwards and reply (contract, section 6). */
#include <config.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "router_rig.h"
#include "spec_rig.h"

TestSuite(router, .init = router_rig_begin, .fini = router_rig_end);


Test(router, passes_a_reply_on)
{
	call("/shop.Cart/GetCart", "p", "A");
	cr_assert(span_eq_str(rig.waiting[0]->entity.payload.type_url, "type.googleapis.com/shop.User"));
	expect("run shop.Cart.GetCart(p)");
	answer_reply("p", ITEMS, "items", NULL);
	expect("A gets items; A ends OK");
}

Test(router, ends_ok_without_a_reply_when_there_is_no_action)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer("p", NULL, NULL);
	expect("run shop.Cart.GetCart(p); A ends OK");
}

Test(router, passes_failures_and_errors_on)
{
	call("/shop.Cart/GetCart", "p", "A");
	call("/shop.Cart/GetCart", "q", "B");
	answer_failure("p", "no", NULL);
	command_ended(take("q"), &(struct outcome){.code = GRPC_UNAVAILABLE, .message = SPAN("gone")});
	expect("run shop.Cart.GetCart(p); run shop.Cart.GetCart(q); A ends UNKNOWN failure no; "
	       "B ends UNAVAILABLE gone");
}

Test(router, tells_what_cannot_be_begun_later)
{
	rig.refuse = ERR_LIMIT;
	call("/shop.Cart/GetCart", "p", "A");
	rig.refuse = ERR_INVALID;
	call("/shop.Cart/GetCart", "q", "B");
	expect("");
	while (loop_run_once(rig.loop, false))
		;
	expect("A ends RESOURCE_EXHAUSTED refused by the test; B ends INVALID_ARGUMENT refused by the test");
}

/* As when there is no memory to send it: nobody is called back inside the call that began it. */
Test(router, tells_later_what_its_entity_refuses_at_once)
{
	rig.refuse_at_once = true;
	call("/shop.Cart/GetCart", "p", "A");
	command_cancel(call("/shop.Cart/GetCart", "q", "B"));
	expect("run shop.Cart.GetCart(p); run shop.Cart.GetCart(q)");
	while (loop_run_once(rig.loop, false))
		;
	expect("A ends RESOURCE_EXHAUSTED full");
}

Test(router, goes_on_after_an_effect_that_its_entity_refuses_at_once)
{
	call("/shop.Cart/AddItem", "p", "A");
	rig.refuse_at_once = true;
	answer_forward("p", "shop.Wishes", "Wish", "f", EFFECTS({"shop.Wishes", "Wish", "w", true}));
	expect("run shop.Cart.AddItem(p); run shop.Wishes.Wish(w)");
	while (loop_run_once(rig.loop, false))
		;
	expect("run shop.Wishes.Wish(f); A ends RESOURCE_EXHAUSTED full");
}

Test(router, reports_a_reply_of_another_type_and_sends_it)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_reply("p", "type.googleapis.com/shop.User", "x", NULL);
	expect("run shop.Cart.GetCart(p); report reply of shop.Cart.GetCart has type "
	       "type.googleapis.com/shop.User, "
	       "which is not type.googleapis.com/shop.Items, the method's output: it is sent nevertheless; "
	       "A gets x; A ends OK");
}

Test(router, withdraws_what_was_not_sent)
{
	command_cancel(call("/shop.Cart/GetCart", "p", "A"));
	expect("run shop.Cart.GetCart(p); withdraw p");
}

Test(router, carries_through_what_was_sent)
{
	struct command *c = call("/shop.Cart/AddItem", "p", "A");
	rig.waiting[0] = NULL; /* sent */
	command_cancel(c);
	expect("run shop.Cart.AddItem(p); withdraw p");
	rig.waiting[0] = c;
	answer_reply("p", "type.googleapis.com/google.protobuf.Empty", "late",
		     EFFECTS({"shop.Wishes", "Wish", "w", false}));
	expect("run shop.Wishes.Wish(w)");
	answer_reply("w", "x", "y", NULL);
}

Test(router, answers_the_client_in_time)
{
	call("/shop.Cart/GetCart", "p", "A");
	struct command *sent = call("/shop.Cart/GetCart", "q", "B");
	rig.waiting[1] = NULL;
	rig.now_us += TIMEOUT_MS * 1000 + 1000;
	while (rig.log.n < 200 && loop_run_once(rig.loop, true))
		;
	expect("run shop.Cart.GetCart(p); run shop.Cart.GetCart(q); "
	       "A ends DEADLINE_EXCEEDED the function has not answered in time; withdraw p; "
	       "B ends DEADLINE_EXCEEDED the function has not answered in time; withdraw q");
	rig.waiting[1] = sent;
	answer_reply("q", ITEMS, "late", NULL);
}

Test(router, forwards_with_the_payload_untouched)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w)");
	cr_assert(span_eq_str(rig.waiting[1]->entity.payload.type_url, "T"));
	answer_reply("w", ITEMS, "wished", NULL);
	expect("A gets wished; A ends OK");
}

Test(router, checks_a_forwards_reply_against_the_method_that_was_called)
{
	call("/shop.Cart/AddItem", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_reply("w", ITEMS, "wished", NULL);
	expect("run shop.Cart.AddItem(p); run shop.Wishes.Wish(w); report reply of shop.Cart.AddItem has "
	       "type "
	       "type.googleapis.com/shop.Items, which is not type.googleapis.com/google.protobuf.Empty, the "
	       "method's output: it is sent nevertheless; A gets wished; A ends OK");
}

Test(router, passes_a_forwards_failure_on)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_failure("w", "no wish", NULL);
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w); A ends UNKNOWN failure no wish");
}

Test(router, waits_for_synchronous_effects_and_only_starts_the_others)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_reply("p", ITEMS, "items",
		     EFFECTS({"shop.Wishes", "Wish", "1", true}, {"shop.Wishes", "Wish", "2", false},
			     {"shop.Wishes", "Wish", "3", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(1)");
	answer_failure("1", "ignored", NULL);
	expect("run shop.Wishes.Wish(2); run shop.Wishes.Wish(3)");
	answer_reply("3", ITEMS, "x", NULL);
	expect("A gets items; A ends OK");
	answer_reply("2", ITEMS, "x", NULL);
}

Test(router, a_synchronous_effect_includes_its_own_effects_and_forwards)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_reply("p", ITEMS, "items", EFFECTS({"shop.Wishes", "Wish", "1", true}));
	answer_forward("1", "shop.Cart", "GetCart", "2", EFFECTS({"shop.Wishes", "Wish", "3", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(1); run shop.Wishes.Wish(3)");
	answer_reply("3", ITEMS, "x", NULL);
	expect("run shop.Cart.GetCart(2)");
	answer_reply("2", ITEMS, "x", NULL);
	expect("A gets items; A ends OK");
}

Test(router, runs_effects_where_the_reply_is_a_failure_or_nothing)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_failure("p", "no", EFFECTS({"shop.Wishes", "Wish", "1", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(1)");
	answer_reply("1", ITEMS, "x", NULL);
	expect("A ends UNKNOWN failure no");
	call("/shop.Cart/GetCart", "q", "B");
	answer("q", NULL, EFFECTS({"shop.Wishes", "Wish", "2", false}));
	expect("run shop.Cart.GetCart(q); run shop.Wishes.Wish(2); B ends OK");
	answer_reply("2", ITEMS, "x", NULL);
}

Test(router, reports_an_unknown_forward_with_its_trace)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_forward("w", "shop.Nobody", "Wish", "x", NULL);
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w); report Service [shop.Nobody] unknown\n"
	       "  forwarded from shop.Wishes.Wish\n  forwarded from shop.Cart.GetCart; "
	       "A ends INTERNAL Service [shop.Nobody] unknown");
}

Test(router, reports_an_unknown_effect_and_gives_the_reply)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_reply("w", ITEMS, "items", EFFECTS({"shop.Cart", "Nope", "1", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w); report Service [shop.Cart] does not have "
	       "a "
	       "command named: [Nope]\n  side-effect of shop.Wishes.Wish\n  forwarded from "
	       "shop.Cart.GetCart; "
	       "A gets items; A ends OK");
}

Test(router, ends_a_chain_of_forwards_at_its_limit)
{
	call("/shop.Cart/GetCart", "p", "A");
	for (int i = 0; i < LIMIT_FORWARD_DEPTH; i++) {
		buf_clear(&rig.log);
		answer_forward("p", "shop.Cart", "GetCart", "p", NULL);
		expect("run shop.Cart.GetCart(p)");
	}
	answer_forward("p", "shop.Cart", "GetCart", "p", NULL);
	while (loop_run_once(rig.loop, false))
		;
	expect("report more than 32 forwards and side effects follow from one command; "
	       "A ends INTERNAL more than 32 forwards and side effects follow from one command");
}

static void on_spec(void *arg, struct spec *spec)
{
	(void)arg;
	say("spec of %zu", spec->service_count);
}

Test(router, tells_watchers_of_every_spec)
{
	struct spec *other;
	struct spec_rig carts = {.entities = {{.service = "shop.Cart", .persistence_id = "cart"}}, .minor = 2};
	cr_assert_eq(spec_rig_build(&carts, &other, NULL), ERR_OK);
	router_watch(rig.router, on_spec, NULL);
	expect("spec of 2");
	router_take_over(rig.router, other);
	expect("entities taken over; spec of 1");
	cr_assert_eq(router_spec(rig.router), other);
	spec_unref(other);
}

/* --- streams ----------------------------------------------------------------------------------------------- */

static struct command *watch(void)
{
	take_over_actions();
	struct command *c = call("/shop.StreamedOut/Watch", "p", "A");
	expect("run shop.StreamedOut.Watch(p)");
	return c;
}

Test(router, gives_a_streams_answers_and_then_its_end)
{
	watch();
	stream_reply("p", "1", NULL, false);
	give(find("p"), NULL, NULL, true);
	stream_reply("p", "2", NULL, false);
	expect("A gets 1; A gets 2");
	function_ends("p", GRPC_OK);
	expect("A ends OK");
}

Test(router, works_off_one_answer_of_a_stream_at_a_time)
{
	watch();
	stream_reply("p", "1", EFFECTS({"shop.Wishes", "Wish", "e", true}), false);
	stream_reply("p", "2", EFFECTS({"shop.Wishes", "Wish", "f", false}), false);
	stream_forward("p", "shop.Cart", "GetCart", "g");
	expect("run shop.Wishes.Wish(e); hold Watch");
	function_ends("p", GRPC_ABORTED);
	answer_reply("e", ITEMS, "x", NULL);
	expect("A gets 1; run shop.Wishes.Wish(f); A gets 2; run shop.Cart.GetCart(g)");
	answer_reply("g", ITEMS, "3", NULL);
	expect("A gets 3; A ends ABORTED");
	answer_reply("f", ITEMS, "x", NULL);
}

Test(router, lets_answers_wait_while_their_caller_takes_none)
{
	struct command *c = watch();
	command_hold(c, true);
	stream_reply("p", "1", NULL, false);
	stream_reply("p", "2", NULL, false);
	expect("hold Watch");
	command_hold(c, false);
	expect("");
	run_loop();
	expect("A gets 1; unhold Watch; A gets 2");
	function_ends("p", GRPC_OK);
	expect("A ends OK");
}

Test(router, breaks_off_a_client_that_leaves_too_much_waiting)
{
	struct command *c = watch();
	command_hold(c, true);
	rig.more_bytes = LIMIT_ANSWERS_BYTES / 2;
	stream_reply("p", "1", NULL, false);
	stream_reply("p", "2", NULL, false);
	rig.more_bytes = 0;
	expect("hold Watch; A ends RESOURCE_EXHAUSTED the client does not take its answers; withdraw p");
}

Test(router, a_client_that_leaves_withdraws_its_stream_and_what_it_was_forwarded_to)
{
	struct command *c = watch();
	stream_forward("p", "shop.StreamedOut", "Watch", "q");
	expect("run shop.StreamedOut.Watch(q)");
	stream_reply("q", "1", NULL, false);
	expect("A gets 1");
	command_cancel(c);
	expect("withdraw q; withdraw p");
	run_loop();
}

Test(router, a_forwards_failure_ends_the_stream_that_it_is_part_of)
{
	watch();
	stream_forward("p", "shop.Cart", "GetCart", "g");
	stream_reply("p", "never", NULL, false);
	expect("run shop.Cart.GetCart(g); hold Watch");
	answer_failure("g", "no", NULL);
	expect("A ends UNKNOWN failure no; withdraw p");
}

Test(router, a_stream_has_no_timeout_of_ours)
{
	watch();
	call("/shop.Cart/GetCart", "g", "B");
	rig.now_us += TIMEOUT_MS * 1000 + 1000;
	while (rig.log.n < 60 && loop_run_once(rig.loop, true))
		;
	expect("run shop.Cart.GetCart(g); B ends DEADLINE_EXCEEDED the function has not answered in time; withdraw g");
	stream_reply("p", "1", NULL, false);
	function_ends("p", GRPC_OK);
	expect("A gets 1; A ends OK");
}

Test(router, many_replies_cannot_answer_a_call_that_has_one)
{
	take_over_actions();
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.StreamedOut", "Watch", "q", NULL);
	expect("run shop.Cart.GetCart(p); report shop.Cart.GetCart was forwarded to shop.StreamedOut.Watch, which "
	       "streams its replies: the method that was called has one; A ends INTERNAL shop.Cart.GetCart was "
	       "forwarded to shop.StreamedOut.Watch, which streams its replies: the method that was called has one");
}

Test(router, an_input_that_streams_begins_before_it)
{
	take_over_actions();
	char name[] = "A";
	struct command *c = router_open(
		rig.router,
		&(struct router_request){.method = spec_find_path(rig.spec, SPAN("/shop.StreamedIn/Fill")),
					 .deadline_ms = -1},
		&sink, name);
	expect("run shop.StreamedIn.Fill()");
	cr_assert(command_send(c, SPAN("1")));
	rig.full = true;
	cr_assert(!command_send(c, SPAN("2")));
	command_half_close(c);
	expect("input 1 to Fill; input 2 to Fill; half-close Fill");
	answer_reply("", ITEMS, "x", NULL);
	expect("A gets x; A ends OK");
}

Test(router, a_forward_to_an_input_that_streams_is_its_one_message)
{
	take_over_actions();
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.StreamedIn", "Fill", "f", NULL);
	expect("run shop.Cart.GetCart(p); run shop.StreamedIn.Fill(); input f to Fill; half-close Fill");
	answer_reply("", ITEMS, "x", NULL);
	expect("A gets x; A ends OK");
}

Test(router, metadata_that_is_the_requests_own_counts_as_none)
{
	take_over_actions();
	struct metadata metadata = {&echoed, 1};
	char name[] = "A";
	const struct spec_method *m = spec_find_path(rig.spec, SPAN("/shop.StreamedOut/Watch"));
	router_call(rig.router, m, SPAN("p"), &metadata, &sink, name);
	stream_reply("p", "1", NULL, true);
	function_ends("p", GRPC_OK);
	expect("run shop.StreamedOut.Watch(p); A gets 1; A ends OK");
	router_call(rig.router, m, SPAN("p"), NULL, &sink, name);
	stream_reply("p", "1", NULL, true);
	function_ends("p", GRPC_OK);
	expect("run shop.StreamedOut.Watch(p); A gets 1; with k=v; A ends OK");
}
