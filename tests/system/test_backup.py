"""Backups: taken while a journal serves, restored into an empty store of any backend, and what those are told who had
read further than what was restored."""

import os
import random
import re
import signal
import struct
import subprocess
import threading

import pytest

import cairn_cli
import harness
import tools
from crc32c import crc32c
from journal_client import Journal, Refused, event, new_id, pb, rec, to_stream
from postgres import ask, new_database

FILE_MAX = 4 << 20  # bytes
SEED = int(os.environ.get("CAIRN_SEED", "1"))


def storage_of(lab, backend, name):
    return new_database() if backend == "postgres" else "file:%s" % (lab.folder / name)


class Cli:
    """`cairn` in the test's folder, which must end with the code."""

    def __init__(self, lab, journal):
        self.lab, self.journal = lab, journal

    def __call__(self, *arguments, code=0):
        done = cairn_cli.cairn(self.journal, *arguments, cwd=self.lab.folder, text=True)
        assert done.code == code, (arguments, done.code, done.err)
        return done


def frames(data):
    """(kind, payload) of a backup's frames, by src/journal/backup.h."""
    assert data[:8] == b"CAIRNBK1"
    at = 8
    while at < len(data):
        length, crc = struct.unpack_from("<II", data, at + 1)
        payload = data[at + 9:at + 9 + length]
        assert crc == crc32c(struct.pack("<Q", at) + data[at:at + 5] + payload)
        yield data[at:at + 1], payload
        at += 9 + length


def file_of(parts):
    data = b"CAIRNBK1"
    for kind, payload in parts:
        head = kind + struct.pack("<I", len(payload))
        data += head + struct.pack("<I", crc32c(struct.pack("<Q", len(data)) + head + payload)) + payload
    return data


def raw(journal):
    """All records as they are stored."""
    entries = []
    for response in journal.responses("Backup", pb.BackupRequest()):
        entries += [e.SerializeToString() for e in response.entries]
    return entries


def fill(journal):
    """Of everything something: events, snapshots, what was deleted, erased and removed, a session."""
    for n in range(40):
        journal.append(to_stream("cart|%d" % (n % 7), event(data=b"%d" % n), event(data=b"x" * n)))
    journal.append(to_stream("cart|1", event(data=b"e"), snapshot=event(data=b"state")))
    journal.begin_session("carts")
    journal.call("Erase", pb.EraseRequest(stream="cart|2", reason="asked", from_sequence=1, to_sequence=2))
    journal.call("Delete", pb.DeleteRequest(stream="cart|3", reason="closed"))
    journal.append(to_stream("cart|4", event()))
    journal.call("Compact", pb.CompactRequest())
    journal.call("Erase", pb.EraseRequest(stream="cart|5", reason="asked too", from_sequence=1, to_sequence=1))
    journal.append(to_stream("cart|3", event(data=b"again")))


OPTIONS = ("--compact-min-age", "0", "--compact-rate", "0")


@pytest.mark.parametrize("source, target", [("file", "file"), ("file", "postgres"), ("postgres", "file"),
                                            ("memory", "postgres")])
def test_what_is_restored_is_what_was_there(lab, source, target):
    storage = "memory" if source == "memory" else storage_of(lab, source, "data")
    key = lab.folder / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    options = OPTIONS + ("--signing-key-file", key)
    first = lab.cairnd(storage, name="cairnd-1", options=options)
    journal, cairn = Journal(first.port), Cli(lab, first)
    fill(journal)
    (lab.folder / "monday").write_text(cairn("checkpoint").out)
    stop = threading.Event()

    def go_on():
        own = Journal(first.port)
        while not stop.is_set():
            own.append(to_stream("more|%d" % random.randrange(5), event(data=b"m")))
        own.close()
    writer = threading.Thread(target=go_on)
    writer.start()
    harness.eventually(lambda: journal.stat().head.position > 100, "somebody appends meanwhile")
    try:
        said = cairn("backup", "b").err
    finally:
        stop.set()
        writer.join()
    count = int(re.search(r"backed up: (\d+) records", said).group(1))
    was = raw(journal)[:count]
    assert count >= 100
    kept = journal.read(stream="cart|3")
    uri = storage_of(lab, target, "restored")
    said = cairn("restore", "b", "--storage", uri, "--reason", "moved").err
    assert re.search(r"restored: journal [0-9a-f-]{36}, %d records, incarnation 2" % count, said), said
    second = lab.cairnd(uri, name="cairnd-2", options=options)
    restored = Journal(second.port)
    now = raw(restored)
    assert now[:count] == was and len(now) == count + 1
    last = restored.read(include_system=True)[-1]
    assert (last.header.kind, last.header.stream) == (rec.KIND_INCARNATION, "$incarnations")
    said = rec.Incarnation.FromString(last.body.data)
    assert (said.incarnation, said.fork, said.reason, said.cause) == (
        2, count, "moved", rec.Incarnation.CAUSE_RESTORED)
    assert restored.read(stream="cart|3") == kept and len(restored.read(stream="cart|2")) > 2
    assert restored.load("cart|1")[0][0].body.data == b"state"
    sequence = restored.stat(stream="cart|0").stream.sequence
    assert restored.append(to_stream("cart|0", event())).streams[0].sequence == sequence + 1
    # What was proved before is still so; and it goes on being compacted.
    Cli(lab, second)("checkpoint", "--since", "monday")
    restored.call("Compact", pb.CompactRequest())
    restored.close()
    second.terminate()
    second.start().ready()
    again = Journal(second.port)
    assert again.stat().head.incarnation == 2
    again.close()
    journal.close()


