"""The report as one self-contained page: no script, no font, no image from anywhere else; light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from regworkers_core.selection.report.inputs import ReportContext
from regworkers_core.selection.report.style import CSS

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
            *(
                f'<p class="said {note["level"]}"><b>{note["level"].capitalize()}:</b> {escape(note["text"])}</p>'
                for note in numbers["notes"]
            ),
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
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _tiles(funnel: Mapping[str, Any]) -> str:
    counts = [
        ("registered", funnel["registered"]),
        ("eligible", funnel["eligible"]),
        ("candidates", funnel["candidates"]),
        ("winners", funnel["outcomes"]["WINNER"]),
        ("on the waitlist", funnel["outcomes"]["WAITLIST"]),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{count:,}</b>{name}</div>' for name, count in counts)
        + "</div>"
    )


def _funnel(funnel: Mapping[str, Any], plots: Mapping[str, bytes]) -> Iterable[str]:
    yield "<h2>Funnel</h2>"
    yield _image(plots, "funnel", "From registered to winner")
    if funnel["reasons"]:
        yield "<h3>Excluded</h3>"
        yield _table(("reason", "entries"), [(reason, count) for reason, count in funnel["reasons"].items()])
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
    yield _table(
        ("before", "now", "entries"),
        [(change["from"], change["to"], change["entries"]) for change in changes["changes"]],
    )


def _markets(
    markets: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes], context: ReportContext
) -> Iterable[str]:
    yield "<h2>Odds by market</h2>"
    yield _image(plots, "markets", "Demand and seats by market")
    yield _image(plots, "win-rates", "Win rate by market")
    with_codes = context.codes is not None
    yield _table(
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
                _percent(market["winRate"]),
                _percent(market["firstChoiceWinRate"]),
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
        yield _table(
            ("market", "reserve for", "seats", "admitted by it", "cut-off rank", "open seats of the market"),
            rows,
        )


def _segments(segments: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes]) -> Iterable[str]:
    if len(segments) < 2:
        return
    yield "<h2>Odds by segment</h2>"
    yield _image(plots, "segments", "Win rate by segment")
    yield _table(
        ("segment", "candidates", "winners", "win rate", "new by its reserves", "new otherwise"),
        [
            (
                row["segment"] or "no segment",
                row["candidates"],
                row["winners"],
                _percent(row["winRate"]),
                row["byReserve"],
                row["byOther"],
            )
            for row in segments
        ],
    )


def _preferences(places: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes]) -> Iterable[str]:
    if "preferences" in plots:
        yield "<h2>Preferences</h2>"
        yield _image(plots, "preferences", "Which of their choices winners got")
        yield _table(
            ("choice", "candidates with so many", "winners", "share of winners"),
            [(row["place"], row["candidates"], row["winners"], _percent(row["share"])) for row in places],
        )


def _weights(rows: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes]) -> Iterable[str]:
    if len(rows) < 2:
        return
    yield "<h2>Weights</h2>"
    yield _image(plots, "weights", "Share among the first ranks by weight")
    yield _table(
        ("weight", "units", "among the first ranks", "promised", "99.9 % of fair draws", "entries that win"),
        [
            (
                row["weight"],
                row["units"],
                _percent(row["firstShare"]),
                _percent(row["expectedShare"]),
                f"{_percent(row['lowShare'])} – {_percent(row['highShare'])}",
                f"{row['winners']:,} ({_percent(row['winRate'])})",
            )
            for row in rows
        ],
    )


def _audit(audit: Mapping[str, Any], plots: Mapping[str, bytes]) -> Iterable[str]:
    yield "<h2>Bias audit</h2>"
    verdict = "passed" if audit["passed"] else "FAILED"
    yield (
        f"<p><b>{verdict}</b>: {audit['testsMade']} tests over {audit['audited']:,} candidates of weight 1, one per"
        f" unit. A test fails below p = {audit['threshold']:.1e}, so that a fair draw raises a false alarm once in"
        f" {1 / audit['alpha']:,.0f} audits.</p>"
    )
    yield (
        '<p class="muted">Order: are the first ranks spread evenly over the groups? Winners: are the winners, among'
        " candidates with the same preferences and segments? Neither may depend on when a fan registered, on ids,"
        " or on the mail provider.</p>"
    )
    yield _table(
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
        yield _image(plots, f"audit-{dimension}", title)


def _proof(numbers: Mapping[str, Any]) -> Iterable[str]:
    source, rules = numbers["seedSource"], numbers["rules"]
    waitlist = "all" if rules["waitlistSize"] is None else f"{rules['waitlistSize']:,}"
    rows = [
        ("rules", f"{rules['algorithm']}, {rules['winsPerUnit']} per household, waitlist {waitlist}"),
        ("seed source", f"{source['kind']}: {source['guarantee']}"),
        *((name, value) for name, value in numbers["hashes"].items()),
    ]
    yield "<h2>What can be verified</h2><dl>"
    for name, value in rows:
        shown = f"<code>{value}</code>" if name in numbers["hashes"] else escape(value)
        yield f"<dt>{escape(name)}</dt><dd>{shown}</dd>"
    yield "</dl><p>Anyone can replay the draw from its artefacts: <code>regworkers draw verify</code>.</p>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _image(plots: Mapping[str, bytes], name: str, text: str) -> str:
    if name not in plots:
        return ""
    data = base64.b64encode(plots[name]).decode()
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"></figure>'


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g} %"


def _cutoff(rank: int | None) -> str:
    return "none" if rank is None else f"{rank:,}"


def _market_name(market: Mapping[str, Any], context: ReportContext) -> str:
    name = context.market_names.get(market["marketId"])
    return (
        f"{name} ({market['marketId']})" if name and name != market["marketId"] else str(market["marketId"])
    )
