"""The recorder: a man in the middle on the function's side.

The proxy connects to it as if it were the function. It keeps, in order, every stream that is opened, every
message of both sides (decoded), every half-close, end and reset, at the level of HTTP/2 frames; so a
half-close and a reset, an end and a break are told apart. Behind it is either

* a real function: ``Recorder(function=("127.0.0.1", 8080))`` passes everything on, back-pressure included; or
* nothing: ``Recorder(spec=an EntitySpec)`` answers discovery by itself, and the test plays the function,
  message by message, on the streams that the proxy opens.

A test then says what must have been seen::

    rec.expect_discovery()
    cart = rec.stream(HANDLE)                       # the next stream opened on that path
    cart.expect(e.init(), e.command(1, "AddItem", item), e.reply(1, empty, events=[added]))
    cart.expect(HalfClose(), End())
    rec.nothing_more()

Messages are compared whole, as serialised, so fields that nobody knows count too. Every wait ends as soon as
its condition holds, and fails after a deadline with the whole recording; nothing sleeps.
"""

import asyncio
import gzip
import os
import re
import threading
import time
import urllib.parse

from google.protobuf import empty_pb2

import protos
from h2peer import Peer
from ports import free_port
from records import Broken, End, FromFunction, HalfClose, Open, Record, Reset, ToFunction, Violation

DISCOVER = "/cloudstate.EntityDiscovery/discover"
REPORT = "/cloudstate.EntityDiscovery/reportError"
HANDLE = "/cloudstate.eventsourced.EventSourced/handle"
CRDT_HANDLE = "/cloudstate.crdt.Crdt/handle"

VALUE = "/cloudstate.valueentity.ValueEntity/handle"
ACTION = "/cloudstate.action.ActionProtocol/"  # and the method's name

# The kinds that the proxy can drive so far; discovery names exactly these.
SUPPORTED = ["cloudstate.action.ActionProtocol", "cloudstate.valueentity.ValueEntity",
             "cloudstate.eventsourced.EventSourced", "cloudstate.crdt.Crdt"]

CODECS = {
    DISCOVER: (protos.cloudstate.ProxyInfo, protos.cloudstate.EntitySpec),
    REPORT: (protos.cloudstate.UserFunctionError, empty_pb2.Empty),
    HANDLE: (protos.event_sourced.EventSourcedStreamIn, protos.event_sourced.EventSourcedStreamOut),
    VALUE: (protos.value_entity.ValueEntityStreamIn, protos.value_entity.ValueEntityStreamOut),
    CRDT_HANDLE: (protos.crdt.CrdtStreamIn, protos.crdt.CrdtStreamOut),
}
CODECS.update({ACTION + name: (protos.action.ActionCommand, protos.action.ActionResponse)
               for name in ("handleUnary", "handleStreamedIn", "handleStreamedOut", "handleStreamed")})

WINDOW = 65535  # bytes that a stream may be ahead, HTTP/2's own default
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 2, 7, 8

# Seconds that a condition may take to come true; raised where everything is slower, as under sanitizers.
PATIENCE = 15.0 * float(os.environ.get("CAIRN_TEST_PATIENCE", "1"))


class _Any(Record):
    """Met by every record but a violation."""

    def matches(self, seen):
        return not isinstance(seen, Violation)


def grpc_frame(body):
    """The bytes of one gRPC message on the wire."""
    return b"\0" + len(body).to_bytes(4, "big") + body


class _Deframer:
    """gRPC's length-prefixed messages, decoded, out of the data of one direction."""

    def __init__(self, decode):
        self._decode, self._rest, self.encoding = decode, b"", "identity"

    def push(self, data):
        self._rest += data
        while len(self._rest) >= 5:
            size = 5 + int.from_bytes(self._rest[1:5], "big")
            if len(self._rest) < size:
                return
            packed, body, self._rest = self._rest[0], self._rest[5:size], self._rest[size:]
            if packed and self.encoding != "gzip":
                raise ValueError("compressed message, but grpc-encoding is %s" % self.encoding)
            yield self._decode(gzip.decompress(body) if packed else body)

    def partial(self):
        return len(self._rest) > 0


class _Stream:
    def __init__(self, number, path, conn, down_id):
        request, response = CODECS.get(path, (None, None))
        self.number, self.path, self.conn, self.down_id, self.up_id = number, path, conn, down_id, None
        self.inward = _Deframer(request.FromString if request else bytes)
        self.outward = _Deframer(response.FromString if response else bytes)
        self.headers_sent = self.half_closed = self.ended = self.over = False
        self.unread = 0  # bytes that the proxy has sent and its window is short of


