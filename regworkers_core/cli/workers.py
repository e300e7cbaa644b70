"""`regworkers drain <name>|invoke`: the workers, run manually; drains, and legacy handlers with one event."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from structlog.contextvars import bound_contextvars

from regworkers_core.analytics.producers import signed_event
from regworkers_core.analytics.publishing import invoke_publish, publisher
from regworkers_core.cli.changes import audited
from regworkers_core.cli.output import Format, FormatOption, answer, facts, progress
from regworkers_core.domain.events import ProducerRole, role_named
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.drains.runner import DrainSpec, Life, drain_limits, run_drain
from regworkers_core.engine.handling import answer_event
from regworkers_core.engine.stop import StopSignal
from regworkers_core.flows import DRAINS
from regworkers_core.observability.tracing import span
from regworkers_core.replication.drains import saver
from regworkers_core.replication.enqueue.enqueue_work import invoke_enqueue
from regworkers_core.runtime import Runtime

# Counts that an operator has to see: items given up, records lost, messages stopped.
_FINDINGS = ("dead_lettered", "trimmed", "campaigns_paused")

Idle = Annotated[
    float | None, typer.Option("--idle-seconds", min=0, help="stop after this time without work")
]
Longest = Annotated[
    float | None, typer.Option("--max-seconds", min=0.1, help="stop after this time in total")
]
Resident = Annotated[
    bool,
    typer.Option(
        "--resident", help="stay until SIGTERM: work beside others, or stand by as the newest of several"
    ),
]
BeatFile = Annotated[
    Path | None,
    typer.Option(
        "--beat-file",
        help="touch this file after each heartbeat that was written, and while a pause or a blown fuse keeps the "
        "drain from its work: for the probes of a pod",
    ),
]


drain_app = typer.Typer(no_args_is_help=True)


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """The document without empty values, such as the lags of a drain that found no work."""
    shown = {}
    for name, value in document.items():
        if isinstance(value, dict):
            value = {each: number for each, number in value.items() if number is not None}
        if value not in (None, {}):
            shown[name] = value
    return shown


def _command(spec: DrainSpec[Any]) -> Callable[..., None]:
    def resident(
        idle: Idle = None,
        longest: Longest = None,
        stay: Resident = False,
        beat_file: BeatFile = None,
        form: FormatOption = Format.TEXT,
    ) -> None:
        if stay and (idle, longest) != (None, None):
            raise UsageError("--resident stays until SIGTERM: leave out --idle-seconds and --max-seconds")
        _run(spec, inf if stay else idle, inf if stay else longest, form, resident=stay, beat_file=beat_file)

    def ordinary(idle: Idle = None, longest: Longest = None, form: FormatOption = Format.TEXT) -> None:
        _run(spec, idle, longest, form)

    return resident if spec.residents else ordinary


def _run(
    spec: DrainSpec[Any],
    idle: float | None,
    longest: float | None,
    form: Format,
    *,
    resident: bool = False,
    beat_file: Path | None = None,
) -> None:
    runtime = Runtime.load()
    limits = drain_limits(runtime.settings, spec, idle_seconds=idle, max_seconds=longest)

    with progress("items", spec.name) as show, StopSignal().on_signals() as stop:
        report = run_drain(
            runtime,
            spec,
            limits,
            stop=stop,
            life=Life(resident, patient=resident, on_beat=lambda: beat_file.touch() if beat_file else None),
            on_progress=lambda so_far: show(completed=so_far.counts["received"]),
        )
    document = {**report.as_dict(), "calls": runtime.dependencies.calls}
    answer(
        document,
        form,
        facts(_without_empty(document)),
        finding=report.went_wrong or any(report.counts[name] for name in _FINDINGS),
    )


for spec in DRAINS:
    drain_app.command(spec.name, help=spec.summary)(_command(spec))


Worker = Callable[[Runtime, Any], Any]


def _enqueue_market_selections(runtime: Runtime, event: Any) -> Any:
    """Resume one market of a draw. A result of `BLOCKED` is a finding."""
    fields = event if isinstance(event, dict) else {}
    for name in ("campaignId", "marketId"):
        if not isinstance(fields.get(name), str) or not is_selection_id(fields[name]):
            raise UsageError(
                f'the event is {{"campaignId": "...", "marketId": "..."}}: {name} is missing or not an id'
            )
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.assign.release import retry_market

    # The one legacy handler that acts on an operator's decision; the others do what they do with every event.
    target, run_id = f"{fields['campaignId']}:{fields['marketId']}", f"invoke-{uuid.uuid4().hex}"
    with audited(runtime, "invoke enqueueMarketSelections", target, {"runId": run_id}) as result:
        done = retry_market(runtime, fields["campaignId"], fields["marketId"], run_id=run_id)
        result["status"] = done.get("status")
    return done


def _send_data_as(role: ProducerRole) -> Worker:
    """The worker sendData for an event that is signed here: one who has a role's key speaks for it, on record."""

    def worker(runtime: Runtime, event: Any) -> Any:
        run_id = f"invoke-{uuid.uuid4().hex}"
        with audited(
            runtime, "invoke sendData", role.value, {"signAs": role.value, "runId": run_id}
        ) as result:
            done = invoke_publish(signed_event(event, runtime.producer_keys, role), publisher(runtime))
            result["failed"] = len(done["batchItemFailures"])
        return done

    return worker


