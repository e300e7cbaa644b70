"""The promises of a draw, each checked against what is published and stored.

Before the publication: it replays to its committed result, respects the capacities, and no rank depends on the time of
an entry, its id or its mail domain. After it: codes and winners match one to one, and counts agree.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import orjson

from fairdraw.large.allocate import LargeEngine
from fairdraw.maths.files import OUTCOMES
from fairdraw.maths.manifest import Manifest
from fairdraw.proof.verify import verify
from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import (
    NON_WINNERS,
    DrawBusy,
    MarketPhase,
    PromiseVerdict,
    pipeline_key,
    report_key,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import count_pairs
from regworkers_core.selection.draw.gate import REPLAY, Confirming, replay_differences
from regworkers_core.selection.draw.held import InputDiffers
from regworkers_core.selection.notify.counts import compare, differences
from regworkers_core.selection.public.source import artefacts_of
from regworkers_core.selection.report import notes
from regworkers_core.selection.report.inputs import NUMBERS


def draw_replays(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that all phases, replayed from the published artefacts alone, have the hashes of the `draws` document.

    Raises UsageError before there is a result, TransientFailure.
    """
    drawn = _drawn(runtime, campaign_id)
    settings = runtime.settings.selection
    with tempfile.TemporaryDirectory(prefix="regworkers-replay-") as scratch:
        engine = LargeEngine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=Path(scratch))
        with artefacts_of(campaign_id, lambda: runtime) as artefacts:
            found = verify(
                artefacts.folder, engine=engine, recorded=artefacts.recorded, files=artefacts.files
            )
    wrong = replay_differences(found, drawn)
    numbers = {"leaves": found.count, "phases": len(found.phases), "findings": len(wrong)}
    return PromiseVerdict(
        not wrong, "; ".join(wrong[:5]) or "every phase replays to its committed result", numbers
    )


def gate_replays(runtime: Runtime, campaign_id: str, run_id: str) -> PromiseVerdict:
    """Check the same by way of the gate until the publication is confirmed, so that a publication by the run `run_id`
    need not replay again.
    """
    phases = _drawn(runtime, campaign_id)
    if phases[-1].confirmed:
        return draw_replays(runtime, campaign_id)
    try:
        found = Confirming(runtime, campaign_id, run_id=run_id).examine()
    except DrawBusy:
        # The other run asks the gate itself.
        return draw_replays(runtime, campaign_id)
    except InputDiffers as differs:
        return PromiseVerdict(False, str(differs), {"phases": len(phases), "findings": 1})
    wrong = [str(each) for each in found if each.name == REPLAY]
    numbers = {"phases": len(phases), "findings": len(wrong)}
    return PromiseVerdict(
        not wrong, "; ".join(wrong) or "every phase replays to its committed result", numbers
    )


