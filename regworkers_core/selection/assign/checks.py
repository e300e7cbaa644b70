"""The promises of the assignment, checked against the stores: codes and winners biject, counts match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import orjson

from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, Verdict
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.pairing import count_pairs
from regworkers_core.selection.notify.counts import compare, differences


def codes_and_winners_biject(runtime: Runtime, campaign_id: str) -> Verdict:
    """Every selection has its code and every given code its selection, one to one, with the same ref and market."""
    numbers = count_pairs(runtime, campaign_id)
    wrong = {name: number for name, number in list(numbers.items())[2:] if number}
    text = "codes and winners are one to one" if not wrong else f"not one to one: {_told(wrong)}"
    return Verdict(not wrong, text, numbers)


def codes_within_capacity(runtime: Runtime, campaign_id: str) -> Verdict:
    """No market has more winners than the capacity that the latest published phase committed to, nor more
    selections than all phases planned (one of a winner who was struck later stays: its code is given).
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
    text = "no market is above its capacity" if not wrong else f"above what they may hold: {_told(wrong)}"
    return Verdict(not wrong, text, numbers)


def counts_match(runtime: Runtime, campaign_id: str) -> Verdict:
    """In every completed market planned = written = enqueued, and the winners are those of the result; after the last
    confirmed phase, once it is complete, those who won are those who have a code and those whose last message says so.
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
    return Verdict(not wrong, text, dict(numbers))


def _published(runtime: Runtime, campaign_id: str) -> list[PhaseRecord]:
    record = runtime.draws.get(campaign_id)
    phases = [phase for phase in (record.phases if record else {}).values() if phase.markets]
    phases = [phase for phase in phases if phase.reached(PhaseStatus.PUBLISHED)]
    if not phases:
        raise UsageError(f"the draw of {campaign_id} is not published: there is nothing to check")
    return phases


def _told(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())
