"""Functions on the protocol's older SDKs, which announce no version: behind the proxy with its compatibility
switch. A cart on the Python SDK (0.1.1) and one on the Java SDK (0.5.2)."""

import pytest
from google.protobuf import any_pb2

import harness
from entity import Entity
from records import FromFunction
from reflection import Api

SERVICE = "com.example.shoppingcart.ShoppingCart"
EMPTY = any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Empty")
# What the client is told when nothing is added, and when what is not there is removed.
REFUSALS = {
    "python-sdk-cart": ("['Cannot add negative quantity of to item p']", "[\"'no x'\"]"),
    "java-sdk-cart": ("Cannot add negative quantity of to item p", "Cannot remove item x"),
}
OFF = ["--protocol-check=off"]


@pytest.fixture(params=["python_sdk_cart", "java_sdk_cart"])
def cart(request, lab):
    return getattr(lab, request.param)()


def test_it_is_refused_without_the_switch_and_keeps_its_state_with_it(lab, cart):
    refusing = lab.recorder(cart)
    proxy = lab.proxy(refusing, harness.free_port(), name="strict", wait=False)
    spec = refusing.expect_discovery()
    assert (spec.service_info.protocol_major_version, spec.service_info.protocol_minor_version) == (0, 0)
    # Python's answers reportError with nothing, which its gRPC takes for an error; it was told all the same.
    assert "0.0" in refusing.stream("/cloudstate.EntityDiscovery/reportError").next().message
    assert not harness.accepts(proxy.port)

    rec = lab.recorder(cart)
    proxy = lab.proxy(rec, lab.cairnd("memory"), options=OFF)
    rec.expect_discovery()
    api = Api(harness.channel_to(proxy.port))
    assert api.services == [SERVICE]
    user = Entity(SERVICE, "u")

    def add(quantity):
        return api.request(SERVICE + "/AddItem", user_id="u", product_id="p", name="n", quantity=quantity)
    nothing_added, nothing_removed = REFUSALS[cart.name]
    api.rpc(SERVICE + "/AddItem")(add(2), timeout=20)
    assert harness.refused(api.rpc(SERVICE + "/AddItem"), add(0), timeout=20) == ("UNKNOWN", nothing_added)
    assert harness.refused(api.call, SERVICE + "/RemoveItem", user_id="u", product_id="x") == (
        "UNKNOWN", nothing_removed)
    stream = rec.stream()
    stream.expect(user.init(), user.command(1, "AddItem", add(2)))
    added = stream.next(FromFunction).reply
    assert FromFunction(user.reply(1, EMPTY, added.events).message.reply).matches(FromFunction(added))
    remove = api.request(SERVICE + "/RemoveItem", user_id="u", product_id="x")
    stream.expect(user.command(2, "AddItem", add(0)), user.refusal(2, nothing_added),
                  user.command(3, "RemoveItem", remove), user.refusal(3, nothing_removed))
    rec.nothing_more()

    cart.kill()
    rec.wait(lambda: not any(c.alive for c in rec.connections), "the loss of the connection")
    rec.forgive(lambda r: True)
    cart.start()
    cart.ready()
    rec.expect_discovery()
    got = api.call(SERVICE + "/GetCart", user_id="u", timeout=20)
    assert [(i.product_id, i.quantity) for i in got.items] == [("p", 2)]
    again = rec.stream()
    again.expect(user.init(), user.event(1, added.events[0]),
                 user.command(1, "GetCart", api.request(SERVICE + "/GetCart", user_id="u")),
                 user.reply(1, got))
    rec.nothing_more()


def test_java_takes_snapshots_and_takes_them_back(lab):
    rec = lab.recorder(lab.java_sdk_cart())
    proxy = lab.proxy(rec, lab.cairnd("memory"), options=OFF + ["--passivation-timeout", "300ms"])
    api = Api(harness.channel_to(proxy.port))
    user = Entity(SERVICE, "u")
    for _ in range(4):
        api.call(SERVICE + "/AddItem", user_id="u", product_id="p", name="n", quantity=1)
    replies = [r.message.reply for r in rec.records
               if isinstance(r, FromFunction) and hasattr(r.message, "reply")]
    assert [r.HasField("snapshot") for r in replies] == [False, False, True, False]
    first = rec.stream()
    rec.wait(lambda: first.connection.open_streams() == 0, "passivation")
    got = api.call(SERVICE + "/GetCart", user_id="u")
    assert [i.quantity for i in got.items] == [4]
    rec.stream().expect(
        user.init(replies[2].snapshot, 3), user.event(4, replies[3].events[0]),
        user.command(1, "GetCart", api.request(SERVICE + "/GetCart", user_id="u")), user.reply(1, got))
