"""Judge every live entry of a campaign at one moment."""

from __future__ import annotations

from pathlib import Path

from regworkers_core.domain.campaign import Campaign
from regworkers_core.judging import JudgedEntry, JudgedWriter, Judgement, Tell
from regworkers_core.runtime import Runtime


def judge_campaign(
    runtime: Runtime, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell
) -> Judgement:
    """See `regworkers_core.judging.Judge`."""
    with JudgedWriter(folder) as writer:
        for key, stored in runtime.replica.scan(campaign.campaign_id):
            if stored.fields is not None:
                writer.add(JudgedEntry.of(key, stored.fields))
    return Judgement()
