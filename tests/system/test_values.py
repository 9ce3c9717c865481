"""Value entities, the contract's section 4: the test plays the function."""

import pytest
from google.protobuf import any_pb2

import harness
import kinds
from entity import effect
from kinds import VALUE, VALUE_TWO, Kinds, request, response, state
from played_journal import PlayedJournal
from recorder import CANCEL
from records import HalfClose, Reset


@pytest.fixture
def stage(lab):
    return Kinds(lab)


def reply(stage, answer, stream, entity, command_id, text="ok", **how):
    stream.send(entity.reply(command_id, response(text), **how).message)
    assert answer.result() == response(text)


def passivated(stage, stream):
    stream.expect(HalfClose())
    stream.end(0)


def test_init_always_has_a_state_and_a_value_only_where_one_is_stored(lab):
    stage = Kinds(lab, passivate_ms=50)
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1)  # reads, stores nothing
    passivated(stage, stream)
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1, update=state("a"))
    passivated(stage, stream)
    answer, stream, v = stage.begin_value(value=state("a"))
    reply(stage, answer, stream, v, 1)
    passivated(stage, stream)
    stage.quiet()


def test_ids_go_on_after_updates_deletes_and_failures(stage):
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1, update=state("a"))
    for command_id, how in ((2, {"update": state("b")}), (3, {"delete": True}), (4, {"update": state("c")})):
        answer = stage.process("v", "more")
        stream.expect(v.command(command_id, "Process", request("v", "more")))
        reply(stage, answer, stream, v, command_id, **how)
    answer = stage.process("v", "wrong")
    stream.expect(v.command(5, "Process", request("v", "wrong")))
    stream.send(v.refusal(5, "no").message)
    stage.failed(answer, "UNKNOWN", "no")
    answer = stage.process("v", "more")
    stream.expect(v.command(6, "Process", request("v", "more")))
    reply(stage, answer, stream, v, 6)
    stage.quiet()


def test_a_deleted_value_is_gone_after_passivation_and_may_be_made_anew(lab):
    stage = Kinds(lab, passivate_ms=50)
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1, update=state("a"))
    passivated(stage, stream)
    answer, stream, v = stage.begin_value(value=state("a"))
    reply(stage, answer, stream, v, 1, delete=True)
    passivated(stage, stream)
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1, update=state("b"))
    passivated(stage, stream)
    answer, stream, v = stage.begin_value(value=state("b"))
    reply(stage, answer, stream, v, 1)
    passivated(stage, stream)
    stage.quiet()


def test_the_value_comes_back_byte_for_byte_after_many_updates(lab):
    """More updates than there are between two snapshots."""
    stage = Kinds(lab, passivate_ms=50)
    odd = any_pb2.Any(type_url="json.cloudstate.io/a/b", value=b"\x0a\x01x\xf8\x07\x01")
    answer, stream, v = stage.begin_value()
    for i in range(1, 71):
        if i > 1:
            answer = stage.process("v", "go")
            stream.expect(v.command(i, "Process", request("v", "go")))
        reply(stage, answer, stream, v, i, update=odd if i == 70 else state(str(i)))
    passivated(stage, stream)
    answer, stream, v = stage.begin_value(value=odd)
    reply(stage, answer, stream, v, 1)
    passivated(stage, stream)
    stage.quiet()


def test_values_survive_a_kill_of_proxy_and_journal(lab):
    stage = Kinds(lab, storage="file:%s" % (lab.folder / "data"))
    for i in range(3):
        answer, stream, v = stage.begin_value("v%d" % i)
        reply(stage, answer, stream, v, 1, update=state(str(i)))
    stage.proxy.kill()
    stage.journal.kill()
    stage.rec.forgive(lambda r: True)
    stage.journal.start().ready()
    stage.proxy.start().ready()
    stage.rec.expect_discovery()
    stage.channel = harness.channel_to(stage.proxy.port)
    for i in range(3):
        answer, stream, v = stage.begin_value("v%d" % i, value=state(str(i)))
        reply(stage, answer, stream, v, 1)


