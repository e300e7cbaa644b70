"""`regworkers erase` and the job `erase_entry`: dry runs first, words to type, and nothing of a fan in what is said."""

from __future__ import annotations

import re
from collections.abc import Mapping

import dagster as dg
import pytest

from regworkers_core.operations import downloads
from regworkers_core.runtime import Runtime
from tests.dagster.support import job, use
from tests.operations.dead_letters.world import FAST
from tests.operations.erasure.world import CODE, FAN, draw, enter, plant
from tests.support.entries import document, key, put, source
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

E1 = key("e1")
JSON = ("--format", "json")


def test_without_a_word_it_only_says_what_it_would_do(runtime: Runtime) -> None:
    plant(runtime, E1)
    looked = regworkers(runtime, "erase", "summer", "e1", *JSON)
    assert looked.code == 0 and looked.document["dryRun"] and looked.document["takenOut"]["invites"] == 3
    assert source(runtime, E1) is not None and runtime.operator_actions.history() == []
    assert "add --apply" in regworkers(runtime, "erase", "summer", "e1").stdout


def test_with_the_entry_s_id_it_erases_and_lists_what_stays_and_the_codes(runtime: Runtime) -> None:
    plant(runtime, E1)
    draw(runtime, E1)
    wrong = regworkers(runtime, "erase", "summer", "e1", "--apply")
    assert wrong.code == 2 and source(runtime, E1) is not None
    done = regworkers(runtime, "erase", "summer", "e1", "--apply", "--yes")
    assert done.code == 0 and source(runtime, E1) is None
    for words in ("recovery", "what remains", CODE, "erased, as of"):
        assert words in done.stdout
    said = done.stdout + done.stderr
    assert not [value for value in FAN.values() if value in said]
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target, action.result["finished"]) == ("erase", "summer:e1", True)
    assert not [value for value in (*FAN.values(), CODE) if value in str(action)]


def test_an_id_may_begin_with_a_dash(runtime: Runtime) -> None:
    dashed = key("-e1")
    enter(runtime, dashed)
    assert regworkers(runtime, "erase", "summer", "-e1").code == 0
    assert regworkers(runtime, "erase", "summer", "-e1", "--apply", "--yes").code == 0
    assert source(runtime, dashed) is None


def test_an_unknown_entry_is_a_finding(runtime: Runtime) -> None:
    assert regworkers(runtime, "erase", "summer", "unknown", *JSON).code == 1
    done = regworkers(runtime, "erase", "summer", "unknown", "--apply", "--yes")
    assert done.code == 1 and document(runtime, key("unknown")) is None


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("summer",),
        ("summer", "e1", "--campaign", "summer"),
        ("summer", "e1", "--pending"),
        ("replay", "--yes"),
        ("summer:x", "e1"),
    ],
)
def test_a_wrong_call_is_one_line(runtime: Runtime, words: tuple[str, ...]) -> None:
    answer = regworkers(runtime, "erase", *words)
    assert answer.code == 2 and len(answer.stderr.strip().splitlines()) == 1, answer


def test_what_came_back_is_a_finding_until_it_is_applied(runtime: Runtime) -> None:
    image = enter(runtime, E1)
    assert regworkers(runtime, "erase", "summer", "e1", "--apply", "--yes").code == 0
    put(runtime, E1, **image)
    for words in (("--pending",), ("replay",)):
        looked = regworkers(runtime, "erase", *words)
        assert looked.code == 1 and "add --apply to erase 1 entries" in looked.stdout
    assert regworkers(runtime, "erase", "--pending", "--apply", "--yes", *JSON).document["done"] == 1
    assert regworkers(runtime, "erase", "--pending").code == 0
    assert regworkers(runtime, "erase", "replay").code == 0


def test_the_job_takes_ids_and_tells_numbers_and_hands_out_the_codes(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(runtime, E1)
    draw(runtime, E1)
    use(monkeypatch, runtime)
    config = {"campaign_id": "summer", "entry_id": "e1"}
    looked = _launched(config)
    assert looked.success and source(runtime, E1) is not None and runtime.operator_actions.history() == []
    assert not _launched({**config, "confirm": "e1"}).success and source(runtime, E1) is not None
    wrong = {**config, "apply": True, "confirm": "e2"}
    assert not _launched(wrong).success and source(runtime, E1) is not None
    done = _launched({**config, "apply": True, "confirm": "e1"})
    assert done.success and source(runtime, E1) is None
    shown = str([event.event_specific_data for event in done.all_events])
    assert "entryInTheDemandTable" in shown and "| where | what | until | why | number |" in shown
    assert not [value for value in (*FAN.values(), CODE) if value in shown]
    (codes,) = re.findall(r"/downloads/[0-9a-f]{32}/codes\.csv", shown)
    page = downloads.open_page(runtime, codes)
    assert page is not None and page.body.read().decode().split()[1] == f"{CODE},berlin,7,ASSIGNED"
    actions = runtime.operator_actions.history()
    assert [(each.what, each.outcome) for each in actions] == [
        ("erase_entry", "done"),
        ("erase_entry", "failed"),
    ]


def test_a_job_for_an_entry_that_no_store_knows_says_so(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime)
    with dg.DagsterInstance.ephemeral() as instance:
        done = _launched({"campaign_id": "summer", "entry_id": "e1"}, instance)
        assert not done.success and "neither store knows this entry" in str(done.all_events)
        assert instance.get_dynamic_partitions("campaigns") == []


def _launched(
    config: Mapping[str, object], instance: dg.DagsterInstance | None = None
) -> dg.ExecuteInProcessResult:
    return job("erase_entry").execute_in_process(run_config=config, raise_on_error=False, instance=instance)
