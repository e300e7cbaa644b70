"""The catalogue of runbooks: for each kind of failure its page, what it looks like, and what to run first."""

from __future__ import annotations

from dataclasses import dataclass

from fairdraw.documents import as_document


@dataclass(frozen=True, slots=True)
class Runbook:
    """`command` is what to run first; `changes` is what it may change with `--apply`, empty: it only reads."""

    name: str
    symptom: str
    command: str
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
