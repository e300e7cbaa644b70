"""The page of a draw's report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from regworkers_core.reporting.page import image, page, percent, said, table, tiles
from regworkers_core.selection.report.inputs import ReportContext
from regworkers_core.selection.report.notes import verdict

_TITLES = {
    "registrationTime": "Registration time",
    "registrationDay": "Registration day",
    "refPrefix": "First character of the ref",
    "entryIdPrefix": "First telling character of the entry id",
    "mailDomain": "Mail domain",
}


def html_page(numbers: Mapping[str, Any], plots: Mapping[str, bytes], context: ReportContext) -> str:
    """The page of a report's numbers. Everything that comes from outside is escaped."""
    title = f"Draw report: {context.campaign_name or numbers['campaignId']}, phase {numbers['phase']}"
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="muted">campaign <code>{escape(numbers["campaignId"])}</code>, judged as of'
            f" {escape(numbers['asOf'])}. Look at this before you confirm the publication: codes and messages"
            " wait for it.</p>",
            _tiles(numbers["funnel"]),
            *(said(note["level"], note["text"]) for note in numbers["notes"]),
            *_funnel(numbers["funnel"], plots),
            *_top_up(numbers["topUp"]),
            *_markets(numbers["markets"], plots, context),
            *_reserves(numbers["markets"], context),
            *_segments(numbers["segments"], plots),
            *_preferences(numbers["preferences"], plots),
            *_weights(numbers["weights"], plots),
            *_audit(numbers["audit"], plots),
            *_proof(numbers),
        ]
    )
    return page(title, body)


def _tiles(funnel: Mapping[str, Any]) -> str:
    counts = [
        ("registered", funnel["registered"]),
        ("eligible", funnel["eligible"]),
        ("candidates", funnel["candidates"]),
        ("winners", funnel["outcomes"]["WINNER"]),
        ("on the waitlist", funnel["outcomes"]["WAITLIST"]),
    ]
    return tiles(counts)


def _funnel(funnel: Mapping[str, Any], plots: Mapping[str, bytes]) -> Iterable[str]:
    yield "<h2>Funnel</h2>"
    yield image(plots, "funnel", "From registered to winner")
    if funnel["reasons"]:
        yield "<h3>Excluded</h3>"
        yield table(("reason", "entries"), [(reason, count) for reason, count in funnel["reasons"].items()])
        yield (
            '<p class="muted">Which entries, and why each: <code>exclusions.parquet</code> among the pipeline\'s'
            " files of this phase.</p>"
        )


def _top_up(changes: Mapping[str, Any] | None) -> Iterable[str]:
    if changes is None:
        return
    yield "<h2>Against the phase before</h2>"
    yield (
        f"<p>{changes['newWinners']:,} new winners, {changes['keptWinners']:,} keep their place,"
        f" {changes['struck']:,} entries were struck ({changes['lostWinners']:,} of them winners before).</p>"
    )
    yield table(
        ("before", "now", "entries"),
        [(change["from"], change["to"], change["entries"]) for change in changes["changes"]],
    )


def _markets(
    markets: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes], context: ReportContext
) -> Iterable[str]:
    yield "<h2>Odds by market</h2>"
    yield image(plots, "markets", "Demand and seats by market")
    yield image(plots, "win-rates", "Win rate by market")
    with_codes = context.codes is not None
    yield table(
        (
            "market",
            "seats",
            "first choice of",
            "any choice of",
            "winners",
            "new",
            "win rate",
            "first choice wins",
            "cut-off rank",
            *(("codes",) if with_codes else ()),
        ),
        [
            (
                _market_name(market, context),
                market["seats"],
                market["firstChoice"],
                market["anyChoice"],
                market["winners"],
                market["new"],
                percent(market["winRate"]),
                percent(market["firstChoiceWinRate"]),
                _cutoff(market["openCutoffRank"]),
                *(((context.codes or {}).get(market["marketId"], 0),) if with_codes else ()),
            )
            for market in markets
        ],
    )
    yield (
        '<p class="muted">Win rate: winners of the market among candidates who listed it anywhere. Cut-off rank: the'
        " last rank that an open seat admitted; “none” where nobody was turned away.</p>"
    )


def _reserves(markets: Sequence[Mapping[str, Any]], context: ReportContext) -> Iterable[str]:
    rows = [
        (
            _market_name(market, context),
            reserve["segment"],
            reserve["seats"],
            reserve["admitted"],
            _cutoff(reserve["cutoffRank"]),
            market["admittedOpen"],
        )
        for market in markets
        for reserve in market["reserves"]
    ]
    if rows:
        yield "<h2>Reserves</h2>"
        yield table(
            ("market", "reserve for", "seats", "admitted by it", "cut-off rank", "open seats of the market"),
            rows,
        )


