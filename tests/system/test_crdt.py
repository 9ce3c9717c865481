"""CRDTs, the contract's section 7: the test plays the function. What the Go SDK's does is in test_crdt_go.py,
what several proxies do to each other in test_crdt_peers.py."""

import re

import pytest
from google.protobuf import any_pb2

import harness
import protos
from crdt import Crdt, gcounter, gset, lww, ormap, orset, vote
from entity import pack
from recorder import CRDT_HANDLE, PATIENCE
from records import Broken, HalfClose, Reset, ToFunction
from rooms import ROOM, Rooms, failed, request, response


@pytest.fixture
def rooms(lab):
    return Rooms(lab)


def test_a_value_comes_back_whole_after_a_passivation(lab):
    rooms = Rooms(lab, passivate_ms=100)
    value = ormap(added={"a": gcounter(2), "b": orset("x", "y"), "c": ormap(added={"d": lww("v", 2, 7)})})
    stream, room = rooms.with_value(value)
    stream.expect(HalfClose())
    stream.end(0)
    whole = ormap(added={"a": gcounter(2), "b": orset("x", "y"), "c": ormap(added={"d": lww("v")})})
    answer, stream, room = rooms.begin(value=whole)
    stream.send(room.reply(1, response("2")).message)
    assert answer.result() == response("2")
    stream.expect(HalfClose())
    stream.end(0)
    rooms.rec.nothing_more()


def test_commands_are_outstanding_together_and_answered_in_any_order(rooms):
    first, stream, room = rooms.begin()
    second = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", request("r", "2")))
    stream.send(room.reply(2, response("second"), update=gcounter(1)).message)
    assert second.result() == response("second")
    stream.send(room.reply(1, response("first"), update=gcounter(1)).message)
    assert first.result() == response("first")
    rooms.rec.nothing_more()


def test_a_register_write_that_lost_is_put_right(rooms):
    stream, room = rooms.with_value(lww("kept", 2, 9))
    answer = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", request("r", "2")))
    stream.send(room.reply(2, response("x"), update=lww("lost", 2, 5)).message)
    assert answer.result() == response("x")
    stream.expect(room.delta(lww("kept")))
    rooms.rec.nothing_more()


def test_its_own_vote_is_not_echoed(rooms):
    stream, room = rooms.with_value(vote(True))
    answer = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", request("r", "2")))
    stream.send(room.reply(2, response("x"), update=vote(False)).message)
    assert answer.result() == response("x")
    rooms.rec.nothing_more()


