"""The order of states: what counts as a life that was erased."""

from __future__ import annotations

import pytest

from regworkers_core.domain.entry import is_erased

AT = "2026-11-26T09:00:00.500Z"


@pytest.mark.parametrize(
    ("created_at", "erased"),
    [
        ("2026-11-26T09:00:00.500Z", True),
        ("2026-11-26T09:00:00.501Z", False),
        # Without milliseconds, in another zone, finer than the contract.
        ("2026-11-26T09:00:00Z", True),
        ("2026-11-26T09:00:01Z", False),
        ("2026-11-26T18:59:00+10:00", True),
        ("2026-11-26T01:00:01-08:00", False),
        ("2026-11-26T09:00:00.500999Z", True),
        # No time, or none that a comparison can hold.
        ("", True),
        ("tomorrow", True),
        ("9999-12-31T23:59:59.999-14:00", True),
        ("0001-01-01T00:00:00+14:00", True),
    ],
)
def test_a_state_was_erased_if_it_was_created_up_to_the_erasure_however_its_writer_put_it(
    created_at: str, erased: bool
) -> None:
    assert is_erased(created_at, AT) is erased
    assert not is_erased(created_at, None)
