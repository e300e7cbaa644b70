"""What all runbooks share: their report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from fairdraw.documents import as_document
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import Reading, Unread

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


@dataclass(frozen=True, slots=True)
class RunbookFinding:
    """A problem with its numbers; `advice` is the command or the setting that helps."""

    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class RunbookReport:
    """`facts` are single numbers, `tables` lists of rows with the same keys; keys are camelCase, and neither holds a
    fan's data. `changed` says in one line what was changed, empty: nothing. `next_step` is the command to run next.
    """

    name: str
    summary: str
    facts: Row = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    findings: tuple[RunbookFinding, ...] = ()
    changed: str = ""
    next_step: str = ""

    @property
    def fine(self) -> bool:
        return not self.findings

    @property
    def page(self) -> str:
        """The page with the details, below docs/."""
        return f"runbooks/{self.name}.md"

    def as_dict(self) -> dict[str, Any]:
        document = as_document(self, "fine", "summary", "facts", "tables", "changed", "next_step", "page")
        findings = [{"finding": each.text, "advice": each.advice} for each in self.findings]
        return {"runbook": self.name, **document, "findings": findings}
