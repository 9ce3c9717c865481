"""cairnd by a client that no one here wrote: every operation of the journal's service, on every backend."""

import re
import time
import uuid

import pytest

from harness import channel_to, eventually, refused
from journal_client import (Journal, Refused, brief, check_whole, event, exactly, exists, new_id, none, pb,
                            rec, to_stream)
from postgres import BACKENDS, storage_of


@pytest.fixture(params=BACKENDS)
def cairnd(lab, request):
    return lab.cairnd(storage_of(lab, request.param))


@pytest.fixture
def journal(cairnd):
    j = Journal(cairnd.port)
    yield j
    check_whole(j.read(include_system=True))  # whatever a test did: the journal is intact
    j.close()


def fill(journal, stream, n, type="Happened", size=0):
    """n events, one append each."""
    return [journal.append(to_stream(stream, event(type, b"x" * size))) for _ in range(n)]


# --- Append ------------------------------------------------------------------------------------------

def test_an_append_is_numbered_and_read_back(journal):
    first = journal.append(to_stream("cart|1", event("Added", b"{}", content_type="application/json"),
                                     event("Removed", b"\x00\xff")))
    assert (first.first_position, first.count, first.repeated) == (0, 2, False)
    assert [(s.stream, s.sequence) for s in first.streams] == [("cart|1", 2)]
    assert first.cursor.position == 2 and first.cursor.incarnation == 1 and len(first.cursor.journal_id) == 16
    second = journal.append(to_stream("cart|1", event("Added", metadata=[rec.Metadata(key="k", value=b"v")])))
    assert (second.first_position, second.streams[0].sequence) == (2, 3)
    a, b, c = journal.read(stream="cart|1")
    assert brief([a, b, c]) == [("cart|1", 1, "Added"), ("cart|1", 2, "Removed"), ("cart|1", 3, "Added")]
    assert [e.position for e in (a, b, c)] == [0, 1, 2]
    assert (a.body.data, a.header.content_type) == (b"{}", "application/json")
    assert b.body.data == b"\x00\xff" and len(b.body.salt) == 16 and a.body.salt != b.body.salt
    assert [(m.key, m.value) for m in c.body.metadata] == [("k", b"v")]
    assert [e.header.last_of_append for e in (a, b, c)] == [False, True, True]
    assert a.header.commit_time_us == first.commit_time_us
    assert a.header.kind == rec.KIND_EVENT and a.header.format == 1


def test_the_actor_is_the_peer_as_the_server_sees_it(journal):
    journal.append(to_stream("s", event()))
    assert journal.read(stream="s")[0].header.actor == "ip:127.0.0.1"


@pytest.mark.parametrize("written, expect, ok", [
    (0, none(), True), (0, exists(), False), (0, exactly(0), True), (0, exactly(1), False), (0, None, True),
    (2, none(), False), (2, exists(), True), (2, exactly(2), True), (2, exactly(1), False),
    (2, exactly(3), False), (2, None, True),
])
def test_expectations(journal, written, expect, ok):
    fill(journal, "s", written)
    if ok:
        assert journal.append(to_stream("s", event(), expect=expect)).streams[0].sequence == written + 1
        return
    with pytest.raises(Refused) as refused:
        journal.append(to_stream("other", event()), to_stream("s", event(), expect=expect))
    assert refused.value.code == "FAILED_PRECONDITION"
    detail = refused.value.refusal
    assert (detail.code, detail.stream) == (9, "s") and "s" in detail.text
    assert detail.HasField("sequence_found") and detail.sequence_found == written
    assert journal.stat().head.position == written, "all or nothing"


def test_conditions_are_of_streams_that_are_not_written(journal):
    fill(journal, "config", 3)
    condition = pb.Condition(stream="config", expect=exactly(3))
    journal.append(to_stream("s", event()), conditions=[condition])
    with pytest.raises(Refused) as refused:
        journal.append(to_stream("s", event()), conditions=[pb.Condition(stream="config", expect=exactly(2))])
    assert refused.value.code == "FAILED_PRECONDITION"
    assert (refused.value.refusal.stream, refused.value.refusal.sequence_found) == ("config", 3)
    only = journal.append(conditions=[condition])
    assert (only.count, only.cursor.position) == (0, 4)


