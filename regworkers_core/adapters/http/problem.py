"""Whether a refusal is the service's own word, or that of something in between.

A gateway without a route, a default page, another server under the same address: they all answer 404, and would make
every fan unknown. The services explain a refusal by a JSON document with `detail` (a text, or a list of what is wrong
with which field), and only that says something about the id that was asked for.
"""

from __future__ import annotations

from http import HTTPStatus

import orjson


def is_problem(status: int, content_type: str, body: bytes) -> bool:
    """Whether `body` explains a refusal as the services do. The mere name of the status does not: that is what a
    framework answers where it has no such path.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    detail = document.get("detail") if isinstance(document, dict) else None
    if isinstance(detail, str):
        said = detail.strip().rstrip(".").lower()
        return said not in ("", _phrase(status))
    return isinstance(detail, list) and bool(detail)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return ""
