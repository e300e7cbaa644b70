"""Clients of Kafka over TLS that demands certificates: who is let in, what others see, and a certificate that is
renewed while events flow.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from regworkers_core.adapters.kafka.security import Answer, try_out
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from tests.support.certificates import Authority, Pair
from tests.support.runtimes import test_settings
from tests.support.tls_proxy import SecureKafka
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def write(folder: Path, pair: Pair, *, key: str | None = None) -> Path:
    """As a secret store's agent writes it: in one piece."""
    path = folder / "client.pem"
    new = folder / "client.new"
    new.write_text(pair.certificate + (key or pair.key) + pair.chain)
    new.replace(path)
    return path


def over_tls(kafka: SecureKafka, folder: Path, *, timeout_seconds: float = 2.0, **tls: Any) -> Runtime:
    """A runtime whose certificate lies in a file of `folder`."""
    (folder / "ca.pem").write_text(kafka.authority.pem)
    section = {
        "certificate_file": str(folder / "client.pem"),
        "ca_file": str(folder / "ca.pem"),
        **tls,
    }
    return Runtime(
        test_settings(
            "",
            kafka={
                "bootstrap": kafka.address,
                "tls": section,
                "timeout_seconds": timeout_seconds,
                "delivery_seconds": 5.0,
            },
            retry={"attempts": 1, "total_seconds": 3.0, "breaker_reset_seconds": 0.1},
        )
    )


@pytest.fixture
def topic(kafka: SecureKafka) -> str:
    """A new one with one partition."""
    name = f"t{uuid.uuid4().hex[:8]}"
    admin = AdminClient(kafka.options(kafka.authority.client("setup")))
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(timeout=10)
    kafka.proxy.serials.clear()
    return name


