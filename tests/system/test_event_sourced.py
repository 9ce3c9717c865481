"""Event sourced entities, the contract's section 3: the test plays the function."""

import socket

import pytest
from google.protobuf import any_pb2

import harness
import model
from entity import effect, pack
from model import happened, request, response
from played_journal import PlayedJournal
from recorder import CANCEL
from records import Broken, HalfClose, Reset, ToFunction
from stage import Stage


@pytest.fixture
def stage(lab):
    return Stage(lab)


# --- rule 1 and 2: order, ids, one at a time ---------------------------------------

def test_commands_of_one_entity_are_numbered_and_sent_one_at_a_time(stage):
    first, stream, e = stage.begin(text="1")
    second = stage.send(request("e", "2"))
    third_sent = stage.send(request("other", "x"))
    other = stage.rec.entity(stage.entity("other"))
    other.expect(stage.entity("other").init(),
                 stage.entity("other").command(1, "Process", request("other", "x")))
    other.send(stage.entity("other").reply(1, response("x")).message)
    assert third_sent.result() == response("x")
    stage.quiet()  # the second command waits for the first one's reply
    stream.send(e.reply(1, response("one")).message)
    assert first.result() == response("one")
    stream.expect(e.command(2, "Process", request("e", "2")))
    stream.send(e.reply(2, response("two")).message)
    assert second.result() == response("two")
    stage.quiet()


def test_waiting_commands_keep_their_order(stage):
    answer, stream, e = stage.begin(text="0")
    waiting = []
    for i in range(1, 20):
        waiting.append(stage.send(request("e", str(i))))
        # The next is sent once the proxy has this one: another entity's command went after it on the same
        # connection.
        probe, view, other = stage.begin("probe-%d" % i)
        view.send(other.reply(1, response("")).message)
        probe.result()
    stream.send(e.reply(1, response("0")).message)
    for i, future in enumerate(waiting, 1):
        stream.expect(e.command(i + 1, "Process", request("e", str(i))))
        stream.send(e.reply(i + 1, response(str(i))).message)
        assert future.result() == response(str(i))
    assert answer.result() == response("0")
    stage.quiet()


def test_events_are_replayed_with_their_sequences_and_ids_begin_anew(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("a"), events=[happened("1"), happened("2")]).message)
    assert answer.result() == response("a")
    assert stage.command(stream, e, 2, "more", e.reply(2, response("b"), events=[happened("3")])) \
        == response("b")
    stage.ended(stream)
    answer, stream, e = stage.begin(expect=(e.init(), e.event(1, happened("1")), e.event(2, happened("2")),
                                            e.event(3, happened("3"))))
    stream.send(e.reply(1, response("c")).message)
    assert answer.result() == response("c")
    stage.ended(stream)
    stage.quiet()


def test_entities_do_not_share_anything(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    for entity_id in ("a", "b", ""):
        answer, stream, e = stage.begin(entity_id)
        stream.send(e.reply(1, response(entity_id), events=[happened(entity_id)]).message)
        assert answer.result() == response(entity_id)
        stage.ended(stream)
    for entity_id in ("", "b", "a"):
        e = stage.entity(entity_id)
        answer, stream, e = stage.begin(entity_id, expect=(e.init(), e.event(1, happened(entity_id))))
        stream.send(e.reply(1, response("again")).message)
        assert answer.result() == response("again")
        stage.ended(stream)
    stage.quiet()


# --- rule 3: what is kept, and before what -------------------------------------------

def test_events_are_in_the_journal_when_the_client_has_its_answer(lab):
    stage = Stage(lab, storage="file:%s" % (lab.folder / "data"))
    for i in range(harness.scaled(5)):
        answer, stream, e = stage.begin("e%d" % i)
        stream.send(e.reply(1, response("ok"), events=[happened("kept")]).message)
        assert answer.result() == response("ok")
        stage.journal.kill()  # at once: what was not durable is lost
        stage.journal.start()
        stage.journal.ready()
        stage.rec.drop()
        stage.rec.forgive(lambda r: isinstance(r, Broken))
        stage.rec.expect_discovery()
        harness.eventually(lambda: harness.status_of(stage.proxy.management, "/ready") == 200, "it is ready")
        answer, stream, e = stage.begin("e%d" % i, expect=(e.init(), e.event(1, happened("kept"))))
        stream.send(e.reply(1, response("still")).message)
        assert answer.result() == response("still")
    stage.quiet()


def test_events_are_kept_as_they_came(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    odd = [any_pb2.Any(type_url="type.googleapis.com/cairn.test.Happened"),  # no value at all
           any_pb2.Any(type_url="json.cloudstate.io/a/b.C", value=b"\x0a\x02{}"),
           any_pb2.Any(type_url="type.googleapis.com/not.Known", value=bytes(range(256))),
           any_pb2.Any(type_url="type.googleapis.com/cairn.test.Happened",
                       value=b"\xf8\x07\x01\x0a\x01x\x0a\x01y")]  # an unknown field, and one field twice
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=odd).message)
    answer.result()
    stage.ended(stream)
    answer, stream, e = stage.begin(expect=(e.init(), *(e.event(i, o) for i, o in enumerate(odd, 1))))
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.ended(stream)
    stage.quiet()


