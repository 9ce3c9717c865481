"""A function that dies at any step of a command, that says what nobody can read, or nothing: each of its clients is
answered in time, it is told what was wrong where it lives to hear it, and what it keeps is as it was. (What else a
function can do wrong: test_bad_kinds.py, test_event_sourced.py, test_crdt.py.)"""

import pytest

import model
from crdt import ALL, gcounter
from entity import effect
from kinds import Kinds
from kinds import request as kinds_request
from kinds import response as kinds_response
from model import happened, request, response
from recorder import CANCEL
from records import Broken, HalfClose, Reset
from rooms import Rooms
from rooms import request as room_request
from rooms import response as room_response
from stage import Stage
from test_actions import begin_out
from test_crdt_peers import Group

IN_TIME = ["--command-timeout", "2s"]
ENDED = "Unexpected entity termination"


@pytest.fixture
def stage(lab):
    return Stage(lab, options=IN_TIME)


@pytest.fixture
def rooms(lab):
    return Rooms(lab, options=IN_TIME)


def dies(rec):
    """Its process, with all connections; another one comes, and is asked what it serves."""
    rec.drop()
    rec.forgive(lambda r: isinstance(r, Broken))
    rec.expect_discovery()


def lives(stage, *what, entity_id="e"):
    """The entity comes back with these events, and works."""
    e = stage.entity(entity_id)
    events = [e.event(i, happened(w)) for i, w in enumerate(what, 1)]
    answer, stream, e = stage.begin(entity_id, expect=(e.init(), *events))
    stream.send(e.reply(1, response("well")).message)
    assert answer.result() == response("well")
    return stream


def with_events(stage, *what, entity_id="e"):
    answer, stream, e = stage.begin(entity_id)
    stream.send(e.reply(1, response(""), events=[happened(w) for w in what]).message)
    answer.result()
    return stream, e


# --- death --------------------------------------------------------------------------------------------------

def test_death_at_the_init(stage):
    e = stage.entity("e")
    answer = stage.send(request("e", "go"))
    stage.rec.entity(e).expect(e.init())
    dies(stage.rec)
    stage.failed(answer, "UNKNOWN", ENDED)
    stage.rec.forgive(lambda r: hasattr(r, "message") and type(r.message).__name__ == "EventSourcedStreamIn")
    lives(stage)


def test_death_in_the_replay(lab):
    """While the rest of it still comes from the journal."""
    stage = Stage(lab, options=IN_TIME)
    large = ["%d" % i + "x" * 100000 for i in range(8)]
    with_events(stage, *large)
    dies(stage.rec)
    stage.rec.stop_reading()
    e = stage.entity("e")
    answer = stage.send(request("e", "go"))
    stream = stage.rec.entity(e)
    stream.expect(e.init())
    stream.wait_full()
    dies(stage.rec)
    stage.failed(answer, "UNKNOWN", ENDED)
    stage.rec.read_on()
    stage.rec.forgive(lambda r: hasattr(r, "message") and type(r.message).__name__ == "EventSourcedStreamIn")
    lives(stage, *large)


def test_death_with_an_effect_under_way(stage):
    """What its cause has kept stays, and who asked for that has his answer."""
    answer, stream, e = stage.begin()
    pair = model.pb.Pair(first="f", second="s")
    stream.send(e.reply(1, response("kept"), events=[happened("1")],
                        effects=[effect(model.TWO, "Call", pair, synchronous=True)]).message)
    two = stage.entity("f-s", model.TWO)
    stage.rec.entity(two).expect(two.init(), two.command(1, "Call", pair))
    assert not answer.done()
    dies(stage.rec)
    assert answer.result() == response("kept")
    lives(stage, "1")


def test_death_with_a_forward_under_way(stage):
    answer, stream, e = stage.begin()
    pair = model.pb.Pair(first="f", second="s")
    stream.send(e.forward(1, model.TWO, "Call", pair, events=[happened("1")]).message)
    two = stage.entity("f-s", model.TWO)
    stage.rec.entity(two).expect(two.init(), two.command(1, "Call", pair))
    dies(stage.rec)
    stage.failed(answer, "UNKNOWN", ENDED)
    lives(stage, "1")


