"""One round of the campaign: processes of every kind under fire, and a history that the checker finds clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.dead_letters.model import dead_queue
from regworkers_core.runtime import Runtime
from tests.faults import campaign
from tests.faults.aftermath import work_off_killed
from tests.faults.campaign import END, Campaign, State, row
from tests.faults.checker import read
from tests.operations.dead_letters.world import body, depths, send_dead
from tests.support.entries import key, put


@pytest.mark.slow
def test_twenty_kills_at_random_instants_lose_and_double_nothing(tmp_path: Path) -> None:
    state = State(seed=20, started="2026-11-26 22:00 UTC")
    verdict = Campaign(tmp_path, state).round(20)
    assert verdict.findings == []
    assert sum(state.kills.values()) == 20
    assert State.load(tmp_path / "state.json") == state
    lines = read(tmp_path / "round-0001.jsonl.gz")
    assert {line["role"] for line in lines if line["k"] == "born"} >= {
        "writer",
        "enqueue",
        "save",
        "publish",
        "draw",
    }


def test_the_recovery_works_off_the_messages_of_killed_processes_alone(runtime: Runtime) -> None:
    dead = dead_queue(runtime.names, "replication")
    put(runtime, key("e1"))
    for reason in ("KILLED", "INVALID_ENTRY"):
        send_dead(runtime, dead, [Outgoing(body("e1"), {"reason": reason})])
    lines: list[tuple[str, dict[str, object]]] = []
    work_off_killed(runtime, lambda kind, **facts: lines.append((kind, facts)))
    assert lines == [("worked off", {"queue": "replication-queue-dlq", "sent": 1, "dropped": 0})]
    assert depths(runtime) == (1, 1)


def test_a_campaign_appends_its_figures_and_a_resumed_one_replaces_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "reliability.md"
    page.write_text(f"| began | seed |\n|---|---|\n{END}\n\nThe rest.\n", encoding="utf-8")
    monkeypatch.setattr(campaign, "PAGE", page)
    first, second = State(1, "monday"), State(2, "tuesday")
    for state in (first, second):
        campaign.publish(state)
    first.kills = {"save": 1234}
    campaign.publish(first)
    text = page.read_text(encoding="utf-8")
    assert text.endswith(f"{row(second)}\n{row(first)}\n{END}\n\nThe rest.\n") and "1,234" in text


def test_a_kill_strikes_the_step_that_its_process_was_in() -> None:
    def step(process: str, name: str, state: str) -> dict[str, str]:
        return {"k": "step", "p": process, "step": name, "state": state}

    history = [
        step("draw-1", "rank", "begun"),
        step("draw-2", "seed", "begun"),
        step("draw-2", "seed", "done"),
        *({"k": "kill", "p": "supervisor", "who": name} for name in ("draw-1", "draw-1", "draw-2", "save-3")),
    ]
    assert campaign.struck(history) == {"rank": 1}
