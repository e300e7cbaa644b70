"""Ports on 127.0.0.1."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Collection

from regworkers_local.servers import HOST

# Below the range from which kernels take ports for outgoing connections: a client that keeps calling a
# stopped server could otherwise be given the server's own port, and keep it.
FIRST, LAST = 15_000, 30_000


def is_free(port: int) -> bool:
    """Whether a server could listen there now. Connections of an earlier server that linger do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_port(preferred: int, key: str, taken: Collection[int] = ()) -> int:
    """`preferred` if it is free, else the first free one from where `key` points to, skipping `taken`.

    Different keys start at different places, so that two stacks starting at once seldom meet.
    """
    start = zlib.crc32(key.encode()) % (LAST - FIRST)
    candidates = (preferred, *(FIRST + (start + step) % (LAST - FIRST) for step in range(LAST - FIRST)))
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {FIRST} and {LAST}")
