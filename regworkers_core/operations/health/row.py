"""One line of the doctor: a thing of the system, how it stands, since when, and what helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from regworkers_core.domain.alert import Severity


class State(StrEnum):
    """From good to bad. NOTE is nothing that anybody is alerted of; UNKNOWN is not set up to be read; UNREAD could not
    be read.
    """

    FINE = "fine"
    NOTE = "note"
    UNKNOWN = "unknown"
    UNREAD = "unread"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def is_finding(self) -> bool:
        return self in (State.UNREAD, State.WARNING, State.CRITICAL)

    def or_worse(self, other: State) -> State:
        order = list(State)
        return max(self, other, key=order.index)

    @classmethod
    def of(cls, severity: Severity) -> State:
        return cls.CRITICAL if severity is Severity.CRITICAL else cls.WARNING


@dataclass(frozen=True, slots=True)
class Row:
    """`section` and `name` say what it is. `facts` are numbers and ids of ours, for readers that are programs; `since`
    is an ISO time, None: not known.
    """

    section: str
    name: str
    state: State
    text: str
    since: str | None = None
    help: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state.value,
            "text": self.text,
            "since": self.since,
            "help": self.help or None,
            **self.facts,
        }
