"""What our gRPC server says on the wire, frame by frame, and what it does to clients that break the rules.
The client is python3-h2, driven by hand."""

import gzip
import socket
import struct
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

import harness
import tools
from harness import PATIENCE
from ports import free_port

ECHO = "/cairn.test.Echo/Unary"
TEST = "/grpc.testing.TestService/"
GRPC = ("content-type", "application/grpc")


def message(body, flag=0):
    return struct.pack(">BI", flag, len(body)) + body


class Stream:
    def __init__(self):
        self.headers, self.trailers, self.data = None, None, b""
        self.blocks, self.ended, self.reset = 0, False, None

    def status(self):
        return (self.trailers or self.headers)["grpc-status"]


class Wire:
    """One connection."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self.streams, self.goaway, self.closed = {}, None, False
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 24)
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def close(self):
        self.socket.close()

    def open(self, path, *headers, method="POST"):
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = Stream()
        self.h2.send_headers(number, [(":method", method), (":scheme", "http"), (":path", path),
                                      (":authority", "test"), ("te", "trailers"), *headers])
        return number

    def take(self):
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", None), Stream())
            if isinstance(event, h2.events.ResponseReceived):
                stream.headers, stream.blocks = dict(event.headers), stream.blocks + 1
            elif isinstance(event, h2.events.TrailersReceived):
                stream.trailers, stream.blocks = dict(event.headers), stream.blocks + 1
            elif isinstance(event, h2.events.DataReceived):
                stream.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.reset = int(event.error_code)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = int(event.error_code)
        try:
            self.flush()
        except OSError:
            self.closed = True

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            assert not self.closed, "the connection was closed"
            self.take()

    def send(self, number, data, end=False):
        """As the window allows."""
        while data:
            n = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data))
            stream = self.streams[number]
            if stream.ended or stream.reset is not None:
                return
            if n:
                self.h2.send_data(number, data[:n])
                data = data[n:]
                self.flush()
            else:
                self.take()
        if end:
            self.h2.end_stream(number)
        self.flush()

    def call(self, path, *headers, body=message(b""), **options):
        number = self.open(path, *headers, **options)
        self.send(number, body, end=True)
        stream = self.streams[number]
        self.until(lambda: stream.ended or stream.reset is not None)
        return stream


@pytest.fixture
def port(lab):
    it = free_port()
    lab.run("interop-server", [tools.program("grpc_interop_server"), it, 1],
            kind=harness.Program).wait_text("^listening")
    return it


@pytest.fixture
def wire(port):
    it = Wire(port)
    yield it
    it.close()


def test_a_reply_is_headers_data_trailers(wire):
    stream = wire.call(ECHO, GRPC, body=message(b"hello"))
    assert stream.headers[":status"] == "200"
    assert stream.headers["content-type"] == "application/grpc"
    assert "gzip" in stream.headers["grpc-accept-encoding"].split(",")
    assert "grpc-encoding" not in stream.headers
    assert stream.data == message(b"hello")
    assert stream.trailers == {"grpc-status": "0"}
    assert stream.reset is None


def test_an_error_without_messages_is_trailers_only(wire):
    stream = wire.call("/no.such/Method", GRPC)
    assert (stream.blocks, stream.data, stream.headers[":status"], stream.status()) == (1, b"", "200", "12")


def test_an_early_end_asks_the_client_to_stop_without_an_error(wire):
    number = wire.open(TEST + "FullDuplexCall", GRPC)
    wire.send(number, message(b"\xff"))  # malformed: the call ends, though we have not
    stream = wire.streams[number]
    wire.until(lambda: stream.reset is not None)
    assert stream.status() == "3"
    assert stream.reset == 0


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc; x=y"])
def test_content_types_of_grpc(wire, kind):
    assert wire.call(ECHO, ("content-type", kind), body=message(b"x")).status() == "0"


@pytest.mark.parametrize("kind", ["application/grpc-web", "application/grpc-web+proto", "application/grpcx",
                                  "application/grpc+json", "application/json"])
def test_other_content_types_are_plain_http(wire, kind):
    stream = wire.call(ECHO, ("content-type", kind))
    assert stream.headers[":status"] == "404"
    assert "grpc-status" not in stream.headers


def test_another_method_than_post_is_refused(wire):
    assert wire.call(ECHO, GRPC, method="PUT").headers[":status"] == "405"


def test_messages_are_percent_encoded(wire):
    text = "100 % \u00e9\n".encode()
    status = b"\x3a" + bytes([4 + len(text)]) + b"\x08\x05\x12" + bytes([len(text)]) + text
    stream = wire.call(TEST + "UnaryCall", GRPC, body=message(status))
    assert stream.headers["grpc-message"] == "100 %25 %C3%A9%0A"
    assert stream.status() == "5"


def test_a_very_long_message_is_shortened_visibly(wire):
    def varint(n):
        return bytes([n & 127 | 128, n >> 7 & 127 | 128, n >> 14])
    text = b"y" * 100000
    inner = b"\x08\x05\x12" + varint(len(text)) + text
    stream = wire.call(TEST + "UnaryCall", GRPC, body=message(b"\x3a" + varint(len(inner)) + inner))
    assert stream.status() == "5"
    assert 7000 < len(stream.headers["grpc-message"]) <= 7168
    assert stream.headers["grpc-message"].endswith("y...")


@pytest.mark.parametrize("value", ["q6urAA==", "q6urAA", "q6urAA==,AAAA", "q6urAA, AAAA"])
def test_binary_metadata_padded_unpadded_and_joined(wire, value):
    stream = wire.call(TEST + "UnaryCall", GRPC, ("x-grpc-test-echo-trailing-bin", value))
    assert stream.trailers["x-grpc-test-echo-trailing-bin"] == "q6urAA"


def test_binary_metadata_that_is_not_base64_is_an_error(wire):
    assert wire.call(ECHO, GRPC, ("x-bin", "!!!")).status() == "13"


def test_gzip_is_answered_with_gzip_where_it_helps(wire):
    body = b"compress me " * 1000
    stream = wire.call(ECHO, GRPC, ("grpc-encoding", "gzip"), body=message(gzip.compress(body), 1))
    assert stream.headers["grpc-encoding"] == "gzip"
    assert stream.data[0] == 1
    assert gzip.decompress(stream.data[5:]) == body
    small = wire.call(ECHO, GRPC, ("grpc-encoding", "gzip"), body=message(gzip.compress(b"small"), 1))
    assert small.data == message(b"small")
    assert wire.call(ECHO, GRPC, ("grpc-encoding", "gzip"), body=message(b"plain")).data == message(b"plain")


def test_what_is_wrong_with_compression_is_named(wire):
    bomb = gzip.compress(b"\0" * (30 << 20))
    for headers, body, status in [
            ([("grpc-encoding", "br")], message(b"x"), "12"),
            ([], message(gzip.compress(b"x"), 1), "13"),
            ([("grpc-encoding", "gzip")], message(b"no gzip", 1), "13"),
            ([("grpc-encoding", "gzip")], message(gzip.compress(b"cut off here")[:-9], 1), "13"),
            ([("grpc-encoding", "gzip")], message(bomb, 1), "8"),
            ([], message(b"x", 7), "13")]:
        assert wire.call(ECHO, GRPC, *headers, body=body).status() == status


def test_deadline_of_the_request(wire):
    number = wire.open(TEST + "FullDuplexCall", GRPC, ("grpc-timeout", "50m"))
    stream = wire.streams[number]
    wire.flush()
    wire.until(lambda: stream.ended)
    assert stream.status() == "4"
    assert wire.call(ECHO, GRPC, ("grpc-timeout", "soon")).status() == "13"
    assert wire.call(ECHO, GRPC, ("grpc-timeout", "99999999H")).status() == "0"


def test_a_reset_of_a_stream_that_was_never_opened_disturbs_no_other(wire):
    """What gRPC's C core sends for a call that is cancelled at once."""
    held = wire.open(TEST + "FullDuplexCall", GRPC)
    wire.flush()
    never = wire.h2.get_next_available_stream_id()
    wire.socket.sendall(b"\0\0\4\3\0" + struct.pack(">II", never, 8))
    wire.h2.highest_outbound_stream_id = never
    assert wire.call(ECHO, GRPC, body=message(b"next")).data == message(b"next")
    wire.send(held, b"", end=True)
    wire.until(lambda: wire.streams[held].ended)
    assert wire.streams[held].status() == "0"


