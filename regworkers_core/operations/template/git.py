"""What the update asks git for: never a question to a terminal, never the text of a remote with a login in it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regworkers_core.domain.reasons import UsageError

_SHOWN = 5
_LOGIN = re.compile(r"(\w://)[^/@\s]+@")


def without_login(text: str) -> str:
    return _LOGIN.sub(r"\1***@", text)


def git(folder: Path, *words: str, given: bytes | None = None) -> bytes:
    """stdout. Raises UsageError with git's last line."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, input=given, capture_output=True, check=False)
    except FileNotFoundError:
        raise UsageError("git is not installed: the template's files are merged with it") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"git {words[0]}: {without_login(said[-1])}")
    return done.stdout


def names(folder: Path, *words: str) -> list[str]:
    """What git lists with -z."""
    return [name for name in git(folder, *words).decode(errors="surrogateescape").split("\0") if name]


def clean_commit(project: Path) -> str:
    """The commit that `project` stands at. Raises UsageError when it is no git repository's root, has no commit, or
    has changes of its own: they could not be told from the template's.
    """
    if not project.is_dir():
        raise UsageError(f"{project} is no folder")
    try:
        root = git(project, "rev-parse", "--show-toplevel").decode().strip()
    except UsageError:
        raise UsageError(
            f"{project} is not a git repository: an update is shown and undone with git"
        ) from None
    if Path(root).resolve() != project.resolve():
        raise UsageError(f"{project} lies inside the git repository {root}: name its root with --project")
    try:
        commit = git(project, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    except UsageError:
        raise UsageError(f"{project} has no commit yet: commit first") from None
    changed = [line[3:] for line in names(project, "status", "--porcelain", "-z")]
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise UsageError(
            f"the working tree has changes of its own ({', '.join(changed[:_SHOWN])}{more}): commit or stash them first"
        )
    return commit


@contextmanager
def no_questions(cache: Path) -> Iterator[None]:
    """git and ssh in this process's children fail where they would ask somebody; clones of templates go to `cache`."""
    wanted = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND") or "ssh -o BatchMode=yes",
        "COPIER_CACHE_DIR": str(cache),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
