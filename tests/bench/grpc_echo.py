#!/usr/bin/python3
"""What a unary call of 256 bytes costs our gRPC server, beside grpc-go's on the same machine.

    CAIRN_BUILDDIR=build python3 tests/bench/grpc_echo.py [rounds [requests]]

Interleaved rounds, h2load as client with 256 calls in flight on 8 connections, one loop of ours. Printed are
the server's CPU time a call (median, least and most) and calls a second. The bar (DESIGN 8) is 5 us of server
CPU a call; the exit code says whether the median kept it. Without go, ours is measured alone."""

import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
import harness  # noqa: E402
import tools  # noqa: E402
from ports import free_port  # noqa: E402

BAR_US = 5.0
UNARY = "/grpc.testing.TestService/UnaryCall"
# SimpleRequest: response_size 256, payload of 256 bytes.
REQUEST = b"\x10\x80\x02\x1a\x83\x02\x12\x80\x02" + b"e" * 256
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def load(port, body, count):
    h2load = shutil.which("h2load") or sys.exit("h2load is missing: apt-get install nghttp2-client")
    done = subprocess.run([h2load, "-n", str(count), "-c", "8", "-m", "32", "-d", body,
                           "-H", "content-type: application/grpc", "-H", "te: trailers",
                           "http://127.0.0.1:%d%s" % (port, UNARY)], capture_output=True, text=True)
    good = re.search(r"(\d+) succeeded", done.stdout)
    if not good or int(good[1]) != count:
        sys.exit("not every call succeeded:\n" + done.stdout + done.stderr)
    return float(re.search(r"([\d.]+) req/s", done.stdout)[1])


def measure(argv, body, count):
    """One server: (us of CPU a call, calls a second)."""
    port = free_port()
    server = subprocess.Popen([str(a).replace("PORT", str(port)) for a in argv], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        harness.eventually(lambda: harness.accepts(port), "the server listens")
        load(port, body, count // 20)
        before = cpu_seconds(server.pid)
        rate = load(port, body, count)
        return (cpu_seconds(server.pid) - before) * 1e6 / count, rate
    finally:
        server.kill()
        server.wait()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 100000
    servers = {"cairn": [tools.program("grpc_interop_server"), "PORT", "1"]}
    if shutil.which("go"):
        servers["grpc-go"] = [tools.grpc_interop() / "server", "-port", "PORT"]
    results = {name: [] for name in servers}
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(REQUEST).to_bytes(4, "big") + REQUEST)
        body.flush()
        for _ in range(rounds):
            for name, argv in servers.items():
                results[name].append(measure(argv, body.name, count))
                time.sleep(0.1)
    for name, figures in results.items():
        cpu = [f[0] for f in figures]
        print("%-8s %5.1f us CPU a call (%.1f to %.1f)  %7.0f calls/s" % (
            name, statistics.median(cpu), min(cpu), max(cpu), statistics.median(f[1] for f in figures)))
    median = statistics.median(f[0] for f in results["cairn"])
    print("bar %.1f us: %s" % (BAR_US, "kept" if median <= BAR_US else "MISSED"))
    sys.exit(median > BAR_US)


if __name__ == "__main__":
    main()
