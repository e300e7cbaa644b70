"""Publish the page of a draw: beside its artefacts in the store, or with a copy of them in a folder for any host."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fairdraw.documents import as_document
from fairdraw.large.engine import Engine
from fairdraw.large.receipts import ReceiptSource
from fairdraw.large.tiles import DRAW, Proofs, write_proofs
from fairdraw.log.parts import log_parts
from fairdraw.maths.beside import published
from fairdraw.maths.files import LEAVES, OUTCOMES, RESULT
from fairdraw.maths.leaves import LEAF_COLUMNS, RESULT_COLUMNS
from fairdraw.maths.opened import is_beside_phases
from fairdraw.proof.inputs import drawn_folders, phase_folders, read_inputs
from fairdraw.scheduling import Progress, no_progress
from fairdraw.verifier.assemble import verifier_page
from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import report_key
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.page import INDEX, Naming, draw_page
from regworkers_core.selection.public.source import export, in_bucket
from regworkers_core.selection.report.build import measured
from regworkers_core.selection.report.inputs import NUMBERS, ReportContext, ReportFiles, lines

PAGE_FOLDER = "page"
VERIFIER = "verifier.html"
# They are published in this order: a reader of the last one finds the others.
_NAMED = (VERIFIER, DRAW, INDEX)
_MEMORY_MIB = 700


_POOL = f"""
COPY (
  SELECT ref, unit, weight::UTINYINT AS weight, string_split(preferences, ',') AS preferences,
         CASE segments WHEN '' THEN []::VARCHAR[] ELSE string_split(segments, ',') END AS segments,
         NULL::VARCHAR AS created_at, '' AS mail_domain, '' AS entry_id, NULL::VARCHAR AS vouched_by
  FROM {lines("$leaves", LEAF_COLUMNS)}
) TO $out (FORMAT parquet)
"""
_OUTCOMES = f"""
COPY (
  SELECT now.ref, now.market, coalesce(try_cast(now.rank AS INTEGER), 0) AS rank, now.outcome,
         coalesce(before.outcome, '') AS previous, coalesce(before.market, '') AS previous_market
  FROM {lines("$result", RESULT_COLUMNS)} now
  LEFT JOIN {lines("$before", RESULT_COLUMNS)} before ON before.ref = now.ref
) TO $out (FORMAT parquet)
"""


@dataclass(frozen=True, slots=True)
class PagePublished:
    """What was published, or would be."""

    campaign_id: str
    phases: int
    # Its address.
    page: str
    # Files that the store lacks or has in another form.
    put: tuple[str, ...]
    # The numbers of the proofs.
    proofs: Proofs

    def as_dict(self) -> dict[str, Any]:
        return as_document(self, "campaign_id", "phases", "page", "put") | as_document(
            self.proofs, "file", "bytes", "leaves", "tiles", "records"
        )


def publish_page(
    runtime: Runtime,
    campaign_id: str,
    *,
    output: Path | None = None,
    apply: bool,
    on_progress: Progress = no_progress,
) -> PagePublished:
    """Build the page of all confirmed phases. With `apply` put it beside the artefacts, where a repeat puts nothing but
    a later state of the public log; with `output` write it there, too, with the artefacts.

    Raises UsageError without a confirmed phase, or if another run publishes at the same time; TransientFailure.
    """
    record = runtime.draws.get(campaign_id)
    shown = record.public_phases if record else []
    if record is None:
        runtime.campaigns.require_id(campaign_id)
    if record is None or not shown:
        raise UsageError(
            f"{campaign_id} has no confirmed phase yet: read the report and confirm it with `regworkers draw run"
            f" {campaign_id}` or the job `confirm_draw`; then publish its page"
        )
    campaign = runtime.campaigns.get(campaign_id)
    naming = Naming(
        campaign.name if campaign and campaign.name else campaign_id,
        {market.market_id: market.name for market in campaign.markets if market.name} if campaign else {},
    )
    with _site(output) as root:
        # Beside a phase without a result there may be the annulment of the draw.
        annulled = [record.annulled["phase"]] if record.annulled else []
        export(runtime.objects, campaign_id, sorted({*shown, *annulled}), root)
        try:
            numbers = orjson.loads(runtime.objects.get_bytes(report_key(campaign_id, shown[-1], NUMBERS)))
        except MissingObject:
            numbers = measured_files([root / f"phase-{number}" for number in shown])
        source = ReceiptSource(root, None, log=log_parts(in_bucket(runtime.objects).read))
        proofs = write_site(source, root / PAGE_FOLDER, numbers, naming, on_progress=on_progress)
        put = _put(
            runtime.objects, f"draws/{campaign_id}/{PAGE_FOLDER}/", root / PAGE_FOLDER, proofs, apply=apply
        )
    address = f"s3://{runtime.objects.bucket}/draws/{campaign_id}/{PAGE_FOLDER}/{INDEX}"
    return PagePublished(campaign_id, len(shown), address, put, proofs)


def page_from_folder(folder: Path, output: Path, *, on_progress: Progress = no_progress) -> PagePublished:
    """Write the page of exported artefacts to `output/page`, and the artefacts beside it. The audit covers what they
    show: neither times of registration nor mail domains. Raises UsageError.
    """
    phases = phase_folders(folder)
    drawn_folders(folder)
    output.mkdir(parents=True, exist_ok=True)
    if folder.resolve() != output.resolve():
        for each in phases:
            (output / each.name).mkdir(exist_ok=True)
            for name in published(path.name for path in each.iterdir()):
                shutil.copyfile(each / name, output / each.name / name)
        for each in filter(lambda path: is_beside_phases(path.name), folder.iterdir()):
            shutil.copyfile(each, output / each.name)
    drawn = drawn_folders(output)
    numbers = measured_files(drawn)
    proofs = write_site(
        ReceiptSource(output, None),
        output / PAGE_FOLDER,
        numbers,
        Naming(numbers["campaignId"]),
        on_progress=on_progress,
    )
    page = str(output / PAGE_FOLDER / INDEX)
    return PagePublished(numbers["campaignId"], len(drawn), page, (), proofs)


def write_site(
    source: ReceiptSource,
    out: Path,
    numbers: Mapping[str, Any],
    naming: Naming,
    *,
    on_progress: Progress = no_progress,
) -> Proofs:
    """Write the files of the page into `out`; `numbers` are those of the report of the last drawn phase. Raises
    DrawError for damaged artefacts.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="regworkers-page-") as scratch:
        proofs = write_proofs(
            source, out, engine=Engine(Path(scratch), memory_mib=_MEMORY_MIB), on_progress=on_progress
        )
    (out / VERIFIER).write_bytes(verifier_page())
    phases = [read_inputs(each) for each in phase_folders(source.folder)]
    html = draw_page(phases, numbers, proofs, naming)
    (out / INDEX).write_bytes(html)
    return proofs


