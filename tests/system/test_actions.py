"""Actions of all four streaming kinds, and forwards and effects across kinds: the contract's sections 5 and 6. The
test plays the function."""

import concurrent.futures

import grpc
import pytest

import harness
import kinds
from entity import effect, metadata
from kinds import ACT, ACT_TWO, EVENTS, VALUE, VALUE_TWO, Kinds, request, response, state
from recorder import CANCEL, PATIENCE
from records import Broken, HalfClose, Reset


@pytest.fixture
def stage(lab):
    return Kinds(lab)


def failed(iterator, code, details=None):
    """What an iterator over replies ends with."""
    with pytest.raises(grpc.RpcError) as error:
        next(iterator)
    assert error.value.code().name == code, (error.value.code(), error.value.details())
    if details is not None:
        assert error.value.details() == details
    return error.value.details()


def over(iterator):
    assert next(iterator, None) is None


def begin_out(stage, **how):
    replies = stage.out(**how)
    stream = stage.call_of("handleStreamedOut")
    stream.expect(stage.act.first("Out", request()), HalfClose())
    return replies, stream


def begin_both(stage):
    client = stage.both()
    stream = stage.call_of("handleStreamed")
    stream.expect(stage.act.first("Both"))
    return client, stream


# --- unary --------------------------------------------------------------------------------------------

def test_a_unary_call_is_one_message_each_way(stage):
    answer = stage.unary(ACT, "Unary", request("a", "b"))
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request("a", "b")))
    stage.answer_unary(stream, stage.act.reply(response("ok")))
    assert answer.result() == response("ok")
    stage.quiet()


def test_nothing_set_and_no_message_are_an_empty_reply(stage):
    for messages in ([stage.act.reply()], []):
        answer = stage.unary(ACT, "Unary", request())
        stream = stage.call_of("handleUnary")
        stream.expect(stage.act.first("Unary", request()))
        stage.answer_unary(stream, *messages)
        assert answer.result() == response()
    stage.quiet()


def test_a_failure_and_a_status_of_the_function_are_the_clients(stage):
    for messages, code, text, got, details in (
            ([stage.act.refusal("no")], 0, "", "UNKNOWN", "no"),
            ([stage.act.refusal("")], 0, "", "UNKNOWN", ""),
            ([], 9, "not so", "FAILED_PRECONDITION", "not so"),
            ([stage.act.reply(response("never"))], 13, "late", "INTERNAL", "late")):
        answer = stage.unary(ACT, "Unary", request())
        stream = stage.call_of("handleUnary")
        stream.expect(stage.act.first("Unary", request()))
        stage.answer_unary(stream, *messages, code=code, text=text)
        stage.failed(answer, got, details)
    stage.quiet()


def test_headers_become_metadata_and_metadata_headers(stage):
    answer = stage.unary(ACT, "Unary", request(), metadata=[
        ("x-one", "1"), ("x-two-bin", b"\0\xff"), ("x-one", "2")])
    stream = stage.call_of("handleUnary")
    first = stage.act.first("Unary", request()).message
    for key, value in (("x-one", "1"), ("x-two-bin", b"\0\xff"), ("x-one", "2")):
        entry = first.metadata.entries.add(key=key)
        if isinstance(value, bytes):
            entry.bytes_value = value
        else:
            entry.string_value = value
    seen = stream.next()
    entries = [e for e in seen.metadata.entries if e.key != "user-agent"]
    del seen.metadata.entries[:]
    seen.metadata.entries.extend(entries)
    assert seen == first
    stage.answer_unary(stream, stage.act.reply(response("ok"), meta=metadata(x_three="3", y_bin=b"\1")))
    assert answer.result() == response("ok")
    assert [(k, v) for k, v in answer.initial_metadata()] == [("x-three", "3"), ("y-bin", b"\1")]
    stage.quiet()


def test_echoed_metadata_counts_as_none(stage):
    answer = stage.unary(ACT, "Unary", request(), metadata=[("x-one", "1")])
    stream = stage.call_of("handleUnary")
    seen = stream.next()
    stage.answer_unary(stream, stage.act.reply(response("ok"), meta=seen.metadata))
    assert answer.result() == response("ok")
    assert not answer.initial_metadata()


