"""What botocore's exceptions about credentials, clocks, keys and load mean, each named as what it is."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as aws
from botocore.exceptions import ClientError
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker

from regworkers_core.adapters.aws.clients import AwsClients, classify_aws
from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.queue import Outgoing
from regworkers_core.settings import AwsSettings
from tests.adapters.fakes import FakeClient, client_error, dependency

classify = classify_aws("dynamodb")


@pytest.fixture(autouse=True)
def profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "ops")
    monkeypatch.delenv("AWS_DEFAULT_PROFILE", raising=False)


def refused(code: str, said: str = "", *, ahead_seconds: float | None = None) -> ClientError:
    """As a service answers; `ahead_seconds` is how far our clock is ahead of its Date header."""
    headers = {} if ahead_seconds is None else {"date": formatdate(time.time() - ahead_seconds, usegmt=True)}
    metadata = {"HTTPStatusCode": 400, "HTTPHeaders": headers}
    return ClientError(
        {"Error": {"Code": code, "Message": said}, "ResponseMetadata": metadata}, "BatchGetItem"
    )


def message_of(error: Exception) -> str:
    meaning = classify(error)
    assert isinstance(meaning, UsageError), meaning
    return str(meaning)


@pytest.mark.parametrize(
    "error",
    [
        aws.UnauthorizedSSOTokenError(),
        aws.SSOTokenLoadError(error_msg="Token for ops does not exist"),
        aws.TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"),
        aws.NoAuthTokenError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_sso_login_that_expired_is_named_with_the_command_that_renews_it(error: Exception) -> None:
    assert message_of(error) == "the SSO login expired: aws sso login --profile ops"


def test_without_a_profile_the_command_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    assert message_of(aws.UnauthorizedSSOTokenError()) == "the SSO login expired: aws sso login"
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "old")
    assert message_of(aws.LoginRefreshRequired()) == "the AWS login expired: aws login --profile old"


def test_a_missing_profile_is_named_with_its_setting() -> None:
    assert "no AWS profile 'nope', which AWS_PROFILE names" in message_of(aws.ProfileNotFound(profile="nope"))


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
def test_expired_credentials_are_reported_as_expired(code: str) -> None:
    text = message_of(refused(code))
    assert f"have expired ({code})" in text and "aws sso login --profile ops" in text and "role" not in text


@pytest.mark.parametrize("code", ["RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"])
def test_a_request_refused_for_its_time_says_how_wrong_the_clock_is(code: str) -> None:
    assert "is 17 min behind that of AWS" in message_of(refused(code, ahead_seconds=-17 * 60))
    assert "is 17 min ahead of that of AWS" in message_of(refused(code, ahead_seconds=17 * 60))
    assert "it differs from that of AWS by minutes" in message_of(refused(code))


@pytest.mark.parametrize("code", ["InvalidSignatureException", "SignatureDoesNotMatch"])
def test_a_refused_signature_is_the_clock_or_the_key_by_the_date_header(code: str) -> None:
    assert "is 9 min behind" in message_of(refused(code, ahead_seconds=-9 * 60))
    assert "secret access key is wrong (the clock is right)" in message_of(refused(code, ahead_seconds=1))
    assert "secret access key or the clock" in message_of(refused(code, "does not match"))
    text = "Signature expired: 20261126T040000Z is now earlier than 20261126T042000Z"
    assert "set the clock of this machine" in message_of(refused(code, text))


@pytest.mark.parametrize(
    "code", ["InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure"]
)
def test_unknown_keys_name_the_settings_that_hold_them(code: str) -> None:
    text = message_of(refused(code))
    assert all(name in text for name in (code, "AWS_PROFILE (ops)", "REGWORKERS_AWS__SESSION_TOKEN"))


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException"])
def test_denied_access_names_the_call_the_role_and_the_policy(code: str) -> None:
    assert message_of(refused(code)) == f"AWS refuses BatchGetItem ({code}): check the role and its policy"


@pytest.mark.parametrize(
    "code", ["KmsThrottled", "KMS.ThrottlingException", "KmsThrottledException", "KMSThrottlingException"]
)
def test_a_throttled_key_is_throttling(code: str) -> None:
    meaning = classify(refused(code))
    assert isinstance(meaning, TransientFailure) and meaning.throttled and meaning.dependency == "dynamodb"


@pytest.mark.parametrize("code", ["KMSInternalException", "KMS.DependencyTimeoutException"])
def test_a_key_service_in_trouble_is_transient(code: str) -> None:
    meaning = classify(refused(code))
    assert isinstance(meaning, TransientFailure) and not meaning.throttled


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("KMSAccessDeniedException", ""),
        ("KMS.AccessDeniedException", ""),
        ("KmsAccessDenied", ""),
        ("KMS.DisabledException", ""),
        ("KMS.NotFoundException", ""),
        ("KmsInvalidState", ""),
        ("DecryptionFailure", ""),
        ("AccessDeniedException", "User is not authorized to perform: kms:Decrypt on this resource"),
    ],
)
def test_a_key_that_is_refused_is_the_operators_and_names_kms(code: str, said: str) -> None:
    text = message_of(refused(code, said))
    assert text.startswith(f"KMS refuses its key to BatchGetItem ({code})") and "kms:Decrypt" in text


def test_a_credential_process_that_fails_is_the_operators_and_its_words_are_not_shown() -> None:
    text = message_of(aws.CredentialRetrievalError(provider="custom-process", error_msg="password hunter2"))
    assert "credential_process of AWS_PROFILE (ops)" in text and "hunter2" not in text


@pytest.mark.parametrize("provider", ["iam-role", "container-role", "sts-assume-role"])
def test_a_credential_endpoint_that_does_not_answer_is_transient_and_named(provider: str) -> None:
    meaning = classify(aws.CredentialRetrievalError(provider=provider, error_msg="timed out"))
    assert isinstance(meaning, TransientFailure)
    assert meaning.error == f"CredentialRetrievalError of {provider}"


@pytest.mark.parametrize(
    "error",
    [
        aws.MetadataRetrievalError(error_msg="Max attempts exceeded"),
        aws.EndpointConnectionError(endpoint_url="http://x"),
        aws.ReadTimeoutError(endpoint_url="http://169.254.169.254"),
        aws.ProxyConnectionError(proxy_url="http://proxy"),
        aws.SSLError(endpoint_url="http://x", error="bad"),
        aws.HTTPClientError(error="broken"),
        aws.ResponseStreamingError(error="broken"),
        aws.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_temporary_problems_stay_transient(error: Exception) -> None:
    meaning = classify(error)
    assert isinstance(meaning, TransientFailure) and meaning.error == type(error).__name__


@pytest.mark.parametrize(
    "error",
    [
        aws.NoRegionError(),
        aws.InvalidRegionError(region_name="us east"),
        aws.ConfigParseError(path="/home/x/.aws/config"),
        aws.InvalidRetryModeError(provided_retry_mode="x", valid_modes=["y"]),
        aws.InvalidConfigError(error_msg="x"),
        aws.UnknownCredentialError(name="x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_aws_settings_that_are_wrong_are_the_operators(error: Exception) -> None:
    assert f"not usable ({type(error).__name__})" in message_of(error)


def test_every_code_that_botocore_itself_would_retry_is_transient() -> None:
    throttled = set(ThrottledRetryableChecker._THROTTLED_ERROR_CODES)
    for code in throttled | set(TransientRetryableChecker._TRANSIENT_ERROR_CODES):
        meaning = classify(refused(code))
        assert isinstance(meaning, TransientFailure), code
        # Another transaction on the same item is no throttling.
        assert meaning.throttled or code not in throttled or code == "TransactionInProgressException", code


def test_a_profile_that_is_missing_is_reported_when_clients_are_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(UsageError, match="no AWS profile 'nope'"):
        AwsClients(AwsSettings()).client("sqs")


def test_temporary_keys_are_sent_with_their_session_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    keys: dict[str, Any] = {
        "access_key_id": "AKIA",
        "secret_access_key": "secret",
        "session_token": "TOKEN77",
    }
    client = AwsClients(AwsSettings(**keys)).client("s3")
    signed = client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "AKIA" in signed and "TOKEN77" in signed


def test_a_message_is_not_blamed_for_a_throttled_key_and_a_refused_key_is_the_operators() -> None:
    def failing(code: str) -> SqsQueue:
        refused = {"Failed": [{"Id": "0", "Code": code, "SenderFault": True}]}
        client = FakeClient(
            get_queue_url=lambda QueueName: {"QueueUrl": "http://sqs/q"},
            send_message_batch=lambda **_: refused,
        )
        return SqsQueue(client, dependency("sqs", classify_aws("sqs"), 1), "q", batch_bytes=1000)

    (failure,) = failing("KmsThrottled").send([Outgoing(b"{}")])
    assert (failure.error, failure.permanent) == ("KmsThrottled", False)
    with pytest.raises(UsageError, match="KMS refuses its key"):
        failing("KmsDisabled").send([Outgoing(b"{}")])


def test_a_receive_that_meets_a_throttled_key_is_transient_and_one_that_is_refused_ends_with_the_code() -> (
    None
):
    client = FakeClient(
        get_queue_url=lambda QueueName: {"QueueUrl": "http://sqs/q"},
        receive_message=[client_error("KMS.ThrottlingException"), client_error("InvalidAddress", 404)],
    )
    queue = SqsQueue(client, dependency("sqs", classify_aws("sqs"), 1), "q", batch_bytes=1000)
    with pytest.raises(TransientFailure):
        queue.receive(1, 0, 1)
    with pytest.raises(UsageError, match=r"SQS refuses Call on queue q \(InvalidAddress\)"):
        queue.receive(1, 0, 1)
