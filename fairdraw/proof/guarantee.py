"""What the operator published beside the artefacts of a phase, and what a verified draw proves, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from fairdraw.errors import DrawError
from fairdraw.maths.beside import (
    ACCEPTED,
    ANNULLED,
    NOTICE,
    AcceptedFinding,
    Annulled,
    NoticeFile,
    ReplacedManifest,
    accepted_bytes,
    parse_accepted,
    replaced_name,
    replaced_number,
)
from fairdraw.maths.files import Fields
from fairdraw.maths.manifest import Manifest
from fairdraw.terms import LEAD_SECONDS, QUICKNET, Chain, seconds, signed_at

_KEYS = ("accepted", "notice", "replaced")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Published:
    """The files beside the artefacts of one phase; None for a missing file."""

    notice: NoticeFile | None = None
    # Findings that the operator accepted.
    accepted: tuple[AcceptedFinding, ...] | None = None
    annulled: Annulled | None = None
    # They are in order of replacement.
    replaced: tuple[ReplacedManifest, ...] = ()

    @staticmethod
    def read(folder: Path) -> PublishedRead:
        """Read the files in a phase's folder."""
        errors: list[DrawError] = []

        def parsed(name: str, parse: Callable[[bytes, str], T]) -> T | None:
            path = folder / name
            if not path.is_file():
                return None
            try:
                return parse(path.read_bytes(), name)
            except DrawError as error:
                errors.append(error)
                return None

        numbers = sorted(number for each in folder.iterdir() if (number := replaced_number(each.name)))
        for due, number in enumerate(numbers, 1):
            if number != due:
                errors.append(DrawError(replaced_name(number), f"{replaced_name(due)} is missing before it"))
                break
        replaced = [parsed(replaced_name(number), ReplacedManifest.parse) for number in numbers]
        found = Published(
            notice=parsed(NOTICE, NoticeFile.parse),
            accepted=parsed(ACCEPTED, parse_accepted),
            annulled=parsed(ANNULLED, Annulled.parse),
            replaced=tuple(each for each in replaced if each is not None),
        )
        return PublishedRead(found, errors)

    @staticmethod
    def parse(artefact: str, path: str, document: object) -> Published:
        """Parse what `as_document` returned. Raises DrawError, which names the file or the key."""
        fields = Fields(artefact, path, document, _KEYS)

        def parsed(key: str, name: str, parse: Callable[[bytes, str], T]) -> T | None:
            if fields.raw(key) is None:
                return None
            return parse(fields.text(key, lambda _text: True, f"the text of {name}").encode(), name)

        replaced = []
        for number, text in enumerate(fields.list("replaced"), 1):
            if not isinstance(text, str):
                fields.refuse("replaced", f"the text of {replaced_name(number)} is needed")
            replaced.append(ReplacedManifest.parse(text.encode(), replaced_name(number)))
        return Published(
            notice=parsed("notice", NOTICE, NoticeFile.parse),
            accepted=parsed("accepted", ACCEPTED, parse_accepted),
            replaced=tuple(replaced),
        )

    def as_document(self) -> dict[str, Any]:
        """The texts of the files for a receipt, which has the annulment of the draw in a field of its own."""
        return {
            "accepted": None if self.accepted is None else accepted_bytes(self.accepted).decode(),
            "notice": None if self.notice is None else self.notice.to_bytes().decode(),
            "replaced": [each.to_bytes().decode() for each in self.replaced],
        }

    def problems(self, manifest: Manifest, strikes: int | None = None) -> Iterator[DrawError]:
        """Contradictions to the manifest of the phase. `strikes` is the number of lines of strikes.txt, if known."""
        checks: list[Callable[[], None]] = []
        if (notice := self.notice) is not None:
            checks.append(partial(notice.check, manifest, strikes))
        if (annulled := self.annulled) is not None:
            checks.append(partial(annulled.check, manifest))
        for number, each in enumerate(self.replaced, 1):
            checks.append(partial(each.check, manifest, replaced_name(number)))
        if self.replaced and manifest.phase > 1:
            yield DrawError(replaced_name(1), "only the manifest of phase 1 may be replaced")
        for check in checks:
            try:
                check()
            except DrawError as error:
                yield error


class PublishedRead(NamedTuple):
    """The files of a folder that are valid, and the errors of the others."""

    published: Published
    errors: list[DrawError]


def published_lines(phase: int, published: Published) -> Iterator[str]:
    """One line for each statement of the operator about a phase."""
    if (notice := published.notice) is None:
        yield f"phase {phase}: no notice of when its manifest became public"
    else:
        times = f"committed {notice.committed_at}, public {notice.published_at}"
        yield f"phase {phase}: {times}" + (f"; reason: {notice.reason}" if notice.reason else "")
    for number, each in enumerate(published.replaced, 1):
        was = each.document.seed_source.round
        yield (
            f"phase {phase}: {replaced_name(number)}, manifest {each.manifest_hash} with round {was},"
            f" {f'public {each.published_at}' if each.published_at else 'never public'}, replaced {each.replaced_at}"
        )
    for finding in published.accepted or ():
        yield f"phase {phase}: accepted {finding.at}: {finding.finding}, because: {finding.reason}"


