"""pytest's results as TAP, so that automake counts every test. Used by `run`; without it pytest prints as
it always does."""

import os
import shlex
import sys


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
               "-o", "faulthandler_timeout=300"]  # where a test that hangs stands
    return pytest.main(files + more + options, plugins=[plugin])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
