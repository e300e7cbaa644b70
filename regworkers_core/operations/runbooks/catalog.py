"""Which runbooks there are, by what one sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """`command` is what to run first, `changes` what it may change with `--yes`; empty: it only looks."""

    name: str
    symptom: str
    command: str
    changes: str = ""

    @property
    def page(self) -> str:
        return f"docs/runbooks/{self.name}.md"

    def as_dict(self) -> dict[str, str]:
        return {
            "name": self.name,
            "symptom": self.symptom,
            "command": self.command,
            "changes": self.changes,
            "page": self.page,
        }


CATALOG: tuple[Entry, ...] = (
    Entry(
        "stream-lag",
        "entries arrive late in the entry store; replication-queue grows",
        "regworkers runbook stream-lag",
    ),
    Entry(
        "total-failure",
        "tables, queues or the entry store are gone",
        "regworkers runbook total-failure",
        "provisions what is missing, queues and saves every entry again",
    ),
    Entry(
        "out-of-sync",
        "entries are missing, old or too many in the entry store",
        "regworkers runbook out-of-sync",
        "queues and saves what differs",
    ),
    Entry(
        "selection-failures",
        "a draw or the assignment of its codes stands still",
        "regworkers runbook selection-failures",
        "takes up the markets that a retry helps",
    ),
    Entry(
        "campaign-configuration",
        "a campaign is shown with wrong times, markets or status",
        "regworkers runbook campaign-configuration",
        "deletes from Redis the campaigns that differ from their source",
    ),
    Entry("kafka", "Kafka does not take events; analytics-queue grows", "regworkers runbook kafka"),
    Entry("time-outs", "calls time out, drains end as dependency_down", "regworkers runbook time-outs"),
    Entry(
        "dead-letters",
        "a dead-letter queue is not empty",
        "regworkers dlq groups",
        "its own commands send letters again, or drop them",
    ),
    Entry("certificates", "Kafka's client certificate ends soon or is refused", "regworkers certs check"),
    Entry("cost", "the bill grew", "regworkers runbook cost"),
    Entry("scheduler", "nothing starts by itself", "regworkers doctor"),
)
