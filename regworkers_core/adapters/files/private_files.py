"""Files for the account that runs the command alone: mode 0600, and 0700 for folders, whatever the umask says."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_FILE, _FOLDER = 0o600, 0o700


def open_private(path: Path, *, append: bool = False) -> BinaryIO:
    """Open for writing, emptied unless `append`. Raises OSError. An existing file is closed to others, too; what is
    no file (/dev/stdout, a pipe) is left as it is.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else 0), _FILE)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            # Another user's file that we may write stays theirs.
            with suppress(PermissionError):
                os.fchmod(fd, _FILE)
            if not append:
                os.ftruncate(fd, 0)
        return os.fdopen(fd, "ab" if append else "wb")
    except BaseException:
        os.close(fd)
        raise


def write_private(path: Path, data: bytes | str) -> None:
    """Raises OSError."""
    with open_private(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def private_folder(path: Path) -> None:
    """Create the folder and missing parents. An existing folder keeps its mode."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        folder.mkdir(mode=_FOLDER, exist_ok=True)
