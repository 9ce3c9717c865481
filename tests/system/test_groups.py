"""Consumer groups of cairnd, by a client that no one here wrote, on every backend."""

import re
import time

import pytest

import harness
from crc32c import crc32c
from journal_client import Journal, Refused, check_whole, event, pb, rec, to_stream
from postgres import BACKENDS, storage_of


@pytest.fixture(params=BACKENDS)
def cairnd(lab, request):
    return lab.cairnd(storage_of(lab, request.param))


@pytest.fixture
def journal(cairnd):
    j = Journal(cairnd.port, timeout=30)
    yield j
    check_whole(j.read(include_system=True))
    j.close()


def fill(journal, *names):
    """One event a name; its data is its place in the list."""
    for i, name in enumerate(names):
        journal.append(to_stream(name, event("E", b"%d" % i)))


def data(entries):
    return [int(e.body.data) for e in entries]


def offsets(journal, group):
    return [rec.GroupOffset.FromString(e.body.data) for e in journal.read(stream="$group-" + group)]


def test_events_come_in_order_and_go_on_where_they_were_acknowledged(journal):
    fill(journal, "a|1", "a|2", "a|1", "a|2", "a|1")
    first = journal.consume("g", address="here")
    assert first.until_active() == 0
    entries = first.take(5)
    assert data(entries) == [0, 1, 2, 3, 4]
    first.ack(*entries[:3])
    first.finish()
    assert [(o.group, o.position, list(o.waiting)) for o in offsets(journal, "g")] == [
        ("g", 0, []), ("g", entries[3].position, [])]  # made, and moved
    second = journal.consume("g")
    assert second.until_active() == entries[3].position
    assert data(second.take(2)) == [3, 4]
    fill(journal, "a|1")  # live
    assert data(second.take(1)) == [0]
    second.cancel()


def test_what_is_not_acknowledged_is_held_back_at_the_window(journal):
    fill(journal, *["a"] * 10)
    consumer = journal.consume("g", window=3)
    entries = consumer.take(3)
    assert not consumer.pending
    consumer.ack(entries[1])  # out of order: the first is still open
    more = consumer.take(1)
    assert data(more) == [3] and not consumer.pending
    consumer.finish()
    assert [o.position for o in offsets(journal, "g")] == [0]  # nothing is done up to anywhere
    consumer = journal.consume("g")
    assert data(consumer.take(10)) == list(range(10))
    consumer.cancel()


def test_one_consumer_at_a_time_and_the_next_takes_over(journal):
    fill(journal, "a", "a")
    first = journal.consume("g", address="first")
    entries = first.take(2)
    second = journal.consume("g", address="second")
    other = journal.consume("h")
    assert data(other.take(2)) == [0, 1]  # groups are apart
    other.cancel()
    first.ack(entries[0])
    first.finish()
    assert data(second.take(1)) == [1]
    second.cancel()
    grants = [rec.Grant.FromString(e.body.data) for e in journal.read(stream="$grants-$group-g")]
    assert [g.epoch for g in grants] == [1, 2]


def test_a_consumer_that_vanishes_frees_the_group(journal):
    fill(journal, "a", "a")
    first = journal.consume("g")
    first.ack(first.take(2)[0])
    first.cancel()
    second = journal.consume("g")
    assert data(second.take(1))[0] in (0, 1)
    second.cancel()


