"""Deleting, truncating and erasing by the command line, against a real cairnd on every backend."""

import functools
import os
import pty
import shutil
import subprocess

import pytest

import cairn_cli
import tools
from journal_client import Journal, rec
from postgres import BACKENDS, storage_of


@pytest.fixture(params=BACKENDS)
def cairnd(lab, request):
    return lab.cairnd(storage_of(lab, request.param))


@pytest.fixture
def cairn(cairnd):
    return functools.partial(cairn_cli.cairn, cairnd)


def fill(cairn, *streams, events=3):
    for stream in streams:
        for n in range(events):
            done = cairn("append", stream, "secret %d of %s" % (n + 1, stream), "--type", "Said")
            assert done.code == 0, done.err


def read(cairn, *arguments):
    done = cairn("read", "-o", "jsonl", *arguments)
    assert done.code == 0, done.err
    return done.lines()


def test_delete(cairn):
    fill(cairn, "cart|1", "cart|2")
    done = cairn("delete", "cart|1", "--reason", "closed", "--yes", "-o", "jsonl")
    assert done.code == 0, done.err
    (row,) = done.lines()
    assert (row["did"], row["what"], row["streams"], row["sequence"]) == ("deleted", "cart|1", 1, 4)
    assert [(r["kind"], r["sequence"]) for r in read(cairn, "cart|1")] == [("delete", 4)]
    assert [r["stream"] for r in read(cairn, "--category", "cart")] == 3 * ["cart|2"] + ["cart|1"]
    assert cairn("append", "cart|1", "again", "--expect", "none").code == 0
    assert read(cairn, "cart|1")[-1]["sequence"] == 5
    stat = cairn("stat", "cart|1", "-o", "jsonl").lines()[0]
    assert (stat["records"], stat["sequence"]) == (1, 5)
    again = cairn("delete", "cart|2", "--reason", "closed", "--yes", "-o", "jsonl")
    assert again.lines()[0]["did"] == "deleted"
    again = cairn("delete", "cart|2", "--reason", "closed", "--yes", "-o", "jsonl")
    assert again.lines()[0]["did"].startswith("nothing")


def test_truncate(cairn):
    fill(cairn, "s", events=5)
    done = cairn("truncate", "s", "--before", "4", "--reason", "old", "--yes", "-o", "jsonl")
    assert done.code == 0, done.err
    assert [(r["kind"], r["sequence"]) for r in read(cairn, "s")] == [
        ("event", 4), ("event", 5), ("truncate", 5)]
    done = cairn("truncate", "s", "--before", "7", "--reason", "old", "--yes")
    assert done.code == 1 and b"its newest is 5" in done.err
    assert cairn("truncate", "s", "--before", "6", "--reason", "old", "--yes").code == 0
    assert [r["kind"] for r in read(cairn, "s")] == ["truncate", "truncate"]
    assert cairn("append", "s", "x", "--expect", "none").code == 0


def erasures(cairnd, stream):
    """(who, why, the message) of those that the stream's records tell of."""
    acts = [e for e in Journal(cairnd.port).read(stream=stream) if e.header.kind == rec.KIND_ERASE]
    messages = [rec.Erasure.FromString(e.body.data) for e in acts]
    return [(e.header.actor, m.reason, m) for e, m in zip(acts, messages)]


def test_erase_one_event_a_stream_and_a_prefix(cairnd, cairn):
    fill(cairn, "user|1", "user|2", "user|30", "other")
    assert cairn("erase", "user|1", "--from", "2", "--reason", "asked", "--yes").code == 0
    rows = read(cairn, "user|1")
    assert [r.get("erased", False) for r in rows] == [False, True, False, False]
    assert b"secret 2" not in cairn("read", "user|1", "-o", "json").out
    done = cairn("erase", "--prefix", "user|", "--reason", "asked by her", "--yes", "-o", "jsonl")
    assert done.code == 0, done.err
    assert done.lines()[0]["streams"] == 3
    everything = cairn("read", "-o", "jsonl")
    assert b"of user" not in everything.out and everything.out.count(b"secret") == 3
    (act,) = read(cairn, "$acts")
    assert act["kind"] == "erase" and act["actor"].startswith("ip:")
    # Who and why, in each stream that was touched, and for the prefix once more.
    one, all_of_it = erasures(cairnd, "user|1")
    assert one[:2] == ("ip:127.0.0.1", "asked") and (one[2].from_sequence, one[2].to_sequence) == (2, 2)
    for stream in ("user|1", "user|2", "user|30"):
        assert erasures(cairnd, stream)[-1][:2] == ("ip:127.0.0.1", "asked by her"), stream
    (of_prefix,) = erasures(cairnd, "$acts")
    assert of_prefix[:2] == ("ip:127.0.0.1", "asked by her")
    assert (of_prefix[2].prefix, of_prefix[2].streams) == ("user|", 3)
    assert erasures(cairnd, "other") == []
    assert cairn("erase", "--prefix", "nobody", "--reason", "x", "--yes").code == 1


