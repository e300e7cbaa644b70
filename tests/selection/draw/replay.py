"""What an auditor finds in the artefacts that a draw has published."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fairdraw.large.allocate import LargeEngine
from fairdraw.proof.verify import Verification, verify
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.source import export
from tests.selection.draw.world import CAMPAIGN
from tests.support.draws import record_of


def replay_of(runtime: Runtime) -> Verification:
    """All phases, replayed from the files alone, against the hashes that were published."""
    record = record_of(runtime)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "draw"
        export(runtime.objects, CAMPAIGN, record.phases, folder)
        published = [phase.manifest_hash for phase in record.phases.values()]
        engine = LargeEngine(Path(name) / "scratch", threads=1, memory_mib=256)
        return verify(folder, engine=engine, published=published)
