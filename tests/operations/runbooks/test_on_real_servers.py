"""Runbooks on real failures: they name them, change nothing without --apply, and repair them with it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from regworkers_core.runtime import Runtime
from tests.support import campaigns, draws
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put
from tests.support.faces import Face
from tests.support.terminal import Answer
from tests.support.typing_in import Typed

pytestmark = pytest.mark.namespace(
    "module", replication={"lag_objective_seconds": 1}, alerts={"drift_critical": 1}
)


@pytest.fixture
def typed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(runtime, monkeypatch, capsys)


def report(answer: Answer) -> dict[str, Any]:
    """The document; in this process logs go to stdout and come before it."""
    lines = answer.stdout.splitlines(keepends=True)
    found: dict[str, Any] = orjson.loads("".join(lines[lines.index("{\n") :]))
    return found


def findings(answer: Answer) -> list[str]:
    return [each["finding"] for each in report(answer)["findings"]]


def recorded(runtime: Runtime) -> list[tuple[str, str, str]]:
    return [(each.what, each.target, each.outcome) for each in runtime.operator_actions.history()]


def test_a_lost_replica_is_counted_and_rebuilt_with_the_time_of_each_step(
    runtime: Runtime, typed: Typed
) -> None:
    for number in range(5):
        put(runtime, key(f"lost-{number}", "total"))
    replicate_all(runtime)
    runtime.database["entries"].delete_many({})

    reported = typed("runbook", "total-failure", "--format", "json")
    assert reported.code == 1
    assert "replica and source differ" in findings(reported)[0]
    assert document(runtime, key("lost-1", "total")) is None and recorded(runtime) == []
    assert report(reported)["nextStep"] == "regworkers runbook total-failure --apply"

    done = typed("runbook", "total-failure", "--apply", "--format", "json")
    assert done.code == 0, done.stdout
    assert document(runtime, key("lost-1", "total")) is not None
    steps = {row["step"]: row for row in report(done)["tables"]["steps"]}
    assert list(steps) == ["provision", "doctor", "rebuild", "verify", "workers"]
    assert "REGWORKERS_DAGSTER__URL is not set" in steps["workers"]["result"]
    assert all(row["seconds"] >= 0 for row in steps.values())
    assert report(done)["facts"]["objectiveSeconds"] == 3600
    assert recorded(runtime) == [("runbook total-failure", "all", "done")]


def test_an_unavailable_dependency_before_a_rebuild_is_a_finding(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("REGWORKERS_KAFKA__TIMEOUT_SECONDS", "0.2")
    reported = typed("runbook", "total-failure", "--format", "json")
    assert reported.code == 1 and "kafka" in findings(reported)[0]


def test_differences_are_repaired_without_any_sensor_and_compared_again(runtime: Runtime, face: Face) -> None:
    lost = key(f"lost-by-{face.name}")
    put(runtime, lost, needsReplication=False)
    found = face.does("runbook out-of-sync")
    assert not found.fine and "entries are missing" in found.text and "differences" in found.text
    assert document(runtime, lost) is None and recorded(runtime) == []
    done = face.does("runbook out-of-sync", apply=True)
    assert done.fine and document(runtime, lost) is not None, done.text
    assert "after the repair" in done.text and "repair: queued" in done.text
    assert recorded(runtime) == [("runbook out-of-sync", "all", "done")]
    unsure = face.does("runbook out-of-sync", yes_remove=3)
    assert not unsure.fine and "apply" in unsure.text


def test_markets_that_wait_for_codes_are_explained_and_resumed_once_they_are_there(
    runtime: Runtime, typed: Typed
) -> None:
    draws.confirmed(runtime, draws.result({"berlin": 2, "paris": 1}), ["berlin", "paris"])
    draws.add_codes(runtime, "paris", 1)
    draws.publish(runtime)
    run(runtime, "selections")

    blocked = typed("runbook", "selection-failures", "--campaign", "summer", "--format", "json")
    assert blocked.code == 1
    assert findings(blocked) == ["summer, phase 1, market berlin: it needs 2 codes and had 0"]
    assert "codes import" in report(blocked)["findings"][0]["advice"] and report(blocked)["nextStep"] == ""
    (draw,) = report(blocked)["tables"]["draws"]
    assert (draw["status"], draw["nextStep"], draw["leaseOwner"]) == ("PROCESSING", "assign codes", "")

    draws.add_codes(runtime, "berlin", 2)
    ready = typed("runbook", "selection-failures", "--format", "json")
    assert "which are available now" in findings(ready)[0]
    assert report(ready)["nextStep"] == "regworkers runbook selection-failures --apply"
    assert draws.market_status(runtime)["berlin"] == "BLOCKED"

    done = typed("runbook", "selection-failures", "--market", "berlin", "--apply", "--format", "json")
    assert done.code == 0, done.stdout
    assert "berlin" in report(done)["changed"]
    run(runtime, "selections")
    assert draws.market_status(runtime) == draws.all_completed("berlin", "paris")
    assert typed("runbook", "selection-failures").code == 0
    assert recorded(runtime) == [("runbook selection-failures", "all", "done")]


def test_a_chunk_that_was_given_up_is_named_with_its_failure_and_resumed(
    runtime: Runtime, typed: Typed
) -> None:
    rows = draws.result({"berlin": 1})
    draws.confirmed(runtime, rows, ["berlin"], campaign_id="autumn")
    draws.add_codes(runtime, "berlin", 1, campaign_id="autumn")
    draws.publish(runtime, campaign_id="autumn")
    # As the drain leaves it when a chunk becomes a dead letter.
    runtime.database["selection_chunks"].update_many(
        {"marketId": "berlin"},
        {"$set": {"failedAt": "2026-03-01T12:00:00.000Z", "failure": "CODE_CONFLICT: x"}},
    )
    found = typed("runbook", "selection-failures", "--format", "json")
    (market,) = [row for row in report(found)["tables"]["markets"] if row["market"] == "berlin"]
    assert (market["failedChunks"], market["firstFailedChunk"], market["retryHelps"]) == (1, 1, True)
    assert "CODE_CONFLICT" in findings(found)[0]
    typed("runbook", "selection-failures", "--apply")
    run(runtime, "selections")
    assert draws.findings(runtime, rows, campaign_id="autumn") == []


def test_a_campaign_that_differs_in_redis_is_cleared_only_with_yes(runtime: Runtime, typed: Typed) -> None:
    campaign = campaigns.create(runtime, "tour")
    campaigns.create(runtime, "right")
    runtime.campaign_cache.find("tour")
    runtime.database["campaigns"].update_one({"_id": "tour"}, {"$set": {"name": "Another"}})

    reported = typed("runbook", "campaign-configuration", "--format", "json")
    assert (reported.code, findings(reported)) == (1, ["tour: Redis differs from mongo"])
    assert report(reported)["facts"] == {"campaigns": 2, "wrong": 1}

    done = typed(
        "runbook", "campaign-configuration", "--campaign", campaign.slug, "--apply", "--format", "json"
    )
    assert done.code == 0, done.stdout
    assert "cleared" in report(done)["changed"]
    assert typed("runbook", "campaign-configuration").code == 0
    assert recorded(runtime)[0][0] == "runbook campaign-configuration"


def test_a_kafka_outage_is_reported_with_the_time_that_is_left(
    runtime: Runtime, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("REGWORKERS_KAFKA__TIMEOUT_SECONDS", "0.2")
    answer = typed("runbook", "kafka", "--format", "json")
    assert answer.code == 1 and findings(answer)[0].startswith("Kafka: ")
    assert report(answer)["facts"]["waiting"] is not None


def test_an_unavailable_dependency_is_a_finding_of_time_outs(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_MONGO__URI", "mongodb://127.0.0.1:1")
    monkeypatch.setenv("REGWORKERS_MONGO__SERVER_SELECTION_TIMEOUT_SECONDS", "0.2")
    answer = typed("runbook", "time-outs", "--format", "json")
    assert answer.code == 1
    assert any(text.startswith("mongo: ") for text in findings(answer))
    assert any("the work of the drains could not be read" in text for text in findings(answer))


@pytest.mark.parametrize(
    "name", ["stream-lag", "kafka", "time-outs", "cost", "selection-failures", "campaign-configuration"]
)
def test_what_finds_nothing_wrong_is_fine_and_has_its_numbers(
    runtime: Runtime, face: Face, name: str
) -> None:
    # An unread record is a finding.
    run(runtime, "enqueue")
    assert face.does(f"runbook {name}").fine
