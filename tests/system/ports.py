"""Free ports on the loopback."""

import fcntl
import os
import random
import socket
import tempfile

# Below the range from which the kernel takes the ports of outgoing connections, so that none of those can
# take a port between its being chosen here and its being listened on.
_FIRST, _LAST = 10240, 32000
_random = random.Random(os.getpid() * 7919 + int.from_bytes(os.urandom(4), "big"))
_given = {}  # port: the file whose lock keeps it from other processes' tests
_LOCKS = os.path.join(tempfile.gettempdir(), "cairn-test-ports")


def _reserve(port):
    """Take the port among all tests of this machine, until this process ends."""
    os.makedirs(_LOCKS, exist_ok=True)
    lock = open(os.path.join(_LOCKS, str(port)), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return False
    _given[port] = lock
    return True


def free_port():
    """A TCP port nobody listens on; given out once in this process, and to no other test's meanwhile."""
    for _ in range(1000):
        port = _random.randrange(_FIRST, _LAST)
        if port in _given or not _reserve(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port between %d and %d" % (_FIRST, _LAST))
