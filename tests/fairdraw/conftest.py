"""Draws that are made once for all tests; a test that changes one works on a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fairdraw.proof.draws import two_phases


@pytest.fixture(scope="session")
def beaconed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phases whose seed is the recorded round of the beacon."""
    return two_phases(tmp_path_factory.mktemp("beaconed"))