def test_several_streams_at_once(journal):
    answer = journal.append(to_stream("a|1", event("A"), event("A")), to_stream("b|1", event("B")))
    assert [(s.stream, s.sequence) for s in answer.streams] == [("a|1", 2), ("b|1", 1)]
    entries = journal.read()
    assert brief(entries) == [("a|1", 1, "A"), ("a|1", 2, "A"), ("b|1", 1, "B")]
    assert [e.header.last_of_append for e in entries] == [False, False, True]


def test_a_repeated_append_returns_the_first_result(journal):
    request = [to_stream("s", event(), event(), expect=exactly(0)), to_stream("t", event())]
    first = journal.append(*request)
    fill(journal, "s", 1)
    again = journal.append(*request)
    assert again.repeated and not first.repeated
    assert (again.first_position, again.count, again.commit_time_us) == (0, 3, first.commit_time_us)
    assert [(s.stream, s.sequence) for s in again.streams] == [("s", 2), ("t", 1)]
    assert journal.stat().head.position == 4


def test_a_repeat_in_part_is_refused(journal):
    ids = [new_id(), new_id(), new_id()]
    journal.append(to_stream("s", event(id=ids[0]), event(id=ids[1])))
    for wrong in ([ids[0], ids[2]], [ids[1], ids[0]], [ids[0]], [ids[2], ids[1]]):
        with pytest.raises(Refused) as refused:
            journal.append(to_stream("s", *[event(id=i) for i in wrong]))
        assert refused.value.code == "ALREADY_EXISTS", wrong
    with pytest.raises(Refused) as refused:
        journal.append(to_stream("other", event(id=ids[0]), event(id=ids[1])))
    assert refused.value.code == "ALREADY_EXISTS"
    assert journal.stat().head.position == 2


def test_without_an_id_the_server_makes_one(journal):
    journal.append(to_stream("s", event(id=b"")))
    journal.append(to_stream("s", event(id=b"")))
    a, b = journal.read(stream="s")
    assert uuid.UUID(bytes=a.header.id).version == 7 and a.header.id != b.header.id


# --- AppendStream ------------------------------------------------------------------------------------

def test_append_stream_answers_every_request_by_its_number(journal):
    stream = journal.append_stream()
    for n in range(1000):
        stream.send(1000 - n, to_stream("s%d" % (n % 7), event(data=b"%d" % n)))
    stream.half_close()
    answers, status = stream.rest()
    assert status == "OK"
    assert sorted(a.request for a in answers) == list(range(1, 1001))
    assert sorted(a.first_position for a in answers) == list(range(1000))
    # One call is decided in the order in which it was sent.
    assert [a.first_position for a in sorted(answers, key=lambda a: -a.request)] == list(range(1000))


def test_a_refused_append_does_not_end_the_stream(journal):
    stream = journal.append_stream()
    stream.send(7, to_stream("s", event(), expect=exactly(5)))
    answer = stream.answer()
    assert answer.request == 7 and answer.refusal.code == 9 and not answer.streams
    assert (answer.refusal.stream, answer.refusal.sequence_found) == ("s", 0)
    stream.send(8, to_stream("bad\x07name", event()))
    assert stream.answer().refusal.code == 3
    stream.send(9, to_stream("s", event(), expect=none()))
    answer = stream.answer()
    assert answer.request == 9 and not answer.HasField("refusal") and answer.streams[0].sequence == 1
    stream.half_close()
    assert stream.rest() == ([], "OK")


def test_what_an_abandoned_stream_had_sent_is_settled_by_repeating_it(journal):
    request = to_stream("s", event(), expect=exactly(0))
    stream = journal.append_stream()
    stream.send(1, request)
    stream.cancel()
    journal.append(request)
    assert len(journal.read(stream="s")) == 1


# --- Read --------------------------------------------------------------------------------------------

