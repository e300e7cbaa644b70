"""What a report is made from: the artefacts of a phase, the pipeline's Parquet files, and what only others know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from regworkers_core.domain.reasons import UsageError


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """`artefacts` is a folder with `manifest.json`, `cutoffs.json` and `summary.json` of the phase; the others
    are the pipeline's files `pool.parquet`, `exclusions.parquet` (None: nothing was judged, as in a
    simulation) and `outcomes.parquet`.
    """

    artefacts: Path
    pool: Path
    exclusions: Path | None
    outcomes: Path


@dataclass(frozen=True, slots=True)
class ReportContext:
    """What the files do not tell: names for people, codes available by market (None: not counted), whether the
    commitment of the secret came after the opening (None: nobody knows), preferences dropped because their market
    is unknown or repeated, the operator's reason for a top-up. `published_at`: when the store confirmed the manifest of
    phase 1 (None: not known); `replaced`: how many manifests it took the place of; `recommitted`: of those whose round
    was signed by then, `{k, round, resultHash, differ}`, `differ` counting the entries with another outcome.
    """

    campaign_name: str = ""
    market_names: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, int] | None = None
    commitment_late: bool | None = False
    dropped_preferences: int = 0
    reason: str = ""
    published_at: str | None = None
    replaced: int = 0
    recommitted: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class ReserveTerms:
    """A reserve of a market; `cutoff_rank` is None when it turned nobody away."""

    segment: str
    seats: int
    cutoff_rank: int | None


@dataclass(frozen=True, slots=True)
class MarketTerms:
    """A market as it was drawn; `capacity` is the total over all phases, reserves in precedence order."""

    market_id: str
    capacity: int
    reserves: tuple[ReserveTerms, ...]
    open_cutoff_rank: int | None


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of manifest, cut-offs and summary that a report shows."""

    campaign_id: str
    phase: int
    as_of: str
    algorithm: str
    count: int
    root: str
    wins_per_unit: int
    waitlist_size: int | None
    seed_source: Mapping[str, Any]
    manifest_hash: str
    result_hash: str
    cutoffs_hash: str
    markets: tuple[MarketTerms, ...]

    @classmethod
    def read(cls, artefacts: Path) -> Terms:
        """From the three JSON artefacts in a folder. Raises UsageError for one that is missing or damaged."""
        manifest, cutoffs, summary = (
            _document(artefacts / name) for name in ("manifest.json", "cutoffs.json", "summary.json")
        )
        try:
            return cls(
                campaign_id=manifest["campaignId"],
                phase=manifest["phase"],
                as_of=manifest["asOf"],
                algorithm=manifest["algorithm"],
                count=manifest["count"],
                root=manifest["root"],
                wins_per_unit=manifest["winsPerUnit"],
                waitlist_size=manifest["waitlistSize"],
                seed_source=manifest["seedSource"],
                manifest_hash=summary["manifestHash"],
                result_hash=summary["resultHash"],
                cutoffs_hash=summary["cutoffsHash"],
                markets=tuple(
                    _market(market, cutoffs["markets"][market["marketId"]]) for market in manifest["markets"]
                ),
            )
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{artefacts}: manifest, cutoffs and summary do not fit together ({error}); run the draw's"
                " allocation again"
            ) from None


def _market(market: Mapping[str, Any], cutoffs: Mapping[str, Any]) -> MarketTerms:
    reached = {each["segment"]: _rank(each["cutoff"]) for each in cutoffs["reserves"]}
    return MarketTerms(
        market["marketId"],
        market["capacity"],
        tuple(ReserveTerms(r["segment"], r["seats"], reached[r["segment"]]) for r in market["reserves"]),
        _rank(cutoffs["open"]),
    )


def _rank(cutoff: Mapping[str, Any] | None) -> int | None:
    return None if cutoff is None else int(cutoff["rank"])


def _document(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; run the draw's allocation first") from None
    except orjson.JSONDecodeError:
        raise UsageError(f"{path}: not valid JSON; run the draw's allocation again") from None