def test_a_snapshot_stands_for_the_events_before_it(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1"), happened("2")],
                        snapshot=model.pb.State(all="12")).message)
    answer.result()
    stage.command(stream, e, 2, "", e.reply(2, response(""), events=[happened("3")]))
    stage.ended(stream)
    answer, stream, e = stage.begin(expect=(e.init(model.pb.State(all="12"), 2), e.event(3, happened("3"))))
    # Sequences go on after a snapshot.
    stream.send(e.reply(1, response(""), events=[happened("4")], snapshot=model.pb.State(all="1234")).message)
    answer.result()
    stage.command(stream, e, 2, "", e.reply(2, response(""), events=[happened("5")]))
    stage.ended(stream)
    answer, stream, e = stage.begin(expect=(e.init(model.pb.State(all="1234"), 4), e.event(5, happened("5"))))
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.ended(stream)
    stage.quiet()


def test_a_snapshot_without_events_is_ignored_and_reported(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    assert stage.command(stream, e, 2, "", e.reply(2, response("ok"), snapshot=model.pb.State(all="1"))) \
        == response("ok")
    stage.rec.expect_report("snapshot")
    stage.ended(stream)
    answer, stream, e = stage.begin(expect=(e.init(), e.event(1, happened("1"))))
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.ended(stream)
    stage.quiet()


def test_a_foreign_event_makes_it_reload_and_run_the_command_once_more(lab):
    stage = Stage(lab)
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    # Another writer: a second proxy on the same journal that does not know of this one.
    rec = lab.recorder(spec=model.spec())
    lab.proxy(rec, stage.journal, name="cairn-proxy-2")
    rec.expect_discovery()
    second = lab.processes[-1]
    channel = harness.channel_to(second.port)
    call = channel.unary_unary("/cairn.test.Model/Process", model.pb.Request.SerializeToString,
                               model.pb.Response.FromString).future(request("e", "x"), timeout=20)
    foreign = rec.entity(e)
    foreign.expect(e.init(), e.event(1, happened("1")), e.command(1, "Process", request("e", "x")))
    foreign.send(e.reply(1, response(""), events=[happened("2")]).message)
    call.result()
    # The first proxy's entity does not know of event 2: its append is refused, it replays and asks again.
    answer = stage.send(request("e", "y"))
    stream.expect(e.command(2, "Process", request("e", "y")))
    stream.send(e.reply(2, response("stale"), events=[happened("lost")]).message)
    stage.ended(stream)
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.event(1, happened("1")), e.event(2, happened("2")),
                  e.command(1, "Process", request("e", "y")))
    stream.send(e.reply(1, response("fresh"), events=[happened("3")]).message)
    assert answer.result() == response("fresh")
    stage.quiet()


def test_an_append_that_may_be_lost_fails_the_command_and_replays(lab):
    stage = Stage(lab, storage="file:%s" % (lab.folder / "data"), options=["--append-timeout", "1s"])
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    answer = stage.send(request("e", "2"), timeout=60)
    stream.expect(e.command(2, "Process", request("e", "2")))
    stage.journal.kill()
    side = effect(model.TWO, "Call", model.pb.Pair(first="never"))
    stream.send(e.reply(2, response("two"), events=[happened("2")], effects=[side]).message)
    stage.failed(answer, "UNAVAILABLE")
    stage.ended(stream)
    stage.journal.start()
    stage.journal.ready()
    stage.quiet()  # no effect ran
    harness.eventually(lambda: harness.status_of(stage.proxy.management, "/ready") == 200, "it is ready")
    answer = stage.send(request("e", "3"))
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.event(1, happened("1")))
    seen = stream.next(ToFunction)
    if seen.WhichOneof("message") == "event":  # the append's outcome was unknown: it may have been kept
        assert ToFunction(seen).matches(e.event(2, happened("2")))
        seen = stream.next(ToFunction)
    assert e.command(1, "Process", request("e", "3")).matches(ToFunction(seen))
    stream.send(e.reply(1, response("three")).message)
    assert answer.result() == response("three")
    stage.quiet()


