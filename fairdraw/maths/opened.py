"""The record of a campaign as it opened, opened.json, and of each change since, amended-<k>.json, beside the phases.

`mismatches` are what makes a draw not verify; `findings_against` are words for the reader, who judges them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from fairdraw.documents import camel
from fairdraw.errors import DrawError
from fairdraw.maths.files import MANIFEST, Fields, JsonFile, json_keys, sha256_hex, short
from fairdraw.maths.manifest import Manifest, MarketTerms, ReserveTerms, markets_of
from fairdraw.terms import CHAIN_FILE

OPENED = "opened.json"
# A campaign is logged in time up to so long after its `opensAt`.
IN_TIME_SECONDS = 600
_AMENDED = re.compile(r"amended-([1-9][0-9]{0,5})\.json", re.ASCII)
_PUBLIC_KEY = re.compile(r"[0-9a-f]{192}", re.ASCII)
# No amendment changes these.
_FIXED = ("campaign_id", "chain", "event_id", "unit_key_hash", "caseless")


def opened_name(number: int) -> str:
    """Return the name of the `number`-th amendment, from 1; that of the opening for 0."""
    return f"amended-{number}.json" if number else OPENED


def opened_number(name: str) -> int | None:
    """Return the number in such a name; None for another file."""
    if name == OPENED:
        return 0
    found = _AMENDED.fullmatch(name)
    return None if found is None else int(found[1])


def is_beside_phases(name: str) -> bool:
    """Whether a file of this name lies beside the phases of a draw: its chain, or the record of its campaign."""
    return name == CHAIN_FILE or opened_number(name) is not None


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """An Ed25519 key (64 hex digits) by which the issuer of the codes signs its messages."""

    id: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(JsonFile):
    """opened.json: what the operator promises when the campaign opens."""

    FILE: ClassVar[str] = OPENED

    campaign_id: str
    # Whether codes are compared with A-Z lowered.
    caseless: bool
    # The hash of the beacon's chain.
    chain: str
    closes_at: str
    # BLS12-381 in G2, compressed, 192 hex digits; None for a campaign without codes so far.
    code_key: str | None
    # Whom the campaign admits, as its definition has it.
    eligibility: Mapping[str, Any]
    # Campaigns of one event; None: the campaign names none.
    event_id: str | None
    # They are sorted by id.
    issuer_keys: tuple[IssuerKey, ...]
    # They are sorted by id.
    markets: tuple[MarketTerms, ...]
    name: str
    opens_at: str
    # Whether registrations are logged.
    registration: bool
    # SHA-256 of the key under which units are published.
    unit_key_hash: str
    # None: all that are left.
    waitlist_size: int | None
    wins_per_unit: int

    @property
    def hash(self) -> str:
        """SHA-256 of the file: the hash of its leaf in the log, and the platform's `openedHash`."""
        return sha256_hex(self.to_bytes())

    @property
    def terms(self) -> Opened:
        """The same without what an amendment adds: equal terms need no further file."""
        return Opened(**self._terms())

    def amending(self, before: Opened, reason: str) -> Amended:
        """Return these terms as the amendment that follows `before`."""
        return Amended(**self._terms(), previous=before.hash, reason=reason)

    def _terms(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields_of(Opened)}

    @classmethod
    def read(cls, fields: Fields) -> Self:
        opens_at, closes_at = fields.time("opensAt"), fields.time("closesAt")
        if opens_at >= closes_at:
            fields.refuse("closesAt", f"a time after opensAt ({opens_at}) is needed, found {closes_at}")
        return cls(
            campaign_id=fields.id("campaignId"),
            caseless=fields.flag("caseless"),
            chain=fields.hash("chain"),
            closes_at=closes_at,
            code_key=None
            if fields.raw("codeKey") is None
            else fields.text("codeKey", _PUBLIC_KEY.fullmatch, "192 lower-case hex digits"),
            eligibility=fields.object("eligibility"),
            event_id=None if fields.raw("eventId") is None else fields.id("eventId"),
            issuer_keys=_issuer_keys(fields),
            markets=markets_of(fields),
            name=fields.text("name", str.strip, "a text"),
            opens_at=opens_at,
            registration=fields.flag("registration"),
            unit_key_hash=fields.hash("unitKeyHash"),
            waitlist_size=None if fields.raw("waitlistSize") is None else fields.integer("waitlistSize"),
            wins_per_unit=fields.integer("winsPerUnit", 1),
            **cls._more(fields),
        )

    @classmethod
    def _more(cls, fields: Fields) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Amended(Opened):
    """amended-<k>.json: the campaign as it is since a change of it."""

    FILE: ClassVar[str] = "amended.json"

    # SHA-256 of the file before.
    previous: str
    reason: str

    @classmethod
    def _more(cls, fields: Fields) -> dict[str, Any]:
        return {
            "previous": fields.hash("previous"),
            "reason": fields.text("reason", str.strip, "a reason"),
        }

    def check(self, before: Opened, artefact: str) -> None:
        """Raise DrawError unless this follows `before`, the file before it."""
        if self.previous != before.hash:
            raise DrawError(artefact, f"previous: {before.hash}, the file before, is needed")
        for each in unchangeable(before, self):
            raise DrawError(artefact, each.message)


