"""Lists of invites and their ends, as partners and operators give them: no wrong line ends the reading."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.adapters.files import Blank, MalformedLine, Reject
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.eligibility.invites.lists import (
    InviteRow,
    Line,
    RejectedLine,
    local_file,
    read_rows,
    read_values,
)
from regworkers_core.eligibility.invites.terms import MAX_DAYS, days_from, parse_ttl
from regworkers_core.settings import PROJECT_ROOT

EMAIL = InviteType.EMAIL


def lines(folder: Path, content: bytes, type_: InviteType = EMAIL) -> list[Line]:
    file = folder / "invites.csv"
    file.write_bytes(content)
    return list(read_rows(local_file(file), str(file), type_))


@pytest.mark.parametrize(
    "content",
    [
        b"email\nuser1@example.com\nuser2@example.com\n",
        b"\xef\xbb\xbfemail\r\nuser1@example.com\r\nuser2@example.com\r\n",
        b"email\ruser1@example.com\ruser2@example.com",
        b'"email"\n"user1@example.com"\n"User2@EXAMPLE.com"\n',
        b'name;Email;\n"Doe; Jane";USER1@example.com;\nRo; user2@example.com ;x\n',
        b"EMAIL\tname\tname\nuser1@example.com\tA\tB\nuser2@example.com\t\t\n",
    ],
    ids=["plain", "BOM and CRLF", "CR", "quotes", "semicolons, mixed case, other columns", "tabs"],
)
def test_the_same_people_are_read_from_every_dialect(tmp_path: Path, content: bytes) -> None:
    assert lines(tmp_path, content) == [InviteRow(2, "user1@example.com"), InviteRow(3, "user2@example.com")]


def test_blank_lines_are_counted_and_wrong_ones_rejected_with_their_line_and_without_the_value(
    tmp_path: Path,
) -> None:
    content = (
        b"email,name\n"
        b"\n"
        b",Jane\n"
        b"no-mail-at-all,x\n"
        b"two@@example.com,x\n"
        b"caf\xe9@example.com,x\n"
        b"one@example.com\n"
        b'"open@example.com,x\n'
        b"good@example.com,x\n" + b"L" * 20_000 + b"@example.com,x\n" + b"\x00\x1b[31m@example.com,x\n"
        b"last@example.com,x"
    )
    found = lines(tmp_path, content)
    assert [each for each in found if isinstance(each, InviteRow)] == [
        InviteRow(9, "good@example.com"),
        InviteRow(12, "last@example.com"),
    ]
    assert [each.number for each in found if isinstance(each, Blank)] == [2]
    rejects = [each for each in found if isinstance(each, Reject)]
    assert [(each.number, each.reason) for each in rejects] == [
        (3, RejectedLine.EMPTY),
        (4, RejectedLine.INVALID_EMAIL),
        (5, RejectedLine.INVALID_EMAIL),
        (6, RejectedLine.INVALID_EMAIL),
        (7, MalformedLine.WRONG_COLUMNS),
        (8, MalformedLine.WRONG_COLUMNS),
        (10, MalformedLine.LINE_TOO_LONG),
        (11, RejectedLine.INVALID_EMAIL),
    ]
    assert all(len(each.found) <= 5 for each in rejects if each.reason is RejectedLine.INVALID_EMAIL)


def test_ids_keep_their_case_and_those_that_a_spreadsheet_destroyed_are_rejected(tmp_path: Path) -> None:
    content = b"memberId\nAbC-1\nabc-1\n4.00012E+15\n4E10\n\xff\xfe\n" + b"x" * 129 + b"\nA\xe2\x80\xaeB\n"
    assert lines(tmp_path, content, InviteType.MEMBER_ID) == [
        InviteRow(2, "AbC-1"),
        InviteRow(3, "abc-1"),
        Reject(4, RejectedLine.MANGLED_NUMBER, "4.00…"),
        InviteRow(5, "4E10"),
        Reject(6, RejectedLine.INVALID_ID, "\ufffd…"),
        Reject(7, RejectedLine.INVALID_ID, "xxxx…"),
        Reject(8, RejectedLine.INVALID_ID, "A…"),
    ]


def test_international_addresses_meet_in_one_form(tmp_path: Path) -> None:
    content = "email\nZoe\u0308@B\u00dcCHER.example\nZo\u00eb@xn--bcher-kva.example\n".encode()
    one, two = lines(tmp_path, content)
    assert isinstance(one, InviteRow) and isinstance(two, InviteRow) and one.value == two.value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty; its first line should be the header `email`"),
        (b"\n \n", "empty"),
        (b"globalUserId\nabc\n", "line 1 should be the header `email` .*, found globalUserId"),
        (
            b"first.fan@example.com\nsecond@example.com\n",
            "line 1 should be the header `email` .*, found firs…",
        ),
        (b"email,EMAIL\na@example.com,b@example.com\n", "found email, EM…"),
        (b"mail\na@example.com\n", "found ma…"),
        ("email\na@example.com\n".encode("utf-16"), "UTF-16 text; save it as CSV in UTF-8"),
    ],
)
def test_a_wrong_header_says_what_was_expected_and_found_without_personal_data(
    tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as error:
        lines(tmp_path, content)
    assert "first.fan" not in str(error.value)


def test_a_header_alone_is_an_empty_list(tmp_path: Path) -> None:
    assert lines(tmp_path, b"email\n") == [] == lines(tmp_path, b"email")


def test_typed_values_are_numbered_from_1() -> None:
    assert list(read_values([" A@example.com", "no-mail"], EMAIL)) == [
        InviteRow(1, "a@example.com"),
        Reject(2, RejectedLine.INVALID_EMAIL, "no-…"),
    ]


def test_the_example_beside_the_default_place_can_be_read() -> None:
    sample = PROJECT_ROOT / "tools" / "uploadInvites" / "invites.example.csv"
    assert len(list(read_rows(local_file(sample), str(sample), EMAIL))) == 2


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
