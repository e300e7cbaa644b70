"""Where reviews lie on S3: `reviews/<kind>/<date>/<file>`."""

from __future__ import annotations

import re

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.operations.reviews.sections import Kind

ROOT = "reviews/"
REPORT = "report.json"
_KEY = re.compile(rf"{ROOT}(?P<kind>[a-z]+)/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<file>[^/]+)")


def report_key(kind: Kind, date: str, file: str) -> str:
    return f"{ROOT}{kind.value}/{date}/{file}"


def date_of(key: str) -> str | None:
    """The date of the review that an object belongs to; None for what is no review's."""
    found = _KEY.fullmatch(key)
    return found["date"] if found else None


def reports(objects: ObjectStore, kind: Kind) -> list[str]:
    """The dates of all reviews of a kind. Raises TransientFailure."""
    keys = objects.list(f"{ROOT}{kind.value}/")
    return sorted({date for key in keys if key.endswith(REPORT) and (date := date_of(key))})
