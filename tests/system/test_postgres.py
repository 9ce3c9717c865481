"""The journal on a real Postgres: several cairnd on one database, connections and servers that die, proxies that
cut, roles and schemas."""

import os
import re
import signal
import subprocess
import threading
import time

import pytest

import tools
from harness import SCALE, eventually, http_request, scaled, status_of
from journal_client import Journal, Refused, check_whole, event, exactly, pb, rec, to_stream
from postgres import Cutter, Postgres, pgbouncer
from test_kill import Client, under_load

SEED = int(os.environ.get("CAIRN_SEED", "1"))


@pytest.fixture
def postgres(lab):
    return Postgres(lab)


def run_cairnd(*arguments):
    return subprocess.run([str(tools.program("cairnd")), *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=60)


def until_told(append, seconds=40):
    """Repeat an append until it is acknowledged."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return append()
        except Refused as refused:
            assert refused.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"), str(refused)
            assert time.monotonic() < deadline, str(refused)
            time.sleep(0.05)


def test_connections_that_are_killed_cost_nothing(lab, postgres):
    ports = [lab.cairnd(postgres.uri(), name="cairnd-%d" % n).port for n in range(2)]
    under_load(ports, lambda n: postgres.cut_connections(), scaled(20, 3))


def test_a_server_that_is_killed_costs_nothing(lab, postgres):
    port = lab.cairnd(postgres.uri()).port

    def kill(n):
        postgres.kill()
        postgres.start()

    under_load([port], kill, scaled(3, 1))


class Racer(threading.Thread):
    """Appends of ten events each, many under way, half of them to streams that all share; some expect what does not
    hold and are refused."""

    def __init__(self, number, port, appends):
        super().__init__(daemon=True)
        self.number, self.appends, self.failure = number, appends, None
        self.journal = Journal(port, timeout=120 * max(1, SCALE))
        self.told, self.refused = 0, 0

    def run(self):
        try:
            stream = self.journal.append_stream()
            sent = 0
            while self.told + self.refused < self.appends:
                while sent < self.appends and sent - self.told - self.refused < 32:
                    name = "shared|%d" % (sent % 5) if sent % 2 else "own-%d|%d" % (self.number, sent % 7)
                    wrong = sent % 50 == 49
                    stream.send(sent, to_stream(name, *[event(data=b"x" * 20) for _ in range(10)],
                                                expect=exactly(10 ** 9) if wrong else None))
                    sent += 1
                answer = stream.answer()
                if answer.HasField("refusal"):
                    assert answer.request % 50 == 49, answer.refusal
                    self.refused += 1
                else:
                    self.told += 1
            stream.half_close()
            stream.rest()
        except BaseException as failure:
            self.failure = failure


class Follower(threading.Thread):
    """Subscribes to everything from the start and must see every position once, in order."""

    def __init__(self, port, until):
        super().__init__(daemon=True)
        patience = 300 * max(1, SCALE)
        self.subscription = Journal(port, timeout=patience).subscribe(timeout=patience)
        self.until, self.seen, self.failure = until, 0, None
        self.times = [time.monotonic()]  # when it had seen so many hundredths

    def run(self):
        try:
            total = self.until()
            while self.seen < total:
                for entry in self.subscription.next().entries:
                    assert entry.position == self.seen, "position %d instead of %d" % (entry.position, self.seen)
                    self.seen += 1
                while len(self.times) <= 100 * self.seen // total:
                    self.times.append(time.monotonic())
        except BaseException as failure:
            self.failure = failure


def test_three_on_one_database_have_one_order(lab, postgres):
    """50,000 events, subscribers on each, while a transaction sits open that has an xid and a snapshot."""
    ports = [lab.cairnd(postgres.uri(), name="cairnd-%d" % n).port for n in range(3)]
    sitting = postgres.open_transaction()
    appends = scaled(1700, 100)
    racers = [Racer(n, port, appends) for n, port in enumerate(ports)]
    total = sum(10 * (appends - appends // 50) for _ in racers)
    followers = [Follower(port, lambda: total) for port in ports]
    begun = time.monotonic()
    for thread in followers + racers:
        thread.start()
    for thread in racers + followers:
        thread.join(150 * max(1, SCALE))
        assert thread.failure is None, repr(thread.failure)
        assert not thread.is_alive(), "%s is at %s" % (thread, getattr(thread, "seen", None))
    seconds = time.monotonic() - begun
    metrics = [http_request(port, "GET", "/metrics").body.decode() for port in ports]
    moved = [int(re.search(r"^cairn_append_moved_total (\d+)$", text, re.M).group(1)) for text in metrics]
    assert any(moved), "they raced, and no batch was decided again: %r" % moved
    assert [f.seen for f in followers] == [total] * 3
    assert sitting.poll() is None
    sitting.kill()
    assert postgres.sql("SELECT count(*), count(DISTINCT id), max(position) + 1 FROM cairn.record", "journal") == [
        [str(total)] * 3]
    assert postgres.sql("SELECT n_tup_upd + n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'journal'",
                        "journal") == [["0"]]
    # Neither the first tenth, in which connections are made, nor the last, in which writers have finished.
    times = followers[0].times
    ratio = (times[30] - times[10]) / (times[90] - times[70])
    print("%d events by three in %.1f s, %r batches decided again; the rate at the end is %.2f of that at the start"
          % (total, seconds, moved, ratio))
    assert ratio >= 0.8 or SCALE < 10, ratio  # a soak's bar: in a short run it is the machine's mood


def test_a_connection_cut_at_every_byte_of_a_commit(lab, postgres):
    """Whatever came through, the append is told right: there once, and nothing that is not there was acknowledged."""
    cutter = Cutter(postgres.port)
    port = lab.cairnd(postgres.uri(port=cutter.port)).port
    journal = Journal(port, timeout=40)
    journal.append(to_stream("s|0", event()))
    before = dict(cutter.passed)
    journal.append(to_stream("s|0", event()))
    sizes = {d: cutter.passed[d] - before[d] for d in before}
    assert 100 < sizes["back"] < 2000 and 300 < sizes["out"] < 5000, sizes
    step = {"back": 1, "out": 7}  # SEED says where it begins
    told = 2
    for direction in ("back", "out"):
        for n in range(SEED % step[direction], sizes[direction], step[direction]):
            cutter.arm(direction, n)
            one = event()
            answer = until_told(lambda: journal.append(to_stream("s|0", one)))
            cutter.disarm()
            assert answer.streams[0].sequence == told + 1, "%s byte %d" % (direction, n)
            told += 1
    entries = check_whole(journal.read())
    assert len(entries) == told
    assert cutter.cuts > 0.9 * (sizes["back"] + sizes["out"] / step["out"])
    print("%d cuts, %d records" % (cutter.cuts, told))
    cutter.close()


def test_settling_goes_by_the_bytes(lab, postgres):
    """A batch of two appends is cut off, and the first is repeated through another cairnd before the outcome is
    settled: the other one is acknowledged only if it is there."""
    cutter = Cutter(postgres.port)
    first = lab.cairnd(postgres.uri(port=cutter.port), name="cut").port
    other = Journal(lab.cairnd(postgres.uri(), name="other").port)
    journal = Journal(first, timeout=60)
    journal.append(to_stream("a|0", event()))
    # The row is held, so that the next batch waits at the server; the two after it gather behind.
    holder = postgres.open_transaction()
    holder.stdin.write("ROLLBACK; BEGIN; SELECT 1 FROM cairn.journal FOR UPDATE;\n\\echo held\n")
    holder.stdin.flush()
    while holder.stdout.readline().strip() != "held":
        pass
    stream = journal.append_stream()
    stream.send(1, to_stream("a|0", event()))
    eventually(lambda: postgres.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
               "the first batch waits")
    two = [event(data=b"first" * 4000), event(data=b"second" * 4000)]
    stream.send(2, to_stream("a|1", two[0]))
    stream.send(3, to_stream("a|2", two[1]))
    stream.send(4, to_stream("", event()))  # refused by the worker at once: so it has passed on what came before
    assert stream.answer().request == 4
    # The first batch's answer passes, and the look-up for the next; of that batch only the beginning arrives, and
    # nobody gets in any more.
    cutter.closed = True
    cutter.arm("out", 5000)
    holder.stdin.write("ROLLBACK;\n")
    holder.stdin.flush()
    eventually(lambda: cutter.cuts > 0, "the batch is cut off")
    told = {}

    def take():
        for answer in stream.rest()[0]:
            told[answer.request] = answer

    stream.half_close()
    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    repeated = other.append(to_stream("a|1", two[0]))
    cutter.closed = False
    taker.join(60)
    ids = check_whole(journal.read())
    assert two[0].id in ids and repeated.count == 1
    for number, one in ((2, two[0]), (3, two[1])):
        if number in told and not told[number].HasField("refusal"):
            assert one.id in ids, "acknowledged, and not there: append %d" % number
    holder.kill()
    cutter.close()


def test_one_that_is_stopped_stops_nobody_else(lab, postgres):
    stopped = lab.cairnd(postgres.uri(), name="stopped")
    running = lab.cairnd(postgres.uri(), name="running")
    stop = threading.Event()
    busy = Client(1, stopped.port, stop)
    busy.start()
    journal = Journal(running.port)
    try:
        for n in range(scaled(10, 2)):
            acknowledged = len(busy.acknowledged)
            eventually(lambda: len(busy.acknowledged) > acknowledged, "the other one appends", timeout=60)
            os.kill(stopped.pid, signal.SIGSTOP)
            for _ in range(5):
                begun = time.monotonic()
                journal.append(to_stream("mine|0", event()))
                assert time.monotonic() - begun < 8, "an append waited for a stopped cairnd"
            os.kill(stopped.pid, signal.SIGCONT)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
        stop.set()
    busy.join(60)
    assert busy.failure is None and not busy.is_alive()
    ids = check_whole(Journal(stopped.port).read())
    assert all(key in ids for key in busy.acknowledged)


class Asked(threading.Thread):
    """A call that is under way; `code`: how it was refused."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.code = call, None
        self.start()

    def run(self):
        try:
            self.code = "answered %r" % (self.call(),)
        except Refused as refused:
            self.code = refused.code


def test_a_server_that_does_not_answer_is_no_hang(lab, postgres):
    cairnd = lab.cairnd(postgres.uri())
    journal = Journal(cairnd.port, timeout=60)
    journal.append(to_stream("s|0", event()))
    assert status_of(cairnd.port, "/readyz") == 200
    postgres.everybody(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        asked = [Asked(lambda: journal.append(to_stream("s|0", event()))), Asked(journal.read),
                 Asked(lambda: journal.stat("s|0")), Asked(lambda: journal.load("s|0"))]
        for one in asked:
            one.join(60)
            assert one.code == "UNAVAILABLE", repr(one.code)
        assert time.monotonic() - begun < 40
        eventually(lambda: status_of(cairnd.port, "/readyz") == 503, "it is not ready", timeout=40)
        assert status_of(cairnd.port, "/healthz") == 200
    finally:
        postgres.everybody(signal.SIGCONT)
    until_told(lambda: journal.append(to_stream("s|0", event())))
    eventually(lambda: status_of(cairnd.port, "/readyz") == 200, "it is ready again")


def test_acknowledged_history_that_is_lost_is_noticed(lab, postgres):
    cairnd = lab.cairnd(postgres.uri())
    journal = Journal(cairnd.port)
    for _ in range(3):
        journal.append(to_stream("s|0", event()))
    before = journal.stat().head
    postgres.sql("DELETE FROM cairn.record WHERE position = 2", "journal")  # under an open connection, too

    def refused():
        try:
            journal.append(to_stream("s|0", event()))
        except Refused as why:
            return why.code == "UNAVAILABLE" and "lost acknowledged history" in why.text

    eventually(refused, "appends are refused for the loss", timeout=20)
    eventually(lambda: status_of(cairnd.port, "/readyz") == 503, "it is not ready")
    with pytest.raises(Refused) as why:
        journal.read()
    assert "lost acknowledged history" in why.value.text
    # A restart does not forget it; somebody has to say that it may go on, and is recorded.
    eventually(lambda: postgres.sql("SELECT lost_from FROM cairn.meta", "journal") == [["2"]], "the loss is recorded")
    cairnd.kill()
    again = run_cairnd("--storage", postgres.uri(), "--listen", "127.0.0.1:0")
    assert again.returncode == 1 and "cairn accept-loss" in again.stderr, again.stderr

    def accept(*more):
        return subprocess.run([tools.program("cairn"), "accept-loss", "--storage", postgres.uri(), "--reason",
                               "the primary is gone", *more], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=60)
    said = accept()
    assert said.returncode == 2 and "say --yes" in said.stderr, said.stderr
    assert run_cairnd("--storage", postgres.uri(), "--listen", "127.0.0.1:0").returncode == 1  # nothing was done
    said = accept("--yes")
    assert said.returncode == 0 and "below position 2 is the same" in said.stderr, said.stderr
    assert accept("--yes").returncode == 1  # once
    cairnd.start()
    cairnd.ready()
    beyond = rec.Cursor(journal_id=before.journal_id, incarnation=1, position=3)
    journal.append(to_stream("s|0", event()))
    with pytest.raises(Refused) as why:
        journal.read(from_cursor=beyond)
    assert (why.value.refusal.fork.position, why.value.refusal.fork.incarnation) == (2, 2)
    act = [e for e in journal.read(include_system=True) if e.header.stream == "$incarnations"][0]
    said = rec.Incarnation.FromString(act.body.data)
    assert (said.cause, said.fork, said.reason) == (rec.Incarnation.CAUSE_LOSS_ACCEPTED, 2, "the primary is gone")


def test_behind_pgbouncer(lab, postgres):
    port = pgbouncer(lab, postgres)
    through = Journal(lab.cairnd(postgres.uri(port=port), name="through").port)
    direct = Journal(lab.cairnd(postgres.uri(), name="direct").port)
    subscriptions = [j.subscribe() for j in (through, direct)]
    for n in range(30):
        (through if n % 2 else direct).append(to_stream("s|%d" % (n % 3), event(data=b"%d" % n)))
    for s in subscriptions:
        assert [e.position for e in s.take(30)[0]] == list(range(30))
    assert len(check_whole(through.read())) == 30
    assert [e.header.sequence for e in through.load("s|1")[0]] == list(range(1, 11))


def test_migrations_and_roles(lab, postgres):
    postgres.sql("CREATE ROLE app LOGIN")
    empty = run_cairnd("--storage", postgres.uri(role="app"), "--listen", "127.0.0.1:0")
    assert empty.returncode == 1 and "cairnd migrate up --storage" in empty.stderr, empty.stderr
    status = run_cairnd("migrate", "status", "--storage", postgres.uri())
    assert status.returncode == 0 and "no journal" in status.stdout, status
    dry = run_cairnd("migrate", "--dry-run", "--storage", postgres.uri())
    assert dry.returncode == 0 and "0001_journal.sql  to be applied" in dry.stdout, dry
    assert postgres.sql("SELECT to_regclass('cairn.meta') IS NULL", "journal") == [["t"]]
    up = run_cairnd("migrate", "up", "--storage", postgres.uri())
    assert up.returncode == 0 and "0001_journal.sql  applied" in up.stdout, up
    again = run_cairnd("migrate", "up", "--storage=" + postgres.uri())
    assert again.returncode == 0 and again.stdout == up.stdout, again
    assert run_cairnd("migrate", "sideways").returncode == 2
    assert run_cairnd("migrate", "status", "--storage", "memory").returncode == 1
    # The role of README: it can add to the log, and do nothing else to it.
    postgres.sql("GRANT USAGE ON SCHEMA cairn TO app; GRANT SELECT ON ALL TABLES IN SCHEMA cairn TO app; "
                 "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cairn TO app", "journal")
    journal = Journal(lab.cairnd(postgres.uri(role="app")).port)
    journal.append(to_stream("cart|1", event("Added", b'{"a": [1]}', content_type="application/json")))
    assert len(journal.read()) == 1
    for statement in ("DELETE FROM cairn.record", "UPDATE cairn.record SET sequence = 7",
                      "INSERT INTO cairn.stream VALUES (9, 9, 'x')", "UPDATE cairn.meta SET needs = 0",
                      "CREATE TABLE cairn.mine ()"):
        with pytest.raises(AssertionError, match="permission denied"):
            postgres.sql(statement, "journal", role="app")
    assert postgres.sql("SELECT stream, sequence, kind, type, json->'a'->0 FROM cairn.events", "journal", "app") == [
        ["cart|1", "1", "event", "Added", "1"]]
    # A later schema that is only added to is fine; one that needs a later program is not.
    postgres.sql("UPDATE cairn.meta SET schema = 99", "journal")
    lab.cairnd(postgres.uri(role="app"), name="rolling")
    postgres.sql("UPDATE cairn.meta SET needs = 99", "journal")
    late = run_cairnd("--storage", postgres.uri(), "--listen", "127.0.0.1:0")
    assert late.returncode == 1 and "needs programs of level 99" in late.stderr, late.stderr
    assert "install a newer cairnd" in late.stderr


def test_databases_that_are_not_fit_are_refused(lab, postgres):
    def words(uri):
        done = run_cairnd("--storage", uri, "--listen", "127.0.0.1:0")
        assert done.returncode == 1, done
        return done.stderr

    postgres.sql("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    assert "not in UTF-8" in words(postgres.uri("ascii"))
    postgres.sql("CREATE ROLE serial SUPERUSER LOGIN; ALTER ROLE serial SET default_transaction_isolation = "
                 "'serializable'")
    assert "READ COMMITTED" in words(postgres.uri(role="serial"))
    postgres.sql("CREATE ROLE reader SUPERUSER LOGIN; ALTER ROLE reader SET default_transaction_read_only = on")
    assert "read-only" in words(postgres.uri(role="reader") + "?target_session_attrs=any")
    postgres.set("fsync", "off")
    assert "fsync=off" in words(postgres.uri()) and "set fsync=on" in words(postgres.uri())
    postgres.set("fsync", None)
    assert "cannot be reached" in words("postgres://nobody:secret@127.0.0.1:1/none")
    assert "secret" not in words("postgres://nobody:secret@127.0.0.1:1/none")
    assert run_cairnd("--storage", "postgres://%zz", "--listen", "127.0.0.1:0").returncode == 1


def test_metrics_tell_of_the_connections(lab, postgres):
    cairnd = lab.cairnd(postgres.uri())
    journal = Journal(cairnd.port)
    journal.append(to_stream("s|0", event(), expect=exactly(0)))
    postgres.cut_connections()
    one = event()
    until_told(lambda: journal.append(to_stream("s|0", one)))
    text = http_request(cairnd.port, "GET", "/metrics").body.decode()
    values = dict(line.split() for line in text.splitlines() if line.startswith("cairn_postgres"))
    assert int(float(values["cairn_postgres_connections"])) >= 2
    assert int(float(values["cairn_postgres_connections_lost_total"])) >= 1
    assert values["cairn_postgres_history_lost"] == "0"


def test_what_one_has_erased_another_takes_off_the_disk_and_they_take_turns(lab):
    postgres = Postgres(lab)
    often = ("--compact-every", "50ms", "--compact-min-age", "0", "--compact-rate", "0")
    never = ("--compact-every", "0")
    first = lab.cairnd(postgres.uri(), name="cairnd-1", options=never)
    journal = Journal(first.port)
    journal.append(to_stream("user|1", event(data=b"a name of hers"), event(data=b"another name")))
    others = [lab.cairnd(postgres.uri(), name="cairnd-%d" % n, options=often) for n in (2, 3)]

    def bodies():
        return postgres.sql("SELECT count(*) FROM cairn.record WHERE position('a name of hers'::bytea IN bytes) > 0",
                            "journal")[0][0]
    assert bodies() == "1"
    # Each goes through all of the log once, in its turn, and finds nothing: from then on it is acts that count.
    ended = lambda: [e for e in journal.read(stream="$sessions") if e.header.kind == rec.KIND_SESSION_ENDED]
    eventually(lambda: len(ended()) == 2, "both have had their turn")
    journal.call("Erase", pb.EraseRequest(stream="user|1", reason="asked", from_sequence=1, to_sequence=1))
    journal.close()
    first.kill()
    eventually(lambda: bodies() == "0", "the erased body is gone")
    with_others = Journal(others[0].port)

    def kinds():
        acts = with_others.read(include_system=True)
        return [e.header.kind for e in acts if e.header.stream == "$acts"]
    compactions = rec.KIND_COMPACTION
    assert kinds().count(compactions) == 1
    # The old versions of rows are Postgres's to take away, as README says, once no snapshot is as old.
    def in_tables(text):
        postgres.sql("VACUUM FULL cairn.record", "journal")
        postgres.sql("CHECKPOINT", "journal")
        return subprocess.run(["grep", "-rqsF", text, str(postgres.folder / "data" / "base")]).returncode == 0

    eventually(lambda: not in_tables("a name of hers"), "the erased body is in no table's file", pause=0.2)
    assert in_tables("another name")
    turns = [e.header.stream for e in with_others.read(include_system=True)]
    assert turns.count("$grants-$compaction") >= 1
    with_others.close()


def test_the_turn_of_one_that_dies_passes_to_another(lab, postgres):
    """It is killed in the middle of a pass; its session runs out, and another one's pass goes through."""
    slow = ("--compact-every", "0", "--compact-min-age", "0", "--compact-rate", "1")
    quick = ("--compact-every", "100ms", "--compact-min-age", "0", "--compact-rate", "0")
    dying = lab.cairnd(postgres.uri(), name="dying", options=slow)
    journal = Journal(dying.port, timeout=60)
    journal.append(to_stream("user|1", event(data=b"a name"), event(data=b"another")))
    journal.call("Erase", pb.EraseRequest(stream="user|1", reason="asked", from_sequence=1, to_sequence=1))
    Asked(lambda: journal.call("Compact", pb.CompactRequest()))
    turn = lambda: journal.read(stream="$grants-$compaction")
    eventually(turn, "it has the turn")  # and goes on at a byte a second
    other = lab.cairnd(postgres.uri(), name="other", options=quick)
    with pytest.raises(Refused) as refused:
        Journal(other.port).call("Compact", pb.CompactRequest())
    assert refused.value.code == "UNAVAILABLE" and "another cairnd is compacting" in refused.value.text
    dying.kill()
    journal = Journal(other.port, timeout=60)
    compactions = lambda: [e for e in journal.read(include_system=True) if e.header.kind == rec.KIND_COMPACTION]
    eventually(compactions, "the other one compacts", timeout=40)
    assert len(compactions()) == 1 and len(turn()) == 2
    assert [e.WhichOneof("content") for e in journal.read(stream="user|1", kinds=[rec.KIND_EVENT])][0] != "body"
