"""Sessions, grants and fences of cairnd, by a client that no one here wrote, on every backend."""

import time

import pytest

from harness import eventually
from journal_client import Journal, Refused, check_whole, event, exactly, new_id, none, pb, rec, to_stream
from postgres import BACKENDS, storage_of


@pytest.fixture(params=BACKENDS)
def cairnd(lab, request):
    return lab.cairnd(storage_of(lab, request.param))


@pytest.fixture
def journal(cairnd):
    j = Journal(cairnd.port)
    yield j
    check_whole(j.read(include_system=True))
    j.close()


def fence(service, slot, epoch):
    return pb.Fence(service=service, slot=slot, epoch=epoch)


def refused(code, call, *args, **more):
    with pytest.raises(Refused) as caught:
        call(*args, **more)
    assert caught.value.code == code, caught.value
    return caught.value


# --- sessions ----------------------------------------------------------------------------------------

def test_a_session_is_two_records_and_its_beats_are_none(journal):
    s = journal.begin_session("carts", "users", ttl_ms=5000, address="10.1.2.3:9000")
    assert [journal.beat(s) for _ in range(3)] == [1, 2, 3]
    journal.end_session(s)
    begun, ended = journal.read(stream="$sessions")
    assert begun.header.kind == rec.KIND_SESSION_BEGUN and begun.header.id == s
    assert begun.header.content_type == "application/x-protobuf" and begun.header.actor == "ip:127.0.0.1"
    said = rec.SessionBegun.FromString(begun.body.data)
    assert (said.session, said.ttl_ms, said.address) == (s, 5000, "10.1.2.3:9000")
    assert list(said.services) == ["carts", "users"]
    assert ended.header.kind == rec.KIND_SESSION_ENDED
    assert rec.SessionEnded.FromString(ended.body.data) == rec.SessionEnded(session=s)
    assert journal.stat().head.position == 2
    refused("NOT_FOUND", journal.beat, s)
    refused("NOT_FOUND", journal.beat, new_id())
    journal.end_session(s)
    assert journal.read() == []  # system streams are left out unless asked for


def test_beginning_is_repeated_by_its_id(journal):
    s = journal.begin_session("carts")
    journal.begin_session("carts", session=s)
    assert len(journal.read(stream="$sessions")) == 1
    assert journal.beat(s) == 1


@pytest.mark.parametrize("request_, what", [
    (pb.BeginSessionRequest(session=b"short", ttl_ms=1000), "5 bytes"),
    (pb.BeginSessionRequest(session=bytes(16), ttl_ms=1000), "all zeros"),
    (pb.BeginSessionRequest(session=b"x" * 16, ttl_ms=99), "ttl is 99 ms: it is 100 to 3600000"),
    (pb.BeginSessionRequest(session=b"x" * 16, ttl_ms=1000, services=[""]), "service name has 0 bytes"),
    (pb.BeginSessionRequest(session=b"x" * 16, ttl_ms=1000, services=["s"] * 1001), "1001 services"),
    (pb.BeginSessionRequest(session=b"x" * 16, ttl_ms=1000, journal="other"), "no journal"),
])
def test_beginning_says_what_is_wrong(journal, request_, what):
    assert what in refused("NOT_FOUND" if request_.journal else "INVALID_ARGUMENT", journal.call, "BeginSession",
                           request_).text


def test_a_session_ends_when_nothing_is_heard_of_it(journal):
    begun = time.monotonic()
    s = journal.begin_session("carts", ttl_ms=600)
    kept = journal.begin_session("carts", ttl_ms=600)
    ended = []

    def over():
        journal.beat(kept)
        ended[:] = [e for e in journal.read(stream="$sessions") if e.header.kind == rec.KIND_SESSION_ENDED]
        return ended
    eventually(over, "the silent session's end")
    assert time.monotonic() - begun >= 0.6
    assert rec.SessionEnded.FromString(ended[0].body.data) == rec.SessionEnded(session=s, expired=True)
    refused("NOT_FOUND", journal.beat, s)
    journal.beat(kept)


