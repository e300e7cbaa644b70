"""A proxy in front of one server that plants faults by operation: `with fault_proxy("aws", url) as proxy`.

    proxy.rules = [Rule(Fault.THROTTLED, "dynamodb", "BatchGetItem", times=3)]

Rules may change while clients are connected. What a request is called, per protocol:

- `aws`: service as the policies have it (`dynamodb`, `streams`, `sqs`, `s3`, `secretsmanager`, `logs`, `monitoring`,
  `sts`), operation as in the API (`PutItem`); of S3 the method and the path (`PUT /bucket/draws/1`)
- `http`: service is the first folder of the path (`entry`), operation method and path (`GET /entry/entries/1`)
- `mongo`: service is the database's, operation the command (`find`, `update`, `hello`)
- `redis`: service `redis`, operation the command (`GET`); faults within a pipeline answer too early
- `postgres`: service `postgres`, operation `connect`: a connection is what fails
- `kafka`: service `kafka`, operation the API (`Produce`, `Metadata`); addresses of brokers become the proxy's. Errors
  and quotas are in the answers to `Metadata`, with which every client begins; certificates are refused with `tls` only
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bson

from regworkers_local.servers import HOST
from regworkers_local.state import candidates, is_free
from tests.support.loop_server import LoopServer

_PIECE_BYTES = 64 * 1024
_HEAD_BYTES = 1024 * 1024


class Fault(StrEnum):
    """What happens to a request. `CUT`: the server does it, and the answer is lost. `CREDENTIALS`: the server says that
    they are wrong or have expired.
    """

    REFUSED = "refused"
    HANGING = "hanging"
    ERROR = "error"
    THROTTLED = "throttled"
    DENIED = "denied"
    SLOW = "slow"
    CUT = "cut"
    GARBAGE = "garbage"
    CREDENTIALS = "credentials"


ANSWERED = (Fault.ERROR, Fault.THROTTLED, Fault.DENIED, Fault.GARBAGE, Fault.CREDENTIALS)


@dataclass(slots=True)
class Rule:
    """`service` and `operation` are patterns as of `fnmatch`. `chance` is that of each request; `times` is how often
    the rule strikes at most; `seconds` is the delay of SLOW. REFUSED for all operations refuses connections too.
    """

    fault: Fault
    service: str = "*"
    operation: str = "*"
    chance: float = 1.0
    times: int | None = None
    seconds: float = 2.0

    def fits(self, request: Request) -> bool:
        named = fnmatchcase(request.service, self.service) and fnmatchcase(request.operation, self.operation)
        return named and self.times != 0 and self.fault not in request.spared

    @property
    def refuses_all(self) -> bool:
        everything = (self.service, self.operation, self.chance, self.times) == ("*", "*", 1.0, None)
        return self.fault is Fault.REFUSED and everything


@dataclass(frozen=True, slots=True)
class Request:
    """`raw` is what goes to the server; `answer` makes the proxy's own one. No server answers this operation with the
    faults `spared`.
    """

    service: str
    operation: str
    raw: bytes
    answer: Callable[[Fault], bytes]
    spared: tuple[Fault, ...] = ()


class FaultProxy(LoopServer):
    """Listens on `port` and forwards to `backend` (host and port). `seen` counts (service, operation, fault or "")."""

    def __init__(
        self,
        protocol: str,
        backend: tuple[str, int],
        port: int,
        seed: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.protocol, self._backend = protocol, backend
        self.seen: Counter[tuple[str, str, str]] = Counter()
        self._read = _READERS[protocol]
        self._random = random.Random(seed)
        self._rules: tuple[Rule, ...] = ()
        if tls is not None:
            # It is there for the name that a client asks for, but it can end any handshake with an alert.
            tls.sni_callback = lambda *_: self._greet()
        super().__init__("fault-proxy", port, limit=_HEAD_BYTES, ssl=tls)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force; the first that fits a request decides."""
        return self._rules

    @rules.setter
    def rules(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        if any(rule.refuses_all for rule in rules):
            self.leave()
        else:
            self.listen()

    def _greet(self) -> int | None:
        """The alert for a client whose certificate is refused."""
        if all(rule.fault is not Fault.CREDENTIALS for rule in self._rules):
            return None
        self.seen[self.protocol, "handshake", Fault.CREDENTIALS] += 1
        return ssl.AlertDescription.ALERT_DESCRIPTION_CERTIFICATE_EXPIRED

    def _choose(self, request: Request) -> Rule | None:
        for rule in self._rules:
            if rule.fits(request) and (rule.chance >= 1 or self._random.random() < rule.chance):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self._open.add(writer)
        # Whatever a client sends that is no request ends its connection, as a server does.
        with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            while (request := await self._read(reader, writer)) is not None:
                await self._serve(connection, request)
        self._open.discard(writer)
        connection.close()

    async def _serve(self, connection: _Connection, request: Request) -> None:
        rule = self._choose(request)
        fault = rule.fault if rule else None
        self.seen[request.service, request.operation, fault or ""] += 1
        if fault is Fault.REFUSED:
            connection.client.transport.abort()
            raise ConnectionResetError
        if fault is Fault.HANGING:
            # Until the client hangs up: a request that was lost is not answered after the rule is gone either.
            while await connection.requests.read(_PIECE_BYTES):
                pass
            raise ConnectionResetError
        if fault in ANSWERED and not (self.protocol == "kafka" and fault in _KAFKA_CHANGED):
            connection.client.write(request.answer(fault))
            await connection.client.drain()
            return
        if rule and (fault is Fault.SLOW or (self.protocol == "kafka" and fault is Fault.THROTTLED)):
            # A broker does not read from a connection for the time that it throttles it.
            await asyncio.sleep(rule.seconds)
        await connection.forward(request, rule)


class _Connection:
    """A client's connection, and that to the server once a request goes there."""

    def __init__(
        self, proxy: FaultProxy, requests: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        self.requests, self.client, self._proxy = requests, client, proxy
        self._server: asyncio.StreamWriter | None = None
        self._copying: asyncio.Task[None] | None = None
        self._lose_answer = False
        # Kafka's requests whose answers are changed, by the number that the answer repeats.
        self._changed: dict[bytes, tuple[Rule, bytes]] = {}

    async def forward(self, request: Request, rule: Rule | None) -> None:
        self._lose_answer = rule is not None and rule.fault is Fault.CUT
        if rule is not None and request.service == "kafka" and rule.fault in _KAFKA_CHANGED:
            self._changed[request.raw[8:12]] = rule, request.raw
        if self._server is None:
            host, port = self._proxy._backend
            opened = asyncio.open_connection(host, port) if port else asyncio.open_unix_connection(host)
            reader, self._server = await opened
            self._proxy._open.add(self._server)
            self._copying = asyncio.ensure_future(self._copy(reader))
        self._server.write(request.raw)
        await self._server.drain()

    async def _copy(self, reader: asyncio.StreamReader) -> None:
        kafka = self._proxy.protocol == "kafka"
        with suppress(OSError, EOFError):
            while piece := await (_kafka_frame(reader) if kafka else reader.read(_PIECE_BYTES)):
                if self._lose_answer:
                    self.client.transport.abort()
                    return
                self.client.write(self._readdressed(piece) if kafka else piece)
                await self.client.drain()
        self.client.close()

    def _readdressed(self, frame: bytes) -> bytes:
        """Kafka names its brokers in answers: an address and a port of four bytes."""
        if changed := self._changed.pop(frame[4:8], None):
            frame = _metadata_changed(frame, *changed)
        host, port = HOST.encode(), self._proxy._backend[1]
        return frame.replace(host + port.to_bytes(4, "big"), host + self._proxy.port.to_bytes(4, "big"))

    def close(self) -> None:
        if self._copying is not None:
            self._copying.cancel()
        if self._server is not None:
            self._proxy._open.discard(self._server)
            self._server.close()
        self.client.close()


# HTTP


async def _http_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[str, str, dict[str, str], bytes, bytes] | None:
    """Method, target, headers (names in lower case), body, and all of it as it goes on."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if "expect" in headers:
        # S3's clients send a body only then.
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, target, headers, body, head + body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        body += line
        if not size:
            while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                body += trailer
            return body + trailer
        body += await reader.readexactly(size + 2)


def _http_answer(status: int, body: bytes, kind: str, **headers: str) -> bytes:
    fields = {
        "content-type": kind,
        "content-length": str(len(body)),
        "x-amzn-requestid": "fault-proxy",
        "x-amz-request-id": "fault-proxy",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} fault\r\n{lines}\r\n".encode() + body


_GARBAGE = b"<html><body>Please log in to this network</body></html>"


async def _read_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    read = await _http_request(reader, writer)
    if read is None:
        return None
    method, target, _, _, raw = read
    path = urlsplit(target).path
    statuses = {Fault.ERROR: 500, Fault.THROTTLED: 429, Fault.DENIED: 403, Fault.CREDENTIALS: 401}

    def answer(fault: Fault) -> bytes:
        if fault is Fault.GARBAGE:
            return _http_answer(200, _GARBAGE, "text/html")
        more = {"retry_after": "1"} if fault is Fault.THROTTLED else {}
        return _http_answer(statuses[fault], b'{"detail": "planted"}', "application/json", **more)

    return Request(path.split("/")[1] if "/" in path else "", f"{method} {path}", raw, answer)


# AWS

_SERVICES = {
    "DynamoDB": "dynamodb",
    "DynamoDBStreams": "streams",
    "AmazonSQS": "sqs",
    "Logs": "logs",
    "GraniteServiceVersion20100801": "monitoring",
}
# Code and status of each fault, as the service's documentation has them.
_AWS_ERRORS: dict[str, dict[Fault, tuple[str, int]]] = {
    "dynamodb": {
        Fault.ERROR: ("InternalServerError", 500),
        Fault.THROTTLED: ("ProvisionedThroughputExceededException", 400),
        Fault.DENIED: ("AccessDeniedException", 400),
        Fault.CREDENTIALS: ("ExpiredTokenException", 400),
    },
    "sqs": {
        Fault.ERROR: ("InternalFailure", 500),
        Fault.THROTTLED: ("RequestThrottled", 403),
        Fault.DENIED: ("AccessDeniedException", 403),
        Fault.CREDENTIALS: ("InvalidClientTokenId", 403),
    },
    "s3": {
        Fault.ERROR: ("InternalError", 500),
        Fault.THROTTLED: ("SlowDown", 503),
        Fault.DENIED: ("AccessDenied", 403),
        Fault.CREDENTIALS: ("SignatureDoesNotMatch", 403),
    },
    "monitoring": {
        Fault.ERROR: ("InternalFailure", 500),
        Fault.THROTTLED: ("Throttling", 400),
        Fault.DENIED: ("AccessDenied", 403),
        Fault.CREDENTIALS: ("ExpiredToken", 403),
    },
    "secretsmanager": {
        Fault.ERROR: ("InternalServiceError", 500),
        Fault.THROTTLED: ("ThrottlingException", 400),
        Fault.DENIED: ("AccessDeniedException", 400),
        Fault.CREDENTIALS: ("InvalidSignatureException", 400),
    },
}
_AWS_OTHER = {
    Fault.ERROR: ("InternalServerError", 500),
    Fault.THROTTLED: ("ThrottlingException", 400),
    Fault.DENIED: ("AccessDeniedException", 400),
    Fault.CREDENTIALS: ("UnrecognizedClientException", 400),
}


async def _read_aws(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    read = await _http_request(reader, writer)
    if read is None:
        return None
    method, target, headers, body, raw = read
    service, operation, form = _aws_operation(method, target, headers, body)

    def answer(fault: Fault) -> bytes:
        if fault is Fault.GARBAGE:
            return _http_answer(200, _GARBAGE, "text/html")
        code, status = _AWS_ERRORS.get(service, _AWS_OTHER)[fault]
        return _aws_error(form, code, status)

    return Request(service, operation, raw, answer)


def _aws_operation(method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[str, str, str]:
    """Service, operation, and the form of its errors: `json`, `cbor`, `query`, or `s3`."""
    scope = re.search(r"Credential=[^/]*/\d+/[^/]*/([^/]+)/", headers.get("authorization", ""))
    signed = scope[1] if scope else "s3"
    if named := headers.get("x-amz-target"):
        family, _, operation = named.partition(".")
        return _SERVICES.get(family.split("_")[0], signed), operation, "json"
    parts = urlsplit(target)
    if called := re.fullmatch(r"/service/([^/]+)/operation/([^/]+)", parts.path):
        cbor = "cbor" in headers.get("smithy-protocol", "")
        return _SERVICES.get(called[1], signed), called[2], "cbor" if cbor else "json"
    if "urlencoded" in headers.get("content-type", ""):
        return signed, parse_qs(body.decode()).get("Action", [""])[0], "query"
    return signed, f"{method} {parts.path}", "s3"


def _aws_error(form: str, code: str, status: int) -> bytes:
    message = "planted by the fault proxy"
    if form == "json":
        body = json.dumps({"__type": f"com.amazonaws#{code}", "message": message}).encode()
        return _http_answer(status, body, "application/x-amz-json-1.0")
    if form == "cbor":
        body = b"\xa2" + b"".join(_cbor(each) for each in ("__type", code, "message", message))
        return _http_answer(status, body, "application/cbor", smithy_protocol="rpc-v2-cbor")
    inner = f"<Code>{code}</Code><Message>{message}</Message>"
    if form == "s3":
        return _http_answer(status, f"<Error>{inner}</Error>".encode(), "application/xml")
    text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error></ErrorResponse>"
    return _http_answer(status, text.encode(), "text/xml")


def _cbor(text: str) -> bytes:
    """A text of fewer than 256 bytes."""
    return b"\x78" + len(text).to_bytes(1, "big") + text.encode()


# MongoDB

_OP_MSG = 2013
_MONGO_ERRORS: dict[Fault, dict[str, Any]] = {
    Fault.ERROR: {"code": 1, "codeName": "InternalError"},
    # Since 8.2, of a server that sheds load.
    Fault.THROTTLED: {
        "code": 462,
        "codeName": "IngressRequestRateLimitExceeded",
        "errorLabels": ["SystemOverloadedError", "RetryableError"],
    },
    Fault.DENIED: {"code": 13, "codeName": "Unauthorized"},
    Fault.CREDENTIALS: {"code": 18, "codeName": "AuthenticationFailed"},
}
# A server greets a client that it refuses later.
_GREETINGS = ("hello", "isMaster", "ismaster")


async def _read_mongo(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> Request | None:
    try:
        head = await reader.readexactly(16)
    except asyncio.IncompleteReadError:
        return None
    size, number, kind = (int.from_bytes(head[at : at + 4], "little") for at in (0, 4, 12))
    body = await reader.readexactly(size - 16)
    operation, database = "hello", "admin"
    if kind == _OP_MSG:
        # Flags, then the section of kind 0: its document has the command first.
        document = (
            bson.BSON(body[5 : 5 + int.from_bytes(body[5:9], "little")]).decode() if body[4] == 0 else {}
        )
        operation, database = next(iter(document), ""), str(document.get("$db", ""))

    def answer(fault: Fault) -> bytes:
        if fault is Fault.GARBAGE:
            return b"\x0b\x00\x00\x00garbage"
        error = {"ok": 0.0, "errmsg": "planted by the fault proxy", **_MONGO_ERRORS[fault]}
        message = b"\0\0\0\0\0" + bson.BSON.encode(error)
        fields = (16 + len(message), number, number, _OP_MSG)
        return b"".join(field.to_bytes(4, "little") for field in fields) + message

    spared = (Fault.DENIED, Fault.CREDENTIALS) if operation in _GREETINGS else ()
    return Request(database, operation, head + body, answer, spared)


# Redis

_REDIS_ERRORS = {
    Fault.ERROR: "LOADING Redis is loading the dataset in memory",
    Fault.THROTTLED: "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    Fault.DENIED: "NOPERM User default has no permissions to run the '{}' command",
    Fault.CREDENTIALS: "NOAUTH Authentication required.",
}
_WRONG_PASSWORD = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


async def _read_redis(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> Request | None:
    raw = await reader.readline()
    if not raw:
        return None
    words = []
    for _number in range(int(raw[1:])):
        line = await reader.readline()
        content = await reader.readexactly(int(line[1:]) + 2)
        words.append(content[:-2])
        raw += line + content
    operation = words[0].decode("latin-1").upper()

    def answer(fault: Fault) -> bytes:
        if fault is Fault.GARBAGE:
            return b"garbage\r\n"
        if fault is Fault.CREDENTIALS and operation == "AUTH":
            return _WRONG_PASSWORD
        return f"-{_REDIS_ERRORS[fault].format(operation.lower())}\r\n".encode()

    return Request("redis", operation, raw, answer)


# PostgreSQL

_POSTGRES_ERRORS = {
    Fault.ERROR: ("57P03", "the database system is in recovery mode"),
    Fault.THROTTLED: ("53300", "sorry, too many clients already"),
    Fault.DENIED: ("42501", "permission denied for database"),
    Fault.CREDENTIALS: ("28P01", "password authentication failed"),
}
# A client asks first whether the server encrypts, by TLS or by GSSAPI.
_ENCRYPTS = (80877103, 80877104)


async def _read_postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        kind = await reader.readexactly(1)
    except asyncio.IncompleteReadError:
        return None
    # The first message has no kind: it begins with its length, which is short.
    connects = kind == b"\0"
    size = kind * connects + await reader.readexactly(4 - connects)
    body = await reader.readexactly(int.from_bytes(size, "big") - 4)
    if connects and int.from_bytes(body[:4], "big") in _ENCRYPTS:
        writer.write(b"N")
        return await _read_postgres(reader, writer)

    def answer(fault: Fault) -> bytes:
        if fault is Fault.GARBAGE:
            return _http_answer(200, _GARBAGE, "text/html")
        code, said = _POSTGRES_ERRORS[fault]
        fields = f"SFATAL\0VFATAL\0C{code}\0M{said}\0\0".encode()
        return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    if connects:
        return Request("postgres", "connect", size + body, answer)
    return Request("postgres", kind.decode(), kind + size + body, answer, spared=tuple(Fault))


# Kafka

_APIS = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    10: "FindCoordinator",
    18: "ApiVersions",
    19: "CreateTopics",
    22: "InitProducerId",
    32: "DescribeConfigs",
    60: "DescribeCluster",
}


# What is in the answer of the broker itself. A certificate is refused before there is a request.
_KAFKA_CHANGED = (Fault.ERROR, Fault.THROTTLED, Fault.DENIED)
_UNKNOWN_SERVER_ERROR, _TOPIC_AUTHORIZATION_FAILED = -1, 29


async def _kafka_frame(reader: asyncio.StreamReader) -> bytes:
    try:
        size = await reader.readexactly(4)
    except asyncio.IncompleteReadError:
        return b""
    return size + await reader.readexactly(int.from_bytes(size, "big"))


async def _read_kafka(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> Request | None:
    frame = await _kafka_frame(reader)
    if not frame:
        return None
    api = int.from_bytes(frame[4:6], "big")

    operation = _APIS.get(api, str(api))
    spared = (Fault.CREDENTIALS,) if operation == "Metadata" else (Fault.CREDENTIALS, *_KAFKA_CHANGED)
    return Request("kafka", operation, frame, lambda _fault: _http_answer(200, _GARBAGE, "text/html"), spared)


class KafkaFields:
    """Reads Kafka's fields in the encoding of its newer versions ("flexible")."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self) -> int:
        number = shift = 0
        while True:
            (byte,) = self.take(1)
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def items(self) -> int:
        """How many follow, of an array or of the bytes of a text; none for null."""
        return max(0, self.number() - 1)

    def tags(self) -> None:
        for _ in range(self.number()):
            self.number()
            self.take(self.number())


def _metadata_changed(frame: bytes, rule: Rule, request: bytes) -> bytes:
    """The answer to `request`, version 10 to 12 of Metadata, as of a broker that has failed, throttles or denies. Who
    asks for all topics does not see those that are denied.
    """
    assert 10 <= int.from_bytes(request[6:8], "big") <= 12, "another version of Metadata"
    throttled = int(rule.seconds * 1000) if rule.fault is Fault.THROTTLED else 0
    if throttled:
        return frame[:9] + throttled.to_bytes(4, "big") + frame[13:]
    asked = KafkaFields(request, 14 + int.from_bytes(request[12:14], "big"))
    asked.tags()
    hidden = rule.fault is Fault.DENIED and not asked.items()
    code = _TOPIC_AUTHORIZATION_FAILED if rule.fault is Fault.DENIED else _UNKNOWN_SERVER_ERROR
    fields = KafkaFields(frame, 13)
    for _ in range(fields.items()):
        fields.take(4)
        fields.take(fields.items())
        fields.take(4)
        fields.take(fields.items())
        fields.tags()
    fields.take(fields.items())
    fields.take(4)
    begin = fields.at
    topics = [_failed_topic(fields, code) for _ in range(fields.items())]
    rest = frame[fields.at :]
    shown = [] if hidden else topics
    body = frame[4:begin] + written(len(shown) + 1) + b"".join(shown) + rest
    return len(body).to_bytes(4, "big") + body


def written(number: int) -> bytes:
    """A number as `KafkaFields.number` reads it."""
    if number < 128:
        return bytes([number])
    return bytes([number & 127 | 128]) + written(number >> 7)


def _failed_topic(fields: KafkaFields, code: int) -> bytes:
    """The next topic of an answer, with an error and without partitions."""
    fields.take(2)
    begin = fields.at
    fields.take(fields.items())
    fields.take(16 + 1)
    named = fields.data[begin : fields.at]
    for _ in range(fields.items()):
        fields.take(2 + 4 + 4 + 4)
        for _replicas in range(3):
            fields.take(4 * fields.items())
        fields.tags()
    begin = fields.at
    fields.take(4)
    fields.tags()
    return code.to_bytes(2, "big", signed=True) + named + b"\1" + fields.data[begin : fields.at]


_Reader = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, Request | None]]
_READERS: dict[str, _Reader] = {
    "aws": _read_aws,
    "http": _read_http,
    "mongo": _read_mongo,
    "redis": _read_redis,
    "postgres": _read_postgres,
    "kafka": _read_kafka,
}


def free_port(key: str, taken: Collection[int] = ()) -> int:
    """A free one below the range of ports for outgoing connections, from a place that `key` determines."""
    return next(port for port in candidates(0, key)[1:] if port not in taken and is_free(port))


@contextmanager
def fault_proxy(
    protocol: str, address: str, *, seed: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[FaultProxy]:
    """In front of the server at `address` (URL, host and port, or the path of a socket). `proxied(address, proxy)` is
    what clients take. With `tls`, clients speak TLS to the proxy.
    """
    backend = address, 0
    if not address.startswith("/"):
        parts = urlsplit(address if "://" in address else f"//{address}")
        assert parts.hostname and parts.port, f"{address} has no port"
        backend = parts.hostname, parts.port
    proxy = FaultProxy(protocol, backend, free_port(uuid.uuid4().hex), seed, tls)
    try:
        yield proxy
    finally:
        proxy.close()


def proxied(address: str, proxy: FaultProxy) -> str:
    """The same address by way of the proxy."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    return address.replace(parts.netloc.rpartition("@")[2], f"{HOST}:{proxy.port}", 1)
