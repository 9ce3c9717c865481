"""The command line against a real cairnd: what it prints, and how it ends."""

import base64
import functools
import json
import os
import select
import signal
import subprocess
import uuid

import pytest

import tools
from cairn_cli import cairn as run
from harness import scaled
from journal_client import Journal, check_whole, event, rec, to_stream
from ports import free_port
from recorder import PATIENCE


@pytest.fixture
def cairnd(lab):
    return lab.cairnd(storage="memory")


@pytest.fixture
def cairn(cairnd):
    return functools.partial(run, cairnd)


def test_append_and_read(cairn):
    added = cairn("append", "cart|1", '{ "sku": "a", "price": 1.10, "big": 12345678901234567890123 }',
                  "--type", "Added", "--metadata", "user=ann,why=test", "-o", "json")
    assert added.code == 0, added.err
    (row,) = added.json()
    assert (row["stream"], row["sequence"], row["position"], row["repeated"]) == ("cart|1", 1, 0, False)
    assert uuid.UUID(row["id"]).version == 7
    assert cairn("append", "-o", "jsonl", "cart|1", input=b"from stdin\n").lines()[0]["sequence"] == 2
    assert cairn("append", "cart|2", "-", input=b"\x00\xff\x80").code == 0
    found = cairn("read", "--output", "json").json()
    assert [(r["position"], r["stream"], r["sequence"], r["kind"]) for r in found] == [
        (0, "cart|1", 1, "event"), (1, "cart|1", 2, "event"), (2, "cart|2", 1, "event")]
    first, second, third = found
    assert first["data"]["sku"] == "a" and first["content_type"] == "application/json"
    assert first["metadata"] == {"user": "ann", "why": "test"} and first["type"] == "Added"
    assert (second["data_text"], second["content_type"]) == ("from stdin\n", "text/plain; charset=utf-8")
    assert base64.b64decode(third["data_base64"]) == b"\x00\xff\x80"
    # JSON data is shown as it was written, number by number.
    assert b'"data": {"sku":"a","price":1.10,"big":12345678901234567890123}' in \
        cairn("read", "-o", "jsonl").out


def test_lines_become_events_in_order(cairn):
    lines = [b'{"n": %d}' % n for n in range(2500)]
    done = cairn("append", "s", "--lines", "--type", "Line", "-o", "jsonl", input=b"\n\n".join(lines) + b"\nlast")
    assert done.code == 0, done.err
    assert sum(r["events"] for r in done.lines()) == 2501 and done.lines()[-1]["sequence"] == 2501
    found = cairn("read", "s", "-o", "jsonl").lines()
    assert [r["data"]["n"] for r in found[:-1]] == list(range(2500)) and found[-1]["data_text"] == "last"
    assert cairn("append", "s", "--lines", "--expect", "2501", input=b"a\nb\n").code == 0
    assert cairn("append", "s", "--lines", "--expect", "2501", input=b"a\nb\n").code == 1
    assert cairn("append", "s", "--lines", input=b"").code == 0
    for wrong in (["x"], ["--snapshot", "--expect", "1"], ["--id", str(uuid.uuid4())]):
        assert cairn("append", "s", "--lines", *wrong, input=b"a\n").code == 2
    assert cairn("append", "s", "--lines", input=b"x" * (4 << 20)).code == 2
    assert len(cairn("read", "s", "-o", "jsonl").lines()) == 2503