# Receipts contain these sentences, and the check of a receipt compares them: they never change.
_DRAND = (
    "The randomness is round {round} of the public beacon drand quicknet, signed at {at} (UTC): before that moment"
    " no one, the operator included, could know it."
)
_OTHER_CHAIN = (
    "The randomness is round {round} of the chain {id}, signed at {at} (UTC): not of the public beacon drand quicknet,"
    " but a beacon of this machine: for trying out only. The holder of its key knew the randomness before. Or you know"
    " whose chain {hash} is, and trust them."
)
_NO_NOTICE = (
    " When the manifest became public is not in these files: if its hash was public ten minutes before that moment, it"
    " was fixed without knowing the randomness."
)
_IN_TIME = (
    " By the operator's record the manifest was public at {published}, {lead:,.0f} s before: it was fixed without"
    " knowing the randomness."
)
_PUBLIC_LATE = (
    " By the operator's record the manifest was public only at {published}, {lead:,.0f} s {side} that moment, where the"
    " rule is at least 600 s before: that it was fixed without knowing the randomness shows only where its hash was"
    " public elsewhere in time."
)
_REPLACED = (
    " The manifest took the place of {count} earlier one(s) with another round, published with their times."
)
_RECOMMITTED = (
    " {count} of them had a round that was signed when it was replaced: the operator could know the result that it"
    " gave, and ask for another one."
)

OF_A_REPLAY = (
    "The artefacts follow from each other. Only a comparison of manifestHash with the place where it was published"
    " shows that they are those that the operator committed to before the seed existed."
)
OF_PUBLISHED_HASHES = (
    "The artefacts follow from each other, and the manifests have the hashes that were given as published: compare"
    " those with a place where the operator could not change them."
)
OF_SOME_PUBLISHED_HASHES = (
    "The artefacts follow from each other, and the {compared} given as published; no published hash was given"
    " for {missing}: compare both with a place where the operator could not change them."
)
OF_RECORDED_HASHES = (
    "The artefacts follow from each other, and the manifests have the hashes that the operator's own record of the"
    " draw names; no published hash was given. Those who can change the files may be able to change the record: compare"
    " manifestHash with where it was published (`--manifest-hash`)."
)
OF_CODES = (
    "The lists of planned codes name {count} places. Without the codes only form and order were checked, and that none"
    " is planned twice: that a digest is that of a code and of its only salt shows to the winner who has both"
    " (`check-receipt --codes`)."
)
# `last` is the number of the last phase in the files.
LATER_PHASES = (
    "This covers the draw up to phase {last}. A later phase may exist, with other strikes and more seats: these files"
    " cannot tell. The published folder of the draw has every phase."
)


def of_source(chain: Chain, round_number: int, published: Published | None = None) -> str:
    """What it guarantees that the randomness is this round of `chain`. `published` are the files beside the artefacts
    of phase 1.
    """
    at = signed_at(chain, round_number) or "a moment beyond all calendars"
    published = published or Published()
    if chain != QUICKNET:
        text = _OTHER_CHAIN.format(round=round_number, at=at, id=chain.beacon_id, hash=chain.hash)
    else:
        text = _DRAND.format(round=round_number, at=at) + _public(chain, round_number, published)
    if published.replaced:
        text += _REPLACED.format(count=len(published.replaced))
    if again := sum(is_recommitted(chain, each) for each in published.replaced):
        text += _RECOMMITTED.format(count=again)
    return text


def _public(chain: Chain, round_number: int, published: Published) -> str:
    """When the manifest became public, by the notice."""
    if (notice := published.notice) is None or signed_at(chain, round_number) is None:
        return _NO_NOTICE
    lead = chain.due(round_number) - (seconds(notice.published_at) or 0.0)
    if lead >= LEAD_SECONDS:
        return _IN_TIME.format(published=notice.published_at, lead=lead)
    side = "before" if lead >= 0 else "after"
    return _PUBLIC_LATE.format(published=notice.published_at, lead=abs(lead), side=side)


def is_recommitted(chain: Chain, replaced: ReplacedManifest) -> bool:
    """Whether the round of the replaced manifest was already signed when it was replaced."""
    at = signed_at(chain, replaced.document.seed_source.round)
    return at is not None and replaced.replaced_at >= at


def of_hashes(origin: Literal["published", "recorded"], known: int, phases: int) -> str:
    """What it proves that the manifests of the first `known` phases match hashes that were known before."""
    if origin == "recorded":
        return OF_RECORDED_HASHES
    if known >= phases:
        return OF_PUBLISHED_HASHES
    compared = (
        "manifest of phase 1 has the hash that was"
        if known == 1
        else f"manifests of phases 1 to {known} have the hashes that were"
    )
    missing = f"phase {phases}" if known + 1 == phases else f"phases {known + 1} to {phases}"
    return OF_SOME_PUBLISHED_HASHES.format(compared=compared, missing=missing)
