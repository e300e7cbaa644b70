"""Who says that a result may go out: somebody who types the campaign's id, or the settings."""

from __future__ import annotations

from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.status import read_campaign_status
from regworkers_core.selection.draw.gate import GateFinding, NotAccepted
from tests.selection.draw.world import CAMPAIGN, close_campaign, draw


def test_where_the_settings_say_so_a_draw_goes_out_without_a_word(runtime: Runtime) -> None:
    close_campaign(runtime)
    selection = runtime.settings.selection.model_copy(update={"auto_publish": True})
    automatic = Runtime(runtime.settings.model_copy(update={"selection": selection}))
    *_, report, publication = draw(automatic).steps(None)
    automatic.mongo.close()
    assert (report.name, publication.name, publication.state) == ("report", "publish", "done")
    record = runtime.draws.get(CAMPAIGN)
    assert record is not None and record.latest.fields["confirmedBy"] == "settings"
    assert runtime.queue(runtime.names.selection_queue).depth().total > 0


def test_what_accepts_a_finding_is_named_for_the_terminal_and_for_the_launchpad() -> None:
    left = [GateFinding("late_commit", "too late"), GateFinding("reconcile", "1 ahead")]
    said = str(NotAccepted(CAMPAIGN, 1, left))
    assert "`--accept-finding late_commit --accept-finding reconcile --reason TEXT` in a terminal" in said
    assert "`accept: [late_commit, reconcile]` and `reason` in the job `confirm_draw`" in said


def test_the_status_names_the_job_for_a_finding_that_can_be_accepted_and_none_for_another(
    runtime: Runtime,
) -> None:
    close_campaign(runtime)
    list(draw(runtime).steps())
    found = [GateFinding("late_commit", "too late").as_fields(), GateFinding("codes", "taken").as_fields()]
    runtime.database["draws"].update_one({}, {"$set": {"phases.1.gate.findings": found}})
    told = read_campaign_status(runtime, runtime.campaigns.require(CAMPAIGN)).findings
    assert {
        name: each.job for each in told for name in ("late_commit", "codes") if f"found {name}:" in each.text
    } == {"late_commit": "confirm_draw", "codes": ""}
