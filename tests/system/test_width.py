"""A proxy at full width: how many entities and calls it has at a time, and what they cost in memory. The function is
the least there can be (tests/bench/function.c), the clients are tests/bench/commands.c."""

import os
import pathlib
import re
import subprocess

import harness
import tools
from model import request, response
from ports import free_port
from recorder import HANDLE
from stage import Stage

ENTITIES, CALLS = 10000, 1000
KIB = 1024


def resident_bytes(process):
    text = pathlib.Path("/proc/%d/smaps_rollup" % process.pid).read_text()
    return int(re.search(r"^Rss:\s+(\d+) kB", text, re.M).group(1)) * KIB


def metric(proxy, name):
    page = harness.http_request(proxy.metrics, "GET", "/metrics").body.decode()
    return sum(int(n) for n in re.findall(r"^cairn_proxy_%s\{.*\} (\d+)$" % name, page, re.M))


def commands(port, count, in_flight, entities, connections=4):
    done = subprocess.run([tools.program("bench_commands"), "127.0.0.1:%d" % port, "shop.Cart/GetCart", str(count),
                           str(in_flight), str(entities), str(connections)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr


def small_function(lab):
    port = free_port()
    function = lab.run("function", [tools.program("bench_function"), str(port)])
    function.port = port
    return function.wait_ready(lambda: harness.accepts(port), "listens")


def test_ten_thousand_entities_and_a_thousand_calls_at_a_time(lab):
    proxy = lab.proxy(small_function(lab), lab.cairnd("memory"), options=["--passivation-timeout", "10m"])
    commands(proxy.port, 100, 16, 10)  # whatever is made once has been made
    assert metric(proxy, "entities_active") == 10
    before, counted = resident_bytes(proxy), metric(proxy, "entity_bytes")
    commands(proxy.port, 2 * ENTITIES, CALLS, ENTITIES)
    assert metric(proxy, "entities_active") == ENTITIES  # none had to leave
    assert metric(proxy, "activations_total") == ENTITIES
    assert metric(proxy, "commands_waiting") == 0
    if os.environ.get("CAIRN_SANITIZER"):  # the memory would be its own
        return
    each = (resident_bytes(proxy) - before) / (ENTITIES - 10)
    said = (metric(proxy, "entity_bytes") - counted) / (ENTITIES - 10)
    assert each <= 24 * KIB
    assert each / 2 < said < each * 2, "the proxy counts %d bytes an entity, the kernel %d" % (said, each)


def test_memory_stays_within_its_bound(lab):
    limit = 4 << 20
    proxy = lab.proxy(small_function(lab), lab.cairnd("memory"), options=["--entity-memory", "4MiB"])
    commands(proxy.port, ENTITIES, 64, ENTITIES)
    harness.eventually(lambda: metric(proxy, "entity_bytes") <= limit, "what is too much has left")
    active = metric(proxy, "entities_active")
    assert 100 < active < ENTITIES / 5
    assert metric(proxy, "closes_total") == ENTITIES - active
    commands(proxy.port, ENTITIES, 64, ENTITIES)  # all come again


def test_more_entities_than_a_connection_has_streams(lab):
    """As Java functions have it: 256 streams a connection."""
    count, allowed = 600, 256
    stage = Stage(lab, max_streams=allowed)
    answers = [stage.send(request("e%d" % i, "go")) for i in range(count)]
    streams = {}
    for _ in range(count):
        stream = stage.rec.stream(HANDLE)
        entity_id = stream.next().init.entity_id
        assert stream.next().command.id == 1
        streams[entity_id] = stream
        stream.send(stage.entity(entity_id).reply(1, response(entity_id)).message)
    for i, answer in enumerate(answers):
        assert answer.result() == response("e%d" % i)
    used = {}
    for stream in streams.values():
        used[stream.connection.number] = used.get(stream.connection.number, 0) + 1
    assert len(used) == 3 and max(used.values()) <= allowed, used
    assert metric(stage.proxy, "entities_active") == count
    for i in (0, 299, count - 1):  # each goes on where it is
        e = stage.entity("e%d" % i)
        stage.command(streams[e.entity_id], e, 2, "again", e.reply(2, response("again")))
    stage.quiet()
