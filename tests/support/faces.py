"""One act by both of its faces: the command of an operation, and its job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import pytest

from regworkers_core.acts import operation_of
from regworkers_core.cli.operations import option_name
from regworkers_core.operation import Effect, Operation, is_file
from regworkers_core.operations import downloads, uploads
from regworkers_core.runtime import Runtime
from tests.dagster.support import job, plain, use
from tests.support.terminal import regworkers


@dataclass(frozen=True, slots=True)
class Done:
    """What a person sees of an act."""

    # Nothing is wrong and nothing is left: exit code 0, or a run that succeeded.
    fine: bool
    # Everything that was printed; everything that the run shows.
    text: str
    # Files that were handed out, by their names.
    files: Mapping[str, bytes]


class Face(Protocol):
    name: str

    def does(self, command: str, *, apply: bool = False, **given: Any) -> Done:
        """Call the operation; a Path is a file to hand in. `apply` confirms a deletion by the word that was shown."""


@dataclass(frozen=True, slots=True)
class Terminal:
    runtime: Runtime
    folder: Path
    name: str = "terminal"

    def does(self, command: str, *, apply: bool = False, **given: Any) -> Done:
        operation = operation_of(command)
        words = _words(operation, given)
        if apply and operation.acts:
            words += ["--apply", "--yes"]
        saved = self.folder / "saved"
        if operation.files:
            words += ["--save", str(saved)]
        answer = regworkers(self.runtime, *command.split(), *words)
        files = {each.name: each.read_bytes() for each in saved.iterdir()} if saved.exists() else {}
        return Done(answer.code == 0, answer.stdout + answer.stderr, files)


def _words(operation: Operation[Any], given: Mapping[str, Any]) -> list[str]:
    """The words of a command line that give these values to the fields."""
    words: list[str] = []
    for name in operation.input.words:
        if name in given:
            words.append(str(given[name]))
    for name, value in given.items():
        if name in operation.input.words:
            continue
        option = f"--{option_name(name)}"
        if isinstance(value, bool):
            words += [option] * value
        elif isinstance(value, Mapping):
            for key, each in value.items():
                inner = each.items() if isinstance(each, Mapping) else ()
                words += [word for part, n in inner for word in (option, f"{key}:{part}={n}")]
                words += [] if inner else [option, f"{key}={each}"]
        elif isinstance(value, list | tuple):
            words += [word for each in value for word in (option, str(each))]
        else:
            words += [option, str(value)]
    return words


@dataclass(frozen=True, slots=True)
class Launchpad:
    runtime: Runtime
    instance: dg.DagsterInstance
    name: str = "launchpad"

    def does(self, command: str, *, apply: bool = False, **given: Any) -> Done:
        operation = operation_of(command)
        fields = operation.input.model_fields
        config = {
            name: uploads.put(self.runtime, value.name, value.read_bytes())
            if is_file(fields[name].metadata)
            else value
            for name, value in given.items()
        }
        if apply and operation.effect is Effect.CHANGE:
            config["apply"] = True
        if apply and operation.effect is Effect.DELETE:
            word = self._launched(operation.job, config)[1].get("confirm", "")
            config["confirm"] = int(word or 0) if operation.counted else word
        fine, shown = self._launched(operation.job, config)
        files = {
            str(value).rpartition("/")[2]: self._opened(str(value))
            for value in shown.values()
            if str(value).startswith("/downloads/")
        }
        return Done(fine, str(shown), files)

    def _launched(self, name: str, config: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
        result = job(name).execute_in_process(
            instance=self.instance, run_config=dict(config), raise_on_error=False
        )
        shown: dict[str, Any] = {}
        checks = result.get_asset_check_evaluations()
        for each in checks:
            shown |= {**plain(each.metadata), "description": each.description}
        for made in result.get_asset_materialization_events() if checks else ():
            shown |= plain(made.materialization.metadata)
        for event in result.all_events:
            if event.is_successful_output:
                shown |= plain(event.step_output_data.metadata or {})
            elif event.is_step_failure:
                failure = event.step_failure_data.user_failure_data
                shown |= {**plain(failure.metadata), "failure": failure.description}
        # What is left of some acts makes a check warn, and the run succeeds.
        return result.success and all(each.passed for each in checks), shown

    def _opened(self, path: str) -> bytes:
        page = downloads.open_page(self.runtime, path)
        assert page is not None, path
        return page.body.read()


@pytest.fixture(params=["terminal", "launchpad"])
def face(
    request: pytest.FixtureRequest, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Face]:
    """Each face in turn, on the runtime's servers."""
    if request.param == "terminal":
        yield Terminal(runtime, tmp_path)
        return
    use(monkeypatch, runtime)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Launchpad(runtime, instance)
