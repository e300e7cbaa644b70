"""All tests of a module share one namespace; each has a campaign of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from regworkers_core.runtime import Runtime
from tests.eligibility.invites.world import Uploader
from tests.support.campaigns import create
from tests.support.shared import shared_namespace

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def shared() -> Iterator[Runtime]:
    with shared_namespace() as made:
        yield made


@pytest.fixture
def runtime(shared: Runtime) -> Iterator[Runtime]:
    made = Runtime(shared.settings)
    yield made
    made.mongo.close()


@pytest.fixture
def uploader(runtime: Runtime, tmp_path: Path) -> Uploader:
    campaign_id = f"summer-{next(_NUMBERS)}"
    create(runtime, campaign_id, eligibility={"inviteOnly": True})
    return Uploader(runtime, campaign_id, tmp_path)
