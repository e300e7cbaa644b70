"""`regworkers-web`: Dagster's own webserver with checks in front, the person's name on launches, and more pages: the
desk, the upload form, reports, public pages of draws with the lists that they read, and the files that jobs hand out.

It replaces `dagster-webserver` and has its options. `make dev` starts it; the image has it under the name
`dagster-webserver`, too, so that Dagster's Helm chart starts nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import anyio
import click
import uvicorn
from dagster import DagsterInstance
from dagster_webserver.cli import dagster_webserver
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from graphene import Schema
from graphql import default_field_resolver
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from regworkers_core.adapters.local_instance import DAGSTER_HEADER
from regworkers_core.adapters.mongo.activity import OperatorActions
from regworkers_core.domain.reasons import Failure, RequestError, UsageError
from regworkers_core.operation import Operation
from regworkers_core.operations import uploads
from regworkers_core.operations.downloads import FOLDERS, Download, job_of, open_page
from regworkers_core.operations.uploads import MAX_BYTES
from regworkers_core.reporting import page
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings
from regworkers_core.settings.operations import WebSettings
from regworkers_core.telemetry import configure_telemetry
from regworkers_dagster.definitions import OPERATIONS, order_of_fields, order_of_jobs, tags_of_jobs
from regworkers_dagster.factories import POD_TAGS, in_order, place_in
from regworkers_dagster.internals import (
    WorkspaceProcessContext,
    WorkspaceRequestContext,
    configure_loggers,
    load_target,
)
from regworkers_dagster.resources import desk_runtime, shared_runtime
from regworkers_dagster.web.desk.acts import Acts, Ask
from regworkers_dagster.web.desk.campaigns import Campaigns
from regworkers_dagster.web.desk.frame import Frame
from regworkers_dagster.web.desk.health import Health
from regworkers_dagster.web.guard import Guard, Operators, Person, refuse_aliases
from regworkers_dagster.web.mutations import Mutations
from regworkers_dagster.web.rights import Rights

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
            who=who.name,
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
                put = partial(self._put, request.path_params["name"], Path(whole.name), who.name)
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

    def _who(self, request: Request) -> Person | None:
        """A person who may launch a job here."""
        person = None if self._read_only else self._operators.who(request)
        return person if person is not None and person.may_launch else None

    def _why_not(self, request: Request) -> str:
        if self._read_only:
            return "this server is read-only"
        if self._operators.who(request) is not None:
            return "none of your groups may launch a job: see the settings web.groups and web.jobs"
        return "not signed in: upload and download through the proxy, which names the person"

    async def show(self, folder: str, request: Request) -> Response:
        """A report, or a file that a job handed out, which may hold codes or fans' data: only people who may launch
        that job get it. Any other path is answered as not found.
        """
        path = folder + request.path_params["path"]
        if folder == _DOWNLOADS:
            who, job = self._who(request), job_of(path)
            if who is None:
                return PlainTextResponse(self._why_not(request), 403)
            if job and not who.may(job):
                return PlainTextResponse(f"none of your groups may launch {job}, which made this file", 403)
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


# A person waits: a service that has not answered by then counts as unavailable.
_CALL_SECONDS = 10.0


# It lies below the last entry of Dagster's navigation, wide or narrow.
_TO_THE_DESK = (
    '<a href="{}/desk" style="position: fixed; z-index: 20; left: 12px; bottom: 1px; padding: 0 6px; color: #fff; '
    'background: #4f43dd; border-radius: 4px; font: 600 12px/17px sans-serif">Desk</a>'
)


class _Webserver(DagsterWebserver[WorkspaceProcessContext, WorkspaceRequestContext]):
    """Dagster's webserver, extended by overriding its methods for that."""

    def __init__(
        self,
        context: WorkspaceProcessContext,
        prefix: str,
        poll_milliseconds: int | None,
        *,
        mutations: Mutations,
        files: Files,
        desk: Callable[[Ask, Callable[[Request], Any]], list[BaseRoute]],
    ) -> None:
        self._mutations, self._files, self._prefix = mutations, files, prefix
        self._desk = desk(self._answer, self.request_context)
        super().__init__(context, prefix, poll_milliseconds)

    async def _answer(self, request: Request, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = await self.execute_graphql_request(request, query, dict(variables), None)
        found: Mapping[str, Any] = json.loads(bytes(answer.body))
        return found

    def build_graphql_schema(self) -> Schema:
        schema = super().build_graphql_schema()
        self._mutations.wrap(schema)
        refuse_aliases(schema)
        show_in_order(schema)
        return schema

    def index_html_endpoint(self, request: Request) -> HTMLResponse:
        """Dagster's page, with a link to the desk."""
        answer: HTMLResponse = super().index_html_endpoint(request)
        shown = bytes(answer.body).replace(
            b"</body>", _TO_THE_DESK.format(self._prefix).encode() + b"</body>"
        )
        # All but the length stays as it was.
        headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
        return HTMLResponse(shown, headers=headers)

    def build_static_routes(self) -> list[BaseRoute]:
        # Before the route that answers everything else with Dagster's page.
        routes: list[BaseRoute] = super().build_static_routes()  # type: ignore[no-untyped-call]
        return [*self._files.routes(), *self._desk, *routes]


def show_in_order(schema: Schema) -> None:
    """Let the list of jobs begin with the pipeline, and launchpads of our jobs show fields, and what they mean, in the
    order of their declaration. No job and no run shows its pod, which its duty and its size decide.
    """
    order, types = order_of_fields(), schema.graphql_schema.type_map

    def change(kind: str, name: str, of: Callable[[Any, Any], Any]) -> None:
        field = cast(Any, types[kind]).fields[name]
        shown = field.resolve or default_field_resolver
        field.resolve = lambda root, info, **given: of(root, shown(root, info, **given))

    def yaml(schema: Any, text: str) -> str:
        job = getattr(schema, "_represented_job", None)
        return in_order(text, order.get(getattr(job, "name", ""), ()))

    def fields(kind: Any, found: list[Any]) -> list[Any]:
        names = order.get(getattr(getattr(kind, "_config_type_snap", None), "key", ""), ())
        return sorted(found, key=lambda field: place_in(names, field.name))

    def jobs(_root: Any, found: list[Any]) -> list[Any]:
        names = order_of_jobs()
        return sorted(found, key=lambda job: place_in(names, job.get_represented_job().name))

    def tags(_root: Any, found: list[Any]) -> list[Any]:
        return [tag for tag in found if not tag.key.startswith(POD_TAGS)]

    for name in ("jobs", "pipelines"):
        change("Repository", name, jobs)
    for kind, name in (
        ("Job", "tags"),
        ("Job", "runTags"),
        ("Pipeline", "tags"),
        ("Pipeline", "runTags"),
        ("Run", "tags"),
    ):
        change(kind, name, tags)
    change("RunConfigSchema", "rootDefaultYaml", yaml)
    change("CompositeConfigType", "fields", fields)


def _runtime() -> Runtime:
    return shared_runtime(_CALL_SECONDS)


class Stores(NamedTuple):
    """The adapters of a request. Both raise UsageError."""

    # For each change and file.
    runtime: Callable[[], Runtime] = _runtime
    # For each page of the desk.
    reader: Callable[[], Runtime] = desk_runtime


def application(
    context: WorkspaceProcessContext,
    settings: WebSettings,
    *,
    read_only: bool = False,
    prefix: str = "",
    poll_milliseconds: int | None = None,
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]] | None = None,
    stores: Stores = Stores(),  # noqa: B008 (a tuple)
    operations: Mapping[str, Operation[Any]] = OPERATIONS,
) -> ASGIApp:
    """The whole application for Dagster's workspace `context`, under the path `prefix` (`/dagster`; empty: at the
    root).

    The desk has a form for each of the `operations`, by their jobs. `poll_milliseconds` is how often the UI polls for
    news of assets.
    """
    operators = Operators(settings)

    def actions() -> OperatorActions:
        return stores.runtime().operator_actions

    def desk(ask: Ask, context_of: Callable[[Request], Any]) -> list[BaseRoute]:
        frame = Frame(
            operators,
            operations,
            reader=stores.reader,
            context=context_of,
            prefix=prefix,
            read_only=read_only,
        )
        pages = (Campaigns(frame), Health(frame), Acts(frame, ask), frame)
        return [route for each in pages for route in each.routes()]

    webserver = _Webserver(
        context,
        prefix,
        poll_milliseconds,
        mutations=Mutations(operators, Rights(settings, actions), actions),
        files=Files(operators, stores.runtime, prefix=prefix, read_only=read_only),
        desk=desk,
    )
    return Guard(
        webserver.create_asgi_app(lifespan=lifespan),
        hosts=settings.hosts,
        prefix=prefix,
        upload_bytes=MAX_BYTES,
    )