def test_a_record_given_back_comes_again_and_its_stream_waits_for_it(journal):
    fill(journal, "a", "b", "a", "b")
    first = journal.consume("g", window=4)  # full: what comes next has waited for the answers
    a0, b1, a2, b3 = first.take(4)
    first.nack(a0, delay_ms=3600000)
    first.ack(b1, b3, a2)  # a2 was taken back with a0: this says nothing
    fill(journal, "a", "b")   # 0 of a, 1 of b
    (live,) = first.take(1)
    assert live.header.stream == "b"  # others go on
    first.ack(live)
    first.finish()
    second = journal.consume("g")  # a delay is the consumer's who asked for it
    (again,) = second.take(1)
    assert again.position == a0.position
    begun = time.monotonic()
    second.nack(again, delay_ms=300)
    (again,) = second.take(1)
    assert again.position == a0.position and time.monotonic() - begun >= 0.3
    second.ack(again)
    (next_,) = second.take(1)
    assert next_.position == a2.position
    second.ack(next_)
    (last,) = second.take(1)
    assert last.header.stream == "a" and last.position > a2.position
    second.ack(last)
    fill(journal, "a")  # caught up: on the main path again
    (end,) = second.take(1)
    second.ack(end)
    second.finish()
    offset = offsets(journal, "g")[-1]
    assert offset.position > last.position and all(w.position > last.position for w in offset.waiting)


def test_streams_that_wait_are_remembered(journal):
    fill(journal, "a", "b", "a", "b")
    first = journal.consume("g")
    a0, b1, a2, b3 = first.take(4)
    first.nack(a0, delay_ms=3600000)
    first.ack(b1, b3)
    first.finish()
    offset = offsets(journal, "g")[-1]
    assert [(w.stream, w.position) for w in offset.waiting] == [("a", a0.position)]
    assert offset.position > b3.position
    second = journal.consume("g")
    (again,) = second.take(1)  # a delay is the consumer's who asked for it
    assert again.position == a0.position
    second.ack(again)
    (next_,) = second.take(1)
    assert next_.position == a2.position
    second.ack(next_)
    second.finish()
    offset = offsets(journal, "g")[-1]  # the stream may still be looked through for more
    assert offset.position > b3.position and all(w.position > a2.position for w in offset.waiting)


def stream_of(entries):
    return [(e.header.stream, int(e.body.data)) for e in entries]


def parked(journal, group):
    return [(m.stream, m.parked_at) for m in journal.marks(group, parked_only=True)]


def finish_all(consumer, n):
    """Takes and acknowledges so many, one by one."""
    taken = []
    for _ in range(n):
        (entry,) = consumer.take(1)
        consumer.ack(entry)
        taken.append(entry)
    return taken


def test_a_stream_waits_behind_its_parked_record(journal):
    fill(journal, "a", "b", "a")
    consumer = journal.consume("g")
    bad, b1, _ = consumer.take(3)
    consumer.park(bad, "cannot be read")
    consumer.ack(b1)
    fill(journal, "a", "b")  # 0 of a waits, too
    assert stream_of(finish_all(consumer, 1)) == [("b", 1)]
    (noted,) = [rec.Parked.FromString(e.body.data) for e in journal.read(stream="$parked-g")]
    assert noted == rec.Parked(group="g", position=bad.position, stream="a", reason="cannot be read")
    consumer.finish()
    assert not consumer.pending
    assert parked(journal, "g") == [("a", bad.position)]
    second = journal.consume("g")  # whoever comes next waits for the same
    second.until_active()
    fill(journal, "b")
    assert stream_of(finish_all(second, 1)) == [("b", 0)]
    assert journal.act_on_group("g", "REPLAY", stream="a") == 1
    assert stream_of(finish_all(second, 3)) == [("a", 0), ("a", 2), ("a", 0)]
    fill(journal, "a")
    assert stream_of(finish_all(second, 1)) == [("a", 0)]
    second.finish()
    assert parked(journal, "g") == [] and not second.pending


def test_what_is_parked_is_skipped(journal):
    fill(journal, "a", "a", "b")
    consumer = journal.consume("g")
    bad, _, other = consumer.take(3)
    consumer.park(bad, "poison")
    consumer.ack(other)
    assert journal.act_on_group("g", "SKIP", position=bad.position) == 1
    assert stream_of(finish_all(consumer, 1)) == [("a", 1)]
    consumer.finish()
    assert parked(journal, "g") == []


