"""The stop switch: pause and resume the messages of a campaign or of all, and tell how they stand."""

from __future__ import annotations

from typing import Any

from regworkers_core.adapters.mongo.outbox import SOURCE, RowStatus
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify.holding import markets_of
from regworkers_core.selection.notify.units import Unit, held_until


def pause(runtime: Runtime, campaign_id: str | None, *, reason: str, by: str) -> dict[str, Any]:
    """Nothing more is handed to the mailer, of this campaign or (None) of any; what is on its way arrives.

    Raises UsageError for a campaign without a draw.
    """
    at = iso(runtime.clock())
    if campaign_id is None:
        runtime.draw_markets.switch_all(paused=True, reason=reason, by=by, at=at)
    elif not runtime.draw_markets.pause(campaign_id, reason=reason, by=by, at=at):
        raise _no_draw(campaign_id)
    return {"campaignId": campaign_id, "paused": True, "reason": reason, "by": by, "at": at}


def resume(runtime: Runtime, campaign_id: str | None, *, reason: str, by: str) -> dict[str, Any]:
    """Let messages go on. Dead letters that the mailer's queue has now are known from here on: only more of
    them pause the campaign again. Raises UsageError for a campaign without a draw.
    """
    at, names = iso(runtime.clock()), runtime.names
    answer: dict[str, Any] = {
        "campaignId": campaign_id,
        "paused": False,
        "reason": reason,
        "by": by,
        "at": at,
    }
    if campaign_id is None:
        runtime.draw_markets.switch_all(paused=False, reason=reason, by=by, at=at)
        return answer
    dead = runtime.queue(names.dead_letter_queue(names.notification_queue)).depth().total
    if not runtime.draw_markets.resume(campaign_id, reason=reason, by=by, at=at, tolerated=dead):
        raise _no_draw(campaign_id)
    return {**answer, "toleratedDeadLetters": dead}


def retry(runtime: Runtime, campaign_id: str, *, by: str) -> dict[str, Any]:
    """Try the messages that FAILED once more, and close their dead letters. Raises UsageError for a campaign without a
    draw.
    """
    record = runtime.draws.light(campaign_id)
    if record is None:
        raise _no_draw(campaign_id)
    at = iso(runtime.clock())
    rows = sum(runtime.outbox.retry(market) for market in markets_of(record))
    of_campaign = {"queue": SOURCE, "campaignId": campaign_id}
    closed = runtime.dead_letters.close_all(of_campaign, "resolved", before=at, at=at, by=by)
    return {"campaignId": campaign_id, "messages": rows, "deadLettersClosed": closed}


def status(runtime: Runtime, campaign_id: str | None) -> dict[str, Any]:
    """Switches, and by campaign, phase and market how many messages are to be sent (`pending`), are held by a later
    phase that is drawn and not confirmed (`waiting`), are `sent`, hold no longer (`superseded`), or `failed`.

    Counts every row of the campaigns in question: not for sensors. Raises UsageError for a campaign without a draw.
    """
    records = runtime.draws.all() if campaign_id is None else [runtime.draws.get(campaign_id)]
    campaigns: dict[str, Any] = {}
    for record in records:
        if record is None:
            raise _no_draw(str(campaign_id))
        phases: dict[str, Any] = {}
        for market in markets_of(record):
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
        "pending": rows[RowStatus.PENDING],
        "waiting": rows[RowStatus.HELD],
        "sent": rows[RowStatus.SENT],
        "superseded": rows[RowStatus.SUPERSEDED],
        "failed": rows[RowStatus.FAILED],
        "deliveredAt": unit.entry.get("deliveredAt"),
        "heldUntil": iso(held) if held > runtime.clock() and rows[RowStatus.PENDING] else None,
    }


def _no_draw(campaign_id: str) -> UsageError:
    return UsageError(
        f"campaign {campaign_id} has no draw and owes no message yet; to stop all campaigns, run "
        "`regworkers notifications pause --all`, or pause_notifications with `everything: true`"
    )
