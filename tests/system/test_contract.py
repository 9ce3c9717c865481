"""Sentences of the contract that the other files do not pin: what is asked of a function that does not hold
its connections, what reflection says of the proxy itself, faults as HTTP shows them, sizes, ids, keys."""

import collections
import http.client
import socket
import subprocess
import threading
import time

import pytest
from google.protobuf import any_pb2

import harness
import model
import protos
import tools
from entity import effect
from model import happened, request, response
from recorder import CANCEL, DISCOVER, PATIENCE
from records import HalfClose, Reset, ToFunction
from reflection import Reflection
from stage import Stage


@pytest.fixture
def stage(lab):
    return Stage(lab)


def answered(stage, entity_id):
    """Another entity's command has come and gone: what clients sent before it has arrived."""
    answer, stream, e = stage.begin(entity_id)
    stream.send(e.reply(1, response("")).message)
    answer.result()


# --- section 1: discovery --------------------------------------------------------------------

def test_a_function_that_loses_every_connection_is_asked_with_pauses(lab):
    rec = lab.recorder(spec=None)
    lab.proxy(rec, lab.cairnd("memory"), wait=False)
    times = []
    for _ in range(5):
        asked = rec.stream(DISCOVER)
        times.append(asked.opened.at)
        rec.drop()
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert sum(pauses) >= 0.8 * (0.1 + 0.2 + 0.4 + 0.8), pauses
    assert max(pauses) <= 3, pauses
    rec.spec = model.spec()
    rec.stream(DISCOVER, timeout=3)


def test_the_function_is_found_soon_after_it_is_there(lab):
    """Section 9: at most 2 s between attempts, however long it was away."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # takes connections, and closes them at once
        port, times = nobody.getsockname()[1], []
        proxy = lab.proxy(Function(port), lab.cairnd("memory"), wait=False)
        nobody.settimeout(5)
        while len(times) < 7:
            nobody.accept()[0].close()
            times.append(time.monotonic())
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert max(pauses) <= 2.9 and sum(pauses) >= 0.8 * (0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 2), pauses
    rec = lab.recorder(spec=model.spec(), port=port)
    rec.expect_discovery(timeout=3)
    harness.eventually(lambda: harness.status_of(proxy.port, "/") == 404, "it answers", timeout=3)
    rec.nothing_more()


Function = collections.namedtuple("Function", "port")


def test_three_variables_are_enough(lab):
    """As the compatibility kit starts it; no port but the function's and its own, no journal to be had."""
    rec, port = lab.recorder(spec=model.spec()), harness.free_port()
    proxy = lab.run("bare", [tools.program("cairn-proxy")], {
        "HTTP_PORT": str(port), "USER_FUNCTION_HOST": "127.0.0.1", "USER_FUNCTION_PORT": str(rec.port)},
        kind=harness.Program)
    rec.expect_discovery(timeout=3)
    proxy.wait_ready(lambda: harness.status_of(port, "/") == 404, "answers GET /")
    answer = harness.http_request(port, "GET", "/", headers={"K-Network-Probe": "queue"})
    assert (answer.status, answer.body) == (200, b"queue")
    rec.nothing_more()


def test_a_goaway_and_the_same_spec_leave_everything_as_it_was(lab):
    stage = Stage(lab)
    answer, stream, e = stage.begin("old")
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.rec.goaway()
    stage.quiet()  # nothing until it is needed
    answered(stage, "new")
    stage.rec.expect_discovery()
    assert stage.command(stream, e, 2, "still", e.reply(2, response("there"))) == response("there")
    answered(stage, "newer")
    stage.quiet()


@pytest.mark.parametrize("changed", [
    dict(change_files=lambda files: model.file_of(files).message_type[0].field.add(
        name="more", number=9, label=1, type=9, json_name="more")),
    dict(passivate_ms=50000)], ids=["descriptors", "passivation"])
def test_entities_of_a_service_that_changed_are_passivated(lab, changed):
    stage = Stage(lab)
    answer, stream, e = stage.begin("idle")
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    stage.rec.spec = model.spec(**changed)
    stage.rec.goaway()
    answered(stage, "new")
    stage.rec.expect_discovery()
    stage.ended(stream)
    answer, stream, e = stage.begin("idle", expect=(e.init(), e.event(1, happened("1"))))
    stream.send(e.reply(1, response("")).message)
    answer.result()