def test_death_while_others_confirm_a_change(lab):
    """The change stands; who asked that all should have it is told that it is not known."""
    pair = Group(lab, 2)
    stream, room = pair[0].with_value(gcounter(1))
    pair[1].proxy.process.send_signal(19)  # SIGSTOP: it confirms nothing
    try:
        answer = pair[0].answered(stream, room, 2, update=gcounter(2), consistency=ALL)
        other, beside = pair[0].with_value(gcounter(5), "beside")
        assert not answer.done()
        dies(pair[0].rec)
        assert (answer.code().name, answer.details()) == (
            "UNKNOWN", "Failed to update CRDT at requested write consistency")
        pair[0].rec.expect_report("ended the stream")
    finally:
        pair[1].proxy.process.send_signal(18)  # SIGCONT
    again, stream, room = pair[0].begin(value=gcounter(3))
    stream.send(room.reply(1, room_response("3")).message)
    assert again.result() == room_response("3")


def test_death_at_a_cancellation(rooms):
    """The function that comes back knows nothing of the stream, and is told nothing of it."""
    stream, room = rooms.with_value(gcounter(1))
    answers = rooms.open_watch(stream, room, 2)
    answers.cancel()
    stream.expect(room.cancelled(2))
    waiting = rooms.say("r", "3")
    stream.expect(room.command(3, "Say", room_request("r", "3")))
    dies(rooms.rec)
    assert (waiting.code().name, waiting.details()) == ("UNKNOWN", "Entity terminating")
    rooms.rec.expect_report("ended the stream")
    again, stream, room = rooms.begin(value=gcounter(1))
    stream.send(room.reply(1, room_response("x")).message)
    assert again.result() == room_response("x")
    rooms.rec.nothing_more()


def test_death_with_streams_open(rooms):
    stream, room = rooms.with_value(gcounter(1))
    answers = [rooms.open_watch(stream, room, i) for i in (2, 3)]
    dies(rooms.rec)
    for each in answers:
        assert (each.code().name, each.details()) == ("UNKNOWN", "Entity terminating")
    rooms.rec.expect_report("ended the stream")
    rooms.rec.nothing_more()


# --- silence ------------------------------------------------------------------------------------------------

def test_no_answer_to_a_cancellation(lab):
    """For five seconds others' changes wait for it, and commands for nothing; then the entity is as any other."""
    pair = Group(lab, 2, options=("--session-ttl", "1h", *IN_TIME))
    stream, room = pair[0].with_value(gcounter(1))
    pair[0].open_watch(stream, room, 2).cancel()
    cancelled, = stream.expect(room.cancelled(2))
    assert pair[0].answered(stream, room, 3).result() == room_response("3")
    there, same = pair[1].begin(value=gcounter(1))[1:]
    there.send(same.reply(1, room_response("1"), update=gcounter(4)).message)
    told, = stream.expect(room.delta(gcounter(4)))
    assert 4.5 <= told.at - cancelled.at
    assert pair[0].answered(stream, room, 4).result() == room_response("4")
    pair.quiet()


def test_silence_of_a_crdt(rooms):
    stream, room = rooms.with_value(gcounter(1))
    other, beside = rooms.with_value(gcounter(5), "beside")
    silent = rooms.say("r", "2")
    stream.expect(room.command(2, "Say", room_request("r", "2")))
    assert silent.code().name == "DEADLINE_EXCEEDED"
    stream.expect(Reset("proxy", CANCEL))
    assert rooms.answered(other, beside, 2).result() == room_response("2")
    again, stream, room = rooms.begin(value=gcounter(1))
    stream.send(room.reply(1, room_response("x")).message)
    assert again.result() == room_response("x")
    rooms.rec.nothing_more()


@pytest.mark.parametrize("kind", ["events", "value", "crdt"])
def test_a_stream_that_the_function_never_ends(lab, kind):
    options = [*IN_TIME, "--close-grace", "300ms"]
    if kind == "crdt":
        rooms = Rooms(lab, passivate_ms=100, options=options)
        stream, _ = rooms.with_value(gcounter(1))
        begin = lambda: rooms.begin(value=gcounter(1))  # noqa: E731
        rec, ok = rooms.rec, room_response("x")
    else:
        kinds = Kinds(lab, passivate_ms=100, options=options)
        rec, ok = kinds.rec, kinds_response("x")

        def begin():
            if kind == "value":
                return kinds.begin_value("v")
            e = kinds.events("v")
            answer = kinds.process("v", "go", service=e.service)
            stream = rec.entity(e)
            stream.next()
            stream.next()
            return answer, stream, e
        answer, stream, e = begin()
        stream.send(e.reply(1, ok).message)
        answer.result()
    stream.expect(HalfClose(), Reset("proxy", CANCEL))
    answer, stream, e = begin()
    stream.send(e.reply(1, ok).message)
    assert answer.result().message == "x"
    rec.forgive(lambda r: isinstance(r, (HalfClose, Reset)))


