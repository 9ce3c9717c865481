"""The main job: real functions behind a real proxy and journal; commands by gRPC through reflection and by
HTTP; functions, proxy and journal killed in turn."""

import json
import threading

import grpc
import pytest
from google.protobuf import any_pb2

import harness
from entity import Entity
from recorder import HANDLE, PATIENCE
from records import Broken, End, FromFunction, HalfClose
from reflection import Api

SERVICE = "com.example.shoppingcart.ShoppingCart"
PROCESS = "cloudstate.tck.model.EventSourcedTckModel"
EMPTY = any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Empty")


@pytest.fixture(params=["go_cart", "sample"])
def cart(request, lab):
    return getattr(lab, request.param)()


def files_journal(lab):
    return lab.cairnd("file:%s" % (lab.folder / "data"))


def products(api, user):
    return {i.product_id: i.quantity for i in api.call(SERVICE + "/GetCart", user_id=user).items}


def test_the_thread(lab, cart):
    """AddItem and GetCart to a client that knows the service only by reflection, the function killed in
    between; the recorder saw exactly the messages of the contract."""
    rec = lab.recorder(cart)
    proxy = lab.proxy(rec, lab.cairnd("memory"))
    rec.expect_discovery()
    api = Api(harness.channel_to(proxy.port))
    assert api.services == [SERVICE]
    user = Entity(SERVICE, "user-1")
    item = dict(user_id="user-1", product_id="p", name="thing", quantity=2)
    api.call(SERVICE + "/AddItem", **item)
    stream = rec.stream()
    stream.expect(user.init(), user.command(1, "AddItem", api.request(SERVICE + "/AddItem", **item)))
    added = stream.next(FromFunction).reply
    event, = added.events
    assert FromFunction(user.reply(1, EMPTY, [event]).message.reply).matches(FromFunction(added))
    rec.nothing_more()

    cart.kill()
    stream.expect(Broken("function"))
    cart.start()
    cart.ready()
    rec.expect_discovery()

    got = api.call(SERVICE + "/GetCart", user_id="user-1")
    assert [(i.product_id, i.name, i.quantity) for i in got.items] == [("p", "thing", 2)]
    again = rec.stream()
    again.expect(user.init(), user.event(1, event),
                 user.command(1, "GetCart", api.request(SERVICE + "/GetCart", user_id="user-1")),
                 user.reply(1, got))
    rec.nothing_more()


def test_everything_is_killed_in_turn(lab, cart):
    rec = lab.recorder(cart)
    journal = files_journal(lab)
    proxy = lab.proxy(rec, journal)
    wanted = {}
    api = Api(harness.channel_to(proxy.port))

    def add(product_id, quantity):
        api.call(SERVICE + "/AddItem", user_id="u", product_id=product_id, name=product_id,
                 quantity=quantity)
        wanted[product_id] = wanted.get(product_id, 0) + quantity

    for round_number in range(harness.scaled(3)):
        add("a", 1)
        add("b", 2)
        for victim in (cart, proxy, journal):
            victim.kill()
            victim.start()
            victim.ready()
            proxy.ready()

            def back():
                try:
                    return products(api, "u")
                except grpc.RpcError as error:  # on its way back: nothing else is an answer
                    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN), error
                    return None
            assert harness.eventually(back, "the cart is back after %s was killed" % victim.name) == wanted
            add("c%d" % round_number, 1)
            assert products(api, "u") == wanted


class Shopper(threading.Thread):
    """Adds one product after another to a cart of its own, each once, and keeps what it was told of each."""

    def __init__(self, port, user):
        super().__init__(daemon=True)
        self.user, self.kept, self.unknown, self.refused = user, set(), set(), []
        self._api = Api(harness.channel_to(port))
        self._stopped = threading.Event()
        self.start()

    def run(self):
        number = 0
        while not self._stopped.is_set():
            number += 1
            product_id = "%s-%d" % (self.user, number)
            try:
                self._api.call(SERVICE + "/AddItem", user_id=self.user, product_id=product_id, name="n",
                               quantity=1)
                self.kept.add(product_id)
            except grpc.RpcError as error:
                self.unknown.add(product_id)
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN,
                                        grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.refused.append(error)

    def stop(self):
        self._stopped.set()
        self.join()


