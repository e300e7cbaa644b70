"""Every command of every page of docs/runbooks is run; every name in them is one that exists."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from regworkers_core.acts import every_operation
from regworkers_core.cli.main import build
from regworkers_core.operations.runbook import CATALOG
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.operations.runbooks.pages import (
    FOLDER,
    PAGES,
    anchors,
    blocks,
    commands,
    in_sentences,
    links,
    words,
)
from tests.support import draws
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put
from tests.support.services import served_to
from tests.support.shared import shared_namespace
from tests.support.typing_in import Typed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world() -> Iterator[Runtime]:
    """A campaign that is drawn to its end, and entries that are all in sync."""
    # High, for a loaded machine: nothing here lags.
    with shared_namespace(replication={"lag_objective_seconds": 20}) as runtime:
        for number in range(3):
            put(runtime, key(f"e{number}"))
        replicate_all(runtime)
        draws.confirmed(runtime, draws.result({"berlin": 2}, waiting=1), ["berlin"])
        draws.add_codes(runtime, "berlin", 2)
        draws.publish(runtime)
        seats = [{"marketId": "berlin", "name": "berlin", "capacity": 2}]
        runtime.database["campaigns"].update_one({}, {"$set": {"markets": seats}})
        run(runtime, "selections")
        run(runtime, "notifications")
        with served_to(runtime) as services:
            yield services.runtime


@pytest.fixture(scope="module")
def done() -> set[str]:
    """Commands that were run already, of whichever page."""
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_does_what_the_page_says(
    page: Path,
    world: Runtime,
    done: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = Typed(world, monkeypatch, capsys)
    found = commands(page)
    assert found, "a page without a command"
    for command in found:
        if command in done:
            continue
        answer = typed(*words(command))
        # In a world where all is well nothing is a finding; what one looks like, the other tests show.
        assert answer.code == 0, f"{command}\n{answer.stdout}{answer.stderr}"
        assert answer.stdout and "Traceback" not in answer.stdout + answer.stderr
        done.add(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_commands_in_blocks_of_bash_alone_and_names_only_commands_and_jobs_that_exist(
    page: Path,
) -> None:
    assert {language for language, _ in blocks(page)} == {"bash"}
    for command in (*commands(page), *in_sentences(page)):
        assert _known(_all_commands(), command.split()[1:]), command


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert _known(_all_commands(), ["runbook", "kafka", "--minutes", "5"])
    for unknown in (["nonsense"], ["runbook", "nonsense"], ["dlq", "nonsense", "replication"]):
        assert not _known(_all_commands(), unknown)


@cache
def _all_commands() -> Any:
    return typer.main.get_command(build())


def _known(command: Any, rest: list[str]) -> bool:
    """Whether the words lead to a command; what follows it is its arguments."""
    while (group := getattr(command, "commands", None)) and rest and not rest[0].startswith("-"):
        if rest[0] not in group:
            return False
        command, rest = group[rest[0]], rest[1:]
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        found = (page.parent / target).resolve()
        assert found.is_file(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_each_runbook_of_the_terminal_has_its_page_its_line_in_the_index_and_its_job() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {each.page for each in CATALOG} == {
        str(page.relative_to(PROJECT_ROOT)) for page in PAGES if page.name != "README.md"
    }
    jobs = {each.job for each in every_operation()}
    for each in CATALOG:
        assert f"]({each.name}.md)" in index, each.name
        if each.command.startswith("regworkers runbook "):
            job = "runbook_" + each.name.replace("-", "_")
            assert job in jobs and f"`{job}`" in index, job


def test_the_pages_have_the_same_four_parts() -> None:
    for page in PAGES:
        if page.name != "README.md":
            text = page.read_text(encoding="utf-8")
            for part in ("**You see**", "**By itself**", "## Run", "## It worked"):
                assert part in text, f"{page.name}: {part}"