class Unchangeable(NamedTuple):
    """A term that no amendment may change, and that two files of one record have otherwise."""

    # Its key in the file.
    field: str
    before: str  # its value as a message shows it
    now: str  # the same of the later file
    message: str


def unchangeable(before: Opened, now: Opened) -> Iterator[Unchangeable]:
    """What `now` has otherwise than `before`, the file before it, and never may."""
    for name in (*_FIXED, *(["code_key"] if before.code_key else [])):
        if (old := getattr(before, name)) != (new := getattr(now, name)):
            field, then, found = camel(name), short(old), short(new)
            yield Unchangeable(field, then, found, f"{field}: never changes; {then} before, found {found}")
    then, found = (", ".join(_market_ids(each)) for each in (before, now))
    if then != found:
        yield Unchangeable("markets", then, found, f"markets: never change; {then} before")
    if before.registration and not now.registration:
        rule = "registration: true before, and that never changes"
        yield Unchangeable("registration", "true", "false", rule)


def parse_opened(files: Sequence[bytes]) -> tuple[Opened, ...]:
    """Read opened.json, amended-1.json, amended-2.json and so on, which are `files` in that order. Raises DrawError
    with the first file that is wrong or does not follow the one before.
    """
    found: list[Opened] = []
    for number, data in enumerate(files):
        name = opened_name(number)
        if not found:
            found.append(Opened.parse(data, name))
            continue
        amended = Amended.parse(data, name)
        amended.check(found[-1], name)
        found.append(amended)
    return tuple(found)


def read_opened(folder: Path) -> tuple[Opened, ...]:
    """Read the record in the folder of a draw; empty if it has none. Raises DrawError as `parse_opened` and for a gap,
    OSError.
    """
    numbers = sorted(number for each in folder.iterdir() if (number := opened_number(each.name)) is not None)
    for due, number in enumerate(numbers):
        if number != due:
            raise DrawError(opened_name(number), f"{opened_name(due)} is missing before it")
    return parse_opened([(folder / opened_name(number)).read_bytes() for number in numbers])


def mismatches(opened: Opened, manifest: Manifest) -> Iterator[DrawError]:
    """Why a draw with `manifest` does not verify against `opened`, the last file of the record before it."""
    pairs = (
        ("campaignId", opened.campaign_id, manifest.campaign_id),
        ("seedSource.chain", opened.chain, manifest.seed_source.chain),
        ("markets", _market_ids(opened), [market.market_id for market in manifest.markets]),
    )
    for key, wanted, found in pairs:
        if wanted != found:
            yield DrawError(
                MANIFEST, f"{key}: the campaign opened with {short(wanted)}, found {short(found)}"
            )
    if opened.registration != (manifest.registrations is not None):
        rule = "are needed, because the campaign logs them" if opened.registration else "null is needed"
        yield DrawError(MANIFEST, f"registrations: {rule}")


