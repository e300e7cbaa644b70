"""A draw from freeze to publication on the real servers: decided once, published, and never twice."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from fairdraw.errors import DrawError
from fairdraw.maths.files import ARTEFACTS
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.adapters.judged_entries import PAGE, Judgement, ReplicationProgress, Tell
from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.selection import NON_WINNERS, DrawBusy, MarketPhase, Notice, NoticeType, StepState
from regworkers_core.engine.leases import LeaseHolder, held_lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import draw_lease
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.draw_run import DrawOptions, DrawRun
from regworkers_core.selection.public.source import export
from tests.selection.draw.crash import STEPS as CRASH_STEPS
from tests.selection.draw.crash import crash_and_resume
from tests.selection.draw.world import (
    CAMPAIGN,
    artefact,
    close_campaign,
    done_to,
    draw,
    drawn,
    entry,
    everybody,
    ref_of,
)
from tests.support.draws import record_of

pytestmark = pytest.mark.slow


def status(runtime: Runtime) -> str:
    return str(runtime.database["campaigns"].find_one({"_id": CAMPAIGN})["status"])


def test_a_draw_publishes_every_artefact_and_its_hashes(runtime: Runtime) -> None:
    close_campaign(runtime)
    steps = drawn(runtime)
    assert {step.state for step in steps.values()} == {"done"}
    manifest, result = artefact(runtime, "manifest.json"), artefact(runtime, "result.txt")
    record = record_of(runtime)
    assert record.latest.manifest_hash == hashlib.sha256(manifest).hexdigest()
    assert record.latest.result_hash == hashlib.sha256(result).hexdigest()
    for name in ARTEFACTS:
        artefact(runtime, name)
    assert sum(record.latest.outcomes.values()) == 20
    assert record.latest.outcomes["WINNER"] == 7
    assert status(runtime) == "PROCESSING"


def test_a_repeated_draw_finds_everything_decided(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    before = {name: artefact(runtime, name) for name in ARTEFACTS}
    again = drawn(runtime, run_id="second-run")
    assert {step.state for step in again.values()} == {StepState.UNCHANGED}
    assert {name: artefact(runtime, name) for name in ARTEFACTS} == before


def test_the_leaves_stay_hidden_until_the_result_is_out(runtime: Runtime) -> None:
    close_campaign(runtime)
    run = done_to("rank", draw(runtime))
    key = f"draws/{CAMPAIGN}/phase-1/leaves.txt"
    assert not runtime.objects.exists(key)
    run.allocate()
    assert runtime.objects.exists(key)


def test_a_draw_without_entries_is_valid(runtime: Runtime) -> None:
    close_campaign(runtime, entries=())
    drawn(runtime)
    assert artefact(runtime, "result.txt") == b""
    manifest = orjson.loads(artefact(runtime, "manifest.json"))
    assert manifest["root"] == hashlib.sha256(b"").hexdigest()


def test_entries_that_made_a_freeze_fail_can_be_corrected_and_are_judged_again(runtime: Runtime) -> None:
    close_campaign(runtime, entries=(entry(1), entry(2, ref=ref_of(1))))
    with pytest.raises(DrawError):
        drawn(runtime)
    runtime.database["entries"].update_one({"_id": f"{CAMPAIGN}:e2"}, {"$set": {"ref": ref_of(2)}})
    assert drawn(runtime)["freeze"].facts["entries"] == 2


def test_the_page_of_a_repeated_judgement_replaces_the_one_before(runtime: Runtime) -> None:
    close_campaign(runtime)
    for text in ("first", "second"):

        def judge(campaign: Campaign, *, as_of: str, folder: Path, tell: Tell, text: str = text) -> Judgement:
            (folder / PAGE).write_text(text, encoding="utf-8")
            return everybody(runtime, campaign, as_of=as_of, folder=folder, tell=tell)

        judged = DrawRun(
            runtime, CAMPAIGN, DrawOptions(run_id=text, settled=lambda _: ReplicationProgress(), judge=judge)
        ).judge()
        assert judged.state == "done"
    page = runtime.objects.get_bytes(f"reports/{CAMPAIGN}/phase-1/{PAGE}")
    assert page == b"second"


def test_an_open_campaign_is_not_drawn(runtime: Runtime) -> None:
    close_campaign(runtime, status="OPEN")
    with pytest.raises(UsageError, match="campaign close"):
        draw(runtime).judge()


def test_a_preview_judges_an_open_campaign_and_decides_nothing(runtime: Runtime) -> None:
    close_campaign(runtime, status="OPEN")
    assert draw(runtime).preview().state == "preview"
    assert (runtime.draws.get(CAMPAIGN), status(runtime)) == (None, "OPEN")


def test_nothing_is_published_without_the_word_that_names_campaign_and_phase(runtime: Runtime) -> None:
    close_campaign(runtime)
    with pytest.raises(UsageError, match="should be summer:1, found 'summer'"):
        list(draw(runtime).steps(CAMPAIGN))
    assert runtime.draws.get(CAMPAIGN) is None, "a wrong word is refused before the first step"
    (*_, last) = draw(runtime).steps()
    assert (last.name, last.state) == ("publish", "awaiting")
    for wrong in (CAMPAIGN, "sumer:1", f"{CAMPAIGN}:2"):
        with pytest.raises(UsageError, match="should be summer:1"):
            draw(runtime).publish(wrong)
    assert not runtime.queue(runtime.names.selection_queue).depth().total
    assert draw(runtime).publish(f"{CAMPAIGN}:1").state == "done"


def test_a_second_run_leaves_a_draw_alone_that_another_one_works_on(runtime: Runtime) -> None:
    close_campaign(runtime)
    with (
        held_lease(runtime.leases, lease_name(CAMPAIGN), "first", lease_seconds=1.0),
        pytest.raises(DrawBusy),
    ):
        draw(runtime).judge()


STEPS = ("judge", "freeze", "commit", "seed", "rank", "allocate", "report", "publish")


def test_two_runs_at_once_make_one_draw(runtime: Runtime) -> None:
    close_campaign(runtime)
    done: list[str] = []

    def go(run: DrawRun) -> None:
        with suppress(DrawBusy):
            done.extend(step.name for step in run.steps(f"{CAMPAIGN}:1") if step.state == "done")

    runs = [threading.Thread(target=go, args=(draw(runtime, run_id=f"run-{n}"),)) for n in range(2)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    # Only what is not frozen yet may be judged by both, and what is not published yet reported by both.
    assert sorted({*done}) == sorted(STEPS)
    assert [name for name in STEPS if done.count(name) > 1 and name not in ("judge", "report")] == []
    record = record_of(runtime)
    assert record.latest.outcomes["WINNER"] == 7
    assert record.latest.result_hash == hashlib.sha256(artefact(runtime, "result.txt")).hexdigest()


def test_a_run_whose_lease_was_taken_over_decides_nothing(runtime: Runtime) -> None:
    close_campaign(runtime)
    run = done_to("freeze", draw(runtime))
    taken = runtime.names.lease_table
    key = LeaseHolder.key_of(lease_name(CAMPAIGN))

    def take_over(step: str) -> None:
        if step == "draw.after_rank":
            runtime.dynamodb.delete_item(TableName=taken, Key=attributes({"PK": key.pk, "SK": key.sk}))
            runtime.draws.decide(CAMPAIGN, 1, {"note": "a newer run was here"}, token=10**6)

    run = draw(runtime, on_step=take_over)
    run.commit()
    run.seed()
    with pytest.raises(DrawBusy):
        run.rank()


def test_a_recreated_lease_table_is_reported_and_not_taken_for_another_run(runtime: Runtime) -> None:
    close_campaign(runtime)
    done_to("freeze", draw(runtime))
    runtime.draws.decide(CAMPAIGN, 1, {"note": "of the table before"}, token=10**6)
    with pytest.raises(UsageError, match="token 1000000"):
        draw(runtime).commit()


def test_a_top_up_waits_for_the_phase_before(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    with pytest.raises(UsageError, match="waits until it is COMPLETED"):
        _top_up(runtime)
    _complete(runtime)
    with draw_lease(runtime, CAMPAIGN, "another"), pytest.raises(UsageError, match="another run works on"):
        _top_up(runtime)


def test_a_top_up_keeps_earlier_winners_and_adds_the_next_in_order(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    _complete(runtime)
    assert _top_up(runtime) == 2
    # Asked for again before it is complete, it is the same phase.
    assert _top_up(runtime) == 2
    others = MarketPhase(CAMPAIGN, NON_WINNERS, 1)
    lines = artefact(runtime, "result.txt", 1).decode().splitlines()
    lost = [line.partition("|")[0] for line in lines if not line.endswith("|WINNER")]
    at = "2026-03-01T12:00:00.000Z"
    notices = [Notice(others, ref, f"e-{ref}", NoticeType.WAITLISTED, "a" * 64, at) for ref in lost]
    runtime.outbox.write(notices, at=at, run_id="r")
    rows: dict[str, set[tuple[str, str]]] = {}

    def on_step(step: str) -> None:
        statuses = runtime.outbox.statuses([each.key for each in notices])
        rows[step] = {(key.rpartition(":")[2], status) for key, status in statuses.items()}

    steps = drawn(runtime, phase=2, on_step=on_step)
    assert steps["allocate"].facts["outcomes"]["WINNER"] == 9
    assert _top_up(runtime) == 2, "committed, and not complete"
    first, second = (_winners(runtime, phase) for phase in (1, 2))
    # Messages of phase 1 to promoted entries wait for the confirmation, and are never sent after it.
    promoted = second.keys() - first.keys()
    waits = {(ref, "HELD" if ref in promoted else "PENDING") for ref in lost}
    assert rows["draw.after_confirm"] == waits
    assert {ref for ref, status in rows["draw.after_publish"] if status == "SUPERSEDED"} == promoted
    assert first.items() <= second.items()
    assert set(second.values()) == {"berlin", "paris"}
    for name in ("leaves.txt", "seed.json"):
        assert artefact(runtime, name, 1) == artefact(runtime, name, 2)


def test_a_top_up_strikes_no_ref_that_is_not_in_the_draw(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    _complete(runtime)
    request = TopUp({"berlin": 6}, {}, (("stranger", "BOT"),), "a second evening")
    with pytest.raises(RequestError, match="stranger is not in the draw"):
        open_phase(runtime, CAMPAIGN, request, run_id="top-up")
    assert list(record_of(runtime).phases) == [1]


def test_an_export_brings_every_phase(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> None:
    close_campaign(runtime)
    drawn(runtime)
    folder = tmp_path_factory.mktemp("export")
    written = export(runtime.objects, CAMPAIGN, [1], folder)
    assert written == [
        *(f"phase-1/{name}" for name in (*ARTEFACTS, "accepted.json", "codes-1.txt", "notice.json")),
        "chain.json",
    ]
    assert (folder / "phase-1" / "result.txt").read_bytes() == artefact(runtime, "result.txt")


def test_publishing_queues_an_event_with_each_hash(runtime: Runtime) -> None:
    close_campaign(runtime)
    run = draw(runtime)
    with trace.use_span(NonRecordingSpan(SpanContext(1, 2, is_remote=False))):
        for step in (run.judge, run.freeze, run.commit, run.seed, run.rank, run.allocate):
            step()
    queue = runtime.queue(runtime.names.analytics_queue)
    messages = queue.receive(10, 0, 30)
    events = [orjson.loads(message.body)["items"][0] for message in messages]
    record = record_of(runtime)
    found = {event["type"]: event["data"] for event in events}
    assert found["draw.committed"]["manifestHash"] == record.latest.manifest_hash
    assert found["draw.drawn"]["resultHash"] == record.latest.result_hash
    for message in messages:
        assert message.attributes["attempt"] == "1"
        assert message.attributes["traceparent"].startswith("00-")


def _top_up(runtime: Runtime, berlin: int = 6) -> int:
    request = TopUp({"berlin": berlin}, {}, (), "a second evening")
    return open_phase(runtime, CAMPAIGN, request, run_id="top-up")


def _complete(runtime: Runtime) -> None:
    """As if all codes of phase 1 were assigned."""
    runtime.draws.decide(CAMPAIGN, 1, {"status": "COMPLETED"}, token=record_of(runtime).token)


def _winners(runtime: Runtime, phase: int) -> dict[str, str]:
    rows = (line.split("|") for line in artefact(runtime, "result.txt", phase).decode().splitlines())
    return {ref: market for ref, market, _rank, outcome in rows if outcome == "WINNER"}


@pytest.mark.parametrize("step", CRASH_STEPS)
def test_a_draw_killed_at_a_step_is_resumed_to_the_same_result(runtime: Runtime, step: str) -> None:
    assert crash_and_resume(runtime, step) == []
