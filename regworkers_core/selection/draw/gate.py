"""The gate before every publication: its findings, which of them an operator may accept, and the confirmation.

Terminal, jobs and settings all publish through `DrawRun.publish`, which asks the gate under the draw's lease. A finding
about what was drawn (`replay`, `capacity`, `codes`, `inputs`) blocks the publication. Any other finding can be accepted
by name and with a reason, which are published with the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from fairdraw.large.allocate import LargeEngine
from fairdraw.log.account import CLAIM_SECONDS
from fairdraw.log.leaves import Kind
from fairdraw.log.trust import Trust
from fairdraw.maths.files import ARTEFACTS, OUTCOMES
from fairdraw.maths.manifest import Manifest
from fairdraw.proof.verify import Verification, verify
from fairdraw.terms import CHAIN_FILE, Outcome
from regworkers_core.adapters.judged_entries import ReplicationProgress
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.reasons import Failure, RequestError
from regworkers_core.domain.selection import (
    ACCEPTABLE,
    BIAS_AUDIT,
    EARLY_UNCLAIMED,
    LATE_COMMIT,
    RECOMMITTED,
    RECONCILE,
    REDEEMED_UNCLAIMED,
    confirmation_word,
    pipeline_key,
    require_word,
)
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.leases import Lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import published_reason
from regworkers_core.selection.codes.stock import count_pairs, count_redeemed
from regworkers_core.selection.draw.held import HeldDraw, InputDiffers, Workbench
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.report import notes

REPLAY, CAPACITY, CODES, INPUTS = "replay", "capacity", "codes", "inputs"
# Details of one finding in its message.
_SHOWN_DETAILS = 5


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One finding of the gate. `detail` is a sentence without a fan's data."""

    name: str
    detail: str

    @property
    def acceptable(self) -> bool:
        return self.name in ACCEPTABLE

    def as_fields(self) -> dict[str, Any]:
        return {"name": self.name, "detail": self.detail, "acceptable": self.acceptable}

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True, slots=True)
class AcceptedFindings:
    """Findings that an operator accepts, and why. `by` is the operator; empty: the account on this machine."""

    findings: tuple[str, ...] = ()
    reason: str = ""
    by: str = ""

    @classmethod
    def of(cls, findings: Iterable[str], reason: str, by: str = "") -> AcceptedFindings:
        """Raises RequestError for a finding that cannot be accepted, and for names without a reason."""
        names = tuple(dict.fromkeys(findings))
        for name in names:
            if name not in ACCEPTABLE:
                raise RequestError(f"finding {name} cannot be accepted, only {', '.join(ACCEPTABLE)}")
        if not names:
            if reason.strip():
                raise RequestError("a reason needs the name of the finding that it accepts")
            return cls()
        return cls(names, published_reason(reason, "what is accepted"), by)

    def lines(self, at: str, names: Iterable[str]) -> list[dict[str, str]]:
        """Return the lines of the record, and of accepted.json, for those of `names` that are accepted here."""
        return [{"at": at, "finding": name, "reason": self.reason} for name in names if name in self.findings]


class GateClosed(Failure):
    """Findings that cannot be accepted: the phase is published only once they are resolved."""

    def __init__(self, campaign_id: str, phase: int, findings: Sequence[GateFinding]) -> None:
        reasons = "; ".join(str(finding) for finding in findings if not finding.acceptable)
        super().__init__(f"phase {phase} of {campaign_id} is not published: {reasons}")
        self.findings = tuple(findings)


class NotAccepted(RequestError):
    """Findings that an operator has not accepted by name yet."""

    def __init__(self, campaign_id: str, phase: int, findings: Sequence[GateFinding]) -> None:
        reasons = "; ".join(str(finding) for finding in findings)
        options = " ".join(f"--accept-finding {finding.name}" for finding in findings)
        names = ", ".join(finding.name for finding in findings)
        super().__init__(
            f"phase {phase} of {campaign_id} is not published: {reasons}; to publish it anyway, accept by name:"
            f" `{options} --reason TEXT` in a terminal, `accept: [{names}]` and `reason` in the job `confirm_draw`"
        )
        self.findings = tuple(findings)


