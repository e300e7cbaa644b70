"""The pages of the desk: campaigns, one campaign, forms of operations, runs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from html import escape
from http import HTTPStatus
from itertools import groupby
from typing import Any, NamedTuple

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.timestamps import iso, to_second
from regworkers_core.operation import Effect, Operation
from regworkers_core.operations.uploads import MAX_BYTES
from regworkers_core.reporting import beside, page
from regworkers_core.runtime import Runtime
from regworkers_core.selection.progress import read_progress, sentence_of
from regworkers_dagster.runs import PARTITION_TAG
from regworkers_dagster.web.desk import forms, runs
from regworkers_dagster.web.guard import Operators, Person
from regworkers_dagster.web.mutations import has_partitions_of

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
_LAUNCH = """mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message }
  }
}"""
_MOST_CAMPAIGNS = 200
_MOST_RUNS = 20

# Sends the text and the variables of a request for GraphQL, as the person who sent `request`.
Ask = Callable[[Request, str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class Shown(NamedTuple):
    """A link to a form or a page."""

    text: str
    address: str


class Desk:
    """`reader` gives the runtime that pages read with; it raises UsageError. `ask` asks Dagster's GraphQL, `context`
    makes its request context. `prefix` is the path under which the application is served.
    """

    def __init__(
        self,
        operators: Operators,
        operations: Mapping[str, Operation[Any]],
        *,
        reader: Callable[[], Runtime],
        ask: Ask,
        context: Callable[[Request], Any],
        prefix: str,
        read_only: bool,
    ) -> None:
        self._operators, self._operations = operators, operations
        self._reader, self._ask, self._context = reader, ask, context
        self._prefix, self._read_only = prefix, read_only
        self._by_command = {each.command: each for each in operations.values()}

    def routes(self) -> list[BaseRoute]:
        """The routes, relative to the application's prefix."""
        return [
            Route("/desk", self.campaigns),
            Route("/desk/campaigns/{campaign}", self.campaign),
            Route("/desk/operations", self.operations),
            Route("/desk/operations/{job}", self.form),
            Route("/desk/operations/{job}", self.submit, methods=["POST"]),
            Route("/desk/runs/{run_id}", self.run),
            Route("/desk/runs/{run_id}", self.confirm, methods=["POST"]),
            Route("/desk/{name}", self.file),
        ]

    def file(self, request: Request) -> Response:
        """The stylesheet or the script."""
        kinds = {"desk.css": "text/css", "desk.js": "text/javascript"}
        name = request.path_params["name"]
        if name not in kinds:
            return self._missing(request, "There is no such page.")
        headers = {"Cache-Control": "no-cache"}
        return Response(beside(name), media_type=kinds[name], headers=headers)

    def campaigns(self, request: Request) -> Response:
        """All campaigns, those that go on first."""

        def made() -> Response:
            runtime = self._reader()
            now = iso(runtime.clock())
            draws = {record.campaign_id: record for record in runtime.draws.all()}
            found = runtime.campaigns.list()
            found.sort(key=lambda each: each.opens_at, reverse=True)
            found.sort(key=lambda each: each.status is CampaignStatus.COMPLETED)
            rows = [
                (
                    each,
                    sentence_of(each, draws.get(each.campaign_id), now),
                    sum(m.capacity for m in each.markets),
                )
                for each in found[:_MOST_CAMPAIGNS]
            ]
            more = max(0, len(found) - _MOST_CAMPAIGNS)
            create = self._act(request, "campaign create")
            return self._page(request, "campaigns", "Campaigns", campaigns=rows, more=more, create=create)

        return self._read(request, made)

    def campaign(self, request: Request) -> Response:
        """One campaign: its state, what waits for a person, its steps, and what can be done now."""

        def made() -> Response:
            runtime, named = self._reader(), request.path_params["campaign"]
            campaign = runtime.campaigns.find(named)
            if campaign is None:
                return self._missing(request, "There is no campaign of this name.")
            campaign_id = campaign.campaign_id
            with self._context(request) as context:
                latest = runs.of_campaign(context.instance, campaign_id, _MOST_RUNS)
            found = read_progress(runtime, campaign, at_work=lambda: any(not run.ended for run in latest))
            of_it = {"campaign_id": campaign_id}
            waits = [
                (runs.sentence(each.text), self._form_link(request, each.job, {**of_it, **each.given}))
                for each in found.waits
            ]
            acts = [self._act(request, command, campaign_id) for command in found.acts]
            steps = [
                (each, self._act(request, each.command, campaign_id) if each.command in found.acts else None)
                for each in found.steps
            ]
            return self._page(
                request,
                "campaign",
                campaign.name,
                campaign=campaign,
                progress=found,
                waits=waits,
                steps=steps,
                acts=[each for each in acts if each],
                runs=latest,
                links=self._links(campaign_id, found.reports, found.record),
            )

        return self._read(request, made)

    def _links(self, campaign_id: str, reports: Iterable[int], record: Any) -> list[Shown]:
        found = [
            Shown(f"Report of phase {phase}", f"{self._prefix}/reports/{campaign_id}/{phase}")
            for phase in reports
        ]
        if record is not None and record.public_phases:
            found.append(Shown("Public page", f"{self._prefix}/draws/{campaign_id}/page/index.html"))
        return found

    def operations(self, request: Request) -> Response:
        """Every form, by what it is about."""
        found = [each for each in self._operations.values() if self._may(request, each.job)]
        found.sort(key=lambda each: each.command.split()[0])
        groups = [(name, [*rows]) for name, rows in groupby(found, lambda each: each.command.split()[0])]
        return self._page(request, "operations", "All acts", groups=groups)

    def form(self, request: Request) -> Response:
        """The form of an operation. Its address may fill fields."""

        def made() -> Response:
            operation = self._operations.get(request.path_params["job"])
            if operation is None:
                return self._missing(request, "There is no such act.")
            fields = forms.fields_of(operation, request.query_params)
            known = []
            if any(field.kind == "campaign" for field in fields):
                known = [each.campaign_id for each in self._reader().campaigns.list()]
            return self._page(
                request,
                "form",
                forms.label_of(operation.job),
                operation=operation,
                fields=fields,
                campaigns=known,
                button=_button(operation),
                most_mib=MAX_BYTES // 1024**2,
            )

        return self._read(request, made)

    async def submit(self, request: Request) -> Response:
        """Check what was typed, and launch the job unless only that was asked: `{typed: {...}, check: true}`."""
        operation = self._operations.get(request.path_params["job"])
        sent = await _sent(request)
        if operation is None or sent is None:
            return JSONResponse({"said": "There is no such act."}, HTTPStatus.NOT_FOUND)
        typed = forms.read(operation, sent.get("typed") or {})
        if typed.wrong is not None:
            return JSONResponse({"wrong": typed.wrong._asdict()}, HTTPStatus.UNPROCESSABLE_ENTITY)
        if sent.get("check"):
            return JSONResponse({})
        return await self._launch(request, operation, typed.config)

    async def confirm(self, request: Request) -> Response:
        """Launch what a run has previewed: `{word: "..."}`."""
        sent = await _sent(request)
        with self._context(request) as context:
            seen = await run_in_threadpool(runs.look, context.instance, request.path_params["run_id"])
        operation = self._operations.get(seen.job) if seen else None
        if seen is None or operation is None or sent is None or not self._awaits(operation, seen):
            return JSONResponse({"said": "This run waits for no confirmation."}, HTTPStatus.CONFLICT)
        word = str(sent.get("word") or "").strip()
        if seen.word and word != seen.word:
            wrong = forms.Wrong("word", f"Nothing was changed: the word is {seen.word}.")
            return JSONResponse({"wrong": wrong._asdict()}, HTTPStatus.UNPROCESSABLE_ENTITY)
        return await self._launch(request, operation, forms.confirmed(operation, seen.config, word))

    @staticmethod
    def _awaits(operation: Operation[Any], seen: runs.Seen) -> bool:
        """Whether a run showed what it would do, and there is something to confirm."""
        found = seen.fine and forms.was_preview(operation, seen.config)
        return found and (bool(seen.word) or operation.effect is Effect.CHANGE)

    async def _launch(
        self, request: Request, operation: Operation[Any], config: Mapping[str, Any]
    ) -> Response:
        with self._context(request) as context:
            selector = _selector(context, operation.job)
            by_campaign = selector is not None and has_partitions_of(context, {"selector": selector})
        if selector is None:
            return JSONResponse({"said": "Dagster has not loaded this job yet: try again in a minute."}, 503)
        tags: dict[str, str] = {}
        if by_campaign:
            config, named = {}, str(config.get("campaign_id", ""))
            try:
                found = await run_in_threadpool(lambda: self._reader().campaigns.id_of(named))
            except (Failure, UsageError) as failure:
                return JSONResponse({"said": f"Nothing was launched: {failure}."}, 503)
            tags[PARTITION_TAG] = found
        params = {
            "selector": selector,
            "runConfigData": dict(config),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = await self._ask(request, _LAUNCH, {"params": params})
        launched = (answer.get("data") or {}).get("launchRun") or {}
        if launched.get("__typename") == "LaunchRunSuccess":
            return JSONResponse({"at": f"{self._prefix}/desk/runs/{launched['run']['runId']}"}, 201)
        return JSONResponse({"said": _why(launched)}, HTTPStatus.CONFLICT)

    def run(self, request: Request) -> Response:
        """A run: how far it is, and what it did."""
        with self._context(request) as context:
            seen = runs.look(context.instance, request.path_params["run_id"])
        if seen is None:
            return self._missing(request, "There is no such run. Runs are kept for some days.")
        operation = self._operations.get(seen.job)
        awaits = operation is not None and self._awaits(operation, seen)
        return self._page(
            request,
            "run",
            forms.label_of(seen.job),
            run=seen,
            operation=operation,
            given=[(forms.label_of(name), value) for name, value in seen.config.items()] if operation else [],
            awaits=awaits and self._may(request, seen.job),
            again=self._form_link(request, seen.job, _texts(seen.config)),
            previewed=operation is not None and forms.was_preview(operation, seen.config),
        )

    def _person(self, request: Request) -> Person | None:
        return self._operators.who(request)

    def _may(self, request: Request, job: str) -> bool:
        """Whether the person may launch the job."""
        person = None if self._read_only else self._person(request)
        return person is not None and (person.jobs is None or job in person.jobs)

    def _act(self, request: Request, command: str, campaign_id: str = "") -> Shown | None:
        operation = self._by_command.get(command)
        given = {"campaign_id": campaign_id} if campaign_id else {}
        return None if operation is None else self._form_link(request, operation.job, given)

    def _form_link(self, request: Request, job: str, given: Mapping[str, str]) -> Shown | None:
        """The form of the job with these fields; None where the person may not launch it."""
        operation = self._operations.get(job)
        if operation is None or not self._may(request, job):
            return None
        fields = operation.input.model_fields
        query = {name: value for name, value in given.items() if name in fields}
        address = request.url.replace(path=f"{self._prefix}/desk/operations/{job}", query="")
        return Shown(
            forms.label_of(job), str(address.include_query_params(**query)).partition(address.netloc)[2]
        )

    def _read(self, request: Request, made: Callable[[], Response]) -> Response:
        """The page, or a page with one sentence that says what does not answer."""
        try:
            return made()
        except (Failure, UsageError) as failure:
            return self._sentence(request, f"This cannot be shown now: {failure}.", 503)

    def _missing(self, request: Request, why: str) -> Response:
        return self._sentence(request, why, HTTPStatus.NOT_FOUND)

    def _sentence(self, request: Request, text: str, status: int) -> Response:
        return self._page(request, "sentence", "The desk", text=text, status=status)

    def _page(
        self, request: Request, template: str, title: str, *, status: int = 200, **values: Any
    ) -> Response:
        person = self._person(request)
        shown = page(
            f"desk_{template}",
            title=title,
            prefix=self._prefix,
            who=person.name if person else "",
            read_only=self._read_only or person is None or not person.may_launch,
            when=_when,
            prose=self._prose,
            **values,
        )
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return HTMLResponse(shown, status, headers=headers)

    def _prose(self, text: str) -> Markup:
        """Text in which `job` in backticks is a link to its form."""
        pieces = []
        for at, piece in enumerate(str(text).split("`")):
            if at % 2 and piece in self._operations:
                address = f"{self._prefix}/desk/operations/{piece}"
                pieces.append(f'<a href="{escape(address)}">{escape(forms.label_of(piece))}</a>')
            else:
                pieces.append(f"<code>{escape(piece)}</code>" if at % 2 else escape(piece))
        return Markup("".join(pieces))  # noqa: S704 (each piece is escaped)


def _button(operation: Operation[Any]) -> str:
    if operation.acts:
        return "Show what it would do"
    return "Show" if operation.effect is Effect.READ else "Do it"


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in config.items() if isinstance(value, str)}


def _when(at: str | None) -> Markup:
    if not at:
        return Markup("–")
    return Markup('<time datetime="{}">{} UTC</time>').format(at, to_second(at))


async def _sent(request: Request) -> Mapping[str, Any] | None:
    try:
        found = json.loads(await request.body())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _selector(context: Any, job: str) -> dict[str, str] | None:
    """Where Dagster has the job; None while it is not loaded."""
    for location in context.code_locations:
        for repository in location.get_repositories().values():
            if repository.has_job(job):
                return {
                    "repositoryLocationName": location.name,
                    "repositoryName": repository.name,
                    "jobName": job,
                }
    return None


def _why(launched: Mapping[str, Any]) -> str:
    """Why nothing was launched, in one sentence."""
    found = [each["message"] for each in launched.get("errors") or ()] or [str(launched.get("message") or "")]
    text = found[0].strip().partition("\n")[0] or "Dagster does not say why"
    text = text if text.startswith("not launched") else f"nothing was launched: {text}"
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."
