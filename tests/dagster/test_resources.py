"""The resources: what the UI shows of them, what a run may change, and who asks for which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from regworkers_core.domain.reasons import RequestError
from regworkers_core.runtime import Runtime
from regworkers_dagster import resources
from regworkers_dagster.resources import (
    AwsResource,
    KafkaResource,
    MongoResource,
    RedisResource,
    connections,
    runtime_of,
)
from tests.dagster.support import job, use

LOGIN = "mongodb+srv://worker:s3cr%2Ft@cluster.example.net/?authMechanismProperties=TOKEN:t0p"


@pytest.fixture(autouse=True)
def _loaded_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS__REGION", "MONGO__URI", "REDIS__URL"):
        monkeypatch.delenv(f"REGWORKERS_{name}", raising=False)
    connections.cache_clear()
    yield
    connections.cache_clear()


def _given(**given: Any) -> Runtime:
    with dg.build_op_context(resources={**connections(), **given}) as context:
        return runtime_of(context)


def test_the_ui_shows_where_each_service_is_and_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_AWS__REGION", "eu-west-1")
    monkeypatch.setenv("REGWORKERS_MONGO__URI", LOGIN)
    monkeypatch.setenv("REGWORKERS_REDIS__URL", "rediss://:p%40ss@cache.example.net:6380/0?password=p")
    monkeypatch.setenv("REGWORKERS_KAFKA__BOOTSTRAP", "b-1.example.net:9094")
    aws, mongo, redis, kafka = connections().values()
    assert isinstance(aws, AwsResource) and aws.region == "eu-west-1" and aws.read_timeout_seconds == 10
    assert isinstance(mongo, MongoResource) and mongo.uri == "mongodb+srv://***@cluster.example.net/"
    assert isinstance(redis, RedisResource) and redis.url == "rediss://***@cache.example.net:6380/0"
    assert isinstance(kafka, KafkaResource) and kafka.bootstrap == "b-1.example.net:9094"
    for each in connections().values():
        assert type(each).__doc__
        assert all(field.description for field in type(each).model_fields.values())


@pytest.mark.parametrize(
    "wrong", ["user:p@ss@cache.example.net:6379", "redis//:p@ss@cache", "redis://u:p\nss@c"]
)
def test_an_address_that_is_none_shows_no_login_either(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_REDIS__URL", wrong)
    redis = connections()["redis"]
    assert isinstance(redis, RedisResource) and redis.url is not None
    assert "ss@" not in redis.url and redis.url.count("***@") == 1


def test_resources_as_they_were_loaded_change_nothing_also_where_the_address_moved_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REGWORKERS_MONGO__URI", LOGIN)
    given = connections()
    monkeypatch.setenv("REGWORKERS_MONGO__URI", "mongodb://elsewhere")
    uri = _given(**given).settings.mongo.uri
    assert uri is not None and uri.get_secret_value() == "mongodb://elsewhere"


def test_a_run_in_local_dev_may_use_another_server_and_another_time_out() -> None:
    kafka = KafkaResource(bootstrap="127.0.0.1:9", timeout_seconds=0.5)
    settings = _given(kafka=kafka, mongo=MongoResource(database="another")).settings
    assert (settings.kafka.bootstrap, settings.kafka.timeout_seconds) == ("127.0.0.1:9", 0.5)
    assert settings.kafka.delivery_seconds == 10 and settings.mongo.database == "another"


@pytest.mark.parametrize(
    ("environment", "given", "message"),
    [
        ("prod", {"mongo": MongoResource(database="mine")}, "mongo.database is changed in the settings of prod"),
        ("prod", {"aws": AwsResource(endpoint_url="https://mine")}, "aws.endpoint_url is changed in the settings"),
        ("local-dev", {"mongo": MongoResource(uri="mongodb://me:secret@mine")}, "mongo.uri: an address with a login"),
        ("local-dev", {"redis": RedisResource(timeout_seconds=-1)}, "redis.timeout_seconds: Input should be greater"),
    ],
)  # fmt: skip
def test_what_a_run_may_not_change_is_refused_and_named(
    monkeypatch: pytest.MonkeyPatch, environment: str, given: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("CONFIG_ENV", environment)
    with pytest.raises(RequestError) as refused:
        _given(**given)
    assert message in str(refused.value) and "secret" not in str(refused.value)


def test_in_production_a_run_may_change_time_outs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_ENV", "prod")
    assert _given(aws=AwsResource(read_timeout_seconds=30)).settings.aws.read_timeout_seconds == 30


def test_each_job_asks_for_what_it_touches() -> None:
    from regworkers_dagster.definitions import defs

    def asks_for(name: str) -> set[str]:
        keys: set[str] = set()
        for node in job(name).nodes:
            keys |= set(node.definition.required_resource_keys)  # type: ignore[attr-defined]
        return keys & set(connections())

    names = [each.name for each in defs.get_repository_def().get_all_jobs() if "__" not in each.name]
    users = {key: {name for name in names if key in asks_for(name)} for key in connections()}
    assert users["kafka"] >= {"archive_events", "check_certificate", "publish_events"}
    assert not users["kafka"] & {"save_entries", "draw", "create_campaign"}
    assert {"create_campaign", "close_campaign", "draw", "runbook_campaign_configuration"} <= users["redis"]
    assert not users["redis"] & {"save_entries", "publish_events", "reconcile_entries"}
    assert set(names) - users["aws"] - users["mongo"] == set()


def test_each_sensor_asks_for_what_it_touches(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    from regworkers_dagster.definitions import defs

    use(monkeypatch, runtime)
    repository = defs.get_repository_def()
    asked: list[set[str]] = []
    real = resources.shared_runtime

    def shared(seconds: float | None = None, changes: dict[str, dict[str, Any]] | None = None) -> Runtime:
        asked.append(set(changes or {}))
        return real(seconds, changes)

    monkeypatch.setattr(resources, "shared_runtime", shared)
    with dg.DagsterInstance.ephemeral() as instance:
        for each in repository.sensor_defs:
            given = {key: connections()[key] for key in each.required_resource_keys}
            context = dg.build_sensor_context(
                instance=instance, repository_def=repository, sensor_name=each.name, resources=given
            )
            ticked = each.evaluate_tick(context)
            assert "defect in the sensor" not in str(ticked.skip_message), each.name
    # What they called and did not ask for fails this test: see conftest.py.
    assert len(asked) == len(repository.sensor_defs) and all("aws" in keys for keys in asked)
