/* The event sourced kind by the contract, section 3: each rule, each fault. */
#include <config.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "es_rig.h"
#include "pbdyn/pbdyn.h"

static struct rig rig;
#define R (&rig)
#define EVENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void begin(void)
{
	log_setup(LOG_OFF, LOG_LOGFMT);
	rig_init(R);
}

static void end(void)
{
	rig_release(R);
}

TestSuite(event_sourced, .init = begin, .fini = end);

/* --- rule 1: activation -----------------------------------------------------------------------------------
 */

Test(event_sourced, activates_with_init_then_commands)
{
	rig_command(R, "a");
	rig_expect(R, "load");
	rig_loaded(R, 0);
	rig_expect(R, "open; init; command 1:a");
}

Test(event_sourced, replays_every_event_with_its_sequence)
{
	rig_command(R, "a");
	rig_event(R, 1, "x");
	rig_event(R, 2, "y");
	rig_expect(R, "load; open; init; event 1:x; event 2:y");
	rig_loaded(R, 2);
	rig_expect(R, "command 1:a");
}

Test(event_sourced, begins_with_the_snapshot_and_the_events_after_it)
{
	rig_command(R, "a");
	rig_snapshot(R, 5, "five");
	rig_event(R, 6, "six");
	rig_loaded(R, 6);
	rig_expect(R, "load; open; init 5:five; event 6:six; command 1:a");
	rig_reply(R, 1, "ok", EVENTS("e"), NULL);
	rig_expect(R, "append at 6 e");
	rig_appended(R, 7);
	rig_expect(R, "answer a ok");
}

Test(event_sourced, opens_no_stream_when_the_journal_does_not_answer)
{
	rig_command(R, "a");
	rig_command(R, "b");
	rig_load_failed(R, GRPC_UNAVAILABLE, "no journal");
	rig_expect(R, "load; refuse a UNAVAILABLE no journal; refuse b UNAVAILABLE no journal; gone");
}

Test(event_sourced, half_closes_when_the_load_breaks_in_the_middle)
{
	rig_command(R, "a");
	rig_event(R, 1, "x");
	rig_load_failed(R, GRPC_UNAVAILABLE, "broken");
	rig_expect(R, "load; open; init; event 1:x; refuse a UNAVAILABLE broken; half-close");
	rig_end(R, GRPC_OK, false);
	rig_expect(R, "gone");
}

Test(event_sourced, refuses_records_of_another_kind)
{
	struct buf metadata, entry;
	buf_init(&metadata, KIB);
	buf_init(&entry, KIB);
	cr_assert(!pb_put_bytes(&entry, 1, SPAN(ENTITY_MARK_KEY)) && !pb_put_bytes(&entry, 2, SPAN("value")));
	cr_assert(!pb_put_bytes(&metadata, 3, buf_span(&entry)));
	rig_command(R, "a");
	rig_record(R, RECORD_EVENT, 1, "x", buf_span(&metadata));
	rig_expect(
		R,
		"load; load-cancel; refuse a FAILED_PRECONDITION the journal stream cart|one holds records "
		"of a value based entity, and shop.Cart is event sourced: give it a persistence id of its own, or "
		"start the proxy with another --namespace; gone");
	buf_release(&metadata);
	buf_release(&entry);
}

/* --- rule 2: one command at a time -------------------------------------------------------------------------
 */

Test(event_sourced, sends_the_next_command_after_the_answer)
{
	rig_start(R);
	rig_command(R, "b");
	rig_command(R, "c");
	rig_expect(R, "");
	rig_reply(R, 1, "1", NULL, NULL);
	rig_expect(R, "answer a 1; command 2:b");
	rig_reply(R, 2, "2", NULL, NULL);
	rig_expect(R, "answer b 2; command 3:c");
	rig_no_action(R, 3);
	rig_expect(R, "answer c nothing");
}

