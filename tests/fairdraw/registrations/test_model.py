"""The model and the code of the product, which share no step, agree on trees of registrations."""

from __future__ import annotations

from random import Random

import pytest

from fairdraw.errors import DrawError
from fairdraw.log import tree
from fairdraw.maths.registration import RegistrationTree, registration_leaf
from tests.fairdraw.registrations import model
from tests.fairdraw.registrations.campaigns import Operator
from tests.fairdraw.registrations.model import Wrong


def grown(entries: list[bytes]) -> RegistrationTree:
    made = RegistrationTree()
    for entry in entries:
        made.add(entry)
    return made


@pytest.mark.parametrize("number", range(20))
def test_a_tree_says_of_each_registration_what_the_model_says(number: int) -> None:
    operator = Operator(number, size=150)
    standing, made = model.standing(operator.entries), grown(operator.entries)
    assert made.root == model.root(operator.entries)
    assert standing.numbers() == {each: getattr(made, each) for each in ("notices", "withdrawn", "erased")}
    for index in range(len(operator.entries) + 1):
        registration = made.at(index)
        assert (registration is not None) is (index in standing.leaves)
        if registration is not None:
            assert registration.current == standing.leaves[index]
            assert (registration.ended or "") == standing.gone.get(index, "")
    for fan in operator.fans:
        assert registration_leaf(*fan.mine) == fan.mine.leaf == standing.leaves[fan.index]


@pytest.mark.parametrize("number", range(100))
def test_what_is_no_tree_to_the_model_is_none_to_the_product(number: int) -> None:
    operator = Operator(number)
    random, entries = Random(number), operator.entries
    fan = operator.one()
    other = next(each for each in operator.fans if each.index != fan.index)
    gone = model.notice(fan.index, "withdrawn")
    forged = random.choice(
        [
            [*entries, entries[fan.index]],
            [*entries, model.notice(len(entries) + random.randrange(3), "erased")],
            [*entries, gone, model.notice(fan.index, random.choice(("withdrawn", "erased")))],
            [*entries, gone, model.notice(fan.index, "unit", "0" * 64)],
            [*entries, entries[other.index]],
            [*entries, model.notice(fan.index, "unit", other.mine.leaf)],
            [*entries, gone + b" "],
            [*entries, gone.replace(b"|-", b"|" + b"0" * 64)],
            [*entries, b"vfnote1|0%d|withdrawn|-" % fan.index],
            [*entries, fan.mine.leaf.upper().encode()],
            [*entries, model.notice(fan.index, "moved")],
        ]
    )
    with pytest.raises(Wrong):
        model.standing(forged)
    with pytest.raises(DrawError):
        grown(forged)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 300, 512, 513])
def test_tiles_of_the_model_are_those_of_the_product(size: int) -> None:
    entries, grown = [b"%064x" % number for number in range(size)], tree.GrowingTree()
    for entry in entries:
        grown.append(entry)
    made = dict((*grown.full(), *grown.partial()))
    assert made == model.tiles(entries)
    assert grown.root().hex() == model.root(entries)
    assert model.read_entries(made.get, size) == entries


def test_a_tile_of_a_large_tree_is_where_the_product_has_it() -> None:
    for size in (256 * 1_234_067, 256 * 1_000 + 3):
        number, width = (size - 1) // 256, size % 256
        assert model.tile_path("entries", number, width) == tree.bundle_path(size)