def test_a_stream_goes_on_without_its_parked_record_if_asked(journal):
    fill(journal, "a", "a")
    consumer = journal.consume("g")
    bad, good = consumer.take(2)
    consumer.park(bad, "later", goes_on=True)
    consumer.ack(good)
    consumer.finish()
    second = journal.consume("g")
    second.until_active()
    fill(journal, "a")
    assert stream_of(finish_all(second, 1)) == [("a", 0)]
    assert journal.act_on_group("g", "REPLAY") == 1
    (again,) = finish_all(second, 1)
    assert again.position == bad.position
    second.finish()
    assert parked(journal, "g") == []


def test_an_operator_parks_what_a_stream_is_stuck_at(journal):
    fill(journal, "a", "a")
    consumer = journal.consume("g")
    stuck, _ = consumer.take(2)
    consumer.nack(stuck, delay_ms=3600000)
    assert journal.act_on_group("g", "PARK", position=stuck.position) == 1
    assert parked(journal, "g") == [("a", stuck.position)]
    assert journal.act_on_group("g", "SKIP") == 1
    assert stream_of(finish_all(consumer, 1)) == [("a", 1)]
    consumer.cancel()


def test_acts_upon_groups_say_what_is_wrong_with_them(journal):
    fill(journal, "a")
    consumer = journal.consume("g")
    consumer.until_active()
    for group, act, more, code, text in (
            ("none", "REPLAY", {}, "NOT_FOUND", "no group \"none\""),
            ("g", "REPLAY", {}, "FAILED_PRECONDITION", "parked"),
            ("g", "SKIP", {"stream": "a"}, "FAILED_PRECONDITION", "parked"),
            ("g", "PARK", {}, "INVALID_ARGUMENT", "position"), ("g", "UNSPECIFIED", {}, "INVALID_ARGUMENT", "act"),
            ("g", "PARK", {"position": 999999}, "NOT_FOUND", "999999"),
            ("g", "REPLAY", {"reason": ""}, "INVALID_ARGUMENT", "reason")):
        with pytest.raises(Refused) as caught:
            journal.act_on_group(group, act, **more)
        assert caught.value.code == code and text in caught.value.text
    with pytest.raises(Refused) as caught:
        journal.marks("none")
    assert caught.value.code == "NOT_FOUND"
    consumer.cancel()


def test_groups_are_listed_with_their_lag(journal):
    fill(journal, "a", "b", "a")
    consumer = journal.consume("g|1", address="worker-7")
    a0, b1, _ = consumer.take(3)
    consumer.park(a0, "bad")
    consumer.ack(b1)
    (group,) = journal.groups("g")
    assert (group.group, group.partition, group.partitions, group.consumer) == ("g|1", 0, 1, "worker-7")
    consumer.finish()
    journal.consume("h", partitions=2).until_active()
    assert [(p.group, p.partition, p.partitions) for p in journal.groups()] == [
        ("g|1", 0, 1), ("h", 0, 2), ("h", 1, 2)]
    (group,) = journal.groups("g")
    assert (group.waiting, group.parked, group.consumer) == (1, 1, "")
    head = journal.stat().head.position
    assert group.position + group.behind == head and group.position > b1.position


def test_metrics_tell_of_groups_that_are_consumed(cairnd, journal):
    def metric(line):
        text = harness.http_request(cairnd.port, "GET", "/metrics").body.decode()
        found = re.search("^" + re.escape(line) + " (\\d+)$", text, re.M)
        return found and int(found.group(1))

    lag = 'cairn_group_lag_records{group="a \\"group\\"",partition="0"}'
    fill(journal, "a", "b", "c")
    consumer = journal.consume('a "group"')
    a, b, c = consumer.take(3)
    harness.eventually(lambda: metric(lag) == journal.stat().head.position, "it is behind by all there is")
    consumer.ack(a, c)
    consumer.park(b, "bad")
    harness.eventually(lambda: metric("cairn_group_parked") == metric("cairn_group_waiting") == 1, "one is parked")
    harness.eventually(lambda: metric(lag) < journal.stat().head.position - 2, "it is behind by less")
    assert metric("cairn_group_partitions") == 1
    consumer.finish()
    harness.eventually(lambda: metric(lag) is None, "nobody consumes it")
    assert metric("cairn_group_partitions") == metric("cairn_group_parked") == 0


