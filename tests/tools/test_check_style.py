"""What `make check` holds beside ruff and mypy: style and size; and the search for planted values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import check_style, size
from tools.demo.leaks import in_files

RECORD = '''
class Part(NamedTuple):
    """A part."""

    settings: Settings
    lag: float  # from the write to the acknowledgement
    # Where it began.
    started: str
    campaign_id: str
'''


def found(tmp_path: Path, text: str) -> list[str]:
    """The rules that a module breaks."""
    path = tmp_path / "module.py"
    path.write_text("from __future__ import annotations\n" + text)
    module = check_style.Module(path)
    return [each.rule for rule in check_style.RULES.values() for each in rule(module)]


@pytest.mark.parametrize(
    "text",
    [
        RECORD,
        RECORD.replace(
            "float  # from the write to the acknowledgement", 'float = Field(description="the lag")'
        ),
        # Three fields are explained by the docstring.
        RECORD.replace("  # from the write to the acknowledgement", "").replace("    campaign_id: str\n", ""),
        "def read(a, b, c, d, e, f, g, h): ...",
        "def read() -> tuple[int, ...]: ...",
        "def read() -> Iterator[tuple[int, str]]: ...",
        "# In an outage it is kept.\nX = 1  # By default, 1",
        "# The keys of a record\n# of Kafka.\n",
        "# It goes on\n# In the next line.\n",
        "def read():\n    import pymongo\n",
        "def read():\n    from regworkers_core.adapters.mongo.client import mongo_client\n",
        "def read():\n    # late: the module is written by a build\n    import made\n",
    ],
)
def test_what_keeps_the_style_is_left_alone(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (RECORD.replace("  # from the write to the acknowledgement", ""), "fields"),
        (
            RECORD.replace("class Part(NamedTuple)", "@dataclass\nclass Part").replace(
                "    # Where it began.\n", ""
            ),
            "fields",
        ),
        ('def read():\n    """As `write`, without a retry."""', "subjects"),
        ("# In the order of the stream.\nX = 1", "subjects"),
        ("X = 1  # Of a record", "subjects"),
        ("def read(a, b, c, d, e, f, g, *, h, i): ...", "parameters"),
        ("def read() -> tuple[int, str]: ...", "tuples"),
        ("def read() -> tuple[int, str] | None: ...", "tuples"),
        ("def read():\n    import json\n", "imports"),
        ("def read():\n    from regworkers_core.domain.reasons import Failure\n", "imports"),
    ],
)
def test_what_breaks_a_rule_is_found(tmp_path: Path, text: str, rule: str) -> None:
    assert found(tmp_path, text) == [rule]


def test_a_file_that_is_removed_during_the_search_is_skipped(tmp_path: Path) -> None:
    for name in ("a", "b-shm", "c"):
        (tmp_path / name).write_text(name)
    places = in_files(tmp_path)
    assert next(places) == ("file a", b"a")
    (tmp_path / "b-shm").unlink()
    assert list(places) == [("file c", b"c")]


MODULE = '''"""Explains
itself."""

import os
from pathlib import (
    Path,
)

# A comment.
TEXT = """
two lines of text"""


def act() -> str:
    """Acts."""

    return (  # both
        os.name
    )
'''


def test_explanations_blank_lines_and_imports_are_no_code() -> None:
    assert size.code_lines(MODULE) == 6
    assert size.code_lines("") == 0


def test_a_folder_above_its_limit_or_without_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    named = [
        name for name in size.sizes() if name not in {"regworkers_core/drains", "regworkers_core/engine"}
    ]
    page.write_text(
        "- `tests`: 10 lines, because few are enough.\n"
        "- `regworkers_core/drains`: 1 modules and 10,000 lines of code, because a drain was added.\n"
        + "".join(f"- `{name}`: 1,000 modules and 100,000 lines of code.\n" for name in named)
    )
    monkeypatch.setattr(size, "DECISION", page)
    drains, engine, tests = size.findings()
    assert re.fullmatch(r"regworkers_core/drains has \d+ modules, and its limit is 1", drains)
    assert engine == "regworkers_core/engine has no limit"
    assert re.fullmatch(r"tests have [\d,]+ lines, and their limit is 10", tests)
