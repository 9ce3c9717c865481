"""CRDTs of several proxies on one journal: who lives, whose votes count, who has a change, what a cut connection
does. The test plays every proxy's function."""

import random
import signal
import time
import uuid

import pytest

import protos
from crdt import ALL, LOCAL, MAJORITY, Crdt, gcounter, lww, orset, vote
from harness import eventually
from journal_client import Journal, rec as record_pb
from postgres import Cutter
from recorder import CRDT_HANDLE, PATIENCE
from records import Broken, HalfClose
from rooms import ROOM, Rooms, failed, request, response

FOR_EVER = ("--session-ttl", "1h")
UNCONFIRMED = "Failed to update CRDT at requested write consistency"


class Group:
    """Proxies on one journal that know of each other."""

    def __init__(self, lab, count, options=FOR_EVER, storage="memory"):
        self.lab, self.journal = lab, lab.cairnd(storage)
        self.nodes = [Rooms(lab, journal=self.journal, name="proxy-%d" % i, options=options) for i in range(count)]
        for node in self.nodes:
            knows(node, count)

    def __getitem__(self, i):
        return self.nodes[i]

    def quiet(self):
        for node in self.nodes:
            node.rec.nothing_more()


def knows(node, count):
    """The last that it has heard of its peers."""
    def last():
        return [line for line in node.proxy.text().splitlines() if "service=%s count=" % ROOM in line][-1:]
    eventually(lambda: last() and last()[0].endswith("count=%d" % count),
               "%s counts %d" % (node.proxy.name, count))


def stop(node):
    node.proxy.process.send_signal(signal.SIGSTOP)


def go_on(node):
    node.proxy.process.send_signal(signal.SIGCONT)


@pytest.fixture
def pair(lab):
    it = Group(lab, 2)
    yield it
    for node in it.nodes:
        if node.proxy.alive():
            go_on(node)


def test_votes_are_counted_over_proxies(lab):
    a, b, c = group = Group(lab, 3)
    at_a, room = a.with_value(vote(True))
    at_a.expect(room.delta(vote(True, 1, 3)))
    answer, at_b, _ = b.begin(value=vote(False, 1, 3))
    at_b.send(room.reply(1, response("b"), update=vote(True)).message)
    assert answer.result() == response("b")
    at_a.expect(room.delta(vote(True, 2, 3)))
    answer, at_c, _ = c.begin(value=vote(False, 2, 3))
    at_c.send(room.reply(1, response("c")).message)
    assert answer.result() == response("c")
    assert a.answered(at_a, room, 2, update=vote(False)).result() == response("2")
    at_b.expect(room.delta(vote(True, 1, 3)))
    at_c.expect(room.delta(vote(False, 1, 3)))
    group.quiet()


def test_the_vote_of_a_killed_proxy_leaves_with_its_lease(lab):
    a, b = Group(lab, 2, options=("--session-ttl", "1s"))
    at_a, room = a.with_value(vote(True))
    at_a.expect(room.delta(vote(True, 1, 2)))
    answer, at_b, _ = b.begin(value=vote(False, 1, 2))
    at_b.send(room.reply(1, response("b"), update=vote(True)).message)
    assert answer.result() == response("b")
    at_a.expect(room.delta(vote(True, 2, 2)))
    began = time.monotonic()
    b.proxy.kill()
    at_b.expect(Broken("proxy"))
    at_a.expect(room.delta(vote(True, 1, 1)))
    assert time.monotonic() - began >= 0.5  # not by the broken connection
    a.rec.nothing_more()


def test_a_drained_proxy_takes_its_vote_with_it_at_once(pair):
    a, b = pair.nodes
    at_a, room = a.with_value(vote(True))
    at_a.expect(room.delta(vote(True, 1, 2)))
    answer, at_b, _ = b.begin(value=vote(False, 1, 2))
    at_b.send(room.reply(1, response("b"), update=vote(True)).message)
    assert answer.result() == response("b")
    at_a.expect(room.delta(vote(True, 2, 2)))
    b.proxy.process.terminate()
    at_b.expect(HalfClose())
    at_b.end(0)
    assert b.proxy.process.wait(PATIENCE) == 0
    at_a.expect(room.delta(vote(True, 1, 1)))
    a.rec.nothing_more()


def test_a_change_is_never_written_under_a_session_that_has_ended(lab):
    a, b = group = Group(lab, 2, options=("--session-ttl", "1s"))
    at_a, room = a.with_value(vote(True))
    at_a.expect(room.delta(vote(True, 1, 2)))
    answer = a.say("r", "2")
    at_a.expect(room.command(2, "Say", request("r", "2")))
    stop(a)
    at_a.send(room.reply(2, response("2"), update=vote(True)).message)
    knows(b, 1)
    go_on(a)
    assert answer.result() == response("2")
    knows(b, 2)
    answer, at_b, _ = b.begin(value=vote(False, 1, 2))
    at_b.send(room.reply(1, response("b")).message)
    assert answer.result() == response("b")
    journal = Journal(group.journal.port)
    ended = {record_pb.SessionEnded.FromString(e.body.data).session: e.position
             for e in journal.read(stream="$sessions") if e.header.kind == record_pb.KIND_SESSION_ENDED}
    wrote = [(uuid.UUID(m.value.decode()).bytes, e.position) for e in journal.read(stream="room|r")
             for m in e.body.metadata if m.key == "cairn-session"]
    journal.close()
    assert len(ended) == 1 and len(wrote) == 2 and wrote[0][0] in ended
    assert all(position < ended.get(session, position + 1) for session, position in wrote)


