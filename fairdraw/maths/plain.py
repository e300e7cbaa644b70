"""The draw in plain Python, straight from its rules (`docs/draw-rules.md`): hashlib, lists and dictionaries.

It shares no step of the draw with `fairdraw.large`. Both come to the same bytes, so each shows an error of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from fairdraw.errors import DrawError, UsageError
from fairdraw.maths.files import CUTOFFS, LEAVES, RESULT, STRIKES, SUMMARY, canonical_bytes, sha256_hex
from fairdraw.maths.leaves import Leaf, Position, parse_leaf
from fairdraw.maths.manifest import Manifest, struck_outcome
from fairdraw.maths.merkle import root_over
from fairdraw.maths.phase import MarketCounts, Phase, Summary, seats_offered
from fairdraw.terms import Outcome

# A million entries take about 40 s and 1 GB of memory.
MOST_ENTRIES = 1_000_000
# Leaves of a unit named in a message.
_SHOWN_LEAVES = 8


class Place(NamedTuple):
    """What became of an entry: `market` is empty and `rank` 0 where there is none."""

    market: str
    rank: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one phase comes to."""

    # The place of each entry by its ref.
    outcomes: Mapping[str, Place]
    # The bytes of cutoffs.json.
    cutoffs: bytes

    @property
    def result(self) -> bytes:
        """The bytes of result.txt."""
        lines = (
            f"{ref}|{at.market}|{at.rank or ''}|{at.outcome}\n" for ref, at in sorted(self.outcomes.items())
        )
        return "".join(lines).encode()


class _Candidate(NamedTuple):
    """The input of a rank. Hashes are bytes, whose order is that of their hex digits."""

    # That of the unit.
    key: bytes
    unit: str
    entry_key: bytes
    leaf: Leaf


def draw(
    leaves: Sequence[Leaf],
    manifest: Manifest,
    seed: str,
    strikes: Mapping[str, str],
    previous: Mapping[str, Place],
) -> Drawn:
    """Rank the leaves and allocate the seats of one phase. `strikes` are reasons by ref; `previous` are the places of
    the phase before, empty in phase 1. Raises DrawError if the seats do not suffice for earlier winners.
    """
    candidates = _candidates(leaves, manifest, seed)
    ranks = {each.leaf.ref: rank for rank, each in enumerate(candidates, 1)}
    pinned = {
        ref: at.market for ref, at in previous.items() if at.outcome is Outcome.WINNER and ref not in strikes
    }
    taken = Counter(pinned.values())
    offered = seats_offered(manifest, [taken[market.market_id] for market in manifest.markets])
    free = [
        rank
        for rank, each in enumerate(candidates, 1)
        if each.leaf.ref not in pinned and each.leaf.ref not in strikes
    ]
    groups = _accept(free, candidates, manifest, offered)
    won = {
        candidates[rank - 1].leaf.ref: market
        for market, parts in groups.items()
        for part in parts
        for rank in part
    }
    places: dict[str, Place] = {}
    waiting = 0
    for ref, rank in ranks.items():
        if ref in strikes:
            places[ref] = Place("", rank, struck_outcome(strikes[ref]))
        elif market := pinned.get(ref) or won.get(ref):
            places[ref] = Place(market, rank, Outcome.WINNER)
        else:
            waiting += 1
            listed = manifest.waitlist_size is None or waiting <= manifest.waitlist_size
            places[ref] = Place("", rank, Outcome.WAITLIST if listed else Outcome.UNSELECTED)
    for leaf in leaves:
        if leaf.ref not in ranks:
            reason = strikes.get(leaf.ref)
            past = Outcome.HOUSEHOLD_LIMIT if reason is None else struck_outcome(reason)
            places[leaf.ref] = Place("", 0, past)
    return Drawn(places, canonical_bytes(_cutoffs(manifest, offered, groups, candidates)))


def _candidates(leaves: Sequence[Leaf], manifest: Manifest, seed: str) -> list[_Candidate]:
    """The leaves that may win, in the order of the draw: of each unit as many as it may win."""

    def hashed(text: str) -> bytes:
        return sha256(text.encode()).digest()

    def key(unit: str, weight: int) -> bytes:
        tickets = range(weight)
        return min(hashed(f"vf2|{seed}|{manifest.draw_id}|{unit}|{ticket}") for ticket in tickets)

    ordered = sorted(
        _Candidate(key(leaf.unit, leaf.weight), leaf.unit, hashed(f"vf2e|{seed}|{leaf.ref}"), leaf)
        for leaf in leaves
    )
    seen: Counter[str] = Counter()
    found = []
    for each in ordered:
        seen[each.unit] += 1
        if seen[each.unit] <= manifest.wins_per_unit:
            found.append(each)
    return found