# --- grants ------------------------------------------------------------------------------------------

def test_a_slot_is_one_sessions_at_a_time(journal):
    a, b = journal.begin_session("carts"), journal.begin_session("carts")
    assert journal.claim("carts", a, 0, 1, 2) == [(1, a)] * 3
    assert journal.claim("carts", b, 2, 3) == [(1, a), (1, b)]
    assert journal.claim("carts", a, 0) == [(1, a)]
    released = journal.release("carts", a, (0, 1), (1, 7), (3, 1))
    assert [(g.slot, g.epoch, g.released) for g in released] == [(0, 1, True), (1, 1, False), (3, 1, False)]
    assert journal.claim("carts", b, 0, 1) == [(2, b), (1, a)]
    journal.end_session(a)
    assert journal.claim("carts", b, 1, 2) == [(2, b), (2, b)]
    grants = [rec.Grant.FromString(e.body.data) for e in journal.read(stream="$grants-carts")]
    assert [(g.slot, g.epoch, g.session == a, g.released) for g in grants] == [
        (0, 1, True, False), (1, 1, True, False), (2, 1, True, False), (3, 1, False, False),
        (0, 1, True, True), (0, 2, False, False), (1, 2, False, False), (2, 2, False, False)]


def test_claims_say_what_is_wrong_with_them(journal):
    s = journal.begin_session("carts")
    assert "did not begin with service" in refused("FAILED_PRECONDITION", journal.claim, "users", s, 0).text
    assert "slot is 65536" in refused("INVALID_ARGUMENT", journal.claim, "carts", s, 65536).text
    assert "service name" in refused("INVALID_ARGUMENT", journal.claim, "", s, 0).text
    refused("INVALID_ARGUMENT", journal.claim, "carts", b"x", 0)
    refused("INVALID_ARGUMENT", journal.claim, "carts", s, *range(4097))
    refused("NOT_FOUND", journal.claim, "carts", new_id(), 0)
    assert journal.claim("carts", s) == []
    for name in ("$sessions", "$grants-carts"):
        assert "own" in refused("INVALID_ARGUMENT", journal.append, to_stream(name, event())).text


def test_grants_survive_a_restart(lab):
    storage = "file:%s" % (lab.folder / "data")
    cairnd = lab.cairnd(storage=storage)
    journal = Journal(cairnd.port)
    a, b = journal.begin_session("carts"), journal.begin_session("carts")
    journal.claim("carts", a, 5)
    journal.end_session(b)
    journal.append(to_stream("x", event()), fences=[fence("carts", 5, 1)])
    cairnd.kill()
    journal.close()
    cairnd.start()
    cairnd.ready()
    journal = Journal(cairnd.port)
    c = journal.begin_session("carts")
    assert journal.claim("carts", c, 5, 6) == [(1, a), (1, c)]
    refused("NOT_FOUND", journal.beat, b)
    assert journal.beat(a) == 1
    journal.append(to_stream("x", event()), fences=[fence("carts", 5, 1)])
    refused("FAILED_PRECONDITION", journal.append, to_stream("x", event()), fences=[fence("carts", 5, 2)])
    journal.end_session(a)
    assert journal.claim("carts", c, 5) == [(2, c)]


# --- fences ------------------------------------------------------------------------------------------

