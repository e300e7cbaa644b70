"""Pause, resume, retry and count messages to fans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import Field

from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import market_in_words
from regworkers_core.domain.timestamps import iso
from regworkers_core.operation import CAMPAIGN, Call, Effect, Input, OfCampaign, Report, Table, operation
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify import outbox
from regworkers_core.selection.notify.outbox import Unit, held_until, no_draw

# The statuses of the outbox, by the field of the document that counts a market's messages in it.
COUNTS = {
    "pending": RowStatus.PENDING,
    "waiting": RowStatus.HELD,
    "sent": RowStatus.SENT,
    "superseded": RowStatus.SUPERSEDED,
    "failed": RowStatus.FAILED,
}
COLUMNS = ("campaign", "phase", "market", "codes", *COUNTS, "delivered")


def message_counts(runtime: Runtime, campaign_id: str | None) -> dict[str, Any]:
    """Return the switches, and by campaign, phase and market the `COUNTS`: `waiting` messages are held by a later phase
    that is drawn but not confirmed.

    Counts every row of these campaigns, so it is not for sensors. Raises UsageError for a campaign without a draw.
    """
    records = runtime.draws.all() if campaign_id is None else [runtime.draws.get(campaign_id)]
    campaigns: dict[str, Any] = {}
    for record in records:
        if record is None:
            raise no_draw(str(campaign_id))
        phases: dict[str, Any] = {}
        for market in record.market_phases():
            unit = Unit(market, record)
            of_phase = phases.setdefault(
                str(market.phase), {"notBefore": unit.phase.fields["notBefore"], "markets": {}}
            )
            of_phase["markets"][market.market_id] = _of_market(runtime, unit)
        campaigns[record.campaign_id] = {
            "switch": dict(record.notifications),
            "waitsFor": None if record.unconfirmed is None else record.unconfirmed.phase,
            "phases": phases,
        }
    everything = dict(runtime.draw_markets.all_switch())
    everything.pop("_id", None)
    return {"all": everything, "campaigns": campaigns}


def _of_market(runtime: Runtime, unit: Unit) -> dict[str, Any]:
    rows = runtime.outbox.count_by(unit.market, "status")
    held = held_until(runtime, unit)
    return {
        "status": unit.entry["status"],
        **{name: rows[status] for name, status in COUNTS.items()},
        "deliveredAt": unit.entry.get("deliveredAt"),
        "heldUntil": iso(held) if held > runtime.clock() and rows[RowStatus.PENDING] else None,
    }


def lines(counts: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return a row of `COLUMNS` for each market."""
    return [
        (name, phase, market_in_words(market), each["status"], *map(each.get, COUNTS), each["deliveredAt"])
        for name, phase, market, each in _markets(counts)
    ]


def totals(counts: dict[str, Any]) -> dict[str, int]:
    """Return the `COUNTS` over all campaigns, phases and markets."""
    return {field: sum(each[field] for *_, each in _markets(counts)) for field in COUNTS}


def findings(counts: dict[str, Any]) -> list[str]:
    """Return what only a person can end: messages that are paused, and messages that failed."""
    found = [_paused("everything", counts["all"])]
    for name, campaign in counts["campaigns"].items():
        found.append(_paused(name, campaign["switch"]))
        if failed := _of_campaign(counts, name, "failed"):
            found.append(
                f"{name}: {failed} messages failed; `regworkers notifications retry {name}` or the job "
                "retry_notifications sends them again"
            )
    return [line for line in found if line]


def delays(counts: dict[str, Any]) -> list[str]:
    """Return what ends by itself, or by the confirmation of a phase."""
    found = []
    for name, campaign in counts["campaigns"].items():
        if waiting := _of_campaign(counts, name, "waiting"):
            phase = campaign["waitsFor"]
            found.append(
                f"{name}: {waiting} messages wait, because phase {phase} changes them and is not confirmed yet"
            )
        for number, phase in campaign["phases"].items():
            until = {each["heldUntil"] for each in phase["markets"].values()} - {None}
            found += [f"{name}, phase {number}: the canary holds the rest until {each}" for each in until]
    return found


def _markets(counts: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for name, campaign in counts["campaigns"].items():
        for number, phase in campaign["phases"].items():
            for market, each in phase["markets"].items():
                yield name, number, market, each


def _of_campaign(counts: dict[str, Any], name: str, field: str) -> int:
    return sum(each[field] for campaign, _, _, each in _markets(counts) if campaign == name)


def _paused(what: str, switch: dict[str, Any]) -> str:
    if not switch.get("paused"):
        return ""
    return f"{what} is paused by {switch['by']} since {switch['at']}: {switch['reason']}"


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
