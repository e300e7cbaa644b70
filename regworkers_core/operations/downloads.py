"""What people fetch through the application around the UI: pages of reports, and files that jobs make for them.

Reports lie at fixed places, for whoever may see the UI. Receipts, exports and lists are under an address that cannot be
guessed, in a prefix that its lifecycle empties after a day: a job makes them again at any time.
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
_CAMPAIGN = r"[A-Za-z0-9_-]{1,64}"
_PHASE_REPORT = re.compile(rf"/reports/({_CAMPAIGN})/([1-9][0-9]{{0,3}})")
_NAMED_REPORT = re.compile(rf"/reports/({_CAMPAIGN})/(eligibility|funnel)")
_DOWNLOAD = re.compile(r"/downloads/([0-9a-f]{32}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79})")
# Our pages have neither scripts nor anything from elsewhere: whatever finds its way into one stays dead.
_SHOWN = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"}


@dataclass(frozen=True, slots=True)
class Page:
    """An object as a stream that takes constant memory, and the headers with which it is answered."""

    body: io.BufferedReader
    headers: Mapping[str, str]


def report_path(campaign_id: str, which: int | str) -> str:
    """Where the UI's application shows a report: that of a phase by its number, `eligibility` or `funnel`."""
    return f"/reports/{campaign_id}/{which}"


def put(runtime: Runtime, name: str, file: Path | bytes) -> str:
    """Keep a file for a day and return the path under which the UI's application hands it out."""
    place = f"{secrets.token_hex(16)}/{name}"
    if isinstance(file, Path):
        runtime.objects.put_file(FOLDER + place, file)
    else:
        runtime.objects.put_bytes(FOLDER + place, file)
    return f"/{FOLDER}{place}"


def open_page(runtime: Runtime, path: str) -> Page | None:
    """What stands under a path that `report_path` or `put` gave; None for any other, and for what is not there.

    Raises TransientFailure when S3 cannot answer.
    """
    key = _key(path)
    if key is None:
        return None
    name = key.rpartition("/")[2]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Content-Type": kind, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    if kind == "text/html":
        headers |= {**_SHOWN, "Content-Type": "text/html; charset=utf-8"}
    else:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    try:
        return Page(runtime.objects.open(key), headers)
    except MissingObject:
        return None


def _key(path: str) -> str | None:
    if (found := _PHASE_REPORT.fullmatch(path)) is not None:
        return f"reports/{found[1]}/phase-{found[2]}/report.html"
    if (found := _NAMED_REPORT.fullmatch(path)) is not None:
        campaign, which = found.groups()
        return f"reports/{campaign}/" + (
            "phase-1/eligibility.html" if which == "eligibility" else "funnel.html"
        )
    if (found := _DOWNLOAD.fullmatch(path)) is not None:
        return FOLDER + found[1]
    return None
