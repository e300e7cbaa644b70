"""One namespace for the tests on real servers of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.support.shared import emptied, shared_namespace


@pytest.fixture(scope="package")
def shared() -> Iterator[Runtime]:
    with shared_namespace() as made:
        yield made


@pytest.fixture
def servers(shared: Runtime) -> Runtime:
    """Without documents, cached campaigns and items of the table."""
    table = shared.names.demand_table
    for page in shared.dynamodb.get_paginator("scan").paginate(
        TableName=table, ProjectionExpression="PK, SK"
    ):
        for key in page["Items"]:
            shared.dynamodb.delete_item(TableName=table, Key=key)
    shared.redis_client.flushdb()
    return emptied(shared)
