"""The gate before every publication: which findings block it, and which need a name and a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from fairdraw.maths.files import sha256_hex
from fairdraw.terms import QUICKNET_HASH
from regworkers_core.adapters.judged_entries import ReplicationProgress
from regworkers_core.domain.reasons import RequestError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import SELECTIONS
from regworkers_core.selection.draw import gate
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.gate import (
    AcceptedFindings,
    GateClosed,
    GateFinding,
    NotAccepted,
    NotSettled,
)
from regworkers_core.selection.draw.held import InputDiffers
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.draw_run import DrawRun
from regworkers_core.selection.status import read_campaign_status
from tests.selection.draw.world import CAMPAIGN, artefact, close_campaign, draw, drawn
from tests.support.drains import run
from tests.support.draws import record_of
from tests.support.typing_in import Typed

pytestmark = pytest.mark.slow

WORD = f"{CAMPAIGN}:1"
REASON = "we looked at it: the fans of the first hour live in one city"
BIASED = {"report.biasAudit": ["candidates who came first won more often"]}


@pytest.fixture
def waiting(runtime: Runtime) -> Runtime:
    """Drawn and reported: only the word is missing."""
    close_campaign(runtime)
    list(draw(runtime, run_id="drawer").steps())
    return runtime


def change(runtime: Runtime, **fields: Any) -> None:
    values = {f"phases.1.{name}": value for name, value in fields.items()}
    runtime.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": values})


def phase(runtime: Runtime) -> Any:
    return record_of(runtime).latest


def found(runtime: Runtime) -> list[str]:
    return [each["name"] for each in phase(runtime).gate["findings"]]


def unpublished(runtime: Runtime) -> bool:
    latest = phase(runtime)
    sent = runtime.queue(runtime.names.selection_queue).depth().total
    return not latest.confirmed and not latest.markets and not sent


def accepting(runtime: Runtime, *names: str, **options: Any) -> DrawRun:
    return draw(runtime, accept=AcceptedFindings.of(names, REASON, "ann"), **options)


def test_an_open_gate_awaits_the_word_and_publishes_an_empty_list_of_what_was_accepted(
    waiting: Runtime,
) -> None:
    step = draw(waiting).publish()
    assert (step.state, step.facts) == ("awaiting", {"confirm": WORD, "findings": []})
    assert draw(waiting).publish(WORD).state == "done"
    assert artefact(waiting, "accepted.json") == b"[]"


def _file(runtime: Runtime) -> None:
    runtime.objects.put_bytes(f"draws/{CAMPAIGN}/phase-1/cutoffs.json", b"{}")


def _result(runtime: Runtime) -> None:
    """Changed in the store and in the hashes beside it: only who draws again finds that."""
    text = artefact(runtime, "cutoffs.json").replace(b'"rank":', b'"rank":1', 1)
    runtime.objects.put_bytes(f"draws/{CAMPAIGN}/phase-1/cutoffs.json", text)
    hashes = {**phase(runtime).hashes, "cutoffs.json": sha256_hex(text)}
    change(runtime, hashes=hashes)


def _capacity(runtime: Runtime) -> None:
    manifest = orjson.loads(phase(runtime).manifest)
    manifest["markets"][1]["capacity"] -= 1
    change(runtime, manifest=orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS).decode())


def _code(runtime: Runtime) -> None:
    given = {"status": "ASSIGNED", "ref": "a-stranger"}
    runtime.database["codes"].update_one({"_id": "berlin-0002"}, {"$set": given})


@pytest.mark.parametrize(
    ("name", "breaks", "raises"),
    [
        ("inputs", _file, InputDiffers),
        ("replay", _result, GateClosed),
        ("capacity", _capacity, GateClosed),
        ("codes", _code, GateClosed),
    ],
)
def test_what_was_drawn_wrongly_is_not_published_whatever_a_person_types_or_the_settings_say(
    waiting: Runtime, name: str, breaks: Any, raises: type[Exception]
) -> None:
    breaks(waiting)
    automatic = _automatic(waiting)
    for attempt in (
        lambda: draw(waiting).publish(WORD),
        lambda: accepting(waiting, *gate.ACCEPTABLE).publish(WORD),
        lambda: draw(automatic).publish(),
    ):
        with pytest.raises(raises):
            attempt()
    automatic.mongo.close()
    assert found(waiting) == [name] and unpublished(waiting)
    with pytest.raises(RequestError, match=f"finding {name} cannot be accepted"):
        AcceptedFindings.of([name], REASON)


def _automatic(runtime: Runtime) -> Runtime:
    selection = runtime.settings.selection.model_copy(update={"auto_publish": True})
    return Runtime(runtime.settings.model_copy(update={"selection": selection}))


LATE = {"seedSource": {"kind": "drand", "chain": QUICKNET_HASH, "round": 1000}}
AGAIN = {"recommitted": [{"k": 1, "round": 7, "manifestHash": "a" * 64, "resultHash": "b" * 64, "differ": 3}]}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("bias_audit", BIASED),
        ("late_commit", LATE),
        ("recommitted", AGAIN),
        ("reconcile", {"differences": {"ahead": 2}}),
    ],
)
def test_a_finding_that_can_be_accepted_needs_its_name_and_a_reason_which_are_published(
    waiting: Runtime, name: str, fields: dict[str, Any]
) -> None:
    change(waiting, **fields)
    with pytest.raises(NotAccepted, match=rf"{name}: .*--accept-finding {name} --reason"):
        draw(waiting).publish(WORD)
    other = next(each for each in gate.ACCEPTABLE if each != name)
    with pytest.raises(NotAccepted):
        accepting(waiting, other).publish(WORD)
    assert unpublished(waiting) and found(waiting) == [name]
    assert accepting(waiting, name).publish(WORD).state == "done"
    (line,) = phase(waiting).accepted
    assert (line["finding"], line["reason"], line["at"]) == (
        name,
        REASON,
        phase(waiting).fields["confirmedAt"],
    )
    assert orjson.loads(artefact(waiting, "accepted.json")) == [line]
    (action,) = waiting.operator_actions.history(what="draw accept-finding")
    assert (action.who, action.target, action.outcome) == ("ann", WORD, "done")
    assert (action.arguments["finding"], action.arguments["reason"]) == (name, REASON)


def test_the_settings_publish_nothing_with_a_finding_and_accept_none(waiting: Runtime) -> None:
    change(waiting, **BIASED)
    automatic = _automatic(waiting)
    for made in (draw(automatic), accepting(automatic, "bias_audit")):
        step = made.publish()
        assert step.state == "awaiting" and step.facts["findings"][0]["name"] == "bias_audit"
    assert unpublished(waiting)
    change(waiting, **{"report.biasAudit": []})
    assert draw(automatic).publish().state == "done"
    assert phase(waiting).fields["confirmedBy"] == "settings"
    automatic.mongo.close()


def test_a_pool_is_frozen_with_differences_only_if_a_person_accepts_them_by_name(runtime: Runtime) -> None:
    close_campaign(runtime)
    ahead = ReplicationProgress(("2 ahead",), {"ahead": 2})
    lag = ReplicationProgress(("3 missing", "the stream has unread records"))
    with pytest.raises(NotSettled, match="--accept-finding reconcile"):
        draw(runtime, settled=lambda _: ahead).judge()
    with pytest.raises(NotSettled, match="unread"):
        accepting(runtime, "reconcile", settled=lambda _: lag).judge()
    accepting(runtime, "reconcile", settled=lambda _: ahead).judge()
    # One that died before the freeze is gone on with, as long as nothing else differs.
    assert draw(runtime, settled=lambda _: ahead).judge().state == "done"
    with pytest.raises(NotSettled):
        draw(runtime, settled=lambda _: ReplicationProgress(("3 ahead",), {"ahead": 3})).judge()
    accepting(runtime, "reconcile", settled=lambda _: ahead).judge()
    for step in (
        DrawRun.freeze,
        DrawRun.commit,
        DrawRun.seed,
        DrawRun.rank,
        DrawRun.allocate,
        DrawRun.report,
    ):
        step(draw(runtime))
    assert draw(runtime).publish(WORD).state == "done"
    assert [line["finding"] for line in orjson.loads(artefact(runtime, "accepted.json"))] == ["reconcile"]
    assert found(runtime) == ["reconcile"]


def test_a_name_without_a_reason_and_a_reason_without_a_name_are_refused() -> None:
    with pytest.raises(RequestError, match="needs a reason"):
        AcceptedFindings.of(["bias_audit"], " ")
    with pytest.raises(RequestError, match="needs the name of the finding"):
        AcceptedFindings.of([], REASON)
    with pytest.raises(RequestError, match="finding bias cannot be accepted"):
        AcceptedFindings.of(["bias"], REASON)


def test_a_run_that_dies_between_the_confirmation_and_what_follows_is_gone_on_with(waiting: Runtime) -> None:
    change(waiting, **BIASED)

    def dies(step: str) -> None:
        raise KeyboardInterrupt(step)

    with pytest.raises(KeyboardInterrupt, match=r"draw\.after_confirm"):
        accepting(waiting, "bias_audit", on_step=dies).publish(WORD)
    latest = phase(waiting)
    assert latest.confirmed and not latest.markets
    # The word is given and the finding accepted: a resumed run needs neither.
    assert draw(waiting, run_id="next").publish().state == "done"
    assert orjson.loads(artefact(waiting, "accepted.json")) == list(latest.accepted)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    counted: list[int] = []
    verify = gate.verify

    def counting(*given: Any, **options: Any) -> Any:
        counted.append(1)
        return verify(*given, **options)

    monkeypatch.setattr(gate, "verify", counting)
    yield counted


def test_one_run_replays_the_draw_once_and_another_one_again(waiting: Runtime, replays: list[int]) -> None:
    first = draw(waiting, run_id="first")
    assert first.examine() == () and first.publish().state == "awaiting"
    assert len(replays) == 1
    assert draw(waiting, run_id="second").publish(WORD).state == "done"
    assert len(replays) == 2


def test_a_file_that_is_changed_after_the_replay_is_found_by_its_bytes(
    waiting: Runtime, replays: list[int]
) -> None:
    made = draw(waiting)
    assert made.examine() == ()
    _file(waiting)
    with pytest.raises(InputDiffers):
        made.publish(WORD)
    assert len(replays) == 1 and found(waiting) == ["inputs"] and unpublished(waiting)


def test_a_top_up_goes_through_the_same_gate_over_all_phases(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    run(runtime, SELECTIONS)
    more = TopUp(capacities={"paris": 5}, reserves={}, strikes=(), reason="a larger hall")
    number = open_phase(runtime, CAMPAIGN, more, run_id="r")
    list(draw(runtime, phase=number).steps())
    # A code of the first phase that lost its selection.
    runtime.database["selections"].delete_one({"marketId": "paris"})
    with pytest.raises(GateClosed, match="codes: codesWithoutSelection 1"):
        draw(runtime, phase=number).publish(f"{CAMPAIGN}:2")
    _file(runtime)
    with pytest.raises(InputDiffers, match=r"phase-1/cutoffs\.json"):
        draw(runtime, phase=number).publish(f"{CAMPAIGN}:2")
    assert not phase(runtime).confirmed


def test_at_the_terminal_a_finding_is_named_with_what_accepts_it(
    waiting: Runtime, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    typed = Typed(waiting, monkeypatch, capfd)
    change(waiting, **AGAIN)
    refused = typed("draw", "run", CAMPAIGN, "--yes", "--format", "json")
    assert refused.code == 1 and refused.document["findings"][0]["name"] == "recommitted"
    status = typed("campaign", "status", CAMPAIGN, "--format", "json")
    commands = [each["command"] for each in status.document["findings"]]
    assert f"regworkers draw run {CAMPAIGN} --accept-finding recommitted --reason <text>" in commands
    wrong = typed("draw", "run", CAMPAIGN, "--accept-finding", "replay", "--reason", REASON)
    assert wrong.code == 2 and "finding replay cannot be accepted" in wrong.stderr
    words = ("--accept-finding", "recommitted", "--reason", REASON)
    done = typed("draw", "run", CAMPAIGN, *words, "--yes", "--no-wait", "--format", "json")
    assert done.code == 0 and done.document["steps"]["publish"]["state"] == "done"
    assert orjson.loads(artefact(waiting, "accepted.json"))[0]["finding"] == "recommitted"


def test_what_the_gate_stopped_at_is_over_once_the_publication_goes_through(waiting: Runtime) -> None:
    right = artefact(waiting, "cutoffs.json")
    _file(waiting)
    with pytest.raises(InputDiffers):
        draw(waiting, run_id="checks").examine()
    assert phase(waiting).stopped
    waiting.objects.put_bytes(f"draws/{CAMPAIGN}/phase-1/cutoffs.json", right)
    assert draw(waiting).publish(WORD).state == "done"
    assert not phase(waiting).stopped


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
    findings = read_campaign_status(runtime, runtime.campaigns.require(CAMPAIGN)).findings
    assert {
        name: each.job
        for each in findings
        for name in ("late_commit", "codes")
        if f"found {name}:" in each.text
    } == {"late_commit": "confirm_draw", "codes": ""}
