"""Until when: what operators type, and what is refused with a line that says what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.eligibility.invites.terms import MAX_DAYS, days_from, parse_ttl

NOW = seconds("2026-11-25T10:00:00Z") or 0.0


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("30", "2026-12-26T00:00:00.000Z"),
        ("30d", "2026-12-26T00:00:00.000Z"),
        (" 1 ", "2026-11-27T00:00:00.000Z"),
        ("2 days", None),
        ("2days", "2026-11-28T00:00:00.000Z"),
        ("2026-12-31", "2027-01-01T00:00:00.000Z"),
        ("2026-11-25", "2026-11-26T00:00:00.000Z"),
        ("2026-12-31T18:00:00Z", "2026-12-31T18:00:00.000Z"),
        ("2026-12-31T18:00:00+01:00", "2026-12-31T17:00:00.000Z"),
        ("2026-12-31 18:00", "2026-12-31T18:00:00.000Z"),
        ("1798761600", "2027-01-01T00:00:00.000Z"),
    ],
)
def test_days_dates_times_and_epoch_seconds_are_understood(text: str, until: str | None) -> None:
    if until is None:
        with pytest.raises(UsageError, match="cannot be read"):
            parse_ttl(text, NOW)
    else:
        assert iso(parse_ttl(text, NOW)) == until


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "1798761600000",
            r"milliseconds; 1798761600 seconds \(2027-01-01T00:00:00.000Z\) was probably meant",
        ),
        ("1798761600000000", r"microseconds; 1798761600 seconds"),
        ("2592000", "30 days in seconds was probably meant"),
        ("20261231", "neither days .* nor a time"),
        ("5000", "neither days .* nor a time"),
        ("5000d", "more than 3650 days"),
        ("1700000000", r"in the past \(2023-11-14"),
        ("0", "in the past"),
        ("-30", "in the past"),
        ("2026-11-24", "in the past"),
        ("2026-11-25T09:59:59Z", "in the past"),
        ("2050-01-01", "more than 3650 days ahead"),
        ("9999-12-31", "ahead"),
        ("31/12/2026", "cannot be read"),
        ("2026-02-30", "cannot be read"),
        ("next week", "cannot be read"),
        ("", "cannot be read"),
        ("1e9", "cannot be read"),
        ("30.5", "cannot be read"),
        ("9" * 20, "neither days"),
        ("9" * 5000, "cannot be read"),
    ],
)
def test_a_refusal_suggests_what_was_meant_and_lists_the_forms(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        parse_ttl(text, NOW)
    assert "days (30), a date (2026-12-31" in str(error.value)
    assert "\n" not in str(error.value)


@given(text=st.text(max_size=24) | st.from_regex(r"[0-9TZ:+.-]{1,24}", fullmatch=True))
def test_whatever_is_typed_is_a_moment_ahead_or_a_line_that_says_why_not(text: str) -> None:
    try:
        ttl = parse_ttl(text, NOW)
    except UsageError:
        return
    assert NOW < ttl <= NOW + (MAX_DAYS + 1) * 86_400


def test_the_same_days_mean_the_same_moment_all_day_and_never_less_than_that_many() -> None:
    midnight = seconds("2026-11-25T00:00:00Z") or 0.0
    assert len({days_from(30, midnight + hour * 3600) for hour in range(24)}) == 1
    assert days_from(30, midnight + 86_399) >= midnight + 86_399 + 30 * 86_400
