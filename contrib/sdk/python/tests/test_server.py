"""The server, driven by a grpcio client as a proxy drives it."""

import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading

import cairn_sdk
import grpc
import pytest
from cairn_sdk import protos
from cairn_sdk.entity import pack
from counter import declare, pb
from google.protobuf import descriptor_pb2, empty_pb2

HERE = pathlib.Path(__file__).resolve().parent
IN = protos.event_sourced.EventSourcedStreamIn
OUT = protos.event_sourced.EventSourcedStreamOut
SERVICE = "cairn_sdk.test.Counter"
MAIN = """
import sys, logging
sys.path[:0] = [%r, %r]
import cairn_sdk, counter
cairn_sdk.serve(counter.declare(passivate_after_ms=1500), name="test", version="7")
"""


class Function:
    """The counter in a process of its own."""

    def __init__(self, **env):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        main = MAIN % (str(HERE.parent), str(HERE))
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-c", main], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "HOST": "127.0.0.1", "PORT": str(self.port), **env})
        self.lines = []
        self._read = queue.Queue()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        try:
            self.wait_for("serving on")
        except AssertionError:
            self.__exit__()
            raise

    def _read_lines(self):
        for line in self.process.stderr:
            self._read.put(line)
        self._read.put(None)

    def wait_for(self, text):
        """The next line with this text; not for ever: a function that neither says it nor ends is a failure."""
        while True:
            try:
                line = self._read.get(timeout=30)
            except queue.Empty:
                raise AssertionError("runs on without %r:\n%s" % (text, "".join(self.lines))) from None
            if line is None:
                raise AssertionError("ended without %r:\n%s" % (text, "".join(self.lines)))
            self.lines.append(line)
            if text in line:
                return line

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)
        self.process.stderr.close()


class Stream:
    def __init__(self, channel):
        self._requests = queue.Queue()
        call = channel.stream_stream("/cloudstate.eventsourced.EventSourced/handle", IN.SerializeToString,
                                     OUT.FromString)
        self.call = call(iter(self._requests.get, None), timeout=20)
        self.ids = 0

    def send(self, **what):
        self._requests.put(IN(**what))

    def init(self, entity_id="a", service=SERVICE, **more):
        self.send(init=protos.event_sourced.EventSourcedInit(
            service_name=service, entity_id=entity_id, **more))
        return self

    def event(self, sequence, message):
        self.send(event=protos.event_sourced.EventSourcedEvent(sequence=sequence, payload=pack(message)))

    def command(self, name, message):
        self.ids += 1
        self.send(command=protos.entity.Command(entity_id="a", id=self.ids, name=name, payload=pack(message)))
        return next(self.call)

    def half_close(self):
        self._requests.put(None)
        return list(self.call)


@pytest.fixture(scope="module")
def function():
    with Function() as it:
        yield it


@pytest.fixture
def channel(function):
    with grpc.insecure_channel("127.0.0.1:%d" % function.port) as it:
        yield it


def discover(channel):
    call = channel.unary_unary("/cloudstate.EntityDiscovery/discover",
                               protos.entity.ProxyInfo.SerializeToString, protos.entity.EntitySpec.FromString)
    return call(protos.entity.ProxyInfo(protocol_minor_version=2), timeout=20)


def test_discovery_announces_the_entity(channel):
    spec = discover(channel)
    info = spec.service_info
    assert (info.protocol_major_version, info.protocol_minor_version) == (0, 2)
    assert (info.service_name, info.service_version) == ("test", "7")
    assert (info.support_library_name, info.support_library_version) == ("cairn-sdk", cairn_sdk.__version__)
    entity, = spec.entities
    assert entity.entity_type == "cloudstate.eventsourced.EventSourced"
    assert (entity.service_name, entity.persistence_id) == (SERVICE, "counter")
    assert entity.passivation_strategy.timeout.timeout == 1500


def test_discovery_carries_every_import_before_its_user(channel):
    files = descriptor_pb2.FileDescriptorSet.FromString(discover(channel).proto).file
    seen = set()
    for file in files:
        assert set(file.dependency) <= seen, file.name
        assert file.name not in seen
        seen.add(file.name)
    assert {"counter.proto", "cloudstate/entity_key.proto", "cloudstate/legacy_entity_key.proto",
            "google/protobuf/descriptor.proto", "google/protobuf/empty.proto"} == seen


def test_a_stream_from_init_to_half_close(channel):
    stream = Stream(channel).init()
    out = stream.command("Increase", pb.IncreaseBy(name="a", by=2, times=2))
    assert out == OUT(reply=protos.event_sourced.EventSourcedReply(
        command_id=1, client_action=protos.entity.ClientAction(reply=protos.entity.Reply(
            payload=pack(pb.Value(value=4)))),
        events=[pack(pb.Increased(by=2)), pack(pb.Increased(by=2))]))
    out = stream.command("Increase", pb.IncreaseBy(name="a", by=1))
    assert out.reply.command_id == 2
    assert out.reply.snapshot == pack(pb.Value(value=5))
    assert stream.half_close() == []
    assert stream.call.code() == grpc.StatusCode.OK


