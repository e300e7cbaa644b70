"""Report: brings the files of a drawn phase to the report's maker and keeps what it made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from regworkers_core.adapters.mongo.codes import CodeStatus
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw import freezing
from regworkers_core.selection.draw.artefacts import Workbench, pipeline_key, report_key
from regworkers_core.selection.draw.pool import EXCLUSIONS, POOL
from regworkers_core.selection.draw.terms import Terms
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.files import CUTOFFS, MANIFEST, OUTCOMES, SUMMARY
from regworkers_core.selection.report.inputs import ReportContext, ReportFiles

PAGE, NUMBERS = "report.html", "report.json"


@dataclass(frozen=True, slots=True)
class MadeReport:
    """`record` goes into the `draws` document: where the report lies, `findings`, `warnings`, the funnel, new
    winners by market;
    `markdown` has the overview and each plot by name.
    """

    record: Mapping[str, Any]
    markdown: Mapping[str, str]


def report(
    runtime: Runtime,
    campaign: Campaign,
    record: DrawRecord,
    phase: PhaseRecord,
    bench: Workbench,
    engine: Engine,
) -> MadeReport:
    """Make the report of a drawn phase and put it into the store as page and as JSON."""
    campaign_id, number = record.campaign_id, phase.phase
    folder = bench.fetch_public(phase, MANIFEST, CUTOFFS, SUMMARY)
    first = record.phases[1]
    outcomes = pipeline_key(campaign_id, number, OUTCOMES)
    files = ReportFiles(
        artefacts=folder,
        pool=freezing.fetch(bench, record, POOL, bench.root / POOL),
        exclusions=freezing.fetch(bench, record, EXCLUSIONS, bench.root / EXCLUSIONS),
        outcomes=bench.fetch(outcomes, bench.root / OUTCOMES, phase.hashes.get(OUTCOMES, "")),
    )
    codes = runtime.codes.count(campaign_id)
    context = ReportContext(
        campaign_name=campaign.name,
        market_names={market.market_id: market.name for market in campaign.markets},
        codes={
            market_id: codes.get(market_id, {}).get(CodeStatus.AVAILABLE, 0)
            for market_id in campaign.market_ids
        },
        commitment_late=first.commitment_late,
        dropped_preferences=first.freeze["droppedPreferences"],
        reason=Terms.parse(phase.fields["terms"]).reason,
        published_at=first.published_at,
        replaced=len(first.replaced),
        recommitted=first.recommitted,
    )
    # Imported here: plots and statistics cost every run and every command a second that only a report needs.
    from regworkers_core.selection.report.build import build_report, images, overview

    made = build_report(files, context, memory_mib=engine.memory_mib, scratch=engine.scratch)
    page = report_key(campaign_id, number, PAGE)
    runtime.objects.put_bytes(page, made.html.encode())
    runtime.objects.put_bytes(report_key(campaign_id, number, NUMBERS), orjson.dumps(made.numbers))
    return MadeReport(
        {
            "page": f"s3://{runtime.names.bucket}/{page}",
            "findings": list(made.findings),
            "warnings": list(made.warnings),
            # For the gate, which takes nothing from the page.
            "biasAudit": list(made.numbers["audit"]["findings"]),
            "funnel": made.numbers["funnel"],
            "newWinners": {market["marketId"]: market["new"] for market in made.numbers["markets"]},
            "at": iso(runtime.clock()),
        },
        {"overview": overview(made)} | {f"plot_{name}": plot for name, plot in images(made).items()},
    )
