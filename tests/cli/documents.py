"""Documents of `--format json` keep keys and types: what a command prints is compared with `documents.json`.

Scripts read these documents. Whatever test runs a command in its process, the document is reduced to lines such as
`"markets[].capacity": "int|null"`. A path that ends with `?` is not in every document, and `*` means the keys of a
map. An object is a map if one of its keys is no name, but a date or an id. Where ids look like names, write `*` for one
of them into the file by hand: it stays when the documents are recorded again. Keys of `config show` are those of the
settings, so only what tests set is recorded.

`python -m tests.cli.documents --record` runs every test that asks for a document, and writes the file again. With the
paths of tests it runs these alone, and adds what they show.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import typer.main
from typer.core import TyperCommand, TyperGroup

from regworkers_core.cli.main import _Root as Root
from regworkers_core.cli.main import build
from regworkers_core.settings import PROJECT_ROOT, Settings, masked

RECORD = Path(__file__).with_name("documents.json")
# Names a folder: what this run prints is written there, and not compared.
_FOLDER = "REGWORKERS_TEST_DOCUMENTS"
_ASKS = re.compile(r'"--format",\s+"json"')
_NAME = re.compile(r"[a-z_]\w*")
_KEYS = re.compile(r"\[\]|[^.\[\]]+")
_TYPES = {each: each.__name__ for each in (bool, int, float, str, list)}
_TYPES |= {dict: "object", type(None): "null"}

# The keys that lead to a value: "[]" is any element of a list, "*" any value of a map.
Place = tuple[str, ...]


@dataclass(slots=True)
class Found:
    """What documents have at one place."""

    types: set[str] = field(default_factory=set)
    values: int = 0
    objects: int = 0  # those of the values that are objects

    def add(self, other: Found) -> None:
        self.types |= other.types
        self.values += other.values
        self.objects += other.objects

    @property
    def text(self) -> str:
        return "|".join(sorted(self.types - {"int"} if "float" in self.types else self.types))


class Shape(dict[Place, Found]):
    """The places of one document, or of all documents of a command."""

    def __missing__(self, place: Place) -> Found:
        self[place] = found = Found()
        return found

    def see(self, value: Any, place: Place = ()) -> None:
        self[place].add(Found({_TYPES[type(value)]}, 1, int(isinstance(value, dict))))
        if isinstance(value, list):
            for inner in value:
                self.see(inner, (*place, "[]"))
        elif isinstance(value, dict):
            for key, inner in value.items():
                self.see(inner, (*place, key))

    def maps(self, known: set[Place]) -> set[Place]:
        """The places of maps: those known, and objects with a key that is no name."""
        found = set(known)
        for place in sorted(self, key=len):
            if place and place[-1] != "[]" and not _NAME.fullmatch(place[-1]):
                found.add(_general(place[:-1], found))
        return found

    def general(self, maps: set[Place]) -> Shape:
        """The same with `*` for each key of a map."""
        shape = Shape()
        for place, found in self.items():
            shape[_general(place, maps)].add(found)
        return shape

    def is_optional(self, place: Place) -> bool:
        """Whether an object lacks the last key of `place`."""
        if not place or place[-1] in ("[]", "*"):
            return False
        values = self[place].values if place in self else 0
        return values < self[place[:-1]].objects

    def lines(self) -> dict[str, str]:
        return {_text(place) + "?" * self.is_optional(place): self[place].text for place in sorted(self)}

    @classmethod
    def parsed(cls, lines: Mapping[str, str]) -> Shape:
        """The shape of recorded lines, as of one object at each place."""
        shape = cls()
        for path, types in lines.items():
            each = set(types.split("|"))
            shape[tuple(_KEYS.findall(path.rstrip("?")))] = Found(
                each, int(not path.endswith("?")), int("object" in each)
            )
        return shape


def _general(place: Place, maps: set[Place]) -> Place:
    found: Place = ()
    for key in place:
        found = (*found, "*" if found in maps and key != "[]" else key)
    return found


def _text(place: Place) -> str:
    return re.sub(r"\.\[\]", "[]", ".".join(place))


def differences(document: Any, recorded: Shape) -> Iterator[str]:
    """What a document has otherwise than recorded, as ends of sentences."""
    seen = Shape()
    seen.see(document)
    known = recorded.maps(set())
    seen = seen.general(seen.maps(known))
    for place, found in seen.items():
        if place not in recorded:
            yield f"has {_text(place)} ({found.text}), which is not recorded"
        elif (
            more := found.types
            - recorded[place].types
            - ({"int"} if "float" in recorded[place].types else set())
        ):
            yield f"has {_text(place)} as {'|'.join(sorted(more))}, recorded as {recorded[place].text}"
    for place in recorded:
        if place and place[:-1] in seen and not recorded.is_optional(place) and seen.is_optional(place):
            yield f"lacks {_text(place)} ({recorded[place].text}), which every document has"


class Documents:
    """All documents that commands printed in this process."""

    def __init__(self) -> None:
        self.seen: dict[str, Shape] = {}
        self._broken: list[str] = []

    def install(self) -> None:
        """Watch every command, and every group that is one itself."""
        for kind in (TyperCommand, TyperGroup):
            kind.invoke = self._watched(kind.invoke)  # type: ignore[method-assign]

    def _watched(self, invoke: Callable[..., Any]) -> Callable[..., Any]:
        def watched(command: Any, context: Any) -> Any:
            # What pytest and the helpers of tests put in place of the terminal can be read.
            buffer = getattr(sys.stdout, "buffer", None)
            if buffer is None or not (buffer.seekable() and buffer.readable()):
                return invoke(command, context)
            sys.stdout.flush()
            start = buffer.tell()
            try:
                return invoke(command, context)
            finally:
                sys.stdout.flush()
                if context.invoked_subcommand is None and _is_asked(command, context):
                    buffer.seek(start)
                    self._take(_name(context), buffer.read())

        return watched

    def _take(self, name: str, printed: bytes) -> None:
        if not name or not printed:
            return
        try:
            document = orjson.loads(printed)
        except orjson.JSONDecodeError:
            self._broken.append(
                f"regworkers {name} --format json prints something else than one JSON document"
            )
            return
        if _FOLDER in os.environ:
            self.seen.setdefault(name, Shape()).see(document)
            return
        self._broken += [
            f"regworkers {name} --format json {each}"
            for each in differences(document, recorded().get(name, Shape()))
        ]

    def taken(self) -> str:
        """What differs from the record since the last call, and how to record it."""
        found, self._broken = self._broken, []
        if not found:
            return ""
        return "\n".join(
            (
                *found,
                "Scripts read these documents: keep keys and types. To change them on purpose, say so in CHANGELOG.md, "
                "and record them: .venv/bin/python -m tests.cli.documents --record [<path of this test>]",
            )
        )

    def write(self) -> None:
        """Leave what was seen to the process that records."""
        if not self.seen:
            return
        seen = {
            name: [[place, sorted(each.types), each.values, each.objects] for place, each in shape.items()]
            for name, shape in self.seen.items()
        }
        (Path(os.environ[_FOLDER]) / f"{os.getpid()}.json").write_bytes(orjson.dumps(seen))


DOCUMENTS = Documents()


def commands() -> dict[str, Any]:
    """Every command that takes `--format`, by its name without `regworkers`."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        if _format(command):
            found[" ".join(words)] = command
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*words, name))

    walk(typer.main.get_command(build()), ())
    return found


