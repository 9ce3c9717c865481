/* The CRDT kind's machine, message by message (contract, section 7). */
#include <config.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "crdt_rig.h"

static struct rig rig;
#define R (&rig)

static void setup(void)
{
	rig_init(R);
}

static void teardown(void)
{
	rig_release(R);
}

TestSuite(crdt_entity, .init = setup, .fini = teardown);

/* An active entity without a value, whose first command "a" (id 1) was sent. */
static struct entity_command *start(void)
{
	struct entity_command *a = rig_command(R, "a", false);
	rig_loaded(R, 0);
	rig_expect(R, "load; open; init; command 1:a");
	return a;
}

/* The same with a counter of 1 by this session, and nothing outstanding. */
static void start_counter(void)
{
	start();
	rig_reply(R, 1, "x", rig_counter(R, 1));
	rig_appended(R, 1);
	rig_expect(R, "append first (gcounter 1) seen 0; answer a x");
}

static struct entity_command *start_stream(void)
{
	start_counter();
	struct entity_command *s = rig_command(R, "s", true);
	rig_streamed_reply(R, 2, "hello", NULL);
	rig_expect(R, "command 2:s streamed; more s hello");
	return s;
}

/* --- activation ------------------------------------------------------------------------------------------ */

Test(crdt_entity, opens_with_the_value_that_there_is)
{
	rig_command(R, "a", false);
	rig_record(R, false, 1, 1, 0, rig_counter(R, 5));
	rig_record(R, false, 2, 2, 0, rig_counter(R, 2));
	rig_loaded(R, 2);
	rig_expect(R, "load; open; init (gcounter 7); command 1:a");
}

Test(crdt_entity, refuses_records_of_another_kind)
{
	rig_command(R, "a", false);
	rig_record_as(R, NULL, "type.googleapis.com/x.Event");
	rig_expect(R,
		   "load; load-cancel; end a FAILED_PRECONDITION the journal stream room|one holds records of another "
		   "kind of entity, event sourced, and chat.Room is a CRDT: give it a persistence id of its own, or "
		   "start the proxy with another --namespace; gone");
}

Test(crdt_entity, refuses_a_record_that_is_no_delta)
{
	rig_command(R, "a", false);
	rig_record_as(R, "crdt", "type.googleapis.com/cloudstate.crdt.CrdtDelta");
	rig_expect(R, "load; load-cancel; end a DATA_LOSS record 1 of stream room|one names no session, or not what "
		      "its function had observed; gone");
}

Test(crdt_entity, a_deleted_one_is_refused_without_a_stream)
{
	rig_command(R, "a", false);
	rig_record(R, false, 1, 1, 0, rig_counter(R, 5));
	rig_record(R, false, 1, 2, 0, NULL);
	rig_loaded(R, 2);
	rig_expect(R, "load; end a UNKNOWN Entity deleted failed; gone");
}

Test(crdt_entity, passivates_by_half_close_when_nothing_is_open)
{
	start_counter();
	rig_pass(R, RIG_PASSIVATION_MS - 1);
	rig_expect(R, "");
	rig_pass(R, 1);
	rig_expect(R, "half-close");
	rig_command(R, "b", false);
	rig_expect(R, "");
	rig_end(R);
	rig_expect(R, "load");
	rig_record(R, false, 0, 1, 0, rig_counter(R, 1));
	rig_loaded(R, 1);
	rig_expect(R, "open; init (gcounter 1); command 1:b");
}

Test(crdt_entity, is_not_passivated_while_a_stream_is_open)
{
	struct entity_command *s = start_stream();
	rig_pass(R, 3 * RIG_PASSIVATION_MS);
	cr_assert(!entity_crdt.idle(R->e));
	entity_crdt.passivate(R->e);
	rig_expect(R, "");
	rig_streamed(R, 2, "bye", true);
	rig_expect(R, "answer s bye; half-close");
	(void)s;
}

/* --- commands and changes -------------------------------------------------------------------------------- */

Test(crdt_entity, commands_go_out_at_once_and_are_answered_in_any_order)
{
	start();
	rig_command(R, "b", false);
	rig_command(R, "c", false);
	rig_expect(R, "command 2:b; command 3:c");
	rig_reply(R, 3, "z", NULL);
	rig_reply(R, 1, "x", NULL);
	rig_reply(R, 2, NULL, NULL);
	rig_expect(R, "answer c z; answer a x; answer b nothing");
}

