"""Free ports on the loopback."""

import os
import random
import socket

# Below the range from which the kernel takes the ports of outgoing connections, so that none of those can
# take a port between its being chosen here and its being listened on.
_FIRST, _LAST = 10240, 32000
_random = random.Random(os.getpid() * 7919 + int.from_bytes(os.urandom(4), "big"))
_given = set()


def free_port():
    """A TCP port nobody listens on; given out once in this process."""
    for _ in range(1000):
        port = _random.randrange(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free port between %d and %d" % (_FIRST, _LAST))
