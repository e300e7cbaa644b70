"""What an operator on call does as a job: on the real stores, in this process."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.runtime import Runtime
from regworkers_dagster.runs import OPERATOR_TAG
from tests.dagster.support import job, plain, use
from tests.operations.dead_letters.world import refuse
from tests.support.drains import replicate_all
from tests.support.entries import key, put

ADA = "ada@example.com"


def launched(name: str, **config: Any) -> tuple[dict[str, Any], str]:
    """The metadata of a run that ada launched, and its error; empty for a success."""
    done = job(name).execute_in_process(run_config=config, raise_on_error=False, tags={OPERATOR_TAG: ADA})
    shown: dict[str, Any] = {}
    error = ""
    for event in done.all_events:
        if event.event_type_value == "STEP_OUTPUT":
            shown |= plain(event.step_output_data.metadata or {})
        if event.is_step_failure:
            error = str(event.step_failure_data.user_failure_data or event.step_failure_data.error)
            metadata = getattr(event.step_failure_data.user_failure_data, "metadata", None)
            shown |= plain(metadata or {})
    return shown, error


@pytest.mark.slow
def test_an_entry_is_traced_and_queued_and_all_of_it_is_in_the_audit_log(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    put(runtime, key("e1"))
    replicate_all(runtime)
    refuse(runtime, "e4")

    single = launched("review_dead_letters", queue="replication-queue", messages=5)[0]["single_messages"]
    assert "summer:e4" in single and "INVALID_ENTRY" in single

    assert launched("trace_entry", campaign_id="summer", entry_id="e1")[0]["verdict"] == "in_sync"
    assert "rejected" in launched("trace_entry", campaign_id="summer", entry_id="e4")[1]
    assert launched("replicate_entry", campaign_id="summer", entry_id="e1")[0]["sent"] is True

    log, _ = launched("show_audit", what="replicate")
    assert ADA in log["log"] and "summer:e1" in log["log"]
    actions = runtime.operator_actions.history(limit=100)
    assert {each.who for each in actions} == {ADA}
    assert {each.what for each in actions} == {"replicate"}
