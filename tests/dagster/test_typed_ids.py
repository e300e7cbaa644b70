"""What was pasted into the wrong field of a launchpad (a password, an address) comes back in no error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest

from regworkers_core.runtime import Runtime
from tests.dagster.support import job, use
from tests.dagster.test_launchpads import JOBS, fields_of
from tests.selection.draw.world import CAMPAIGN, close_campaign

pytestmark = pytest.mark.slow

TYPED = "postgres://dagster:s3nt1n3l@db/x"
IDS = {"campaign_id", "market_id", "backfill_id", "fingerprint", "queue", "drain", "alert", "confirm"}
IDS |= {"entry", "entry_id", "capacities", "reserves"}
# An entry may have any id of up to 512 bytes, so this is one; the last job runs all that there is.
NOT_THESE = {("trace_entry", "/entry_id"), ("replicate_entry", "/entry_id")}
NOT_THESE |= {("first_checks", "/ops/selection_promises/config/campaign_id")}
# A backfill that is new has the id that it is given.
NOT_THESE |= {("backfill_entries", "/backfill_id")}
# Of the other fields, so that a job gets as far as this one.
OTHERS = {
    "campaign_id": CAMPAIGN,
    "market_id": "berlin",
    "reason": "because",
    "confirm": f"{CAMPAIGN}:1",
    "entry_id": "e1",
    "queue": "replication",
    "alert": "dead-letters:replication-queue",
    "drain": "save",
}


def _ids() -> Iterator[tuple[str, str]]:
    for name, each in JOBS.items():
        for path, field in fields_of(each.run_config_schema.config_type):
            # In some jobs `confirm` is a number.
            number = str(field.config_type.key).endswith("Int") and path.endswith("/confirm")
            if path.rpartition("/")[2] in IDS and (name, path) not in NOT_THESE and not number:
                yield name, path


@pytest.fixture(scope="module")
def closed(shared: Runtime) -> Runtime:
    close_campaign(shared)
    return shared


def _config(path: str, others: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    at = config
    *folders, leaf = path.strip("/").split("/")
    for folder in folders:
        at = at.setdefault(folder, {})
    at |= others
    reserves = {"loyal": 1} if leaf == "reserves" else 5
    at[leaf] = {TYPED: reserves} if leaf in ("capacities", "reserves") else TYPED
    return config


@pytest.mark.parametrize(("name", "path"), _ids(), ids=lambda each: each.strip("/").replace("/", "."))
def test_a_text_that_is_no_id_is_not_repeated_by_the_job_that_refuses_it(
    name: str, path: str, closed: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, closed)
    made = job(name)
    fields = dict(fields_of(made.run_config_schema.config_type))
    folder, leaf = path.rpartition("/")[::2]
    others = {key: value for key, value in OTHERS.items() if f"{folder}/{key}" in fields and key != leaf}
    if str(fields.get("/confirm", fields[path]).config_type.key).endswith("Int"):
        others.pop("confirm", None)
    config = _config(path, others)
    result = made.execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    said = [str(event) for event in instance.all_logs(result.run_id)]
    assert not [each for each in said if "s3nt1n3l" in each]
