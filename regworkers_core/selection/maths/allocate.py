"""Allocate: from the order to the outcome of every leaf, for one phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regworkers_core.selection.maths.canonical import canonical_bytes
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import (
    CUTOFFS,
    LEAVES,
    MANIFEST,
    SUMMARY,
    sha256_hex,
)
from regworkers_core.selection.maths.manifest import Manifest
from regworkers_core.selection.maths.outcomes import Identity, Outcomes
from regworkers_core.selection.maths.phase import Phase
from regworkers_core.selection.maths.rank import Ranked
from regworkers_core.selection.maths.rules import (
    NO_SEATS,
    Cutoff,
    MarketCutoffs,
    cutoffs_document,
    entry_key,
    unit_key,
)
from regworkers_core.selection.maths.seats import Allocation, Group, MarketGroups
from regworkers_core.selection.maths.summary import MarketCounts, Summary
from regworkers_core.selection.maths.wishes import Wishes


def allocate(folder: Path, previous: Path | None, ranked: Path, out: Path, *, engine: Engine) -> Summary:
    """Write result.txt, cutoffs.json, summary.json and outcomes.parquet (without entry ids) into `out`.

    `folder` holds leaves.txt, manifest.json, strikes.txt and seed.json; `previous` those of the phase before with
    its result.txt. `ranked` is by `rank` from the same leaves and seed. DrawError names the artefact at fault.
    """
    phase, order = Phase.read(folder, previous), Ranked.read(ranked)
    if len(order.order) != phase.manifest.count:
        raise DrawError(
            ranked.name, f"{len(order.order):,} leaves, the manifest counts {phase.manifest.count:,}"
        )
    return allocate_phase(phase, order, out, engine=engine)


def allocate_phase(phase: Phase, order: Ranked, out: Path, *, engine: Engine) -> Summary:
    """The same from what has been read. Nothing here asks where the seed comes from."""
    outcomes = Outcomes.before(phase.manifest, phase.folder / LEAVES, phase.previous)
    candidates = order.order[order.ranks > 0]
    with engine.folder() as scratch:
        markets = _seat(phase, outcomes, candidates, scratch, engine.batch_rows)
    for number, market in enumerate(markets):
        for group in market.groups:
            outcomes.win(number, candidates[np.array(group.held, np.int64) * -1 - 1])
    outcomes.close(candidates, phase.manifest.waitlist_size)
    del candidates
    return _write(phase, outcomes, order, markets, out)


def _seat(
    phase: Phase, outcomes: Outcomes, candidates: npt.NDArray[np.int32], scratch: Path, batch_rows: int
) -> list[MarketGroups]:
    """Strikes, then the seats of this phase. What everybody wishes is forgotten again before the result is
    written: it is most of the memory.
    """
    manifest = phase.manifest
    segments = sorted({each.segment for market in manifest.markets for each in market.reserves})
    ids = [market.market_id for market in manifest.markets]
    leaves = phase.folder / LEAVES
    wishes = Wishes.read(leaves, manifest.count, ids, segments, tuple(phase.strikes), scratch)
    outcomes.strike(wishes.struck)
    markets = _offered(manifest, outcomes.pin(), segments)
    Allocation(markets, wishes, candidates, outcomes.undecided(candidates), batch_rows).run()
    return markets


def _offered(manifest: Manifest, pinned: Sequence[int], segments: Sequence[str]) -> list[MarketGroups]:
    """The seats of this phase: `capacity` is the total, who won before keeps a seat of it."""
    groups = []
    for market, taken in zip(manifest.markets, pinned, strict=True):
        offered = market.capacity - taken
        if offered < 0:
            raise DrawError(
                MANIFEST,
                f"market {market.market_id}: capacity {market.capacity}, {taken} have won seats already",
            )
        reserved = sum(reserve.seats for reserve in market.reserves)
        if reserved > offered:
            raise DrawError(
                MANIFEST, f"market {market.market_id}: {reserved} seats are reserved, {offered} are offered"
            )
        reserves = [(segments.index(reserve.segment), reserve.seats) for reserve in market.reserves]
        groups.append(MarketGroups(offered, reserves))
    return groups


def _write(
    phase: Phase, outcomes: Outcomes, order: Ranked, markets: Sequence[MarketGroups], out: Path
) -> Summary:
    out.mkdir(parents=True, exist_ok=True)
    ranks = np.zeros(len(order.order), np.int32)
    ranks[order.order] = order.ranks
    worst = {rank for market in markets for group in market.groups if (rank := group.cutoff_rank)}
    result_hash, identities = outcomes.write(phase.folder / LEAVES, out, ranks, worst)
    cutoffs = canonical_bytes(cutoffs_document(_cutoffs(phase, markets, identities)))
    (out / CUTOFFS).write_bytes(cutoffs)
    counts = zip(phase.manifest.markets, outcomes.new_winners(), outcomes.winners(), strict=True)
    summary = Summary(
        manifest_hash=phase.manifest.hash,
        result_hash=result_hash,
        cutoffs_hash=sha256_hex(cutoffs),
        outcomes=outcomes.counts(),
        markets={market.market_id: MarketCounts(new, winners) for market, new, winners in counts},
    )
    (out / SUMMARY).write_bytes(summary.to_bytes())
    return summary


def _cutoffs(
    phase: Phase, markets: Sequence[MarketGroups], worst: Mapping[int, Identity]
) -> dict[str, MarketCutoffs]:
    """Of every market. Only the worst admitted of a full group needs keys: they are made here."""
    seed, draw_id = phase.seed.seed, phase.manifest.draw_id
    made = {0: NO_SEATS}
    for rank, (ref, unit, weight) in worst.items():
        made[rank] = Cutoff(rank, unit_key(seed, draw_id, unit, weight), entry_key(seed, ref))

    def cutoff(group: Group) -> Cutoff | None:
        return None if group.cutoff_rank is None else made[group.cutoff_rank]

    return {
        terms.market_id: MarketCutoffs(
            cutoff(market.open),
            tuple(
                (reserve.segment, cutoff(group))
                for reserve, group in zip(terms.reserves, market.reserves, strict=True)
            ),
        )
        for terms, market in zip(phase.manifest.markets, markets, strict=True)
    }
