"""The terms of a further phase, and what cannot be asked of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bson
import pytest

from regworkers_core.domain.campaign import Campaign, CampaignStatus, Market, Reserve
from regworkers_core.domain.reasons import UsageError
from regworkers_core.selection.draw.terms import PhaseTerms, TopUp, parse_strikes, require_room

BEFORE = PhaseTerms(
    markets=(
        Market("berlin", "berlin", 10, (Reserve("loyal", 2),), (Reserve("loyal", 3), Reserve("local", 1))),
        Market("paris", "paris", 5),
    ),
    wins_per_unit=2,
    waitlist_size=3,
    strikes=(("b", "FRAUD"),),
)

CAMPAIGN = Campaign("spring", "spring", "Spring", CampaignStatus.OPEN, "", "", BEFORE.markets)


def top_up(**changes: Any) -> TopUp:
    return TopUp(
        **{"capacities": {"berlin": 12}, "reserves": {}, "strikes": (), "reason": "more seats", **changes}
    )


def test_more_seats_keep_everything_else_and_the_old_reserves_are_spent() -> None:
    after = top_up().after([BEFORE], {"berlin": 10})
    assert [(each.capacity, each.reserves) for each in after.markets] == [(12, ()), (5, ())]
    assert [each.later_reserves for each in after.markets] == [each.later_reserves for each in BEFORE.markets]
    assert (after.wins_per_unit, after.waitlist_size, after.strikes) == (2, 3, BEFORE.strikes)


def test_strikes_are_cumulative_and_sorted() -> None:
    after = top_up(strikes=(("a", "REFUND"),)).after([BEFORE], {})
    assert after.strikes == (("a", "REFUND"), ("b", "FRAUD"))


@pytest.mark.parametrize("terms", [BEFORE, replace(BEFORE, waitlist_size=None, reason="a hall")])
def test_terms_survive_the_draws_document(terms: PhaseTerms) -> None:
    assert PhaseTerms.parse(terms.as_fields()) == terms


@pytest.mark.parametrize(
    ("request_", "pinned", "says"),
    [
        (top_up(capacities={"atlantis": 1}), {}, "atlantis"),
        (top_up(capacities={"berlin": 9}), {}, "at least 10, that of the phase before; found 9"),
        (top_up(reserves={"berlin": (Reserve("loyal", 3),)}), {"berlin": 10}, "exceed the 2 on offer"),
        (
            top_up(reserves={"berlin": (Reserve("fan@example.com", 1),)}),
            {},
            "berlin: seats for segment .no id, so not repeated. were not declared .*: loyal 3, local 1",
        ),
        (
            top_up(reserves={"paris": (Reserve("loyal", 1),)}),
            {},
            r"paris: .*'loyal' were not declared .*: none\)",
        ),
        (top_up(reserves={"berlin": (Reserve("loyal", -1),)}), {}, "0 seats or more, found -1 for loyal"),
        (top_up(reserves={"berlin": (Reserve("loyal", 4),)}), {}, "4 seats for loyal since phase 2"),
        (
            top_up(reserves={"berlin": (Reserve("local", 1), Reserve("loyal", 1))}),
            {},
            "segment loyal is not next in laterReserves",
        ),
        (top_up(reason=" "), {}, "needs a reason"),
        (top_up(reason="two\nlines"), {}, "one line of at most 500"),
        (top_up(reason="x" * 501), {}, "one line of at most 500"),
        (top_up(reason="half \ud800 a character"), {}, "one line of at most 500"),
        (top_up(strikes=(("b", "REFUND"),)), {}, "FRAUD already"),
        (top_up(strikes=(("b", "no good"),)), {}, "REASON"),
    ],
)
def test_terms_that_cannot_be_met_are_refused_with_the_numbers(
    request_: TopUp, pinned: dict[str, int], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        request_.after([BEFORE], pinned)


def test_seats_that_a_phase_reserved_are_used_up_whether_they_were_filled_or_not() -> None:
    second = top_up(reserves={"berlin": (Reserve("loyal", 2),)}).after([BEFORE], {"berlin": 10})
    third = top_up(capacities={}, reserves={"berlin": (Reserve("loyal", 1), Reserve("local", 1))})
    assert third.after([BEFORE, second], {"berlin": 10}).markets[0].reserves[0].seats == 1
    with pytest.raises(UsageError, match=r"4 seats for loyal since phase 2, .* have 3"):
        replace(third, reserves={"berlin": (Reserve("loyal", 2),)}).after([BEFORE, second], {"berlin": 10})


def test_no_seat_lapses_before_there_are_winners() -> None:
    with pytest.raises(UsageError, match="UNCLAIMED lets a winner's seat lapse"):
        PhaseTerms.of(CAMPAIGN, [("a", "UNCLAIMED")])


def test_a_strikes_file_names_its_bad_line() -> None:
    assert parse_strikes("b|FRAUD\r\n\na|REFUND\n") == (("a", "REFUND"), ("b", "FRAUD"))
    with pytest.raises(UsageError, match="line 2"):
        parse_strikes("a|FRAUD\nb\n")
    with pytest.raises(UsageError, match="twice"):
        parse_strikes("a|FRAUD\na|FRAUD\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a|BOT\nfan@example.com|BOT\n", "line 2: .* the ref is not"),
        ("a|BOT\n\nb|for fan@example.com\n", "line 3: .* the reason has"),
        ("a|BOT fan@example.com\n", "line 1: .* the reason has"),
        ("fan@example.com|BOT\nfan@example.com|BOT\n", "line 1: .* the ref is not"),
        ("a|BOT\nb|BOT\na|FRAUD\n", "line 3: the ref of line 1 is listed twice"),
    ],
)
def test_a_bad_line_of_strikes_is_named_by_its_number_and_its_text_is_not_repeated(
    text: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        parse_strikes(text)
    assert "example.com" not in str(refused.value)


def test_a_further_phase_is_not_opened_on_terms_that_no_manifest_could_hold() -> None:
    with pytest.raises(UsageError, match="capacity should be at most"):
        top_up(capacities={"berlin": 2**53}).after([BEFORE], {})


def struck(number: int, ref: str = "{:032x}") -> PhaseTerms:
    return replace(BEFORE, strikes=tuple((ref.format(each), "BOT") for each in range(number)))


def test_more_strikes_than_one_document_takes_are_refused_with_the_number_that_fits_and_what_helps() -> None:
    fits = 225_847
    require_room([struck(fits)])
    with pytest.raises(
        UsageError, match=r"225,848 strikes are too many .* at most 225,847 .* at their source"
    ):
        require_room([struck(fits + 1)])
    # Those of each phase are kept.
    require_room([struck(100_000), struck(fits - 100_000)])
    with pytest.raises(UsageError, match="at most 125,847 of this length, in addition to those"):
        require_room([struck(100_000), struck(fits - 100_000 + 1)])


def test_the_strikes_that_a_draw_keeps_leave_room_in_its_document() -> None:
    # Of short ones there are most, and each has bytes around it.
    most = struck(376_411, "{:06x}")
    require_room([most])
    assert len(bson.encode(most.as_fields())) < 15 * 1024 * 1024
