"""Who is told of a renewal that the brokers refuse. What a certificate is like: tests/operations/alerts/conditions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from regworkers_core.operations.alerts.certificate_renewal import (
    RENEWAL_SCOPE,
    watch_renewals,
)
from regworkers_core.operations.alerts.notifier import alerting
from regworkers_core.runtime import Runtime
from tests.support.shared import emptied, shared_namespace


@pytest.fixture(scope="module")
def _shared() -> Iterator[Runtime]:
    with shared_namespace() as runtime:
        yield runtime


@pytest.fixture
def runtime(_shared: Runtime) -> Runtime:
    return emptied(_shared)


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
    credentials.watcher("again")
    alerting(runtime).settle("certificates", [])
    (incident,) = runtime.incidents.of(RENEWAL_SCOPE)
    assert incident.open and incident.serial == 2, "who looks at certificates does not close it"