def _check_eligibility(runtime: Runtime, event: Any) -> Any:
    from regworkers_core.eligibility.handler import respond

    return respond(runtime, event)


WORKERS: Mapping[str, Worker] = {
    "enqueueEntries": lambda runtime, event: invoke_enqueue(
        event, runtime.queue(runtime.names.replication_queue)
    ),
    "saveEntries": lambda runtime, event: answer_event(event, saver(runtime, f"invoke-{uuid.uuid4().hex}")),
    "enqueueMarketSelections": _enqueue_market_selections,
    "sendData": lambda runtime, event: invoke_publish(event, publisher(runtime)),
    "checkEligibility": _check_eligibility,
}


def invoke(worker: str, payload: str, sign_as: str = "") -> Any:
    """The worker's response to the event in `payload`. Raises UsageError for an unknown worker or role, or bad JSON."""
    if worker not in WORKERS:
        raise UsageError(f"unknown worker {worker}: use {', '.join(WORKERS)}")
    if sign_as and worker != "sendData":
        raise UsageError("--sign-as is for sendData: no other worker asks who has signed a message")
    act = _send_data_as(role_named(sign_as)) if sign_as else WORKERS[worker]
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the event is not JSON (at character {error.pos}): quote it with '...'") from None
    runtime = Runtime.load()
    # One trace, whose correlation ids are those of the entries, and lines that say which worker wrote them.
    with bound_contextvars(worker=worker), span(f"invoke {worker}"):
        return act(runtime, event)


def invoke_command(
    worker: Annotated[str, typer.Argument(help=" or ".join(WORKERS))],
    payload: Annotated[str, typer.Argument(help="the event as JSON, or - to read it from stdin")],
    sign_as: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help=f"sendData: sign the messages with the key of {', '.join(ProducerRole)}",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Invoke a legacy handler with one event.

    Prints its response as JSON. Exits 1 if items failed. saveEntries takes an SQS event:

      {"Records": [{"messageId": "m1", "body": "{\\"type\\": \\"entries.replicate\\", \\"version\\": 1, \\"items\\":
      [{\\"pk\\": \\"CAMPAIGN#<campaignId>\\", \\"sk\\": \\"ENTRY#<entryId>\\"}]}"}]}

    sendData takes an SQS event whose items are CloudEvents (docs/analytics.md has all fields). It refuses messages
    without the attribute producer of their sender; one who may read the key of a role can add it with --sign-as:

      {"Records": [{"messageId": "m1", "body": "{\\"type\\": \\"analytics.publish\\", \\"version\\": 1, \\"items\\":
      [{\\"specversion\\": \\"1.0\\", \\"type\\": \\"entry.removed\\", ...}]}"}]}

    enqueueEntries takes a DynamoDB stream event:

      {"Records": [{"eventName": "MODIFY", "dynamodb": {"SequenceNumber": "1", "Keys": {"PK": {"S":
      "CAMPAIGN#<campaignId>"}, "SK": {"S": "ENTRY#<entryId>"}}, "NewImage": {"needsReplication": {"BOOL": true}}}}]}

    enqueueMarketSelections takes a market to resume (exits 1 while it has too few codes):

      {"campaignId": "<campaignId>", "marketId": "<marketId>"}

    checkEligibility takes a list of checks (exits 0 if they are judged, whatever the verdicts):

      [{"campaignSlug": "<slug or id>", "entry": {"email": "test@example.com", "firstName": "Test", "lastName":
      "User"}, "doTransfer": false}]
    """
    # Surrogates, as in arguments: bytes that are not UTF-8 are reported as invalid JSON.
    piped = sys.stdin.buffer.read().decode(errors="surrogateescape") if payload == "-" else payload
    done = invoke(worker, piped, sign_as)
    answer(
        done,
        Format.JSON,
        finding=isinstance(done, dict) and (done.get("batchItemFailures") or done.get("status") == "BLOCKED"),
    )
