"""What a runbook is, and the catalogue of all: for each kind of failure its page, what it looks like, and what to run
first; and what all of them report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from fairdraw.documents import as_document, as_json
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import Reading, Unread
from regworkers_core.operation import Remark, Report, Table

T = TypeVar("T")
P = ParamSpec("P")
Row = Mapping[str, Any]
# Called with one line of progress at a time.
OnLine = Callable[[str], None]


def no_line(_line: str) -> None:
    """The default of every `OnLine`."""


def read_or_unread(read: Callable[P, T], *args: P.args, **more: P.kwargs) -> Reading[T]:
    """The result of `read`, or Unread with the reason why it failed."""
    try:
        return read(*args, **more)
    except (Failure, UsageError) as error:
        return Unread(str(error))


def runbook_report(
    name: str,
    summary: str,
    facts: Row,
    tables: Mapping[str, Sequence[Row]],
    findings: Sequence[Remark],
    changed: str = "",
    next_step: str = "",
) -> Report:
    """What a runbook answers. The rows of a table have the same keys; keys are camelCase. `changed` says in one line
    what was changed, empty: nothing. `next_step` is the command to run next.
    """
    page = f"runbooks/{name}.md"
    document = {
        "runbook": name,
        "fine": not findings,
        "summary": summary,
        "facts": as_json(facts),
        "tables": as_json(tables),
        "changed": changed,
        "nextStep": next_step,
        "page": page,
        "findings": [{"finding": each.text, "advice": each.advice} for each in findings],
    }
    return Report(
        document=document,
        facts=facts,
        tables=[
            Table(title, list(lines[0]), [list(line.values()) for line in lines])
            for title, lines in tables.items()
            if lines
        ],
        said=[text for text in (summary, changed, next_step, f"details: docs/{page}") if text],
        remarks=findings,
        left="; ".join(each.text for each in findings),
        counts={"done": changed},
        changed=bool(changed),
    )


@dataclass(frozen=True, slots=True)
class Runbook:
    """A row of the list of runbooks."""

    name: str
    # What one sees.
    symptom: str
    # What to run first.
    command: str
    # What it may change with `--apply`; empty: it only reads.
    changes: str = ""

    @property
    def page(self) -> str:
        return f"docs/runbooks/{self.name}.md"

    def as_dict(self) -> dict[str, str]:
        return as_document(self, "name", "symptom", "command", "changes", "page")


CATALOG: tuple[Runbook, ...] = (
    Runbook(
        "stream-lag",
        "entries arrive late in the entry store; replication-queue grows",
        "regworkers runbook stream-lag",
    ),
    Runbook(
        "total-failure",
        "tables, queues or the entry store are gone",
        "regworkers runbook total-failure",
        "provisions what is missing, queues and saves every entry again",
    ),
    Runbook(
        "out-of-sync",
        "entries are missing, outdated or superfluous in the entry store",
        "regworkers runbook out-of-sync",
        "queues and saves what differs",
    ),
    Runbook(
        "selection-failures",
        "a draw or the assignment of its codes does not continue",
        "regworkers runbook selection-failures",
        "resumes the markets that a retry helps",
    ),
    Runbook(
        "registrations",
        "fans do not see that they are registered",
        "regworkers registrations status",
    ),
    Runbook(
        "redemptions",
        "what the issuer of the codes says is not taken; redemption-queue grows",
        "regworkers dlq groups",
        "its own commands redrive messages, or drop them",
    ),
    Runbook(
        "campaign-configuration",
        "a campaign is shown with wrong times, markets or status",
        "regworkers runbook campaign-configuration",
        "deletes from Redis the campaigns that differ from their source",
    ),
    Runbook("kafka", "Kafka does not accept events; analytics-queue grows", "regworkers runbook kafka"),
    Runbook("time-outs", "calls time out, drains end as dependency_down", "regworkers runbook time-outs"),
    Runbook(
        "dead-letters",
        "a dead-letter queue is not empty",
        "regworkers dlq groups",
        "its own commands redrive messages, or drop them",
    ),
    Runbook(
        "certificates", "Kafka's client certificate expires soon or is refused", "regworkers certs check"
    ),
    Runbook("cost", "the bill grew", "regworkers runbook cost"),
    Runbook("scheduler", "no run starts by itself", "regworkers doctor"),
    Runbook("eligibility", "valid entries are rejected; fans get no answer", "regworkers doctor"),
    Runbook("log-lines", "no line of a pod arrives in the log group", "regworkers doctor"),
)
