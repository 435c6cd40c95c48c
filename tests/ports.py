"""Ports for servers that cannot be given a socket that listens."""

import socket
from random import SystemRandom


def free_port() -> int:
    """A port that nobody listens on, nor on the one 10 000 above, which a cluster's node takes for itself.

    Both lie below those that a system gives to outgoing connections. Chosen by the system's own randomness: other
    processes that run these tests must not come to the same one.
    """
    for _ in range(100):
        port = SystemRandom().randint(10_001, 21_999)
        try:
            with socket.socket() as one, socket.socket() as other:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
        except OSError:
            continue
        return port
    raise OSError("no free port between 10 001 and 21 999")
