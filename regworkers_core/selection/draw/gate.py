"""The one gate before a publication: what speaks against it, and what of that a person may accept by name.

Terminal, jobs and the settings all publish through `DrawRun.publish`, which asks here under the draw's lease. A finding
about what was drawn (`replay`, `capacity`, `codes`, `inputs`) ends it: that a file was changed cannot be accepted away.
The others need a name and a reason, which are published with the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from regworkers_core.adapters.files.judged_entries import Settlement
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.beacon import LEAD_SECONDS, QUICKNET
from regworkers_core.domain.reasons import Failure, RequestError
from regworkers_core.domain.selection import MarketPhase, confirmation_word, require_word
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.checks import count_pairs
from regworkers_core.selection.assign.plan import last_planned
from regworkers_core.selection.draw.artefacts import InputDiffers, Workbench, pipeline_key
from regworkers_core.selection.draw.held import HeldDraw
from regworkers_core.selection.draw.terms import published_reason
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.files import ARTEFACTS, OUTCOMES
from regworkers_core.selection.maths.manifest import Manifest
from regworkers_core.selection.proof.verify import verify
from regworkers_core.selection.report import notes

REPLAY, CAPACITY, CODES, INPUTS = "replay", "capacity", "codes", "inputs"
BIAS_AUDIT, LATE_COMMIT, RECOMMITTED, RECONCILE = "bias_audit", "late_commit", "recommitted", "reconcile"
ACCEPTABLE = (BIAS_AUDIT, LATE_COMMIT, RECOMMITTED, RECONCILE)
# More of them say no more.
_TOLD = 5


@dataclass(frozen=True, slots=True)
class GateFinding:
    """`detail` is one sentence without a fan's data."""

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
class Acceptance:
    """Findings that a person accepts, and why. `by` is who; empty: the account on this machine."""

    findings: tuple[str, ...] = ()
    reason: str = ""
    by: str = ""

    @classmethod
    def of(cls, findings: Iterable[str], reason: str, by: str = "") -> Acceptance:
        """Raises RequestError for a finding that is not one to accept, and for names without a reason."""
        names = tuple(dict.fromkeys(findings))
        for name in names:
            if name not in ACCEPTABLE:
                raise RequestError(
                    f"{name} is no finding that can be accepted: there are {', '.join(ACCEPTABLE)}"
                )
        if not names:
            if reason.strip():
                raise RequestError("a reason goes with the name of a finding that it accepts")
            return cls()
        return cls(names, published_reason(reason, "what is accepted"), by)

    def lines(self, at: str, names: Iterable[str]) -> list[dict[str, str]]:
        """Of those of `names` that are accepted here, as the record and accepted.json have them."""
        return [{"at": at, "finding": name, "reason": self.reason} for name in names if name in self.findings]


class GateClosed(Failure):
    """The gate has findings that cannot be accepted: nothing is published before what they say is set right."""

    def __init__(self, campaign_id: str, phase: int, findings: Sequence[GateFinding]) -> None:
        told = "; ".join(str(finding) for finding in findings if not finding.acceptable)
        super().__init__(f"phase {phase} of {campaign_id} is not published: {told}")
        self.findings = tuple(findings)


class NotAccepted(RequestError):
    """Findings are left that a person has to accept by name."""

    def __init__(self, campaign_id: str, phase: int, findings: Sequence[GateFinding]) -> None:
        told = "; ".join(str(finding) for finding in findings)
        options = " ".join(f"--accept-finding {finding.name}" for finding in findings)
        names = ", ".join(finding.name for finding in findings)
        super().__init__(
            f"phase {phase} of {campaign_id} is not published: {told}; to publish it all the same, accept by name:"
            f" `{options} --reason TEXT` in a terminal, `accept: [{names}]` and `reason` in the job `confirm_draw`"
        )
        self.findings = tuple(findings)