def _format(command: Any) -> str | None:
    """The parameter that `--format` gives."""
    return next((each.name for each in command.params if "--format" in each.opts), None)


def _is_asked(command: Any, context: Any) -> bool:
    name = _format(command)
    return name is not None and context.params[name] == "json"


def _name(context: Any) -> str:
    """How the command is called, empty for one of a test. A group that a test runs alone is known by its functions."""
    if not isinstance(context.find_root().command, Root):
        return _by_function().get(inspect.unwrap(context.command.callback), "")
    words: list[str] = []
    while context.parent is not None:
        words.insert(0, context.info_name)
        context = context.parent
    return " ".join(words)


@cache
def _by_function() -> dict[Callable[..., Any], str]:
    return {inspect.unwrap(command.callback): name for name, command in commands().items()}


@cache
def recorded() -> dict[str, Shape]:
    """What each command prints, by its name without `regworkers`."""
    found = {name: Shape.parsed(lines) for name, lines in orjson.loads(RECORD.read_bytes()).items()}
    for name, shape in _derived().items():
        for place, more in found.get(name, Shape()).items():
            shape[place] = Found(shape[place].types | more.types, more.values, more.objects)
        found[name] = shape
    return found


def _derived() -> dict[str, Shape]:
    """What follows from the code: only what tests show otherwise is recorded."""
    shape = Shape()
    shape.see(orjson.loads(orjson.dumps(masked(Settings.model_construct()), default=str)))
    return {"config show": shape}


def record(words: list[str]) -> int:
    """Run the tests, and write what they show."""
    tests = words or sorted(
        str(each) for each in (PROJECT_ROOT / "tests").rglob("test_*.py") if _ASKS.search(each.read_text())
    )
    before = recorded()
    with tempfile.TemporaryDirectory() as folder:
        workers = os.environ.get("W", "4")
        pytest = (sys.executable, "-m", "pytest", "-n", workers, "--dist", "worksteal", *tests)
        code = subprocess.run(pytest, env={**os.environ, _FOLDER: folder}, check=False).returncode
        seen: dict[str, Shape] = {}
        for file in Path(folder).iterdir():
            for name, found in orjson.loads(file.read_bytes()).items():
                for place, types, values, objects in found:
                    seen.setdefault(name, Shape())[tuple(place)].add(Found(set(types), values, objects))
    lines, derived = {}, _derived()
    for name in sorted(commands()):
        shape, known = seen.get(name, Shape()), before.get(name, Shape())
        for place, each in known.items() if words else ():
            shape[place].add(each)
        if shape:
            follows = derived.get(name, Shape()).lines()
            shown = shape.general(shape.maps(known.maps(set()))).lines()
            lines[name] = {path: types for path, types in shown.items() if follows.get(path) != types}
    RECORD.write_bytes(orjson.dumps(lines, option=orjson.OPT_INDENT_2) + b"\n")
    return code


if __name__ == "__main__":
    if sys.argv[1:2] != ["--record"]:
        sys.exit("usage: python -m tests.cli.documents --record [<paths of tests>]")
    sys.exit(record(sys.argv[2:]))
