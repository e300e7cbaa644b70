"""What the sensors of the selection do with what they read."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
import orjson
import pytest

from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import held_lease
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import decide, is_logged
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_dagster.selection import automation, campaigns
from tests.dagster.support import job, plain
from tests.support.campaigns import create
from tests.support.drains import run
from tests.support.draws import CAMPAIGN, add_codes, confirmed, publish, result

Tick = Any
PAST, LONG_AGO = "2026-02-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z"


def _campaign(runtime: Runtime, status: str, **changes: Any) -> None:
    create(runtime, CAMPAIGN, opensAt=LONG_AGO, closesAt=PAST, **changes)
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"status": status}})


def _said(answer: Any) -> str:
    if isinstance(answer, dg.SkipReason):
        return str(answer.skip_message)
    return str(answer.skip_reason.skip_message) if answer.skip_reason else ""


def _run_of(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, name: str = "draw", **tags: str
) -> None:
    tags = tags or {"dagster/partition": CAMPAIGN}
    instance.create_run_for_job(job(name), tags={**job(name).tags, **tags}, status=status)


def _materialize(instance: dg.DagsterInstance, *names: str) -> None:
    """A run at work of *Materialize*, as the UI starts it."""
    chosen = frozenset(dg.AssetKey(name) for name in names)
    instance.create_run_for_job(
        job("__ASSET_JOB").get_subset(asset_selection=chosen),
        tags={"dagster/partition": CAMPAIGN},
        asset_selection=chosen,
        status=dg.DagsterRunStatus.STARTED,
    )


def _added(answer: Any) -> list[str]:
    return [key for request in answer.dynamic_partitions_requests for key in request.partition_keys]


# Campaigns


@pytest.mark.parametrize("status", ["OPEN", "CLOSED"])
def test_a_campaign_whose_time_is_over_gets_its_partition_and_its_draw(
    tick: Tick, runtime: Runtime, status: str
) -> None:
    _campaign(runtime, status, autoDraw=True)
    answer = tick(campaigns.campaigns_tick)
    assert _added(answer) == [CAMPAIGN]
    *logging, request = answer.run_requests
    assert [each.job_name for each in logging] == (["log_campaigns"] if status == "OPEN" else [])
    assert (request.job_name, request.partition_key, request.run_key) == ("draw", CAMPAIGN, None)
    found = runtime.campaigns.get(CAMPAIGN)
    assert found is not None and found.status == status, "a tick changes nothing"


def test_without_auto_draw_a_campaign_is_left_to_its_manager(tick: Tick, runtime: Runtime) -> None:
    for status in ("OPEN", "CLOSED"):
        _campaign(runtime, status)
        started = [each.job_name for each in tick(campaigns.campaigns_tick).run_requests]
        assert started == ["log_campaigns"] * (status == "OPEN")
        runtime.database["campaigns"].delete_many({})


def test_an_open_campaign_that_the_log_lacks_is_logged_by_one_run_and_again_after_a_change(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    create(runtime, CAMPAIGN)
    assert not tick(campaigns.campaigns_tick).run_requests, "a draft promises nothing yet"
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"status": "OPEN"}})
    for number in (1, 2):
        (request,) = tick(campaigns.campaigns_tick).run_requests
        assert (request.job_name, request.run_key) == ("log_campaigns", None)
        done = job("log_campaigns").execute_in_process(instance=instance, run_config=request.run_config)
        assert done.success and is_logged(runtime, runtime.campaigns.require_id(CAMPAIGN))
        assert not tick(campaigns.campaigns_tick).run_requests
        log = PublicLog.of(runtime).read()
        assert log is not None and log.size == number
        runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"name": f"name {number}"}})
    _run_of(instance, dg.DagsterRunStatus.STARTED, "log_campaigns")
    assert not tick(campaigns.campaigns_tick).run_requests, "a run is at work"


def test_a_change_that_the_log_can_never_have_fails_one_run_and_starts_no_other(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _campaign(runtime, "OPEN", eventId="tour")
    decide(runtime, CAMPAIGN)
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"eventId": "another"}})
    (request,) = tick(campaigns.campaigns_tick).run_requests
    log = job("log_campaigns")
    done = log.execute_in_process(instance=instance, run_config=request.run_config, raise_on_error=False)
    assert not done.success
    assert not tick(campaigns.campaigns_tick).run_requests
    # A run for another campaign succeeds, and names the finding.
    again = log.execute_in_process(instance=instance, run_config=request.run_config)
    assert again.success and not tick(campaigns.campaigns_tick).run_requests


def test_a_campaign_is_a_partition_from_its_draft_on_so_that_it_can_be_chosen_in_the_ui(
    tick: Tick, runtime: Runtime
) -> None:
    create(runtime, CAMPAIGN)
    # Replicated under such an id, and never drawn: Dagster takes no such partition.
    runtime.database["campaigns"].insert_one(
        {**runtime.database["campaigns"].find_one({"_id": CAMPAIGN}), "_id": "a...b", "slug": "other"}
    )
    assert _added(tick(campaigns.campaigns_tick)) == [CAMPAIGN]


def test_a_partition_that_is_there_is_not_added_again(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _campaign(runtime, "CLOSED")
    instance.add_dynamic_partitions("campaigns", [CAMPAIGN])
    assert not tick(campaigns.campaigns_tick).dynamic_partitions_requests


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED])
def test_a_draw_with_a_run_at_work_is_not_started_again(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    _campaign(runtime, "CLOSED", autoDraw=True)
    _run_of(instance, status)
    answer = tick(campaigns.campaigns_tick)
    assert not answer.run_requests
    assert "a run is active" in _said(answer)


def test_a_preview_of_a_campaign_holds_up_no_draw(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _campaign(runtime, "CLOSED", autoDraw=True)
    _run_of(instance, dg.DagsterRunStatus.STARTED, "eligibility_report")
    _materialize(instance, "eligibility_report")
    (request,) = tick(campaigns.campaigns_tick).run_requests
    assert (request.job_name, request.partition_key) == ("draw", CAMPAIGN)


@pytest.mark.parametrize("names", [("ranking",), ("eligibility_report", "frozen_pool"), ("publication",)])
def test_a_step_that_is_materialised_by_itself_is_a_run_of_the_draw(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance, names: tuple[str, ...]
) -> None:
    _campaign(runtime, "CLOSED", autoDraw=True)
    _materialize(instance, *names)
    # More than a tick requests, and newer.
    for _ in range(6):
        _run_of(instance, dg.DagsterRunStatus.STARTED, "campaign_funnel")
    answer = tick(campaigns.campaigns_tick)
    assert not answer.run_requests and "a run is active" in _said(answer)


def test_a_run_that_was_killed_and_never_marked_as_ended_is_not_waited_for_for_ever(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _campaign(runtime, "PROCESSING")
    run = instance.create_run_for_job(
        job("draw"), tags={"dagster/partition": CAMPAIGN}, status=dg.DagsterRunStatus.STARTING
    )
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "draw"), run_id=run.run_id
    )
    assert campaigns.draw_runs(instance, CAMPAIGN, time.time()).active
    assert not campaigns.draw_runs(instance, CAMPAIGN, time.time() + 700.0).active


def test_a_draw_that_an_operator_terminated_waits_for_an_operator(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _campaign(runtime, "CLOSED", autoDraw=True)
    _run_of(instance, dg.DagsterRunStatus.CANCELED)
    assert "terminated" in _said(tick(campaigns.campaigns_tick))


def test_a_campaign_stuck_in_processing_is_resumed_once_its_lease_is_unchanged(
    tick: Tick, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    _campaign(runtime, "PROCESSING")
    with held_lease(runtime.leases, lease_name(CAMPAIGN), "dead", lease_seconds=1000.0):
        first = tick(campaigns.campaigns_tick)
        assert not first.run_requests and "holds its lease" in _said(first)
        (marks,) = orjson.loads(first.cursor).values()
        earlier = orjson.dumps({CAMPAIGN: [marks[0], marks[1] - 1000.0]}).decode()
        (request,) = tick(campaigns.campaigns_tick, earlier).run_requests
    assert (request.job_name, request.partition_key) == ("draw", CAMPAIGN)


def test_a_draw_under_rules_that_are_gone_is_named_and_not_run_and_other_campaigns_go_on(
    tick: Tick, runtime: Runtime
) -> None:
    _campaign(runtime, "PROCESSING")
    frozen = {"phase": 1, "status": "FROZEN", "terms": {"strikes": []}}
    runtime.database["draws"].insert_one(
        {"_id": CAMPAIGN, "campaignId": CAMPAIGN, "drawId": CAMPAIGN, "token": 1, "phases": {"1": frozen}}
    )
    alone = tick(campaigns.campaigns_tick)
    assert not alone.run_requests
    assert f"the draw of {CAMPAIGN} was frozen under the rules vf1" in _said(alone)
    create(runtime, "winter", opensAt=LONG_AGO, closesAt=PAST, autoDraw=True)
    runtime.database["campaigns"].update_one({"_id": "winter"}, {"$set": {"status": "CLOSED"}})
    (request,) = tick(campaigns.campaigns_tick).run_requests
    assert (request.job_name, request.partition_key) == ("draw", "winter")


@pytest.mark.parametrize("cursor", [None, "not json", "[1]", '{"summer": 3}', '{"summer": ["a", "b"]}'])
def test_a_damaged_cursor_costs_one_lease_time_at_most(cursor: str | None) -> None:
    assert campaigns.lease_marks(cursor) == {}


def test_a_phase_that_completed_is_checked_until_it_was_judged_whatever_runs_a_client_has_launched(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _publish(runtime, codes=2)
    run(runtime, "selections")
    runtime.database["campaigns"].update_one({"_id": CAMPAIGN}, {"$set": {"status": "COMPLETED"}})
    used = {"dagster/sensor_name": "a_sensor", "dagster/run_key": f"{CAMPAIGN}:1"}
    instance.add_run(dg.DagsterRun(job_name="campaign_status", tags=used))
    (seen,) = read_campaigns(runtime)
    assert seen.unjudged_since
    (request,) = tick(campaigns.campaigns_tick).run_requests
    assert (request.job_name, request.run_key) == ("check_selection", None)
    running = dg.DagsterRun(job_name="check_selection", tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    instance.add_run(running)
    assert not tick(campaigns.campaigns_tick).run_requests
    instance.delete_run(running.run_id)

    checked = job(request.job_name).execute_in_process(run_config=request.run_config, instance=instance)

    assert checked.success and not tick(campaigns.campaigns_tick).run_requests
    (seen,) = read_campaigns(runtime)
    assert seen.unjudged_since is None
    record = runtime.draws.get(CAMPAIGN)
    assert record is not None and record.phases[1].judged["passed"] is True


def test_an_outage_of_mongodb_is_reported_and_no_tick_fails(
    tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_MONGO__URI", "mongodb://127.0.0.1:9/")
    monkeypatch.setenv("REGWORKERS_MONGO__SERVER_SELECTION_TIMEOUT_SECONDS", "0.2")
    for function in (campaigns.campaigns_tick, campaigns.markets_tick, automation.notify_tick):
        assert "mongo" in _said(tick(function))


# Markets


def _publish(runtime: Runtime, *, codes: int) -> None:
    confirmed(runtime, result({"berlin": 2}), ["berlin"])
    add_codes(runtime, "berlin", codes)
    publish(runtime)


def _age(runtime: Runtime) -> None:
    """Publication and queueing are older than any wait."""
    runtime.database["draws"].update_one({}, {"$set": {"phases.1.releasedAt": LONG_AGO}})
    runtime.database["selection_chunks"].update_many({}, {"$set": {"queuedAt": LONG_AGO}})


def test_a_market_whose_codes_came_in_is_retried(tick: Tick, runtime: Runtime) -> None:
    _publish(runtime, codes=1)
    _age(runtime)
    assert "no market is stalled" in _said(tick(campaigns.markets_tick))
    add_codes(runtime, "berlin", 1, first=2)
    (request,) = tick(campaigns.markets_tick).run_requests
    assert request.run_config == {"campaign_id": CAMPAIGN, "market_id": "berlin"}
    assert request.tags["regworkers/market"] == f"{CAMPAIGN}:berlin:1"
    assert dg.validate_run_config(job("retry_market_selection"), request.run_config)


def test_chunks_that_got_lost_are_sent_again_but_not_while_they_wait_on_the_queue(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _publish(runtime, codes=2)
    _age(runtime)
    assert "their chunks or retries are on the way" in _said(tick(campaigns.markets_tick))
    queue = runtime.queue(runtime.names.selection_queue)
    queue.delete(queue.receive(10, 0, 30))
    (request,) = tick(campaigns.markets_tick).run_requests
    assert request.tags["regworkers/why"] == "chunks"
    _run_of(instance, dg.DagsterRunStatus.STARTED, "retry_market_selection", **request.tags)
    assert not getattr(tick(campaigns.markets_tick), "run_requests", None)


# Drains


def test_chunks_on_the_queue_start_a_drain_of_them(tick: Tick, runtime: Runtime) -> None:
    assert "0 messages wait" in _said(tick(automation.process_tick))
    _publish(runtime, codes=2)
    (request,) = tick(automation.process_tick).run_requests
    assert (request.job_name, request.tags) == ("process_selections", {"regworkers/drain": "selections"})
    assert dg.validate_run_config(job(request.job_name), request.run_config)


def test_one_sender_is_started_while_messages_may_go(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    assert "nothing in the outbox may be sent" in _said(tick(automation.notify_tick))
    _publish(runtime, codes=2)
    run(runtime, "selections")
    (request,) = tick(automation.notify_tick).run_requests
    assert (request.job_name, request.tags) == ("send_notifications", {"regworkers/drain": "notifications"})
    _run_of(instance, dg.DagsterRunStatus.STARTED, "send_notifications", **request.tags)
    assert "1 drain active" in _said(tick(automation.notify_tick))


def test_what_is_paused_starts_no_sender(tick: Tick, runtime: Runtime) -> None:
    _publish(runtime, codes=2)
    run(runtime, "selections")
    runtime.draw_markets.pause(CAMPAIGN, reason="wrong text", by="test", at=iso(runtime.clock()))
    assert "nothing in the outbox may be sent" in _said(tick(automation.notify_tick))


# Seats that pass on


def test_the_issuer_gets_codes_once_they_are_given_and_a_round_begins_unless_a_person_is_needed(
    tick: Tick, runtime: Runtime, instance: dg.DagsterInstance
) -> None:
    _publish(runtime, codes=2)
    run(runtime, "selections")
    assert "no campaign passes seats on" in _said(tick(campaigns.rounds_tick))
    database, past = runtime.database, iso(time.time() - 3 * 3600)
    terms = {"rounds": 1, "everyHours": 24}
    database["campaigns"].update_one({}, {"$set": {"passOn": terms}})
    assert "the next round is at" in _said(tick(campaigns.rounds_tick))
    released = {"phases.1.releasedAt": iso(time.time() - 25 * 3600)}
    expired = {"phases.1.markets.berlin.codesExpireAt": past}
    database["draws"].update_one({}, {"$set": {**released, **expired}})
    (request,) = tick(campaigns.rounds_tick).run_requests
    assert request.job_name == "export_codes"
    assert job("export_codes").execute_in_process(run_config=request.run_config, instance=instance).success
    assert runtime.objects.get_bytes(f"issuer/{CAMPAIGN}/codes.csv").decode().count(f",{past}\n") == 2

    def stopped() -> str:
        # No run could help; an alert says why, until the cause is gone.
        said = _said(tick(campaigns.rounds_tick))
        (seen,) = read_campaigns(runtime)
        assert seen.round_stopped in said
        return seen.round_stopped

    assert "stated all redemptions up to no time" in stopped()
    database["draws"].update_one({}, {"$set": {"redemptions": {"completeTo": past, "statedAt": past}}})
    database["codes"].update_many({}, {"$set": {"blockedAt": past}})
    assert "market berlin needs 2 fresh codes and has 0" in stopped()
    add_codes(runtime, "berlin", 2, first=3)
    (request,) = tick(campaigns.rounds_tick).run_requests
    given = {"campaign_id": CAMPAIGN, "confirm": f"{CAMPAIGN}:2"}
    assert (request.job_name, request.run_config) == ("pass_on", given)
    _run_of(instance, dg.DagsterRunStatus.STARTED, "pass_on", **request.tags)
    assert "2 seats lapse" in _said(tick(campaigns.rounds_tick)) and not stopped()


# Observing


def test_queues_and_outbox_are_observed_and_a_dead_letter_fails_its_check(
    tick: Tick, runtime: Runtime
) -> None:
    _publish(runtime, codes=2)
    runtime.queue(runtime.names.dead_letter_queue(runtime.names.selection_queue)).send([Outgoing(b"{}")])
    answer = tick(automation.observe_tick)
    seen = {
        event.asset_key.to_user_string(): plain(event.metadata)
        for event in answer.asset_events
        if isinstance(event, dg.AssetObservation | dg.AssetMaterialization)
    }
    # One chunk of berlin: the waiting list is empty, so no other fan is notified.
    assert seen["selection_queue"]["waiting"] == 1
    outbox = {"documents": 0, "dagster/row_count": 0, "markets_due": 1, "paused": 0}
    assert seen["outbox"] == outbox and seen["selections"]["dagster/row_count"] == 0
    queues = {f"{name}_{kind}" for name in ("selection", "redemption") for kind in ("queue", "dlq")}
    assert set(seen) == {*queues, "selections", "outbox", "notifications", "notification_dlq"}
    verdicts = {
        event.check_name: event.passed
        for event in answer.asset_events
        if isinstance(event, dg.AssetCheckEvaluation)
    }
    empty = {"notification_dlq_empty": True, "redemption_dlq_empty": True}
    assert verdicts == {"selection_dlq_empty": False, **empty}
