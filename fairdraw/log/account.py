"""The account of one draw in a log: whether each leaf has its file, and each file and step its leaf in time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from fairdraw.errors import DrawError
from fairdraw.log.keys import LogKeys
from fairdraw.log.leaves import Kind, LogLeaf, LogState
from fairdraw.log.place import Place, in_log
from fairdraw.log.times import LeafTimes
from fairdraw.maths.beside import (
    ANNULLED,
    NOTICE,
    Annulled,
    ReplacedManifest,
    codes_name,
    replaced_name,
)
from fairdraw.maths.files import MANIFEST, SUMMARY, sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.terms import LEAD_SECONDS, iso, seconds, signed_at

# A draw without a result is accounted for within this time after its round.
PATIENCE_SECONDS = 86_400.0
# A file follows its leaf within seconds. Until then a reader may come between the two.
_SETTLE_SECONDS = 3_600.0
_LINE = re.compile(r"[A-Za-z0-9_-]{1,64}\|[1-9][0-9]{0,15}\|[0-9a-f]{64}")
T = TypeVar("T")


class _Logged(NamedTuple, Generic[T]):
    """A file of the log, None where it is not that of its leaf; and what is wrong with it."""

    content: T | None
    problem: str


class DrawAccount:
    """What the log says of one campaign's draw, and the files that it speaks of."""

    def __init__(self, place: Place, state: LogState, keys: LogKeys, campaign_id: str, now: float) -> None:
        self._place, self._state, self._keys, self._now = place, state, keys, now
        self._id, self._found = campaign_id, state.of_campaign(campaign_id)
        self._times = LeafTimes(state, keys, in_log(place.read))
        # The place of each digest of a code that was seen.
        self._digests: dict[str, str] = {}

    def findings(self) -> Iterator[str]:
        """What is wrong with the draw. Raises DrawError if a checkpoint that was kept does not hold."""
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
        if len(results) > 1:
            yield f"{len(results)} results: another one was drawn"
        if results and not manifests:
            yield "a result without a manifest"
        for _, leaf in results[:1]:
            yield from self._differs(leaf, SUMMARY)
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
        due = (seconds(leaf.time) or 0.0) if at is None else at
        if not results and not annulled and self._now > due + PATIENCE_SECONDS:
            yield f"neither a result nor an annulment, a day after its round or commit ({iso(due)}) and later"

    def _differs(self, leaf: LogLeaf, name: str) -> Iterator[str]:
        """A finding if the file is not the one of the leaf, unless it may still come."""
        if problem := self._problem(leaf, name, self._place.digest(self._path(leaf.phase, name))):
            yield problem

    def _problem(self, leaf: LogLeaf, name: str, found: str | None) -> str:
        """What is wrong with a file of this hash (None: there is none); empty if nothing is, or it may still come."""
        if found == leaf.hash or self._is_fresh(leaf):
            return ""
        return f"{name} is not published" if found is None else f"{name} is not the one in the log"

    def _logged(self, leaf: LogLeaf, name: str, parse: Callable[[bytes], T]) -> _Logged[T]:
        """A small file as `parse` reads it, if it is that of the leaf."""
        data = self._place.read(self._path(leaf.phase, name))
        found = None if data is None else sha256_hex(data)
        if data is None or found != leaf.hash:
            return _Logged(None, self._problem(leaf, name, found))
        try:
            return _Logged(parse(data), "")
        except DrawError as error:
            return _Logged(None, str(error))

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
        """When a leaf was in the log; now for one that has no time."""
        at = self._times.at(index)
        return self._now if at is None else at

    def _commit(self, index: int, leaf: LogLeaf, due: float | None) -> Iterator[str]:
        """Whether the manifest of phase 1 was in the log, and seen by enough witnesses, before its round is due."""
        at = self._times.at(index)
        if at is None:
            yield "no checkpoint was kept of its commit"
        elif due is not None and at > due - LEAD_SECONDS:
            yield f"the manifest was in the log at {iso(at)}, less than {LEAD_SECONDS} s before its round ({iso(due)})"

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
