"""A log as everybody can follow it, from static files: it is verified whole, and each draw in it is accounted for.

Files are read by their paths below the place that has the folders `log/` and `draws/`: the bucket, a copy of it, or an
address where it is served.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.log_http import LogHttp
from regworkers_core.domain.documents import as_document
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import LEAD_SECONDS
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.selection.log import tree
from regworkers_core.selection.log.leaves import (
    CHECKPOINT,
    KEYS,
    RESULT_LEAVES,
    Kind,
    LogLeaf,
    LogState,
    kept_path,
)
from regworkers_core.selection.log.note import Checkpoint, Note, NoteError
from regworkers_core.selection.maths.beside import codes_name
from regworkers_core.selection.maths.files import (
    MANIFEST,
    DrawError,
    Fields,
    parse_canonical,
    sha256_hex,
)
from regworkers_core.selection.maths.manifest import Manifest
from regworkers_core.selection.proof.beacon import signed_at
from regworkers_core.selection.proof.logged import LogKeys

# A draw without a result is accounted for within this time after its round.
PATIENCE_SECONDS = 86_400.0
_REQUEST_SECONDS, _FILE_SECONDS = 10.0, 120.0
_KEY_NAMES = ("log", "need", "witnesses")
_LINE = re.compile(r"[A-Za-z0-9_-]{1,64}\|[1-9][0-9]{0,15}\|[0-9a-f]{64}")
# The bytes of a file; None if there is none.
Read = Callable[[str], bytes | None]


def in_bucket(objects: ObjectStore) -> Read:
    def read(path: str) -> bytes | None:
        tagged = objects.get_tagged(path)
        return None if tagged is None else tagged.data

    return read


def at_place(place: str) -> Read:
    """A folder on this machine, or an address. Raises UsageError for neither."""
    if place.startswith(("http://", "https://")):
        http = LogHttp(_REQUEST_SECONDS, whole_seconds=_FILE_SECONDS)
        return lambda path: http.file(f"{place.rstrip('/')}/{path}")
    folder = Path(place)
    if not (folder / "log").is_dir():
        raise UsageError(
            f"{place} has no folder log: give the folder, or the https:// address, that has log and draws"
        )

    def read(path: str) -> bytes | None:
        try:
            return (folder / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{folder / path}: {error.strerror}") from None

    return read


def _in_log(read: Read) -> Read:
    return lambda path: read(f"log/{path}")


def published(read: Read, trusted: LogKeys | None = None) -> tuple[LogState, LogKeys] | None:
    """The log and its keys: the `trusted` ones, and for what these do not name those that the operator published. None
    if there is no log.

    Raises DrawError with the file that is wrong.
    """

    in_log = _in_log(read)
    data, keys = in_log(KEYS), trusted or LogKeys()
    if data is not None:
        own = LogKeys.read(Fields(KEYS, "", parse_canonical(data, KEYS), _KEY_NAMES))
        seen = keys if keys.witnesses else own
        keys = LogKeys(keys.log or own.log, seen.witnesses, seen.need)
    if not keys.log:
        return None
    return LogState.verified(in_log, keys.log), keys


def log_parts(read: Read) -> Callable[[str, int], dict[str, Any] | None]:
    """What receipts have from the log, by campaign and number of phases; it is read once. None for a draw without
    leaves, and where there is no log. Raises DrawError.
    """
    found = published(read)
    if found is None:
        return lambda _campaign_id, _phases: None
    state, keys = found
    document = {"log": [*map(str, keys.log)], "need": keys.need, "witnesses": [*map(str, keys.witnesses)]}

    @cache
    def part(campaign_id: str, phases: int) -> dict[str, Any] | None:
        return state.part_of(campaign_id, phases, document, keys.log, _in_log(read))

    return part


@dataclass(frozen=True, slots=True)
class FollowedLog:
    """What was found. `witnesses` have the time at which each cosigned; `waiting` leaves are decided and not published;
    `checkpoint` is the note, to be compared with later ones.
    """

    origin: str
    size: int
    root: str
    checkpoint: str
    keys: tuple[str, ...]
    needed: int
    witnesses: dict[str, str]
    waiting: int
    leaves: tuple[tuple[int, LogLeaf], ...]
    findings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        shown = [{"index": index, **leaf.as_document()} for index, leaf in self.leaves]
        return as_document(self) | {"leaves": shown}


def follow(
    read: Read,
    *,
    now: float,
    campaign_id: str | None = None,
    trusted: LogKeys | None = None,
    kept: bytes | None = None,
) -> FollowedLog:
    """Verify the log, and account for every draw in it, or for one campaign's. `kept` is a checkpoint that was read
    earlier: the log must continue it.

    Raises UsageError where there is no log; DrawError if it does not hold together, so that nothing in it can be
    relied on.
    """
    found = published(read, trusted)
    if found is None:
        raise UsageError("there is no log: no draw has written to it yet, or this is not its place")
    state, keys = found
    note = state.note
    if note is None:
        raise AssertionError("a log that was verified has a checkpoint")
    try:
        cosigned = note.verified(keys.witnesses)
    except NoteError as error:
        raise DrawError(CHECKPOINT, str(error)) from None
    findings = list(_tiles(read, state))
    if (count := len({each.key.public for each in cosigned})) < keys.need:
        findings.append(f"{count} of {keys.need} needed witnesses cosigned the checkpoint")
    if kept is not None:
        findings += _continues(state, kept, keys)
    leaves = [(index, state.leaf(index)) for index in range(state.size)]
    campaigns = dict.fromkeys(leaf.campaign_id for _, leaf in leaves if leaf.kind is not Kind.KEY)
    for each in campaigns if campaign_id is None else [campaign_id]:
        findings += _accounts(read, each, [leaf for _, leaf in leaves if leaf.campaign_id == each], now)
        findings += _witnessed(read, state, each, keys)
    return FollowedLog(
        origin=state.origin,
        size=state.size,
        root=state.checkpoint.root.hex(),
        checkpoint=str(note),
        keys=tuple(map(str, keys.log)),
        needed=keys.need,
        witnesses={each.key.name: iso(each.at or 0) for each in cosigned},
        waiting=_waiting(read, state.size),
        leaves=tuple(each for each in leaves if campaign_id in (None, each[1].campaign_id)),
        findings=tuple(findings),
    )


def _tiles(read: Read, state: LogState) -> Iterator[str]:
    for path, data in tree.all_tiles(state.nodes):
        if (stored := read(f"log/{path}")) != data:
            what = "is missing" if stored is None else "has other hashes than the entries"
            yield f"{path} {what}: other monitors of this log cannot read it"


def _continues(state: LogState, kept: bytes, keys: LogKeys) -> Iterator[str]:
    """Compare with a checkpoint that was signed earlier."""
    try:
        note = Note.parse(kept)
        before = Checkpoint.parse(note.text)
        signed = note.verified(keys.log)
    except NoteError as error:
        raise UsageError(f"the checkpoint that was kept is not one: {error}") from None
    if before.origin != state.origin:
        raise UsageError(f"the checkpoint that was kept is of the log {before.origin}, not of {state.origin}")
    by = "signed by this log" if signed else "signed by a key that is not of this log any more"
    if before.size > state.size:
        yield (
            f"the log has {state.size} leaves, an earlier checkpoint ({by}) had {before.size}: an old log is shown"
        )
    elif tree.root_over(state.nodes[: before.size]) != before.root:
        yield f"the log was rewritten: its first {before.size} leaves are not those of an earlier checkpoint ({by})"


def _waiting(read: Read, size: int) -> int:
    number = 0
    while read(f"log/{tree.bundle_path(size + number + 1)}") is not None:
        number += 1
    return number


def _accounts(read: Read, campaign_id: str, leaves: Sequence[LogLeaf], now: float) -> Iterator[str]:
    """Findings about one campaign, from its leaves in order."""
    annulled = any(leaf.kind is Kind.ANNULLED for leaf in leaves)
    digests: dict[str, str] = {}
    for phase in sorted({leaf.phase for leaf in leaves}):
        what = f"{campaign_id}, phase {phase}"

        def of(kind: Kind, phase: int = phase) -> list[LogLeaf]:
            return [leaf for leaf in leaves if (leaf.kind, leaf.phase) == (kind, phase)]

        manifests, results = of(Kind.MANIFEST), of(Kind.RESULT)
        if len(results) > RESULT_LEAVES:
            yield f"{what}: {len(results)} leaves of its result, and not {RESULT_LEAVES}: another one was drawn"
        if results and not manifests:
            yield f"{what}: a result without a manifest"
        if len(manifests) - 1 > len(of(Kind.REPLACED)):
            yield (
                f"{what}: {len(manifests)} manifests, and only {len(of(Kind.REPLACED))} of them are said to be replaced"
            )
        for codes in of(Kind.CODES):
            yield from _codes(read, what, codes, digests)
        if not manifests:
            continue
        due, late = _due(read, manifests[-1])
        if late:
            yield f"{what}: {late}"
        if len(results) < RESULT_LEAVES and not annulled and now > due + PATIENCE_SECONDS:
            yield (
                f"{what}: neither a result with cut-offs nor an annulment, a day after its round or commit ({iso(due)})"
                " and later"
            )


def _witnessed(read: Read, state: LogState, campaign_id: str, keys: LogKeys) -> Iterator[str]:
    """Whether enough witnesses saw the manifest of phase 1 before its round: the times of leaves are the operator's."""
    found = state.of_campaign(campaign_id)
    manifests = [index for index, leaf in found if (leaf.kind, leaf.phase) == (Kind.MANIFEST, 1)]
    if not manifests:
        return
    what = f"{campaign_id}, phase 1"
    kept = state.first_kept(manifests[-1], keys.log, _in_log(read))
    if kept is None:
        yield f"{what}: no checkpoint was kept of its commit"
        return
    size, note = kept
    try:
        cosigned = note.verified(keys.witnesses)
        # A manifest that is wrong, or not the one in the log, is found by `_due`.
        data = read(f"draws/{campaign_id}/phase-1/{MANIFEST}") or b""
        at = seconds(signed_at(Manifest.parse(data).seed_source) or "")
    except DrawError:
        return
    except NoteError as error:
        raise DrawError(kept_path(size, keys.log[0]), str(error)) from None
    if at is None:
        return
    count = len({each.key.public for each in cosigned if (each.at or 0) <= at - LEAD_SECONDS})
    if count < keys.need:
        yield f"{what}: {count} of {keys.need} needed witnesses saw its manifest {LEAD_SECONDS} s before its round"