_PORT = 3000
# Options of Dagster for parent processes that pass an instance and a pipe, and its version.
_NOT_OURS = frozenset({"instance_ref", "shutdown_pipe", "suppress_warnings", "version"})


def serve(
    host: str,
    port: int | None,
    path_prefix: str,
    read_only: bool,
    listener: int | None,
    instance_id: str,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM, on the socket `listener` if a parent has bound one, with Dagster's own `options`,
    which also name the workspace. Raises UsageError for an
    address at which anyone could launch a run, and without DAGSTER_HOME.
    """
    settings = load_settings()
    if not os.environ.get("DAGSTER_HOME"):
        raise UsageError(
            "DAGSTER_HOME is not set: in the project, DAGSTER_HOME=$PWD regworkers-web -w workspace.yaml"
        )
    refuse_strangers(host, settings.web, read_only=read_only)
    refuse_unknown_jobs(settings.web)
    configure_loggers(formatter=options["log_format"], log_level=options["dagster_log_level"].upper())
    configure_telemetry(settings)
    target = load_target(options)
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(
            *(options[f"db_{name}"] for name in ("statement_timeout", "pool_recycle", "pool_max_overflow"))
        )
        with WorkspaceProcessContext(
            instance,
            workspace_load_target=target,
            version=__version__,
            read_only=read_only,
            code_server_log_level=options["code_server_log_level"],
        ) as context:
            _run(
                application(
                    context,
                    settings.web,
                    read_only=read_only,
                    prefix=path_prefix,
                    poll_milliseconds=options["live_data_poll_rate"],
                    lifespan=_lifespan,
                ),
                host,
                port or _PORT,
                options["uvicorn_log_level"],
                None if listener is None else socket.socket(fileno=listener),
                instance_id,
            )


def _run(
    app: ASGIApp, host: str, port: int, log_level: str, listener: socket.socket | None, instance_id: str
) -> None:
    """Raises SystemExit if it cannot start."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        # Keep the connection's own address: it decides whether the header with the person's name is trusted.
        proxy_headers=False,
        server_header=False,
        headers=[(DAGSTER_HEADER, instance_id)] if instance_id else [],
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=None if listener is None else [listener])
    if not server.started:
        raise SystemExit(3)


