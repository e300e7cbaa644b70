"""One namespace for all tests of a module, emptied before each: provisioning costs more than most tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.runtime import Runtime
from tests.support.runtimes import new_runtime, remove_namespace


@contextmanager
def shared_namespace(**sections: Any) -> Iterator[Runtime]:
    """`sections` are settings, as `new_runtime` takes them."""
    made = new_runtime(**sections)
    yield made
    remove_namespace(made)


def emptied(shared: Runtime) -> Runtime:
    """A new runtime on the namespace without documents, secrets, and files of draws, of the log and of dropped
    messages, which are put once. Leases, the keys of events and other objects stay.
    """
    for name in shared.database.list_collection_names():
        shared.database[name].delete_many({})
    for prefix in ("dead-letters/", "draws/", "log/", "pipeline/", "registrations/"):
        for key in shared.objects.list(prefix):
            shared.objects.delete(key)
    client, prefix = shared.aws.client("secretsmanager"), shared.names.prefix
    # By name: a server that many namespaces share has more secrets than a page.
    found = client.list_secrets(MaxResults=100, Filters=[{"Key": "name", "Values": [prefix]}])
    for secret in found["SecretList"]:
        if not secret["Name"].startswith(f"{prefix}producer-key/"):
            client.delete_secret(SecretId=secret["Name"], ForceDeleteWithoutRecovery=True)
    return Runtime(shared.settings)


def purge(runtime: Runtime, queue: str) -> None:
    """Delete the messages of a queue, those in flight too. SQS purges a queue once in a minute: where it refuses, a
    new queue takes its place.
    """
    url = runtime.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    try:
        runtime.sqs.purge_queue(QueueUrl=url)
    except ClientError as error:
        if "PurgeQueueInProgress" not in str(error):
            raise
        answer = runtime.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        kept = {name: answer["Attributes"][name] for name in _CHOSEN if name in answer["Attributes"]}
        runtime.sqs.delete_queue(QueueUrl=url)
        runtime.sqs.create_queue(QueueName=queue, Attributes=kept)


# What a queue is created with.
_CHOSEN = (
    "DelaySeconds",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "RedrivePolicy",
    "VisibilityTimeout",
)