# --- rule 4: failures ------------------------------------------------------------------

@pytest.mark.parametrize("text", ["no", "", "mit Umlaut ä, %, und\nZeile"])
def test_a_refused_command_keeps_nothing_and_leaves_the_stream(stage, text):
    answer, stream, e = stage.begin()
    stream.send(e.refusal(1, text).message)
    stage.failed(answer, "UNKNOWN", text)
    assert stage.command(stream, e, 2, "again", e.reply(2, response("ok"))) == response("ok")
    stage.quiet()


def test_events_beside_a_failure_are_dropped_and_reported(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    answer, stream, e = stage.begin()
    stream.send(e.refusal(1, "no", events=[happened("x")], snapshot=model.pb.State(all="x")).message)
    stage.failed(answer, "UNKNOWN", "no")
    stage.rec.expect_report("event")
    stage.ended(stream)
    answer, stream, e = stage.begin(expect=(e.init(),))
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.ended(stream)
    stage.quiet()


def test_restart_replays_at_once_and_goes_on_with_the_waiting(stage):
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")], snapshot=model.pb.State(all="1")).message)
    answer.result()
    stage.command(stream, e, 2, "", e.reply(2, response(""), events=[happened("2")]))
    failing = stage.send(request("e", "bad"))
    stream.expect(e.command(3, "Process", request("e", "bad")))
    waiting = [stage.send(request("e", "w"))]
    stream.send(e.refusal(3, "dirty", restart=True).message)
    stage.failed(failing, "UNKNOWN", "dirty")
    stream.expect(HalfClose())
    stage.quiet()  # the new stream waits for the old one's end
    stream.end(0)
    again = stage.rec.stream()
    again.expect(e.init(model.pb.State(all="1"), 1), e.event(2, happened("2")),
                 e.command(1, "Process", request("e", "w")))
    again.send(e.reply(1, response("w"), events=[happened("3")]).message)
    assert waiting[0].result() == response("w")
    stage.quiet()


def test_restart_opens_the_new_stream_without_a_command(stage):
    answer, stream, e = stage.begin()
    stream.send(e.refusal(1, "dirty", restart=True).message)
    stage.failed(answer, "UNKNOWN", "dirty")
    stage.ended(stream)
    again = stage.rec.stream()
    again.expect(e.init())
    stage.quiet()
    assert stage.command(again, e, 1, "", e.reply(1, response("ok"))) == response("ok")


def test_a_function_that_does_not_end_is_reset_after_the_grace(stage):
    answer, stream, e = stage.begin()
    stream.send(e.refusal(1, "dirty", restart=True).message)
    stage.failed(answer, "UNKNOWN", "dirty")
    closed, = stream.expect(HalfClose())
    reset, = stream.expect(Reset("proxy", CANCEL))
    assert 4.5 <= reset.at - closed.at <= 10, "after %s s" % (reset.at - closed.at)
    stage.rec.stream().expect(e.init())
    stage.quiet()


# --- rule 5: faults of the function -------------------------------------------------------

FAULTS = {
    "failure 0": (lambda s, e: s.send(e.failure(0, "oops").message), "Unexpected entity failure",
                  "oops|failure"),
    "failure of another": (lambda s, e: s.send(e.failure(77, "oops").message), "Unexpected entity failure",
                           "oops|failure"),
    "failure of this": (lambda s, e: s.send(e.failure(1, "oops").message), "Unexpected entity failure",
                        "oops|failure"),
    "wrong id": (lambda s, e: s.send(e.reply(7, response("")).message), "Unexpected entity reply", "reply"),
    "empty message": (lambda s, e: s.send(b""), "Unexpected entity message", "message"),
    "end OK": (lambda s, e: s.end(0), "Unexpected entity termination", None),
    "end ABORTED": (lambda s, e: s.end(10, "bye"), "Unexpected entity termination", None),
    "end UNKNOWN": (lambda s, e: s.end(2, "Exception iterating responses: x"),
                    "Unexpected entity termination", None),
    "reset": (lambda s, e: s.reset(CANCEL), "Unexpected entity termination", None),
    "died": (lambda s, e: s.drop(), "Unexpected entity termination", None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_function(stage, fault):
    misbehave, text, report = FAULTS[fault]
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    failing = stage.send(request("e", "now"))
    stream.expect(e.command(2, "Process", request("e", "now")))
    waiting = stage.send(request("e", "waits"))
    probe, view, other = stage.begin("probe")  # so the waiting one has arrived
    view.send(other.reply(1, response("")).message)
    probe.result()
    misbehave(stream, e)
    stage.failed(failing, "UNKNOWN", text)
    stage.failed(waiting, "UNKNOWN", "Entity terminated")
    if report:
        stage.rec.expect_report(report)
    if fault == "died":
        stage.rec.forgive(lambda r: isinstance(r, Broken))
        stage.rec.expect_discovery()
    else:
        ended(stage, stream)
    answer, stream, e = stage.begin(expect=(e.init(), e.event(1, happened("1"))))
    stream.send(e.reply(1, response("well")).message)
    assert answer.result() == response("well")
    stage.quiet()


def ended(stage, stream):
    """After a fault the stream is half-closed or reset, whichever; one that the function has ended or reset
    itself may already be over."""
    def over():
        return stream._stream.over or stream._stream.half_closed
    stage.rec.wait(over, "the end of stream %d" % stream.number)
    if not stream._stream.over:
        stream.end(0)
    stage.rec.forgive(lambda r: r.stream == stream.number and isinstance(r, (HalfClose, Reset)))


@pytest.mark.parametrize("fault", ["end OK", "end ABORTED", "reset", "unasked reply", "unasked failure"])
def test_a_fault_with_nobody_waiting(stage, fault):
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("")).message)
    answer.result()
    if fault == "unasked reply":
        stream.send(e.reply(2, response("")).message)
        stage.rec.expect_report("reply")
    elif fault == "unasked failure":
        stream.send(e.failure(0, "oops").message)
        stage.rec.expect_report("failure|oops")
    else:
        FAULTS[fault][0](stream, e)
    ended(stage, stream)
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("well")).message)
    assert answer.result() == response("well")
    stage.quiet()