def examine(
    runtime: Runtime,
    record: DrawRecord,
    phase: PhaseRecord,
    bench: Workbench,
    engine: Engine,
    *,
    replayed: bool = False,
) -> tuple[GateFinding, ...]:
    """All findings about a drawn phase. `replayed`: this run has replayed the draw already, which at ten million leaves
    takes minutes (the root alone 13 s); the bytes are compared with the record once more in any case.

    Raises InputDiffers, which is the finding `inputs`, for the caller to keep; TransientFailure.
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
    )


def inputs(differs: InputDiffers) -> GateFinding:
    """What a file that differs is to the gate."""
    return GateFinding(INPUTS, differs.message)


def replay(record: DrawRecord, phase: PhaseRecord, bench: Workbench, engine: Engine) -> Iterator[GateFinding]:
    """From the artefacts in the bench alone, by the checker that third parties use."""
    known = [record.phases[number] for number in range(1, phase.phase + 1)]
    found = verify(bench.root, engine=engine, recorded=[each.manifest_hash for each in known])
    wrong = [str(finding) for finding in found.findings]
    replayed = {each.phase: each.result_hash for each in found.phases}
    if not wrong:
        wrong = [
            f"phase {each.phase} replays to another result than the committed one"
            for each in known
            if replayed.get(each.phase) != each.result_hash
        ]
    if wrong:
        yield GateFinding(REPLAY, "; ".join(wrong[:_TOLD]))


def _capacity(record: DrawRecord, phase: PhaseRecord, bench: Workbench) -> Iterator[GateFinding]:
    """Counted in the file that publication reads, not taken from the summary."""
    key = pipeline_key(record.campaign_id, phase.phase, OUTCOMES)
    outcomes = bench.fetch(key, bench.root / OUTCOMES, phase.hashes.get(OUTCOMES, ""))
    verdict = notes.capacity_respected(outcomes, Manifest.parse(phase.manifest))
    if not verdict.passed:
        yield GateFinding(CAPACITY, verdict.description)


def _codes(runtime: Runtime, record: DrawRecord, phase: PhaseRecord) -> Iterator[GateFinding]:
    """Too few codes are no finding: their market waits, and the others go on."""
    campaign_id, wrong = record.campaign_id, []
    summary = orjson.loads(phase.fields["summary"])
    for market_id, counted in sorted(summary["markets"].items()):
        winners = int(counted["new"])
        behind = last_planned(record, MarketPhase(campaign_id, market_id, phase.phase))
        taken = runtime.codes.first_given(campaign_id, market_id, behind, winners)
        if taken is not None:
            wrong.append(
                f"market {market_id}, position {taken}: a code that this phase gives is given already"
            )
    if phase.phase > 1:
        pairs = list(count_pairs(runtime, campaign_id).items())[2:]
        wrong += [f"{name} {number}" for name, number in pairs if number]
    if wrong:
        yield GateFinding(CODES, "; ".join(wrong[:_TOLD]))


def _audit(phase: PhaseRecord) -> Iterator[GateFinding]:
    """Nothing before there is a report: no publication comes before it."""
    if found := (phase.fields.get("report") or {}).get("biasAudit"):
        yield GateFinding(BIAS_AUDIT, "; ".join(found[:_TOLD]))


def _commit(phase: PhaseRecord) -> Iterator[GateFinding]:
    """Of phase 1, whose manifest the seed depends on."""
    if phase.published_late:
        when = f"was published at {phase.published_at}" if phase.published_at else "is not known to be public"
        due = iso(float(QUICKNET.due(phase.fields["seedSource"]["round"])))
        yield GateFinding(
            LATE_COMMIT,
            f"manifest.json {when}, its round of the beacon was due at {due}: {LEAD_SECONDS} s should lie between",
        )
    if phase.recommitted:
        told = ", ".join(
            f"round {each['round']} ({each['differ']} outcomes differ)" for each in phase.recommitted
        )
        yield GateFinding(
            RECOMMITTED,
            f"a manifest was replaced when its round was due, so that its result could be known: {told}",
        )


def _differences(phase: PhaseRecord) -> Iterator[GateFinding]:
    """Those with which the pool was frozen, by a person's word."""
    found: Mapping[str, int] = phase.fields.get("differences") or {}
    if found:
        told = ", ".join(f"{number} {kind}" for kind, number in sorted(found.items()))
        yield GateFinding(RECONCILE, f"the pool was frozen while source and replica differed: {told}")