@pytest.fixture
def mixed(journal):
    """a|1: 1 3 5, b|1: 2 4 6 (positions less one), $schema-x at 6, then a|2."""
    for n in range(3):
        journal.append(to_stream("a|1", event("A%d" % n)))
        journal.append(to_stream("b|1", event("B%d" % n)))
    journal.append(to_stream("$schema-x", event("Schema")))
    journal.append(to_stream("a|2", event("A0")))
    return journal


def positions(entries):
    return [e.position for e in entries]


@pytest.mark.parametrize("query, expected", [
    ({}, [0, 1, 2, 3, 4, 5, 7]),
    ({"include_system": True}, [0, 1, 2, 3, 4, 5, 6, 7]),
    ({"stream": "a|1"}, [0, 2, 4]),
    ({"stream": "$schema-x"}, [6]),
    ({"stream": "nothing"}, []),
    ({"category": "a"}, [0, 2, 4, 7]),
    ({"backward": True}, [7, 5, 4, 3, 2, 1, 0]),
    ({"stream": "a|1", "backward": True}, [4, 2, 0]),
    ({"category": "b", "backward": True}, [5, 3, 1]),
    ({"from_position": 3}, [3, 4, 5, 7]),
    ({"from_position": 3, "to_position": 5}, [3, 4, 5]),
    ({"from_position": 100}, []),
    ({"backward": True, "from_position": 3}, [3, 2, 1, 0]),
    ({"backward": True, "from_position": 5, "to_position": 3}, [5, 4, 3]),
    ({"stream": "a|1", "from_sequence": 2}, [2, 4]),
    ({"stream": "a|1", "from_sequence": 2, "to_sequence": 2}, [2]),
    ({"stream": "a|1", "backward": True, "from_sequence": 2}, [2, 0]),
    ({"stream": "a|1", "backward": True, "to_sequence": 2}, [4, 2]),
    ({"stream": "a|1", "from_position": 1}, [2, 4]),
    ({"category": "a", "from_position": 3}, [4, 7]),
    ({"types": ["A0", "B1"]}, [0, 3, 7]),
    ({"stream_prefixes": ["a|2", "b"]}, [1, 3, 5, 7]),
    ({"stream_prefixes": ["a"], "types": ["A0"]}, [0, 7]),
    ({"kinds": [rec.KIND_SNAPSHOT]}, []),
    ({"max_records": 2}, [0, 1]),
    ({"max_records": 2, "backward": True}, [7, 5]),
    ({"max_records": 1, "types": ["A2"]}, [4]),
])
def test_reads(mixed, query, expected):
    assert positions(mixed.read(**query)) == expected


def test_a_read_goes_on_from_its_cursor(mixed):
    for backward in (False, True):
        for source in ({}, {"stream": "a|1"}, {"category": "a"}):
            every = positions(mixed.read(backward=backward, **source))
            got, cursor = [], None
            while True:
                more = {"from_cursor": cursor} if cursor else {}
                last = mixed.read_responses(backward=backward, max_records=2, **source, **more)
                new = [e for r in last for e in r.entries]
                if not new:
                    break
                got += positions(new)
                cursor = last[-1].cursor
                if backward and got[-1] == 0:
                    break
            assert got == every, (backward, source)


def test_large_reads_come_in_responses_of_a_megabyte(journal):
    for n in range(6):
        journal.append(to_stream("s", *[event(data=bytes([n]) * 100000) for _ in range(5)]))
    responses = journal.read_responses(stream="s")
    assert len(responses) >= 3 and all(r.ByteSize() <= 1 << 20 for r in responses)
    assert [e.header.sequence for r in responses for e in r.entries] == list(range(1, 31))
    big = journal.append(to_stream("big", event(data=b"y" * (3 * 1000 * 1000))))
    assert len(journal.read(stream="big")[0].body.data) == 3000000 and big.count == 1


