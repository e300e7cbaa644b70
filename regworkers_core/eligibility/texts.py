"""Which texts are taken from a fan, and what is wrong with the others: total, and quick on hostile ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from regworkers_core.domain.grammar import field_name_problem

# Characters. Far above the longest names that people have, far below what an item of the table can hold.
MAX_NAME = 200
# Of globalUserId and memberId: as an invite's key they must fit into the table's 1,024 bytes.
MAX_ID = 128
MAX_SLUG = 128
MAX_REGION = 64
MAX_MARKETS = 100
# Of `attributes`: values in all, characters in all (keys included), levels. DynamoDB ends at 400 KB and 32 levels.
MAX_VALUES, MAX_CHARACTERS, MAX_LEVELS = 1_000, 32_768, 16
_INT64 = 2**63

# The Unicode property Bidi_Control. They make a text look like another one, and no name needs them: letters carry
# their direction themselves.
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Control characters, and halves of a surrogate pair, which are no characters.
_REFUSED_CATEGORIES = ("Cc", "Cs")
_UNSEEN = ("Cf", "Zs", "Zl", "Zp", "Mn")


def wrong_type(wanted: str, value: object) -> str:
    return f"should be {wanted}, found {type(value).__name__}"


def text_problem(text: str, most: int) -> str | None:
    """What is wrong with a text of at most `most` characters, or None. Letters of every script are welcome."""
    if len(text) > most:
        return f"is longer than {most} characters"
    if text.isascii() and text.isprintable():
        return None
    for character in text:
        if character in BIDI_CONTROLS:
            return (
                f"holds a control character of writing direction (U+{ord(character):04X}), which is refused"
            )
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            return f"holds a control character (U+{ord(character):04X}), which is refused"
    return None


def is_blank(text: str) -> bool:
    """Whether there is nothing to see in it. Only for texts whose length is checked."""
    stripped = text.strip()
    if stripped.isascii():
        return not stripped
    return all(unicodedata.category(character) in _UNSEEN for character in stripped)


def attributes_problem(value: Mapping[Any, Any]) -> str | None:
    """What is wrong with the free `attributes`, or None: too much, too deep, or what no table can hold."""
    values = characters = 0
    left: list[tuple[Any, int]] = [(value, 1)]
    while left:
        each, level = left.pop()
        values += 1
        if values > MAX_VALUES:
            return f"holds more than {MAX_VALUES} values"
        if level > MAX_LEVELS:
            return f"is nested deeper than {MAX_LEVELS} levels"
        if isinstance(each, Mapping):
            for name in each:
                if not isinstance(name, str):
                    return f"has a name that {wrong_type('a text', name)}"
                if problem := field_name_problem(name):
                    return problem
                left.append((name, level))
            left.extend((item, level + 1) for item in each.values())
        elif isinstance(each, list | tuple):
            left.extend((item, level + 1) for item in each)
        elif isinstance(each, str):
            characters += len(each)
            if characters > MAX_CHARACTERS:
                return f"holds more than {MAX_CHARACTERS} characters"
            if problem := text_problem(each.replace("\n", " ").replace("\t", " "), MAX_CHARACTERS):
                return problem
        elif isinstance(each, float):
            if each and not 1e-130 < abs(each) < 1e125:
                return "holds a number that no table can hold"
        elif isinstance(each, int) and not -_INT64 <= each < _INT64:
            return "holds a number of more than 64 bits"
        elif each is not None and not isinstance(each, int):
            return f"holds a value that {wrong_type('JSON', each)}"
    return None