def test_all_waits_for_every_proxy_and_holds_nothing_else_up(pair):
    a, b = pair.nodes
    at_a, room = a.with_value(gcounter(1))
    stop(b)
    waits = a.answered(at_a, room, 2, update=gcounter(2), consistency=ALL)
    assert a.answered(at_a, room, 3, update=gcounter(4), consistency=LOCAL).result() == response("3")
    assert not waits.done()
    go_on(b)
    assert waits.result() == response("2")
    answer, at_b, _ = b.begin(value=gcounter(7))
    at_b.send(room.reply(1, response("b")).message)
    assert answer.result() == response("b")
    pair.quiet()


def test_a_majority_is_more_than_half(lab):
    a, b, c = group = Group(lab, 3)
    try:
        at_a, room = a.with_value(gcounter(1))
        stop(b)
        assert a.answered(at_a, room, 2, update=gcounter(2), consistency=MAJORITY).result() == response("2")
        stop(c)
        waits = a.answered(at_a, room, 3, update=gcounter(4), consistency=MAJORITY)
        assert a.answered(at_a, room, 4).result() == response("4")
        assert not waits.done()
        go_on(b)
        assert waits.result() == response("3")
    finally:
        go_on(b)
        go_on(c)
    group.quiet()


def test_what_is_not_confirmed_in_time_fails_and_stands(pair):
    a, b = pair.nodes
    at_a, room = a.with_value(gcounter(1))
    stop(b)
    began = time.monotonic()
    waits = a.answered(at_a, room, 2, update=gcounter(2), consistency=ALL)
    watch = a.watch("r")
    at_a.expect(room.command(3, "Watch", request("r"), streamed=True))
    at_a.send(room.reply(3, response("open"), update=gcounter(4), consistency=ALL, streamed=True).message,
              room.streamed(3, response("behind it")).message)
    failed(waits, details=UNCONFIRMED)
    assert time.monotonic() - began >= 5
    failed(watch, details=UNCONFIRMED)
    at_a.expect(room.cancelled(3))
    at_a.send(room.cancel_response(3).message)
    go_on(b)
    answer, at_b, _ = b.begin(value=gcounter(7))
    at_b.send(room.reply(1, response("b")).message)
    assert answer.result() == response("b")
    pair.quiet()


def test_a_stream_opens_when_its_change_is_confirmed_and_goes_on_in_order(pair):
    a, b = pair.nodes
    at_a, room = a.with_value(gcounter(1))
    stop(b)
    watch = a.watch("r")
    at_a.expect(room.command(2, "Watch", request("r"), streamed=True))
    at_a.send(room.reply(2, response("open"), update=gcounter(2), consistency=ALL, streamed=True).message,
              *[room.streamed(2, response(str(i))).message for i in range(3)])
    go_on(b)
    assert [next(watch).message for _ in range(4)] == ["open", "0", "1", "2"]
    at_a.send(room.streamed(2, end=True).message)
    assert list(watch) == []
    pair.quiet()


def test_who_has_died_is_waited_for_until_its_lease_ends(lab):
    a, b = Group(lab, 2, options=("--session-ttl", "1s"))
    at_a, room = a.with_value(gcounter(1))
    b.proxy.kill()
    assert a.answered(at_a, room, 2, update=gcounter(2), consistency=ALL).result() == response("2")
    knows(a, 1)
    a.rec.nothing_more()


def test_a_delete_is_confirmed_too(pair):
    a, b = pair.nodes
    at_a, room = a.with_value(gcounter(1))
    answer, at_b, _ = b.begin(value=gcounter(1))
    at_b.send(room.reply(1, response("b")).message)
    assert answer.result() == response("b")
    answer = a.answered(at_a, room, 2, delete=True, consistency=ALL)
    at_a.expect(HalfClose())
    assert answer.result() == response("2")
    at_a.end(0)
    at_b.expect(room.deleted(), HalfClose())
    at_b.end(0)
    failed(b.say("r", "2"), details="Entity deleted")
    pair.quiet()


