"""Before anything is judged: on which terms, and whether everybody who entered in time can be seen."""

from __future__ import annotations

from collections.abc import Callable

from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.selection.draw.terms import Terms, merged, require_room

Strikes = tuple[tuple[str, str], ...]


def terms_of_first(campaign: Campaign, strikes: Strikes, first: PhaseRecord | None) -> Terms:
    """The terms of phase 1 as the campaign states them now. Strikes that an earlier run was given stay where this
    one was given none: a run that a sensor starts knows of none. Raises RequestError for too many.
    """
    if not strikes and first is not None:
        strikes = Terms.parse(first.fields["terms"]).strikes
    terms = Terms.of(campaign, strikes)
    require_room([terms])
    return terms


def refuse_late_strikes(campaign_id: str, first: PhaseRecord, strikes: Strikes) -> None:
    """Raises UsageError for strikes that are not those of the manifest: they precede the commit."""
    if strikes and merged(strikes) != Terms.parse(first.fields["terms"]).strikes:
        raise UsageError(
            f"the draw of {campaign_id} is committed without these strikes, and what is committed stays: "
            f"`regworkers draw top-up {campaign_id} --strikes ...`, or the job `top_up` with `strikes`, takes their"
            " places away in a further phase"
        )


def await_writers(
    campaign: Campaign,
    grace_seconds: float,
    *,
    clock: Callable[[], float],
    wait: Callable[[float], bool],
    tell: Callable[[str], None],
) -> bool:
    """Wait until `grace_seconds` after the closing: an entry that was made before it may be written so much later,
    and its fan was told that it counts. False when `wait` was cut short.

    A campaign that is closed and does not say since when is taken for closed just now.
    """
    since = seconds(campaign.takes_entries_until) or 0.0
    ends = min(since, clock()) + grace_seconds
    while (left := ends - clock()) > 0:
        tell(f"waiting {left:.0f} s for entries that were under way when registration closed")
        if wait(min(left, 5.0)):
            return False
    return True
