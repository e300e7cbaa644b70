"""What is locked, what of it is outdated, and what of it is known to be vulnerable.

The lock alone is always at hand. The package index (through uv) and an advisory service (through pip-audit) may be
away: then a list is None, which is not "none", and a note says why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from regworkers_core.domain.reasons import UsageError

# One package of a lock as uv writes it: name==version ; marker.
_LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)")
# Asking about two hundred packages takes some ten seconds from a cold cache.
_PATIENCE_SECONDS = 120.0
_OUTDATED = ("-m", "uv", "pip", "list", "--outdated", "--format", "json", "--python", sys.executable)
_AUDIT = (
    "-m",
    "pip_audit",
    "--no-deps",
    "--disable-pip",
    "--format",
    "json",
    "--progress-spinner",
    "off",
    "--timeout",
    "10",
)

# Runs a module of this Python and gives back what it printed; raises Away.
Run = Callable[[Sequence[str]], bytes]
Lock = Mapping[str, frozenset[str]]


class Away(Exception):
    """A tool is not installed, or whom it asks does not answer. The text says which."""


@dataclass(frozen=True, slots=True)
class Outdated:
    name: str
    locked: str
    latest: str

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "locked": self.locked, "latest": self.latest}


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """`fixed_in` are the versions that mend it, as far as known."""

    name: str
    locked: str
    id: str
    fixed_in: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "locked": self.locked, "id": self.id, "fixedIn": list(self.fixed_in)}


@dataclass(frozen=True, slots=True)
class DependencyReport:
    """`outdated` and `vulnerable` are None where nobody could be asked. `not_audited` are packages that the advisory
    service could not judge: nothing is known about them.
    """

    packages: int
    outdated: tuple[Outdated, ...] | None
    vulnerable: tuple[Vulnerability, ...] | None
    not_audited: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "packages": self.packages,
            "outdated": None if self.outdated is None else [each.as_dict() for each in self.outdated],
            "vulnerable": None if self.vulnerable is None else [each.as_dict() for each in self.vulnerable],
            "notAudited": list(self.not_audited),
            "notes": list(self.notes),
        }


def read_dependencies(lock: Path, *, run: Run | None = None) -> DependencyReport:
    """Ask the package index and the advisory service about what `lock` names. Whoever is away is a note; raises
    UsageError only for a lock that cannot be read.
    """
    try:
        locked = parse_lock(lock.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{lock}: cannot be read ({type(error).__name__})") from None
    if not locked:
        raise UsageError(f"{lock}: names no package as name==version")
    ask = run or _run
    notes: list[str] = []
    outdated: tuple[Outdated, ...] | None = None
    try:
        outdated = parse_outdated(ask(_OUTDATED), locked)
    except Away as away:
        notes.append(f"outdated: {away}")
    vulnerable: tuple[Vulnerability, ...] | None = None
    skipped: tuple[str, ...] = ()
    try:
        vulnerable, skipped = parse_audit(ask((*_AUDIT, "--requirement", str(lock))))
        if skipped:
            notes.append(f"vulnerable: nothing is known about {len(skipped)} of {len(locked)} packages")
    except Away as away:
        notes.append(f"vulnerable: {away}")
    return DependencyReport(len(locked), outdated, vulnerable, skipped, tuple(notes))


def parse_lock(text: str) -> Lock:
    """Versions by comparable name; a package may have one for each version of Python."""
    found: dict[str, frozenset[str]] = {}
    for line in text.splitlines():
        if match := _LOCKED.match(line):
            name = _comparable(match[1])
            found[name] = found.get(name, frozenset()) | {match[2]}
    return found


def parse_outdated(answer: bytes, locked: Lock) -> tuple[Outdated, ...]:
    """What uv says of this environment, as far as it is locked. Raises Away for what is no list of packages."""
    try:
        found = [
            (_comparable(each["name"]), each["version"], each["latest_version"]) for each in _json(answer)
        ]
    except (KeyError, TypeError, AttributeError):
        raise Away("uv answered with something else than a list of packages") from None
    return tuple(
        Outdated(name, version, latest)
        for name, version, latest in sorted(found)
        if version in locked.get(name, ())
    )


def parse_audit(answer: bytes) -> tuple[tuple[Vulnerability, ...], tuple[str, ...]]:
    """Vulnerabilities, and packages that could not be judged. Raises Away when none could be: an advisory service
    that knows no package at all is a mirror without advisories, and its silence no good news.
    """
    try:
        packages = _json(answer)["dependencies"]
        skipped = tuple(sorted({_comparable(each["name"]) for each in packages if "skip_reason" in each}))
        judged = [each for each in packages if "skip_reason" not in each]
        found = tuple(
            Vulnerability(_comparable(each["name"]), each["version"], flaw["id"], tuple(flaw["fix_versions"]))
            for each in judged
            for flaw in each["vulns"]
        )
    except (KeyError, TypeError, AttributeError):
        raise Away("pip-audit answered with something else than a list of packages") from None
    if packages and not judged:
        raise Away("the advisory service knows none of the packages: is it a mirror without advisories?")
    return found, skipped


def _comparable(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _json(answer: bytes) -> Any:
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None


def _run(words: Sequence[str]) -> bytes:
    tool = words[1].replace("_", "-")
    try:
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            check=False,
            timeout=_PATIENCE_SECONDS,
            # Without a terminal nobody is asked for a login.
            stdin=subprocess.DEVNULL,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired:
        raise Away(f"{tool} had no answer within {_PATIENCE_SECONDS:.0f} s: offline?") from None
    if b"No module named" in done.stderr and not done.stdout:
        raise Away(f"{tool} is not installed here: it comes with the extra `dev`")
    # pip-audit ends with 1 when it has found something; without an answer on stdout it is away.
    if not done.stdout.strip():
        raise Away(f"{tool} got no answer (exit code {done.returncode}): offline?")
    return done.stdout
