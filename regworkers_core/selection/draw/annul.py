"""Annulment of a draw that must not count: its messages are stopped, and the reason is published.

The decision comes first, in the `draws` document, where every step, chunk and sender reads it. The rest is a function
of the decision, so the same command resumes one that was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairdraw.errors import DrawError
from fairdraw.log.leaves import Kind
from fairdraw.maths.beside import ANNULLED, Annulled
from fairdraw.maths.files import sha256_hex
from regworkers_core.adapters.mongo.activity import operator
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.adapters.mongo.outbox import ANNULLED as WHY
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import confirmation_word, public_key, require_word
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import lifecycle
from regworkers_core.selection.campaigns.lifecycle import draw_lease
from regworkers_core.selection.draw.terms import published_reason
from regworkers_core.selection.public.public_log import PublicLog


@dataclass(frozen=True, slots=True)
class Annulment:
    """The effect of an annulment."""

    campaign_id: str
    # It confirms the annulment.
    word: str
    # The record of it; empty until the word confirms it.
    annulled: Mapping[str, Any]
    # Messages that are not sent yet.
    waiting: int
    # Messages that went out before.
    sent: int
    # Codes that fans hold and whose issuer is not known to refuse them.
    codes: int
    # Messages that this run superseded.
    stopped: int = 0
    # It is decided, and what follows from it is not done yet.
    is_begun: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "campaignId": self.campaign_id,
            "confirm": self.word,
            "annulled": dict(self.annulled) or None,
            "messages": {"waiting": self.waiting, "stopped": self.stopped, "sent": self.sent},
            "codesWithFans": self.codes,
        }


def preview(runtime: Runtime, campaign_id: str) -> Annulment:
    """Return what an annulment would stop and what was sent already, or the state of an annulled draw. Read-only.

    Raises RequestError for a campaign whose draw was never opened, TransientFailure.
    """
    record, phase, _ = _latest(runtime, campaign_id)
    counts = [runtime.outbox.count_by(market, "status") for market in record.market_phases()]
    sent = sum(each[RowStatus.SENT.value] for each in counts)
    over = sum(each[RowStatus.SUPERSEDED.value] for each in counts)
    waiting = sum(each.total() for each in counts) - sent - over
    return Annulment(
        campaign_id,
        confirmation_word(campaign_id, phase),
        record.annulled or {},
        waiting,
        sent,
        runtime.codes.count_held(campaign_id),
        is_begun=bool(record.annulled) and (waiting > 0 or not _is_done(runtime, record)),
    )


def _is_done(runtime: Runtime, record: DrawRecord) -> bool:
    """Whether a decided annulment is public and its campaign complete."""
    log = PublicLog.of(runtime).read()
    leaves = log.of_campaign(record.campaign_id) if log else ()
    logged = any(leaf.kind is Kind.ANNULLED for _, leaf in leaves)
    campaign = runtime.campaigns.get(record.campaign_id)
    return logged and (campaign is None or campaign.status is not CampaignStatus.PROCESSING)


def annul(
    runtime: Runtime,
    campaign_id: str,
    *,
    reason: str,
    confirm: str,
    run_id: str,
    by: str = "",
    on_step: OnStep = no_step,
) -> Annulment:
    """End the draw: no step follows, its unsent messages are never sent, and `annulled.json` beside the latest
    committed phase (or phase 1) publishes the reason. A repeat, whatever its reason, resumes the annulment that was
    decided.

    Raises RequestError for a wrong word (`<campaignId>:<phase>` of that phase), a reason that cannot be published, or a
    campaign whose draw was never opened; DrawBusy while another run works on it; TransientFailure.
    """
    text = published_reason(reason, "an annulment")
    with draw_lease(runtime, campaign_id, run_id) as lease:
        record, phase, manifest_hash = _latest(runtime, campaign_id)
        if not record.annulled:
            require_word(confirm, confirmation_word(campaign_id, phase))
            decided = {
                "annulledAt": iso(runtime.clock()),
                "phase": phase,
                "manifestHash": manifest_hash,
                "reason": text,
                "by": by or operator(),
            }
            runtime.draws.annul(campaign_id, decided, token=lease.token)
            on_step("draw.after_annul")
            record, _, _ = _latest(runtime, campaign_id)
        annulled = record.annulled or {}
        stopped = sum(
            runtime.outbox.supersede(market, why=WHY, at=annulled["annulledAt"])
            for market in record.market_phases()
        )
        on_step("draw.after_annul_messages")
        _publish(runtime, record, annulled)
        on_step("draw.after_annul_file")
        _complete(runtime, campaign_id, run_id)
    return replace(preview(runtime, campaign_id), stopped=stopped)


def _publish(runtime: Runtime, record: DrawRecord, annulled: Mapping[str, Any]) -> None:
    data = Annulled(
        annulled_at=annulled["annulledAt"],
        campaign_id=record.campaign_id,
        manifest_hash=annulled["manifestHash"],
        phase=annulled["phase"],
        reason=annulled["reason"],
    ).to_bytes()
    key = public_key(record.campaign_id, annulled["phase"], ANNULLED)
    if runtime.objects.put_once(key, data) != data:
        raise DrawError(
            ANNULLED, f"{key} is not the annulment of the record: find out who wrote it, then repeat this"
        )
    PublicLog.of(runtime).append(
        Kind.ANNULLED, record.campaign_id, annulled["phase"], sha256_hex(data)
    ).require()


def _complete(runtime: Runtime, campaign_id: str, run_id: str) -> None:
    """Complete the campaign, which starts the retention periods of its data."""
    if runtime.campaigns.require_id(campaign_id).status is CampaignStatus.PROCESSING:
        lifecycle.advance(
            runtime,
            campaign_id,
            CampaignStatus.COMPLETED,
            reason="its draw was annulled",
            run_id=run_id,
        )


def _latest(runtime: Runtime, campaign_id: str) -> tuple[DrawRecord, int, str | None]:
    """Return the draw, its latest committed phase and that manifest's hash; phase 1 and None when none is committed."""
    record = runtime.draws.get(campaign_id)
    if record is None:
        raise RequestError(f"campaign {quoted(campaign_id)} was never drawn: there is no draw to annul")
    committed = [phase for phase in record.phases.values() if phase.manifest_hash]
    return (record, committed[-1].phase, committed[-1].manifest_hash) if committed else (record, 1, None)
