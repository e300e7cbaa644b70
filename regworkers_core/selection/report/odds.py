"""Counts and chances as they came out: from registered to winner, per market, reserve, household, weight, segment and
preference.

A *candidate* holds a rank and is not struck, except in the funnel, where struck entries keep their rank. Rates are
winners divided by all entries that took part, also those past a household's limit; None without entries.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fairdraw.maths.files import RESULT, STRIKES
from fairdraw.maths.leaves import RESULT_COLUMNS
from fairdraw.maths.rules import Cutoff
from fairdraw.terms import OF_STRUCK_SQL, Outcome
from regworkers_core.selection.report.inputs import (
    LEAST_GROUP,
    OUTCOMES,
    DrawnPhase,
    ReportFiles,
    Workspace,
    lines,
)


def funnel(files: ReportFiles, work: Workspace) -> dict[str, Any]:
    """Counts from registered to winner: `registered` = `eligible` + `excluded` (by `reasons`), `eligible` = the sum of
    `outcomes`, `candidates` with a rank (struck entries keep theirs). `addsUp` says whether these equations hold.
    """
    reasons = {}
    if files.exclusions is not None:
        reasons = dict(
            work.rows(
                "SELECT reason, count(*) FROM read_parquet($path) GROUP BY reason ORDER BY 2 DESC, 1",
                {"path": str(files.exclusions)},
            )
        )
    found = dict(work.rows("SELECT outcome, count(*) FROM leaf GROUP BY outcome"))
    outcomes = {name: found.pop(name, 0) for name in OUTCOMES}
    eligible = work.number("SELECT count(*) FROM leaf")
    candidates, struck_candidates = work.row(
        f"SELECT count(*) FILTER (WHERE rank > 0), count(*) FILTER (WHERE rank > 0 AND outcome IN {OF_STRUCK_SQL})"
        " FROM leaf"
    )
    excluded = sum(reasons.values())
    decided = outcomes["WINNER"] + outcomes["WAITLIST"] + outcomes["UNSELECTED"]
    return {
        "registered": eligible + excluded,
        "excluded": excluded,
        "reasons": reasons,
        "eligible": eligible,
        "candidates": candidates,
        "outcomes": outcomes,
        "addsUp": not found
        and sum(outcomes.values()) == eligible
        and candidates == decided + struck_candidates,
    }


def transitions(work: Workspace) -> dict[str, Any]:
    """Changes since the previous phase: entries by (`from`, `to`), `newWinners`, newly `struck`, `keptWinners`, and
    `moved`, the winners whose market changed, which must be 0.
    """
    moves = work.rows("SELECT previous, outcome, count(*) FROM leaf GROUP BY ALL ORDER BY 1, 2")
    moved = work.number(
        "SELECT count(*) FROM leaf WHERE previous = 'WINNER' AND outcome = 'WINNER'"
        " AND market <> previous_market"
    )

    def total(wanted: str, *, before: bool, after: bool) -> int:
        return sum(n for old, new, n in moves if (old == wanted) is before and (new == wanted) is after)

    return {
        "changes": [{"from": old, "to": new, "entries": n} for old, new, n in moves],
        "keptWinners": total("WINNER", before=True, after=True),
        "newWinners": total("WINNER", before=False, after=True),
        "lostWinners": total("WINNER", before=True, after=False),
        "struck": total(Outcome.STRUCK, before=False, after=True),
        "unclaimed": total(Outcome.UNCLAIMED, before=False, after=True),
        "moved": moved,
    }


# One pass over the leaves counts entries by list. All figures follow from these few rows.
_BY_LISTS = f"""
CREATE TABLE tally AS
SELECT preferences, segments, weight, size, outcome = 'WINNER' AS won, market, previous = 'WINNER' AS pinned,
       rank > 0 AND outcome NOT IN {OF_STRUCK_SQL} AS candidate, count(*) AS n
FROM leaf GROUP BY ALL
"""
_FARED = """
SELECT {group} AS fared, sum(n)::BIGINT, coalesce(sum(n) FILTER (WHERE candidate), 0)::BIGINT,
       coalesce(sum(n) FILTER (WHERE won), 0)::BIGINT
FROM ({table}) GROUP BY fared ORDER BY fared
"""
_OF_SEGMENTS = """
SELECT t.*, unnest(CASE WHEN len(s.list) = 0 THEN [''] ELSE s.list END) AS segment
FROM {table} t JOIN segment_list s ON s.n = t.segments
"""
_STRIKES = f"""
SELECT s.reason, count(w.ref), count(*) - count(w.ref)
FROM {lines("$now", ("ref", "reason"))} s
LEFT JOIN (SELECT ref FROM {lines("$result", RESULT_COLUMNS)} WHERE outcome = 'WINNER') w ON w.ref = s.ref
WHERE s.ref NOT IN (SELECT ref FROM {lines("$before", ("ref", "reason"))})
GROUP BY s.reason ORDER BY s.reason
"""
_MARKETS = """
WITH listed AS (
  SELECT unnest(list) AS market, generate_subscripts(list, 1) AS place, t.n, t.won AND t.market = unnest(list) AS got
  FROM (SELECT preferences, won, market, sum(n) AS n FROM tally GROUP BY ALL) t
  JOIN preference_list l ON l.n = t.preferences)
