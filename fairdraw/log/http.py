"""HTTP around the public log: requests to its witnesses, and reading a log that is served as static files.

Without a breaker and a retry: a witness that does not answer is one of several, and is asked again with the next leaf;
a person who reads a log repeats the command.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from fairdraw import scheduling
from fairdraw.errors import UsageError

# A witness answers with a size, or a few signatures; a file of codes has a line of about 100 bytes for each.
MAX_ANSWER_BYTES, MAX_FILE_BYTES = 64 * 1024, 256 * 1024 * 1024
_MISSING = frozenset({403, 404, 410})
# Status and body of the answer to a POST of these bytes.
Ask = Callable[[str, bytes], tuple[int, bytes]]


class NoAnswer(Exception):
    """There is no answer, or one that cannot be used. The text says why, and may be shown."""


class LogHttp:
    """`timeout_seconds` bounds each step of a request. `whole_seconds`, by default as long, bounds the whole request:
    from the look-up of the name to the last byte, however slowly they come.
    """

    def __init__(
        self,
        timeout_seconds: float,
        *,
        whole_seconds: float | None = None,
        make: Callable[..., Any] | None = None,
    ) -> None:
        self._timeout_seconds, self._make = timeout_seconds, make
        self._whole_seconds = whole_seconds or timeout_seconds

    def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Raises NoAnswer."""
        return self._answer("POST", url, body, MAX_ANSWER_BYTES)

    def file(self, url: str) -> bytes | None:
        """The bytes at an address; None if nothing is there. Raises UsageError."""
        try:
            status, data = self._answer("GET", url, None, MAX_FILE_BYTES)
        except NoAnswer as problem:
            raise _unread(url, str(problem)) from None
        if status == 200:
            return data
        if status in _MISSING:
            return None
        raise _unread(url, f"status {status}")

    def _answer(self, method: str, url: str, body: bytes | None, most: int) -> tuple[int, bytes]:
        # The client bounds each read only. So another thread waits for the server, and this one for the deadline.
        answer: scheduling.Future[tuple[int, bytes]] = scheduling.future()
        sockets: list[socket.socket] = []

        def ask() -> None:
            try:
                answer.set_result(self._asked(method, url, body, most, sockets))
            except BaseException as error:
                answer.set_exception(error)

        scheduling.start(ask, "log-http")
        done, _ = scheduling.wait([answer], self._whole_seconds)
        if done:
            return answer.result()
        for each in sockets:
            # Ends the read in which the other thread waits. Not SSLSocket's method, which changes what is being read.
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        raise NoAnswer(f"not done after {self._whole_seconds:g} s")

    def _asked(
        self, method: str, url: str, body: bytes | None, most: int, sockets: list[socket.socket]
    ) -> tuple[int, bytes]:
        """Adds the socket of the connection to `sockets` as soon as there is one."""
        # Imported late: most commands need no HTTP.
        import httpx2

        def trace(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
                sockets.append(info["return_value"].get_extra_info("socket"))

        deadline = scheduling.monotonic() + self._whole_seconds
        try:
            with (
                (self._make or httpx2.Client)(
                    timeout=self._timeout_seconds, follow_redirects=False
                ) as client,
                client.stream(method, url, content=body, extensions={"trace": trace}) as response,
            ):
                pieces, size = [], 0
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if size > most:
                        raise NoAnswer(f"more than {most} bytes")
                    if scheduling.monotonic() > deadline:
                        raise NoAnswer(f"not done after {self._whole_seconds:g} s")
                return response.status_code, b"".join(pieces)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise NoAnswer(type(error).__name__) from None


def _unread(url: str, why: str) -> UsageError:
    return UsageError(f"log: {url}: {why}; is the address right, and does it answer?")