def test_the_number_of_messages_must_fit(wire):
    assert wire.call(ECHO, GRPC, body=b"").status() == "12"
    assert wire.call(ECHO, GRPC, body=message(b"a") + message(b"b")).status() == "12"
    assert wire.call(ECHO, GRPC, body=message(b"hello")[:-1]).status() == "13"


def test_large_headers_and_bodies_of_plain_http(wire):
    assert wire.call("/", ("x", "y" * 20000)).headers[":status"] == "431"
    stream = wire.call("/", body=b"x" * (21 << 20))
    assert stream.headers[":status"] == "413"


def test_unfinished_messages_of_a_connection_are_limited(wire, port):
    head = struct.pack(">BI", 0, 19 << 20)
    numbers = [wire.open(ECHO, GRPC) for _ in range(6)]
    for number in numbers:
        wire.send(number, head + bytes(15 << 20))
    wire.until(lambda: any(wire.streams[n].ended for n in numbers))
    refused = [wire.streams[n] for n in numbers if wire.streams[n].ended]
    assert refused and all(s.status() == "8" for s in refused)
    assert wire.call(ECHO, GRPC, body=message(b"x")).status() in ("0", "8")
    other = Wire(port)
    assert other.call(ECHO, GRPC, body=message(b"x" * 1000000)).status() == "0"
    other.close()


def attack(port, send):
    """Send pieces until the server has had enough or there are no more; another client must not notice."""
    wire = Wire(port)
    wire.flush()
    wire.take()
    wire.socket.settimeout(PATIENCE)
    try:
        for piece in send(wire):
            wire.socket.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    other = Wire(port)
    assert other.call(ECHO, GRPC, body=message(b"x")).status() == "0"
    other.close()
    return wire


def test_a_flood_of_resets_ends_the_connection(port):
    def send(wire):
        for _ in range(300):
            for _ in range(100):
                number = wire.open(ECHO, GRPC)
                wire.h2.reset_stream(number, 8)
            yield wire.h2.data_to_send()

    wire = attack(port, send)
    deadline = time.monotonic() + PATIENCE
    while not wire.closed and wire.goaway is None and time.monotonic() < deadline:
        try:
            wire.take()
        except (h2.exceptions.ProtocolError, OSError):
            break
    assert wire.closed or wire.goaway is not None
    wire.close()


@pytest.mark.parametrize("frame", [struct.pack(">HBBBI", 0, 8, 6, 0, 0) + b"12345678",
                                   struct.pack(">HBBBI", 0, 0, 4, 0, 0)], ids=["pings", "settings"])
def test_floods_of_frames_that_want_an_answer(port, frame):
    """The client does not read: the server may close, and must neither grow without end nor stop serving."""
    attack(port, lambda wire: (frame * 1000 for _ in range(100))).close()
