"""Plain values to attribute values and back."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regworkers_core.adapters.aws.tables import attribute, attributes, plain, plain_item

SCALARS = st.one_of(
    st.text(),
    st.booleans(),
    st.none(),
    st.binary(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=15,
)


def typed(value: Any) -> Any:
    """A form in which 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), value


@given(VALUES)
def test_a_value_survives_a_round_trip_with_its_type(value: Any) -> None:
    assert typed(plain(attribute(value))) == typed(value)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=5))
def test_an_item_survives_a_round_trip(item: dict[str, Any]) -> None:
    assert typed(plain_item(attributes(item))) == typed(item)


@example(2**63 - 1)
@example(2**63)
@example(-(2**63) - 1)
@given(st.integers())
def test_a_number_beyond_64_bits_is_read_as_the_nearest_float_because_the_replica_holds_no_other(
    number: int,
) -> None:
    found = plain({"N": str(number)})
    if -(2**63) <= number < 2**63:
        assert type(found) is int and found == number
    else:
        assert type(found) is float and found == float(number)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"N": "1E+3"}, 1000.0),
        ({"N": "-0.5"}, -0.5),
        ({"NS": ["3", "1", "2.5"]}, [1, 2.5, 3]),
        ({"SS": ["b", "a"]}, ["a", "b"]),
        ({"B": base64.b64encode(b"\x00\xff").decode()}, b"\x00\xff"),
        ({"BS": [base64.b64encode(b"b").decode(), b"a"]}, [b"a", b"b"]),
        ({"NULL": True}, None),
        ({"L": [{"M": {"deep": {"L": []}}}]}, [{"deep": []}]),
    ],
)
def test_kinds_that_only_dynamodb_has_are_read(value: dict[str, Any], expected: Any) -> None:
    assert typed(plain(value)) == typed(expected)


@pytest.mark.parametrize("value", [{1, 2}, object(), Decimal(1)], ids=lambda value: type(value).__name__)
def test_a_type_that_dynamodb_does_not_have_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        attribute({"deep": [value]})