def test_who_takes_away_says_why_and_means_it(cairn):
    fill(cairn, "s")
    for command in (["delete", "s"], ["truncate", "s", "--before", "2"], ["erase", "s"]):
        done = cairn(*command, "--yes")
        assert done.code == 2 and b"--reason" in done.err
        done = cairn(*command, "--reason", "x", stdin=subprocess.DEVNULL)
        assert done.code == 2 and b"--yes" in done.err
    for wrong in (["delete"], ["truncate", "s"], ["erase"], ["erase", "s", "--prefix", "s"],
                  ["erase", "s", "--to", "2"]):
        assert cairn(*wrong, "--reason", "x", "--yes").code == 2
    done = cairn("delete", "$sessions", "--reason", "x", "--yes")
    assert done.code == 2 and b"journal's own" in done.err, done.err
    assert len(read(cairn, "s")) == 3


def where(folder, text):
    """Files below the folder that have the text in them."""
    return [str(p) for p in folder.rglob("*") if p.is_file() and text in p.read_bytes()]


def test_what_was_erased_is_gone_from_the_disk(lab, tmp_path):
    journal = lab.cairnd(options=["--compact-min-age", "0"])
    cairn = functools.partial(cairn_cli.cairn, journal)
    for n in range(200):
        assert cairn("append", "user|%d" % (n % 5), "a secret of user %d, number %d" % (n % 5, n)).code == 0
    folder = tmp_path / "data"
    assert where(folder, b"a secret of user 3") and where(folder, b"a secret of user 4")
    assert cairn("erase", "user|3", "--reason", "asked", "--yes").code == 0
    assert b"a secret of user 3" not in cairn("read", "-o", "json").out
    assert cairn("delete", "user|4", "--reason", "asked", "--yes").code == 0
    done = cairn("compact", "-o", "jsonl")
    assert done.code == 0, done.err
    (row,) = done.lines()
    # Of a deleted stream the newest event stays without its body only while its sequence is the newest taken.
    assert (row["rewritten"], row["removed"], row["erased"]) == (1, 40, 40), row
    assert where(folder, b"a secret of user 3") == [] and where(folder, b"a secret of user 4") == []
    assert where(folder, b"a secret of user 2")
    assert [r["kind"] for r in read(cairn, "$acts")] == ["compaction"]
    left = read(cairn)
    assert len(left) == 200 - 40 + 2 and sum(r.get("erased", False) for r in left) == 40
    # A start finds the same, with the index and without.
    for indexed in (True, False):
        journal.terminate()
        if not indexed:
            shutil.rmtree(folder / "index")
        journal.start()
        journal.ready()
        assert read(cairn) == left
    assert cairn("compact", "-o", "jsonl").lines()[0]["rewritten"] == 0


def test_retention_of_a_category(lab):
    journal = lab.cairnd(options=["--compact-min-age", "0"])
    cairn = functools.partial(cairn_cli.cairn, journal)
    for _ in range(4):
        for stream in ("value|1", "value|2", "kept|1"):
            assert cairn("append", stream, "x").code == 0
    done = cairn("retention", "--category", "value", "--max-count", "1", "--reason", "values", "--yes", "-o", "jsonl")
    assert done.code == 0, done.err
    assert done.lines()[0]["did"] == "rule set"
    assert cairn("retention", "value|2", "--max-count", "3", "--reason", "more of it", "--yes").code == 0
    assert cairn("retention", "value|2", "--reason", "x", "--yes").code == 2
    assert cairn("retention", "value|2", "--none", "--max-count", "3", "--reason", "x", "--yes").code == 2
    assert cairn("retention", "--category", "value", "--before", "3", "--reason", "x", "--yes").code == 2
    assert cairn("compact").code == 0
    assert [r["sequence"] for r in read(cairn, "value|1")] == [4]
    assert [r["sequence"] for r in read(cairn, "value|2")] == [2, 3, 4]
    assert len(read(cairn, "kept|1")) == 4
    assert cairn("append", "value|1", "x", "--expect", "4").code == 0


@pytest.mark.parametrize("answer,code,left", [(b"no\n", 1, 3), (b"yes\n", 0, 1)])
def test_on_a_terminal_it_asks(cairnd, cairn, answer, code, left):
    fill(cairn, "s")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([tools.program("cairn"), "delete", "s", "--reason", "x"], stdin=theirs,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "CAIRN_JOURNAL": "127.0.0.1:%d" % cairnd.port})
    os.close(theirs)
    os.write(ours, answer)
    out, err = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == code, err
    assert b"Type yes" in err
    assert len(read(cairn, "s")) == left