def test_entities_get_no_metadata(stage):
    answer = stage.unary(VALUE, "Process", request("v"), metadata=[("x-one", "1")])
    v = stage.value()
    stream = stage.rec.entity(v)
    stream.expect(v.init(), v.command(1, "Process", request("v")))
    stream.send(v.reply(1, response("ok")).message)
    assert answer.result() == response("ok")


def test_the_deadline_is_passed_on(stage):
    answer = stage.unary(ACT, "Unary", request(), timeout=30)
    stream = stage.call_of("handleUnary")
    value, = stream.opened.header("grpc-timeout")
    scale = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[value[-1]]
    assert 0 < int(value[:-1]) * scale <= 31  # grpcio rounds up, to three digits
    stream.next()
    stage.answer_unary(stream, stage.act.reply(response("ok")))
    assert answer.result() == response("ok")
    client = stage.stream_in(timeout=30)
    assert not stage.call_of("handleStreamedIn").opened.header("grpc-timeout")
    client.call.cancel()


def test_a_client_that_leaves_cancels_the_call(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()), HalfClose())
    answer.cancel()
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_a_function_that_does_not_answer_is_given_up(lab):
    stage = Kinds(lab, options=["--command-timeout", "300ms"])
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()), HalfClose())
    stage.failed(answer, "DEADLINE_EXCEEDED")
    stream.expect(Reset("proxy", CANCEL))
    client = stage.stream_in()
    stream = stage.call_of("handleStreamedIn")
    stream.expect(stage.act.first("In"))
    client.done()
    stream.expect(HalfClose())
    stage.failed(client.call, "DEADLINE_EXCEEDED")
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_garbage_and_two_responses_are_reported(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()), HalfClose())
    stream.send_bytes(b"\0\0\0\0\x03\xff\xff\xff")
    stage.rec.forgive(lambda r: "undecodable" in repr(r))
    stage.failed(answer, "INTERNAL")
    stage.rec.expect_report("action cairn.kinds.Act.Unary: malformed")
    stream.expect(Reset("proxy", CANCEL))
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()), HalfClose())
    stream.send(stage.act.reply(response("1")).message, stage.act.reply(response("2")).message)
    stage.failed(answer, "INTERNAL")
    stage.rec.expect_report("second response")
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_a_function_that_is_gone_is_unavailable(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()), HalfClose())
    stage.rec.unlisten()
    stream.drop()
    stage.rec.forgive(lambda r: isinstance(r, Broken))
    stage.failed(answer, "UNAVAILABLE")
    stage.failed(stage.unary(ACT, "Unary", request()), "UNAVAILABLE")


# --- streamed in -----------------------------------------------------------------------------------------

def test_the_call_opens_with_the_clients_headers(stage):
    client = stage.stream_in(metadata=[("x-one", "1")])
    stream = stage.call_of("handleStreamedIn")
    first = stream.next()
    assert (first.service_name, first.name, first.HasField("payload")) == (ACT, "In", False)
    assert [(e.key, e.string_value) for e in first.metadata.entries if e.key == "x-one"] == [("x-one", "1")]
    stage.quiet()
    client.put(request("1"))
    stream.expect(stage.act.element(request("1")))
    client.put(request("2"))
    stream.expect(stage.act.element(request("2")))
    stage.quiet()
    client.done()
    stage.answer_unary(stream, stage.act.reply(response("ok")))
    assert client.call.result() == response("ok")
    stage.quiet()


def test_a_client_without_a_message_gives_the_first_one_and_the_half_close(stage):
    client = stage.stream_in()
    client.done()
    stream = stage.call_of("handleStreamedIn")
    stream.expect(stage.act.first("In"))
    stage.answer_unary(stream)
    assert client.call.result() == response()
    stage.quiet()