Test(event_sourced, withdraws_a_waiting_command_but_not_a_sent_one)
{
	rig_start(R);
	struct entity_command *b = rig_command(R, "b");
	cr_assert_eq(R->e->ops->waiting(R->e), 1u);
	cr_assert(R->e->ops->withdraw(R->e, b));
	cr_assert_eq(R->e->ops->waiting(R->e), 0u);
	cr_assert(!R->e->ops->withdraw(R->e, &R->commands[0]));
	rig_reply(R, 1, "1", NULL, NULL);
	rig_expect(R, "answer a 1");
}

Test(event_sourced, opens_no_stream_when_nobody_asks_for_it_any_more)
{
	struct entity_command *a = rig_command(R, "a"), *b = rig_command(R, "b");
	cr_assert(R->e->ops->withdraw(R->e, a));
	rig_expect(R, "load");
	cr_assert(R->e->ops->withdraw(R->e, b));
	rig_expect(R, "load-cancel; gone");
}

/* --- rule 3: events before the reply
 * ------------------------------------------------------------------------ */

Test(event_sourced, answers_only_after_the_events_are_durable)
{
	rig_start(R);
	rig_command(R, "b");
	rig_reply(R, 1, "ok", EVENTS("x", "y"), NULL);
	rig_expect(R, "append at 0 x y");
	rig_appended(R, 2);
	rig_expect(R, "answer a ok; command 2:b");
	rig_reply(R, 2, "ok", EVENTS("z"), "s");
	rig_expect(R, "append at 2 z snapshot s");
	rig_appended(R, 3);
	rig_expect(R, "answer b ok");
}

Test(event_sourced, ignores_and_reports_a_snapshot_without_events)
{
	rig_start(R);
	rig_reply(R, 1, "ok", NULL, "s");
	rig_expect(R, "report shop.Cart entity [one]: a reply has a snapshot without event; answer a ok");
}

Test(event_sourced, restarts_when_the_append_is_not_kept)
{
	rig_start(R);
	rig_command(R, "b");
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_append_failed(R, GRPC_RESOURCE_EXHAUSTED, "disk full", false);
	rig_expect(R, "append at 0 x; refuse a RESOURCE_EXHAUSTED disk full; half-close");
	rig_end(R, GRPC_OK, false);
	rig_expect(R, "load");
	rig_loaded(R, 0);
	rig_expect(R, "open; init; command 1:b");
}

Test(event_sourced, runs_a_stale_command_once_more_before_the_waiting_ones)
{
	rig_start(R);
	rig_command(R, "b");
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_append_failed(R, GRPC_ABORTED, "found 4", true);
	rig_expect(R, "append at 0 x; half-close");
	cr_assert(!R->e->ops->withdraw(R->e, &R->commands[0]));
	rig_end(R, GRPC_OK, false);
	rig_event(R, 4, "other");
	rig_loaded(R, 4);
	rig_expect(R, "load; open; init; event 4:other; command 1:a");
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_append_failed(R, GRPC_ABORTED, "found 5", true);
	rig_expect(R, "append at 4 x; refuse a ABORTED found 5; half-close");
}

Test(event_sourced, drops_a_snapshot_that_is_too_large_and_keeps_the_events)
{
	char *large = mem_xalloc(LIMIT_RECORD_BYTES + 1);
	memset(large, 's', LIMIT_RECORD_BYTES);
	rig_start(R);
	rig_reply(R, 1, "ok", EVENTS("x"), large);
	rig_expect(R, "report shop.Cart entity [one]: the snapshot has 3145728 bytes, abov; append at 0 x");
	mem_free(large);
	rig_appended(R, 1);
	rig_expect(R, "answer a ok");
}

Test(event_sourced, fails_a_command_whose_event_is_too_large_and_restarts)
{
	char *large = mem_xalloc(LIMIT_RECORD_BYTES + 1);
	memset(large, 'e', LIMIT_RECORD_BYTES);
	rig_start(R);
	rig_reply(R, 1, "ok", EVENTS("x", large), NULL);
	rig_expect(R, "refuse a RESOURCE_EXHAUSTED event 2 of the reply has 3145728 bytes and a type of 1; "
		      "the journal takes records of at most 3145728 with a type of 1 to 256; half-close");
	mem_free(large);
	rig_end(R, GRPC_OK, false);
	rig_expect(R, "load");
}

