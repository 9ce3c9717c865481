"""Server streaming over HTTP, and what HTTP makes of the other streaming kinds (contract, section 2), on HTTP/1.1 and
HTTP/2. The test plays the function, whose Act is an action; at the end the Go SDK's CRDTs are watched."""

import http.client
import json

import pytest

import harness
from crdt import Crdt
from kinds import ACT, Kinds, request, response
from recorder import CANCEL, CRDT_HANDLE, PATIENCE
from records import Broken, FromFunction, HalfClose, Reset, ToFunction
from test_crdt_go import MODEL, Functions, update
from test_grpc_wire import Wire

JSON = {"Content-Type": "application/json"}
PATH = "/%s/Out" % ACT
EVENTS = "text/event-stream"


@pytest.fixture
def stage(lab):
    return Kinds(lab)


class Http1:
    """A request whose answer is read piece by piece."""

    def __init__(self, stage, path=PATH, body="{}", **headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", stage.proxy.port, timeout=PATIENCE)
        self.connection.request("POST", path, body, {**JSON, **headers})
        self.answer = None

    def begin(self):
        """Its status and headers are there."""
        self.answer = self.connection.getresponse()
        return self

    def line(self):
        return self.answer.readline()

    def close(self):
        self.connection.close()
        if self.answer:
            self.answer.close()


def called(stage):
    stream = stage.call_of("handleStreamedOut")
    seen = stream.next()
    assert (seen.service_name, seen.name) == (ACT, "Out")
    stream.expect(HalfClose())
    return stream


def send(stage, stream, text):
    stream.send(stage.act.reply(response(text)).message)


def test_each_line_comes_as_its_message_does(stage):
    client = Http1(stage)
    stream = called(stage)
    send(stage, stream, "one")
    client.begin()
    assert client.answer.status == 200
    assert client.answer.getheader("content-type") == "application/json"
    assert client.line() == b'{"message":"one"}\n'  # before the function has sent the second
    send(stage, stream, "two\nlines")
    assert client.line() == b'{"message":"two\\nlines"}\n'
    stream.end(0)
    assert client.answer.read() == b""
    # The connection goes on.
    client.connection.request("POST", PATH, "{}", {**JSON, "Accept": "application/x-ndjson"})
    called(stage).end(0)
    client.begin()
    assert (client.answer.status, client.answer.read()) == (200, b"")
    assert client.answer.getheader("content-type") == "application/x-ndjson"
    client.close()
    stage.quiet()


def test_events(stage):
    client = Http1(stage, Accept=EVENTS)
    stream = called(stage)
    send(stage, stream, "one")
    client.begin()
    assert client.answer.getheader("content-type") == EVENTS
    assert [client.line(), client.line()] == [b'data: {"message":"one"}\n', b"\n"]
    stream.send(stage.act.refusal('no "more"').message)
    assert [client.line(), client.line()] == [b"event: error\n", b'data: {"code":2,"message":"no \\"more\\""}\n']
    assert client.answer.read() == b"\n"  # and it is over, in good order
    stream.expect(Reset("proxy", CANCEL))
    client.close()
    stage.quiet()


@pytest.mark.parametrize("accept", ["application/json", EVENTS])
def test_a_failure_before_the_first_message_is_an_ordinary_error(stage, accept):
    client = Http1(stage, Accept=accept)
    called(stage).end(5, "there is none")
    client.begin()
    assert (client.answer.status, client.answer.read()) == (404, b"there is none")
    assert client.answer.getheader("content-type") == "text/plain; charset=UTF-8"
    client.close()
    client = Http1(stage, Accept=accept)
    stream = called(stage)
    stream.send(stage.act.refusal("not now").message)
    client.begin()
    assert (client.answer.status, client.answer.read()) == (500, b"not now")
    stream.expect(Reset("proxy", CANCEL))
    client.close()
    stage.quiet()


def test_a_later_failure_breaks_lines_off(stage):
    client = Http1(stage)
    stream = called(stage)
    send(stage, stream, "one")
    client.begin()
    assert client.line() == b'{"message":"one"}\n'
    stream.end(14, "away")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        client.answer.read()
    client.close()
    stage.quiet()


@pytest.mark.parametrize("accept", ["application/json", EVENTS])
def test_over_http_2(stage, accept):
    wire = Wire(stage.proxy.port)
    number = wire.open(PATH, ("content-type", "application/json"), ("accept", accept))
    wire.send(number, b"{}", end=True)
    stream, mine = called(stage), wire.streams[number]
    send(stage, stream, "one")
    line = b'{"message":"one"}\n' if accept != EVENTS else b'data: {"message":"one"}\n\n'
    wire.until(lambda: mine.data == line)
    assert mine.headers[":status"] == "200" and mine.headers["content-type"] == accept
    assert not mine.ended
    stream.end(14, "away")
    wire.until(lambda: mine.ended or mine.reset is not None)
    if accept == EVENTS:
        assert mine.ended and mine.data == line + b'event: error\ndata: {"code":14,"message":"away"}\n\n'
    else:
        assert mine.reset is not None and mine.data == line
    wire.close()
    stage.quiet()


def test_a_client_that_leaves_cancels_the_call(stage):
    client = Http1(stage)
    stream = called(stage)
    client.close()  # before there is anything to write to it
    stream.expect(Reset("proxy", CANCEL))
    wire = Wire(stage.proxy.port)
    number = wire.open(PATH, ("content-type", "application/json"))
    wire.send(number, b"{}", end=True)
    stream = called(stage)
    send(stage, stream, "one")
    wire.until(lambda: wire.streams[number].data)
    wire.h2.reset_stream(number, CANCEL)
    wire.flush()
    stream.expect(Reset("proxy", CANCEL))
    wire.close()
    stage.quiet()


def test_a_client_that_does_not_read_holds_the_function_back(stage):
    """What the proxy keeps for it is bounded, and nothing of it is lost."""
    piece, count = "x" * (256 << 10), 64
    client = Http1(stage)
    stream = called(stage)
    send(stage, stream, "begin")
    client.begin()
    assert client.line() == b'{"message":"begin"}\n'
    for _ in range(count):
        send(stage, stream, piece)
    stream.end(0)
    resident = int(next(line for line in open("/proc/%d/status" % stage.proxy.process.pid)
                        if line.startswith("VmRSS")).split()[1])
    assert resident < 64 << 10, "%d KiB" % resident
    for _ in range(count):
        assert json.loads(client.line()) == {"message": piece}
    assert client.answer.read() == b""
    client.close()
    stage.quiet()


def test_a_streamed_input_is_the_one_message_of_the_body(stage):
    client = Http1(stage, "/%s/In" % ACT, '{"id": "a", "text": "b"}')
    stream = stage.call_of("handleStreamedIn")
    seen = stream.next()
    assert (seen.service_name, seen.name) == (ACT, "In") and not seen.HasField("payload")
    stream.expect(stage.act.element(request("a", "b")))
    stage.answer_unary(stream, stage.act.reply(response("ok")))
    client.begin()
    assert (client.answer.status, client.answer.read()) == (200, b'{"message":"ok"}')
    client.close()
    stage.quiet()


def test_a_function_that_dies_in_mid_stream(stage):
    client = Http1(stage, Accept=EVENTS)
    stream = called(stage)
    send(stage, stream, "one")
    client.begin()
    assert client.line() == b'data: {"message":"one"}\n'
    stage.rec.drop()
    stream.expect(Broken("function"))
    text = client.answer.read()
    assert b"event: error\n" in text and b'"code":14' in text and b"the function at 127.0.0.1:" in text, text
    client.close()
    stage.rec.expect_discovery()
    harness.eventually(lambda: harness.status_of(stage.proxy.management, "/ready") == 200, "it is ready")
    stage.quiet()


def test_a_crdt_is_watched_by_events_and_its_watcher_may_leave(lab):
    go = Functions(lab)
    path, body = "/%s/ProcessStreamed" % MODEL, b'{"id": "GSet-1"}'
    watcher = Http1(go, path, body, Accept=EVENTS).begin()
    assert watcher.line() == b'data: {"state":{"gset":{"elements":[]}}}\n'
    leaver = Wire(go.proxy.port)
    number = leaver.open(path, ("content-type", "application/json"))
    leaver.send(number, body, end=True)
    leaver.until(lambda: leaver.streams[number].data == b'{"state":{"gset":{"elements":[]}}}\n')
    stream, its = go.rec.stream(CRDT_HANDLE), Crdt(MODEL, "GSet-1")
    stream.expect(its.init(), ToFunction(), FromFunction(), ToFunction(), FromFunction())
    leaver.h2.reset_stream(number, CANCEL)
    leaver.flush()
    stream.expect(its.cancelled(2))
    assert stream.next(FromFunction).stream_cancelled_response.command_id == 2
    leaver.close()
    go.process("GSet-1", update(gset={"add": "a"}))
    assert [watcher.line(), watcher.line()] == [b"\n", b'data: {"state":{"gset":{"elements":["a"]}}}\n']
    watcher.close()
