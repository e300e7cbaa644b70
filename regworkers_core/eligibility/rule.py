"""What a rule is, and how all of them are found: every module in `rules/` holds one, as `RULE`.

To add a rule, add a file there and a test. Nothing else lists them: the judge, the version of the rule set and the
table in docs/eligibility.md follow from the files.
"""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

from regworkers_core.eligibility.case import Case


@dataclass(frozen=True, slots=True)
class Rule:
    """`judge` returns None for a subject that passes, else the detail for the operator: names of fields, numbers
    and terms of the campaign, never a value that the fan gave.

    `position` orders rules and with them reasons (unique, in steps of 10; the first that fails is the primary
    one). `fails_when` and `needs` are for the documentation. Raise `revision` with every change of what the rule
    says, so that the version of the rule set changes, too.
    """

    position: int
    code: str
    fails_when: str
    needs: tuple[str, ...]
    message: str
    judge: Callable[[Case], str | None]
    revision: int = 1


@lru_cache(maxsize=1)
def all_rules() -> tuple[Rule, ...]:
    """By position."""
    from regworkers_core.eligibility import rules

    found = (
        import_module(f"{rules.__name__}.{module.name}").RULE
        for module in pkgutil.iter_modules(rules.__path__)
    )
    return tuple(sorted(found, key=lambda rule: rule.position))


@lru_cache(maxsize=1)
def rule_set() -> str:
    """The version of the rules: equal for equal rules, `<number of rules>-<hash>`."""
    rules = all_rules()
    text = "\n".join(f"{rule.position} {rule.code} {rule.revision}" for rule in rules)
    return f"{len(rules)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
