"""The check of the style that ruff does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_style

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
