"""Each test has a campaign of its own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from regworkers_core.runtime import Runtime
from tests.eligibility.invites.world import Uploader
from tests.support.campaigns import create

_NUMBERS = itertools.count(1)


@pytest.fixture
def uploader(runtime: Runtime, tmp_path: Path) -> Uploader:
    campaign_id = f"summer-{next(_NUMBERS)}"
    create(runtime, campaign_id, eligibility={"inviteOnly": True})
    return Uploader(runtime, campaign_id, tmp_path)