def examine(
    runtime: Runtime,
    record: DrawRecord,
    phase: PhaseRecord,
    bench: Workbench,
    engine: LargeEngine,
    *,
    replayed: bool = False,
) -> tuple[GateFinding, ...]:
    """Return all findings about a drawn phase. `replayed` says that this run has replayed the draw already, which takes
    minutes for ten million leaves (the root alone 13 s); the files are compared with the record in any case.

    Raises InputDiffers, which the caller records as the finding `inputs`; TransientFailure.
    """
    for number in range(1, phase.phase + 1):
        bench.fetch_public(record.phases[number], *ARTEFACTS)
    return (
        *(() if replayed else replay(record, phase, bench, engine)),
        *_capacity(record, phase, bench),
        *_codes(runtime, record, phase),
        *_audit(phase),
        *_commit(phase),
        *_differences(phase),
        *_lapsed(runtime, record, phase),
    )


def inputs(differs: InputDiffers) -> GateFinding:
    """Return the finding for a file that differs."""
    return GateFinding(INPUTS, differs.message)


def replay(
    record: DrawRecord, phase: PhaseRecord, bench: Workbench, engine: LargeEngine
) -> Iterator[GateFinding]:
    """Replay from the artefacts in the bench alone, with the checker that third parties use."""
    known = [record.phases[number] for number in range(1, phase.phase + 1)]
    first, trust = record.phases[1], Trust()
    if first.beacon:
        (bench.root / CHAIN_FILE).write_text(first.beacon["chain"])
        trust = Trust({first.chain.hash: first.lead})
    recorded = [each.manifest_hash for each in known]
    found = verify(bench.root, engine=engine, recorded=recorded, trust=trust)
    if wrong := replay_differences(found, known):
        yield GateFinding(REPLAY, "; ".join(wrong[:_SHOWN_DETAILS]))


def replay_differences(found: Verification, phases: Iterable[PhaseRecord]) -> list[str]:
    """Return the findings of a replay, or else the phases that it draws differently from the committed result."""
    replayed = {each.phase: each.result_hash for each in found.phases}
    return [str(finding) for finding in found.findings] or [
        f"phase {each.phase} replays to another result than the committed one"
        for each in phases
        if replayed.get(each.phase) != each.result_hash
    ]


def _capacity(record: DrawRecord, phase: PhaseRecord, bench: Workbench) -> Iterator[GateFinding]:
    """Count winners in the file that the publication reads, not in the summary."""
    key = pipeline_key(record.campaign_id, phase.phase, OUTCOMES)
    outcomes = bench.fetch(key, bench.root / OUTCOMES, phase.hashes.get(OUTCOMES, ""))
    verdict = notes.capacity_respected(outcomes, Manifest.parse(phase.manifest))
    if not verdict.passed:
        yield GateFinding(CAPACITY, verdict.description)


def _codes(runtime: Runtime, record: DrawRecord, phase: PhaseRecord) -> Iterator[GateFinding]:
    """Find codes that are given already. Too few codes are no finding: only their market waits."""
    campaign_id, wrong = record.campaign_id, []
    summary = orjson.loads(phase.fields["summary"])
    for market_id, counted in sorted(summary["markets"].items()):
        winners = int(counted["new"])
        behind = record.highest_planned(market_id, before=phase.phase)
        taken = runtime.codes.first_given(campaign_id, market_id, behind, winners)
        if taken is not None:
            wrong.append(
                f"market {market_id}, position {taken}: a code that this phase gives is given already"
            )
    if phase.phase > 1:
        pairs = list(count_pairs(runtime, campaign_id).items())[2:]
        wrong += [f"{name} {number}" for name, number in pairs if number]
    if wrong:
        yield GateFinding(CODES, "; ".join(wrong[:_SHOWN_DETAILS]))


def _audit(phase: PhaseRecord) -> Iterator[GateFinding]:
    """Find what the bias audit of the report found; a publication needs a report."""
    if found := (phase.fields.get("report") or {}).get("biasAudit"):
        yield GateFinding(BIAS_AUDIT, "; ".join(found[:_SHOWN_DETAILS]))


