"""gRPC-Web (the contract's section 2), as browsers' libraries speak it: over HTTP/1.1, binary and text."""

import base64
import concurrent.futures
import http.client
import subprocess

import pytest

import harness
from kinds import ACT, VALUE, Kinds, request, response
from entity import metadata
from recorder import CANCEL, PATIENCE
from records import HalfClose, Reset

BINARY, TEXT = "application/grpc-web", "application/grpc-web-text"
PAGE = "https://shop.example"


def frame(message, flags=0):
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return bytes([flags]) + len(body).to_bytes(4, "big") + body


def unframe(body):
    """(flags, bytes) of each frame."""
    result = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        assert len(body) >= 5 + size, body
        result.append((body[0], body[5:5 + size]))
        body = body[5 + size:]
    return result


def untext(body):
    """Base64 in pieces, each padded by itself."""
    return b"".join(base64.b64decode(body[i:i + 4], validate=True) for i in range(0, len(body), 4))


def messages(answer, text=False):
    """The messages of an answer and its trailers."""
    frames = unframe(untext(answer.body) if text else answer.body)
    assert [flags for flags, _ in frames] == [0] * (len(frames) - 1) + [0x80], frames
    trailers = frames[-1][1].decode()
    assert trailers.endswith("\r\n")
    lines = dict(line.split(": ", 1) for line in trailers.split("\r\n") if line)
    return [response().FromString(body) for _, body in frames[:-1]], lines


