"""Nothing in an id, an attribute or a diff controls the operator's terminal."""

from __future__ import annotations

import io
import re

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, Group
from rich.text import Text

from regworkers_core.cli import main, output
from regworkers_core.cli.output import Format, _Visible, answer, facts, rows, visible
from regworkers_core.observability.logs import configure_logging

# ESC, CSI as one character, DEL, the turn of direction, Unicode's ends of lines, and those that rich drops.
HOSTILE = "a\x1b[2Jb\x9b2Kc\x7fd\u202ee\u2028f\u2029g\u2066h\rj\x07k\bl"
SHOWN = "a\\x1b[2Jb\\x9b2Kc\\x7fd\\u202ee\\u2028f\\u2029g\\u2066h\\rj\\x07k\\x08l"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def test_control_characters_are_escaped_and_characters_of_every_script_stay() -> None:
    assert visible(HOSTILE) == SHOWN
    kept = "Zoë Łukasz مرحبا שלום 東京 می\u200cخواهم 👩\u200d🚀 \xa0\xad"
    assert visible(kept) == kept
    assert visible("a\nb", keep="\n") == "a\nb" and visible("a\nb\ud800") == "a\\nb\\ud800"


@given(st.text(st.characters(exclude_categories=[])))
def test_no_text_acts_whatever_it_holds(text: str) -> None:
    assert not ACTS.search(visible(text)) and isinstance(visible(text).encode(), bytes)


@pytest.mark.parametrize(
    "text",
    [
        Text(HOSTILE),
        Group(Text("fine"), Text(HOSTILE)),
        rows(("id", HOSTILE), [(HOSTILE, 1), ([HOSTILE], None)], title=HOSTILE),
        facts({HOSTILE: HOSTILE, "nested": {"value": HOSTILE}}, title=HOSTILE),
    ],
)
def test_no_answer_acts_upon_a_terminal(text: Text, capsys: pytest.CaptureFixture[str]) -> None:
    answer({}, Format.TEXT, text)
    out = capsys.readouterr().out
    assert not ACTS.search(out) and "\\x1b[2J" in out


def test_a_cell_keeps_its_width_and_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    answer({"entryId": "x\rfine\x07", "command": "regworkers trace \x1b[8m"}, Format.TEXT)
    out = capsys.readouterr().out
    assert "x\\rfine\\x07" in out and "trace \\x1b[8m" in out
    assert len({len(line) for line in out.splitlines()[:3]}) == 1


def test_json_is_the_same_document_without_what_acts(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"id": HOSTILE, "name": "Łukasz", "plain\x7f": ["\x7f"]}
    answer(document, Format.JSON)
    out = capsys.readouterr().out
    assert not ACTS.search(out) and orjson.loads(out) == document and "Łukasz" in out


def test_an_error_shows_what_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main._leave(f"no entry {HOSTILE}\nsecond line")
    assert left.value.code == output.TROUBLE
    assert capsys.readouterr().err == f"regworkers: no entry {SHOWN}\nsecond line\n"


def test_a_line_of_the_log_shows_what_it_quotes(capfd: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        configure_logging(human=True)
        structlog.get_logger().warning("entry refused", entry=HOSTILE)
    finally:
        structlog.configure(**before)
    assert "\\x1b[2J" in capfd.readouterr().err


def test_at_a_narrow_terminal_a_sentence_is_below_its_names_and_a_pipe_gets_the_table() -> None:
    what = "12 dead letters wait in replication-queue-dlq, the oldest since 22:00:34"
    table = rows(
        ("since", "severity", "key", "what"), [("22:00:34", "critical", "dead-letters:replication", what)]
    )
    shown = {}
    for terminal, width in ((True, 60), (False, 60), (True, 140)):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=width, soft_wrap=True)
        console.print(_Visible(table))
        shown[terminal, width] = console.file.getvalue().splitlines()
    narrow = shown[True, 60]
    assert narrow[0].split() == ["22:00:34", "critical", "dead-letters:replication"]
    assert " ".join(" ".join(narrow[1:]).split()) == f"what: {what}" and max(map(len, narrow)) <= 60
    assert all(
        "what" in lines[1] and "22:00:34" not in lines[1] for lines in (shown[False, 60], shown[True, 140])
    )


def test_at_80_columns_names_are_never_broken_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ["selection-failures", "archive_events_often", "dependency-down:dynamodb", "a" * 40]
    prose = "draws or markets do not continue, and an operator has to act before they do"
    lines = [(name, name, prose, f"regworkers runbook {name}") for name in names]
    answer({}, Format.TEXT, rows(("runbook", "dependencies", "text", "command"), lines))
    out = capsys.readouterr().out
    assert all(out.count(f" {name} ") >= 2 for name in names)
    assert "dependencies" in out and "…" not in out
