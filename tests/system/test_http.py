"""The proxy's HTTP/JSON front as any HTTP client meets it, over HTTP/1.1 by hand and over HTTP/2 by curl,
before functions that no one here wrote and our own."""

import json
import socket
import subprocess
from concurrent import futures
from urllib.parse import quote

import pytest

import harness
import model
import tools
from harness import http_request
from reflection import Api
from stage import Stage

SERVICE = "com.example.shoppingcart.ShoppingCart"
JSON = {"Content-Type": "application/json"}
LINE = {"productId": "p", "name": "n", "quantity": 1}
BODY_MAX = 12 << 20


@pytest.fixture(params=["go_cart", "sample"])
def proxy(request, lab):
    return lab.proxy(getattr(lab, request.param)(), lab.cairnd("memory"))


def add(proxy, user, line=None, **options):
    return http_request(proxy.port, "POST", "/cart/%s/items/add" % quote(user, safe=""),
                        json.dumps(line or LINE), **options)


def items(proxy, user):
    answer = http_request(proxy.port, "GET", "/carts/" + quote(user, safe=""))
    assert answer.status == 200, answer
    return json.loads(answer.body)["items"]


def curl(tmp_path, *arguments, body=None):
    """curl's answer over HTTP/2 without TLS: (status, version, headers, body)."""
    head, data = tmp_path / "head", tmp_path / "data"
    written = subprocess.run(
        ["curl", "-sS", "--http2-prior-knowledge", "--max-time", "30", "-D", head, "-o", data,
         "-w", "%{http_code} %{http_version}", *arguments],
        input=body, stdout=subprocess.PIPE, check=True).stdout.decode().split()
    headers = dict(line.lower().split(": ", 1) for line in head.read_text().splitlines() if ": " in line)
    return int(written[0]), written[1], headers, data.read_bytes() if data.exists() else b""


