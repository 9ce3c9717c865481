"""Our gRPC server against clients that no one here wrote: Python grpcio, grpc-go's interop client, grpcurl,
h2load, h2spec, curl. The server is tests/grpc/interop_server.c."""

import collections
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import grpc
import pytest

import harness
import protos
import tools
from ports import free_port

GO_CASES = ["empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
            "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
            "status_code_and_message", "special_status_message", "custom_metadata", "unimplemented_method",
            "unimplemented_service", "pick_first_unary"]
TEST = "/grpc.testing.TestService/"
ECHO = "/cairn.test.Echo/Unary"


@pytest.fixture
def server(lab):
    port = free_port()
    process = lab.run("interop-server", [tools.program("grpc_interop_server"), port, 2],
                      kind=harness.Program)
    process.port = port
    process.wait_text("^listening")
    return process


@pytest.fixture(scope="module")
def interop():
    with tempfile.TemporaryDirectory() as folder:
        protos.generate(["interop.proto"], [protos.SOURCE / "tests" / "grpc"], folder)
        import importlib.util
        spec = importlib.util.spec_from_file_location("interop_pb2", os.path.join(folder, "interop_pb2.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


class Client:
    """grpcio, with the service's messages."""

    def __init__(self, port, interop, **options):
        self.channel = harness.channel_to(port, **options)
        self.pb = interop

    def unary(self, method="UnaryCall", out=None):
        out = out or self.pb.SimpleResponse
        return self.channel.unary_unary(TEST + method, lambda m: m.SerializeToString(), out.FromString)

    def streaming_in(self):
        return self.channel.stream_unary(TEST + "StreamingInputCall", lambda m: m.SerializeToString(),
                                         self.pb.StreamingInputCallResponse.FromString)

    def streaming_out(self):
        return self.channel.unary_stream(TEST + "StreamingOutputCall", lambda m: m.SerializeToString(),
                                         self.pb.StreamingOutputCallResponse.FromString)

    def duplex(self, method="FullDuplexCall"):
        return self.channel.stream_stream(TEST + method, lambda m: m.SerializeToString(),
                                          self.pb.StreamingOutputCallResponse.FromString)

    def echo(self):
        return self.channel.unary_unary(ECHO)

    def want(self, *sizes, interval_us=0, body=b""):
        return self.pb.StreamingOutputCallRequest(
            response_parameters=[self.pb.ResponseParameters(size=n, interval_us=interval_us) for n in sizes],
            payload=self.pb.Payload(body=body))


@pytest.fixture
def client(server, interop):
    it = Client(server.port, interop)
    yield it
    it.channel.close()


# --- grpcio -----------------------------------------------------------------------

def test_unary(client):
    answer = client.unary()(client.pb.SimpleRequest(response_size=1000), timeout=20)
    assert len(answer.payload.body) == 1000


def test_client_streaming(client):
    pb = client.pb
    sizes = (1, 0, 70000, 300000)
    requests = (pb.StreamingInputCallRequest(payload=pb.Payload(body=b"x" * n)) for n in sizes)
    assert client.streaming_in()(requests, timeout=20).aggregated_payload_size == 370001


def test_server_streaming(client):
    sizes = [1, 0, 100000, 7, 500000]
    got = [len(m.payload.body) for m in client.streaming_out()(client.want(*sizes), timeout=20)]
    assert got == sizes


def test_many_streamed_messages(client):
    sizes = [10] * 5000
    assert sum(1 for _ in client.streaming_out()(client.want(*sizes), timeout=30)) == 5000


def test_bidirectional_one_by_one(client):
    step = threading.Semaphore(1)

    def requests():
        for n in range(50):
            assert step.acquire(timeout=20)
            yield client.want(n, body=b"y" * n)

    got = []
    for answer in client.duplex()(requests(), timeout=40):
        got.append(len(answer.payload.body))
        step.release()
    assert got == list(range(50))


def test_half_duplex_answers_after_the_half_close(client):
    requests = iter([client.want(1, 2), client.want(3)])
    got = [len(m.payload.body) for m in client.duplex("HalfDuplexCall")(requests, timeout=20)]
    assert got == [1, 2, 3]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 16384, 65535, 65536, 1 << 20, 8 << 20])
