"""What bounds a proxy: entities in memory, commands that wait, sizes, time, a journal that comes and goes."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import threading
import time
import types

import grpc
import pytest

import harness
import model
import ports
import protos
import tools
from entity import Entity, effect
from journal_client import Journal, event, rec, to_stream
from model import happened, request, response
from recorder import CANCEL
from records import Reset
from stage import Stage
from test_grpc_wire import Wire

HAPPENED = "type.googleapis.com/cairn.test.Happened"


def answered(stage, entity_id, text="x"):
    """Activates an entity and answers its command; returns the stream."""
    answer, stream, e = stage.begin(entity_id)
    stream.send(e.reply(1, response(text)).message)
    assert answer.result() == response(text)
    return stream


def metric(stage, name, service=model.MODEL):
    text = harness.http_request(stage.proxy.metrics, "GET", "/metrics").body.decode()
    for line in text.splitlines():
        if line.startswith('cairn_proxy_%s{service="%s",kind="event sourced"}' % (name, service)):
            return int(line.split()[-1])
    raise AssertionError("no metric %s in\n%s" % (name, text))


# --- entities in memory, and those that wait ----------------------------------------------

def test_the_least_recently_used_entity_leaves_when_memory_is_short(lab):
    alone = Stage(lab)
    answered(alone, "one")
    each = metric(alone, "entity_bytes")
    stage = Stage(lab, options=["--entity-memory", str(each * 5 // 2)])
    first = answered(stage, "one")
    second = answered(stage, "two")
    stage.command(first, stage.entity("one"), 2, "again", stage.entity("one").reply(2, response("again")))
    answered(stage, "six")
    stage.ended(second)  # "one" was used after it
    stage.quiet()
    harness.eventually(lambda: metric(stage, "entities_active") == 2, "two are left")
    assert metric(stage, "entity_bytes") < each * 5 // 2


def test_a_busy_entity_does_not_leave(lab):
    stage = Stage(lab, options=["--entity-memory", "4KiB"])
    waiting, stream, e = stage.begin("busy")
    stage.ended(answered(stage, "other"))  # as soon as it is idle
    stage.quiet()
    stream.send(e.reply(1, response("done")).message)
    assert waiting.result() == response("done")
    stage.ended(stream)


def test_what_waits_for_an_entity_counts_as_its_memory(lab):
    stage = Stage(lab, options=["--entity-memory", "1MiB"])
    small = answered(stage, "small")
    first, stream, e = stage.begin("busy")
    stage.quiet()
    behind = stage.send(request("busy", "x" * (2 << 20)))
    stage.ended(small)
    stream.send(e.reply(1, response("1")).message)
    assert first.result() == response("1")
    stream.expect(e.command(2, "Process", request("busy", "x" * (2 << 20))))
    stream.send(e.reply(2, response("2")).message)
    assert behind.result() == response("2")
    answered(stage, "small")
    stage.quiet()  # both fit again


def test_commands_beyond_the_queues_limit_are_refused_and_others_go_on(lab):
    stage = Stage(lab, options=["--max-waiting", "3"])
    outstanding, stream, e = stage.begin("e")
    waiting = []
    for i in range(3):
        waiting.append(stage.send(request("e", str(i))))
        answered(stage, "probe-%d" % i)  # what was sent before it has arrived
    refused = stage.send(request("e", "too many"))
    assert "3 commands wait" in stage.failed(refused, "RESOURCE_EXHAUSTED")
    stream.send(e.reply(1, response("go")).message)
    assert outstanding.result() == response("go")
    for i, future in enumerate(waiting):
        stream.expect(e.command(i + 2, "Process", request("e", str(i))))
        stream.send(e.reply(i + 2, response(str(i))).message)
        assert future.result() == response(str(i))
    stage.quiet()


def test_a_client_is_answered_in_time_even_behind_a_command_that_hangs(lab):
    stage = Stage(lab, options=["--command-timeout", "700ms"])
    hanging, stream, e = stage.begin("e")
    behind = stage.send(request("e", "behind"))
    stage.failed(hanging, "DEADLINE_EXCEEDED")
    stage.failed(behind, "DEADLINE_EXCEEDED")
    stream.expect(Reset("proxy", CANCEL))
    assert harness.status_of(stage.proxy.management, "/ready") == 200


def test_a_drain_ends_in_its_time(lab):
    stage = Stage(lab, options=["--drain-timeout", "500ms"])
    answer, stream, e = stage.begin()
    assert stage.proxy.terminate() == 0
    assert harness.refused(answer.result)[0] in ("UNAVAILABLE", "CANCELLED")
    assert "not all calls" in stage.proxy.text()


# --- sizes -----------------------------------------------------------------------------------

def test_a_reply_with_too_many_events_fails_its_command_and_replays(lab):
    stage = Stage(lab)
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("x"), events=[happened(str(i)) for i in range(10001)]).message)
    assert "10001 events" in stage.failed(answer, "RESOURCE_EXHAUSTED")
    stage.ended(stream)
    stage.rec.entity(e).expect(e.init())
    stage.quiet()  # the client was told; the function has broken no rule of the protocol


def test_an_event_over_the_record_limit_fails_its_command_and_replays(lab):
    stage = Stage(lab)
    answer, stream, e = stage.begin()
    large = happened("x" * (3 << 20))
    stream.send(e.reply(1, response("x"), events=[happened("small"), large]).message)
    assert "event 2 of the reply" in stage.failed(answer, "RESOURCE_EXHAUSTED")
    stage.ended(stream)
    stage.rec.entity(e).expect(e.init())  # the small one was not kept either
    stage.quiet()


def test_a_snapshot_over_the_record_limit_is_dropped_and_its_events_are_kept(lab):
    stage = Stage(lab, spec=model.spec(passivate_ms=100))
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("x"), events=[happened("1")],
                        snapshot=model.pb.State(all="s" * (3 << 20))).message)
    assert answer.result() == response("x")
    stage.rec.expect_report("the snapshot has")
    stage.ended(stream)
    again, stream, e = stage.begin(expect=(e.init(), e.event(1, happened("1"))))
    stream.send(e.reply(1, response("")).message)
    again.result()


def test_a_message_over_the_functions_limit_breaks_its_stream_alone(lab):
    stage = Stage(lab, options=["--function-message-max", "64KiB"])
    other = answered(stage, "other")
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("x" * (65 << 10))).message)
    text = stage.failed(answer, "RESOURCE_EXHAUSTED")
    assert text.startswith("cairn.test.Model.Process, entity [e]: the function's reply is not taken"), text
    assert "--function-message-max" in text and "limit of 65536" in text
    stage.rec.expect_report(re.escape(text))
    stage.command(other, stage.entity("other"), 2, "still there",
                  stage.entity("other").reply(2, response("yes")))


def test_a_request_over_the_limit_is_refused(lab):
    stage = Stage(lab, options=["--function-message-max", "64KiB"])
    stage.failed(stage.send(request("e", "x" * (65 << 10))), "RESOURCE_EXHAUSTED")
    answered(stage, "e")


def test_unfinished_requests_of_one_connection_are_limited_in_sum(lab):
    stage = Stage(lab)
    wire = Wire(stage.proxy.port)
    numbers = [wire.open("/model/e/process", ("content-type", "application/json")) for _ in range(7)]
    for number in numbers:
        wire.send(number, b"x" * (11 << 20))
    last = wire.streams[numbers[-1]]
    wire.until(lambda: last.ended or last.reset is not None)
    assert last.headers[":status"] == "503" and b"too many unfinished requests" in last.data
    assert not any(wire.streams[number].ended for number in numbers[:5])
    wire.close()
    answered(stage, "e")


# --- the journal -----------------------------------------------------------------------------

def test_a_namespace_stands_before_every_stream(lab):
    stage = Stage(lab, options=["--namespace", "shop/eu"])
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    streams = Journal(stage.journal.port).list_streams()
    assert [s.name for s in streams.streams] == ["shop/eu/model|e"]


@pytest.mark.parametrize("name", ["a|b", "$a", "a\nb", "x" * 201])
def test_a_namespace_that_no_stream_can_begin_with(name):
    done = subprocess.run([tools.program("cairn-proxy"), "--namespace", name], capture_output=True, text=True,
                          timeout=harness.PATIENCE)
    assert done.returncode == 2
    assert "--namespace" in done.stderr and "must be" in done.stderr


def test_it_says_once_who_is_not_there(lab):
    proxy = lab.proxy(types.SimpleNamespace(port=ports.free_port()), ports.free_port(), wait=False)
    proxy.wait_text("journal not reached")
    proxy.wait_text("function not reached")


def test_records_of_another_kind_are_not_replayed(lab):
    stage = Stage(lab)
    foreign = event(type=HAPPENED, metadata=[rec.Metadata(key="cairn-kind", value=b"value")])
    Journal(stage.journal.port).append(to_stream("model|e", foreign))
    details = stage.failed(stage.send(request("e", "x")), "FAILED_PRECONDITION")
    assert "value based entity" in details and "event sourced" in details and "--namespace" in details
    stage.quiet()
    answered(stage, "other")


def test_events_appended_by_hand_are_replayed(lab):
    stage = Stage(lab)
    Journal(stage.journal.port).append(
        to_stream("model|e", event(type=HAPPENED, data=happened("by hand").SerializeToString())))
    e = stage.entity("e")
    answer, stream, e = stage.begin(expect=(e.init(), e.event(1, happened("by hand"))))
    stream.send(e.reply(1, response("")).message)
    answer.result()


def test_a_journal_that_restarts_is_waited_for(lab):
    stage = Stage(lab, storage="file:%s" % (lab.folder / "data"))
    answered(stage, "warm")
    stage.journal.kill()
    answer = stage.send(request("e", "go"))
    answered_later = stage.send(request("f", "go"))
    stage.journal.start()
    stage.journal.ready()
    for entity_id, future in (("e", answer), ("f", answered_later)):
        e = stage.entity(entity_id)
        stream = stage.rec.entity(e)
        stream.expect(e.init(), e.command(1, "Process", request(entity_id, "go")))
        stream.send(e.reply(1, response("back")).message)
        assert future.result() == response("back")


def test_an_append_is_repeated_over_a_restart_of_the_journal(lab):
    stage = Stage(lab, storage="file:%s" % (lab.folder / "data"))
    answer, stream, e = stage.begin()
    stage.journal.kill()
    side = effect(model.TWO, "Call", model.pb.Pair(first="f", second="s"), synchronous=False)
    stream.send(e.reply(1, response("kept"), events=[happened("1")], effects=[side]).message)
    stage.journal.start()
    stage.journal.ready()
    assert answer.result() == response("kept")
    two = stage.entity("f-s", model.TWO)  # the effect runs once, after the event
    stream = stage.rec.entity(two)
    stream.expect(two.init(), two.command(1, "Call", model.pb.Pair(first="f", second="s")))
    stream.send(two.reply(1, response("")).message)
    records = Journal(stage.journal.port).read(stream="model|e")
    assert [r.header.sequence for r in records] == [1]


def test_a_journal_that_falls_silent_fails_the_activation(lab):
    stage = Stage(lab, options=["--load-timeout", "500ms"])
    answered(stage, "warm")
    stage.journal.process.send_signal(19)  # SIGSTOP
    try:
        stage.failed(stage.send(request("e", "go")), "UNAVAILABLE")
    finally:
        stage.journal.process.send_signal(18)  # SIGCONT
    stage.quiet()


def resident_mib(process):
    text = pathlib.Path("/proc/%d/status" % process.pid).read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024


def test_a_function_that_reads_slowly_costs_little(lab):
    """And is no journal that has fallen silent, whatever the time-out of a load."""
    journal = lab.cairnd("file:%s" % (lab.folder / "data"))
    client = Journal(journal.port)
    large = happened("x" * (1 << 20)).SerializeToString()
    for _ in range(10):
        client.append(to_stream("model|e", *[event(type=HAPPENED, data=large) for _ in range(4)]))
    stage = Stage(lab, journal=journal, options=["--load-timeout", "500ms"])
    answered(stage, "warm")
    before = resident_mib(stage.proxy)
    measured = not os.environ.get("CAIRN_SANITIZER")  # whose own memory it would be
    stage.rec.stop_reading()
    e = stage.entity("e")
    answer = stage.send(request("e", "go"))
    stream = stage.rec.entity(e)
    stream.expect(e.init())
    stream.wait_full()
    journal.process.send_signal(19)  # SIGSTOP
    try:
        for late in ("late", "later"):  # each is given up when the time is over, and the first was before it
            stage.failed(stage.send(request(late, "go")), "UNAVAILABLE")
            assert not measured or resident_mib(stage.proxy) - before < 16, "it holds what is not read"
            assert not answer.done(), answer.exception()
    finally:
        journal.process.send_signal(18)  # SIGCONT
    stage.rec.read_on()
    for sequence in range(1, 41):
        seen = stream.next()
        assert seen.event.sequence == sequence and seen.event.payload.value == large
    stream.expect(e.command(1, "Process", request("e", "go")))
    stream.send(e.reply(1, response("40")).message)
    assert answer.result() == response("40")
    stage.quiet()


# --- a changed spec, while streams live on -----------------------------------------------------

def test_entities_of_a_changed_service_finish_and_leave(lab):
    stage = Stage(lab, model.spec({model.MODEL: "model", model.TWO: "two"}))
    under_way, busy, e = stage.begin("busy")
    idle = answered(stage, "idle")
    unchanged = stage.entity("a-b", model.TWO)
    pair = model.pb.Pair(first="a", second="b")
    answer = stage.send(pair, "Call")
    two = stage.rec.entity(unchanged)
    two.expect(unchanged.init(), unchanged.command(1, "Call", pair))
    two.send(unchanged.reply(1, response("1")).message)
    answer.result()
    stage.rec.spec = model.spec({model.MODEL: "other", model.TWO: "two"})
    stage.rec.goaway()  # what is open goes on, what is new needs another connection, which is discovered
    answered(stage, "new")
    stage.rec.expect_discovery()
    stage.ended(idle)
    answer = stage.send(pair, "Call")
    two.expect(unchanged.command(2, "Call", pair))
    two.send(unchanged.reply(2, response("2")).message)
    answer.result()
    busy.send(e.reply(1, response("done"), events=[happened("old")]).message)
    assert under_way.result() == response("done")
    stage.ended(busy)
    again, stream, e = stage.begin("busy")  # of the new spec, whose stream is another one: no events
    stream.send(e.reply(1, response(""), events=[happened("new")]).message)
    again.result()
    names = [s.name for s in Journal(stage.journal.port).list_streams().streams]
    assert names == ["model|busy", "other|busy"]
