"""The journal and what becomes of Postgres servers: how they are named and asked who one is, standbys and failover, a
commit that no standby confirms, a disk that is full."""

import atexit
import os
import shutil
import subprocess
import tempfile
import threading

import pytest

import tools
from harness import eventually, http_request
from journal_client import Journal, Refused, check_whole, event, exactly, to_stream
from postgres import Postgres
from test_kill import under_load
from test_postgres import until_told


@pytest.fixture(scope="module")
def alone():
    """One server for the tests that leave it as it was."""
    class Owner:
        processes = []
    postgres = Postgres(Owner())
    yield postgres
    postgres.kill()


def metric(port, name):
    text = http_request(port, "GET", "/metrics").body.decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


def test_the_environment_names_it_and_has_the_password(lab, alone):
    alone.sql("CREATE ROLE keyed SUPERUSER LOGIN PASSWORD 'open sesame'")
    hba = alone.folder / "data" / "pg_hba.conf"
    hba.write_text("host all keyed 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
    alone.sql("SELECT pg_reload_conf()")
    alone.sql("CREATE DATABASE by_environment")
    env = {"PGHOST": "127.0.0.1", "PGPORT": str(alone.port), "PGUSER": "keyed", "PGDATABASE": "by_environment"}

    def refused(**more):
        done = subprocess.run([str(tools.program("cairnd")), "--storage", "postgres:", "--listen", "127.0.0.1:0"],
                              env={**os.environ, **env, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=60)
        return done.returncode == 1 and done.stderr
    eventually(lambda: "password" in (refused() or ""), "the server asks for a password")
    wrong = refused(PGPASSWORD="open barley")
    assert "password authentication failed" in wrong and "barley" not in wrong
    cairnd = lab.cairnd("postgres:", env={**env, "PGPASSWORD": "open sesame"})
    Journal(cairnd.port).append(to_stream("s|0", event()))
    assert alone.sql("SELECT count(*) FROM cairn.record", "by_environment") == [["1"]]
    assert "sesame" not in cairnd.text()
    # In the URI it is as good, and as secret.
    uri = "postgres://keyed:open%%20sesame@127.0.0.1:%d/by_environment" % alone.port
    second = lab.cairnd(uri, name="by-uri")
    assert len(Journal(second.port).read()) == 1
    assert "sesame" not in second.text()


def test_failover_to_a_standby_is_exactly_once(lab):
    """Two hosts are named, the standby first: the one that takes writes is found, and after the primary's death the
    standby that was promoted. What was acknowledged is on both, for commits wait for the standby."""
    primary = Postgres(lab)
    standby = Postgres(lab, primary)
    primary.set("synchronous_standby_names", "*")
    uri = "postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/journal?target_session_attrs=read-write" % (
        standby.port, primary.port)
    port = lab.cairnd(uri).port
    journal = Journal(port, timeout=30)
    subscription = journal.subscribe()

    def fail_over(n):
        assert standby.sql("SELECT pg_is_in_recovery(), count(*) > 0 FROM cairn.record", "journal") == [["t", "t"]]
        primary.kill()
        assert standby.sql("SELECT pg_promote()") == [["t"]]
    under_load([port], fail_over, 1)
    until_told(lambda: journal.append(to_stream("after|0", event(), expect=exactly(0))))
    entries = journal.read()
    assert len(check_whole(entries)) == len(entries) == int(
        standby.sql("SELECT count(*) FROM cairn.record", "journal")[0][0])
    assert [e.position for e in subscription.take(len(entries))[0]] == [e.position for e in entries]


def test_a_commit_that_is_not_confirmed_is_settled(lab, alone):
    """A wait for a standby that is not there is cancelled: Postgres then says that the commit has come through, with
    a warning that only this server has it. That is no durable commit."""
    alone.sql("CREATE DATABASE unconfirmed")
    cairnd = lab.cairnd(alone.uri("unconfirmed"))
    journal = Journal(cairnd.port, timeout=40)
    journal.append(to_stream("s|0", event()))
    one, told = event(data=b"unconfirmed"), []
    alone.set("synchronous_standby_names", "missing")
    try:
        appending = threading.Thread(
            target=lambda: told.append(until_told(lambda: journal.append(to_stream("s|0", one)))), daemon=True)
        appending.start()
        waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = 'unconfirmed'"
        eventually(lambda: alone.sql("SELECT pg_cancel_backend(pid) " + waits) == [["t"]], "the commit waits")
        cairnd.wait_text("canceling wait for synchronous replication")
        cairnd.wait_text("the outcome of a batch is unknown: settling")
        eventually(lambda: alone.sql("SELECT 1 " + waits), "the settling's commit waits, too")
        assert alone.sql("SELECT count(*) FROM cairn.record", "unconfirmed") == [["2"]]  # here, and here alone
        assert not told and metric(cairnd.port, "cairn_journal_head") == 1
    finally:
        alone.set("synchronous_standby_names", None)
    appending.join(60)
    assert told and told[0].first_position == 1 and told[0].streams[0].sequence == 2
    assert metric(cairnd.port, "cairn_postgres_batches_settled_total") >= 1
    assert journal.read()[-1].header.id == one.id
    assert len(check_whole(journal.read())) == 2


def test_a_full_disk_refuses_what_it_does_not_hold(lab, alone):
    folder = tempfile.mkdtemp(prefix="cairn-small.")
    os.chmod(folder, 0o755)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", folder],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if mounted.returncode:
        os.rmdir(folder)
        pytest.skip("no small file system can be mounted here: %s" % mounted.stdout.strip())
    atexit.register(lambda: subprocess.run(["umount", "-l", folder]) and os.rmdir(folder))
    place = os.path.join(folder, "space")
    os.mkdir(place)
    if os.getuid() == 0:
        shutil.chown(place, "postgres", "postgres")
    alone.sql("CREATE TABLESPACE small LOCATION '%s'" % place)
    alone.sql("CREATE DATABASE small TABLESPACE small")
    cairnd = lab.cairnd(alone.uri("small"))
    journal = Journal(cairnd.port, timeout=40)
    told = 0
    while True:
        one = event(data=os.urandom(1 << 20))
        try:
            journal.append(to_stream("s|0", one, expect=exactly(told)))
            told += 1
            assert told < 24
        except Refused as refused:
            assert refused.code == "RESOURCE_EXHAUSTED", str(refused)
            assert "53100" in refused.text, refused.text
            break
    assert told > 2 and len(journal.read()) == told
    assert metric(cairnd.port, 'cairn_appends_total{result="no_room"}') >= 1
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
    assert journal.append(to_stream("s|0", one, expect=exactly(told))).streams[0].sequence == told + 1
    assert len(check_whole(journal.read())) == told + 1
    cairnd.terminate()
    alone.sql("DROP DATABASE small")
    alone.sql("DROP TABLESPACE small")
