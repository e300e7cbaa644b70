"""The draw a second time, slowly and straight from its description: hashlib, lists and nothing of the product.

Leaves are `(ref, unit, weight, segments, preferences)`, markets `(id, capacity, [(segment, seats)])`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

OracleLeaf = tuple[str, str, int, tuple[str, ...], tuple[str, ...]]
OracleMarket = tuple[str, int, list[tuple[str, int]]]


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def canonical(document: Any) -> bytes:
    """For documents whose keys and strings are plain ASCII this is RFC 8785."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def tree_hash(leaves: list[bytes]) -> str:
    """RFC 6962, 2.1, by its recursion."""

    def mth(part: list[bytes]) -> bytes:
        if not part:
            return hashlib.sha256(b"").digest()
        if len(part) == 1:
            return hashlib.sha256(b"\x00" + part[0]).digest()
        split = 1
        while split * 2 < len(part):
            split *= 2
        return hashlib.sha256(b"\x01" + mth(part[:split]) + mth(part[split:])).digest()

    return mth(leaves).hex()


def audit_path(index: int, leaves: list[bytes]) -> list[str]:
    """RFC 6962, 2.1.1, by its recursion."""
    if len(leaves) <= 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*audit_path(index, leaves[:split]), tree_hash(leaves[split:])]
    return [*audit_path(index - split, leaves[split:]), tree_hash(leaves[:split])]


def leaf_line(leaf: OracleLeaf) -> str:
    ref, unit, weight, segments, preferences = leaf
    return f"{ref}|{unit}|{weight}|{','.join(segments)}|{','.join(preferences)}"


@dataclass
class Drawn:
    """What one phase comes to. `outcomes`: ref -> (market or "", rank or 0, outcome)."""

    outcomes: dict[str, tuple[str, int, str]]
    cutoffs: dict[str, Any]
    order: list[str] = field(default_factory=list)

    @property
    def result(self) -> bytes:
        lines = (
            f"{ref}|{market}|{rank or ''}|{outcome}\n"
            for ref, (market, rank, outcome) in sorted(self.outcomes.items())
        )
        return "".join(lines).encode()

    @property
    def cutoffs_json(self) -> bytes:
        return canonical({"markets": self.cutoffs})


