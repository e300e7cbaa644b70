"""What all pages of the desk have: the frame around them, links to forms, and what a person may launch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.timestamps import to_second
from regworkers_core.operation import Operation
from regworkers_core.reporting import beside, page
from regworkers_core.runtime import Runtime
from regworkers_dagster.web.desk import forms, runs
from regworkers_dagster.web.guard import Operators

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", re.ASCII)


class Shown(NamedTuple):
    """A link to a form or a page."""

    text: str
    address: str


class Frame:
    """`operations` are those with a form, by their jobs. `reader` gives the runtime that pages read with; it raises
    UsageError. `context` makes Dagster's context of a request. `prefix` is the path under which the application is
    served.
    """

    def __init__(
        self,
        operators: Operators,
        operations: Mapping[str, Operation[Any]],
        *,
        reader: Callable[[], Runtime],
        context: Callable[[Request], Any],
        prefix: str,
        read_only: bool,
    ) -> None:
        self._operators, self.operations = operators, operations
        self.reader, self.context, self.prefix, self._read_only = reader, context, prefix, read_only
        self._by_command = {each.command: each for each in operations.values() if each.command}

    def routes(self) -> list[BaseRoute]:
        """The route of stylesheet and script, behind those of all pages."""
        return [Route("/desk/{name}", self.file)]

    def file(self, request: Request) -> Response:
        """The stylesheet or the script."""
        kinds = {"desk.css": "text/css", "desk.js": "text/javascript"}
        name = request.path_params["name"]
        if name not in kinds:
            return self.missing(request, "There is no such page.")
        headers = {"Cache-Control": "no-cache"}
        return Response(beside(name), media_type=kinds[name], headers=headers)

    def who(self, request: Request) -> str:
        """The name of the person, as the audit log has it; empty: it is not known."""
        person = self._operators.who(request)
        return person.name if person else ""

    def may(self, request: Request, job: str) -> bool:
        """Whether the person may launch the job."""
        person = None if self._read_only else self._operators.who(request)
        return person is not None and person.may(job)

    def act(self, request: Request, command: str, given: Mapping[str, str]) -> Shown | None:
        """The form of an operation with these fields; None where the person may not launch it."""
        operation = self._by_command.get(command)
        return None if operation is None else self.form_link(request, operation.job, given)

    def form_link(self, request: Request, job: str, given: Mapping[str, str]) -> Shown | None:
        """The form of the job with these fields; None where the person may not launch it."""
        operation = self.operations.get(job)
        if operation is None or not self.may(request, job):
            return None
        fields = operation.input.model_fields
        query = {name: value for name, value in given.items() if name in fields}
        address = self.form_address(job)
        return Shown(forms.label_of(job), f"{address}?{urlencode(query)}" if query else address)

    def form_address(self, job: str) -> str:
        return f"{self.prefix}/desk/operations/{job}"

    def read(self, request: Request, made: Callable[[], Response]) -> Response:
        """The page, or a page with one sentence that says what does not answer."""
        try:
            return made()
        except (Failure, UsageError) as failure:
            return self.sentence(request, f"This cannot be shown now: {failure}.", 503)

    def missing(self, request: Request, why: str) -> Response:
        """A page that says in one sentence what is not there."""
        return self.sentence(request, why, HTTPStatus.NOT_FOUND)

    def sentence(self, request: Request, text: str, status: int) -> Response:
        """A page with one sentence."""
        return self.page(request, "sentence", "The desk", text=text, status=status)

    def page(
        self, request: Request, template: str, title: str, *, status: int = 200, **values: Any
    ) -> Response:
        """The page that `desk_<template>.html` makes of these values. Links of a run fill in its campaign."""
        person = self._operators.who(request)
        about = getattr(values.get("run"), "campaign_id", "")
        shown = page(
            f"desk_{template}",
            title=title,
            prefix=self.prefix,
            who=self.who(request),
            read_only=self._read_only or person is None or not person.may_launch,
            when=_when,
            prose=partial(self._prose, request, {"campaign_id": about} if about else {}),
            located=lambda html: Markup(runs.located(html, self.prefix)),  # noqa: S704 (it was made here)
            **values,
        )
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return HTMLResponse(shown, status, headers=headers)

    def _prose(self, request: Request, given: Mapping[str, str], text: str) -> Markup:
        """Text in which `job` in backticks is a link to its form with these fields, for those who may launch it, and
        the address of a page to the page. A text that is a time is shown as one.
        """
        if _TIME.fullmatch(text):
            return _when(text)
        pieces = []
        for at, piece in enumerate(str(text).split("`")):
            form = self.form_link(request, piece, given) if at % 2 else None
            if form is not None:
                pieces.append(f'<a href="{escape(form.address)}">{escape(form.text)}</a>')
            else:
                pieces.append(f"<code>{escape(piece)}</code>" if at % 2 else escape(piece))
        return Markup(runs.located("".join(pieces), self.prefix))  # noqa: S704 (each piece is escaped)


def _when(at: str | None) -> Markup:
    if not at:
        return Markup("–")
    return Markup('<time datetime="{}">{} UTC</time>').format(at, to_second(at))
