"""GET requests to one of the platform's four services: pooled, bounded in time and size, retried, behind its breaker.

Only reads are made, so no request needs an idempotency key and each may be repeated. A request has a deadline for all
that it does on the wire: a client's time-outs bound one read, so a server that sends a byte now and then would keep it
waiting forever.
"""

from __future__ import annotations

import logging
import math
import ssl
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import httpcore2
import httpx2
import orjson
from structlog.contextvars import get_contextvars

from fairdraw import scheduling
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure, UsageError
from regworkers_core.engine.dependency import Classify, Dependency
from regworkers_core.observability.tracing import inject, span
from regworkers_core.settings import ServicesSettings

# When (monotonic seconds) the request that this thread makes must be over. A pooled connection serves many requests.
_END: ContextVar[float] = ContextVar("end of the request", default=math.inf)


@contextmanager
def _until(end: float) -> Iterator[None]:
    before = _END.set(end)
    try:
        yield
    finally:
        _END.reset(before)


def _cut(timeout: float | None, expired: type[Exception]) -> float | None:
    """`timeout`, or the rest of the request's time if that is less. Raises `expired` if none is left."""
    left = _END.get() - scheduling.monotonic()
    if left <= 0:
        raise expired("the deadline of the whole response has passed")
    if timeout is None:
        return None if left == math.inf else left
    return min(timeout, left)