def test_reads_say_what_is_wrong_with_them(mixed):
    cursor = mixed.stat().head
    other = pb.ReadRequest().from_cursor
    for query, code in (
            ({"from_sequence": 1}, "INVALID_ARGUMENT"),
            ({"category": "a", "from_sequence": 1}, "INVALID_ARGUMENT"),
            ({"category": "a", "to_sequence": 1}, "INVALID_ARGUMENT"),
            ({"stream": ""}, "INVALID_ARGUMENT"),
            ({"category": "a|1"}, "INVALID_ARGUMENT"),
            ({"stream": "x\x00y"}, "INVALID_ARGUMENT"),
            ({"kinds": [99]}, "INVALID_ARGUMENT"),
            ({"from_cursor": other}, "INVALID_ARGUMENT"),
            ({"from_cursor": type(other)(journal_id=b"x" * 16, incarnation=1, position=1)},
             "INVALID_ARGUMENT"),
            ({"from_cursor": type(other)(journal_id=cursor.journal_id, incarnation=9, position=1)},
             "INVALID_ARGUMENT"),
            ({"journal": "another"}, "NOT_FOUND")):
        with pytest.raises(Refused) as refused:
            mixed.read(**query)
        assert refused.value.code in (code, "FAILED_PRECONDITION") and refused.value.text, query


# --- not_before --------------------------------------------------------------------------------------

def test_not_before_waits_for_what_it_names(cairnd, journal):
    fill(journal, "s", 2)
    at = journal.stat().head
    at.position += 1
    other = Journal(cairnd.port)
    waiting = other._calls["Read"](pb.ReadRequest(stream="s", not_before=at), timeout=20)
    fill(journal, "s", 1)
    assert [e.header.sequence for r in waiting for e in r.entries] == [1, 2, 3]
    other.close()


def test_not_before_gives_up_after_a_while(lab):
    journal = Journal(lab.cairnd(storage="memory", options=["--not-before-wait", "200ms"]).port)
    at = journal.append(to_stream("s", event())).cursor
    assert len(journal.read(stream="s", not_before=at)) == 1
    at.position += 1
    for ask in (lambda: journal.read(stream="s", not_before=at), lambda: journal.load("s", not_before=at),
                lambda: journal.stat(not_before=at), lambda: journal.list_streams(not_before=at),
                lambda: journal.subscribe(not_before=at).next()):
        with pytest.raises(Refused) as refused:
            ask()
        assert refused.value.code == "UNAVAILABLE"


# --- Load --------------------------------------------------------------------------------------------

def test_load_gives_the_newest_snapshot_and_the_events_after_it(journal):
    journal.append(to_stream("s", event("E1"), event("E2"), snapshot=event("S2")))
    journal.append(to_stream("s", event("E3")))
    journal.append(to_stream("s", event("E4"), event("E5"), snapshot=event("S5", b"state")))
    journal.append(to_stream("s", event("E6")))
    journal.append(to_stream("t", event("X")))
    types = lambda found: [e.header.type for e in found[0]]
    assert types(journal.load("s")) == ["S5", "E6"]
    assert journal.load("s")[1].sequence == 6
    assert types(journal.load("s", at_sequence=6)) == ["S5", "E6"]
    assert types(journal.load("s", at_sequence=5)) == ["S5"]
    assert types(journal.load("s", at_sequence=4)) == ["S2", "E3", "E4"]
    assert types(journal.load("s", at_sequence=1)) == ["E1"]
    snapshot = journal.load("s")[0][0]
    assert (snapshot.header.kind, snapshot.header.sequence) == (rec.KIND_SNAPSHOT, 5)
    assert [e.header.type for e in journal.read(stream="s", kinds=[rec.KIND_EVENT])] == [
        "E1", "E2", "E3", "E4", "E5", "E6"]


def test_load_of_a_stream_that_is_not_there(journal):
    entries, last = journal.load("nothing")
    assert entries == [] and last.sequence == 0 and last.end
    with pytest.raises(Refused) as refused:
        journal.load("")
    assert refused.value.code == "INVALID_ARGUMENT"


def test_a_long_load_comes_whole(journal):
    for n in range(5):
        journal.append(to_stream("s", *[event("E", b"z" * 90000) for _ in range(6)]))
    entries, last = journal.load("s")
    assert [e.header.sequence for e in entries] == list(range(1, 31)) and last.sequence == 30


# --- Subscribe ---------------------------------------------------------------------------------------

