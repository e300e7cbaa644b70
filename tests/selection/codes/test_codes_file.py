"""A codes file as partners send it: every way a row can be wrong, and none of them ends the reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.adapters.files import Blank, MalformedLine, Reject, masked
from regworkers_core.domain.reasons import UsageError
from regworkers_core.selection.codes.importing import CodeRow, RejectedCode, read_columns, read_lines


def lines(folder: Path, content: bytes) -> list[CodeRow | Reject | Blank]:
    file = folder / "codes.csv"
    file.write_bytes(content)
    return list(read_lines(file))


@pytest.mark.parametrize(
    "content",
    [
        b"code,marketId\nAAAA-1,berlin\nBBBB-2,paris\n",
        b"marketId,code\nberlin,AAAA-1\nparis,BBBB-2",
        b"\xef\xbb\xbfcode,marketId\r\nAAAA-1,berlin\r\nBBBB-2,paris\r\n",
        b"code,marketId\rAAAA-1,berlin\rBBBB-2,paris\r",
        b'"code";"marketId"\n"AAAA-1";berlin\n BBBB-2 ; paris \n',
        b"code\tmarketId\nAAAA-1\tberlin\nBBBB-2\tparis\n",
    ],
    ids=["plain", "columns swapped", "BOM and CRLF", "CR", "semicolons, quotes, spaces", "tabs"],
)
def test_the_same_rows_are_read_from_every_dialect(tmp_path: Path, content: bytes) -> None:
    assert lines(tmp_path, content) == [
        CodeRow(2, "AAAA-1", "berlin", None),
        CodeRow(3, "BBBB-2", "paris", None),
    ]


def test_a_file_of_codes_alone_names_no_market(tmp_path: Path) -> None:
    assert lines(tmp_path, b"code\nAAAA-1\n") == [CodeRow(2, "AAAA-1", None, None)]
    assert read_columns(tmp_path / "codes.csv") == ("code",)


def test_wrong_rows_are_rejected_one_by_one_with_their_line(tmp_path: Path) -> None:
    content = (
        b"code,marketId\n"
        b"\n"
        b"   \n"
        b",berlin\n"
        b",\n"
        b"GOOD-1,berlin\n"
        b"BAD CODE,berlin\n"
        b"BAD|CODE,berlin\n"
        b"B\xe9\xff-12345,berlin\n"
        b'"OPEN-QUOTE,berlin\n'
        b"ONE-COLUMN\n"
        b"THREE,berlin,columns\n" + b"L" * 5000 + b",berlin\n" + b"X" * 65 + b",berlin\n"
        b"GOOD-2,paris\n"
    )
    found = lines(tmp_path, content)
    assert [each for each in found if isinstance(each, CodeRow)] == [
        CodeRow(6, "GOOD-1", "berlin", None),
        CodeRow(15, "GOOD-2", "paris", None),
    ]
    assert [each.number for each in found if isinstance(each, Blank)] == [2, 3]
    assert [(each.number, each.reason) for each in found if isinstance(each, Reject)] == [
        (4, RejectedCode.EMPTY_CODE),
        (5, RejectedCode.EMPTY_CODE),
        (7, RejectedCode.INVALID_CODE),
        (8, RejectedCode.INVALID_CODE),
        (9, RejectedCode.INVALID_CODE),
        (10, MalformedLine.WRONG_COLUMNS),
        (11, MalformedLine.WRONG_COLUMNS),
        (12, MalformedLine.WRONG_COLUMNS),
        (13, MalformedLine.LINE_TOO_LONG),
        (14, RejectedCode.INVALID_CODE),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"SECRET-CODE-1\nSECRET-CODE-2\n", "line 1 should be the header"),
        (b"code,market\nA,berlin\n", "line 1 should be the header"),
        (b"code,code\nA,B\n", "line 1 should be the header"),
        ("code\nA\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_file_without_a_header_is_refused_without_showing_a_code(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as error:
        lines(tmp_path, content)
    assert "SECRET-CODE" not in str(error.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        list(read_lines(tmp_path / "none.csv"))
    with pytest.raises(UsageError, match="directory"):
        list(read_lines(tmp_path))


def test_a_masked_code_is_too_short_to_be_used() -> None:
    assert [masked(code) for code in ("ABCDEFGH1", "ABCD", "A", "", "\x1b[31m\x00long")] == [
        "ABCD…",
        "AB…",
        "…",
        "…",
        "?[31…",
    ]