# --- too much, and garbage -----------------------------------------------------------------------------------

def test_a_million_events_in_one_reply(stage):
    with_events(stage, "other", entity_id="other")
    stream, e = with_events(stage, "1")
    answer = stage.send(request("e", "now"))
    stream.expect(e.command(2, "Process", request("e", "now")))
    inner = e.reply(2, response("x")).message.reply.SerializeToString() + b"\x22\x00" * 1000000
    size, length = len(inner), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    message = b"\x0a" + length + bytes([size]) + inner
    stream.send_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    assert stage.failed(answer, "RESOURCE_EXHAUSTED") == \
        "the reply has 1000000 events, the journal takes at most 9999 at once"
    stage.ended(stream)
    stage.rec.entity(e).expect(e.init(), e.event(1, happened("1")))
    stage.quiet()  # nobody else was touched


def test_a_reply_of_twelve_mebibytes(stage):
    """The limit itself: it is taken."""
    stream, e = with_events(stage, "1")
    answer = stage.send(request("e", "now"))
    stream.expect(e.command(2, "Process", request("e", "now")))
    text = "x" * ((12 << 20) - 200)
    stream.send(e.reply(2, response(text)).message)
    assert answer.result().message == text
    answer = stage.send(request("e", "again"))
    stream.expect(e.command(3, "Process", request("e", "again")))
    stream.send(e.reply(3, response("small")).message)
    assert answer.result() == response("small")
    stage.quiet()


GARBAGE = {
    "no protobuf": (b"\0\0\0\0\3\x0a\xff\xff", True),
    "another message": (b"\0\0\0\0\4\xfa\x3e\1\0", True),
    "a flag that nobody knows": (b"\7\0\0\0\1x", False),
    "compressed, though that was not said": (b"\1\0\0\0\1x", False),
}


@pytest.mark.parametrize("kind,garbage", [
    (kind, garbage) for kind in ("events", "value", "action", "crdt") for garbage in GARBAGE
    if (kind, garbage) != ("action", "another message")])  # which is an answer without anything set
def test_garbage_bytes(lab, kind, garbage):
    data, reported = GARBAGE[garbage]
    if kind == "crdt":
        rooms = Rooms(lab, options=IN_TIME)
        other, beside = rooms.with_value(gcounter(5), "beside")
        answer, stream, _ = rooms.begin()
        rec = rooms.rec
    else:
        stage = Kinds(lab, options=IN_TIME)
        rec = stage.rec
        other_answer, other, beside = stage.begin_value("beside")
        other.send(beside.reply(1, kinds_response("x")).message)
        other_answer.result()
        if kind == "action":
            answer, stream = begin_out(stage)
        elif kind == "value":
            answer, stream, _ = stage.begin_value()
        else:
            answer = stage.process("e", "go", service=stage.events().service)
            stream = rec.entity(stage.events())
            stream.next()
            stream.next()
    stream.send_bytes(data)
    code = answer.code()  # an iterator's waits for its end
    assert code.name in ("UNKNOWN", "INTERNAL"), (code, answer.details())
    assert answer.details()
    if reported or kind == "crdt":
        rec.expect_report("malformed|neither|none of the kinds|second|ended the stream|failure|empty")
    if kind == "crdt":
        assert rooms.answered(other, beside, 2).result() == room_response("2")
        again, stream, room = rooms.begin()
        stream.send(room.reply(1, room_response("x")).message)
        assert again.result() == room_response("x")
    else:
        again = stage.process("beside", "more")
        other.expect(beside.command(2, "Process", kinds_request("beside", "more")))
        other.send(beside.reply(2, kinds_response("y")).message)
        assert again.result().message == "y"
    rec.forgive(lambda r: isinstance(r, Reset))  # on one connection it was before what was just answered
    rec.nothing_more()
