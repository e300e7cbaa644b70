"""Reviews and housekeeping as runs."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
from tests.dagster.support import job, plain
from tests.operations.reviews.world import ago, plant
from tests.support.entries import key, put

pytestmark = [pytest.mark.namespace("module"), pytest.mark.usefixtures("used")]


@pytest.fixture(scope="module", autouse=True)
def _an_entry(shared: Runtime) -> None:
    put(shared, key("e1"))


def reviewed(kind: str, **config: Any) -> tuple[dict[str, Any], dg.AssetCheckEvaluation]:
    name = {"weekly": "review_week", "monthly": "review_month", "quarterly": "review_quarter"}[kind]
    done = job(f"{kind}_review").execute_in_process(
        run_config={"ops": {name: {"config": config}}} if config else None, raise_on_error=False
    )
    assert done.success
    (materialised,) = done.asset_materializations_for_node(name)
    (check,) = done.get_asset_check_evaluations()
    return plain(materialised.metadata), check


def test_a_review_with_a_finding_succeeds_and_its_check_warns(runtime: Runtime) -> None:
    plant(runtime)
    metadata, check = reviewed("weekly")
    assert not check.passed and check.severity is dg.AssetCheckSeverity.WARN
    assert metadata["findings"] == 1 and metadata["not_read"] == 0
    assert "analytics:kafka" in metadata["alerts"] and "](data:image/png;base64," in metadata["durations"]
    key_ = metadata["page"].removeprefix(f"s3://{runtime.names.bucket}/")
    assert runtime.objects.get_bytes(key_).startswith(b"<!doctype html>")


def test_the_month_of_an_empty_environment_is_fine(runtime: Runtime) -> None:
    metadata, check = reviewed("monthly")
    assert check.passed and "No data since" in metadata["overview"]


def test_housekeeping_from_the_launchpad_only_counts_unless_apply_is_true(runtime: Runtime) -> None:
    runtime.database["dead_letters"].insert_one({"_id": "x", "status": "resolved", "resolvedAt": ago(999)})
    assert job("housekeeping").execute_in_process().success
    assert runtime.database["dead_letters"].find_one() is not None
    config = {"ops": {"apply_retention": {"config": {"apply": True}}}}
    assert job("housekeeping").execute_in_process(run_config=config).success
    assert runtime.database["dead_letters"].find_one() is None
    (action,) = runtime.operator_actions.history(what="housekeeping")
    assert action.result == {"dead_letters": 1}
