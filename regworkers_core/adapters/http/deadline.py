"""A deadline for everything that one request does on the wire.

A client's time-outs bound one read, so a server that sends a byte now and then keeps it waiting forever. Here each
connect, read and write gets no more than the rest of the request's time.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import httpx2

from fairdraw import scheduling


class Deadline:
    """The deadline of the request that the current thread makes, in monotonic seconds."""

    def __init__(self) -> None:
        # A pooled connection serves many requests, a thread one at a time.
        self._of_thread = threading.local()

    @contextmanager
    def at(self, moment: float) -> Iterator[None]:
        self._of_thread.moment = moment
        try:
            yield
        finally:
            del self._of_thread.moment

    def cut(self, timeout: float | None, expired: type[Exception]) -> float | None:
        """`timeout`, or the rest of the time if that is less. Raises `expired` if none is left. Unchanged outside
        `at`.
        """
        moment = getattr(self._of_thread, "moment", None)
        if moment is None:
            return timeout
        left: float = moment - scheduling.monotonic()
        if left <= 0:
            raise expired("the deadline of the whole response has passed")
        return left if timeout is None else min(timeout, left)


class BoundedTransport(httpx2.HTTPTransport):
    """httpx2's pool over connections that keep the deadline."""

    def __init__(self, deadline: Deadline, *, https: bool, limits: httpx2.Limits) -> None:
        # Not by `super`, which accepts no network backend, and always reads certificates, which takes as long as ten
        # requests.
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context() if https else None,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(deadline),
        )


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        timeout = self._deadline.cut(timeout, httpcore2.ConnectTimeout)
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.cut(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.cut(timeout, httpcore2.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        timeout = self._deadline.cut(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()
