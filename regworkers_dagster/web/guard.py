"""What a browser may send, and who sent it: checked before Dagster's webserver sees a request.

Dagster's own server takes a mutation from any page that is open in the same browser: as the address of a picture, as a
form without a preflight, under any host name that resolves to this machine. Here

- `Host` is one of the configured names: a name of another DNS zone that points at this machine is refused (421);
- `Origin`, if present, is this very host and port; so is the page that `Sec-Fetch-Site` reports, except for a link that
  opens a page (403);
- changes are made only by POST of `application/json` to `/graphql` and below `/desk/`, and by PUT of a file to
  `/uploads/`: a page of another origin can send none without a preflight, which is never granted (405, 415);
- a body states its length and keeps within its limit (411, 413); a run config has no aliases of YAML, with which 400
  bytes stand for more than any memory holds;
- no page shows this application in a frame.

A program (curl, the doctor) sends neither `Origin` nor `Sec-Fetch-Site`, and needs neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple
from unicodedata import normalize

import structlog
import yaml
from graphene import Schema
from graphql import GraphQLError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regworkers_core.adapters.mongo.activity import operator
from regworkers_core.settings.operations import Limited, WebSettings
from regworkers_dagster.definitions import managers_jobs

log = structlog.get_logger()

# Only what runs on the browser's own machine answers to these names, also through a forwarded port.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
# The largest query that the UI sends is about 20 KB, with a long run config.
GRAPHQL_BYTES = 4 * 1024 * 1024
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 6455: a message that violates the policy of this server.
_POLICY_VIOLATION = 1008
_HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Refused(NamedTuple):
    """Why a request is refused: an HTTP status, and a sentence for the sender."""

    status: int
    why: str


class Guard:
    """The application `app` behind these checks. `hosts` are the names besides this machine's own, `prefix` is the path
    under which the application is served, `upload_bytes` the largest file.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], prefix: str, upload_bytes: int) -> None:
        self._app = app
        self._hosts = LOOPBACK | set(hosts)
        self._graphql, self._uploads, self._desk = (
            f"{prefix}{path}" for path in ("/graphql", "/uploads/", "/desk/")
        )
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self.refusal(scope["type"], scope.get("method", "GET"), scope["path"], headers)
        if refused is None:
            await self._app(scope, receive, _hardened(send) if scope["type"] == "http" else send)
            return
        log.warning("request refused", status=refused.status, why=refused.why)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
        else:
            await PlainTextResponse(refused.why + "\n", refused.status)(scope, receive, _hardened(send))

    def refusal(self, kind: str, method: str, path: str, headers: Headers) -> Refused | None:
        """Why a request (`kind` is http or websocket) is refused; None for one that is not."""
        return (
            self._wrong_host(headers)
            or _wrong_origin(headers)
            or (None if kind == "websocket" else _other_site(method, headers))
            or (None if kind == "websocket" else self._wrong_shape(method, path, headers))
        )

    def _wrong_host(self, headers: Headers) -> Refused | None:
        given = headers.getlist("host")
        host = _authority(given[0]) if len(given) == 1 else None
        if host is not None and host.host in self._hosts:
            return None
        return Refused(
            421,
            "this server does not answer to this host name: add it to the setting web.hosts",
        )

    def _wrong_shape(self, method: str, path: str, headers: Headers) -> Refused | None:
        if method in ("GET", "HEAD"):
            # Only the page for queries: Dagster would also run a query in the address.
            if path == self._graphql and "text/html" not in headers.get("accept", ""):
                return Refused(405, "queries are sent by POST")
            return None
        if method == "POST" and (path == self._graphql or path.startswith(self._desk)):
            return _wrong_body(headers, "application/json", GRAPHQL_BYTES)
        if method == "PUT" and path.startswith(self._uploads):
            return _wrong_body(headers, "application/octet-stream", self._upload_bytes)
        return Refused(405, "changes are sent to /graphql and /desk/ by POST, and files to /uploads/ by PUT")


def _wrong_origin(headers: Headers) -> Refused | None:
    given = headers.getlist("origin")
    if not given:
        return None
    scheme, _, rest = given[0].partition("://")
    origin, host = _authority(rest), _authority(headers["host"])
    port = _DEFAULT_PORTS.get(scheme)
    if len(given) == 1 and port is not None and origin is not None and host is not None:
        ours = (host.host, host.port or port)
        if (origin.host, origin.port or port) == ours:
            return None
    return Refused(403, "a page of another origin sent this")


def _other_site(method: str, headers: Headers) -> Refused | None:
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return None
    opens_a_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if method in ("GET", "HEAD") and opens_a_page:
        # A link in a chat or an alert.
        return None
    return Refused(403, "a page of another site sent this")