Test(crdt_entity, answers_only_when_the_change_is_durable_and_in_order)
{
	start();
	rig_command(R, "b", false);
	rig_reply(R, 1, "x", rig_counter(R, 2));
	rig_reply(R, 2, "y", rig_counter(R, 3));
	rig_expect(R, "command 2:b; append first (gcounter 2) seen 0");
	rig_appended(R, 1);
	rig_expect(R, "answer a x; append any (gcounter 3) seen 1");
	rig_appended(R, 2);
	rig_expect(R, "answer b y");
}

Test(crdt_entity, a_change_that_is_none_is_not_kept_and_an_action_without_one_is_none)
{
	start_counter();
	rig_command(R, "b", false);
	rig_reply(R, 2, "y", rig_counter(R, 0));
	rig_expect(R, "command 2:b; answer b y");
}

Test(crdt_entity, what_cannot_be_kept_fails_and_the_entity_is_opened_again)
{
	start();
	rig_reply(R, 1, "x", rig_counter(R, 2));
	rig_refused(R, GRPC_UNAVAILABLE, false);
	rig_expect(R, "append first (gcounter 2) seen 0; end a UNAVAILABLE not kept; half-close");
	rig_end(R);
	rig_expect(R, "load");
}

Test(crdt_entity, a_first_delta_that_came_second_is_made_again_on_what_there_is)
{
	start();
	rig_reply(R, 1, "x", rig_counter(R, 2));
	rig_refused(R, GRPC_FAILED_PRECONDITION, true);
	rig_expect(R, "append first (gcounter 2) seen 0; load");
	rig_record(R, false, 1, 1, 0, rig_counter(R, 5));
	rig_loaded(R, 1);
	rig_expect(R, "append any (gcounter 2) seen 0");
	rig_appended(R, 2);
	rig_expect(R, "answer a x; delta (gcounter 5)");
}

Test(crdt_entity, a_snapshot_follows_every_hundred_deltas)
{
	rig_command(R, "a", false);
	for (unsigned i = 1; i < 100; i++)
		rig_record(R, false, 1, i, 0, rig_counter(R, 1));
	rig_loaded(R, 99);
	rig_reply(R, 1, "x", rig_counter(R, 1));
	rig_appended(R, 100);
	rig_expect(R, "load; open; init (gcounter 99); command 1:a; append any (gcounter 1) seen 99; answer a x; "
		      "append exactly 100 snapshot");
	rig_appended(R, 100);
	rig_expect(R, "");
}

Test(crdt_entity, a_command_without_an_answer_resets_the_stream)
{
	start();
	rig_pass(R, RIG_TIMEOUT_MS);
	rig_expect(R, "end a DEADLINE_EXCEEDED the function has not answered in time; reset; gone");
}

/* --- what others change ---------------------------------------------------------------------------------- */

Test(crdt_entity, others_changes_are_told_when_nothing_is_outstanding)
{
	start_counter();
	rig_record(R, true, 1, 2, 0, rig_counter(R, 5));
	rig_expect(R, "delta (gcounter 5)");
	rig_command(R, "b", false);
	rig_record(R, true, 1, 3, 0, rig_counter(R, 1));
	rig_record(R, true, 2, 4, 0, rig_counter(R, 1));
	rig_expect(R, "command 2:b");
	rig_reply(R, 2, "y", NULL);
	rig_expect(R, "answer b y; delta (gcounter 2)");
}

Test(crdt_entity, own_records_that_come_back_are_nothing_new)
{
	start_counter();
	rig_record(R, true, 0, 1, 0, rig_counter(R, 1));
	rig_expect(R, "");
	rig_command(R, "b", false);
	rig_reply(R, 2, "y", rig_counter(R, 3));
	rig_record(R, true, 0, 2, 1, rig_counter(R, 3)); /* before the journal's own answer */
	rig_appended(R, 2);
	rig_expect(R, "command 2:b; append any (gcounter 3) seen 1; answer b y");
}

Test(crdt_entity, what_was_written_before_its_own_change_is_loaded)
{
	start_counter();
	rig_command(R, "b", false);
	rig_reply(R, 2, "y", rig_counter(R, 3));
	rig_appended(R, 3);
	rig_expect(R, "command 2:b; append any (gcounter 3) seen 1; load; answer b y");
	rig_command(R, "c", false);
	rig_reply(R, 3, "z", rig_counter(R, 1));
	rig_expect(R, "command 3:c");
	rig_record(R, false, 0, 1, 0, rig_counter(R, 1));
	rig_record(R, false, 1, 2, 0, rig_counter(R, 7));
	rig_record(R, false, 0, 3, 1, rig_counter(R, 3));
	rig_loaded(R, 3);
	rig_expect(R, "append any (gcounter 1) seen 1");
	rig_appended(R, 4);
	rig_expect(R, "answer c z; delta (gcounter 7)");
}

