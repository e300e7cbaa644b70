"""Files that operators upload for a job: lists of invites, codes, refs to strike.

They may contain a fan's data or codes, and Dagster keeps the config of every run. So the file is stored under a private
prefix, which its lifecycle empties after a day, and a job's config contains only the name.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.domain.keys import UPLOAD_NAME
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.runtime import Runtime

FOLDER = "uploads/"
# Ten million addresses or codes; the command line takes larger files.
MAX_BYTES = 512 * 1024 * 1024
# Suffixes of files that jobs read; another one may be the end of a mail address.
_SUFFIX = re.compile(r"\.(csv|tsv|txt|jsonl?|gz|parquet)", re.IGNORECASE)


def put(runtime: Runtime, file_name: str, file: Path | bytes) -> str:
    """Store the file and return the name to paste: `uploads/<random>/<name>`.

    Raises RequestError for a file that is empty or larger than `MAX_BYTES`, TransientFailure when S3 cannot answer.
    """
    size = file.stat().st_size if isinstance(file, Path) else len(file)
    if not size:
        raise RequestError("the file is empty: nothing was stored")
    if size > MAX_BYTES:
        raise RequestError(f"the file is larger than {MAX_BYTES // 1024**2} MiB: nothing was stored")
    name = f"{FOLDER}{secrets.token_hex(16)}/{plain_name(file_name)}"
    if isinstance(file, Path):
        runtime.objects.put_file(name, file)
    else:
        runtime.objects.put_bytes(name, file)
    return name


def plain_name(file_name: str) -> str:
    """A file name that is safe in the config of a run: without folders, characters outside of `A-Za-z0-9_.-`, and the
    stem of a name that is a mail address.
    """
    # Full-width and percent-encoded characters count as what they look like.
    plain = unicodedata.normalize("NFKC", unquote(file_name))
    last = plain.replace("\\", "/").rpartition("/")[2]
    if "@" in last:
        suffix = Path(last).suffix
        last = "file" + (suffix if _SUFFIX.fullmatch(suffix) else "")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", last).lstrip(".")[-80:] or "file"


def require(upload: str) -> str:
    """The name without pasted blanks. Raises RequestError for a name that is not an upload."""
    name = upload.strip()
    if not UPLOAD_NAME.fullmatch(name):
        raise RequestError(
            "upload should be the name that the upload form returned, uploads/<32 hex digits>/<file>"
            + (": it is missing" if not name else "")
        )
    return name


@contextmanager
def fetched(runtime: Runtime, upload: str) -> Iterator[Path]:
    """A local copy of the file, under its own name, for the duration of the block. Raises RequestError for an invalid
    name, for an upload that has expired, and for a UsageError of the block, with the name of the upload; and
    TransientFailure when S3 cannot answer.
    """
    name = require(upload)
    with tempfile.TemporaryDirectory(prefix="regworkers-upload-") as folder:
        path = Path(folder) / name.rpartition("/")[2]
        try:
            runtime.objects.get_file(name, path)
        except MissingObject:
            raise RequestError(
                f"{name} does not exist: uploads are kept for a day, upload it again"
            ) from None
        try:
            yield path
        except UsageError as error:
            # The temporary folder means nothing to an operator.
            raise RequestError(str(error).replace(f"{folder}/", "")) from None
