"""The checks of a draw that precede its publication: it replays to its committed result, respects the capacities, and
no rank depends on the time of an entry, its id or its mail domain.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import orjson

from fairdraw.large.allocate import LargeEngine
from fairdraw.maths.files import OUTCOMES
from fairdraw.maths.manifest import Manifest
from fairdraw.proof.verify import verify
from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import DrawBusy, PromiseVerdict
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.allocation import NUMBERS
from regworkers_core.selection.draw.artefacts import InputDiffers, pipeline_key, report_key
from regworkers_core.selection.draw.gate import REPLAY, Confirming, replay_differences
from regworkers_core.selection.proof.source import artefacts_of
from regworkers_core.selection.report import notes


def draw_replays(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that all phases, replayed from the published artefacts alone, have the hashes of the `draws` document.

    Raises UsageError before there is a result, TransientFailure.
    """
    drawn = _drawn(runtime, campaign_id)
    settings = runtime.settings.selection
    with tempfile.TemporaryDirectory(prefix="regworkers-replay-") as scratch:
        engine = LargeEngine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=Path(scratch))
        with artefacts_of(campaign_id, lambda: runtime) as artefacts:
            found = verify(
                artefacts.folder, engine=engine, recorded=artefacts.recorded, files=artefacts.files
            )
    wrong = replay_differences(found, drawn)
    numbers = {"leaves": found.count, "phases": len(found.phases), "findings": len(wrong)}
    return PromiseVerdict(
        not wrong, "; ".join(wrong[:5]) or "every phase replays to its committed result", numbers
    )


def gate_replays(runtime: Runtime, campaign_id: str, run_id: str) -> PromiseVerdict:
    """Check the same by way of the gate until the publication is confirmed, so that a publication by the run `run_id`
    need not replay again.
    """
    phases = _drawn(runtime, campaign_id)
    if phases[-1].confirmed:
        return draw_replays(runtime, campaign_id)
    try:
        found = Confirming(runtime, campaign_id, run_id=run_id).examine()
    except DrawBusy:
        # The other run asks the gate itself.
        return draw_replays(runtime, campaign_id)
    except InputDiffers as differs:
        return PromiseVerdict(False, str(differs), {"phases": len(phases), "findings": 1})
    wrong = [str(each) for each in found if each.name == REPLAY]
    numbers = {"phases": len(phases), "findings": len(wrong)}
    return PromiseVerdict(
        not wrong, "; ".join(wrong) or "every phase replays to its committed result", numbers
    )


def capacity_respected(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that no market of the latest result has more winners than seats in its manifest. Counts the winners, and
    does not trust the summary. Raises UsageError, TransientFailure.
    """
    phase = _drawn(runtime, campaign_id)[-1]
    with tempfile.TemporaryDirectory(prefix="regworkers-check-") as folder:
        outcomes = Path(folder) / OUTCOMES
        runtime.objects.get_file(pipeline_key(campaign_id, phase.phase, OUTCOMES), outcomes)
        return notes.capacity_respected(outcomes, Manifest.parse(phase.manifest))


def win_rates_uniform(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that the bias audit of the latest report has no findings. Raises UsageError, TransientFailure."""
    phase = _drawn(runtime, campaign_id)[-1]
    report = orjson.loads(runtime.objects.get_bytes(report_key(campaign_id, phase.phase, NUMBERS)))
    return notes.win_rates_uniform(report)


def _drawn(runtime: Runtime, campaign_id: str) -> list[PhaseRecord]:
    record = runtime.draws.get(campaign_id)
    phases = [phase for phase in record.phases.values() if phase.result_hash] if record else []
    if not phases:
        raise UsageError(f"{campaign_id} has no result yet: `regworkers draw run {campaign_id}` draws it")
    return phases
