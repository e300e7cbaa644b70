"""DuckDB and plain Python come to the same bytes, phase after phase."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from fairdraw.large import rank
from fairdraw.large.engine import Engine
from fairdraw.maths.files import CUTOFFS, RESULT, SUMMARY
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.plain import Drawn, PlainEngine
from tests.fairdraw.maths import oracle
from tests.fairdraw.maths.draws import (
    compute_phase,
    first_terms,
    later_terms,
    outcomes_of,
    pools,
    set_seed,
    taken_seats,
    write_phase,
)
from tests.fairdraw.maths.oracle import OracleLeaf
from tests.fairdraw.proof.draws import CAMPAIGN, UNIT_KEY, Terms

few = settings(max_examples=10)


def _drawn(folder: Path, leaves: list[OracleLeaf], terms: Terms, previous: Path | None = None) -> Drawn:
    return oracle.draw(
        leaves,
        terms.markets,
        set_seed(folder),
        CAMPAIGN,
        wins_per_unit=terms.wins_per_unit,
        waitlist_size=terms.waitlist_size,
        strikes=dict(terms.strikes),
        previous=None if previous is None else outcomes_of(previous),
    )


@few
@given(data=st.data(), leaves=pools())
def test_every_phase_equals_the_oracle_byte_for_byte(data: st.DataObject, leaves: list[OracleLeaf]) -> None:
    refs = [leaf[0] for leaf in leaves]
    wins, waiting = data.draw(st.integers(1, 2)), data.draw(st.none() | st.integers(0, 10))
    # With few digits, different units and entries share the heads by which they are sorted first.
    heads = patch.object(rank, "_HEAD_DIGITS", data.draw(st.sampled_from((1, 2, 16))))
    with tempfile.TemporaryDirectory() as scratch, heads:
        engine = Engine(Path(scratch) / "spill", batch_rows=data.draw(st.sampled_from((1, 3, 1000))))
        previous: Path | None = None
        strikes, taken = dict[str, str](), dict[str, int]()
        markets = [data.draw(first_terms())]
        for phase in (1, 2, 3):
            if refs:
                for ref in data.draw(st.sets(st.sampled_from(refs), max_size=3)):
                    strikes.setdefault(ref, "FRAUD")
            if previous is not None:
                won = [ref for ref, (_, _, outcome) in outcomes_of(previous).items() if outcome == "WINNER"]
                for ref in data.draw(st.sets(st.sampled_from(won), max_size=2)) if won else ():
                    strikes.setdefault(ref, "UNCLAIMED")
                taken = taken_seats(previous, strikes)
                markets.append(data.draw(later_terms(markets, taken)))
            terms = Terms(markets[-1], dict(strikes), waiting, wins)
            folder = write_phase(Path(scratch) / f"phase-{phase}", leaves, terms, previous)
            summary = compute_phase(folder, engine, previous)
            expected = _drawn(folder, leaves, terms, previous)
            assert (folder / RESULT).read_bytes() == expected.result
            assert (folder / CUTOFFS).read_bytes() == expected.cutoffs
            again = Path(scratch) / f"plain-{phase}"
            assert PlainEngine(Path(scratch)).compute(folder, previous, again) == summary
            for name in (RESULT, CUTOFFS, SUMMARY):
                assert (again / name).read_bytes() == (folder / name).read_bytes()
            assert summary.result_root == oracle.tree_hash(expected.result.splitlines())
            for ref, reason in strikes.items():
                lapsed = reason == "UNCLAIMED"
                assert expected.outcomes[ref].outcome == (reason if lapsed else "STRUCK")
            outcomes = [outcome for _, _, outcome in expected.outcomes.values()]
            assert summary.outcomes == {name: outcomes.count(name) for name in summary.outcomes}
            assert sum(summary.outcomes.values()) == len(leaves)
            for market, counts in summary.markets.items():
                homes = [home for home, _, _ in expected.outcomes.values()]
                assert counts.winners == homes.count(market)
                assert counts.new == counts.winners - taken.get(market, 0)
            previous = folder


def test_a_household_whose_entries_share_their_heads_keeps_its_exact_order(tmp_path: Path) -> None:
    home = unit_of(UNIT_KEY, CAMPAIGN, "home")
    leaves: list[OracleLeaf] = [(f"r{number:02d}", home, 1, (), ("berlin",)) for number in range(40)]
    terms = Terms([("berlin", 20, [])], wins_per_unit=20)
    folder = write_phase(tmp_path / "phase-1", leaves, terms, None)
    with patch.object(rank, "_HEAD_DIGITS", 1):
        compute_phase(folder, Engine(tmp_path / "spill"), None)
    assert (folder / RESULT).read_bytes() == _drawn(folder, leaves, terms).result
