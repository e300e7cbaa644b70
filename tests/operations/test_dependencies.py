"""Outdated and vulnerable packages: what is known, and what is unknown because a tool is unavailable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
import typer

from regworkers_core.cli import maintenance
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations import dependencies
from regworkers_core.operations.dependencies import (
    ToolUnavailable,
    parse_audit,
    parse_lock,
    read_dependencies,
)
from regworkers_core.settings import PROJECT_ROOT

OUTDATED = [
    {"name": "Zope.Interface", "version": "5.0", "latest_version": "7.1"},
    {"name": "not-locked", "version": "1.0", "latest_version": "2.0"},
]
AUDIT = {
    "dependencies": [
        {"name": "zope-interface", "version": "5.0", "vulns": [{"id": "CVE-1", "fix_versions": ["5.1"]}]},
        {"name": "fine", "version": "1.0", "vulns": []},
        {"name": "private", "skip_reason": "not found"},
    ]
}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text(
        "zope-interface==5.0\nfine==1.0 ; python_version < '3.12'\nfine==2.0\nprivate==1.0\n# fine\n"
    )
    return path


class Tools:
    """`uv` and `pip_audit` with given answers; None: unavailable."""

    def __init__(self, outdated: object, audit: object) -> None:
        self._answers = {"uv": outdated, "pip_audit": audit}

    def __call__(self, words: Sequence[str]) -> bytes:
        found = self._answers[words[1]]
        if found is None:
            raise ToolUnavailable(f"{words[1]} got no answer: offline?")
        return found if isinstance(found, bytes) else orjson.dumps(found)


def test_both_answers_are_read_as_far_as_they_concern_the_lock(lock: Path) -> None:
    report = read_dependencies(lock, run=Tools(OUTDATED, AUDIT)).as_dict()
    assert report["packages"] == 3
    assert report["outdated"] == [{"name": "zope-interface", "locked": "5.0", "latest": "7.1"}]
    assert report["vulnerable"] == [
        {"name": "zope-interface", "locked": "5.0", "id": "CVE-1", "fixedIn": ["5.1"]}
    ]
    assert report["notAudited"] == ["private"]
    assert report["notes"] == ["vulnerable: nothing is known about 1 of 3 packages"]


def test_an_unavailable_tool_is_a_note_and_not_an_empty_list(lock: Path) -> None:
    report = read_dependencies(lock, run=Tools(None, None))
    assert (report.outdated, report.vulnerable) == (None, None)
    assert [note.partition(":")[0] for note in report.notes] == ["outdated", "vulnerable"]
    half = read_dependencies(lock, run=Tools([], None))
    assert (half.outdated, half.vulnerable) == ((), None)


@pytest.mark.parametrize("answer", [b"<html>proxy</html>", [1], {"error": "x"}, b""])
def test_an_invalid_answer_counts_as_unavailable(lock: Path, answer: object) -> None:
    report = read_dependencies(lock, run=Tools(answer, answer))
    assert (report.outdated, report.vulnerable) == (None, None)


def test_a_service_that_knows_no_package_proves_nothing() -> None:
    unknown = {"dependencies": [{"name": "a", "skip_reason": "not found"}]}
    with pytest.raises(ToolUnavailable, match="without advisories"):
        parse_audit(orjson.dumps(unknown))


def test_a_tool_that_is_missing_or_gets_no_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolUnavailable, match="no-such-tool is not installed"):
        dependencies._run(["-m", "no_such_tool"])
    with pytest.raises(ToolUnavailable, match="got no answer"):
        dependencies._run(["-c", "raise SystemExit(3)"])
    monkeypatch.setattr(dependencies, "_PATIENCE_SECONDS", 0.05)
    with pytest.raises(ToolUnavailable, match="no answer within"):
        dependencies._run(["-c", "import threading; threading.Event().wait()"])


def test_the_command_exits_1_for_a_vulnerability_and_0_for_what_is_unknown(
    lock: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dependencies, "_run", Tools(OUTDATED, AUDIT))
    with pytest.raises(typer.Exit) as left:
        maintenance.dependencies_command(lock=lock)
    assert left.value.exit_code == 1
    shown = capsys.readouterr().out
    assert "CVE-1" in shown and "7.1" in shown and "unknown: vulnerable" in shown
    monkeypatch.setattr(dependencies, "_run", Tools(None, None))
    maintenance.dependencies_command(lock=lock)
    shown = capsys.readouterr().out
    assert "unknown: outdated" in shown and "no known vulnerability" not in shown


def test_the_projects_own_lock_is_understood_and_another_file_is_refused(tmp_path: Path) -> None:
    locked = parse_lock((PROJECT_ROOT / "requirements.lock").read_text())
    assert {"dagster", "pip-audit", "uv"} <= set(locked) and len(locked) > 150
    with pytest.raises(UsageError, match="cannot be read"):
        read_dependencies(tmp_path / "none")
    (tmp_path / "empty").write_text("dagster>=1\n")
    with pytest.raises(UsageError, match="contains no package"):
        read_dependencies(tmp_path / "empty")
