"""How clients log in at Kafka: by AWS role, by user, by certificate."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError
from confluent_kafka import KafkaError, KafkaException
from pydantic import ValidationError

from regworkers_core.adapters.kafka.log import KafkaLog
from regworkers_core.adapters.kafka.producer import RotatingProducer
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import KafkaSettings, Settings, plaintext_addresses

SECRET = "planted-secret-key"


def over_iam(**sections: Any) -> Runtime:
    aws = {"access_key_id": "AKIAPLANTED", "secret_access_key": SECRET, "endpoint_url": "http://127.0.0.1:1"}
    kafka = {"bootstrap": "127.0.0.1:1", "aws_iam": True, "timeout_seconds": 0.2}
    return Runtime(Settings(aws={**aws, "region": "eu-west-1", **sections}, kafka=kafka))


def test_a_token_is_signed_for_the_region_by_the_role_and_renewed_when_librdkafka_asks() -> None:
    options = over_iam().kafka_credentials.accepted().options
    assert (options["security.protocol"], options["sasl.mechanisms"]) == ("sasl_ssl", "OAUTHBEARER")
    for _ in range(2):
        token, ends = options["oauth_cb"]("")
        url = base64.urlsafe_b64decode(token + "==").decode()
        assert url.startswith("https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
        assert "AKIAPLANTED" in url and SECRET not in url
        assert 600 < ends - time.time() <= 900


def test_admin_reader_and_producer_log_in_by_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, made = over_iam(), []
    monkeypatch.setattr(
        "regworkers_core.adapters.kafka.admin.AdminClient", lambda options, **_: made.append(options)
    )
    monkeypatch.setattr("regworkers_core.runtime.KafkaProducer", lambda options, **_: made.append(options))
    runtime.kafka_admin._client()
    assert isinstance(runtime.events, RotatingProducer)
    runtime.events._make(runtime.kafka_credentials.accepted().options)
    runtime.kafka_log("reader").close()
    assert len(made) == 2 and all(callable(options["oauth_cb"]) for options in made)


def test_without_credentials_the_error_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = over_iam()

    def none() -> None:
        raise NoCredentialsError

    monkeypatch.setattr(runtime.aws._session, "get_credentials", none)
    with pytest.raises(UsageError, match="AWS_PROFILE"):
        runtime.kafka_admin.cluster()


def test_a_reader_whose_login_fails_later_says_so() -> None:
    def refused(*_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED))

    settings = KafkaSettings(bootstrap="127.0.0.1:1")
    dependency = over_iam().dependency("kafka")
    with pytest.raises(UsageError, match="refuses the login"):
        KafkaLog(settings, dependency, name="reader", security={}, connect=refused)


@pytest.mark.parametrize(
    "other",
    [{"options": {"sasl.username": "u"}}, {"tls": {"certificate_secret": "kafka-certificate/client"}}],
)
def test_a_second_login_beside_the_role_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="awsIam is a login of its own"):
        KafkaSettings(aws_iam=True, **other)


def test_a_user_logs_in_by_scram_over_tls_and_the_password_is_hidden() -> None:
    options = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "regworkers",
        "sasl.password": SECRET,
    }
    ca = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    settings = Settings(kafka={"bootstrap": "127.0.0.1:1", "options": options, "tls": {"ca": ca}})
    accepted = Runtime(settings).kafka_credentials.accepted()
    assert options.items() <= accepted.options.items() and "ssl.ca.pem" in accepted.options
    assert SECRET not in repr(accepted) + repr(settings)


def test_the_role_counts_as_tls() -> None:
    kafka = KafkaSettings(bootstrap="b-1.example.com:9098", aws_iam=True)
    assert not list(plaintext_addresses(kafka, ()))