def test_a_reply_in_two_halves_that_never_meet(stage):
    answer, stream, e = stage.begin()
    stream.send_bytes(b"\0\0\0\0\x40half of it")
    stream.drop()
    stage.failed(answer, "UNKNOWN", "Unexpected entity termination")
    stage.rec.forgive(lambda r: isinstance(r, Broken))
    stage.rec.expect_discovery()
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("well")).message)
    assert answer.result() == response("well")
    stage.quiet()


# --- rule 6: passivation --------------------------------------------------------------------

def test_idle_entities_are_passivated_by_half_close(lab):
    stage = Stage(lab, model.spec(passivate_ms=200))
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("")).message)
    answer.result()
    replied = [r for r in stage.rec.records if r.stream == stream.number][-1].at
    closed, = stream.expect(HalfClose())
    assert 0.15 <= closed.at - replied <= 5, closed.at - replied
    stream.end(0)
    stage.quiet()


def test_no_passivation_while_a_command_is_out(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    slow, stream, e = stage.begin("slow")
    for i in range(3):  # others come and go meanwhile, each for longer than the time-out
        answer, view, other = stage.begin("quick-%d" % i)
        view.send(other.reply(1, response("")).message)
        answer.result()
        stage.ended(view)
    stage.quiet()
    stream.send(e.reply(1, response("late")).message)
    assert slow.result() == response("late")
    stage.ended(stream)
    stage.quiet()


def test_a_command_that_comes_while_closing_waits_for_the_end(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    stream.expect(HalfClose())
    answer = stage.send(request("e", "late"))
    probe, view, other = stage.begin("probe")
    view.send(other.reply(1, response("")).message)
    probe.result()
    stage.ended(view)
    stage.quiet()
    stream.end(0)
    again = stage.rec.entity(e)
    again.expect(e.init(), e.event(1, happened("1")), e.command(1, "Process", request("e", "late")))
    again.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")


# --- the client ---------------------------------------------------------------------------

def test_a_client_that_leaves_before_its_command_was_sent_withdraws_it(stage):
    first, stream, e = stage.begin()
    second = stage.send(request("e", "withdrawn"))
    third = stage.send(request("e", "third"))
    probe, view, other = stage.begin("probe")
    view.send(other.reply(1, response("")).message)
    probe.result()
    second.cancel()
    probe, view, other = stage.begin("probe 2")  # the cancellation has arrived
    view.send(other.reply(1, response("")).message)
    probe.result()
    stream.send(e.reply(1, response("")).message)
    first.result()
    stream.expect(e.command(2, "Process", request("e", "third")))
    stream.send(e.reply(2, response("3")).message)
    assert third.result() == response("3")
    stage.quiet()


def test_a_client_that_leaves_later_does_not_undo_its_command(lab):
    stage = Stage(lab, model.spec(passivate_ms=100))
    left, stream, e = stage.begin()
    left.cancel()
    probe, view, other = stage.begin("probe")
    view.send(other.reply(1, response("")).message)
    probe.result()
    stage.ended(view)
    stream.send(e.reply(1, response(""), events=[happened("kept")]).message)
    stage.ended(stream)
    answer, stream, e = stage.begin(expect=(e.init(), e.event(1, happened("kept"))))
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.ended(stream)
    stage.quiet()


def test_a_function_that_never_answers(lab):
    stage = Stage(lab, options=["--command-timeout", "300ms"])
    answer, stream, e = stage.begin()
    stage.failed(answer, "DEADLINE_EXCEEDED")
    stream.expect(Reset("proxy", CANCEL))
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("well")).message)
    assert answer.result() == response("well")
    stage.quiet()