def options_of(rule):
    """A change of the spec: the bytes of the options of Request.id."""
    def change(files):
        model.file_of(files).message_type[0].field[0].options.ParseFromString(rule)
    return dict(change_files=change)


KEY, LEGACY = b"\xc0\x43", b"\x90\xb5\x18"  # the tags of 1080 and 50002, as varints


@pytest.mark.parametrize("options", [KEY + b"\x01", LEGACY + b"\x01", KEY + b"\x00" + KEY + b"\x01",
                                     b"\x10\x01" + LEGACY + b"\x01" + b"\x18\x00",
                                     KEY + b"\x00" + LEGACY + b"\x01"],
                         ids=["present", "legacy", "twice", "among others", "one of two"])
def test_the_entity_key_however_its_option_is_written(lab, options):
    stage = Stage(lab, model.spec(**options_of(options)))
    answered(stage, "e")
    stage.quiet()


@pytest.mark.parametrize("options", [b"", KEY + b"\x00", KEY + b"\x01" + KEY + b"\x00"],
                         ids=["none", "false", "taken back"])
def test_a_key_option_that_is_off_is_none(lab, options):
    rec = lab.recorder(spec=model.spec(**options_of(options)))
    lab.proxy(rec, harness.free_port(), wait=False)
    rec.expect_discovery()
    rec.expect_report("entity key")
    rec.nothing_more()


# --- section 2: reflection, paths, status -----------------------------------------------------

@pytest.mark.parametrize("symbol, name", [
    ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1alpha"),
    ("grpc.reflection.v1.ServerReflection.ServerReflectionInfo", "grpc.reflection.v1"),
    ("grpc.health.v1.Health", "grpc.health.v1")])
def test_reflection_knows_the_proxys_own_services(stage, symbol, name):
    first = Reflection(stage.channel).files(file_containing_symbol=symbol)[0]
    assert first.package == name
    assert Reflection(stage.channel).files(file_by_filename=first.name)[0].package == name


@pytest.mark.parametrize("symbol", [
    "cairn.test.Request", "cairn.test.Model", "cairn.test.Model.Process", "cairn.test.Request.id",
    "cloudstate.entity_key", "google.protobuf.FieldDescriptorProto.Type"])
def test_every_kind_of_symbol_is_found_with_dependencies_behind_it(stage, symbol):
    files = Reflection(stage.channel).files(file_containing_symbol=symbol)
    names = [f.name for f in files]
    assert len(set(names)) == len(names)
    wanted, todo = set(), [names[0]]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += [f for file in files if file.name == name for f in file.dependency]
    assert set(names) == wanted


@pytest.mark.parametrize("text", ["", "*", "cairn.test.Model"])
def test_services_are_listed_whatever_is_asked(stage, text):
    answer, = Reflection(stage.channel).ask({"host": "h", "list_services": text})
    assert [s.name for s in answer.list_services_response.service] == [
        "grpc.reflection.v1alpha.ServerReflection", model.MODEL, model.NUMBERED, model.TWO]
    assert (answer.valid_host, answer.original_request.list_services) == ("h", text)
    assert answer.original_request.host == "h"


def test_an_unknown_grpc_path_is_unimplemented_with_http_200(stage):
    """grpcio reads a 404 as UNIMPLEMENTED too, so this looks at the HTTP/2 itself."""
    def status(path, kind):
        return subprocess.run(
            ["curl", "-s", "--max-time", "20", "--http2-prior-knowledge", "-D", "-", "-o", "/dev/null", "-X",
             "POST", "-H", "content-type: " + kind, "-H", "te: trailers", "--data-binary", "",
             "http://127.0.0.1:%d%s" % (stage.proxy.port, path)],
            capture_output=True, text=True, check=True).stdout.lower().replace("\r", "")
    for path in ("/no.Such/Method", "/cairn.test.Model/Nope", "/"):
        for kind in ("application/grpc", "application/grpc+proto"):
            answer = status(path, kind)
            assert answer.startswith("http/2 200"), answer
            assert "grpc-status: 12\n" in answer, answer
            assert "content-type: application/grpc" in answer, answer
        assert status(path, "application/json").startswith("http/2 404")


@pytest.mark.parametrize("value, status", [("queue", 200), ("x" * 300, 400)],
                         ids=["queue", "other"])
