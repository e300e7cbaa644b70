"""What the tests of the Dagster layer share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
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
