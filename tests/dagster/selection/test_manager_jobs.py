"""A campaign from its creation to its annulment by jobs alone, as its manager launches them; and that Dagster, which
keeps everything of a run, has no mail, no name and no code afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import structlog

from fairdraw.log.trust import Trust
from fairdraw.proof.check import check_confirmation, check_receipt
from fairdraw.proof.checker import State
from fairdraw.proof.opening_audit import audit
from fairdraw.verifier.assemble import verifier_page
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.keys import EntryKey
from regworkers_core.eligibility.invites.stored import check_invite
from regworkers_core.operations import downloads, uploads
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.public.source import in_bucket
from regworkers_dagster.metadata import table
from regworkers_local.platform import Platform
from tests.dagster.selection.world import failure_of, materialised, observed, run_draw
from tests.dagster.support import job, plain, use
from tests.selection.draw.world import ref_of
from tests.support.beacon import OWN, SETTINGS
from tests.support.campaigns import create
from tests.support.drains import replicate_all
from tests.support.entries import key, put
from tools.demo.leaks import exactly, find_leaks, in_files

pytestmark = pytest.mark.namespace("module")

CAMPAIGN = "spring"
OLD = "2026-01-15T00:00:00.000Z"
QUICK = {"idle_seconds": 0.1, "max_seconds": 20.0}
FORM = {
    "campaign_id": CAMPAIGN,
    "name": "Spring Tour",
    "opens_at": "2026-01-01T00:00:00Z",
    "closes_at": "2099-12-31T18:00:00+01:00",
    "capacities": {"berlin": 4, "paris": 2},
    "reserves": {"berlin": {"loyal": 1}},
}
PLANTED = {
    "mail": "planted.manager@quixilla-mail.example",
    "mangled mail": "planted.mangled",
    "code": "QUIXCODE-7F3C",
    "wrong code": "QUIX CODE 91C4",
    "last name": "Zandervögtsson",
}


class Manager:
    """Who launches jobs over files that were uploaded, and reads what the runs say."""

    def __init__(self, runtime: Runtime, instance: dg.DagsterInstance) -> None:
        self.runtime, self.instance = runtime, instance

    def upload(self, name: str, *lines: str) -> str:
        return uploads.put(self.runtime, name, "\n".join(lines).encode())

    def launches(self, name: str, /, **config: Any) -> dg.ExecuteInProcessResult:
        return job(name).execute_in_process(instance=self.instance, run_config=config, raise_on_error=False)

    def does(self, name: str, /, **config: Any) -> dict[str, Any]:
        """The metadata of a launch that ends well."""
        result = self.launches(name, **config)
        assert result.success, failure_of(result)
        return _said(result)

    def drains(self, name: str, op: str) -> dict[str, Any]:
        result = job(name).execute_in_process(
            instance=self.instance, run_config={"ops": {op: {"config": QUICK}}}
        )
        # Without work an asset is left as it was.
        made = list(materialised(result).values())
        return plain(made[0].metadata) if made else {}

    def opens(self, path: str) -> bytes:
        """What a link in the metadata shows."""
        page = downloads.open_page(self.runtime, path)
        assert page is not None, path
        return page.body.read()

    def status(self) -> str:
        campaign = self.runtime.campaigns.get(CAMPAIGN)
        assert campaign is not None
        return campaign.status.value


def _said(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the run; of a failed one, that of its failure."""
    outputs = [event.step_output_data for event in result.all_events if event.is_successful_output]
    if outputs:
        return plain(outputs[-1].metadata)
    (failed,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return plain(failed.user_failure_data.metadata)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """With storage and compute logs in files, as the real one."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder), overrides={"telemetry": {"enabled": False}}) as made:
        yield made


@pytest.fixture
def manager(
    runtime: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    use(monkeypatch, runtime, REGWORKERS_OBSERVABILITY__LOG_LEVEL="DEBUG")
    yield Manager(runtime, instance)
    structlog.reset_defaults()


def _fans_register(runtime: Runtime, fans: int) -> None:
    for number in range(fans):
        put(
            runtime,
            key(f"e{number}", CAMPAIGN),
            ref=ref_of(number),
            lastName=PLANTED["last name"],
            markets=["berlin", "paris"],
            createdAt=OLD,
            updatedAt=OLD,
        )
    replicate_all(runtime)


def _codes(market: str, number: int) -> list[str]:
    return ["code,marketId", *(f"{PLANTED['code']}-{market}-{each},{market}" for each in range(number))]


@pytest.mark.slow
def test_a_whole_campaign_needs_no_terminal_and_dagster_keeps_no_mail_no_name_and_no_code_of_it(
    manager: Manager, runtime: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    created = manager.does("create_campaign", **FORM)
    assert (created["status"], created["seats"]) == ("DRAFT", 6)
    assert manager.instance.get_dynamic_partitions("campaigns") == [CAMPAIGN]

    invites = manager.upload("invites.csv", "email", PLANTED["mail"], PLANTED["mangled mail"])
    invited = manager.launches("upload_invites", campaign_id=CAMPAIGN, key=invites, ttl="400")
    assert "1 of 2 lines are rejected" in failure_of(invited)
    assert check_invite(runtime, CAMPAIGN, InviteType.EMAIL, PLANTED["mail"]).invited
    gone = manager.upload("invites.csv", "email", PLANTED["mail"])
    assert manager.does("remove_invites", campaign_id=CAMPAIGN, upload=gone)["would remove"] == 1
    assert check_invite(runtime, CAMPAIGN, InviteType.EMAIL, PLANTED["mail"]).invited, "a dry run"
    manager.does("remove_invites", campaign_id=CAMPAIGN, upload=gone, confirm=CAMPAIGN)
    assert not check_invite(runtime, CAMPAIGN, InviteType.EMAIL, PLANTED["mail"]).invited

    codes = manager.upload("codes.csv", *_codes("berlin", 6), PLANTED["wrong code"] + ",berlin")
    dry = manager.launches("import_codes", campaign_id=CAMPAIGN, upload=codes, dry_run=True)
    assert "1 of 7 rows are rejected" in failure_of(dry)
    assert "all others would be added" in failure_of(dry) and not runtime.codes.count(CAMPAIGN)
    manager.launches("import_codes", campaign_id=CAMPAIGN, upload=codes)
    paris = manager.upload("codes.csv", *_codes("paris", 4))
    assert manager.does("import_codes", campaign_id=CAMPAIGN, upload=paris)["added"] == 4
    leaked = manager.upload("leaked.csv", "code", f"{PLANTED['code']}-berlin-0")
    void = {"campaign_id": CAMPAIGN, "reason": "leaked"}
    assert manager.does("void_codes", upload=leaked, **void)["outcomes"] == {"would be void": 1}
    manager.does("void_codes", upload=leaked, confirm=CAMPAIGN, **void)
    by_place = {"market_id": "berlin", "positions": [2], "confirm": CAMPAIGN}
    assert manager.does("void_codes", **by_place, **void)["outcomes"] == {"is void now": 1}
    assert runtime.codes.count(CAMPAIGN)["berlin"] == {"AVAILABLE": 4, "VOID": 2}

    assert manager.does("open_campaign", campaign_id=CAMPAIGN)["status"] == "OPEN"
    _fans_register(runtime, 12)
    struck = manager.upload("bots.txt", f"{ref_of(0)}|BOT")
    assert manager.does("strike_entries", campaign_id=CAMPAIGN, upload=struck)["strikes"] == 1
    manager.does("strike_entries", campaign_id=CAMPAIGN, upload=struck, apply=True)
    assert manager.does("close_campaign", campaign_id=CAMPAIGN, reason="sold out")["changed"]

    drawn = run_draw(manager.instance, partition=CAMPAIGN)
    assert drawn.success, failure_of(drawn)
    assert (
        'launch `confirm_draw` with confirm: "spring:1"'
        in plain(observed(drawn)["publication"].metadata)["awaiting"]
    )
    report = plain(materialised(drawn)["draw_report"].metadata)
    assert b"<h1>Draw report: Spring Tour, phase 1</h1>" in manager.opens(report["open"])
    assert f"{ref_of(0)}|BOT\n".encode() == runtime.objects.get_bytes(f"draws/{CAMPAIGN}/phase-1/strikes.txt")
    standing = manager.launches("campaign_status", campaign_id=CAMPAIGN)
    assert "waits for the confirmation" in failure_of(standing)

    refused = manager.launches("confirm_draw", confirm=CAMPAIGN)
    assert "<campaignId>:<phase>" in failure_of(refused)
    assert manager.does("confirm_draw", confirm=f"{CAMPAIGN}:1")["state"] == "done"
    assert manager.drains("process_selections", "selections")["written"] == 6
    assert manager.status() == "COMPLETED"

    manager.does("pause_notifications", campaign_id=CAMPAIGN, reason="a wrong date in the text")
    assert manager.drains("send_notifications", "notifications") == {}
    assert f"{CAMPAIGN} is paused" in failure_of(
        manager.launches("notifications_status", campaign_id=CAMPAIGN)
    )
    manager.does("resume_notifications", campaign_id=CAMPAIGN, reason="it is right now")
    assert manager.drains("send_notifications", "notifications")["sent"] == 11
    assert manager.does("notifications_status")["sent"] == 11

    receipt = manager.does("make_receipt", campaign_id=CAMPAIGN, entry="e5")
    data = manager.opens(receipt["receipt-data"])
    assert receipt["verdict"] == check_receipt(data).verdict == "incomplete"
    assert "no file of trusted keys" in receipt["said"]
    assert manager.opens(receipt["receipt"]) == verifier_page(data)
    assert "WINNER" not in str(receipt), "neither is what became of the entry in Dagster"
    result = runtime.objects.get_bytes(f"draws/{CAMPAIGN}/phase-1/result.txt").decode().splitlines()
    bot = next(line.split("|")[0] for line in result if line.split("|")[1] == "berlin")
    later = manager.upload("bots.txt", f"{bot}|BOT")
    more = {
        "campaign_id": CAMPAIGN,
        "capacities": {"paris": 3},
        "reason": "a larger hall",
    }
    done = manager.launches("top_up", strikes=later, **more)
    assert {"frozen_pool", "ranking", "draw", "draw_report"} <= materialised(done).keys()
    topped = _said(done)
    assert (topped["phase"], topped["confirm"]) == (2, f"{CAMPAIGN}:2") and "`confirm_draw`" in topped["said"]
    manager.does("confirm_draw", confirm=f"{CAMPAIGN}:2")
    short = manager.launches("campaign_status", campaign_id=CAMPAIGN)
    assert "market berlin needs 1 codes and has 0" in failure_of(short)
    one = manager.upload("codes.csv", "code", f"{PLANTED['code']}-berlin-late")
    late = manager.does("import_codes", campaign_id=CAMPAIGN, upload=one, market_id="berlin")
    assert late["resumed"]["berlin"]["queued"] == 1, "the market goes on by itself"
    manager.drains("process_selections", "selections")
    manager.drains("send_notifications", "notifications")
    status = manager.launches("campaign_status", campaign_id=CAMPAIGN)
    assert status.success, failure_of(status)

    struck = manager.launches("block_struck_codes", campaign_id=CAMPAIGN)
    assert "codes have to be blocked by their issuer" in failure_of(struck)
    assert bot.encode() in manager.opens(_said(struck)["struck-codes"])
    shown = manager.does("annul_draw", campaign_id=CAMPAIGN)
    assert (shown["confirm"], "annulled" in shown) == (f"{CAMPAIGN}:2", False)
    void = {"campaign_id": CAMPAIGN, "reason": "a wrong list"}
    annulled = manager.launches("annul_draw", confirm=f"{CAMPAIGN}:2", **void)
    assert "block_struck_codes" in failure_of(annulled)
    manager.does("block_struck_codes", confirm=CAMPAIGN, **void)

    actions = runtime.operator_actions.history()
    recorded = {action.what for action in actions if action.target.startswith(CAMPAIGN)}
    assert recorded >= {
        "campaign create",
        "codes import",
        "codes void",
        "draw strike",
        "draw confirm",
        "draw top-up",
    }
    assert [action.what for action in actions].count("draw annul") == 1, "the look at it changed nothing"
    assert {action.outcome for action in actions} <= {"done", "failed"}
    said = capfd.readouterr()
    (tmp_path / "logs").write_text(said.out + said.err)
    assert "import_codes" in said.err + said.out, "the logs were looked at"
    assert find_leaks(in_files(tmp_path), exactly(PLANTED)) == []


def test_fans_see_before_the_draw_that_they_are_in_the_list_and_the_draw_answers_for_it(
    manager: Manager, runtime: Runtime, tmp_path: Path
) -> None:
    manager.does("create_campaign", **FORM, registration_log=True)
    manager.does("import_codes", campaign_id=CAMPAIGN, upload=manager.upload("b.csv", *_codes("berlin", 4)))
    manager.does("import_codes", campaign_id=CAMPAIGN, upload=manager.upload("p.csv", *_codes("paris", 2)))
    manager.does("open_campaign", campaign_id=CAMPAIGN)
    _fans_register(runtime, 8)
    assert manager.drains("log_registrations", "register")["registered"] == 8
    manager.drains("publish_events", "publish")
    platform = Platform(runtime, tmp_path / "confirmations")
    assert platform.confirm() == 8
    confirmation = platform.path(EntryKey(CAMPAIGN, "e5")).read_bytes()
    place, trust = in_bucket(runtime.objects), Trust({OWN.chain.hash: int(SETTINGS["lead_seconds"])})
    PublicLog.of(runtime).publish()
    seen = check_confirmation(confirmation, place, trust)
    assert seen.result is not None and seen.result.since.startswith("in the list since")
    proven = manager.does("prove_registration", campaign_id=CAMPAIGN, entry="e5")
    assert manager.opens(proven["confirmation"]) == confirmation and ref_of(5) not in str(proven)
    status = manager.does("registrations_status", campaign_id=CAMPAIGN)
    assert "8" in str(status["registrations"]) and status["campaigns"] == 1

    manager.does("close_campaign", campaign_id=CAMPAIGN, reason="sold out")
    drawn = run_draw(manager.instance, partition=CAMPAIGN)
    assert drawn.success, failure_of(drawn)
    manager.does("confirm_draw", confirm=f"{CAMPAIGN}:1")
    receipt = manager.does("make_receipt", campaign_id=CAMPAIGN, entry="e5")
    checked = check_receipt(manager.opens(receipt["receipt-data"]), trust)
    assert {each.name: each.state for each in checked.checks}["registration"] is State.PASSED
    opened = manager.does("open_registrations", campaign_id=CAMPAIGN)
    lines = manager.opens(opened[f"opening-{CAMPAIGN}"]).splitlines()
    assert audit(lines, place, CAMPAIGN).findings == () and opened["drawn"] == 8
    assert ref_of(5) not in str(opened)


def test_what_is_wrong_with_an_uploaded_file_names_it_as_it_was_handed_in(
    manager: Manager, runtime: Runtime
) -> None:
    create(runtime)

    def said(job: str, name: str, *lines: str) -> str:
        config = {"campaign_id": "summer"} if job == "import_codes" else {}
        return failure_of(manager.launches(job, upload=manager.upload(name, *lines), **config))

    nothing = manager.launches("import_codes", campaign_id="summer", upload="codes.csv")
    assert "the upload form returned" in failure_of(nothing)
    assert said("create_campaign", "tour.yml", "a: [").startswith("tour.yml: not valid YAML")
    assert "with market_id" in said("import_codes", "codes.csv", "code", "A-1")
    assert said("import_codes", "codes.csv", "kode,x", "A-1,y").startswith("codes.csv: ")


def test_a_cell_of_a_table_cannot_break_it() -> None:
    shown = table(("a", "b"), [("x|y", None)])
    assert shown is not None and shown.value == "| a | b |\n| --- | --- |\n| x\\|y |  |"
    assert table(("a",), []) is None
