"""The blindness matrix, as data: what an evaluation must say of each dependency and each kind of failure.

No cell is empty: each has an incident, its severity and the time within which it is open, or says why it is silent, or
why there is no such failure. `tests.faults.matrix` plants the fault of a cell and compares. A cell with `elsewhere` is
not planted there; it names the file that shows it, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tests.support.fault_proxy import Fault

# What the sensor waits between two looks (`alerts.lookSeconds`).
LOOK_SECONDS = 60
# Two looks must find a dependency down. The first comes one interval after the fault at the latest.
DOWN_SECONDS = 2 * LOOK_SECONDS
# What cannot be read is an incident after `alerts.blindSeconds` (120 s), counted from the first look.
BLIND_SECONDS = LOOK_SECONDS + 120
TIME_OUTS = "regworkers runbook time-outs"

# The fault of one process, while all others reach the dependency; the other columns are those of all processes.
ONE_PROCESS = "one process"
# Who loses an answer asks again, as after a time-out.
COLUMNS = (*(fault for fault in Fault if fault is not Fault.CUT), ONE_PROCESS)
TITLES: Mapping[str, str] = {
    Fault.ERROR: "500",
    Fault.DENIED: "access denied",
    Fault.CREDENTIALS: "credentials wrong or expired",
}


@dataclass(frozen=True, slots=True)
class Incident:
    """`key` and `severity` as in docs/alerts.md; `command` is what the doctor names."""

    key: str
    severity: str
    within_seconds: int
    command: str
    elsewhere: str = ""

    def __str__(self) -> str:
        return f"`{self.key}`, {self.severity}, {self.within_seconds} s"


@dataclass(frozen=True, slots=True)
class Silent:
    """No incident, and `because` says why none is right. `beside` is the key of one that opens meanwhile, for
    the channels.
    """

    because: str
    elsewhere: str = ""
    beside: str = ""

    def __str__(self) -> str:
        return f"silent, because {self.because}"


@dataclass(frozen=True, slots=True)
class Impossible:
    """There is no such failure."""

    because: str
    elsewhere: str = ""

    def __str__(self) -> str:
        return f"cannot happen, because {self.because}"


Cell = Incident | Silent | Impossible
Row = Mapping[str, Cell]
_SLOW = Silent("it answers within the time-outs (a slower answer counts as hanging)")


def _same(cell: Cell, **others: Cell) -> Row:
    return {**dict.fromkeys(COLUMNS, cell), Fault.SLOW: _SLOW, **others}


def _down(key: str, severity: str, command: str = TIME_OUTS) -> Incident:
    return Incident(f"dependency-down:{key}", severity, DOWN_SECONDS, command)


# A role has one set of credentials, so they are bad for every service. More than three are one incident.
_KEYS = _down("aws", "critical")


def _aws(cell: Cell) -> Row:
    return _same(cell, credentials=_KEYS)


def _service(name: str) -> Row:
    return _same(_down(f"service-{name}", "warning", f"regworkers service check {name}"))


def _channel(others: str, name: str) -> Row:
    because = f"{others}, the file and the log get every incident meanwhile, and {name} gets it later"
    return dict.fromkeys(COLUMNS, Silent(because, beside="dead-letters:selection-queue-dlq"))


# What Kafka deletes before the archive reads it has days.
_KAFKA = Incident("dependency-down:kafka", "warning", DOWN_SECONDS, "regworkers runbook kafka")
# Of the run that failed; the draw goes on with the next one.
_RUN = Incident(
    "selection-run:draw/<campaignId>", "critical", LOOK_SECONDS, "regworkers runbook selection-failures"
)

_ROWS: Mapping[str, Row] = {
    # The streams are found by a row of a table, so both are named in one incident of AWS.
    "dynamodb": _aws(_down("aws", "critical")),
    "streams": _aws(_down("streams", "critical")),
    "sqs": _aws(_down("sqs", "critical")),
    "s3": _aws(_down("s3", "critical")),
    "mongo": _same(Incident("mongo-away:mongo", "critical", DOWN_SECONDS, TIME_OUTS)),
    "redis": _same(_down("redis", "warning", "regworkers runbook campaign-configuration")),
    "kafka": _same(
        _KAFKA,
        throttled=Silent("a broker refuses no request over a quota: it answers later, within the time-outs"),
    ),
    **{f"service-{name}": _service(name) for name in ("entry", "user", "code", "campaign")},
    # Whether the keys of campaigns are there is not known, and who starts meanwhile lacks tokens and certificates.
    "secretsmanager": _aws(Incident("blind:secretsmanager", "critical", BLIND_SECONDS, TIME_OUTS)),
    # Evaluations take the ages of queues from their own marks in MongoDB, but not how checkEligibility does.
    "cloudwatch": _aws(Incident("blind:cloudwatch", "warning", BLIND_SECONDS, TIME_OUTS)),
    "cloudwatch-logs": _aws(
        Silent("each line also goes to the process's own output, and to the log group afterwards")
    ),
    "dagster-graphql": _same(Incident("blind:dagster", "critical", BLIND_SECONDS, TIME_OUTS)),
    # The daemon, which stores a tick before it runs a sensor, then runs none.
    "dagster-database": _same(
        Incident("watcher:alerts_sensor", "critical", 240, "Dagster UI, Automation, alerts_sensor")
    ),
    "drand": _same(_RUN, credentials=Impossible("the beacon is public and asks for none")),
    "vault": _same(Silent("only `regworkers certs generate` asks it, and tells the operator who waits")),
    # Nothing here calls it: however it fails, its queue fills.
    "mailer": dict.fromkeys(
        COLUMNS,
        Incident(
            "queue-depth:notification-queue", "warning", LOOK_SECONDS, "regworkers runbook selection-failures"
        ),
    ),
    "slack": _channel("PagerDuty", "Slack"),
    "pagerduty": _channel("Slack", "PagerDuty"),
    "otlp-collector": _same(Silent("a span that cannot be sent is dropped, and no work waits for it")),
    "disk": {
        Fault.HANGING: replace(
            _RUN,
            # `dagster.maxLongRunSeconds`, and two looks of Dagster at its runs.
            within_seconds=21_600 + DOWN_SECONDS,
            elsewhere="`tests/dagster/test_definitions.py`: only a driver of the kernel hangs, and "
            "`dagster/max_runtime` ends the run",
        ),
        Fault.SLOW: Silent(
            "a run takes longer, and no time-out is about a disk",
            elsewhere="`tests/operations/alerts/test_evaluate.py`: only a driver of the kernel is slow, and "
            "no condition counts the time of a run that holds its lease",
        ),
        Fault.GARBAGE: replace(
            _RUN,
            key="draw-input-differs:<campaignId>",
            command="regworkers campaign status <campaignId>",
        ),
        Fault.REFUSED: _RUN,
        Fault.ERROR: _RUN,
        Fault.DENIED: _RUN,
        Fault.THROTTLED: Impossible("a disk that is asked too much is slow"),
        Fault.CREDENTIALS: Impossible("a disk asks for none"),
    },
}


_TAKEN_OVER = Silent(
    "the resident says that it is blind and the other one works within 10 s (of a hanging call: after its time-out)",
    elsewhere="`tests/faults/test_one_process.py`: it needs two processes (of the save drain, with AWS and MongoDB); "
    "`make simulate` plays each drain and dependency",
)
_OF_A_CALL = Silent(
    "the process names it in its answer or its log and asks again with the next call; for the one that evaluates the "
    "other cells of this row hold",
    elsewhere="`tests/faults/test_matrix.py`: every cell of this row has one process that calls it",
)
_OF_A_RUN = replace(
    _RUN,
    elsewhere="`tests/faults/test_matrix.py`: every cell of this row has one process that calls it, the run of a draw",
)
_OF_RESIDENTS = ("dynamodb", "streams", "sqs", "mongo", "kafka")
_OF_RUNS = ("s3", "drand", "disk")


def _of_one_process(name: str) -> Cell:
    if name in _OF_RESIDENTS:
        return _TAKEN_OVER
    if name == "mailer":
        return Impossible("no process of ours calls it")
    return _OF_A_RUN if name in _OF_RUNS else _OF_A_CALL


MATRIX: Mapping[str, Row] = {name: {**row, ONE_PROCESS: _of_one_process(name)} for name, row in _ROWS.items()}


def cells() -> Iterator[tuple[str, str, Cell]]:
    """Dependency, kind of failure, and what is expected."""
    for name, row in MATRIX.items():
        for kind in COLUMNS:
            yield name, kind, row[kind]


def planted() -> list[tuple[str, str]]:
    """The cells that the runner plants."""
    return [
        (name, kind)
        for name, kind, cell in cells()
        if not cell.elsewhere and not isinstance(cell, Impossible)
    ]


def matrix_table() -> str:
    """The matrix in Markdown: a line for each dependency and expectation, with the kinds of failure that have it."""
    lines = [
        "| dependency | failure | expected | the doctor names | shown by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in MATRIX.items():
        kinds: dict[Cell, list[str]] = {}
        for kind in COLUMNS:
            kinds.setdefault(row[kind], []).append(TITLES.get(kind, kind))
        for cell, together in kinds.items():
            command = f"`{cell.command}`" if isinstance(cell, Incident) else "–"
            shown = "–" if isinstance(cell, Impossible) else cell.elsewhere or "`make matrix`"
            lines.append(f"| {name} | {', '.join(together)} | {cell} | {command} | {shown} |")
    return "\n".join(lines) + "\n"