class Raw:
    """An HTTP/1.1 connection whose bytes a test writes itself."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def answer(self, of_head=False):
        """The next answer: (status, headers, body), or None at the end."""
        line = self.file.readline()
        if not line:
            return None
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while True:
            header = self.file.readline().strip()
            if not header:
                break
            name, value = header.decode().split(":", 1)
            headers[name.lower()] = value.strip()
        status = int(line.split()[1])
        if of_head or status == 100:
            return status, headers, b""
        return status, headers, self.file.read(int(headers["content-length"]))


# --- commands --------------------------------------------------------------------------

def test_commands_by_their_bindings(proxy):
    answer = add(proxy, "ada")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"{}", "application/json")
    assert items(proxy, "ada") == [{"productId": "p", "name": "n", "quantity": 1}]
    answer = http_request(proxy.port, "GET", "/carts/ada/items")
    assert json.loads(answer.body) == [{"productId": "p", "name": "n", "quantity": 1}]
    answer = http_request(proxy.port, "POST", "/cart/ada/items/p/remove")
    assert (answer.status, answer.body) == (200, b"{}")
    assert items(proxy, "ada") == []


def test_a_refusal_is_500_and_the_functions_words_alone(proxy):
    answer = add(proxy, "ada", {**LINE, "quantity": -1})
    assert answer.status == 500 and answer.headers["content-type"] == "text/plain; charset=UTF-8"
    assert answer.body.lower().startswith(b"cannot add ") and b"\n" not in answer.body
    assert items(proxy, "ada") == []


@pytest.mark.parametrize("user", [
    "a/b", "a:b", "100%", "a+b", "a|b", "with space", "%2F", "?x=1&y", "#", "grüße", "日本語", "..", ".",
    "tilde~", "x" * 400, "ü" * 200, '"quoted"', "a\\b", ":", "a:add"])
def test_entity_ids_of_every_kind(proxy, user):
    answer = add(proxy, user)
    assert answer.status == 200, answer
    assert items(proxy, user) == [LINE]
    api = Api(harness.channel_to(proxy.port))
    seen = api.call(SERVICE + "/GetCart", user_id=user).items
    assert [(i.product_id, i.quantity) for i in seen] == [("p", 1)]


def test_a_plus_in_a_path_is_a_plus_and_ids_do_not_mix(proxy):
    assert http_request(proxy.port, "POST", "/cart/a+b/items/add", json.dumps(LINE)).status == 200
    assert items(proxy, "a+b") == [LINE]
    assert items(proxy, "a b") == []
    assert http_request(proxy.port, "GET", "/carts/a%2bb").status == 200
    assert items(proxy, "A+B") == []


def test_an_id_that_is_no_stream_name_is_refused(proxy):
    for user in ("x" * 500, "line\nfeed", "\x00", "tab\t"):
        answer = add(proxy, user)
        assert answer.status == 400, answer
        assert answer.body and b"\n" not in answer.body.rstrip(b"\n"), answer
    assert http_request(proxy.port, "GET", "/carts/%ff").status == 400
    assert http_request(proxy.port, "GET", "/carts/%zz").status == 400
    assert http_request(proxy.port, "GET", "/carts/").status == 404


# --- wrong requests -----------------------------------------------------------------------

@pytest.mark.parametrize("body, says", [
    ('{"productId": "p", "nope": 1}', "nope"),
    ('{"productId": "p", "product_id": "p"}', "product"),
    ('{"productId": "p"} x', "request body"),
    ('{"productId": "p"', "request body"),
    ('{"productId": 1}', "productId"),
    ('{"quantity": 2147483648}', "quantity"),
    ('{"quantity": 1.5}', "quantity"),
    ('{"quantity": "x"}', "quantity"),
    ('[]', "request body"),
    ('null x', "request body"),
    ('{"name": "\udcff"}'.encode("utf-8", "surrogateescape"), "request body"),
    ("[" * 100000, "request body"),
    ('{"a":' * 1000, "request body"),
])
def test_a_wrong_body_is_400_and_says_where(proxy, body, says):
    answer = http_request(proxy.port, "POST", "/cart/ada/items/add", body)
    assert answer.status == 400, answer
    assert answer.headers["content-type"].startswith("text/plain"), answer
    assert says in answer.body.decode(), answer
    assert b"\n" not in answer.body.rstrip(b"\n")
    assert items(proxy, "ada") == []


def test_content_types(proxy):
    good = json.dumps(LINE)
    for content_type, status in (("application/json", 200), ("application/json; charset=utf-8", 200),
                                 ("APPLICATION/JSON", 200), ("text/plain", 400), ("application/jsonx", 400),
                                 ("application/x-www-form-urlencoded", 400), ("multipart/form-data", 400)):
        answer = add(proxy, "ada", headers={"Content-Type": content_type})
        assert answer.status == status, (content_type, answer)
        if status == 400:
            assert content_type in answer.body.decode() or "content type" in answer.body.decode(), answer
    with Raw(proxy.port) as raw:  # a body and no content type
        raw.send(b"POST /cart/b/items/add HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (
            len(good), good.encode()))
        assert raw.answer()[0] == 400
    assert items(proxy, "b") == []


def test_an_empty_body_is_an_empty_object(proxy):
    with Raw(proxy.port) as raw:
        raw.send(b"POST /cart/b/items/add HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        status, headers, body = raw.answer()
        assert status == 500 and body.lower().startswith(b"cannot add "), body  # the function refuses 0 of nothing


def test_paths_and_methods_that_are_not_there(proxy):
    for method, path in (("GET", "/"), ("GET", "/cart"), ("GET", "/cart/a/items/add"), ("DELETE", "/carts/a"),
                         ("PUT", "/cart/a/items/add"), ("OPTIONS", "/carts/a"), ("OPTIONS", "*"),
                         ("POST", "/%s/GetCart" % SERVICE), ("GET", "/carts/a/b"), ("GET", "//carts/a"),
                         ("GET", "/carts/a/"), ("GET", "/Carts/a"), ("TRACE", "/carts/a")):
        answer = http_request(proxy.port, method, path, "{}" if method in ("POST", "PUT") else None)
        assert answer.status == 404, (method, path, answer)
        assert answer.body and answer.headers["content-type"].startswith("text/plain"), answer
    with Raw(proxy.port) as raw:
        raw.send(b"HEAD /carts/a HTTP/1.1\r\nhost: x\r\n\r\nGET /carts/a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert raw.answer(of_head=True)[0] == 404
        assert raw.answer()[0] == 200  # the connection is where it should be


def test_query_parameters(proxy):
    assert http_request(proxy.port, "GET", "/carts/a?nope=1").status == 400
    assert b"nope" in http_request(proxy.port, "GET", "/carts/a?nope=1").body
    assert http_request(proxy.port, "GET", "/carts/a?").status == 200
    # Where the body is the whole message, the query is ignored.
    answer = http_request(proxy.port, "POST", "/cart/q/items/add?nope=1", json.dumps(LINE))
    assert answer.status == 200
    # The path names the entity, whatever the body says.
    assert add(proxy, "path", {**LINE, "userId": "body"}).status == 200
    assert items(proxy, "body") == [] and items(proxy, "path") == [LINE]


def test_knatives_probe(proxy):
    for path in ("/", "/carts/a", "/no/where"):
        answer = http_request(proxy.port, "GET", path, headers={"K-Network-Probe": "queue"})
        assert (answer.status, answer.body) == (200, b"queue")
    for value in ("other", "x" * 4000):
        answer = http_request(proxy.port, "GET", "/", headers={"k-network-probe": value})
        assert (answer.status, answer.body.decode()) == (400, "unexpected probe header value: " + value)


# --- bodies and connections -------------------------------------------------------------------

def test_a_body_over_the_limit_is_413_and_one_below_is_taken(proxy, tmp_path):
    small = json.dumps({**LINE, "name": "x" * 1000000})
    assert add(proxy, "big", {**LINE, "name": "x" * 1000000}).status == 200
    assert items(proxy, "big")[0]["name"] == "x" * 1000000
    path = tmp_path / "body"
    path.write_bytes(b'{"name": "%s"}' % (b"x" * BODY_MAX))
    url = "http://127.0.0.1:%d/cart/big/items/add" % proxy.port
    def post(*arguments, body=None):
        return subprocess.run(
            ["curl", "-sS", "--max-time", "50", "-H", "content-type: application/json", "-w", " %{http_code}",
             *arguments, url], input=body, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
    written = post("--http1.1", "--data-binary", "@%s" % path)
    assert written.endswith(" 413") and "larger than" in written, written[-300:]
    # curl 7.88 loses an answer that comes with the permission to stop sending (RST_STREAM, NO_ERROR).
    written = subprocess.run([tools.nghttp(), "-v", "-H", "content-type: application/json", "-d", path, url],
                             stdout=subprocess.PIPE, timeout=50).stdout.decode()
    assert ":status: 413" in written and "larger than" in written, written[-2000:]
    for version in ("--http1.1", "--http2-prior-knowledge"):  # in pieces, with no length told
        assert post(version, "-T", "-", "-X", "POST", body=small.encode()) == "{} 200"
    assert items(proxy, "big")[0]["quantity"] == 3


def test_a_reply_between_4_mib_and_the_limit_comes_whole_and_a_larger_one_is_named(lab):
    """Contract, section 1: messages of the function are taken up to 12 MiB, not gRPC's 4."""
    proxy = lab.proxy(lab.go_cart(), lab.cairnd("memory"))
    names = ["%d" % i + "n" * (2500 << 10) for i in range(4)]
    for i, name in enumerate(names):
        assert add(proxy, "u", {"productId": str(i), "name": name, "quantity": 1}).status == 200
    assert sorted(item["name"] for item in items(proxy, "u")) == names
    cart = Api(harness.channel_to(proxy.port)).call("%s/GetCart" % SERVICE, user_id="u")
    assert sorted(item.name for item in cart.items) == names
    answer = add(proxy, "u", {"productId": "4", "name": "n" * (2500 << 10), "quantity": 1})
    assert answer.status == 429, answer
    assert answer.body.startswith(
        b"com.example.shoppingcart.ShoppingCart.AddItem, entity [u]: the function's reply is not taken"), answer
    assert sorted(item["name"] for item in items(proxy, "u")) == names