def next_line(process):
    """The next line of a program's output, which is a pipe without a buffer of ours; waited for, but not for
    ever."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert ready, "no line came; so far %r" % line
        byte = process.stdout.read(1)
        assert byte, "it ended with %r: %s" % (line, process.stderr.read())
        line += byte
    return line


def test_lines_are_appended_once_whatever_happens_to_the_journal(lab):
    """Our own client while cairnd is killed: it repeats by id, and the order stays."""
    cairnd = lab.cairnd()
    process = subprocess.Popen(
        [tools.program("cairn"), "append", "s", "--lines", "--timeout", "60s", "-o", "jsonl", "--journal",
         "127.0.0.1:%d" % cairnd.port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        bufsize=0)
    wanted = []
    for n in range(scaled(12, 2)):
        for _ in range(300):
            wanted.append(str(len(wanted)))
            process.stdin.write(b"%s\n" % wanted[-1].encode())
        next_line(process)  # something of it is acknowledged, something is under way
        cairnd.kill()
        cairnd.start()
        cairnd.ready()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    entries = Journal(cairnd.port).read(stream="s")
    assert [e.body.data.decode() for e in entries] == wanted
    check_whole(entries)


def test_a_table_for_people(cairn):
    cairn("append", "cart|1", '{"a": 1}', "--type", "Added")
    cairn("append", "cart|1", "two\nlines")
    cairn("append", "cart|1", "\x1b[31mred")
    cairn("append", "cart|1", input=b"\x00" * 300)
    table = cairn("read").out.decode().splitlines()
    assert table[0].split() == ["POSITION", "TIME", "STREAM", "SEQUENCE", "KIND", "TYPE", "DATA"]
    assert table[1].endswith('Added  {"a":1}') and len(table) == 5
    assert table[2].endswith("  two\\x0alines")
    assert "8 bytes: " in table[3]
    assert "300 bytes: AAAA" in table[4] and "bytes more)" in table[4]
    assert "\x1b" not in "".join(table), "data can do nothing to a terminal"


def test_which_records_are_read(cairn):
    for n in range(3):
        cairn("append", "a|1", str(n), "--type", "A%d" % n)
        cairn("append", "b|1", str(n), "--type", "B%d" % n)
    cairn("append", "a|1", "state", "--type", "S", "--snapshot", "--expect", "3")

    def positions(*arguments):
        found = cairn("read", "-o", "jsonl", *arguments)
        assert found.code == 0, found.err
        return [r["position"] for r in found.lines()]

    assert positions() == [0, 1, 2, 3, 4, 5, 6]
    assert positions("a|1") == [0, 2, 4, 6]
    assert positions("--category", "b", "--backward") == [5, 3, 1]
    assert positions("a|1", "--from", "2", "--to", "2") == [2]
    assert positions("--from", "2", "--to", "4") == [2, 3, 4]
    assert positions("--limit", "2") == [0, 1]
    assert positions("--types", "A0,B2") == [0, 5]
    assert positions("--prefixes", "b") == [1, 3, 5]
    assert positions("--kinds", "snapshot") == [6]
    assert positions("nothing") == []
    assert cairn("read", "nothing", "-o", "json").json() == []
    assert cairn("read", "nothing").out == b""


def test_refusals_and_their_exit_codes(cairn):
    assert cairn("append", "s", "x", "--expect", "none").code == 0
    wrong = cairn("append", "s", "x", "--expect", "none")
    assert wrong.code == 1 and wrong.out == b""
    assert b"FAILED_PRECONDITION" in wrong.err and b'"s"' in wrong.err
    assert cairn("append", "s", "x", "--expect", "7").code == 1
    assert cairn("append", "s", "x", "--expect", "1").code == 0
    same = str(uuid.uuid4())
    assert cairn("append", "s", "x", "--id", same, "-o", "jsonl").lines()[0]["repeated"] is False
    again = cairn("append", "s", "x", "--id", same, "-o", "jsonl").lines()[0]
    assert again["repeated"] is True and again["sequence"] == 3
    for arguments, word in (
            (["append"], b"which stream"),
            (["append", "$acts", "x"], b"$acts"),
            (["append", "a\nb", "x"], b"control"),
            (["append", "s", "x", "--expect", "some"], b"some"),
            (["append", "s", "x", "--id", "7"], b"UUID"),
            (["append", "s", "x", "--snapshot"], b"--expect"),
            (["append", "s", "x", "--metadata", "novalue"], b"novalue"),
            (["append", "s", "x", "y"], b"y"),
            (["append", "s", "--typ", "x"], b"--type"),
            (["read", "s", "--category", "c"], b"category"),
            (["read", "--from", "x"], b"x"),
            (["read", "-o", "yaml"], b"yaml"),
            (["read", "--kinds", "thing"], b"thing"),
            (["nothing"], b"nothing"),
            ([], b"COMMAND")):
        done = cairn(*arguments)
        assert done.code == 2 and word in done.err and done.out == b"", (arguments, done.err)
    missing = cairn("stat", "nothing")
    assert missing.code == 1 and b"NOT_FOUND" in missing.err


def test_an_unreachable_journal(lab):
    port = free_port()
    for arguments in (["append", "s", "x"], ["read"], ["tail"], ["streams"], ["stat"]):
        done = run(port, *arguments)
        assert done.code == 3 and done.out == b"", arguments
        assert b"127.0.0.1:%d" % port in done.err and b"cairnd" in done.err, done.err


def test_spoilt_records_are_an_integrity_failure(lab):
    """A server that sends a record whose CRC is wrong."""
    from concurrent import futures
    import grpc
    from protos import journal as pb
    entry = rec.Entry(position=0, header=rec.Header(format=1, stream="s", type="t", id=b"x" * 16),
                      body=rec.Body(salt=b"s" * 16), crc32c=7)

    class Spoilt(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: iter([pb.ReadResponse(entries=[entry], end=True)]),
                request_deserializer=pb.ReadRequest.FromString,
                response_serializer=lambda m: m.SerializeToString())

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Spoilt()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    done = run(port, "read")
    server.stop(None)
    assert done.code == 4 and b"checksum" in done.err, done.err


def test_streams_and_stat(cairnd, cairn):
    journal = Journal(cairnd.port)
    for n in range(1203):  # more than a page
        journal.append(to_stream("many|%04d" % n, event()))
    journal.append(to_stream("$schema-x", event()))
    listed = cairn("streams", "-o", "jsonl").lines()
    assert [r["stream"] for r in listed] == ["many|%04d" % n for n in range(1203)]
    assert listed[7] == {"stream": "many|0007", "sequence": 1, "records": 1, "first_position": 7,
                         "last_position": 7}
    assert len(cairn("streams", "many|11", "-o", "jsonl").lines()) == 100
    assert [r["stream"] for r in cairn("streams", "--system", "-o", "json").json()][0] == "$schema-x"
    (stat,) = cairn("stat", "-o", "json").json()
    assert stat["head"] == 1204 and stat["storage"] == "memory" and "append" in stat["features"]
    assert stat["limits"]["record_bytes"] == 3 << 20 and uuid.UUID(stat["journal_id"])
    assert b"head" in cairn("stat").out
    assert cairn("stat", "many|0001", "-o", "json").json()[0]["last_position"] == 1


class Tail:
    def __init__(self, port, *arguments):
        self.process = subprocess.Popen(
            [tools.program("cairn"), "tail", "-o", "jsonl", *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, bufsize=0, env={**os.environ, "CAIRN_JOURNAL": "127.0.0.1:%d" % port})

    def next(self):
        return json.loads(next_line(self.process))

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


def test_tail_follows_until_it_is_interrupted(lab):
    cairnd = lab.cairnd()
    journal = Journal(cairnd.port)
    for n in range(3):
        journal.append(to_stream("s", event("Old%d" % n)))
    tail = Tail(cairnd.port, "--from", "1")
    assert [tail.next()["type"] for _ in range(2)] == ["Old1", "Old2"]
    journal.append(to_stream("s", event("New")))
    assert tail.next()["type"] == "New"
    # The server goes away and comes back: it goes on where it was.
    cairnd.kill()
    cairnd.start()
    cairnd.ready()
    Journal(cairnd.port).append(to_stream("s", event("Later")))
    assert tail.next()["type"] == "Later"
    code, out, err = tail.interrupt()
    assert (code, out) == (0, b"") and b"went away" in err, err


def test_tail_of_a_stream_ends_at_its_limit(cairnd):
    journal = Journal(cairnd.port)
    tail = Tail(cairnd.port, "s", "--from", "0", "--limit", "2")
    journal.append(to_stream("other", event("No")))
    journal.append(to_stream("s", event("Yes")), to_stream("t", event("No")))
    journal.append(to_stream("s", event("Yes"), event("Yes")))
    out, err = tail.process.communicate(timeout=20)
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["Yes", "Yes"]
    assert tail.process.returncode == 0


def test_help_says_what_there_is(lab):
    done = run(1, "--help")
    assert done.code == 0
    for word in (b"append", b"read", b"tail", b"streams", b"stat", b"dev"):
        assert word in done.out
    for command in ("append", "read", "tail", "streams", "stat"):
        done = run(1, command, "--help")
        assert done.code == 0 and b"--journal" in done.out and b"127.0.0.1:7117" in done.out
    assert run(1, "--version").out.startswith(b"cairn ")


def test_output_that_cannot_be_written_is_an_error(cairn, cairnd):
    cairn("append", "s", "x")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([tools.program("cairn"), "read", "--journal", "127.0.0.1:%d" % cairnd.port],
                              stdout=full, stderr=subprocess.PIPE, timeout=30)
    assert done.returncode == 1 and b"standard output" in done.stderr


@pytest.fixture
def parked(cairnd):
    """The group "mail|cart" has parked the first of two events of "cart|1", and is left."""
    journal = Journal(cairnd.port)
    journal.append(to_stream("cart|1", event("E", b"1"), event("E", b"2")), to_stream("cart|2", event("E", b"3")))
    consumer = journal.consume("mail|cart", address="pod-1", category="cart")
    first, _, other = consumer.take(3)
    consumer.park(first, "cannot be read")
    consumer.ack(other)
    yield journal, consumer, first.position
    journal.close()


def test_groups_are_shown_with_what_they_have_left_to_do(cairn, parked):
    journal, consumer, position = parked
    (row,) = cairn("group", "list", "-o", "json").json()
    assert (row["group"], row["partition"], row["partitions"], row["consumer"]) == ("mail|cart", 0, 1, "pod-1")
    consumer.finish()
    (row,) = cairn("group", "list", "mail", "-o", "jsonl").lines()
    assert (row["waiting"], row["parked"], row["consumer"]) == (1, 1, "")
    assert row["position"] + row["behind"] == journal.stat().head.position
    (row,) = cairn("group", "lag", "mail|cart", "-o", "json").json()
    assert (row["waiting"], row["parked"], row["consumers"], row["partitions"]) == (1, 1, 0, 1)
    assert cairn("group", "parked", "mail|cart", "-o", "json").json() == [
        {"stream": "cart|1", "state": "parked", "position": position}]
    table = cairn("group", "list").out.decode().splitlines()
    assert table[0].split() == ["GROUP", "PARTITION", "POSITION", "BEHIND", "WAITING", "PARKED", "CONSUMER"]
    assert cairn("group", "list", "nobody", "-o", "json").json() == []


def test_what_a_group_parked_is_replayed_skipped_and_parked(cairn, parked):
    _, consumer, position = parked
    replayed = cairn("group", "replay", "mail|cart", "--position", str(position), "--reason", "it was fixed",
                     "-o", "json")
    assert replayed.code == 0, replayed.err
    (row,) = replayed.json()
    assert (row["did"], row["group"], row["records"]) == ("replayed", "mail|cart", 1)
    (again,) = consumer.take(1)
    assert again.position == position
    assert cairn("group", "park", "mail|cart", "--position", str(position), "--reason", "not yet").code == 0
    assert cairn("group", "parked", "mail|cart", "-o", "json").json()[0]["position"] == position
    skipped = cairn("group", "skip", "mail|cart", "--stream", "cart|1", "--reason", "of no use", "--yes", "-o", "json")
    assert skipped.json()[0]["records"] == 1
    (second,) = consumer.take(1)
    assert second.body.data == b"2"
    consumer.cancel()


def test_groups_say_what_is_wrong(cairn, parked):
    for arguments, code, text in (
            ((), 2, "say what"), (("lost",), 2, "say what"), (("parked",), 2, "name the group"),
            (("replay", "mail|cart"), 2, "--reason"), (("park", "mail|cart", "--reason", "r"), 2, "--position"),
            (("skip", "mail|cart", "--reason", "r"), 2, "--yes"), (("lag", "nobody"), 1, "no such group"),
            (("parked", "nobody"), 1, "no group"), (("replay", "nobody", "--reason", "r"), 1, "no group"),
            (("replay", "mail|cart", "--stream", "cart|9", "--reason", "r"), 1, "parked")):
        found = cairn("group", *arguments, input=b"")
        assert found.code == code and text in found.err.decode(), (arguments, found.code, found.err)
