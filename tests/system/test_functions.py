"""Functions under the harness, driven as a proxy drives them, through the recorder: the Go SDK's cart and our
sample must be interchangeable."""

import queue
import subprocess

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, empty_pb2, message_factory

import harness
import protos
import tools
from entity import Entity
from recorder import (DISCOVER, HANDLE, SUPPORTED, Broken, End, FromFunction, HalfClose)

SERVICE = "com.example.shoppingcart.ShoppingCart"
USER = Entity(SERVICE, "user-1")
EMPTY = empty_pb2.Empty()
IN, OUT = protos.event_sourced.EventSourcedStreamIn, protos.event_sourced.EventSourcedStreamOut


class Proxy:
    """A proxy's calls, by grpcio."""

    def __init__(self, port):
        self._channel = harness.channel_to(port)

    def discover(self):
        call = self._channel.unary_unary(DISCOVER, protos.cloudstate.ProxyInfo.SerializeToString,
                                         protos.cloudstate.EntitySpec.FromString)
        return call(protos.cloudstate.ProxyInfo(
            protocol_minor_version=2, proxy_name="test", proxy_version="1", supported_entity_types=SUPPORTED),
            timeout=20, wait_for_ready=True)

    def open(self, *records):
        requests = queue.Queue()
        for record in records:
            requests.put(record.message)
        call = self._channel.stream_stream(HANDLE, IN.SerializeToString, OUT.FromString)(
            iter(requests.get, None), timeout=20)
        call.requests = requests
        return call

    def close(self):
        self._channel.close()


def classes(spec):
    """The messages that a spec describes, by name."""
    pool = descriptor_pool.DescriptorPool()
    files = {f.name: f for f in descriptor_pb2.FileDescriptorSet.FromString(spec.proto).file}

    def add(name):
        if name in files:
            file = files.pop(name)
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)
    while files:
        add(next(iter(files)))
    factory = message_factory.MessageFactory(pool)
    return lambda name: factory.GetPrototype(pool.FindMessageTypeByName(name))


@pytest.fixture(params=["go_cart", "sample"])
def cart(request, lab):
    return getattr(lab, request.param)()


def test_discovery_tells_the_cart(lab, cart):
    rec = lab.recorder(cart)
    spec = Proxy(rec.port).discover()
    assert rec.expect_discovery() == spec
    info = spec.service_info
    assert (info.protocol_major_version, info.protocol_minor_version) == (0, 2)
    entity, = spec.entities
    assert (entity.entity_type, entity.service_name) == ("cloudstate.eventsourced.EventSourced", SERVICE)
    service = [s for f in descriptor_pb2.FileDescriptorSet.FromString(spec.proto).file for s in f.service
               if "%s.%s" % (f.package, s.name) == SERVICE][0]
    assert [m.name for m in service.method] == ["AddItem", "RemoveItem", "GetCart"]
    for method in service.method:
        options = descriptor_pb2.MethodOptions.FromString(method.options.SerializeToString())
        assert options.HasExtension(protos.annotations.http), method.name
    rec.nothing_more()


def test_commands_failures_and_the_half_close(lab, cart):
    rec = lab.recorder(cart)
    proxy = Proxy(rec.port)
    kinds = classes(proxy.discover())
    rec.expect_discovery()
    add = kinds("com.example.shoppingcart.AddLineItem")
    get = kinds("com.example.shoppingcart.GetShoppingCart")(user_id="user-1")
    cart_of = kinds("com.example.shoppingcart.Cart")
    good = add(user_id="user-1", product_id="p", name="thing", quantity=2)
    stream = proxy.open(USER.init(), USER.command(1, "AddItem", good))
    added = next(stream).reply
    assert added.client_action.reply.payload == any_pb2.Any(
        type_url="type.googleapis.com/google.protobuf.Empty")
    assert len(added.events) == 1 and not added.HasField("snapshot")
    stream.requests.put(USER.command(2, "AddItem", add(user_id="user-1", product_id="p")).message)
    refused = next(stream).reply
    assert refused.client_action.failure.command_id == 2
    assert not refused.client_action.failure.restart and not refused.events
    stream.requests.put(USER.command(3, "GetCart", get).message)
    got = cart_of.FromString(next(stream).reply.client_action.reply.payload.value)
    assert [(i.product_id, i.name, i.quantity) for i in got.items] == [("p", "thing", 2)]
    stream.requests.put(None)
    assert list(stream) == []
    view = rec.stream()
    view.expect(USER.init(), USER.command(1, "AddItem", good), FromFunction(OUT(reply=added)))
    view.expect(USER.command(2, "AddItem", add(user_id="user-1", product_id="p")),
                FromFunction(OUT(reply=refused)), USER.command(3, "GetCart", get), FromFunction())
    view.expect(HalfClose(), End(0))
    rec.nothing_more()

    # Killed and started again, it has nothing but what is replayed.
    cart.kill()
    cart.start()
    cart.ready()
    again = Entity(SERVICE, "user-1")
    stream = Proxy(rec.port).open(again.init(), again.event(1, added.events[0]),
                                  again.command(1, "GetCart", get))
    assert next(stream).reply.client_action.reply.payload.value == got.SerializeToString()
    stream.requests.put(None)
    assert list(stream) == []


