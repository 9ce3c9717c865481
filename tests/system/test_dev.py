"""`cairn dev`: journal, proxy and function with one command, as a developer meets it."""

import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest

import harness
import protos
import tools
from harness import accepts, eventually, http_request
from ports import free_port

CART = [sys.executable, "-B", str(protos.SOURCE / "contrib" / "samples" / "shopping-cart" / "cart.py")]

# A function of an older protocol: answers discovery and nothing else, and prints what is reported to it.
OLD_FUNCTION = """
import os, sys
from concurrent import futures
import grpc
def discover(request, context):
    return b"\\x1a\\x02\\x38\\x09"  # EntitySpec.service_info.protocol_minor_version: 9
def report(request, context):
    print("told:", request[2:].decode(), flush=True)
    return b""
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("cloudstate.EntityDiscovery", {
    "discover": grpc.unary_unary_rpc_method_handler(discover),
    "reportError": grpc.unary_unary_rpc_method_handler(report)})])
server.add_insecure_port("%s:%s" % (os.environ["HOST"], os.environ["PORT"]))
server.start()
server.wait_for_termination()
"""


@pytest.fixture
def dev(lab):
    """Starts `cairn dev` for a function's command; `.port` is the front's, `.out` what it has printed."""
    def start(*command, http=None, kind=harness.Program):
        port = http or free_port()
        process = lab.run("dev", [tools.program("cairn"), "dev", "--http", str(port),
                                  "--data", lab.folder / "dev-data", "--", *command], kind=kind)
        process.port = port
        return process
    return start


def children(process):
    """The process ids of the supervised programs, by name."""
    found = {}
    for pid in subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, text=True,
                              check=False).stdout.split():
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        name = os.path.basename(argv[0]).decode()
        found["function" if name.startswith("python") else name] = int(pid)
    return found


def add(process, product, quantity=1):
    answer = http_request(process.port, "POST", "/cart/ada/items/add",
                          json.dumps({"productId": product, "name": product, "quantity": quantity}))
    assert answer.status == 200, answer


def cart(process):
    """The cart, or None while nobody can say."""
    try:
        answer = http_request(process.port, "GET", "/carts/ada", timeout=10)
    except OSError:
        return None
    return json.loads(answer.body) if answer.status == 200 else None


def test_prints_one_block_whose_lines_work_as_they_stand(dev):
    process = dev(*CART)
    process.wait_text(r"^Ctrl-C stops it all")
    text = process.text()
    assert "http://127.0.0.1:%d" % process.port in text
    assert "com.example.shoppingcart.ShoppingCart" in text
    curl = re.search(r"^ +(curl .*)$", text, re.M).group(1)
    done = subprocess.run(shlex.split(curl) + ["-sSf"], stdout=subprocess.PIPE, text=True, check=True)
    assert json.loads(done.stdout) == {"items": []}
    read = re.search(r"cairn read --journal (\S+)$", text, re.M).group(1)
    subprocess.run([tools.program("cairn"), "read", "--journal", read], check=True,
                   stdout=subprocess.DEVNULL)


def test_the_grpcurl_line_works_as_it_stands(dev):
    grpcurl = tools.grpcurl()
    process = dev(*CART)
    process.wait_text(r"^Ctrl-C stops it all")
    line = re.search(r"^ +grpcurl (.*)$", process.text(), re.M).group(1)
    done = subprocess.run([grpcurl] + shlex.split(line), stdout=subprocess.PIPE, text=True, check=True)
    assert json.loads(done.stdout) == {}


def test_the_state_is_back_after_each_part_and_all_of_them_were_killed(dev):
    process = dev(*CART)
    process.wait_text(r"^Ctrl-C stops it all")
    expected = []
    for victims in (["function"], ["cairn-proxy"], ["cairnd"], ["function", "cairn-proxy", "cairnd"]):
        product = "after-" + "-".join(victims)
        add(process, product)
        expected.append({"productId": product, "name": product, "quantity": 1})
        running = children(process)
        for name in victims:
            os.kill(running[name], signal.SIGKILL)
        eventually(lambda: not set(children(process).values()) & {running[name] for name in victims},
                   "the killed are gone")
        assert eventually(lambda: cart(process), "the cart answers again", timeout=60)["items"] == expected
    assert "was killed by signal 9" in process.text()


