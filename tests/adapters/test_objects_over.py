"""Writes over exactly what was read, on the real store."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from regworkers_core.adapters.aws.objects import ObjectStore, classify_objects
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.runtime import Runtime

KEY = "archive/test.json"


@pytest.fixture
def objects(shared: Runtime) -> ObjectStore:
    shared.objects.delete(KEY)
    return shared.objects


def test_only_the_first_of_two_writes_over_the_same_state_is_taken(objects: ObjectStore) -> None:
    assert objects.get_tagged(KEY) is None
    first = objects.put_over(KEY, b"1", None)
    assert first is not None
    assert objects.put_over(KEY, b"other", None) is None
    second = objects.put_over(KEY, b"2", first)
    assert second is not None
    assert objects.put_over(KEY, b"3", first) is None
    found = objects.get_tagged(KEY)
    assert found is not None and found[:2] == (b"2", second)


def test_a_deleted_object_is_not_replaced(objects: ObjectStore) -> None:
    tag = objects.put_over(KEY, b"1", None)
    objects.delete(KEY)
    objects.delete(KEY)
    assert objects.put_over(KEY, b"2", tag) is None
    assert not objects.exists(KEY)


class LosesAnswers:
    """A client whose first write arrives and whose answer does not."""

    def __init__(self, client: Any) -> None:
        self._client, self._lost = client, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **arguments: Any) -> Any:
        answer = self._client.put_object(**arguments)
        if not self._lost:
            self._lost = True
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1")
        return answer


def test_a_write_whose_answer_was_lost_is_recognised_by_its_content(
    shared: Runtime, objects: ObjectStore
) -> None:
    policy = RetryPolicy(attempts=2, first_cap_seconds=0, last_cap_seconds=0)
    client = LosesAnswers(shared.aws.client("s3"))
    losing = ObjectStore(client, Dependency("s3", classify_objects, policy=policy), objects.bucket)
    tag = losing.put_over(KEY, b"mine", None)
    found = objects.get_tagged(KEY)
    assert tag is not None and found is not None and found[:2] == (b"mine", tag)