Test(crdt_entity, what_may_have_been_missed_is_loaded)
{
	rig_command(R, "a", false);
	entity_crdt.on_follow(R->e, NULL);
	rig_loaded(R, 0);
	rig_expect(R, "load; load");
	rig_loaded(R, 0);
	rig_reply(R, 1, "x", NULL);
	rig_expect(R, "open; init; command 1:a; answer a x");
	entity_crdt.on_follow(R->e, NULL);
	rig_record(R, false, 1, 1, 0, rig_counter(R, 7));
	rig_loaded(R, 1);
	rig_expect(R, "load; delta (gcounter 7)");
}

Test(crdt_entity, a_gap_in_what_is_followed_loads_anew)
{
	start_counter();
	rig_record(R, true, 1, 4, 0, rig_counter(R, 1));
	rig_expect(R, "load");
	rig_record(R, false, 0, 1, 0, rig_counter(R, 1));
	rig_record(R, false, 1, 2, 0, rig_counter(R, 2));
	rig_record(R, false, 1, 3, 0, rig_counter(R, 2));
	rig_loaded(R, 3);
	rig_expect(R, "load"); /* the fourth came by the way, and is not in what was loaded */
	for (unsigned i = 1; i <= 4; i++)
		rig_record(R, false, i > 1, i, 0, rig_counter(R, 1));
	rig_loaded(R, 4);
	rig_expect(R, "delta (gcounter 3)");
}

Test(crdt_entity, commands_wait_for_others_changes_that_have_waited_a_second)
{
	start_counter();
	rig_command(R, "b", false);
	rig_record(R, true, 1, 2, 0, rig_counter(R, 5));
	rig_command(R, "c", false);
	rig_expect(R, "command 2:b; command 3:c");
	rig_pass(R, 1000);
	rig_command(R, "d", false);
	rig_reply(R, 3, "z", NULL);
	rig_expect(R, "answer c z");
	rig_reply(R, 2, "y", NULL);
	rig_expect(R, "answer b y; delta (gcounter 5); command 4:d");
}

Test(crdt_entity, a_register_write_that_lost_is_put_right)
{
	rig_command(R, "a", false);
	rig_record(R, false, 1, 1, 0, rig_register(R, 1, 9));
	rig_loaded(R, 1);
	rig_reply(R, 1, "x", rig_register(R, 2, 5));
	rig_appended(R, 2);
	rig_expect(R, "load; open; init (lww 1 clock 0 0); command 1:a; append any (lww 2 clock 2 5) seen 1; "
		      "answer a x; delta (lww 1 clock 0 0)");
}

Test(crdt_entity, its_own_vote_is_not_echoed)
{
	start();
	rig_reply(R, 1, "x", rig_vote(R, true));
	rig_appended(R, 1);
	rig_expect(R, "append first (vote 1 0/0) seen 0; answer a x");
}

/* --- deletion -------------------------------------------------------------------------------------------- */

Test(crdt_entity, who_deletes_is_told_nothing_more)
{
	start_stream();
	rig_command(R, "b", false);
	rig_command(R, "c", false);
	rig_deleting_reply(R, 3, "gone");
	rig_expect(R, "command 3:b; command 4:c; append any delete");
	rig_appended(R, 2);
	rig_expect(R, "answer b gone; end s OK; half-close");
	rig_command(R, "d", false);
	rig_expect(R, "end d UNKNOWN Entity deleted failed");
	rig_reply(R, 4, "late", rig_counter(R, 1));
	rig_expect(R, "answer c late");
	rig_end(R);
	rig_expect(R, "gone");
}

Test(crdt_entity, what_is_not_answered_by_then_fails)
{
	start();
	rig_command(R, "b", false);
	rig_deleting_reply(R, 1, "gone");
	rig_appended(R, 1);
	rig_end(R);
	rig_expect(R, "command 2:b; append first delete; answer a gone; half-close; "
		      "end b UNKNOWN Entity deleted failed; gone");
}

