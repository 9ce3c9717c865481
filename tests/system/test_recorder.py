"""The recorder itself: a grpcio client in the proxy's place, a grpcio server as the function."""

import concurrent.futures
import threading

import grpc
import pytest
from google.protobuf import empty_pb2, wrappers_pb2

import protos
from entity import Entity
from recorder import (CANCEL, DISCOVER, HANDLE, NO_ERROR, PATIENCE, REPORT, SUPPORTED, Broken, End,
                      FromFunction, HalfClose, Open, Recorder, Reset, ToFunction)

CART = Entity("com.example.shoppingcart.ShoppingCart", "cart-1")
EMPTY = empty_pb2.Empty()
STREAM_OUT = protos.event_sourced.EventSourcedStreamOut
STREAM_IN = protos.event_sourced.EventSourcedStreamIn


def text(value):
    return wrappers_pb2.StringValue(value=value)


class Function:
    """A function of the test's own on a grpcio server. `handle` is given the requests and yields answers."""

    def __init__(self, handle, spec=None):
        self.spec = spec or protos.cloudstate.EntitySpec()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        self.server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("cloudstate.EntityDiscovery", {
                "discover": grpc.unary_unary_rpc_method_handler(
                    lambda request, context: self.spec, protos.cloudstate.ProxyInfo.FromString,
                    protos.cloudstate.EntitySpec.SerializeToString)}),
            grpc.method_handlers_generic_handler("cloudstate.eventsourced.EventSourced", {
                "handle": grpc.stream_stream_rpc_method_handler(
                    handle, STREAM_IN.FromString, STREAM_OUT.SerializeToString)})))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        assert self.server.stop(None).wait(PATIENCE)


def echo(requests, context):
    """Answers every command with its own payload."""
    for request in requests:
        if request.WhichOneof("message") == "command":
            command = request.command
            yield CART.reply(command.id, command.payload).message


def between(function):
    """A recorder in front of a function."""
    return Recorder(("127.0.0.1", function.port))


