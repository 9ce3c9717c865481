/* Replies on their way to a topic, before they are passed on (contract, section 8). */
#include <config.h>

#include <criterion/criterion.h>

#include "router_rig.h"

TestSuite(publish, .init = router_rig_begin, .fini = router_rig_end);

static struct command *say_it(void)
{
	take_over_actions();
	struct command *c = call("/shop.Published/Say", "p", "A");
	expect("run shop.Published.Say(p)");
	return c;
}

Test(publish, publishes_a_reply_before_it_passes_it_on)
{
	say_it();
	answer_reply("p", ITEMS, "items", EFFECTS({"shop.Wishes", "Wish", "e", true}));
	expect("run shop.Wishes.Wish(e)");
	answer_reply("e", ITEMS, "x", NULL);
	expect("publish items to said");
	run_loop();
	published(GRPC_OK);
	expect("A gets items; A ends OK");
}

Test(publish, fails_a_call_whose_reply_is_not_published)
{
	say_it();
	answer_reply("p", ITEMS, "items", NULL);
	expect("publish items to said");
	published(GRPC_UNAVAILABLE);
	expect("A ends UNAVAILABLE not published");
}

Test(publish, reports_a_reply_that_cannot_be_published)
{
	say_it();
	rig.publisher_refuses = ERR_INVALID;
	answer_reply("p", ITEMS, "items", NULL);
	expect("publish items to said; report not that; A ends INTERNAL not that");
	rig.publisher_refuses = ERR_LIMIT;
	call("/shop.Published/Say", "q", "B");
	answer_reply("q", ITEMS, "items", NULL);
	expect("run shop.Published.Say(q); publish items to said; report not that; B ends RESOURCE_EXHAUSTED not that");
	rig.publisher_refuses = ERR_UNAVAILABLE;
	call("/shop.Published/Say", "r", "C");
	answer_reply("r", ITEMS, "items", NULL);
	expect("run shop.Published.Say(r); publish items to said; C ends UNAVAILABLE not that");
}

Test(publish, publishes_no_failure_and_nothing_where_there_is_no_reply)
{
	say_it();
	answer_failure("p", "no", NULL);
	expect("A ends UNKNOWN failure no");
	call("/shop.Published/Say", "q", "B");
	answer("q", NULL, NULL);
	expect("run shop.Published.Say(q); B ends OK");
}

Test(publish, what_is_forwarded_to_or_an_effect_publishes_nothing_of_its_own)
{
	take_over_actions();
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Published", "Say", "f", EFFECTS({"shop.Published", "Say", "e", true}));
	expect("run shop.Cart.GetCart(p); run shop.Published.Say(e)");
	answer_reply("e", ITEMS, "x", NULL);
	expect("run shop.Published.Say(f)");
	answer_reply("f", ITEMS, "items", NULL);
	expect("A gets items; A ends OK");
}

Test(publish, what_a_forward_answers_is_published_for_the_method_that_was_called)
{
	take_over_actions();
	call("/shop.Published/Watch", "p", "A");
	stream_forward("p", "shop.Published", "Say", "f");
	stream_reply("p", "2", NULL, false);
	expect("run shop.Published.Watch(p); run shop.Published.Say(f); hold Watch");
	answer_reply("f", ITEMS, "1", NULL);
	expect("publish 1 to watched");
	published(GRPC_OK);
	expect("A gets 1; unhold Watch; publish 2 to watched");
	function_ends("p", GRPC_OK);
	published(GRPC_OK);
	expect("A gets 2; A ends OK");
}

Test(publish, a_forwards_answer_that_is_not_published_fails_the_call)
{
	take_over_actions();
	call("/shop.Published/Watch", "p", "A");
	stream_forward("p", "shop.Cart", "GetCart", "f");
	expect("run shop.Published.Watch(p); run shop.Cart.GetCart(f)");
	answer_reply("f", ITEMS, "1", NULL);
	expect("publish 1 to watched");
	published(GRPC_UNAVAILABLE);
	expect("A ends UNAVAILABLE not published; withdraw p");
}

Test(publish, publishes_what_a_stream_answers_one_by_one)
{
	take_over_actions();
	call("/shop.Published/Watch", "p", "A");
	stream_reply("p", "1", NULL, false);
	stream_reply("p", "2", NULL, false);
	expect("run shop.Published.Watch(p); publish 1 to watched; hold Watch");
	published(GRPC_OK);
	expect("A gets 1; unhold Watch; publish 2 to watched");
	published(GRPC_UNAVAILABLE);
	expect("A ends UNAVAILABLE not published; withdraw p");
}

Test(publish, a_client_that_leaves_does_not_stop_a_publication)
{
	struct command *c = say_it();
	answer_reply("p", ITEMS, "items", NULL);
	expect("publish items to said");
	command_cancel(c);
	run_loop();
	published(GRPC_OK);
	call("/shop.Published/Watch", "q", "B");
	c = find("q");
	stream_reply("q", "1", NULL, false);
	stream_reply("q", "2", NULL, false);
	expect("run shop.Published.Watch(q); publish 1 to watched; hold Watch");
	command_cancel(c);
	expect("withdraw q");
	run_loop();
	published(GRPC_OK);
	run_loop();
}

Test(publish, publishes_what_a_delivery_is_answered)
{
	static const struct reply_sink delivery = {.on_end = on_end};
	take_over_actions();
	struct any event = {SPAN("type.googleapis.com/shop.User"), SPAN("p")};
	char name[] = "event";
	router_deliver(rig.router, spec_find_path(rig.spec, SPAN("/shop.Published/Say")), &event, NULL, &delivery,
		       name);
	answer_reply("p", ITEMS, "items", NULL);
	expect("run shop.Published.Say(p); publish items to said");
	published(GRPC_OK);
	expect("event ends OK");
}
