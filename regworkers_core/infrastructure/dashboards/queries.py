"""Saved queries of Logs Insights over the workers' JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regworkers_core.settings import Settings

# Also the placeholder of the query that somebody fills in by hand.
ANY_CORRELATION_ID = "<correlation id>"
SLOW_MS = 5000


@dataclass(frozen=True, slots=True)
class SavedQuery:
    name: str
    text: str
    log_group: str

    def request(self) -> dict[str, Any]:
        """What PutQueryDefinition takes."""
        return {"name": self.name, "queryString": self.text, "logGroupNames": [self.log_group]}


def by_correlation_id(correlation_id: str) -> str:
    """All lines of one entry's way; the id is compared as it is, with what could end the literal taken out."""
    literal = correlation_id.replace("\\", "").replace('"', "")
    return _lines(
        "fields @timestamp, level, worker, event, campaignId, entryId, outcome, runId, trace_id, dependency, error",
        # The second part finds lines of several entries: a call's `correlationIds`.
        f'filter correlationId = "{literal}" or @message like "{literal}"',
        "sort @timestamp asc",
        "limit 1000",
    )


def saved_queries(settings: Settings) -> list[SavedQuery]:
    """Those of the operations manual, with its limits, and one that counts; in a folder of their own per environment.

    Lambda's `@duration` is not in lines of ours: `durationMs` is, of every batch, of every call that was slow and of
    every check.
    """
    group = f"/{settings.names.prefix}regworkers"
    texts = {
        "failed invocations": _lines(
            "fields @timestamp, worker, event, runId, drain, ended, dependency, error, @message",
            "filter @message like /ERROR/",
            "sort @timestamp desc",
            "limit 100",
        ),
        "by correlation id": by_correlation_id(ANY_CORRELATION_ID),
        "SQS batch failures": _lines(
            "fields @timestamp, worker, runId, batchItemFailures, messages, durationMs",
            'filter batchItemFailures != "[]"',
            "sort @timestamp desc",
            "limit 100",
        ),
        "slow requests": _lines(
            "fields @timestamp, worker, event, dependency, durationMs, correlationId",
            f"filter durationMs > {SLOW_MS}",
            "sort durationMs desc",
            "limit 50",
        ),
        "batch failures per 5 min": _lines(
            'filter event in ["batch given back", "dead letters not confirmed", '
            '"the work failed without settling what it got", "receive failed"]',
            "stats count(*) as failures by bin(5m), worker, event",
            "sort @timestamp desc",
        ),
    }
    return [
        SavedQuery(f"{settings.names.prefix}regworkers/{name}", text, group) for name, text in texts.items()
    ]


def _lines(*parts: str) -> str:
    return "\n| ".join(parts)
