"""Reviews kept: on S3 under a prefix that does not change, or in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import orjson

from regworkers_core.adapters.files.private_files import private_folder, write_private
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.operations.reviews.page import Shown, shown
from regworkers_core.operations.reviews.places import REPORT, report_key
from regworkers_core.operations.reviews.sections import Review
from regworkers_core.runtime import Runtime

PAGE = "report.html"


class Published(NamedTuple):
    """`where` is the address of the page, None when it could not be kept, which `trouble` explains."""

    review: Review
    shown: Shown
    where: str | None
    trouble: str = ""

    @property
    def fine(self) -> bool:
        return self.review.fine and self.where is not None


def publish(runtime: Runtime, review: Review, folder: Path | None = None) -> Published:
    """Over what another review of the same kind and day left. A store that is away takes nothing from the answer.
    Raises UsageError for a folder that cannot be written.
    """
    made = shown(review)
    if folder is not None:
        return Published(review, made, str(_to_folder(folder, dict(_files(review, made)))))
    try:
        for name, data in _files(review, made):
            runtime.objects.put_bytes(report_key(review.kind, review.date, name), data)
    except (TransientFailure, UsageError) as error:
        return Published(review, made, None, f"not kept on S3: {error}")
    return Published(
        review, made, f"s3://{runtime.objects.bucket}/{report_key(review.kind, review.date, PAGE)}"
    )


def _files(review: Review, made: Shown) -> Iterator[tuple[str, bytes]]:
    """The numbers last: what later reviews read of this one is there when all of it is."""
    for name, plot in made.plots.items():
        yield f"{name}.png", plot
    yield "report.md", made.markdown.encode()
    yield PAGE, made.html.encode()
    yield REPORT, orjson.dumps(review.as_dict(), option=orjson.OPT_INDENT_2, default=str)


def _to_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    try:
        private_folder(folder)
        for name, data in files.items():
            write_private(folder / name, data)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({type(error).__name__})") from None
    return folder / PAGE