def test_messages_come_unasked_and_the_stream_ends_when_it_says_so(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.open_watch(stream, room, 2)
    stream.send(room.streamed(2, response("a")).message, room.streamed(2).message,
                room.streamed(2, response("b")).message)
    assert [next(answers), next(answers)] == [response("a"), response("b")]
    stream.send(room.streamed(2, response("last"), end=True).message)
    assert list(answers) == [response("last")]
    answers = rooms.open_watch(stream, room, 3)
    stream.send(room.streamed(3, fail="no more").message)
    failed(answers, details="no more")
    rooms.rec.nothing_more()


def test_a_client_that_leaves_is_told_once(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.open_watch(stream, room, 2)
    answers.cancel()
    stream.expect(room.cancelled(2))
    stream.send(room.streamed(2, response("late")).message, room.cancel_response(2, update=gcounter(4)).message)
    answer = rooms.say("r", "3")
    stream.expect(room.command(3, "Say", request("r", "3")))
    stream.send(room.reply(3, response("x")).message)
    assert answer.result() == response("x")
    rooms.rec.nothing_more()


def test_a_cancellation_waits_for_the_reply_and_goes_to_streams_alone(rooms):
    stream, room = rooms.with_value(gcounter(1))
    for command_id, streamed in ((2, True), (3, False)):
        answers = rooms.watch("r")
        stream.expect(room.command(command_id, "Watch", request("r"), streamed=True))
        answers.cancel()
        rooms.rec.nothing_more()
        stream.send(room.reply(command_id, response("x"), streamed=streamed).message)
        if streamed:
            stream.expect(room.cancelled(command_id))
            stream.send(room.cancel_response(command_id).message)
    rooms.rec.nothing_more()


def test_who_deletes_is_told_nothing_more(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.open_watch(stream, room, 2)
    other = rooms.say("r", "3")
    stream.expect(room.command(3, "Say", request("r", "3")))
    answer = rooms.say("r", "4")
    stream.expect(room.command(4, "Say", request("r", "4")))
    stream.send(room.reply(4, response("deleted"), delete=True).message)
    assert answer.result() == response("deleted")
    assert list(answers) == []
    stream.expect(HalfClose())
    stream.end(0)
    failed(other, details="Entity deleted")
    failed(rooms.say("r", "5"), details="Entity deleted")
    rooms.rec.nothing_more()


FAULTS = {
    "a reply that nobody waits for": (lambda room: room.reply(9, response("x")), "nobody waits"),
    "a streamed reply to what is not": (lambda room: room.reply(2, response("x"), streamed=True), "streamed"),
    "a delta of another type": (lambda room: room.reply(2, response("x"), update=vote(True)), "Vote"),
    "an increment beyond 2^63": (lambda room: room.reply(2, response("x"), update=gcounter(1 << 63)), "2\\^63"),
    "an empty delta": (lambda room: room.reply(2, response("x"), update=protos.crdt.CrdtDelta()), "empty"),
    "no message at all": (lambda room: ToFunction(protos.crdt.CrdtStreamOut()), "none of the kinds"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_resets_the_stream_and_the_next_command_begins_anew(rooms, name):
    make, reported = FAULTS[name]
    stream, room = rooms.with_value(gcounter(1))
    answer = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", request("r", "2")))
    stream.send(make(room).message)
    failed(answer, details="Entity terminating")
    stream.expect(Reset("proxy", 8))
    rooms.rec.expect_report(reported)
    answer, stream, room = rooms.begin(value=gcounter(1))
    stream.send(room.reply(1, response("x")).message)
    assert answer.result() == response("x")
    rooms.rec.nothing_more()


def test_the_functions_end_is_a_fault(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.open_watch(stream, room, 2)
    stream.end(0)
    failed(answers, details="Entity terminating")
    stream.expect(Reset("proxy", 0))
    rooms.rec.expect_report("ended the stream")
    rooms.rec.nothing_more()


def test_a_restart_of_the_journal_loses_nothing(lab):
    rooms = Rooms(lab, storage="file:%s" % (lab.folder / "data"))
    stream, room = rooms.with_value(orset("a", "b"))
    rooms.journal.kill()
    rooms.journal.start().ready()
    answer = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", request("r", "2")))
    stream.send(room.reply(2, response("x"), update=orset("c", removed=["a"])).message)
    assert answer.result() == response("x")
    rooms.rec.drop()
    rooms.rec.forgive(lambda r: isinstance(r, Broken))
    rooms.rec.expect_discovery()
    answer, stream, room = rooms.begin(value=orset("b", "c"))
    stream.send(room.reply(1, response("y")).message)
    assert answer.result() == response("y")


def test_a_drain_ends_streams_well(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.open_watch(stream, room, 2)
    rooms.proxy.process.terminate()
    assert list(answers) == []
    stream.expect(HalfClose())
    stream.end(0)
    assert rooms.proxy.process.wait(PATIENCE) == 0


def test_a_stream_that_opens_while_the_proxy_stops_does_not_hold_it_up(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.watch("r")
    stream.expect(room.command(2, "Watch", request("r"), streamed=True))
    other = rooms.open_watch(stream, room, 3)
    rooms.proxy.process.terminate()
    assert list(other) == []  # it is stopping
    stream.send(room.reply(2, response("late"), streamed=True).message)
    assert list(answers) == [response("late")]
    stream.expect(HalfClose())
    stream.end(0)
    assert rooms.proxy.process.wait(PATIENCE) == 0


def test_a_stream_of_an_entity_that_is_activated_while_the_proxy_stops_does_not_either(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.watch("r")
    stream.expect(room.command(2, "Watch", request("r"), streamed=True))
    rooms.proxy.process.terminate()
    rooms.proxy.wait_text("stopping")
    forward = room.reply(2).message
    forward.reply.client_action.forward.CopyFrom(protos.cloudstate.Forward(
        service_name=ROOM, command_name="Watch", payload=pack(request("other"))))
    stream.send(forward)
    other = Crdt(ROOM, "other")
    second = rooms.rec.stream(CRDT_HANDLE)
    second.expect(other.init(), other.command(1, "Watch", request("other"), streamed=True))
    second.send(other.reply(1, response("late"), streamed=True).message)
    assert list(answers) == [response("late")]
    for each in (stream, second):
        each.expect(HalfClose())
        each.end(0)
    assert rooms.proxy.process.wait(PATIENCE) == 0


def test_a_function_that_does_not_read_holds_up_its_own_entity_within_bounds(lab):
    """What it does not take waits with its entity, up to --max-waiting commands, and is answered once it reads."""
    rooms = Rooms(lab, options=["--max-waiting", "20"])
    stream, room = rooms.with_value(gcounter(1))
    rooms.rec.stop_reading()
    text = "x" * (100 << 10)
    said = [rooms.say("r", text) for _ in range(30)]
    harness.eventually(lambda: sum(s.done() for s in said) == 10, "ten are refused")
    refused = [s for s in said if s.done()]
    assert {s.code().name for s in refused} == {"RESOURCE_EXHAUSTED"}
    assert "20 commands wait" in refused[0].details()
    taken = [s for s in said if s not in refused]
    assert harness.http_request(rooms.proxy.management, "GET", "/ready").status == 200
    rooms.rec.read_on()
    for number in range(2, 22):
        stream.expect(room.command(number, "Say", request("r", text)))
        stream.send(room.reply(number, response(str(number))).message)
    assert sorted(s.result().message for s in taken) == sorted(str(n) for n in range(2, 22))
    rooms.rec.nothing_more()


def test_a_message_over_the_limit_is_told_to_whom_it_may_have_been_for(lab):
    rooms = Rooms(lab, options=["--function-message-max", "64KiB"])
    stream, room = rooms.with_value(gcounter(1))
    other, beside = rooms.with_value(gcounter(1), "beside")
    answer = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", request("r", "2")))
    stream.send(room.reply(2, response("x" * (65 << 10))).message)
    assert answer.code().name == "RESOURCE_EXHAUSTED"
    text = answer.details()
    assert text.startswith("cairn.rooms.Room.Say, entity [r]: the function's reply is not taken"), text
    assert "--function-message-max" in text and "limit of 65536" in text
    rooms.rec.expect_report(re.escape(text))
    assert rooms.answered(other, beside, 2).result() == response("2")


def test_a_delta_over_the_record_limit_fails_its_command_and_opens_the_entity_again(rooms):
    stream, room = rooms.with_value(gset("a"))
    other, beside = rooms.with_value(gcounter(1), "beside")
    large = any_pb2.Any(type_url="p.cloudstate.io/bytes", value=b"x" * (3 << 20))
    answer = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", request("r", "2")))
    stream.send(room.reply(2, response("x"), update=protos.crdt.CrdtDelta(
        gset=protos.crdt.GSetDelta(added=[large]))).message)
    failed(answer, "RESOURCE_EXHAUSTED", "the delta is larger than a record of the journal may be (3 MiB)")
    stream.expect(HalfClose())
    stream.end(0)
    again = rooms.rec.stream(CRDT_HANDLE)
    again.expect(room.init(gset("a")))
    assert rooms.answered(other, beside, 2).result() == response("2")
    rooms.rec.nothing_more()


def test_memory_is_what_a_value_holds(lab):
    rooms = Rooms(lab, options=["--entity-memory", "1MiB"])
    small, _ = rooms.with_value(gcounter(1), "small")
    rooms.rec.nothing_more()
    many = orset(*["%05d" % i for i in range(10000)])
    large, room = rooms.with_value(many, "large")
    for stream in (small, large):  # the one that was used longest ago, and as that is not enough
        stream.expect(HalfClose())
        stream.end(0)
    answer, stream, room = rooms.begin("large", value=many)
    stream.send(room.reply(1, response("x")).message)
    assert answer.result() == response("x")
