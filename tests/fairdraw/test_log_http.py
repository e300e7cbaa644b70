"""Requests to witnesses and to static files are bounded in time and size, and say what went wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from fairdraw import scheduling
from fairdraw.errors import UsageError
from fairdraw.log.http import MAX_ANSWER_BYTES, LogHttp, NoAnswer


class Answers:
    """A client whose every answer has this status and these pieces, or that raises."""

    def __init__(
        self, status: int = 200, pieces: Iterator[bytes] | list[bytes] = (), error: Any = None
    ) -> None:  # type: ignore[assignment]
        self.status_code, self._pieces, self._error = status, pieces, error

    def __call__(self, **options: Any) -> Answers:
        assert options["follow_redirects"] is False
        return self

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    @contextmanager
    def stream(self, _method: str, _url: str, **_options: Any) -> Iterator[Answers]:
        if self._error:
            raise self._error
        yield self

    def iter_bytes(self) -> Iterator[bytes]:
        yield from self._pieces


def test_an_answer_is_its_status_and_its_bytes() -> None:
    assert LogHttp(1.0, make=Answers(409, [b"1", b"2\n"])).post("http://w", b"") == (409, b"12\n")


def test_an_endless_answer_is_cut() -> None:
    with pytest.raises(NoAnswer, match=f"more than {MAX_ANSWER_BYTES} bytes"):
        LogHttp(1.0, make=Answers(200, [b"x" * 1024] * 65)).post("http://w", b"")


def test_an_answer_that_drips_in_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(scheduling, "monotonic", lambda: now[0])

    def drips() -> Iterator[bytes]:
        while True:
            now[0] += 0.6
            yield b"x"

    with pytest.raises(NoAnswer, match="not done after 1 s"):
        LogHttp(1.0, make=Answers(200, drips())).post("http://w", b"")


def test_headers_that_drip_in_end_with_the_time_and_the_connection() -> None:
    stopped, closed = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                # Each byte comes long before the time of one read is over.
                try:
                    while not stopped.wait(0.05):
                        connection.sendall(b"a")
                except OSError:
                    closed.set()

        thread = threading.Thread(target=serve)
        thread.start()
        # The timer ends a request that nothing bounds.
        guard = threading.Timer(5.0, stopped.set)
        guard.start()
        try:
            with pytest.raises(NoAnswer, match=r"not done after 0.3 s"):
                LogHttp(0.3).post(f"http://127.0.0.1:{server.getsockname()[1]}/add-checkpoint", b"x")
            assert closed.wait(5.0), "the connection stays open"
        finally:
            guard.cancel()
            stopped.set()
            thread.join()


def test_a_connection_that_fails_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="ConnectError"):
        LogHttp(1.0, make=Answers(error=httpx2.ConnectError("refused"))).post("http://w", b"")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_there_is_none(status: int) -> None:
    assert LogHttp(1.0, make=Answers(status)).file("http://w/log/checkpoint") is None


def test_any_other_status_of_a_file_is_a_failure() -> None:
    assert LogHttp(1.0, make=Answers(200, [b"data"])).file("http://w/f") == b"data"
    with pytest.raises(UsageError, match="http://w/f: status 500"):
        LogHttp(1.0, make=Answers(500)).file("http://w/f")
