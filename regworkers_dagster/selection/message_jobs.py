"""The messages to fans, as a manager launches it: stop them, let them go on, see how they stand."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.reasons import RequestError
from regworkers_core.selection.notify import switch
from regworkers_dagster.operations.by_hand import (
    CAMPAIGN,
    REASON,
    Launch,
    Outcome,
    launchable,
    require,
    table,
)
from regworkers_dagster.selection.specs import OUTBOX


class SwitchConfig(dg.Config):
    """Whose messages, and why."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    everything: bool = Field(
        default=False, description="Instead of one campaign: all of them, those to come included."
    )
    reason: str = Field(default="", description=REASON + "For those who find it so.")


class StatusConfig(dg.Config):
    """Whose messages."""

    campaignId: str = Field(default="", description=CAMPAIGN + " Empty: all campaigns.")


@launchable(
    "pause_notifications",
    description="The stop switch: hands nothing more to the mailer. What the mailer has got already, it sends.",
)
def pause_notifications(launch: Launch, config: SwitchConfig) -> Outcome:
    """Takes effect with the next batch, within seconds."""
    return _switched(launch, config, switch.pause)


@launchable(
    "resume_notifications",
    description="Lets messages go on where they stopped: no fan gets a message twice. A campaign that is paused by "
    "itself stays paused when `everything` is resumed.",
)
def resume_notifications(launch: Launch, config: SwitchConfig) -> Outcome:
    """Dead letters that the mailer's queue has now are known from here on."""
    return _switched(launch, config, switch.resume)


@launchable(
    "notifications_status",
    reads=True,
    description="How many messages wait and are sent, by campaign, phase and market, and what holds them up. "
    "Fails while something is paused.",
)
def notifications_status(launch: Launch, config: StatusConfig) -> Outcome:
    """Changes nothing."""
    campaign_id = launch.campaign_id(config.campaignId) if config.campaignId.strip() else None
    told = switch.status(launch.runtime, campaign_id)
    paused = [_in_words("everything", told["all"])]
    paused += [_in_words(name, each["switch"]) for name, each in told["campaigns"].items()]
    rows = [
        (name, phase, market, *(each.get(column) for column in _COLUMNS))
        for name, campaign in told["campaigns"].items()
        for phase, found in campaign["phases"].items()
        for market, each in found["markets"].items()
    ]
    facts: dict[str, Any] = {
        "waiting": sum(row[4] for row in rows),
        "sent": sum(row[5] for row in rows),
        "messages": table(("campaign", "phase", "market", *_COLUMNS), rows),
    }
    return Outcome(campaign_id or "", facts, OUTBOX, failure="; ".join(filter(None, paused)))


_COLUMNS = ("status", "pending", "sent", "deliveredAt", "heldUntil")


def _switched(launch: Launch, config: SwitchConfig, turn: Any) -> Outcome:
    if config.everything == bool(config.campaignId.strip()):
        raise RequestError("name one campaign in campaignId, or set everything to true")
    campaign_id = None if config.everything else launch.campaign_id(config.campaignId)
    done = turn(launch.runtime, campaign_id, reason=require("reason", config.reason), by=launch.who)
    launch.tell(f"{campaign_id or 'everything'} is {'paused' if done['paused'] else 'on'}")
    return Outcome(campaign_id or "", done, OUTBOX, changed=True)


def _in_words(what: str, state: dict[str, Any]) -> str:
    if not state.get("paused"):
        return ""
    return f"{what} is paused by {state['by']} since {state['at']}: {state['reason']}"


JOBS = (pause_notifications, resume_notifications, notifications_status)