def test_a_port_that_is_taken_is_said_before_anything_is_started(dev):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        process = dev(*CART, http=taken.getsockname()[1], kind=harness.Process)
        assert process.process.wait(20) == 2
        assert str(process.port) in process.text() and "--http" in process.text()


def test_ctrl_c_stops_everything(dev):
    process = dev(*CART)
    process.wait_text(r"^Ctrl-C stops it all")
    pids = children(process).values()
    assert len(pids) == 3
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(30) == 0, process.text()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def living(pid):
    """It runs: is neither gone nor only waited for."""
    try:
        return pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_what_a_dead_function_has_started_does_not_keep_its_port(dev):
    cart_of_a_shell = "%s -B %s & echo cart is $!; wait" % (sys.executable, harness.SAMPLE / "cart.py")
    process = dev("sh", "-c", cart_of_a_shell)
    first = int(process.wait_text(r"cart is (\d+)$")[1])
    eventually(lambda: http_request(process.port, "GET", "/carts/ada").status == 200 if accepts(process.port)
               else False, "it is served")
    os.kill(children(process)["sh"], signal.SIGKILL)
    second = int(eventually(lambda: [n for n in re.findall(r"cart is (\d+)$", process.text(), re.M)
                                     if int(n) != first], "it is started again")[0])
    assert not living(first)
    eventually(lambda: http_request(process.port, "GET", "/carts/ada").status == 200, "it is served again")
    assert living(second)
    assert process.terminate() == 0
    assert not living(second)


def test_what_a_function_has_started_has_its_time_to_end(dev, lab):
    """The function itself ends at once, what it has started a little later."""
    child = '(trap "while kill -0 $$ 2>/dev/null; do :; done; : >ended; exit" TERM; : >ready; ' \
            'while :; do sleep 1; done) & exec sleep 1000'
    process = dev("sh", "-c", child)
    eventually((lab.folder / "ready").exists, "it is up")
    assert process.terminate() == 0
    assert (lab.folder / "ended").exists()


def test_what_the_journal_had_is_there_at_the_next_start(dev):
    first = dev(*CART)
    first.wait_text(r"^Ctrl-C stops it all")
    add(first, "kept")
    assert first.terminate(30) == 0
    second = dev(*CART)
    assert eventually(lambda: cart(second), "the cart answers")["items"][0]["productId"] == "kept"


def test_a_function_that_dies_is_shown_with_its_last_lines_and_started_again(dev):
    process = dev(sys.executable, "-c", "print('about to fail'); raise SystemExit('no database here')")
    process.wait_text(r"ended with exit status 1; starting it again in 0\.5 s")
    process.wait_text(r"its last lines were:\n.*about to fail\n.*no database here")
    process.wait_text(r"starting it again in 1\.0 s")


def test_a_function_whose_program_is_away_for_a_while_is_tried_again(dev, lab):
    program = lab.folder / "function"
    program.write_text('#!/bin/sh\necho up\nmv "$0" "$0.away"\n')
    program.chmod(0o755)
    process = dev(str(program))
    process.wait_text(r"cannot run the function's program .*No such file.*trying again in")
    (lab.folder / "function.away").rename(program)
    process.wait_text(r"(?s)function \| up\n.*function \| up\n")


def test_a_function_that_prints_without_end_and_ignores_sigterm_is_stopped_too(dev):
    process = dev(sys.executable, "-c", "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                                        "while True: os.write(1, b'y\\n' * 20000)")
    process.wait_text(r"function \| y\n")
    assert process.terminate(20) == 0


def test_a_refused_discovery_is_told_in_words(dev, lab):
    script = lab.folder / "old.py"
    script.write_text(OLD_FUNCTION)
    process = dev(sys.executable, str(script))
    process.wait_text(r"^proxy .*0\.9")
    process.wait_text(r"^function \| told: .*0\.9")


def test_what_cannot_be_run_is_a_clear_error(lab):
    def run(*words):
        done = subprocess.run([tools.program("cairn"), "dev", "--data", str(lab.folder / "data"), *words],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30,
                              check=False)
        return done.returncode, done.stderr
    code, text = run()
    assert code == 2 and "the function's command is missing" in text, text
    code, text = run("--", "/no/such/program")
    assert code == 3 and 'program "/no/such/program": No such file' in text, text
    code, text = run("--htpp", "9000", "--", "true")
    assert code == 2 and "--http" in text, text