def _accept(
    free: list[int], candidates: Sequence[_Candidate], manifest: Manifest, offered: Mapping[str, int]
) -> dict[str, list[list[int]]]:
    """Run rounds: each candidate without a seat asks at its next market, then every market that was asked chooses
    again. Returns the ranks of the winners of each market: one list for each reserve, then the open seats.
    """
    asked = dict.fromkeys(free, 0)
    reserves = {each.market_id: each.reserves for each in manifest.markets}
    held: dict[str, list[list[int]]] = {
        market: [[] for _ in range(len(reserves[market]) + 1)] for market in reserves
    }
    while free:
        asking: dict[str, list[int]] = {}
        for rank in free:
            wanted = candidates[rank - 1].leaf.preferences
            if asked[rank] < len(wanted):
                asking.setdefault(wanted[asked[rank]], []).append(rank)
                asked[rank] += 1
        free = []
        for market, more in asking.items():
            applicants = sorted(rank for part in [*held[market], more] for rank in part)
            chosen: list[list[int]] = []
            rest = applicants
            for reserve in reserves[market]:
                entitled = [rank for rank in rest if reserve.segment in candidates[rank - 1].leaf.segments]
                chosen.append(entitled[: reserve.seats])
                seated = set(chosen[-1])
                rest = [rank for rank in rest if rank not in seated]
            left = offered[market] - sum(map(len, chosen))
            held[market] = [*chosen, rest[:left]]
            free += rest[left:]
    return held


def _cutoffs(
    manifest: Manifest,
    offered: Mapping[str, int],
    groups: Mapping[str, Sequence[Sequence[int]]],
    candidates: Sequence[_Candidate],
) -> dict[str, Any]:
    def cutoff(part: Sequence[int], seats: int) -> dict[str, Any] | None:
        if len(part) < seats:
            return None
        if seats == 0:
            return {"entryKey": "0" * 64, "key": "0" * 64, "rank": 0}
        rank = max(part)
        worst = candidates[rank - 1]
        return {"entryKey": worst.entry_key.hex(), "key": worst.key.hex(), "rank": rank}

    markets = {}
    for market in manifest.markets:
        *kept, open_part = groups[market.market_id]
        left = offered[market.market_id] - sum(map(len, kept))
        markets[market.market_id] = {
            "open": cutoff(open_part, left),
            "reserves": [
                {"cutoff": cutoff(part, reserve.seats), "segment": reserve.segment}
                for part, reserve in zip(kept, market.reserves, strict=True)
            ],
        }
    return {"markets": markets}