def test_the_function_may_answer_before_the_client_is_done(stage):
    client = stage.stream_in()
    stream = stage.call_of("handleStreamedIn")
    stream.expect(stage.act.first("In"))
    client.put(request("1"))
    stream.expect(stage.act.element(request("1")))
    stream.send(stage.act.reply(response("enough")).message)
    stream.end(0)
    assert client.call.result() == response("enough")
    stage.rec.forgive(lambda r: r.stream == stream.number and isinstance(r, (Reset, HalfClose)))


def test_a_failure_of_a_streamed_call_cancels_it(stage):
    client = stage.stream_in()
    stream = stage.call_of("handleStreamedIn")
    stream.expect(stage.act.first("In"))
    stream.send(stage.act.refusal("no").message)
    stage.failed(client.call, "UNKNOWN", "no")
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_a_cancelled_input_cancels_the_call(stage):
    client = stage.stream_in()
    stream = stage.call_of("handleStreamedIn")
    stream.expect(stage.act.first("In"))
    client.call.cancel()
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


# --- streamed out ----------------------------------------------------------------------------------------

def test_answers_come_as_they_come(stage):
    replies, stream = begin_out(stage)
    for i in range(5):
        stream.send(stage.act.reply(response(str(i))).message)
        assert next(replies) == response(str(i))
    stream.send(stage.act.reply().message)  # nothing set: nothing
    stream.send(stage.act.reply(response("last"), meta=metadata(x_late="dropped")).message)
    assert next(replies) == response("last")
    stream.end(0)
    over(replies)
    assert not replies.initial_metadata()
    stage.quiet()


def test_metadata_of_the_first_reply_are_headers(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.reply(response("1"), meta=metadata(x_one="1")).message)
    assert next(replies) == response("1")
    assert [tuple(m) for m in replies.initial_metadata()] == [("x-one", "1")]
    stream.end(0)
    over(replies)


def test_an_empty_stream_is_well(stage):
    replies, stream = begin_out(stage)
    stream.end(0)
    over(replies)
    stage.quiet()


def test_a_failure_ends_the_stream_and_later_answers_are_dropped(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.reply(response("1")).message, stage.act.refusal("no").message,
                stage.act.reply(response("never")).message)
    assert next(replies) == response("1")
    failed(replies, "UNKNOWN", "no")
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_a_status_in_mid_stream_is_the_clients(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.reply(response("1")).message)
    assert next(replies) == response("1")
    stream.end(10, "aborted here")
    failed(replies, "ABORTED", "aborted here")
    stage.quiet()


def test_a_cancelled_stream_cancels_the_call(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.reply(response("1")).message)
    assert next(replies) == response("1")
    replies.cancel()
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_a_stream_is_not_bound_to_the_command_timeout(lab):
    stage = Kinds(lab, options=["--command-timeout", "200ms"])
    replies, stream = begin_out(stage)
    other = stage.unary(ACT, "Unary", request())  # which is: so its end says that the time has passed
    call = stage.call_of("handleUnary")
    call.expect(stage.act.first("Unary", request()), HalfClose())
    stage.failed(other, "DEADLINE_EXCEEDED")
    call.expect(Reset("proxy", CANCEL))
    stream.send(stage.act.reply(response("late")).message)
    assert next(replies) == response("late")
    stream.end(0)
    over(replies)


def test_a_client_that_does_not_read_holds_the_function_back(stage):
    """The function can send no more than windows and limits let it, and all of it arrives in order."""
    channel = harness.channel_to(stage.proxy.port, **{"grpc.http2.bdp_probe": 0})
    call = channel.unary_stream("/%s/Out" % ACT, kinds.pb.Request.SerializeToString,
                                kinds.pb.Response.FromString)
    replies = call(request(), timeout=60)
    stream = stage.call_of("handleStreamedOut")
    stream.expect(stage.act.first("Out", request()), HalfClose())
    text = "x" * (1 << 20)
    for i in range(40):
        stream.send(stage.act.reply(response("%d %s" % (i, text))).message)
    stream.end(0)
    for i in range(40):
        assert next(replies).message == "%d %s" % (i, text)
    over(replies)
    stage.quiet()


# --- streamed -----------------------------------------------------------------------------------------------