def test_replay_answers_nothing_and_restores(channel):
    stream = Stream(channel).init(snapshot=protos.event_sourced.EventSourcedSnapshot(
        snapshot_sequence=6, snapshot=pack(pb.Value(value=10))))
    stream.event(7, pb.Increased(by=1))
    stream.event(9, pb.Increased(by=1))  # 8 was no event
    out = stream.command("Get", pb.GetValue(name="a"))
    assert out.reply.client_action.reply.payload == pack(pb.Value(value=12))
    assert stream.half_close() == []


def test_a_failure_after_events_asks_for_a_restart(channel):
    stream = Stream(channel).init()
    out = stream.command("Increase", pb.IncreaseBy(name="a", by=1, then="fail"))
    assert out == OUT(reply=protos.event_sourced.EventSourcedReply(
        command_id=1, client_action=protos.entity.ClientAction(failure=protos.entity.Failure(
            command_id=1, description="after all no", restart=True))))
    assert stream.half_close() == []


def test_a_refused_command_leaves_the_stream_as_it_was(channel):
    stream = Stream(channel).init()
    failure = stream.command("Increase", pb.IncreaseBy(name="a", by=0)).reply.client_action.failure
    assert failure == protos.entity.Failure(command_id=1, description="by must be at least 1")
    assert stream.command("Increase", pb.IncreaseBy(name="a", by=1)).reply.command_id == 2
    assert stream.half_close() == []


def failure_of(stream):
    out = list(stream.call)
    assert stream.call.code() == grpc.StatusCode.OK
    assert len(out) == 1 and out[0].WhichOneof("message") == "failure", out
    return out[0].failure


def test_a_bug_fails_and_ends_the_stream(channel):
    stream = Stream(channel).init()
    failure = stream.command("Increase", pb.IncreaseBy(name="a", by=1, then="raise")).failure
    assert failure.command_id == 1
    assert failure.description == ("entity 'a' of cairn_sdk.test.Counter: the handler of command Increase "
                                   "raised KeyError: 'a bug'")
    assert list(stream.call) == []


@pytest.mark.parametrize("sent, text", [
    (dict(init=protos.event_sourced.EventSourcedInit(service_name="x.Y")), "there is no service 'x.Y'"),
    (dict(command=protos.entity.Command(id=4)), "sent command before init"),
    (dict(), "sent an empty message before init"),
])
def test_a_wrong_first_message_is_answered_with_a_failure(channel, sent, text):
    stream = Stream(channel)
    stream.send(**sent)
    assert text in failure_of(stream).description


def test_a_second_init_and_an_old_sequence_are_failures(channel):
    assert "sent init after init" in failure_of(Stream(channel).init().init()).description
    stream = Stream(channel).init()
    stream.event(1, pb.Increased(by=1))
    stream.event(1, pb.Increased(by=1))
    assert "sent event 1 after 1" in failure_of(stream).description


def test_many_streams_at_once(channel):
    streams = [Stream(channel).init("entity-%d" % i) for i in range(300)]
    for i, stream in enumerate(streams):
        stream.command("Increase", pb.IncreaseBy(name="a", by=i + 100))
    for i, stream in enumerate(streams):
        out = stream.command("Get", pb.GetValue(name="a"))
        assert out.reply.client_action.reply.payload == pack(pb.Value(value=i + 100))
        assert stream.half_close() == []


def test_reports_are_logged():
    with Function() as function, grpc.insecure_channel("127.0.0.1:%d" % function.port) as channel:
        call = channel.unary_unary("/cloudstate.EntityDiscovery/reportError",
                                   protos.entity.UserFunctionError.SerializeToString,
                                   empty_pb2.Empty.FromString)
        call(protos.entity.UserFunctionError(message="Service [x] unknown"), timeout=20)
        assert "ERROR" in function.wait_for("the proxy reports: Service [x] unknown")


def test_sigterm_ends_idle_streams_well_and_the_process():
    with Function() as function, grpc.insecure_channel("127.0.0.1:%d" % function.port) as channel:
        streams = [Stream(channel).init("entity-%d" % i) for i in range(3)]
        for stream in streams:
            stream.command("Increase", pb.IncreaseBy(name="a", by=1))
        function.process.send_signal(signal.SIGTERM)
        for stream in streams:
            assert list(stream.call) == []
            assert stream.call.code() == grpc.StatusCode.OK
        assert function.process.wait(20) == 0


def test_a_taken_or_wrong_port_is_named():
    with Function() as function:
        with pytest.raises(AssertionError, match="ended without(.|\n)*cairn_sdk: cannot listen on 127.0.0.1:%d: "
                           "Address already in use" % function.port):
            Function(PORT=str(function.port))
    with pytest.raises(AssertionError, match="cairn_sdk: PORT is 'http', which is no port number"):
        Function(PORT="http")


def test_the_spec_is_checked_before_anything_is_served():
    entity = cairn_sdk.EventSourced("cairn_sdk.test.Counter", "counter", state=int)
    with pytest.raises(cairn_sdk.DeclarationError):
        cairn_sdk.Server(entity)
    assert cairn_sdk.Server(declare()).port == 0