class _Backend(httpcore2.SyncBackend):
    """Connections that keep the deadline."""

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *options: Any, **named: Any
    ) -> httpcore2.NetworkStream:
        timeout = _cut(timeout, httpcore2.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, timeout, *options, **named))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _cut(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _cut(timeout, httpcore2.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        timeout = _cut(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()


class BoundedTransport(httpx2.HTTPTransport):
    """httpx2's pool over connections that keep the deadline."""

    def __init__(self, *, https: bool, connections: int) -> None:
        # Not by `super`, which accepts no network backend, and always reads certificates, which takes as long as ten
        # requests.
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context() if https else None,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=httpx2.Limits().keepalive_expiry,
            network_backend=_Backend(),
        )


class BearerToken:
    """The token of a service: read when it is first needed, and again when the service refuses it.

    `read` returns the current token. Its errors are raised and not cached.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._lock = scheduling.lock()
        self._value: str | None = None

    def get(self) -> str:
        with self._lock:
            if self._value is None:
                self._value = self._read()
            return self._value

    def again(self, refused: str) -> str:
        """The token after `refused` was refused: read again, unless another thread has done so."""
        with self._lock:
            if self._value == refused:
                self._value = self._read()
        return self.get()

    def __repr__(self) -> str:
        return "BearerToken(***)"


def is_problem(status: int, content_type: str, body: bytes) -> bool:
    """Whether a refusal is the service's own: JSON with `detail`, a text or a list of invalid fields.

    A gateway without a route, a default page or another server at this address also answer 404, and would make every
    fan unknown. The mere name of the status is no `detail`: a framework answers so where it has no such path.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    detail = document.get("detail") if isinstance(document, dict) else None
    if isinstance(detail, str):
        said = detail.strip().rstrip(".").lower()
        return said not in ("", _phrase(status))
    return isinstance(detail, list) and bool(detail)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return ""


T = TypeVar("T")
# An entry has at most 400 KB in DynamoDB, and a campaign of many markets is no larger.
MAX_BYTES = 1024 * 1024
# The longest id in a path, percent-encoded: servers refuse request lines above 8 KB, and no id is that long.
MAX_ID_BYTES = 1024
# Beside 5xx: time-out, too early, too many requests.
_BUSY = frozenset({408, 425, 429})
_UNAUTHORISED = frozenset({401, 403})

# Their lines show paths, which have fans' ids in them.
logging.getLogger("httpx2").setLevel(logging.WARNING)
logging.getLogger("httpcore2").setLevel(logging.WARNING)


class MalformedResponse(Exception):
    """A response with status 200 that breaks the contract. The text names the field, never its value."""


class ServiceHttp:
    """A client for the JSON documents of one service. Safe to share between threads; `name` is that of its settings.

    `budget_seconds` bounds a whole call, its retries included; it starts once the token is known.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        token: BearerToken,
        dependency: Dependency,
        *,
        settings: ServicesSettings,
        budget_seconds: float | None = None,
    ) -> None:
        self._name, self._base, self._token = name, base_url.rstrip("/"), token
        self._dependency, self._settings, self._budget_seconds = dependency, settings, budget_seconds
        transport = BoundedTransport(
            https=base_url.startswith("https:"), connections=settings.max_connections
        )
        self._client = httpx2.Client(transport=transport, follow_redirects=False)

    def get(self, *segments: str, read: Callable[[Any], T]) -> T | None:
        """GET the path of `segments` and return what `read` makes of the document; None if the service itself answers
        404 (see `is_problem`).

        `read` raises Malformed for a document that breaks the contract. Raises as `services.ServiceClient` says.
        """
        path = _path(self._dependency.name, segments)
        return self._authorised(lambda token: self._asked(path, token, read))

    def health(self) -> None:
        """GET /health once. Raises as `get` does, and TransientFailure if there is no such path."""

        def ask(token: str) -> None:
            end = scheduling.monotonic() + self._settings.answer_seconds
            self._dependency.once(self._once, "/health", token, end)

        try:
            self._authorised(ask)
        except _NotFound:
            raise TransientFailure(
                self._dependency.name, f"status 404 from /health: is services.{self._name}.baseUrl right?"
            ) from None

    def _authorised(self, ask: Callable[[str], T]) -> T:
        """`ask` with our token; if it is refused, once more with the current one, which may be new."""
        token = self._token.get()
        try:
            return ask(token)
        except _Unauthorised:
            token = self._token.again(token)
        try:
            return ask(token)
        except _Unauthorised as refused:
            raise UsageError(
                f"{self._dependency.name} refuses our token with {refused}: put a valid one where "
                f"services.{self._name}.tokenSecret or services.{self._name}.token says"
            ) from None

    def _asked(self, path: str, token: str, read: Callable[[Any], T]) -> T | None:
        budget = math.inf if self._budget_seconds is None else self._budget_seconds
        end = scheduling.monotonic() + budget

        def once() -> T:
            body = self._once(path, token, min(end, scheduling.monotonic() + self._settings.answer_seconds))
            try:
                return read(orjson.loads(body))
            except orjson.JSONDecodeError:
                raise MalformedResponse("not JSON") from None

        try:
            return self._dependency.within(self._budget_seconds, once)
        except _NotFound:
            return None

    def _once(self, path: str, token: str, end: float) -> bytes:
        """The body of a 200. Raises _NotFound, _Unauthorised, or the failure of the attempt."""
        name, settings = self._dependency.name, self._settings
        # The deadline cuts what happens on the wire; waiting for a free connection has this time-out.
        pool = max(0.0, min(settings.connect_timeout_seconds, end - scheduling.monotonic()))
        timeout = httpx2.Timeout(
            settings.read_timeout_seconds, connect=settings.connect_timeout_seconds, pool=pool
        )
        with (
            span(f"{name} GET") as current,
            _until(end),
            self._client.stream(
                "GET", self._base + path, headers=_headers(token), timeout=timeout
            ) as response,
        ):
            status = response.status_code
            current.set_attribute("http.response.status_code", status)
            if status != 200:
                self._refuse(response)
            if "html" in response.headers.get("Content-Type", ""):
                # A gateway's or another server's; of a health check only the status would count.
                raise MalformedResponse("a page")
            return _body(response)

    def _refuse(self, response: httpx2.Response) -> NoReturn:
        name, status = self._dependency.name, response.status_code
        if status in _UNAUTHORISED:
            raise _Unauthorised(status)
        if status >= 500 or status in _BUSY:
            retry_after = _seconds(response.headers.get("Retry-After"), scheduling.now())
            raise TransientFailure(name, f"status {status}", retry_after_seconds=retry_after)
        if status >= 400:
            if not is_problem(status, response.headers.get("Content-Type", ""), _body(response)):
                raise _NotTheService(status, self._name)
            if status == 404:
                raise _NotFound
            raise PermanentFailure(Reason.SERVICE_REFUSED, f"{name} refuses the id with status {status}")
        # Following a redirect might send our token to another server.
        raise TransientFailure(
            name,
            f"status {status} is unexpected: is services.{self._name}.baseUrl the service's own address?",
        )


class _NotFound(Exception):
    """Status 404."""


class _NotTheService(Exception):
    """Status 4xx without the service's `detail`: the page of a gateway or of another server."""

    def __init__(self, status: int, service: str) -> None:
        super().__init__(
            f"status {status} without the service's own `detail`: is services.{service}.baseUrl right, or does another"
            " server answer in its place?"
        )


class _Unauthorised(Exception):
    """Status 401 or 403: the token may have been replaced."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")


def classify_service(name: str) -> Classify:
    """Errors on the wire and responses that break the contract are the service's failures. The client's own texts are
    left out, because they show what was sent.
    """

    def classify(error: Exception) -> Exception:
        if isinstance(error, MalformedResponse):
            return TransientFailure(name, f"the response breaks the contract: {error}")
        if isinstance(error, _NotTheService):
            return TransientFailure(name, str(error))
        if isinstance(error, httpx2.LocalProtocolError | httpx2.InvalidURL):
            return UsageError(f"{name}: its baseUrl or its token cannot be sent ({type(error).__name__})")
        if isinstance(error, httpx2.HTTPError):
            return TransientFailure(name, type(error).__name__)
        return error

    return classify


def _body(response: httpx2.Response) -> bytes:
    """The raw body: a compressed one could unfold to any size. Raises Malformed if it is too large."""
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > MAX_BYTES:
            raise MalformedResponse(f"more than {MAX_BYTES} bytes")
    return bytes(body)


def _headers(token: str) -> dict[str, str]:
    known = fit_correlation_id(get_contextvars().get("correlationId"))
    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {token}",
        "User-Agent": "regworkers",
        "X-Correlation-Id": known or uuid.uuid4().hex,
        **inject(),
    }


def _path(name: str, segments: tuple[str, ...]) -> str:
    """Every segment, percent-encoded. Raises PermanentFailure for an id that cannot be in a path."""
    encoded = []
    for segment in segments:
        try:
            each = quote(segment, safe="")
        except UnicodeEncodeError:
            each = ""
        # Dots mean folders, escaped or not.
        if not each or each in (".", "..") or len(each) > MAX_ID_BYTES:
            raise PermanentFailure(
                Reason.SERVICE_REFUSED, f"{name}: an id is empty, only dots, too long or not valid text"
            )
        encoded.append("/" + each)
    return "".join(encoded)


def _seconds(retry_after: str | None, now: float) -> float | None:
    """Seconds to wait from a Retry-After header, which is a number or a date; None for anything else."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