def test_both_ways_each_message_when_it_arrives(stage):
    client, stream = begin_both(stage)
    stream.send(stage.act.reply(response("unasked")).message)
    assert next(client.call) == response("unasked")
    for i in range(3):
        client.put(request(str(i)))
        stream.expect(stage.act.element(request(str(i))))
        stream.send(stage.act.reply(response(str(i))).message)
        assert next(client.call) == response(str(i))
    client.done()
    stream.expect(HalfClose())
    stream.send(stage.act.reply(response("end")).message)
    assert next(client.call) == response("end")
    stream.end(0)
    over(client.call)
    stage.quiet()


def test_a_failure_stops_the_clients_side_too(stage):
    client, stream = begin_both(stage)
    client.put(request("1"))
    stream.expect(stage.act.element(request("1")))
    stream.send(stage.act.refusal("no").message)
    failed(client.call, "UNKNOWN", "no")
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_many_messages_pass_through(stage):
    client, stream = begin_both(stage)
    for i in range(300):
        client.put(request(str(i), "x" * 4096))
    client.done()
    for i in range(300):
        stream.expect(stage.act.element(request(str(i), "x" * 4096)))
        stream.send(stage.act.reply(response(str(i))).message)
    stream.expect(HalfClose())
    stream.end(0)
    assert [r.message for r in client.call] == [str(i) for i in range(300)]
    stage.quiet()


# --- forwards and side effects, across kinds ---------------------------------------------------------------------

def answer_value(stage, entity_id, text, service=VALUE_TWO, name="Call", **how):
    v = stage.value(entity_id, service)
    stream = stage.rec.entity(v)
    stream.expect(v.init(), v.command(1, name, request(entity_id)))
    stream.send(v.reply(1, response(text), **how).message)
    return stream


def test_an_actions_forward_is_answered_by_its_target(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()))
    stage.answer_unary(stream, stage.act.forward(VALUE_TWO, "Call", request("t"), meta=metadata(x="1")))
    answer_value(stage, "t", "from the value")
    assert answer.result() == response("from the value")
    stage.quiet()


def test_a_forward_to_an_action_has_the_forwards_metadata_alone(stage):
    answer = stage.unary(ACT, "Unary", request(), metadata=[("x-first", "1")])
    stream = stage.call_of("handleUnary")
    stream.next()
    stage.answer_unary(stream, stage.act.forward(ACT_TWO, "Call", request("t"), meta=metadata(x="2")))
    two = stage.call_of("handleUnary")
    two.expect(stage.act_two.first("Call", request("t"), metadata(x="2")))
    stage.answer_unary(two, stage.act_two.reply(response("two")))
    assert answer.result() == response("two")
    stage.quiet()


def test_a_chain_through_every_kind(stage):
    """value -> action -> event sourced; effects on the way are done first."""
    answer, stream, v = stage.begin_value()
    stream.send(v.forward(1, ACT_TWO, "Call", request("e"), update=state("a")).message)
    call = stage.call_of("handleUnary")
    call.expect(stage.act_two.first("Call", request("e")))
    stage.answer_unary(call, stage.act_two.forward(EVENTS, "Process", request("e"), effects=[
        effect(VALUE_TWO, "Call", request("s"), synchronous=True)]))
    effect_stream = answer_value(stage, "s", "ignored")
    e = stage.events()
    last = stage.rec.entity(e)
    last.expect(e.init(), e.command(1, "Process", request("e")))
    last.send(e.reply(1, response("at last"), events=[state("happened")]).message)
    assert answer.result() == response("at last")
    assert effect_stream
    stage.quiet()


