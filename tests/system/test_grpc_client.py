"""Our gRPC client against servers that no one here wrote: every interop case of grpc-go's server that needs
no credentials, and servers that misbehave."""

import socket
import subprocess
import threading

import pytest

import tools
from harness import accepts
from ports import free_port

CASES = ["empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
         "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
         "status_code_and_message", "special_status_message", "custom_metadata", "unimplemented_method",
         "unimplemented_service"]


def run_case(port, case):
    return subprocess.run([tools.program("grpc_interop_client"), str(port), case], capture_output=True,
                          text=True, timeout=60)


@pytest.fixture
def go_server(lab):
    port = free_port()
    server = lab.run("go-interop-server", [tools.grpc_interop() / "server", "-port", port])
    server.wait_ready(lambda: accepts(port), "listens")
    return port


def test_every_case_holds_against_grpc_go(go_server):
    failed = [done.stderr for done in (run_case(go_server, case) for case in CASES) if done.returncode != 0]
    assert not failed, "\n".join(failed)


def answer_with(bytes_sent):
    """A server that says these bytes to whoever connects and reads on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with conn:
                conn.sendall(bytes_sent)
                try:
                    while conn.recv(65536):
                        pass
                except OSError:
                    pass

    threading.Thread(target=serve, daemon=True).start()
    return listener


@pytest.mark.parametrize("said", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100, b"\xff" * 100,
    b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\x64" + b"\0\0\0\x09\0\0\0\0\1garbage"],
    ids=["http1", "zeros", "ones", "settings"])
def test_a_peer_that_is_no_grpc_server_never_gets_a_call_answered(said):
    """No crash: the call waits for a connection that there never is, or fails with a reason."""
    with answer_with(said) as listener:
        process = subprocess.Popen([tools.program("grpc_interop_client"), str(listener.getsockname()[1]),
                                    "timeout_on_sleeping_server"], stderr=subprocess.PIPE, text=True)
        try:
            code = process.wait(3)
            assert code == 1, "it ended with %s: %s" % (code, process.stderr.read())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            process.stderr.close()
