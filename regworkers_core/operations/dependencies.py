"""Locked packages: which are outdated (`uv pip list --outdated`), and which are known to be vulnerable (pip-audit).

If a tool or its service is unavailable, its list is None, which is not "none", and a note says why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from fairdraw.documents import as_document
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings.documents import to_install

# Installed with the package, so that the image has it, too.
LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
# One package of a lock as uv writes it: name==version ; marker.
_LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)")
# Two hundred packages take about ten seconds with a cold cache.
_PATIENCE_SECONDS = 120.0
_OUTDATED = ("-m", "uv", "pip", "list", "--outdated", "--format", "json", "--python", sys.executable)
_AUDIT = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")

# Runs a module of this Python and returns its output; raises ToolUnavailable.
Run = Callable[[Sequence[str]], bytes]
Lock = Mapping[str, frozenset[str]]


class ToolUnavailable(Exception):
    """A tool is not installed, or its service does not answer. The text says which."""


@dataclass(frozen=True, slots=True)
class Outdated:
    name: str
    locked: str
    latest: str


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """A known vulnerability of a locked package."""

    name: str
    # The version.
    locked: str
    # That of the advisory.
    id: str
    # The versions that fix it, as far as known.
    fixed_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DependencyReport:
    """The state of the locked packages."""

    # How many are locked.
    packages: int
    # None if its tool is unavailable.
    outdated: tuple[Outdated, ...] | None
    # None if its tool is unavailable.
    vulnerable: tuple[Vulnerability, ...] | None
    # Packages that the advisory service does not know.
    not_audited: tuple[str, ...] = ()
    # Why a tool is unavailable.
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return as_document(self)


def read_dependencies(lock: Path, *, run: Run | None = None) -> DependencyReport:
    """Check the packages of `lock`. An unavailable tool becomes a note. Raises UsageError for an unreadable lock."""
    try:
        locked = parse_lock(lock.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{lock}: cannot be read ({type(error).__name__})") from None
    if not locked:
        raise UsageError(f"{lock}: contains no package as name==version")
    run = run or _run
    notes: list[str] = []
    outdated: tuple[Outdated, ...] | None = None
    try:
        outdated = parse_outdated(run(_OUTDATED), locked)
    except ToolUnavailable as error:
        notes.append(f"outdated: {error}")
    vulnerable: tuple[Vulnerability, ...] | None = None
    skipped: tuple[str, ...] = ()
    try:
        vulnerable, skipped = parse_audit(run((*_AUDIT, "--timeout", "10", "--requirement", str(lock))))
        if skipped:
            notes.append(f"vulnerable: nothing is known about {len(skipped)} of {len(locked)} packages")
    except ToolUnavailable as error:
        notes.append(f"vulnerable: {error}")
    return DependencyReport(len(locked), outdated, vulnerable, skipped, tuple(notes))


def parse_lock(text: str) -> Lock:
    """Versions by normalized name; a package may have one for each version of Python."""
    found: dict[str, frozenset[str]] = {}
    for match in filter(None, map(_LOCKED.match, text.splitlines())):
        name = _normalized(match[1])
        found[name] = found.get(name, frozenset()) | {match[2]}
    return found


def parse_outdated(answer: bytes, locked: Lock) -> tuple[Outdated, ...]:
    """The locked packages of uv's answer. Raises ToolUnavailable for an answer of another shape."""
    try:
        found = [
            Outdated(_normalized(each["name"]), each["version"], each["latest_version"])
            for each in _json(answer)
        ]
    except (KeyError, TypeError, AttributeError):
        raise ToolUnavailable("uv did not return a list of packages") from None
    known = (each for each in found if each.locked in locked.get(each.name, ()))
    return tuple(sorted(known, key=lambda each: (each.name, each.locked)))


class Audit(NamedTuple):
    vulnerable: tuple[Vulnerability, ...]
    skipped: tuple[str, ...]  # packages that the advisory service does not know


def parse_audit(answer: bytes) -> Audit:
    """Raises ToolUnavailable if the service knows no package: then it is a mirror without advisories, and an empty
    answer is no proof.
    """
    try:
        packages = _json(answer)["dependencies"]
        skipped = tuple(sorted({_normalized(each["name"]) for each in packages if "skip_reason" in each}))
        audited = [each for each in packages if "skip_reason" not in each]
        found = tuple(
            Vulnerability(_normalized(each["name"]), each["version"], flaw["id"], tuple(flaw["fix_versions"]))
            for each in audited
            for flaw in each["vulns"]
        )
    except (KeyError, TypeError, AttributeError):
        raise ToolUnavailable("pip-audit did not return a list of packages") from None
    if packages and not audited:
        raise ToolUnavailable("the advisory service knows no package: it may be a mirror without advisories")
    return Audit(found, skipped)


def _normalized(name: str) -> str:
    """The form in which package indexes compare names."""
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
            # Without a terminal no tool asks for a login.
            stdin=subprocess.DEVNULL,
            env={**os.environ, "NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ToolUnavailable(f"{tool} had no answer within {_PATIENCE_SECONDS:.0f} s: offline?") from None
    if b"No module named" in done.stderr and not done.stdout:
        raise ToolUnavailable(f"{tool} is not installed: run `{to_install('reviews')}`")
    # pip-audit exits with 1 when it found something; without output it got no answer.
    if not done.stdout.strip():
        raise ToolUnavailable(f"{tool} got no answer (exit code {done.returncode}): offline?")
    return done.stdout