def test_messages_of_every_size_come_back_byte_for_byte(server, interop, size):
    big = Client(server.port, interop, grpc_max_send_message_length=-1, grpc_max_receive_message_length=-1)
    body = bytes(i * 31 & 0xff for i in range(997)) * (size // 997 + 1)
    try:
        assert big.echo()(body[:size], timeout=40) == body[:size]
    finally:
        big.channel.close()


def test_a_message_over_the_limit_is_resource_exhausted(server, interop):
    big = Client(server.port, interop, grpc_max_send_message_length=-1)
    try:
        code, text = harness.refused(big.echo(), b"\0" * (21 << 20), timeout=40)
        assert code == "RESOURCE_EXHAUSTED" and "20971520" in text
    finally:
        big.channel.close()


def test_metadata_both_ways(client):
    metadata = (("x-grpc-test-echo-initial", "here and there"),
                ("x-grpc-test-echo-trailing-bin", bytes(range(256))), ("other", "1"), ("other", "2"))
    answer, call = client.unary().with_call(client.pb.SimpleRequest(), metadata=metadata, timeout=20)
    assert ("x-grpc-test-echo-initial", "here and there") in [tuple(m) for m in call.initial_metadata()]
    trailing = [tuple(m) for m in call.trailing_metadata()]
    assert ("x-grpc-test-echo-trailing-bin", bytes(range(256))) in trailing


CODES = [(code.value[0], "text of %s" % code.name) for code in grpc.StatusCode if code.value[0]]
SPECIAL = [(3, ""), (5, "100 % \u263a \U0001f608\t\r\n end"), (13, "x" * 3000)]


@pytest.mark.parametrize("code,text", CODES + SPECIAL,
                         ids=lambda value: value if isinstance(value, int) else "")
def test_status(client, code, text):
    request = client.pb.SimpleRequest(response_status=client.pb.EchoStatus(code=code, message=text))
    try:
        client.unary()(request, timeout=20)
        raise AssertionError("no error")
    except grpc.RpcError as error:
        assert error.code().value[0] == code
        assert error.details() == text


def test_headers_over_the_limit_are_refused(client):
    code, _ = harness.refused(client.unary(), client.pb.SimpleRequest(), timeout=20,
                              metadata=(("x", "y" * 20000),))
    assert code == "RESOURCE_EXHAUSTED"


def test_deadline(client):
    began = time.monotonic()
    call = client.streaming_out()(client.want(1, interval_us=20_000_000), timeout=0.3)
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 10


def test_cancel(client):
    call = client.streaming_out()(client.want(1, *[1] * 10, interval_us=1000))
    next(call)
    call.cancel()
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() is grpc.StatusCode.CANCELLED
    assert len(client.unary()(client.pb.SimpleRequest(response_size=3), timeout=20).payload.body) == 3


def test_thousands_of_cancelled_calls_do_not_break_the_connection(client):
    for _ in range(2000):
        client.streaming_out()(client.want(1, interval_us=10_000_000)).cancel()
    assert len(client.unary()(client.pb.SimpleRequest(response_size=3), timeout=20).payload.body) == 3


def test_gzip_both_ways(server, interop):
    packed = Client(server.port, interop)
    body = b"compress me " * 20000
    try:
        call = packed.echo()
        for size in (len(body), 10, 0):
            assert call(body[:size], timeout=20, compression=grpc.Compression.Gzip) == body[:size]
        answer, state = call.with_call(body, timeout=20, compression=grpc.Compression.Gzip)
        assert answer == body
    finally:
        packed.channel.close()


def test_deflate_is_answered_with_unimplemented(client):
    code, text = harness.refused(client.echo(), b"x" * 1000, timeout=20, compression=grpc.Compression.Deflate)
    assert code == "UNIMPLEMENTED" and "gzip" in text


def test_unknown_method(client):
    code, _ = harness.refused(client.unary("Nothing"), client.pb.SimpleRequest(), timeout=20)
    assert code == "UNIMPLEMENTED"


def test_a_malformed_request_is_invalid_argument(server):
    with harness.channel_to(server.port) as channel:
        code, _ = harness.refused(channel.unary_unary(TEST + "UnaryCall"), b"\xff\xff\xff", timeout=20)
    assert code == "INVALID_ARGUMENT"


def test_calls_from_many_threads(client):
    wrong = []

    def work(n):
        try:
            for i in range(50):
                body = b"%d/%d" % (n, i)
                if client.echo()(body, timeout=30) != body:
                    wrong.append(body)
        except grpc.RpcError as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


PING, GOAWAY, ACK = 6, 7, 1  # types of HTTP/2 frames, and a flag
CLIENT, SERVER = "client", "server"


class Wiretap:
    """Passes the bytes of one connection on as they are, and counts the frames: `count[who, type, flags]`."""

    def __init__(self, port):
        self.count = collections.Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(harness.PATIENCE)
        self.port, self._to = self._listener.getsockname()[1], port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with self._listener:
            client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._to))
        threading.Thread(target=self._pass_on, args=(CLIENT, client, server, 24), daemon=True).start()
        self._pass_on(SERVER, server, client, 0)

    def _pass_on(self, who, source, to, preface):
        left = b""
        with contextlib.suppress(OSError):  # one side is lost: so is the other
            while data := source.recv(65536):
                left += data
                if preface and len(left) >= preface:
                    left, preface = left[preface:], 0
                while not preface and len(left) >= 9 and len(left) >= 9 + int.from_bytes(left[:3], "big"):
                    self.count[who, left[3], left[4]] += 1
                    left = left[9 + int.from_bytes(left[:3], "big"):]
                to.sendall(data)
            to.shutdown(socket.SHUT_RDWR)


