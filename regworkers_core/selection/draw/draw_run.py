"""A draw, step by step: judge, freeze, commit, seed, rank, allocate, report, publish.

Each step reads what the steps before decided, decides its own part once, under the draw's lease and its
fencing token, and publishes it. A repeat finds it decided and only makes sure that it is published: so a run
that died is resumed by calling the steps again, from the first one on, and nothing is drawn twice.
`on_step` names the moments between a decision and its publication, where a death would hurt most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from regworkers_core.adapters.files.judged_entries import Judge, Settlement, Tell
from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import RequestError
from regworkers_core.engine.leases import Lease
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import publish_phase
from regworkers_core.selection.campaigns import lifecycle
from regworkers_core.selection.codes.stock import check_codes
from regworkers_core.selection.draw import allocation, commitment, freezing, seeding
from regworkers_core.selection.draw.artefacts import public_key, publish_once
from regworkers_core.selection.draw.gate import Acceptance, Confirming
from regworkers_core.selection.draw.seeding import Patience
from regworkers_core.selection.draw.terms import refuse_late_strikes, terms_of_first
from regworkers_core.selection.draw.top_up import require_in_pool
from regworkers_core.selection.maths.beside import ACCEPTED, Accepted, accepted_bytes
from regworkers_core.selection.notify.outbox import settle

Settled = Callable[[str], Settlement]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to. `done` now, `stood` from an earlier run, `awaiting` a confirmation, `waiting` for a time
    that is known (`dueAt`), or a `preview` that decides nothing; `facts` are numbers and hashes, never a fan's data.
    """

    name: str
    state: Literal["done", "stood", "awaiting", "waiting", "preview"]
    facts: Mapping[str, Any]
    # Tables and pictures by name, as markdown, for those who show them.
    markdown: Mapping[str, str] = field(default_factory=dict)


