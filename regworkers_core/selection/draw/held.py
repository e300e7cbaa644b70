"""A draw held by one run: its lease and fencing token, its artefacts in S3, and a temporary folder to work on them.

No file stays on a machine between two steps: each fetches its inputs and stores its results. The `draws` document has
the SHA-256 of every file that a step reads; a file with another hash stops the draw, so that write access to the bucket
does not decide who wins.

outcomes.parquet is known by two hashes, which a rewritten file with the same rows shares: `result_hash`, to which the
draw commits, and `entries_hash` over what result.txt lacks: the entry ids, which say who gets a code, and the outcomes
of the phase before, which say who gets a message.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairdraw.errors import DrawError
from fairdraw.maths.files import file_hash, sha256_hex
from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.adapters.mongo.draws import PhaseOfDraw, PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import PermanentFailure, Reason, RequestError, UsageError
from regworkers_core.domain.selection import public_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import draw_lease

if TYPE_CHECKING:
    import duckdb

    from fairdraw.large.allocate import LargeEngine


class InputDiffers(DrawError):
    """A file in the store is not the one that the draw wrote. `expected` and `found` are SHA-256 in hex, empty if the
    draw recorded none or there is no file.
    """

    def __init__(self, key: str, expected: str, found: str) -> None:
        what = f"{key} has SHA-256 {found}" if found else f"{key} is missing"
        rule = (
            f"the draw wrote {expected or 'none'}: find out who changed it, restore the version that the draw wrote,"
            " then run the draw again"
        )
        super().__init__(key.rpartition("/")[2], f"{what}, {rule}")
        self.key, self.expected, self.found = key, expected, found


class ResultDiffers(PermanentFailure):
    """The result of one draw is not what was committed to: a worker on many draws continues with the others."""

    def __init__(self, key: str, expected: str, found: str) -> None:
        what = f"{key} has rows of SHA-256 {found[:12]}" if found else f"{key} is missing, or cannot be read"
        rule = f"but {expected[:12] or 'none'} was committed to: restore the file that the draw wrote"
        super().__init__(Reason.RESULT_MISMATCH, f"{what}, {rule}")
        self.key, self.expected, self.found = key, expected, found


def own_prefix(name: str, token: int) -> str:
    """Return a unique folder for the files of one attempt. The random part is for a new lease table, whose tokens start
    from 1 again; the `draws` document says which attempt counts.
    """
    return f"{name}-{token}-{secrets.token_hex(4)}"


class Workbench:
    """A temporary folder with a subfolder `phase-<n>` per phase, filled from the store on demand."""

    def __init__(self, objects: ObjectStore, campaign_id: str, root: Path) -> None:
        self._objects, self._campaign_id, self.root = objects, campaign_id, root
        self.scratch = root / "scratch"
        self.scratch.mkdir()

    def phase(self, number: int) -> Path:
        """Return the folder of a phase, laid out as by `draw export`."""
        folder = self.root / f"phase-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def fetch(self, key: str, path: Path, expected: str) -> Path:
        """Download one object, whose SHA-256 is `expected` (hex). Raises InputDiffers, TransientFailure."""
        try:
            self._objects.get_file(key, path)
        except MissingObject:
            raise InputDiffers(key, expected, "") from None
        if (found := file_hash(path)) != expected:
            raise InputDiffers(key, expected, found)
        return path

    def put(self, key: str, path: Path) -> str:
        """Store one file under a new key and return its SHA-256. Raises InputDiffers if the key has other bytes."""
        ours = file_hash(path)
        if not self._objects.put_file_once(key, path):
            stored = self.scratch / "stored"
            self.fetch(key, stored, ours)
            stored.unlink()
        return ours

    def fetch_public(self, phase: PhaseRecord, *names: str) -> Path:
        """Download artefacts of a phase into its folder and return that. Raises InputDiffers."""
        folder = self.phase(phase.phase)
        for name in names:
            key = public_key(self._campaign_id, phase.phase, name)
            self.fetch(key, folder / name, phase.hashes.get(name, ""))
        return folder

    def put_public(self, number: int, *names: str) -> dict[str, str]:
        """Publish artefacts of a phase and return their SHA-256 by name. A repeat makes the same bytes. Raises
        InputDiffers if the store has others.
        """
        folder = self.phase(number)
        return {name: self.put(public_key(self._campaign_id, number, name), folder / name) for name in names}


def publish_once(objects: ObjectStore, key: str, data: bytes) -> None:
    """Store `data` under a new key. Raises InputDiffers if the key has other bytes."""
    if (stored := objects.put_once(key, data)) != data:
        raise InputDiffers(key, sha256_hex(data), sha256_hex(stored))


@contextmanager
def workbench(objects: ObjectStore, campaign_id: str) -> Iterator[Workbench]:
    """Yield a workbench and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="regworkers-draw-") as folder:
        yield Workbench(objects, campaign_id, Path(folder))


# The lines of result.txt.
_RESULT = "ref || '|' || market || '|' || CASE rank WHEN 0 THEN '' ELSE rank::VARCHAR END || '|' || outcome"
# Only the entry id may contain a bar, so no two different rows make the same line.
_ENTRIES = "ref || '|' || entry_id || '|' || previous || '|' || previous_market"


def result_hash(connection: duckdb.DuckDBPyConnection, table: str, scratch: Path) -> str:
    """Return the SHA-256 in hex of `table` in the form of result.txt, by way of a file in `scratch`."""
    return _hash(connection, _RESULT, table, scratch)


def entries_hash(connection: duckdb.DuckDBPyConnection, table: str, scratch: Path) -> str:
    """Return the SHA-256 in hex of the lines `ref|entryId|outcome before|market before`, by ref."""
    return _hash(connection, _ENTRIES, table, scratch)


def _hash(connection: duckdb.DuckDBPyConnection, line: str, table: str, scratch: Path) -> str:
    text = scratch / "lines.txt"
    connection.execute(
        f"COPY (SELECT {line} FROM {table} ORDER BY ref) TO $text (FORMAT csv, HEADER false)",
        {"text": str(text)},
    )
    found = file_hash(text)
    text.unlink()
    return found


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

    def _ready(self, needed: PhaseStatus, step: str) -> PhaseOfDraw:
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
        return PhaseOfDraw(record, phase)

    def _missing(self, step: str) -> RequestError:
        return RequestError(
            f"the draw of {self.campaign_id} is not ready for this step: {_NOT_DONE[step]}"
            f" (`regworkers draw run {self.campaign_id}`, or the job `draw`, runs all steps in order)"
        )

    def _now(self) -> str:
        return iso(self._runtime.clock())