class Client:
    """What the proxy does, by grpcio."""

    def __init__(self, port):
        # Without a pool of its own, two clients of one address would share a connection.
        self.channel = grpc.insecure_channel("127.0.0.1:%d" % port, [("grpc.use_local_subchannel_pool", 1)])
        # grpcio reads its socket only while somebody waits; a subscriber does, so PINGs are answered.
        self.channel.subscribe(lambda state: None)
        self.discover = self.channel.unary_unary(DISCOVER, protos.cloudstate.ProxyInfo.SerializeToString,
                                                 protos.cloudstate.EntitySpec.FromString)
        self.report = self.channel.unary_unary(REPORT, protos.cloudstate.UserFunctionError.SerializeToString,
                                               empty_pb2.Empty.FromString)

    def handle(self):
        return Stream(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.channel.close()


class Stream:
    """A bidirectional call that sends when it is told to."""

    def __init__(self, channel):
        self._items, self._ready = [], threading.Condition()
        call = channel.stream_stream(HANDLE, STREAM_IN.SerializeToString, STREAM_OUT.FromString)
        self.call = call(self._requests())

    def _requests(self):
        while True:
            with self._ready:
                while not self._items:
                    assert self._ready.wait(4 * PATIENCE), "no test sends anything"
                item = self._items.pop(0)
            if item is None:
                return
            yield item

    def _put(self, item):
        with self._ready:
            self._items.append(item)
            self._ready.notify()

    def send(self, record):
        self._put(record.message)

    def half_close(self):
        self._put(None)

    def read(self):
        return next(self.call)


def proxy_info(**changes):
    info = protos.cloudstate.ProxyInfo(
        protocol_minor_version=2, proxy_name="a proxy", proxy_version="1",
        supported_entity_types=SUPPORTED)
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def test_keeps_the_exact_order_of_a_whole_stream():
    with Function(echo) as function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        stream.send(CART.command(1, "One", text("1")))
        assert stream.read() == CART.reply(1, text("1")).message
        stream.send(CART.command(2, "Two", text("2")))
        assert stream.read() == CART.reply(2, text("2")).message
        stream.half_close()
        assert list(stream.call) == []
        rec.expect(Open(HANDLE), CART.init(),
                   CART.command(1, "One", text("1")), CART.reply(1, text("1")),
                   CART.command(2, "Two", text("2")), CART.reply(2, text("2")),
                   HalfClose(), End(0))
        rec.nothing_more()


def test_discovery_passes_through_and_is_checked():
    spec = protos.cloudstate.EntitySpec(proto=b"abc")
    with Function(echo, spec) as function, between(function) as rec, Client(rec.port) as client:
        assert client.discover(proxy_info()) == spec
        assert rec.expect_discovery() == spec
        rec.nothing_more()
        client.discover(proxy_info(protocol_minor_version=1))
        with pytest.raises(AssertionError, match="protocol_minor_version: 1"):
            rec.expect_discovery()


def test_discovery_with_an_unknown_field_is_not_as_the_contract_has_it():
    odd = proxy_info()
    odd.MergeFromString(b"\xf8\x07\x01")  # field 127
    with Recorder(spec=protos.cloudstate.EntitySpec()) as rec, Client(rec.port) as client:
        client.discover(odd)
        with pytest.raises(AssertionError):
            rec.expect_discovery()


def test_tells_a_cancel_from_a_half_close():
    with Function(echo) as function, between(function) as rec, Client(rec.port) as client:
        closed, cancelled = client.handle(), client.handle()
        other = Entity(CART.service, "cart-2")
        for stream, entity in ((closed, CART), (cancelled, other)):
            stream.send(entity.init())
        for stream in (closed, cancelled):
            stream.send(CART.command(1, "One", text("1")))
            stream.read()
        second, first = rec.entity(other), rec.entity(CART)
        for view, entity in ((first, CART), (second, other)):
            view.expect(entity.init(), CART.command(1, "One", text("1")), CART.reply(1, text("1")))
        closed.half_close()
        assert list(closed.call) == []
        first.expect(HalfClose(), End(0))
        cancelled.call.cancel()
        second.expect(Reset("proxy", CANCEL))
        rec.nothing_more()


def test_a_reset_does_not_pass_for_a_half_close():
    with Function(echo) as function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        stream.send(CART.command(1, "One", text("1")))
        stream.read()
        view = rec.stream()
        view.expect(CART.init(), CART.command(1, "One", text("1")), CART.reply(1, text("1")))
        stream.call.cancel()
        with pytest.raises(AssertionError, match="Reset"):
            view.expect(HalfClose())


def test_the_function_ends_with_a_status_before_the_half_close():
    def refuse(requests, context):
        next(requests)
        context.abort(grpc.StatusCode.ABORTED, "no, not «this»")
        yield
    with Function(refuse) as function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        with pytest.raises(grpc.RpcError) as error:
            stream.read()
        assert error.value.code() == grpc.StatusCode.ABORTED
        assert error.value.details() == "no, not «this»"
        rec.expect(Open(HANDLE), CART.init(), End(10, "no, not «this»"))


def test_nothing_more_sees_what_was_not_expected():
    with Function(echo) as function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        stream.send(CART.command(1, "One", text("1")))
        stream.read()
        rec.expect(Open(HANDLE), CART.init())
        with pytest.raises(AssertionError, match="not expected: .*command"):
            rec.nothing_more()


def test_another_order_is_not_accepted():
    with Function(echo) as function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        stream.send(CART.event(1, text("a")))
        stream.send(CART.event(2, text("b")))
        view = rec.stream()
        view.expect(CART.init())
        with pytest.raises(AssertionError, match="expected"):
            view.expect(CART.event(2, text("b")), CART.event(1, text("a")))


def test_a_wait_in_vain_ends_and_shows_the_recording():
    with Recorder(spec=protos.cloudstate.EntitySpec()) as rec, Client(rec.port) as client:
        client.discover(proxy_info())
        rec.expect_discovery()
        with pytest.raises(AssertionError, match="(?s)waited in vain.*ProxyInfo"):
            rec.stream(HANDLE, timeout=0.05)


def test_the_test_plays_the_function():
    with Recorder(spec=protos.cloudstate.EntitySpec(proto=b"x")) as rec, Client(rec.port) as client:
        assert client.discover(proxy_info()).proto == b"x"
        rec.expect_discovery()
        stream = client.handle()
        stream.send(CART.init())
        view = rec.stream()
        view.expect(CART.init())
        stream.send(CART.command(1, "One", text("1")))
        view.expect(CART.command(1, "One", text("1")))
        view.send(CART.reply(1, text("2")).message)
        assert stream.read() == CART.reply(1, text("2")).message
        stream.half_close()
        view.expect(HalfClose())
        view.end(9, "later")
        with pytest.raises(grpc.RpcError) as error:
            stream.read()
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "later")
        client.report(protos.cloudstate.UserFunctionError(message="Service [x] unknown"))
        rec.expect_report(r"^Service \[x\] unknown$")
        rec.nothing_more()


def test_the_played_function_resets():
    with Recorder(spec=protos.cloudstate.EntitySpec()) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        view = rec.stream()
        view.expect(CART.init())
        view.reset(CANCEL)
        with pytest.raises(grpc.RpcError) as error:
            stream.read()
        assert error.value.code() == grpc.StatusCode.CANCELLED
        rec.nothing_more()


def test_the_played_function_dies_in_mid_reply():
    with Recorder(spec=protos.cloudstate.EntitySpec()) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        view = rec.stream()
        view.expect(CART.init())
        view.send_bytes(b"\0\0\0\0\x20half of")
        view.drop()
        with pytest.raises(grpc.RpcError) as error:
            stream.read()
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        rec.nothing_more()