def test_only_into_an_empty_store_and_only_what_is_whole(lab):
    first = lab.cairnd()
    cairn = Cli(lab, first)
    journal = Journal(first.port)
    cairn("backup", "none", code=1)
    journal.append(to_stream("s", event(data=b"abc"), event()))
    cairn("backup", "b")
    said = cairn("restore", "b", "--storage", "file:%s" % (lab.folder / "data"), "--reason", "r", code=1).err
    assert "in use by process" in said or "has a journal" in said
    cairn("restore", "b", "--storage", "file:%s" % (lab.folder / "new"), code=2)  # no reason
    cairn("restore", "b", "--storage", "memory", "--reason", "r", code=2)
    taken = new_database()
    other = lab.cairnd(taken, name="cairnd-2")
    with_records = Journal(other.port)
    with_records.append(to_stream("t", event()))
    with_records.close()
    assert "has a journal of 1 records" in cairn("restore", "b", "--storage", taken, "--reason", "r", code=1).err
    whole = (lab.folder / "b").read_bytes()
    dice = random.Random(SEED)
    wrong = lab.folder / "wrong"
    positions = list(range(len(whole)))
    for at in dice.sample(positions, min(len(positions), harness.scaled(150, least=20))):
        wrong.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1:])
        said = cairn("restore", wrong, "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", code=4).err
        assert re.search(r"at byte \d+: ", said), (at, said)
    for at in dice.sample(positions, min(len(positions), harness.scaled(50, least=10))):
        wrong.write_bytes(whole[:at])
        said = cairn("restore", wrong, "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", code=4).err
        assert "cut off" in said or "no backup" in said, (at, said)
    # Somebody who knows the format, and how CRCs are made: the root tells.
    parts = list(frames(whole))
    assert [kind for kind, _ in parts] == [b"H", b"R", b"E"] and file_of(parts) == whole
    other = pb.ReadResponse.FromString(parts[1][1])
    del other.entries[1]
    end = rec.BackupEnd.FromString(parts[2][1])
    end.records = 1
    for forged in ([parts[0], (b"R", other.SerializeToString()), parts[2]],
                   [parts[0], (b"R", other.SerializeToString()), (b"E", end.SerializeToString())]):
        wrong.write_bytes(file_of(forged))
        said = cairn("restore", wrong, "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", code=4).err
        assert "another root" in said or "there are 1 records" in said
    for forged in (parts[1:], parts[:2] + parts[1:], parts[:1] + parts, parts[:2]):
        wrong.write_bytes(file_of(forged))
        cairn("restore", wrong, "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", code=4)
    wrong.write_bytes(whole + b"x")
    cairn("restore", wrong, "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", code=4)
    assert not (lab.folder / "new").exists()
    # Signed by this journal's key, and no other.
    def key_of(server):
        return re.search(r"verifier key: (\S+)", Cli(lab, server)("checkpoint").err).group(1)
    stranger = lab.cairnd("file:%s" % (lab.folder / "strange"), name="cairnd-3")
    key, other_key = key_of(first), key_of(stranger)
    cairn("restore", "b", "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", "--key", other_key, code=4)
    # Nor is a backup of another's journal one that could be restored.
    strange = cairn_cli.cairn(first, "backup", "-", "--key", other_key)
    assert strange.code == 4 and strange.out, strange.err
    wrong.write_bytes(strange.out)
    said = cairn("restore", wrong, "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", code=4).err
    assert "cut off" in said, said
    cairn("backup", "c", "--key", other_key, code=4)
    assert not [p for p in lab.folder.iterdir() if p.name in ("c", "c.part")]
    cairn("restore", "b", "--storage", "file:%s" % (lab.folder / "new"), "--reason", "r", "--key", key)
    journal.close()


