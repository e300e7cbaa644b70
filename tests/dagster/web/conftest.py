"""One Dagster for all tests of the application: none of them changes what another one reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dagster._core.workspace.context import WorkspaceProcessContext

from tests.dagster.web.world import Site, dagster_context


@pytest.fixture(scope="package")
def context() -> Iterator[WorkspaceProcessContext]:
    with dagster_context() as made:
        yield made


@pytest.fixture
def site(context: WorkspaceProcessContext) -> Site:
    """Without a proxy, as `make dev` serves it."""
    return Site(context)


@pytest.fixture
def proxied(context: WorkspaceProcessContext) -> Site:
    """Behind a proxy at 10.0.0.7, as production serves it."""
    return Site(
        context, hosts=("dagster.example.com",), operator_header="X-Forwarded-Email", proxies=("10.0.0.7",)
    )
