"""The pages beside Dagster's: the upload form, reports, public pages of draws, and the files that jobs hand out."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import anyio
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
# Uploads at a time: each has up to 512 MiB on the pod's disk.
_AT_ONCE = 4
# How long another one waits for its turn: senders that trickle have lost theirs by then.
_WAIT_SECONDS = 30.0
# A sender may be this far behind the least rate, which a slow line reaches; the largest file takes 30 minutes at most.
_HEAD_START_SECONDS = 10.0
_LEAST_BYTES_PER_SECOND = 64 * 1024
_LONGEST_SECONDS = 1800.0
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
        self._places = anyio.Semaphore(_AT_ONCE)
        # Dagster's own threads answer GraphQL, and read reports.
        self._threads = anyio.CapacityLimiter(_AT_ONCE)

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
        with anyio.move_on_after(_WAIT_SECONDS) as waiting:
            await self._places.acquire()
        if waiting.cancelled_caught:
            return PlainTextResponse("nothing was stored: others upload at this moment, so try again", 503)
        try:
            with tempfile.NamedTemporaryFile(prefix="regworkers-upload-") as whole:
                if not await _received(request, whole):
                    return PlainTextResponse("nothing was stored: the file came too slowly", 408)
                put = partial(self._put, request.path_params["name"], Path(whole.name), who)
                name = await anyio.to_thread.run_sync(put, limiter=self._threads)
        except RequestError as error:
            return PlainTextResponse(str(error), 400)
        except ClientDisconnect:
            return PlainTextResponse("nothing was stored", 400)
        except (Failure, UsageError) as failure:
            return PlainTextResponse(f"nothing was stored: {failure}", 503)
        finally:
            self._places.release()
        return JSONResponse({"upload": name}, 201)

    def _put(self, file_name: str, file: Path, who: str) -> str:
        runtime = self._runtime()
        target = uploads.plain_name(file_name)
        with runtime.operator_actions.recorded("ui upload", target, who=who) as result:
            name = uploads.put(runtime, file_name, file)
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


async def _received(request: Request, file: IO[bytes]) -> bool:
    """Write the body into `file`, in the event loop: a thread would wait for the sender. False for a sender that fell
    behind the least rate, or was not done in time. Raises ClientDisconnect.
    """
    began, size = anyio.current_time(), 0
    with anyio.CancelScope(deadline=began + _HEAD_START_SECONDS) as scope:
        async for piece in request.stream():
            file.write(piece)
            size += len(piece)
            allowed = _HEAD_START_SECONDS + size / _LEAST_BYTES_PER_SECOND
            scope.deadline = began + min(allowed, _LONGEST_SECONDS)
    file.flush()
    return not scope.cancelled_caught