/* --- rule 4: failures and restarts -------------------------------------------------------------------------
 */

Test(event_sourced, a_failure_leaves_the_stream_and_its_ids)
{
	rig_start(R);
	rig_command(R, "b");
	rig_failure_reply(R, 1, "no", false, NULL);
	rig_expect(R, "answer a failure no; command 2:b");
}

Test(event_sourced, drops_and_reports_events_beside_a_failure)
{
	rig_start(R);
	rig_failure_reply(R, 1, "no", false, EVENTS("x"));
	rig_expect(
		R,
		"report shop.Cart entity [one]: a reply that is a failure has events; answer a failure no");
}

Test(event_sourced, restarts_at_once_without_a_command)
{
	rig_start(R);
	rig_failure_reply(R, 1, "no", true, NULL);
	rig_expect(R, "answer a failure no; half-close");
	rig_end(R, GRPC_OK, false);
	rig_expect(R, "load");
	rig_event(R, 1, "x");
	rig_loaded(R, 1);
	rig_expect(R, "open; init; event 1:x");
	rig_command(R, "b");
	rig_expect(R, "command 1:b");
}

Test(event_sourced, goes_on_with_the_waiting_after_a_restart)
{
	rig_start(R);
	rig_command(R, "b");
	rig_failure_reply(R, 1, "no", true, NULL);
	rig_command(R, "c");
	rig_expect(R, "answer a failure no; half-close");
	rig_end(R, GRPC_ABORTED, false);
	rig_loaded(R, 0);
	rig_expect(R, "load; open; init; command 1:b");
	rig_reply(R, 1, "1", NULL, NULL);
	rig_expect(R, "answer b 1; command 2:c");
}

Test(event_sourced, resets_a_closing_stream_only_after_the_grace)
{
	rig_start(R);
	rig_failure_reply(R, 1, "no", true, NULL);
	rig_pass(R, RIG_GRACE_MS - 1);
	rig_expect(R, "answer a failure no; half-close");
	rig_reply(R, 1, "late", NULL, NULL);
	rig_expect(R, "");
	rig_pass(R, 1);
	rig_expect(R, "reset; load");
}

/* --- rule 5: faults ----------------------------------------------------------------------------------------
 */

Test(event_sourced, a_top_level_failure)
{
	rig_start(R);
	rig_command(R, "b");
	rig_failure(R, 1, "boom");
	rig_expect(R, "report shop.Cart entity [one]: Unexpected entity failure: boom; "
		      "refuse a UNKNOWN failure Unexpected entity failure; "
		      "refuse b UNKNOWN failure Entity terminated; half-close");
	rig_command(R, "c");
	rig_end(R, GRPC_ABORTED, false);
	rig_loaded(R, 0);
	rig_expect(R, "load; open; init; command 1:c");
}

Test(event_sourced, a_reply_for_another_command)
{
	rig_start(R);
	rig_command(R, "b");
	rig_reply(R, 2, "ok", NULL, NULL);
	rig_expect(R, "report shop.Cart entity [one]: Unexpected entity reply: for command; "
		      "refuse a UNKNOWN failure Unexpected entity reply; "
		      "refuse b UNKNOWN failure Entity terminated; reset; gone");
}

Test(event_sourced, a_reply_that_nobody_asked_for)
{
	rig_start(R);
	rig_reply(R, 1, "ok", NULL, NULL);
	rig_reply(R, 1, "ok", NULL, NULL);
	rig_expect(R, "answer a ok; report shop.Cart entity [one]: Unexpected entity reply: for command; "
		      "reset; gone");
}

Test(event_sourced, a_reply_while_it_is_being_replayed)
{
	rig_command(R, "a");
	rig_event(R, 1, "x");
	rig_reply(R, 1, "ok", NULL, NULL);
	rig_expect(R,
		   "load; open; init; event 1:x; report shop.Cart entity [one]: Unexpected entity reply: for "
		   "command; load-cancel; refuse a UNKNOWN failure Entity terminated; reset; gone");
}