def test_a_subscription_replays_then_follows(cairnd, journal):
    fill(journal, "s", 3)
    sub = journal.subscribe(stream="s")
    entries, response = sub.until_caught_up()
    assert [e.header.sequence for e in entries] == [1, 2, 3]
    assert response.cursor.position == 3
    for n in range(4, 8):
        journal.append(to_stream("other", event()))
        journal.append(to_stream("s", event()))
        entries, _ = sub.take(1)
        assert [e.header.sequence for e in entries] == [n]
    sub.cancel()


def test_a_subscription_from_the_end_gives_only_what_is_new(journal):
    fill(journal, "s", 3)
    sub = journal.subscribe(from_end=True)
    _, response = sub.until_caught_up()
    assert response.cursor.position == 3
    journal.append(to_stream("s", event("New")))
    assert [e.header.type for e in sub.take(1)[0]] == ["New"]
    sub.cancel()


def test_a_subscription_goes_on_from_a_cursor(journal):
    fill(journal, "a|1", 2)
    sub = journal.subscribe(category="a")
    _, response = sub.until_caught_up()
    sub.cancel()
    fill(journal, "a|2", 1)
    fill(journal, "b|1", 1)
    fill(journal, "a|1", 1)
    again = journal.subscribe(category="a", from_cursor=response.cursor)
    assert brief(again.until_caught_up()[0]) == [("a|2", 1, "Happened"), ("a|1", 3, "Happened")]
    again.cancel()


def test_subscribers_never_get_half_an_append(journal):
    sub = journal.subscribe()
    for _ in range(20):
        journal.append(to_stream("s", *[event() for _ in range(7)]), to_stream("t", event()))
    _, responses = sub.take(160)
    for r in responses:
        assert not r.entries or r.entries[-1].header.last_of_append
    sub.cancel()


def test_a_filtered_subscriber_moves_on(journal):
    """It is told now and then how far it has come, though nothing is for it."""
    sub = journal.subscribe(types=["Rare"])
    sub.until_caught_up()
    stream = journal.append_stream()
    for n in range(100):
        stream.send(n, to_stream("s", *[event() for _ in range(100)]))
    stream.half_close()
    assert stream.rest()[1] == "OK"
    response = sub.next()
    while response.cursor.position < 4096:
        assert not response.entries
        response = sub.next()
    journal.append(to_stream("s", event("Rare")))
    assert [e.position for e in sub.take(1)[0]] == [10000]
    sub.cancel()


def test_many_subscribers(cairnd, journal):
    """100 subscribers to streams of their own, 20 to everything: each gets what is his, once, in order."""
    clients = [Journal(cairnd.port) for _ in range(4)]
    own = [clients[n % 4].subscribe(stream="s%d" % n) for n in range(100)]
    every = [clients[n % 4].subscribe() for n in range(20)]
    for s in own + every:
        s.until_caught_up()
    for n in range(300):
        journal.append(to_stream("s%d" % (n % 100), event()))
    for n, s in enumerate(own):
        assert [e.position for e in s.take(3)[0]] == [n, n + 100, n + 200]
    for s in every:
        assert [e.position for e in s.take(300)[0]] == list(range(300))
    for c in clients:
        c.close()
    eventually(lambda: "cairn_journal_subscriptions 0" in metrics_of(cairnd), "no subscription is left")


def test_how_far_subscriptions_are_behind_is_told(cairnd, journal):
    fill(journal, "s", 24, size=512 << 10)
    quick, slow = journal.subscribe(), journal.subscribe()
    quick.take(24)
    slow.next()
    shown = lambda name: int(float(re.search(r"^%s (\S+)$" % name, metrics_of(cairnd), re.M).group(1)))
    eventually(lambda: shown("cairn_subscriptions_behind") == 1, "one is behind")
    assert 0 < shown("cairn_subscription_lag_records") < 24
    for entry in iter(lambda: slow.next().entries[-1:], []):
        if entry[0].position == 23:
            break
    eventually(lambda: shown("cairn_subscriptions_behind") == 0, "it has come up")
    assert shown("cairn_subscription_lag_records") == 0
    slow.cancel()
    quick.cancel()


def metrics_of(cairnd):
    from harness import http_request
    return http_request(cairnd.port, "GET", "/metrics").body.decode()


# --- times -------------------------------------------------------------------------------------------

