"""Report a campaign in numbers: who may take part and why not, and how far its entries came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from regworkers_core.adapters.files import require_writable, write_private
from regworkers_core.domain.timestamps import iso
from regworkers_core.operation import Call, LocalFile, OfCampaign, Report, Table, operation

_NOT_YET = "not yet"


class ReportCampaign(OfCampaign):
    page: LocalFile = Field("", description="Write the report with its plots to this HTML file.")


@operation(
    "report funnel",
    "campaign_funnel",
    duty="analytics",
    size="report",
    role="manager",
    asset="campaign_funnel",
    long=True,
)
def funnel(call: Call, given: ReportCampaign) -> Report:
    """Count fans who registered, were eligible, won, were notified, by market, segment and day.

    Works at any time: stages that a campaign has not reached are marked. Reads every source once, and stores the page
    that the web application shows. Numbers that do not add up are a finding.
    """
    page = _page(call, given)
    # Late, for they bring DuckDB, pandas and matplotlib.
    from regworkers_core.analytics.funnel import publish_funnel

    made = publish_funnel(call.runtime, call.campaign(given.campaign_id), call.face.tell)
    if page is not None:
        write_private(page, made.shown.html)
    document = made.funnel.as_dict()
    stages = document["stages"]
    return Report(
        document=document,
        facts={
            "status": document["status"],
            "at": document["at"],
            **stages,
            "pending": document["pending"],
            "addsUp": made.funnel.adds_up,
            "page": made.where,
        },
        tables=[
            Table(
                f"by {what[:-1]}",
                (what[:-1], *stages),
                [
                    (
                        each[what[:-1]],
                        *(_NOT_YET if each[stage] is None else f"{each[stage]:,}" for stage in stages),
                    )
                    for each in document[what]
                ],
            )
            for what in ("markets", "segments", "days")
        ],
        remarks=made.funnel.remarks,
        markdown=lambda: made.shown.markdown,
        pending=not made.funnel.adds_up,
        changed=True,
    )


@operation(
    "eligibility report",
    "eligibility_report",
    duty="selection",
    size="large",
    role="manager",
    asset="eligibility_report",
    long=True,
)
def report(call: Call, given: ReportCampaign) -> Report:
    """Judge every entry as it is now, in any status of the campaign, with reasons by market and day.

    This is a preview and decides nothing. The draw judges the same way once the campaign is closed.
    """
    page = _page(call, given)
    # Late, for they bring DuckDB and pyarrow.
    from regworkers_core.eligibility.judging import judge_entries

    campaign = call.campaign(given.campaign_id)
    now = iso(call.runtime.clock())
    tally = judge_entries(call.runtime, campaign, as_of=now, folder=call.face.folder(), tell=call.face.tell)
    if page is not None:
        tally.judgement(page.parent, page.name)
    numbers = tally.numbers()

    def markdown() -> Mapping[str, str]:
        from regworkers_core.eligibility.eligibility_report import made_report

        return made_report(campaign, numbers, tally.codes).markdown

    failed, primary = numbers["failedRules"], numbers["primaryReasons"]
    return Report(
        document={"campaignId": campaign.campaign_id, **numbers},
        facts={
            "state": "preview",
            **{name: value for name, value in numbers.items() if not isinstance(value, Mapping | list)},
        },
        tables=[
            Table(
                "reasons",
                ("reason", "as the first one", "at all"),
                [(code, f"{primary.get(code, 0):,}", f"{count:,}") for code, count in failed.items()],
            ),
            *(_by(what, numbers[what], tally.codes) for what in ("markets", "days")),
        ],
        said=numbers["notes"],
        markdown=markdown,
        changed=True,
    )


def _by(what: str, counts: Mapping[str, Mapping[str, int]], codes: Sequence[str]) -> Table:
    lines = [(name, *(f"{each.get(code, 0):,}" for code in codes)) for name, each in counts.items()]
    return Table(f"by {what[:-1]} and first reason", (what[:-1], *codes), lines)


def _page(call: Call, given: ReportCampaign) -> Path | None:
    """The file to write, None: none. Raises UsageError, before minutes of work, if it cannot be written."""
    page = call.face.open(given.page) if given.page else None
    require_writable(page, call.face.field("page"))
    return page