def findings_against(opened: Opened, manifest: Manifest) -> Iterator[str]:
    """What the manifest of phase 1 has otherwise than `opened`, the last file of the record before it, one sentence
    each; nothing where `mismatches` finds something.
    """
    if manifest.as_of < opened.closes_at:
        yield f"asOf: the entries were frozen at {manifest.as_of}, before closesAt, {opened.closes_at}"
    for before, now in zip(opened.markets, manifest.markets, strict=False):
        for title, then, found in _of_market(before, now):
            if then != found and not (title == _SEATS and now.capacity > before.capacity):
                yield f"{title} of {now.market_id}: {found}, opened with {then}"
    for title, then, found in _limits(opened, manifest):
        if then != found:
            yield f"{title}: {found}, opened with {then}"


class Change(NamedTuple):
    """What one amendment changed."""

    number: int
    reason: str
    # One line each, in words.
    lines: tuple[str, ...]


def changes_since(record: Sequence[Opened], opened_hash: str) -> tuple[Change, ...] | None:
    """What the amendments after the file with this hash changed, the first one first; None if no file has it."""
    hashes = [each.hash for each in record]
    if opened_hash not in hashes:
        return None
    start = hashes.index(opened_hash)
    return tuple(
        Change(number, now.reason, tuple(changed_lines(before, now)))
        for number, (before, now) in enumerate(pairwise(record[start:]), start + 1)
        if isinstance(now, Amended)
    )


def changed_lines(before: Opened, now: Opened) -> Iterator[str]:
    """What differs between two files of one record, one line each."""
    for then, market in zip(before.markets, now.markets, strict=True):
        for title, old, new in _of_market(then, market):
            if old != new:
                yield f"{title} of {market.market_id}: {new}, before {old}"
    times = (("opens", before.opens_at, now.opens_at), ("closes", before.closes_at, now.closes_at))
    for title, old, new in (*times, *_limits(before, now), ("name", before.name, now.name)):
        if old != new:
            yield f"{title}: {new}, before {old}"
    for title, name in _OTHERS:
        if getattr(before, name) != getattr(now, name):
            yield f"{title}: changed"


_SEATS = "seats"
_OTHERS = (
    ("who may take part", "eligibility"),
    ("key of the codes", "code_key"),
    ("keys of the codes' issuer", "issuer_keys"),
    ("log of registrations", "registration"),
)


class _Compared(NamedTuple):
    """One term in two documents, in words."""

    title: str
    before: str
    now: str


def _of_market(before: MarketTerms, now: MarketTerms) -> Iterator[_Compared]:
    yield _Compared(_SEATS, str(before.capacity), str(now.capacity))
    yield _Compared("reserved seats", _reserved(before.reserves), _reserved(now.reserves))
    later = _reserved(before.later_reserves), _reserved(now.later_reserves)
    yield _Compared("seats reserved later", *later)


def _limits(before: Opened, now: Opened | Manifest) -> Iterator[_Compared]:
    yield _Compared("waiting list", _limit(before.waitlist_size), _limit(now.waitlist_size))
    yield _Compared("wins per household", str(before.wins_per_unit), str(now.wins_per_unit))


def _reserved(reserves: Sequence[ReserveTerms]) -> str:
    return ", ".join(f"{each.segment} {each.seats}" for each in reserves) or "none"


def _limit(size: int | None) -> str:
    return "no limit" if size is None else str(size)


def _market_ids(opened: Opened) -> list[str]:
    return [market.market_id for market in opened.markets]


def _issuer_keys(fields: Fields) -> tuple[IssuerKey, ...]:
    keys = tuple(
        IssuerKey(each.id("id"), each.hash("key"))
        for each in fields.objects("issuerKeys", json_keys(IssuerKey))
    )
    for before, after in pairwise(key.id for key in keys):
        if before >= after:
            fields.refuse("issuerKeys", f"ids must increase strictly: {after} follows {before}")
    return keys