def streams_of_partition(partitions, partition, n=3):
    """Names of streams that are in the partition: CRC-32C of the name, modulo."""
    names = ("s%d" % i for i in range(1000))
    return [name for name in names if crc32c(name.encode()) % partitions == partition][:n]


def test_partitions_are_shared_out(journal):
    names = [streams_of_partition(4, p) for p in range(4)]
    everything = [s for n in names for s in n]
    fill(journal, *everything)
    first = journal.consume("g", partitions=4)
    entries = first.take(12)  # alone it has all
    assert sorted(first.partitions) == [0, 1, 2, 3]
    first.ack(*entries)
    second = journal.consume("g")  # as many as there are
    second.until_active()
    while len(second.partitions) < 2:
        second.response()
    fill(journal, *everything)
    theirs = second.take(6)
    ours = first.take(6)
    assert sorted(e.header.stream for e in theirs) == sorted(s for p in second.partitions for s in names[p])
    assert sorted(e.header.stream for e in theirs + ours) == sorted(everything)
    second.ack(*theirs)
    second.finish()
    first.ack(*ours)
    while len(first.partitions) < 6:  # it has them back
        first.response()
    fill(journal, *everything)
    assert sorted(e.header.stream for e in first.take(12)) == sorted(everything)
    with pytest.raises(Refused) as caught:
        journal.consume("g", partitions=3).until_active()
    assert caught.value.code == "FAILED_PRECONDITION" and "4 partitions" in caught.value.text
    first.cancel()


def test_a_partition_is_given_back_when_nothing_of_it_is_open(journal):
    names = [streams_of_partition(2, p, 1)[0] for p in (0, 1)]
    fill(journal, *names)
    first = journal.consume("g", partitions=2, address="first")
    entries = first.take(2)
    second = journal.consume("g")
    assert second.until_held() == {0: "first", 1: "first"}
    fill(journal, names[0])  # that partition stays, and goes on
    assert stream_of(first.take(1)) == [(names[0], 0)]
    first.ack(*[e for e in entries if e.header.stream == names[1]])
    second.until_active()
    assert second.partitions == [1]
    fill(journal, names[1])
    assert stream_of(second.take(1)) == [(names[1], 0)]  # what the first has done is not repeated
    first.cancel()
    while len(second.partitions) < 2:  # and it takes over, with what was open
        second.response()
    assert sorted(stream_of(second.take(2))) == [(names[0], 0), (names[0], 0)]
    second.cancel()


def test_consumers_on_two_servers_share_a_group_and_follow_either_ones_acts(lab):
    storage = storage_of(lab, "postgres")
    servers = [lab.cairnd(storage, name="cairnd-%d" % i) for i in (1, 2)]
    one, two = [Journal(server.port, timeout=30) for server in servers]
    names = [streams_of_partition(2, p, 1)[0] for p in (0, 1)]
    first = one.consume("g", partitions=2, address="first")
    first.until_active()
    second = two.consume("g", address="second")
    second.until_active()
    assert {p.consumer for p in one.groups("g")} == {"first", "second"}
    fill(one, *names * 2)
    theirs = second.take(2)
    mine = names[second.partitions[0]]
    assert [e.header.stream for e in theirs] == [mine, mine]
    second.park(theirs[0], "bad")
    assert parked(one, "g") == [(mine, theirs[0].position)]
    assert one.act_on_group("g", "REPLAY") == 1  # by the server that the consumer is not on
    assert [e.position for e in finish_all(second, 2)] == [e.position for e in theirs]
    servers[1].kill()  # its session runs out, then the other has all
    while len(set(first.partitions)) < 2:
        first.response()
    fill(one, mine)
    while stream_of(first.take(1)) != [(mine, 0)]:
        pass  # what the other had not written down comes again
    first.cancel()
    for journal in one, two:
        journal.close()


