"""The update: rendered into a scratch clone of the project, shown as a diff, and applied as exactly that diff.

copier renders the template of last time and of now and merges what changed between them into the project. It does so
in the clone, so that a look changes nothing, and what is applied is what was shown.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.template.git import clean_commit, git, names, no_questions, without_login

ANSWERS = ".copier-answers.yml"
# In the scratch clone alone, whatever the user's own settings of git are.
_COMMIT = (
    "-c",
    "user.name=regworkers",
    "-c",
    "user.email=regworkers@localhost",
    "-c",
    "commit.gpgsign=false",
)


@dataclass(frozen=True, slots=True)
class TemplateUpdate:
    """`conflicts` are files with conflict markers in the diff; `replaced`, only when a template is taken up for the
    first time, files of the project whose content the template's takes the place of.
    """

    source: str
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
        return {
            "template": self.source,
            "before": self.before,
            "after": self.after,
            "upToDate": self.up_to_date,
            "applied": self.applied,
            "added": list(self.added),
            "changed": list(self.changed),
            "removed": list(self.removed),
            "conflicts": list(self.conflicts),
            "replaced": list(self.replaced),
            "diff": self.diff,
        }


def update_from_template(
    project: Path,
    *,
    source: str | None = None,
    ref: str | None = None,
    data: Mapping[str, str] | None = None,
    apply: bool = False,
) -> TemplateUpdate:
    """Bring `project` (the root of a git repository, without changes of its own) to the template's `ref`, by default
    its latest version. `source` (a repository or a folder) begins with a template, or says where it has moved to;
    `data` answers its questions.

    Without `apply` only a look. Raises UsageError for whatever is in the way.
    """
    base = clean_commit(project)
    answers = _answers(project)
    source = _source(project, source, answers)
    with tempfile.TemporaryDirectory(prefix="regworkers-template-") as name:
        scratch = Path(name) / "project"
        git(project, "clone", "--quiet", str(project.resolve()), str(scratch))
        if answers is not None and answers.get("_src_path") != source:
            _commit_source(scratch, answers, source)
        with no_questions(Path(name) / "cache"):
            _render(scratch, source, ref, data or {}, first=answers is None)
        after = _answers(scratch)
        if after is None:
            raise UsageError(
                f"the template keeps no answers, so it could never be updated: it lacks a file {ANSWERS}.jinja"
            )
        conflicts = names(scratch, "diff", "--name-only", "--diff-filter=U", "-z")
        git(scratch, "add", "--all")
        against = ("diff", "--cached", "--no-renames", "--no-ext-diff", base)
        patch = git(scratch, *against, "--binary", "--no-color")
        files = {
            kind: tuple(names(scratch, *against, "--name-only", f"--diff-filter={kind}", "-z"))
            for kind in ("A", "MT", "D")
        }
    if apply and patch:
        _apply(project, base, patch)
    return TemplateUpdate(
        source=without_login(source),
        before=_version(answers),
        after=_version(after),
        added=files["A"],
        changed=files["MT"],
        removed=files["D"],
        conflicts=tuple(sorted(set(conflicts))),
        replaced=files["MT"] if answers is None else (),
        diff=patch.decode(errors="replace"),
        applied=apply and bool(patch),
    )


def _answers(project: Path) -> dict[str, Any] | None:
    """None where there are none. Raises UsageError for a file that is none of copier's."""
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
    found = named or (answers or {}).get("_src_path")
    if not found:
        raise UsageError(
            f"no template is configured: {project / ANSWERS} is missing; `regworkers template update --from "
            "<repository or folder>` begins with one"
        )
    # A folder is meant as seen from here, or from the project; the clone lies elsewhere.
    folder = (Path.cwd() if named else project) / Path(found).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if "://" not in found and not found.startswith(("git@", "gh:", "gl:", "git+")):
        raise UsageError(f"the template {without_login(found)} is away: there is no such folder")
    return str(found)


def _version(answers: Mapping[str, Any] | None) -> str | None:
    version = (answers or {}).get("_commit")
    return None if version is None else str(version)


def _commit_source(scratch: Path, answers: Mapping[str, Any], source: str) -> None:
    """copier reads both versions from where the answers say."""
    text = yaml.safe_dump({**answers, "_src_path": source}, sort_keys=False, allow_unicode=True)
    (scratch / ANSWERS).write_text(text, encoding="utf-8")
    git(scratch, *_COMMIT, "commit", "--quiet", "--no-verify", "--all", "--message", "source of the template")


def _render(scratch: Path, source: str, ref: str | None, data: Mapping[str, str], *, first: bool) -> None:
    # Late, for it takes half a second and nothing else needs it.
    import copier
    from copier.errors import CopierError
    from jinja2 import TemplateError
    from plumbum import ProcessExecutionError

    options: dict[str, Any] = {
        "data": dict(data),
        "vcs_ref": ref,
        "defaults": True,
        "overwrite": True,
        "quiet": True,
    }
    try:
        with warnings.catch_warnings():
            # A template with uncommitted changes, say: they are part of the diff, which is looked at.
            warnings.simplefilter("ignore")
            if first:
                copier.run_copy(source, scratch, **options)
            else:
                copier.run_update(scratch, answers_file=ANSWERS, **options)
    except ProcessExecutionError as error:
        said = str(error.stderr).strip().splitlines() or ["git failed"]
        raise UsageError(f"the template {without_login(source)} is away: {without_login(said[-1])}") from None
    except (CopierError, TemplateError, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"the template {without_login(source)}: {without_login(text)}") from None


def _apply(project: Path, base: str, patch: bytes) -> None:
    if clean_commit(project) != base:
        raise UsageError("the project was committed to meanwhile: look again")
    git(project, "apply", "--whitespace=nowarn", "--binary", "-", given=patch)
