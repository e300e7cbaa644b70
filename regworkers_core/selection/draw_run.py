"""A draw, step by step: judge, freeze, commit, seed, rank, allocate, report, publish.

Each step reads what earlier steps decided, decides its own part once, under the draw's lease and fencing token, and
publishes it. A repeat finds the decision and only ensures its publication. So a run that died is resumed by calling all
steps again, and nothing is drawn twice. `on_step` names the moments between a decision and its publication, where a
crash would do the most harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairdraw.log.leaves import Kind
from fairdraw.maths.beside import ACCEPTED, AcceptedFinding, accepted_bytes
from fairdraw.maths.files import SUMMARY
from regworkers_core.adapters.judged_entries import Judge, ReplicationProgress, Tell
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import StepResult, StepState, public_key
from regworkers_core.engine.leases import Lease
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.observability.tracing import span
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import publish_phase
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.codes.stock import check_codes
from regworkers_core.selection.draw import allocation, commitment, freezing, seeding
from regworkers_core.selection.draw.changes import require_in_pool
from regworkers_core.selection.draw.gate import AcceptedFindings, Confirming
from regworkers_core.selection.draw.held import Workbench, publish_once
from regworkers_core.selection.draw.seeding import Patience
from regworkers_core.selection.draw.terms import refuse_late_strikes, terms_of_first
from regworkers_core.selection.notify.outbox import settle
from regworkers_core.selection.public.public_log import log_leaves
from regworkers_core.selection.registrations.freeze import Freezing, Frozen

Settled = Callable[[str], ReplicationProgress]


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    run_id: str
    settled: Settled
    judge: Judge
    phase: int | None = None  # None: the latest
    strikes: tuple[tuple[str, str], ...] = ()  # entry and reason
    stop: StopSignal = field(default_factory=StopSignal)
    on_step: OnStep = no_step
    tell: Tell = lambda _text: None
    patience_seconds: float = math.inf  # for the beacon, in all
    accept: AcceptedFindings | None = None  # what the operator accepts by name


class DrawRun(Confirming):
    """A run that takes a phase of a campaign's draw through its steps.

    Every step raises DrawBusy while another run works on the draw, TransientFailure when a store is unavailable,
    UsageError when the step before it is missing or the campaign cannot be drawn, DrawError for artefacts that
    contradict each other, InputDiffers for a file in the store that is not the one that the draw wrote. It waits at
    most `patience_seconds` for the beacon, so that one of many runs can end, and another continue when the round is due
    or the beacon is available again.
    """

    def __init__(self, runtime: Runtime, campaign_id: str, given: DrawOptions) -> None:
        super().__init__(runtime, campaign_id, run_id=given.run_id, phase=given.phase, accept=given.accept)
        self._settled, self._judge, self._strikes = given.settled, given.judge, given.strikes
        self._stop, self._on_step, self._tell = given.stop, given.on_step, given.tell
        self._patience = Patience(self._stop, given.tell, given.patience_seconds)

    def steps(self, confirm: str | None = None, *, unasked: bool = False) -> Iterator[StepResult]:
        """Run all steps in order, up to one that awaits something, or waits. `confirm` is the word that confirms the
        publication, `unasked` publishes without one. Raises RequestError for a wrong word before the first step.
        """
        self._require_word(confirm)
        for step in (
            self.judge,
            self.freeze,
            self.commit,
            self.seed,
            self.rank,
            self.allocate,
            self.report,
        ):
            result = step()
            yield result
            if not result.state.is_over or self._stop.is_set:
                return
        yield self.publish(self.word if unasked else confirm)

    def preview(self) -> StepResult:
        """Judge the entries as they are now, whatever the campaign's status; decides nothing."""
        campaign = self._campaign()
        with self._bench() as bench:
            judgement = self._judge(campaign, as_of=self._now(), folder=bench.root, tell=self._tell)
        return StepResult("judge", StepState.PREVIEW, judgement.facts, judgement.markdown)

    @span("draw judge")
    def judge(self) -> StepResult:
        """Check the codes, wait for replication, then judge every entry as of one moment. Raises NotSettled.

        A judgement is final once it is frozen. Until then a repeat judges again, so that entries that made the freeze
        fail can be corrected.
        """
        campaign = self._campaign()
        with self._lease("judge") as lease:
            record = self._runtime.draws.get(self.campaign_id)
            if record is not None:
                record.require_counts()
            # A run that died early may have left a draw without a phase.
            first = record.phases.get(1) if record is not None else None
            if first is not None and first.is_frozen:
                self._strike(lease, campaign, first)
                return StepResult("judge", StepState.UNCHANGED, first.eligibility)
            if campaign.status not in (CampaignStatus.CLOSED, CampaignStatus.PROCESSING):
                raise RequestError(
                    f"campaign {self.campaign_id} is {campaign.status}, a draw needs it CLOSED:"
                    f" `regworkers campaign close {self.campaign_id}`, or the job `close_campaign`"
                )
            terms = terms_of_first(campaign, self._strikes, first).as_fields()
            codes = check_codes(self._runtime, campaign)
            for warning in codes.warnings:
                self._tell(warning)
            grace = self._runtime.settings.selection.write_grace_seconds
            if not freezing.await_writers(
                campaign, grace, clock=self._runtime.clock, wait=self._stop.wait, tell=self._tell
            ):
                return StepResult("judge", StepState.AWAITING, {"campaignId": self.campaign_id})
            self._tell("waiting for replication")
            differences, accepted = self._differences(self._settled(self.campaign_id), first)
            if (registrations := self._registrations(campaign)) is not None:
                registrations.catch_up()
            registry.advance(
                self._runtime,
                self.campaign_id,
                CampaignStatus.PROCESSING,
                reason="draw",
                run_id=self._run_id,
            )
            opened = {"terms": terms, "runId": self._run_id}
            self._runtime.draws.open(self.campaign_id, 1, opened, token=lease.token)
            as_of = self._now()
            with self._bench() as bench:
                judgement = freezing.judge(
                    self._runtime, campaign, self._judge, as_of, bench, lease.token, self._tell
                )
            self._on_step("draw.after_judge")
            decided = {"eligibility": judgement.facts, "asOf": as_of, "terms": terms}
            with self._audited(1, accepted):
                self._decide(
                    lease, 1, {**decided, "differences": dict(differences), "accepted": list(accepted)}
                )
        return StepResult(
            "judge", StepState.DONE, {**judgement.facts, **codes.as_facts()}, judgement.markdown
        )

    def _strike(self, lease: Lease, campaign: Campaign, first: PhaseRecord) -> None:
        """Take strikes that come after the freeze, until a manifest is committed."""
        if first.manifest_hash:
            refuse_late_strikes(self.campaign_id, first, self._strikes)
        elif self._strikes:
            self._decide(lease, 1, {"terms": terms_of_first(campaign, self._strikes, first).as_fields()})

    @span("draw freeze")
    def freeze(self) -> StepResult:
        """Fix the pool: the judged entries that can take part, as leaves, and their root."""
        campaign = self._campaign()
        with self._lease("freeze") as lease:
            record, _ = self._ready(PhaseStatus.OPENED, "judge")
            first = record.phases[1]
            if first.is_frozen:
                return StepResult("freeze", StepState.UNCHANGED, freezing.facts(first))
            if "sha256" not in first.eligibility:
                raise self._missing("judge")
            with self._bench() as bench:
                frozen = freezing.freeze(
                    self._runtime,
                    campaign,
                    first.eligibility,
                    bench,
                    self._engine(bench),
                    lease.token,
                    self._tell,
                )
            self._on_step("draw.after_freeze")
            # With its judgement: a run that lost its lease may have written another one since.
            decided = {**frozen, "eligibility": first.eligibility, "asOf": first.as_of}
            self._decide(lease, 1, {**decided, "status": PhaseStatus.FROZEN.value}, once="hashes")
        return StepResult("freeze", StepState.DONE, freezing.facts(self._phase(1)))

    @span("draw commit")
    def commit(self) -> StepResult:
        """Decide the manifest and publish it, before the seed exists. One that became public too late for its round is
        replaced, see `commitment`. A stop signal while the beacon is unavailable ends the step (state `awaiting`).
        """
        with self._lease("commit") as lease:
            record, phase = self._ready(PhaseStatus.OPENED, "freeze")
            if not record.phases[1].is_frozen:
                raise self._missing("freeze")
            state, logged = StepState.UNCHANGED, None
            if not phase.manifest_hash:
                if phase.phase == 1:
                    with self._bench() as bench:
                        require_in_pool(bench, record)
                        logged = self._logged(record, bench, lease)
                decided = commitment.decide(
                    self._runtime, record, phase, self._patience, logged and logged.registrations
                )
                if decided is None:
                    return StepResult("commit", StepState.AWAITING, {"phase": phase.phase})
                self._decide(
                    lease,
                    phase.phase,
                    {
                        **decided,
                        **(
                            {"registrations": logged.file, "lostRegistrations": logged.lost} if logged else {}
                        ),
                        "status": PhaseStatus.COMMITTED.value,
                    },
                    once="manifestHash",
                )
                phase, state = self._phase(phase.phase), StepState.DONE
                self._on_step("draw.after_commit")
            while not seeding.seed_bytes(phase) and (
                not phase.published_at or commitment.needs_another_round(phase, self._runtime.clock())
            ):
                decided = None if phase.published_at else self._published(phase)
                if decided is not None:
                    self._decide(lease, phase.phase, decided, once="publishedAt")
                    self._on_step("draw.after_notice")
                else:
                    decided = commitment.another_round(self._runtime, phase, self._patience)
                    if decided is None:
                        return StepResult("commit", StepState.AWAITING, commitment.facts(phase))
                    unset = ("publishedAt", "notice", "loggedAt")
                    self._decide(lease, 1, decided, once="seedFile", unset=unset)
                    self._on_step("draw.after_replacement")
                phase, state = self._phase(phase.phase), StepState.DONE
            commitment.publish_manifest(self._runtime, self.campaign_id, phase, self._on_step)
            commitment.announce_manifest(self._runtime, self.campaign_id, phase)
        return StepResult("commit", state, commitment.facts(phase))

    def _logged(self, record: DrawRecord, bench: Workbench, lease: Lease) -> Frozen | None:
        """Let the tree of registrations catch up with the pool; None if the campaign has none."""
        if (registrations := self._registrations(self._campaign())) is None:
            return None
        logged = registrations.freeze(record, bench, self._engine(bench), lease.token)
        self._on_step("draw.after_registrations")
        return logged

    def _registrations(self, campaign: Campaign) -> Freezing | None:
        return Freezing.of(self._runtime, campaign, on_step=self._on_step, tell=self._tell)

    def _published(self, phase: PhaseRecord) -> dict[str, Any] | None:
        """Return the fields `publishedAt`, `notice` and `loggedAt` of a manifest that the public log has and the store
        has confirmed; None if it must be replaced instead.
        """
        at = commitment.confirmed_at(self._runtime, self.campaign_id, phase)
        if at is None and commitment.needs_another_round(phase, self._runtime.clock()):
            return None
        logged = commitment.log_manifest(self._runtime, self.campaign_id, phase)
        self._on_step("draw.after_leaf")
        if at is None:
            at = commitment.publish_manifest(self._runtime, self.campaign_id, phase, self._on_step)
        at = max(at, logged)
        self._on_step("draw.after_manifest")
        notice = commitment.notice(phase, at)
        return {"publishedAt": at, "notice": notice.decode(), "loggedAt": logged}

    @span("draw seed")
    def seed(self) -> StepResult:
        """Get the randomness that the manifest names, verify it, and derive the seed. With a beacon this waits for the
        round, without the draw's lease, until a stop signal (state `awaiting`) or the end of the patience (`waiting`).
        """
        record, phase = self._ready(PhaseStatus.COMMITTED, "commit")
        signatures: Mapping[str, str] | None = {}
        if not seeding.seed_bytes(phase):
            if not phase.published_at:
                raise self._missing("commit")
            number = phase.phase
            signatures = seeding.signatures(
                self._runtime, phase, self._patience, lambda: self._phase(number).signatures
            )
        if signatures is None:
            return StepResult(
                "seed",
                StepState.AWAITING if self._stop.is_set else StepState.WAITING,
                commitment.facts(phase),
            )
        with self._lease("seed") as lease:
            record, phase = self._ready(PhaseStatus.COMMITTED, "commit")
            state = StepState.UNCHANGED
            if not seeding.seed_bytes(phase):
                decided = seeding.obtain(self._runtime, record, phase, signatures)
                decided |= {"seededAt": self._now(), "status": PhaseStatus.SEEDED.value}
                self._decide(lease, phase.phase, decided, once="seedFile")
                phase, state = self._phase(phase.phase), StepState.DONE
                self._on_step("draw.after_seed")
            seeding.publish(self._runtime, self.campaign_id, phase)
        return StepResult("seed", state, seeding.facts(phase))

    def take_signature(self, signature: str) -> None:
        """Record a signature of the beacon that an operator supplied, for `seed`. Raises RequestError unless it is
        valid for a round that this draw waits for.
        """
        with self._lease("seed") as lease:
            _, phase = self._ready(PhaseStatus.COMMITTED, "commit")
            if seeding.seed_bytes(phase):
                raise RequestError(f"phase {phase.phase} of {self.campaign_id} has its seed already")
            self._decide(lease, phase.phase, seeding.by_hand(phase, signature))

    @span("draw rank")
    def rank(self) -> StepResult:
        """Order every entry by its key. Later phases use the order of the first."""
        with self._lease("rank") as lease:
            record, phase = self._ready(PhaseStatus.SEEDED, "seed")
            if phase.reached(PhaseStatus.RANKED):
                return StepResult("rank", StepState.UNCHANGED, {"count": record.phases[1].freeze["count"]})
            ranking: dict[str, Any] = {}
            if phase.phase == 1:
                with self._bench() as bench:
                    ranking = allocation.rank(bench, record, self._engine(bench), lease.token)
            self._on_step("draw.after_rank")
            decided = {**ranking, "rankedAt": self._now(), "status": PhaseStatus.RANKED.value}
            self._decide(lease, phase.phase, decided)
        return StepResult("rank", StepState.DONE, {"count": record.phases[1].freeze["count"]})

    @span("draw allocate")
    def allocate(self) -> StepResult:
        """Allocate seats in rank order, and publish the result before there is a report."""
        with self._lease("allocate") as lease:
            record, phase = self._ready(PhaseStatus.RANKED, "rank")
            state = StepState.UNCHANGED
            if not phase.result_hash:
                with self._bench() as bench:
                    decided = allocation.allocate(bench, record, phase, self._engine(bench))
                self._on_step("draw.after_allocate")
                decided |= {"drawnAt": self._now(), "status": PhaseStatus.DRAWN.value}
                self._decide(lease, phase.phase, decided, once="resultHash")
                phase, state = self._phase(phase.phase), StepState.DONE
                self._on_step("draw.after_result")
            # Hold the messages whose outcome this phase changes.
            settle(self._runtime, self.campaign_id, token=lease.token)
            log_leaves(
                self._runtime, self.campaign_id, phase.phase, Kind.RESULT, phase.hashes.get(SUMMARY, "")
            )
            allocation.announce_result(self._runtime, self.campaign_id, phase)
        return StepResult("allocate", state, allocation.facts(phase))

    @span("draw report")
    def report(self) -> StepResult:
        """Report funnel, odds, bias audit and exclusions, for the operator who confirms the publication."""
        with self._lease("report") as lease:
            record, phase = self._ready(PhaseStatus.DRAWN, "allocate")
            if phase.reached(PhaseStatus.PUBLISHED):
                return StepResult("report", StepState.UNCHANGED, phase.fields["report"])
            with self._bench() as bench:
                made = allocation.report(
                    self._runtime, self._campaign(), record, phase, bench, self._engine(bench)
                )
            self._decide(lease, phase.phase, {"report": made.record})
        return StepResult("report", StepState.DONE, made.record, made.markdown)

    @span("draw publish")
    def publish(self, confirm: str | None = None) -> StepResult:
        """Plan codes and queue their assignment, once the gate is open and `confirm` is `word`, or the settings need
        none. Without the word the state is `awaiting`.

        Raises UsageError for another word, GateClosed for findings that cannot be accepted, NotAccepted for those that
        this run does not accept by name, InputDiffers for a file that is not the draw's.
        """
        self._require_word(confirm)
        with self._lease("publish") as lease:
            record, phase = self._ready(PhaseStatus.DRAWN, "allocate")
            if phase.reached(PhaseStatus.COMPLETED):
                return StepResult("publish", StepState.UNCHANGED, _markets(phase))
            if not phase.confirmed:
                findings = self._examine(lease, record, phase)
                if not self._confirm(lease, phase, findings, confirm):
                    shown = [
                        each.as_fields() | {"accepted": self._is_accepted(phase, each)} for each in findings
                    ]
                    return StepResult(
                        "publish", StepState.AWAITING, {"confirm": self.word, "findings": shown}
                    )
                self._on_step("draw.after_confirm")
                phase = self._phase(phase.phase)
            publish_once(
                self._runtime.objects,
                public_key(self.campaign_id, phase.phase, ACCEPTED),
                accepted_bytes([AcceptedFinding(**each) for each in phase.accepted]),
            )
            # Supersede the messages that it changes before any of its codes or messages go out.
            settle(self._runtime, self.campaign_id, token=lease.token)
            published = phase.reached(PhaseStatus.PUBLISHED)
            publish_phase(
                self._runtime,
                self.campaign_id,
                phase.phase,
                token=lease.token,
                run_id=self._run_id,
                on_step=self._on_step,
            )
        if not published:
            self._on_step("draw.after_publish")
        return StepResult(
            "publish",
            StepState.UNCHANGED if published else StepState.DONE,
            _markets(self._phase(phase.phase)),
        )


def _markets(phase: PhaseRecord) -> dict[str, Any]:
    return {
        "phase": phase.phase,
        "status": phase.status.value,
        "resultHash": phase.result_hash,
        "markets": {market: dict(numbers) for market, numbers in phase.markets.items()},
    }