def _commit(phase: PhaseRecord) -> Iterator[GateFinding]:
    """Find what is wrong with the commit of phase 1, on whose manifest the seed depends."""
    if phase.published_late:
        when = f"was published at {phase.published_at}" if phase.published_at else "is not known to be public"
        due = iso(float(phase.chain.due(phase.fields["seedSource"]["round"])))
        yield GateFinding(
            LATE_COMMIT,
            f"manifest.json {when}, its beacon round was due at {due}: the lead should be {phase.lead} s",
        )
    if phase.recommitted:
        rounds = ", ".join(
            f"round {each['round']} ({each['differ']} outcomes differ)" for each in phase.recommitted
        )
        yield GateFinding(
            RECOMMITTED,
            f"a manifest was replaced when its round was due, so that its result could be known: {rounds}",
        )


def _differences(phase: PhaseRecord) -> Iterator[GateFinding]:
    """Find the differences with which the pool was frozen, because an operator accepted them."""
    found: Mapping[str, int] = phase.fields.get("differences") or {}
    if found:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(found.items()))
        yield GateFinding(RECONCILE, f"the pool was frozen while source and replica differed: {counts}")


def _lapsed(runtime: Runtime, record: DrawRecord, phase: PhaseRecord) -> Iterator[GateFinding]:
    """Find seats that lapse in this phase although their winners had less than a day, or redeemed their codes."""
    known = dict(record.phases[phase.phase - 1].strikes) if phase.phase > 1 else {}
    lapsed = [ref for ref, reason in phase.strikes if reason == Outcome.UNCLAIMED and ref not in known]
    if not lapsed:
        return
    log = PublicLog.of(runtime).read()
    leaves = log.of_campaign(record.campaign_id) if log else ()
    results = [leaf.time for _, leaf in leaves if (leaf.kind, leaf.phase) == (Kind.RESULT, phase.phase - 1)]
    since, at = (seconds(time) for time in (results[0] if results else "", phase.logged_at))
    if since is None or at is None or at < since + CLAIM_SECONDS:
        when = f"in the log since {iso(since)}" if since is not None else "not in the log"
        yield GateFinding(
            EARLY_UNCLAIMED,
            f"seats lapse ({len(lapsed)}) less than 24 hours after the result of phase {phase.phase - 1}, which is"
            f" {when}: their winners had no day to claim them",
        )
    if redeemed := count_redeemed(runtime, record.campaign_id, lapsed):
        yield GateFinding(
            REDEEMED_UNCLAIMED,
            f"seats lapse whose codes were redeemed ({redeemed}): these winners bought, and would lose their seats",
        )


class NotSettled(Failure):
    """Replication of the campaign has not caught up: `findings` say what is missing and what to do."""

    def __init__(self, campaign_id: str, findings: Sequence[str]) -> None:
        super().__init__(f"{campaign_id} cannot be frozen yet: {'; '.join(findings)}")
        self.findings = findings


class Differences(NamedTuple):
    numbers: Mapping[str, int]
    accepted: Sequence[Mapping[str, str]]  # the lines that accept them


