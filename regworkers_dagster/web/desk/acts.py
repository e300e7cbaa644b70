"""Forms, what they launch, and the runs that follow."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import urlencode

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from regworkers_core.domain.reasons import Failure, RequestError, TransientFailure, UsageError
from regworkers_core.operation import Effect, Operation
from regworkers_core.operations.uploads import MAX_BYTES
from regworkers_dagster.runs import PARTITION_TAG
from regworkers_dagster.web.desk import forms, runs
from regworkers_dagster.web.desk.frame import Frame, Shown
from regworkers_dagster.web.desk.previews import Previews
from regworkers_dagster.web.mutations import has_partitions_of

log = structlog.get_logger(__name__)
_LAUNCH = """mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on Error { message }
  }
}"""
# Sends the text and the variables of a request for GraphQL, as the person who sent `request`.
Ask = Callable[[Request, str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class _Asked(NamedTuple):
    """A preview: of which operation, with which config."""

    operation: Operation[Any]
    config: Mapping[str, Any]


class Acts:
    """The routes of forms and runs in a frame. `ask` asks Dagster's GraphQL."""

    def __init__(self, frame: Frame, ask: Ask) -> None:
        self._frame, self._ask = frame, ask
        self._previews = Previews(frame.reader)

    def routes(self) -> list[BaseRoute]:
        """The routes, relative to the application's prefix."""
        return [
            Route("/desk/operations", self.operations),
            Route("/desk/operations/{job}", self.form),
            Route("/desk/operations/{job}", self.submit, methods=["POST"]),
            Route("/desk/operations/{job}/preview", self.preview),
            Route("/desk/operations/{job}/preview", self.confirm_preview, methods=["POST"]),
            Route("/desk/runs/{run_id}", self.run),
            Route("/desk/runs/{run_id}", self.confirm, methods=["POST"]),
        ]

    def operations(self, request: Request) -> Response:
        """Every form, by what it is about."""
        found = [each for each in self._frame.operations.values() if self._frame.may(request, each.job)]
        found.sort(key=_subject)
        groups = [(name, [*rows]) for name, rows in groupby(found, _subject)]
        return self._frame.page(request, "operations", "All acts", groups=groups)

    def form(self, request: Request) -> Response:
        """The form of an operation. Its address may fill fields."""

        def made() -> Response:
            operation = self._frame.operations.get(request.path_params["job"])
            if operation is None:
                return self._frame.missing(request, "There is no such act.")
            fields = forms.fields_of(operation, request.query_params)
            more, known = forms.folded(operation, fields), []
            if any(field.kind == "campaign" for field in fields):
                known = [each.campaign_id for each in self._frame.reader().campaigns.list()]
            return self._frame.page(
                request,
                "form",
                forms.label_of(operation.job),
                operation=operation,
                fields=[field for field in fields if field not in more],
                more=more,
                campaigns=known,
                button=forms.button_of(operation),
                most_mib=MAX_BYTES // 1024**2,
            )

        return self._frame.read(request, made)

    async def submit(self, request: Request) -> Response:
        """Check what was typed, and answer with where it is previewed or what was launched, unless only the check was
        asked: `{typed: {...}, check: true}`.
        """
        operation = self._frame.operations.get(request.path_params["job"])
        sent = await _sent(request)
        if operation is None or sent is None:
            return _said("There is no such act.", HTTPStatus.NOT_FOUND)
        given = sent.get("typed") or {}
        typed = forms.read(operation, given)
        if typed.wrong is not None:
            return JSONResponse({"wrong": typed.wrong._asdict()}, HTTPStatus.UNPROCESSABLE_ENTITY)
        if sent.get("check"):
            return JSONResponse({})
        if operation.instant:
            try:
                seen = await run_in_threadpool(self._previewed, request, operation, typed.config)
            except TransientFailure as failure:
                # A run has other rights, and more time.
                log.warning("preview left to a run", job=operation.job, error=str(failure))
            except (Failure, UsageError) as refused:
                return _said(runs.sentence(str(refused)), HTTPStatus.CONFLICT)
            else:
                self._previews.keep(seen, self._frame.who(request))
                query = urlencode(forms.as_query(operation, given))
                return JSONResponse({"at": f"{self._frame.form_address(operation.job)}/preview?{query}"})
        return await self._launch(request, operation, forms.previewing(operation, typed.config))

    def preview(self, request: Request) -> Response:
        """What the operation would do, by the fields in the address, and the form that confirms it."""

        def made() -> Response:
            asked = self._of_address(request)
            if asked is None:
                return self._frame.missing(request, "There is no such preview.")
            if not self._frame.may(request, asked.operation.job):
                return self._frame.sentence(request, _not_shown(asked.operation), HTTPStatus.FORBIDDEN)
            config = forms.previewing(*asked)
            seen = self._previews.kept(asked.operation, config, self._frame.who(request))
            seen = seen or self._previewed(request, *asked)
            again = self._frame.form_link(request, seen.job, request.query_params)
            return self._shown(request, seen, again)

        return self._frame.read(request, made)

    async def confirm_preview(self, request: Request) -> Response:
        """Launch what the preview of this address shows now: `{word: "..."}`."""
        sent = await _sent(request)
        asked = self._of_address(request)
        if asked is None or sent is None:
            return _said("There is no such preview.", HTTPStatus.NOT_FOUND)
        try:
            seen = await run_in_threadpool(self._previewed, request, *asked)
        except (Failure, UsageError) as failure:
            return _said(runs.sentence(str(failure)), HTTPStatus.CONFLICT)
        return await self._confirmed(request, asked.operation, seen, sent)

    async def confirm(self, request: Request) -> Response:
        """Launch what a run has previewed: `{word: "..."}`."""
        sent = await _sent(request)
        with self._frame.context(request) as context:
            seen = await run_in_threadpool(runs.look, context.instance, request.path_params["run_id"])
        operation = self._frame.operations.get(seen.job) if seen else None
        if seen is None or operation is None or sent is None:
            return _said("There is no such run.", HTTPStatus.CONFLICT)
        return await self._confirmed(request, operation, seen, sent)

    def _of_address(self, request: Request) -> _Asked | None:
        """What the address of a preview asks for; None where there is none."""
        operation = self._frame.operations.get(request.path_params["job"])
        if operation is None or not operation.instant:
            return None
        typed = forms.read(operation, request.query_params)
        return None if typed.wrong else _Asked(operation, typed.config)

    def _previewed(self, request: Request, operation: Operation[Any], config: Mapping[str, Any]) -> runs.Seen:
        if not self._frame.may(request, operation.job):
            raise RequestError(_not_shown(operation))
        shown = forms.previewing(operation, config)
        return self._previews.make(operation, shown, self._frame.who(request))

    async def _confirmed(
        self, request: Request, operation: Operation[Any], seen: runs.Seen, sent: Mapping[str, Any]
    ) -> Response:
        if not self._awaits(operation, seen):
            return _said("Nothing waits here for a confirmation.", HTTPStatus.CONFLICT)
        word = str(sent.get("word") or "").strip()
        if seen.word and word != seen.word:
            wrong = forms.Wrong("word", f"Nothing was changed: the word is {seen.word}.")
            return JSONResponse({"wrong": wrong._asdict()}, HTTPStatus.UNPROCESSABLE_ENTITY)
        return await self._launch(request, operation, forms.confirmed(operation, seen.config, word))

    @staticmethod
    def _awaits(operation: Operation[Any], seen: runs.Seen) -> bool:
        """Whether a run showed what it would do, and there is something to confirm."""
        found = seen.fine and forms.was_preview(operation, seen.config)
        return found and (bool(seen.word) or operation.effect is not Effect.DELETE)

    async def _launch(
        self, request: Request, operation: Operation[Any], config: Mapping[str, Any]
    ) -> Response:
        with self._frame.context(request) as context:
            selector = _selector(context, operation.job)
            by_campaign = selector is not None and has_partitions_of(context, {"selector": selector})
        if selector is None:
            return _said("Dagster has not loaded this job yet: try again in a minute.", 503)
        tags: dict[str, str] = {}
        if by_campaign:
            config, named = {}, str(config.get("campaign_id", ""))
            try:
                found = await run_in_threadpool(lambda: self._frame.reader().campaigns.id_of(named))
            except (Failure, UsageError) as failure:
                return _said(f"Nothing was launched: {failure}.", 503)
            tags[PARTITION_TAG] = found
        params = {
            "selector": selector,
            "runConfigData": dict(config),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = await self._ask(request, _LAUNCH, {"params": params})
        launched = (answer.get("data") or {}).get("launchRun") or {}
        if launched.get("__typename") == "LaunchRunSuccess":
            return JSONResponse({"at": f"{self._frame.prefix}/desk/runs/{launched['run']['runId']}"}, 201)
        return _said(_why(launched), HTTPStatus.CONFLICT)

    def run(self, request: Request) -> Response:
        """A run: how far it is, and what it did."""
        with self._frame.context(request) as context:
            seen = runs.look(context.instance, request.path_params["run_id"])
        if seen is None:
            return self._frame.missing(request, "There is no such run. Runs are kept for some days.")
        return self._shown(request, seen, self._frame.form_link(request, seen.job, _texts(seen.config)))

    def _shown(self, request: Request, seen: runs.Seen, again: Shown | None) -> Response:
        operation = self._frame.operations.get(seen.job)
        awaits = operation is not None and self._awaits(operation, seen)
        return self._frame.page(
            request,
            "run",
            forms.label_of(seen.job),
            run=seen,
            operation=operation,
            given=[(forms.label_of(name), value) for name, value in seen.config.items()] if operation else [],
            awaits=awaits and self._frame.may(request, seen.job),
            again=again,
            previewed=bool(seen.run_id)
            and operation is not None
            and forms.was_preview(operation, seen.config),
        )


def _not_shown(operation: Operation[Any]) -> str:
    return f"None of your groups may launch {operation.job}, so it is not shown."


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in config.items() if isinstance(value, str)}


def _said(text: str, status: int) -> Response:
    return JSONResponse({"said": text}, status)


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


def _subject(operation: Operation[Any]) -> str:
    """What an operation is about; some have no command."""
    return (operation.command or operation.job.replace("_", " ")).split()[0]
