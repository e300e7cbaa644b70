"""A draw that must not count: it ends, nothing of it goes out any more, and everybody can read why."""

from __future__ import annotations

import pytest

from fairdraw.maths.beside import Annulled
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import DrawBusy
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import stalled_markets
from regworkers_core.selection.assign.release import resume_blocked, retry_market
from regworkers_core.selection.campaigns.registry import draw_lease
from regworkers_core.selection.codes.stock import struck_codes
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.draw.changes import annul, open_phase, preview
from regworkers_core.selection.draw.held import InputDiffers
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.status import read_campaign_status
from tests.selection.draw.world import close_campaign, done_to, draw, ref_of
from tests.support.drains import run
from tests.support.draws import CAMPAIGN, add_codes, confirmed, market_status, publish, record_of, result

ROWS = result({"berlin": 3}, waiting=2)
WORD, REASON = f"{CAMPAIGN}:1", "the list of members was last year's"
STEPS = ("draw.after_annul", "draw.after_annul_messages", "draw.after_annul_file")


@pytest.fixture
def published(runtime: Runtime) -> Runtime:
    """Codes are given, no message is sent yet."""
    confirmed(runtime, ROWS, ["berlin"])
    add_codes(runtime, "berlin", 4)
    publish(runtime)
    run(runtime, SELECTIONS)
    return runtime


def annulled_file(runtime: Runtime) -> Annulled:
    return Annulled.parse(runtime.objects.get_bytes(f"draws/{CAMPAIGN}/phase-1/annulled.json"))


def statuses(runtime: Runtime) -> set[tuple[str, str | None]]:
    return {(row["status"], row.get("why")) for row in runtime.database["outbox"].find()}


def judge(runtime: Runtime) -> None:
    """What holds of every annulled draw."""
    record = record_of(runtime)
    assert record.annulled is not None
    annulled, file = record.annulled, annulled_file(runtime)
    assert (file.annulled_at, file.reason, file.phase) == (annulled["annulledAt"], REASON, 1)
    assert file.manifest_hash == record.phases[1].manifest_hash
    assert statuses(runtime) == {("SUPERSEDED", "annulled")}
    campaign = runtime.campaigns.require(CAMPAIGN)
    assert campaign.status == "COMPLETED"
    run(runtime, NOTIFICATIONS)
    assert runtime.queue(runtime.names.notification_queue).depth().total == 0


def test_an_annulled_draw_sends_nothing_says_why_and_lists_the_codes_that_are_out(published: Runtime) -> None:
    before = preview(published, CAMPAIGN)
    assert (before.word, before.annulled, before.waiting, before.sent, before.codes) == (WORD, {}, 5, 0, 3)
    assert statuses(published) == {("PENDING", None)}, "a preview changes nothing"
    done = annul(published, CAMPAIGN, reason=REASON, confirm=WORD, run_id="r", by="ann")
    assert (done.stopped, done.sent, done.codes, done.annulled["by"]) == (5, 0, 3, "ann")
    assert done.waiting == 0
    judge(published)
    struck = struck_codes(published, CAMPAIGN)
    assert [(each.to_block, each.notified) for each in struck] == [(True, False)] * 3
    report = read_campaign_status(published, published.campaigns.require(CAMPAIGN))
    assert [finding.command for finding in report.findings] == [f"regworkers codes block {CAMPAIGN}"]


def test_a_preview_says_that_an_annulment_after_the_round_is_a_finding(runtime: Runtime) -> None:
    close_campaign(runtime)
    made = draw(runtime)
    done_to("freeze", made)
    assert preview(runtime, CAMPAIGN).finding == ""
    made.commit()
    due = record_of(runtime).phases[1].round_at
    assert due is not None
    before, after = (Runtime(runtime.settings, clock=lambda at=at: at) for at in (due - 1, due))  # type: ignore[misc]
    assert preview(before, CAMPAIGN).finding == ""
    assert f"the round of the beacon was signed at {iso(due)}" in preview(after, CAMPAIGN).finding
    # What was annulled in time stays so.
    annul(before, CAMPAIGN, reason=REASON, confirm=WORD, run_id="r")
    assert preview(after, CAMPAIGN).finding == ""


