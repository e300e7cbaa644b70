"""What the operator can show of registrations: one to its fan, one in a receipt, and all to an auditor.

The class of each is that of the freeze. Time and salt are beside the entries, as long as these are: of an entry that
was removed since, only index and class are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.errors import DrawError
from fairdraw.large.engine import Engine
from fairdraw.large.receipts import ReceiptSource, RegistrationSource
from fairdraw.maths.manifest import Manifest, Registrations
from fairdraw.maths.registration import (
    Notice,
    NoticeKind,
    OpenedRegistration,
    RegistrationClass,
    registration_leaf,
)
from fairdraw.proof.confirmation import Confirmation
from regworkers_core.adapters.files import open_private
from regworkers_core.adapters.judged_entries import EXCLUSIONS, POOL
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.adapters.mongo.registrations import Registrant
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.held import Workbench, workbench
from regworkers_core.selection.public.source import campaign_source
from regworkers_core.selection.registrations.freeze import CLASSES
from regworkers_core.selection.registrations.tree import RegistrationFiles

# The cache of a draw's artefacts has the tree's entries in the one, and the frozen entries by ref in the other.
_ENTRIES, _BY_REF = "registrations.txt", "entries.parquet"
_ROWS = 20_000
# How `expired` of a draw names its internal files.
_PIPELINE = "pipeline"
_WRITE_BY_REF = f"""
COPY (
  SELECT ref, entry_id, NULL AS reasons FROM read_parquet($pool)
  UNION ALL SELECT ref, entry_id, reasons FROM read_parquet($exclusions) ORDER BY ref
) TO $out (FORMAT parquet, ROW_GROUP_SIZE {_ROWS})
"""
_TEXT: pa.DataType = pa.string()
_BESIDE = pa.schema({"index": pa.int64(), **dict.fromkeys(("at", "ref", "salt", "unit"), _TEXT)})
_KNOWN = """
SELECT c.index, c.class, c.reason, b.at, b.ref, b.salt, b.unit
FROM read_parquet($classes) c LEFT JOIN read_parquet($beside) b ON b.index = c.index ORDER BY c.index
"""


class Shown(NamedTuple):
    """What a leaf of the tree commits to."""

    at: str  # when the entry was registered, an ISO time
    ref: str  # that of the entry; any text
    salt: str  # 32 hex digits
    unit: str | None  # the published one; None: the entry has none

    @classmethod
    def of(cls, registrant: Registrant) -> Shown | None:
        """None if it cannot be shown: the entry was removed, or is not as it was registered."""
        stored = registrant.registered
        if registrant.is_removed or stored is None or stored.at is None or stored.salt is None:
            return None
        ref, unit = registrant.ref, stored.unit
        leaf = registration_leaf(
            registrant.key.campaign_id, ref, ref if unit is None else unit, stored.at, stored.salt
        )
        return cls(stored.at, ref, stored.salt, unit) if leaf == stored.leaf else None


def confirmation_of(registrant: Registrant) -> Confirmation | None:
    """What the fan of an entry gets; None before the tree has it, and for one that cannot be shown."""
    shown, stored = Shown.of(registrant), registrant.registered
    if shown is None or stored is None or stored.index is None:
        return None
    return Confirmation(campaign_id=registrant.key.campaign_id, index=stored.index, **shown._asdict())


def logged_registrations(record: DrawRecord | None) -> Registrations | None:
    """What the manifest answers for; None before the commit, and for a campaign that logs none."""
    first = record.phases.get(1) if record else None
    return Manifest.parse(first.manifest).registrations if first is not None and first.manifest else None


def receipts_of(runtime: Runtime, campaign_id: str, cache: Path) -> ReceiptSource:
    """The receipts of a campaign, with the registrations that its draw answers for until the frozen files are deleted.
    Raises as `campaign_source`, and DrawError for a damaged tree.
    """
    source, record = campaign_source(runtime, campaign_id, cache), runtime.draws.get(campaign_id)
    logged = logged_registrations(record)
    if record is None or logged is None or _PIPELINE in record.expired:
        return source
    entries, by_ref = source.folder / _ENTRIES, source.folder / _BY_REF
    if not entries.exists():
        files = RegistrationFiles(runtime.objects, record.campaign_id)
        part = entries.with_suffix(".part")
        with part.open("wb") as out:
            out.writelines(entry + b"\n" for entry in files.entries(logged.size))
        part.replace(entries)
    if not by_ref.exists():
        with workbench(runtime.objects, record.campaign_id) as bench:
            _write_by_ref(record, bench, by_ref)
    registrations = RegistrationSource(entries, lambda ref: _opened(runtime, record, by_ref, ref))
    return replace(source, registrations=registrations)


def _write_by_ref(record: DrawRecord, bench: Workbench, by_ref: Path) -> None:
    hashes = record.phases[1].hashes
    paths = {
        name.partition(".")[0]: str(bench.fetch(record.frozen_key(name), bench.root / name, hashes[name]))
        for name in (POOL, EXCLUSIONS)
    }
    part = by_ref.with_suffix(".part")
    with Engine(bench.scratch).connection() as connection:
        connection.execute(_WRITE_BY_REF, {**paths, "out": str(part)})
    part.replace(by_ref)


def _opened(runtime: Runtime, record: DrawRecord, by_ref: Path, ref: str) -> OpenedRegistration | None:
    """What is known of the registration of a frozen entry; None if nothing is."""
    found = pq.read_table(by_ref, columns=["entry_id", "reasons"], filters=[("ref", "==", ref)]).to_pylist()
    for each in found:
        key = EntryKey(record.campaign_id, each["entry_id"])
        registrant = runtime.registrations.get([key]).get(key)
        if registrant is None or registrant.registered is None or registrant.registered.index is None:
            continue
        shown, reasons = Shown.of(registrant), each["reasons"]
        if shown is not None and shown.ref == ref:
            return _line(registrant.registered.index, _class(reasons), reasons, shown)
    return None


def _class(reasons: list[str] | None) -> RegistrationClass:
    return RegistrationClass.DRAWN if reasons is None else RegistrationClass.EXCLUDED


def _line(
    index: int, class_: RegistrationClass, reasons: list[str] | None, shown: Shown | None
) -> OpenedRegistration:
    return OpenedRegistration(
        class_=class_,
        index=index,
        at=shown and shown.at,
        ref=shown and shown.ref,
        salt=shown and shown.salt,
        unit=shown and (shown.ref if shown.unit is None else shown.unit),
        reason=",".join(reasons) if reasons else None,
    )


def write_opening(runtime: Runtime, record: DrawRecord, path: Path) -> Counter[str]:
    """Write a line for each registration that the manifest counts, in the order of the tree. Returns their numbers by
    class. Raises UsageError before the commit and for a campaign that logs no registrations, TransientFailure,
    DrawError for a damaged tree, InputDiffers.
    """
    logged = logged_registrations(record)
    if logged is None:
        raise UsageError(
            f"the draw of {record.campaign_id} has committed to no registrations: there is nothing to open"
        )
    if _PIPELINE in record.expired:
        raise UsageError(
            f"the frozen entries of {record.campaign_id} were deleted at the end of housekeeping.pipelineDays: its"
            " registrations cannot be opened any more"
        )
    counts = Counter[str]()
    try:
        file = open_private(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    with workbench(runtime.objects, record.campaign_id) as bench, file as out:
        for line in _lines(runtime, record, logged.size, bench):
            counts[line.class_.value] += 1
            out.write(line.to_bytes() + b"\n")
    return counts


def _lines(runtime: Runtime, record: DrawRecord, size: int, bench: Workbench) -> Iterator[OpenedRegistration]:
    ended: dict[int, NoticeKind] = {}
    is_notice = bytearray(size)
    for at, entry in enumerate(RegistrationFiles(runtime.objects, record.campaign_id).entries(size)):
        if (notice := Notice.parse(entry)) is not None:
            is_notice[at] = True
            if notice.kind is not NoticeKind.UNIT:
                ended[notice.index] = notice.kind
    rows = _known(runtime, record, size, bench)
    row = next(rows, None)
    for index in range(size):
        while row is not None and row["index"] < index:
            row = next(rows, None)
        if is_notice[index]:
            continue
        if index in ended:
            yield _line(index, RegistrationClass(ended[index].value), None, None)
        elif row is None or row["index"] != index:
            raise DrawError(CLASSES, f"has no class for the registration {index}")
        else:
            shown = Shown(row["at"], row["ref"], row["salt"], row["unit"]) if row["salt"] else None
            reasons = [row["reason"]] if row["reason"] else None
            yield _line(index, RegistrationClass(row["class"]), reasons, shown)


def _known(runtime: Runtime, record: DrawRecord, size: int, bench: Workbench) -> Iterator[Mapping[str, Any]]:
    """Class, and what is beside the entry, of each registration that had an entry at the freeze, by index."""
    stored, beside = record.phases[1].registrations, bench.root / "beside.parquet"
    classes = bench.fetch(stored["key"], bench.root / CLASSES, stored["sha256"])
    with pq.ParquetWriter(beside, _BESIDE, compression="zstd") as writer:
        for page in runtime.registrations.of_campaign(record.campaign_id, _ROWS):
            rows = [
                {"index": each.registered.index, **shown._asdict()}
                for each in page
                if each.registered is not None
                and each.registered.index is not None
                and each.registered.index < size
                and (shown := Shown.of(each)) is not None
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=_BESIDE))
    with Engine(bench.scratch).connection() as connection:
        values = {"classes": str(classes), "beside": str(beside)}
        reader: Any = connection.sql(_KNOWN, params=values).to_arrow_reader(_ROWS)
        for batch in reader:
            yield from batch.to_pylist()
