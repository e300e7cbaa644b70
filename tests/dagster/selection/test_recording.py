"""What was done in a terminal shows in the UI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.changes import annul
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS
from regworkers_dagster.selection import recording, specs
from tests.dagster.support import job, plain
from tests.selection.draw.world import CAMPAIGN, close_campaign, draw, drawn
from tests.support.campaigns import advance_to, create
from tests.support.terminal import regworkers

pytestmark = [pytest.mark.namespace("module"), pytest.mark.usefixtures("used")]


class Sensor:
    """Ticks, and keeps what they record in the instance, as the daemon does."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.cursor = instance, ""

    def tick(self) -> dict[str, dict[str, Any]]:
        """The metadata of what was recorded, by asset; of several the last one."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor or None, sensor_name="record_campaigns"
        )
        answer: Any = recording.record_tick(context)
        self.cursor = answer.cursor
        for request in answer.dynamic_partitions_requests:
            for partition in request.partition_keys:
                self.instance.delete_dynamic_partition(request.partitions_def_name, partition)
        for event in answer.asset_events:
            self.instance.report_runless_asset_event(event)
        assert all(event.partition for event in answer.asset_events)
        return {event.asset_key.to_user_string(): plain(event.metadata) for event in answer.asset_events}


@pytest.fixture
def sensor() -> Iterator[Sensor]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Sensor(instance)


def test_a_draw_that_a_terminal_made_has_all_its_steps_in_the_ui_and_says_what_it_waits_for(
    runtime: Runtime, sensor: Sensor
) -> None:
    close_campaign(runtime)
    assert sensor.tick()["campaigns"]["status"] == "CLOSED"
    steps = draw(runtime).steps()
    assert next(step for step in steps if step.name == "allocate").state == "done"
    made = sensor.tick()
    list(steps)
    after = sensor.tick()
    assert set(after) == {"draw_report", "publication"}, "the report changes no status"
    made |= after

    assert set(made) == {"campaigns", *(spec.key.to_user_string() for spec in specs.STEPS)}
    record = runtime.draws.get(CAMPAIGN)
    assert record is not None
    assert made["commitment"]["manifestHash"] == record.latest.manifest_hash
    assert made["draw"]["resultHash"] == record.latest.result_hash
    assert made["draw_report"]["open"] == f"/reports/{CAMPAIGN}/1"
    assert f'launch `confirm_draw` with confirm: "{CAMPAIGN}:1"' in made["publication"]["awaiting"]
    assert sensor.tick() == {}, "nothing happened since"

    drawn(runtime)

    assert set(sensor.tick()) == {"publication"}
    sensor.cursor = "lost"
    assert sensor.tick() == {}, "what the event log has is not recorded again"


def test_only_what_a_command_decided_is_said_to_be_done_in_a_terminal(
    runtime: Runtime, sensor: Sensor
) -> None:
    close_campaign(runtime)
    sensor.tick()
    steps = draw(runtime).steps()
    with runtime.operator_actions.recorded("draw run", CAMPAIGN) as result:
        for step in steps:
            result[step.name] = step.state
            if step.name == "allocate":
                break
    with runtime.operator_actions.recorded("draw", CAMPAIGN) as result:
        result["report"] = next(steps).state
    list(steps)
    made = sensor.tick()
    assert made["draw"]["state"] == made["commitment"]["state"] == "done in a terminal"
    assert made["draw_report"]["state"] == "done", "a job made it"


def test_a_campaign_shows_every_change_of_its_status(runtime: Runtime, sensor: Sensor) -> None:
    create(runtime, CAMPAIGN)
    assert sensor.tick()["campaigns"]["status"] == "DRAFT"
    advance_to(runtime, CAMPAIGN, CampaignStatus.OPEN)
    assert sensor.tick()["campaigns"]["status"] == "OPEN"
    assert sensor.tick() == {}


def test_while_a_run_works_on_the_draw_its_steps_are_left_to_it(runtime: Runtime, sensor: Sensor) -> None:
    close_campaign(runtime)
    tags = {**job("draw").tags, "dagster/partition": CAMPAIGN}
    run = sensor.instance.create_run_for_job(job("draw"), tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert sensor.tick() == {}
    sensor.instance.report_run_canceled(run)
    assert set(sensor.tick()) == {"campaigns"}


def test_an_annulment_in_a_terminal_shows_in_the_ui_and_is_not_waited_for(
    runtime: Runtime, sensor: Sensor
) -> None:
    close_campaign(runtime)
    list(draw(runtime).steps())
    assert "awaiting" in sensor.tick()["publication"]
    annul(runtime, CAMPAIGN, reason="wrong list", confirm=f"{CAMPAIGN}:1", run_id="by-hand")

    made = sensor.tick()

    assert made["draw"]["annulled"].endswith("wrong list")
    assert "awaiting" not in made.get("publication", {})
    assert sensor.tick() == {}


def test_campaigns_whose_draw_is_at_work_keep_no_other_one_waiting(runtime: Runtime, sensor: Sensor) -> None:
    for number in range(6):
        create(runtime, f"campaign-{number}")
        if number < 5:
            tags = {**job("draw").tags, "dagster/partition": f"campaign-{number}"}
            sensor.instance.create_run_for_job(job("draw"), tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert _recorded(sensor) == {"campaign-5"}


def test_many_campaigns_are_looked_at_over_several_ticks(runtime: Runtime, sensor: Sensor) -> None:
    for number in range(7):
        create(runtime, f"campaign-{number}")
    first, second = _recorded(sensor), _recorded(sensor)
    assert (len(first), len(second), len(first | second)) == (5, 2, 7)


def _recorded(sensor: Sensor) -> set[str]:
    context = dg.build_sensor_context(
        instance=sensor.instance, cursor=sensor.cursor or None, sensor_name="record_campaigns"
    )
    answer: Any = recording.record_tick(context)
    sensor.cursor = answer.cursor
    return {event.partition for event in answer.asset_events}


def test_what_a_terminal_did_with_codes_and_invites_shows_on_their_assets(
    runtime: Runtime, sensor: Sensor, tmp_path: Path
) -> None:
    create(runtime, CAMPAIGN, slug="hot-summer")
    sensor.tick()
    codes, invites = tmp_path / "codes.csv", tmp_path / "invites.csv"
    codes.write_text("code\nA-1\nA-2\nA-3\n")
    invites.write_text("email\nada@example.com\n")
    words = ("--campaign", CAMPAIGN, "--market", "berlin")
    assert regworkers(runtime, "codes", "import", str(codes), *words).code == 0
    shown = sensor.tick()["codes"]
    assert (shown["command"], shown["outcome"], shown["added"]) == ("codes import", "done", 3)
    # By its slug, and recorded under its id.
    assert regworkers(runtime, "invites", "upload", "hot-summer", "email", str(invites)).code == 0
    shown = sensor.tick()["invites"]
    assert (shown["command"], shown["added"]) == ("invites upload", 1)
    assert (
        regworkers(
            runtime, "invites", "remove", "hot-summer", "email", "ada@example.com", "--apply", "--yes"
        ).code
        == 0
    )
    assert sensor.tick()["invites"]["removed"] == 1


def test_an_action_is_recorded_once_it_has_ended_and_never_twice(runtime: Runtime, sensor: Sensor) -> None:
    create(runtime, CAMPAIGN)
    sensor.tick()
    actions = runtime.operator_actions
    with actions.recorded("codes import", CAMPAIGN, {"market": "berlin"}) as result:
        assert "codes" not in sensor.tick(), "it has not ended"
        result |= {"imported": 3, "file": "codes.csv"}
    shown = sensor.tick()["codes"]
    assert (shown["command"], shown["outcome"], shown["imported"]) == ("codes import", "done", 3)
    assert "file" not in shown
    with actions.recorded("import_codes", CAMPAIGN, {"runId": "r"}):
        pass
    with actions.recorded("codes void", "no-campaign"):
        pass
    assert sensor.tick() == {}, "a job records its own, and nothing is said twice"


@pytest.mark.parametrize("annulled", [False, True])
def test_a_draw_under_rules_that_are_gone_whose_files_cannot_be_read_hides_no_other_campaign(
    runtime: Runtime, sensor: Sensor, annulled: bool
) -> None:
    close_campaign(runtime)
    create(runtime, "winter")
    secret = '{"kind":"commit-reveal","randomness":"ab","round":0,"seed":"cd","signature":null}'
    seeded = {"phase": 1, "status": "SEEDED", "terms": {"strikes": []}, "seedFile": secret}
    why = {"annulledAt": "2026-03-01T00:00:00.000Z", "phase": 1, "reason": "other rules"}
    runtime.database["draws"].insert_one(
        {
            "_id": CAMPAIGN,
            "campaignId": CAMPAIGN,
            "drawId": CAMPAIGN,
            "token": 1,
            "phases": {"1": seeded},
            **({"annulled": why} if annulled else {}),
        }
    )
    sensor.tick()
    known = sensor.instance.get_materialized_partitions(specs.CAMPAIGNS.key)
    assert known == {CAMPAIGN, "winter"}


def test_a_correction_in_a_terminal_shows_in_the_ui_and_a_deleted_draft_leaves_it(
    runtime: Runtime, sensor: Sensor
) -> None:
    create(runtime)
    create(runtime, "wrong")
    assert sensor.tick()["campaigns"]["status"] == "DRAFT"
    assert sensor.tick() == {}
    assert regworkers(runtime, "campaign", "amend", "summer", "--name", "Autumn", "--apply").code == 0
    made = sensor.tick()["campaigns"]
    assert made["name"] == "Autumn" and made["corrected"]
    assert sensor.tick() == {}, "nothing happened since"
    partitions = str(CAMPAIGN_PARTITIONS.name)
    sensor.instance.add_dynamic_partitions(partitions, ["summer", "wrong"])
    assert regworkers(runtime, "campaign", "delete", "wrong", "--apply", "--yes").code == 0
    assert sensor.tick() == {}
    assert sensor.instance.get_dynamic_partitions(partitions) == ["summer"]
