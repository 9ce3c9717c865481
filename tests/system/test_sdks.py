"""Functions on the protocol's older SDKs, which announce no version: behind the proxy with its compatibility
switch."""

import pytest
from google.protobuf import any_pb2

import harness
from entity import Entity
from records import FromFunction
from reflection import Api

SERVICE = "com.example.shoppingcart.ShoppingCart"
EMPTY = any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Empty")


@pytest.fixture
def cart(lab):
    return lab.python_sdk_cart()


def test_it_is_refused_without_the_switch(lab, cart):
    rec = lab.recorder(cart)
    proxy = lab.proxy(rec, harness.free_port(), wait=False)
    rec.expect_discovery()
    # It answers reportError with nothing, which its own gRPC takes for an error: it was told all the same.
    view = rec.stream("/cloudstate.EntityDiscovery/reportError")
    assert "0.0" in view.next().message
    assert not harness.accepts(proxy.port)


def test_it_keeps_its_state(lab, cart):
    rec = lab.recorder(cart)
    proxy = lab.proxy(rec, lab.cairnd("memory"), options=["--protocol-check=off"])
    spec = rec.expect_discovery()
    assert (spec.service_info.protocol_major_version, spec.service_info.protocol_minor_version) == (0, 0)
    api = Api(harness.channel_to(proxy.port))
    assert api.services == [SERVICE]
    user = Entity(SERVICE, "u")

    def add(quantity):
        return api.request(SERVICE + "/AddItem", user_id="u", product_id="p", name="n", quantity=quantity)
    api.stub(SERVICE + "/AddItem")(add(2), timeout=20)
    assert harness.refused(api.stub(SERVICE + "/AddItem"), add(0), timeout=20) == (
        "UNKNOWN", "['Cannot add negative quantity of to item p']")
    assert harness.refused(api.call, SERVICE + "/RemoveItem", user_id="u", product_id="x") == (
        "UNKNOWN", "[\"'no x'\"]")
    stream = rec.stream()
    stream.expect(user.init(), user.command(1, "AddItem", add(2)))
    added = stream.next(FromFunction).reply
    assert FromFunction(user.reply(1, EMPTY, added.events).message.reply).matches(FromFunction(added))
    stream.expect(user.command(2, "AddItem", add(0)),
                  user.refusal(2, "['Cannot add negative quantity of to item p']"))
    stream.expect(user.command(3, "RemoveItem", api.request(
        SERVICE + "/RemoveItem", user_id="u", product_id="x")), user.refusal(3, "[\"'no x'\"]"))
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
