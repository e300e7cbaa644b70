"""Where a log and its draws are read: the bucket, a copy of it, or an address where it is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fairdraw.errors import UsageError
from fairdraw.log.http import LogHttp
from fairdraw.maths.files import file_hash, sha256_hex

_REQUEST_SECONDS, _FILE_SECONDS = 10.0, 120.0
# The bytes of a file; None if there is none.
Read = Callable[[str], bytes | None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the folders `log/` and `draws/` are. `digest` gives the SHA-256 of a file that may be large; None if there
    is none.
    """

    read: Read
    digest: Callable[[str], str | None]

    @classmethod
    def of(cls, read: Read) -> Place:
        def digest(path: str) -> str | None:
            data = read(path)
            return None if data is None else sha256_hex(data)

        return cls(read, digest)


def at_place(place: str) -> Place:
    """A folder on this machine, or an address. Raises UsageError for neither."""
    if place.startswith(("http://", "https://")):
        http = LogHttp(_REQUEST_SECONDS, whole_seconds=_FILE_SECONDS)
        return Place.of(lambda path: http.file(f"{place.rstrip('/')}/{path}"))
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

    return Place(of_file(Path.read_bytes), of_file(file_hash))


def in_log(read: Read) -> Read:
    """The same for paths below `log/`."""
    return lambda path: read(f"log/{path}")
