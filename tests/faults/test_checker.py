"""The checker itself: a whole history is clean, and one that is bent is found by the rule that it breaks."""

from __future__ import annotations

import ast
import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import checker
from tests.faults.checker import DOUBLED, LOST, OLDER, RULES, WRONG, Line, check

OLD, NEW = ["2026-11-26T10:00:00.000Z", 1, "a"], ["2026-11-26T10:00:00.000Z", 2, "b"]
History = list[Line]


def line(kind: str, **facts: Any) -> Line:
    return {"k": kind, "t": 1.0, "p": "p", **facts}


def history() -> History:
    """Two entries, one removed; two entrants, one winner."""
    made = []
    for number, (key, order) in enumerate((("l:a", OLD), ("l:a", NEW), ("l:b", OLD))):
        made += [line("ask", op="put", n=str(number), key=key, order=order, content=f"c{number}")]
        made += [line("answer", n=str(number))]
    made += [line("ask", op="remove", n="3", key="l:b", order=OLD), line("answer", n="3")]
    shown = [("l:a", OLD, "c0", False), ("l:a", NEW, "c1", False), ("l:b", OLD, None, True)]
    for key, order, content, deleted in shown:
        made += [line("seen", key=key, order=order, content=content, deleted=deleted)]
    for key, order, content, deleted in shown[1:]:
        made += [line("replica", key=key, order=order, content=content, deleted=deleted)]
    made += [line("source", key="l:a", order=NEW, content="c1", flag=False, replicatedVersion=2)]
    for key, order, kind in (("l:a", NEW, checker.REPLICATED), ("l:b", OLD, checker.REMOVED)):
        made += [line("event", id=f"{key}{kind}", type=kind, key=key, order=order, content="x")]
    made += [line("queue", name="replication-queue", depth=0)]
    made += [line("decided", draw="d", fields={"resultHash": "1"})]
    made += [line("report", addsUp=True, items={}, deliveries={})]
    for ref, row in (("r1", "r1|berlin|1|WINNER"), ("r2", "r2|||UNSELECTED")):
        made += [line("entrant", ref=ref), line("result", line=row)]
    made += [line("code", code="B1", market="berlin", status="ASSIGNED", ref="r1")]
    made += [line("code", code="B2", market="berlin", status="AVAILABLE", ref=None)]
    made += [line("selection", ref="r1", code="B1", market="berlin", rank=1)]
    for ref, kind in (("r1", "winner"), ("r2", "unselected")):
        made += [line("outbox", key=f"k{ref}", ref=ref, type=kind, status="SENT")]
        made += [line("notified", key=f"k{ref}", ref=ref, type=kind, content=ref)]
    return [*made, line("end", open=[])]


def change(kind: str, **facts: Any) -> Callable[[History], None]:
    """The last line of a kind has other facts."""

    def bend(lines: History) -> None:
        [each for each in lines if each["k"] == kind][-1].update(facts)

    return bend


def drop(kind: str) -> Callable[[History], None]:
    """The last line of a kind is missing."""

    def bend(lines: History) -> None:
        lines.remove([each for each in lines if each["k"] == kind][-1])

    return bend


def again(kind: str, **facts: Any) -> Callable[[History], None]:
    """The last line of a kind comes again, with other facts."""

    def bend(lines: History) -> None:
        lines.append({**copy.deepcopy([each for each in lines if each["k"] == kind][-1]), **facts})

    return bend