def test_a_state_action_beside_a_failure_is_dropped_and_reported(lab):
    stage = Kinds(lab, passivate_ms=50)
    answer, stream, v = stage.begin_value()
    stream.send(v.refusal(1, "no", update=state("never")).message)
    stage.failed(answer, "UNKNOWN", "no")
    assert "a state action" in stage.rec.expect_report("a failure")
    passivated(stage, stream)
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1)
    passivated(stage, stream)


def test_a_failure_never_restarts_a_value(stage):
    answer, stream, v = stage.begin_value()
    refusal = v.refusal(1, "no").message
    refusal.reply.client_action.failure.restart = True
    stream.send(refusal)
    stage.failed(answer, "UNKNOWN", "no")
    answer = stage.process("v", "more")
    stream.expect(v.command(2, "Process", request("v", "more")))
    reply(stage, answer, stream, v, 2)
    stage.quiet()


def test_an_update_without_a_value_is_dropped_and_reported(stage):
    answer, stream, v = stage.begin_value()
    message = v.reply(1, response("ok")).message
    message.reply.state_action.update.SetInParent()
    stream.send(message)
    stage.rec.expect_report("update has no value")
    assert answer.result() == response("ok")
    message = v.reply(2, response("ok")).message
    message.reply.state_action.SetInParent()  # no action in it: nothing
    answer = stage.process("v", "more")
    stream.expect(v.command(2, "Process", request("v", "more")))
    stream.send(message)
    assert answer.result() == response("ok")
    stage.quiet()


@pytest.mark.parametrize("name, client, orderly, waiting", [
    ("failure", "Unexpected Value entity failure", True, True),
    ("failure-0", "Unexpected Value entity failure", True, False),
    ("empty", "Unexpected Value entity failure", False, True),
    ("wrong id", "Unexpected Value entity reply", False, True),
    ("garbage", "Unexpected Value entity failure", False, False),
])
def test_faults_have_the_texts_of_the_contract(stage, name, client, orderly, waiting):
    answer, stream, v = stage.begin_value()
    second = stage.process("v", "waits") if waiting else None
    if waiting:
        probe, other_stream, other = stage.begin_value("other")  # so that the second has arrived
        reply(stage, probe, other_stream, other, 1)
    message = {"failure": v.failure(1, "broken").message, "failure-0": v.failure(0, "broken").message,
               "empty": b"", "wrong id": v.reply(7, response("?")).message, "garbage": None}[name]
    if message is None:
        stream.send_bytes(b"\0\0\0\0\x03\xff\xff\xff")
        stage.rec.forgive(lambda r: "undecodable" in repr(r))
    else:
        stream.send(kinds.protos.value_entity.ValueEntityStreamOut() if message == b"" else message)
    stage.failed(answer, "UNKNOWN", client)
    assert client in stage.rec.expect_report(".")
    if orderly:
        passivated(stage, stream)
    else:
        stream.expect(Reset("proxy", CANCEL))
    if waiting:
        stage.failed(second, "UNKNOWN", "Value entity terminated")
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1)


@pytest.mark.parametrize("code", [0, 2, 10, 13])
def test_the_end_of_the_stream_is_no_report(stage, code):
    answer, stream, v = stage.begin_value()
    stream.end(code, "why")
    stage.failed(answer, "UNKNOWN", "Unexpected Value entity termination")
    stage.rec.forgive(lambda r: r.stream == stream.number and isinstance(r, (HalfClose, Reset)))
    answer, stream, v = stage.begin_value()
    reply(stage, answer, stream, v, 1)
    stage.rec.forgive(lambda r: isinstance(r, Reset))
    stage.quiet()


