#!/usr/bin/python3
"""What a command costs the proxy, beside calling the same function directly.

    CAIRN_BUILDDIR=build python3 tests/bench/proxy_command.py [rounds [commands]]

The function is the least there can be (function.c), the client commands.c; 200 entities, all active before it is
measured, memory journal. Interleaved rounds; printed are, as the median with least and most: the proxy's and the
function's CPU time a command, commands a second, the time of a command. Bars (DESIGN 8): 20 us of proxy CPU for a
command that reads, and with one in flight 0.15 ms between the medians of proxy and direct call; the exit code
says whether both were kept."""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
import harness  # noqa: E402
import tools  # noqa: E402
from ports import free_port  # noqa: E402

CPU_BAR_US, TIME_BAR_US = 20.0, 150.0
ENTITIES = 200


def cpu_seconds(pid):
    """To the nanosecond: /proc/PID/stat counts in hundredths of a second."""
    return int(pathlib.Path("/proc/%d/schedstat" % pid).read_text().split()[0]) / 1e9


def run(port, method, count, in_flight):
    done = subprocess.run([tools.program("bench_commands"), "127.0.0.1:%d" % port, "shop.Cart/" + method, str(count),
                           str(in_flight), str(ENTITIES), "1"], capture_output=True, text=True)
    if done.returncode:
        sys.exit("bench_commands: " + done.stdout + done.stderr)
    return [float(n) for n in re.findall(r"[\d.]+", re.sub(r"p99", "", done.stdout))]


def measure(lab, way, method, count, in_flight):
    """(proxy us, function us, commands/s, median us, p99 us)"""
    pids = [lab["proxy"].process.pid, lab["function"].process.pid]
    port = lab["proxy" if way == "proxy" else "function"].port
    before = [cpu_seconds(pid) for pid in pids]
    figures = run(port, method, count, in_flight)
    used = [(cpu_seconds(pid) - b) * 1e6 / count for pid, b in zip(pids, before)]
    return used + figures


def start(lab, folder):
    port = free_port()
    function = lab.run("function", [tools.program("bench_function"), str(port)])
    function.port = port
    function.wait_ready(lambda: harness.accepts(port), "listens")
    journal = lab.cairnd("memory")
    return {"function": function, "journal": journal, "proxy": lab.proxy(function, journal)}


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 50000
    cases = [("proxy", "GetCart", 64), ("direct", "GetCart", 64), ("proxy", "GetCart", 1), ("direct", "GetCart", 1),
             ("proxy", "AddItem", 64)]
    results = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        lab = harness.Lab(folder)
        try:
            stage = start(lab, folder)
            run(stage["proxy"].port, "GetCart", 10 * ENTITIES, 64)
            for _ in range(rounds):
                for case in cases:
                    way, method, in_flight = case
                    some = count if in_flight > 1 and method == "GetCart" else count // 5
                    results[case].append(measure(stage, way, method, some, in_flight))
        finally:
            lab.close()
    print("%-22s %20s %20s %18s %10s %8s" % (
        "", "proxy CPU us", "function CPU us", "commands/s", "median us", "p99 us"))
    for (way, method, in_flight), figures in results.items():
        columns = list(zip(*figures))
        medians = [statistics.median(c) for c in columns]
        spread = ["%.1f (%.1f-%.1f)" % (m, min(c), max(c)) for m, c in zip(medians, columns)]
        print("%-6s %-8s %2d     %20s %20s %18.0f %10.0f %8.0f" % (way, method, in_flight, *spread[:2], *medians[2:]))
    cpu = statistics.median(f[0] for f in results[cases[0]])
    apart = statistics.median(f[3] for f in results[cases[2]]) - statistics.median(f[3] for f in results[cases[3]])
    kept = cpu <= CPU_BAR_US and apart <= TIME_BAR_US
    print("proxy CPU a command %.1f us (bar %.0f); medians %.0f us apart (bar %.0f): %s" % (
        cpu, CPU_BAR_US, apart, TIME_BAR_US, "kept" if kept else "MISSED"))
    sys.exit(not kept)


if __name__ == "__main__":
    main()
