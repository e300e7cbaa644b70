"""HTTP around the public log: requests to its witnesses, and reading a log that is served as static files.

Without a breaker and a retry: a witness that does not answer is one of several, and is asked again with the next leaf;
a person who reads a log repeats the command.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
    build_opener,
)

from fairdraw import scheduling
from fairdraw.errors import UsageError

# A witness answers with a size, or a few signatures; a file of codes has a line of about 100 bytes for each.
MAX_ANSWER_BYTES, MAX_FILE_BYTES = 64 * 1024, 256 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_MISSING = frozenset({403, 404, 410})


class HttpAnswer(NamedTuple):
    status: int
    body: bytes


# The answer to a POST of these bytes.
Ask = Callable[[str, bytes], HttpAnswer]


class NoAnswer(Exception):
    """There is no answer, or one that cannot be used. The text says why, and may be shown."""


class LogHttp:
    """`timeout_seconds` bounds each step of a request. `whole_seconds`, by default as long, bounds the whole request:
    from the look-up of the name to the last byte, however slowly they come.
    """

    def __init__(self, timeout_seconds: float, *, whole_seconds: float | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        self._whole_seconds = whole_seconds or timeout_seconds

    def post(self, url: str, body: bytes) -> HttpAnswer:
        """Raises NoAnswer."""
        return self._answer("POST", url, body, MAX_ANSWER_BYTES)

    def get(self, url: str) -> HttpAnswer:
        """Raises NoAnswer."""
        return self._answer("GET", url, None, MAX_ANSWER_BYTES)

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

    def _answer(self, method: str, url: str, body: bytes | None, most: int) -> HttpAnswer:
        # The client bounds each read only. So another thread waits for the server, and this one for the deadline.
        answer: scheduling.Future[HttpAnswer] = scheduling.future()
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
    ) -> HttpAnswer:
        """Adds the socket of the connection to `sockets` as soon as there is one."""
        deadline = scheduling.monotonic() + self._whole_seconds
        try:
            request = Request(url, body, method=method)  # noqa: S310 (`place` and settings name http addresses only)
            try:
                response = _opener(sockets).open(request, timeout=self._timeout_seconds)
            except HTTPError as error:
                # Every other status than 200 to 299.
                response = error
            with response:
                pieces, size = [], 0
                while piece := response.read1(_PIECE_BYTES):
                    pieces.append(piece)
                    size += len(piece)
                    if size > most:
                        raise NoAnswer(f"more than {most} bytes")
                    if scheduling.monotonic() > deadline:
                        raise NoAnswer(f"not done after {self._whole_seconds:g} s")
                return HttpAnswer(response.status, b"".join(pieces))
        except (OSError, HTTPException, ValueError) as error:
            why = error.reason if isinstance(error, URLError) else error
            if isinstance(why, socket.gaierror):
                raise NoAnswer("no host of this name is found") from None
            raise NoAnswer(type(why).__name__ if isinstance(why, Exception) else str(why)) from None


def _opener(sockets: list[socket.socket]) -> OpenerDirector:
    """What opens addresses, by the proxies of the environment, and follows no redirection."""

    def recording(kind: type[HTTPConnection]) -> Any:
        class Connection(kind):  # type: ignore[valid-type,misc]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        return Connection

    class Plain(HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(recording(HTTPConnection), req)

    class Secure(HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            return self.do_open(recording(HTTPSConnection), req)

    class Here(HTTPRedirectHandler):
        def redirect_request(self, *_redirection: Any) -> None:
            return None

    return build_opener(Plain, Secure, Here)


def _unread(url: str, why: str) -> UsageError:
    return UsageError(f"log: {url}: {why}; is the address right, and does it answer?")
