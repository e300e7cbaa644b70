"""A CA and a Kafka that takes its clients only, for all tests of this folder that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.tls_proxy import SecureKafka, kafka_over_tls


@pytest.fixture(scope="session")
def root() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def _kafka(root: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with kafka_over_tls(root, tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture
def kafka(_kafka: SecureKafka) -> SecureKafka:
    """As no test has touched it: there, and without a memory of earlier connections."""
    _kafka.proxy.serials.clear()
    return _kafka


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path
