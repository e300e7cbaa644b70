"""Pause and resume the replication of one campaign."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pydantic import Field

from regworkers_core.adapters.mongo.parking import KNOWN_SECONDS, Pause
from regworkers_core.domain.messages import ReplicationItem
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.operation import Call, Effect, OfCampaign, Report, operation
from regworkers_core.replication.keys import send_keys


class PauseCampaign(OfCampaign):
    reason: str = Field(description="Why, in words: no fan's data.")


@operation("campaign pause", "pause_campaign", Effect.ADD, duty="replication", role="manager")
def pause(call: Call, given: PauseCampaign) -> Report:
    """Pause the replication of a campaign: nothing of it is saved, and nothing is lost.

    Fans enter all the same, and the other campaigns go on. Keys of its entries wait until it is resumed, their flags
    stay set, and its draw does not begin. A campaign that is paused keeps its first reason.
    """
    runtime, campaign_id = call.runtime, call.campaign(given.campaign_id).campaign_id
    found = runtime.parking.pause(campaign_id, Pause(iso(runtime.clock()), call.who, given.reason))
    return Report(
        document={
            "campaignId": campaign_id,
            "since": found.at,
            "by": found.by,
            "reason": found.reason,
            "waiting": runtime.parking.count(campaign_id),
        },
        said=[
            f"in force within {KNOWN_SECONDS:g} s;"
            f" {call.face.name_of('campaign resume', campaign_id)} ends the pause and saves what waits"
        ],
        counts={"since": found.at},
        changed=True,
    )


@operation("campaign resume", "resume_campaign", Effect.ADD, duty="replication", role="manager", long=True)
def resume(call: Call, given: OfCampaign) -> Report:
    """Resume the replication of a campaign: queue the keys that waited, without a scan of the table.

    Repeat it if it was stopped: it sends what is left, and a key that is sent twice is saved once.
    """
    runtime, campaign_id = call.runtime, call.campaign(given.campaign_id).campaign_id
    # First the end, then the keys: what is parked in between is not left behind.
    was_paused = runtime.parking.end(campaign_id)
    queue = runtime.queue(runtime.names.replication_queue)
    bucket = TokenBucket(runtime.settings.replication.backfill_items_per_second, sleep=call.stop.wait)
    sent = 0

    def send(items: Sequence[ReplicationItem]) -> None:
        bucket.take(len(items))
        send_keys(queue, items)

    progress = partial(call.face.progress, unit="keys")
    for number in runtime.parking.take(campaign_id, send):
        sent += number
        progress(sent)
        if call.stop.is_set:
            break
    left = runtime.parking.count(campaign_id) if call.stop.is_set else 0
    nothing = not was_paused and not sent
    return Report(
        document={"campaignId": campaign_id, "wasPaused": was_paused, "sent": sent, "left": left},
        said=[f"campaign {campaign_id} was not paused: nothing waited"] if nothing else [],
        left=f"{left} keys are left: repeat it" if left else "",
        counts={"sent": sent, "wasPaused": int(was_paused)},
        changed=not nothing,
    )