def test_keep_alive_pipelining_and_chunks(proxy):
    body = json.dumps(LINE).encode()
    request = (b"POST /cart/k/items/add HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
               b"content-length: %d\r\n\r\n" % len(body)) + body
    with Raw(proxy.port) as raw:
        for _ in range(3):
            raw.send(request)
            assert raw.answer()[0] == 200
        raw.send(request * 10 + b"GET /carts/k HTTP/1.1\r\nhost: x\r\n\r\n")
        for _ in range(10):
            assert raw.answer()[0] == 200
        assert json.loads(raw.answer()[2])["items"][0]["quantity"] == 13  # answered in order
        raw.send(b"POST /cart/k/items/add HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                 b"transfer-encoding: chunked\r\n\r\n")
        for i in range(len(body)):
            raw.send(b"1\r\n%s\r\n" % body[i:i + 1])
        raw.send(b"0\r\n\r\n")
        assert raw.answer()[0] == 200
        raw.send(b"POST /cart/k/items/add HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                 b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body))
        assert raw.answer()[0] == 100
        raw.send(body)
        assert raw.answer()[0] == 200
        raw.send(b"GET /carts/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert json.loads(raw.answer()[2])["items"][0]["quantity"] == 15
        assert raw.answer() is None
    with Raw(proxy.port) as raw:
        raw.send(b"GET /carts/k HTTP/1.0\r\n\r\n")
        status, headers, body = raw.answer()
        assert status == 200 and json.loads(body)["items"][0]["quantity"] == 15
        assert raw.answer() is None


@pytest.mark.parametrize("garbage", [
    b"\x00\x01\x02\x03\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /cart/a/items/add HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /cart/a/items/add HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    b"POST /cart/a/items/add HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)])
def test_no_http_is_refused_and_others_go_on(proxy, garbage):
    with Raw(proxy.port) as raw:
        raw.send(garbage)
        answer = raw.file.read(64)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer
    assert add(proxy, "a").status == 200


def test_headers_over_the_limit_are_431(proxy):
    with Raw(proxy.port) as raw:
        raw.send(b"GET /carts/a HTTP/1.1\r\nhost: x\r\n" + b"x-long: " + b"y" * 20000 + b"\r\n\r\n")
        assert raw.answer()[0] == 431
    assert items(proxy, "a") == []


# --- HTTP/2 -------------------------------------------------------------------------------------

def test_http2_without_tls(proxy, tmp_path):
    base = "http://127.0.0.1:%d" % proxy.port
    status, version, headers, body = curl(tmp_path, "-H", "content-type: application/json", "--data-binary",
                                          json.dumps(LINE), base + "/cart/h2%2F%7C/items/add")
    assert (status, version, body) == (200, "2", b"{}") and headers["content-type"] == "application/json"
    assert json.loads(curl(tmp_path, base + "/carts/h2%2F%7C")[3])["items"] == [LINE]
    assert curl(tmp_path, "-H", "content-type: text/plain", "-d", "{}", base + "/cart/a/items/add")[0] == 400
    assert curl(tmp_path, base + "/")[0] == 404
    assert curl(tmp_path, "-I", base + "/carts/a")[0] == 404
    assert curl(tmp_path, "-X", "OPTIONS", base + "/carts/a")[0] == 404
    assert curl(tmp_path, "-H", "k-network-probe: queue", base + "/x")[3] == b"queue"
    # gRPC's content type decides, also about what is not there.
    status, _, headers, body = curl(tmp_path, "-H", "content-type: application/grpc", "-H", "te: trailers",
                                    "-d", "", base + "/no.Such/Method")
    assert (status, headers["grpc-status"], body) == (200, "12", b"")


# --- default paths and wide numbers ------------------------------------------------------------------

def test_default_paths_and_wide_numbers(lab):
    stage = Stage(lab)

    def count(number):
        return http_request(stage.proxy.port, "POST", "/cairn.test.Numbered/Count", '{"number": %s}' % number)
    with futures.ThreadPoolExecutor(1) as client:
        for text, number in (('"9223372036854775807"', (1 << 63) - 1), ("-9223372036854775808", -(1 << 63)),
                             ("9007199254740993", 9007199254740993), ("1e3", 1000)):
            answer = client.submit(count, text)
            stream = stage.rec.stream()
            init = stream.next().init
            assert init.service_name == model.NUMBERED and str(number) in init.entity_id
            command = stream.next().command
            assert model.pb.Number.FromString(command.payload.value).number == number
            entity = stage.entity(init.entity_id, model.NUMBERED)
            stream.send(entity.reply(1, model.response("ok")).message)
            answer = answer.result()
            assert (answer.status, answer.body) == (200, b'{"message":"ok"}')
    for text in ("9223372036854775808", '"x"', "1.5", "1e400", "true"):
        refused = count(text)
        assert refused.status == 400 and b"number" in refused.body, refused
    for method in ("GET", "PUT"):
        assert http_request(stage.proxy.port, method, "/cairn.test.Numbered/Count").status == 404
    stage.quiet()
