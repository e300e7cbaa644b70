"""What Dagster's own database holds of the base release means the same to this code."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.settings import PROJECT_ROOT
from tests.upgrade.conftest import Base
from tests.upgrade.release import names

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def before(base: Base) -> dict[str, Any]:
    found: dict[str, Any] = base.run("names")
    return found


@pytest.mark.parametrize("kind", ["jobs", "sensors", "schedules", "assets", "checks", "tags", "partitions"])
def test_what_has_runs_events_or_a_switch_keeps_its_name(before: dict[str, Any], kind: str) -> None:
    assert set(before[kind]) - set(names()[kind]) == set()


@pytest.mark.parametrize("kind", ["sensors", "schedules"])
def test_the_changelog_names_what_has_to_be_switched_on(before: dict[str, Any], kind: str) -> None:
    """Dagster keeps the switches of those that it knows; a new one is off outside of local-dev."""
    _, _, notes = (PROJECT_ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("### Upgrade notes")
    assert [each for each in set(names()[kind]) - set(before[kind]) if f"`{each}`" not in notes] == []