def draw(
    leaves: list[OracleLeaf],
    markets: list[OracleMarket],
    seed: str,
    draw_id: str,
    *,
    wins_per_unit: int = 1,
    waitlist_size: int | None = None,
    strikes: dict[str, str] | None = None,
    previous: dict[str, tuple[str, int, str]] | None = None,
) -> Drawn:
    """Steps 5 to 8 for one phase."""
    strikes, previous = strikes or {}, previous or {}

    def key(leaf: OracleLeaf) -> str:
        return min(sha(f"vf1|{seed}|{draw_id}|{leaf[1]}|{ticket}") for ticket in range(leaf[2]))

    def entry_key(leaf: OracleLeaf) -> str:
        return sha(f"vf1e|{seed}|{leaf[0]}")

    ordered = sorted(leaves, key=lambda leaf: (key(leaf), leaf[1], entry_key(leaf)))
    candidates: list[OracleLeaf] = []
    seen: dict[str, int] = {}
    for leaf in ordered:
        seen[leaf[1]] = seen.get(leaf[1], 0) + 1
        if seen[leaf[1]] <= wins_per_unit:
            candidates.append(leaf)
    rank = {leaf[0]: number for number, leaf in enumerate(candidates, 1)}
    pinned = {
        ref: market
        for ref, (market, _, outcome) in previous.items()
        if outcome == "WINNER" and ref not in strikes
    }
    offered = {
        market: capacity - sum(home == market for home in pinned.values()) for market, capacity, _ in markets
    }
    free = [leaf for leaf in candidates if leaf[0] not in pinned and leaf[0] not in strikes]
    groups = deferred_acceptance(free, markets, offered)
    won = {leaf[0]: market for market, parts in groups.items() for part in parts for leaf in part}

    outcomes: dict[str, tuple[str, int, str]] = {}
    waiting = 0
    for leaf in candidates:
        ref = leaf[0]
        if ref in strikes:
            outcomes[ref] = ("", rank[ref], "STRUCK")
        elif ref in pinned or ref in won:
            outcomes[ref] = (pinned.get(ref) or won[ref], rank[ref], "WINNER")
        else:
            waiting += 1
            listed = waitlist_size is None or waiting <= waitlist_size
            outcomes[ref] = ("", rank[ref], "WAITLIST" if listed else "UNSELECTED")
    for leaf in leaves:
        if leaf[0] not in rank:
            outcomes[leaf[0]] = ("", 0, "STRUCK" if leaf[0] in strikes else "HOUSEHOLD_LIMIT")

    def cutoff(admitted: list[OracleLeaf], seats: int) -> dict[str, Any] | None:
        if len(admitted) < seats:
            return None
        if seats == 0:
            return {"entryKey": "0" * 64, "key": "0" * 64, "rank": 0}
        worst = max(admitted, key=lambda leaf: rank[leaf[0]])
        return {"entryKey": entry_key(worst), "key": key(worst), "rank": rank[worst[0]]}

    cutoffs = {}
    for market, _, reserves in markets:
        *kept, open_part = groups[market]
        taken = sum(map(len, kept))
        cutoffs[market] = {
            "open": cutoff(open_part, offered[market] - taken),
            "reserves": [
                {"cutoff": cutoff(part, seats), "segment": segment}
                for part, (segment, seats) in zip(kept, reserves, strict=True)
            ],
        }
    return Drawn(outcomes, cutoffs, [leaf[0] for leaf in candidates])


def choose(
    applicants: list[OracleLeaf], offered: int, reserves: list[tuple[str, int]]
) -> list[list[OracleLeaf]]:
    """What a market picks of applicants in rank order: one list for each reserve, then the open seats."""
    rest, picked = list(applicants), []
    for segment, seats in reserves:
        taken = [leaf for leaf in rest if segment in leaf[3]][:seats]
        rest = [leaf for leaf in rest if leaf not in taken]
        picked.append(taken)
    return [*picked, rest[: offered - sum(map(len, picked))]]


def deferred_acceptance(
    candidates: list[OracleLeaf], markets: list[OracleMarket], offered: dict[str, int]
) -> dict[str, list[list[OracleLeaf]]]:
    """Run rounds: each entry without a seat proposes to its next market, then every market chooses again."""
    place = {leaf[0]: number for number, leaf in enumerate(candidates)}
    asked = dict.fromkeys(place, 0)
    held: dict[str, list[list[OracleLeaf]]] = {
        market: [[] for _ in range(len(reserves) + 1)] for market, _, reserves in markets
    }
    loose = list(candidates)
    while loose:
        proposals: dict[str, list[OracleLeaf]] = {}
        for leaf in loose:
            if asked[leaf[0]] < len(leaf[4]):
                proposals.setdefault(leaf[4][asked[leaf[0]]], []).append(leaf)
                asked[leaf[0]] += 1
        loose = []
        for market, _, reserves in markets:
            if market in proposals:
                applicants = [leaf for part in held[market] for leaf in part] + proposals[market]
                applicants.sort(key=lambda leaf: place[leaf[0]])
                held[market] = choose(applicants, offered[market], reserves)
                kept = {leaf[0] for part in held[market] for leaf in part}
                loose += [leaf for leaf in applicants if leaf[0] not in kept]
    return held


def serial_dictatorship(candidates: list[OracleLeaf], offered: dict[str, int]) -> dict[str, str]:
    """Each candidate in rank order takes the first preference with room."""
    room, homes = dict(offered), {}
    for leaf in candidates:
        home = next((market for market in leaf[4] if room[market] > 0), None)
        if home is not None:
            room[home] -= 1
            homes[leaf[0]] = home
    return homes
