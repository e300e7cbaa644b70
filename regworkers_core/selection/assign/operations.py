"""What helps a market whose codes cannot be assigned."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from regworkers_core.operation import Call, Effect, OfCampaign, Report, Table, operation


class ReplanCodes(OfCampaign):
    words: ClassVar = ("campaign_id", "market_id")
    market_id: str = Field(description="The market whose chunks are blocked: its codes are void.")


@operation(
    "draw replan-code",
    "replan_code",
    Effect.DELETE,
    duty="selection",
    role="manager",
    asset="codes",
)
def replan(call: Call, given: ReplanCodes) -> Report:
    """Give each winner whose planned code is void the market's next position that was never planned, and queue the open
    chunks again.

    A code that was assigned or redeemed outside of the draw becomes void first. The former positions are never used
    again, and the plan keeps both. Fails if codes are missing.
    """
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.assign.replan import replan_codes

    campaign_id = call.campaign_id(given.campaign_id)
    found = replan_codes(call.runtime, campaign_id, given.market_id, run_id=call.run_id)
    if call.apply and found.moves and not found.missing:
        found = replan_codes(
            call.runtime, campaign_id, given.market_id, run_id=call.run_id, confirm=found.word
        )
    said = ["every planned code can be assigned"] if not found.moves else []
    if found.applied:
        said = [f"{len(found.moves)} moved, {found.queued} chunks queued again"]
    load = call.face.name_of("codes import", f"FILE --campaign {campaign_id} --market {given.market_id}")
    moves = [(each.before, each.was.value, each.after or "no code is left") for each in found.moves]
    return Report(
        document={**found.as_dict(), "confirm": found.word, "said": " ".join(said)},
        facts=found.as_dict(),
        tables=[Table("moves", ("position", "its code is", "replaced by"), moves)],
        said=said,
        left=f"{found.missing} codes are missing: import them with {load}, then repeat this"
        if found.missing
        else "",
        pending=bool(found.moves) and not found.applied,
        counts={"moved": len(found.moves) if found.applied else 0, "queued": found.queued},
        word=found.word if found.moves and not found.missing else "",
        question=f"{len(found.moves)} winners will get another code",
        changed=found.applied,
    )
