"""cairnd as a process: what it says, what it refuses, how it ends, and what it does about wrong input."""

import json
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess

import pytest

import tools
from harness import Process, accepts, eventually, http_request
from journal_client import (Journal, Refused, check_whole, event, exactly, new_id, none, pb, rec, to_stream)
from ports import free_port
from reflection import Api

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture
def cairnd(lab):
    return lab.cairnd()


@pytest.fixture
def journal(cairnd):
    j = Journal(cairnd.port)
    yield j
    j.close()


def run_cairnd(*arguments, env=None):
    import os
    return subprocess.run([tools.program("cairnd"), *arguments], capture_output=True, text=True, timeout=20,
                          env={**os.environ, **(env or {})})


# --- beginning and end -------------------------------------------------------------------------------

def test_it_says_in_one_line_what_it_serves_from_where(cairnd):
    cairnd.wait_text(r"^cairnd \S+ serves journal [0-9a-f-]{36} on 127\.0\.0\.1:%d from file:\S+/data "
                     r"\(0 records\)$" % cairnd.port)
    assert len([l for l in cairnd.text().splitlines() if not l.startswith("time=")]) == 1, cairnd.text()


def test_by_default_it_keeps_the_journal_in_cairn_data(lab):
    port = free_port()
    process = lab.run("plain", [tools.program("cairnd")], env={"CAIRN_LISTEN": "127.0.0.1:%d" % port})
    process.wait_ready(lambda: accepts(port), "listens")
    process.wait_text(r"from file:\./cairn-data")
    assert (lab.folder / "cairn-data").is_dir()
    assert process.terminate() == 0


def test_a_second_one_on_the_same_folder_names_the_first(lab, cairnd):
    second = run_cairnd("--listen", "127.0.0.1:%d" % free_port(),
                        "--storage", "file:%s" % (lab.folder / "data"))
    assert second.returncode == 1
    assert str(cairnd.pid) in second.stderr and "127.0.0.1:%d" % cairnd.port in second.stderr, second.stderr
    assert Journal(cairnd.port).append(to_stream("s", event())).count == 1


def test_a_port_that_is_taken(lab, cairnd):
    for storage in ["memory", "file:%s" % (lab.folder / "nothing-here")]:
        second = run_cairnd("--listen", "127.0.0.1:%d" % cairnd.port, "--storage", storage)
        assert second.returncode == 1 and str(cairnd.port) in second.stderr
    assert not (lab.folder / "nothing-here").exists()  # nothing is made for a server that does not run
    # The one who has the address has the folder, too: that says more.
    second = run_cairnd("--listen", "127.0.0.1:%d" % cairnd.port, "--storage", "file:%s" % (lab.folder / "data"))
    assert second.returncode == 1 and str(cairnd.pid) in second.stderr, second.stderr


@pytest.mark.parametrize("arguments, words", [
    (["--listen", "0.0.0.0:7117"], ["0.0.0.0:7117", "--insecure"]),
    (["--listen", ":7117"], ["--insecure"]),
    (["--listen", "127.example.org:7117"], ["127.example.org:7117", "--insecure"]),
    (["--listen", "127.0.0.1"], ["--listen", "127.0.0.1", "HOST:PORT"]),
    (["--listen", "127.0.0.1:70000", "--check-config"], ["127.0.0.1:70000", "HOST:PORT"]),
    (["--storage", "cloud", "--check-config"], ["--storage", "cloud", "file:cloud"]),
    (["--storage", "cloud:7"], ["cloud:7", "memory", "file"]),
    (["--strage", "memory"], ["--strage", "--storage"]),
    (["--workers", "many"], ["many", "workers"]),
    (["--log-level", "loud"], ["loud", "debug"]),
    (["memory"], ["memory"]),
])
def test_a_wrong_command_line_is_refused_in_words(tmp_path, arguments, words):
    done = run_cairnd(*arguments)
    assert done.returncode in (1, 2) and not done.stdout
    for word in words:
        assert word in done.stderr, done.stderr


def test_help_and_environment(lab):
    done = run_cairnd("--help")
    assert done.returncode == 0 and "--storage" in done.stdout and "127.0.0.1:7117" in done.stdout
    port = free_port()
    process = lab.run("by-environment", [tools.program("cairnd")], env={
        "CAIRN_LISTEN": "127.0.0.1:%d" % port, "CAIRN_STORAGE": "memory", "CAIRN_LOG_FORMAT": "json"})
    process.wait_ready(lambda: accepts(port), "listens")
    process.wait_text(r'"storage":"memory"')


