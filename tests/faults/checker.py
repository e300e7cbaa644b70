"""Judges the history of a campaign's round: `python -m tests.faults.checker FILE...`. Imports nothing of the product.

A history is JSON lines (gzip), `k` being the kind of each:

- while faults strike: `ask` (a writer begins `op` on `key`, whose state then is `order` and `content`), `answer` (it is
  done; without one it may or may not have happened), `seen` (the replica holds this state now), `decided` (what a
  draw's record says now), `report` (of a drain that ended by itself), `raised` (an error without a class), and
  `born`, `ended`, `kill`, `pause`, `rule` (what was done to whom)
- in the recovery: `worked off` (dead letters of killed processes: how many were sent again, and how many dropped)
- after the recovery: `source` and `replica` (each item), `event` (each record on Kafka), `queue` (its depth), `dead`
  (each dead letter), `entrant`, `result` (lines of the published result), `code`, `selection`, `outbox`,
  `notified` (each message to the mailer), and `end`, with which a history is whole

Orders are [createdAt, version, updatedAt] and are compared part by part.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = dict[str, Any]
LOST, DOUBLED, OLDER, WRONG = "lost", "doubled", "older state", "wrong"
# What a fan is notified by the outcome that the result has.
MESSAGES = {
    "WINNER": "winner",
    "WAITLIST": "waitlisted",
    "UNSELECTED": "unselected",
    "HOUSEHOLD_LIMIT": "unselected",
}
REPLICATED, REMOVED = "entry.replicated", "entry.removed"


@dataclass(slots=True)
class Verdict:
    """`findings` are (kind, sentence); `repeats` came again under the id that they had, which consumers drop."""

    findings: list[tuple[str, str]] = field(default_factory=list)
    repeats: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: str) -> None:
        self.findings.append((kind, text))

    def number(self, kind: str) -> int:
        return sum(each == kind for each, _ in self.findings)


def read(path: Path) -> list[Line]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def check(lines: Iterable[Line]) -> Verdict:
    """All rules over one round."""
    by_kind: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_kind[line["k"]].append(line)
    verdict = Verdict(counts=Counter({kind: len(found) for kind, found in by_kind.items()}))
    for rule in RULES:
        rule(by_kind, verdict)
    return verdict


def _order(line: Line) -> tuple[str, int, str]:
    created, version, updated = line["order"]
    return str(created), int(version), str(updated)


def whole(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    """A history that ends early, or in which nothing happened, proves nothing."""
    if not by_kind["end"]:
        verdict.add(WRONG, "the history has no end")
    for kind in ("ask", "answer", "seen", "source", "replica", "event", "entrant", "result", "notified"):
        if not by_kind[kind]:
            verdict.add(WRONG, f"the history has no {kind}")
    if any(line.get("cut") for found in by_kind.values() for line in found):
        verdict.add(WRONG, "a line of the history was too long")
    for text in (text for line in by_kind["end"] for text in line.get("open", ())):
        verdict.add(LOST, f"not recovered in time: {text}")


def numbers_add_up(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    for line in by_kind["report"]:
        if not line["addsUp"]:
            verdict.add(
                WRONG, f"{line['p']}: its numbers do not add up: {line['items']} {line['deliveries']}"
            )


def nothing_raises(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    for line in by_kind["raised"]:
        verdict.add(WRONG, f"{line['p']} raised {line['error']}: {line['text']}")


def replica_is_as_its_source(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    replica = {line["key"]: line for line in by_kind["replica"]}
    source = {line["key"]: line for line in by_kind["source"]}
    for key, item in source.items():
        copy = replica.get(key)
        if (
            copy is None
            or copy["deleted"]
            or _order(copy) != _order(item)
            or copy["content"] != item["content"]
        ):
            verdict.add(LOST, f"{key}: the replica is not as its source: {copy}")
        if item["flag"] or item["replicatedVersion"] != item["order"][1]:
            verdict.add(LOST, f"{key}: its flag is not cleared")
    answered = {line["n"] for line in by_kind["answer"]}
    written = {ask["key"] for ask in by_kind["ask"] if ask["op"] == "put" and ask["n"] in answered}
    for key in written - source.keys():
        if key not in replica or not replica[key]["deleted"]:
            verdict.add(LOST, f"{key}: removed, but no tombstone")
    for key, number in Counter(line["key"] for line in by_kind["replica"]).items():
        if number > 1:
            verdict.add(DOUBLED, f"{key}: {number} documents")


def every_state_was_written(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    """Of the load: what the replica showed, and what events tell of, a writer asked for."""
    puts = {(ask["key"], _order(ask)): ask for ask in by_kind["ask"] if ask["op"] == "put"}
    keys = {ask["key"] for ask in by_kind["ask"]}
    for line in (*by_kind["seen"], *by_kind["replica"]):
        state = puts.get((line["key"], _order(line)))
        wrong = state is None or (not line["deleted"] and state["content"] != line["content"])
        if line["key"] in keys and wrong:
            verdict.add(WRONG, f"{line['key']}: the replica holds a state without a writer: {line['order']}")
    for line in by_kind["event"]:
        of_entry = line["type"] in (REPLICATED, REMOVED) and line["key"] in keys
        if of_entry and (line["key"], _order(line)) not in puts:
            verdict.add(DOUBLED, f"{line['key']}: an event of a state that never was: {line['order']}")


def no_older_state_wins(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    """What the replica showed over time, and in the end: neither back to an older state nor back to life."""
    last: dict[str, tuple[tuple[str, int, str], bool]] = {}
    for line in (*by_kind["seen"], *by_kind["replica"]):
        now = (_order(line), bool(line["deleted"]))
        before = last.get(line["key"], now)
        if now[0] < before[0]:
            verdict.add(OLDER, f"{line['key']}: {before[0]}, then {now[0]}")
        elif now[0] == before[0] and before[1] and not now[1]:
            verdict.add(OLDER, f"{line['key']}: its tombstone of {now[0]} was undone")
        last[line["key"]] = now


def every_state_has_its_event(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    """The last state of every entry is on Kafka; repeats have the id and content of the first. A state that another
    overtook before its event was sent has none: consumers keep the newest.
    """
    ids: dict[tuple[Any, ...], str] = {}
    contents: dict[str, str] = {}
    for line in by_kind["event"]:
        if line["type"] in (REPLICATED, REMOVED):
            state = (line["type"], line["key"], _order(line))
            if ids.setdefault(state, line["id"]) != line["id"]:
                verdict.add(DOUBLED, f"{line['key']}: two events of {line['order']}")
        verdict.repeats += line["id"] in contents
        if contents.setdefault(line["id"], line["content"]) != line["content"]:
            verdict.add(DOUBLED, f"{line['key']}: two contents under one id of {line['type']}")
    owed = {
        (REMOVED if line["deleted"] else REPLICATED, line["key"], _order(line)) for line in by_kind["replica"]
    }
    for kind, key, order in sorted(owed - ids.keys()):
        verdict.add(LOST, f"{key}: no {kind} of {order}")


def queues_are_empty(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    for line in by_kind["queue"]:
        if line["depth"]:
            verdict.add(LOST, f"{line['depth']} messages are left on {line['name']}")
    for line in by_kind["dead"]:
        verdict.add(LOST, f"a dead letter of {line['queue']}: {line['reason']}: {line['error']}")


def decided_once(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    """A field of a draw's record that was decided never changes."""
    first: dict[tuple[str, str], Any] = {}
    for line in by_kind["decided"]:
        for name, value in line["fields"].items():
            if first.setdefault((line["draw"], name), value) != value:
                verdict.add(WRONG, f"{line['draw']}: {name} was decided twice")


