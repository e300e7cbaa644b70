"""HTTP requests to the witnesses of the log, each bounded in time and size.

Without a breaker and a retry: a witness that does not answer is one of several, and is asked again with the next leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regworkers_core.engine import scheduling

# An answer is a size, or a few signatures.
MAX_BYTES = 64 * 1024
# Status and body of the answer to a POST of these bytes.
Ask = Callable[[str, bytes], tuple[int, bytes]]


class NoAnswer(Exception):
    """A witness gave no cosignature. The text says why, and may be shown."""


class WitnessHttp:
    """`timeout_seconds` bounds each step of a request, and the whole request."""

    def __init__(self, timeout_seconds: float, make: Callable[..., Any] | None = None) -> None:
        self._timeout_seconds, self._make = timeout_seconds, make

    def __call__(self, url: str, body: bytes) -> tuple[int, bytes]:
        """Raises NoAnswer."""
        # Imported late: most commands ask no witness.
        import httpx2

        deadline = scheduling.monotonic() + self._timeout_seconds
        try:
            with (
                (self._make or httpx2.Client)(
                    timeout=self._timeout_seconds, follow_redirects=False
                ) as client,
                client.stream("POST", url, content=body) as response,
            ):
                answer = b""
                for piece in response.iter_bytes():
                    answer += piece
                    if len(answer) > MAX_BYTES:
                        raise NoAnswer(f"more than {MAX_BYTES} bytes")
                    if scheduling.monotonic() > deadline:
                        raise NoAnswer(f"not done after {self._timeout_seconds:g} s")
                return response.status_code, answer
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise NoAnswer(type(error).__name__) from None
