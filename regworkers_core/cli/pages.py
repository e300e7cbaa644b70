"""Files that a command writes for people."""

from __future__ import annotations

import os
from pathlib import Path

from regworkers_core.domain.reasons import UsageError


def require_writable(page: Path | None, option: str = "--page") -> None:
    """Raises UsageError when the file that `option` names could not be written: better before minutes of work than
    after them.
    """
    if page is None:
        return
    if not page.parent.is_dir():
        raise UsageError(f"{option} {page}: there is no folder {page.parent}")
    if page.is_dir():
        raise UsageError(f"{option} {page} is a folder: name a file in it")
    if not os.access(page if page.exists() else page.parent, os.W_OK):
        raise UsageError(f"{option} {page}: no permission to write there")
