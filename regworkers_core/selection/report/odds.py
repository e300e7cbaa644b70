"""Counts and chances as they came out: from registered to winner, per market, reserve, segment and preference.

A *candidate* holds a rank and is not struck, except in the funnel, where struck entries keep their rank. Rates are
winners divided by candidates, None without candidates.
"""

from __future__ import annotations

from typing import Any

from fairdraw.maths.manifest import Manifest
from fairdraw.maths.rules import Cutoff
from fairdraw.terms import OF_STRUCK
from regworkers_core.selection.report.inputs import OUTCOMES, DrawnPhase, ReportFiles, Workspace


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
        "SELECT count(*) FILTER (WHERE rank > 0), count(*) FILTER (WHERE rank > 0 AND outcome IN $struck)"
        " FROM leaf",
        {"struck": list(OF_STRUCK)},
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
        "struck": total("STRUCK", before=False, after=True),
        "unclaimed": total("UNCLAIMED", before=False, after=True),
        "moved": moved,
    }


# One pass over the leaves counts candidates by list. All figures follow from these few rows.
_BY_LISTS = """
CREATE TABLE tally AS
SELECT preferences, segments, outcome = 'WINNER' AS won, market, previous = 'WINNER' AS pinned, count(*) AS n
FROM leaf WHERE rank > 0 AND outcome NOT IN ('STRUCK', 'UNCLAIMED') GROUP BY ALL
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
# A reserve takes the best-ranked candidates of its segment among those that the market admits.
_TAKE = """
UPDATE admitted SET reserve = t.segment FROM (
  SELECT a.rank, r.segment
  FROM admitted a JOIN round r ON r.market = a.market JOIN segment_list s ON s.n = a.segments
  WHERE a.reserve IS NULL AND list_contains(s.list, r.segment)
  QUALIFY row_number() OVER (PARTITION BY a.market ORDER BY a.rank) <= max(r.seats) OVER (PARTITION BY a.market)
) t WHERE t.rank = admitted.rank
"""


def prepare(work: Workspace, manifest: Manifest) -> None:
    """Create the tables that the figures are read from."""
    work.execute(_BY_LISTS)
    work.execute(
        "CREATE TABLE admitted AS SELECT rank, market, segments, NULL::VARCHAR AS reserve FROM leaf"
        " WHERE outcome = 'WINNER' AND previous <> 'WINNER'"
    )
    for place in range(max((len(market.reserves) for market in manifest.markets), default=0)):
        work.load(
            "round",
            "market VARCHAR, segment VARCHAR, seats BIGINT",
            [
                (market.market_id, market.reserves[place].segment, market.reserves[place].seats)
                for market in manifest.markets
                if len(market.reserves) > place
            ],
        )
        work.execute(_TAKE)


def market_odds(work: Workspace, drawn: DrawnPhase) -> list[dict[str, Any]]:
    """Per market: `seats` in total, `pinned` winners of the previous phase, all `winners` and the `new` ones,
    candidates by `firstChoice` and `anyChoice`, their win rates, and cut-off ranks (None if no candidate was rejected).
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


def segment_odds(work: Workspace) -> list[dict[str, Any]]:
    """Per segment, and for candidates without one (`segment` empty): candidates, winners, win rate, and new winners
    `byReserve` of that segment or by other seats (`byOther`). A candidate in two segments counts in both.
    """
    counted = """
        SELECT unnest(CASE WHEN len(s.list) = 0 THEN [''] ELSE s.list END) AS segment, {columns}
        FROM {table} t JOIN segment_list s ON s.n = t.segments"""
    new = {
        segment: (by_reserve, other)
        for segment, by_reserve, other in work.rows(
            "SELECT segment, count(*) FILTER (WHERE reserve = segment),"
            " count(*) FILTER (WHERE reserve IS DISTINCT FROM segment) FROM ("
            + counted.format(columns="t.reserve", table="admitted")
            + ") GROUP BY segment"
        )
    }
    return [
        {
            "segment": segment,
            "candidates": int(candidates),
            "winners": int(won),
            "winRate": rate(won, candidates),
            "byReserve": int(new.get(segment, (0, 0))[0]),
            "byOther": int(new.get(segment, (0, 0))[1]),
        }
        for segment, candidates, won in work.rows(
            "SELECT segment, sum(n), coalesce(sum(n) FILTER (WHERE won), 0) FROM ("
            + counted.format(columns="t.n, t.won", table="tally")
            + ") GROUP BY segment ORDER BY segment"
        )
    ]


def preferences_honoured(work: Workspace) -> list[dict[str, Any]]:
    """Per choice: its `place` (from 1), the `winners` who got it, their `share` of all winners, and the `candidates`
    who listed at least that many markets.
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
            "candidates": sum(n for length, n in listed.items() if length >= place),
        }
        for place in range(1, max(listed, default=0) + 1)
    ]


def _rank(cutoff: Cutoff | None) -> int | None:
    return None if cutoff is None else cutoff.rank


def rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None
