"""Declaring and trying entities, without a server."""

import pathlib
import subprocess
import sys

import cairn_sdk
import pytest
from cairn_sdk import DeclarationError, EntityError, EntityTest, EventSourced
from counter import declare, pb


def increase(by=1, then="", times=1):
    return pb.IncreaseBy(name="a", by=by, then=then, times=times)


def values(events):
    return [e.by for e in events]


def test_a_command_emits_and_replies():
    test = EntityTest(declare())
    result = test.handle("Increase", increase(2))
    assert result.events == [pb.Increased(by=2)]
    assert result.reply == pb.Value(value=2)
    assert (result.failure, result.snapshot, result.forward, result.effects) == (None, None, None, [])
    assert test.state == pb.Value(value=2)


def test_a_query_emits_nothing():
    result = EntityTest(declare()).given(pb.Increased(by=4)).handle("Get", pb.GetValue(name="a"))
    assert result.reply == pb.Value(value=4)
    assert result.events == []


def test_a_handler_may_return_nothing_for_empty():
    test = EntityTest(declare()).given(pb.Increased(by=4))
    result = test.handle("Reset", pb.ResetCounter(name="a"))
    assert result.reply.DESCRIPTOR.full_name == "google.protobuf.Empty"
    assert test.state == pb.Value()


def test_an_event_handler_cannot_change_what_is_kept():
    test = EntityTest(declare())
    test.handle("Increase", increase(7))
    test.reactivate()
    assert test.state == pb.Value(value=7)


def test_a_refused_command_keeps_nothing_and_needs_no_restart():
    test = EntityTest(declare())
    result = test.handle("Increase", increase(0))
    assert result.failure == "by must be at least 1"
    assert (result.reply, result.events, result.restarted) == (None, [], False)


def test_a_failure_after_events_restarts_and_rolls_back():
    test = EntityTest(declare())
    test.handle("Increase", increase(1))
    result = test.handle("Increase", increase(5, "fail"))
    assert (result.failure, result.events, result.restarted) == ("after all no", [], True)
    assert test.state == pb.Value(value=1)
    assert values(test.events) == [1]


def test_snapshots_come_with_every_nth_event():
    test = EntityTest(declare(snapshot_every=3))
    snapshots = [test.handle("Increase", increase(1)).snapshot for _ in range(7)]
    assert [s.value if s else None for s in snapshots] == [None, None, 3, None, None, 6, None]


def test_a_snapshot_comes_where_several_events_pass_the_nth():
    test = EntityTest(declare(snapshot_every=3))
    assert test.handle("Increase", increase(1, times=2)).snapshot is None
    assert test.handle("Increase", increase(1, times=2)).snapshot == pb.Value(value=4)
    assert test.handle("Increase", increase(1, times=1)).snapshot is None
    assert test.handle("Increase", increase(1, times=7)).snapshot == pb.Value(value=12)


def test_recovery_counts_on_from_the_snapshot():
    test = EntityTest(declare(snapshot_every=3))
    for _ in range(5):
        test.handle("Increase", increase(1))
    test.reactivate()
    assert test.state == pb.Value(value=5)
    assert test.handle("Increase", increase(1)).snapshot == pb.Value(value=6)


def test_recovery_counts_from_the_events():
    test = EntityTest(declare(snapshot_every=3)).given(pb.Increased(by=1), pb.Increased(by=1))
    assert test.handle("Increase", increase(1)).snapshot == pb.Value(value=3)


def test_without_snapshot_every_there_are_none():
    test = EntityTest(declare(snapshot_every=0))
    assert all(test.handle("Increase", increase(1)).snapshot is None for _ in range(200))


def test_forward_and_effects():
    test = EntityTest(declare())
    result = test.handle("Increase", increase(1, "forward"))
    assert result.reply is None
    assert (result.forward.service_name, result.forward.command_name) == ("cairn_sdk.test.Other", "Note")
    assert result.forward.payload.type_url == "type.googleapis.com/cairn_sdk.test.GetValue"
    effects = test.handle("Increase", increase(1, "effect")).effects
    assert [(e.command_name, e.synchronous) for e in effects] == [("Note", True), ("Note", False)]


@pytest.mark.parametrize("then, text", [
    ("raise", "the handler of command Increase raised KeyError: 'a bug'"),
    ("reply wrongly", "must return cairn_sdk.test.Value, it returned cairn_sdk.test.GetValue"),
    ("reply nothing", "must return cairn_sdk.test.Value, it returned None"),
    ("emit unhandled", "event type 'cairn_sdk.test.Unhandled' has no handler"),
])
def test_a_handlers_bug_is_named(then, text):
    with pytest.raises(EntityError) as error:
        EntityTest(declare(), "who").handle("Increase", increase(1, then))
    assert text in str(error.value)
    assert str(error.value).startswith("entity 'who' of cairn_sdk.test.Counter: ")
    assert error.value.command_id == 1


def test_a_bug_of_an_event_handler_is_named():
    with pytest.raises(EntityError, match="the handler of event cairn_sdk.test.Increased raised ValueError"):
        EntityTest(declare()).handle("Increase", increase(13))


