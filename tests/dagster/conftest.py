"""What tests of Dagster's definitions share: an instance in memory, and a sensor's tick."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
from regworkers_dagster.resources import Workers
from tests.dagster.support import use

Tick = Any


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
        return function(context, Workers(call_seconds=2.0))

    return evaluate
