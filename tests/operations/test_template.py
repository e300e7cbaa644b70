"""`regworkers template update`: a template of two versions, a project of the first with a change of its own."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import typer
import yaml

from regworkers_core.cli.maintenance import update_command
from regworkers_core.cli.output import Format
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.template import ANSWERS, update_from_template, without_login
from regworkers_core.settings import PROJECT_ROOT

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


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@dataclass(frozen=True)
class World:
    template: Path
    project: Path

    def content(self, name: str) -> str:
        return (self.project / name).read_text()


@pytest.fixture
def world(tmp_path: Path, made: World) -> World:
    """A copy to work on."""
    copy = World(
        *(shutil.copytree(folder, tmp_path / folder.name) for folder in (made.template, made.project))
    )
    answers = copy.content(ANSWERS).replace(str(made.template), str(copy.template))
    (copy.project / ANSWERS).write_text(answers)
    commit(copy.project, "where the copy of the template is")
    return copy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The project is at v1 and has changed the last line of `ci.txt`; v2 changes the first, and adds and drops."""
    folder = tmp_path_factory.mktemp("template")
    template, project = folder / "template", folder / "project"
    for folder in (template, project):
        folder.mkdir()
        git(folder, "init", "--quiet")
    write(template, copier__yml="name:\n  type: str\n  default: workers\n")
    (template / f"{ANSWERS}.jinja").write_text("{{ _copier_answers|to_nice_yaml }}")
    write(template, **{"ci__txt": LINES, "old__txt": "old\n", "who__txt": "x\n"})
    (template / "who.txt").rename(template / "who.txt.jinja")
    (template / "who.txt.jinja").write_text("{{ name }}\n")
    commit(template, "one", "v1.0.0")
    write(project, own__txt="own\n")
    commit(project, "own")
    update_from_template(project, source=str(template), data={"name": "regworkers"}, apply=True)
    commit(project, "scaffolding")
    write(project, ci__txt=LINES.replace("line 20\n", "line 20 of ours\n"))
    commit(project, "a change of ours")
    write(template, ci__txt=LINES.replace("line 1\n", "line 1 of v2\n"), new__txt="new\n")
    (template / "old.txt").unlink()
    commit(template, "two", "v2.0.0")
    return World(template, project)


def test_the_first_time_brings_the_files_in_and_says_what_it_would_replace(
    world: World, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "--quiet")
    write(fresh, ci__txt="ours\n")
    commit(fresh, "ours")
    shown = update_from_template(fresh, source=str(world.template), ref="v1.0.0")
    assert set(shown.added) == {ANSWERS, "old.txt", "who.txt"}
    assert shown.replaced == shown.changed == ("ci.txt",)
    assert (shown.before, shown.after) == (None, "v1.0.0")
    assert [path.name for path in fresh.iterdir() if path.name != ".git"] == ["ci.txt"]


@pytest.mark.slow
def test_a_later_version_with_the_same_files_is_no_change_and_a_folder_stays_as_it_was_configured(
    world: World,
) -> None:
    answers = world.content(ANSWERS).replace(str(world.template), "../template")
    (world.project / ANSWERS).write_text(answers)
    commit(world.project, "relative to the project")
    update_from_template(world.project, apply=True)
    assert "_src_path: ../template" in world.content(ANSWERS)
    commit(world.project, "updated")
    commit_nothing = ("commit", "--quiet", "--allow-empty", "-m", "nothing new")
    git(world.template, *commit_nothing)
    git(world.template, "tag", "v3.0.0")
    shown = update_from_template(world.project)
    assert (shown.after, shown.up_to_date, shown.changed) == ("v3.0.0", True, ())


@pytest.mark.slow
def test_this_repository_has_a_template_and_follows_it(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(PROJECT_ROOT), str(clone))
    answers = yaml.safe_load((clone / ANSWERS).read_text())
    if subprocess.run(["git", "-C", str(clone), "cat-file", "-e", answers["_commit"]]).returncode:
        pytest.skip(f"commit {answers['_commit']} is not in this clone: `git fetch --unshallow` brings it")
    shown = update_from_template(clone)
    assert (shown.template, shown.conflicts, shown.diff) == (str(clone), (), "")