def test_replay_of_an_unknown_event_is_named():
    with pytest.raises(EntityError, match="event type .*Unhandled' has no handler"):
        EntityTest(declare()).given(pb.Unhandled())


def test_an_unknown_command_and_a_wrong_input_are_named():
    test = EntityTest(declare())
    with pytest.raises(EntityError, match="there is no method 'Nope'"):
        test.handle("Nope", increase())
    with pytest.raises(EntityError, match="takes cairn_sdk.test.GetValue, the proxy sent"):
        test.handle("Get", increase())


def wrong(text):
    return pytest.raises(DeclarationError, match=text)


def test_wrong_declarations_are_named():
    def new(service="cairn_sdk.test.Counter", persistence_id="counter", **more):
        return EventSourced(service, persistence_id, state=lambda name: 0, **more)
    with wrong("there is no service 'cairn_sdk.test.Nope'"):
        new("cairn_sdk.test.Nope")
    for persistence_id in ("", "a|b", "$a"):
        with wrong("cairn_sdk.test.Counter: its persistence id"):
            new(persistence_id=persistence_id)
    with wrong("must not be negative"):
        new(snapshot_every=-1)
    with wrong("'Nope', which is none of its methods .Get, Increase, Reset."):
        new().command("Nope")
    with wrong("its method Increase has no command handler"):
        new().check()
    twice = new()
    twice.command("Get")(print)
    with wrong("two command handlers are declared for Get"):
        twice.command("Get")
    twice.event(pb.Increased)(print)
    with wrong("two event handlers are declared for cairn_sdk.test.Increased"):
        twice.event(pb.Increased)
    twice.restore(pb.Value)(print)
    with wrong("two functions are declared to restore cairn_sdk.test.Value"):
        twice.restore(pb.Value)
    twice.snapshot(print)
    with wrong("two functions are declared to make a snapshot"):
        twice.snapshot(print)


def test_what_a_proxy_would_refuse_is_refused_here():
    keyless = EventSourced("cairn_sdk.test.Keyless", "k", state=str)
    keyless.command("Get")(print)
    with wrong("the input of its method Get, cairn_sdk.test.Value, has no entity key"):
        keyless.check()
    streamed = EventSourced("cairn_sdk.test.Streamed", "s", state=str)
    streamed.command("Watch")(print)
    with wrong("its method Watch is streamed"):
        streamed.check()
    other = EventSourced("cairn_sdk.test.Other", "counter", state=str)
    other.command("Note")(print)
    with wrong("its persistence id 'counter' is that of cairn_sdk.test.Counter too"):
        cairn_sdk.entity_spec(declare(), other)
    with wrong("it is given twice"):
        cairn_sdk.entity_spec(declare(), declare())
    with wrong("there is no entity to serve"):
        cairn_sdk.entity_spec()
    snapshots = EventSourced("cairn_sdk.test.Other", "o", state=str, snapshot_every=5)
    snapshots.command("Note")(print)
    with wrong("snapshot_every is 5, but no function is declared with @snapshot"):
        snapshots.check()
    snapshots.snapshot(print)
    with wrong("no function is declared with @restore"):
        snapshots.check()


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(cairn_sdk.ProtoError, match="there is no file"):
        cairn_sdk.load(tmp_path / "nope.proto")
    bad = tmp_path / "bad.proto"
    bad.write_text('syntax = "proto3";\nmessage {\n')
    with pytest.raises(cairn_sdk.ProtoError, match="(?s)protoc refuses bad.proto.*bad.proto:2"):
        cairn_sdk.load(bad)


def in_new_process(folder, text, **env):
    import os
    sdk = pathlib.Path(cairn_sdk.__file__).parents[1]
    done = subprocess.run([sys.executable, "-B", "-c", text], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(sdk), **env})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_load_keeps_what_it_made_and_sees_changes(tmp_path):
    cache, proto = tmp_path / "cache", tmp_path / "a-b.proto"
    text = "import cairn_sdk; print(cairn_sdk.load('a-b.proto').%s.DESCRIPTOR.full_name)"
    proto.write_text('syntax = "proto3"; package x; message One {}')
    for _ in range(2):
        assert in_new_process(tmp_path, text % "One", CAIRN_SDK_CACHE=str(cache)) == "x.One"
    made = {p.name for p in cache.iterdir()}
    assert len(made) == 2  # the protocol's and this one
    proto.write_text('syntax = "proto3"; package x; message Two {}')
    assert in_new_process(tmp_path, text % "Two", CAIRN_SDK_CACHE=str(cache)) == "x.Two"
    assert len(list(cache.iterdir())) == 3


def test_load_works_without_a_cache(tmp_path):
    (tmp_path / "a.proto").write_text('syntax = "proto3"; package x; message One {}')
    (tmp_path / "file").write_text("")
    text = "import cairn_sdk; print(cairn_sdk.load('a.proto').One.DESCRIPTOR.full_name)"
    assert in_new_process(tmp_path, text, CAIRN_SDK_CACHE=str(tmp_path / "file" / "no")) == "x.One"
