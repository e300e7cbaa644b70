"""`regworkers draw run|top-up|export`, as a campaign manager types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.domain.selection import StepState
from regworkers_core.runtime import Runtime
from regworkers_core.settings.documents import OWN_LEAD_SECONDS
from regworkers_local.beacon import write_trust
from tests.selection.draw.beacons import Clock, signature_of, taken_for_signatures, with_beacon
from tests.selection.draw.world import CAMPAIGN, close_campaign, ref_of
from tests.selection.draw.world import draw as draw_of
from tests.support.beacon import OWN
from tests.support.drains import replicate_all
from tests.support.draws import record_of
from tests.support.entries import key, put
from tests.support.terminal import regworkers
from tests.support.typing_in import Typed, at_a_terminal

pytestmark = pytest.mark.slow

SLUG = "summer-tour"
# While the campaign was open.
REGISTERED = "2026-01-15T12:00:00.000Z"
STEPS = ("freeze", "commit", "seed", "rank", "allocate", "report")


def registered(runtime: Runtime, *, codes: int) -> None:
    """A closed campaign with ten fans in the demand table and in the replica."""
    close_campaign(runtime, (), codes=codes, slug=SLUG)
    for number in range(10):
        put(runtime, key(f"e{number}"), ref=ref_of(number), createdAt=REGISTERED, updatedAt=REGISTERED)
    replicate_all(runtime)


def test_a_draw_runs_from_the_terminal_to_its_last_code_and_is_topped_up_and_verified(
    runtime: Runtime, tmp_path: Path
) -> None:
    registered(runtime, codes=10)
    unsure = regworkers(runtime, "draw", "run", CAMPAIGN)
    assert (
        unsure.code == 1
        and f"`regworkers draw run {CAMPAIGN}` prompts for {CAMPAIGN}:1 at a terminal" in unsure.stdout
    )
    assert "input from a pipe is not read" in unsure.stdout and "--yes" not in unsure.stdout
    # As soon as it is committed, apart from the answer.
    assert "phase 1: manifestHash " in unsure.stderr and "Publish this hash before" in unsure.stderr
    standing = regworkers(runtime, "campaign", "status", CAMPAIGN, "--format", "json").document["draw"]["1"]
    assert standing["manifestHash"] in unsure.stderr and standing["publishedAt"] in unsure.stderr
    shown = regworkers(runtime, "campaign", "status", CAMPAIGN).stdout
    assert (
        f"phase 1: manifestHash {standing['manifestHash']}, public since {standing['publishedAt']}" in shown
    )
    for text in ("registered", "winners", "manifestHash", "waits for summer:1"):
        assert text in unsure.stdout
    assert "steps." not in unsure.stdout and "reasons." not in unsure.stdout
    assert runtime.queue(runtime.names.selection_queue).depth().total == 0
    sure = regworkers(runtime, "draw", "run", SLUG, "--yes", "--format", "json")
    assert sure.code == 0, sure.stderr
    steps = sure.document["steps"]
    assert {name: steps[name]["state"] for name in STEPS[:-1]} == dict.fromkeys(
        STEPS[:-1], StepState.UNCHANGED
    )
    assert steps["publish"]["status"] == "COMPLETED" and sure.document["waiting"] == []
    assert runtime.database["codes"].count_documents({"status": "ASSIGNED"}) == 7
    assert runtime.campaigns.get(CAMPAIGN).status == "COMPLETED"  # type: ignore[union-attr]

    words = ("--capacity", "paris=4", "--reason", "a larger hall", "--yes", "--format", "json")
    more = regworkers(runtime, "draw", "top-up", SLUG, *words)
    assert more.code == 0 and more.document["steps"]["publish"]["phase"] == 2
    assert "knows that its terms stayed" in more.stderr and "knows that the input" in unsure.stderr
    assert runtime.database["codes"].count_documents({"status": "ASSIGNED"}) == 8
    again = regworkers(runtime, "draw", "run", CAMPAIGN, "--yes", "--format", "json")
    assert again.code == 0 and again.document["steps"]["publish"]["state"] == StepState.UNCHANGED
    assert runtime.database["codes"].count_documents({"status": "ASSIGNED"}) == 8

    folder = tmp_path / "artefacts"
    exported = regworkers(runtime, "draw", "export", SLUG, str(folder))
    assert exported.code == 0 and "21 files" in exported.stdout
    trust = tmp_path / "trust.json"
    write_trust(trust, beacon={OWN.chain.hash: {"lead": OWN_LEAD_SECONDS}})
    assert regworkers(None, "draw", "verify", str(folder), "--trust", str(trust)).code == 0


def test_who_is_asked_sees_the_report_first_and_a_wrong_word_says_what_was_expected(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    registered(runtime, codes=10)
    typed = Typed(runtime, monkeypatch, capfd)
    assert "no report yet" in typed("draw", "report", SLUG).stderr
    at_a_terminal(monkeypatch, CAMPAIGN, f"  {CAMPAIGN}:1 ")
    wrong = typed("draw", "run", CAMPAIGN)
    assert wrong.code == 1 and f"should be {CAMPAIGN}:1, found '{CAMPAIGN}'" in wrong.stdout
    for text in ("registered", "winners", "berlin", "codes", "seed source", "regworkers draw report"):
        assert text in wrong.stderr
    assert runtime.queue(runtime.names.selection_queue).depth().total == 0

    report = typed("draw", "report", SLUG, "--save", str(tmp_path), "--format", "json")
    assert report.code == 0 and report.document["funnel"]["registered"] == 10
    assert "<html" in (tmp_path / "report.html").read_text("utf-8")
    shown = typed("draw", "report", CAMPAIGN, "--phase", "1").stdout
    (berlin,) = [line for line in shown.splitlines() if "berlin" in line and "seed" not in line]
    assert [cell.strip() for cell in berlin.split("│")[1:-1]] == ["berlin", "4", "4", "4", "10", "0"]
    answer = typed("draw", "report", CAMPAIGN, "--phase", "2")
    assert answer.code == 2 and "no report of phase 2: there are 1" in answer.stderr

    right = typed("draw", "run", CAMPAIGN, "--no-wait", "--format", "json")
    assert right.code == 0 and right.document["steps"]["publish"]["state"] == "done"
    # By which the stock of codes is compared from here on.
    assert right.document["steps"]["report"]["newWinners"] == {"berlin": 4, "paris": 3}
    assert runtime.queue(runtime.names.selection_queue).depth().total > 0


def test_a_market_without_enough_codes_is_named_with_the_numbers_and_what_helps(runtime: Runtime) -> None:
    registered(runtime, codes=3)
    answer = regworkers(runtime, "draw", "run", CAMPAIGN, "--yes")
    assert answer.code == 1
    assert (
        "market berlin waits for codes, 4 needed and 3 available: `regworkers codes import" in answer.stdout
    )
    assert "market paris waits" not in answer.stdout


def test_a_campaign_that_is_not_replicated_is_not_drawn_and_the_line_says_what_is_open(
    runtime: Runtime,
) -> None:
    close_campaign(runtime, ())
    put(runtime, key("e1"), ref=ref_of(1))
    answer = regworkers(runtime, "draw", "run", CAMPAIGN, "--yes", "--format", "json")
    assert answer.code == 1 and answer.document["state"] == "not settled"
    assert any("1 missing" in line for line in answer.document["open"])
    assert runtime.draws.get(CAMPAIGN) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nowhere", "--yes"), "regworkers campaign list"),
        (("export", CAMPAIGN, "folder"), "there is no campaign 'summer'"),
        (("top-up", CAMPAIGN, "--reason", "r", "--capacity", "paris"), "NAME=N"),
        (("seed", CAMPAIGN, "--signature", "ab"), "its entries are not judged"),
        (("run", CAMPAIGN, "--strikes", "/nowhere/strikes.txt"), "No such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(runtime: Runtime, words: tuple[str, ...], said: str) -> None:
    answer = regworkers(runtime, "draw", *words)
    assert answer.code == 2 and said in answer.stderr and answer.stdout == ""
    assert answer.stderr.count("\n") == 1


def test_a_supplied_signature_is_verified_and_makes_the_seed(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    close_campaign(runtime)
    clock = Clock()
    own = with_beacon(runtime.names.prefix, clock)
    typed = Typed(own, monkeypatch, capfd)
    with taken_for_signatures():
        commit_only(own)
        # The round is out, and from here the beacon cannot be reached.
        clock.at += 700
        own.beacon.down = True  # type: ignore[attr-defined]
        due = typed("campaign", "status", CAMPAIGN, "--format", "json").document["draw"]["1"]["dueAt"]
        wrong = typed("draw", "seed", CAMPAIGN, "--signature", "ab" * 48)
        assert wrong.code == 2 and f"(due {due})" in wrong.stderr
        record = record_of(own)
        assert record.latest.awaited_round is not None
        right = signature_of(record.latest.awaited_round)
        answer = typed("draw", "seed", CAMPAIGN, "--signature", f" {right}", "--format", "json")
        assert (answer.code, answer.document["state"], answer.document["signature"]) == (0, "done", right)
        again = typed("draw", "seed", CAMPAIGN, "--signature", right)
        assert again.code == 2 and "has its seed already" in again.stderr


def commit_only(runtime: Runtime) -> None:
    run = draw_of(runtime)
    for step in (run.judge, run.freeze, run.commit):
        step()
