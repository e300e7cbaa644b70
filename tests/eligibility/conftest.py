"""The servers of the tests of this folder."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime


@pytest.fixture
def servers(runtime: Runtime) -> Runtime:
    """Without documents, cached campaigns and items of the table."""
    table = runtime.names.demand_table
    for page in runtime.dynamodb.get_paginator("scan").paginate(
        TableName=table, ProjectionExpression="PK, SK"
    ):
        for key in page["Items"]:
            runtime.dynamodb.delete_item(TableName=table, Key=key)
    runtime.redis_client.flushdb()
    return runtime