def _text(headers):
    return [(key.decode("latin-1"), value.decode("latin-1")) for key, value in headers]


class Connection:
    """A connection that the proxy made. `pings`: how many PINGs the proxy has sent; `goaways`: the codes of
    its GOAWAYs; `alive` until it is lost."""

    def __init__(self, recorder, number):
        self._rec, self.number = recorder, number
        self.down = Peer(self, client_side=False, max_streams=recorder.max_streams)
        self.up = None
        self.streams, self._by_up_id = {}, {}
        self.pings, self.goaways, self.alive = 0, [], True
        self._pinged = {}

    def open_streams(self):
        """How many streams are open now."""
        return sum(not s.over for s in list(self.streams.values()))

    # Everything below runs in the recorder's thread.

    def on_connected(self, peer):
        if peer is self.down:
            asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self):
        if self._rec.function:
            up = Peer(self, client_side=True)
            try:
                await asyncio.get_running_loop().create_connection(lambda: up, *self._rec.function)
            except OSError:
                # To the proxy a function that is not there looks like one that hangs up at once.
                self.down.abort()
                return
            up.start()
            # A process that is being killed may still take a connection, and never says anything on it.
            await up.heard.wait()
            if up.lost or self.down.lost:
                up.close()
                self.down.abort()
                return
            self.up = up
        self.down.start()

    def on_event(self, peer, event):
        handler = getattr(self, "_on_%s" % type(event).__name__, None)
        if handler:
            handler(peer, event)

    def _by(self, peer):
        return "proxy" if peer is self.down else "function"

    def _stream(self, peer, event):
        return (self.streams if peer is self.down else self._by_up_id)[event.stream_id]

    def _on_RequestReceived(self, peer, event):
        headers = _text(event.headers)
        path = dict(headers).get(":path", "")
        stream = self._rec.new_stream(path, self, event.stream_id)
        stream.inward.encoding = dict(headers).get("grpc-encoding", "identity")
        self.streams[event.stream_id] = stream
        self._rec.add(Open(path, headers), stream)
        if self.up:
            stream.up_id = self.up.h2.get_next_available_stream_id()
            self._by_up_id[stream.up_id] = stream
            # At once, never queued: ids must be used in order.
            self.up.send_headers(stream.up_id, event.headers)

    def _on_ResponseReceived(self, peer, event):
        stream = self._stream(peer, event)
        headers = dict(_text(event.headers))
        stream.outward.encoding = headers.get("grpc-encoding", "identity")
        ended = event.stream_ended is not None
        if ended:
            self._function_ended(stream, headers)
        self.down.send_headers(stream.down_id, event.headers, end=ended)

    def _on_TrailersReceived(self, peer, event):
        stream = self._stream(peer, event)
        if peer is self.down:
            self._rec.add(Violation("proxy", "trailers in a request"), stream)
            return
        self._function_ended(stream, dict(_text(event.headers)))
        self.down.send_headers(stream.down_id, event.headers, end=True)

    def _function_ended(self, stream, headers):
        if stream.outward.partial():
            self._rec.add(Violation("function", "ended in mid-message"), stream)
        code = headers.get("grpc-status")
        stream.ended = True
        stream.over = stream.half_closed
        self._rec.add(End(None if code is None else int(code),
                          urllib.parse.unquote(headers.get("grpc-message", ""))), stream)

    def _on_DataReceived(self, peer, event):
        stream, size = self._stream(peer, event), event.flow_controlled_length
        if peer is self.down:
            deframer, kind, other, other_id = stream.inward, ToFunction, self.up, stream.up_id
        else:
            deframer, kind, other, other_id = stream.outward, FromFunction, self.down, stream.down_id
        try:
            for message in deframer.push(event.data):
                self._rec.add(kind(message), stream)
        except Exception as wrong:  # whatever the decoder has against these bytes is the finding
            self._rec.add(Violation(self._by(peer), "undecodable message: %s" % wrong), stream)
        if other:
            other.send_data(other_id, event.data, lambda: peer.consumed(event.stream_id, size))
        elif self._rec.reading or stream.path != HANDLE:
            peer.consumed(event.stream_id, size)
        else:
            stream.unread += size
            peer.consumed_but_for_its_stream(size)
            self._rec.add(None, None)

    def _on_StreamEnded(self, peer, event):
        stream = self._stream(peer, event)
        if peer is not self.down:
            if not stream.ended:
                self._function_ended(stream, {})
                self.down.send_end(stream.down_id)
            return
        if stream.inward.partial():
            self._rec.add(Violation("proxy", "half-close in mid-message"), stream)
        stream.half_closed = True
        stream.over = stream.ended
        self._rec.add(HalfClose(), stream)
        if self.up:
            self.up.send_end(stream.up_id)
        else:
            self._rec.answer(stream)

    def _on_StreamReset(self, peer, event):
        stream = self._stream(peer, event)
        if not event.remote_reset:
            return
        other, other_id = (self.up, stream.up_id) if peer is self.down else (self.down, stream.down_id)
        if peer is not self.down and stream.ended and event.error_code == NO_ERROR:
            stream.over = True
            other.send_reset(other_id, NO_ERROR)
            return
        if not stream.over:
            stream.over = True
            self._rec.add(Reset(self._by(peer), event.error_code), stream)
        if other:
            other.reset(other_id, event.error_code)

    def _on_PingReceived(self, peer, event):
        if peer is self.down:
            self.pings += 1

    def _on_PingAckReceived(self, peer, event):
        waiter = self._pinged.pop((peer, event.ping_data), None)
        if waiter and not waiter.done():
            waiter.set_result(True)

    def on_goaway(self, peer, last, code):
        if peer is self.down:
            self.goaways.append(code)
            self._rec.add(None, None)
        else:
            known = [s.down_id for s in self._by_up_id.values() if s.up_id <= last]
            self.down.goaway(max(known, default=0), code)

    def on_violation(self, peer, text):
        self._rec.add(Violation(self._by(peer), text), None)

    def on_lost(self, peer):
        if not self.alive:
            return
        self.alive = False
        for stream in self.streams.values():
            if not stream.over:
                stream.over = True
                self._rec.add(Broken(self._by(peer)), stream)
        for waiter in self._pinged.values():
            if not waiter.done():
                waiter.set_result(False)
        for other in (self.down, self.up):
            if other and other is not peer:
                other.close()
        self._rec.add(None, None)

    def drop(self):
        """As if the function had died: the connection is gone without a word."""
        if self.alive:
            self.on_lost(self.up)
            self.down.abort()
            if self.up:
                self.up.abort()

    async def ping(self, peer):
        """Returns once everything that this side had written before has been read here."""
        if self.alive and peer:
            waiter = asyncio.get_running_loop().create_future()
            data = os.urandom(8)
            self._pinged[(peer, data)] = waiter
            peer.h2.ping(data)
            peer.flush()
            await waiter


