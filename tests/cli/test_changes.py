"""The one convention of commands that change something: dry runs until --apply, and --yes only skips the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from regworkers_core.acts import every_operation
from regworkers_core.cli.changes import Change, Deletion
from regworkers_core.cli.main import Commands, build
from regworkers_core.cli.options import flatten_options
from regworkers_core.domain.reasons import UsageError
from tests.support.terminal import regworkers
from tests.support.typing_in import at_a_terminal

# Words that each command needs to be complete.
CHANGES: dict[str, tuple[str, ...]] = {
    "campaign cache take-over": (),
    "draw log-key": ("--change",),
    "migrate cut-over": (),
    "producer-key": ("analytics", "--change"),
    "provision": (),
    "template update": (),
}


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    yield " ".join(path), {name for each in command.params for name in each.opts}
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


def test_the_commands_with_apply_that_are_written_by_hand_are_these_and_each_has_yes() -> None:
    options = dict(_commands(typer.main.get_command(build())))
    declared = {each.command for each in every_operation()}
    found = {name for name, each in options.items() if "--apply" in each} - declared
    assert found == CHANGES.keys()
    assert all("--yes" in options[name] for name in found)
    assert not [name for name in found if options[name] & {"--dry-run", "--confirm"}]


@pytest.mark.parametrize("command", sorted(CHANGES))
def test_yes_without_apply_is_refused_and_names_apply(command: str) -> None:
    answer = regworkers(None, *command.split(), *CHANGES[command], "--yes")
    assert (answer.code, answer.stdout) == (2, "") and "add --apply" in answer.stderr


def _app() -> typer.Typer:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @app.command()
    @flatten_options
    def drop(name: str, change: Deletion, dry: Annotated[bool, typer.Option("--dry-run")] = False) -> None:
        if change.apply:
            change.confirm(f"{name} will be dropped", name)
        print(name, "dropped" if change.apply else "counted", dry)

    @app.command()
    @flatten_options
    def send(change: Change) -> None:
        print("counted" if change.dry_run else "sent")

    return app


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("drop", "q"), "q counted False"),
        (("drop", "q", "--apply", "--yes"), "q dropped False"),
        (("drop", "q", "--dry-run"), "q counted True"),
        (("send",), "counted"),
        (("send", "--apply"), "sent"),
        (("send", "--apply", "--yes"), "sent"),
    ],
)
def test_apply_acts_and_yes_skips_the_prompt(words: tuple[str, ...], said: str) -> None:
    answer = CliRunner().invoke(_app(), list(words))
    assert (answer.exit_code, answer.stdout.strip()) == (0, said)


def test_at_a_terminal_a_deletion_wants_the_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, said in (("p", "should be q, found 'p'"), ("", "the answer is empty")):
        at_a_terminal(monkeypatch, word)
        with pytest.raises(UsageError, match=said):
            _app()(["drop", "q", "--apply"], standalone_mode=False)
    at_a_terminal(monkeypatch, " q ")
    _app()(["drop", "q", "--apply"], standalone_mode=False)
    assert capsys.readouterr().out == "q dropped False\n"
