"""The check of an entry that was in the draw: leaf, manifest, seed, keys, result, strike and cut-offs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from fairdraw.errors import DrawError
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import ACCEPTED, NOTICE, replaced_name
from fairdraw.maths.files import CUTOFFS, Fields, is_hash, short
from fairdraw.maths.manifest import SeedFile, struck_outcome
from fairdraw.maths.rules import (
    NO_SEATS,
    entry_key,
    market_of,
    meets_cutoff,
    unit_key,
)
from fairdraw.proof import guarantee
from fairdraw.proof.beacon import verify_beacon
from fairdraw.proof.checker import Result, Step, StepChecker
from fairdraw.proof.guarantee import Published
from fairdraw.proof.logged import LoggedPhase
from fairdraw.proof.parts import Inclusion, PhasePart, check_phases, wrong
from fairdraw.proof.planned import CODE, CodePart
from fairdraw.terms import Outcome, signed_at


class _Expected(NamedTuple):
    """What an entry comes to by the rules."""

    market: str
    # An outcome, two that a receipt cannot distinguish, joined by ` or `, or why the entry won.
    why: str


class Drawn(StepChecker):
    """The check of an entry that was in the draw."""

    def __init__(self, fields: Fields, trust: Trust, known: str | None, codes: bytes | None = None) -> None:
        super().__init__(fields, trust, known)
        documents = fields.list("phases")
        if not documents:
            fields.refuse("phases", "at least one is needed")
        self._phases = [PhasePart(number, each, self.ref) for number, each in enumerate(documents, 1)]
        self._own = Inclusion("inclusion", fields.raw("inclusion"))
        self.unit = self._own.leaf.unit
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
        self._together = fields.integer("together")
        # The winner's code, and the list of planned codes that was given.
        self._code = CodePart(fields) if CODE in fields.names else None
        self._codes = codes

    def steps(self) -> list[tuple[str, Step]]:
        return [
            ("leaf", self._check_leaf),
            ("inclusion", self._check_inclusion),
            ("manifest", self._check_manifests),
            ("published", self._check_published),
            ("opened", self.check_opened),
            ("randomness", self._check_randomness),
            ("seed", self._check_seed),
            ("key", self._check_key),
            ("entryKey", self._check_entry_key),
            ("candidate", self._check_candidate),
            *(step for each in self._phases for step in self._of_phase(each)),
            ("rank", self._check_rank),
            ("stated", self._check_stated),
            *([] if self._code is None else self._of_code(self._code)),
        ]

    def _of_code(self, code: CodePart) -> Iterator[tuple[str, Step]]:
        def check() -> str:
            if code.market not in {each.position.market for each in self._phases}:
                wrong(f"the code is one of market {code.market}, in which the entry won no seat")
            return code.check(self.campaign_id, self.last_logged)

        yield "code", check
        yield "planned", lambda: code.check_planned(self.last_logged, self._log, self._codes)

    def _of_phase(self, phase: PhasePart) -> Iterator[tuple[str, Step]]:
        yield f"result-{phase.number}", partial(phase.check_result, self._own.index)
        if phase.is_struck:
            yield f"strike-{phase.number}", phase.check_strike
        yield f"outcome-{phase.number}", partial(self._check_outcome, phase)

    def limits(self) -> tuple[str, ...]:
        limits = [
            "Only a replay of the whole draw (`fairdraw verify`) shows that the rank counts everyone ahead,"
            " that the cut-offs are those of the last admitted entries, and that no entry was inserted.",
            _together(self._together),
        ]
        if self._phases[-1].is_struck:
            limits.append(_THE_STRIKE)
        if len(self._phases) > 1:
            limits.append(_LATER)
        limits += _statements([each.published for each in self._phases])
        limits.append(guarantee.LATER_PHASES.format(last=len(self._phases)))
        return tuple(limits)

    def phases(self) -> list[LoggedPhase]:
        return [
            LoggedPhase(each.number, each.manifest, each.manifest_hash, each.summary_hash, each.published)
            for each in self._phases
        ]

    def result(self) -> Result:
        last = self._phases[-1]
        return Result(
            self.campaign_id,
            self.campaign,
            self.ref,
            last.position.outcome,
            last.position.market,
            last.position.rank,
            () if last.strike is None else (last.strike,),
            self._together,
        )

    def _check_leaf(self) -> str:
        leaf = self._own.leaf
        if leaf.ref != self.ref:
            wrong(f"the leaf belongs to {leaf.ref}, the receipt to {self.ref}")
        known = {market.market_id for market in self.first.markets}
        for market in leaf.preferences:
            if market not in known:
                wrong(f"market {market} of the leaf is not in the manifest")
        return f"weight {leaf.weight}, preferences {', '.join(leaf.preferences)}"

    def _check_inclusion(self) -> str:
        self._own.check(self.first)
        return f"leaf {self._own.index} of {self.first.count} (from 0) under root {self.first.root}"

    def _check_manifests(self) -> str:
        for each in self._phases:
            self.check_campaign(each.manifest)
        return check_phases(self._phases)

    def _check_published(self) -> str:
        return self.check_published([(each.manifest, each.published) for each in self._phases])

    def _check_randomness(self) -> str:
        source, stated, first = self.first.seed_source, self._seed, self._phases[0]
        # The seed that is expected: the next step checks the stated one.
        expected = SeedFile.of(first.manifest_hash, source, stated.signature)
        replace(expected, randomness=stated.randomness, round=stated.round).check(first.manifest_hash, source)
        self.check_source(first.published)
        chain = self.chain()
        verify_beacon(chain, source.round, stated.signature)
        self.require_lead()
        return f"round {source.round} was signed by the beacon at {signed_at(chain, source.round)} (UTC), by its rules"

    def _check_seed(self) -> str:
        self._seed.check(self._phases[0].manifest_hash, self.first.seed_source)
        return f"{self._seed.seed} follows from the manifest of phase 1 and the randomness"

    def _check_key(self) -> str:
        leaf = self._own.leaf
        _equal(self._key, unit_key(self._seed.seed, self.first.draw_id, leaf.unit, leaf.weight))
        tickets = "the only ticket" if leaf.weight == 1 else f"the lowest of the {leaf.weight} tickets"
        return f"{self._key}, {tickets} of unit {leaf.unit}"

    def _check_entry_key(self) -> str:
        _equal(self._entry_key, entry_key(self._seed.seed, self.ref))
        return self._entry_key

    def _check_candidate(self) -> str:
        """Check that an entry without a rank has enough entries of its unit ahead; one with a rank is a candidate."""
        wins = self.first.wins_per_unit
        if self._phases[0].position.rank:
            among = "the entry" if wins == 1 else f"one of the {wins} entries"
            return f"has a rank, so it is {among} of its unit that may win"
        refs = {each.leaf.ref for each in self._siblings}
        if len(refs) != wins or self.ref in refs:
            others = "1 other entry" if wins == 1 else f"{wins} other entries"
            wrong(f"no rank, so {others} of the unit must be ahead, found {len(refs)}")
        for each in self._siblings:
            each.check(self.first)
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
        if phase.cutoffs_hash != (stated := phase.results.cutoffs_hash):
            wrong(f"the cut-offs have SHA-256 {phase.cutoffs_hash}, the summary says {stated}")
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
        struck_before = None if before is None else before.strike
        if struck_before not in (None, phase.strike):
            wrong("a strike of the previous phase is missing: strikes are permanent")
        if phase.strike is not None:
            outcome = struck_outcome(phase.strike)
            lapses = outcome is Outcome.UNCLAIMED and struck_before is None
            if lapses and (before is None or before.position.outcome != Outcome.WINNER):
                wrong(f"{Outcome.UNCLAIMED}, but the entry won no seat in the phase before")
            return _Expected("", outcome)
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
        if int(rank) > self.first.count:
            wrong(f"rank {rank} of {self.first.count} leaves")
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


_THE_STRIKE = (
    "The reason of a strike is the operator's statement: a receipt shows that the entry is in the list of strikes, not"
    " that it should be."
)
_LATER = (
    "A later phase is chosen with every rank known: its seats, reserves and strikes are decided by those who can see"
    " whom they help. What its reserves may take at most was fixed in phase 1."
)


def _together(others: int) -> str:
    """The statement about the unit, as a question to the entrant."""
    if not others:
        return (
            "You are drawn alone: is that right? Which entries belong together is the operator's statement. The number"
            " shows on the draw's public page and in a replay."
        )
    are = "1 other" if others == 1 else f"{others} others"
    return (
        f"You are drawn together with {are}: is that right? Which entries belong together is the operator's statement."
        " The number shows on the draw's public page and in a replay."
    )


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
    if phase.strike is not None:
        return phase.strike
    if outcome == Outcome.HOUSEHOLD_LIMIT:
        return "other entries of the unit are ahead"
    if outcome == Outcome.WAITLIST:
        return "no cut-off of a listed market is met"
    return f"no cut-off of a listed market is met, past the waiting list of {phase.manifest.waitlist_size}"


def _equal(stated: str, computed: str) -> None:
    if stated != computed:
        wrong(f"the rules give {computed}, the receipt says {stated}")
