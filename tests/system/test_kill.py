"""cairnd killed with SIGKILL under load, again and again, against what its clients were told.

Every client keeps a log of acknowledgements; what has an unknown outcome is repeated with the same ids. In
the end the journal holds exactly what was acknowledged: nothing lost, nothing doubled, no gap."""

import os
import random
import threading

import grpc

from harness import eventually, scaled
from journal_client import Journal, Refused, check_whole, event, exactly, pb, rec, to_stream

CLIENTS = 6
KILLS = 20
SEED = int(os.environ.get("CAIRN_SEED", "1"))


class Client(threading.Thread):
    """Appends to a stream of its own, expecting it exactly as it left it, and to streams that all share; two
    of them by AppendStream, several appends under way."""

    def __init__(self, number, port, stop):
        super().__init__(daemon=True)
        self.number, self.stop = number, stop
        self.random = random.Random("%d %d" % (SEED, number))
        self.journal = Journal(port, timeout=5, grpc_initial_reconnect_backoff_ms=50,
                               grpc_max_reconnect_backoff_ms=100, grpc_min_reconnect_backoff_ms=50)
        self.acknowledged = {}  # id: (stream, sequence, position)
        self.repeats = 0
        self.sequence = 0
        self.failure = None

    def run(self):
        try:
            while not self.stop.is_set():
                if self.number % 3 == 0:
                    self.many()
                else:
                    self.one()
        except BaseException as failure:  # shown by the test
            self.failure = failure

    def request(self):
        own = to_stream("own|%d" % self.number, *[event("Own", b"o" * self.random.randrange(300))
                                                   for _ in range(self.random.randrange(1, 4))],
                        expect=exactly(self.sequence))
        shared = to_stream("shared|%d" % self.random.randrange(3),
                           event("Shared", b"s" * self.random.randrange(300)))
        return [own, shared]

    def keep(self, streams, answer):
        """What the answer says about each record."""
        assert answer.count == sum(len(s.events) for s in streams)
        position = answer.first_position
        for s, told in zip(streams, answer.streams):
            assert s.stream == told.stream
            for n, e in enumerate(s.events):
                assert e.id not in self.acknowledged
                self.acknowledged[e.id] = (s.stream, told.sequence - len(s.events) + 1 + n, position)
                position += 1
        self.sequence = max([self.sequence] + [t.sequence for s, t in zip(streams, answer.streams)
                                                if s.stream.startswith("own|")])

    def one(self):
        """One append until it is acknowledged, whatever happens."""
        streams = self.request()
        while True:
            try:
                self.keep(streams, self.journal.append(*streams))
                return
            except Refused as refused:
                # The stream is ours alone, so nothing but an unknown outcome is possible.
                assert refused.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"), str(refused)
                self.repeats += 1

    def many(self):
        """Twenty appends of shared streams under way at once; what is not answered is repeated."""
        waiting = {n: [to_stream("shared|%d" % self.random.randrange(3), event("Many"), event("Many"))]
                   for n in range(20)}
        while waiting:
            stream = self.journal.append_stream()
            for n, streams in waiting.items():
                stream.send(n, *streams)
            stream.half_close()
            answers, status = stream.rest()
            sent, answered = set(waiting), [a.request for a in answers]
            for a in answers:
                assert not a.HasField("refusal") or a.refusal.code == 14, a.refusal
                if not a.HasField("refusal"):
                    self.keep(waiting.pop(a.request), a)
            # Each is answered once at most, whatever happens; all of them are when it ends well.
            assert len(answered) == len(set(answered)) and set(answered) <= sent, answered
            assert status in ("OK", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"), status
            assert status != "OK" or set(answered) == sent, "it ended well without %r" % (sent - set(answered))
            self.repeats += bool(waiting)


def under_load(ports, disturb, times, least=1, most=200):
    """Clients of these ports, while `disturb(n)` is done so many times, each after some acknowledgements more: at least
    `least`, fewer than `most`. Then the journal is held against what they were told. Returns how often one had to
    repeat itself."""
    stop = threading.Event()
    clients = [Client(n, ports[n % len(ports)], stop) for n in range(CLIENTS)]
    for c in clients:
        c.start()
    told = lambda: sum(len(c.acknowledged) for c in clients)
    chance = random.Random(SEED)
    try:
        for n in range(times):
            wanted = told() + chance.randrange(least, most)
            eventually(lambda: told() >= wanted or any(c.failure for c in clients), "something is acknowledged",
                       timeout=60, pause=0.001)
            disturb(n)
    finally:
        stop.set()
    for c in clients:
        c.join(60)
    # Each has told its own clients of what it has; that the others have it, too, takes a notice.
    heads = lambda: set(Journal(p).stat().head.position for p in ports)
    eventually(lambda: len(heads()) == 1, "all know the same head")
    check_clients(clients, ports[0])
    return sum(c.repeats for c in clients)


def test_nothing_acknowledged_is_lost_and_nothing_is_doubled(lab):
    kills = scaled(KILLS, 2)
    cairnd = lab.cairnd()

    def kill(_):
        cairnd.kill()
        cairnd.start()
        cairnd.ready()
    repeats = under_load([cairnd.port], kill, kills, most=400)
    assert repeats > 0, "no kill hit anything"
    print("%d kills, %d repeats" % (kills, repeats))


def check_clients(clients, port):
    """They come to their ends, and the journal has what they were told and nothing else."""
    for c in clients:
        c.join(60)
        assert not c.is_alive(), "a client is still waiting"
        assert c.failure is None, repr(c.failure)
    journal = Journal(port)
    by_id = check_whole(journal.read())
    acknowledged = {}
    for c in clients:
        for key, value in c.acknowledged.items():
            assert key not in acknowledged
            acknowledged[key] = value
    missing = [v for k, v in acknowledged.items() if k not in by_id]
    assert not missing, "acknowledged and lost: %r" % missing[:5]
    invented = [e.position for k, e in by_id.items() if k not in acknowledged]
    assert not invented, "never acknowledged, though everything was repeated until it was: %r" % invented[:5]
    for key, value in acknowledged.items():
        e = by_id[key]
        assert (e.header.stream, e.header.sequence, e.position) == value
