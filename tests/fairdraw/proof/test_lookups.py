"""Lookups in sorted artefacts: they find what a reading of the whole file finds."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fairdraw.large.lookups import SortedFile, starts_of, write_unit_index
from fairdraw.maths.leaves import Leaf, unit_of
from tests.fairdraw.proof.draws import CAMPAIGN, UNIT_KEY

IDS = st.text(alphabet="AZaz09_-", min_size=1, max_size=5)


@settings(max_examples=60)
@given(refs=st.sets(IDS, max_size=12), sought=IDS)
def test_a_ref_and_its_neighbours_are_found_in_place(
    tmp_path_factory: object, refs: set[str], sought: str
) -> None:
    folder = tmp_path_factory.mktemp("sorted", numbered=True)  # type: ignore[attr-defined]
    ordered = sorted(refs)
    path = folder / "lines.txt"
    path.write_text("".join(f"{ref}|rest of {ref}\n" for ref in ordered))
    with SortedFile(path) as lines:
        for ref in ordered:
            found = lines.find(ref)
            assert found is not None and found.text == f"{ref}|rest of {ref}"
        assert (lines.find(sought) is not None) == (sought in refs)
        before, after = lines.around(sought)
    assert (before and before.ref) == max((ref for ref in ordered if ref < sought), default=None)
    assert (after and after.ref) == min((ref for ref in ordered if ref >= sought), default=None)


def test_the_index_of_units_holds_exactly_those_with_several_leaves(tmp_path: Path) -> None:
    family, pair, weighty, alone = (unit_of(UNIT_KEY, CAMPAIGN, name) for name in ("f", "p", "w", "a"))
    units = {family: 64, pair: 9, weighty: 10}
    leaves = [
        Leaf(f"r{number:02}", unit, weight, ("fan", "vip")[: number % 3], ("east", "west")[: 1 + number % 2])
        for number, (unit, weight) in enumerate([*units.items(), (alone, 1), *units.items(), (family, 64)])
    ]
    path, index = tmp_path / "leaves.txt", tmp_path / "leaves.units"
    path.write_text("".join(f"{leaf.line}\n" for leaf in leaves))
    write_unit_index(path, index)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["leaves.txt", "leaves.units"]
    with SortedFile(path) as lines:
        for unit in (*units, alone, "unknown"):
            found = [lines.at(start).text for start in starts_of(unit, index)]
            expected = [leaf.line for leaf in leaves if leaf.unit == unit]
            assert found == (expected if len(expected) > 1 else [])
    path.write_bytes(b"")
    write_unit_index(path, index)
    assert starts_of(family, index) == []
