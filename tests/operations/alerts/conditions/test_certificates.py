"""A renewed certificate that the brokers refuse is an incident."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.operations.alerts.conditions.availability import renewal as RENEWAL
from regworkers_core.operations.alerts.evaluate import watch_renewals
from regworkers_core.operations.alerts.notifier import notifier_of
from regworkers_core.runtime import Runtime

pytestmark = pytest.mark.namespace("module")


class FakeCredentials:
    """The test calls its watcher."""

    may_change = True
    watcher: Any = None


def test_a_refused_renewal_is_an_incident_until_one_is_accepted(runtime: Runtime) -> None:
    credentials: Any = FakeCredentials()
    runtime.__dict__["kafka_credentials"] = credentials
    watch_renewals(runtime)
    for refused, is_open in (("the brokers hang up", True), ("the brokers hang up", True), (None, False)):
        credentials.watcher(refused)
        (incident,) = runtime.incidents.of(RENEWAL.name)
        assert incident.open is is_open
    credentials.watcher("again")
    notifier_of(runtime).settle("certificates", [])
    (incident,) = runtime.incidents.of(RENEWAL.name)
    assert incident.open and incident.serial == 2, "the scope of the certificates does not close it"
