"""Fixtures of tests that run jobs and terminals and read what they leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import structlog


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """Those that a test sets up end with its captured stderr."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """With storage and compute logs in files, as the real one."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(folder), overrides=quiet) as made:
        yield made