def consumed(kafka: SecureKafka, topic: str, count: int) -> list[str]:
    """The first `count` values of the topic, in order."""
    options: dict[str, Any] = {
        **kafka.options(kafka.authority.client("reader")),
        "group.id": uuid.uuid4().hex,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(options)
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[str] = []
    try:

        def enough() -> bool:
            found.extend(
                each.value().decode() for each in consumer.consume(1000, 0.2) if each.error() is None
            )
            return len(found) >= count

        wait_until(enough, what=f"{count} records")
    finally:
        consumer.close()
    return found


class Flow:
    """A thread that sends numbers one after the other, and keeps what failed until it succeeds, as the queue does."""

    def __init__(self, runtime: Runtime, topic: str) -> None:
        self._runtime, self._topic = runtime, topic
        self.sent = 0
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flow:
        self._thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def more(self, count: int = 20) -> None:
        """Returns when this number of further messages was acknowledged."""
        target = self.sent + count
        wait_until(lambda: self.sent >= target or self.error, what="the flow")
        assert self.error is None

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                batch = [(self._topic, "k", str(self.sent + each).encode(), None) for each in range(5)]
                if all(failure is None for failure in self._runtime.events.send(batch)):
                    self.sent += len(batch)
        except BaseException as error:
            self.error = error


@pytest.fixture
def producing() -> Iterator[list[Runtime]]:
    """Runtimes whose producers end with the test."""
    made: list[Runtime] = []
    yield made
    for each in made:
        each.events.close()


# Who is let in


def test_a_valid_certificate_is_let_in_by_admin_producer_and_reader(
    kafka: SecureKafka, topic: str, tmp_path: Path, producing: list[Runtime]
) -> None:
    pair = kafka.authority.client()
    write(tmp_path, pair)
    runtime = over_tls(kafka, tmp_path)
    producing.append(runtime)
    assert topic in runtime.kafka_admin.cluster().topics
    assert runtime.events.send([(topic, "k", b"hello", None)]) == [None]
    with runtime.kafka_log("reader") as reader:
        bounds = reader.bounds(reader.partitions([topic])[topic])
        read = [record.value for chunk in reader.read(bounds) for record in chunk.records]
    assert read == [b"hello"]
    assert pair.serial in kafka.proxy.serials


def test_what_leads_to_the_issuer_is_shown_too(kafka: SecureKafka, tmp_path: Path) -> None:
    write(tmp_path, Authority("Issuing", kafka.authority).client())
    over_tls(kafka, tmp_path).kafka_admin.cluster()


def test_a_certificate_and_its_key_may_lie_in_two_files(kafka: SecureKafka, tmp_path: Path) -> None:
    pair = kafka.authority.client()
    (tmp_path / "client.pem").write_text(pair.certificate)
    (tmp_path / "key.pem").write_text(pair.key)
    over_tls(kafka, tmp_path, key_file=str(tmp_path / "key.pem")).kafka_admin.cluster()


def test_the_settings_of_librdkafka_serve_as_well(kafka: SecureKafka) -> None:
    pair = kafka.authority.client()
    options = kafka.options(pair)
    runtime = Runtime(
        test_settings("", kafka={"bootstrap": options.pop("bootstrap.servers"), "options": options})
    )
    runtime.kafka_admin.cluster()
    assert pair.serial in kafka.proxy.serials


@pytest.mark.parametrize("which", ["expired", "not yet valid", "of a stranger", "none"])
def test_others_are_not_let_in(kafka: SecureKafka, tmp_path: Path, which: str) -> None:
    pairs = {
        "expired": kafka.authority.client(days=-1),
        "not yet valid": kafka.authority.client(starts=2),
        "of a stranger": Authority("Stranger").client(),
    }
    if which in pairs:
        write(tmp_path, pairs[which])
    tls = {} if which in pairs else {"certificate_file": ""}
    runtime = over_tls(kafka, tmp_path, timeout_seconds=0.5, **tls)
    with pytest.raises(TransientFailure):
        runtime.kafka_admin.cluster()
    assert not {pair.serial for pair in pairs.values()} & set(kafka.proxy.serials)


def test_a_key_of_another_certificate_is_reported_without_a_connection(
    kafka: SecureKafka, tmp_path: Path
) -> None:
    write(tmp_path, kafka.authority.client(), key=kafka.authority.client().key)
    with pytest.raises(UsageError, match="certs check"):
        over_tls(kafka, tmp_path).kafka_admin.cluster()


def test_untrusted_brokers_are_not_taken_for_an_outage(kafka: SecureKafka) -> None:
    stranger = Authority("Stranger")
    options = kafka.options(kafka.authority.client(), **{"ssl.ca.pem": stranger.pem})
    answer, why = try_out(kafka.address, timeout_seconds=5.0)(options)
    assert answer is Answer.REFUSED and "trust" in why


# Renewal


def test_a_renewed_certificate_is_taken_up_while_events_flow_and_none_is_lost(
    kafka: SecureKafka, topic: str, tmp_path: Path, producing: list[Runtime]
) -> None:
    old, new = kafka.authority.client(days=2), kafka.authority.client(days=90)
    write(tmp_path, old)
    runtime = over_tls(kafka, tmp_path, check_seconds=0.05)
    producing.append(runtime)
    with Flow(runtime, topic) as flow:
        assert old.serial in kafka.proxy.open_serials
        write(tmp_path, new)
        wait_until(lambda: new.serial in kafka.proxy.serials, what="a connection with the new certificate")
        wait_until(lambda: old.serial not in kafka.proxy.open_serials, what="the end of the old connections")
        flow.more()
    assert consumed(kafka, topic, flow.sent) == [str(each) for each in range(flow.sent)], (
        "each once, in order"
    )
    assert runtime.kafka_admin.cluster().topics and kafka.proxy.serials[-1] == new.serial, "the admin follows"


@pytest.mark.parametrize("broken", ["expired", "of a stranger", "mismatched", "garbage", "gone"])
def test_a_broken_renewal_leaves_the_old_certificate_in_use_and_says_so(
    kafka: SecureKafka, topic: str, tmp_path: Path, producing: list[Runtime], broken: str
) -> None:
    good = kafka.authority.client()
    path = write(tmp_path, good)
    runtime = over_tls(kafka, tmp_path, check_seconds=0.05)
    producing.append(runtime)
    with Flow(runtime, topic) as flow:
        if broken == "garbage":
            path.write_text("-----BEGIN nonsense")
        elif broken == "gone":
            path.unlink()
        elif broken == "mismatched":
            write(tmp_path, kafka.authority.client(), key=good.key)
        else:
            write(
                tmp_path, kafka.authority.client(days=-1) if broken == "expired" else Authority("x").client()
            )
        wait_until(lambda: runtime.kafka_credentials.refused, what="the refusal")
        flow.more()
        assert good.serial in kafka.proxy.open_serials
        renewed = kafka.authority.client()
        write(tmp_path, renewed)
        wait_until(lambda: good.serial not in kafka.proxy.open_serials, what="the renewal")
        flow.more()
        assert runtime.kafka_credentials.refused is None and renewed.serial in kafka.proxy.open_serials
    assert consumed(kafka, topic, flow.sent) == [str(each) for each in range(flow.sent)]


def test_an_outage_during_a_renewal_is_no_refusal_and_the_renewal_follows_it(
    kafka: SecureKafka, topic: str, tmp_path: Path, producing: list[Runtime]
) -> None:
    write(tmp_path, kafka.authority.client())
    runtime = over_tls(kafka, tmp_path, check_seconds=0.05)
    producing.append(runtime)
    with Flow(runtime, topic) as flow:
        kafka.proxy.leave()
        renewed = kafka.authority.client()
        write(tmp_path, renewed)
        runtime.kafka_credentials.check()
        assert runtime.kafka_credentials.refused is None
        kafka.proxy.listen()
        wait_until(lambda: renewed.serial in kafka.proxy.open_serials, what="the renewal")
        flow.more()
    found = consumed(kafka, topic, flow.sent)
    assert list(dict.fromkeys(found))[: flow.sent] == [str(each) for each in range(flow.sent)], "none lost"