class Page:
    """A browser's page before the proxy, behind which the test plays the function."""

    def __init__(self, stage):
        self.stage = stage
        self.threads = concurrent.futures.ThreadPoolExecutor(4)

    def post(self, path, body, content_type=BINARY + "+proto", method="POST", **headers):
        every = {"content-type": content_type, "x-grpc-web": "1",
                 **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.threads.submit(harness.http_request, self.stage.proxy.port, method, path, body, every)

    def value(self, body, **how):
        return self.post("/%s/Process" % VALUE, body, **how)

    def answered(self, entity_id, text="done"):
        """The next command, to a new value entity, is answered."""
        v = self.stage.value(entity_id)
        stream = self.stage.rec.entity(v)
        stream.expect(v.init(), v.command(1, "Process", request(entity_id)))
        stream.send(v.reply(1, response(text)).message)


@pytest.fixture
def page(lab):
    return Page(Kinds(lab))


@pytest.mark.parametrize("proto", ["", "+proto"])
def test_a_unary_call(page, proto):
    answer = page.value(frame(request("a")), content_type=BINARY + proto)
    page.answered("a")
    answer = answer.result()
    assert (answer.status, answer.headers["content-type"]) == (200, BINARY + proto)
    assert messages(answer) == ([response("done")], {"grpc-status": "0"})
    page.stage.quiet()


def test_a_unary_call_over_http2(page, tmp_path):
    body, head = tmp_path / "body", tmp_path / "head"
    body.write_bytes(frame(request("a")))
    answer = page.threads.submit(
        subprocess.run, ["curl", "-sS", "--http2-prior-knowledge", "--max-time", "30", "-D", head, "-H",
                         "content-type: " + BINARY, "--data-binary", "@%s" % body,
                         "http://127.0.0.1:%d/%s/Process" % (page.stage.proxy.port, VALUE)],
        stdout=subprocess.PIPE, check=True)
    page.answered("a")
    assert unframe(answer.result().stdout) == [(0, response("done").SerializeToString()),
                                               (0x80, b"grpc-status: 0\r\n")]
    assert head.read_text().startswith("HTTP/2 200") and "content-type: " + BINARY in head.read_text()


@pytest.mark.parametrize("cut", [3, 4, 8, 1000])
def test_text_comes_and_goes_in_pieces_of_any_size(page, cut):
    whole = frame(request("some-id"))
    body = b"".join(base64.b64encode(whole[i:i + cut]) for i in range(0, len(whole), cut))
    answer = page.value(body, content_type=TEXT + "+proto")
    page.answered("some-id")
    answer = answer.result()
    assert answer.headers["content-type"] == TEXT + "+proto"
    assert messages(answer, text=True) == ([response("done")], {"grpc-status": "0"})


def test_text_is_answered_where_accept_says_so(page):
    answer = page.value(frame(request("a")), accept=TEXT)
    page.answered("a")
    answer = answer.result()
    assert answer.headers["content-type"] == TEXT + "+proto"
    assert messages(answer, text=True)[0] == [response("done")]


@pytest.mark.parametrize("content_type", [BINARY, TEXT])
def test_a_failure_is_the_last_frame(page, content_type):
    text = content_type == TEXT
    body = frame(request("a"))
    answer = page.value(base64.b64encode(body) if text else body, content_type=content_type)
    v = page.stage.value("a")
    stream = page.stage.rec.entity(v)
    stream.expect(v.init(), v.command(1, "Process", request("a")))
    stream.send(v.refusal(1, "no, 50 % ü").message)
    answer = answer.result()
    assert answer.status == 200
    assert messages(answer, text) == ([], {"grpc-status": "2", "grpc-message": "no, 50 %25 %C3%BC"})


def test_streamed_answers_come_one_by_one(page):
    connection = http.client.HTTPConnection("127.0.0.1", page.stage.proxy.port, timeout=PATIENCE)
    connection.request("POST", "/%s/Out" % ACT, frame(request("x")), {"content-type": BINARY})
    stream = page.stage.call_of("handleStreamedOut")
    stream.next()
    stream.expect(HalfClose())
    seen, answer = b"", None
    for i in range(3):
        stream.send(page.stage.act.reply(response(str(i))).message)
        answer = answer or connection.getresponse()
        while len(seen) < len(frame(response(str(i)))):
            seen += answer.read1(100)
        assert seen == frame(response(str(i)))
        seen = b""
    stream.end(0)
    assert unframe(answer.read()) == [(0x80, b"grpc-status: 0\r\n")]
    connection.close()


def test_a_streamed_input_is_taken_whole(page):
    answer = page.post("/%s/In" % ACT, frame(request("1")) + frame(request("2")))
    stream = page.stage.call_of("handleStreamedIn")
    stream.next()
    stream.expect(page.stage.act.element(request("1")), page.stage.act.element(request("2")), HalfClose())
    stream.send(page.stage.act.reply(response("both")).message)
    stream.end(0)
    assert messages(answer.result()) == ([response("both")], {"grpc-status": "0"})


def test_metadata_goes_both_ways(page):
    answer = page.post("/%s/Unary" % ACT, frame(request()), x_one="1", x_two_bin="AP8=")
    stream = page.stage.call_of("handleUnary")
    entries = {e.key: e.string_value or e.bytes_value for e in stream.next().metadata.entries}
    assert (entries["x-one"], entries["x-two-bin"]) == ("1", b"\0\xff")
    page.stage.answer_unary(stream, page.stage.act.reply(response("ok"), meta=metadata(x_three="3", y_bin=b"\1")))
    answer = answer.result()
    assert (answer.headers["x-three"], answer.headers["y-bin"]) == ("3", "AQ==")


def test_the_deadline_ends_the_call_and_is_passed_on(page):
    answer = page.post("/%s/Unary" % ACT, frame(request()), grpc_timeout="200m")
    stream = page.stage.call_of("handleUnary")
    assert stream.opened.header("grpc-timeout")
    page.stage.rec.forgive(lambda r: r.stream == stream.number)
    assert messages(answer.result())[1]["grpc-status"] == "4"
    page.stage.rec.forgive(lambda r: r.stream == stream.number)


def test_a_page_that_leaves_cancels_its_call(page):
    connection = http.client.HTTPConnection("127.0.0.1", page.stage.proxy.port, timeout=PATIENCE)
    connection.request("POST", "/%s/Out" % ACT, frame(request("x")), {"content-type": BINARY})
    stream = page.stage.call_of("handleStreamedOut")
    stream.next()
    stream.expect(HalfClose())
    stream.send(page.stage.act.reply(response("1")).message)
    connection.getresponse().close()
    connection.close()
    stream.send(page.stage.act.reply(response("2")).message)  # to which its machine answers that it has left
    stream.expect(Reset("proxy", CANCEL))


@pytest.mark.parametrize("body, content_type, status, text", [
    (b"", BINARY, "3", "none came"),
    (frame(request("a")) * 2, BINARY, "3", "several came"),
    (frame(request("a"))[:-1], BINARY, "3", "ends inside a message"),
    (frame(request("a"))[:3], BINARY, "3", "ends inside a message"),
    (frame(request("a"), 1), BINARY, "12", "compressed"),
    (b"!!!!", TEXT, "3", "no base64"),
    (b"AAA", TEXT, "3", "no base64"),
])
def test_wrong_bodies(page, body, content_type, status, text):
    answer = page.value(body, content_type=content_type).result()
    found, trailers = messages(answer, content_type == TEXT)
    assert (found, trailers["grpc-status"]) == ([], status)
    assert text in trailers["grpc-message"]
    page.stage.quiet()


def test_an_unknown_method_is_unimplemented(page):
    answer = page.post("/no.Service/Method", frame(b"")).result()
    assert answer.status == 200
    assert messages(answer)[1]["grpc-status"] == "12"


def test_what_is_no_grpc_web_is_not_taken_for_it(page):
    assert page.value(b"", content_type="application/grpc-webby").result().status == 404
    assert page.value(None, method="GET").result().status == 404


def preflight(stage, origin, path="/%s/Process" % VALUE):
    return harness.http_request(stage.proxy.port, "OPTIONS", path, None, {
        "origin": origin, "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-grpc-web,x-mine"})


def test_pages_of_configured_origins_may_call(lab):
    stage = Kinds(lab, env={"CAIRN_CORS_ORIGINS": "https://other.example," + PAGE})
    page = Page(stage)
    asked = preflight(stage, PAGE)
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, PAGE)
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert asked.headers["access-control-allow-headers"] == "content-type,x-grpc-web,x-mine"
    answer = page.value(frame(request("a")), origin=PAGE)
    page.answered("a")
    answer = answer.result()
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "grpc-status, grpc-message"
    for denied in (preflight(stage, "https://evil.example"), preflight(stage, PAGE, "/no.Service/Method")):
        assert denied.status == 404
        assert "access-control-allow-origin" not in denied.headers
    answer = page.value(frame(request("b")), origin="https://evil.example")
    page.answered("b")
    assert "access-control-allow-origin" not in answer.result().headers


def test_by_default_no_page_and_with_a_star_every_page_may_call(lab, page):
    assert preflight(page.stage, PAGE).status == 404
    every = Kinds(lab, env={"CAIRN_CORS_ORIGINS": "*"}, journal=page.stage.journal)
    assert preflight(every, PAGE).headers["access-control-allow-origin"] == PAGE
