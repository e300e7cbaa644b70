"""Servers that answer byte by byte what the test says, and record requests."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import orjson

USER = {"globalUserId": "gu-1", "verifiedPhone": True, "blocked": False}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its path as sent, its headers with names in lower case, its body."""

    path: str
    headers: dict[str, str]
    body: bytes


def answer(
    status: int = 200, document: object = USER, *, content_type: str = "application/json", **headers: str
) -> list[bytes]:
    """One whole answer; `Some_Header="x"` gives `Some-Header: x`."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    lines = [f"HTTP/1.1 {status} Any", f"Content-Length: {len(body)}", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


class Scripted:
    """Gives its `answers` one after the other, the last one for ever. An answer is a sequence of pieces that are
    sent one by one, with `pause_seconds` between them for as long as the client listens.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.answers: list[Iterable[bytes]] = [answer()]
        self.pause_seconds = 0.0
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._start(self._accept)

    def stop(self) -> None:
        self._stopped.set()
        # Closing alone does not wake the thread that waits for a connection.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()
        for thread in self._threads:
            thread.join(10)

    def close_connections(self) -> None:
        """As a server does with those that were idle for long."""
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is None:
                self._converse(connection)
            else:
                wrapped = self._tls.wrap_socket(connection, server_side=True)
                self._connections.append(wrapped)
                self._converse(wrapped)

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while head := lines.readline():
                headers = {}
                while (line := lines.readline().decode().strip()) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = lines.read(int(headers.get("content-length", 0)))
                self.asked.append(Asked(head.decode().split(" ")[1], headers, body))
                pieces = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                for piece in pieces:
                    connection.sendall(piece)
                    if self._stopped.wait(self.pause_seconds):
                        return


def dead_address() -> str:
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"
