"""Sources of a draw's artefacts: a folder, a prefix on S3, or a campaign."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

from fairdraw.commands import Artefacts
from fairdraw.large.receipts import ReceiptSource
from fairdraw.log.parts import log_parts
from fairdraw.log.place import Place
from fairdraw.maths.beside import (
    ACCEPTED,
    ANNULLED,
    NOTICE,
    AcceptedFinding,
    Annulled,
    ReplacedManifest,
    accepted_bytes,
    is_beside,
    published,
    replaced_name,
)
from fairdraw.maths.files import (
    CUTOFFS,
    LEAVES,
    MANIFEST,
    RESULT,
    SEED,
    STRIKES,
    SUMMARY,
    is_hash,
    sha256_hex,
)
from fairdraw.maths.opened import is_beside_phases, opened_name
from fairdraw.proof.inputs import PHASE_FOLDER, mark_not_confirmed
from fairdraw.terms import CHAIN_FILE
from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.adapters.judged_entries import EXCLUSIONS
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.domain.keys import EntryKey, is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import public_key
from regworkers_core.runtime import Runtime

_S3 = re.compile(r"s3://([^/]+)/(.+)")
# The files of a phase that a receipt reads. Leaves and seed are those of phase 1.
_LATER = (MANIFEST, STRIKES, RESULT, CUTOFFS, SUMMARY)
_FIRST = (LEAVES, SEED, *_LATER)


@contextmanager
def artefacts_of(target: str, load: Callable[[], Runtime]) -> Iterator[Artefacts]:
    """Provide the artefacts of `target`: an existing folder, `s3://bucket/prefix`, or the id of a campaign.

    Downloads are deleted at the end. `load` is called only if something is downloaded.

    Raises UsageError for another target or one without artefacts, TransientFailure.
    """
    if Path(target).is_dir():
        yield Artefacts(Path(target))
        return
    with tempfile.TemporaryDirectory(prefix="regworkers-verify-") as made:
        folder = Path(made)
        if (named := _S3.fullmatch(target)) is not None:
            runtime = load()
            client, dependency = runtime.aws.client("s3"), runtime.dependency("s3")
            _fetch_all(ObjectStore(client, dependency, named[1]), named[2].rstrip("/"), folder)
            yield Artefacts(folder)
        elif is_selection_id(target):
            runtime = load()
            record = runtime.draws.get(target)
            if record is None:
                raise UsageError(
                    f"{target} is not a folder on this machine, and no campaign with this id was drawn"
                )
            _fetch_all(runtime.objects, f"draws/{target}", folder)
            mark_not_confirmed(folder, record.not_confirmed)
            hashes = (phase.manifest_hash for phase in record.phases.values() if phase.manifest_hash)
            yield Artefacts(folder, tuple(hashes), recorded_files(record))
        else:
            raise UsageError(f"{target} is neither a folder, nor s3://bucket/prefix, nor a campaign's id")


def export(objects: ObjectStore, campaign_id: str, phases: Iterable[int], folder: Path) -> list[str]:
    """Copy the published artefacts of `phases`, and the files beside them, to `folder/phase-<n>/` and `folder`. Returns
    the relative names of the copies. Raises TransientFailure.
    """
    written: list[str] = []
    for phase in phases:
        prefix = public_key(campaign_id, phase, "")
        for name in published(key.removeprefix(prefix) for key in objects.list(prefix)):
            target = folder / f"phase-{phase}" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            objects.get_file(prefix + name, target)
            written.append(f"phase-{phase}/{name}")
    return [*written, *_fetch_beside_phases(objects, f"draws/{campaign_id}/", folder)] if written else []


def export_phases(objects: ObjectStore, record: DrawRecord, folder: Path) -> list[str]:
    """Copy the published files of all phases of a draw to `folder/phase-<n>/`, and mark the phases that are not
    confirmed. Returns the relative names. Raises TransientFailure.
    """
    written = export(objects, record.campaign_id, record.phases, folder)
    return written and [*written, *mark_not_confirmed(folder, record.not_confirmed)]


def recorded_files(record: DrawRecord) -> dict[str, str]:
    """SHA-256 by `phase-<n>/<name>` of the files whose bytes the `draws` document determines."""
    found: dict[str, str] = {}
    if annulled := record.annulled:
        data = Annulled(
            annulled["annulledAt"],
            record.campaign_id,
            annulled["manifestHash"],
            annulled["phase"],
            annulled["reason"],
        ).to_bytes()
        found[f"phase-{annulled['phase']}/{ANNULLED}"] = sha256_hex(data)
    for number, phase in record.phases.items():
        fields = phase.fields
        found |= {f"phase-{number}/{name}": each for name, each in (fields.get("hashes") or {}).items()}
        texts: dict[str, bytes] = {}
        if notice := fields.get("notice"):
            texts[NOTICE] = str(notice).encode()
        for place, each in enumerate(fields.get("replaced") or (), 1):
            replaced = ReplacedManifest(
                each["committedAt"], each["manifest"], each.get("publishedAt"), each["replacedAt"]
            )
            texts[replaced_name(place)] = replaced.to_bytes()
        # Accepted findings are published with the confirmation; until then more may be added.
        if "confirmedAt" in fields and (accepted := fields.get("accepted")):
            texts[ACCEPTED] = accepted_bytes(
                [AcceptedFinding(each["at"], each["finding"], each["reason"]) for each in accepted]
            )
        found |= {f"phase-{number}/{name}": sha256_hex(data) for name, data in texts.items()}
    return found


def _fetch_all(objects: ObjectStore, prefix: str, folder: Path) -> None:
    found = 0
    for key in objects.list(prefix + "/"):
        phase, _, name = key.removeprefix(prefix + "/").partition("/")
        if PHASE_FOLDER.fullmatch(phase) and published([name]):
            (folder / phase).mkdir(exist_ok=True)
            objects.get_file(key, folder / phase / name)
            found += 1
    if not found:
        raise UsageError(f"s3://{objects.bucket}/{prefix}/ contains no phase-1: give the prefix of a draw")
    _fetch_beside_phases(objects, f"{prefix}/", folder)


# How the names of the files begin that lie beside the phases.
_BESIDE_PHASES = (CHAIN_FILE, opened_name(0), "amended-")


def _fetch_beside_phases(objects: ObjectStore, prefix: str, folder: Path) -> list[str]:
    """Copy the chain and the record of the campaign. Returns the names."""
    found = []
    for name in (
        key.removeprefix(prefix) for start in _BESIDE_PHASES for key in objects.list(prefix + start)
    ):
        if is_beside_phases(name):
            objects.get_file(prefix + name, folder / name)
            found.append(name)
    return found


def campaign_source(runtime: Runtime, campaign_id: str, cache: Path) -> ReceiptSource:
    """Published artefacts of a campaign's confirmed phases, cached under the hash of the last result for the next
    receipt.

    Raises UsageError if the campaign has no confirmed result, TransientFailure.
    """
    record = runtime.draws.get(campaign_id) if is_selection_id(campaign_id) else None
    if record is None or not (record.public_phases or record.not_confirmed):
        raise UsageError(
            f"{campaign_id} has no result yet: draw it with `regworkers draw run {campaign_id}` or the job `draw`"
        )
    if not (public := record.public_phases):
        raise UsageError(
            f"{campaign_id} was drawn and is not confirmed yet, so there are no receipts: read the report and confirm"
            f" it with `regworkers draw run {campaign_id}` or the job `confirm_draw`"
        )
    folder = cache / campaign_id / record.phases[public[-1]].result_hash
    if not folder.exists():
        _fill(runtime.objects, campaign_id, public, folder)
    # Beside a phase without a result there may be the annulment of the draw.
    beside = record.phases if record.annulled else public
    _refresh_beside(runtime.objects, campaign_id, beside, folder)
    return ReceiptSource(
        folder,
        folder / "leaves.index",
        lambda ref: _reasons(runtime.objects, record, ref),
        ref_of=lambda entry_id: _ref_of(runtime, EntryKey(campaign_id, entry_id)),
        log=log_parts(in_bucket(runtime.objects).read),
        not_confirmed=record.not_confirmed,
    )


def in_bucket(objects: ObjectStore) -> Place:
    def read(path: str) -> bytes | None:
        tagged = objects.get_tagged(path)
        return None if tagged is None else tagged.data

    def opened(path: str) -> BinaryIO | None:
        try:
            return objects.open(path)
        except MissingObject:
            return None

    return Place(read, opened)


def cache_folder() -> Path:
    """The cache of this user in the system's temporary folder, which no other user can read.

    Raises UsageError if the folder belongs to another user.
    """
    folder = Path(tempfile.gettempdir()) / f"regworkers-artefacts-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to another user: set TMPDIR to a folder of yours")
    return folder


def _fill(objects: ObjectStore, campaign_id: str, phases: Iterable[int], folder: Path) -> None:
    """Download to a temporary folder that is renamed when it is complete. Older results are deleted."""
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    for older in folder.parent.iterdir():
        if is_hash(older.name):
            shutil.rmtree(older, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix="part-", dir=folder.parent))
    try:
        for number in phases:
            (part / f"phase-{number}").mkdir()
            for name in _FIRST if number == 1 else _LATER:
                objects.get_file(public_key(campaign_id, number, name), part / f"phase-{number}" / name)
        part.rename(folder)
    except OSError:
        # Another command finished first.
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refresh_beside(objects: ObjectStore, campaign_id: str, phases: Iterable[int], folder: Path) -> None:
    """Download the small files beside the artefacts again: acceptance and annulment come after the result."""
    for number in phases:
        prefix = public_key(campaign_id, number, "")
        target = folder / f"phase-{number}"
        found = {name for key in objects.list(prefix) if is_beside(name := key.removeprefix(prefix))}
        for path in target.iterdir() if target.is_dir() else ():
            if is_beside(path.name) and path.name not in found:
                path.unlink(missing_ok=True)
        for name in found:
            target.mkdir(mode=0o700, exist_ok=True)
            objects.get_file(prefix + name, target / name)
    _fetch_beside_phases(objects, f"draws/{campaign_id}/", folder)


def _ref_of(runtime: Runtime, key: EntryKey) -> str | None:
    """The ref of an entry, None if the replica has no such entry. Raises UsageError for an entry without a ref."""
    stored = runtime.replica.get([key]).get(key)
    if stored is None or stored.fields is None:
        return None
    ref = stored.fields.get("ref")
    if not isinstance(ref, str) or not is_selection_id(ref):
        raise UsageError("this entry has no valid ref: the draw excluded it with INVALID_REF")
    return ref


def _reasons(objects: ObjectStore, record: DrawRecord, ref: str) -> Sequence[str]:
    """The reasons for which the freeze excluded the ref; empty if it did not."""
    first = record.phases[1]
    if not sum((first.freeze.get("excluded") or {}).values()):
        return ()
    with tempfile.TemporaryDirectory(prefix="regworkers-receipt-") as made:
        path = Path(made) / EXCLUSIONS
        objects.get_file(record.frozen_key(EXCLUSIONS), path)
        rows = pq.read_table(path, columns=["reasons"], filters=[("ref", "==", ref)])
    return tuple(dict.fromkeys(reason for reasons in rows["reasons"].to_pylist() for reason in reasons or ()))
