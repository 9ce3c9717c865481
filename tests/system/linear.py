"""Histories of a journal's streams for a checker that no one here wrote (go/linear.go): clients that race on a few
streams, what they asked, what they were told, and when."""

import json
import random
import subprocess
import threading
import time

import grpc

import tools
from journal_client import Journal, Refused, exactly, exists, new_id, none, pb, rec, to_stream

CLIENTS, OPERATIONS, UNKNOWN = 8, 500, 20  # at most, a history
STREAMS = 3
CHECK_S = 120  # what the checker may take for a history; more is a failure
SERVICE = "linear"
_NOT_TOLD = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL")


class Append:
    """One append, the same at every repetition."""

    def __init__(self, history, chance):
        self.key = history.new_key()
        self.streams = chance.sample(range(STREAMS), 2 if chance.random() < 0.1 else 1)
        self.parts = []
        self.fence = None
        for number, at in enumerate(self.streams):
            s = history.streams[at]
            events = [pb.NewRecord(id=new_id(), type="E", data=b"x" * chance.randrange(40))
                      for _ in range(chance.randrange(1, 4))]
            snapshot = pb.NewRecord(id=new_id(), type="S") if chance.random() < 0.1 else None
            how = chance.choices(("exactly", "any", "exists", "none"), (10, 4, 1, 1))[0]
            # Mostly what it was last heard to be, which others may have changed meanwhile.
            what = s.sequence if chance.random() < 0.9 else chance.randrange(5)
            expect = {"exactly": exactly(what), "any": None, "exists": exists(), "none": none()}[how]
            self.parts.append((s, events, snapshot, how, what, expect))
            for i, record in enumerate(events + ([snapshot] if snapshot else [])):
                history.ids[record.id] = (self.key, i)
            if number == 0 and s.epoch and chance.random() < 0.4:
                self.fence = (s, s.epoch)

    def request(self):
        return pb.AppendRequest(
            streams=[to_stream(s.name, *events, expect=expect, snapshot=snapshot)
                     for s, events, snapshot, _, _, expect in self.parts],
            fences=[pb.Fence(service=SERVICE, slot=self.fence[0].slot, epoch=self.fence[1])] if self.fence else [])

    def asked(self, part):
        s, events, snapshot, how, what, _ = part
        fence = self.fence[1] if self.fence and self.fence[0] is s else 0
        return dict(stream=s.name, kind="append", key=self.key, events=len(events), snapshot=snapshot is not None,
                    expect=how, at=what, fence=fence)


class Stream:
    """A stream and its slot, as last heard of."""

    def __init__(self, name, slot):
        self.name, self.slot = name, slot
        self.sequence, self.epoch = 0, 0


