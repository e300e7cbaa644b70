"""Updates the scaffolding that this project shares with others from its copier template.

copier updates a scratch clone of the project, so that a preview changes nothing; the difference is shown as a diff and
applied as exactly that diff. Where template and project changed the same lines, copier leaves conflict markers.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from fairdraw.documents import as_document
from regworkers_core.domain.reasons import UsageError

ANSWERS = ".copier-answers.yml"
_SHOWN = 5
_LOGIN = re.compile(r"(\w://)[^/@\s]+@")
_AUTHOR = {"user.name": "regworkers", "user.email": "regworkers@localhost", "commit.gpgsign": "false"}
_FIELDS = ("template", "before", "after", "up_to_date", "applied", "added", "changed", "removed")


@dataclass(frozen=True, slots=True)
class TemplateUpdate:
    """`before` and `after` are versions. `conflicts` are files with conflict markers; `replaced`, at the first update
    only, are files of the project that the template overwrites.
    """

    template: str
    before: str | None
    after: str | None
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    conflicts: tuple[str, ...]
    replaced: tuple[str, ...]
    diff: str
    applied: bool

    @property
    def up_to_date(self) -> bool:
        return not self.diff

    def as_dict(self) -> dict[str, Any]:
        return as_document(self, *_FIELDS, "conflicts", "replaced", "diff")


def update_from_template(
    project: Path,
    *,
    source: str | None = None,
    ref: str | None = None,
    data: Mapping[str, str] | None = None,
    apply: bool = False,
) -> TemplateUpdate:
    """Update `project` (the root of a git repository without uncommitted changes) to the template's `ref`, by default
    its latest version. `source` (a repository or folder) starts with a template or says where it moved to; `data`
    answers its questions. Without `apply` only a preview. Raises UsageError.
    """
    base, answers = _clean_commit(project), _answers(project)
    named, source = source, _source(project, source, answers)
    with tempfile.TemporaryDirectory(prefix="regworkers-template-") as name:
        scratch = Path(name) / "project"
        _git(project, "clone", "--quiet", str(project.resolve()), str(scratch))
        if answers is not None and answers.get("_src_path") != source:
            # copier reads both versions from the source that the answers name.
            text = yaml.safe_dump({**answers, "_src_path": source}, sort_keys=False, allow_unicode=True)
            (scratch / ANSWERS).write_text(text, encoding="utf-8")
            author = [word for key, value in _AUTHOR.items() for word in ("-c", f"{key}={value}")]
            _git(
                scratch,
                *author,
                "commit",
                "--quiet",
                "--no-verify",
                "--all",
                "--message",
                "move the template",
            )
        with _no_prompts(Path(name) / "cache"):
            _run_copier(scratch, source, ref, data or {}, first=answers is None)
        if answers is not None and named is None:
            _restore_source(scratch, source, str(answers["_src_path"]))
        after = _answers(scratch)
        if after is None:
            raise UsageError(f"the template cannot be updated later: add a file {ANSWERS}.jinja to it")
        if unknown := sorted((data or {}).keys() - after.keys()):
            raise UsageError(f"the template does not ask for {', '.join(unknown)}")
        conflicts = _names(scratch, "diff", "--name-only", "--diff-filter=U", "-z")
        _git(scratch, "add", "--all")
        diff = ("diff", "--cached", "--no-renames", "--no-ext-diff", base)
        patch = _git(scratch, *diff, "--binary", "--no-color")
        added, changed, removed = (
            tuple(_names(scratch, *diff, "--name-only", f"--diff-filter={kind}", "-z"))
            for kind in ("A", "MT", "D")
        )
        same = answers == {**after, "_commit": (answers or {}).get("_commit")}
        if same and (*added, *changed, *removed) == (ANSWERS,):
            # A later version of the template with the same files.
            patch, changed = b"", ()
    if apply and patch:
        if _clean_commit(project) != base:
            raise UsageError("the project was committed to meanwhile: run this again")
        _git(project, "apply", "--whitespace=nowarn", "--binary", "-", given=patch)
    return TemplateUpdate(
        without_login(source),
        (answers or {}).get("_commit"),
        after.get("_commit"),
        added,
        changed,
        removed,
        conflicts=tuple(sorted(set(conflicts))),
        replaced=changed if answers is None else (),
        diff=patch.decode(errors="replace"),
        applied=apply and bool(patch),
    )


def _restore_source(scratch: Path, source: str, configured: str) -> None:
    """A folder stays in the answers as it was configured there, relative to the project."""
    path = scratch / ANSWERS
    if path.exists():
        path.write_text(path.read_text(encoding="utf-8").replace(source, configured), encoding="utf-8")


def without_login(text: str) -> str:
    return _LOGIN.sub(r"\1***@", text)


def _run_copier(scratch: Path, source: str, ref: str | None, data: Mapping[str, str], *, first: bool) -> None:
    # Imported late: it takes half a second and nothing else needs it.
    import copier
    from copier.errors import CopierError
    from jinja2 import TemplateError
    from plumbum import ProcessExecutionError

    options: dict[str, Any] = {"data": dict(data), "vcs_ref": ref}
    options |= {"defaults": True, "overwrite": True, "quiet": True}
    try:
        # copier says on stderr, three times and even if quiet, that a template has no tags.
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            # About uncommitted changes of a template, for example: they are part of the diff.
            warnings.simplefilter("ignore")
            if first:
                copier.run_copy(source, scratch, **options)
            else:
                copier.run_update(scratch, answers_file=ANSWERS, **options)
    except ProcessExecutionError as error:
        lines = str(error.stderr).strip().splitlines() or ["git failed"]
        raise UsageError(
            f"the template {without_login(source)} cannot be read: {without_login(lines[-1])}"
        ) from None
    except (CopierError, TemplateError, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"the template {without_login(source)}: {without_login(text)}") from None


def _answers(project: Path) -> dict[str, Any] | None:
    path = project / ANSWERS
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({type(error).__name__})") from None
    if not isinstance(document, dict) or not isinstance(document.get("_src_path"), str):
        raise UsageError(f"{path}: should be a mapping with _src_path and _commit")
    return document


def _source(project: Path, named: str | None, answers: Mapping[str, Any] | None) -> str:
    found = str(named or (answers or {}).get("_src_path") or "")
    if not found:
        raise UsageError(
            f"no template is configured: {project / ANSWERS} is missing; start with one by `regworkers template update "
            "--from <repository or folder>`"
        )
    # A named folder is relative to the working directory, a configured one to the project.
    folder = (Path.cwd() if named else project) / Path(found).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if "://" not in found and not found.startswith(("git@", "gh:", "gl:", "git+")):
        raise UsageError(f"the template {without_login(found)} cannot be read: there is no such folder")
    return found


def _clean_commit(project: Path) -> str:
    """The project's current commit. Raises UsageError unless it is the clean root of a git repository."""
    if not project.is_dir():
        raise UsageError(f"{project} is no folder")
    try:
        root = _git(project, "rev-parse", "--show-toplevel").decode().strip()
    except UsageError:
        raise UsageError(f"{project} is not a git repository, which an update needs") from None
    if Path(root).resolve() != project.resolve():
        raise UsageError(f"{project} lies inside the git repository {root}: name its root with --project")
    try:
        commit = _git(project, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    except UsageError:
        raise UsageError(f"{project} has no commit yet: commit first") from None
    if changed := [line[3:] for line in _names(project, "status", "--porcelain", "-z")]:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        shown = ", ".join(changed[:_SHOWN])
        raise UsageError(
            f"the working tree has uncommitted changes ({shown}{more}): commit or stash them first"
        )
    return commit


def _git(folder: Path, *words: str, given: bytes | None = None) -> bytes:
    """stdout. Raises UsageError with git's last line."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, input=given, capture_output=True, check=False)
    except FileNotFoundError:
        raise UsageError("git is not installed: the template's files are merged with it") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = without_login(lines[-1]) if lines else f"exit code {done.returncode}"
        raise UsageError(f"git {words[0]}: {reason}")
    return done.stdout


def _names(folder: Path, *words: str) -> list[str]:
    """What git lists with -z."""
    return [name for name in _git(folder, *words).decode(errors="surrogateescape").split("\0") if name]


@contextmanager
def _no_prompts(cache: Path) -> Iterator[None]:
    """Make git and ssh of child processes fail instead of asking for a login; clones of templates go to `cache`."""
    wanted = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND") or "ssh -o BatchMode=yes",
        "COPIER_CACHE_DIR": str(cache),
    }
    before = {name: os.environ[name] for name in wanted if name in os.environ}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update(before)
