"""One declaration of an act makes its command and its job: what both take, when they act, what the audit log has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import dagster as dg
import pytest
import typer.main
from pydantic import Field

from regworkers_core import acts
from regworkers_core.acts import added_operations, every_operation, operation_of
from regworkers_core.cli.main import build
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operation import Call, Effect, GivenFile, Input, Operation, Report, operation
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes import operations as codes
from regworkers_dagster import launching
from regworkers_dagster.resources import connections
from tests.dagster.support import use
from tests.support import faces
from tests.support.faces import Face
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")


class Given(Input):
    words: ClassVar = ("drain",)
    drain: str = Field(description="Which drain it is about.")
    text: str = Field("", max_length=20, description="A text that may be empty.")
    number: int = Field(3, ge=1, le=9, description="A number from 1 to 9.")
    seats: dict[str, int] = Field({}, description="Seats by market.")
    reserves: dict[str, dict[str, int]] = Field({}, description="Seats by market and segment.")
    names: dict[str, str] = Field({}, description="Names by market.")
    places: list[int] = Field([], description="Some places.")
    flag: bool = Field(False, description="A flag to set.")
    share: float | None = Field(None, description="A share, which may be missing.")
    upload: GivenFile = Field("", description="A file to read.")


SEEN: list[tuple[Given, bool]] = []


def _answer(call: Call, given: Given) -> Report:
    SEEN.append((given, call.apply))
    call.face.progress(1, 2, "parts")
    text = call.face.open(given.upload).read_text() if given.upload else ""
    if given.text == "wrong":
        raise UsageError("this text is wrong")
    return Report(
        document={"drain": given.drain, "read": len(text)},
        said=["it was looked at"],
        left="one thing is left" if given.text == "left" else "",
        files={"answer.txt": b"kept"},
        counts={"looked": 1},
        word=f"word-of-{given.drain}",
        changed=call.apply,
    )


def _declared(command: str, job: str, effect: Effect) -> Operation[Given]:
    def run(call: Call, given: Given) -> Report:
        """Look at a drain.

        More is said here.
        """
        return _answer(call, given)

    run.__module__ = "regworkers_core.added"
    return operation(command, job, effect, target="drain", files="what was kept")(run)


def _job(declared: Operation[Any]) -> dg.JobDefinition:
    made = dg.Definitions(jobs=[launching.job(declared, {})], resources=connections())
    return made.resolve_job_def(declared.job)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Operation[Given]]]:
    """A module with an operation of each effect, which one line in the table of contents names."""
    module = ModuleType("regworkers_core.added")
    module.__doc__ = "Look at things. And more."
    made = {effect: _declared(f"added {effect}", f"added_{effect}", effect) for effect in Effect}
    vars(module).update(made)
    monkeypatch.setitem(acts.PANELS["Everyday"], "added", acts.Group("Look at things.", ("added",)))
    monkeypatch.setitem(__import__("sys").modules, "regworkers_core.added", module)
    monkeypatch.setattr(faces, "job", lambda name: _job(operation_of(name.replace("_", " "))))
    SEEN.clear()
    yield {str(effect): each for effect, each in made.items()}


def test_a_deleted_operation_is_gone_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(codes, "void")
    assert "codes void" not in {each.command for each in every_operation()}
    root: Any = typer.main.get_command(build("codes"))
    assert "void" not in root.commands["codes"].commands and "import" in root.commands["codes"].commands
    assert "void_codes" not in {each.job for each in every_operation()}
    with pytest.raises(LookupError):
        operation_of("codes void")


def test_an_added_operation_has_its_command_its_job_and_the_help_of_both(added: dict[str, Any]) -> None:
    root: Any = typer.main.get_command(build("added"))
    group = root.commands["added"]
    assert group.help == "Look at things." and set(group.commands) == set(added)
    assert group.commands["delete"].help.startswith("Look at a drain.\n\nMore")
    made = launching.job(added["delete"], {})
    assert made.description == "Look at a drain."
    shape: Any = made.run_config_schema.config_type
    given = [*Given.model_fields, "confirm"]
    assert [name for name in shape.fields if name in given] == given, "in the order of the fields"


GIVEN: dict[str, Any] = {
    "drain": "save",
    "number": 4,
    "seats": {"berlin": 2},
    "reserves": {"berlin": {"loyal": 1, "local": 2}},
    "names": {"berlin": "Waldbühne"},
    "places": [1, 2],
    "flag": True,
    "share": 0.5,
}


@pytest.mark.parametrize("effect", list(Effect))
def test_both_faces_take_the_same_input_and_act_only_when_asked(
    added: dict[str, Operation[Given]], runtime: Runtime, face: Face, tmp_path: Path, effect: Effect
) -> None:
    file = tmp_path / "given.txt"
    file.write_text("abc")
    seen = face.does(f"added {effect}", upload=file, **GIVEN)
    assert seen.fine and "it was looked at" in seen.text and seen.files == {"answer.txt": b"kept"}
    acts_at_once = effect in (Effect.READ, Effect.ADD)
    assert [apply for _given, apply in SEEN] == [acts_at_once]
    assert SEEN[0][0].model_dump(exclude={"upload"}) == {**GIVEN, "text": ""}
    assert len(runtime.operator_actions.history()) == (effect is Effect.ADD), (
        "a preview is not in the audit log"
    )
    if added[effect].acts:
        assert face.does(f"added {effect}", apply=True, upload=file, **GIVEN).fine
        assert SEEN[-1][1] is True
    if effect is not Effect.READ:
        action = runtime.operator_actions.history()[0]
        assert (action.what, action.target, action.result["looked"]) == (f"added {effect}", "save", 1)
        assert action.arguments["upload"] == "given.txt" and action.arguments["seats"] == {"berlin": 2}
        assert action.arguments["runId"] and "drain" not in action.arguments


def test_what_is_left_fails_both_faces_after_it_was_recorded(
    added: dict[str, Any], runtime: Runtime, face: Face
) -> None:
    done = face.does("added add", drain="save", text="left")
    assert not done.fine and "one thing is left" in done.text and "it was looked at" in done.text
    assert [each.outcome for each in runtime.operator_actions.history()] == ["done"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"drain": "save", "text": "wrong"}, "this text is wrong"),
        ({"drain": "save", "number": 10}, "number should be less than or equal to 9"),
        ({"drain": "save", "text": "x" * 21}, "text should have at most 20 characters"),
        ({"drain": " "}, "is missing: its description says what to enter"),
    ],
)
def test_what_is_wrong_with_an_input_is_one_line_that_names_the_field(
    added: dict[str, Any], runtime: Runtime, face: Face, given: dict[str, Any], said: str
) -> None:
    done = face.does("added read", **given)
    assert not done.fine and said in done.text


def test_a_deletion_needs_its_word(
    added: dict[str, Any], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = regworkers(runtime, "added", "delete", "save", "--apply")
    assert refused.code == 2 and "add --yes" in refused.stderr and not SEEN
    use(monkeypatch, runtime)
    made = _job(added["delete"])
    with dg.DagsterInstance.ephemeral() as instance:
        result = made.execute_in_process(
            instance=instance, run_config={"drain": "save", "confirm": "another"}, raise_on_error=False
        )
    assert not result.success and not any(apply for _given, apply in SEEN)
    assert not runtime.operator_actions.history()


def test_an_act_that_cannot_be_recorded_is_not_done(
    added: dict[str, Any], runtime: Runtime, face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise UsageError("the audit log does not answer")

    monkeypatch.setattr("regworkers_core.adapters.mongo.activity.OperatorActions.begins", down)
    assert not face.does("added change", apply=True, drain="save").fine and not SEEN


@pytest.mark.parametrize("each", [*every_operation(), *added_operations()], ids=lambda each: each.command)
def test_every_operation_says_what_it_does_and_what_each_field_is(each: Operation[Any]) -> None:
    first = each.help.partition("\n\n")[0]
    assert first[0].isupper() and first.endswith(".") and not first.startswith(("This", "The "))
    for name, field in each.input.model_fields.items():
        assert field.description and field.description.endswith("."), name
    assert set(each.input.words) <= each.input.model_fields.keys() or each.input.words == ("campaign_id",)
