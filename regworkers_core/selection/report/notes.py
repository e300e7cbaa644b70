"""What a campaign manager should know before confirming a drawn phase: notes, and verdicts for asset checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from fairdraw.maths.manifest import Manifest
from fairdraw.terms import OF_STRUCK, OWN_BEACON, QUICKNET, Outcome, outcome_in_words, signed_at
from regworkers_core.domain.selection import PromiseVerdict
from regworkers_core.domain.timestamps import seconds
from regworkers_core.operation import Remark
from regworkers_core.reporting import counted, words
from regworkers_core.selection.report.inputs import ReportContext


class Stage(NamedTuple):
    """A line of the funnel."""

    # What the entries are; those who are out have a dash before it.
    text: str
    entries: int
    # What the draw decided for them; empty: it is no decision of the draw.
    outcome: str = ""


def stages(funnel: Mapping[str, Any]) -> list[Stage]:
    """The funnel from registered to winner, without outcomes of no entry."""
    counts = funnel["outcomes"].items()
    found = [Stage(outcome_in_words(name, number), number, name) for name, number in counts if number]
    out = (Outcome.HOUSEHOLD_LIMIT, *OF_STRUCK)
    return [
        Stage("registered", funnel["registered"]),
        *(Stage(f"– {words(reason)}", number) for reason, number in funnel["reasons"].items()),
        Stage("eligible", funnel["eligible"]),
        *(each._replace(text=f"– {each.text}") for each in found if each.outcome in out),
        Stage("candidates (with a rank)", funnel["candidates"]),
        *(each for each in found if each.outcome not in out),
    ]


def notes(numbers: Mapping[str, Any], manifest: Manifest, context: ReportContext) -> list[Remark]:
    """All notes, the most severe first."""
    order = ("finding", "warning", "note")
    found = [
        *_counts(numbers["funnel"], manifest),
        *_audit(numbers["audit"]),
        *(note for market in numbers["markets"] for note in _market(market, context)),
        *_source(numbers["seedSource"]),
        *_commit(numbers["seedSource"], context.lead),
        *_phase(numbers, context),
    ]
    if context.dropped_preferences:
        found.append(
            Remark(
                "note",
                f"the draw ignored {counted(context.dropped_preferences, 'preference')} for a market that is not in"
                " the campaign, or that the entry lists before",
            )
        )
    if context.lost_registrations:
        found.append(
            Remark(
                "warning",
                f"the freeze withdrew {counted(context.lost_registrations, 'registration')} that no entry had any more,"
                " as after a restore of MongoDB: tell the auditors",
            )
        )
    return sorted(found, key=lambda note: order.index(note.level))


def seed_source(manifest: Manifest, context: ReportContext) -> dict[str, Any]:
    source, chain = manifest.seed_source, context.chain
    at = signed_at(chain, source.round)
    signed = f", signed at {at} (UTC)" if at else ""
    lead = None if not at or not context.published_at else _seconds(at) - _seconds(context.published_at)
    public = "" if lead is None else f"; the manifest was public at {context.published_at}, {_lead(lead)}"
    guarantee = (
        f"public randomness: no one could know round {source.round} of the drand beacon{signed}, when the entries were"
        f" committed{public}"
        if chain == QUICKNET
        else f"round {source.round} of {OWN_BEACON}{signed}{public}"
    )
    return {
        **source.as_document(),
        "guarantee": guarantee,
        "roundAt": at,
        "publishedAt": context.published_at,
        "leadSeconds": lead,
        "replaced": context.replaced,
        "recommitted": [dict(each) for each in context.recommitted],
    }


def _seconds(text: str) -> float:
    return seconds(text) or 0.0


def _lead(lead: float) -> str:
    return f"{lead:,.0f} s before" if lead >= 0 else f"{-lead:,.0f} s AFTER"


def _commit(source: Mapping[str, Any], least: int) -> Iterator[Remark]:
    """Notes on a late or repeated commit to a round."""
    lead = source.get("leadSeconds")
    if lead is not None and lead < least:
        yield Remark(
            "warning",
            f"the manifest was public only at {source['publishedAt']}, {_lead(lead)} its round: the"
            f" rule is at least {least} s before",
        )
    if source.get("replaced"):
        yield Remark(
            "note", f"the manifest replaced {counted(source['replaced'], 'manifest')} with another round"
        )
    for each in source.get("recommitted", ()):
        yield Remark(
            "warning",
            f"manifest {each['k']} was replaced after its round {each['round']} was signed: it would have given"
            f" {counted(each['differ'], 'entry')} another outcome (resultHash {each['resultHash']})",
        )


def verdict(audit: Mapping[str, Any]) -> str:
    """The verdict of the bias audit in a word or two."""
    if not audit["testsMade"]:
        return "nothing to compare"
    return "passed" if audit["passed"] else "FAILED"


def _counts(funnel: Mapping[str, Any], manifest: Manifest) -> Iterator[Remark]:
    if not funnel["addsUp"]:
        yield Remark("finding", "the funnel does not add up: an entry has no outcome, or more than one")
    if funnel["eligible"] != manifest.count:
        yield Remark(
            "finding",
            f"the manifest commits to {counted(manifest.count, 'entry')}, the result has {funnel['eligible']:,}",
        )
    if not funnel["eligible"]:
        yield Remark("warning", "no entry is eligible: the draw is valid and has no winners")


def _audit(audit: Mapping[str, Any]) -> Iterator[Remark]:
    for sentence in audit["findings"]:
        yield Remark("finding", f"bias audit, {sentence}")
    if not audit["testsMade"] and audit["audited"]:
        yield Remark("note", "bias audit: too few candidates for any test")


def _market(market: Mapping[str, Any], context: ReportContext) -> Iterator[Remark]:
    name = context.market_names.get(market["marketId"]) or market["marketId"]
    if market["offered"] < 0 or market["winners"] > market["seats"]:
        won, seats = counted(market["winners"], "winner"), counted(market["seats"], "seat")
        yield Remark("finding", f"{name} has {won} for {seats}")
    elif market["unfilled"]:
        yield Remark(
            "warning",
            f"{name} is undersubscribed and leaves {market['unfilled']:,} of {counted(market['seats'], 'seat')} empty",
        )
    for reserve in market["reserves"]:
        if reserve["admitted"] < reserve["seats"]:
            yield Remark(
                "warning",
                f"{name}: the reserve for {reserve['segment']} filled {reserve['admitted']:,} of its"
                f" {counted(reserve['seats'], 'seat')}; the rest went to the open seats",
            )
    if context.codes is not None:
        codes = context.codes.get(market["marketId"], 0)
        if codes < market["new"]:
            yield Remark(
                "warning",
                f"{name} has {counted(codes, 'available code')} for {counted(market['new'], 'new winner')}: import"
                f" {market['new'] - codes:,} more, or no code of this market is assigned",
            )


def _source(source: Mapping[str, Any]) -> Iterator[Remark]:
    public = source["chain"] == QUICKNET.hash
    yield Remark("note" if public else "warning", f"seed source {source['kind']}: {source['guarantee']}")


def _phase(numbers: Mapping[str, Any], context: ReportContext) -> Iterator[Remark]:
    changes = numbers["topUp"]
    if changes is None:
        return
    if changes["moved"]:
        moved = counted(changes["moved"], "winner")
        yield Remark("finding", f"{moved} of the previous phase got another market")
    if context.reason:
        yield Remark("note", f"reason of this phase: {context.reason}")
    yield Remark(
        "note",
        "every rank was known when this phase was chosen: left to trust are its moment and the reason of each strike",
    )
    for each in numbers["reserves"]:
        if each["phase"] == numbers["phase"]:
            name = context.market_names.get(each["marketId"]) or each["marketId"]
            yield Remark(
                "note",
                f"{name} reserves {counted(each['seats'], 'seat')} for {each['segment']}; the later phases so far use"
                f" {each['used']:,} of the {each['declared']:,} that phase 1 declared",
            )
    for each in numbers["strikes"]:
        if each["phase"] == numbers["phase"]:
            yield Remark("note", _struck(each))
    yield Remark(
        "note",
        "winners of the previous phase keep their market and are not upgraded, so truthful preferences are optimal"
        " only within a phase",
    )


def _struck(strikes: Mapping[str, Any]) -> str:
    won = counted(strikes["winners"], "winner")
    if strikes["reason"] == Outcome.UNCLAIMED:
        return f"{won} of the previous phase did not claim the seat in time, which others get now"
    return f"{won} and {counted(strikes['others'], 'other')} are struck, with the reason {strikes['reason']}"


_WINNERS = """
SELECT market, count(*) FROM read_parquet($outcomes) WHERE outcome = 'WINNER' GROUP BY market
"""


def win_rates_uniform(numbers: Mapping[str, Any]) -> PromiseVerdict:
    """The verdict of the bias audit in the `numbers` of a report, as in report.json."""
    audit = numbers["audit"]
    made = [test for test in audit["tests"] if test["p"] is not None]
    least = min(made, key=lambda test: test["p"], default=None)
    if audit["findings"]:
        description = "; ".join(audit["findings"])
    elif least is None:
        description = "too few candidates for any test"
    else:
        description = (
            f"{counted(len(made), 'test')} over {counted(audit['audited'], 'candidate')} found nothing;"
            f" the lowest p is {least['p']:.2g} ({least['title']}, {least['question']})"
        )
    return PromiseVerdict(
        audit["passed"],
        description,
        {
            "tests": len(made),
            "audited": audit["audited"],
            "findings": len(audit["findings"]),
            "threshold": audit["threshold"],
            **{f"p {test['dimension']} {test['question']}": test["p"] for test in made},
        },
    )


def capacity_respected(outcomes: Path, manifest: Manifest) -> PromiseVerdict:
    """Whether no market has more winners than seats, and every winner has a market of the draw."""
    with duckdb.connect() as database:
        winners = dict(database.execute(_WINNERS, {"outcomes": str(outcomes)}).fetchall())
    seats = {market.market_id: market.capacity for market in manifest.markets}
    wrong = [
        f"{market or 'no market'} has {counted(count, 'winner')} for {counted(seats.get(market, 0), 'seat')}"
        for market, count in sorted(winners.items())
        if count > seats.get(market, 0)
    ]
    total = sum(winners.values())
    return PromiseVerdict(
        not wrong,
        "; ".join(wrong)
        or f"{counted(total, 'winner')} within {counted(sum(seats.values()), 'seat')} of"
        f" {counted(len(seats), 'market')}",
        {"winners": total, "seats": sum(seats.values()), "markets": len(seats), "overfull": len(wrong)},
    )