Test(crdt_entity, a_deletion_elsewhere_is_told_and_then_nothing)
{
	start_stream();
	rig_record(R, true, 1, 2, 0, NULL);
	rig_expect(R, "end s OK; delete; half-close");
	rig_end(R);
	rig_expect(R, "gone");
}

/* --- streams --------------------------------------------------------------------------------------------- */

Test(crdt_entity, streamed_messages_come_at_any_time_and_end_with_end_stream)
{
	start_stream();
	rig_streamed(R, 2, "1", false);
	rig_streamed(R, 2, NULL, false);
	rig_command(R, "b", false);
	rig_streamed(R, 2, "2", false);
	rig_reply(R, 3, "y", NULL);
	rig_streamed(R, 2, "3", true);
	rig_expect(R, "more s 1; more s nothing; command 3:b; more s 2; answer b y; answer s 3");
	rig_streamed(R, 2, "4", false); /* it is over: nothing to speak of */
	rig_expect(R, "");
}

Test(crdt_entity, a_reply_that_is_not_streamed_ends_a_streamed_command)
{
	start_counter();
	rig_command(R, "s", true);
	rig_reply(R, 2, "only", NULL);
	rig_expect(R, "command 2:s streamed; answer s only");
}

Test(crdt_entity, a_failure_ends_a_stream_for_both_sides)
{
	start_counter();
	struct entity_command *s = rig_command(R, "s", true);
	rig_failing_reply(R, 2, "no", true);
	rig_expect(R, "command 2:s streamed; answer s no failed");
	rig_command(R, "t", true);
	rig_streamed_reply(R, 3, "yes", NULL);
	rig_streamed_failure(R, 3, "no more");
	rig_expect(R, "command 3:t streamed; more t yes; answer t no more failed");
	(void)s;
}

Test(crdt_entity, a_client_that_leaves_cancels_once)
{
	struct entity_command *s = start_stream();
	rig_withdraw(R, s);
	rig_expect(R, "cancel 2");
	rig_streamed(R, 2, "late", false);
	rig_expect(R, "");
	rig_cancel_response(R, 2, rig_counter(R, 4));
	rig_expect(R, "append any (gcounter 4) seen 1");
	rig_appended(R, 2);
	rig_expect(R, "answer s nothing");
	rig_pass(R, RIG_PASSIVATION_MS);
	rig_expect(R, "half-close");
}

Test(crdt_entity, a_stream_whose_end_waits_to_be_read_is_not_cancelled)
{
	struct entity_command *s = start_stream();
	rig_command(R, "b", false);
	rig_reply(R, 3, "y", rig_counter(R, 4));
	rig_streamed(R, 2, "bye", true);
	rig_withdraw(R, s);
	rig_expect(R, "command 3:b; append any (gcounter 4) seen 1");
	rig_appended(R, 2);
	rig_expect(R, "answer b y; answer s bye");
}

Test(crdt_entity, a_cancellation_waits_for_the_reply_and_goes_only_to_a_stream)
{
	start_counter();
	struct entity_command *s = rig_command(R, "s", true), *t = rig_command(R, "t", true);
	struct entity_command *u = rig_command(R, "u", false);
	rig_expect(R, "command 2:s streamed; command 3:t streamed; command 4:u");
	rig_withdraw(R, s);
	rig_withdraw(R, t);
	rig_withdraw(R, u);
	rig_expect(R, "");
	rig_streamed_reply(R, 2, "x", rig_counter(R, 1));
	rig_reply(R, 3, "y", NULL);
	rig_reply(R, 4, "z", NULL);
	rig_expect(R, "append any (gcounter 1) seen 1");
	rig_appended(R, 2);
	rig_expect(R, "more s x; cancel 2; answer t y; answer u z");
}

Test(crdt_entity, a_cancellation_ends_with_the_stream_or_after_five_seconds)
{
	struct entity_command *s = start_stream(), *t = rig_command(R, "t", true);
	rig_streamed_reply(R, 3, "x", NULL);
	rig_withdraw(R, s);
	rig_withdraw(R, t);
	rig_expect(R, "command 3:t streamed; more t x; cancel 2; cancel 3");
	rig_record(R, true, 1, 2, 0, rig_counter(R, 5));
	rig_streamed(R, 2, "end", true);
	rig_expect(R, "end s OK");
	rig_pass(R, 4999);
	rig_expect(R, "");
	rig_pass(R, 1);
	rig_expect(R, "end t CANCELLED; delta (gcounter 5)");
	rig_cancel_response(R, 3, NULL);
	rig_expect(R, "");
}

