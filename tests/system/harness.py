"""Real processes for a test: started on free loopback ports in a temporary folder, waited for by condition,
killed by their process id, their output shown if the test fails."""

import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import grpc

import protos
import tools
from ports import free_port
from recorder import PATIENCE, Recorder

SAMPLE = protos.SOURCE / "contrib" / "samples" / "shopping-cart"
SCALE = float(os.environ.get("CAIRN_TEST_SCALE", "1"))


def scaled(count, least=1):
    """A count of repeated runs, by CAIRN_TEST_SCALE."""
    return max(least, int(count * SCALE))


def eventually(condition, what, timeout=None, pause=0.01):
    """Ask until `condition()` gives something true, and return it. For what can only be asked for: everything
    that can be waited for is waited for elsewhere."""
    deadline = time.monotonic() + (timeout or PATIENCE)
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain until %s" % what)
        time.sleep(pause)


def accepts(port, host="127.0.0.1"):
    """Somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


# Nothing outlives the test's own process. (Popen's preexec_fn could do the same, but forks a process that has
# gRPC's threads, which it does not always survive.)
_DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]


class Process:
    """A program that runs. Its output goes to a file; `start` again after a kill appends to it."""

    def __init__(self, name, argv, folder, env=None):
        self.name, self.argv = name, [str(a) for a in argv]
        self.log = pathlib.Path(folder) / (name + ".log")
        self._env = {**os.environ, **(env or {})}
        self._folder = folder
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                _DIES_WITH_US + self.argv, cwd=self._folder, env=self._env, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out)
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_ready(self, condition, what, timeout=None):
        """Wait until `condition()`; fail at once if the process ends instead."""
        def ready():
            assert self.alive(), "%s ended with %s instead of being ready:\n%s" % (
                self.name, self.process.returncode, self.text())
            return condition()
        eventually(ready, "%s %s; its output:\n%s" % (self.name, what, self.text()), timeout)
        return self

    def wait_text(self, pattern, timeout=None):
        """Wait until the output has a match of the pattern, and return the match."""
        return eventually(lambda: re.search(pattern, self.text(), re.M),
                          "%s says /%s/" % (self.name, pattern), timeout)

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def terminate(self, timeout=None):
        """SIGTERM, and return the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout or PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s did not end on SIGTERM:\n%s" % (self.name, self.text()))


class Program(Process):
    """One of our own: at the end of a test it must end well on SIGTERM."""


