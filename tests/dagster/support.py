"""What the tests of the Dagster layer share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
from regworkers_dagster.drains import sensing
from tests.support.environment import environment_of


def use(monkeypatch: pytest.MonkeyPatch, runtime: Runtime, **overrides: str) -> None:
    """From here on, what loads its settings in this process finds those of `runtime`."""
    for name, value in {**environment_of(runtime), **overrides}.items():
        monkeypatch.setenv(name, value)


def job(name: str) -> dg.JobDefinition:
    """A job of the code location, as the UI runs it."""
    from regworkers_dagster.definitions import defs

    return defs.resolve_job_def(name)


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as plain values."""
    return {key: value.value for key, value in metadata.items()}


class Daemon:
    """Ticks as the daemon makes them: `after` moves the clock, and the cursor is kept from tick to tick."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance, now: float) -> None:
        self._instance, self.now, self.cursor = instance, now, ""
        monkeypatch.setattr(sensing, "time", self)

    def time(self) -> float:
        return self.now

    def tick(self, function: Any, *, after: float = 5.0) -> Any:
        self.now += after
        context = dg.build_sensor_context(
            instance=self._instance, cursor=self.cursor or None, sensor_name="a_sensor"
        )
        answer = function(context)
        self.cursor = context.cursor or ""
        return answer