def one_code_a_winner(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    """By the published result: every entrant once, a code for each winner, of its market, and for no one else."""
    entrants = {line["ref"] for line in by_kind["entrant"]}
    rows = [line["line"].split("|") for line in by_kind["result"]]
    refs = Counter(row[0] for row in rows)
    for ref in entrants - refs.keys():
        verdict.add(LOST, f"entrant {ref} is not in the result")
    for ref in refs.keys() - entrants:
        verdict.add(WRONG, f"{ref} is in the result and no entrant")
    winners = {row[0]: row[1] for row in rows if row[3] == "WINNER"}
    for what in ("selection", "code"):
        held = Counter(line["ref"] for line in by_kind[what] if line["ref"])
        for ref in winners.keys() - held.keys():
            verdict.add(LOST, f"winner {ref} has no {what}")
        for ref in held.keys() - winners.keys():
            verdict.add(WRONG, f"{ref} has a {what} and did not win")
        for ref in (ref for ref, number in (held + refs).items() if number > 2 or refs[ref] > 1):
            verdict.add(DOUBLED, f"{ref} has more than one {what} or result")
    codes = Counter(line["code"] for line in by_kind["selection"])
    for code in (code for code, number in codes.items() if number > 1):
        verdict.add(DOUBLED, f"code {code} went to two winners")
    of_ref = {line["ref"]: line for line in by_kind["code"] if line["ref"]}
    for line in by_kind["selection"]:
        code = of_ref.get(line["ref"], {})
        if (code.get("code"), code.get("market")) != (line["code"], winners.get(line["ref"])):
            verdict.add(WRONG, f"the code of {line['ref']} is not that of its selection and market")


def notified_once_and_rightly(by_kind: dict[str, list[Line]], verdict: Verdict) -> None:
    """Each entrant under one key, what the result says; a message that comes again is the same one."""
    outcomes = {row[0]: row[3] for row in (line["line"].split("|") for line in by_kind["result"])}
    keys: dict[str, set[str]] = defaultdict(set)
    contents: dict[str, str] = {}
    for line in by_kind["notified"]:
        keys[line["ref"]].add(line["key"])
        verdict.repeats += line["key"] in contents
        if contents.setdefault(line["key"], line["content"]) != line["content"]:
            verdict.add(DOUBLED, f"{line['key']}: two messages under one key")
        if line["type"] != MESSAGES.get(outcomes.get(line["ref"], "")):
            verdict.add(
                WRONG, f"{line['ref']} was notified {line['type']}, but is {outcomes.get(line['ref'])}"
            )
    for ref, outcome in outcomes.items():
        if outcome in MESSAGES and ref not in keys:
            verdict.add(LOST, f"{ref} was not notified")
    for ref, of_ref in keys.items():
        if len(of_ref) > 1:
            verdict.add(DOUBLED, f"{ref} was notified under {len(of_ref)} keys")
    for line in by_kind["outbox"]:
        if line["status"] != "SENT":
            verdict.add(LOST, f"message {line['key']} is {line['status']}")


RULES = (
    whole,
    numbers_add_up,
    nothing_raises,
    replica_is_as_its_source,
    every_state_was_written,
    no_older_state_wins,
    every_state_has_its_event,
    queues_are_empty,
    decided_once,
    one_code_a_winner,
    notified_once_and_rightly,
)


def report(paths: Iterable[Path]) -> Iterator[str]:
    """A line for each history, and one for each finding."""
    for path in paths:
        verdict = check(read(path))
        numbers = ", ".join(f"{verdict.number(kind)} {kind}" for kind in (LOST, DOUBLED, OLDER, WRONG))
        yield f"{path.name}: {verdict.counts['kill']} kills: {numbers}, {verdict.repeats} repeats"
        yield from (f"  {kind}: {text}" for kind, text in verdict.findings)


def main() -> int:
    lines = list(report(map(Path, sys.argv[1:])))
    print("\n".join(lines))
    return 1 if any(line.startswith("  ") for line in lines) or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
