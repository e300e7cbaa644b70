"""The blindness matrix, as data: what an evaluation must say of each dependency and each kind of failure.

No cell is empty: each has an incident, its severity and the time within which it is open, or says why it is silent.
`tests.faults.matrix` plants the fault of a cell and compares. A cell with `elsewhere` is not planted there; the file
that it names shows it.
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

# Columns: the faults of the proxy, and one that needs no proxy.
CREDENTIALS = "credentials"
COLUMNS: tuple[str, ...] = (
    Fault.REFUSED,
    Fault.HANGING,
    Fault.ERROR,
    Fault.THROTTLED,
    Fault.DENIED,
    Fault.SLOW,
    Fault.GARBAGE,
    CREDENTIALS,
)
TITLES: Mapping[str, str] = {
    Fault.ERROR: "500",
    Fault.DENIED: "access denied",
    Fault.SLOW: "slow",
    CREDENTIALS: "credentials wrong or expired",
}


@dataclass(frozen=True, slots=True)
class Incident:
    """`key` and `severity` as in docs/alerts.md; `command` is what the doctor names. It is critical after
    `critical_seconds`: by then a consequence has an incident of that severity.
    """

    key: str
    severity: str
    within_seconds: int
    command: str
    elsewhere: str = ""
    critical_seconds: int | None = None

    def severity_after(self, seconds: int) -> str:
        late = self.critical_seconds is not None and seconds >= self.critical_seconds
        return "critical" if late else self.severity

    def __str__(self) -> str:
        later = f", critical after {self.critical_seconds} s" if self.critical_seconds else ""
        return f"`{self.key}`, {self.severity}, {self.within_seconds} s{later}"


@dataclass(frozen=True, slots=True)
class Silent:
    """No incident, and `because` says why none is right."""

    because: str
    elsewhere: str = ""

    def __str__(self) -> str:
        return f"silent, because {self.because}"


Cell = Incident | Silent
Row = Mapping[str, Cell]
_SLOW = Silent("it answers within the time-outs (a slower answer counts as hanging)")


def _same(cell: Cell, **others: Cell) -> Row:
    return {**dict.fromkeys(COLUMNS, cell), Fault.SLOW: _SLOW, **others}


def _all(cell: Cell, path: str) -> Row:
    return dict.fromkeys(COLUMNS, _shown(cell, path))


def _down(key: str, severity: str, command: str = TIME_OUTS) -> Incident:
    return Incident(f"dependency-down:{key}", severity, DOWN_SECONDS, command)


def _shown(cell: Cell, path: str) -> Cell:
    return replace(cell, elsewhere=path)


def _aws(key: str, path: str = "tests/adapters/test_classify_aws.py") -> Row:
    down = _down(key, "critical")
    return _same(down, credentials=_shown(down, path))


def _service(name: str) -> Row:
    page = f"regworkers service check {name}"
    down = _down(f"service-{name}", "warning", page)
    return _same(down, credentials=_shown(down, "tests/adapters/http/test_requests.py"))


# It is no longer known what Kafka deletes before the archive reads it.
_KAFKA = replace(_down("kafka", "warning", "regworkers runbook kafka"), critical_seconds=BLIND_SECONDS)
_KAFKA_ERRORS = _shown(_KAFKA, "tests/adapters/test_classify.py")
_BLIND_DAGSTER = Incident("blind:dagster", "critical", BLIND_SECONDS, TIME_OUTS)
_MONGO = Incident("mongo-away:mongo", "critical", DOWN_SECONDS, TIME_OUTS)
_REDIS = _down("redis", "warning", "regworkers runbook campaign-configuration")

MATRIX: Mapping[str, Row] = {
    # The streams are found by a row of a table, so both are named in one incident of AWS.
    "dynamodb": _aws("aws"),
    "streams": _aws("streams"),
    "sqs": _aws("sqs"),
    "s3": _aws("s3"),
    "mongo": _same(_MONGO, credentials=_shown(_MONGO, "tests/adapters/test_classify_mongo.py")),
    "redis": _same(_REDIS, credentials=_shown(_REDIS, "tests/adapters/test_classify.py")),
    "kafka": _same(
        _KAFKA,
        **dict.fromkeys(
            (Fault.ERROR, Fault.THROTTLED, Fault.DENIED, Fault.GARBAGE, CREDENTIALS), _KAFKA_ERRORS
        ),
    ),
    **{f"service-{name}": _service(name) for name in ("entry", "user", "code", "campaign")},
    "secretsmanager": _same(
        Silent(
            "tokens and certificates are kept once they are read; who starts meanwhile names what it lacks"
        ),
        credentials=_shown(
            Silent(
                "a role has one set of credentials, and every other service of AWS says that they are bad"
            ),
            "tests/adapters/test_classify_aws.py",
        ),
    ),
    "cloudwatch": _same(
        Silent("evaluations then take the ages of queues from their own marks in MongoDB"),
        credentials=_shown(
            Silent(
                "a role has one set of credentials, and every other service of AWS says that they are bad"
            ),
            "tests/adapters/test_classify_aws.py",
        ),
    ),
    "cloudwatch-logs": _all(
        Silent("each line also goes to the process's own output"), "tests/adapters/test_log_group.py"
    ),
    "dagster-graphql": _same(
        _BLIND_DAGSTER, **{CREDENTIALS: _shown(_BLIND_DAGSTER, "tests/operations/health/test_scheduler.py")}
    ),
    "dagster-database": _all(
        Incident("watcher:alerts_sensor", "critical", 240, "Dagster UI, Automation, alerts_sensor"),
        "tests/operations/alerts/test_evaluate.py",
    ),
    "drand": _all(
        # Of the run that failed; the draw goes on by itself when the beacon answers.
        Incident("selection-run:draw/<campaignId>", "critical", 60, "regworkers runbook selection-failures"),
        "tests/operations/alerts/test_evaluate.py",
    ),
    "vault": _all(
        Silent("only `regworkers certs generate` asks it, and tells the operator who waits"),
        "tests/infrastructure/deploy/test_certificates_policy.py",
    ),
    "mailer": _all(
        Silent("nothing here calls it; what it leaves on its queue has the conditions of a queue"),
        "tests/operations/alerts/test_evaluate.py",
    ),
    "slack": _all(
        Silent("PagerDuty, the file and the log still get every incident, and Slack gets it later"),
        "tests/operations/alerts/test_evaluate.py",
    ),
    "pagerduty": _all(
        Silent("Slack, the file and the log still get every incident, and PagerDuty gets it later"),
        "tests/operations/alerts/test_evaluate.py",
    ),
    "otlp-collector": _all(
        Silent("a span that cannot be sent is dropped, and no work waits for it"),
        "tests/observability/test_tracing.py",
    ),
    "disk": _all(
        Incident("selection-run:draw/<campaignId>", "critical", 60, "regworkers runbook selection-failures"),
        "tests/operations/alerts/test_evaluate.py",
    ),
}


def cells() -> Iterator[tuple[str, str, Cell]]:
    """Dependency, kind of failure, and what is expected."""
    for name, row in MATRIX.items():
        for kind in COLUMNS:
            yield name, kind, row[kind]


def planted() -> list[tuple[str, str]]:
    """The cells that the runner plants."""
    return [(name, kind) for name, kind, cell in cells() if not cell.elsewhere]


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
            shown = f"`{cell.elsewhere}`" if cell.elsewhere else "`make matrix`"
            lines.append(f"| {name} | {', '.join(together)} | {cell} | {command} | {shown} |")
    return "\n".join(lines) + "\n"
