"""The inputs of a report: the artefacts of a phase, the Parquet files of the pipeline, and the context around them.

The leaves are staged once, as narrow columns in a DuckDB file. Ten million rows never reach Python: every figure is an
aggregate that DuckDB computes within its memory limit, spilling to the scratch folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import duckdb

from fairdraw.errors import DrawError
from fairdraw.large.engine import spilling
from fairdraw.maths.files import CUTOFFS, MANIFEST, SUMMARY, parse_canonical
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.rules import MarketCutoffs, parse_cutoffs
from fairdraw.terms import LEAD_SECONDS, QUICKNET, Chain, Outcome
from regworkers_core.adapters.judged_entries import OTHER_DOMAINS
from regworkers_core.domain.reasons import UsageError
from regworkers_core.reporting import counted

# Smaller groups are not named: a mail domain could identify a fan, and a list of all sizes would be long.
LEAST_GROUP = 50
_DOMAINS_SHOWN = 30
_HASHES = ("manifestHash", "resultHash", "cutoffsHash")
OUTCOMES = tuple(each.value for each in Outcome)
# Memory for Python, plots and statistics, which DuckDB does not get.
_LIBRARIES_MIB = 250

# `first` marks the best-ranked candidate of a unit: the entries of a household share one key, so only one of them is
# informative about the order. Preference and segment lists are stored once, under a number.
_STAGE = """
CREATE TABLE leaf AS
SELECT o.rank, o.outcome, o.previous, o.market, o.previous_market,
       coalesce(u.weight, p.weight) AS weight, coalesce(u.size, 1) AS size,
       o.rank > 0 AND o.rank = coalesce(u.best, o.rank) AS first,
       w.n AS preferences, s.n AS segments,
       epoch_ms(try_cast(p.created_at AS TIMESTAMP)) AS created,
       substr(p.ref, {ref_at}, 1) AS ref_class,
       substr(p.entry_id, {entry_at}, 1) AS entry_class,
       coalesce(d.mail_domain, '') AS domain_class, {vouched_by} AS vouched_by
FROM read_parquet($pool) p
JOIN read_parquet($outcomes) o ON o.ref = p.ref
LEFT JOIN shared u ON u.unit = p.unit
JOIN preference_list w ON w.list = p.preferences
JOIN segment_list s ON s.list = p.segments
LEFT JOIN shown_domain d ON d.mail_domain = p.mail_domain
"""
_SHARED = """
CREATE TABLE shared AS
SELECT p.unit, max(p.weight) AS weight, count(*) AS size, min(o.rank) FILTER (WHERE o.rank > 0) AS best
FROM read_parquet($pool) p JOIN read_parquet($outcomes) o ON o.ref = p.ref
WHERE $households GROUP BY p.unit HAVING count(*) > 1
"""
_VOUCHED = "SELECT count(*) FROM parquet_schema($pool) WHERE name = 'vouched_by'"
_LISTS = """
CREATE TABLE {name}_list AS
SELECT row_number() OVER (ORDER BY list)::INTEGER AS n, list
FROM (SELECT DISTINCT {column} AS list FROM read_parquet($pool))
"""
_DOMAINS = f"""
CREATE TABLE shown_domain AS
SELECT mail_domain FROM read_parquet($pool) WHERE mail_domain NOT IN ('', '{OTHER_DOMAINS}')
GROUP BY mail_domain HAVING count(*) >= {LEAST_GROUP} ORDER BY count(*) DESC, mail_domain LIMIT {_DOMAINS_SHOWN}
"""

# The files of a report: the page, and its numbers.
PAGE, NUMBERS = "report.html", "report.json"


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Paths of the files that a report reads."""

    # The folder of the phase's `manifest.json`, `cutoffs.json`, `summary.json` and `strikes.txt`.
    artefacts: Path
    # `pool.parquet` of the pipeline.
    pool: Path
    # `exclusions.parquet` of the pipeline; None if no eligibility was evaluated, as in a simulation.
    exclusions: Path | None
    # `outcomes.parquet` of the pipeline.
    outcomes: Path
    # The folders of the phases before, with `manifest.json`, `strikes.txt` and `result.txt`.
    earlier: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class ReportContext:
    """What the files do not contain."""

    campaign_name: str = ""
    market_names: Mapping[str, str] = field(default_factory=dict)
    # Available codes by market; None if not counted.
    codes: Mapping[str, int] | None = None
    # Preferences for unknown or repeated markets.
    dropped_preferences: int = 0
    # The operator's reason for a top-up.
    reason: str = ""
    # It seeds the draw; `lead` seconds must be between the publication and the round.
    chain: Chain = QUICKNET
    # Seconds.
    lead: int = LEAD_SECONDS
    # When the store confirmed the manifest of phase 1; None if unknown.
    published_at: str | None = None
    # The number of manifests that it replaced.
    replaced: int = 0
    # Those whose round was already signed when they were replaced, as `{k, round, resultHash, differ}`, where `differ`
    # counts the entries with another outcome.
    recommitted: Sequence[Mapping[str, Any]] = ()
    # Registrations that were withdrawn because no entry had them any more.
    lost_registrations: int = 0