def test_reads_are_bounded_by_time(journal):
    for n in range(6):
        journal.append(to_stream("s|%d" % (n % 2), event("E%d" % n)))
        before = time.time_ns() // 1000
        while time.time_ns() // 1000 == before:
            pass  # a time of its own for each
    times = [e.header.commit_time_us for e in journal.read()]
    assert len(set(times)) == 6
    assert positions(journal.read(from_time_us=times[2])) == [2, 3, 4, 5]
    assert positions(journal.read(from_time_us=times[2] + 1, to_time_us=times[4])) == [3, 4]
    assert positions(journal.read(stream="s|1", to_time_us=times[4])) == [1, 3]
    assert positions(journal.read(backward=True, from_time_us=times[4] - 1, to_time_us=times[1])) == [3, 2, 1]
    assert journal.read(from_time_us=times[5] + 1) == [] and journal.read(to_time_us=times[0] - 1) == []
    subscription = journal.subscribe(from_time_us=times[3])
    assert positions(subscription.until_caught_up()[0]) == [3, 4, 5]
    subscription.cancel()


# --- Stat, ListStreams -------------------------------------------------------------------------------

def test_stat(cairnd, journal):
    stat = journal.stat()
    assert stat.head.position == 0 and stat.head.incarnation == 1 and stat.last_commit_time_us == 0
    assert stat.storage in BACKENDS and stat.version
    assert {"append", "append-stream", "read", "load", "subscribe", "list-streams"} <= set(stat.features)
    limits = {m.name: m.value for m in stat.limits}
    assert limits["record_bytes"] == 3 << 20 and limits["page_items"] == 1000
    journal.append(to_stream("s", event(), event(), snapshot=event()), to_stream("t", event()))
    stat = journal.stat(stream="s")
    s = stat.stream
    assert (s.name, s.sequence, s.records, s.first_position, s.last_position) == ("s", 2, 3, 0, 2)
    assert stat.head.position == 4 and stat.last_commit_time_us > 0
    with pytest.raises(Refused) as refused:
        journal.stat(stream="nothing")
    assert refused.value.code == "NOT_FOUND"


def test_streams_are_listed_in_pages(journal):
    names = ["a|%03d" % n for n in range(25)] + ["b|\u00e9", "\u4e2d\u6587|1"]
    for name in names:
        journal.append(to_stream(name, event(), event()))
    journal.append(to_stream("$schema-x", event()))
    listed, token, pages = [], "", 0
    while True:
        page = journal.list_streams(page_size=10, page_token=token)
        listed += [(s.name, s.sequence, s.records) for s in page.streams]
        pages, token = pages + 1, page.next_page_token
        if not token:
            break
    assert listed == [(n, 2, 2) for n in sorted(names, key=lambda n: n.encode())] and pages == 3
    assert [s.name for s in journal.list_streams(prefix="b|").streams] == ["b|\u00e9"]
    assert [s.name for s in journal.list_streams(prefix="$").streams] == ["$schema-x"]
    assert "$schema-x" in [s.name for s in journal.list_streams(include_system=True).streams]
    assert list(journal.list_streams(prefix="zzz").streams) == []


@pytest.mark.parametrize("method, field, value, what", [
    ("ListStreams", 2, b"a\xff", "prefix"), ("ListStreams", 5, b"a\x01", "page_token"),
    ("ListStreams", 2, b"a" * 501, "prefix"), ("Stat", 2, b"\xff", "stream"), ("Read", 3, b"\xff", "category"),
    ("Read", 2, b"\xff", "stream")], ids=range(6))
def test_names_that_cannot_be_are_refused(cairnd, method, field, value, what):
    """Of no client that makes its requests by the .proto file: bytes that are no text."""
    kind = channel_to(cairnd.port).unary_stream if method == "Read" else channel_to(cairnd.port).unary_unary
    length = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 127 | 128, len(value) >> 7])
    call = kind("/cairn.journal.v1.Journal/" + method, lambda b: b, lambda b: b)
    code, text = refused(lambda: list(call(bytes([field << 3 | 2]) + length + value, timeout=10)))
    assert code == "INVALID_ARGUMENT" and what in text
