"""A private Postgres for a test: started as it is in production (fsync on), on a free loopback port, killed by its
process id; and what stands before it, a proxy that cuts connections by the byte, and PgBouncer."""

import atexit
import glob
import itertools
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest

from harness import Process, accepts, eventually
from ports import free_port


def _as_postgres():
    """Postgres does not run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []


class Postgres:
    """A primary, or a hot standby of another one."""

    def __init__(self, lab, primary=None, connections=60):
        bins = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not bins or not os.path.exists(bins[-1] + "/initdb"):
            pytest.skip("no Postgres server: apt-get install postgresql-15")
        self.lab, self.bin, self.port = lab, bins[-1], free_port()
        # Not in the test's folder, which another user may not enter.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="cairn-postgres."))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        make = [self.bin + "/initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        if primary:
            make = [self.bin + "/pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-R",
                    "-X", "stream", "-c", "fast", "-N"]
        subprocess.run([*_as_postgres(), *make, "-D", self.folder / "data"], check=True, stdout=subprocess.DEVNULL,
                       cwd=self.folder)
        self.process = Process("postgres-%d" % self.port, [
            *_as_postgres(), self.bin + "/postgres", "-D", self.folder / "data", "-k", self.folder, "-p", self.port,
            "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=32MB", "-c",
            "max_connections=%d" % connections], self.folder)
        lab.processes.append(self.process)
        self.start()
        if not primary:
            self.sql("CREATE DATABASE journal")

    def set(self, name, value):
        """A setting of the whole server that a reload changes; None: as it was."""
        self.sql("ALTER SYSTEM " + ("RESET %s" % name if value is None else "SET %s = '%s'" % (name, value)))
        self.sql("SELECT pg_reload_conf()")
        eventually(lambda: value is None or self.sql("SHOW %s" % name) == [[value]], "%s is %s" % (name, value))

    def start(self):
        """Again after a kill: what is left of the last server may still be about to end."""
        def up():
            if not self.process.alive():
                self.process.start()
            return subprocess.run([self.bin + "/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
                                  ).returncode == 0
        eventually(up, "Postgres is ready:\n%s" % self.process.text(), timeout=60, pause=0.05)
        return self

    def kill(self):
        """SIGKILL of the postmaster: the others end by themselves, and nothing is shut down."""
        self.process.kill()

    def everybody(self, signo):
        """A signal to the postmaster and all its children."""
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], stdout=subprocess.PIPE,
                                  universal_newlines=True).stdout.split()
        for pid in [self.process.pid, *map(int, children)]:
            os.kill(pid, signo)

    def sql(self, text, database="postgres", role="postgres"):
        """The rows of the last result, as lists of text; raises AssertionError with the server's words."""
        done = subprocess.run([self.bin + "/psql", "-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", "-h",
                               "127.0.0.1", "-p", str(self.port), "-U", role, "-d", database, "-c", text],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        assert done.returncode == 0, done.stderr
        return [line.split("\x1f") for line in done.stdout.splitlines()]

    def uri(self, database="journal", role="postgres", port=None):
        return "postgres://%s@127.0.0.1:%d/%s" % (role, port or self.port, database)

    def cut_connections(self, database="journal"):
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cairnd' "
                 "AND datname = '%s'" % database)

    def open_transaction(self, database="journal"):
        """A transaction with an xid and a snapshot that sits there until the test ends."""
        session = subprocess.Popen([self.bin + "/psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U",
                                    "postgres", "-d", database], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   universal_newlines=True)
        session.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT txid_current();\n\\echo open\n")
        session.stdin.flush()
        while session.stdout.readline().strip() != "open":
            assert session.poll() is None
        return session


class _Shared:
    """What a Postgres takes of a lab, for one that all tests of this process share."""

    def __init__(self):
        self.processes = []


_shared = None
_databases = itertools.count(1)


def new_database():
    """The URI of an empty database. All are on one server, which is started with the first of them and ends with
    this process; for tests that leave the server alone."""
    global _shared
    if _shared is None:
        _shared = Postgres(_Shared())
        atexit.register(_shared.kill)
    name = "journal%d" % next(_databases)
    _shared.sql("CREATE DATABASE %s" % name)
    return _shared.uri(name)


def ask(uri, text):
    """What new_database()'s server answers to a statement, in that database."""
    return _shared.sql(text, uri.rsplit("/", 1)[1])


BACKENDS = ["memory", "file", "postgres"]


def storage_of(lab, backend):
    """What --storage says for an empty journal of a test on this backend."""
    if backend == "postgres":
        return new_database()
    return "memory" if backend == "memory" else "file:%s" % (lab.folder / "data")


class Cutter:
    """A TCP proxy. `arm(direction, n)`: after n more bytes to the server ("out") or from it ("back"), the connection
    is cut on both sides. Only connections on which appends are made count, or those on which `begins` was sent.
    `closed`: no new ones are let in."""

    def __init__(self, port, begins=b"cairn.lookup"):
        self.to, self.closed, self.begins = port, False, begins
        self._lock = threading.Lock()
        self._left = {}  # direction: bytes until the cut
        self.passed = {"out": 0, "back": 0}
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, direction, n):
        with self._lock:
            self._left = {direction: n}

    def disarm(self):
        with self._lock:
            self._left = {}

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
                if self.closed:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                if self._listener.fileno() < 0:
                    return
                client.close()
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            writes = threading.Event()  # there was a look-up for an append on it
            threading.Thread(target=self._pump, args=(client, server, "out", writes), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, "back", writes), daemon=True).start()

    def _pump(self, source, target, direction, writes):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if direction == "out" and self.begins in data:
                    writes.set()
                with self._lock:
                    self.passed[direction] += len(data) if writes.is_set() else 0
                    cut = writes.is_set() and direction in self._left and self._left[direction] < len(data)
                    if cut:
                        data = data[:self._left.pop(direction)]
                        self.cuts += 1
                    elif writes.is_set() and direction in self._left:
                        self._left[direction] -= len(data)
                if data:
                    target.sendall(data)
                if cut:
                    break
        except OSError:
            pass
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            if direction == "back":
                sock.close()


def pgbouncer(lab, postgres):
    """PgBouncer in transaction mode before it; its port."""
    program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not program:
        pytest.skip("no PgBouncer: apt-get install pgbouncer")
    port = free_port()
    config = postgres.folder / "pgbouncer.ini"
    config.write_text("[databases]\njournal = user=postgres host=127.0.0.1 port=%d\n[pgbouncer]\n"
                      "listen_addr = 127.0.0.1\n"
                      "listen_port = %d\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n"
                      "unix_socket_dir =\n" % (postgres.port, port))
    lab.run("pgbouncer", [*_as_postgres(), program, config])
    eventually(lambda: accepts(port), "PgBouncer listens")
    return port