Test(event_sourced, a_second_reply_while_the_first_is_being_kept)
{
	rig_start(R);
	rig_command(R, "b");
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_reply(R, 1, "again", EVENTS("y"), NULL);
	rig_expect(R, "append at 0 x; report shop.Cart entity [one]: Unexpected entity reply: for command; "
		      "refuse b UNKNOWN failure Entity terminated; reset");
	rig_appended(R, 1);
	rig_expect(R, "answer a ok; gone");
}

Test(event_sourced, an_empty_or_garbled_message)
{
	rig_start(R);
	rig_message(R, SPAN(""));
	rig_expect(R, "report shop.Cart entity [one]: Unexpected entity message: neither a; "
		      "refuse a UNKNOWN failure Unexpected entity message; reset; gone");
	rig_command(R, "b");
	rig_loaded(R, 0);
	rig_message(R, SPAN("\x0a\xff\xff"));
	rig_expect(R, "load; open; init; command 1:b; "
		      "report shop.Cart entity [one]: Unexpected entity message: malformed; "
		      "refuse b UNKNOWN failure Unexpected entity message; reset; gone");
}

Test(event_sourced, the_function_ends_the_stream)
{
	rig_start(R);
	rig_command(R, "b");
	rig_end(R, GRPC_UNKNOWN, false);
	rig_expect(R, "refuse a UNKNOWN failure Unexpected entity termination; "
		      "refuse b UNKNOWN failure Entity terminated; gone");
	rig_command(R, "c");
	rig_loaded(R, 0);
	rig_reply(R, 1, "ok", NULL, NULL);
	rig_expect(R, "load; open; init; command 1:c; answer c ok");
	rig_end(R, GRPC_OK, false);
	rig_expect(R, "gone");
}

/* Contract, section 2: a size limit is an error of ours, with its own code. */
Test(event_sourced, a_reply_over_the_limit_is_named)
{
	rig_start(R);
	rig_command(R, "b");
	rig_end_too_large(R, "message of 9 bytes");
	rig_expect(R, "report shop.Cart.a, entity [one]: the function's reply is not taken; "
		      "refuse a RESOURCE_EXHAUSTED shop.Cart.a, entity [one]: the function's reply is not taken: "
		      "message of 9 bytes; make it smaller, or raise --function-message-max; "
		      "refuse b UNKNOWN failure Entity terminated; gone");
	rig_start(R);
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_end_too_large(R, "message of 9 bytes");
	rig_expect(R, "append at 0 x; report shop.Cart, entity [one]: the function's reply is not taken: ");
	rig_appended(R, 1);
	rig_expect(R, "answer a ok; gone");
}

Test(event_sourced, the_function_dies_during_the_replay)
{
	rig_command(R, "a");
	rig_event(R, 1, "x");
	rig_end(R, GRPC_UNAVAILABLE, false);
	rig_expect(R, "load; open; init; event 1:x; load-cancel; "
		      "refuse a UNKNOWN failure Entity terminated; gone");
}

Test(event_sourced, the_function_dies_while_its_events_are_being_kept)
{
	rig_start(R);
	rig_command(R, "b");
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_end(R, GRPC_UNAVAILABLE, false);
	rig_expect(R, "append at 0 x; refuse b UNKNOWN failure Entity terminated");
	rig_command(R, "c");
	rig_appended(R, 1);
	rig_expect(R, "answer a ok; load");
	rig_event(R, 1, "x");
	rig_loaded(R, 1);
	rig_expect(R, "open; init; event 1:x; command 1:c");
}

Test(event_sourced, an_end_of_any_kind_leaves_an_append_alone)
{
	rig_start(R);
	rig_command(R, "b");
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_end(R, GRPC_UNAVAILABLE, true);
	rig_expect(R, "append at 0 x; refuse b UNKNOWN failure Entity terminated");
	rig_appended(R, 1);
	rig_expect(R, "answer a ok; gone");
}