class Lab:
    """The processes of one test."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.processes, self.recorders = [], []

    def run(self, name, argv, env=None, kind=Process):
        process = kind(name, argv, self.folder, env)
        self.processes.append(process)
        return process.start()

    # --- functions

    def function(self, name, argv, env=None, timeout=None):
        """A user function: any program that takes HOST and PORT. Its port is `.port`."""
        port = free_port()
        process = self.run(name, argv, {"HOST": "127.0.0.1", "PORT": str(port), **(env or {})})
        process.port = port
        process.ready = lambda: process.wait_ready(lambda: accepts(port), "listens on %d" % port, timeout)
        return process.ready()

    def go_cart(self):
        return self.function("go-cart", [tools.go_cart()])

    def go_models(self):
        return self.function("go-models", [tools.go_models()])

    def go_crdt(self):
        return self.function("go-crdt", [tools.go_crdt()])

    def go_kinds(self):
        return self.function("go-kinds", [tools.go_kinds()])

    def go_events(self):
        return self.function("go-events", [tools.go_events()])

    def go_topics(self):
        return self.function("go-topics", [tools.go_topics()])

    def sample(self):
        """Our own shopping cart."""
        return self.function("sample", [sys.executable, "-B", SAMPLE / "cart.py"])

    def python_sdk_cart(self):
        """The sample's cart on the protocol's own Python SDK."""
        return self.function("python-sdk-cart", [
            tools.python_sdk(), "-B", protos.HERE / "python_sdk" / "cart.py", SAMPLE, protos.PROTO])

    def java_sdk_cart(self):
        """The sample's cart on the protocol's own Java SDK; a snapshot every 3 events."""
        return self.function("java-sdk-cart", tools.java_sdk_cart(SAMPLE), timeout=4 * PATIENCE)

    def recorder(self, function=None, **options):
        """A recorder in front of a function (or, with `spec`, in its place), closed at the end."""
        behind = ("127.0.0.1", function.port) if function else None
        rec = Recorder(function=behind, **options)
        self.recorders.append(rec)
        return rec

    # --- our programs

    def cairnd(self, storage=None, name="cairnd", port=None, options=(), env=None):
        """The journal, by default on files in the test's folder."""
        port = port or free_port()
        storage = storage or "file:%s" % (self.folder / "data")
        process = self.run(name, [tools.program("cairnd"), "--listen", "127.0.0.1:%d" % port,
                                  "--storage", storage, *options], env, kind=Program)
        process.port = port
        process.ready = lambda: process.wait_ready(lambda: accepts(port), "listens on %d" % port)
        return process.ready()

    def proxy(self, function, journal, name="cairn-proxy", env=None, options=(), wait=True):
        """A proxy beside a function (or a recorder). Ports: `.port`, `.management`, `.metrics`."""
        port, management, metrics = free_port(), free_port(), free_port()
        process = self.run(name, [tools.program("cairn-proxy"), *options], {
            "HTTP_PORT": str(port), "MANAGEMENT_PORT": str(management), "METRICS_PORT": str(metrics),
            "USER_FUNCTION_HOST": "127.0.0.1", "USER_FUNCTION_PORT": str(function.port),
            "CAIRN_JOURNAL": "127.0.0.1:%d" % (journal if isinstance(journal, int) else journal.port),
            **(env or {})}, kind=Program)
        process.port, process.management, process.metrics = port, management, metrics
        process.ready = lambda: process.wait_ready(
            lambda: status_of(management, "/ready") == 200, "is ready")
        return process.ready() if wait else process

    # --- the end

    def close(self):
        """Stop everything, ours first and gently: each must end with 0."""
        wrong = []
        while _channels:
            _channels.pop().close()
        for rec in self.recorders:
            rec.oblige()
        for process in reversed(self.processes):
            if isinstance(process, Program) and process.process is not None:
                if process.alive():
                    try:
                        process.terminate()
                    except AssertionError as late:
                        wrong.append(str(late))
                code = process.process.poll()
                if code not in (0, -signal.SIGKILL):
                    wrong.append("%s ended with %s:\n%s" % (process.name, code, process.text()[-4000:]))
                if re.search(r"ERROR: (Address|Leak|Thread)Sanitizer|runtime error:", process.text()):
                    wrong.append("%s: a sanitizer's report:\n%s" % (process.name, process.text()))
        for rec in self.recorders:
            rec.close()
        for process in self.processes:
            if process.alive():
                process.kill()
        assert not wrong, "\n".join(wrong)

    def report(self):
        """What each process and recorder has to say about a failure."""
        for rec in self.recorders:
            yield "recorder on %d" % rec.port, rec.log()
        for process in self.processes:
            yield "output of %s" % process.name, process.text()[-8000:]


_channels = []  # of the test that runs


# --- clients ---------------------------------------------------------------------

def channel_to(port, **options):
    """A grpcio channel of its own (grpcio otherwise shares connections between channels) that looks for a
    server that was lost again soon."""
    every = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": 64 << 20,
             "grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 500,
             "grpc.min_reconnect_backoff_ms": 5000,  # which is how long an attempt may take
             **{k.replace("_", ".", 1): v for k, v in options.items()}}
    channel = grpc.insecure_channel("127.0.0.1:%d" % port, list(every.items()))
    # grpcio reads a connection only while somebody waits for something; a subscriber does. Otherwise PINGs
    # are answered late, and a server's drain takes as long.
    channel.subscribe(lambda state: None)
    _channels.append(channel)
    return channel


def refused(call, *args, **kwargs):
    """The call fails; returns (status code's name, details)."""
    try:
        result = call(*args, **kwargs)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError("answered %r" % result)


class Answer:
    """An HTTP answer: `status`, `headers` (lower case), `body`."""

    def __init__(self, response):
        self.status, self.body = response.status, response.read()
        self.headers = {k.lower(): v for k, v in response.getheaders()}

    def __repr__(self):
        return "Answer(%d, %r, %r)" % (self.status, self.headers, self.body)


def http_request(port, method, path, body=None, headers=None, timeout=None):
    """One request over HTTP/1.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout or PATIENCE)
    try:
        if isinstance(body, str):
            body = body.encode()
        every = dict(headers or {})
        if body is not None:
            every.setdefault("Content-Type", "application/json")
        connection.request(method, path, body=body, headers=every)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def status_of(port, path):
    """The status of a GET, or None while nobody answers."""
    try:
        return http_request(port, "GET", path, timeout=2).status
    except (OSError, http.client.HTTPException):
        return None