def test_an_annulment_of_a_later_phase_is_always_a_finding(published: Runtime) -> None:
    assert preview(published, CAMPAIGN).finding == ""
    confirmed(published, ROWS, ["berlin"], phase=2)
    said = preview(published, CAMPAIGN).finding
    assert said.startswith("`draw log` shows this annulment to everybody as a finding: every rank was known")


@pytest.mark.parametrize("step", STEPS)
def test_an_annulment_that_is_killed_at_any_step_goes_on_with_the_same_command(
    published: Runtime, step: str
) -> None:
    def dies(name: str) -> None:
        if name == step:
            raise KeyboardInterrupt(name)

    with pytest.raises(KeyboardInterrupt):
        annul(published, CAMPAIGN, reason=REASON, confirm=WORD, run_id="victim", on_step=dies)
    record = record_of(published)
    assert record.annulled is not None
    run(published, NOTIFICATIONS)
    assert published.queue(published.names.notification_queue).depth().total == 0, "decided is decided"
    again = annul(published, CAMPAIGN, reason="another reason", confirm="", run_id="again")
    assert again.annulled == record.annulled
    assert not published.draws.annul(CAMPAIGN, {"reason": "a third one"}, token=10**9)
    judge(published)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_draw_that_can_never_be_committed_is_ended_as_well(runtime: Runtime, frozen: bool) -> None:
    close_campaign(runtime)
    made = draw(runtime, strikes=((ref_of(1), "BOT"),))
    made.judge()
    if frozen:
        made.freeze()
        for key in list(runtime.objects.list(f"pipeline/{CAMPAIGN}/")):
            runtime.objects.delete(key)
        with pytest.raises(InputDiffers):
            made.commit()
    assert preview(runtime, CAMPAIGN).word == WORD
    done = annul(runtime, CAMPAIGN, reason=REASON, confirm=WORD, run_id="r")
    file = annulled_file(runtime)
    assert (file.phase, file.manifest_hash, file.reason) == (1, None, REASON)
    assert done.annulled["manifestHash"] is None and runtime.campaigns.require(CAMPAIGN).status == "COMPLETED"
    with pytest.raises(RequestError, match="never drawn again"):
        list(draw(runtime).steps())


def test_nothing_follows_an_annulled_draw(runtime: Runtime) -> None:
    confirmed(runtime, ROWS, ["berlin"])
    add_codes(runtime, "berlin", 2)
    publish(runtime)
    assert market_status(runtime)["berlin"] == "BLOCKED"
    annul(runtime, CAMPAIGN, reason=REASON, confirm=WORD, run_id="r")
    add_codes(runtime, "berlin", 2, first=3)
    assert resume_blocked(runtime, CAMPAIGN) == {} and stalled_markets(runtime, older_than_seconds=0) == []
    more = TopUp(capacities={"berlin": 5}, reserves={}, strikes=(), reason="more seats")
    for attempt in (
        lambda: publish(runtime),
        lambda: retry_market(runtime, CAMPAIGN, "berlin"),
        lambda: list(draw(runtime).steps()),
        lambda: draw(runtime).rank(),
        lambda: draw(runtime).publish(),
        lambda: open_phase(runtime, CAMPAIGN, more, run_id="r"),
    ):
        with pytest.raises(RequestError, match=r"was annulled at .* never drawn again"):
            attempt()
    # A queued chunk gives no codes, and is no dead letter.
    report = run(runtime, SELECTIONS)
    assert report.counts["dead_lettered"] == 0 and report.counts["received"] == 1
    assert runtime.database["outbox"].find_one() is None


def test_only_the_word_for_the_latest_phase_annuls_and_only_when_no_other_run_works_on_it(
    published: Runtime,
) -> None:
    for word in ("", CAMPAIGN, f"{CAMPAIGN}:2"):
        with pytest.raises(RequestError, match=f"should be {WORD}"):
            annul(published, CAMPAIGN, reason=REASON, confirm=word, run_id="r")
    with pytest.raises(RequestError, match="needs a reason"):
        annul(published, CAMPAIGN, reason=" ", confirm=WORD, run_id="r")
    with pytest.raises(RequestError, match="'winter' was never drawn"):
        annul(published, "winter", reason=REASON, confirm="winter:1", run_id="r")
    with draw_lease(published, CAMPAIGN, "another"), pytest.raises(DrawBusy):
        annul(published, CAMPAIGN, reason=REASON, confirm=WORD, run_id="r")
    assert record_of(published).annulled is None