@pytest.mark.parametrize("entity_id", ["x" * 495, "a\nb", "\x7f", "\x00"])
def test_ids_that_no_stream_can_be_named_by(stage, entity_id):
    stage.failed(stage.send(request(entity_id)), "INVALID_ARGUMENT")
    stage.quiet()


@pytest.mark.parametrize("entity_id", ["x" * 494, "a|b", "$x", "ä", " "])
def test_ids_that_are_odd_and_legal(stage, entity_id):
    answer, stream, e = stage.begin(entity_id)
    stream.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.quiet()


# --- the function's connections ---------------------------------------------------------------

def test_more_connections_at_the_functions_stream_limit(lab):
    stage = Stage(lab, max_streams=4)
    answers = []
    for i in range(18):
        answer, stream, e = stage.begin("e%d" % i)
        answers.append((answer, stream, e))
        for conn in stage.rec.connections:
            assert conn.open_streams() <= 4
    assert len({stream.connection.number for _, stream, _ in answers}) >= 5
    for answer, stream, e in answers:
        stream.send(e.reply(1, response("ok"), events=[happened("x")]).message)
        assert answer.result() == response("ok")
    stage.quiet()  # and there was one discovery


def test_an_idle_proxy_sends_no_ping(stage):
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("")).message)
    answer.result()
    assert [c.pings for c in stage.rec.connections] == [0] * len(stage.rec.connections)


def test_what_the_streams_headers_say(stage):
    answer, stream, e = stage.begin()
    assert stream.opened.header("te") == ["trailers"]
    assert stream.opened.header("content-type") == ["application/grpc"]
    assert stream.opened.header(":scheme") == ["http"]
    assert stream.opened.header("grpc-timeout") == []
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.quiet()


def test_goaway_of_the_function_lets_streams_finish(stage):
    answer, stream, e = stage.begin("old")
    stage.rec.goaway()
    stage.quiet()
    other_answer, other, o = stage.begin("new")  # on a new connection
    assert other.connection is not stream.connection
    stream.send(e.reply(1, response("old")).message)
    assert answer.result() == response("old")
    other.send(o.reply(1, response("new")).message)
    assert other_answer.result() == response("new")


def test_a_drain_half_closes_every_stream(stage):
    streams = []
    for i in range(3):
        answer, stream, e = stage.begin("e%d" % i)
        stream.send(e.reply(1, response("")).message)
        answer.result()
        streams.append(stream)
    stage.proxy.process.terminate()
    for stream in streams:
        stage.ended(stream)
    assert stage.proxy.process.wait(15) == 0
    assert [r for r in stage.rec.untaken()] == []


def test_a_drain_finishes_the_command_under_way(stage):
    answer, stream, e = stage.begin()
    stage.proxy.process.terminate()
    stream.send(e.reply(1, response("done"), events=[happened("1")]).message)
    assert answer.result() == response("done")
    stage.ended(stream)
    assert stage.proxy.process.wait(15) == 0


def test_a_silent_idle_client_does_not_hold_up_the_drain(stage):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
    with socket.create_connection(("127.0.0.1", stage.proxy.port)) as silent:
        silent.sendall(preface)
        assert silent.recv(9)  # the server's settings: it is an HTTP/2 connection now
        stage.proxy.process.terminate()
        assert stage.proxy.process.wait(10) == 0