@dataclass(frozen=True, slots=True)
class DrawnPhase:
    """A phase as drawn: its manifest, the cut-offs by market, the hashes in its summary, the manifests before."""

    manifest: Manifest
    cutoffs: Mapping[str, MarketCutoffs]
    # Those in the summary, by name.
    hashes: Mapping[str, str]
    # The manifests of the phases before, in order.
    earlier: Sequence[Manifest]

    @classmethod
    def read(cls, files: ReportFiles) -> DrawnPhase:
        """Read the JSON artefacts of the phases. Raises UsageError for one that is missing or damaged."""
        artefacts = files.artefacts
        try:
            manifest, cutoffs, summary = (
                (artefacts / name).read_bytes() for name in (MANIFEST, CUTOFFS, SUMMARY)
            )
            made = cls(
                Manifest.parse(manifest),
                parse_cutoffs(parse_canonical(cutoffs, CUTOFFS)),
                {name: parse_canonical(summary, SUMMARY)[name] for name in _HASHES},
                [Manifest.parse((folder / MANIFEST).read_bytes()) for folder in files.earlier],
            )
        except FileNotFoundError as error:
            raise UsageError(f"{error.filename}: no such file; run the draw's allocation first") from None
        except KeyError as error:
            raise UsageError(
                f"{artefacts}: {SUMMARY} has no {error}; run the draw's allocation again"
            ) from None
        except DrawError as error:
            raise UsageError(f"{artefacts}: {error}; run the draw's allocation again") from None
        reserves = {each.market_id: [r.segment for r in each.reserves] for each in made.manifest.markets}
        if reserves != {name: [segment for segment, _ in of.reserves] for name, of in made.cutoffs.items()}:
            raise UsageError(
                f"{artefacts}: manifest and cut-offs are inconsistent; run the draw's allocation again"
            )
        return made


def lines(parameter: str, columns: Sequence[str]) -> str:
    """The lines of a text artefact as a table of texts; its path is a parameter of the query."""
    types = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
    return (
        f"read_csv({parameter}, delim='|', quote='', escape='', nullstr='?', header=false, auto_detect=false,"
        f" columns={{{types}}})"
    )


class Workspace:
    """Tables `leaf` (one row per leaf), `preference_list` and `segment_list` (`n`, `list`) in a temporary folder.

    `memory_mib` is an approximate limit for the whole process. Raises UsageError if pool and outcomes do not contain
    the same entries.
    """

    def __init__(self, files: ReportFiles, *, memory_mib: int, scratch: Path | None = None) -> None:
        self._files = files
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="regworkers-report-", dir=scratch)
        folder = Path(self._folder.name)
        self._database = duckdb.connect(
            str(folder / "report.duckdb"),
            config=spilling(folder, max(memory_mib - _LIBRARIES_MIB, 64)),
        )
        try:
            self._stage()
        except BaseException:
            self.close()
            raise

    def _stage(self) -> None:
        pool, outcomes = str(self._files.pool), str(self._files.outcomes)
        both = {"pool": pool, "outcomes": outcomes}
        self.execute(_LISTS.format(name="preference", column="preferences"), {"pool": pool})
        self.execute(_LISTS.format(name="segment", column="segments"), {"pool": pool})
        self.execute(_DOMAINS, {"pool": pool})
        low, high, low_entry, high_entry, households = self.row(
            "SELECT min(ref), max(ref), min(entry_id), max(entry_id), coalesce(bool_or(unit <> ref), false)"
            " FROM read_parquet($pool)",
            {"pool": pool},
        )
        self.execute(_SHARED, {**both, "households": households})
        self.execute(
            _STAGE.format(
                ref_at=_first_difference(low, high),
                entry_at=_first_difference(low_entry, high_entry),
                # The release before wrote pools without it.
                vouched_by="p.vouched_by" if self.number(_VOUCHED, {"pool": pool}) else "NULL::VARCHAR",
            ),
            both,
        )
        leaves = self.number("SELECT count(*) FROM leaf")
        for name, path in both.items():
            found = self.number("SELECT count(*) FROM read_parquet($path)", {"path": path})
            if found != leaves:
                raise UsageError(
                    f"{name}.parquet has {counted(found, 'entry')}, {leaves:,} of them also in the other file: the"
                    " files belong to different draws; run the draw's allocation again"
                )

    def execute(self, statement: str, values: dict[str, Any] | None = None) -> None:
        self._database.execute(statement, values or {})

    def row(self, statement: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
        found = self._database.execute(statement, values or {}).fetchone()
        if found is None:
            raise ValueError("an aggregate without a row")
        return found

    def number(self, statement: str, values: dict[str, Any] | None = None) -> int:
        return int(self.row(statement, values)[0] or 0)

    def rows(self, statement: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._database.execute(statement, values or {}).fetchall()

    def load(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        """Create a small table, replacing one of the same name."""
        self._database.execute(f"CREATE OR REPLACE TABLE {table} ({columns})")
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self._database.executemany(f"INSERT INTO {table} VALUES ({marks})", [list(row) for row in rows])

    def close(self) -> None:
        self._database.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_difference(low: str | None, high: str | None) -> int:
    """The 1-based position of the first character in which ids differ, from the smallest and the greatest id."""
    pairs = zip(low or "", high or "", strict=False)
    return 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
