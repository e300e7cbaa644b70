"""Requests to witnesses and to static files are bounded in time and size, and say what went wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from fairdraw.errors import UsageError
from fairdraw.log.http import MAX_ANSWER_BYTES, LogHttp, NoAnswer


@contextmanager
def answering(start: bytes, *, endless: bytes = b"", closed: threading.Event | None = None) -> Iterator[str]:
    """The address of a server that answers each request with `start`, and then with `endless` again and again."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while not stopped.is_set():
                connection, _ = server.accept()
                with connection:
                    # The request, or the end of this server.
                    if not connection.recv(65536):
                        continue
                    try:
                        connection.sendall(start)
                        # Each piece comes long before the time of one read is over.
                        while endless and not stopped.wait(0.0 if len(endless) > 1 else 0.02):
                            connection.sendall(endless)
                    except OSError:
                        if closed is not None:
                            closed.set()

        thread = threading.Thread(target=serve)
        thread.start()
        address = server.getsockname()
        try:
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            stopped.set()
            with suppress(OSError), socket.create_connection(address):
                pass
            thread.join()


def status(code: int, body: bytes = b"", header: str = "") -> bytes:
    return f"HTTP/1.1 {code} Said\r\nContent-Length: {len(body)}\r\n{header}\r\n".encode() + body


def test_an_answer_is_its_status_and_its_bytes() -> None:
    with answering(status(409, b"12\n")) as address:
        assert LogHttp(5.0).post(address, b"x") == (409, b"12\n")


def test_an_endless_answer_is_cut() -> None:
    with (
        answering(b"HTTP/1.1 200 OK\r\n\r\n", endless=b"x" * 1024) as address,
        pytest.raises(NoAnswer, match=f"more than {MAX_ANSWER_BYTES} bytes"),
    ):
        LogHttp(20.0).post(address, b"")


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_an_answer_that_drips_in_ends_with_the_time_and_the_connection(start: bytes) -> None:
    closed = threading.Event()
    with answering(start, endless=b"a", closed=closed) as address:
        with pytest.raises(NoAnswer, match=r"not done after 0.3 s"):
            LogHttp(0.3).post(f"{address}/add-checkpoint", b"x")
        assert closed.wait(20.0), "the connection stays open"


def test_a_connection_that_fails_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="ConnectionRefusedError"):
        LogHttp(5.0).post("http://127.0.0.1:9", b"")
    with pytest.raises(NoAnswer, match="ValueError"):
        LogHttp(5.0).post("witness.example", b"")


def test_a_host_that_is_not_found_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_address: object, **_options: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UsageError, match=r"draws\.invalid/log/keys.json: no host of this name is found;"):
        LogHttp(5.0).file("http://draws.invalid/log/keys.json")


def test_another_address_is_not_followed() -> None:
    with answering(status(302, header="Location: http://127.0.0.1:9/\r\n")) as address:
        assert LogHttp(5.0).post(address, b"x") == (302, b"")


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_file_that_is_not_there_is_none(code: int) -> None:
    with answering(status(code)) as address:
        assert LogHttp(5.0).file(f"{address}/log/checkpoint") is None


def test_any_other_status_of_a_file_is_a_failure() -> None:
    with answering(status(200, b"data")) as address:
        assert LogHttp(5.0).file(f"{address}/f") == b"data"
    with answering(status(500)) as address, pytest.raises(UsageError, match="/f: status 500"):
        LogHttp(5.0).file(f"{address}/f")