GARBAGE = {
    "zeros": b"\0" * 100,
    "ones": b"\xff" * 20000,
    "empty lines": b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
    "headers without end": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20000,
    "no frames": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
    "half a frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x40\x01",
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_on_the_front_disturbs_nobody(stage, garbage):
    with socket.create_connection(("127.0.0.1", stage.proxy.port)) as peer:
        try:
            peer.sendall(GARBAGE[garbage])
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(10)
            while peer.recv(4096):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass  # hung up on, which is an answer
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("well")).message)
    assert answer.result() == response("well")
    stage.quiet()


# --- payloads -----------------------------------------------------------------------------------

def test_the_requests_bytes_are_not_touched(stage):
    body = b"\x12\x01b\x0a\x01e\xf8\x07\x01\x12\x01c"  # order, an unknown field, a field twice
    call = stage.channel.unary_unary("/cairn.test.Model/Process", None, None).future(body, timeout=20)
    e = stage.entity("e")
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", any_pb2.Any(
        type_url="type.googleapis.com/cairn.test.Request", value=body)))
    answer = b"\xf8\x07\x05\x0a\x01z\x0a\x01y"
    stream.send(e.reply(1, any_pb2.Any(type_url="type.googleapis.com/cairn.test.Response",
                                       value=answer)).message)
    assert call.result() == answer
    stage.quiet()


def test_entity_keys_of_several_fields_and_kinds(stage):
    first = stage.send(model.pb.Pair(first="a", second="b", text="x"), "Call")
    e = stage.entity("a-b", model.TWO)  # in order of declaration, not of number
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Call", model.pb.Pair(first="a", second="b", text="x")))
    stream.send(e.reply(1, response("ok")).message)
    assert first.result() == response("ok")
    second = stage.send(model.pb.Number(number=-5, flag=True, data=b"\xff\xfe"), "Count")
    n = stage.entity("-5-true-//4=", model.NUMBERED)
    stream = stage.rec.entity(n)
    stream.expect(n.init(), n.command(1, "Count", model.pb.Number(number=-5, flag=True, data=b"\xff\xfe")))
    stream.send(n.reply(1, response("ok")).message)
    assert second.result() == response("ok")
    stage.quiet()


def test_a_reply_of_another_type_is_sent_and_reported(stage):
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, model.pb.State(all="other")).message)
    assert answer.result() == response("other")  # the bytes as they are: field 1 is a string in both
    stage.rec.expect_report("cairn.test.State")
    stage.quiet()


def test_a_reply_without_payload_is_an_empty_message(stage):
    answer, stream, e = stage.begin()
    stream.send(e.reply(1).message)
    assert answer.result() == response("")
    unset = e.reply(2)
    unset.message.reply.client_action.reply.SetInParent()
    assert stage.command(stream, e, 2, "", unset) == response("")
    stage.quiet()


def test_metadata_never_reaches_an_entity_and_a_replys_becomes_headers(stage):
    answer = stage.send(request("e"), metadata=[("x-mine", "1"), ("x-bin", b"\0\1")])
    e = stage.entity("e")
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", request("e")))
    reply = e.reply(1, response("ok")).message
    entries = reply.reply.client_action.reply.metadata.entries
    entries.add(key="X-One", string_value="1")
    entries.add(key="x-raw", bytes_value=b"\0\xff")
    entries.add(key="content-type", string_value="text/evil")
    stream.send(reply)
    assert answer.result() == response("ok")
    headers = list(answer.initial_metadata())
    assert ("x-one", "1") in headers and ("x-raw-bin", b"\0\xff") in headers
    stage.quiet()


# --- forwards and effects (section 6) ----------------------------------------------------------------

def test_a_forward_is_answered_by_the_other_service(stage):
    answer, stream, e = stage.begin()
    pair = model.pb.Pair(first="x", second="y", text="for two")
    stream.send(e.forward(1, model.TWO, "Call", pair, events=[happened("1")]).message)
    two = stage.entity("x-y", model.TWO)
    other = stage.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", pair))
    other.send(two.reply(1, response("from two")).message)
    assert answer.result() == response("from two")
    assert stage.command(stream, e, 2, "", e.reply(2, response("ok"))) == response("ok")
    stage.quiet()


def test_a_forward_to_itself_waits_its_turn(stage):
    answer, stream, e = stage.begin()
    stream.send(e.forward(1, model.MODEL, "Look", request("e", "again")).message)
    stream.expect(e.command(2, "Look", request("e", "again")))
    stream.send(e.reply(2, response("looked")).message)
    assert answer.result() == response("looked")
    stage.quiet()


