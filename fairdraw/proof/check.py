"""The offline check of one receipt: leaf, root, manifest, seed, keys, cut-offs and outcome."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from fairdraw.errors import DrawError, UsageError
from fairdraw.maths.beside import ACCEPTED, NOTICE, Annulled, replaced_name
from fairdraw.maths.files import CUTOFFS, Fields, is_hash, parse_any_layout, sha256_hex, short
from fairdraw.maths.manifest import ManifestSeedSource, SeedFile, changed_terms
from fairdraw.maths.rules import (
    NO_SEATS,
    entry_key,
    market_of,
    meets_cutoff,
    unit_key,
)
from fairdraw.proof import guarantee
from fairdraw.proof.checker import (
    BEFORE_THE_LOG,
    DRAWN,
    EXCLUDED,
    RECEIPT,
    VERSION,
    CheckResult,
    Excluded,
    Inclusion,
    PhasePart,
    State,
    Step,
    StepChecker,
    wrong,
)
from fairdraw.proof.guarantee import Published
from fairdraw.proof.inputs import check_randomness
from fairdraw.proof.logged import LoggedPhase, Trust, TrustedKey
from fairdraw.terms import Outcome, signed_at

HOLDS, FAILS, INCOMPLETE = "holds", "fails", "incomplete"
_NO_TRUST = Trust()
_NO_STRIKES = sha256_hex(b"")
_COMMON = ("annulled", "campaignId", "guarantee", "kind", "ref", "roundAt", "version")
_DRAWN = ("entryKey", "inclusion", "key", "market", "outcome", "phases", "rank", "seed", "siblings")
_EXCLUDED = ("after", "before", "manifest", "published", "reasons")


@dataclass(frozen=True, slots=True)
class ReceiptChecked:
    """What became of the checks of a receipt."""

    # Their order is that in which they were made.
    checks: tuple[CheckResult, ...]
    # What a receipt cannot prove alone.
    limits: tuple[str, ...] = ()
    # What it relies on.
    keys: tuple[TrustedKey, ...] = ()
    # The operator's statement that the draw does not count.
    annulled: Annulled | None = None

    @property
    def verdict(self) -> str:
        """`fails` if a step failed, `incomplete` if one is unchecked, else `holds`."""
        states = {check.state for check in self.checks}
        if State.FAILED in states:
            return FAILS
        return INCOMPLETE if State.UNCHECKED in states else HOLDS

    def as_dict(self) -> dict[str, Any]:
        return as_document(self, "annulled", "verdict", "checks", "limits", "keys")


def check_receipt(data: bytes, trust: Trust = _NO_TRUST) -> ReceiptChecked:
    """Check a receipt in JSON, in any layout, with trusted keys where given, else with the operator's.

    Never raises for its content: an error in it is a failed check.
    """
    try:
        document = _parsed(data)
        drawn, version = _kind(document) == DRAWN, document.get("version")
        if version not in (BEFORE_THE_LOG, VERSION):
            raise DrawError(
                RECEIPT, f"version: expected {BEFORE_THE_LOG} or {VERSION}, found {short(version)}"
            )
        keys = (*_COMMON, *(_DRAWN if drawn else _EXCLUDED), *(("log",) if version == VERSION else ()))
        fields = Fields(RECEIPT, "", document, keys)
        checker = Drawn(fields, trust) if drawn else Excluded(fields, trust)
    except DrawError as error:
        return ReceiptChecked((CheckResult("receipt", State.FAILED, str(error)),))
    checker.run()
    return ReceiptChecked(tuple(checker.checks), checker.all_limits(), checker.keys(), checker.annulled)


def require_receipt(data: bytes) -> None:
    """Raise UsageError if `data` is not a JSON object, so that there is nothing to check."""
    try:
        _parsed(data)
    except DrawError as error:
        raise UsageError(f"this is not a receipt: {error.message}") from None


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        # The input is not trusted. Editors on Windows write a mark of the byte order (BOM) before a text.
        document = parse_any_layout(data.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        raise DrawError(RECEIPT, "not a JSON document: give the receipt in its JSON format") from None
    if not isinstance(document, dict):
        raise DrawError(RECEIPT, "expected a JSON object")
    return document


def _kind(document: Mapping[str, Any]) -> str:
    kind = document.get("kind")
    if kind not in (DRAWN, EXCLUDED):
        raise DrawError(RECEIPT, f"kind: expected {DRAWN} or {EXCLUDED}, found {short(kind)}")
    return str(kind)


class _Expected(NamedTuple):
    """What an entry comes to by the rules."""

    market: str
    # An outcome, two that a receipt cannot distinguish, joined by ` or `, or why the entry won.
    why: str


class Drawn(StepChecker):
    """The check of an entry that was in the draw."""

    def __init__(self, fields: Fields, trust: Trust) -> None:
        super().__init__(fields, trust)
        documents = fields.list("phases")
        if not documents:
            fields.refuse("phases", "at least one is needed")
        self._phases = [PhasePart(number, each, self.ref) for number, each in enumerate(documents, 1)]
        self._own = Inclusion("inclusion", fields.raw("inclusion"))
        self._siblings = [
            Inclusion(f"siblings[{number}]", each) for number, each in enumerate(fields.list("siblings"))
        ]
        self._seed = SeedFile.parse(fields.text("seed", str.isascii, "the text of seed.json").encode())
        self._key = fields.text("key", is_hash, "64 lower-case hex digits")
        self._entry_key = fields.text("entryKey", is_hash, "64 lower-case hex digits")
        rank = fields.raw("rank")
        if rank is not None:
            fields.integer("rank", 1)
        self._stated = (fields.raw("market"), "" if rank is None else str(rank), fields.raw("outcome"))
        self._first = self._phases[0].manifest

    def steps(self) -> list[tuple[str, Step]]:
        return [
            ("leaf", self._check_leaf),
            ("inclusion", self._check_inclusion),
            ("manifest", self._check_manifests),
            ("published", self._check_published),
            ("randomness", self._check_randomness),
            ("seed", self._check_seed),
            ("key", self._check_key),
            ("entryKey", self._check_entry_key),
            ("candidate", self._check_candidate),
            *((f"outcome-{each.number}", partial(self._check_outcome, each)) for each in self._phases),
            ("rank", self._check_rank),
            ("stated", self._check_stated),
        ]

    def limits(self) -> tuple[str, ...]:
        return (
            "Only a replay of the whole draw (`fairdraw verify`) shows that the rank counts everyone ahead,"
            " that the cut-offs are those of the last admitted entries, and that no entry was inserted.",
            "The same applies to the other entries of the unit, and to the strikes.",
            "Compare manifestHash with where it was published before the seed existed, resultHash and cutoffsHash"
            " with the published ones: a receipt that was forged as a whole would have other hashes.",
            *_statements([each.published for each in self._phases]),
            guarantee.LATER_PHASES.format(last=len(self._phases)),
        )

    def phases(self) -> list[LoggedPhase]:
        return [
            LoggedPhase(
                each.number,
                each.manifest,
                each.manifest_hash,
                (each.result_hash, each.cutoffs_hash),
                each.published,
            )
            for each in self._phases
        ]

    def keys(self) -> tuple[TrustedKey, ...]:
        return (*self.trust.beacon_keys(self._first), *super().keys())

    def _check_leaf(self) -> str:
        leaf = self._own.leaf
        if leaf.ref != self.ref:
            wrong(f"the leaf belongs to {leaf.ref}, the receipt to {self.ref}")
        known = {market.market_id for market in self._first.markets}
        for market in leaf.preferences:
            if market not in known:
                wrong(f"market {market} of the leaf is not in the manifest")
        return f"weight {leaf.weight}, preferences {', '.join(leaf.preferences)}"

    def _check_inclusion(self) -> str:
        self._own.check(self._first)
        return f"leaf {self._own.index} of {self._first.count} (from 0) under root {self._first.root}"

    def _check_manifests(self) -> str:
        for each in self._phases:
            self.check_campaign(each.manifest)
            # Nothing is derived from the manifest of the last phase, so only this comparison detects a change in it.
            if each.manifest_hash != each.stated_manifest_hash:
                wrong(
                    f"phase {each.number}: the manifest has SHA-256 {each.manifest_hash}, the receipt says"
                    f" {each.stated_manifest_hash}"
                )
            if each.manifest.phase != each.number:
                wrong(f"the manifest says phase {each.manifest.phase}, expected is {each.number}")
            for error in changed_terms(self._first, each.manifest):
                wrong(f"phase {each.number}: {error.message}")
        for before, after in pairwise(self._phases):
            previous = after.manifest.previous
            if previous is None or previous["manifestHash"] != before.manifest_hash:
                wrong(f"phase {after.number} does not follow from the manifest of phase {before.number}")
            if previous["resultHash"] != before.result_hash:
                wrong(f"phase {after.number} does not follow from the result of phase {before.number}")
        return "\n".join(
            f"phase {each.number}: manifestHash {each.manifest_hash}, resultHash {each.result_hash},"
            f" cutoffsHash {each.cutoffs_hash}"
            for each in self._phases
        )

    def _check_published(self) -> str:
        return self.check_published([(each.manifest, each.published) for each in self._phases])

    def _check_randomness(self) -> str:
        source, stated = ManifestSeedSource.parse(self._first.seed_source), self._seed
        # The expected seed: the next step checks the stated one.
        expected = SeedFile.of(
            self._phases[0].manifest_hash,
            source.kind,
            source.source,
            source.round,
            stated.randomness,
            stated.signature,
        )
        replace(expected, kind=stated.kind, round=stated.round).check(
            self._phases[0].manifest_hash, self._first.seed_source
        )
        self.check_source(self._first, self._phases[0].published)
        if source.commitment is not None:
            return f"the secret {stated.randomness} is the one that was committed to"
        # Last, because it is slow, and because a page may have to leave it out.
        self.trust.check_beacon(source.source)
        check_randomness(self._first, stated)
        at = signed_at(self._first.seed_source)
        return f"round {source.round} was signed by the beacon at {at} (UTC), by its rules"

    def _check_seed(self) -> str:
        self._seed.check(self._phases[0].manifest_hash, self._first.seed_source)
        return f"{self._seed.seed} follows from the manifest of phase 1 and the randomness"

    def _check_key(self) -> str:
        leaf = self._own.leaf
        _equal(self._key, unit_key(self._seed.seed, self._first.draw_id, leaf.unit, leaf.weight))
        tickets = "the only ticket" if leaf.weight == 1 else f"the lowest of the {leaf.weight} tickets"
        return f"{self._key}, {tickets} of unit {leaf.unit}"

    def _check_entry_key(self) -> str:
        _equal(self._entry_key, entry_key(self._seed.seed, self.ref))
        return self._entry_key

    def _check_candidate(self) -> str:
        """Check that an entry without a rank has enough entries of its unit ahead; one with a rank is a candidate."""
        wins = self._first.wins_per_unit
        if self._phases[0].position.rank:
            among = "the entry" if wins == 1 else f"one of the {wins} entries"
            return f"has a rank, so it is {among} of its unit that may win"
        refs = {each.leaf.ref for each in self._siblings}
        if len(refs) != wins or self.ref in refs:
            others = "1 other entry" if wins == 1 else f"{wins} other entries"
            wrong(f"no rank, so {others} of the unit must be ahead, found {len(refs)}")
        for each in self._siblings:
            each.check(self._first)
            if (each.leaf.unit, each.leaf.weight) != (self._own.leaf.unit, self._own.leaf.weight):
                wrong(
                    f"{each.leaf.ref} has another unit or weight than {self._own.leaf.unit}, {self._own.leaf.weight}"
                )
            if not entry_key(self._seed.seed, each.leaf.ref) < self._entry_key:
                wrong(f"{each.leaf.ref} is not ahead of {self.ref}")
        ahead = "1 entry of the unit is" if wins == 1 else f"{wins} entries of the unit are"
        return f"{ahead} ahead: {', '.join(sorted(refs))}"

    def _check_outcome(self, phase: PhasePart) -> str:
        position = phase.position
        # No other step detects a change that leaves the outcome of this entry as it is.
        if phase.cutoffs_hash != phase.stated_cutoffs_hash:
            wrong(
                f"the cut-offs have SHA-256 {phase.cutoffs_hash}, the receipt says {phase.stated_cutoffs_hash}"
            )
        _check_groups(phase)
        market, why = self._expected(phase)
        if why.startswith(Outcome.WINNER):
            if (position.outcome, position.market) != (Outcome.WINNER, market):
                wrong(f"{why} in {market}, found {position.outcome} {position.market}")
            return f"{why} in {market}"
        if position.market or position.outcome not in why.split(" or "):
            wrong(f"the rules give {why}, found {position.outcome} {position.market}")
        return f"{position.outcome}: {_reasons(position.outcome, phase)}"

    def _expected(self, phase: PhasePart) -> _Expected:
        before = self._phases[phase.number - 2] if phase.number > 1 else None
        if before and before.strike is not None and before.strike != phase.strike:
            wrong("a strike of the previous phase is missing: strikes are permanent")
        if phase.strike is not None:
            if phase.manifest.strikes_hash == _NO_STRIKES:
                wrong("a strike, but the manifest commits to an empty list of strikes")
            return _Expected("", Outcome.STRUCK)
        if not phase.position.rank:
            return _Expected("", Outcome.HOUSEHOLD_LIMIT)
        if before and before.position.outcome == Outcome.WINNER:
            return _Expected(before.position.market, f"{Outcome.WINNER} since phase {before.number}")
        try:
            leaf = self._own.leaf
            market = market_of(leaf.preferences, leaf.segments, self._key, self._entry_key, phase.cutoffs)
        except KeyError as error:
            raise DrawError(CUTOFFS, f"market {error} of the leaf has no cut-off") from None
        if market is not None:
            return _Expected(market, f"{Outcome.WINNER}, cut-off met")
        size = phase.manifest.waitlist_size
        if size is None or int(phase.position.rank) <= size:
            return _Expected("", Outcome.WAITLIST)
        either = Outcome.UNSELECTED if size == 0 else f"{Outcome.WAITLIST} or {Outcome.UNSELECTED}"
        return _Expected("", either)

    def _check_rank(self) -> str:
        """Check that the rank is ahead of each cut-off exactly if the key is."""
        ranks = {each.position.rank for each in self._phases}
        if len(ranks) != 1:
            wrong(f"a rank never changes between phases, found {', '.join(sorted(ranks))}")
        rank = ranks.pop()
        if not rank:
            return "no rank: not a candidate"
        if int(rank) > self._first.count:
            wrong(f"rank {rank} of {self._first.count} leaves")
        own = (self._key, self._entry_key)
        for each in self._phases:
            for market, groups in each.cutoffs.items():
                for cutoff in (groups.open, *(found for _, found in groups.reserves)):
                    if cutoff and cutoff.rank and (int(rank) <= cutoff.rank) != meets_cutoff(cutoff, *own):
                        wrong(
                            f"rank {rank} and key contradict the cut-off of {short(market)}, rank {cutoff.rank}"
                        )
        return f"{rank}: agrees with every cut-off; the number itself is proven by the replay only"

    def _check_stated(self) -> str:
        last = self._phases[-1].position
        if self._stated != (last.market, last.rank, last.outcome):
            wrong(
                f"the receipt says {short(self._stated)}, the last phase {(last.market, last.rank, last.outcome)}"
            )
        return f"{last.outcome} {last.market}".strip()


def _statements(parts: Sequence[Published]) -> Iterator[str]:
    """What the operator stated in files; those that are there are named."""
    files = [NOTICE] if any(each.notice is not None for each in parts) else []
    files += [ACCEPTED] if any(each.accepted is not None for each in parts) else []
    # Only the manifest of the first phase may have been replaced.
    files += [replaced_name(number) for number, _ in enumerate(parts[0].replaced, 1)]
    if files:
        yield (
            "The times, reasons and accepted findings of a phase are the operator's statements: compare them with"
            f" {', '.join(files)} beside the published artefacts."
        )


def _check_groups(phase: PhasePart) -> None:
    """Check that the cut-offs fit the manifest's markets and reserves, and that one without seats admits no entry."""
    terms = {market.market_id: market for market in phase.manifest.markets}
    if set(phase.cutoffs) != set(terms):
        wrong("the cut-offs are not those of the manifest's markets")
    for market_id, groups in phase.cutoffs.items():
        reserves = terms[market_id].reserves
        if [segment for segment, _ in groups.reserves] != [each.segment for each in reserves]:
            wrong(f"the cut-offs of market {market_id} are not those of its reserves")
        for reserve, (_, cutoff) in zip(reserves, groups.reserves, strict=True):
            if (reserve.seats == 0) != (cutoff is not None and cutoff.rank == 0):
                wrong(
                    f"the cut-off of reserve {reserve.segment} of {market_id} does not match its {reserve.seats} seats"
                )
        for cutoff in (groups.open, *(each for _, each in groups.reserves)):
            if cutoff is not None and not cutoff.rank and cutoff != NO_SEATS:
                wrong(f"a cut-off of market {market_id} has rank 0 and is not all zeros")
            if cutoff is not None and cutoff.rank > phase.manifest.count:
                wrong(
                    f"a cut-off of market {market_id} has rank {cutoff.rank} of {phase.manifest.count} leaves"
                )


def _reasons(outcome: str, phase: PhasePart) -> str:
    if outcome == Outcome.STRUCK:
        return f"{phase.strike} (the list of strikes has SHA-256 {phase.manifest.strikes_hash})"
    if outcome == Outcome.HOUSEHOLD_LIMIT:
        return "other entries of the unit are ahead"
    if outcome == Outcome.WAITLIST:
        return "no cut-off of a listed market is met"
    return f"no cut-off of a listed market is met, past the waiting list of {phase.manifest.waitlist_size}"


def _equal(stated: str, computed: str) -> None:
    if stated != computed:
        wrong(f"the rules give {computed}, the receipt says {stated}")
