"""Who is told of a certificate, and of a renewal that the brokers refuse."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest

from regworkers_core.domain.alert import Severity
from regworkers_core.operations.certificates.alerts import (
    RENEWAL_SCOPE,
    SCOPE,
    alerts_of,
    settle,
    watch_renewals,
)
from regworkers_core.operations.certificates.checking import CertificateReport, State, check_certificate
from regworkers_core.runtime import Runtime
from regworkers_core.settings import AlertSettings
from tests.support.certificates import Authority
from tests.support.runtimes import test_settings
from tests.support.shared import emptied, shared_namespace

ROOT = Authority()


@pytest.fixture(scope="module")
def _shared() -> Iterator[Runtime]:
    with shared_namespace() as runtime:
        yield runtime


@pytest.fixture
def runtime(_shared: Runtime) -> Runtime:
    return emptied(_shared)


def report(days: float, *, key: str | None = None) -> CertificateReport:
    pair = ROOT.client(days=days)
    tls = {"certificate": pair.certificate, "key": key or pair.key, "ca": ROOT.pem}
    return check_certificate(Runtime(test_settings("", kafka={"tls": tls})), "qa")


def severities(found: CertificateReport) -> dict[str, Severity]:
    return {alert.key: alert.severity for alert in alerts_of(found, critical_days=5)}


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (90, {}),
        (19.5, {"certificates:kafka-ends-soon": Severity.WARNING}),
        (5.5, {"certificates:kafka-ends-soon": Severity.WARNING}),
        (
            4.5,
            {
                "certificates:kafka-ends-soon": Severity.WARNING,
                "certificates:kafka-ends-now": Severity.CRITICAL,
            },
        ),
        (
            -1,
            {
                "certificates:kafka-ends-soon": Severity.WARNING,
                "certificates:kafka-ends-now": Severity.CRITICAL,
            },
        ),
    ],
)
def test_under_twenty_days_warns_and_under_five_wakes_somebody_up(
    days: float, expected: dict[str, Severity]
) -> None:
    assert severities(report(days)) == expected


def test_a_key_that_does_not_match_wakes_somebody_up() -> None:
    found = report(90, key=ROOT.client().key)
    assert severities(found) == {"certificates:kafka-out-of-order": Severity.CRITICAL}


def test_one_that_cannot_be_read_warns_and_one_that_is_not_configured_does_not() -> None:
    unreadable = CertificateReport("qa", State.UNREADABLE, error="no such secret")
    assert severities(unreadable) == {"certificates:kafka-unreadable": Severity.WARNING}
    assert severities(CertificateReport("qa", State.NONE)) == {}


def test_alerts_open_get_worse_and_close_by_themselves(runtime: Runtime) -> None:
    for days, expected in ((19, 1), (4, 2), (90, 0)):
        settle(runtime, report(days))
        open_now = [each for each in runtime.incidents.of(SCOPE) if each.open]
        assert len(open_now) == expected
    (soon,) = [each for each in runtime.incidents.of(SCOPE) if each.alert.key.endswith("soon")]
    assert soon.serial == 1, "it was one incident all the time"


def test_slack_is_told_under_twenty_days_once_and_when_it_is_over(runtime: Runtime) -> None:
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        alerts = AlertSettings.model_validate(
            {"slack_webhook": f"http://127.0.0.1:{server.server_port}/hook"}
        )
        telling = Runtime(runtime.settings.model_copy(update={"alerts": alerts}))
        for days in (12.5, 12.4, 90):
            settle(telling, report(days))
        server.shutdown()
        thread.join()
    opened, resolved = heard
    assert "WARNING" in opened and "days left, under 20" in opened and "certs generate" in opened
    assert "resolved" in resolved


class FakeCredentials:
    """Its watcher is told by hand."""

    may_change = True
    watcher: Any = None


def test_a_refused_renewal_is_an_incident_until_one_is_taken_up(runtime: Runtime) -> None:
    credentials: Any = FakeCredentials()
    runtime.__dict__["kafka_credentials"] = credentials
    watch_renewals(runtime)
    for refused, is_open in (("the brokers hang up", True), ("the brokers hang up", True), (None, False)):
        credentials.watcher(refused)
        (incident,) = runtime.incidents.of(RENEWAL_SCOPE)
        assert incident.open is is_open
    settle(runtime, report(90))
    credentials.watcher("again")
    settle(runtime, report(90))
    (incident,) = runtime.incidents.of(RENEWAL_SCOPE)
    assert incident.open and incident.serial == 2, "the daily look does not close it"