def _wrong_body(headers: Headers, content_type: str, most_bytes: int) -> Refused | None:
    given = headers.getlist("content-type")
    # `text/plain; x=application/json` needs no preflight.
    if len(given) != 1 or given[0].partition(";")[0].strip().lower() != content_type:
        return Refused(415, f"this is sent as {content_type}")
    length = headers.get("content-length", "")
    # A body in pieces ends where its sender likes, whatever length it states.
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
        return Refused(411, "the length of the body is missing")
    if int(length) > most_bytes:
        return Refused(413, f"the body is larger than {most_bytes // (1024 * 1024)} MiB")
    return None


def refuse_aliases(schema: Schema) -> None:
    """Let no query and no mutation of the schema take a run config in YAML with aliases."""
    kind: Any = schema.graphql_schema.type_map["RunConfigData"]

    def plain(parse: Callable[..., Any]) -> Callable[..., Any]:
        def parsed(*given: Any) -> Any:
            config = parse(*given)
            if isinstance(config, str) and _has_aliases(config):
                raise GraphQLError("a run config is YAML without aliases (&name, *name): write the value out")
            return config

        return parsed

    # The first reads variables, the second values in the text of the query.
    kind.parse_value, kind.parse_literal = plain(kind.parse_value), plain(kind.parse_literal)


def _has_aliases(text: str) -> bool:
    try:
        return "*" in text and any(
            isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)
        )
    except yaml.YAMLError:
        # Dagster says what is wrong with it.
        return False


class _Authority(NamedTuple):
    host: str
    port: int | None


def _authority(text: str) -> _Authority | None:
    """Host and port of `text`, in lower case; None for what is neither a name nor an address."""
    found = _AUTHORITY.fullmatch(text.lower())
    return None if found is None else _Authority(found[1], int(found[2]) if found[2] else None)


def _hardened(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            # In addition to a policy that the page has: both apply.
            headers.append("content-security-policy", "frame-ancestors 'none'")
        await send(message)

    return with_headers


# A mail address has at most 254 characters (RFC 5321, 4.5.3.1.3).
_MOST_CHARACTERS = 254


class Person(NamedTuple):
    """Who sent a request, and the jobs that this person may launch; None: all of them, and every other change."""

    name: str
    jobs: frozenset[str] | None = None

    @property
    def may_launch(self) -> bool:
        return self.jobs is None or bool(self.jobs)

    def may(self, job: str) -> bool:
        return self.jobs is None or job in self.jobs


class Operators:
    """Names people by the header of `web.operatorHeader`, and reads their groups from `web.groupsHeader`. Both are
    trusted only from `web.proxies`. Without the first there is no login: every person has the name of the account that
    runs the application. Without the second everyone is an operator.
    """

    def __init__(self, settings: WebSettings) -> None:
        self._header, self._groups_header = settings.operator_header, settings.groups_header
        self._groups = settings.groups
        self._jobs: dict[Limited, Iterable[str]] = {"manager": managers_jobs(), **settings.jobs}
        self._proxies: list[IPv4Network | IPv6Network] = [ip_network(proxy) for proxy in settings.proxies]
        self._account = operator()

    def who(self, connection: HTTPConnection) -> Person | None:
        """The person; None for a request that does not come through the proxy, or that it does not name."""
        name = self._name(connection)
        return None if name is None else Person(name, self._may_launch(connection))

    def _may_launch(self, connection: HTTPConnection) -> frozenset[str] | None:
        if not self._groups_header:
            return None
        given = connection.headers.getlist(self._groups_header)
        # A second header could only come from someone else than the proxy.
        groups = {group.strip() for group in given[0].split(",")} if len(given) == 1 else set()
        roles = {role for role, members in self._groups.items() if groups & set(members)}
        if "operator" in roles:
            return None
        return frozenset(job for role, jobs in self._jobs.items() if role in roles for job in jobs)

    def _name(self, connection: HTTPConnection) -> str | None:
        if not self._header:
            return self._account
        given = connection.headers.getlist(self._header)
        if len(given) != 1 or not self._is_proxy(connection):
            return None
        try:
            # Servers read the bytes of headers as Latin-1; proxies write UTF-8.
            name = given[0].encode("latin-1").decode().strip()
        except UnicodeError:
            return None
        # However a login spells it, it is one person.
        name = normalize("NFKC", name).casefold()
        # Control characters, and characters that change the writing direction, are not printable.
        return name if 0 < len(name) <= _MOST_CHARACTERS and name.isprintable() else None

    def _is_proxy(self, connection: HTTPConnection) -> bool:
        """Decided by the address of the connection, never by a header such as `X-Forwarded-For`."""
        if connection.client is None:
            return False
        try:
            address = ip_address(connection.client.host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in proxy for proxy in self._proxies)
