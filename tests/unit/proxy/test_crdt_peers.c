/* The CRDT kind's machine among others (contract, section 7, rules 6 and 7): who there is, who has what. */
#include <config.h>

#include <criterion/criterion.h>

#include "crdt_rig.h"

#define MAJORITY CLOUDSTATE__CRDT__CRDT_WRITE_CONSISTENCY__MAJORITY
#define ALL CLOUDSTATE__CRDT__CRDT_WRITE_CONSISTENCY__ALL

static struct rig rig;
#define R (&rig)

static void setup(void)
{
	rig_init_peers(R, 2);
}

static void teardown(void)
{
	rig_release(R);
}

TestSuite(crdt_peers, .init = setup, .fini = teardown);

/* An active counter of 1 that is the first record, its command "a" answered. */
static void start_counter(void)
{
	rig_peers(R, true, true);
	rig_command(R, "a", false);
	rig_loaded(R, 0);
	rig_reply(R, 1, "x", rig_counter(R, 1));
	rig_appended(R, 1);
	rig_expect(R, "load; open; init; command 1:a; append first (gcounter 1) seen 0; answer a x");
}

/* Command "b", whose change of 2 is the second record and to be confirmed so. */
static void change(Cloudstate__Crdt__CrdtWriteConsistency consistency, const char *appended)
{
	start_counter();
	rig_command(R, "b", false);
	R->consistency = consistency;
	rig_reply(R, 2, "y", rig_counter(R, 2));
	R->consistency = 0;
	rig_appended(R, 2);
	rig_expect(R, appended);
}

Test(crdt_peers, is_not_loaded_before_it_is_known_who_there_is)
{
	rig_command(R, "a", false);
	rig_peers(R, false, true);
	rig_expect(R, "");
	rig_peers(R, true, true);
	rig_loaded(R, 0);
	rig_expect(R, "load; open; init; command 1:a");
}

Test(crdt_peers, waits_for_that_no_longer_than_five_seconds)
{
	rig_command(R, "a", false);
	rig_pass(R, 4999);
	rig_expect(R, "");
	rig_pass(R, 1);
	rig_expect(R, "end a UNAVAILABLE this proxy has no session with the journal: see whether the journal can be "
		      "reached; gone");
}

Test(crdt_peers, counts_votes_of_the_living)
{
	rig_peers(R, true, true);
	rig_command(R, "a", false);
	rig_record(R, false, 1, 1, 0, rig_vote(R, true));
	rig_record(R, false, 9, 2, 0, rig_vote(R, true));
	rig_loaded(R, 2);
	rig_reply(R, 1, "x", NULL);
	rig_expect(R, "load; open; init (vote 0 1/3); command 1:a; answer a x");
	rig_peer_ends(R, 1);
	rig_expect(R, "delta (vote 0 0/2)");
	rig_peer_ends(R, 2);
	rig_expect(R, "delta (vote 0 0/1)");
	rig_peers(R, true, true);
	rig_expect(R, "");
}

Test(crdt_peers, its_own_vote_goes_with_its_session)
{
	rig_peers(R, true, true);
	rig_command(R, "a", false);
	rig_loaded(R, 0);
	rig_reply(R, 1, "x", rig_vote(R, true));
	rig_appended(R, 1);
	rig_expect(R, "load; open; init; command 1:a; append first (vote 1 0/0) seen 0; answer a x; "
		      "delta (vote 1 1/3)");
	rig_session(R, 0xbb);
	rig_peers(R, true, true);
	rig_expect(R, "delta (vote 0 0/3)");
}

Test(crdt_peers, who_comes_and_goes_is_nothing_to_what_has_no_votes)
{
	start_counter();
	rig_peer_ends(R, 1);
	rig_expect(R, "");
}

Test(crdt_peers, all_are_waited_for)
{
	change(ALL, "command 2:b; append any (gcounter 2) seen 1 confirm all");
	cr_assert(R->awaiting);
	rig_peer_has(R, 1, 3);
	rig_peer_has(R, 2, 2);
	rig_expect(R, "");
	rig_peer_has(R, 2, 3);
	rig_expect(R, "answer b y");
	cr_assert(!R->awaiting);
}

Test(crdt_peers, a_majority_is_two_of_three)
{
	change(MAJORITY, "command 2:b; append any (gcounter 2) seen 1 confirm majority");
	rig_peer_has(R, 2, 3);
	rig_expect(R, "answer b y");
}

Test(crdt_peers, who_has_left_is_not_waited_for_and_makes_no_majority)
{
	change(MAJORITY, "command 2:b; append any (gcounter 2) seen 1 confirm majority");
	rig_peer_ends(R, 1);
	rig_expect(R, "");
	rig_peer_ends(R, 2);
	rig_expect(R, "answer b y");
}

Test(crdt_peers, what_is_not_confirmed_in_five_seconds_fails_and_stands)
{
	change(ALL, "command 2:b; append any (gcounter 2) seen 1 confirm all");
	rig_pass(R, 4999);
	rig_expect(R, "");
	rig_pass(R, 1);
	rig_expect(R, "end b UNKNOWN Failed to update CRDT at requested write consistency failed");
	rig_peer_has(R, 1, 3);
	rig_peer_has(R, 2, 3);
	rig_expect(R, "");
}