@pytest.mark.parametrize("service, command, text", [
    ("nobody.Here", "Call", "Service [nobody.Here] unknown"),
    (model.TWO, "Nope", "Service [cairn.test.Two] does not have a command named: [Nope]")])
def test_an_unknown_forward(stage, service, command, text):
    answer, stream, e = stage.begin()
    stream.send(e.forward(1, service, command, request("x")).message)
    stage.failed(answer, "INTERNAL", text)
    report = stage.rec.expect_report(".")
    assert report == text + "\n  forwarded from cairn.test.Model.Process"
    stage.quiet()


def test_forwards_end_at_a_depth_of_32(stage):
    answer, stream, e = stage.begin("0")
    streams, i = [(stream, e)], 0
    while i < 40:
        i += 1
        target = stage.entity(str(i))
        stream.send(e.forward(1, model.MODEL, "Process", request(str(i))).message)
        if i > 32:
            break
        stream, e = stage.rec.entity(target), target
        stream.expect(e.init(), e.command(1, "Process", request(str(i))))
        streams.append((stream, e))
    stage.failed(answer, "INTERNAL")
    stage.rec.expect_report("32")
    stage.quiet()


def test_a_synchronous_effect_is_done_before_the_answer(stage):
    answer, stream, e = stage.begin()
    pair = model.pb.Pair(first="x", second="y")
    stream.send(e.reply(1, response("ok"), events=[happened("1")],
                        effects=[effect(model.TWO, "Call", pair, synchronous=True)]).message)
    two = stage.entity("x-y", model.TWO)
    other = stage.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", pair))
    stage.quiet()
    assert not answer.done()
    other.send(two.refusal(1, "nobody hears this").message)
    assert answer.result() == response("ok")
    stage.quiet()


def test_effects_run_in_order_and_others_are_only_started(stage):
    answer, stream, e = stage.begin()
    pairs = [model.pb.Pair(first=str(i), second="") for i in range(3)]
    stream.send(e.reply(1, response("ok"), effects=[
        effect(model.TWO, "Call", pairs[0], synchronous=True), effect(model.TWO, "Call", pairs[1]),
        effect(model.TWO, "Call", pairs[2], synchronous=True)]).message)
    two = [stage.entity("%d-" % i, model.TWO) for i in range(3)]
    first = stage.rec.entity(two[0])
    first.expect(two[0].init(), two[0].command(1, "Call", pairs[0]))
    stage.quiet()  # the others wait for the synchronous one
    first.send(two[0].reply(1, response("")).message)
    second, third = stage.rec.entity(two[1]), stage.rec.entity(two[2])
    second.expect(two[1].init(), two[1].command(1, "Call", pairs[1]))
    third.expect(two[2].init(), two[2].command(1, "Call", pairs[2]))
    third.send(two[2].reply(1, response("")).message)
    assert answer.result() == response("ok")  # the second has not been answered
    second.send(two[1].reply(1, response("")).message)
    stage.quiet()


def test_effects_of_a_failure_run_too(stage):
    answer, stream, e = stage.begin()
    pair = model.pb.Pair(first="x", second="y")
    refusal = e.refusal(1, "no").message
    refusal.reply.side_effects.append(effect(model.TWO, "Call", pair, synchronous=True))
    stream.send(refusal)
    two = stage.entity("x-y", model.TWO)
    other = stage.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", pair))
    other.send(two.reply(1, response("")).message)
    stage.failed(answer, "UNKNOWN", "no")
    stage.quiet()


def test_an_unknown_effect_is_reported_and_the_client_gets_its_reply(stage):
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("ok"), effects=[
        effect("nobody.Here", "Call", request("x"), synchronous=True)]).message)
    assert answer.result() == response("ok")
    assert stage.rec.expect_report(".") == ("Service [nobody.Here] unknown\n"
                                            "  side-effect of cairn.test.Model.Process")
    stage.quiet()


def test_the_payload_of_a_forward_is_not_touched(stage):
    answer, stream, e = stage.begin()
    odd = any_pb2.Any(type_url="type.googleapis.com/cairn.test.Pair", value=b"\x0a\x01y\xf8\x07\x01\x1a\x01x")
    stream.send(e.forward(1, model.TWO, "Call", odd).message)
    two = stage.entity("x-y", model.TWO)
    other = stage.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", odd))
    other.send(two.reply(1, pack(response("ok"))).message)
    assert answer.result() == response("ok")
    stage.quiet()


