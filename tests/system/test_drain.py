"""SIGTERM under load (DESIGN 5: a proxy drains without failing a call). Two proxies stand before one function, as pods
do behind a service; clients of gRPC and of HTTP/1.1 that no one here wrote use the first, which is stopped, and then
the other."""

import http.client
import json
import threading

import grpc
import pytest

import harness
from reflection import Api

SERVICE = "com.example.shoppingcart.ShoppingCart"
GRPC_CLIENTS, HTTP_CLIENTS = 4, 3
LINE = {"productId": "p", "name": "n", "quantity": 1}


class Client:
    """A thread that calls until it is told to stop; every failed call is kept."""

    def __init__(self, user):
        self.user, self.added, self.calls, self.wrong = user, 0, 0, []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, name=user)
        self.thread.start()

    def run(self):
        while not self.stopped.is_set():
            try:
                self.once()
                self.calls += 1
            except Exception as wrong:  # whatever it is, it is the finding
                self.wrong.append("%s, call %d: %r" % (self.user, self.calls, wrong))

    def stop(self):
        self.stopped.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


class GrpcClient(Client):
    """Both proxies behind one channel, which keeps to the first as long as that takes calls."""

    def __init__(self, user, ports):
        self.channel = grpc.insecure_channel(
            "ipv4:" + ",".join("127.0.0.1:%d" % port for port in ports),
            [("grpc.use_local_subchannel_pool", 1),
             ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)])
        api = Api(self.channel)
        self.method = {name: api.rpc("%s/%s" % (SERVICE, name)) for name in ("AddItem", "GetCart")}
        self.requests = {
            "AddItem": api.request("%s/AddItem" % SERVICE, user_id=user, product_id="p", name="n", quantity=1),
            "GetCart": api.request("%s/GetCart" % SERVICE, user_id=user)}
        super().__init__(user)

    def once(self):
        self.method["AddItem"](self.requests["AddItem"], timeout=30, wait_for_ready=True)
        self.added += 1
        cart = self.method["GetCart"](self.requests["GetCart"], timeout=30, wait_for_ready=True)
        assert sum(item.quantity for item in cart.items) == self.added

    def stop(self):
        super().stop()
        self.channel.close()


class HttpClient(Client):
    """Keeps its connection as long as the server lets it. One that cannot be made is made to the other proxy; one
    that breaks in a request is a failed call."""

    def __init__(self, user, ports):
        self.ports, self.connection = list(ports), None
        super().__init__(user)

    def request(self, method, path, body=None):
        if self.connection is None:
            self.connect()
        self.connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.will_close:
            self.connection.close()
            self.connection = None
        assert answer.status == 200, (answer.status, text)
        return json.loads(text)

    def connect(self):
        for port in list(self.ports):
            self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                return self.connection.connect()
            except ConnectionRefusedError:
                self.ports.append(self.ports.pop(0))
        raise AssertionError("nobody takes a connection")

    def once(self):
        self.request("POST", "/cart/%s/items/add" % self.user, json.dumps(LINE))
        self.added += 1
        assert sum(item["quantity"] for item in self.request("GET", "/carts/" + self.user)["items"]) == self.added


def calls(clients):
    return sum(client.calls for client in clients)


@pytest.mark.parametrize("function", ["sample", "go_cart"])
def test_a_proxy_that_is_stopped_under_load_fails_no_call(lab, function):
    behind, journal = getattr(lab, function)(), lab.cairnd("memory")
    first, second = (lab.proxy(behind, journal, name="proxy-%d" % i) for i in range(2))
    ports = first.port, second.port
    clients = [GrpcClient("grpc-%d" % i, ports) for i in range(GRPC_CLIENTS)]
    clients += [HttpClient("http-%d" % i, ports) for i in range(HTTP_CLIENTS)]
    try:
        harness.eventually(lambda: all(c.calls >= 10 for c in clients), "every client has called")
        assert first.terminate() == 0
        stopped = calls(clients)
        harness.eventually(lambda: calls(clients) >= stopped + 50, "they go on with the other one")
    finally:
        for client in clients:
            client.stop()
    assert not [text for client in clients for text in client.wrong]