def _segments(segments: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes]) -> Iterable[str]:
    if len(segments) < 2:
        return
    yield "<h2>Odds by segment</h2>"
    yield image(plots, "segments", "Win rate by segment")
    yield table(
        ("segment", "candidates", "winners", "win rate", "new by its reserves", "new otherwise"),
        [
            (
                row["segment"] or "no segment",
                row["candidates"],
                row["winners"],
                percent(row["winRate"]),
                row["byReserve"],
                row["byOther"],
            )
            for row in segments
        ],
    )


def _preferences(places: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes]) -> Iterable[str]:
    if "preferences" in plots:
        yield "<h2>Preferences</h2>"
        yield image(plots, "preferences", "Which of their choices winners got")
        yield table(
            ("choice", "candidates with so many", "winners", "share of winners"),
            [(row["place"], row["candidates"], row["winners"], percent(row["share"])) for row in places],
        )


def _weights(rows: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes]) -> Iterable[str]:
    if len(rows) < 2:
        return
    yield "<h2>Weights</h2>"
    yield image(plots, "weights", "Share among the first ranks by weight")
    yield table(
        ("weight", "units", "among the first ranks", "promised", "99.9 % of fair draws", "entries that win"),
        [
            (
                row["weight"],
                row["units"],
                percent(row["firstShare"]),
                percent(row["expectedShare"]),
                f"{percent(row['lowShare'])} – {percent(row['highShare'])}",
                f"{row['winners']:,} ({percent(row['winRate'])})",
            )
            for row in rows
        ],
    )


def _audit(audit: Mapping[str, Any], plots: Mapping[str, bytes]) -> Iterable[str]:
    yield "<h2>Bias audit</h2>"
    yield (
        f"<p><b>{verdict(audit)}</b>: {audit['testsMade']} tests over {audit['audited']:,} candidates of weight 1, one"
        f" per unit. A test fails below p = {audit['threshold']:.1e}, so that a fair draw raises a false alarm once in"
        f" {1 / audit['alpha']:,.0f} audits.</p>"
    )
    yield (
        '<p class="muted">Order: are the first ranks spread evenly over the groups? Winners: are the winners, among'
        " candidates with the same preferences and segments? Neither may depend on when a fan registered, on ids,"
        " or on the mail provider.</p>"
    )
    yield table(
        ("dimension", "question", "groups", "chi-square", "degrees of freedom", "p", "result"),
        [
            (
                test["title"],
                test["question"],
                len(test["groups"]),
                "–" if test["statistic"] is None else f"{test['statistic']:.1f}",
                test["freedom"],
                "–" if test["p"] is None else f"{test['p']:.3g}",
                "nothing to compare" if test["p"] is None else "even" if test["passed"] else "NOT EVEN",
            )
            for test in audit["tests"]
        ],
    )
    for dimension, title in _TITLES.items():
        yield image(plots, f"audit-{dimension}", title)


def _proof(numbers: Mapping[str, Any]) -> Iterable[str]:
    source, rules = numbers["seedSource"], numbers["rules"]
    waitlist = "all" if rules["waitlistSize"] is None else f"{rules['waitlistSize']:,}"
    rows = [
        ("rules", f"{rules['algorithm']}, {rules['winsPerUnit']} per household, waitlist {waitlist}"),
        ("seed source", f"{source['kind']}: {source['guarantee']}"),
        *((name, value) for name, value in numbers["hashes"].items()),
    ]
    if source.get("roundAt"):
        rows.insert(2, ("round signed (UTC)", source["roundAt"]))
        rows.insert(3, ("manifest public (UTC)", source["publishedAt"] or "not known here"))
        rows.insert(4, ("manifests replaced", f"{source['replaced']:,}"))
    yield "<h2>What can be verified</h2><dl>"
    for name, value in rows:
        shown = f"<code>{value}</code>" if name in numbers["hashes"] else escape(value)
        yield f"<dt>{escape(name)}</dt><dd>{shown}</dd>"
    yield "</dl><p>Anyone can replay the draw from its artefacts: <code>regworkers draw verify</code>.</p>"


def _cutoff(rank: int | None) -> str:
    return "none" if rank is None else f"{rank:,}"


def _market_name(market: Mapping[str, Any], context: ReportContext) -> str:
    name = context.market_names.get(market["marketId"])
    return (
        f"{name} ({market['marketId']})" if name and name != market["marketId"] else str(market["marketId"])
    )
