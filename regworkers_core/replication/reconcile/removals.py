"""How many orphans a repair may bury: a source that is wrong, new or empty must not empty the replica."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_NAMED = 3


class Orphans(NamedTuple):
    """Orphaned entries of a campaign, and whether the source holds any entry of it at all."""

    campaign_id: str
    entries: int
    has_source: bool


@dataclass(frozen=True, slots=True)
class Removals:
    """A repair queues at most `allowed` removals; `reason` says why it is none."""

    allowed: int
    reason: str | None = None


def judge_removals(
    orphans: Sequence[Orphans], *, replica: int, share: float, always: int, confirmed: int | None
) -> Removals:
    """`replica` counts its live entries. Refused are removals from a campaign of which the source holds nothing, and
    more than `share` of the replica where that is above `always`; unless somebody `confirmed` as many as there are.
    """
    wanted = sum(each.entries for each in orphans)
    if confirmed is not None and wanted <= confirmed:
        return Removals(confirmed)
    limit = max(always, int(share * replica))
    reason = None
    if deserted := [each.campaign_id for each in orphans if not each.has_source]:
        more = f" and {len(deserted) - _NAMED} more" if len(deserted) > _NAMED else ""
        reason = f"the source holds no entry of {', '.join(deserted[:_NAMED])}{more}"
    elif wanted > limit:
        reason = (
            f"{wanted} of the replica's {replica} entries are more than {share:.0%} and more than {always}"
        )
    elif confirmed is not None:
        reason = f"{confirmed} were confirmed"
    return Removals(limit if reason is None else 0, reason)