def test_who_waits_is_told_for_whom(journal):
    fill(journal, "a")
    first = journal.consume("g", address="first")
    first.ack(*first.take(1))
    second = journal.consume("g", address="second")
    assert second.until_held() == {0: "first"}
    first.finish()
    second.until_active()
    second.cancel()


def test_groups_read_what_they_ask_for(journal):
    fill(journal, "a|1", "b|1", "a|2")
    journal.append(to_stream("a|1", event("Other", b"9"), snapshot=event("Snapshot", b"8")))
    for query, expected in (({"category": "a"}, [0, 2, 9]), ({"stream": "a|1"}, [0, 9]),
                            ({"types": ["Other"]}, [9]), ({"stream_prefixes": ["b"]}, [1])):
        consumer = journal.consume("g%d" % expected[0] + str(len(expected)), **query)
        assert data(consumer.take(len(expected))) == expected
        consumer.cancel()
    late = journal.consume("late", from_end=True)
    late.until_active()
    fill(journal, "a|7")
    (only,) = late.take(1)
    assert only.header.stream == "a|7"
    late.cancel()


def test_requests_say_what_is_wrong_with_them(journal):
    for first, text in (({"group": ""}, "group name has 0 bytes"), ({"group": "x" * 301}, "301 bytes"),
                        ({"group": "g", "window": 1001}, "window is 1001"),
                        ({"group": "g", "ack": [1]}, "first request"),
                        ({"group": "g", "category": "a|b"}, "category"),
                        ({"group": "g", "journal": "x"}, "no journal")):
        with pytest.raises(Refused) as caught:
            journal.consume(**first).until_active()
        assert text in caught.value.text and caught.value.code in ("INVALID_ARGUMENT", "NOT_FOUND")
    consumer = journal.consume("g")
    consumer.until_active()
    consumer.send(group="h")
    with pytest.raises(Refused):
        consumer.take(1)


def test_offsets_survive_a_kill(lab):
    cairnd = lab.cairnd(storage="file:%s" % (lab.folder / "data"))
    journal = Journal(cairnd.port, timeout=30)
    fill(journal, *["a"] * 6)
    first = journal.consume("g")
    entries = first.take(6)
    first.ack(*entries[:2])
    first.finish()
    second = journal.consume("g")
    assert data(second.take(4)) == [2, 3, 4, 5]
    cairnd.kill()  # with a consumer: its session runs out, then the next has its turn
    journal.close()
    cairnd.start()
    cairnd.ready()
    journal = Journal(cairnd.port, timeout=30)
    third = journal.consume("g")
    assert third.until_active() == entries[2].position
    assert data(third.take(4)) == [2, 3, 4, 5]
    third.cancel()
    journal.close()


def test_consumers_are_told_when_the_server_stops(lab):
    cairnd = lab.cairnd(storage="file:%s" % (lab.folder / "data"))
    journal = Journal(cairnd.port, timeout=30)
    fill(journal, "a", "a")
    consumer = journal.consume("g")
    first, _ = consumer.take(2)
    consumer.ack(first)
    other = journal.consume("other")
    other.until_active()
    journal.consume("third").take(2)  # the acknowledgement has been taken: calls of one connection are in order
    cairnd.terminate()
    with pytest.raises(Refused) as caught:
        consumer.take(1)
    assert caught.value.code == "UNAVAILABLE"
    journal.close()
    cairnd.start()
    cairnd.ready()
    journal = Journal(cairnd.port, timeout=30)
    assert offsets(journal, "g")[-1].position == first.position + 1
    again = journal.consume("g")  # at once: the session was ended
    assert data(again.take(1)) == [1]
    again.cancel()
    journal.close()