@dataclass(frozen=True, slots=True)
class PlainEngine:
    """Draws up to MOST_ENTRIES entries in memory. `scratch` takes temporary files."""

    scratch: Path

    def require(self, count: int) -> None:
        """Raises UsageError for a draw of more entries than this engine takes."""
        if count > MOST_ENTRIES:
            raise UsageError(
                f"this draw has {count:,} entries, and a replay in plain Python takes {MOST_ENTRIES:,}: install"
                " fairdraw[large]"
            )

    def check_weights(self, leaves: Path, count: int) -> None:
        """Raise DrawError unless all leaves of a unit have the same weight: each weight would be another key."""
        self.require(count)
        units: dict[str, list[Leaf]] = {}
        for leaf in _leaves(leaves):
            units.setdefault(leaf.unit, []).append(leaf)
        for _, members in sorted(units.items()):
            if len({leaf.weight for leaf in members}) > 1:
                found = [f"{leaf.ref} has {leaf.weight}" for leaf in members[:_SHOWN_LEAVES]]
                raise DrawError(LEAVES, f"one unit, several weights: {', '.join(found)}")

    def compute(self, folder: Path, previous: Path | None, out: Path) -> Summary:
        """Draw one phase: result.txt, cutoffs.json and summary.json into `out`. `folder` and `previous` are as
        `Phase.read` needs them. Raises DrawError for artefacts that are malformed or contradict each other; UsageError
        for a draw that is too large.
        """
        phase = Phase.read(folder, previous)
        manifest = phase.manifest
        self.require(manifest.count)
        leaves = list(_leaves(folder / LEAVES))
        _check(leaves, phase)
        before = {} if previous is None else _places(previous / RESULT, leaves, manifest)
        for ref in sorted(phase.unclaimed):
            if before[ref].outcome is not Outcome.WINNER:
                raise DrawError(STRIKES, f"{ref} is UNCLAIMED, and was no winner of the phase before")
        drawn = draw(leaves, manifest, phase.seed.seed, phase.strikes, before)
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULT).write_bytes(drawn.result)
        (out / CUTOFFS).write_bytes(drawn.cutoffs)
        outcomes = Counter(at.outcome for at in drawn.outcomes.values())
        winners = Counter(at.market for at in drawn.outcomes.values() if at.market)
        kept = Counter(
            at.market
            for ref, at in before.items()
            if at.outcome is Outcome.WINNER and ref not in phase.strikes
        )
        summary = Summary(
            manifest_hash=manifest.hash,
            result_hash=sha256_hex(drawn.result),
            result_root=root_over(drawn.result),
            cutoffs_hash=sha256_hex(drawn.cutoffs),
            outcomes={str(outcome): outcomes[outcome] for outcome in Outcome},
            markets={
                name: MarketCounts(winners[name] - kept[name], winners[name])
                for name in (market.market_id for market in manifest.markets)
            },
        )
        (out / SUMMARY).write_bytes(summary.to_bytes())
        return summary


def _leaves(path: Path) -> Iterator[Leaf]:
    """The lines of leaves.txt. Raises DrawError for a malformed one, and for refs that do not increase strictly."""
    # Most leaves have the lists of others: each list is kept once.
    lists: dict[tuple[str, ...], tuple[str, ...]] = {}
    before = ""
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                raise DrawError(LEAVES, "the last line has no line feed")
            leaf = parse_leaf(raw[:-1].decode("ascii", "replace"))
            if leaf.ref <= before:
                what = f"duplicate ref {before}" if leaf.ref == before else f"{leaf.ref} follows {before}"
                raise DrawError(LEAVES, f"refs must increase strictly: {what}")
            before = leaf.ref
            segments = lists.setdefault(leaf.segments, leaf.segments)
            preferences = lists.setdefault(leaf.preferences, leaf.preferences)
            yield Leaf(leaf.ref, leaf.unit, leaf.weight, segments, preferences)


def _check(leaves: Sequence[Leaf], phase: Phase) -> None:
    """Compare the leaves with manifest and strikes. Raises DrawError."""
    manifest = phase.manifest
    if len(leaves) != manifest.count:
        raise DrawError(LEAVES, f"{manifest.count:,} leaves were committed to, {len(leaves):,} were found")
    known = {market.market_id for market in manifest.markets}
    for leaf in leaves:
        if not known.issuperset(leaf.preferences):
            market = next(each for each in leaf.preferences if each not in known)
            raise DrawError(LEAVES, f"{leaf.line!r}: market {market!r} is not in the manifest")
    if absent := len(phase.strikes.keys() - {leaf.ref for leaf in leaves}):
        struck = len(phase.strikes)
        raise DrawError(STRIKES, f"{struck} refs are struck, {struck - absent} of them have a leaf")


def _places(result: Path, leaves: Sequence[Leaf], manifest: Manifest) -> dict[str, Place]:
    """The result.txt of the phase before, about the same leaves. Raises DrawError."""
    lines = result.read_bytes().decode("ascii", "replace").split("\n")[:-1]
    if [line.partition("|")[0] for line in lines] != [leaf.ref for leaf in leaves]:
        raise DrawError(RESULT, "the result of the phase before is not about the same refs as leaves.txt")
    known = {"", *(market.market_id for market in manifest.markets)}
    places = {}
    for line, leaf in zip(lines, leaves, strict=True):
        at = Position.parse(line, leaf.ref)
        if at.market not in known:
            raise DrawError(RESULT, "unknown outcome or market in the result of the phase before")
        if at.outcome == Outcome.WINNER and not at.market:
            raise DrawError(RESULT, "a winner without a market in the result of the phase before")
        places[leaf.ref] = Place(at.market, int(at.rank or 0), Outcome(at.outcome))
    return places
