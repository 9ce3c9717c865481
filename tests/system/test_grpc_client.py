"""Our gRPC client against servers that no one here wrote: every interop case of grpc-go's server that needs
no credentials, and servers that misbehave."""

import contextlib
import socket
import subprocess
import threading

import pytest

import tools
from harness import accepts, eventually
from ports import free_port
from recorder import PATIENCE

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


class Parrot:
    """A server that says the same to whoever connects, and reads until it is left. `left` counts those who
    have read it and gone."""

    def __init__(self, said):
        self.left = 0
        self._said = said
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            with conn, contextlib.suppress(OSError):
                conn.sendall(self._said)
                while conn.recv(65536):
                    pass
            self.left += 1

    def close(self):
        self._listener.close()


@pytest.mark.parametrize("said", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100, b"\xff" * 100,
    b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\x64" + b"\0\0\0\x09\0\0\0\0\1garbage"],
    ids=["http1", "zeros", "ones", "settings"])
def test_a_peer_that_is_no_grpc_server_never_gets_a_call_answered(said):
    """No crash: the call waits for a connection that there never is, or fails with a reason."""
    with contextlib.closing(Parrot(said)) as parrot:
        process = subprocess.Popen([tools.program("grpc_interop_client"), str(parrot.port),
                                    "timeout_on_sleeping_server"], stderr=subprocess.PIPE, text=True)
        try:
            eventually(lambda: process.poll() is not None or parrot.left >= 2, "it fails, or tries again")
            if process.poll() is not None:
                assert process.returncode == 1, process.stderr.read()
        finally:
            process.kill()
            process.wait(PATIENCE)
            process.stderr.close()
