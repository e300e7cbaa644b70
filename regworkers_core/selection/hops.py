"""What a draw made of one entry: what it won, what is owed to it."""

from __future__ import annotations

from regworkers_core.domain.hop import Hop, hop
from regworkers_core.runtime import Runtime


def hops(runtime: Runtime, campaign_id: str, ref: str | None) -> list[Hop]:
    """Selection and outbox; `ref` is None where the entry has none that a draw could use."""
    if ref is None:
        return [Hop("selection", "no ref"), Hop("outbox", "no ref")]
    return [
        hop("selection", lambda: _selection(runtime, campaign_id, ref)),
        hop("outbox", lambda: _outbox(runtime, campaign_id, ref)),
    ]


def _selection(runtime: Runtime, campaign_id: str, ref: str) -> Hop:
    won = runtime.selections.of_entry(campaign_id, ref)
    if not won:
        return Hop("selection", "none")
    facts = {f"phase {each['phase']}": f"{each['marketId']}, position {each['position']}" for each in won}
    facts["runId"] = won[-1]["runId"]
    return Hop("selection", f"won in {len(won)}", max(str(each["selectedAt"]) for each in won), facts)


def _outbox(runtime: Runtime, campaign_id: str, ref: str) -> Hop:
    rows = runtime.outbox.of_entry(campaign_id, ref)
    if not rows:
        return Hop("outbox", "nothing owed")
    sent = [each for each in rows if each.get("sentAt")]
    facts = {each["type"]: each["status"] for each in rows}
    if sent:
        facts["runId"] = str(sent[-1].get("sentBy"))
    at = max((str(each["sentAt"]) for each in sent), default=str(rows[0].get("enqueuedAt")))
    return Hop("outbox", f"{len(sent)} of {len(rows)} sent", at, facts)
