"""Several commands in a row, in an environment that the test may change between them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import typer
from structlog.testing import capture_logs

from regworkers_core.cli import changes
from regworkers_core.cli.main import build
from regworkers_core.cli.output import TROUBLE
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from tests.support.environment import environment_of
from tests.support.terminal import Answer


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Each prompt is answered with the next of `words`, at a terminal."""
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(changes, "sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    answers = iter(words)
    monkeypatch.setattr(typer, "prompt", lambda *_asked, **_options: next(answers))


class Typed:
    """Runs commands on the runtime's servers; a UsageError becomes what `main` makes of it."""

    def __init__(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self._capture = capture
        for name, value in environment_of(runtime).items():
            monkeypatch.setenv(name, value)
        self._app = build()

    def __call__(self, *words: str) -> Answer:
        self._capture.readouterr()
        trouble = ""
        try:
            # A separate process would log to stderr; this one has no such setup.
            with capture_logs():
                code = self._app(args=list(words), standalone_mode=False) or 0
        except UsageError as error:
            code, trouble = TROUBLE, f"regworkers: {error}\n"
        stdout, stderr = self._capture.readouterr()
        return Answer(code, stdout, stderr + trouble)