def _put(objects: ObjectStore, prefix: str, page: Path, proofs: Proofs, *, apply: bool) -> tuple[str, ...]:
    """Store the files that the store lacks, the index last. Earlier proofs stay for those who read them."""
    lacks = []
    if not objects.exists(prefix + proofs.file):
        lacks.append(proofs.file)
        if apply and not objects.put_file_once(prefix + proofs.file, page / proofs.file):
            raise UsageError(f"another run publishes {prefix}: run it again")
    lacks += put_named(objects, prefix, {name: (page / name).read_bytes() for name in _NAMED}, apply=apply)
    return tuple(lacks)


def put_named(objects: ObjectStore, prefix: str, files: Mapping[str, bytes], *, apply: bool) -> list[str]:
    """Store what the store lacks or has in another form, in this order, and return the names. Raises UsageError if
    another run was faster.
    """
    lacks = []
    for name, data in files.items():
        stored = objects.get_tagged(prefix + name)
        if stored is not None and stored.data == data:
            continue
        lacks.append(name)
        if apply and objects.put_over(prefix + name, data, stored and stored.tag) is None:
            raise UsageError(f"another run publishes {prefix}: run it again")
    return lacks


@contextmanager
def _site(output: Path | None) -> Iterator[Path]:
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="regworkers-page-") as made:
        yield Path(made)


def measured_files(drawn: Sequence[Path]) -> dict[str, Any]:
    """The numbers of a report as far as the artefacts of these phases, up to the last one, go."""
    phase, before = drawn[-1], drawn[-2] / RESULT if len(drawn) > 1 else None
    with tempfile.TemporaryDirectory(prefix="regworkers-page-") as made:
        scratch = Path(made)
        empty = scratch / "none.txt"
        empty.touch()
        files = ReportFiles(phase, scratch / "pool.parquet", None, scratch / OUTCOMES, drawn[:-1])
        with Engine(scratch, memory_mib=_MEMORY_MIB).connection() as connection:
            connection.execute(_POOL, {"leaves": str(drawn[0] / LEAVES), "out": str(files.pool)})
            values = {
                "result": str(phase / RESULT),
                "before": str(before or empty),
                "out": str(files.outcomes),
            }
            connection.execute(_OUTCOMES, values)
        context = ReportContext()
        return measured(files, context, memory_mib=_MEMORY_MIB, scratch=scratch).numbers
