"""What the shadow found so far: differences by class and field, with examples by key, and the lag of the old system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fairdraw import scheduling
from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.entry_documents import Effect, Stored, Write, differing_fields, judge
from regworkers_core.domain.keys import EntryKey
from regworkers_core.engine.drain_report import Percentiles
from regworkers_core.replication.reconcile.classify import Kind

EXAMPLES = 10
# Lags are counted by the second. Above this only their number matters.
_LONGEST_LAG_SECONDS = 900

EXPLANATIONS = {
    Kind.MISSING: "a save would insert the entry: the replica does not have it",
    Kind.STALE: "a save would change fields of the entry",
    Kind.ORPHANED: "a save would replace the entry by a tombstone: the source no longer has it",
    Kind.RESURRECTED: "a save would write nothing: a tombstone at or above the entry's order hides it",
    Kind.AHEAD: "a save would write nothing: the replica holds a newer state",
    Kind.REJECTED: "a save would refuse the entry: it becomes a dead letter",
}


@dataclass(frozen=True, slots=True)
class Deviation:
    """How the replica deviates from what a save would leave; `fields` are those that differ, or what is refused."""

    kind: Kind
    fields: tuple[str, ...] = ()


def deviation(write: Write, seen: Stored | None) -> Deviation | None:
    """None where the replica holds what a save of this state would leave. Not compared are the fields that only a save
    writes, and tombstones, which the old system does not have.
    """
    effect = Effect.APPLIED if seen is None else judge(write, seen)
    live = None if seen is None else seen.fields
    if write.fields is None:
        if live is None:
            return None
        return Deviation(Kind.AHEAD if effect is Effect.STALE else Kind.ORPHANED)
    if effect in (Effect.RESURRECTED, Effect.STALE):
        return Deviation(Kind.RESURRECTED if effect is Effect.RESURRECTED else Kind.AHEAD)
    if live is None:
        return Deviation(Kind.MISSING)
    fields = differing_fields(write.fields, live)
    return Deviation(Kind.STALE, tuple(fields)) if fields else None


@dataclass(slots=True)
class ShadowReport:
    """What the comparison of changes found, safe to share between threads. Those that were compared are those that
    agreed and those of all kinds.
    """

    began_at: str  # an ISO time
    until: str = ""  # ISO time of the newest change
    agreed: int = 0  # changes
    overtaken: int = 0  # changes that were left to a later one of the same entry
    # Changes that were compared twice, because the replica did not have them within the lag objective.
    late: int = 0
    trimmed: int = 0  # times that the stream had lost records
    kinds: Counter[Kind] = field(default_factory=Counter)  # changes that differed
    fields: Counter[str] = field(default_factory=Counter)  # how often each differed
    examples: dict[Kind, list[str]] = field(default_factory=dict)  # ids by kind
    lags: Counter[int] = field(default_factory=Counter)  # changes by seconds
    lock: scheduling.Lock = field(default_factory=scheduling.lock, repr=False)  # guards all of them

    @property
    def differences(self) -> int:
        return self.kinds.total()

    @property
    def compared(self) -> int:
        return self.agreed + self.differences

    @property
    def agreement_percent(self) -> float | None:
        """None before anything was compared. Never rounded up to 100."""
        return None if not self.compared else int(self.agreed / self.compared * 100_000) / 1000

    @property
    def clean(self) -> bool:
        """Whether changes were compared, all of them agree, and none was lost before it was read."""
        return self.agreed > 0 and not self.differences and not self.trimmed

    def add_agreed(self, number: int, until: str) -> None:
        with self.lock:
            self.agreed += number
            self.until = max(self.until, until)

    def add_overtaken(self) -> None:
        with self.lock:
            self.overtaken += 1

    def add_late(self) -> None:
        with self.lock:
            self.late += 1

    def add_lag(self, seconds: float) -> None:
        with self.lock:
            self.lags[min(int(seconds), _LONGEST_LAG_SECONDS)] += 1

    def add_difference(self, key: EntryKey, found: Deviation, until: str) -> None:
        with self.lock:
            self.kinds[found.kind] += 1
            self.fields.update(found.fields if found.kind is Kind.STALE else ())
            examples = self.examples.setdefault(found.kind, [])
            shown = f"{key.shown} ({', '.join(found.fields)})" if found.fields else key.shown
            if len(examples) < EXAMPLES and shown not in examples:
                examples.append(shown)
            self.until = max(self.until, until)

    def as_dict(self) -> dict[str, Any]:
        lag = Percentiles()
        for seconds, times in self.lags.items():
            lag.add(seconds, times)
        return {
            "beganAt": self.began_at,
            "until": self.until or None,
            **as_document(self, "clean", "compared", "agreed", "agreement_percent"),
            "differences": {kind.value: number for kind, number in sorted(self.kinds.items())},
            "differingFields": dict(self.fields.most_common()),
            "examples": {kind.value: each for kind, each in sorted(self.examples.items())},
            "explanations": {kind.value: EXPLANATIONS[kind] for kind in sorted(self.kinds)},
            **as_document(self, "overtaken", "late", "trimmed"),
            "oldSystemLagSeconds": lag.summary(),
            "oldSystemCleared": lag.count,
        }

    def as_state(self) -> dict[str, str]:
        """The state of the shadow's lease: what `of_state` reads."""
        with self.lock:
            document = self.as_dict() | {"lags": {str(second): n for second, n in self.lags.items()}}
        return {"report": orjson.dumps(document).decode()}

    @classmethod
    def of_state(cls, state: Mapping[str, str]) -> ShadowReport | None:
        """None where no shadow has run."""
        if not state.get("report"):
            return None
        found: Mapping[str, Any] = orjson.loads(state["report"])
        examples: Mapping[str, Sequence[str]] = found["examples"]
        return cls(
            began_at=found["beganAt"],
            until=found["until"] or "",
            agreed=found["agreed"],
            overtaken=found["overtaken"],
            late=found["late"],
            trimmed=found["trimmed"],
            kinds=Counter({Kind(kind): number for kind, number in found["differences"].items()}),
            fields=Counter(found["differingFields"]),
            examples={Kind(kind): list(each) for kind, each in examples.items()},
            lags=Counter({int(second): number for second, number in found["lags"].items()}),
        )