@pytest.mark.slow
def test_it_shows_a_diff_and_changes_nothing_until_it_is_confirmed(world: World) -> None:
    shown = update_from_template(world.project)
    assert (shown.before, shown.after, shown.applied) == ("v1.0.0", "v2.0.0", False)
    assert (shown.added, shown.removed, shown.conflicts) == (("new.txt",), ("old.txt",), ())
    assert "-line 1\n+line 1 of v2\n" in shown.diff and "+++ b/new.txt" in shown.diff
    assert git(world.project, "status", "--porcelain") == ""

    applied = update_from_template(world.project, apply=True)
    assert applied.diff == shown.diff
    assert git(world.project, "diff", "HEAD", "--no-renames", "--", "ci.txt") in applied.diff
    assert "line 1 of v2\n" in world.content("ci.txt") and "line 20 of ours\n" in world.content("ci.txt")
    assert world.content("new.txt") == "new\n" and not (world.project / "old.txt").exists()
    assert (world.content("who.txt"), world.content("own.txt")) == ("regworkers\n", "own\n")
    commit(world.project, "updated")
    assert update_from_template(world.project).up_to_date


def test_a_conflict_is_named_and_marked_and_what_both_wrote_is_there(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    write(world.template, ci__txt=LINES.replace("line 20\n", "line 20 of v3\n"))
    commit(world.template, "three", "v3.0.0")
    with pytest.raises(typer.Exit) as left:
        update_command(project=world.project, form=Format.JSON)
    assert left.value.exit_code == 1
    shown = orjson.loads(capsys.readouterr().out)
    assert (shown["conflicts"], shown["applied"]) == (["ci.txt"], False)
    assert "line 20 of ours" in world.content("ci.txt") and "<<<" not in world.content("ci.txt")

    with pytest.raises(typer.Exit):
        update_command(project=world.project, apply=True)
    text = capsys.readouterr().out
    assert "conflicts, marked in the files: ci.txt" in text
    merged = world.content("ci.txt")
    assert all(part in merged for part in ("<<<<<<<", "line 20 of ours", "line 20 of v3", ">>>>>>>"))


def test_it_refuses_uncommitted_changes(world: World) -> None:
    write(world.project, draft__txt="not committed")
    with pytest.raises(UsageError, match=r"uncommitted changes \(draft.txt\)"):
        update_from_template(world.project, apply=True)


def test_an_error_is_one_line_that_says_what_to_do(world: World, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(UsageError, match="is not a git repository"):
        update_from_template(bare)
    git(bare, "init", "--quiet")
    with pytest.raises(UsageError, match="has no commit yet"):
        update_from_template(bare)
    write(bare, a__txt="a")
    commit(bare, "a")
    with pytest.raises(UsageError, match=r"no template is configured: .*\.copier-answers\.yml is missing"):
        update_from_template(bare)
    with pytest.raises(UsageError, match="cannot be read: there is no such folder"):
        update_from_template(bare, source="../nowhere")
    with pytest.raises(UsageError, match=r"https://\*\*\*@127.0.0.1:1/t.git cannot be read"):
        update_from_template(bare, source="https://user:hunter2@127.0.0.1:1/t.git")
    with pytest.raises(UsageError, match="does not ask for colour"):
        update_from_template(world.project, data={"colour": "red"})
    with pytest.raises(UsageError, match="Unknown revision: 'v9'"):
        update_from_template(world.project, ref="v9")
    with pytest.raises(UsageError, match="inside the git repository"):
        (world.project / "inner").mkdir()
        update_from_template(world.project / "inner")


def test_a_template_that_moved_is_followed(world: World, tmp_path: Path) -> None:
    moved = world.template.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="cannot be read"):
        update_from_template(world.project)
    update = update_from_template(world.project, source=str(moved), apply=True)
    assert update.after == "v2.0.0" and str(moved) in world.content(ANSWERS)


def test_a_template_that_runs_commands_or_keeps_no_answers_is_refused(world: World) -> None:
    write(world.template, copier__yml="_tasks: ['touch ran.txt']\n")
    commit(world.template, "tasks", "v3.0.0")
    with pytest.raises(UsageError, match="unsafe"):
        update_from_template(world.project, apply=True)
    assert not (world.project / "ran.txt").exists()
    write(world.template, copier__yml="")
    (world.template / f"{ANSWERS}.jinja").unlink()
    commit(world.template, "no answers", "v4.0.0")
    (world.project / ANSWERS).unlink()
    commit(world.project, "forgets")
    with pytest.raises(UsageError, match="cannot be updated later"):
        update_from_template(world.project, source=str(world.template))


def test_a_login_is_never_shown() -> None:
    assert without_login("fatal: https://me:secret@host/x: no") == "fatal: https://***@host/x: no"
    assert without_login("git@host:x and http://host/y@z") == "git@host:x and http://host/y@z"
