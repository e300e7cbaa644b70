"""`regworkers template update`: a template of two versions, a project of the first with a change of its own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from regworkers_core.settings import PROJECT_ROOT
from tests.support.terminal import Answer, regworkers

ANSWERS = ".copier-answers.yml"
LINES = "".join(f"line {number}\n" for number in range(1, 21))


def git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def commit(folder: Path, message: str, tag: str | None = None) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", message)
    if tag:
        git(folder, "tag", tag)


@dataclass(frozen=True)
class World:
    template: Path
    project: Path

    def update(self, *words: str) -> Answer:
        answer = ("template", "update", "--project", str(self.project), "--format", "json")
        return regworkers(None, *answer, *words)

    def content(self, name: str) -> str:
        return (self.project / name).read_text()

    def write(self, version: str, lines: str) -> None:
        (self.template / "ci.txt").write_text(lines)
        commit(self.template, version, version)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The project began with v1.0.0, and has changed the last line of `ci.txt` since."""
    made = World(tmp_path / "template", tmp_path / "project")
    for folder in (made.template, made.project):
        folder.mkdir()
        git(folder, "init", "--quiet")
    (made.template / "copier.yml").write_text("name:\n  type: str\n  default: workers\n")
    (made.template / f"{ANSWERS}.jinja").write_text("{{ _copier_answers|to_nice_yaml }}")
    made.write("v1.0.0", LINES)
    (made.project / "own.txt").write_text("own\n")
    commit(made.project, "own")
    begun = made.update("--from", str(made.template), "--data", "name=ours", "--apply", "--yes")
    assert (begun.code, begun.document["before"], begun.document["after"]) == (0, None, "v1.0.0")
    (made.project / "ci.txt").write_text(LINES.replace("line 20\n", "line 20 of ours\n"))
    commit(made.project, "a change of ours")
    return made


def test_it_says_what_there_is_and_changes_it_once_asked_to_beside_what_the_project_changed(
    world: World,
) -> None:
    world.write("v2.0.0", LINES.replace("line 1\n", "line 1 of v2\n"))
    shown = world.update()
    versions = ("before", "after", "upToDate", "applied")
    assert [shown.document[name] for name in versions] == ["v1.0.0", "v2.0.0", False, False]
    assert git(world.project, "status", "--porcelain") == ""
    applied = world.update("--apply", "--yes")
    assert [applied.document[name] for name in versions] == ["v1.0.0", "v2.0.0", False, True]
    assert "line 1 of v2\n" in world.content("ci.txt") and "line 20 of ours\n" in world.content("ci.txt")
    assert yaml.safe_load(world.content(ANSWERS))["name"] == "ours"
    commit(world.project, "updated")
    assert world.update().document["upToDate"]


def test_a_conflict_is_named_and_marked_and_what_both_wrote_is_there(world: World) -> None:
    world.write("v2.0.0", LINES.replace("line 20\n", "line 20 of v2\n"))
    applied = world.update("--apply", "--yes")
    assert (applied.code, applied.document["conflicts"]) == (1, ["ci.txt"])
    merged = world.content("ci.txt")
    assert all(part in merged for part in ("<<<<<<<", "line 20 of ours", "line 20 of v2", ">>>>>>>"))


def test_what_cannot_be_updated_is_left_alone_and_says_why(world: World, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        answer = world.update(*words)
        assert (answer.code, answer.stdout) == (2, "")
        return answer.stderr

    assert "Unknown revision: 'v9'" in refused("--ref", "v9")
    assert "--data takes QUESTION=ANSWER" in refused("--data", "name")
    assert "copier: " in (said := refused("--from", "https://me:hunter2@127.0.0.1:1/t.git"))
    assert "hunter2" not in said
    (world.template / "copier.yml").write_text("_tasks: ['touch ran.txt']\n")
    world.write("v2.0.0", LINES + "more\n")
    assert "unsafe" in refused("--apply", "--yes") and not (world.project / "ran.txt").exists()
    (world.project / "draft.txt").write_text("not committed")
    assert "uncommitted changes" in refused("--apply", "--yes")
    assert "not a git repository" in refused("--project", str(tmp_path))


@pytest.mark.slow
def test_this_repository_has_a_template_and_follows_it(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(PROJECT_ROOT), str(clone))
    answers = yaml.safe_load((clone / ANSWERS).read_text())
    if subprocess.run(["git", "-C", str(clone), "cat-file", "-e", answers["_commit"]]).returncode:
        pytest.skip(f"commit {answers['_commit']} is not in this clone: `git fetch --unshallow` brings it")
    updated = World(clone, clone).update("--apply", "--yes")
    assert updated.code == 0, updated.stderr
    assert git(clone, "diff", "--stat", "--", ":!.copier-answers.yml") == ""