# --- the journal's part, played by the test ------------------------------------------------------------

@pytest.fixture
def journal():
    it = PlayedJournal()
    yield it
    it.stop()


@pytest.fixture
def played(lab, journal):
    """A stage whose journal the test plays; appends with events wait for it."""
    stage = Stage(lab, journal=journal, options=["--append-timeout", "2s"])
    journal.hold = True
    return stage


def test_no_answer_and_no_effect_before_the_events_are_durable(played, journal):
    answer, stream, e = played.begin()
    pair = model.pb.Pair(first="x", second="y")
    stream.send(e.reply(1, response("ok"), events=[happened("1"), happened("2")],
                        effects=[effect(model.TWO, "Call", pair)]).message)
    append = journal.next_append()
    waiting = played.send(request("e", "next"))
    other_answer, other, o = played.begin("other")  # which is not held up by it
    other.send(o.reply(1, response("read only")).message)
    assert other_answer.result() == response("read only")
    played.quiet()
    assert not answer.done()
    assert [(stream_name, record.type) for stream_name, record in append.events] == [
        ("model|e", "type.googleapis.com/cairn.test.Happened")] * 2
    assert [record.data for _, record in append.events] == [
        happened(w).SerializeToString() for w in ("1", "2")]
    journal.accept(append)
    assert answer.result() == response("ok")
    two = played.entity("x-y", model.TWO)
    effect_stream = played.rec.entity(two)
    effect_stream.expect(two.init(), two.command(1, "Call", pair))
    effect_stream.send(two.reply(1, response("")).message)
    stream.expect(e.command(2, "Process", request("e", "next")))
    stream.send(e.reply(2, response("done")).message)
    assert waiting.result() == response("done")
    played.quiet()


def test_no_forward_before_the_events_are_durable(played, journal):
    answer, stream, e = played.begin()
    pair = model.pb.Pair(first="x", second="y")
    stream.send(e.forward(1, model.TWO, "Call", pair, events=[happened("1")]).message)
    append = journal.next_append()
    played.quiet()
    journal.accept(append)
    two = played.entity("x-y", model.TWO)
    other = played.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", pair))
    other.send(two.reply(1, response("ok")).message)
    assert answer.result() == response("ok")


def test_an_append_whose_answer_is_lost_is_repeated_with_the_same_ids(played, journal):
    answer, stream, e = played.begin()
    stream.send(e.reply(1, response("ok"), events=[happened("1")]).message)
    first = journal.next_append()
    journal.lose_answer(first)
    again = journal.next_append()
    assert [record.id for _, record in again.events] == [record.id for _, record in first.events]
    assert again.request.streams == first.request.streams
    assert not answer.done()
    journal.accept(again)
    assert answer.result() == response("ok")
    assert [sequence for sequence, _, _ in journal.events("model|e")] == [1]
    played.quiet()


def test_a_journal_without_room_fails_the_command_and_restarts_the_entity(played, journal):
    answer, stream, e = played.begin()
    waiting = played.send(request("e", "next"))
    stream.send(e.reply(1, response("ok"), events=[happened("1")], effects=[
        effect(model.TWO, "Call", model.pb.Pair(first="never"))]).message)
    journal.refuse(journal.next_append(), 8, "the disk is full")
    assert "full" in played.failed(answer, "RESOURCE_EXHAUSTED")
    played.ended(stream)
    again = played.rec.entity(e)
    again.expect(e.init(), e.command(1, "Process", request("e", "next")))
    again.send(e.reply(1, response("read")).message)
    assert waiting.result() == response("read")
    played.quiet()


def test_an_outcome_that_stays_unknown_fails_the_command_and_replays_what_was_kept(played, journal):
    answer, stream, e = played.begin()
    stream.send(e.reply(1, response("ok"), events=[happened("1")]).message)
    append = journal.next_append()
    assert "may have happened" in played.failed(answer, "DEADLINE_EXCEEDED")
    journal.hold = False
    stream.expect(HalfClose())
    journal.accept(append)  # too late for the client, but kept
    stream.end(0)  # only now the entity is loaded again
    answer, stream, e = played.begin(expect=(e.init(), e.event(1, happened("1"))))
    stream.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    played.quiet()


def test_an_activation_asks_the_journal_once(played, journal):
    for i in range(3):
        answer, stream, e = played.begin("e%d" % i)
        stream.send(e.reply(1, response("")).message)
        answer.result()
    assert journal.loads == ["model|e0", "model|e1", "model|e2"]
