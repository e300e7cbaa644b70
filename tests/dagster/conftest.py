"""What tests of Dagster's definitions share: an instance in memory, and a sensor's tick."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
from regworkers_dagster import resources
from tests.dagster.support import use
from tests.support import declared
from tests.support.least_privilege import acting_as

Tick = Any


@pytest.fixture(autouse=True)
def _asks_for_what_it_touches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every call of an asset, check, job or sensor is to a service whose resource it asks for."""
    real = resources.shared_runtime

    def watched(call_seconds: float | None = None, changes: dict[str, Any] | None = None) -> Runtime:
        made = real(call_seconds, changes)
        declared.watch(made, frozenset(changes or {}))
        return made

    monkeypatch.setattr(resources, "shared_runtime", watched)
    yield
    assert not declared.undeclared()


@pytest.fixture
def used(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """What loads its settings in this process finds those of the test's runtime."""
    use(monkeypatch, runtime)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def tick(runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Tick:
    """Evaluates a sensor's function once, as the daemon does."""
    use(monkeypatch, runtime)

    def evaluate(function: Any, cursor: str | None = None) -> Any:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="a_sensor")
        with acting_as("sensors"):
            return function(context)

    return evaluate
