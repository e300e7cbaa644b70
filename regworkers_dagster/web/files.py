"""The pages beside Dagster's: the upload form, reports, public pages of draws, and the files that jobs hand out."""

from __future__ import annotations

import io
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import BinaryIO

from anyio import from_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from regworkers_core.domain.reasons import Failure, RequestError, UsageError
from regworkers_core.operations import uploads
from regworkers_core.operations.downloads import FOLDERS, Download, open_page
from regworkers_core.reporting.pages import page
from regworkers_core.runtime import Runtime
from regworkers_dagster.web.guard import Operators

_PIECE_BYTES = 1024 * 1024
_DOWNLOADS = "/downloads/"


class Files:
    """`runtime` is called for every request, because addresses may have changed; it raises UsageError. `prefix` is the
    path under which the application is served.
    """

    def __init__(
        self, operators: Operators, runtime: Callable[[], Runtime], *, prefix: str, read_only: bool
    ) -> None:
        self._operators, self._runtime = operators, runtime
        self._prefix, self._read_only = prefix, read_only

    def routes(self) -> list[BaseRoute]:
        """The routes, relative to the application's prefix."""
        return [
            Route("/uploads", self.form),
            Route("/uploads/{name:path}", self.take, methods=["PUT"]),
            *(Route(f"{folder}{{path:path}}", partial(self.show, folder)) for folder in FOLDERS),
        ]

    async def form(self, request: Request) -> Response:
        """The page that uploads a file and shows the name to paste."""
        who = self._who(request)
        if who is None:
            return PlainTextResponse(self._why_not(request), 403)
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'"
        )
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        shown = page(
            "upload",
            title="Upload a file",
            nonce=nonce,
            address=f"{self._prefix}/uploads/",
            who=who,
            most_mib=uploads.MAX_BYTES // 1024**2,
        )
        return HTMLResponse(shown, headers=headers)

    async def take(self, request: Request) -> Response:
        """Store the body as a file, and answer with its name."""
        who = self._who(request)
        if who is None:
            return PlainTextResponse(self._why_not(request), 403)
        body: BinaryIO = io.BufferedReader(_Body(request.stream()), _PIECE_BYTES)
        try:
            name = await run_in_threadpool(self._put, request.path_params["name"], body, who)
        except RequestError as error:
            return PlainTextResponse(str(error), 400)
        except ClientDisconnect:
            return PlainTextResponse("nothing was stored", 400)
        except (Failure, UsageError) as failure:
            return PlainTextResponse(f"nothing was stored: {failure}", 503)
        return JSONResponse({"upload": name}, 201)

    def _put(self, file_name: str, body: BinaryIO, who: str) -> str:
        runtime = self._runtime()
        target = uploads.plain_name(file_name)
        with runtime.operator_actions.recorded("ui upload", target, who=who) as result:
            name = uploads.put(runtime, file_name, body)
            result["upload"] = name
        return name

    def _who(self, request: Request) -> str | None:
        """The name of a person who may launch a job here."""
        person = None if self._read_only else self._operators.who(request)
        return person.name if person is not None and person.may_launch else None

    def _why_not(self, request: Request) -> str:
        if self._read_only:
            return "this server is read-only"
        if self._operators.who(request) is not None:
            return "none of your groups may launch a job: see the settings web.groups and web.jobs"
        return "not signed in: upload and download through the proxy, which names the person"

    async def show(self, folder: str, request: Request) -> Response:
        """A report, or a file that a job handed out, which may hold codes: only people who may launch jobs get it. Any
        other path is answered as not found.
        """
        if folder == _DOWNLOADS and self._who(request) is None:
            return PlainTextResponse(self._why_not(request), 403)
        path = folder + request.path_params["path"]
        span = request.headers.get("range", "")
        try:
            found = await run_in_threadpool(lambda: open_page(self._runtime(), path, span))
        except (Failure, UsageError) as failure:
            return PlainTextResponse(str(failure), 503)
        if found is None:
            return PlainTextResponse("there is no such file, or its day is over", 404)
        return StreamingResponse(_pieces(found), 206 if found.is_part else 200, dict(found.headers))


def _pieces(found: Download) -> Iterator[bytes]:
    with found.body as body:
        yield from iter(partial(body.read, _PIECE_BYTES), b"")


class _Body(io.RawIOBase):
    """The body of a request as a file for a thread of the server's pool; it is streamed, never held in memory."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream, self._left = stream, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            self._left = from_thread.run(self._next)
        piece, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    async def _next(self) -> bytes:
        # An empty piece would end the file.
        async for piece in self._stream:
            if piece:
                return piece
        return b""