def test_idle_channel_with_keepalive_pings_stays(server, interop):
    """PINGs without a call (grpcio sends one a second at most, however often it is told to): each is answered,
    and the server does not mind more than the two that others bear."""
    wire = Wiretap(server.port)
    pinging = Client(wire.port, interop, grpc_keepalive_time_ms=100, grpc_keepalive_permit_without_calls=1,
                     **{"grpc_http2.max_pings_without_data": 0})
    states = []
    try:
        pinging.channel.subscribe(lambda state: states.append(state))
        pinging.echo()(b"1", timeout=20)
        harness.eventually(lambda: grpc.ChannelConnectivity.READY in states, "the channel is ready")
        before, pings = len(states), wire.count[SERVER, PING, ACK]
        harness.eventually(lambda: wire.count[SERVER, PING, ACK] >= pings + 4, "4 PINGs are answered")
        assert pinging.echo()(b"2", timeout=20) == b"2"
        assert wire.count[SERVER, GOAWAY, 0] == 0
        assert len(states) == before, states
    finally:
        pinging.channel.close()


def test_drain_lets_the_calls_under_way_end(server, client):
    call = client.streaming_out()(client.want(1, 2, 3, interval_us=300_000), timeout=20)
    assert len(next(call).payload.body) == 1
    server.process.terminate()
    assert [len(m.payload.body) for m in call] == [2, 3]
    assert call.code() is grpc.StatusCode.OK
    assert server.process.wait(10) == 0


# --- tools ------------------------------------------------------------------------

@pytest.mark.parametrize("case", GO_CASES)
def test_grpc_go_interop(server, case):
    done = subprocess.run([tools.grpc_interop() / "client", "-server_host", "127.0.0.1", "-server_port",
                           str(server.port), "-test_case", case], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def grpcurl(port, *arguments):
    return subprocess.run([tools.grpcurl(), "-plaintext", *arguments[:-1], "127.0.0.1:%d" % port,
                           *arguments[-1].split()], capture_output=True, text=True, timeout=60)


def test_grpcurl_lists_describes_and_calls(server):
    assert grpcurl(server.port, "list").stdout.split() == [
        "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.testing.TestService"]
    described = grpcurl(server.port, "describe grpc.testing.TestService.UnaryCall").stdout
    assert "UnaryCall ( .grpc.testing.SimpleRequest ) returns ( .grpc.testing.SimpleResponse )" in described
    called = grpcurl(server.port, "-d", '{"response_size": 3}', "grpc.testing.TestService/UnaryCall")
    assert json.loads(called.stdout) == {"payload": {"body": "AAAA"}}, called.stderr
    health = grpcurl(server.port, "-d", '{"service": "grpc.testing.TestService"}',
                     "grpc.health.v1.Health/Check")
    assert json.loads(health.stdout) == {"status": "SERVING"}, health.stderr
    unknown = grpcurl(server.port, "describe no.such.Thing")
    assert unknown.returncode != 0 and "not found" in unknown.stderr.lower()


def test_h2spec_every_case(server):
    done = subprocess.run([tools.h2spec(), "-h", "127.0.0.1", "-p", str(server.port), "-P", "/"],
                          capture_output=True, text=True, timeout=120)
    counts = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout)
    assert counts, done.stdout[-2000:]
    assert counts.groups() == ("145", "145", "0", "0"), done.stdout[done.stdout.find("Failures"):]


def h2load(port, path, *options):
    done = subprocess.run([tools.h2load(), *options, "http://127.0.0.1:%d%s" % (port, path)],
                          capture_output=True, text=True, timeout=120)
    counts = re.search(r"(\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed", done.stdout)
    assert counts, done.stdout + done.stderr
    return [int(n) for n in counts.groups()]


def test_h2load_grpc(server, tmp_path):
    body = tmp_path / "message"
    body.write_bytes(b"\0\0\0\1\0" + b"e" * 256)
    count = harness.scaled(20000)
    assert h2load(server.port, ECHO, "-n", str(count), "-c", "10", "-m", "20", "-d", str(body),
                  "-H", "content-type: application/grpc", "-H", "te: trailers") == [count, count, count, 0]


@pytest.mark.parametrize("options", [[], ["--h1"]], ids=["http2", "http1"])
def test_h2load_http(server, options):
    assert h2load(server.port, "/", "-n", "5000", "-c", "10", "-m", "4", *options) == [5000, 5000, 5000, 0]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_uploads_and_downloads(server, tmp_path, version):
    curl = shutil.which("curl")
    if not curl:
        pytest.skip("curl is missing: apt-get install curl")
    body = tmp_path / "body"
    body.write_bytes(os.urandom(5 << 20))
    back = tmp_path / "back"
    done = subprocess.run([curl, "-sS", version, "-o", back, "-w", "%{http_code} %{http_version}",
                           "--data-binary", "@%s" % body, "-H", "Content-Type: application/octet-stream",
                           "http://127.0.0.1:%d/echo" % server.port],
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == "200 %s" % ("1.1" if "1.1" in version else "2"), done.stderr
    assert back.read_bytes() == body.read_bytes()
