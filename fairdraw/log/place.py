"""Where a log and its draws are read: the bucket, a copy of it, or an address where it is served."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from fairdraw.errors import UsageError
from fairdraw.log.http import LogHttp

_REQUEST_SECONDS, _FILE_SECONDS = 10.0, 120.0
_IN_MEMORY_BYTES = 1 << 20
# The bytes of a file; None if there is none.
Read = Callable[[str], bytes | None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the folders `log/` and `draws/` are. `open` gives a file that may be large, to be closed; None if there is
    none.
    """

    read: Read
    open: Callable[[str], BinaryIO | None]

    @classmethod
    def of(cls, read: Read) -> Place:
        def opened(path: str) -> BinaryIO | None:
            data = read(path)
            return None if data is None else io.BytesIO(data)

        return cls(read, opened)

    def digest(self, path: str) -> str | None:
        """The SHA-256 of a file in hex, at constant memory; None if there is none."""
        file = self.open(path)
        if file is None:
            return None
        with file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def at_place(place: str) -> Place:
    """A folder on this machine, or an address. Raises UsageError for neither."""
    if place.startswith(("http://", "https://")):
        http = LogHttp(_REQUEST_SECONDS, whole_seconds=_FILE_SECONDS)

        def read(path: str) -> bytes | None:
            return http.file(f"{place.rstrip('/')}/{path}")

        def opened(path: str) -> BinaryIO | None:
            if (data := read(path)) is None:
                return None
            # Several large files are open at once.
            file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 (the caller closes it)
            file.write(data)
            file.seek(0)
            return cast(BinaryIO, file)

        return Place(read, opened)
    folder = Path(place)
    if not (folder / "log").is_dir():
        raise UsageError(
            f"{place} has no folder log: give the folder, or the https:// address, that has log and draws"
        )

    def of_file(read: Callable[[Path], T]) -> Callable[[str], T | None]:
        def found(path: str) -> T | None:
            try:
                return read(folder / path)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise UsageError(f"{folder / path}: {error.strerror}") from None

        return found

    return Place(of_file(Path.read_bytes), of_file(lambda path: path.open("rb")))


def in_log(read: Read) -> Read:
    """The same for paths below `log/`."""
    return lambda path: read(f"log/{path}")
