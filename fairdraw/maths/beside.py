"""The files beside a phase's artefacts: when it became public, what was replaced, accepted or annulled.

They are the operator's own statements, published; no part of the draw is computed from them. `check` compares them with
the manifest, so that none of them contradicts what was drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from fairdraw.documents import as_json, camel
from fairdraw.errors import DrawError
from fairdraw.maths.files import (
    ARTEFACTS,
    MANIFEST,
    Fields,
    JsonFile,
    canonical_bytes,
    json_keys,
    parse_canonical_list,
    sha256_hex,
    short,
)
from fairdraw.maths.manifest import Manifest

NOTICE = "notice.json"
ACCEPTED = "accepted.json"
ANNULLED = "annulled.json"
_REPLACED = re.compile(r"replaced-([1-9][0-9]{0,3})\.json", re.ASCII)
_CODES = re.compile(r"codes-([1-9][0-9]{0,3})\.txt", re.ASCII)
_FINDING = re.compile(r"[a-z][a-z_]{0,63}", re.ASCII)


def replaced_name(number: int) -> str:
    """Return the name of the `number`-th replaced manifest, from 1."""
    return f"replaced-{number}.json"


def replaced_number(name: str) -> int | None:
    """Return the number in such a name; None for another file."""
    found = _REPLACED.fullmatch(name)
    return None if found is None else int(found[1])


def codes_name(number: int) -> str:
    """Return the name of the `number`-th list of planned codes, from 1."""
    return f"codes-{number}.txt"


def codes_number(name: str) -> int | None:
    """Return the number in such a name; None for another file."""
    found = _CODES.fullmatch(name)
    return None if found is None else int(found[1])


def is_beside(name: str) -> bool:
    """Whether a small file of this name belongs beside the artefacts of a phase."""
    return name in (NOTICE, ACCEPTED, ANNULLED) or replaced_number(name) is not None


def published(names: Iterable[str]) -> list[str]:
    """Return those of the names in a phase's folder that are published: the artefacts in the order of the draw, then
    what is beside them, and the lists of planned codes, which are as long as the draw has winners.
    """
    found = {*names}
    beside = (name for name in found if is_beside(name) or codes_number(name) is not None)
    return [*(name for name in ARTEFACTS if name in found), *sorted(beside)]


@dataclass(frozen=True, slots=True)
class NoticeFile(JsonFile):
    """notice.json: what a phase offers, and when its manifest was decided and became public."""

    FILE: ClassVar[str] = NOTICE

    # When the entries were frozen.
    as_of: str
    campaign_id: str
    # Seats of all phases, by market.
    capacities: Mapping[str, int]
    committed_at: str
    phase: int
    published_at: str
    # Empty in phase 1.
    reason: str
    # The number of lines of strikes.txt.
    strikes: int

    @staticmethod
    def of(
        manifest: Manifest, *, strikes: int, committed_at: str, published_at: str, reason: str
    ) -> NoticeFile:
        """Return the notice of a manifest that the store has confirmed."""
        return NoticeFile(
            as_of=manifest.as_of,
            campaign_id=manifest.campaign_id,
            capacities={market.market_id: market.capacity for market in manifest.markets},
            committed_at=committed_at,
            phase=manifest.phase,
            published_at=published_at,
            reason=reason,
            strikes=strikes,
        )

    @classmethod
    def read(cls, fields: Fields) -> Self:
        seats = fields.nested("capacities")
        return cls(
            as_of=fields.time("asOf"),
            campaign_id=fields.id("campaignId"),
            capacities={market: seats.integer(market) for market in seats.names},
            committed_at=fields.time("committedAt"),
            phase=fields.integer("phase", 1),
            published_at=fields.time("publishedAt"),
            reason=fields.text("reason", lambda _text: True, "a text"),
            strikes=fields.integer("strikes"),
        )

    def check(self, manifest: Manifest, strikes: int | None = None) -> None:
        """Raise DrawError unless this is about `manifest`, whose strikes.txt has `strikes` lines (None: unknown)."""
        due = NoticeFile.of(
            manifest,
            strikes=self.strikes if strikes is None else strikes,
            committed_at=self.committed_at,
            published_at=self.published_at,
            reason=self.reason if manifest.phase > 1 else "",
        )
        for name in ("campaign_id", "phase", "as_of", "capacities", "strikes", "reason"):
            wanted, found = getattr(due, name), getattr(self, name)
            if wanted != found:
                raise DrawError(
                    NOTICE, f"{camel(name)}: {short(wanted)} by the manifest, found {short(found)}"
                )


@dataclass(frozen=True, slots=True)
class ReplacedManifest(JsonFile):
    """replaced-<k>.json: a manifest of phase 1 that was replaced by another one.

    `published_at` is None if the store never confirmed it.
    """

    FILE: ClassVar[str] = "replaced.json"

    committed_at: str
    manifest: str
    published_at: str | None
    replaced_at: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        made = cls(
            committed_at=fields.time("committedAt"),
            manifest=fields.text("manifest", str.isascii, "the text of a manifest"),
            published_at=None if fields.raw("publishedAt") is None else fields.time("publishedAt"),
            replaced_at=fields.time("replacedAt"),
        )
        try:
            Manifest.parse(made.manifest.encode())
        except DrawError as error:
            fields.refuse("manifest", error.message)
        return made

    @property
    def document(self) -> Manifest:
        """The manifest that was replaced."""
        return Manifest.parse(self.manifest.encode())

    @property
    def manifest_hash(self) -> str:
        return sha256_hex(self.manifest.encode())

    def check(self, manifest: Manifest, artefact: str) -> None:
        """Raise DrawError unless it differs from the current `manifest` in its round alone."""
        before, now = self.document, manifest
        if before.hash == now.hash:
            raise DrawError(artefact, f"not another round of the beacon than that of {MANIFEST}")
        rounds = replace(before.seed_source, round=now.seed_source.round)
        if replace(before, seed_source=rounds) != now:
            raise DrawError(artefact, f"more than seedSource.round differs from {MANIFEST}")


@dataclass(frozen=True, slots=True)
class AcceptedFinding:
    """One item of accepted.json: a finding despite which the phase was published, and why."""

    at: str
    finding: str
    reason: str


def accepted_bytes(accepted: Sequence[AcceptedFinding]) -> bytes:
    """Return the bytes of accepted.json. Raises DrawError when `parse_accepted` would reject them."""
    data = canonical_bytes(as_json(accepted))
    parse_accepted(data)
    return data


def parse_accepted(data: bytes, artefact: str = ACCEPTED) -> tuple[AcceptedFinding, ...]:
    """Read accepted.json. Raises DrawError with the key and what was found."""
    found = []
    for number, document in enumerate(parse_canonical_list(data, artefact)):
        fields = Fields(artefact, f"[{number}]", document, json_keys(AcceptedFinding))
        finding = fields.text("finding", _FINDING.fullmatch, "the name of a finding")
        found.append(
            AcceptedFinding(fields.time("at"), finding, fields.text("reason", str.strip, "a reason"))
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Annulled(JsonFile):
    """annulled.json: the operator's statement that the draw does not count, and why."""

    FILE: ClassVar[str] = ANNULLED

    annulled_at: str
    campaign_id: str
    # The hash of the phase's manifest; None for a draw that was annulled before it had one.
    manifest_hash: str | None
    phase: int
    reason: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(
            annulled_at=fields.time("annulledAt"),
            campaign_id=fields.id("campaignId"),
            manifest_hash=None if fields.raw("manifestHash") is None else fields.hash("manifestHash"),
            phase=fields.integer("phase", 1),
            reason=fields.text("reason", str.strip, "a reason"),
        )

    def check(self, manifest: Manifest) -> None:
        """Raise DrawError unless this is about `manifest`."""
        found = (self.campaign_id, self.phase, self.manifest_hash)
        if found != (manifest.campaign_id, manifest.phase, manifest.hash):
            raise DrawError(
                ANNULLED, f"of campaign {found[0]}, phase {found[1]}, manifestHash {found[2]}: not this phase"
            )