def test_a_fence_is_its_slots_newest_grant(journal):
    a, b = journal.begin_session("carts"), journal.begin_session("carts")
    e = refused("FAILED_PRECONDITION", journal.append, to_stream("x", event()), fences=[fence("carts", 0, 1)])
    assert e.refusal.fence_found == pb.Fence(service="carts", slot=0)
    journal.claim("carts", a, 0)
    first = event()
    journal.append(to_stream("x", first), fences=[fence("carts", 0, 1)])
    journal.end_session(a)
    journal.append(to_stream("x", event()), fences=[fence("carts", 0, 1)])  # nobody else holds it yet
    journal.claim("carts", b, 0)
    e = refused("FAILED_PRECONDITION", journal.append, to_stream("x", event(), expect=none()),
                fences=[fence("carts", 0, 1)])
    assert e.refusal.fence_found == pb.Fence(service="carts", slot=0, epoch=2, session=b)
    assert not e.refusal.HasField("sequence_found") and not e.refusal.stream
    assert "another holds it now" in e.text
    # A repeat is answered before its fence is looked at; an expectation after it.
    assert journal.append(to_stream("x", first), fences=[fence("carts", 0, 1)]).repeated
    e = refused("FAILED_PRECONDITION", journal.append, to_stream("x", event(), expect=none()),
                fences=[fence("carts", 0, 2)])
    assert e.refusal.sequence_found == 2 and not e.refusal.HasField("fence_found")
    assert journal.append(to_stream("x", event(), expect=exactly(2)), fences=[fence("carts", 0, 2)]).count == 1


def test_a_fence_may_be_a_session(journal):
    s = journal.begin_session("carts")
    journal.append(to_stream("x", event()), fences=[pb.Fence(session=s)])
    journal.end_session(s)
    e = refused("FAILED_PRECONDITION", journal.append, to_stream("x", event()), fences=[pb.Fence(session=s)])
    assert e.refusal.fence_found == pb.Fence(session=s)
    refused("INVALID_ARGUMENT", journal.append, to_stream("x", event()), fences=[pb.Fence(session=b"x")])
    refused("INVALID_ARGUMENT", journal.append, to_stream("x", event()),
            fences=[pb.Fence(session=s, service="carts")])


def test_a_fence_on_the_stream_of_appends(journal):
    s = journal.begin_session("carts")
    journal.claim("carts", s, 9)
    stream = journal.append_stream()
    stream.send(1, to_stream("x", event()), fences=[fence("carts", 9, 2)])
    stream.send(2, to_stream("x", event()), fences=[fence("carts", 9, 1)])
    answers = {a.request: a for a in (stream.answer(), stream.answer())}
    assert answers[1].refusal.fence_found == pb.Fence(service="carts", slot=9, epoch=1, session=s)
    assert answers[2].count == 1 and not answers[2].HasField("refusal")
    stream.half_close()


# --- watching ----------------------------------------------------------------------------------------

class Owners:
    """What a watcher knows, folded from what it was told."""

    def __init__(self, responses):
        self.responses, self.sessions, self.grants = responses, {}, {}
        first = self.take()
        assert first.complete

    def take(self):
        r = next(self.responses)
        for s in r.sessions:
            self.sessions[s.session] = s.address
        for s in r.ended:
            del self.sessions[s]
        for g in r.grants:
            self.grants[g.slot] = (g.epoch, g.session, g.released)
        return r


def test_watching_tells_all_there_is_then_every_change(journal):
    a = journal.begin_session("carts", address="a:1")
    gone = journal.begin_session("carts")
    journal.begin_session("users", address="not of this service")
    journal.claim("carts", a, 1, 2)
    journal.end_session(gone)
    owners = Owners(journal.watch("carts"))
    assert owners.sessions == {a: "a:1"}
    assert owners.grants == {1: (1, a, False), 2: (1, a, False)}
    b = journal.begin_session("carts", address="b:1")
    journal.begin_session("users")
    journal.release("carts", a, (1, 1))
    journal.claim("carts", b, 1)
    journal.end_session(a)
    want = ({b: "b:1"}, {1: (2, b, False), 2: (1, a, False)})
    while (owners.sessions, owners.grants) != want:
        assert not owners.take().complete
    owners.responses.cancel()


def test_watchers_are_told_when_the_server_stops(lab, cairnd, journal):
    responses = journal.watch("carts")
    assert next(responses).complete
    cairnd.terminate()
    with pytest.raises(Exception) as caught:
        next(responses)
    assert caught.value.code().name == "UNAVAILABLE"
    cairnd.start()
    cairnd.ready()


def test_features_are_told(journal):
    assert {"sessions", "grants", "fences"} <= set(journal.stat().features)