def test_a_killed_function_breaks_its_stream(lab, cart):
    rec = lab.recorder(cart)
    proxy = Proxy(rec.port)
    kinds = classes(proxy.discover())
    rec.expect_discovery()
    get = kinds("com.example.shoppingcart.GetShoppingCart")(user_id="user-1")
    stream = proxy.open(USER.init(), USER.command(1, "GetCart", get))
    next(stream)
    view = rec.stream()
    view.expect(USER.init(), USER.command(1, "GetCart", get), FromFunction())
    cart.kill()
    view.expect(Broken("function"))
    assert harness.refused(next, stream)[0] == "UNAVAILABLE"


def test_snapshots_come_and_are_taken_back(lab, cart):
    every = {"go-cart": 5, "sample": 20}[cart.name]
    rec = lab.recorder(cart)
    proxy = Proxy(rec.port)
    kinds = classes(proxy.discover())
    add = kinds("com.example.shoppingcart.AddLineItem")(
        user_id="user-1", product_id="p", name="thing", quantity=1)
    get = kinds("com.example.shoppingcart.GetShoppingCart")(user_id="user-1")
    stream = proxy.open(USER.init())
    replies = []
    for i in range(1, every + 2):
        stream.requests.put(USER.command(i, "AddItem", add).message)
        replies.append(next(stream).reply)
    assert [r.HasField("snapshot") for r in replies] == [False] * (every - 1) + [True, False]
    stream.requests.put(None)
    assert list(stream) == []
    back = proxy.open(USER.init(replies[every - 1].snapshot, every),
                      USER.event(every + 1, replies[every].events[0]), USER.command(1, "GetCart", get))
    cart_of = kinds("com.example.shoppingcart.Cart")
    got = cart_of.FromString(next(back).reply.client_action.reply.payload.value)
    assert [i.quantity for i in got.items] == [every + 1]
    back.requests.put(None)
    assert list(back) == []


def test_the_models_emit_forward_and_fail(lab):
    models = lab.go_models()
    rec = lab.recorder(models)
    proxy = Proxy(rec.port)
    spec = proxy.discover()
    rec.expect_discovery()
    assert sorted(e.persistence_id for e in spec.entities) == ["ShoppingCart", "configured", "model", "two"]
    configured = [e for e in spec.entities if e.persistence_id == "configured"][0]
    assert configured.passivation_strategy.timeout.timeout == 100
    request = classes(spec)("cloudstate.tck.model.Request")
    model = Entity("cloudstate.tck.model.EventSourcedTckModel", "entity-1")
    ask = request(id="entity-1", actions=[{"emit": {"value": "A"}}, {"fail": {"message": "no"}}])
    stream = proxy.open(model.init(), model.command(1, "Process", ask))
    failure = next(stream).reply.client_action.failure
    assert (failure.command_id, failure.description, failure.restart) == (1, "no", True)
    stream.requests.put(None)
    assert list(stream) == []


def test_grpcurl_is_there():
    done = subprocess.run([tools.grpcurl(), "-version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_process_that_ends_at_once_is_named(lab):
    with pytest.raises(AssertionError, match="(?s)doomed ended with 3 instead of being ready:.*too bad"):
        lab.function("doomed", ["sh", "-c", "echo too bad; exit 3"])
