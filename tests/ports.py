"""A port for a server that a test starts, perhaps more than once."""

import random
import socket

SERVERS = range(20_000, 32_000)
"""Below what Linux gives to outgoing connections: one of those could take a port between two starts of its server."""


def free_port() -> int:
    """A port that nobody listens on just now, on any address."""
    while True:
        port = random.choice(SERVERS)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