Test(crdt_entity, a_client_that_leaves_before_its_command_was_sent_takes_it_back)
{
	struct entity_command *a = rig_command(R, "a", true);
	rig_withdraw(R, a);
	rig_expect(R, "load; load-cancel; gone; back a");
}

Test(crdt_entity, a_drain_ends_streams_with_ok)
{
	start_stream();
	entity_crdt.end_streams(R->e);
	entity_crdt.passivate(R->e);
	rig_expect(R, "end s OK; half-close");
}

Test(crdt_entity, a_stream_that_a_drain_finds_unopened_ends_with_its_reply)
{
	start_counter();
	rig_command(R, "s", true);
	entity_crdt.end_streams(R->e);
	entity_crdt.passivate(R->e);
	rig_streamed_reply(R, 2, "hello", NULL);
	rig_expect(R, "command 2:s streamed; answer s hello; half-close");
}

Test(crdt_entity, a_drain_cancels_a_stream_that_nobody_waits_for)
{
	start_counter();
	rig_withdraw(R, rig_command(R, "s", true));
	entity_crdt.end_streams(R->e);
	entity_crdt.passivate(R->e);
	rig_streamed_reply(R, 2, "hello", NULL);
	rig_expect(R, "command 2:s streamed; more s hello; cancel 2");
	rig_cancel_response(R, 2, rig_counter(R, 1));
	rig_appended(R, 2);
	rig_expect(R, "append any (gcounter 1) seen 1; answer s nothing; half-close");
}

/* --- a function that does not read ------------------------------------------------------------------------- */

Test(crdt_entity, sends_nothing_more_to_a_function_that_does_not_read)
{
	start_counter();
	R->full = true;
	rig_command(R, "b", false);
	rig_command(R, "c", false);
	rig_record(R, true, 1, 2, 0, rig_counter(R, 5));
	cr_assert_eq(entity_crdt.waiting(R->e), 2);
	rig_expect(R, "command 2:b");
	rig_reply(R, 2, "x", NULL);
	rig_expect(R, "answer b x");
	R->full = false;
	entity_crdt.on_writable(R->e);
	rig_expect(R, "delta (gcounter 5); command 3:c");
}

Test(crdt_entity, a_function_that_never_reads_is_given_up_when_a_command_is_due)
{
	start_counter();
	R->full = true;
	rig_command(R, "b", false);
	rig_command(R, "c", false);
	rig_expect(R, "command 2:b");
	R->full = false;
	rig_pass(R, RIG_TIMEOUT_MS);
	rig_expect(R, "end b DEADLINE_EXCEEDED the function has not answered in time; reset; load");
	rig_loaded(R, 0);
	rig_expect(R, "open; init; command 1:c");
}

Test(crdt_entity, what_is_answered_or_streams_does_not_count_as_waiting)
{
	start_stream();
	cr_assert_eq(entity_crdt.waiting(R->e), 0);
	struct entity_command *b = rig_command(R, "b", true);
	cr_assert_eq(entity_crdt.waiting(R->e), 1);
	rig_streamed_reply(R, 3, "x", NULL);
	cr_assert_eq(entity_crdt.waiting(R->e), 0);
	rig_withdraw(R, b);
	rig_cancel_response(R, 3, NULL);
	rig_streamed(R, 2, "y", true);
	cr_assert_eq(entity_crdt.waiting(R->e), 0);
	rig_command(R, "c", false);
	cr_assert_eq(entity_crdt.waiting(R->e), 1);
}

Test(crdt_entity, streams_are_opened_up_to_a_limit)
{
	start_counter();
	for (size_t i = 0; i < LIMIT_CRDT_STREAMS; i++) {
		rig_command(R, "s", true);
		rig_streamed_reply(R, (int64_t)i + 2, "x", NULL);
		buf_clear(&R->log);
	}
	rig_command(R, "t", true);
	rig_expect(R, "end t RESOURCE_EXHAUSTED the CRDT has all the open streams it may have");
	rig_command(R, "u", false);
	rig_expect(R, "command 16386:u");
	rig_streamed(R, 2, "y", true);
	rig_command(R, "v", true);
	rig_expect(R, "answer s y; command 16387:v streamed");
}