def test_effects_of_an_action_run_in_order_and_their_failures_do_not_matter(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()))
    stage.answer_unary(stream, stage.act.reply(response("ok"), effects=[
        effect(ACT_TWO, "Call", request("1"), synchronous=True),
        effect(ACT_TWO, "Call", request("2"), synchronous=True),
        effect(ACT_TWO, "Call", request("3"))]))
    one = stage.call_of("handleUnary")
    one.expect(stage.act_two.first("Call", request("1")), HalfClose())
    stage.quiet()
    assert not answer.done()
    one.send(stage.act_two.refusal("never mind").message)
    one.end(0)
    two = stage.call_of("handleUnary")
    two.expect(stage.act_two.first("Call", request("2")))
    stage.answer_unary(two, code=13)
    assert answer.result() == response("ok")  # before the third has ended
    three = stage.call_of("handleUnary")
    three.expect(stage.act_two.first("Call", request("3")))
    stage.answer_unary(three)
    stage.quiet()


def test_a_streams_answers_wait_for_the_effects_and_forwards_before_them(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.reply(response("1"), effects=[
        effect(ACT_TWO, "Call", request("e"), synchronous=True)]).message)
    stream.send(stage.act.forward(VALUE_TWO, "Call", request("t")).message)
    stream.send(stage.act.reply(effects=[effect(ACT_TWO, "Call", request("f"), synchronous=True)]).message)
    stream.send(stage.act.reply(response("3")).message)
    stream.end(0)
    one = stage.call_of("handleUnary")
    one.expect(stage.act_two.first("Call", request("e")), HalfClose())
    stage.quiet()
    one.end(0)
    assert next(replies) == response("1")
    answer_value(stage, "t", "2")
    assert next(replies) == response("2")
    two = stage.call_of("handleUnary")
    two.expect(stage.act_two.first("Call", request("f")), HalfClose())
    stage.quiet()
    two.end(0)
    assert next(replies) == response("3")
    over(replies)
    stage.quiet()


def test_a_streamed_call_takes_all_answers_of_any_target(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.forward(ACT_TWO, "Watch", request("w")).message)
    watch = stage.call_of("handleStreamedOut")
    watch.expect(stage.act_two.first("Watch", request("w")), HalfClose())
    watch.send(stage.act_two.reply(response("1")).message, stage.act_two.reply(response("2")).message)
    assert [next(replies).message, next(replies).message] == ["1", "2"]
    watch.end(0)
    stream.send(stage.act.reply(response("3")).message)
    assert next(replies) == response("3")
    stream.end(0)
    over(replies)
    stage.quiet()


def test_a_forwards_failure_ends_the_stream_and_cancels_the_first_call(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.forward(ACT_TWO, "Watch", request("w")).message)
    watch = stage.call_of("handleStreamedOut")
    watch.expect(stage.act_two.first("Watch", request("w")), HalfClose())
    watch.send(stage.act_two.refusal("no").message)
    failed(replies, "UNKNOWN", "no")
    watch.expect(Reset("proxy", CANCEL))
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_a_cancelled_stream_cancels_what_it_was_forwarded_to(stage):
    replies, stream = begin_out(stage)
    stream.send(stage.act.forward(ACT_TWO, "Watch", request("w")).message)
    watch = stage.call_of("handleStreamedOut")
    watch.expect(stage.act_two.first("Watch", request("w")), HalfClose())
    replies.cancel()
    watch.expect(Reset("proxy", CANCEL))
    stream.expect(Reset("proxy", CANCEL))
    stage.quiet()


def test_a_forward_to_a_streamed_input_is_one_message(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()))
    stage.answer_unary(stream, stage.act.forward(ACT_TWO, "Collect", request("c"), meta=metadata(x="1")))
    collect = stage.call_of("handleStreamedIn")
    collect.expect(stage.act_two.first("Collect", None, metadata(x="1")), stage.act_two.element(request("c")))
    stage.answer_unary(collect, stage.act_two.reply(response("collected")))
    assert answer.result() == response("collected")
    stage.quiet()


def test_a_unary_call_cannot_be_forwarded_to_a_stream(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()))
    stage.answer_unary(stream, stage.act.forward(ACT_TWO, "Watch", request("w")))
    stage.failed(answer, "INTERNAL")
    stage.rec.expect_report("streams its replies")
    stage.quiet()