class NotSettled(Failure):
    """Replication of the campaign has not caught up: `findings` say what is open and what helps."""

    def __init__(self, campaign_id: str, findings: Sequence[str]) -> None:
        super().__init__(f"{campaign_id} cannot be frozen yet: {'; '.join(findings)}")
        self.findings = findings


class Confirming(HeldDraw):
    """`accept` is what the person who runs it accepts by name."""

    def __init__(
        self,
        runtime: Runtime,
        campaign_id: str,
        *,
        run_id: str,
        phase: int | None = None,
        sleep: Callable[[float], object] = time.sleep,
        accept: Acceptance | None = None,
    ) -> None:
        super().__init__(runtime, campaign_id, run_id=run_id, phase=phase, sleep=sleep)
        self._accept = accept or Acceptance()

    @property
    def phase(self) -> int:
        """The phase that this run works on. Raises UsageError when the draw has none of that number."""
        record = self._runtime.draws.get(self.campaign_id)
        if record is None or not record.phases:
            return 1
        return self._ready(PhaseStatus.OPENED, "judge")[1].phase

    @property
    def word(self) -> str:
        """What confirms the publication of this run's phase."""
        return confirmation_word(self.campaign_id, self.phase)

    def _require_word(self, confirm: str | None) -> None:
        if confirm:
            require_word(confirm, self.word)

    def examine(self) -> tuple[GateFinding, ...]:
        """What the gate finds about the drawn phase so far; a publication by this run does not replay it again.

        Raises InputDiffers when a file in the store is not the draw's.
        """
        # As a part of the publication: what it stopped at is over when that goes through.
        with self._lease("publish") as lease:
            record, phase = self._ready(PhaseStatus.DRAWN, "allocate")
            return self._examine(lease, record, phase)

    def _examine(self, lease: Lease, record: DrawRecord, phase: PhaseRecord) -> tuple[GateFinding, ...]:
        """Ask the gate and keep what it says: `autoPublish` and the sensors go by that."""
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

    def _differences(
        self, found: Settlement, first: PhaseRecord | None
    ) -> tuple[Mapping[str, int], Sequence[Mapping[str, str]]]:
        """What differs although the pool is frozen, and the line that accepts it: a person says so by name, in this
        run, or of the same differences in one that died before the freeze. Raises NotSettled.
        """
        if not found.open:
            return {}, ()
        if found.differences and RECONCILE in self._accept.findings:
            return found.differences, self._accept.lines(self._now(), [RECONCILE])
        if first is not None and first.accepted and first.fields.get("differences") == found.differences:
            return found.differences, first.accepted
        how = f"`regworkers draw run {self.campaign_id} --accept-finding {RECONCILE} --reason TEXT`"
        accepts = f"{how} draws all the same, and the reason is published"
        raise NotSettled(self.campaign_id, [*found.open, *([accepts] if found.differences else [])])

    def _confirm(
        self, lease: Lease, phase: PhaseRecord, findings: Sequence[GateFinding], confirm: str | None
    ) -> bool:
        """Whether the publication is confirmed by now. The settings confirm only what has no finding at all."""
        if "report" not in phase.fields:
            raise self._missing("report")
        if any(not finding.acceptable for finding in findings):
            raise GateClosed(self.campaign_id, phase.phase, findings)
        if not confirm and (findings or not self._runtime.settings.selection.auto_publish):
            return False
        if left := [each for each in findings if not self._is_accepted(phase, each)]:
            raise NotAccepted(self.campaign_id, phase.phase, left)
        stand = {each["finding"] for each in phase.accepted}
        at = self._now()
        lines = self._accept.lines(at, [each.name for each in findings if each.name not in stand])
        said = {
            "confirmedAt": at,
            "confirmedBy": self._run_id if confirm else "settings",
            "accepted": [*phase.accepted, *lines],
        }
        with self._audited(phase.phase, lines):
            self._decide(lease, phase.phase, said, once="confirmedAt")
        return True

    def _is_accepted(self, phase: PhaseRecord, finding: GateFinding) -> bool:
        names = {each["finding"] for each in phase.accepted} | set(self._accept.findings)
        return finding.acceptable and finding.name in names

    @contextmanager
    def _audited(self, phase: int, lines: Sequence[Mapping[str, str]]) -> Iterator[None]:
        """What is accepted is written down before it counts, whichever way it came."""
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