def test_a_probe_is_answered_before_any_route_and_the_connection_goes_on(stage, value, status):
    connection = http.client.HTTPConnection("127.0.0.1", stage.proxy.port, timeout=20)
    try:
        for path in ("/model/e/process", "/cairn.test.Two/Call", "/"):
            connection.request("POST", path, b'{"text": "never run"}', {
                "K-Network-Probe": value, "Content-Type": "application/json"})
            answer = connection.getresponse()
            text = value if status == 200 else "unexpected probe header value: " + value
            assert (answer.status, answer.read().decode()) == (status, text)
        connection.request("GET", "/")
        assert connection.getresponse().status == 404
    finally:
        connection.close()
    stage.quiet()


def test_messages_of_12_mib_are_taken_and_larger_ones_are_not(stage):
    limit = 12 << 20
    answer, stream, e = stage.begin()
    whole = limit - len(e.reply(1, response("")).message.SerializeToString()) - 32
    stream.send(e.reply(1, response("x" * whole)).message)
    assert len(answer.result().message) == whole
    other, view, o = stage.begin("other")
    view.send(o.reply(1, response("x" * limit)).message)
    text = stage.failed(other, "RESOURCE_EXHAUSTED")
    assert text.startswith("cairn.test.Model.Process, entity [other]: the function's reply is not taken"), text
    stage.rec.expect_report("entity .other.: the function's reply is not taken")
    assert stage.command(stream, e, 2, "still there", e.reply(2, response("ok"))) == response("ok")


def post(stage, path="/model/e/process", body='{"text": "go"}'):
    """A command by HTTP, in the background; call the result for the answer."""
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(harness.http_request(stage.proxy.port, "POST", path, body)))
    thread.start()

    def wait():
        thread.join()
        return answers[0]
    return wait


@pytest.mark.parametrize("misbehave, text, report", [
    (lambda s, e: s.send(e.failure(1, "secret").message), b"Unexpected entity failure", "secret"),
    (lambda s, e: s.send(b""), b"Unexpected entity message", "message"),
    (lambda s, e: s.send(e.refusal(1, "").message), b"", None)],
    ids=["failure", "empty message", "empty description"])
def test_a_fault_by_http(stage, misbehave, text, report):
    answer = post(stage)
    e = stage.entity("e")
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", request("e", "go")))
    misbehave(stream, e)
    got = answer()
    assert (got.status, got.body) == (500, text)
    assert got.headers["content-type"] == "text/plain; charset=UTF-8"
    if report:
        stage.rec.expect_report(report)


def test_an_unknown_forward_by_http_is_one_line(stage):
    answer = post(stage)
    e = stage.entity("e")
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", request("e", "go")))
    stream.send(e.forward(1, "nobody.Here", "Call", request("x")).message)
    got = answer()
    assert (got.status, got.body) == (500, b"Service [nobody.Here] unknown")
    assert got.headers["content-type"].startswith("text/plain")
    stage.rec.expect_report("unknown")


def test_an_http_client_that_leaves_withdraws_what_waits(stage):
    answer, stream, e = stage.begin()
    leaving = subprocess.Popen(
        ["curl", "-s", "-X", "POST", "-H", "content-type: application/json", "-d", '{"text": "left"}',
         "http://127.0.0.1:%d/model/e/process" % stage.proxy.port], stdout=subprocess.DEVNULL)

    def commands():
        text = harness.http_request(stage.proxy.metrics, "GET", "/metrics").body.decode()
        return [int(line.split()[-1]) for line in text.splitlines()
                if line.startswith('cairn_proxy_commands_waiting{service="cairn.test.Model",')]
    harness.eventually(lambda: commands() == [2], "it waits")
    leaving.kill()
    leaving.wait(PATIENCE)
    harness.eventually(lambda: commands() == [1], "it is withdrawn")
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.quiet()


# --- section 3 ---------------------------------------------------------------------------------

