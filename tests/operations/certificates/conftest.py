"""A Kafka that takes clients of one CA only, and a company with environments, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regworkers_core.cli.main import build
from regworkers_core.cli.output import TROUBLE
from regworkers_core.domain.reasons import UsageError
from tests.operations.certificates.world import Company
from tests.support.certificates import Authority
from tests.support.terminal import Answer
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
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Company:
    return Company(tmp_path, monkeypatch)


@pytest.fixture
def typed(company: Company, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """`regworkers certs ...` in one of the company's environments, without a process of its own."""
    app = build("certs")

    def run(*words: str) -> Answer:
        capsys.readouterr()
        trouble = ""
        try:
            code = app(args=["certs", *words], standalone_mode=False) or 0
        except UsageError as error:
            code, trouble = TROUBLE, f"regworkers: {error}\n"
        said = capsys.readouterr()
        return Answer(code, said.out, said.err + trouble)

    return run