def test_beyond_loopback_only_when_insecure_is_said(lab):
    port = free_port()
    process = lab.run("open", [tools.program("cairnd"), "--listen", "0.0.0.0:%d" % port,
                               "--storage", "memory", "--insecure"])
    process.wait_ready(lambda: accepts(port), "listens")


def test_http_on_the_same_port(cairnd, journal):
    journal.append(to_stream("s", event()))
    for path in ("/healthz", "/readyz"):
        answer = http_request(cairnd.port, "GET", path)
        assert (answer.status, answer.body) == (200, b"ok\n")
    answer = http_request(cairnd.port, "GET", "/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    for line in ('cairn_build_info{version="0.1.0"} 1', "cairn_storage_appended_records_total 1"):
        assert line in text.splitlines(), text
    assert http_request(cairnd.port, "GET", "/nothing").status == 404
    assert http_request(cairnd.port, "POST", "/metrics", body="x").status == 405


def test_a_client_that_knows_it_only_by_reflection(cairnd, journal):
    for version in ("v1", "v1alpha"):
        api = Api(journal.channel, version)
        assert {"cairn.journal.v1.Journal", "grpc.health.v1.Health"} <= set(api.services), api.services
        answer = api.call("cairn.journal.v1.Journal/Append",
                          streams=[{"stream": "s", "events": [{"type": "T", "data": "aGVsbG8="}]}])
        assert answer.count == 1
        assert api.call("cairn.journal.v1.Journal/Stat").head.position == answer.cursor.position
        for service in ("", "cairn.journal.v1.Journal"):
            assert api.call("grpc.health.v1.Health/Check", service=service).status == 1


def test_grpcurl_reads_the_journal(cairnd, journal):
    journal.append(to_stream("s", event("Added", b"hello")))
    try:
        grpcurl = tools.grpcurl()
    except Exception as missing:  # no Go, or no module proxy
        pytest.skip("grpcurl: %s" % missing)
    done = subprocess.run([grpcurl, "-plaintext", "-d", '{"stream": "s"}', "127.0.0.1:%d" % cairnd.port,
                           "cairn.journal.v1.Journal/Read"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    (response,) = [json.loads(done.stdout)]
    assert response["entries"][0]["body"]["data"] == "aGVsbG8=" and response["end"] is True
    assert response["entries"][0]["header"]["kind"] == "KIND_EVENT"


def test_a_full_disk_refuses_appends_until_there_is_room(lab):
    """RESOURCE_EXHAUSTED is known not to be written; reads go on, and appends when there is room again."""
    folder = lab.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True,
                             text=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted: %s" % mounted.stderr.strip())
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(4 << 20))
        cairnd = lab.cairnd(storage="file:%s" % (folder / "data"))
        journal = Journal(cairnd.port)
        written, refused = 0, None
        while not refused:
            try:
                written = journal.append(to_stream("s", event(data=b"x" * 500000))).cursor.position
                assert written < 100, "the disk is never full"
            except Refused as e:
                refused = e
        assert refused.code == "RESOURCE_EXHAUSTED" and refused.refusal.code == 8, str(refused)
        assert len(journal.read(stream="s")) == written
        assert journal.stat().head.position == written
        ballast.unlink()
        assert journal.append(to_stream("s", event(data=b"y" * 500000))).first_position == written
        cairnd.kill()
        cairnd.start()
        cairnd.ready()
        assert len(check_whole(Journal(cairnd.port).read())) == written + 1
        assert cairnd.terminate() == 0
    finally:
        lab.close()
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_write_error_ends_appends_until_a_restart(lab):
    """The file system refuses to let the file grow (EFBIG): unlike a full disk, nobody knows what is next."""
    port = free_port()
    process = lab.run("cairnd", ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\"", tools.program("cairnd"),
                                 "--listen", "127.0.0.1:%d" % port, "--storage", "file:data"])
    process.wait_ready(lambda: accepts(port), "listens")
    journal = Journal(port)
    journal.append(to_stream("s", event("Before")))
    assert http_request(port, "GET", "/readyz").status == 200
    api = Api(journal.channel)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100000, resource.RLIM_INFINITY))
    request = to_stream("s", event("Lost", b"x" * 200000))
    for _ in range(2):
        error = refused_append(journal, request)
        assert error.code == "UNAVAILABLE" and error.refusal.code == 14, str(error)
    assert [e.header.type for e in journal.read()] == ["Before"], "reads go on"
    answer = http_request(port, "GET", "/readyz")
    assert answer.status == 503 and b"storage" in answer.body
    assert http_request(port, "GET", "/healthz").status == 200
    for service in ("", "cairn.journal.v1.Journal"):
        eventually(lambda: api.call("grpc.health.v1.Health/Check", service=service).status == 2, "not serving")
    process.wait_text("level=error.*no more appends until a restart")
    assert process.terminate() == 0
    process.start()  # without the limit
    process.wait_ready(lambda: accepts(port), "listens")
    again = Journal(port)
    assert again.append(request).first_position == 1
    assert [e.header.type for e in again.read()] == ["Before", "Lost"]