def test_messages_to_the_function_are_exactly_these_bytes(stage):
    """As another encoder would write them: no field that is not set, nothing unknown, an Any of an empty
    message without value."""
    call = stage.channel.unary_unary("/cairn.test.Model/Process", None, None).future(
        b"", timeout=20, metadata=[("x-trace", "1"), ("traceparent", "00-0-0-01")])
    stream = stage.rec.stream()
    init, command = stream.next(ToFunction), stream.next(ToFunction)
    assert init.SerializeToString() == b"\x0a\x12\x0a\x10cairn.test.Model"
    assert command.command.payload.type_url == "type.googleapis.com/cairn.test.Request"
    assert command == protos.event_sourced.EventSourcedStreamIn(command=protos.cloudstate.Command(
        id=1, name="Process", payload=any_pb2.Any(type_url="type.googleapis.com/cairn.test.Request")))
    assert {name for name, _ in stream.opened.headers} <= {
        ":method", ":scheme", ":path", ":authority", "te", "content-type", "user-agent",
        "grpc-accept-encoding", "grpc-encoding"}
    e = stage.entity("")
    stream.send(e.reply(1, response(""), events=[happened("")]).message)
    assert call.result() == b""
    stage.quiet()


def test_a_request_of_the_type_any_is_wrapped(stage):
    body = model.pb.WithAny(id="e", any=any_pb2.Any(type_url="x/y", value=b"z")).SerializeToString()
    call = stage.channel.unary_unary("/cairn.test.Two/Wrap", None, None).future(body, timeout=20)
    two = stage.entity("e", model.TWO)
    stream = stage.rec.entity(two)
    stream.expect(two.init(), two.command(1, "Wrap", any_pb2.Any(
        type_url="type.googleapis.com/cairn.test.WithAny", value=body)))
    inner = any_pb2.Any(type_url="a/b", value=b"c")
    stream.send(two.reply(1, inner_any(inner)).message)
    assert call.result() == inner.SerializeToString()
    stage.quiet()


def inner_any(inner):
    return any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Any", value=inner.SerializeToString())


def test_messages_of_a_closing_stream_mean_nothing(stage):
    """After the half-close of a restart the function may still write; it is neither answered nor reported."""
    answer, stream, e = stage.begin()
    stream.send(e.refusal(1, "dirty", restart=True).message)
    stage.failed(answer, "UNKNOWN", "dirty")
    stream.expect(HalfClose())
    stream.send(e.reply(2, response("late"), events=[happened("late")]).message)
    stream.send(e.failure(0, "late too").message)
    stage.quiet()
    stream.end(10, "aborted")  # how it ends makes no difference
    again = stage.rec.entity(e)
    again.expect(e.init())
    stage.quiet()


def test_a_restart_keeps_the_order_of_several_that_wait(stage):
    answer, stream, e = stage.begin()
    waiting = []
    for i in range(4):
        waiting.append(stage.send(request("e", str(i))))
        answered(stage, "probe-%d" % i)
    stream.send(e.refusal(1, "dirty", restart=True).message)
    stage.failed(answer, "UNKNOWN", "dirty")
    stage.ended(stream)
    stream = stage.rec.entity(e)
    stream.expect(e.init())
    for i, future in enumerate(waiting, 1):
        stream.expect(e.command(i, "Process", request("e", str(i - 1))))
        stream.send(e.reply(i, response(str(i))).message)
        assert future.result() == response(str(i))
    stage.quiet()


def test_a_reply_for_another_command_is_reset(stage):
    answer, stream, e = stage.begin()
    stream.send(e.reply(5, response("")).message)
    stage.failed(answer, "UNKNOWN", "Unexpected entity reply")
    stream.expect(Reset("proxy", CANCEL))
    stage.rec.expect_report("Unexpected entity reply")
    stage.quiet()


def test_an_event_without_a_type_is_refused(stage):
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[any_pb2.Any(value=b"x")]).message)
    assert "event 1" in stage.failed(answer, "RESOURCE_EXHAUSTED")
    stage.ended(stream)
    stage.rec.entity(e).expect(e.init())


@pytest.mark.parametrize("body", [b"\x0a\x01\xff", b"\x0a\x05e", b"\xff\xff"],
                         ids=["no UTF-8", "cut", "garbage"])
def test_a_request_without_a_legible_key_never_reaches_the_function(stage, body):
    call = stage.channel.unary_unary("/cairn.test.Model/Process", None, None)
    assert harness.refused(call, body, timeout=20)[0] == "INVALID_ARGUMENT"
    stage.quiet()


def test_a_long_description_is_reported_as_legal_text(stage):
    """A report is a protobuf string: cut in the middle of a character it would be refused."""
    answer, stream, e = stage.begin()
    stream.send(e.failure(1, "x" + "ä" * 5000).message)
    stage.failed(answer, "UNKNOWN", "Unexpected entity failure")
    stage.rec.expect_report("Unexpected entity failure: xää")
    stage.ended(stream)
    stage.quiet()