def test_a_restart_of_everything_loses_no_crdt(lab):
    group = Group(lab, 2, options=("--session-ttl", "300ms"), storage="file:%s" % (lab.folder / "data"))
    a, b = group.nodes
    at_a, room = a.with_value(orset("a", "b"), "set")
    answer, at_b, _ = b.begin("set", value=orset("a", "b"))
    at_b.send(room.reply(1, response("b"), update=orset("c", removed=["a"])).message)
    assert answer.result() == response("b")
    at_a.expect(room.delta(orset("c", removed=["a"])))
    at_a, room_of_vote = a.with_value(vote(True), "vote")
    at_a.expect(room_of_vote.delta(vote(True, 1, 2)))
    for process in (a.proxy, b.proxy, group.journal):
        process.kill()
    for node in group.nodes:
        node.rec.forgive(lambda r: True)
    group.journal.start().ready()
    a.proxy.start().ready()
    a.rec.expect_discovery()
    a.connect()
    knows(a, 1)
    answer, stream, room = a.begin("set", value=orset("b", "c"))
    stream.send(room.reply(1, response("x")).message)
    assert answer.result() == response("x")
    answer, stream, room = a.begin("vote", value=vote(False, 0, 1))
    stream.send(room.reply(1, response("x")).message)
    assert answer.result() == response("x")


def test_a_snapshot_knows_the_living_alone(lab):
    """What sessions have written and ended is one in it, however many there were."""
    storage = "file:%s" % (lab.folder / "data")
    journal = lab.cairnd(storage)
    for i in range(3):
        node = Rooms(lab, journal=journal, name="proxy-%d" % i, options=FOR_EVER)
        answer = node.say("r", "1")
        stream = node.rec.stream(CRDT_HANDLE)
        init, _ = stream.next(), stream.next()
        room = Crdt(ROOM, "r")
        stream.send(room.reply(1, response("1"), update=orset("by %d" % i)).message)
        answer.result()
        for command_id in range(2, 103):
            node.answered(stream, room, command_id, update=orset("%d" % (command_id % 7))).result()
        assert len(init.init.delta.orset.added) == (0, 8, 9)[i]
        node.proxy.process.terminate()
        stream.expect(HalfClose())
        stream.end(0)
        assert node.proxy.process.wait(PATIENCE) == 0
    reader = Journal(journal.port)
    newest = [e for e in reader.read(stream="room|r") if e.header.kind == record_pb.KIND_SNAPSHOT][-1]
    reader.close()
    fold = protos.fold.Fold.FromString(newest.body.data)
    assert len([s for s in fold.sessions if s]) == 1
    assert {n.session for item in fold.value.orset.items for n in item.numbers} <= {0, 1, 2}


@pytest.mark.parametrize("direction", ["out", "back"])
def test_a_feed_that_is_cut_anywhere_loses_and_doubles_nothing(lab, direction):
    """b's only way to the journal is cut after so many bytes; what either writes comes to the other once."""
    chance = random.Random(direction)
    journal = lab.cairnd("memory")
    cutter = Cutter(journal.port, begins=b"")
    a = Rooms(lab, journal=journal, name="proxy-a", options=FOR_EVER)
    b = Rooms(lab, journal=cutter, name="proxy-b", options=FOR_EVER)
    knows(a, 2)
    at_a, room = a.with_value(gcounter(1))
    answer, at_b, _ = b.begin(value=gcounter(1))
    at_b.send(room.reply(1, response("b")).message)
    assert answer.result() == response("b")
    told = total = 1
    for i in range(2, 42):
        cutter.arm(direction, chance.choice([0, 1, 9, chance.randrange(400), chance.randrange(2000)]))
        total += i
        assert a.answered(at_a, room, i, update=gcounter(i)).result() == response(str(i))
        if i % 4:
            continue
        while told < total:
            told += at_b.next().delta.gcounter.increment
        assert told == total
        assert b.answered(at_b, room, 1 + i // 4, update=gcounter(1000)).result() == response(str(1 + i // 4))
        at_a.expect(room.delta(gcounter(1000)))
    cutter.disarm()
    while told < total:
        told += at_b.next().delta.gcounter.increment
    assert told == total and cutter.cuts > 4
    a.rec.nothing_more()
    b.rec.nothing_more()
    cutter.close()


def test_the_journals_restart_is_no_end_of_a_session(lab):
    group = Group(lab, 2, storage="file:%s" % (lab.folder / "data"))
    a, b = group.nodes
    at_a, room = a.with_value(vote(True))
    at_a.expect(room.delta(vote(True, 1, 2)))
    group.journal.kill()
    assert a.answered(at_a, room, 2).result() == response("2")  # what changes nothing needs no journal
    group.journal.start().ready()
    assert a.answered(at_a, room, 3, update=vote(False)).result() == response("3")
    answer, at_b, _ = b.begin(value=vote(False, 0, 2))
    at_b.send(room.reply(1, response("b")).message)
    assert answer.result() == response("b")
    group.quiet()


def test_registers_of_two_writers_come_to_the_same(pair):
    a, b = pair.nodes
    at_a, room = a.with_value(lww("first", 2, 5))
    answer, at_b, _ = b.begin(value=lww("first"))
    at_b.send(room.reply(1, response("b"), update=lww("second", 2, 7)).message)
    assert answer.result() == response("b")
    at_a.expect(room.delta(lww("second")))
    assert a.answered(at_a, room, 2, update=lww("lost", 2, 6)).result() == response("2")
    at_a.expect(room.delta(lww("second")))
    pair.quiet()