def test_killed_under_load_nothing_is_missing_and_nothing_doubled(lab, cart):
    journal = files_journal(lab)
    proxy = lab.proxy(cart, journal)
    shoppers = [Shopper(proxy.port, "user%d" % i) for i in range(4)]
    for _ in range(harness.scaled(4)):
        for victim in (cart, proxy, journal):
            before = [len(s.kept) for s in shoppers]
            harness.eventually(lambda: all(len(s.kept) > b + 3 for s, b in zip(shoppers, before)),
                               "every client is served", 4 * PATIENCE)
            victim.kill()
            victim.start()
            victim.ready()
    proxy.ready()
    for shopper in shoppers:
        shopper.stop()
    api = Api(harness.channel_to(proxy.port))
    for shopper in shoppers:
        assert shopper.refused == []
        there = products(api, shopper.user)
        assert shopper.kept <= set(there), "missing: %s" % (shopper.kept - set(there))
        assert set(there) <= shopper.kept | shopper.unknown, "never asked for"
        assert set(there.values()) == {1}, "doubled: %s" % there


def test_snapshots_are_taken_and_used(lab, cart):
    every = {"go-cart": 5, "sample": 20}[cart.name]
    rec = lab.recorder(cart)
    proxy = lab.proxy(rec, lab.cairnd("memory"))
    api = Api(harness.channel_to(proxy.port))
    for i in range(every + 2):
        api.call(SERVICE + "/AddItem", user_id="u", product_id="p%d" % (i % 3), name="n", quantity=1)
    before = products(api, "u")
    stream = rec.stream()
    replies = []
    while len(replies) < every + 2:
        seen = rec.take_next(stream.number)
        if isinstance(seen, FromFunction):
            replies.append(seen.message.reply)
    assert [r.HasField("snapshot") for r in replies] == [False] * (every - 1) + [True, False, False]
    cart.kill()
    cart.start()
    cart.ready()
    proxy.ready()
    rec.wait(lambda: sum(r.__class__.__name__ == "Open" and r.path.endswith("discover")
                         for r in rec.records) == 2, "a second discovery")
    assert products(api, "u") == before
    again = rec.stream()
    user = Entity(SERVICE, "u")
    again.expect(user.init(replies[every - 1].snapshot, every),
                 user.event(every + 1, replies[every].events[0]),
                 user.event(every + 2, replies[every + 1].events[0]),
                 user.command(1, "GetCart", api.request(SERVICE + "/GetCart", user_id="u")), FromFunction())


def test_the_cart_by_http(lab, cart):
    proxy = lab.proxy(cart, lab.cairnd("memory"))
    answer = harness.http_request(proxy.port, "POST", "/cart/u/items/add",
                                  '{"productId": "p", "name": "thing", "quantity": 2}')
    assert (answer.status, answer.body) == (200, b"{}"), answer
    answer = harness.http_request(proxy.port, "GET", "/carts/u")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == {"items": [{"productId": "p", "name": "thing", "quantity": 2}]}
    answer = harness.http_request(proxy.port, "GET", "/carts/u/items")
    assert json.loads(answer.body) == [{"productId": "p", "name": "thing", "quantity": 2}]
    answer = harness.http_request(proxy.port, "POST", "/cart/u/items/add", '{"productId": "p"}')
    assert answer.status == 500 and answer.headers["content-type"] == "text/plain; charset=UTF-8"
    assert b"p" in answer.body
    answer = harness.http_request(proxy.port, "POST", "/cart/u/items/p/remove")
    assert (answer.status, answer.body) == (200, b"{}"), answer
    assert json.loads(harness.http_request(proxy.port, "GET", "/carts/u").body) == {"items": []}


def test_many_clients_at_once(lab, cart):
    proxy = lab.proxy(cart, lab.cairnd("memory"))
    channel = harness.channel_to(proxy.port)
    api = Api(channel)
    futures = [api.start(SERVICE + "/AddItem", user_id="u%d" % (i % 10), product_id="p", name="n", quantity=1)
               for i in range(harness.scaled(300, 50))]
    for future in futures:
        future.result()
    assert sum(products(api, "u%d" % i)["p"] for i in range(10)) == len(futures)


# --- the Go SDK's model services -----------------------------------------------------------

@pytest.fixture
def model(lab):
    """The model services behind recorder and proxy: (recorder, api)."""
    rec = lab.recorder(lab.go_models())
    proxy = lab.proxy(rec, lab.cairnd("memory"))
    rec.expect_discovery()
    return rec, Api(harness.channel_to(proxy.port))