Test(crdt_peers, the_function_is_told_of_others_and_commanded_meanwhile)
{
	change(ALL, "command 2:b; append any (gcounter 2) seen 1 confirm all");
	rig_record(R, true, 1, 3, 0, rig_counter(R, 5));
	rig_command(R, "c", false);
	rig_reply(R, 3, "z", NULL);
	rig_expect(R, "delta (gcounter 5); command 3:c; answer c z");
}

Test(crdt_peers, what_is_streamed_waits_behind_its_reply)
{
	start_counter();
	struct entity_command *s = rig_command(R, "s", true);
	R->consistency = ALL;
	rig_streamed_reply(R, 2, "open", rig_counter(R, 2));
	rig_appended(R, 2);
	rig_streamed(R, 2, "one", false);
	rig_streamed(R, 2, "two", false);
	rig_expect(R, "command 2:s streamed; append any (gcounter 2) seen 1 confirm all");
	rig_peer_has(R, 1, 9);
	rig_peer_has(R, 2, 9);
	rig_expect(R, "more s open; more s one; more s two");
	rig_withdraw(R, s);
	rig_expect(R, "cancel 2");
}

Test(crdt_peers, a_stream_that_is_not_confirmed_fails_for_both_sides)
{
	start_counter();
	struct entity_command *s = rig_command(R, "s", true);
	R->consistency = ALL;
	rig_streamed_reply(R, 2, "open", rig_counter(R, 2));
	rig_appended(R, 2);
	rig_streamed(R, 2, "one", false);
	rig_pass(R, 5000);
	rig_expect(R, "command 2:s streamed; append any (gcounter 2) seen 1 confirm all; more s Failed to update CRDT "
		      "at requested write consistency failed; more s one");
	rig_withdraw(R, s); /* the router: a failure ends the client's stream */
	rig_expect(R, "cancel 2");
}

Test(crdt_peers, a_client_that_leaves_while_others_confirm_cancels_afterwards)
{
	start_counter();
	struct entity_command *s = rig_command(R, "s", true);
	R->consistency = ALL;
	rig_streamed_reply(R, 2, "open", rig_counter(R, 2));
	rig_appended(R, 2);
	rig_withdraw(R, s);
	rig_expect(R, "command 2:s streamed; append any (gcounter 2) seen 1 confirm all");
	rig_peer_has(R, 1, 9);
	rig_peer_has(R, 2, 9);
	rig_expect(R, "more s open; cancel 2");
}

Test(crdt_peers, a_delete_is_answered_once_confirmed_and_ends_the_stream_at_once)
{
	start_counter();
	rig_command(R, "b", false);
	R->consistency = ALL;
	rig_deleting_reply(R, 2, "gone");
	rig_appended(R, 2);
	rig_expect(R, "command 2:b; append any delete; half-close");
	rig_end(R);
	rig_expect(R, "");
	rig_peer_has(R, 1, 3);
	rig_peer_has(R, 2, 3);
	rig_expect(R, "answer b gone; gone");
}

Test(crdt_peers, an_end_of_the_function_ends_what_is_not_confirmed)
{
	change(ALL, "command 2:b; append any (gcounter 2) seen 1 confirm all");
	rig_end(R);
	rig_expect(R, "report chat.Room CRDT [one]: the function ended the stream: OK; end b UNKNOWN Failed to update "
		      "CRDT at requested write consistency failed; gone");
}

Test(crdt_peers, a_change_waits_for_a_session)
{
	start_counter();
	rig_peers(R, true, false);
	rig_command(R, "b", false);
	rig_reply(R, 2, "y", rig_counter(R, 2));
	rig_expect(R, "command 2:b");
	rig_session(R, 0xbb);
	rig_peers(R, true, true);
	rig_expect(R, "append any (gcounter 2) seen 1");
	rig_appended(R, 2);
	rig_expect(R, "answer b y");
}

Test(crdt_peers, a_change_that_was_fenced_off_is_made_under_the_next_session)
{
	start_counter();
	rig_command(R, "b", false);
	rig_reply(R, 2, "y", rig_counter(R, 2));
	R->peers.alive = false;
	rig_fenced(R);
	rig_expect(R, "command 2:b; append any (gcounter 2) seen 1");
	rig_session(R, 0xbb);
	rig_peers(R, true, true);
	rig_appended(R, 2);
	rig_expect(R, "append any (gcounter 2) seen 1; answer b y");
}

Test(crdt_peers, a_change_that_finds_no_session_in_time_is_refused)
{
	start_counter();
	rig_peers(R, true, false);
	rig_command(R, "b", false);
	rig_reply(R, 2, "y", rig_counter(R, 2));
	rig_pass(R, RIG_TIMEOUT_MS);
	rig_expect(R, "command 2:b; end b UNAVAILABLE this proxy has no session with the journal: see whether the "
		      "journal can be reached; half-close");
}

/* 99 records by session 9, which is over; the hundredth is this session's and asks for a snapshot. */
Test(crdt_peers, a_snapshot_has_one_place_for_all_that_have_ended)
{
	R->peers.position = 50; /* all who began before are known */
	rig_peers(R, true, true);
	rig_command(R, "a", false);
	for (unsigned i = 1; i < 100; i++)
		rig_record(R, false, i % 2 ? 9 : 8, i, 0, rig_counter(R, 1));
	rig_loaded(R, 99);
	rig_reply(R, 1, "x", rig_counter(R, 1));
	rig_appended(R, 100);
	rig_expect(R, "load; open; init (gcounter 99); command 1:a; append any (gcounter 1) seen 99; answer a x; "
		      "append exactly 100 snapshot");
	cr_assert_eq(R->snapshot_sessions, 1);
}
