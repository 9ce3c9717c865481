"""The chat room's behaviour, without a server."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import chat as sample  # noqa: E402
from chat import cairn_sdk, chat, pb  # noqa: E402


@pytest.fixture
def room():
    sample.streams.clear()
    return cairn_sdk.CrdtTest(chat, "hall")


def join(room, name):
    return room.stream("Join", pb.Guest(room="hall", name=name))


def say(room, name, text):
    return room.handle("Say", pb.Saying(room="hall", name=name, text=text))


def look(room):
    news = room.handle("Look", pb.Room(room="hall")).reply
    return list(news.here), [line.text for line in news.lines]


def told(stream):
    return [(list(news.here), [line.text for line in news.lines]) for news in stream.replies]


def test_guests_come_and_go(room):
    ada = join(room, "ada")
    ben = join(room, "ben")
    assert told(ada) == [(["ada"], []), (["ada", "ben"], [])]
    assert told(ben) == [(["ada", "ben"], [])]
    ben.cancel()
    assert told(ada)[-1] == (["ada"], [])
    assert look(room) == (["ada"], [])
    assert [guest.name for guest in room.value] == ["ada"]


def test_who_has_two_streams_is_there_until_the_last_is_closed(room):
    first, second = join(room, "ada"), join(room, "ada")
    first.cancel()
    assert look(room)[0] == ["ada"]
    second.cancel()
    assert look(room)[0] == []


def test_what_is_said_is_heard_once_by_all_and_kept(room):
    ada, ben = join(room, "ada"), join(room, "ben")
    say(room, "ada", "one")
    say(room, "ben", "two")
    for stream in (ada, ben):
        assert [text for _, texts in told(stream) for text in texts] == ["one", "two"]
    assert told(join(room, "cas")) == [(["ada", "ben", "cas"], ["one", "two"])]


def test_what_is_no_proper_request_is_refused(room):
    assert "name is empty" in join(room, "").results[0].failure
    assert "must be in the room" in say(room, "nobody", "hello").failure
    join(room, "ada")
    assert "text is empty" in say(room, "ada", "").failure
    assert look(room) == (["ada"], [])


def test_the_oldest_lines_go(room):
    join(room, "ada")
    for i in range(sample.LINES_KEPT + 5):
        say(room, "ada", str(i))
    assert look(room)[1] == [str(i) for i in range(5, sample.LINES_KEPT + 5)]


def test_guests_of_other_proxies_are_there_too(room):
    ada = join(room, "ada")
    crdt = cairn_sdk.protos.crdt
    ben = crdt.ORMapEntryDelta(key=sample.cairn_sdk.crdts.to_any(pb.Guest(name="ben")), delta=crdt.CrdtDelta(
        vote=crdt.VoteDelta(votes_for=1, total_voters=2)))
    room.told(crdt.CrdtDelta(ormap=crdt.ORMapDelta(added=[ben])))
    assert told(ada)[-1] == (["ada", "ben"], [])
    ben.delta.vote.votes_for = 0
    room.told(crdt.CrdtDelta(ormap=crdt.ORMapDelta(updated=[ben])))
    assert told(ada)[-1] == (["ada"], [])


def test_votes_of_a_process_that_is_gone_are_taken_back(room):
    join(room, "ada")
    room.reactivate()
    sample.streams.clear()  # as in a new process
    assert look(room) == ([], [])