def test_unknown_targets_are_reported_with_a_line_a_hop(stage):
    answer, stream, v = stage.begin_value()
    stream.send(v.forward(1, ACT_TWO, "Call", request("x")).message)
    call = stage.call_of("handleUnary")
    call.expect(stage.act_two.first("Call", request("x")))
    stage.answer_unary(call, stage.act_two.forward("nobody.Here", "Call", request("x")))
    stage.failed(answer, "INTERNAL", "Service [nobody.Here] unknown")
    assert stage.rec.expect_report(".") == ("Service [nobody.Here] unknown\n  forwarded from cairn.kinds.ActTwo.Call\n"
                                            "  forwarded from cairn.kinds.Value.Process")
    replies, stream = begin_out(stage)
    stream.send(stage.act.reply(response("ok"), effects=[
        effect(ACT_TWO, "Nope", request("x"), synchronous=True)]).message)
    assert next(replies) == response("ok")
    assert stage.rec.expect_report(".") == ("Service [cairn.kinds.ActTwo] does not have a command named: [Nope]\n"
                                            "  side-effect of cairn.kinds.Act.Out")
    stream.end(0)
    over(replies)
    stage.quiet()


def test_a_ring_of_forwards_ends_at_its_limit(stage):
    answer = stage.unary(ACT, "Unary", request("x"))
    for _ in range(33):
        stream = stage.call_of("handleUnary")
        stream.expect(stage.act.first("Unary", request("x")))
        stage.answer_unary(stream, stage.act.forward(ACT, "Unary", request("x")))
    details = stage.failed(answer, "INTERNAL")
    assert "32" in details
    stage.rec.expect_report("more than 32 forwards")
    stage.quiet()


def test_a_reply_of_another_type_is_sent_and_reported(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()))
    stage.answer_unary(stream, stage.act.reply(request("odd")))
    assert answer.result() == response("odd")  # the same bytes
    stage.rec.expect_report("which is not type.googleapis.com/cairn.kinds.Response")
    stage.quiet()


def test_actions_over_http(stage):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        future = pool.submit(harness.http_request, stage.proxy.port, "POST", "/act", '{"id":"","text":"t"}',
                             {"x-one": "1"})
        act_over_http(stage, future)


def act_over_http(stage, future):
    stream = stage.call_of("handleUnary")
    seen = stream.next()
    assert seen.payload.value == request("", "t").SerializeToString()
    assert [e.string_value for e in seen.metadata.entries if e.key == "x-one"] == ["1"]
    stage.answer_unary(stream, stage.act.reply(response("ok"), meta=seen.metadata))
    answer = future.result()
    assert (answer.status, answer.body) == (200, b'{"message":"ok"}')
    assert "x-one" not in answer.headers


def test_a_drain_waits_for_actions(stage):
    answer = stage.unary(ACT, "Unary", request())
    stream = stage.call_of("handleUnary")
    stream.expect(stage.act.first("Unary", request()))
    stage.proxy.process.terminate()
    stage.proxy.wait_text("drain|stopp")
    stage.answer_unary(stream, stage.act.reply(response("ok")))
    assert answer.result() == response("ok")
    assert stage.proxy.process.wait(30) == 0


def test_streams_without_an_end_do_not_hold_up_a_drain(lab):
    """One that was open, and one that opens meanwhile: they have three quarters of the time, the entities the rest."""
    stage = Kinds(lab, options=["--drain-timeout", "4s"])
    answers, first = begin_out(stage)
    answer, entity, v = stage.begin_value()
    entity.send(v.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.proxy.process.terminate()
    stage.proxy.wait_text("stopping")
    first.send(stage.act.forward(ACT_TWO, "Watch", request()).message)
    second = stage.call_of("handleStreamedOut")
    second.expect(stage.act_two.first("Watch", request()), HalfClose())
    second.send(stage.act_two.reply(response("on its way")).message)
    assert next(answers) == response("on its way")
    failed(answers, "UNAVAILABLE", "the proxy is being stopped")
    for call in (first, second):
        call.expect(Reset("proxy", CANCEL))
    entity.expect(HalfClose())
    entity.end(0)
    assert stage.proxy.process.wait(PATIENCE) == 0
    assert "not all calls" not in stage.proxy.text()
