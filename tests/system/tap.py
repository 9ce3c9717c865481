"""pytest's results as TAP, so that automake counts every test. Used by `run`; without it pytest prints as
it always does."""

import contextlib
import os
import shlex
import signal
import sys

# What a single test may take, in each of its parts (set up, call, tear down). One that hangs fails by name
# and lets those after it go on; a whole program has CAIRN_TEST_MAX_S, by tests/run-tap.
ONE_MAX_S = float(os.environ.get("CAIRN_TEST_ONE_MAX_S") or
                  float(os.environ.get("CAIRN_TEST_MAX_S") or 600) / 2)
NAME_MAX = 100  # characters of a test's name that are shown


@contextlib.contextmanager
def bounded():
    """The main thread is interrupted wherever it stands when the time is over."""
    def too_long(number, frame):
        raise AssertionError("the test did not end within %g s" % ONE_MAX_S)
    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, ONE_MAX_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def bounds(pytest):
    """A pytest plugin that holds every part of every test to the bound."""
    class Bounds:
        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_setup(self):
            with bounded():
                yield

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_call(self):
            with bounded():
                yield

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_teardown(self):
            with bounded():
                yield
    return Bounds()


class Tap:
    """A pytest plugin that writes TAP to the file descriptor `out`."""

    def __init__(self, out):
        self._out = os.fdopen(os.dup(out), "w", buffering=1)
        self._count = 0
        self._seen = {}

    def _line(self, text):
        self._out.write(text + "\n")

    def _diagnostics(self, text):
        for line in text.splitlines():
            self._line("# " + line)

    def pytest_collectreport(self, report):
        if report.failed:
            self._line("Bail out! %s cannot be read" % report.nodeid)
            self._diagnostics(str(report.longrepr))

    def pytest_collection_finish(self, session):
        self._line("1..%d" % len(session.items))

    def pytest_runtest_logreport(self, report):
        # A test is set up, called and torn down; each can fail it, only the last of them tells the verdict.
        worst = self._seen.setdefault(report.nodeid, [])
        if report.skipped or report.failed:
            worst.append(report)
        if report.when != "teardown":
            return
        self._count += 1
        name = report.nodeid.split("::", 1)[-1].replace("#", "")
        name = name if len(name) <= NAME_MAX else name[:NAME_MAX - 1] + "…"
        failed = [r for r in worst if r.failed]
        skipped = [r for r in worst if r.skipped]
        if failed:
            self._line("not ok %d - %s" % (self._count, name))
            for part in failed:
                self._diagnostics(part.longreprtext)
                for title, text in part.sections:
                    self._diagnostics("--- %s\n%s" % (title, text))
        elif skipped:
            why = skipped[0].longrepr
            why = why[2] if isinstance(why, tuple) else skipped[0].longreprtext
            self._line("ok %d - %s # SKIP %s" % (self._count, name, why.replace("Skipped: ", "", 1)))
        else:
            self._line("ok %d - %s" % (self._count, name))
        del self._seen[report.nodeid]

    def pytest_internalerror(self, excrepr):
        self._line("Bail out! pytest itself failed")
        self._diagnostics(str(excrepr))


def main(files):
    try:
        import google.protobuf  # noqa: F401
        import grpc  # noqa: F401
        import h2  # noqa: F401
        import pytest
    except ImportError as missing:
        print("1..0 # SKIP %s: install python3-pytest, python3-grpcio, python3-protobuf and python3-h2"
              % missing)
        return 0
    plugin = Tap(1)
    os.dup2(2, 1)  # what pytest and the tests print is not TAP
    more = shlex.split(os.environ.get("CAIRN_PYTEST_ARGS", ""))
    here = os.path.dirname(os.path.abspath(__file__))
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", here,
               "-o", "faulthandler_timeout=%g" % (0.9 * ONE_MAX_S)]  # where a test that hangs stands
    return pytest.main(files + more + options, plugins=[plugin, bounds(pytest)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
