"""Keeps private words out of the project: `docs/glossary.md` has the terms to use. Exit code 1 names each line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Word or phrase, and what to write instead. Identifiers count: `keep_house` and `DeadLetterOffice` are read as words.
WORDS = {
    "anew": "again",
    "anybody": "name who: an operator, a fan, a caller",
    "a look": "check, read, snapshot",
    "at one look": "in one view",
    "away": "unavailable; or rephrase",
    "glance": "check, read",
    "impatient": "with short time-outs",
    "keep house": "apply retention",
    "mend": "repair, fix",
    "mended": "repaired, fixed",
    "mends": "repairs, fixes",
    "nobody": "name who, or use the passive",
    "of old": "legacy, former",
    "seldom": "rarely",
    "so many": "give the number, or `at most N`",
    "somebody": "name who: an operator, a fan, a caller",
    "stands": "exists, is current, remains",
    "stood": "existed, remained",
    "telling": "notifying, reporting",
    "tidied": "deleted",
    "tidy": "apply retention, clean up",
    "told": "notified, reported",
    "truth": "source, actual state",
    "truths": "sources, actual states",
    "untold": "not notified",
    "whoever": "name who: an operator, a fan, a caller",
}
# A letter is a dead letter or a character.
_LETTER = re.compile(r"(?<!dead )\bletters?\b(?! (case|of the alphabet))")
# Public names stay: keys of JSON documents, a column, a sentence that receipts contain;
_PUBLIC = re.compile(
    r"""letters_closed|alsoAway|["']letters["']|["']told["']|,told,|whoever held the secret"""
)
# keys of alerts, wherever they are written; and what a standby does.
_KEYS = re.compile(r"\bmongo away\b|\bstands by\b")
_SKIPPED = (".png", ".gz", ".lock", ".json", "check_words.py", "docs/glossary.md")
_SUBWORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\n")
_BANNED = re.compile(r"\b(" + "|".join(sorted(map(re.escape, WORDS), key=len, reverse=True)) + r")\b")


def findings(text: str) -> list[tuple[int, str, str]]:
    """(line, word, what to write instead), by line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        plain = _KEYS.sub("", " ".join(_SUBWORDS.findall(_PUBLIC.sub("", line))).lower())
        found += [(number, match[1], WORDS[match[1]]) for match in _BANNED.finditer(plain)]
        found += [(number, match[0], "dead letter") for match in _LETTER.finditer(plain)]
    return found


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    hits = 0
    for name in listed:
        if name.endswith(_SKIPPED) or not Path(name).is_file():
            continue
        for number, word, instead in findings(Path(name).read_text(encoding="utf-8")):
            hits += 1
            sys.stdout.write(f"{name}:{number}: `{word}`: {instead}\n")
    return 1 if hits else 0


if __name__ == "__main__":
    sys.exit(main())
