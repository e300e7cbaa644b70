"""Pause, resume, retry and count messages to fans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from regworkers_core.domain.reasons import RequestError
from regworkers_core.operation import CAMPAIGN, Call, Effect, Input, OfCampaign, Report, Table, operation
from regworkers_core.selection.notify import outbox
from regworkers_core.selection.notify.status import COLUMNS, delays, findings, lines, message_counts, totals


class Switch(Input):
    campaign_id: str = Field("", description=CAMPAIGN)
    everything: bool = Field(False, description="Instead of one campaign: all of them, also future ones.")
    reason: str = Field(description="Why, in words: no fan's data. Shown in the status.")


class Status(Input):
    campaign_id: str = Field("", description=f"{CAMPAIGN} Empty: all campaigns.")


@operation(
    "notifications pause", "pause_notifications", Effect.ADD, duty="selection", role="manager", asset="outbox"
)
def pause(call: Call, given: Switch) -> Report:
    """Stop queueing messages, within seconds. The mailer still sends what it has received."""
    return _switched(call, given, outbox.pause)


@operation(
    "notifications resume",
    "resume_notifications",
    Effect.ADD,
    duty="selection",
    role="manager",
    asset="outbox",
)
def resume(call: Call, given: Switch) -> Report:
    """Resume messages where they stopped; no fan gets one twice.

    A campaign that was paused by itself stays paused when everything is resumed.
    """
    return _switched(call, given, outbox.resume)


@operation(
    "notifications retry", "retry_notifications", Effect.ADD, duty="selection", role="manager", asset="outbox"
)
def retry(call: Call, given: OfCampaign) -> Report:
    """Send the messages of a campaign that FAILED again, and close their dead letters.

    Messages that were sent stay sent. After a blown fuse resume the drain `notifications` instead.
    """
    done = outbox.retry(call.runtime, call.campaign_id(given.campaign_id), by=call.who)
    return Report(document=done, counts={"messages": done["messages"]}, changed=True)


@operation("notifications status", "notifications_status", duty="selection", role="manager", asset="outbox")
def status(call: Call, given: Status) -> Report:
    """Count messages by market: pending, waiting, sent, superseded, failed; and say what delays them.

    Waiting messages are held by a later phase that is not confirmed. Fails while messages are paused, and if messages
    failed.
    """
    counts = message_counts(call.runtime, call.campaign_id(given.campaign_id) if given.campaign_id else None)
    found = lines(counts)
    said = delays(counts)
    return Report(
        document=counts,
        facts=totals(counts) if found else {},
        tables=[Table("messages", COLUMNS, found)],
        said=said if found or said else ["nothing is published yet: there are no messages"],
        left="; ".join(findings(counts)),
    )


def _switched(call: Call, given: Switch, turn: Callable[..., dict[str, Any]]) -> Report:
    if given.everything == bool(given.campaign_id):
        raise RequestError("name one campaign, or everything")
    campaign_id = call.campaign_id(given.campaign_id) if given.campaign_id else None
    done = turn(call.runtime, campaign_id, reason=given.reason, by=call.who)
    return Report(
        document=done,
        said=[f"{campaign_id or 'everything'} is {'paused' if done['paused'] else 'on'}"],
        changed=True,
    )
