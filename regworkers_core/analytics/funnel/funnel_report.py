"""The funnel of one campaign, whatever its status."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from regworkers_core.analytics.funnel.counting import Counting, Counts
from regworkers_core.analytics.funnel.findings import Remark, judge
from regworkers_core.analytics.funnel.stages import STAGES, Stage
from regworkers_core.analytics.funnel.staging import Staged, stage
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Funnel:
    """`pending` are the stages that were not reached yet: they have no number, which is not the same as 0."""

    campaign: Campaign
    at: str
    phase: int | None
    counts: Counts
    removed: int
    excluded: Mapping[str, int]
    pending: Mapping[Stage, str]
    remarks: tuple[Remark, ...]

    @property
    def adds_up(self) -> bool:
        return not any(remark.level == "finding" for remark in self.remarks)

    def number(self, stage: Stage) -> int | None:
        return None if stage in self.pending else self.counts.totals[stage]

    def rows(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """A frame of `counts` as documents, None for what is pending."""
        name = str(frame.index.name)
        return [
            {
                name: str(key),
                **{stage.value: None if stage in self.pending else int(row[stage.value]) for stage in STAGES},
            }
            for key, row in zip(frame.index, frame.to_dict("records"), strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """A JSON document, without anything of a single entry."""
        return {
            "campaignId": self.campaign.campaign_id,
            "status": self.campaign.status.value,
            "at": self.at,
            "phase": self.phase,
            "stages": {stage.value: self.number(stage) for stage in STAGES},
            "pending": {stage.value: why for stage, why in self.pending.items()},
            "removed": self.removed,
            "excluded": dict(self.excluded),
            "messagesSent": dict(sorted(self.counts.told.items())),
            "messagesSuperseded": dict(sorted(self.counts.superseded.items())),
            "markets": self.rows(self.counts.markets),
            "segments": self.rows(self.counts.segments),
            "days": self.rows(self.counts.days),
            "remarks": [remark._asdict() for remark in self.remarks],
            "addsUp": self.adds_up,
            "sources": {stage.value: stage.source for stage in STAGES},
        }


def make_funnel(
    runtime: Runtime, campaign: Campaign, tell: Callable[[str], None] = lambda _text: None
) -> Funnel:
    """Read every source once and count, at constant memory. Writes nothing. Raises TransientFailure."""
    with tempfile.TemporaryDirectory(prefix="regworkers-funnel-") as name:
        folder = Path(name)
        staged = stage(runtime, campaign.campaign_id, folder, tell)
        tell("counting")
        with Counting(folder, runtime.settings.archive.memory_mib) as counting:
            counts = counting.count(staged, list(campaign.market_ids))
    return _funnel(campaign, iso(runtime.clock()), counts, staged)


def _funnel(campaign: Campaign, at: str, counts: Counts, staged: Staged) -> Funnel:
    told = judge(campaign.campaign_id, counts, staged)
    return Funnel(
        campaign=campaign,
        at=at,
        phase=None if staged.drawn is None else staged.drawn.phase,
        counts=counts,
        removed=staged.removed,
        excluded={} if staged.frozen is None else staged.frozen.freeze.get("excluded", {}),
        pending=told.pending,
        remarks=told.remarks,
    )