def _due(read: Read, leaf: LogLeaf) -> tuple[float, str]:
    """When the randomness of a manifest was known, by its file; by its leaf without one. And what is wrong with it."""
    logged = seconds(leaf.time) or 0.0
    data = read(f"draws/{leaf.campaign_id}/phase-{leaf.phase}/{MANIFEST}")
    if data is None or sha256_hex(data) != leaf.hash:
        return logged, "" if data is None else f"{MANIFEST} is not the one in the log"
    try:
        at = signed_at(Manifest.parse(data).seed_source) if leaf.phase == 1 else None
    except DrawError as error:
        return logged, str(error)
    if at is None:
        return logged, ""
    due = seconds(at) or 0.0
    if logged > due - LEAD_SECONDS:
        return (
            due,
            f"the manifest was logged at {leaf.time}, less than {LEAD_SECONDS} s before its round ({at})",
        )
    return due, ""


def _codes(read: Read, what: str, leaf: LogLeaf, digests: dict[str, str]) -> Iterator[str]:
    """Look for codes that are planned twice. `digests` have the place of each one that was seen."""
    number = 1
    while (data := read(f"draws/{leaf.campaign_id}/phase-{leaf.phase}/{codes_name(number)}")) is not None:
        number += 1
        if sha256_hex(data) != leaf.hash:
            continue
        places: dict[str, str] = {place: digest for digest, place in digests.items()}
        for line in data.decode("ascii", "replace").splitlines():
            if not _LINE.fullmatch(line):
                yield f"{what}: {codes_name(number - 1)} has a line that is not market|position|digest"
                return
            place, _, digest = line.rpartition("|")
            if places.setdefault(place, digest) != digest:
                yield f"{what}: the code of {place} was changed after it was published"
            if digests.setdefault(digest, place) != place:
                yield f"{what}: {place} and {digests[digest]} have the same code"
        return
    yield f"{what}: no file has the hash {leaf.hash} of the planned codes"
