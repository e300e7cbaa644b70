"""Runtimes in namespaces of their own on the servers of the test run."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from botocore.exceptions import ClientError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pymongo import IndexModel

from regworkers_core.engine.dependency import Dependency
from regworkers_core.infrastructure.indexes import INDEXES
from regworkers_core.infrastructure.provision import provision, provision_topics
from regworkers_core.infrastructure.provision_aws import provision_producer_keys
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from regworkers_local.service_stores import USER_DATABASE
from tests.support import beacon

# Where the suite finds its servers. tests/conftest.py starts those that are not given.
ADDRESSES = {
    "aws": "REGWORKERS_TEST_AWS_ENDPOINT",
    "mongo": "REGWORKERS_TEST_MONGO_URI",
    "redis": "REGWORKERS_TEST_REDIS_URL",
    "kafka": "REGWORKERS_TEST_KAFKA_BOOTSTRAP",
}

# Addresses of single AWS services, as JSON by their names in botocore: `{"sqs": "http://127.0.0.1:4567"}`.
AWS_ENDPOINTS = "REGWORKERS_TEST_AWS_ENDPOINTS"

# `cluster` if Redis is one. Its tests run one after the other.
REDIS_MODE = "REGWORKERS_TEST_REDIS_MODE"

# Set where S3 does not understand conditions in the policy of a bucket and would deny every write.
NO_BUCKET_POLICY = "REGWORKERS_TEST_NO_BUCKET_POLICY"

# Set by `pytest --no-servers`.
NO_SERVERS = "REGWORKERS_TEST_NO_SERVERS"
_REDIS_DATABASES, _REDIS_NUMBERS = "tests:databases", "tests:numbers"
_LEAST_DATABASES = 4096
_emptied_for: set[str] = set()


def address(name: str) -> str:
    """Where a server of the run is (`aws`, `mongo`, `redis`, `kafka`). Skips the test if there are none."""
    if NO_SERVERS in os.environ:
        pytest.skip("needs servers")
    return os.environ[ADDRESSES[name]]


def redis_url(prefix: str, url: str) -> str:
    """The namespace's own database of the Redis at `url`, because the keys of the cache have no prefix. A cluster has
    one database, which is emptied for each namespace.
    """
    if REDIS_MODE in os.environ:
        if prefix not in _emptied_for:
            with redis.RedisCluster.from_url(url) as cluster:
                cluster.flushall(target_nodes="primaries")
            _emptied_for.add(prefix)
        return url
    with redis.Redis.from_url(url) as client:
        number = client.hget(_REDIS_DATABASES, prefix)
        if number is None:
            # The first is that of the numbers.
            client.hsetnx(_REDIS_DATABASES, prefix, client.incr(_REDIS_NUMBERS) % (_LEAST_DATABASES - 1) + 1)
            number = client.hget(_REDIS_DATABASES, prefix)
            with redis.Redis.from_url(_database(url, number)) as own:
                own.flushdb()
    return _database(url, number)


def _database(url: str, number: int | bytes) -> str:
    return f"{url.removesuffix('/0')}/{int(number)}"


def has_databases(url: str) -> bool:
    """Whether Redis has enough databases for the namespaces of many runs, or is a cluster."""
    if REDIS_MODE in os.environ:
        return True
    try:
        with redis.Redis.from_url(_database(url, _LEAST_DATABASES - 1)) as client:
            return bool(client.ping())
    except redis.ResponseError:
        return False


def test_settings(prefix: str, addresses: dict[str, str] | None = None, **sections: Any) -> Settings:
    """Short waits, a prefix of its own, the given servers (default: those of the run)."""
    found = addresses or {
        **{name: address(name) for name in ADDRESSES},
        "redis": redis_url(prefix, address("redis")),
    }
    values: dict[str, Any] = {
        "environment": "local-dev",
        "resource_prefix": prefix,
        "aws": {
            "endpoint_url": found["aws"],
            "endpoints": {} if addresses else json.loads(os.environ.get(AWS_ENDPOINTS, "{}")),
            "access_key_id": "test",
            "secret_access_key": "test",
        },
        "mongo": {"uri": found["mongo"]},
        "redis": {"url": found["redis"], "mode": os.environ.get(REDIS_MODE, "single")},
        "kafka": {
            "bootstrap": found["kafka"],
            "partitions": 1,
            "replication_factor": 1,
            "delivery_seconds": 2,
        },
        "retry": {"total_seconds": 3.0, "breaker_reset_seconds": 0.5},
        "save": {"visibility_seconds": 2, "receive_wait_seconds": 0, "max_attempts": 3},
        "enqueue": {"lease_seconds": 1.0},
        "stream": {"reads_per_second": 50},
        "drain": {"idle_seconds": 0.1, "max_seconds": 30.0, "outage_seconds": 0},
        "selection": {
            "beacon": beacon.SETTINGS,
            "settle_seconds": 0,
            "write_grace_seconds": 0,
            "lease_seconds": 1.0,
            "visibility_seconds": 2,
            "receive_wait_seconds": 0,
            "max_attempts": 3,
            "canary_messages": 2,
            "canary_hold_seconds": 0,
        },
        "invites": {"lease_seconds": 1.0},
        "analytics": {"visibility_seconds": 2, "receive_wait_seconds": 0},
        "archive": {"lease_seconds": 1.0},
        "replication": {"lag_objective_seconds": 0.5},
        "observability": {"cloudwatch_enabled": False},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return Settings(**values)


test_settings.__test__ = False  # type: ignore[attr-defined]


@dataclass(slots=True)
class _Example:
    """The first namespace with some settings: what provisioning wrote to AWS, each as the name of the guard, the method
    and its arguments as JSON.
    """

    prefix: str
    writes: list[tuple[str, Callable[..., Any], str]] = field(default_factory=list)

    @classmethod
    def provisioned(cls, runtime: Runtime) -> _Example:
        example, guard = cls(runtime.names.prefix), runtime.dependency

        def noted(name: str) -> Any:
            return _Noted(name, guard(name), example.writes) if name in _AWS else guard(name)

        runtime.dependency = noted  # type: ignore[assignment]
        list(provision(runtime))
        runtime.dependency = guard
        return example

    def copy_to(self, runtime: Runtime) -> None:
        """Half of the calls of provisioning look for what may exist, and nothing of a new prefix does."""
        for name, write, arguments in self.writes:
            mine = json.loads(arguments.replace(self.prefix, runtime.names.prefix))
            runtime.dependency(name).call(write, **mine)
        for collection, indexes in INDEXES.items():
            models = [IndexModel(list(index.keys), **index.options) for index in indexes]
            runtime.dependency("mongo").call(runtime.database[collection].create_indexes, models)
        list(provision_producer_keys(runtime))
        list(provision_topics(runtime, change=True))


@dataclass(frozen=True, slots=True)
class _Noted:
    """A guard of provisioning that notes what is written."""

    name: str
    guard: Dependency
    writes: list[tuple[str, Callable[..., Any], str]]

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        answer = self.guard.call(function, **arguments)
        if not function.__name__.startswith(_READS):
            self.writes.append((self.name, function, json.dumps(arguments)))
        return answer


_AWS = ("dynamodb", "sqs", "s3", "logs")
_READS = ("describe_", "get_", "head_")
_examples: dict[str, _Example] = {}


def new_runtime(addresses: dict[str, str] | None = None, **sections: Any) -> Runtime:
    """A provisioned runtime with a new prefix."""
    runtime = Runtime(test_settings(f"t{uuid.uuid4().hex[:8]}-", addresses, **sections))
    alike = runtime.settings.model_dump_json(exclude={"redis"}).replace(runtime.names.prefix, "")
    if alike in _examples:
        _examples[alike].copy_to(runtime)
    else:
        _examples[alike] = _Example.provisioned(runtime)
    if NO_BUCKET_POLICY in os.environ:
        runtime.aws.client("s3").delete_bucket_policy(Bucket=runtime.names.bucket)
    return runtime


def remove_namespace(runtime: Runtime) -> None:
    """Delete all that `new_runtime` created."""
    names = runtime.names
    runtime.mongo.drop_database(runtime.database.name)
    runtime.mongo.drop_database(names.prefix + USER_DATABASE)
    runtime.mongo.close()
    for table in (names.demand_table, names.lease_table):
        _quietly(lambda table=table: runtime.dynamodb.delete_table(TableName=table))
    if "REGWORKERS_TEST_GIVEN_SERVERS" in os.environ:
        # An embedded stack takes these with it; deleting them one by one would slow every test down.
        _remove_from_given_servers(runtime)


def _remove_from_given_servers(runtime: Runtime) -> None:
    names, kafka = runtime.names, runtime.settings.kafka
    for name in names.queues:
        for queue in (name, names.dead_letter_queue(name)):
            _quietly(
                lambda queue=queue: runtime.sqs.delete_queue(
                    QueueUrl=runtime.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
                )
            )
    options = {name: secret.get_secret_value() for name, secret in kafka.options.items()}
    admin = AdminClient({"bootstrap.servers": str(kafka.bootstrap), **options})
    for deleted in admin.delete_topics([*names.topics], operation_timeout=10).values():
        with suppress(KafkaException):
            deleted.result(timeout=10)
    if REDIS_MODE not in os.environ and runtime.redis_client.connection_pool.connection_kwargs["db"]:
        runtime.redis_client.flushdb()
    logs, s3 = runtime.aws.client("logs"), runtime.aws.client("s3")
    _quietly(lambda: logs.delete_log_group(logGroupName=f"/{names.prefix}regworkers"))
    _quietly(lambda: _empty(s3, names.bucket))
    _quietly(lambda: s3.delete_bucket(Bucket=names.bucket))


def _empty(s3: Any, bucket: str) -> None:
    """Every version of every object, and the markers of deleted ones."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            s3.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])


def _quietly(delete: Callable[[], Any]) -> None:
    with suppress(ClientError):
        delete()
