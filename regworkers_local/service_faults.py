"""Switches for faults of the four services, for tests and demonstrations."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The announced length of a truncated or dripping body.
_PROMISED_BYTES = 200


class Service(StrEnum):
    ENTRY = "entry"
    USER = "user"
    CODE = "code"
    CAMPAIGN = "campaign"


# The paths of each service. A decoded id may contain slashes.
PATHS: dict[Service, str] = {
    Service.USER: r"/users/.+",
    Service.CODE: r"/campaigns/[^/]+/codes/available",
    Service.CAMPAIGN: r"/campaigns/[^/]+",
    Service.ENTRY: r"/[^/]+/entries/.+",
}


class Fault(BaseModel):
    """What happens to a request: first the latency, then one of the others (or the real answer)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    latency_seconds: float = Field(0.0, ge=0, le=60)
    status: int | None = Field(None, ge=300, le=599)  # answers with this code
    retry_after: str | None = Field(None, pattern=r"^[ -~]{1,40}$")
    garbage: bool = False  # answers with what is no JSON
    half_open: bool = False  # takes the request and never answers
    truncate: bool = False  # ends in the middle of the body
    drop_connection: bool = False  # closes it without a byte
    drip_seconds: float | None = Field(None, gt=0, le=10)  # sends a body of blanks, one every so often
    times: int | None = Field(None, ge=1)  # for this number of requests; None: for all

    @property
    def contradiction(self) -> str | None:
        """The reason why the combination is invalid, or None."""
        kinds = (self.status, self.garbage, self.half_open, self.truncate, self.drop_connection)
        if sum(bool(kind) for kind in (*kinds, self.drip_seconds)) > 1:
            return "choose one of status, garbage, halfOpen, truncate, dropConnection, dripSeconds"
        return "retryAfter comes with a status" if self.retry_after and not self.status else None


class Faults:
    """The switches that are on. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on: dict[Service, Fault] = {}

    def put(self, service: Service, fault: Fault) -> None:
        """Replace the service's fault. Raises ValueError for an invalid combination."""
        if fault.contradiction:
            raise ValueError(fault.contradiction)
        with self._lock:
            self._on[service] = fault

    def clear(self) -> None:
        with self._lock:
            self._on.clear()

    @property
    def on(self) -> dict[Service, Fault]:
        """The switches that are on; `times` is the remaining number."""
        with self._lock:
            return dict(self._on)

    def take(self, service: Service) -> Fault | None:
        """The fault for one request, which is counted."""
        with self._lock:
            fault = self._on.get(service)
            if fault is not None and fault.times is not None:
                if fault.times > 1:
                    self._on[service] = fault.model_copy(update={"times": fault.times - 1})
                else:
                    del self._on[service]
            return fault


class Front:
    """The outermost application. Every service has a prefix, `/<service>`, before its paths and its `/health`; its
    paths also work without it.
    """

    def __init__(self, app: App, faults: Faults) -> None:
        self._app, self.faults = app, faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http":
            service, path = _addressed(scope["path"])
            scope = {**scope, "path": path, "raw_path": path.encode()}
            fault = self.faults.take(service) if service else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        if not await _gone_within(receive, fault.latency_seconds):
            await _misbehave(fault, self._app, scope, receive, send)


class _Addressed(NamedTuple):
    service: Service | None
    path: str  # without the service's prefix


def _addressed(path: str) -> _Addressed:
    for service, pattern in PATHS.items():
        if found := re.fullmatch(f"/{service.value}({pattern}|/health)", path):
            return _Addressed(service, found[1])
    own = (service for service, pattern in PATHS.items() if re.fullmatch(pattern, path))
    return _Addressed(next(own, None), path)


async def _misbehave(fault: Fault, app: App, scope: Scope, receive: Receive, send: Send) -> None:
    if fault.status is not None:
        await _answer(
            send, fault.status, orjson.dumps({"detail": "a fault was asked for"}), fault.retry_after
        )
    elif fault.garbage:
        await _answer(send, 200, b"<html>It works!</html>")
    elif fault.half_open:
        await _until_gone(receive)
    elif fault.drop_connection:
        _transport(send).abort()
        await _until_gone(receive)
    elif fault.truncate:
        await _start(send, 200, _PROMISED_BYTES)
        await send({"type": "http.response.body", "body": b'{"', "more_body": True})
        _transport(send).close()
        await _until_gone(receive)
    elif fault.drip_seconds is not None:
        await _start(send, 200, _PROMISED_BYTES)
        for sent in range(1, _PROMISED_BYTES + 1):
            await send({"type": "http.response.body", "body": b" ", "more_body": sent < _PROMISED_BYTES})
            if await _gone_within(receive, fault.drip_seconds):
                return
    else:
        await app(scope, receive, send)


async def _answer(send: Send, status: int, body: bytes, retry_after: str | None = None) -> None:
    headers = [(b"retry-after", retry_after.encode())] if retry_after else []
    # A redirect to a real place would mislead a client that follows it.
    headers += [(b"location", b"/health")] if status < 400 else []
    await _start(send, status, len(body), *headers)
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, length: int, *headers: tuple[bytes, bytes]) -> None:
    known = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*known, *headers]})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _gone_within(receive: Receive, seconds: float) -> bool:
    """Wait, unless the client disconnects."""
    try:
        async with asyncio.timeout(seconds):
            await _until_gone(receive)
    except TimeoutError:
        return False
    return True


def _transport(send: Send) -> Any:
    """The transport of the request, from the server's `send`: ASGI cannot close a connection."""
    server: Any = getattr(send, "__self__", None)
    return server.transport
