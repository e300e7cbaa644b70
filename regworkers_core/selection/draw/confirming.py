"""Who says that a drawn phase may go out, and what stands against it: the gate is asked, a person types the word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from regworkers_core.adapters.files.judged_entries import Settlement
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.reasons import Failure
from regworkers_core.domain.selection import confirmation_word, require_word
from regworkers_core.engine.leases import Lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.artefacts import InputDiffers
from regworkers_core.selection.draw.gate import (
    INPUTS,
    RECONCILE,
    REPLAY,
    Acceptance,
    GateClosed,
    GateFinding,
    NotAccepted,
    examine,
    inputs,
)
from regworkers_core.selection.draw.held import HeldDraw


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
