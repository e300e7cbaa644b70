"""Events that a worker that is legacy is called with: answered, or refused as a whole with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.handling import answer_event
from regworkers_core.replication.enqueue.enqueue_work import invoke_enqueue
from tests.engine.message_world import Handler
from tests.support.in_memory import MemoryQueue

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def shaped(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object that often has the fields of an event, of any kind."""
    return JSON | st.fixed_dictionaries({}, optional=fields)


BODY = st.builds(
    lambda document: orjson.dumps(document).decode(),
    shaped(
        type=st.just("selections.assign") | JSON,
        version=st.just(1) | JSON,
        items=st.lists(JSON, max_size=3) | JSON,
    ),
)
SQS = shaped(
    Records=st.lists(
        shaped(
            messageId=st.text(min_size=1, max_size=4) | JSON,
            body=BODY | JSON,
            messageAttributes=shaped(correlationId=shaped(stringValue=JSON), attempt=JSON),
        ),
        max_size=3,
    )
    | JSON
)
KEY = shaped(S=st.sampled_from(["CAMPAIGN#c", "ENTRY#e", ""]) | JSON)
IMAGE = shaped(
    PK=KEY, SK=KEY, needsReplication=shaped(BOOL=JSON), version=shaped(N=st.text(max_size=4) | JSON)
)
STREAM = shaped(
    Records=st.lists(
        shaped(
            eventName=st.sampled_from(["INSERT", "MODIFY", "REMOVE"]) | JSON,
            dynamodb=shaped(
                SequenceNumber=st.text("0123456789", max_size=3) | JSON,
                Keys=IMAGE,
                NewImage=IMAGE,
                OldImage=IMAGE,
            ),
        ),
        max_size=3,
    )
    | JSON
)


def refused_or_answered(call: Callable[[], Any]) -> None:
    try:
        assert isinstance(call()["batchItemFailures"], list)
    except UsageError as error:
        assert str(error)


@given(SQS)
@settings(max_examples=300)
def test_whatever_comes_as_an_sqs_event_is_answered_or_refused(event: Any) -> None:
    refused_or_answered(lambda: answer_event(event, Handler()))


@given(STREAM)
@settings(max_examples=300)
def test_whatever_comes_as_a_stream_event_is_answered_or_refused(event: Any) -> None:
    refused_or_answered(lambda: invoke_enqueue(event, MemoryQueue()))


@pytest.mark.parametrize("given", ["text", 5, [], ["x"], True])
def test_attributes_of_another_kind_are_a_usage_error(given: Any) -> None:
    event = {"Records": [{"messageId": "m", "body": "{}", "messageAttributes": given}]}
    if not given:
        assert answer_event(event, Handler()) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
        return
    with pytest.raises(UsageError, match=r"^Records\[0\]\.messageAttributes should be an object$"):
        answer_event(event, Handler())


def test_a_body_that_is_nested_deeper_than_a_writer_of_json_likes_is_a_failed_message() -> None:
    deep: Any = []
    for _ in range(600):
        deep = [deep]
    event = {"Records": [{"messageId": "m", "body": deep}]}
    assert answer_event(event, Handler()) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
