"""Dagster's own webserver with our checks around it, our names on what it launches, and our pages beside its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster_webserver.webserver import DagsterWebserver
from graphene import Schema
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from regworkers_core.operations.uploads import MAX_BYTES
from regworkers_core.runtime import Runtime
from regworkers_core.settings.operations import WebSettings
from regworkers_dagster.resources import Workers
from regworkers_dagster.web.files import Files
from regworkers_dagster.web.guard import Guard
from regworkers_dagster.web.mutations import Mutations
from regworkers_dagster.web.operators import Operators

# A person waits: what does not answer by then is away.
_CALL_SECONDS = 10.0


class _Webserver(DagsterWebserver[WorkspaceProcessContext, WorkspaceRequestContext]):
    """Dagster's, by the methods that it has for this."""

    def __init__(
        self,
        context: WorkspaceProcessContext,
        prefix: str,
        poll_milliseconds: int | None,
        *,
        mutations: Mutations,
        files: Files,
    ) -> None:
        self._mutations, self._files = mutations, files
        super().__init__(context, prefix, poll_milliseconds)

    def build_graphql_schema(self) -> Schema:
        schema = super().build_graphql_schema()
        self._mutations.wrap(schema)
        return schema

    def build_static_routes(self) -> list[BaseRoute]:
        # They stand before the route that answers everything else with Dagster's page.
        routes: list[BaseRoute] = super().build_static_routes()  # type: ignore[no-untyped-call]
        return [*self._files.routes(), *routes]


def _runtime() -> Runtime:
    return Workers(call_seconds=_CALL_SECONDS).runtime


def application(
    context: WorkspaceProcessContext,
    settings: WebSettings,
    *,
    read_only: bool = False,
    prefix: str = "",
    poll_milliseconds: int | None = None,
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]] | None = None,
    runtime: Callable[[], Runtime] = _runtime,
) -> ASGIApp:
    """All of it on Dagster's workspace `context`, under the path `prefix` (`/dagster`; empty: at the root).

    `runtime` is asked for with each change and file; it raises UsageError. `poll_milliseconds` is how often the UI asks
    for what is new of assets.
    """
    operators = Operators(settings)
    webserver = _Webserver(
        context,
        prefix,
        poll_milliseconds,
        mutations=Mutations(operators, lambda: runtime().operator_actions),
        files=Files(operators, runtime, prefix=prefix, read_only=read_only),
    )
    return Guard(
        webserver.create_asgi_app(lifespan=lifespan),
        hosts=settings.hosts,
        prefix=prefix,
        upload_bytes=MAX_BYTES,
    )