class StreamView:
    """One stream as a test sees it: what came on it, in order, and, where the test plays the function, what
    to send. Everything that the test itself sends counts as expected."""

    def __init__(self, recorder, stream, opened):
        self._rec, self._stream, self.opened = recorder, stream, opened
        self.number, self.path = stream.number, stream.path

    @property
    def connection(self):
        return self._stream.conn

    def expect(self, *expected, timeout=None):
        """The next records of this stream are exactly these. Returns what was seen."""
        return [self._rec.take(e, self.number, timeout) for e in expected]

    def next(self, kind=ToFunction, timeout=None):
        """The next record, which must be of this kind; for messages the message itself."""
        seen = self._rec.take(kind(), self.number, timeout)
        return getattr(seen, "message", seen)

    def send(self, *messages):
        """Messages of the function."""
        for message in messages:
            body = message if isinstance(message, bytes) else message.SerializeToString()
            self._rec.run(self._send, FromFunction(message), grpc_frame(body))

    def send_bytes(self, data):
        """Bytes as they are, framed or not; not recorded."""
        self._rec.run(self._send, None, data)

    def end(self, code=0, message=""):
        """The function's end of the stream, with a status."""
        self._rec.run(self._end, code, message)

    def reset(self, code=CANCEL):
        """RST_STREAM by the function."""
        self._rec.run(self._reset, code)

    def wait_full(self):
        """Wait until the proxy can send nothing more on this stream, see Recorder.stop_reading."""
        self._rec.wait(lambda: self._stream.unread == WINDOW, "a full window on stream %d" % self.number)

    def drop(self):
        """The function dies: the connection of this stream is lost."""
        self._rec.run(self.connection.drop)
        self._rec.forgive(lambda r: isinstance(r, Broken) and r.stream == self.number)

    def _headers(self):
        return [(":status", "200"), ("content-type", "application/grpc")]

    def _send(self, record, data):
        stream, down = self._stream, self.connection.down
        if not stream.headers_sent:
            stream.headers_sent = True
            down.send_headers(stream.down_id, self._headers())
        if record:
            self._rec.add(record, stream, taken=True)
        down.send_data(stream.down_id, data)

    def _end(self, code, message):
        stream = self._stream
        status = [("grpc-status", str(code))]
        if message:
            status.append(("grpc-message", urllib.parse.quote(message, safe=" !#$&'()*+,/:;=?@[]")))
        if not stream.headers_sent:
            status = self._headers() + status
        stream.headers_sent = stream.ended = True
        stream.over = stream.half_closed
        self._rec.add(End(code, message), stream, taken=True)
        self.connection.down.send_headers(stream.down_id, status, end=True)

    def _reset(self, code):
        self._stream.over = True
        self._rec.add(Reset("function", code), self._stream, taken=True)
        self.connection.down.reset(self._stream.down_id, code)


