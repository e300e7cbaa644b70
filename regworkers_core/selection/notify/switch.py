"""The stop switch: pause and resume the messages of a campaign or of all, and tell how they stand."""

from __future__ import annotations

from typing import Any

from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
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


def status(runtime: Runtime, campaign_id: str | None) -> dict[str, Any]:
    """Switches, and by campaign, phase and market how many messages wait and are sent.

    Counts every row of the campaigns in question: not for sensors. Raises UsageError for a campaign without a draw.
    """
    records = runtime.draws.all() if campaign_id is None else [runtime.draws.get(campaign_id)]
    campaigns: dict[str, Any] = {}
    for record in records:
        if record is None:
            raise _no_draw(str(campaign_id))
        phases: dict[str, Any] = {}
        for number, phase in record.phases.items():
            markets = {}
            for market_id in phase.markets:
                market = MarketPhase(record.campaign_id, market_id, number)
                rows = runtime.outbox.count_by(market, "status")
                held = held_until(runtime, Unit(market, phase))
                markets[market_id] = {
                    "status": phase.markets[market_id]["status"],
                    "pending": rows[RowStatus.PENDING],
                    "sent": rows[RowStatus.SENT],
                    "deliveredAt": phase.markets[market_id].get("deliveredAt"),
                    "heldUntil": iso(held) if held > runtime.clock() and rows[RowStatus.PENDING] else None,
                }
            if markets:
                phases[str(number)] = {"notBefore": phase.fields["notBefore"], "markets": markets}
        campaigns[record.campaign_id] = {"switch": dict(record.notifications), "phases": phases}
    everything = dict(runtime.draw_markets.all_switch())
    everything.pop("_id", None)
    return {"all": everything, "campaigns": campaigns}


def _no_draw(campaign_id: str) -> UsageError:
    return UsageError(
        f"campaign {campaign_id} has no draw and owes nobody a message yet: "
        "`regworkers notifications pause --all` stops everything"
    )