def refuse_strangers(host: str, settings: WebSettings, *, read_only: bool) -> None:
    """Raises UsageError for a server that other machines can reach and that has no login."""
    if read_only or settings.operator_header or host == "localhost":
        return
    with suppress(ValueError):
        if ip_address(host).is_loopback:
            return
    raise UsageError(
        f"at {host} every machine that reaches it could launch a run: listen on 127.0.0.1, or name the login in front "
        "of it (web.operatorHeader, web.proxies), or add --read-only"
    )


def refuse_unknown_jobs(settings: WebSettings) -> None:
    """Raises UsageError for a role with a job that does not exist."""
    for role, jobs in settings.jobs.items():
        if unknown := sorted(set(jobs) - tags_of_jobs().keys()):
            raise UsageError(f"web.jobs: {role} has {', '.join(unknown)}, and there is no such job")


@asynccontextmanager
async def _lifespan(_app: Any) -> AsyncIterator[None]:
    # Ctrl-C while connections are open.
    with suppress(asyncio.CancelledError):
        yield


# A parent binds the port before it announces it, and knows its own server by the id in each answer.
_OF_A_PARENT: list[click.Parameter] = [
    click.Option(["--listener"], type=int, hidden=True),
    click.Option(["--instance-id"], default="", hidden=True),
]
command = click.Command(
    "regworkers-web",
    params=[*(option for option in dagster_webserver.params if option.name not in _NOT_OURS), *_OF_A_PARENT],
    callback=serve,
    help="Serve Dagster's UI behind checks of each request, with the upload form and the reports. "
    "The settings `web` name the hosts, and the header with the person's name (docs/security.md).",
)


def main() -> None:
    """Run the command. A usage error ends with one line and exit code 2."""
    try:
        command(auto_envvar_prefix="DAGSTER_WEBSERVER")
    except UsageError as error:
        click.echo(f"regworkers-web: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
