"""The draw of a campaign as Dagster runs it, on the real servers."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
import pytest

from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.selection import PromiseVerdict
from regworkers_core.engine.leases import held_lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection import promises
from regworkers_core.selection.draw_run import DrawRun
from regworkers_dagster.selection import campaigns
from tests.dagster.selection.world import (
    confirm_draw,
    failure_of,
    judged,
    materialised,
    observed,
    registered,
    run_draw,
)
from tests.dagster.support import job, plain, use
from tests.selection.draw.beacons import OwnBeacon, taken_for_signatures
from tests.selection.draw.world import CAMPAIGN, close_campaign
from tests.support.draws import add_codes, confirmed, publish, result

pytestmark = pytest.mark.slow

STEPS = [
    "eligibility_report",
    "frozen_pool",
    "commitment",
    "seed",
    "ranking",
    "draw",
    "draw_report",
    "publication",
]
QUICK = {"idle_seconds": 0.1, "max_seconds": 20.0}


@pytest.fixture
def closed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    use(monkeypatch, runtime)
    registered(runtime)
    return runtime


def _status(runtime: Runtime) -> str:
    return str(runtime.database["campaigns"].find_one({"_id": CAMPAIGN})["status"])


def _drain(name: str, op: str) -> dict[str, object]:
    result = job(name).execute_in_process(run_config={"ops": {op: {"config": QUICK}}})
    (made,) = materialised(result).values()
    return plain(made.metadata)


@pytest.mark.usefixtures("pictures")
def test_a_draw_stops_before_the_publication_and_goes_out_to_the_fans_once_it_is_confirmed(
    closed: Runtime, instance: dg.DagsterInstance
) -> None:
    first = run_draw(instance)

    assert first.success
    made = materialised(first)
    assert sorted(made) == sorted(STEPS[:-1])
    assert {event.partition for event in made.values()} == {CAMPAIGN}
    assert judged(first) == {"draw_replays": True, "capacity_respected": True, "win_rates_uniform": True}
    record = closed.draws.get(CAMPAIGN)
    assert record is not None
    assert plain(made["commitment"].metadata)["manifestHash"] == record.latest.manifest_hash
    drawn = plain(made["draw"].metadata)
    assert drawn["resultHash"] == record.latest.result_hash
    tables = ("eligibility_report", "frozen_pool", "ranking", "draw")
    counts = [plain(made[name].metadata)["dagster/partition_row_count"] for name in tables]
    assert counts == [12, *[sum(drawn["outcomes"].values())] * 3]
    report = made["draw_report"].metadata
    pictures = [name for name in report if name.startswith("plot_")]
    assert pictures and all("data:image/png;base64," in str(report[name].value) for name in pictures)
    waiting = plain(observed(first)["publication"].metadata)["awaiting"]
    assert 'confirm: "summer:1"' in waiting
    assert closed.queue(closed.names.selection_queue).depth().total == 0

    assert sorted(materialised(confirm_draw(instance))) == STEPS[-1:]
    second = run_draw(instance)

    assert second.success
    assert sorted(materialised(second)) == sorted(STEPS)
    states = {plain(made.metadata)["state"] for made in materialised(second).values()}
    assert states == {"unchanged"}
    numbers = _drain("process_selections", "selections")
    assert (numbers["written"], numbers["dead_lettered"], numbers["adds_up"]) == (7, 0, True)
    assert _status(closed) == "COMPLETED"
    assert _drain("send_notifications", "notifications")["sent"] == 12
    checked = job("check_selection").execute_in_process(run_config={"campaign_id": CAMPAIGN})
    assert judged(checked) == {
        "codes_and_winners_biject": True,
        "codes_within_capacity": True,
        "counts_match": True,
    }


def _previewed(runtime: Runtime, result: dg.ExecuteInProcessResult) -> None:
    assert result.success, failure_of(result)
    (made,) = materialised(result).values()
    metadata = plain(made.metadata)
    assert (metadata["state"], metadata["entries"], made.partition) == ("preview", 12, CAMPAIGN)
    assert runtime.draws.get(CAMPAIGN) is None


def test_the_job_eligibility_report_is_a_preview_without_any_config_also_while_the_campaign_is_open(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    use(monkeypatch, runtime)
    # Its time is over and it draws by itself: a preview does not close it.
    registered(runtime, status="OPEN", autoDraw=True)
    # As `dagster job execute` does it, which takes no config from the job.
    _previewed(
        runtime,
        job("eligibility_report").execute_in_process(
            instance=instance, tags={"dagster/partition": CAMPAIGN}, run_config={}, raise_on_error=False
        ),
    )
    assert _status(runtime) == "OPEN"


def test_the_asset_by_itself_is_a_preview_and_followed_by_the_freeze_it_is_the_draws_judgement(
    closed: Runtime, instance: dg.DagsterInstance
) -> None:
    from regworkers_dagster.definitions import defs

    def materialise(*names: str) -> dg.ExecuteInProcessResult:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            partition_key=CAMPAIGN,
            asset_selection=[dg.AssetKey(name) for name in names],
            raise_on_error=False,
        )

    instance.add_dynamic_partitions("campaigns", [CAMPAIGN])
    _previewed(closed, materialise("eligibility_report"))
    assert _status(closed) == "CLOSED"
    result = materialise("eligibility_report", "frozen_pool")
    assert result.success, failure_of(result)
    assert plain(materialised(result)["eligibility_report"].metadata)["state"] == "done"
    record = closed.draws.get(CAMPAIGN)
    assert record is not None and record.phases[1].freeze["count"] == 12


def test_while_another_run_works_on_the_draw_a_run_does_nothing_and_is_fine(
    closed: Runtime, instance: dg.DagsterInstance
) -> None:
    with held_lease(closed.leases, lease_name(CAMPAIGN), "other", lease_seconds=1.0):
        result = run_draw(instance)
    assert result.success
    assert materialised(result) == {}
    assert _status(closed) == "CLOSED"


def test_an_entry_that_is_not_replicated_fails_the_freeze_and_the_line_says_what_is_open(
    closed: Runtime, instance: dg.DagsterInstance
) -> None:
    closed.database["entries"].delete_one({"_id": f"{CAMPAIGN}:e3"})
    result = run_draw(instance)
    assert not result.success
    assert "cannot be frozen yet: 1 missing" in failure_of(result)
    assert _status(closed) == "CLOSED"


def test_a_run_closes_a_campaign_whose_time_has_passed_before_it_freezes_it(
    runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    registered(runtime, 2, status="OPEN", autoDraw=True)
    monkeypatch.setattr(DrawRun, "commit", _broken)
    assert "frozen_pool" in materialised(run_draw(instance))
    campaign = runtime.campaigns.get(CAMPAIGN)
    assert campaign is not None
    assert [(each.to, each.reason) for each in campaign.transitions] == [
        ("CLOSED", "closesAt passed"),
        ("PROCESSING", "draw"),
    ]


@pytest.mark.parametrize(
    "campaign", [{"autoDraw": False}, {"autoDraw": True, "closesAt": "2999-01-01T00:00:00.000Z"}]
)
def test_a_campaign_that_is_open_for_good_reason_is_not_closed_by_a_run(
    runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, campaign: dict[str, Any]
) -> None:
    use(monkeypatch, runtime)
    close_campaign(runtime, entries=(), status="OPEN", **campaign)
    failure = failure_of(run_draw(instance))
    assert "a draw needs it CLOSED" in failure and "or the job `close_campaign`" in failure
    assert _status(runtime) == "OPEN"


@pytest.mark.parametrize(
    ("promise", "made"),
    [("gate_replays", STEPS[:6]), ("capacity_respected", STEPS[:6])],
)
def test_a_broken_promise_fails_the_run_before_anything_is_published(
    closed: Runtime,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    promise: str,
    made: list[str],
) -> None:
    monkeypatch.setattr(promises, promise, lambda *_asked: PromiseVerdict(False, "broken"))
    monkeypatch.setenv("REGWORKERS_SELECTION__AUTO_PUBLISH", "true")
    result = run_draw(instance)
    assert not result.success
    assert judged(result)["draw_replays" if promise == "gate_replays" else promise] is False
    assert sorted(materialised(result)) == sorted(made)
    assert closed.queue(closed.names.selection_queue).depth().total == 0


def test_a_failed_step_is_executed_again_from_the_failure_and_nothing_is_drawn_twice(
    closed: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {"dagster/partition": CAMPAIGN}

    with monkeypatch.context() as patch:
        patch.setattr(DrawRun, "rank", _broken)
        first = dg.execute_job(dg.reconstructable(draw_job), instance, tags=tags, raise_on_error=False)
        assert not first.success
    before = closed.objects.get_bytes(f"draws/{CAMPAIGN}/phase-1/manifest.json")

    again = dg.execute_job(
        dg.reconstructable(draw_job),
        instance,
        tags=tags,
        reexecution_options=dg.ReexecutionOptions.from_failure(first.run_id, instance),
    )

    assert again.success
    started = [event.step_key for event in again.all_events if event.event_type_value == "STEP_START"]
    assert started[0] == "ranking", "the steps before it stand"
    assert closed.objects.get_bytes(f"draws/{CAMPAIGN}/phase-1/manifest.json") == before


def _broken(_run: DrawRun) -> None:
    raise OSError("no space left")


def draw_job() -> dg.JobDefinition:
    return job("draw")


def test_a_retry_takes_the_document_of_the_operations_manual(
    runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    confirmed(runtime, result({"berlin": 1}), ["berlin"])
    publish(runtime)
    add_codes(runtime, "berlin", 1)
    config = {"campaignId": CAMPAIGN, "marketId": "berlin"}
    retried = job("retry_market_selection").execute_in_process(instance=instance, run_config=config)
    assert plain(observed(retried)["publication"].metadata)["queued"] == 1


def test_a_broken_promise_about_codes_fails_the_run_that_checks_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    confirmed(runtime, result({"berlin": 2}), ["berlin"])
    add_codes(runtime, "berlin", 2)
    publish(runtime)
    _drain("process_selections", "selections")
    runtime.database["codes"].update_one({"position": 1}, {"$set": {"ref": "another-ref"}})

    checked = job("check_selection").execute_in_process(raise_on_error=False)

    assert not checked.success, "an exit code and a run alert tell"
    assert judged(checked) == {
        "codes_and_winners_biject": False,
        "codes_within_capacity": True,
        # The winner whose code another fan holds has none.
        "counts_match": False,
    }
    assert f"{CAMPAIGN}: not one to one: differ 1" in failure_of(checked)
    record = runtime.draws.get(CAMPAIGN)
    assert record is not None and record.phases[1].judged["passed"] is False


def test_a_draw_that_waits_for_its_round_ends_green_as_waiting_and_its_sensor_resumes_it_when_it_is_due(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    use(monkeypatch, runtime, REGWORKERS_SELECTION__BEACON="{}")
    registered(runtime)
    beacon = OwnBeacon(time.time)
    monkeypatch.setattr(Runtime, "beacon", property(lambda _runtime: beacon))

    with taken_for_signatures():
        first = run_draw(instance)

    assert first.success, failure_of(first)
    assert sorted(materialised(first)) == sorted(STEPS[:3])
    # What has been committed to can be read, and published, from then on.
    committed = plain(materialised(first)["commitment"].metadata)
    said = plain(observed(first)["seed"].metadata)
    assert committed["manifestHash"] == said["manifestHash"] and committed["publishedAt"]
    assert "`watch_campaigns` continues then" in said["waiting"] and said["dueAt"] in said["waiting"]
    record = runtime.draws.get(CAMPAIGN)
    assert record is not None and record.latest.round_due is not None

    def tick(now: float) -> dg.SensorResult:
        monkeypatch.setattr(campaigns.time, "time", lambda: now)
        context = dg.build_sensor_context(instance=instance, sensor_name="watch_campaigns")
        answer = campaigns.campaigns_tick(context)
        assert isinstance(answer, dg.SensorResult)
        return answer

    early = tick(record.latest.round_due - 1)
    assert not early.run_requests
    assert "waits for its round of the beacon, due in 1 s" in str(early.skip_reason)
    (request,) = tick(record.latest.round_due + 1).run_requests or ()
    assert (request.job_name, request.partition_key) == ("draw", CAMPAIGN)
