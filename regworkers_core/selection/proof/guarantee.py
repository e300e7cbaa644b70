"""What a verified draw proves and what it does not, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from regworkers_core.selection.maths.manifest import COMMIT_REVEAL

_COMMIT_REVEAL = (
    "The randomness is the operator's own secret, whose hash was committed to: trust in the operator. It protects"
    " against entrants and against changes after the commit, not against whoever held the secret while the"
    " manifest could still change."
)
_EARLY = " The commitment was published before registration opened."
_LATE = (
    " The commitment was made after registration had opened, perhaps only at the freeze, when the entries were"
    " already known."
)
_UNKNOWN = (
    " Whether the commitment was published before registration opened is not in these artefacts: compare."
)
_DRAND = (
    "The randomness is round {round} of the public beacon drand quicknet, signed at least ten minutes after the"
    " commit if the manifest hash was public by then: nobody, the operator included, could know it when the"
    " manifest was fixed."
)

OF_A_REPLAY = (
    "The artefacts follow from each other. That they are the ones the operator committed to before the seed"
    " existed shows only by comparing manifestHash with where it was published."
)
OF_PUBLISHED_HASHES = (
    "The artefacts follow from each other, and the manifests have the hashes that were given as published: compare"
    " those with a place where the operator could not change them."
)
OF_RECORDED_HASHES = (
    "The artefacts follow from each other, and the manifests have the hashes that the operator's own record of the"
    " draw names; no published hash was given. Whoever can change the files may be able to change the record: compare"
    " manifestHash with where it was published (`--manifest-hash`)."
)


def of_source(source: Mapping[str, Any], commitment_late: bool | None = None) -> str:
    """What the manifest's `seedSource` guarantees. `commitment_late`: whether a commitment came after
    the opening; None when that is not known.
    """
    if source["kind"] == COMMIT_REVEAL:
        return _COMMIT_REVEAL + (
            _UNKNOWN if commitment_late is None else _LATE if commitment_late else _EARLY
        )
    return _DRAND.format(round=source["round"])


def of_hashes(whence: Literal["published", "recorded"]) -> str:
    """What it proves that the manifests have hashes that were known before."""
    return OF_PUBLISHED_HASHES if whence == "published" else OF_RECORDED_HASHES


def fits(text: str, source: Mapping[str, Any]) -> bool:
    """Whether `text` is what may be said of this source."""
    return any(text == of_source(source, late) for late in (None, False, True))
