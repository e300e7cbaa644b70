"""The registry finds every rule, and what is documented is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.eligibility import rules
from regworkers_core.eligibility.documented import rules_table
from regworkers_core.eligibility.rule import all_rules, rule_set
from regworkers_core.settings import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs" / "eligibility.md"
BEGIN, END = "<!-- rules: begin -->\n", "<!-- rules: end -->"
CODES = """MISSING_FIELD INVALID_FIELD INVALID_EMAIL CAMPAIGN_NOT_FOUND CAMPAIGN_NOT_OPEN CAMPAIGN_CLOSED MARKET_UNKNOWN
NOT_INVITED USER_REQUIRED BLOCKED PHONE_NOT_VERIFIED REGION AGE ALREADY_ENTERED HOUSEHOLD_LIMIT"""


def test_every_file_is_a_rule_and_is_found() -> None:
    files = [path for path in Path(rules.__path__[0]).glob("*.py") if path.name != "__init__.py"]
    assert sorted(path.stem.upper() for path in files) == sorted(rule.code for rule in all_rules())


def test_codes_and_positions_are_unique_and_the_order_is_fixed() -> None:
    assert [rule.code for rule in all_rules()] == CODES.split()
    positions = [rule.position for rule in all_rules()]
    assert sorted(set(positions)) == positions


def test_the_version_changes_with_a_revision_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from regworkers_core.eligibility import rule as module

    before = rule_set()
    assert rule_set.__wrapped__() == before
    first, *others = all_rules()
    monkeypatch.setattr(module, "all_rules", lambda: (replace(first, revision=2), *others))
    assert rule_set.__wrapped__() != before


def test_the_documented_table_is_what_the_code_says() -> None:
    text = DOCS.read_text(encoding="utf-8")
    shown = text.partition(BEGIN)[2].partition(END)[0]
    assert shown == rules_table(), (
        "put the output of `python -m regworkers_core.eligibility.documented` between the marks"
    )
