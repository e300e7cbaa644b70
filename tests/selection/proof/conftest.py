"""The draws of the tests of fairdraw, for the commands of the terminal."""

from __future__ import annotations

from tests.fairdraw.proof.conftest import beaconed, revealed  # noqa: F401