def kill_within_restore(lab, backend, uri):
    """Of "b", when some of its records are in the store, and others not."""
    restore = [tools.program("cairn"), "restore", "b", "--storage", uri, "--reason", "r"]
    if backend == "file":  # the kernel does, by SIGXFSZ
        it = lab.run("restore", ["prlimit", "--fsize=%d" % FILE_MAX, "--core=0", "--", *restore])
        harness.eventually(lambda: not it.alive(), "a file has grown too long")
        assert it.process.returncode == -signal.SIGXFSZ, it.text()
        return
    subprocess.run([tools.program("cairnd"), "migrate", "up", "--storage", uri], check=True, stdout=subprocess.DEVNULL)
    ask(uri, "CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_advisory_xact_lock(7), pg_sleep(3600); END'")
    ask(uri, "CREATE TRIGGER stay BEFORE INSERT ON cairn.record FOR EACH ROW WHEN (NEW.position = 50000) "
        "EXECUTE FUNCTION stay()")
    it = lab.run("restore", restore)
    harness.eventually(lambda: ask(uri, "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 7"),
                       "it has come as far")
    it.kill()
    ask(uri, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7")
    ask(uri, "DROP TRIGGER stay ON cairn.record")
    assert 0 < int(ask(uri, "SELECT count(*) FROM cairn.record")[0][0]) <= 50000


@pytest.mark.parametrize("backend", ["file", "postgres"])
def test_a_restore_that_was_killed_is_no_journal(lab, backend):
    first = lab.cairnd("memory")
    journal = Journal(first.port)
    for _ in range(60):
        journal.append(to_stream("s", *[event(data=b"x" * 200) for _ in range(1000)]))
    cairn = Cli(lab, first)
    cairn("backup", "b")
    uri = storage_of(lab, backend, "new")
    kill_within_restore(lab, backend, uri)
    assert re.search("holds a restore that has not come to its end", refused_by(uri))
    said = cairn("restore", "b", "--storage", uri, "--reason", "r", code=1).err
    assert "not come to its end" in said or "has a journal" in said
    journal.close()


def refused_by(uri):
    """What cairnd says of a store that it does not open; empty while it would serve it."""
    done = subprocess.run([tools.program("cairnd"), "--check-config", "--storage", uri], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
    if done.returncode:
        return done.stdout
    it = subprocess.Popen([tools.program("cairnd"), "--listen", "127.0.0.1:0", "--storage", uri],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    line = it.stdout.readline()
    it.kill()
    it.wait()
    return line


@pytest.mark.parametrize("backend", ["file", "postgres"])
def test_who_had_read_further_is_told(lab, backend):
    first = lab.cairnd(storage_of(lab, backend, "data"), name="cairnd-1")
    journal = Journal(first.port)
    cairn = Cli(lab, first)
    for n in range(10):
        journal.append(to_stream("s", event(data=b"%d" % n)))
    at_backup = journal.stat().head
    cairn("backup", "b")
    tail = lab.run("tail", [tools.program("cairn"), "tail", "s", "--from", "1", "-o", "jsonl"],
                   {"CAIRN_JOURNAL": "127.0.0.1:%d" % first.port})
    slow = journal.stat().head
    for n in range(10, 15):
        journal.append(to_stream("s", event(data=b"%d" % n)))
    beyond = journal.stat().head
    tail.wait_text('"14"')
    uri = storage_of(lab, backend, "restored")
    cairn("restore", "b", "--storage", uri, "--reason", "the disk is gone")
    first.kill()
    second = lab.cairnd(uri, name="cairnd-2", port=first.port)
    journal.close()
    journal = Journal(second.port)
    journal.append(to_stream("s", event(data=b"another 10")))
    with pytest.raises(Refused) as refused:
        journal.read(stream="s", from_cursor=beyond)
    assert refused.value.code == "FAILED_PRECONDITION"
    fork = refused.value.refusal.fork
    assert (fork.position, fork.incarnation, fork.journal_id) == (10, 2, beyond.journal_id)
    with pytest.raises(Refused) as refused:
        journal.read(stream="s", not_before=beyond)
    assert refused.value.refusal.fork.position == 10
    for cursor in (at_backup, slow, fork):
        entries = journal.read(stream="s", from_cursor=cursor)
        assert [e.body.data for e in entries] == [b"another 10"]
    assert journal.read(from_cursor=journal.stat().head) == []
    journal.close()
    harness.eventually(lambda: not tail.alive(), "the one that has read on ends")
    assert tail.process.returncode == 1 and "the same up to position 10" in tail.text(), tail.text()