# --- section 6 -----------------------------------------------------------------------------------

def test_a_trace_names_every_hop_the_newest_first(stage):
    answer, stream, e = stage.begin()
    pair = model.pb.Pair(first="x", second="y")
    stream.send(e.forward(1, model.TWO, "Call", pair).message)
    two = stage.entity("x-y", model.TWO)
    other = stage.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", pair))
    other.send(two.reply(1, response("ok"), effects=[effect(model.MODEL, "Look", request("z"))]).message)
    assert answer.result() == response("ok")
    z = stage.entity("z")
    third = stage.rec.entity(z)
    third.expect(z.init(), z.command(1, "Look", request("z")))
    third.send(z.forward(1, model.TWO, "Nope", pair).message)
    assert stage.rec.expect_report("Nope") == (
        "Service [cairn.test.Two] does not have a command named: [Nope]\n"
        "  forwarded from cairn.test.Model.Look\n"
        "  side-effect of cairn.test.Two.Call\n"
        "  forwarded from cairn.test.Model.Process")
    stage.quiet()


def test_a_forward_to_an_active_entity_uses_its_stream(stage):
    answer, stream, e = stage.begin("target")
    stream.send(e.reply(1, response("")).message)
    answer.result()
    answer, source, s = stage.begin("source")
    source.send(s.forward(1, model.MODEL, "Look", request("target", "f")).message)
    stream.expect(e.command(2, "Look", request("target", "f")))
    stream.send(e.reply(2, response("there")).message)
    assert answer.result() == response("there")
    stage.quiet()


def test_a_forwards_reply_is_held_against_the_method_that_was_called(stage):
    answer, stream, e = stage.begin()
    body = model.pb.WithAny(id="e")
    stream.send(e.forward(1, model.TWO, "Wrap", body).message)
    two = stage.entity("e", model.TWO)
    other = stage.rec.entity(two)
    other.expect(two.init(), two.command(1, "Wrap", body))
    other.send(two.reply(1, response("fits Process")).message)  # not Wrap's output, but what was called has
    assert answer.result() == response("fits Process")
    stage.quiet()


# --- the function's connections ------------------------------------------------------------------

def test_one_of_several_connections_may_break(lab):
    """The function is gone when the last one is: its entities come back by another, and nobody asks again what
    it serves."""
    stage = Stage(lab, max_streams=2)
    streams = {}
    for i in range(6):
        answer, stream, e = stage.begin("e%d" % i)
        stream.send(e.reply(1, response(""), events=[happened("1")]).message)
        answer.result()
        streams[e.entity_id] = stream
    assert len({s.connection.number for s in streams.values()}) == 3
    broken = streams["e0"].connection
    lost = [name for name, s in streams.items() if s.connection is broken]
    for name in lost:
        streams[name].drop()
    for name in lost:
        e = stage.entity(name)
        answer, stream, e = stage.begin(name, expect=(e.init(), e.event(1, happened("1"))))
        stream.send(e.reply(1, response("back")).message)
        assert answer.result() == response("back")
    stage.quiet()


def test_a_function_that_takes_one_stream_a_connection(lab):
    stage = Stage(lab, max_streams=1)
    answer, stream, e = stage.begin()
    other_answer, other, o = stage.begin("other")
    stream.send(e.reply(1, model.pb.State(all="x")).message)  # a report needs a stream of its own
    assert answer.result() == response("x")
    stage.rec.expect_report("cairn.test.State")
    other.send(o.forward(1, model.MODEL, "Look", request("e", "f")).message)
    stream.expect(e.command(2, "Look", request("e", "f")))
    stream.send(e.reply(2, response("looked")).message)
    assert other_answer.result() == response("looked")
    stage.quiet()


def test_a_function_may_bring_the_descriptors_of_the_proxys_own_services(lab):
    probe = Stage(lab)
    own = Reflection(probe.channel).files(file_containing_symbol="grpc.health.v1.Health")[0]

    def change(files):
        file = files.file.add()
        file.CopyFrom(own)
        file.name = "health.proto"  # by another name, as some toolchains do
        del file.message_type[0].field[:]
    stage = Stage(lab, model.spec(change_files=change))
    assert Reflection(stage.channel).files(file_containing_symbol="grpc.health.v1.Health")[0].name \
        == "health.proto"
    answered(stage, "e")
    stage.quiet()
