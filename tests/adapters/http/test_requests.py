"""What is sent: paths, the token and its renewal, identifiers that link the logs of a call."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from structlog.contextvars import bound_contextvars

from regworkers_core.adapters.service_http import BearerToken
from regworkers_core.adapters.services import HttpServices
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.observability import tracing as spans
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ServicesSettings
from tests.adapters.http.servers import Scripted, answer
from tests.adapters.http.test_answers import ask
from tests.support.certificates import Authority
from tests.support.services import NAMES, Served, with_services


class Secrets:
    """A secret store whose values are given one a read, the last one for ever."""

    def __init__(self, *values: str | None) -> None:
        self._values = list(values)
        self.names: list[str] = []

    def get(self, name: str) -> str | None:
        self.names.append(name)
        return self._values.pop(0) if len(self._values) > 1 else self._values[0]


def wired(runtime: Runtime, url: str, secrets: Secrets) -> HttpServices:
    services = ServicesSettings.model_validate(
        {"user": {"base_url": url, "token_secret": "service-token/user"}}
    )
    return HttpServices(
        services,
        "qa",
        dependency=Runtime(runtime.settings).dependency,
        secrets=lambda: secrets,  # type: ignore[arg-type,return-value]
    )


def sent_tokens(scripted: Scripted) -> list[str]:
    return [each.headers["authorization"] for each in scripted.asked]


def test_each_client_asks_the_path_of_the_contract(services: Served, scripted: Scripted) -> None:
    scripted.answers = [answer(404, {"detail": "no such thing"})]
    runtime = with_services(services.runtime, scripted.url)
    for name in NAMES:
        assert ask(runtime, name) is None
    runtime.services.user.get("a/b?c#d")
    assert [each.path for each in scripted.asked] == [
        "/entry/summer/entries/e1",
        "/user/users/gu-1",
        "/code/campaigns/summer/codes/available",
        "/campaign/campaigns/summer",
        "/user/users/a%2Fb%3Fc%23d",
    ]


def test_the_token_is_read_once_and_late(services: Served, scripted: Scripted) -> None:
    secrets = Secrets("first\n")
    made = wired(services.runtime, scripted.url, secrets)
    assert secrets.names == []
    for _ in range(3):
        made.user.get("gu-1")
    assert secrets.names == ["service-token/user"]
    assert sent_tokens(scripted) == ["Bearer first"] * 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_was_replaced_is_read_again_and_the_call_goes_through(
    services: Served, scripted: Scripted, status: int
) -> None:
    secrets = Secrets("old", "new")
    scripted.answers = [answer(status), answer()]
    made = wired(services.runtime, scripted.url, secrets)
    assert made.user.get("gu-1") is not None
    assert made.user.get("gu-1") is not None
    assert sent_tokens(scripted) == ["Bearer old", "Bearer new", "Bearer new"]
    assert len(secrets.names) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_stays_refused_is_an_error_that_names_service_and_setting(
    services: Served, scripted: Scripted, status: int
) -> None:
    scripted.answers = [answer(status)]
    made = wired(services.runtime, scripted.url, Secrets("old", "new"))
    for asked in (lambda: made.user.get("gu-1"), made.user.health):
        with pytest.raises(UsageError, match=rf"service-user .*status {status}.*services\.user\.tokenSecret"):
            asked()
    assert len(scripted.asked) == 4, "nothing is asked a third time"


@pytest.mark.parametrize("value", [None, "", "  \n", "two\nlines", "ümlaut"])
def test_a_token_that_is_missing_or_cannot_be_sent_is_named_by_its_place_only(
    services: Served, scripted: Scripted, value: str | None
) -> None:
    made = wired(services.runtime, scripted.url, Secrets(value))
    with pytest.raises(UsageError, match=r"no usable token \(secret service-token/user\)") as error:
        made.user.get("gu-1")
    assert scripted.asked == []
    assert "lines" not in str(error.value) and "ümlaut" not in str(error.value)


def test_an_unavailable_secret_store_is_named_and_not_the_service(
    services: Served, scripted: Scripted
) -> None:
    class Unavailable(Secrets):
        def get(self, name: str) -> str | None:
            raise TransientFailure("secretsmanager", "ReadTimeoutError")

    made = wired(services.runtime, scripted.url, Unavailable("x"))
    with pytest.raises(TransientFailure) as failure:
        made.user.get("gu-1")
    assert failure.value.dependency == "secretsmanager"
    assert scripted.asked == []


def test_many_threads_that_are_refused_at_once_read_the_token_once() -> None:
    values = iter(["old", "new"])
    token = BearerToken(lambda: next(values))
    assert token.get() == "old"
    together = threading.Barrier(8)

    def refused(_: int) -> str:
        together.wait(10)
        return token.again("old")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(refused, range(8))) == {"new"}
    assert "new" not in repr(token)


def test_threads_share_the_pool_and_get_their_own_answers(services: Served) -> None:
    services.users.insert_many(
        {"_id": f"gu-{n}", "verifiedPhone": n % 2 == 0, "blocked": False} for n in range(40)
    )
    runtime = with_services(services.runtime, services.url, max_connections=4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(runtime.services.user.get, [f"gu-{n}" for n in range(40)]))
    assert [user is not None and user.verified_phone for user in found] == [n % 2 == 0 for n in range(40)]


def test_the_correlation_id_at_hand_is_sent_and_otherwise_a_new_one(
    services: Served, scripted: Scripted
) -> None:
    runtime = with_services(services.runtime, scripted.url)
    with bound_contextvars(correlationId="corr-7"):
        ask(runtime, "user")
    with bound_contextvars(correlationId="no\r\nheader"):
        ask(runtime, "user")
    ask(runtime, "user")
    first, second, third = (each.headers["x-correlation-id"] for each in scripted.asked)
    assert first == "corr-7" and len({first, second, third}) == 3
    assert len(second) == len(third) == 32


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[trace.Tracer]:
    tracer = TracerProvider().get_tracer("test")
    monkeypatch.setattr("regworkers_core.observability.tracing._TRACER", tracer)
    yield tracer


def test_the_trace_continues_at_the_service(
    services: Served, scripted: Scripted, tracing: trace.Tracer
) -> None:
    with tracing.start_as_current_span("judging") as current:
        ask(with_services(services.runtime, scripted.url), "user")
    version, trace_id, span_id, _ = scripted.asked[0].headers["traceparent"].split("-")
    context = current.get_span_context()
    assert (version, int(trace_id, 16)) == ("00", context.trace_id)
    assert int(span_id, 16) != context.span_id, "the call is a span of its own"


def test_no_trace_means_no_header(
    services: Served, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another test of this process may have switched tracing on, and nothing switches it off.
    monkeypatch.setattr(spans, "_TRACER", trace.NoOpTracer())
    ask(with_services(services.runtime, scripted.url), "user")
    assert "traceparent" not in scripted.asked[0].headers
    assert scripted.asked[0].headers["user-agent"] == "regworkers"


def test_proxies_and_logins_of_the_caller_are_not_used(
    services: Served, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert ask(with_services(services.runtime, scripted.url), "user") is not None


def test_an_address_may_have_a_path_and_a_slash_at_its_end(services: Served, scripted: Scripted) -> None:
    section = {"user": {"base_url": f"{scripted.url}/api/v2/", "token": "x"}}
    assert with_services(services.runtime, "http://unused", **section).services.user.get("gu-1") is not None
    assert scripted.asked[0].path == "/api/v2/users/gu-1"


def test_an_https_address_is_asked_over_tls_and_its_certificate_is_checked(
    services: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, tls = self_signed(tmp_path)
    server = Scripted(tls)
    section = {"user": {"base_url": server.url, "token": "x"}}
    with pytest.raises(TransientFailure, match="service-user: ConnectError"):
        with_services(services.runtime, server.url, **section).services.user.get("gu-1")
    assert server.asked == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert with_services(services.runtime, server.url, **section).services.user.get("gu-1") is not None
    server.stop()


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """The certificate of an authority as a file, and the context of a server on 127.0.0.1 that it signed."""
    authority = Authority()
    certificate, pair = folder / "cert.pem", folder / "server.pem"
    certificate.write_text(authority.pem)
    pair.write_text(authority.server().bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    return certificate, context
