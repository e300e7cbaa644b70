"""One thing that is timed, in its own process: `python -m benchmarks.selection.contestant <name> <folder>`.

Prints `{"seconds", "cpuSeconds", "peakMib"}`, for receipts also their milliseconds. Imports and the reading of
arguments are not in the seconds; they are in the peak.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson

# Arrow imports it at its first array.
import pandas  # noqa: F401

from benchmarks.figures import peak_mib
from benchmarks.selection.data import CAMPAIGN, IDS, leaves, make_pool, make_terms, shape_of
from fairdraw.documents import as_document
from fairdraw.large.allocate import LargeEngine, compute
from fairdraw.large.receipts import ReceiptSource, build_receipt
from fairdraw.large.tiles import write_proofs
from fairdraw.maths.files import LEAVES, MANIFEST, OUTCOMES, RESULT, canonical_bytes, sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import root_of
from fairdraw.proof.verify import verify
from regworkers_core.selection.report.notes import capacity_respected
from regworkers_core.settings import PROJECT_ROOT
from tests.fairdraw.verifier.node import NODE

PHASE = "phase-1"
PAGE = "page"
INDEX = "leaves.index"
_RECEIPTS = 200


def _pool(folder: Path) -> None:
    make_pool(shape_of(folder), folder / PHASE)


def _leaves(folder: Path) -> None:
    leaves(folder / PHASE, _engine(folder))


def _merkle(folder: Path) -> None:
    root, count = root_of(folder / PHASE / LEAVES)
    make_terms(shape_of(folder), folder / PHASE, root, count)


def _bare(folder: Path) -> None:
    """DuckDB with defaults, hashing a ticket for each id and sorting by the hash."""
    ticket = f"vf2|{sha256_hex(b'seed')}|{CAMPAIGN}|"
    query = f"SELECT id, sha256('{ticket}' || id || '|0') AS key FROM '{folder / PHASE / IDS}' ORDER BY key"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{folder / 'bare.parquet'}' (FORMAT parquet)")


def _draw(folder: Path) -> None:
    compute(folder / PHASE, None, folder / PHASE, engine=_engine(folder))


def _root(folder: Path) -> None:
    """The root over the lines of the result, which `_draw` computes at its end."""
    root_of(folder / PHASE / RESULT)


def _gate(folder: Path) -> None:
    """What the gate does with the files of the draw; its queries of the database are not measured."""
    manifest = Manifest.parse((folder / PHASE / MANIFEST).read_bytes())
    replayed = verify(folder, engine=_engine(folder), recorded=[manifest.hash])
    seats = capacity_respected(folder / PHASE / OUTCOMES, manifest)
    if not (replayed.passed and seats.passed):
        raise RuntimeError(f"the gate found {replayed.findings}, {seats.description}")


def _receipts(folder: Path) -> list[float]:
    """Milliseconds each; the indexes are there, as after the first receipt of a draw."""
    refs = _some_refs(folder)
    build_receipt(folder, refs[0], index=folder / INDEX)
    found = []
    for ref in refs:
        started = time.perf_counter()
        canonical_bytes(build_receipt(folder, ref, index=folder / INDEX))
        found.append((time.perf_counter() - started) * 1000)
    return sorted(found)


def _proofs(folder: Path) -> dict[str, int]:
    """The static proofs of all entries."""
    (folder / PAGE).mkdir()
    return as_document(
        write_proofs(ReceiptSource(folder, None), folder / PAGE, engine=_engine(folder)),
        "bytes",
        "tiles",
        "records",
    )


def _replay(folder: Path) -> dict[str, Any]:
    """The draw again, in Node as in a browser; it counts its own time and memory."""
    return _in_node(folder, "replay.mjs", str(folder))


def _lookups(folder: Path) -> dict[str, Any]:
    """Requests and compressed bytes from a ref to its receipt, which is compared with the one made here."""
    refs = [
        *_some_refs(folder),
        "none-of-the-refs",
        *(sha256_hex(b"%d" % number)[:32] for number in range(50)),
    ]
    (folder / "refs.json").write_bytes(orjson.dumps(refs))
    found = _in_node(folder, "lookups.mjs", str(folder / PAGE), str(folder / "refs.json"))
    for ref, text in zip(refs[:_RECEIPTS], found.pop("texts"), strict=False):
        if canonical_bytes(build_receipt(folder, ref, index=folder / INDEX)).decode() != text:
            raise RuntimeError(f"another receipt of {ref}")
    return found


def _in_node(folder: Path, script: str, *arguments: str) -> dict[str, Any]:
    command = [str(NODE), str(Path(__file__).with_name(script)), *arguments]
    found: dict[str, Any] = orjson.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def _some_refs(folder: Path) -> list[str]:
    query = f"SELECT id FROM '{folder / PHASE / IDS}' USING SAMPLE reservoir({_RECEIPTS} ROWS) REPEATABLE (7)"
    with duckdb.connect() as connection:
        refs = [row[0] for row in connection.execute(query).fetchall()]
    random.Random(7).shuffle(refs)
    return refs


def _engine(folder: Path) -> LargeEngine:
    return LargeEngine(folder / "scratch")


CONTESTANTS: dict[str, Callable[[Path], Any]] = {
    "pool": _pool, "leaves": _leaves, "merkle": _merkle, "bare": _bare, "draw": _draw, "root": _root, "gate": _gate,
    "receipts": _receipts, "proofs": _proofs, "replay": _replay, "lookups": _lookups,
}  # fmt: skip


def run(name: str, folder: Path) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, "-m", "benchmarks.selection.contestant", name, str(folder)]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = orjson.loads(answer.stdout)
    return found


def _timed(name: str, folder: Path) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    extra = CONTESTANTS[name](folder)
    found = {
        "seconds": time.perf_counter() - started,
        "cpuSeconds": time.process_time() - cpu,
        "peakMib": peak_mib(),
    }
    if isinstance(extra, dict):
        return {**found, **extra}
    return found if extra is None else {**found, "milliseconds": extra}


if __name__ == "__main__":
    print(orjson.dumps(_timed(sys.argv[1], Path(sys.argv[2]))).decode())