def test_a_value_that_the_journal_cannot_take_fails_the_command(stage):
    answer, stream, v = stage.begin_value()
    stream.send(v.reply(1, response("ok"), update=state("x" * (3 << 20))).message)
    assert "at most" in stage.failed(answer, "RESOURCE_EXHAUSTED")
    passivated(stage, stream)
    again = stage.rec.entity(v)
    again.expect(v.init())
    stage.quiet()


def test_a_stream_of_another_kind_is_refused(lab):
    stage = Kinds(lab)
    answer, stream, v = stage.begin_value("e")
    reply(stage, answer, stream, v, 1, update=state("a"))
    other = lab.recorder(spec=kinds.spec(types={VALUE: kinds.TYPES[kinds.EVENTS]}))
    proxy = lab.proxy(other, stage.journal, name="other-proxy")
    other.expect_discovery()
    stage.channel = harness.channel_to(proxy.port)
    details = stage.failed(stage.process("e", "x"), "FAILED_PRECONDITION")
    assert "value|e holds records of a value based entity" in details and "--namespace" in details
    other.nothing_more()


def test_forwards_and_effects_of_a_value_run_after_its_state_is_durable(stage):
    answer, stream, v = stage.begin_value()
    stream.send(v.forward(1, VALUE_TWO, "Call", request("t"), update=state("a"), effects=[
        effect(VALUE_TWO, "Call", request("one"), synchronous=True),
        effect(VALUE_TWO, "Call", request("two"))]).message)
    for name in ("one", "two", "t"):
        two = stage.value(name, VALUE_TWO)
        other = stage.rec.entity(two)
        other.expect(two.init(), two.command(1, "Call", request(name)))
        stage.quiet() if name == "one" else None  # nothing else starts before it is done
        other.send(two.reply(1, response(name)).message)
    assert answer.result() == response("t")
    stage.quiet()


# --- the journal's part, played by the test ------------------------------------------------------------

@pytest.fixture
def journal():
    it = PlayedJournal()
    yield it
    it.stop()


@pytest.fixture
def played(lab, journal):
    stage = Kinds(lab, journal=journal, options=["--append-timeout", "2s"])
    journal.hold = True
    return stage


def test_no_answer_and_no_effect_before_the_update_is_durable(played, journal):
    answer, stream, v = played.begin_value()
    stream.send(v.reply(1, response("ok"), update=state("a"),
                        effects=[effect(VALUE_TWO, "Call", request("t"))]).message)
    append = journal.next_append()
    played.quiet()
    assert not answer.done()
    assert [(name, record.type, record.data) for name, record in append.events] == [
        ("value|v", "type.googleapis.com/cairn.kinds.State", state("a").SerializeToString())]
    assert {m.key: m.value for m in append.events[0][1].metadata} == {"cairn-kind": b"value"}
    journal.accept(append)
    assert answer.result() == response("ok")
    two = played.value("t", VALUE_TWO)
    other = played.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", request("t")))
    other.send(two.reply(1, response("")).message)
    played.quiet()


def test_an_update_without_room_fails_the_command_and_restarts_the_entity(played, journal):
    answer, stream, v = played.begin_value()
    stream.send(v.reply(1, response("ok"), update=state("a"), effects=[
        effect(VALUE_TWO, "Call", request("never"))]).message)
    journal.refuse(journal.next_append(), 8, "the disk is full")
    assert "full" in played.failed(answer, "RESOURCE_EXHAUSTED")
    passivated(played, stream)
    again = played.rec.entity(v)
    again.expect(v.init())
    played.quiet()


def test_a_delete_is_a_record(played, journal):
    answer, stream, v = played.begin_value()
    stream.send(v.reply(1, response("ok"), delete=True).message)
    append = journal.next_append()
    (name, record), = append.events
    assert (name, record.type, record.data) == ("value|v", "cairn.value.Deleted", b"")
    assert {m.key for m in record.metadata} == {"cairn-kind", "cairn-deleted"}
    journal.accept(append)
    assert answer.result() == response("ok")