BENT: dict[str, tuple[Callable[[History], None], str, str]] = {
    "no end": (drop("end"), "whole", WRONG),
    "not recovered": (change("end", open=["2 messages"]), "whole", LOST),
    "a line was cut": (change("report", cut=True), "whole", WRONG),
    "numbers that do not add up": (change("report", addsUp=False), "numbers_add_up", WRONG),
    "a defect": (
        lambda lines: lines.append(line("raised", error="KeyError", text="x")),
        "nothing_raises",
        WRONG,
    ),
    "an old copy": (change("source", order=NEW, content="other"), "replica_is_as_its_source", LOST),
    "a flag": (change("source", flag=True), "replica_is_as_its_source", LOST),
    "no tombstone": (drop("replica"), "replica_is_as_its_source", LOST),
    "two documents": (again("replica"), "replica_is_as_its_source", DOUBLED),
    "a state without a writer": (
        again("seen", key="l:a", order=[*OLD[:2], "z"], deleted=False),
        "every_state_was_written",
        WRONG,
    ),
    "an event without a writer": (
        again("event", id="z", order=[*OLD[:2], "z"]),
        "every_state_was_written",
        DOUBLED,
    ),
    "back to an older state": (
        lambda lines: lines.insert(
            [each["k"] for each in lines].index("replica"),
            line("seen", key="l:a", order=OLD, content="c0", deleted=False),
        ),
        "no_older_state_wins",
        OLDER,
    ),
    "back to life": (change("replica", deleted=False, content="c2"), "no_older_state_wins", OLDER),
    "no event": (drop("event"), "every_state_has_its_event", LOST),
    "two ids of one state": (again("event", id="z"), "every_state_has_its_event", DOUBLED),
    "two contents under one id": (again("event", content="y"), "every_state_has_its_event", DOUBLED),
    "a message that is left": (change("queue", depth=1), "queues_are_empty", LOST),
    "a dead letter": (
        lambda lines: lines.append(line("dead", queue="q", reason="r", error="e")),
        "queues_are_empty",
        LOST,
    ),
    "decided twice": (again("decided", fields={"resultHash": "2"}), "decided_once", WRONG),
    "an entrant who is not drawn": (again("entrant", ref="r3"), "one_code_a_winner", LOST),
    "a stranger who is drawn": (again("result", line="r3|||UNSELECTED"), "one_code_a_winner", WRONG),
    "drawn twice": (again("result"), "one_code_a_winner", DOUBLED),
    "a winner without a code": (drop("selection"), "one_code_a_winner", LOST),
    "a code for a loser": (change("code", ref="r2"), "one_code_a_winner", WRONG),
    "two codes": (again("code", ref="r1"), "one_code_a_winner", DOUBLED),
    "a code for two": (again("selection", ref="r2"), "one_code_a_winner", DOUBLED),
    "a code of another market": (change("selection", code="B2"), "one_code_a_winner", WRONG),
    "not notified": (drop("notified"), "notified_once_and_rightly", LOST),
    "notified twice": (again("notified", key="z"), "notified_once_and_rightly", DOUBLED),
    "notified another thing again": (again("notified", content="z"), "notified_once_and_rightly", DOUBLED),
    "notified wrongly": (change("notified", type="winner"), "notified_once_and_rightly", WRONG),
    "not sent": (change("outbox", status="PENDING"), "notified_once_and_rightly", LOST),
}


def test_a_whole_history_is_clean() -> None:
    assert check(history()).findings == []


@pytest.mark.parametrize("what", BENT)
def test_a_bent_history_is_found_by_its_rule(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bend, rule, kind = BENT[what]
    lines = history()
    bend(lines)
    monkeypatch.setattr(checker, "RULES", [each for each in RULES if each.__name__ == rule])
    assert kind in {found for found, _ in check(lines).findings}


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule for _, rule, _ in BENT.values()} == {rule.__name__ for rule in RULES}


def test_repeats_are_counted_and_no_finding() -> None:
    lines = history()
    again("event")(lines)
    again("notified")(lines)
    verdict = check(lines)
    assert (verdict.findings, verdict.repeats) == ([], 2)


def test_a_write_without_an_answer_may_or_may_not_have_happened() -> None:
    lines = [*history(), line("ask", op="put", n="9", key="l:c", order=OLD, content="c9")]
    assert check(lines).findings == []


def test_the_checker_reads_files_and_says_what_it_found(tmp_path: Path) -> None:
    file = tmp_path / "round.jsonl.gz"
    lines = history()
    drop("notified")(lines)
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(each) + "\n" for each in lines)
    first, *others = checker.report([file])
    assert "1 lost, 0 doubled" in first and others == ["  lost: r2 was not notified"]


def test_the_checker_imports_nothing_of_the_product() -> None:
    tree = ast.parse(Path(checker.__file__).read_text(encoding="utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        )
    }
    assert not [name for name in modules if name and name.startswith(("regworkers", "tests", "benchmarks"))]
