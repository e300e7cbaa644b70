"""Downloads through the web application around the UI: pages of reports, and files that jobs make.

Reports and the public page of a draw, with all that it reads, have fixed addresses, for everyone who may see the UI.
Receipts, exports and lists have an address that names their job and cannot be guessed, under a prefix that its
lifecycle empties after a day: the job can make them again at any time.
"""

from __future__ import annotations

import io
import mimetypes
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.runtime import Runtime

FOLDER = "downloads/"
_DRAWS = "draws/"
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{1,15})", re.ASCII)
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}"
# The parts of paths and keys; each path has a key with the same parts.
_PARTS = {
    "campaign": r"[A-Za-z0-9_-]{1,64}",
    "phase": r"[1-9][0-9]{0,3}",
    "kind": r"[a-z]{1,20}",
    "date": r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "job": r"[a-z_]{1,80}",
    "place": rf"[0-9a-f]{{32}}/{_NAME}",
    "name": _NAME,
    "beside": r"(?:chain|opened|amended-[1-9][0-9]{0,3})\.json",
    # The public log and the lists of registrations, as pages read them: what moves on, and what is written once.
    "moving": r"checkpoint|keys\.json",
    "written": r"tile/(?:entries|[0-7])/(?:x[0-9]{3}/){0,4}[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?"
    r"|facts/[0-9a-f]{64}|checkpoints/[1-9][0-9]{0,15}-[0-9a-f]{8}|sizes/[1-9][0-9]{0,15}\.json",
}
_WRITTEN_ONCE = ("log/<written>", "registrations/<campaign>/<written>")
_LISTS = ("log/<moving>", "registrations/<campaign>/<moving>", *_WRITTEN_ONCE)
_PAGES = (
    ("/reports/<campaign>/eligibility", "reports/<campaign>/phase-1/eligibility.html"),
    ("/reports/<campaign>/funnel", "reports/<campaign>/funnel.html"),
    ("/reports/<campaign>/<phase>", "reports/<campaign>/phase-<phase>/report.html"),
    ("/reviews/<kind>/<date>", "reviews/<kind>/<date>/report.html"),
    ("/downloads/<job>/<place>", "downloads/<job>/<place>"),
    ("/draws/<campaign>/page/<name>", "draws/<campaign>/page/<name>"),
    ("/draws/<campaign>/phase-<phase>/<name>", "draws/<campaign>/phase-<phase>/<name>"),
    *((f"/{key}", key) for key in ("draws/<campaign>/<beside>", *_LISTS)),
)
# The prefixes of paths that `open_page` serves.
FOLDERS = ("/reports/", "/reviews/", "/downloads/", "/draws/", "/log/", "/registrations/")
# Reports have no scripts and load nothing: injected content has no effect.
_SHOWN = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"}


@dataclass(frozen=True, slots=True)
class Download:
    """An object or a part of it as a stream, which takes constant memory, and the headers of the response."""

    body: io.BufferedReader
    headers: Mapping[str, str]
    is_part: bool = False


def link_to(where: str) -> str | None:
    """The path under which the web application shows `s3://bucket/key`; None if it does not."""
    key = where.partition("://")[2].partition("/")[2]
    return next((_filled(path, found) for path, below in _PAGES if (found := _met(below, key))), None)


def put(runtime: Runtime, job: str, name: str, file: Path | bytes) -> str:
    """Keep a file for a day and return the path under which the web application serves it, to those who may launch
    `job`.
    """
    place = f"{job}/{secrets.token_hex(16)}/{name}"
    if isinstance(file, Path):
        runtime.objects.put_file(FOLDER + place, file)
    else:
        runtime.objects.put_bytes(FOLDER + place, file)
    return f"/{FOLDER}{place}"


def open_page(runtime: Runtime, path: str, span: str = "") -> Download | None:
    """The page at a path that `link_to` or `put` returned; None for any other path, and for a missing object. `span` is
    the request's Range: one range with both ends is answered as a part, any other by the whole.

    Raises TransientFailure when S3 cannot answer.
    """
    key = next((_filled(below, found) for at, below in _PAGES if (found := _met(at, path))), None)
    if key is None:
        return None
    name = key.rpartition("/")[2]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    kept = any(_met(each, key) for each in _WRITTEN_ONCE)
    cached = "private, max-age=31536000, immutable" if kept else "no-store"
    headers = {"Content-Type": kind, "X-Content-Type-Options": "nosniff", "Cache-Control": cached}
    # The page of a receipt runs scripts: it is saved, and opened from disk, where it reaches nothing of the UI's.
    if key.startswith(_DRAWS) and kind == "text/html":
        # A late import: it loads the plots.
        from regworkers_core.selection.public.page import served_policy

        headers |= {
            "Content-Security-Policy": served_policy(name),
            "Content-Type": "text/html; charset=utf-8",
        }
    elif kind == "text/html" and not key.startswith(FOLDER):
        headers |= {**_SHOWN, "Content-Type": "text/html; charset=utf-8"}
    else:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    asked = _RANGE.fullmatch(span)
    try:
        if asked is None:
            return Download(runtime.objects.open(key), headers)
        start, end = int(asked[1]), int(asked[2]) + 1
        body, size = runtime.objects.open_part(key, start, end)
        if not start < end <= size:
            return Download(runtime.objects.open(key), headers)
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        return Download(body, headers, is_part=True)
    except MissingObject:
        return None


def job_of(path: str) -> str:
    """The job that handed out the file at a path that `put` returned; empty for another path."""
    found = _met("/downloads/<job>/<place>", path)
    return found["job"] if found else ""


def _met(pattern: str, text: str) -> Mapping[str, str] | None:
    expression = re.sub("<(.+?)>", lambda part: f"(?P<{part[1]}>{_PARTS[part[1]]})", pattern)
    found = re.fullmatch(expression, text)
    return None if found is None else found.groupdict()


def _filled(pattern: str, parts: Mapping[str, str]) -> str:
    return re.sub("<(.+?)>", lambda part: parts[part[1]], pattern)
