"""`regworkers --help` and `--version`."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from regworkers_core.cli.main import LOCAL, PANELS, build
from tests.support.terminal import in_a_process, regworkers


@pytest.mark.parametrize("rich", ["0", "1"])
def test_help_groups_commands_by_task_with_a_line_for_each(rich: str) -> None:
    answer = in_a_process(None, "--help", COLUMNS="80", TYPER_USE_RICH=rich)
    assert answer.code == 0
    text, found = answer.stdout, []
    for panel in (*PANELS, LOCAL):
        start = text.index(panel)
        found.append(start)
        for name in PANELS.get(panel, {}):
            assert text.index(f" {name} ", start) > start
    assert found == sorted(found)
    assert all(len(names) <= 10 for names in PANELS.values())


def test_without_a_word_a_newcomer_sees_five_commands_and_where_the_others_are() -> None:
    answer = in_a_process(None)
    shown = [line.split()[1] for line in answer.stdout.splitlines() if line.startswith("  regworkers ")]
    assert answer.code == 0 and shown == ["local", "load", "doctor", "campaign", "draw"]
    for option in ("--help", "--install-completion"):
        assert f"`regworkers {option}`" in answer.stdout


def test_the_version_is_that_of_the_package() -> None:
    answer = regworkers(None, "--version")
    assert answer.code == 0 and answer.stdout.startswith("1.")


def test_a_command_is_built_alone_and_an_unknown_name_builds_the_list_of_all() -> None:
    assert [each.name for each in build("doctor").registered_commands] == ["doctor"]
    every, listed = (typer.main.get_command(build(called)) for called in (None, "nothing"))
    assert {name: _line(each) for name, each in listed.commands.items()} == {
        name: _line(each) for name, each in every.commands.items()
    }


def test_a_group_has_the_same_commands_however_often_it_is_built() -> None:
    assert len({_registered(build()) for _ in range(3)}) == 1


def _registered(app: typer.Typer) -> int:
    inner = (each.typer_instance for each in app.registered_groups)
    return len(app.registered_commands) + sum(_registered(each) for each in inner if each is not None)


def _line(command: Any) -> str:
    return str(command.get_short_help_str(200))


@pytest.mark.parametrize(
    ("typed", "found"), [("regworkers rec", ["reconcile"]), ("regworkers codes v", ["void"])]
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands(shell: str, typed: str, found: list[str]) -> None:
    asked = {
        "bash": {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": typed},
    }[shell]
    answer = in_a_process(None, _REGWORKERS_COMPLETE=f"complete_{shell}", **asked)
    assert [name for name in (*found, "doctor") if name in answer.stdout] == found