Test(crdt_entity, effects_wait_until_the_change_is_durable)
{
	start();
	R->effect = true;
	rig_reply(R, 1, "x", rig_counter(R, 1));
	rig_expect(R, "append first (gcounter 1) seen 0");
	rig_appended(R, 1);
	rig_expect(R, "answer a x effect");
}

/* --- faults of the function ------------------------------------------------------------------------------ */

#define FAULT "end s UNKNOWN Entity terminating failed; reset; gone"

Test(crdt_entity, a_reply_that_nobody_waits_for_is_a_fault)
{
	start_stream();
	rig_reply(R, 9, "x", NULL);
	rig_expect(R, "report chat.Room CRDT [one]: a reply for command 9, which nobody waits for; " FAULT);
}

Test(crdt_entity, a_streamed_reply_to_a_command_that_is_not_is_a_fault)
{
	start();
	rig_streamed_reply(R, 1, "x", NULL);
	rig_expect(R, "report chat.Room CRDT [one]: a streamed reply to command 1, which is not streamed; "
		      "end a UNKNOWN Entity terminating failed; reset; gone");
}

Test(crdt_entity, a_change_that_does_not_fit_is_a_fault)
{
	start_stream();
	rig_command(R, "b", false);
	rig_reply(R, 3, "y", rig_vote(R, true));
	rig_expect(R, "command 3:b; report chat.Room CRDT [one]: a Vote delta for what is a GCounter; "
		      "end b UNKNOWN Entity terminating failed; " FAULT);
}

Test(crdt_entity, bytes_that_are_no_message_are_a_fault)
{
	start_stream();
	rig_bytes(R, SPAN("\x0a\xff"));
	rig_expect(R, "report chat.Room CRDT [one]: a message that is malformed, or nested or made of parts beyond "
		      "measure; " FAULT);
}

Test(crdt_entity, an_end_of_the_stream_is_a_fault_after_what_was_written_before)
{
	start();
	rig_command(R, "b", false);
	rig_reply(R, 1, "x", rig_counter(R, 1));
	rig_end(R);
	rig_expect(R, "command 2:b; append first (gcounter 1) seen 0");
	rig_appended(R, 1);
	rig_expect(R, "answer a x; report chat.Room CRDT [one]: the function ended the stream: OK; "
		      "end b UNKNOWN Entity terminating failed; gone");
}

#define TOO_LARGE \
	"the function's reply is not taken: 20 bytes, above 10; make it smaller, or raise --function-message-max"

Test(crdt_entity, a_message_over_the_limit_is_told_to_whom_it_may_have_been_for)
{
	start();
	rig_end_too_large(R);
	rig_expect(R, "report chat.Room.a, entity [one]: " TOO_LARGE "; "
		      "end a RESOURCE_EXHAUSTED chat.Room.a, entity [one]: " TOO_LARGE "; gone");
}

Test(crdt_entity, a_message_over_the_limit_names_no_command_where_there_are_several)
{
	start_stream();
	rig_command(R, "b", false);
	rig_end_too_large(R);
	rig_expect(R, "command 3:b; report chat.Room, entity [one]: " TOO_LARGE "; "
		      "end b RESOURCE_EXHAUSTED chat.Room, entity [one]: " TOO_LARGE "; "
		      "end s RESOURCE_EXHAUSTED chat.Room, entity [one]: " TOO_LARGE "; gone");
}

Test(crdt_entity, a_failure_of_a_waiting_command_leaves_the_stream)
{
	start();
	rig_failure(R, 1, "no");
	rig_expect(R, "end a UNKNOWN no failed");
	rig_failure(R, 0, "who knows");
	rig_failure(R, 7, "who knows");
	rig_expect(R, "");
	rig_command(R, "b", false);
	rig_expect(R, "command 2:b");
}

Test(crdt_entity, messages_for_what_never_was_are_reported_and_dropped)
{
	start_stream();
	rig_streamed(R, 5, "x", false);
	rig_cancel_response(R, 0, NULL);
	rig_expect(R, "report chat.Room CRDT [one]: a streamed message for command 5, which there never was: it is "
		      "dropped; report chat.Room CRDT [one]: an answer to a cancellation for command 0, which there "
		      "never was: it is dropped");
}

Test(crdt_entity, a_function_that_does_not_end_its_stream_is_reset_after_the_grace)
{
	start_counter();
	rig_pass(R, RIG_PASSIVATION_MS);
	rig_pass(R, RIG_GRACE_MS);
	rig_expect(R, "half-close; reset; gone");
}
