"""What Dagster's own database holds of commit 0301c29 means the same to this code. Dagster has the same version, and so
its database the same schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster.definitions import defs
from regworkers_dagster.drains.observing import RecordedState
from regworkers_dagster.operations.health import outage_of
from regworkers_dagster.runs import DRAIN_TAG, MARKET_TAG
from regworkers_dagster.selection.campaigns import LeaseMark, lease_marks
from regworkers_dagster.selection.specs import CAMPAIGN_PARTITIONS

BEFORE: dict[str, Any] = orjson.loads(Path(__file__).with_name("dagster-0301c29.json").read_bytes())
# Today's tick has it beside another asset.
MOVED = {"entries:parity"}


@pytest.fixture(scope="module")
def today() -> dict[str, set[str]]:
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    return {
        "jobs": {each.name for each in repository.get_all_jobs()},
        "sensors": {each.name for each in repository.sensor_defs},
        "schedules": {each.name for each in repository.schedule_defs},
        "assets": {each.to_user_string() for each in graph.get_all_asset_keys()},
        "checks": {each.to_user_string() for each in graph.asset_check_keys},
    }


@pytest.mark.parametrize("kind", ["jobs", "sensors", "schedules", "assets", "checks"])
def test_what_has_runs_events_or_a_switch_keeps_its_name(today: dict[str, set[str]], kind: str) -> None:
    assert set(BEFORE[kind]) - today[kind] - MOVED == set()


@pytest.mark.parametrize("kind", ["sensors", "schedules"])
def test_the_changelog_names_what_has_to_be_switched_on(today: dict[str, set[str]], kind: str) -> None:
    """Dagster keeps the switches of those that it knows; a new one is off outside of local-dev."""
    _, _, notes = (PROJECT_ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("### Upgrade notes")
    assert [each for each in today[kind] - set(BEFORE[kind]) if f"`{each}`" not in notes] == []


def test_runs_and_partitions_are_found_by_the_tags_and_the_name_of_before() -> None:
    assert (DRAIN_TAG, MARKET_TAG) == ("regworkers/drain", "regworkers/market")
    assert CAMPAIGN_PARTITIONS.name == "campaigns"


def test_cursors_of_sensors_are_read_on_or_count_as_none() -> None:
    cursors = BEFORE["cursors"]
    counted, uncounted = (
        RecordedState.parse(cursors[name]) for name in ("observe_replication", "observe_selection")
    )
    assert counted.at == uncounted.at == {"entries": 1000.0}
    assert counted.numbers == uncounted.numbers == {"entries": {"documents": 12}}
    assert (counted.silent, uncounted.silent) == ({"mongo": 2}, {})
    assert lease_marks(cursors["watch_campaigns"]) == {"spring": LeaseMark("token-7", 1000.0)}
    assert outage_of(cursors["alerts_sensor"]) is None