def test_a_function_that_dies_breaks_its_streams():
    function = Function(echo)
    with function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        stream.send(CART.command(1, "One", text("1")))
        stream.read()
        view = rec.stream()
        view.expect(CART.init(), CART.command(1, "One", text("1")), CART.reply(1, text("1")))
        rec.run(view.connection.up.abort)
        view.expect(Broken("function"))
        with pytest.raises(grpc.RpcError):
            stream.read()


def test_a_proxy_that_dies_breaks_its_streams():
    with Recorder(spec=protos.cloudstate.EntitySpec()) as rec:
        client = Client(rec.port)
        stream = client.handle()
        stream.send(CART.init())
        view = rec.stream()
        view.expect(CART.init())
        rec.run(view.connection.down.transport.close)  # the same to this side as the other side's end
        view.expect(Broken("proxy"))
        client.channel.close()


def test_streams_beyond_the_limit_wait_or_go_elsewhere():
    with Recorder(spec=protos.cloudstate.EntitySpec(), max_streams=2) as rec, Client(rec.port) as client:
        client.discover(proxy_info())  # so the settings are known to the client
        rec.expect_discovery()
        streams = [client.handle() for _ in range(3)]
        for stream in streams:
            stream.send(CART.init())
        first, second = rec.stream(), rec.stream()
        first.expect(CART.init())
        second.expect(CART.init())
        assert first.connection.open_streams() == 2
        rec.nothing_more()
        first.end()
        third = rec.stream()
        third.expect(CART.init())
        assert first.connection.open_streams() == 2 or third.connection is not first.connection


def test_a_reply_greater_than_every_window_passes():
    big = text("x" * 3_000_000)

    def answer(requests, context):
        for _ in requests:
            yield CART.reply(1, big).message
    with Function(answer) as function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.command(1, "Big", big))
        assert stream.read() == CART.reply(1, big).message
        stream.half_close()
        assert list(stream.call) == []
        rec.expect(Open(HANDLE), CART.command(1, "Big", big), CART.reply(1, big), HalfClose(), End(0))
        rec.nothing_more()


def test_back_pressure_passes_through():
    sent = []

    def flood(requests, context):
        next(requests)
        for i in range(200):
            sent.append(i)
            yield CART.reply(i + 1, text("x" * 100_000)).message

    with Function(flood) as function, between(function) as rec, Client(rec.port) as client:
        stream = client.handle()
        stream.send(CART.init())
        view = rec.stream()
        view.expect(CART.init(), FromFunction())
        # The client reads nothing. The function comes to a stand when the windows are full: 100 PINGs later
        # nothing has changed.
        before = -1
        while before != len(sent):
            before = len(sent)
            for _ in range(100):
                rec.run(view.connection.ping, view.connection.down)
        assert len(sent) < 200
        stream.half_close()
        assert [answer.reply.command_id for answer in stream.call] == list(range(1, 201))
        assert len(sent) == 200


def test_a_garbled_message_is_a_violation():
    with Recorder(spec=protos.cloudstate.EntitySpec()) as rec:
        channel = grpc.insecure_channel("127.0.0.1:%d" % rec.port)
        call = channel.stream_stream(HANDLE, bytes, bytes)(iter([b"\xff\xff\xff"]))
        with pytest.raises(AssertionError, match="(?s)Violation.*undecodable"):
            rec.expect(Open(HANDLE), ToFunction())
        call.cancel()
        channel.close()


def test_a_function_that_is_not_there_is_unavailable_and_then_there():
    with Recorder(spec=protos.cloudstate.EntitySpec(proto=b"x"), listen=False) as rec, \
            Client(rec.port) as client:
        with pytest.raises(grpc.RpcError) as error:
            client.discover(proxy_info())
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert rec.records == []
        rec.listen()
        assert client.discover(proxy_info(), wait_for_ready=True).proto == b"x"
        rec.expect_discovery()


def test_goaway_lets_open_streams_finish():
    with Recorder(spec=protos.cloudstate.EntitySpec()) as rec, Client(rec.port) as client:
        old = client.handle()
        old.send(CART.init())
        view = rec.stream()
        view.expect(CART.init())
        rec.goaway(NO_ERROR)
        rec.run(view.connection.ping, view.connection.down)  # so the client has read it
        assert client.discover(proxy_info(), wait_for_ready=True) == protos.cloudstate.EntitySpec()
        rec.expect_discovery()
        assert len(rec.connections) == 2
        view.send(CART.reply(1, text("still")).message)
        assert old.read() == CART.reply(1, text("still")).message
        old.half_close()
        view.expect(HalfClose())
        view.end()
        assert list(old.call) == []
        rec.nothing_more()
