"""A draw held by one run: its lease and fencing token, and what every step reads and decides under them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.lifecycle import draw_lease
from regworkers_core.selection.draw.artefacts import InputDiffers, ResultDiffers, Workbench, workbench

if TYPE_CHECKING:
    from fairdraw.large.allocate import LargeEngine

# What a later step lacks, by the step that was not run.
_NOT_DONE = {
    "judge": "its entries are not judged",
    "freeze": "its pool is not frozen",
    "commit": "its manifest is not published",
    "seed": "its seed is not drawn",
    "rank": "its candidates are not ranked",
    "allocate": "its seats are not given",
    "report": "its report is not made",
}


@contextmanager
def noted_stops(
    runtime: Runtime, campaign_id: str, phase: int | None, step: str, token: int
) -> Iterator[None]:
    """Record an input that differs in the phase (default: the latest) as `stopped`, for the alerts. When the same step
    succeeds, the record is removed.
    """

    def phases() -> Mapping[int, PhaseRecord]:
        record = runtime.draws.get(campaign_id)
        return {} if record is None else record.phases

    try:
        yield
    except (InputDiffers, ResultDiffers) as differs:
        if known := phases():
            fields = {
                "file": differs.key,
                "expected": differs.expected,
                "found": differs.found,
                "text": str(differs),
            }
            stopped = {"stopped": {"at": iso(runtime.clock()), "step": step, **fields}}
            runtime.draws.decide(campaign_id, phase or max(known), stopped, token=token)
        raise
    for number, each in phases().items():
        if each.stopped.get("step") == step:
            runtime.draws.decide(campaign_id, number, {}, token=token, unset=("stopped",))


class HeldDraw:
    """The base of a run that works on a draw; without `phase`, on its latest phase."""

    def __init__(
        self,
        runtime: Runtime,
        campaign_id: str,
        *,
        run_id: str,
        phase: int | None = None,
    ) -> None:
        self._runtime, self.campaign_id, self._run_id = runtime, campaign_id, run_id
        self._wanted_phase = phase

    @contextmanager
    def _lease(self, step: str) -> Iterator[Lease]:
        """Hold the draw's lease for one step. Raises as `draw_lease`."""
        with (
            draw_lease(self._runtime, self.campaign_id, self._run_id) as lease,
            noted_stops(self._runtime, self.campaign_id, self._wanted_phase, step, lease.token),
        ):
            yield lease

    @contextmanager
    def _bench(self) -> Iterator[Workbench]:
        with workbench(self._runtime.objects, self.campaign_id) as bench:
            yield bench

    def _engine(self, bench: Workbench) -> LargeEngine:
        from fairdraw.large.allocate import LargeEngine

        settings = self._runtime.settings.selection
        return LargeEngine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=bench.scratch)

    def _campaign(self) -> Campaign:
        return self._runtime.campaigns.require_id(self.campaign_id)

    def _decide(
        self,
        lease: Lease,
        phase: int,
        fields: Mapping[str, Any],
        once: str = "",
        unset: Sequence[str] = (),
    ) -> None:
        self._runtime.draws.decide(self.campaign_id, phase, fields, token=lease.token, once=once, unset=unset)

    def _phase(self, number: int) -> PhaseRecord:
        record = self._runtime.draws.get(self.campaign_id)
        if record is None:
            raise self._missing("judge")
        return record.phases[number]

    def _ready(self, needed: PhaseStatus, step: str) -> tuple[DrawRecord, PhaseRecord]:
        """Return the record and the phase. Raises RequestError unless the phase has reached `needed`, by `step`."""
        record = self._runtime.draws.get(self.campaign_id)
        if record is None or not record.phases:
            raise self._missing("judge")
        record.require_counts()
        number = self._wanted_phase or record.latest.phase
        phase = record.phases.get(number)
        if phase is None:
            raise UsageError(f"the draw of {self.campaign_id} has no phase {number}")
        if not phase.reached(needed):
            raise self._missing(step)
        return record, phase

    def _missing(self, step: str) -> RequestError:
        return RequestError(
            f"the draw of {self.campaign_id} is not ready for this step: {_NOT_DONE[step]}"
            f" (`regworkers draw run {self.campaign_id}`, or the job `draw`, runs all steps in order)"
        )

    def _now(self) -> str:
        return iso(self._runtime.clock())
