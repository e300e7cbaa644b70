"""The pages of campaigns: all of them, and one, with its entries over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.drains.live_entries import EntriesOverTime, campaign_lag, entries_over_time
from regworkers_core.selection.progress import read_progress, sentence_of
from regworkers_dagster.web.desk import runs
from regworkers_dagster.web.desk.frame import Frame, Shown

_MOST_CAMPAIGNS = 200
_MOST_RUNS = 20
# The plot has units of its own.
_WIDTH, _HEIGHT = 640, 160
# A campaign that is younger is shown by minute.
_BY_MINUTE_SECONDS = 6 * 3600.0
By = Literal["minute", "hour"]
_BUCKET_SECONDS: dict[By, float] = {"minute": 60.0, "hour": 3600.0}


class Curve(NamedTuple):
    """Entries over time, as a line in a plot."""

    # Pairs x,y of the line.
    points: str
    first: str  # an ISO time
    last: str  # an ISO time
    # The highest total.
    most: int
    # The width of the plot, in units of its own.
    width: int = _WIDTH
    # Its height.
    height: int = _HEIGHT


class Campaigns:
    """The routes of campaigns in a frame."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[BaseRoute]:
        """The routes, relative to the application's prefix."""
        return [Route("/desk", self.campaigns), Route("/desk/campaigns/{campaign}", self.campaign)]

    def campaigns(self, request: Request) -> Response:
        """All campaigns, those that go on first."""

        def made() -> Response:
            runtime = self._frame.reader()
            now = iso(runtime.clock())
            draws = {record.campaign_id: record for record in runtime.draws.all()}
            found = runtime.campaigns.list()
            found.sort(key=lambda each: each.opens_at, reverse=True)
            found.sort(key=lambda each: each.status is CampaignStatus.COMPLETED)
            rows = [
                (
                    each,
                    sentence_of(each, draws.get(each.campaign_id), now),
                    sum(m.capacity for m in each.markets),
                )
                for each in found[:_MOST_CAMPAIGNS]
            ]
            more = max(0, len(found) - _MOST_CAMPAIGNS)
            create = self._frame.act(request, "campaign create", {})
            return self._frame.page(
                request, "campaigns", "Campaigns", campaigns=rows, more=more, create=create
            )

        return self._frame.read(request, made)

    def campaign(self, request: Request) -> Response:
        """One campaign: its state, what waits for a person, its steps, and what can be done now."""

        def made() -> Response:
            runtime, named = self._frame.reader(), request.path_params["campaign"]
            campaign = runtime.campaigns.find(named)
            if campaign is None:
                return self._frame.missing(request, "There is no campaign of this name.")
            campaign_id = campaign.campaign_id
            with self._frame.context(request) as context:
                latest = runs.of_campaign(context.instance, campaign_id, _MOST_RUNS)
            found = read_progress(runtime, campaign, at_work=lambda: any(not run.ended for run in latest))
            of_it = {"campaign_id": campaign_id}
            waits = [
                (runs.sentence(each.text), self._frame.form_link(request, each.job, {**of_it, **each.given}))
                for each in found.waits
            ]
            acts = [self._frame.act(request, command, of_it) for command in found.acts]
            steps = [
                (each, self._frame.act(request, each.command, of_it) if each.command in found.acts else None)
                for each in found.steps
            ]
            opened, now = seconds(campaign.takes_entries_from) or 0.0, runtime.clock()
            by: By = "minute" if now - opened < _BY_MINUTE_SECONDS else "hour"
            entries = entries_over_time(runtime, campaign_id, since=opened, by=by)
            return self._frame.page(
                request,
                "campaign",
                campaign.name,
                campaign=campaign,
                progress=found,
                entries=entries,
                lag=campaign_lag(runtime, campaign_id),
                curve=curve_of(entries, now, _BUCKET_SECONDS[by]),
                waits=waits,
                steps=steps,
                acts=[each for each in acts if each],
                runs=latest,
                links=self._links(campaign_id, found.reports, found.record),
            )

        return self._frame.read(request, made)

    def _links(self, campaign_id: str, reports: Iterable[int], record: Any) -> list[Shown]:
        found = [
            Shown(f"Report of phase {phase}", f"{self._frame.prefix}/reports/{campaign_id}/{phase}")
            for phase in reports
        ]
        page = f"draws/{campaign_id}/page/index.html"
        if record is not None and record.public_phases and self._frame.reader().objects.exists(page):
            found.append(Shown("Public page", f"{self._frame.prefix}/{page}"))
        return found


def curve_of(entries: EntriesOverTime, now: float, width_seconds: float) -> Curve | None:
    """The line through the totals, which change within buckets of that width, up to `now` (epoch seconds); None without
    a total or a change.
    """
    if not entries.totals:
        return None
    before = entries.totals[0][1] - entries.buckets[0][1]
    reached: list[tuple[float, int]] = []
    for begin, total in entries.totals:
        at = seconds(begin) or 0.0
        reached += [(at, before), (min(at + width_seconds, max(now, at + 1.0)), total)]
        before = total
    reached.append((max(now, reached[-1][0]), before))
    (first, _), (last, _) = reached[0], reached[-1]
    most = max(total for _, total in reached) or 1
    points = " ".join(
        f"{(at - first) / (last - first) * _WIDTH:.1f},{(1 - total / most) * _HEIGHT:.1f}"
        for at, total in reached
    )
    return Curve(points, iso(first), iso(last), most)
