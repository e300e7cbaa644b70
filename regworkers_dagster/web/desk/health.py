"""The page for who is on call: what the doctor found, open incidents, and dead letters by cause, each with its acts.

It reads what the sensor of alerts has stored, and asks no server but MongoDB and Dagster's own storage. Of dead letters
it has headers and causes; a body is only in the file of an export.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import dagster as dg
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from regworkers_core.adapters.mongo.dead_letters import NamedCause, OpenCause
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.evaluate import SENSOR
from regworkers_core.operations.runbook import CATALOG
from regworkers_dagster.drains.observing import last_evaluation
from regworkers_dagster.operations.health import FINDS_NOTHING
from regworkers_dagster.web.desk import runs
from regworkers_dagster.web.desk.frame import Frame, Shown

_COMMANDS = {each.page: each.command.removeprefix("regworkers ") for each in CATALOG}
# A few bodies show what is wrong with all of a cause.
_BODIES = 5
_CRITICAL = ("critical", "warning")


class Cause(NamedTuple):
    """Dead letters of one cause, what operators call it, and what can be done about them."""

    found: OpenCause
    named: NamedCause | None
    acts: list[Shown]


class Judged(NamedTuple):
    """What the doctor found last, and when that began to be so (an ISO time)."""

    fine: bool
    at: str
    part: runs.Part


class Health:
    """The route of the page in a frame."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def routes(self) -> list[BaseRoute]:
        """The routes, relative to the application's prefix."""
        return [Route("/desk/health", self.health)]

    def health(self, request: Request) -> Response:
        """The page."""

        def made() -> Response:
            runtime = self._frame.reader()
            looked = runtime.evaluation_state.evaluations().get(SENSOR)
            silent = looked is None or runtime.clock() - looked > runtime.settings.alerts.silent_seconds
            open_ = sorted(
                runtime.incidents.all_open(),
                key=lambda each: (_CRITICAL.index(each.alert.severity.value), each.opened_at),
            )
            causes = runtime.dead_letters.open_causes()
            named = runtime.dead_letters.named_causes([each.fingerprint for each in causes])
            with self._frame.context(request) as context:
                judged = _judged(context.instance)
            return self._frame.page(
                request,
                "health",
                "Health",
                looked=None if looked is None else iso(looked),
                silent=silent,
                judged=judged,
                again=self._frame.form_link(request, "doctor", {}),
                incidents=[(each, self._of_incident(request, each)) for each in open_],
                causes=[
                    Cause(each, named.get(each.fingerprint), self._of_cause(request, each)) for each in causes
                ],
            )

        return self._frame.read(request, made)

    def _of_incident(self, request: Request, incident: Incident) -> list[Shown]:
        return self._acts(
            request,
            (_COMMANDS.get(incident.alert.runbook, ""), {}),
            ("" if incident.acknowledged else "alerts ack", {"alert": incident.alert.key}),
        )

    def _of_cause(self, request: Request, cause: OpenCause) -> list[Shown]:
        of_it = {"queue": cause.queue, "fingerprint": cause.fingerprint}
        return self._acts(
            request,
            ("dlq groups", of_it),
            ("dlq export", {**of_it, "limit": str(_BODIES)}),
            ("dlq redrive", of_it),
            ("dlq drop", of_it),
            ("dlq name", of_it),
        )

    def _acts(self, request: Request, *acts: tuple[str, dict[str, str]]) -> list[Shown]:
        found = [self._frame.act(request, command, given) for command, given in acts]
        return [each for each in found if each is not None]


def _judged(instance: dg.DagsterInstance) -> Judged | None:
    """What the sensor of alerts, or a run of the doctor, found last; None: neither ever looked."""
    last: Any = last_evaluation(instance, FINDS_NOTHING.key)
    if last is None or last.evaluation is None:
        return None
    found = last.evaluation
    return Judged(found.passed, iso(last.create_timestamp), runs.part_of("", found.metadata))
