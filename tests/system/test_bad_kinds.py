"""A function that does wrong, as value entity and as action: its client is answered in time, its author is told, and
nobody else notices. (Event sourced: test_event_sourced.py.)"""

import pytest

from kinds import ACT, Kinds, request, response, state
from played_journal import PlayedJournal
from recorder import CANCEL
from records import Broken, End, HalfClose, Reset
from test_actions import begin_out, failed, over

FAST = ["--command-timeout", "500ms", "--close-grace", "200ms"]


@pytest.fixture
def stage(lab):
    return Kinds(lab, options=FAST)


@pytest.fixture
def patient(lab):
    return Kinds(lab)


def works(stage, entity_id):
    """An entity of its own, from beginning to answer; its stream."""
    answer, stream, v = stage.begin_value(entity_id)
    stream.send(v.reply(1, response("fine")).message)
    assert answer.result() == response("fine")
    return stream, v


def goes_on(stage, stream, v):
    """It was not touched: the same stream, the next id."""
    answer = stage.process(v.entity_id, "more")
    stream.expect(v.command(2, "Process", request(v.entity_id, "more")))
    stream.send(v.reply(2, response("fine")).message)
    assert answer.result() == response("fine")
    stage.quiet()


def test_silence_of_a_value(stage):
    other = works(stage, "other")
    answer, stream, v = stage.begin_value()
    stage.failed(answer, "DEADLINE_EXCEEDED")
    stream.expect(Reset("proxy", CANCEL))
    works(stage, "v")  # anew
    goes_on(stage, *other)


def test_a_stream_that_the_function_never_ends(lab):
    stage = Kinds(lab, passivate_ms=100, options=FAST)
    stream, v = works(stage, "v")
    stream.expect(HalfClose(), Reset("proxy", CANCEL))
    works(stage, "v")
    stage.rec.forgive(lambda r: isinstance(r, (HalfClose, Reset)))


def test_two_replies_of_a_value(patient):
    other = works(patient, "other")
    answer, stream, v = patient.begin_value()
    stream.send(v.reply(1, response("one"), update=state("kept")).message, v.reply(1, response("two")).message)
    assert answer.result() == response("one")
    patient.rec.expect_report("Unexpected Value entity reply")
    stream.expect(Reset("proxy", CANCEL))
    answer, stream, v = patient.begin_value(value=state("kept"))
    stream.send(v.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    goes_on(patient, *other)


def test_a_message_over_the_limit(patient):
    other = works(patient, "other")
    answer, stream, v = patient.begin_value()
    stream.send(v.reply(1, response("x" * (13 << 20))).message)
    assert "--function-message-max" in patient.failed(answer, "RESOURCE_EXHAUSTED")
    patient.rec.expect_report("Value.Process, entity .v.")
    stream.expect(Reset("proxy", CANCEL))
    answer = patient.unary(ACT, "Unary", request())
    call = patient.call_of("handleUnary")
    call.expect(patient.act.first("Unary", request()), HalfClose())
    call.send(patient.act.reply(response("x" * (13 << 20))).message)
    assert "Act.Unary: the function's reply is not taken" in patient.failed(answer, "RESOURCE_EXHAUSTED")
    patient.rec.expect_report("Act.Unary: ")
    call.expect(Reset("proxy", CANCEL))
    goes_on(patient, *other)


def test_a_reply_without_an_action_is_an_empty_message(patient):
    answer, stream, v = patient.begin_value()
    stream.send(v.reply(1).message)
    assert answer.result() == response("")
    patient.quiet()


def test_a_reply_that_nobody_asked_for(patient):
    stream, v = works(patient, "v")
    stream.send(v.reply(1, response("again")).message)
    patient.rec.expect_report("Unexpected Value entity reply")
    stream.expect(Reset("proxy", CANCEL))
    works(patient, "v")


@pytest.mark.parametrize("half_of_a_message", [b"", b"\0\0\0", b"\0\0\0\1\0abc"])
def test_death_with_a_command_outstanding(patient, half_of_a_message):
    answer, stream, v = patient.begin_value()
    call_answer = patient.unary(ACT, "Unary", request())
    call = patient.call_of("handleUnary")
    call.expect(patient.act.first("Unary", request()), HalfClose())
    if half_of_a_message:
        stream.send_bytes(half_of_a_message)
        call.send_bytes(half_of_a_message)
    stream.drop()
    patient.rec.forgive(lambda r: isinstance(r, Broken))
    patient.failed(answer, "UNKNOWN", "Unexpected Value entity termination")
    patient.failed(call_answer, "UNAVAILABLE")
    patient.rec.expect_discovery()
    works(patient, "v")
    patient.quiet()


def test_death_while_the_update_is_being_kept(lab):
    journal = PlayedJournal()
    try:
        stage = Kinds(lab, journal=journal)
        journal.hold = True
        answer, stream, v = stage.begin_value()
        stream.send(v.reply(1, response("ok"), update=state("kept")).message)
        append = journal.next_append()
        stream.drop()
        stage.rec.forgive(lambda r: isinstance(r, Broken))
        stage.rec.expect_discovery()
        journal.accept(append)
        assert answer.result() == response("ok")
        journal.hold = False
        answer, stream, v = stage.begin_value(value=state("kept"))
        stream.send(v.reply(1, response("ok")).message)
        assert answer.result() == response("ok")
    finally:
        stage.proxy.terminate()
        journal.stop()


def test_death_in_the_middle_of_a_stream(patient):
    replies, stream = begin_out(patient)
    stream.send(patient.act.reply(response("1")).message)
    assert next(replies) == response("1")
    stream.drop()
    patient.rec.forgive(lambda r: isinstance(r, Broken))
    failed(replies, "UNAVAILABLE")


def test_many_small_answers(patient):
    """A stream of ten thousand is passed on whole."""
    replies, stream = begin_out(patient, timeout=120)
    messages = b"".join(b"\0" + len(m).to_bytes(4, "big") + m for m in (
        patient.act.reply(response(str(i))).message.SerializeToString() for i in range(10000)))
    stream.send(patient.act.reply(response("first")).message)
    stream.send_bytes(messages)
    stream.end(0)
    assert [r.message for r in replies] == ["first"] + [str(i) for i in range(10000)]


def test_an_update_of_every_reply_without_an_end(patient):
    """A function that answers with a garbage status in mid-stream, and one that resets."""
    replies, stream = begin_out(patient)
    stream.reset(2)
    with_code = failed(replies, "INTERNAL")
    assert with_code is not None
    replies, stream = begin_out(patient)
    stream.end(77, "no such code")
    failed(replies, "UNKNOWN")
    replies, stream = begin_out(patient)
    stream.end(0)
    over(replies)
    patient.rec.forgive(lambda r: isinstance(r, (Reset, End)))
