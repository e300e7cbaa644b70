"""A log as everybody can follow it, from static files: it is verified whole, and each draw in it is accounted for.

Files are read by their paths below the place that has the folders `log/` and `draws/`: the bucket, a copy of it, or an
address where it is served.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
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
from regworkers_core.selection.maths.beside import (
    ANNULLED,
    NOTICE,
    Annulled,
    ReplacedManifest,
    codes_name,
    replaced_name,
)
from regworkers_core.selection.maths.files import (
    CUTOFFS,
    MANIFEST,
    RESULT,
    DrawError,
    Fields,
    file_hash,
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
# A file follows its leaf within seconds. Until then a reader may come between the two.
_SETTLE_SECONDS = 3_600.0
# The bytes of a file; None if there is none.
Read = Callable[[str], bytes | None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the folders `log/` and `draws/` are. `digest` gives the SHA-256 of a file that may be large; None if there
    is none.
    """

    read: Read
    digest: Callable[[str], str | None]

    @classmethod
    def of(cls, read: Read) -> Place:
        def digest(path: str) -> str | None:
            data = read(path)
            return None if data is None else sha256_hex(data)

        return cls(read, digest)


def in_bucket(objects: ObjectStore) -> Place:
    def read(path: str) -> bytes | None:
        tagged = objects.get_tagged(path)
        return None if tagged is None else tagged.data

    def digest(path: str) -> str | None:
        try:
            with objects.open(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except MissingObject:
            return None

    return Place(read, digest)


def at_place(place: str) -> Place:
    """A folder on this machine, or an address. Raises UsageError for neither."""
    if place.startswith(("http://", "https://")):
        http = LogHttp(_REQUEST_SECONDS, whole_seconds=_FILE_SECONDS)
        return Place.of(lambda path: http.file(f"{place.rstrip('/')}/{path}"))
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

    return Place(read, lambda path: file_hash(folder / path) if (folder / path).is_file() else None)


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
    `checkpoint` is the note, to be compared with later ones; `annulled` names the campaigns whose draw was annulled.
    """

    origin: str
    size: int
    root: str
    checkpoint: str
    keys: tuple[str, ...]
    needed: int
    witnesses: dict[str, str]
    waiting: int
    annulled: tuple[str, ...]
    leaves: tuple[tuple[int, LogLeaf], ...]
    findings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        shown = [{"index": index, **leaf.as_document()} for index, leaf in self.leaves]
        return as_document(self) | {"leaves": shown}


def follow(
    place: Place,
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
    read = place.read
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
    if campaign_id is not None:
        campaigns = dict.fromkeys([campaign_id])
    for each in campaigns:
        findings += _Draw(place, state, keys, each, now).findings()
    annulled = {leaf.campaign_id for _, leaf in leaves if leaf.kind is Kind.ANNULLED}
    return FollowedLog(
        origin=state.origin,
        size=state.size,
        root=state.checkpoint.root.hex(),
        checkpoint=str(note),
        keys=tuple(map(str, keys.log)),
        needed=keys.need,
        witnesses={each.key.name: iso(each.at or 0) for each in cosigned},
        waiting=_waiting(read, state.size),
        annulled=tuple(each for each in campaigns if each in annulled),
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
    current = {sha256_hex(str(key).encode()) for key in keys.log}
    later = [state.leaf(index) for index in range(before.size, state.size)]
    if not signed and not any(leaf.kind is Kind.KEY and leaf.hash in current for leaf in later):
        yield "the log has another key than the one that signed the checkpoint that was kept, and no leaf says so"
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


class _Draw:
    """What the log says of one campaign's draw, and the files that it speaks of."""

    def __init__(self, place: Place, state: LogState, keys: LogKeys, campaign_id: str, now: float) -> None:
        self._place, self._state, self._keys, self._now = place, state, keys, now
        self._id, self._found = campaign_id, state.of_campaign(campaign_id)
        # The place of each digest of a code that was seen.
        self._digests: dict[str, str] = {}

    def findings(self) -> Iterator[str]:
        annulled = False
        for leaf in (leaf for _, leaf in self._found if leaf.kind is Kind.ANNULLED):
            problem = self._annulment(leaf)
            annulled = annulled or not problem
            if problem:
                yield f"{self._id}, phase {leaf.phase}: {problem}"
        for phase in sorted({leaf.phase for _, leaf in self._found}):
            for finding in self._phase(phase, annulled=annulled):
                yield f"{self._id}, phase {phase}: {finding}"

    def _of(self, kind: Kind, phase: int) -> list[tuple[int, LogLeaf]]:
        return [(at, leaf) for at, leaf in self._found if (leaf.kind, leaf.phase) == (kind, phase)]

    def _path(self, phase: int, name: str) -> str:
        return f"draws/{self._id}/phase-{phase}/{name}"

    def _phase(self, phase: int, *, annulled: bool) -> Iterator[str]:
        manifests, results = self._of(Kind.MANIFEST, phase), self._of(Kind.RESULT, phase)
        if len(results) > RESULT_LEAVES:
            yield f"{len(results)} leaves of its result, and not {RESULT_LEAVES}: another one was drawn"
        if results and not manifests:
            yield "a result without a manifest"
        for (_, leaf), name in zip(results, (RESULT, CUTOFFS), strict=False):
            yield from self._differs(leaf, name)
        notices = self._of(Kind.NOTICE, phase)
        if len(notices) > 1:
            yield f"{len(notices)} notices: fans may have read different ones"
        for _, leaf in notices[-1:]:
            yield from self._differs(leaf, NOTICE)
        for _, leaf in self._of(Kind.CODES, phase):
            yield from self._codes(leaf)
        if not manifests:
            return
        index, leaf = manifests[-1]
        manifest, problem = self._logged(leaf, MANIFEST, Manifest.parse)
        if problem:
            yield problem
        yield from self._replaced(phase, manifest)
        at = None
        if phase == 1:
            at = None if manifest is None else seconds(signed_at(manifest.seed_source) or "")
            yield from self._commit(index, leaf, at)
            yield from self._commitment(index, manifest)
        due = (seconds(leaf.time) or 0.0) if at is None else at
        if len(results) < RESULT_LEAVES and not annulled and self._now > due + PATIENCE_SECONDS:
            yield (
                f"neither a result with cut-offs nor an annulment, a day after its round or commit ({iso(due)}) and"
                " later"
            )

    def _differs(self, leaf: LogLeaf, name: str) -> Iterator[str]:
        """A finding if the file is not the one of the leaf, unless it may still come."""
        if problem := self._problem(leaf, name, self._place.digest(self._path(leaf.phase, name))):
            yield problem

    def _problem(self, leaf: LogLeaf, name: str, found: str | None) -> str:
        """What is wrong with a file of this hash (None: there is none); empty if nothing is, or it may still come."""
        if found == leaf.hash or self._is_fresh(leaf):
            return ""
        return f"{name} is not published" if found is None else f"{name} is not the one in the log"

    def _logged(self, leaf: LogLeaf, name: str, parse: Callable[[bytes], T]) -> tuple[T | None, str]:
        """A small file as `parse` reads it, if it is that of the leaf; and what is wrong with it."""
        data = self._place.read(self._path(leaf.phase, name))
        found = None if data is None else sha256_hex(data)
        if data is None or found != leaf.hash:
            return None, self._problem(leaf, name, found)
        try:
            return parse(data), ""
        except DrawError as error:
            return None, str(error)

    def _is_fresh(self, leaf: LogLeaf) -> bool:
        return 0.0 <= self._now - (seconds(leaf.time) or 0.0) < _SETTLE_SECONDS

    def _annulment(self, leaf: LogLeaf) -> str:
        """What is wrong with a leaf that annuls the draw."""
        said, problem = self._logged(leaf, ANNULLED, Annulled.parse)
        if said is not None and (said.campaign_id, said.phase) != (self._id, leaf.phase):
            return f"{ANNULLED} is about phase {said.phase} of {said.campaign_id}"
        return problem

    def _replaced(self, phase: int, manifest: Manifest | None) -> Iterator[str]:
        """Each manifest but the last must be in a file that says that it was replaced, with the round alone changed,
        before the round that it gave up was out.
        """
        manifests, leaves = self._of(Kind.MANIFEST, phase), self._of(Kind.REPLACED, phase)
        if phase > 1 and leaves:
            yield "its manifest was replaced: only that of phase 1 has a round that can be missed"
        earlier = {leaf.hash: at for at, (_, leaf) in enumerate(manifests[:-1])}
        unread = 0
        for number, (_, leaf) in enumerate(leaves, 1):
            name = replaced_name(number)
            before, problem = self._logged(leaf, name, ReplacedManifest.parse)
            if before is None:
                unread += 1
                if problem:
                    yield problem
                continue
            if manifest is not None:
                try:
                    before.check(manifest, name)
                except DrawError as error:
                    yield f"{name}: {error.message}"
            at = earlier.pop(before.manifest_hash, None)
            if at is None:
                # It was decided, and replaced before it was in the log.
                continue
            due = seconds(signed_at(before.document.seed_source) or "")
            seen = self._seen(*manifests[at + 1])
            if due is not None and seen >= due:
                yield (
                    f"{name}: the manifest was replaced at {iso(seen)}, when its round of {iso(due)} was out: the"
                    " operator could know the result that was given up"
                )
        if len(earlier) > unread:
            yield (
                f"{len(manifests)} manifests, and only {len(manifests) - 1 - len(earlier)} of them are said to be"
                " replaced"
            )

    def _seen(self, index: int, leaf: LogLeaf) -> float:
        """When a leaf was in the log: by its time, or by as many witnesses as are needed, if that is later."""
        logged, need = seconds(leaf.time) or 0.0, self._keys.need
        if not need:
            return logged
        times = sorted(self._cosigned(index) or ())
        return self._now if len(times) < need else max(logged, times[need - 1])

    def _cosigned(self, index: int) -> list[float] | None:
        """When witnesses cosigned the first checkpoint that was kept of a leaf; None if none was. Raises DrawError."""
        kept = self._state.first_kept(index, self._keys.log, _in_log(self._place.read))
        if kept is None:
            return None
        size, note = kept
        try:
            cosigned = note.verified(self._keys.witnesses)
        except NoteError as error:
            raise DrawError(kept_path(size, self._keys.log[0]), str(error)) from None
        # One key under two names is one witness.
        return [*{each.key.public: float(each.at or 0) for each in cosigned}.values()]

    def _commit(self, index: int, leaf: LogLeaf, due: float | None) -> Iterator[str]:
        """Whether the manifest of phase 1 was in the log, and seen by enough witnesses, before its round is due."""
        cosigned = self._cosigned(index)
        if cosigned is None:
            yield "no checkpoint was kept of its commit"
            return
        if due is None:
            return
        if (seconds(leaf.time) or 0.0) > due - LEAD_SECONDS:
            yield (
                f"the manifest was logged at {leaf.time}, less than {LEAD_SECONDS} s before its round ({iso(due)})"
            )
        count = sum(at <= due - LEAD_SECONDS for at in cosigned)
        if count < self._keys.need:
            yield (
                f"{count} of {self._keys.need} needed witnesses saw its manifest {LEAD_SECONDS} s before its round"
            )

    def _commitment(self, index: int, manifest: Manifest | None) -> Iterator[str]:
        """Whether the commitment to a secret was in the log before the manifest, and no other one to choose from."""
        commitment = manifest and manifest.seed_source.get("commitment")
        if commitment is None:
            return
        found = self._of(Kind.COMMITMENT, 1)
        if not any(at < index and leaf.hash == commitment for at, leaf in found):
            yield "the commitment to its secret was not in the log before its manifest"
        if len(found) > 1:
            yield f"{len(found)} commitments to secrets: the operator could choose among them"

    def _codes(self, leaf: LogLeaf) -> Iterator[str]:
        """Look for codes that are planned twice."""
        number = 1
        while (data := self._place.read(self._path(leaf.phase, codes_name(number)))) is not None:
            number += 1
            if sha256_hex(data) != leaf.hash:
                continue
            places = {place: digest for digest, place in self._digests.items()}
            for line in data.decode("ascii", "replace").splitlines():
                if not _LINE.fullmatch(line):
                    yield f"{codes_name(number - 1)} has a line that is not market|position|digest"
                    return
                place, _, digest = line.rpartition("|")
                if places.setdefault(place, digest) != digest:
                    yield f"the code of {place} was changed after it was published"
                if self._digests.setdefault(digest, place) != place:
                    yield f"{place} and {self._digests[digest]} have the same code"
            return
        if not self._is_fresh(leaf):
            yield f"no file has the hash {leaf.hash} of the planned codes"