SELECT market, sum(n) FILTER (WHERE place = 1), sum(n), sum(n) FILTER (WHERE got AND place = 1),
       sum(n) FILTER (WHERE got)
FROM listed GROUP BY market
"""
_ADMITTED = "CREATE VIEW admitted AS SELECT * FROM taken WHERE phase = {phase}"
# Whom an earlier phase admitted, with the rank, which is the same in all phases.
_NEW_WINNERS = f"""
INSERT INTO taken
SELECT $phase, l.rank, r.market, l.segments, NULL
FROM {lines("$now", RESULT_COLUMNS)} r JOIN leaf l ON l.rank = try_cast(r.rank AS BIGINT)
WHERE r.outcome = 'WINNER'
  AND r.ref NOT IN (SELECT ref FROM {lines("$before", RESULT_COLUMNS)} WHERE outcome = 'WINNER')
"""
# A reserve takes the best-ranked candidates of its segment among those that the market admits.
_TAKE = """
UPDATE taken SET reserve = t.segment FROM (
  SELECT a.phase, a.rank, r.segment
  FROM taken a JOIN round r ON r.phase = a.phase AND r.market = a.market JOIN segment_list s ON s.n = a.segments
  WHERE a.reserve IS NULL AND list_contains(s.list, r.segment)
  QUALIFY row_number() OVER (PARTITION BY a.phase, a.market ORDER BY a.rank)
    <= max(r.seats) OVER (PARTITION BY a.phase, a.market)
) t WHERE t.rank = taken.rank AND t.phase = taken.phase
"""


def prepare(work: Workspace, files: ReportFiles, drawn: DrawnPhase) -> None:
    """Create the tables that the figures are read from: `taken` has whom each phase admitted, `admitted` whom this one
    did.
    """
    work.execute(_BY_LISTS)
    work.execute(
        "CREATE TABLE taken AS SELECT $phase::BIGINT AS phase, rank, market, segments, NULL::VARCHAR AS reserve"
        " FROM leaf WHERE outcome = 'WINNER' AND previous <> 'WINNER'",
        {"phase": drawn.manifest.phase},
    )
    work.execute(_ADMITTED.format(phase=drawn.manifest.phase))
    before = os.devnull
    for phase, folder in enumerate(files.earlier, 1):
        now = str(folder / RESULT)
        work.execute(_NEW_WINNERS, {"phase": phase, "now": now, "before": before})
        before = now
    manifests = (*drawn.earlier, drawn.manifest)
    terms = [(each.phase, market) for each in manifests for market in each.markets]
    for place in range(max((len(market.reserves) for _, market in terms), default=0)):
        work.load(
            "round",
            "phase BIGINT, market VARCHAR, segment VARCHAR, seats BIGINT",
            [
                (phase, market.market_id, market.reserves[place].segment, market.reserves[place].seats)
                for phase, market in terms
                if len(market.reserves) > place
            ],
        )
        work.execute(_TAKE)


def market_odds(work: Workspace, drawn: DrawnPhase) -> list[dict[str, Any]]:
    """Per market: `seats` in total, `pinned` winners of the previous phase, all `winners` and the `new` ones,
    entries by `firstChoice` and `anyChoice`, their win rates, and cut-off ranks (None if no candidate was rejected).
    """
    applicants = {market: counts for market, *counts in work.rows(_MARKETS)}
    winners = {
        market: (everyone, pinned)
        for market, everyone, pinned in work.rows(
            "SELECT market, sum(n), coalesce(sum(n) FILTER (WHERE pinned), 0) FROM tally WHERE won GROUP BY 1"
        )
    }
    by_reserve = {
        (market, reserve): n
        for market, reserve, n in work.rows("SELECT market, reserve, count(*) FROM admitted GROUP BY ALL")
    }
    table = []
    for market in drawn.manifest.markets:
        cutoffs = drawn.cutoffs[market.market_id]
        first, anywhere, won_first, _ = (int(n or 0) for n in applicants.get(market.market_id, (0,) * 4))
        everyone, pinned = (int(n) for n in winners.get(market.market_id, (0, 0)))
        table.append(
            {
                "marketId": market.market_id,
                "seats": market.capacity,
                "pinned": pinned,
                "offered": market.capacity - pinned,
                "winners": everyone,
                "new": everyone - pinned,
                "unfilled": market.capacity - everyone,
                "firstChoice": first,
                "anyChoice": anywhere,
                "wonFirstChoice": won_first,
                "winRate": rate(everyone, anywhere),
                "firstChoiceWinRate": rate(won_first, first),
                "openCutoffRank": _rank(cutoffs.open),
                "admittedOpen": int(by_reserve.get((market.market_id, None), 0)),
                "reserves": [
                    {
                        "segment": reserve.segment,
                        "seats": reserve.seats,
                        "admitted": int(by_reserve.get((market.market_id, reserve.segment), 0)),
                        "cutoffRank": _rank(cutoff),
                    }
                    for reserve, (_, cutoff) in zip(market.reserves, cutoffs.reserves, strict=True)
                ],
            }
        )
    return table


def group_odds(work: Workspace) -> dict[str, list[dict[str, Any]]]:
    """How entries fared by `householdSizes` (entries of the unit), `weights` and `segments` ("no segment" for those
    without one; an entry of two counts in both): `group`, `entries`, `candidates`, `winners`, `winRate`, and of
    segments new winners `byReserve` of that segment or by other seats (`byOther`). Small groups are one.
    """
    new = {
        segment: (by_reserve, other)
        for segment, by_reserve, other in work.rows(
            "SELECT segment, count(*) FILTER (WHERE reserve = segment),"
            f" count(*) FILTER (WHERE reserve IS DISTINCT FROM segment) FROM ({_OF_SEGMENTS.format(table='admitted')})"
            " GROUP BY segment"
        )
    }
    segments = _fared(work, "segment", _OF_SEGMENTS.format(table="tally"))
    for row in segments:
        row["byReserve"], row["byOther"] = new.get(row["group"], (0, 0))
        row["group"] = row["group"] or "no segment"
    return {
        "householdSizes": _named(_fared(work, "size", "FROM tally")),
        "weights": _named(_fared(work, "weight", "FROM tally")),
        "segments": _named(segments),
    }


def _fared(work: Workspace, group: str, table: str) -> list[dict[str, Any]]:
    names = ("group", "entries", "candidates", "winners")
    rows = (dict(zip(names, row, strict=True)) for row in work.rows(_FARED.format(group=group, table=table)))
    return [{**row, "group": str(row["group"])} for row in rows]


def _named(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of at least LEAST_GROUP entries, and all others together, however few these are."""
    small = [row for row in rows if row["entries"] < LEAST_GROUP]
    shown = [row for row in rows if row not in small]
    if small:
        counts = {name: sum(row[name] for row in small) for name in small[0] if name != "group"}
        shown.append({"group": f"all others ({len(small)})", **counts})
    return [{**row, "winRate": rate(row["winners"], row["entries"])} for row in shown]


