"""Checkpoints and proofs, verified by Go's golang.org/x/mod/sumdb/tlog and note, through erasure, compaction, loss of
the tiles and restarts, on every backend."""

import base64
import json
import os
import random
import shutil
import subprocess
import threading

import pytest

import tools
from harness import eventually
from journal_client import Journal, Refused, event, pb, rec, to_stream
from postgres import Postgres

SEED = int(os.environ.get("CAIRN_SEED", "1"))


class Proofs:
    """What a journal says of its tree, gathered for the verifier."""

    def __init__(self, port):
        self.journal = Journal(port, timeout=30)
        channel, service = self.journal.channel, "/cairn.journal.v1.Journal/"
        pack = lambda m: m.SerializeToString()
        self._calls = {name: channel.unary_unary(service + name, request_serializer=pack,
                                                 response_deserializer=answer.FromString)
                       for name, answer in (("Checkpoint", pb.CheckpointResponse),
                                            ("InclusionProof", pb.InclusionProofResponse),
                                            ("ConsistencyProof", pb.ConsistencyProofResponse),
                                            ("Compact", pb.CompactResponse), ("Erase", pb.ActResponse),
                                            ("Delete", pb.ActResponse), ("Truncate", pb.ActResponse))}
        self._read = channel.unary_stream(service + "Read", request_serializer=pack,
                                          response_deserializer=lambda b: b)
        self.key, self.notes, self.roots, self.inclusions, self.consistencies = "", [], {}, [], []

    def call(self, name, request):
        import grpc
        try:
            return self._calls[name](request, timeout=60, wait_for_ready=True)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def keep(self, checkpoint):
        if checkpoint.verifier_key:
            assert self.key in ("", checkpoint.verifier_key), "another key"
            self.key = checkpoint.verifier_key
            self.notes.append(checkpoint.note)
        else:
            assert not checkpoint.note
            assert self.roots.setdefault(str(checkpoint.size), checkpoint.root) == checkpoint.root
        return checkpoint

    def checkpoint(self, **more):
        return self.keep(self.call("Checkpoint", pb.CheckpointRequest(**more)).checkpoint)

    def include(self, position, size=0):
        p = self.call("InclusionProof", pb.InclusionProofRequest(position=position, size=size))
        self.inclusions.append(dict(Position=position, Size=p.checkpoint.size, Leaf=p.leaf_hash,
                                    Hashes=list(p.hashes), Note=self.keep(p.checkpoint).note))
        return p

    def connect(self, old, size=0):
        p = self.call("ConsistencyProof", pb.ConsistencyProofRequest(old_size=old, size=size))
        self.consistencies.append(dict(Old=old, Size=p.checkpoint.size, OldRoot=p.old_root, Hashes=list(p.hashes),
                                       Note=self.keep(p.checkpoint).note))
        return p

    def records(self):
        """All that readers are given, raw, by position."""
        found = {}
        for response in self._read(pb.ReadRequest(include_system=True), timeout=60):
            for entry in entries_of(response):
                found[entry.position] = dict(Header=entry.header, Body=entry.body, BodyHash=entry.body_hash)
        return found

    def verify(self, records, expect=0):
        text = json.dumps(dict(Key=self.key, Records=records, Notes=sorted(set(self.notes)), Roots=self.roots,
                               Inclusions=self.inclusions, Consistencies=self.consistencies),
                          default=lambda b: base64.b64encode(b).decode())
        done = subprocess.run([tools.go_tlog()], input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout


def entries_of(response):
    """RawEntry messages of a response, whose field 1 they are."""
    at = 0
    while at < len(response) and response[at] == 0x0a:
        size, shift, at = 0, 0, at + 1
        while True:
            byte, at = response[at], at + 1
            size, shift = size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        yield rec.RawEntry.FromString(response[at:at + size])
        at += size


class Server:
    """One backend, with one cairnd on it that can be started again."""

    def __init__(self, lab, kind):
        self.lab, self.kind, self.folder = lab, kind, lab.folder / "data"
        self.uri = {"memory": "memory", "file": "file:%s" % self.folder}.get(kind)
        if kind == "postgres":
            self.postgres = Postgres(lab)
            self.uri = self.postgres.uri()
            subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", lab.folder / "key.pem"], check=True)
        self.options = ["--compact-min-age", "0", "--compact-rate", "0"]
        if kind == "postgres":
            self.options += ["--signing-key-file", str(lab.folder / "key.pem")]
        self.cairnd = lab.cairnd(storage=self.uri, options=self.options)

    def again(self, lose_tiles=False):
        self.cairnd.terminate()
        if lose_tiles and self.kind == "file":
            shutil.rmtree(self.folder / "tree")
        if lose_tiles and self.kind == "postgres":
            self.postgres.sql("DELETE FROM cairn.tile", "journal")
        self.cairnd = self.lab.cairnd(storage=self.uri, options=self.options, name="again", port=self.cairnd.port)


@pytest.fixture(params=["memory", "file", "postgres"])
def server(lab, request):
    return Server(lab, request.param)


def fill(proofs, count, streams=7):
    for n in range(count):
        proofs.journal.append(to_stream("s|%d" % (n % streams), event("E", b"secret %d " % n * (n % 5))))


def test_a_small_log_is_proved_through_erasure_and_compaction(server):
    proofs = Proofs(server.cairnd.port)
    chance = random.Random(SEED)
    assert proofs.checkpoint().size == 0
    fill(proofs, 120)
    proofs.journal.append(*[to_stream("many|%d" % i, *[event("E", b"x" * 100) for _ in range(10)]) for i in range(20)])
    size = proofs.checkpoint().size
    assert size == 320
    records = proofs.records()
    assert sorted(records) == list(range(size))
    # Every record in the whole tree, and in a smaller one; many pairs of sizes; a root for each of many sizes.
    for position in range(size):
        proofs.include(position)
        proofs.include(position, chance.randrange(position + 1, size + 1))
    for _ in range(200):
        old = chance.randrange(0, size + 1)
        proofs.connect(old, chance.randrange(max(old, 1), size + 1))
    for old in (0, 1, 2, 255, 256, 257, size - 1, size):
        proofs.connect(old)
    leaves = {p: records[p] for p in records}
    print(proofs.verify([leaves[p] for p in sorted(leaves)]))

    # What was proved before holds afterwards, and what is proved afterwards is of the same leaves.
    proofs.call("Erase", pb.EraseRequest(stream="s|3", reason="asked"))
    proofs.call("Erase", pb.EraseRequest(stream="s|4", from_sequence=2, to_sequence=3, reason="asked"))
    proofs.call("Erase", pb.EraseRequest(prefix="many|1", reason="asked"))
    proofs.call("Delete", pb.DeleteRequest(stream="s|5", reason="asked"))
    proofs.call("Truncate", pb.TruncateRequest(stream="s|6", before_sequence=9, reason="asked"))
    fill(proofs, 10, streams=2)
    done = proofs.call("Compact", pb.CompactRequest())
    assert done.removed > 0 and done.erased > 0, done
    old_size, size = size, proofs.checkpoint().size
    for lose_tiles in (None, False, True):
        if lose_tiles is not None and server.kind != "memory":
            server.again(lose_tiles)
            proofs.journal.close()
            later = Proofs(server.cairnd.port)
            later.key, later.notes, later.inclusions, later.consistencies = (
                proofs.key, proofs.notes, proofs.inclusions, proofs.consistencies)
            proofs = later
        left = proofs.records()
        for position in range(old_size, size):
            leaves[position] = left[position]
        for position in range(size):
            leaf = proofs.include(position)
            if position in left:
                leaves[position] = left[position]
            else:
                leaves[position] = dict(Leaf=leaf.leaf_hash)
        erased = sum(1 for r in left.values() if r["BodyHash"])
        assert erased > 20 and len(left) < size - 20, (erased, len(left), size)
        for _ in range(50):
            old = chance.randrange(1, old_size + 1)
            proofs.connect(old, chance.randrange(old_size, size + 1))
        # With what the log still gives, and, of the old part, with what it gave before.
        print(proofs.verify([leaves[p] for p in sorted(leaves)]))
        print(proofs.verify([records.get(p, leaves[p]) for p in sorted(leaves)]))


def test_the_verifier_finds_what_is_wrong(server):
    """Else its yes would say nothing."""
    proofs = Proofs(server.cairnd.port)
    fill(proofs, 20)
    proofs.include(7)
    proofs.connect(5)
    records = [r for _, r in sorted(proofs.records().items())]
    proofs.verify(records)
    changed = [dict(r) for r in records]
    changed[7]["Body"] += b" "
    assert "the records hash to" in proofs.verify(changed, expect=1)
    changed = [dict(r) for r in records]
    changed[3]["Header"] = changed[4]["Header"]
    proofs.verify(changed, expect=1)
    note = proofs.notes[0]
    proofs.notes.append(note.replace("\n20\n", "\n19\n"))
    assert "the note" in proofs.verify(records, expect=1)


def test_what_cannot_be_proved_is_said(server):
    proofs = Proofs(server.cairnd.port)
    fill(proofs, 3)
    for name, request, code, text in (
            ("InclusionProof", pb.InclusionProofRequest(position=3), "NOT_FOUND", "the journal has 3"),
            ("InclusionProof", pb.InclusionProofRequest(position=2, size=2), "INVALID_ARGUMENT", "tree of 2"),
            ("Checkpoint", pb.CheckpointRequest(size=4), "NOT_FOUND", "the journal has 3"),
            ("ConsistencyProof", pb.ConsistencyProofRequest(old_size=3, size=2), "INVALID_ARGUMENT", "of 2"),
            ("Checkpoint", pb.CheckpointRequest(journal="other"), "NOT_FOUND", "no journal"),
            ("Checkpoint", pb.CheckpointRequest(not_before=pb.CheckpointRequest().not_before.__class__(
                journal_id=b"x" * 16, incarnation=1, position=1)), "INVALID_ARGUMENT", "cursor is of journal")):
        with pytest.raises(Refused) as refused:
            proofs.call(name, request)
        assert refused.value.code == code and text in refused.value.text, refused.value.text
    features = set(proofs.journal.stat().features)
    assert {"checkpoint", "proofs"} <= features


class Writer(threading.Thread):
    """Appends until it is told to stop; a server that is away is waited for."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.over, self.failure = port, False, None

    def run(self):
        try:
            journal = Journal(self.port, timeout=30)
            while not self.over:
                try:
                    journal.append(*[to_stream("w|%d" % n, *[event() for _ in range(20)]) for n in range(5)])
                except Refused as refused:
                    assert refused.code in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"), str(refused)
        except BaseException as failure:
            self.failure = failure


def test_kills_while_the_tree_grows_change_nothing_that_was_signed(lab):
    """What was signed before a kill is the beginning of what is signed after it, whatever became of the tiles."""
    server = Server(lab, "file")
    writer = Writer(server.cairnd.port)
    writer.start()
    chance = random.Random(SEED)
    notes, sizes, key = [], [0], ""
    for _ in range(6):
        proofs = Proofs(server.cairnd.port)
        proofs.key = key
        wanted = sizes[-1] + chance.randrange(50, 900)
        eventually(lambda: proofs.checkpoint().size > wanted, "the log has grown", timeout=60)
        for old in sizes + [chance.randrange(1, wanted) for _ in range(10)]:
            proofs.connect(old)
        for _ in range(10):
            proofs.include(chance.randrange(wanted), wanted)
        key, sizes, notes = proofs.key, sizes + [wanted], notes + proofs.notes
        server.cairnd.kill()
        server.cairnd.start()
        server.cairnd.ready()
        last = Proofs(server.cairnd.port)
        last.key, last.inclusions, last.consistencies = key, proofs.inclusions, proofs.consistencies
        for old in sizes:
            last.connect(old)
        last.notes += notes
        proofs.journal.close()
        last.verify([r for _, r in sorted(last.records().items())])
    writer.over = True
    writer.join(60)
    assert writer.failure is None, repr(writer.failure)


def test_three_on_one_database_prove_one_log(lab):
    """Each follows what the others append, and all say the same, signed by one key."""
    server = Server(lab, "postgres")
    ports = [server.cairnd.port] + [lab.cairnd(storage=server.uri, options=server.options, name="other-%d" % n).port
                                    for n in range(2)]
    all_proofs = [Proofs(port) for port in ports]
    for n in range(300):
        answer = all_proofs[n % 3].journal.append(to_stream("s", event(), event()))
    for proofs in all_proofs:
        size = proofs.checkpoint(not_before=answer.cursor).size
        assert size == 600
        for position in range(0, size, 37):
            proofs.include(position)
        for old in range(1, size, 37):
            proofs.connect(old)
        proofs.verify([r for _, r in sorted(proofs.records().items())])
    assert len({note for proofs in all_proofs for note in proofs.notes if "\n600\n" in note}) == 1
    # The first level's tiles, whoever made them.
    tiles = lambda: server.postgres.sql("SELECT level, number FROM cairn.tile ORDER BY 1, 2", "journal")
    eventually(lambda: tiles() == [["0", "0"], ["0", "1"]], "both whole tiles are there")
    # Without a key nothing is signed, and the roots are the same.
    plain = Proofs(lab.cairnd(storage=server.uri, name="plain").port)
    plain.connect(300)
    assert plain.key == "" and plain.roots
    plain.verify([r for _, r in sorted(plain.records().items())])


def test_the_command_line_verifies_what_it_prints(lab, tmp_path):
    server = Server(lab, "file")

    def cairn(*arguments):
        return subprocess.run([tools.program("cairn"), *map(str, arguments)], capture_output=True, text=True,
                              timeout=60, env={**os.environ, "CAIRN_JOURNAL": "127.0.0.1:%d" % server.cairnd.port})

    for n in range(5):
        assert cairn("append", "user|1", "secret %d" % n).returncode == 0
    first = cairn("checkpoint")
    assert first.returncode == 0 and first.stdout.split("\n")[1] == "5", first
    key = first.stderr.split("verifier key: ")[1].strip()
    (tmp_path / "old").write_text(first.stdout)
    proof = cairn("prove", 2, "--key", key)
    assert proof.returncode == 0 and proof.stdout.startswith("c2sp.org/tlog-proof@v1\nindex 2\n"), proof
    assert proof.stderr == ""
    (tmp_path / "proof").write_text(proof.stdout)
    assert cairn("erase", "user|1", "--reason", "asked", "--yes").returncode == 0
    assert cairn("compact").returncode == 0
    server.again(lose_tiles=False)
    checked = cairn("prove", "--check", tmp_path / "proof", "--key", key)
    assert checked.returncode == 0 and "verified" in checked.stderr and checked.stdout == "", checked
    new = cairn("checkpoint", "--since", tmp_path / "old", "--key", key, "-o", "jsonl")
    assert new.returncode == 0 and "begin with the 5 of" in new.stderr, new
    assert json.loads(new.stdout)["size"] == 7 and json.loads(new.stdout)["verifier_key"] == key
    # What was changed, or is of another key or journal, is told by name, with the exit code of integrity.
    (tmp_path / "bad").write_text(proof.stdout.replace("index 2", "index 1"))
    bad = cairn("prove", "--check", tmp_path / "bad", "--key", key)
    assert bad.returncode == 4 and "position 1" in bad.stderr, bad
    (tmp_path / "bad").write_text(first.stdout.replace("\n5\n", "\n4\n"))
    bad = cairn("checkpoint", "--since", tmp_path / "bad", "--key", key)
    assert bad.returncode == 4 and "signature is not right" in bad.stderr, bad
    other = Proofs(lab.cairnd(storage="memory", name="other").port).checkpoint()
    bad = cairn("prove", 1, "--key", other.verifier_key)
    assert bad.returncode == 4 and "the checkpoint is of" in bad.stderr, bad
    for wrong in (["prove"], ["prove", "x"], ["prove", "1", "--check", "f"], ["prove", "1", "--key", "nonsense"],
                  ["prove", "--check", tmp_path / "none"], ["checkpoint", "--since", tmp_path / "none"]):
        done = cairn(*wrong)
        assert done.returncode == 2 and done.stderr, (wrong, done)
    assert cairn("prove", 99).returncode == 1
    # A signing key that is none: said at the start, with what to do.
    (tmp_path / "key.pem").write_text("nonsense")
    refused = subprocess.run([tools.program("cairnd"), "--storage", "memory", "--listen", "127.0.0.1:0",
                              "--signing-key-file", tmp_path / "key.pem"], capture_output=True, text=True, timeout=30)
    assert refused.returncode == 1 and "openssl genpkey -algorithm ed25519" in refused.stderr, refused