class Confirming(HeldDraw):
    """A run on a draw that asks the gate. `accept` is what its operator accepts by name."""

    def __init__(
        self,
        runtime: Runtime,
        campaign_id: str,
        *,
        run_id: str,
        phase: int | None = None,
        accept: AcceptedFindings | None = None,
    ) -> None:
        super().__init__(runtime, campaign_id, run_id=run_id, phase=phase)
        self._accept = accept or AcceptedFindings()

    @property
    def phase(self) -> int:
        """The phase that this run works on. Raises UsageError for a number that the draw does not have."""
        record = self._runtime.draws.get(self.campaign_id)
        if record is None or not record.phases:
            return 1
        return self._ready(PhaseStatus.OPENED, "judge")[1].phase

    @property
    def word(self) -> str:
        """The word that confirms the publication of this run's phase."""
        return confirmation_word(self.campaign_id, self.phase)

    def _require_word(self, confirm: str | None) -> None:
        if confirm:
            require_word(confirm, self.word)

    def examine(self) -> tuple[GateFinding, ...]:
        """Return the gate's findings about the drawn phase; a publication by this run will not replay it again. Raises
        InputDiffers when a file in the store is not the draw's.
        """
        # Under the name of the publication, whose success removes a recorded stop.
        with self._lease("publish") as lease:
            record, phase = self._ready(PhaseStatus.DRAWN, "allocate")
            return self._examine(lease, record, phase)

    def _examine(self, lease: Lease, record: DrawRecord, phase: PhaseRecord) -> tuple[GateFinding, ...]:
        """Ask the gate and record its findings, which `autoPublish` and the sensors use."""
        before = phase.gate
        replayed = (before.get("runId"), before.get("replayed")) == (self._run_id, phase.result_hash)
        try:
            with self._bench() as bench:
                found = examine(self._runtime, record, phase, bench, self._engine(bench), replayed=replayed)
        except InputDiffers as differs:
            self._keep(lease, phase, (inputs(differs),))
            raise
        self._keep(lease, phase, found)
        return found

    def _keep(self, lease: Lease, phase: PhaseRecord, findings: Sequence[GateFinding]) -> None:
        sound = not any(finding.name in (REPLAY, INPUTS) for finding in findings)
        kept = {
            "at": self._now(),
            "runId": self._run_id,
            "replayed": phase.result_hash if sound else "",
            "findings": [finding.as_fields() for finding in findings],
        }
        self._decide(lease, phase.phase, {"gate": kept})

    def _differences(self, found: ReplicationProgress, first: PhaseRecord | None) -> Differences:
        """Return the differences despite which the pool is frozen: an operator accepts them by name, in this run, or
        accepted the same ones in a run that died before the freeze. Raises NotSettled.
        """
        if not found.open:
            return Differences({}, ())
        if found.differences and RECONCILE in self._accept.findings:
            return Differences(found.differences, self._accept.lines(self._now(), [RECONCILE]))
        if first is not None and first.accepted and first.fields.get("differences") == found.differences:
            return Differences(found.differences, first.accepted)
        how = f"`regworkers draw run {self.campaign_id} --accept-finding {RECONCILE} --reason TEXT`"
        accepts = f"{how} draws anyway, and publishes the reason"
        raise NotSettled(self.campaign_id, [*found.open, *([accepts] if found.differences else [])])

    def _confirm(
        self, lease: Lease, phase: PhaseRecord, findings: Sequence[GateFinding], confirm: str | None
    ) -> bool:
        """Whether the publication is confirmed. The settings confirm only a phase without any finding."""
        if "report" not in phase.fields:
            raise self._missing("report")
        if any(not finding.acceptable for finding in findings):
            raise GateClosed(self.campaign_id, phase.phase, findings)
        if not confirm and (findings or not self._runtime.settings.selection.auto_publish):
            return False
        if left := [each for each in findings if not self._is_accepted(phase, each)]:
            raise NotAccepted(self.campaign_id, phase.phase, left)
        before = {each["finding"] for each in phase.accepted}
        at = self._now()
        lines = self._accept.lines(at, [each.name for each in findings if each.name not in before])
        decided = {
            "confirmedAt": at,
            "confirmedBy": self._run_id if confirm else "settings",
            "accepted": [*phase.accepted, *lines],
        }
        with self._audited(phase.phase, lines):
            self._decide(lease, phase.phase, decided, once="confirmedAt")
        return True

    def _is_accepted(self, phase: PhaseRecord, finding: GateFinding) -> bool:
        names = {each["finding"] for each in phase.accepted} | set(self._accept.findings)
        return finding.acceptable and finding.name in names

    @contextmanager
    def _audited(self, phase: int, lines: Sequence[Mapping[str, str]]) -> Iterator[None]:
        """Record each acceptance in the audit log before it counts."""
        with ExitStack() as rows:
            for line in lines:
                arguments = {"finding": line["finding"], "reason": line["reason"], "runId": self._run_id}
                target = f"{self.campaign_id}:{phase}"
                rows.enter_context(
                    self._runtime.operator_actions.recorded(
                        "draw accept-finding", target, arguments, who=self._accept.by
                    )
                )
            yield