class DrawRun(Confirming):
    """One run's work on a phase of a campaign's draw; without `phase` on the latest.

    Every step raises DrawBusy while another run works on the draw, TransientFailure when a store cannot
    answer, UsageError when the step before it is missing or the campaign cannot be drawn, DrawError for
    artefacts that do not fit, InputDiffers for a file in the store that is not the one that the draw wrote. For the
    beacon it waits `patience_seconds` at most: a run that is one of many leaves, and another one goes on when the round
    is due, or the beacon is back.
    """

    def __init__(
        self,
        runtime: Runtime,
        campaign_id: str,
        *,
        run_id: str,
        settled: Settled,
        judge: Judge,
        phase: int | None = None,
        strikes: tuple[tuple[str, str], ...] = (),
        stop: StopSignal | None = None,
        on_step: OnStep = no_step,
        on_progress: Tell = lambda _text: None,
        sleep: Callable[[float], object] = time.sleep,
        patience_seconds: float = math.inf,
        accept: Acceptance | None = None,
    ) -> None:
        super().__init__(runtime, campaign_id, run_id=run_id, phase=phase, sleep=sleep, accept=accept)
        self._settled, self._judge, self._strikes = settled, judge, strikes
        self._stop = stop or StopSignal()
        self._on_step, self._tell = on_step, on_progress
        self._patience = Patience(self._stop, on_progress, patience_seconds)

    def steps(self, confirm: str | None = None, *, unasked: bool = False) -> Iterator[Step]:
        """All steps in order; `confirm` is the word for the phase that they come to, `unasked` publishes without one.
        Ends after a step that awaits something, or waits. Raises RequestError for a wrong word before the first step.
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
            came_to = step()
            yield came_to
            if came_to.state in ("awaiting", "waiting") or self._stop.is_set:
                return
        yield self.publish(self.word if unasked else confirm)

    def preview(self) -> Step:
        """Judge the entries as they are now, whatever the campaign's status, and decide nothing."""
        campaign = self._campaign()
        with self._bench() as bench:
            told = self._judge(campaign, as_of=self._now(), folder=bench.root, tell=self._tell)
        return Step("judge", "preview", told.facts, told.markdown)

    def judge(self) -> Step:
        """Look whether there are codes, wait for replication, then judge every entry at one moment. Raises NotSettled.

        What was judged counts once it is frozen. Until then it is judged again, so that whatever made the freeze fail
        can be repaired in the entries.
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
                return Step("judge", "stood", first.eligibility)
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
                return Step("judge", "awaiting", {"campaignId": self.campaign_id})
            self._tell("waiting for replication")
            differences, accepted = self._differences(self._settled(self.campaign_id), first)
            lifecycle.advance(
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
                judged, told = freezing.judge(
                    self._runtime, campaign, self._judge, as_of, bench, lease.token, self._tell
                )
            self._on_step("draw.after_judge")
            decided = {"eligibility": judged, "asOf": as_of, "terms": terms}
            with self._audited(1, accepted):
                self._decide(
                    lease, 1, {**decided, "differences": dict(differences), "accepted": list(accepted)}
                )
        return Step("judge", "done", {**judged, **codes.as_facts()}, told.markdown)

    def _strike(self, lease: Lease, campaign: Campaign, first: PhaseRecord) -> None:
        """Strikes that come after the freeze still count, as long as no manifest stands."""
        if first.manifest_hash:
            refuse_late_strikes(self.campaign_id, first, self._strikes)
        elif self._strikes:
            self._decide(lease, 1, {"terms": terms_of_first(campaign, self._strikes, first).as_fields()})

    def freeze(self) -> Step:
        """Keep the pool: the judged entries that can take part, as leaves, and their root."""
        campaign = self._campaign()
        with self._lease("freeze") as lease:
            record, _ = self._ready(PhaseStatus.OPENED, "judge")
            first = record.phases[1]
            if first.is_frozen:
                return Step("freeze", "stood", freezing.facts(first))
            if "sha256" not in first.eligibility:
                raise self._missing("judge")
            with self._bench() as bench:
                frozen, hashes = freezing.freeze(
                    self._runtime,
                    campaign,
                    first.eligibility,
                    bench,
                    self._engine(bench),
                    lease.token,
                    self._tell,
                )
            self._on_step("draw.after_freeze")
            # With the judgement that it was made from: a judge that lost its lease may have written another since.
            decided = {
                "freeze": frozen,
                "eligibility": first.eligibility,
                "asOf": first.as_of,
                "hashes": hashes,
            }
            self._decide(lease, 1, {**decided, "status": PhaseStatus.FROZEN.value}, once="hashes")
        return Step("freeze", "done", freezing.facts(self._phase(1)))

    def commit(self) -> Step:
        """Fix the manifest and publish its hash, before the seed exists. One that became public too late for its round
        is replaced, see `commitment`; a stop signal while the beacon is away ends the step (state `awaiting`).
        """
        with self._lease("commit") as lease:
            record, phase = self._ready(PhaseStatus.OPENED, "freeze")
            if not record.phases[1].is_frozen:
                raise self._missing("freeze")
            state: Literal["done", "stood"] = "stood"
            if not phase.manifest_hash:
                if phase.phase == 1:
                    with self._bench() as bench:
                        require_in_pool(bench, record)
                decided = commitment.decide(self._runtime, self._campaign(), record, phase, self._patience)
                if decided is None:
                    return Step("commit", "awaiting", {"phase": phase.phase})
                self._decide(
                    lease,
                    phase.phase,
                    {**decided, "status": PhaseStatus.COMMITTED.value},
                    once="manifestHash",
                )
                phase, state = self._phase(phase.phase), "done"
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
                        return Step("commit", "awaiting", commitment.facts(phase))
                    self._decide(lease, 1, decided, once="seedFile", unset=("publishedAt", "notice"))
                    self._on_step("draw.after_replacement")
                phase, state = self._phase(phase.phase), "done"
            # A draw that was seeded before there were notices has none.
            if phase.published_at:
                commitment.publish_manifest(self._runtime, self.campaign_id, phase, self._on_step)
                commitment.announce_manifest(self._runtime, self.campaign_id, phase)
        return Step("commit", state, commitment.facts(phase))

    def _published(self, phase: PhaseRecord) -> dict[str, Any] | None:
        """`publishedAt` and `notice` of a manifest that the store has confirmed; None where it is not to be published
        any more: another round comes first.
        """
        at = commitment.confirmed_at(self._runtime, self.campaign_id, phase)
        if at is None:
            if commitment.needs_another_round(phase, self._runtime.clock()):
                return None
            at = commitment.publish_manifest(self._runtime, self.campaign_id, phase, self._on_step)
        self._on_step("draw.after_manifest")
        notice = commitment.notice(phase, at)
        return {"publishedAt": at, "notice": notice.decode()}

    def seed(self) -> Step:
        """Get the randomness that the manifest names, verify it, derive the seed. With a beacon this waits for
        its round, without the draw's lease; a stop signal ends the waiting (state `awaiting`), and so does the end of
        patience (`waiting`).
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
            return Step("seed", "awaiting" if self._stop.is_set else "waiting", commitment.facts(phase))
        with self._lease("seed") as lease:
            record, phase = self._ready(PhaseStatus.COMMITTED, "commit")
            state: Literal["done", "stood"] = "stood"
            if not seeding.seed_bytes(phase):
                decided = seeding.obtain(self._runtime, record, phase, signatures)
                decided |= {"seededAt": self._now(), "status": PhaseStatus.SEEDED.value}
                self._decide(lease, phase.phase, decided, once="seedFile")
                phase, state = self._phase(phase.phase), "done"
                self._on_step("draw.after_seed")
            seeding.publish(self._runtime, self.campaign_id, phase)
        return Step("seed", state, seeding.facts(phase))

    def take_signature(self, signature: str) -> None:
        """Keep a signature of the beacon that a person brought: `seed` goes on with it. Raises RequestError for one
        that is not the chain's for a round that this draw waits for.
        """
        with self._lease("seed") as lease:
            _, phase = self._ready(PhaseStatus.COMMITTED, "commit")
            if seeding.seed_bytes(phase):
                raise RequestError(f"phase {phase.phase} of {self.campaign_id} has its seed already")
            self._decide(lease, phase.phase, seeding.by_hand(phase, signature))

    def rank(self) -> Step:
        """Order every entry by its key. Later phases keep the order of the first."""
        with self._lease("rank") as lease:
            record, phase = self._ready(PhaseStatus.SEEDED, "seed")
            if phase.reached(PhaseStatus.RANKED):
                return Step("rank", "stood", {"count": record.phases[1].freeze["count"]})
            ranking: dict[str, Any] = {}
            if phase.phase == 1:
                with self._bench() as bench:
                    ranking = allocation.rank(bench, record, self._engine(bench), lease.token)
            self._on_step("draw.after_rank")
            decided = {**ranking, "rankedAt": self._now(), "status": PhaseStatus.RANKED.value}
            self._decide(lease, phase.phase, decided)
        return Step("rank", "done", {"count": record.phases[1].freeze["count"]})

    def allocate(self) -> Step:
        """Give seats in rank order, and publish result and hash before anyone sees a report."""
        with self._lease("allocate") as lease:
            record, phase = self._ready(PhaseStatus.RANKED, "rank")
            state: Literal["done", "stood"] = "stood"
            if not phase.result_hash:
                with self._bench() as bench:
                    decided = allocation.allocate(bench, record, phase, self._engine(bench))
                self._on_step("draw.after_allocate")
                decided |= {"drawnAt": self._now(), "status": PhaseStatus.DRAWN.value}
                self._decide(lease, phase.phase, decided, once="resultHash")
                phase, state = self._phase(phase.phase), "done"
                self._on_step("draw.after_result")
            # What this phase changes waits from now on.
            settle(self._runtime, self.campaign_id, token=lease.token)
            allocation.announce_result(self._runtime, self.campaign_id, phase)
        return Step("allocate", state, allocation.facts(phase))

    def report(self) -> Step:
        """Funnel, odds, bias audit, exclusions: what to look at before the publication is confirmed."""
        with self._lease("report") as lease:
            record, phase = self._ready(PhaseStatus.DRAWN, "allocate")
            if phase.reached(PhaseStatus.PUBLISHED):
                return Step("report", "stood", phase.fields["report"])
            with self._bench() as bench:
                made = allocation.report(
                    self._runtime, self._campaign(), record, phase, bench, self._engine(bench)
                )
            self._decide(lease, phase.phase, {"report": made.record})
        return Step("report", "done", made.record, made.markdown)

    def publish(self, confirm: str | None = None) -> Step:
        """Plan codes and queue the work on them, once the gate is open and `confirm` is `word` (or the settings say
        that none is needed). Awaits the word without it.

        Raises UsageError for another word, GateClosed for findings that cannot be accepted, NotAccepted for those that
        this run does not accept by name, InputDiffers for a file that is not the draw's.
        """
        self._require_word(confirm)
        with self._lease("publish") as lease:
            record, phase = self._ready(PhaseStatus.DRAWN, "allocate")
            if phase.reached(PhaseStatus.COMPLETED):
                return Step("publish", "stood", _markets(phase))
            if not phase.confirmed:
                findings = self._examine(lease, record, phase)
                if not self._confirm(lease, phase, findings, confirm):
                    told = [
                        each.as_fields() | {"accepted": self._is_accepted(phase, each)} for each in findings
                    ]
                    return Step("publish", "awaiting", {"confirm": self.word, "findings": told})
                self._on_step("draw.after_confirm")
                phase = self._phase(phase.phase)
            publish_once(
                self._runtime.objects,
                public_key(self.campaign_id, phase.phase, ACCEPTED),
                accepted_bytes([Accepted(**each) for each in phase.accepted]),
            )
            # What it changes is superseded before anything of it is given or sent.
            settle(self._runtime, self.campaign_id, token=lease.token)
            stood = phase.reached(PhaseStatus.PUBLISHED)
            publish_phase(
                self._runtime,
                self.campaign_id,
                phase.phase,
                token=lease.token,
                run_id=self._run_id,
                on_step=self._on_step,
            )
        if not stood:
            self._on_step("draw.after_publish")
        return Step("publish", "stood" if stood else "done", _markets(self._phase(phase.phase)))


def _markets(phase: PhaseRecord) -> dict[str, Any]:
    """Status and numbers of each market of the phase."""
    return {
        "phase": phase.phase,
        "status": phase.status.value,
        "resultHash": phase.result_hash,
        "markets": {market: dict(numbers) for market, numbers in phase.markets.items()},
    }
