"""Saved queries of Logs Insights over the workers' JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regworkers_core.settings import Settings

# Also the placeholder of the query that somebody fills in by hand.
ANY_CORRELATION_ID = "<correlation id>"
SLOW_SECONDS = 2


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
        "fields @timestamp, level, worker, event, runId, correlationId, dependency, error",
        f'filter correlationId = "{literal}" or @message like "{literal}"',
        "sort @timestamp asc",
        "limit 1000",
    )


def saved_queries(settings: Settings) -> list[SavedQuery]:
    """In a folder of their own per environment."""
    group = f"/{settings.names.prefix}regworkers"
    texts = {
        "failed runs": _lines(
            "fields @timestamp, worker, runId, drain, ended, dependency, items.dead_lettered, items.returned",
            'filter level = "error" or (event = "drain ended" and ended = "dependency_down")'
            " or items.dead_lettered > 0",
            "sort @timestamp desc",
            "limit 200",
        ),
        "by correlation id": by_correlation_id(ANY_CORRELATION_ID),
        "slow requests": _lines(
            "fields @timestamp, worker, event, dependency, seconds, correlationId",
            f'filter event in ["slow call", "checks answered"] and seconds > {SLOW_SECONDS}',
            "sort seconds desc",
            "limit 200",
        ),
        "batch failures per 5 min": _lines(
            'filter event in ["batch given back", "dead letters not confirmed", '
            '"the work failed without settling its batch", "receive failed"]',
            "stats count(*) as failures by bin(5m), worker, event",
            "sort @timestamp desc",
        ),
    }
    return [
        SavedQuery(f"{settings.names.prefix}regworkers/{name}", text, group) for name, text in texts.items()
    ]


def _lines(*parts: str) -> str:
    return "\n| ".join(parts)
