"""The rules have a fixed order and a version."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regworkers_core.eligibility import rules
from regworkers_core.eligibility.rules import RULES, rule_set

CODES = """MISSING_FIELD INVALID_FIELD INVALID_EMAIL CAMPAIGN_NOT_FOUND CAMPAIGN_NOT_OPEN CAMPAIGN_CLOSED MARKET_UNKNOWN
NOT_INVITED USER_REQUIRED BLOCKED PHONE_NOT_VERIFIED REGION AGE ALREADY_ENTERED HOUSEHOLD_LIMIT"""


def test_the_order_of_the_rules_is_fixed() -> None:
    assert [rule.code for rule in RULES] == CODES.split()


def test_each_function_is_a_rule_of_its_code() -> None:
    assert [rule.judge.__name__ for rule in RULES] == [f"_{rule.code.lower()}" for rule in RULES]


def test_the_version_of_the_rules_is_the_one_that_published_verdicts_name() -> None:
    assert rule_set() == "15-24e9f3aee8d7", "a rule has changed: put its new version here"


def test_the_version_changes_with_a_revision_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rule_set()
    assert rule_set.__wrapped__() == before
    first, *others = RULES
    monkeypatch.setattr(rules, "RULES", (replace(first, revision=2), *others))
    assert rule_set.__wrapped__() != before