def capacity_respected(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that no market of the latest result has more winners than seats in its manifest. Counts the winners, and
    does not trust the summary. Raises UsageError, TransientFailure.
    """
    phase = _drawn(runtime, campaign_id)[-1]
    with tempfile.TemporaryDirectory(prefix="regworkers-check-") as folder:
        outcomes = Path(folder) / OUTCOMES
        runtime.objects.get_file(pipeline_key(campaign_id, phase.phase, OUTCOMES), outcomes)
        return notes.capacity_respected(outcomes, Manifest.parse(phase.manifest))


def win_rates_uniform(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that the bias audit of the latest report has no findings. Raises UsageError, TransientFailure."""
    phase = _drawn(runtime, campaign_id)[-1]
    report = orjson.loads(runtime.objects.get_bytes(report_key(campaign_id, phase.phase, NUMBERS)))
    return notes.win_rates_uniform(report)


def _drawn(runtime: Runtime, campaign_id: str) -> list[PhaseRecord]:
    record = runtime.draws.get(campaign_id)
    phases = [phase for phase in record.phases.values() if phase.result_hash] if record else []
    if not phases:
        raise UsageError(f"{campaign_id} has no result yet: `regworkers draw run {campaign_id}` draws it")
    return phases


def judge(runtime: Runtime, campaign_id: str) -> dict[str, PromiseVerdict]:
    """Judge every promise of the campaign, by name, and note that in the record of each phase that is complete."""
    record = runtime.draws.light(campaign_id)
    phases = record.phases.values() if record is not None else ()
    # They are as they were before: one that completes meanwhile is judged next time.
    complete = [each.phase for each in phases if each.reached(PhaseStatus.COMPLETED)]
    found = {check.__name__: check(runtime, campaign_id) for check in PROMISES}
    passed = all(verdict.passed for verdict in found.values())
    for phase in complete:
        runtime.draw_markets.judge_phase(campaign_id, phase, passed=passed, at=iso(runtime.clock()))
    return found


def codes_and_winners_biject(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that every selection has its code and every given code its selection, with the same ref and market."""
    numbers = count_pairs(runtime, campaign_id)
    wrong = {name: number for name, number in list(numbers.items())[2:] if number}
    text = "codes and winners are one to one" if not wrong else f"not one to one: {_listed(wrong)}"
    return PromiseVerdict(not wrong, text, numbers)


def codes_within_capacity(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that no market has more winners than the capacity that the latest published phase committed to, nor more
    selections than all phases planned (a winner who is struck later keeps the selection: its code is given).
    """
    phases = _published(runtime, campaign_id)
    summaries = [orjson.loads(phase.fields["summary"])["markets"] for phase in phases]
    capacity = {
        market["marketId"]: int(market["capacity"]) for market in orjson.loads(phases[-1].manifest)["markets"]
    }
    winners = {market: int(each["winners"]) for market, each in summaries[-1].items()}
    planned = Counter[str]()
    for summary in summaries:
        planned.update({market: int(each["new"]) for market, each in summary.items()})
    given = runtime.selections.count_by_market(campaign_id)
    over = Counter({market: number - capacity.get(market, 0) for market, number in winners.items()})
    beyond = given - planned
    wrong = +over + beyond
    numbers = {
        "capacity": sum(capacity.values()),
        "winners": sum(winners.values()),
        "selections": given.total(),
        "planned": planned.total(),
        "over": wrong.total(),
    }
    text = "no market is above its capacity" if not wrong else f"above capacity or plan: {_listed(wrong)}"
    return PromiseVerdict(not wrong, text, numbers)


def counts_match(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that planned = written = enqueued in every completed market, with the winners of the result; and once the
    last confirmed phase is complete, that winners, refs with a code, and refs whose last message says so are the same.
    """
    numbers: Counter[str] = Counter()
    wrong: list[str] = []
    published = _published(runtime, campaign_id)
    for phase in published:
        new = {
            market: each["new"] for market, each in orjson.loads(phase.fields["summary"])["markets"].items()
        }
        for market_id, entry in phase.markets.items():
            numbers["markets"] += 1
            if "completedAt" not in entry and entry["planned"]:
                numbers["open"] += 1
                continue
            market = MarketPhase(campaign_id, market_id, phase.phase)
            planned, enqueued = entry["planned"], runtime.outbox.count(market)
            written = planned if market_id == NON_WINNERS else runtime.selections.count(market)
            numbers.update(planned=planned, written=written, enqueued=enqueued)
            if not planned == written == enqueued == new.get(market_id, planned):
                wrong.append(f"{market}: planned {planned}, written {written}, enqueued {enqueued}")
    if published[-1].reached(PhaseStatus.COMPLETED):
        compared = compare(runtime, campaign_id, published[-1].phase)
        numbers.update(compared)
        if different := differences(compared):
            wrong.append(f"phase {published[-1].phase}: {different}")
    text = "; ".join(wrong) if wrong else "planned = written = enqueued in every completed market"
    return PromiseVerdict(not wrong, text, dict(numbers))


PROMISES = (codes_and_winners_biject, codes_within_capacity, counts_match)


def _published(runtime: Runtime, campaign_id: str) -> list[PhaseRecord]:
    record = runtime.draws.get(campaign_id)
    phases = [phase for phase in (record.phases if record else {}).values() if phase.markets]
    phases = [phase for phase in phases if phase.reached(PhaseStatus.PUBLISHED)]
    if not phases:
        raise UsageError(f"the draw of {quoted(campaign_id)} is not published: there is nothing to check")
    return phases


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())
