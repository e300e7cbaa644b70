"""Files and folders that only the current account can read (0600, 0700), whatever the umask is."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_FILE, _FOLDER = 0o600, 0o700


def open_private(path: Path, *, append: bool = False) -> BinaryIO:
    """Open for writing, truncated unless `append`. An existing file also becomes private; a device or a pipe is left as
    it is. Raises OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else 0), _FILE)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            # The file may belong to another user.
            with suppress(PermissionError):
                os.fchmod(fd, _FILE)
            if not append:
                os.ftruncate(fd, 0)
        return os.fdopen(fd, "ab" if append else "wb")
    except BaseException:
        os.close(fd)
        raise


def write_private(path: Path, data: bytes | str) -> None:
    """Write a private file. Raises OSError."""
    with open_private(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def private_folder(path: Path) -> None:
    """Create the folder and missing parents. An existing folder keeps its mode."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        folder.mkdir(mode=_FOLDER, exist_ok=True)
