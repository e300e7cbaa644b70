"""What changes a draw from outside: strikes before the commit; top-ups, which are further phases; annulment.

A top-up adds seats in the same order of entries; earlier winners keep theirs. An annulled draw must not count: its
messages are stopped, and the reason is published. The decision comes first, in the `draws` document, where every step,
chunk and sender reads it. The rest is a function of the decision, so the same command resumes one that was killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fairdraw.errors import DrawError
from fairdraw.large.engine import Engine
from fairdraw.log.leaves import Kind
from fairdraw.maths.beside import ANNULLED, Annulled
from fairdraw.maths.files import OUTCOMES, sha256_hex
from fairdraw.terms import Outcome
from regworkers_core.adapters.judged_entries import POOL
from regworkers_core.adapters.mongo.activity import operator
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseStatus
from regworkers_core.adapters.mongo.outbox import ANNULLED as WHY
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.selection import (
    DrawBusy,
    confirmation_word,
    pipeline_key,
    public_key,
    require_word,
)
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.leases import Lease
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.registry import draw_lease, published_reason
from regworkers_core.selection.draw import freezing
from regworkers_core.selection.draw.held import HeldDraw, Workbench, noted_stops, workbench
from regworkers_core.selection.draw.terms import (
    PhaseTerms,
    Strikes,
    TopUp,
    merged,
    refuse_late_strikes,
    require_room,
)
from regworkers_core.selection.public.public_log import PublicLog

if TYPE_CHECKING:
    import duckdb


class Striking(HeldDraw):
    """A run that sets the strikes of phase 1, at any time before the commit."""

    def strike(self, strikes: Sequence[tuple[str, str]], *, dry_run: bool) -> dict[str, Any]:
        """Strike these refs, and no others; `strikes` are pairs of ref and reason. Returns the number of strikes now
        and `before`.

        Raises RequestError for a malformed one and once a manifest is committed without them, DrawBusy while another
        run works on the draw, TransientFailure when a store is unavailable.
        """
        wanted = PhaseTerms.of(self._campaign(), strikes)
        require_room([wanted])
        terms = wanted.as_fields()
        before = self._before(strikes)
        if not dry_run:
            with draw_lease(self._runtime, self.campaign_id, self._run_id) as lease:
                # A run may have committed while this one waited for the lease.
                self._before(strikes)
                opened = {"terms": terms, "runId": self._run_id}
                self._runtime.draws.open(self.campaign_id, 1, opened, token=lease.token)
                self._decide(lease, 1, {"terms": terms})
        return {"strikes": len(terms["strikes"]), "before": before}

    def _before(self, strikes: Sequence[tuple[str, str]]) -> int:
        record = self._runtime.draws.get(self.campaign_id)
        first = record.phases.get(1) if record else None
        if record is None or first is None:
            return 0
        record.require_counts()
        if first.manifest_hash:
            refuse_late_strikes(self.campaign_id, first, merged(strikes))
        return len(first.strikes)


def require_in_pool(bench: Workbench, record: DrawRecord) -> None:
    """Raise RequestError for a strike without an entry in the frozen pool, with which the maths would fail after the
    commit; InputDiffers for a pool that is not the frozen one.
    """
    struck = {ref for ref, _ in record.phases[1].strikes}
    if not struck:
        return
    path = freezing.fetch(bench, record, POOL, bench.root / POOL)
    found = pq.read_table(path, columns=["ref"], filters=pc.field("ref").isin(sorted(struck)))
    if unknown := sorted(struck - set(found["ref"].to_pylist())):
        raise RequestError(
            f"{len(unknown)} of {len(struck)} strikes name no entry in the pool, first {unknown[0]}: mistyped, "
            "or excluded already. Nothing is committed; submit the strikes again without them"
        )


# Expired data that a top-up does not need.
_NOT_NEEDED = frozenset({"claims"})


def open_phase(runtime: Runtime, campaign_id: str, request: TopUp, *, run_id: str) -> int:
    """Open the next phase on the request's terms and return its number. A repeated request returns the phase that it
    opened until that is complete. A phase that is not committed, so not public, takes other terms.

    Raises UsageError when the phase before is not complete, for terms that cannot be met, for a struck ref that is not
    in the draw, and while another run works on the draw; InputDiffers when the outcomes of the phase before are not the
    drawn ones.
    """
    try:
        with (
            draw_lease(runtime, campaign_id, run_id) as held,
            noted_stops(runtime, campaign_id, None, "top_up", held.token),
        ):
            return _open(runtime, campaign_id, request, run_id, held)
    except DrawBusy:
        raise UsageError(
            f"another run works on the draw of {campaign_id}: try again when it has ended"
        ) from None


def next_phase(record: DrawRecord | None) -> int:
    """Return the phase that a top-up opens or continues."""
    if record is None or not record.phases:
        return 2
    last = record.latest
    return last.phase + (last.phase == 1 or last.reached(PhaseStatus.COMPLETED))


def _open(runtime: Runtime, campaign_id: str, request: TopUp, run_id: str, held: Lease) -> int:
    record = runtime.draws.get(campaign_id)
    if record is None or not record.phases:
        raise RequestError(f"{campaign_id} was not drawn yet: a top-up comes after its draw")
    record.require_counts()
    if gone := sorted(record.expired.keys() - _NOT_NEEDED):
        at = max(str(record.expired[kind]["at"]) for kind in gone)
        kinds = ", ".join(gone)
        raise RequestError(
            f"the draw of {campaign_id} is too old for a top-up: the retention periods of its {kinds} ended by {at},"
            " so they are deleted (settings `housekeeping`)"
        )
    last = record.latest
    if last.phase > 1 and not last.reached(PhaseStatus.COMPLETED):
        again = _terms(runtime, record, last.phase - 1, request)
        if again == PhaseTerms.parse(last.fields["terms"]):
            return last.phase
        if not last.manifest_hash:
            runtime.draws.decide(
                campaign_id, last.phase, {"terms": again.as_fields()}, token=held.token, once="manifestHash"
            )
            return last.phase
    if not last.reached(PhaseStatus.COMPLETED):
        raise RequestError(
            f"phase {last.phase} of {campaign_id} is {last.status}: a top-up waits until it is COMPLETED"
            f" (`regworkers campaign status {campaign_id}`, or the job `campaign_status`, says what is open)"
        )
    terms = _terms(runtime, record, last.phase, request)
    number = last.phase + 1
    fields: dict[str, Any] = {
        "terms": terms.as_fields(),
        "asOf": record.phases[1].as_of,
        "openedAt": iso(runtime.clock()),
        "runId": run_id,
        **({"round": request.round} if request.round else {}),
    }
    runtime.draws.open(campaign_id, number, fields, token=held.token)
    return number


def _terms(runtime: Runtime, record: DrawRecord, before: int, request: TopUp) -> PhaseTerms:
    """Return the terms of the phase after `before`. Raises as `open_phase`."""
    settings = runtime.settings.selection
    with workbench(runtime.objects, record.campaign_id) as bench:
        outcomes = bench.fetch(
            pipeline_key(record.campaign_id, before, OUTCOMES),
            bench.root / "before.parquet",
            record.phases[before].hashes.get(OUTCOMES, ""),
        )
        engine = Engine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=bench.scratch)
        struck = [ref for ref, _ in (*record.phases[before].strikes, *request.strikes)]
        with engine.connection() as connection:
            # A join, because a purge of bots has tens of thousands of strikes.
            connection.register("struck", pa.table({"ref": pa.array(sorted(set(struck)), pa.string())}))
            connection.read_parquet(str(outcomes)).create_view("before")
            unknown = connection.execute(
                "SELECT min(ref) FROM (SELECT ref FROM struck ANTI JOIN before USING (ref))"
            ).fetchall()[0][0]
            if unknown is not None:
                raise RequestError(f"{unknown} is not in the draw of {record.campaign_id}: nothing to strike")
            _require_lapsing(connection, record.phases[before].strikes, request.strikes)
            rows = connection.execute(
                "SELECT market, count(*) FROM before ANTI JOIN struck USING (ref) WHERE outcome = 'WINNER'"
                " GROUP BY market"
            ).fetchall()
    earlier = [PhaseTerms.parse(record.phases[number].fields["terms"]) for number in range(1, before + 1)]
    terms = request.after(earlier, dict(rows))
    require_room([*earlier, terms])
    return terms


def _require_lapsing(connection: duckdb.DuckDBPyConnection, known: Strikes, new: Strikes) -> None:
    """Raise RequestError for a seat that lapses now, of an entry that is no winner in the table `before`."""
    lapsing = [ref for ref, reason in set(new) - set(known) if reason == Outcome.UNCLAIMED]
    connection.register("lapsing", pa.table({"ref": pa.array(sorted(lapsing), pa.string())}))
    found = connection.execute(
        "SELECT min(ref) FROM lapsing JOIN before USING (ref) WHERE outcome <> 'WINNER'"
    ).fetchall()[0][0]
    if found is not None:
        raise RequestError(
            f"{found} has no seat that could lapse: {Outcome.UNCLAIMED} is for winners of the phase before"
        )


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
    # Why `draw log` shows it to everybody as a finding; empty: it does not.
    finding: str
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
            "finding": self.finding or None,
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
        _finding(record, phase, seconds((record.annulled or {}).get("annulledAt", "")) or runtime.clock()),
        is_begun=bool(record.annulled) and (waiting > 0 or not _is_done(runtime, record)),
    )


def _finding(record: DrawRecord, phase: int, at: float) -> str:
    """Why an annulment at this time (epoch seconds) is a finding. `phase` is the latest that is committed."""
    due = record.phases[1].round_at if 1 in record.phases else None
    if phase > 1:
        why = "every rank was known when phase 2 began"
    elif due is not None and at >= due:
        why = f"the round of the beacon was signed at {iso(due)}, so the result could be known"
    else:
        return ""
    return f"`draw log` shows this annulment to everybody as a finding: {why}"


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
        registry.advance(
            runtime,
            campaign_id,
            CampaignStatus.COMPLETED,
            reason="its draw was annulled",
            run_id=run_id,
        )


class _Committed(NamedTuple):
    record: DrawRecord
    phase: int = 1  # the latest that is committed
    manifest_hash: str | None = None  # None: no phase is


def _latest(runtime: Runtime, campaign_id: str) -> _Committed:
    record = runtime.draws.get(campaign_id)
    if record is None:
        raise RequestError(f"campaign {quoted(campaign_id)} was never drawn: there is no draw to annul")
    committed = [phase for phase in record.phases.values() if phase.manifest_hash]
    return _Committed(record, *((committed[-1].phase, committed[-1].manifest_hash) if committed else ()))