class History:
    """What several clients do to a few new streams. `disturb()` is called so many times in the middle of it, and
    returns when the journal serves again."""

    def __init__(self, name, ports, seed, disturb=None, disturbances=0):
        self.name, self.disturb, self.disturbances = name, disturb, disturbances if disturb else 0
        self.seed, self.ports = seed, ports
        chance = random.Random(seed)
        slots = chance.sample(range(65536), STREAMS)
        self.streams = [Stream("%s|%d" % (name, n), slots[n]) for n in range(STREAMS)]
        self.wanted = chance.randrange(OPERATIONS // 2, OPERATIONS + 1)
        self.operations, self.ids, self.failure = [], {}, None
        self.sessions = []
        self.calls = self.unknown = self.under_way = self._keys = 0
        self._lock = threading.Lock()
        self.serves = threading.Event()
        self.serves.set()

    def new_key(self):
        with self._lock:
            self._keys += 1
            return self._keys

    def begin(self, writes):
        """May another call be made? None: no; else whether it may be a write. A write whose outcome stays unknown
        is one too many once there are so many."""
        self.serves.wait()
        with self._lock:
            if self.calls >= self.wanted or self.failure:
                return None
            self.calls += 1
            writes = writes and self.unknown + self.under_way < UNKNOWN
            self.under_way += writes
            return writes

    def may_be_cut_off(self):
        with self._lock:
            return self.unknown + self.under_way + CLIENTS * self.disturbances < UNKNOWN

    def end(self, wrote, told, *operations):
        """The call is over: what is known of it. A read that was not answered says nothing."""
        with self._lock:
            self.under_way -= wrote
            self.unknown += wrote and not told
            if wrote or told:
                self.operations.extend(operations)

    def run(self):
        journals = [Journal(port) for port in self.ports]
        self.sessions = [journals[0].begin_session(SERVICE, ttl_ms=3600000) for _ in range(3)]
        clients = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(CLIENTS)]
        for c in clients:
            c.start()
        chance = random.Random("disturb %d" % self.seed)
        at = sorted(chance.randrange(self.wanted // 8, self.wanted) for _ in range(self.disturbances))
        for n in at:
            while self.calls < n and any(c.is_alive() for c in clients):
                time.sleep(0.0005)
            time.sleep(chance.random() * 0.003)
            self.serves.clear()
            try:
                self.disturb(chance)
            finally:
                self.disturbances -= 1
                self.serves.set()
        for c in clients:
            c.join(120)
            assert not c.is_alive(), "a client of history %s is still waiting" % self.name
        for journal in journals:
            journal.close()
        assert self.failure is None, repr(self.failure)
        assert self.calls <= OPERATIONS and self.unknown <= UNKNOWN
        return self

    def _client(self, number):
        client = Client(self, number)
        try:
            while client.one():
                pass
        except BaseException as failure:  # told by run()
            self.failure = failure
        finally:
            client.close()

    def told(self):
        return json.dumps({"name": self.name, "operations": self.operations})


class Client:
    def __init__(self, history, number):
        self.history, self.number = history, number
        self.chance = random.Random("%d %d" % (history.seed, number))
        self.journals = [Journal(port, timeout=60, grpc_initial_reconnect_backoff_ms=20,
                                 grpc_max_reconnect_backoff_ms=50, grpc_min_reconnect_backoff_ms=1000)
                         for port in history.ports]
        self.again = None  # an append to repeat
        self.done = []  # some that were told

    def close(self):
        for journal in self.journals:
            journal.close()

    def one(self):
        """One call, if there may be another."""
        what = self.chance.choices((self.append, self.claim, self.release, self.read, self.load),
                                   (60, 4, 3, 15, 12))[0]
        may_write = self.history.begin(what.__name__ in ("append", "claim", "release"))
        if may_write is None:
            return False
        if what.__name__ in ("append", "claim", "release") and not may_write:
            what = self.read
        journal = self.chance.choice(self.journals)
        what(journal, self.chance.choice(self.history.streams))
        return True

    def _write(self, call, asked, understood):
        """Makes the call; `asked` are the operations, to which `understood(answer or Refused)` adds what was told."""
        begun = time.monotonic_ns()
        try:
            answer = call()
        except Refused as refused:
            answer = refused
        ended = time.monotonic_ns()
        known = not isinstance(answer, Refused) or answer.code not in _NOT_TOLD
        operations = []
        for operation, told in zip(asked, understood(answer) if known else [dict(outcome="unknown")] * len(asked)):
            if told is not None:
                operations.append({"client": self.number, "call": begun, "return": ended, **operation, **told})
        self.history.end(True, known, *operations)
        return known

    def append(self, journal, _):
        if self.again and self.chance.random() < 0.8:
            append = self.again
        elif self.done and self.chance.random() < 0.06:
            append = self.chance.choice(self.done)
        else:
            append = Append(self.history, self.chance)
        self.again = None
        timeout = None
        if self.chance.random() < 0.02 and self.history.may_be_cut_off():
            timeout = self.chance.random() * 0.004  # in the middle, or not at all

        def understood(answer):
            if isinstance(answer, Refused):
                return [self._refused(append, part, answer) for part in append.parts]
            told = []
            for part, one in zip(append.parts, answer.streams):
                if part[0].name != one.stream:
                    return [dict(outcome="answered for stream %r" % one.stream)] * len(append.parts)
                part[0].sequence = max(part[0].sequence, one.sequence)
                told.append(dict(outcome="ok", sequence=one.sequence, repeated=answer.repeated))
            return told

        known = self._write(lambda: journal.call("Append", append.request(), timeout),
                            [append.asked(part) for part in append.parts], understood)
        if known:
            self.done = (self.done + [append])[-8:]
        else:
            self.again = append

    def _refused(self, append, part, refused):
        """What a refusal says of this stream; None: nothing, for it is another's."""
        r, s = refused.refusal, part[0]
        if r is not None and refused.code == "FAILED_PRECONDITION":
            if r.HasField("fence_found"):
                if append.fence[0] is not s:
                    return None
                s.epoch = max(s.epoch, r.fence_found.epoch)
                return dict(outcome="fenced", found_epoch=r.fence_found.epoch)
            if r.stream != s.name:
                return None
            s.sequence = max(s.sequence, r.sequence_found)
            return dict(outcome="conflict", sequence=r.sequence_found)
        return dict(outcome=str(refused))

    def _granted(self, s, grants):
        g = grants[0]
        s.epoch = max(s.epoch, g.epoch)
        session = self.history.sessions.index(g.session) if g.session in self.history.sessions else -1
        return [dict(outcome="ok", found_epoch=g.epoch, found_session=session, found_released=g.released)]

    def claim(self, journal, s):
        session = self.chance.randrange(len(self.history.sessions))
        self._write(
            lambda: journal.call("ClaimGrants", pb.ClaimGrantsRequest(
                service=SERVICE, session=self.history.sessions[session], slots=[s.slot])),
            [dict(stream=s.name, kind="claim", session=session)],
            lambda a: [dict(outcome=str(a))] if isinstance(a, Refused) else self._granted(s, a.grants))

    def release(self, journal, s):
        session, epoch = self.chance.randrange(len(self.history.sessions)), max(s.epoch, 1)
        self._write(
            lambda: journal.call("ReleaseGrants", pb.ReleaseGrantsRequest(
                service=SERVICE, session=self.history.sessions[session],
                grants=[rec.Grant(slot=s.slot, epoch=epoch)])),
            [dict(stream=s.name, kind="release", session=session, epoch=epoch)],
            lambda a: [dict(outcome=str(a))] if isinstance(a, Refused) else self._granted(s, a.grants))

    def _looked(self, journal, s, kind, look):
        """A read sees all there was before it if it asks for that: an append that writes nothing says how far the
        journal is. (Where one cairnd alone writes, a read does so unasked.)"""
        begun = time.monotonic_ns()
        try:
            more = {}
            if len(self.journals) > 1:
                more["not_before"] = journal.append(conditions=[pb.Condition(stream=s.name)]).cursor
            entries, sequence = look(**more)
        except Refused as refused:
            told = refused.code not in _NOT_TOLD
            self.history.end(False, told, dict(client=self.number, call=begun, stream=s.name, kind=kind,
                                               outcome=str(refused), **{"return": time.monotonic_ns()}))
            return
        ended = time.monotonic_ns()
        s.sequence = max([s.sequence] + [e.header.sequence for e in entries])
        records = "".join("%d.%d@%d " % (*self.history.ids.get(e.header.id, (-1, 0)), e.header.sequence)
                          for e in entries)
        self.history.end(False, True, dict(client=self.number, call=begun, stream=s.name, kind=kind, outcome="ok",
                                           records=records, sequence=sequence, **{"return": ended}))

    def read(self, journal, s):
        self._looked(journal, s, "read", lambda **more: (journal.read(stream=s.name, **more), 0))

    def load(self, journal, s):
        def look(**more):
            entries, last = journal.load(s.name, **more)
            return entries, last.sequence
        self._looked(journal, s, "load", look)


def verdicts(lines, seconds=CHECK_S):
    """The checker's verdict of each history."""
    done = subprocess.run([tools.go_linear(), str(seconds)], input="\n".join(lines), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(histories, seconds=CHECK_S):
    """Each is linearizable; the checker's time-out is a failure."""
    answers = verdicts([h.told() for h in histories], seconds)
    assert [a["name"] for a in answers] == [h.name for h in histories]
    for history, answer in zip(histories, answers):
        assert answer["verdict"] == "ok", "history %s (seed %d) is %s: %s" % (
            history.name, history.seed, answer["verdict"], answer["text"][:20000])
        assert answer["streams"] == STREAMS
    return answers