def process(api, *actions, entity_id="entity-1"):
    return api.call(PROCESS + "/Process", id=entity_id, actions=list(actions)).message


def emit(value):
    return {"emit": {"value": value}}


def test_model_emits(model):
    rec, api = model
    assert process(api) == ""
    assert process(api, emit("A")) == "A"
    assert process(api, emit("B"), emit("C")) == "ABC"
    e = Entity(PROCESS, "entity-1")
    stream = rec.stream()
    ask = [api.request(PROCESS + "/Process", id="entity-1", actions=a)
           for a in ([], [emit("A")], [emit("B"), emit("C")])]
    persisted = api.type("cloudstate.tck.model.Persisted")
    answer = api.type("cloudstate.tck.model.Response")
    stream.expect(e.init(), e.command(1, "Process", ask[0]), e.reply(1, answer()),
                  e.command(2, "Process", ask[1]), e.reply(2, answer(message="A"), [persisted(value="A")]),
                  e.command(3, "Process", ask[2]),
                  e.reply(3, answer(message="ABC"), [persisted(value="B"), persisted(value="C")]))
    rec.nothing_more()


def test_model_fails_after_emitting_and_restarts(model):
    rec, api = model
    assert process(api, emit("A")) == "A"
    assert harness.refused(process, api, emit("X"), {"fail": {"message": "no"}}) == ("UNKNOWN", "no")
    e = Entity(PROCESS, "entity-1")
    persisted = api.type("cloudstate.tck.model.Persisted")
    stream, again = rec.stream(), rec.stream()
    stream.expect(e.init())
    for _ in range(4):
        rec.take_next(stream.number)
    stream.expect(HalfClose(), End(0))
    again.expect(e.init(), e.event(1, persisted(value="A")))
    rec.nothing_more()
    assert process(api, emit("B")) == "AB"
    ask = api.request(PROCESS + "/Process", id="entity-1", actions=[emit("B")])
    answer = api.type("cloudstate.tck.model.Response")
    again.expect(e.command(1, "Process", ask), e.reply(1, answer(message="AB"), [persisted(value="B")]))
    rec.nothing_more()


def test_model_forwards_and_effects(model):
    rec, api = model
    two = "cloudstate.tck.model.EventSourcedTwo"
    assert process(api, {"forward": {"id": "other"}}) == ""
    assert process(api, emit("A"), {"effect": {"id": "third", "synchronous": True}}) == "A"
    for entity_id in ("other", "third"):
        e = Entity(two, entity_id)
        stream = rec.entity(e)
        stream.expect(e.init(), e.command(1, "Call", api.request(two + "/Call", id=entity_id)),
                      e.reply(1, api.type("cloudstate.tck.model.Response")()))


def test_model_passivates(model):
    rec, api = model
    configured = "cloudstate.tck.model.EventSourcedConfigured"
    api.call(configured + "/Call", id="c")
    stream = rec.entity(Entity(configured, "c"))
    rec.take_next(stream.number)
    rec.take_next(stream.number)
    reply = rec.take_next(stream.number)
    closed, _ = stream.expect(HalfClose(), End(0), timeout=2)
    assert closed.at - reply.at < 2
    rec.nothing_more()


def test_model_takes_snapshots(model):
    rec, api = model
    for i in range(7):
        process(api, emit(str(i)))
    e = Entity(PROCESS, "entity-1")
    persisted = api.type("cloudstate.tck.model.Persisted")
    # A failure after an event makes it replay.
    assert harness.refused(process, api, emit("X"), {"fail": {"message": "no"}})[0] == "UNKNOWN"
    rec.stream()
    again = rec.stream()
    again.expect(e.init(persisted(value="01234"), 5), e.event(6, persisted(value="5")),
                 e.event(7, persisted(value="6")))


def test_commands_from_many_threads_keep_every_event(model):
    rec, api = model
    threads = [threading.Thread(target=lambda i=i: [process(api, emit("%d," % i)) for _ in range(10)])
               for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = process(api)
    assert sorted(state.split(",")[:-1]) == sorted(str(i) for i in range(8) for _ in range(10))
    assert sum(r.path == HANDLE for r in rec.records if hasattr(r, "path")) == 1
