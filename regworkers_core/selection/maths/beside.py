"""The files beside a phase's artefacts: when it became public, what was replaced, accepted, annulled.

They are the operator's own word, published: nothing of the draw is computed from them. What can be held against the
manifest is (`check`), so that none of them says anything else than what was drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from regworkers_core.domain.keys import is_selection_id
from regworkers_core.selection.maths.canonical import (
    TIME,
    Fields,
    canonical_bytes,
    is_time,
    parse_canonical,
    parse_canonical_list,
)
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import HEX_DIGITS, MANIFEST, is_hash, sha256_hex
from regworkers_core.selection.maths.manifest import Manifest

NOTICE = "notice.json"
ACCEPTED = "accepted.json"
ANNULLED = "annulled.json"
_REPLACED = re.compile(r"replaced-([1-9][0-9]{0,3})\.json", re.ASCII)
_FINDING = re.compile(r"[a-z][a-z_]{0,63}", re.ASCII)


def replaced_name(number: int) -> str:
    """The name of the `number`-th manifest that was replaced, from 1 on."""
    return f"replaced-{number}.json"


def replaced_number(name: str) -> int | None:
    """The inverse of `replaced_name`; None for another file."""
    found = _REPLACED.fullmatch(name)
    return None if found is None else int(found[1])


def is_beside(name: str) -> bool:
    """Whether a file of this name lies beside the artefacts of a phase."""
    return name in (NOTICE, ACCEPTED, ANNULLED) or replaced_number(name) is not None


@dataclass(frozen=True, slots=True)
class Notice:
    """notice.json: what a phase offers and when its manifest was decided and became public. `strikes` counts the
    lines of strikes.txt; `reason` is empty in phase 1.
    """

    as_of: str
    campaign_id: str
    capacities: Mapping[str, int]
    committed_at: str
    phase: int
    published_at: str
    reason: str
    strikes: int

    @staticmethod
    def of(manifest: Manifest, *, strikes: int, committed_at: str, published_at: str, reason: str) -> Notice:
        """The notice of a manifest that the store has confirmed."""
        return Notice(
            as_of=manifest.as_of,
            campaign_id=manifest.campaign_id,
            capacities={market.market_id: market.capacity for market in manifest.markets},
            committed_at=committed_at,
            phase=manifest.phase,
            published_at=published_at,
            reason=reason,
            strikes=strikes,
        )

    def to_bytes(self) -> bytes:
        """The bytes of notice.json. DrawError when `parse` would refuse them."""
        data = canonical_bytes(
            {
                "asOf": self.as_of,
                "campaignId": self.campaign_id,
                "capacities": dict(self.capacities),
                "committedAt": self.committed_at,
                "phase": self.phase,
                "publishedAt": self.published_at,
                "reason": self.reason,
                "strikes": self.strikes,
            }
        )
        Notice.parse(data)
        return data

    @staticmethod
    def parse(data: bytes, artefact: str = NOTICE) -> Notice:
        """The notice in exactly these bytes. DrawError names the key and what was found."""
        keys = (
            "asOf",
            "campaignId",
            "capacities",
            "committedAt",
            "phase",
            "publishedAt",
            "reason",
            "strikes",
        )
        fields = Fields(artefact, "", parse_canonical(data, artefact), keys)
        capacities = fields.raw("capacities")
        seats = Fields(artefact, "capacities", capacities, capacities if isinstance(capacities, dict) else ())
        return Notice(
            as_of=fields.text("asOf", is_time, TIME),
            campaign_id=fields.text("campaignId", is_selection_id, "an id"),
            capacities={market: seats.integer(market) for market in capacities},
            committed_at=fields.text("committedAt", is_time, TIME),
            phase=fields.integer("phase", 1),
            published_at=fields.text("publishedAt", is_time, TIME),
            reason=fields.text("reason", lambda _text: True, "a text"),
            strikes=fields.integer("strikes"),
        )

    def check(self, manifest: Manifest, strikes: int | None = None, artefact: str = NOTICE) -> None:
        """DrawError unless this is about `manifest`, whose strikes.txt has `strikes` lines (None: not known here)."""
        due = Notice.of(
            manifest,
            strikes=self.strikes if strikes is None else strikes,
            committed_at=self.committed_at,
            published_at=self.published_at,
            reason=self.reason if manifest.phase > 1 else "",
        )
        for name in ("campaign_id", "phase", "as_of", "capacities", "strikes", "reason"):
            wanted, found = getattr(due, name), getattr(self, name)
            if wanted != found:
                raise DrawError(artefact, f"{_camel(name)}: {wanted!r} by the manifest, found {found!r}")


@dataclass(frozen=True, slots=True)
class Replaced:
    """replaced-<k>.json: a manifest of phase 1 that another one replaced. `published_at` is None for one that the
    store never confirmed.
    """

    committed_at: str
    manifest: str
    published_at: str | None
    replaced_at: str

    def to_bytes(self) -> bytes:
        """The bytes of the file. DrawError when `parse` would refuse them."""
        data = canonical_bytes(
            {
                "committedAt": self.committed_at,
                "manifest": self.manifest,
                "publishedAt": self.published_at,
                "replacedAt": self.replaced_at,
            }
        )
        Replaced.parse(data)
        return data

    @staticmethod
    def parse(data: bytes, artefact: str = "replaced.json") -> Replaced:
        """The replacement in exactly these bytes. DrawError names the key and what was found."""
        keys = ("committedAt", "manifest", "publishedAt", "replacedAt")
        fields = Fields(artefact, "", parse_canonical(data, artefact), keys)
        made = Replaced(
            committed_at=fields.text("committedAt", is_time, TIME),
            manifest=fields.text("manifest", str.isascii, "the text of a manifest"),
            published_at=None
            if fields.raw("publishedAt") is None
            else fields.text("publishedAt", is_time, TIME),
            replaced_at=fields.text("replacedAt", is_time, TIME),
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
        """DrawError unless only the round differs from `manifest`, which stands now."""
        before, now = self.document, manifest
        if before.seed_source.get("kind") != "drand" or before.hash == now.hash:
            raise DrawError(artefact, f"not another round of the beacon than that of {MANIFEST}")
        rounds = {**before.seed_source, "round": now.seed_source.get("round")}
        if replace(before, seed_source=rounds) != now:
            raise DrawError(artefact, f"more than seedSource.round differs from {MANIFEST}")


@dataclass(frozen=True, slots=True)
class Accepted:
    """One line of accepted.json: a finding that did not stop the publication, and why."""

    at: str
    finding: str
    reason: str


def accepted_bytes(accepted: Sequence[Accepted]) -> bytes:
    """The bytes of accepted.json. DrawError when `parse_accepted` would refuse them."""
    data = canonical_bytes(
        [{"at": each.at, "finding": each.finding, "reason": each.reason} for each in accepted]
    )
    parse_accepted(data)
    return data


def parse_accepted(data: bytes, artefact: str = ACCEPTED) -> tuple[Accepted, ...]:
    """The findings in exactly these bytes. DrawError names the key and what was found."""
    found = []
    for number, document in enumerate(parse_canonical_list(data, artefact)):
        fields = Fields(artefact, f"[{number}]", document, ("at", "finding", "reason"))
        found.append(
            Accepted(
                at=fields.text("at", is_time, TIME),
                finding=fields.text("finding", _FINDING.fullmatch, "the name of a finding"),
                reason=fields.text("reason", str.strip, "a reason"),
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Annulled:
    """annulled.json: the draw does not count, as its operator says, and why. `manifest_hash` is that of `phase`, None
    for a draw that was annulled before it had a manifest.
    """

    annulled_at: str
    campaign_id: str
    manifest_hash: str | None
    phase: int
    reason: str

    def to_bytes(self) -> bytes:
        """The bytes of annulled.json. DrawError when `parse` would refuse them."""
        data = canonical_bytes(
            {
                "annulledAt": self.annulled_at,
                "campaignId": self.campaign_id,
                "manifestHash": self.manifest_hash,
                "phase": self.phase,
                "reason": self.reason,
            }
        )
        Annulled.parse(data)
        return data

    @staticmethod
    def parse(data: bytes, artefact: str = ANNULLED) -> Annulled:
        """The annulment in exactly these bytes. DrawError names the key and what was found."""
        keys = ("annulledAt", "campaignId", "manifestHash", "phase", "reason")
        fields = Fields(artefact, "", parse_canonical(data, artefact), keys)
        return Annulled(
            annulled_at=fields.text("annulledAt", is_time, TIME),
            campaign_id=fields.text("campaignId", is_selection_id, "an id"),
            manifest_hash=None
            if fields.raw("manifestHash") is None
            else fields.text("manifestHash", is_hash, HEX_DIGITS),
            phase=fields.integer("phase", 1),
            reason=fields.text("reason", str.strip, "a reason"),
        )

    def check(self, manifest: Manifest, artefact: str = ANNULLED) -> None:
        """DrawError unless this is about `manifest`."""
        found = (self.campaign_id, self.phase, self.manifest_hash)
        if found != (manifest.campaign_id, manifest.phase, manifest.hash):
            raise DrawError(
                artefact, f"of campaign {found[0]}, phase {found[1]}, manifestHash {found[2]}: not this phase"
            )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)