class Recorder:
    """See the top of this file. A context manager; `port` is what the proxy is told to connect to."""

    def __init__(self, function=None, spec=None, max_streams=None, port=0, listen=True):
        self.function, self.spec, self.max_streams = function, spec, max_streams
        self.connections, self.records = [], []
        self._streams, self._begun = {}, time.monotonic()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._server, self._obliging = None, False
        self.reading = True
        self._thread = threading.Thread(target=self._loop.run_forever, name="recorder", daemon=True)
        self._thread.start()
        self.port = port or free_port()
        if listen:
            self.listen()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Stop. What was recorded stays."""
        if self._thread.is_alive():
            self.unlisten()
            self.drop()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()

    def run(self, function, *args):
        """Call a function in the recorder's thread and return what it returns."""
        async def call():
            result = function(*args)
            return await result if asyncio.iscoroutine(result) else result
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    # --- the function's address: there or not -----------------------------------

    def listen(self):
        """Take connections (again)."""
        self._server = self.run(self._listen)

    def unlisten(self):
        """Refuse new connections; those there are stay."""
        if self._server:
            self.run(self._server.close)
            self._server = None

    def drop(self):
        """Lose all connections, as if the function had died."""
        self.run(lambda: [c.drop() for c in self.connections])

    def stop_reading(self):
        """Where the test plays the function: it reads no more of its entities' streams than their windows
        allow. `StreamView.wait_full` waits until that much has come."""
        self.reading = False

    def read_on(self):
        def read():
            self.reading = True
            for stream in self._streams.values():
                unread, stream.unread = stream.unread, 0
                stream.conn.down.stream_consumed(stream.down_id, unread)
        self.run(read)

    def oblige(self):
        """Where the test plays the function and plays no more: end every stream that the proxy has
        half-closed or will half-close, as a function does."""
        def end():
            self._obliging = True
            for stream in list(self._streams.values()):
                if stream.half_closed and not (stream.ended or stream.over):
                    StreamView(self, stream, None)._end(0, "")
        if not self.function:
            self.run(end)

    def goaway(self, code=NO_ERROR):
        """The function says on every connection that it takes no new streams there; open ones go on."""
        for conn in self.connections:
            if conn.alive:
                self.run(conn.down.goaway, max(conn.streams, default=0), code)

    def _listen(self):
        def accept():
            conn = Connection(self, len(self.connections) + 1)
            self.connections.append(conn)
            return conn.down
        return self._loop.create_server(accept, "127.0.0.1", self.port)

    # --- recording, in the recorder's thread ---------------------------------------

    def new_stream(self, path, conn, down_id):
        stream = _Stream(len(self._streams) + 1, path, conn, down_id)
        self._streams[stream.number] = stream
        return stream

    def add(self, record, stream, taken=False):
        """Keep a record and wake whoever waits; without a record only that."""
        with self._changed:
            if record:
                record.stream = stream.number if stream else None
                record.at = time.monotonic() - self._begun
                record.taken = taken
                self.records.append(record)
            self._changed.notify_all()

    def answer(self, stream):
        """Where the test plays the function: discovery and reports are answered here."""
        view = StreamView(self, stream, None)
        body = {DISCOVER: self.spec, REPORT: empty_pb2.Empty()}.get(stream.path)
        if body is not None:
            view._send(FromFunction(body), grpc_frame(body.SerializeToString()))
            view._end(0, "")
        elif self._obliging:
            view._end(0, "")

    # --- what a test asks -------------------------------------------------------------

    def wait(self, condition, what, timeout=None):
        """Wait until `condition()` is true and return what it gave; fail with the whole recording."""
        deadline = time.monotonic() + (timeout or PATIENCE)
        with self._changed:
            while True:
                result = condition()
                if result:
                    return result
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError("waited in vain for %s; recorded:\n%s" % (what, self.log()))
                self._changed.wait(left)

    def take(self, expected, number=None, timeout=None):
        """The first record not yet taken (of one stream, or of all) is the expected one; take it."""
        def next_record():
            for record in self.records:
                if not record.taken and (number is None or record.stream in (number, None)):
                    return record
            return None
        where = "stream %d" % number if number else "all streams"
        seen = self.wait(next_record, "%r on %s" % (expected, where), timeout)
        if not expected.matches(seen):
            raise AssertionError("on %s\nexpected %r\ngot      %r\nrecorded:\n%s"
                                 % (where, expected, seen, self.log()))
        seen.taken = True
        return seen

    def take_next(self, number=None, timeout=None):
        """The next record, whatever it is but a violation."""
        return self.take(_Any(), number, timeout)

    def expect(self, *expected, timeout=None):
        """The next records, of all streams together, are exactly these. Returns what was seen."""
        return [self.take(e, None, timeout) for e in expected]

    def stream(self, path=HANDLE, timeout=None):
        """The next stream that was opened on this path and that no test has taken yet."""
        return self._view(lambda opened: opened.path == path, "Open(%s)" % path, timeout)

    def entity(self, entity, timeout=None):
        """The next entity stream that was opened for this entity and that no test has taken yet."""
        def is_its(opened):
            for record in self.records:
                if record.stream == opened.stream and isinstance(record, ToFunction):
                    init = getattr(record.message, "init", None)
                    return init and (init.service_name, init.entity_id) == (entity.service, entity.entity_id)
            return False
        return self._view(is_its, "a stream of %s %s" % (entity.service, entity.entity_id), timeout)

    def _view(self, wanted, what, timeout):
        def find():
            for record in self.records:
                if isinstance(record, Open) and not record.taken and wanted(record):
                    return record
            return None
        opened = self.wait(find, what, timeout)
        opened.taken = True
        return StreamView(self, self._streams[opened.stream], opened)

    def expect_discovery(self, timeout=None):
        """One `discover`, exactly as the contract has it. Returns the spec that was answered."""
        view = self.stream(DISCOVER, timeout)
        assert view.opened.header("te") == ["trailers"], view.opened.headers
        assert view.opened.header("content-type") == ["application/grpc"], view.opened.headers
        info = view.next(ToFunction)
        assert info.proxy_name and info.proxy_version, info
        wanted = protos.cloudstate.ProxyInfo(
            protocol_major_version=0, protocol_minor_version=2, proxy_name=info.proxy_name,
            proxy_version=info.proxy_version, supported_entity_types=SUPPORTED)
        assert ToFunction(wanted).matches(ToFunction(info)), "discover was sent\n%s" % info
        view.expect(HalfClose())
        if not self.function:
            return self.spec
        spec = view.next(FromFunction)
        view.expect(End(0))
        return spec

    def expect_report(self, pattern, timeout=None):
        """One `reportError` whose message matches the pattern. Returns the message."""
        view = self.stream(REPORT, timeout)
        message = view.next(ToFunction).message
        assert re.search(pattern, message), "reported %r, which is not %r" % (message, pattern)
        view.expect(HalfClose())
        if self.function:
            view.expect(FromFunction(empty_pb2.Empty()), End(0))
        return message

    def nothing_more(self):
        """Everything recorded has been expected, and nothing is on its way: both sides have answered a PING,
        twice, so whatever either had written, and what the other wrote upon it, has been read here."""
        for _ in range(2):
            for conn in list(self.connections):
                if conn.alive:
                    self.run(conn.ping, conn.up)
                    self.run(conn.ping, conn.down)
        left = self.untaken()
        assert not left, "not expected: %s\nrecorded:\n%s" % (left, self.log())

    def untaken(self):
        """The records that no expectation was met by."""
        with self._changed:
            return [r for r in self.records if not r.taken]

    def forgive(self, which):
        """Take every record, there or to come at once, for which `which` is true."""
        with self._changed:
            for record in self.records:
                if which(record):
                    record.taken = True

    def log(self):
        """The whole recording as text: '.' was expected, '!' not (yet)."""
        with self._changed:
            return "\n".join("  %s %8.3f s  stream %-3s %r" % (
                "." if r.taken else "!", r.at, r.stream or "-", r) for r in self.records) or "  nothing"
