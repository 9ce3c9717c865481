"""Reads the golden records with protoc's code and hashlib, sharing nothing with our encoder; speaks TAP."""

import hashlib
import os
import subprocess
import sys
import tempfile

SRC = os.environ.get("CAIRN_SRCDIR", ".")
ID = lambda i: bytes((0x10 * (i + 1) + b) & 0xFF for b in range(16))
SALT = bytes(range(16))
CART = "shopping-cart|user1"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# What was put in, written down a second time: position, header fields, data, metadata.
EXPECTED = [
    (0, dict(sequence=1, commit_time_us=1, kind=1, stream="a"), b"", []),
    (1, dict(sequence=1, commit_time_us=1795467080000123, kind=1, stream=CART,
             type="type.googleapis.com/com.example.ItemAdded", content_type="application/protobuf",
             actor="proxy", key_id="key-1", last_of_append=True),
     b"\x0a\x03abc\x00\xff", [("traceparent", TRACE), ("empty", b"")]),
    (2, dict(sequence=1, commit_time_us=1795467080000123, kind=2, stream=CART,
             type="type.googleapis.com/com.example.Cart", last_of_append=True), b"snapshot", []),
    (3, dict(sequence=7, commit_time_us=1795467080000124, kind=300, stream="zähler|ünï", type="t",
             last_of_append=True), b"", []),
    (0x0102030405060708, dict(sequence=0x1112131415161718, commit_time_us=0x2122232425262728, kind=1,
                              stream="$schema-cart", last_of_append=True), b"", []),
]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sha256(data):
    return hashlib.sha256(data).digest()


def root(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + root(leaves[:half]) + root(leaves[half:]))


def read_lines():
    found = {"entry": [], "leaf": [], "root": []}
    with open(os.path.join(SRC, "tests/data/record/golden.txt"), encoding="ascii") as f:
        for line in f:
            word, *rest = line.split()
            found[word].append(bytes.fromhex(rest[0]))
    return found["entry"], found["leaf"], found["root"]


def unframe(pb, whole):
    """An entry as it lies in a response: tag of field 1, length, Entry."""
    assert whole[0] == 0x0A
    n = shift = 0
    at = 1
    while True:
        byte = whole[at]
        n |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            break
    assert len(whole) == at + n
    return whole[at:]


def check_entry(pb, i, whole, leaf):
    entry_bytes = unframe(pb, whole)
    raw = pb.RawEntry.FromString(entry_bytes)
    assert crc32c(entry_bytes[:-5]) == raw.crc32c, "crc"
    assert sha256(b"\x00" + raw.header + sha256(raw.body)) == leaf, "leaf"
    entry = pb.Entry.FromString(entry_bytes)
    position, header, data, metadata = EXPECTED[i]
    assert entry.position == position, "position"
    assert entry.header == pb.Header(format=1, id=ID(i), **header), entry.header
    assert entry.body == pb.Body(salt=SALT, data=data,
                                 metadata=[pb.Metadata(key=k, value=v) for k, v in metadata]), entry.body
    # Field order and presence are what protobuf itself writes.
    assert entry.SerializeToString(deterministic=True) == entry_bytes, "canonical"
    assert raw.SerializeToString(deterministic=True) == entry_bytes, "canonical raw"


def main():
    entries, leaves, roots = read_lines()
    print(f"1..{len(EXPECTED) + 1}")
    failed = False

    def report(n, name, test):
        nonlocal failed
        try:
            test()
            print(f"ok {n} {name}")
        except Exception as e:
            failed = True
            print(f"not ok {n} {name}\n# {type(e).__name__}: {e}")

    with tempfile.TemporaryDirectory() as out:
        proto = os.path.join(SRC, "proto")
        subprocess.run(["protoc", f"-I{proto}", f"--python_out={out}", "cairn/journal/v1/record.proto"],
                       cwd=proto, check=True, timeout=60)
        sys.path.insert(0, out)
        from cairn.journal.v1 import record_pb2 as pb

        for i in range(len(EXPECTED)):
            report(i + 1, f"golden entry {i}", lambda i=i: check_entry(pb, i, entries[i], leaves[i]))

    def check_roots():
        assert len(entries) == len(leaves) == len(EXPECTED) and len(roots) == len(leaves) + 1
        for n, expected in enumerate(roots):
            assert root(leaves[:n]) == expected, f"root of {n}"
        assert crc32c(b"123456789") == 0xE3069283

    report(len(EXPECTED) + 1, "roots (RFC 6962)", check_roots)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