Test(event_sourced, the_function_cannot_be_reached)
{
	rig_start(R);
	rig_command(R, "b");
	rig_end(R, GRPC_UNAVAILABLE, true);
	rig_expect(R, "refuse a UNAVAILABLE no function; refuse b UNAVAILABLE no function; gone");
}

Test(event_sourced, the_function_does_not_answer_in_time)
{
	rig_start(R);
	rig_command(R, "b");
	rig_pass(R, RIG_TIMEOUT_MS - 1);
	rig_expect(R, "");
	rig_pass(R, 1);
	rig_expect(R, "refuse a DEADLINE_EXCEEDED the function has not answered in time; reset; load");
	rig_loaded(R, 0);
	rig_expect(R, "open; init; command 1:b");
}

/* --- rule 6: passivation ---------------------------------------------------------------------------------
 */

Test(event_sourced, passivates_when_idle_for_its_time)
{
	rig_start(R);
	rig_pass(R, 1000);
	rig_reply(R, 1, "ok", NULL, NULL);
	rig_expect(R, "answer a ok");
	rig_pass(R, RIG_PASSIVATION_MS - 1);
	rig_expect(R, "");
	rig_pass(R, 1);
	rig_expect(R, "half-close");
	rig_end(R, GRPC_OK, false);
	rig_expect(R, "gone");
}

Test(event_sourced, does_not_passivate_while_a_command_is_outstanding)
{
	rig_start(R);
	rig_pass(R, RIG_PASSIVATION_MS);
	R->e->ops->on_time(R->e); /* a host may be early */
	rig_expect(R, "");
	cr_assert(!R->e->ops->idle(R->e));
	rig_reply(R, 1, "ok", NULL, NULL);
	rig_expect(R, "answer a ok");
	cr_assert(R->e->ops->idle(R->e));
}

Test(event_sourced, a_command_that_comes_while_closing_waits_and_replays)
{
	rig_start(R);
	rig_reply(R, 1, "ok", EVENTS("x"), NULL);
	rig_appended(R, 1);
	rig_expect(R, "append at 0 x; answer a ok");
	R->e->ops->passivate(R->e);
	rig_command(R, "b");
	rig_expect(R, "half-close");
	rig_end(R, GRPC_OK, false);
	rig_event(R, 1, "x");
	rig_loaded(R, 1);
	rig_expect(R, "load; open; init; event 1:x; command 1:b");
}

Test(event_sourced, passivates_as_soon_as_idle_when_told_so)
{
	rig_start(R);
	rig_command(R, "b");
	R->e->ops->passivate(R->e);
	rig_expect(R, "");
	rig_reply(R, 1, "1", NULL, NULL);
	rig_reply(R, 2, "2", EVENTS("x"), NULL);
	rig_appended(R, 1);
	rig_expect(R, "answer a 1; command 2:b; append at 0 x; answer b 2; half-close");
	rig_end(R, GRPC_OK, false);
	rig_expect(R, "gone");
}

/* --- ids of records
 * ------------------------------------------------------------------------------------------ */

/* In the order of the contract, section 1. */
Test(event_sourced, is_a_kind_among_others_found_by_their_types)
{
	cr_assert_eq(entity_kind_count, 4u);
	cr_assert_eq(entity_kinds[0], &entity_action);
	cr_assert_eq(entity_kinds[1], &entity_value);
	cr_assert_eq(entity_kinds[2], &entity_event_sourced);
	cr_assert_eq(entity_kinds[3], &entity_crdt);
	cr_assert_eq(entity_kind_find(SPAN("cloudstate.eventsourced.EventSourced")), &entity_event_sourced);
	cr_assert_eq(entity_kind_find(SPAN("cloudstate.valueentity.ValueEntity")), &entity_value);
	cr_assert_eq(entity_kind_find(SPAN("cloudstate.action.ActionProtocol")), &entity_action);
	cr_assert_eq(entity_kind_find(SPAN("cloudstate.crdt.Crdt")), &entity_crdt);
	cr_assert_null(entity_kind_find(SPAN("cloudstate.graph.Graph")));
}