def strikes(work: Workspace, files: ReportFiles) -> list[dict[str, Any]]:
    """The strikes of every phase up to this one: `phase`, `reason`, and how many were of `winners` of the phase before
    and of `others`.
    """
    rows, before = [], None
    for phase, folder in enumerate((*files.earlier, files.artefacts), 1):
        paths = {
            "now": folder / STRIKES,
            "before": before / STRIKES if before else os.devnull,
            "result": before / RESULT if before else os.devnull,
        }
        for reason, winners, others in work.rows(_STRIKES, {name: str(path) for name, path in paths.items()}):
            rows.append({"phase": phase, "reason": reason, "winners": winners, "others": others})
        before = folder
    return rows


def reserves(drawn: DrawnPhase, work: Workspace) -> list[dict[str, Any]]:
    """The reserves of every phase up to this one: `phase`, `marketId`, `segment`, `seats`, how many their phase
    `admitted` to them; from phase 2 on the seats `declared` for later phases and `used` so far.
    """
    admitted = {
        tuple(at): number
        for *at, number in work.rows("SELECT phase, market, reserve, count(*) FROM taken GROUP BY ALL")
    }
    rows, used = [], Counter[tuple[str, str]]()
    for manifest in (*drawn.earlier, drawn.manifest):
        for market in manifest.markets:
            declared = {each.segment: each.seats for each in market.later_reserves}
            for reserve in market.reserves:
                at, later = (market.market_id, reserve.segment), manifest.phase > 1
                used[at] += reserve.seats if later else 0
                rows.append(
                    {
                        "phase": manifest.phase,
                        "marketId": market.market_id,
                        "segment": reserve.segment,
                        "seats": reserve.seats,
                        "admitted": int(admitted.get((manifest.phase, *at), 0)),
                        "declared": declared.get(reserve.segment, 0) if later else None,
                        "used": used[at] if later else None,
                    }
                )
    return rows


def preferences_honoured(work: Workspace) -> list[dict[str, Any]]:
    """Per choice: its `place` (from 1), the `winners` who got it, their `share` of all winners, and the `entries`
    that listed at least that many markets.
    """
    got = dict(
        work.rows(
            "SELECT list_position(l.list, t.market), sum(t.n)::BIGINT FROM tally t"
            " JOIN preference_list l ON l.n = t.preferences WHERE t.won GROUP BY 1"
        )
    )
    listed = dict(
        work.rows(
            "SELECT len(l.list), sum(t.n)::BIGINT FROM tally t JOIN preference_list l ON l.n = t.preferences GROUP BY 1"
        )
    )
    winners = sum(got.values())
    return [
        {
            "place": place,
            "winners": got.get(place, 0),
            "share": rate(got.get(place, 0), winners),
            "entries": sum(n for length, n in listed.items() if length >= place),
        }
        for place in range(1, max(listed, default=0) + 1)
    ]


def _rank(cutoff: Cutoff | None) -> int | None:
    return None if cutoff is None else cutoff.rank


def rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None
