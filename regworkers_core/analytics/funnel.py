"""The funnel of a campaign: from registered to notified, per market, segment and day. Its numbers, those that are
pending, and remarks on those that do not fit; as Markdown for the metadata of the asset, and as the stored HTML page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.draws import MarketStatus, PhaseStatus
from regworkers_core.analytics.funnel_counting import (
    STAGES,
    Counting,
    Counts,
    Stage,
    StagedFiles,
    stage_sources,
)
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.selection import Outcome
from regworkers_core.domain.timestamps import iso
from regworkers_core.operation import Level, Remark
from regworkers_core.reporting import counted, markdown_image, markdown_table, page, percent
from regworkers_core.reporting.figures import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    distinct,
    figure,
    horizontal_bars,
    lines,
    png,
    short,
    titled,
    whole_numbers,
)
from regworkers_core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Funnel:
    """The funnel of a campaign."""

    campaign: Campaign
    at: str  # an ISO time
    phase: int | None
    counts: Counts
    removed: int  # entries that are no longer there
    excluded: Mapping[str, int]  # entries by the reason that excludes them
    pending: Mapping[Stage, str]  # stages that were not reached yet, and why: they have no number, not even 0
    remarks: tuple[Remark, ...]  # what a reader has to know

    @property
    def adds_up(self) -> bool:
        return not any(remark.level == "finding" for remark in self.remarks)

    def number(self, stage: Stage) -> int | None:
        return None if stage in self.pending else self.counts.totals[stage]

    def rows(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """A frame of `counts` as documents, with None for pending stages."""
        name = str(frame.index.name)
        return [
            {
                name: str(key),
                **{stage.value: None if stage in self.pending else int(row[stage.value]) for stage in STAGES},
            }
            for key, row in zip(frame.index, frame.to_dict("records"), strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """A JSON document without data of single entries."""
        return {
            "campaignId": self.campaign.campaign_id,
            "status": self.campaign.status.value,
            **as_document(self, "at", "phase", "pending", "removed", "excluded", "remarks", "adds_up"),
            "stages": {stage.value: self.number(stage) for stage in STAGES},
            "messagesSent": dict(sorted(self.counts.sent.items())),
            "messagesSuperseded": dict(sorted(self.counts.superseded.items())),
            "markets": self.rows(self.counts.markets),
            "segments": self.rows(self.counts.segments),
            "days": self.rows(self.counts.days),
            "sources": {stage.value: stage.source for stage in STAGES},
        }


def make_funnel(
    runtime: Runtime, campaign: Campaign, tell: Callable[[str], None] = lambda _text: None
) -> Funnel:
    """Read every source once and count, in constant memory. Raises TransientFailure."""
    with tempfile.TemporaryDirectory(prefix="regworkers-funnel-") as name:
        folder = Path(name)
        staged = stage_sources(runtime, campaign.campaign_id, folder, tell)
        tell("counting")
        with Counting(folder, runtime.settings.archive.memory_mib) as counting:
            counts = counting.count(staged, list(campaign.market_ids))
    pending, remarks = assess(campaign.campaign_id, counts, staged)
    return Funnel(
        campaign=campaign,
        at=iso(runtime.clock()),
        phase=None if staged.drawn is None else staged.drawn.phase,
        counts=counts,
        removed=staged.removed,
        excluded={} if staged.frozen is None else staged.frozen.freeze.get("excluded", {}),
        pending=pending,
        remarks=remarks,
    )


class Assessed(NamedTuple):
    pending: Mapping[Stage, str]  # why each of these stages was not reached yet
    remarks: tuple[Remark, ...]  # they explain numbers that do not fit


def assess(campaign_id: str, counts: Counts, staged: StagedFiles) -> Assessed:
    pending = _pending(counts, staged)
    return Assessed(pending, tuple(_remarks(campaign_id, counts, staged, pending)))


def _pending(counts: Counts, staged: StagedFiles) -> dict[Stage, str]:
    draw = "the draw has not frozen its pool yet" if staged.draw else "there is no draw yet"
    if staged.frozen is None:
        return dict.fromkeys((Stage.ELIGIBLE, Stage.WON, Stage.CODED, Stage.NOTIFIED), draw)
    if staged.drawn is None:
        return dict.fromkeys((Stage.WON, Stage.CODED, Stage.NOTIFIED), "the draw has no result yet")
    totals, pending = counts.totals, dict[Stage, str]()
    published = any(
        phase.reached(PhaseStatus.PUBLISHED) for phase in (staged.draw.phases.values() if staged.draw else ())
    )
    if totals[Stage.WON] and not totals[Stage.CODED]:
        why = "no winner has a code yet" if published else "the result is not published yet"
        pending[Stage.CODED] = why
    if totals[Stage.WON] and not totals[Stage.NOTIFIED]:
        why = "no winner has been notified yet" if published else "the result is not published yet"
        pending[Stage.NOTIFIED] = why
    return pending


def _remarks(
    campaign_id: str, counts: Counts, staged: StagedFiles, pending: Mapping[Stage, str]
) -> Iterator[Remark]:
    without = counts.without
    which = f"`regworkers reconcile --campaign {campaign_id}` lists them"
    if number := without[Stage.REPLICATED, Stage.REGISTERED]:
        yield Remark(
            "warning",
            f"{counted(number, 'entry')} in the replica but not in the demand table: a removal is in transit, or was"
            f" lost; {which}",
        )
    missing = counts.totals[Stage.REGISTERED] - counts.totals[Stage.REPLICATED]
    missing += without[Stage.REPLICATED, Stage.REGISTERED]
    if missing:
        yield Remark("warning", f"{counted(missing, 'entry')} not replicated yet; {which}")
    if staged.removed:
        yield Remark(
            "note",
            f"{counted(staged.removed, 'entry')} removed: only the frozen pool of the draw may still contain them",
        )
    if staged.frozen is not None:
        yield from _of_the_pool(counts, staged.frozen.freeze, staged.frozen.as_of)
    if staged.drawn is not None:
        won, recorded = counts.totals[Stage.WON], staged.drawn.outcomes.get(Outcome.WINNER.value, 0)
        if won != recorded:
            yield Remark("finding", f"the draw recorded {recorded:,} winners, its file contains {won:,}")
        if number := without[Stage.WON, Stage.ELIGIBLE]:
            yield Remark("finding", f"{counted(number, 'entry')} won without being in the pool of the draw")
        yield from _of_the_codes(counts, staged, pending)


def _of_the_pool(counts: Counts, freeze: Mapping[str, object], as_of: str) -> Iterator[Remark]:
    eligible = counts.totals[Stage.ELIGIBLE]
    if eligible != freeze.get("count", eligible):
        yield Remark("finding", f"the draw froze {freeze['count']:,} entries, its file contains {eligible:,}")
    if number := counts.without[Stage.ELIGIBLE, Stage.REPLICATED]:
        yield Remark(
            "note",
            f"{counted(number, 'entry')} in the pool but no longer in the replica: removed after the evaluation as of"
            f" {as_of}",
        )
    evaluated = freeze.get("entries")
    if isinstance(evaluated, int):
        # Live entries, minus those of the pool that are still live, minus those that were evaluated and excluded.
        live = counts.totals[Stage.REPLICATED] - (eligible - counts.without[Stage.ELIGIBLE, Stage.REPLICATED])
        if late := live - (evaluated - eligible):
            yield Remark(
                "note",
                f"{counted(late, 'entry')} did not take part in the draw: replicated after the evaluation as of {as_of}"
                if late > 0
                else f"{counted(-late, 'entry')} evaluated, excluded and removed since",
            )


def _of_the_codes(counts: Counts, staged: StagedFiles, pending: Mapping[Stage, str]) -> Iterator[Remark]:
    without, drawn = counts.without, staged.drawn
    if drawn is None:
        return
    completed = drawn.reached(PhaseStatus.COMPLETED)
    if number := without[Stage.CODED, Stage.WON]:
        level: Level = "warning" if drawn.phase > 1 else "finding"
        yield Remark(
            level, f"{counted(number, 'entry')} with a code but without a seat in phase {drawn.phase}"
        )
    if counts.elsewhere:
        yield Remark(
            "finding", f"{counted(counts.elsewhere, 'entry')} with a code of another market than the one won"
        )
    uncoded = counts.totals[Stage.WON] - counts.totals[Stage.CODED] + without[Stage.CODED, Stage.WON]
    if uncoded and Stage.CODED not in pending:
        blocked = [name for name, each in drawn.markets.items() if each.get("status") == MarketStatus.BLOCKED]
        why = f"; too few codes in {', '.join(sorted(blocked))}" if blocked else ""
        yield Remark(
            "finding" if completed else "warning",
            f"{counted(uncoded, 'entry')} with a seat but without a code{why}",
        )
    if number := without[Stage.NOTIFIED, Stage.CODED]:
        yield Remark("finding", f"{counted(number, 'entry')} notified of a win but without a code")
    unsent = counts.totals[Stage.CODED] - counts.totals[Stage.NOTIFIED] + without[Stage.NOTIFIED, Stage.CODED]
    if unsent and Stage.NOTIFIED not in pending:
        yield Remark("note", f"{counted(unsent, 'entry')} with a code but not notified yet")


NOT_YET = "not yet"
_COLOURS = dict(zip(STAGES, (GREY, BAND, BLUE, ORANGE, PURPLE, GREEN), strict=True))
_MOST_ROWS = 20
_MOST_DAYS = 400


class RenderedFunnel(NamedTuple):
    """The rendered funnel: `markdown` by name, with inline plots, and the page."""

    markdown: Mapping[str, str]
    html: str


def shown(funnel: Funnel) -> RenderedFunnel:
    """Render the funnel, without data of single entries. The plots take about a second."""
    plots = _plots(funnel)
    markdown = {"overview": _overview(funnel)}
    markdown |= {f"plot_{name}": markdown_image(name, plot) for name, plot in plots.items()}
    return RenderedFunnel(markdown, _page(funnel, plots))


def _plots(funnel: Funnel) -> dict[str, bytes]:
    if not any(funnel.counts.totals.values()):
        return {}
    names = {market.market_id: market.name for market in funnel.campaign.markets}
    return {
        "funnel": _bars(funnel),
        "markets": _groups(funnel, funnel.counts.markets, "By market", names),
        "segments": _groups(funnel, funnel.counts.segments, "By segment", {}),
        "days": _days(funnel),
    }


def _bars(funnel: Funnel) -> bytes:
    made, (axis,) = figure(rows=len(STAGES))
    numbers = [funnel.number(stage) for stage in STAGES]
    texts = [NOT_YET if number is None else f"{number:,}" for number in numbers]
    colours = [_COLOURS[stage] for stage in STAGES]
    horizontal_bars(axis, list(STAGES), [number or 0 for number in numbers], colours, texts)
    titled(axis, f"Funnel of {short(funnel.campaign.name, 50)}", "entries")
    return png(made)


def _groups(funnel: Funnel, frame: pd.DataFrame, title: str, names: Mapping[str, str]) -> bytes:
    """A group of bars for each of the largest rows, with one bar per stage that was reached."""
    largest = frame.assign(most=frame.max(axis=1)).nlargest(_MOST_ROWS, "most").index
    drawn = frame.loc[[key for key in frame.index if key in set(largest)]]
    stages = _reached(funnel)
    made, (axis,) = figure(rows=len(drawn) * (1 + 0.6 * len(stages)))
    height = 0.8 / len(stages)
    for at, stage in enumerate(stages):
        places = [row + (at - (len(stages) - 1) / 2) * height for row in range(len(drawn))]
        axis.barh(
            places, drawn[stage.value].tolist(), height=height, color=_COLOURS[stage], label=stage.value
        )
    axis.set_yticks(range(len(drawn)), distinct([names.get(str(key)) or str(key) for key in drawn.index]))
    axis.invert_yaxis()
    whole_numbers(axis.xaxis)
    more = f" (the {_MOST_ROWS} largest)" if len(frame) > len(drawn) else ""
    titled(axis, title + more, "entries", columns=min(len(stages), 3))
    return png(made)


def _days(funnel: Funnel) -> bytes:
    frame, stages = funnel.counts.days.tail(_MOST_DAYS), _reached(funnel)
    series = {stage.value: [int(number) for number in frame[stage.value]] for stage in stages}
    colours = [_COLOURS[stage] for stage in stages]
    return lines("By day of registration (UTC)", "entries", list(map(str, frame.index)), series, colours)


def _reached(funnel: Funnel) -> list[Stage]:
    return [stage for stage in STAGES if stage not in funnel.pending]


def stage_rows(funnel: Funnel) -> list[tuple[str, str, str]]:
    """Stage, entries and share of those registered, or the reason for which there is no number."""
    registered = funnel.number(Stage.REGISTERED) or 0
    rows = []
    for stage in STAGES:
        number = funnel.number(stage)
        if number is None:
            rows.append((stage.value, NOT_YET, funnel.pending[stage]))
        else:
            rows.append((stage.value, f"{number:,}", percent(number / registered if registered else None)))
    return rows


def _overview(funnel: Funnel) -> str:
    table = markdown_table(("", "entries", "of those registered"), stage_rows(funnel))
    return "\n".join([table, "", *(f"- **{remark.level}**: {remark.text}" for remark in funnel.remarks)])


def _page(funnel: Funnel, plots: Mapping[str, bytes]) -> str:
    names = {market.market_id: market.name for market in funnel.campaign.markets}
    return page(
        "funnel",
        title=f"Funnel: {funnel.campaign.name}",
        funnel=funnel,
        plots=plots,
        stages=STAGES,
        stage_rows=stage_rows(funnel),
        markets=_rows(funnel, funnel.counts.markets, names),
        segments=_rows(funnel, funnel.counts.segments, {}),
        days=_rows(funnel, funnel.counts.days, {}),
        # Why entries were excluded, and messages that are no stage.
        other_counts=(
            ("Excluded as ineligible", "first reason", funnel.excluded),
            ("Messages sent", "type", funnel.counts.sent),
            ("Messages superseded and never sent", "type", funnel.counts.superseded),
        ),
    )


def _rows(funnel: Funnel, frame: pd.DataFrame, names: Mapping[str, str]) -> list[Sequence[object]]:
    name = str(frame.index.name)
    return [
        (
            names.get(each[name]) or each[name],
            *(NOT_YET if each[stage.value] is None else each[stage.value] for stage in STAGES),
        )
        for each in funnel.rows(frame)
    ]


class PublishedFunnel(NamedTuple):
    """A stored funnel. `where` is the address of the page."""

    funnel: Funnel
    shown: RenderedFunnel
    where: str


def publish_funnel(
    runtime: Runtime, campaign: Campaign, tell: Callable[[str], None] = lambda _text: None
) -> PublishedFunnel:
    """Make the funnel and replace its stored page. Raises TransientFailure."""
    funnel = make_funnel(runtime, campaign, tell)
    made = shown(funnel)
    key = f"reports/{campaign.campaign_id}/funnel.html"
    runtime.objects.put_bytes(key, made.html.encode())
    return PublishedFunnel(funnel, made, f"s3://{runtime.objects.bucket}/{key}")
