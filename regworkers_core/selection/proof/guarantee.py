"""What a verified draw proves and what it does not, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from regworkers_core.domain.beacon import LEAD_SECONDS
from regworkers_core.domain.timestamps import seconds
from regworkers_core.selection.maths.beside import Replaced
from regworkers_core.selection.maths.manifest import COMMIT_REVEAL
from regworkers_core.selection.proof.beacon import signed_at
from regworkers_core.selection.proof.published import Published

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
    "The randomness is round {round} of the public beacon drand quicknet, signed at {at} (UTC): before that moment"
    " no one, the operator included, could know it."
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
# With the number of the last phase that is at hand.
LATER_PHASES = (
    "This covers the draw up to phase {last}. A later phase may exist, with other strikes and more seats: these files"
    " cannot tell. The published folder of the draw has every phase."
)


def of_source(
    source: Mapping[str, Any], commitment_late: bool | None = None, published: Published | None = None
) -> str:
    """What the manifest's `seedSource` guarantees. `commitment_late`: whether a commitment came after
    the opening; None when that is not known. `published`: what lies beside the artefacts of phase 1.
    """
    if source["kind"] == COMMIT_REVEAL:
        return _COMMIT_REVEAL + (
            _UNKNOWN if commitment_late is None else _LATE if commitment_late else _EARLY
        )
    at = signed_at(source)
    text = _DRAND.format(round=source["round"], at=at or "a moment beyond all calendars")
    published = published or Published()
    lead = lead_seconds(source, published)
    if published.notice is None or lead is None:
        text += _NO_NOTICE
    elif lead >= LEAD_SECONDS:
        text += _IN_TIME.format(published=published.notice.published_at, lead=lead)
    else:
        side = "before" if lead >= 0 else "after"
        text += _PUBLIC_LATE.format(published=published.notice.published_at, lead=abs(lead), side=side)
    if published.replaced:
        text += _REPLACED.format(count=len(published.replaced))
    if again := sum(map(is_recommitted, published.replaced)):
        text += _RECOMMITTED.format(count=again)
    return text


def lead_seconds(source: Mapping[str, Any], published: Published) -> float | None:
    """How long before its round the manifest was public by the notice; None for a secret, or without a notice."""
    at = signed_at(source)
    if at is None or published.notice is None:
        return None
    return (seconds(at) or 0.0) - (seconds(published.notice.published_at) or 0.0)


def is_recommitted(replaced: Replaced) -> bool:
    """Whether the replaced manifest's round was signed already when another one took its place."""
    at = signed_at(replaced.document.seed_source)
    return at is not None and replaced.replaced_at >= at


def of_hashes(whence: Literal["published", "recorded"]) -> str:
    """What it proves that the manifests have hashes that were known before."""
    return OF_PUBLISHED_HASHES if whence == "published" else OF_RECORDED_HASHES


def fits(text: str, source: Mapping[str, Any], published: Published) -> bool:
    """Whether `text` is what may be said of this source."""
    return any(text == of_source(source, late, published) for late in (None, False, True))