def test_sigterm_ends_subscriptions_and_append_streams(cairnd, journal):
    journal.append(to_stream("s", event()))
    sub = journal.subscribe()
    sub.until_caught_up()
    stream = journal.append_stream()
    stream.send(1, to_stream("s", event()))
    stream.answer()
    assert cairnd.terminate() == 0
    with pytest.raises(Refused) as refused:
        while True:
            sub.next()
    assert refused.value.code == "UNAVAILABLE"
    assert stream.rest()[1] == "UNAVAILABLE"
    assert not re.search(r"level=(warn|error)", cairnd.text()), cairnd.text()
    cairnd.start()
    cairnd.ready()
    assert journal.stat().head.position == 2


def test_sighup_does_nothing(cairnd, journal):
    cairnd.process.send_signal(signal.SIGHUP)
    cairnd.wait_text("SIGHUP")
    assert journal.append(to_stream("s", event())).count == 1


def test_the_service_manager_is_told(lab):
    path = str(lab.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        process = lab.run("notifying", [tools.program("cairnd"), "--listen", "127.0.0.1:%d" % free_port(),
                                        "--storage", "memory"], env={"NOTIFY_SOCKET": path})
        assert manager.recv(100) == b"READY=1"
        assert process.terminate() == 0
        assert manager.recv(100) == b"STOPPING=1"


# --- wrong input -------------------------------------------------------------------------------------

def refused_append(journal, *streams, **more):
    with pytest.raises(Refused) as refused:
        journal.append(*streams, **more)
    return refused.value


WRONG = {
    "no stream name": (lambda: [to_stream("", event())], "stream"),
    "a control character": (lambda: [to_stream("a\nb", event())], "control"),
    "a NUL in a name": (lambda: [to_stream("a\x00b", event())], "control"),
    "a name of 501 bytes": (lambda: [to_stream("x" * 501, event())], "500"),
    "a system stream": (lambda: [to_stream("$acts", event())], "$acts"),
    "a stream twice": (lambda: [to_stream("s", event()), to_stream("s", event())], "twice"),
    "no type": (lambda: [to_stream("s", event(""))], "type"),
    "a long type": (lambda: [to_stream("s", event("t" * 257))], "256"),
    "a short id": (lambda: [to_stream("s", event(id=b"123"))], "16"),
    "a record over 3 MiB": (lambda: [to_stream("s", event(data=b"x" * (3 << 20)))], "3145728"),
    "metadata over 64 KiB": (
        lambda: [to_stream("s", event(metadata=[rec.Metadata(key="k", value=b"v" * 65536)]))], "65536"),
    "the server's metadata": (
        lambda: [to_stream("s", event(metadata=[rec.Metadata(key="$k", value=b"v")]))], "$k"),
    "10,001 records": (lambda: [to_stream("s", *[event(id=b"") for _ in range(10001)])], "10000"),
    "over 16 MiB": (lambda: [to_stream("s", *[event(data=b"x" * (2900 << 10)) for _ in range(6)])],
                    "16777216"),
    "a stream without records": (lambda: [to_stream("s")], "s"),
    "an expectation of another kind": (lambda: [to_stream("s", event(), expect=pb.Expectation(kind=9))], "9"),
    "an expectation with a needless sequence": (
        lambda: [to_stream("s", event(), expect=pb.Expectation(kind=1, sequence=5))], "EXACTLY"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_append_is_refused_in_words(cairnd, journal, what):
    make, word = WRONG[what]
    journal.append(to_stream("s", event("Before")))
    error = refused_append(journal, *make())
    assert error.code == "INVALID_ARGUMENT", str(error)
    assert word in error.text, str(error)
    assert error.refusal.code == 3 and error.refusal.text == error.text
    journal.append(to_stream("s", event("After")))
    assert [e.header.type for e in journal.read()] == ["Before", "After"]


def test_an_id_twice_in_one_append(journal):
    same = new_id()
    error = refused_append(journal, to_stream("s", event(id=same), event(id=same)))
    assert error.code == "INVALID_ARGUMENT" and "id" in error.text
    error = refused_append(journal, to_stream("s", event(id=same)), to_stream("t", event(id=same)))
    assert error.code == "INVALID_ARGUMENT"
    assert journal.read() == []


def test_a_name_that_is_no_utf8(cairnd, journal):
    """Python cannot make one, so it is put into the bytes."""
    raw = pb.AppendRequest(streams=[to_stream("sXs", event())]).SerializeToString().replace(b"sXs", b"s\xffs")
    call = journal.channel.unary_unary("/cairn.journal.v1.Journal/Append")
    import grpc
    with pytest.raises(grpc.RpcError) as refused:
        call(raw, timeout=20)
    assert refused.value.code().name == "INVALID_ARGUMENT" and "UTF-8" in refused.value.details()


def test_requests_that_are_no_messages(cairnd, journal):
    import grpc
    for method in ("Append", "Read", "Load", "Subscribe", "Stat", "ListStreams"):
        call = journal.channel.unary_unary("/cairn.journal.v1.Journal/" + method)
        for raw in (b"\xff\xff\xff", b"\x0a\x50abc", b"\x1a\xff\xff\xff\xff\x0f"):
            with pytest.raises(grpc.RpcError) as refused:
                call(raw, timeout=20)
            assert refused.value.code().name == "INVALID_ARGUMENT", (method, raw, refused.value)
    stream = journal.channel.stream_stream("/cairn.journal.v1.Journal/AppendStream")
    with pytest.raises(grpc.RpcError) as refused:
        list(stream(iter([b"\xff\xff\xff"]), timeout=20))
    assert refused.value.code().name == "INVALID_ARGUMENT"
    for path in ("/cairn.journal.v1.Journal/Nothing", "/nothing.Nothing/Nothing"):
        with pytest.raises(grpc.RpcError) as refused:
            journal.channel.unary_unary(path)(b"", timeout=20)
        assert refused.value.code().name == "UNIMPLEMENTED"
    assert journal.append(to_stream("s", event())).first_position == 0


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


GARBAGE = {
    "text": b"hello there, is this thing on?\r\n\r\n",
    "zeros": bytes(4096),
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "half a preface": PREFACE[:11],
    "preface and noise": PREFACE + bytes(range(256)) * 16,
    "a frame of 16 MiB": PREFACE + frame(4, 0, 0) + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "half a frame": PREFACE + frame(4, 0, 0) + frame(1, 4, 1, b"\x82\x86\x84")[:7],
    "headers that are none": PREFACE + frame(4, 0, 0) + frame(1, 5, 1, b"\xff" * 40),
    "data on an idle stream": PREFACE + frame(4, 0, 0) + frame(0, 1, 5, b"data"),
    "a window of zero": PREFACE + frame(4, 0, 0) + frame(8, 0, 0, bytes(4)),
    "settings of a wrong length": PREFACE + frame(4, 0, 0, b"12345"),
    "a push from a client": PREFACE + frame(4, 0, 0) + frame(5, 4, 1, bytes(8)),
    "a request of HTTP/1 that never ends":
        b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_instead_of_http2(cairnd, journal, what):
    journal.append(to_stream("s", event()))
    with socket.create_connection(("127.0.0.1", cairnd.port), timeout=20) as raw:
        raw.sendall(GARBAGE[what])
        raw.shutdown(socket.SHUT_WR)
        try:
            while raw.recv(65536):
                pass  # whatever it says: it closes the connection in the end
        except ConnectionResetError:
            pass
    journal.append(to_stream("s", event()))
    assert len(check_whole(journal.read())) == 2
    assert cairnd.alive()


def test_a_request_that_breaks_off_in_the_middle_of_a_message(cairnd, journal):
    """Headers of an append, then half of its message, then nothing: not a byte of it is kept."""
    import h2.connection
    message = pb.AppendRequest(streams=[to_stream("s", event(data=b"x" * 1000))]).SerializeToString()
    body = struct.pack(">BI", 0, len(message)) + message
    for cut in (3, 5, 100, len(body) - 1):
        conn = h2.connection.H2Connection()
        conn.initiate_connection()
        conn.send_headers(1, [(":method", "POST"), (":path", "/cairn.journal.v1.Journal/Append"),
                              (":scheme", "http"), (":authority", "x"), ("te", "trailers"),
                              ("content-type", "application/grpc")])
        conn.send_data(1, body[:cut])
        with socket.create_connection(("127.0.0.1", cairnd.port), timeout=20) as raw:
            raw.sendall(conn.data_to_send())
            raw.recv(100)  # its settings: it has begun to listen
    for ended in (3, len(body) - 1):
        conn = h2.connection.H2Connection()
        conn.initiate_connection()
        conn.send_headers(1, [(":method", "POST"), (":path", "/cairn.journal.v1.Journal/Append"),
                              (":scheme", "http"), (":authority", "x"), ("te", "trailers"),
                              ("content-type", "application/grpc")])
        conn.send_data(1, body[:ended], end_stream=True)
        with socket.create_connection(("127.0.0.1", cairnd.port), timeout=20) as raw:
            raw.sendall(conn.data_to_send())
            status = None
            while status is None:
                data = raw.recv(65536)
                assert data, "closed without a status"
                for e in conn.receive_data(data):
                    if type(e).__name__ in ("ResponseReceived", "TrailersReceived"):
                        status = dict(e.headers).get(b"grpc-status", dict(e.headers).get("grpc-status"))
            assert status not in (b"0", "0")
    assert journal.append(to_stream("s", event(), expect=none())).first_position == 0


# --- a reader that stops reading ---------------------------------------------------------------------

def anonymous_bytes(process):
    """VmRSS less mapped files: what the process itself holds."""
    with open("/proc/%d/status" % process.pid) as status:
        return int(re.search(r"RssAnon:\s+(\d+) kB", status.read()).group(1)) << 10


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("each", [256 << 10, 2 << 20, (3 << 20) - 4096])
def test_a_reader_that_stops_reading_costs_little(lab, cairnd, journal, each, coding):
    """256 MiB are replayed to a reader who allows any number of bytes and reads none of them. The records are
    of some to a response, of two responses, and as large as they may be."""
    import h2.connection
    import h2.settings
    size, ahead = 256 << 20, (8 << 20) // each
    stream = journal.append_stream()
    for n in range(size // each + 1):
        stream.send(n, to_stream("big", event(data=random.randbytes(each - 200))))
        if n >= ahead:
            assert not stream.answer().HasField("refusal")
    stream.half_close()
    assert stream.rest()[1] == "OK"
    journal.append(to_stream("small", event()))
    cairnd.terminate()  # what the appends took is not the reader's
    cairnd.start()
    cairnd.ready()
    other = Journal(cairnd.port)
    assert len(other.read(stream="small")) == 1
    before = anonymous_bytes(cairnd)

    config = h2.connection.H2Connection()
    config.initiate_connection()
    config.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    config.increment_flow_control_window(2**31 - 1 - 65535)
    config.send_headers(1, [(":method", "POST"), (":path", "/cairn.journal.v1.Journal/Read"),
                            (":scheme", "http"), (":authority", "x"), ("te", "trailers"),
                            ("content-type", "application/grpc"), ("grpc-encoding", coding)])
    request = pb.ReadRequest(stream="big").SerializeToString()
    config.send_data(1, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.settimeout(20)
        raw.connect(("127.0.0.1", cairnd.port))
        raw.sendall(config.data_to_send())
        assert raw.recv(1)
        most = 0
        for n in range(200):  # others proceed meanwhile
            other.append(to_stream("small", event()))
            if n % 20 == 0:
                assert len(other.read(stream="small")) == n + 2
            most = max(most, anonymous_bytes(cairnd) - before)
        measured = not os.environ.get("CAIRN_SANITIZER")  # whose own memory it would be
        assert not measured or most <= 8 << 20, "%.1f MiB" % (most / 2**20)
        # It was under way all the time, and it comes when it is wanted, for no more.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        got = 0
        while got < 64 << 20:
            got += len(raw.recv(1 << 20))
            most = max(most, anonymous_bytes(cairnd) - before)
        assert not measured or most <= 8 << 20, "%.1f MiB while it is read" % (most / 2**20)
    other.close()
