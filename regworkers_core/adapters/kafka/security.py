"""This client's login at Kafka: certificate, key and CA from settings, files or the secret store, or its AWS role.

Of several certificates it uses the newest that the brokers accept: a broken renewal never replaces a working one.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from fairdraw import scheduling
from regworkers_core.adapters.aws.secrets import SecretStore
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.settings import PROJECT_ROOT, KafkaSettings

if TYPE_CHECKING:
    from regworkers_core.adapters.aws.clients import AwsClients

Part = Literal["certificate", "key", "ca"]
PARTS: tuple[Part, ...] = ("certificate", "key", "ca")
# librdkafka's own names, which `kafka.options` may have: text, and file.
_OPTIONS: Mapping[Part, tuple[str, str]] = {
    part: (f"ssl.{part}.pem", f"ssl.{part}.location") for part in PARTS
}
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----\r?\n?", re.DOTALL)


class SecretStage(StrEnum):
    CURRENT = "current"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class Material:
    """PEM texts, which `repr` leaves out."""

    # This client's own, followed by its chain. None: it shows none.
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)  # that of the certificate
    ca: str | None = field(default=None, repr=False)  # None: the CAs of the machine are trusted
    key_password: str | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str:
        """A digest that differs for different material."""
        digest = hashlib.sha256()
        for text in (self.certificate, self.key, self.ca):
            digest.update(hashlib.sha256((text or "").encode()).digest())
        return digest.hexdigest()


# A token and the time when it ends (epoch seconds).
Token = tuple[str, float]
# librdkafka calls it, with its own configuration, when it needs a token.
TokenSource = Callable[[object], Token]


def msk_token(aws: AwsClients, region: str) -> TokenSource:
    """Tokens of MSK's IAM login, signed with the credentials of `aws`, which may themselves be renewed.

    Raises UsageError without AWS's signer library. The source raises UsageError without credentials, and
    TransientFailure when their place does not answer.
    """
    from botocore.credentials import CredentialProvider

    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider as signer
    except ImportError:
        raise UsageError(
            "kafka.awsIam needs aws-msk-iam-sasl-signer-python: install the extra `production`"
        ) from None

    provider = CredentialProvider()
    provider.load = aws.credentials

    def token(_configuration: object) -> Token:
        text, ends_ms = signer.generate_auth_token_from_credentials_provider(region, provider)
        return text, ends_ms / 1000

    return token


class KafkaSecurity:
    """Reads the material that the settings name. `secrets` is called for the first part in the secret store, `token`
    makes tokens of the login by AWS role.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        secrets: Callable[[], SecretStore],
        token: Callable[[], TokenSource] | None = None,
    ) -> None:
        self._tls, self._secrets, self._token = settings.tls, secrets, token
        given = {name: secret.get_secret_value() for name, secret in settings.options.items()}
        self._inline: dict[Part, str] = {}
        self._files: dict[Part, str] = {}
        self._names: dict[Part, str] = {}
        for part in PARTS:
            text, file, secret = self._tls.places(part)
            pem, location = _OPTIONS[part]
            if pem in given:
                self._inline[part] = given.pop(pem)
            # The CA may be a folder or `probe`, which librdkafka reads itself.
            elif location in given and (part != "ca" or Path(given[location]).is_file()):
                self._files[part] = given.pop(location)
            elif location in given:
                continue
            elif text:
                self._inline[part] = text
            elif file:
                self._files[part] = file
            elif secret:
                self._names[part] = secret
        self._password = given.get("ssl.key.password")
        self._others = given

    @property
    def shows_certificate(self) -> bool:
        return any("certificate" in places for places in (self._inline, self._files, self._names))

    @property
    def may_change(self) -> bool:
        """Whether the material can change while the settings stay."""
        return bool(self._files or self._names)

    @property
    def has_stages(self) -> bool:
        """Whether a previous version may exist."""
        return bool(self._names)

    def place(self, part: Part) -> str | None:
        """Where the part is stored, in words."""
        if part in self._files:
            return f"file {self._files[part]}"
        if part in self._names:
            return f"secret {self._names[part]}"
        return f"setting kafka.tls.{part}" if part in self._inline else None

    def material(self, stage: SecretStage = SecretStage.CURRENT) -> Material:
        """Read the material. Raises UsageError for a part that does not exist or is not PEM, and TransientFailure."""
        shown, ca = self._text("certificate", stage), self._text("ca", stage)
        if shown is None:
            return Material(ca=ca)
        certificate = pem_blocks(shown, "CERTIFICATE")
        where = self.place("certificate")
        if not certificate:
            raise UsageError(f"{where}: holds no certificate in PEM: put the client's certificate there")
        key = pem_blocks(shown, "PRIVATE KEY") or self._text("key", stage)
        if key is None:
            raise UsageError(
                f"{where}: holds no private key: add it there, or name its place under kafka.tls"
            )
        if not pem_blocks(key, "PRIVATE KEY"):
            raise UsageError(f"{self.place('key')}: holds no private key in PEM")
        return Material(certificate, key, ca, self._password)

    def ca(self) -> str | None:
        """The CA alone. Raises as `material` does."""
        return self._text("ca", SecretStage.CURRENT)

    def options(self, material: Material) -> dict[str, Any]:
        """librdkafka's settings for this material, and all others of `kafka.options`. Raises UsageError and
        TransientFailure if the AWS role has no credentials.
        """
        found: dict[str, Any] = dict(self._others)
        texts = (material.certificate, material.key, material.ca)
        found |= {_OPTIONS[part][0]: text for part, text in zip(PARTS, texts, strict=True) if text}
        if self._token is not None:
            source = self._token()
            # Now, because librdkafka would wait for a token in vain and not say why.
            source(None)
            found |= {"security.protocol": "sasl_ssl", "sasl.mechanisms": "OAUTHBEARER", "oauth_cb": source}
        elif material.certificate or material.ca:
            found.setdefault("security.protocol", "ssl")
        return found

    def _text(self, part: Part, stage: SecretStage) -> str | None:
        if part in self._inline:
            return self._inline[part]
        if part in self._files:
            path = PROJECT_ROOT / self._files[part]
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(
                    f"{path}: cannot be read ({type(error).__name__}): correct kafka.tls.{part}File"
                ) from None
        if part not in self._names:
            return None
        name = self._names[part]
        found = self._secrets().get(name, previous=stage is SecretStage.PREVIOUS)
        if found is None and stage is SecretStage.PREVIOUS:
            # Replaced less often than the others.
            found = self._secrets().get(name)
        if found is None:
            raise UsageError(
                f"secret {name} does not exist under this environment's prefix: `regworkers certs generate` "
                "writes a client's certificate; kafka.tls names the secrets"
            )
        return found


def pem_blocks(text: str, kind: str) -> str:
    """The blocks of a PEM text whose type ends in `kind`, in order, without the text between them."""
    return "".join(
        match[0].rstrip("\r\n") + "\n" for match in _BLOCK.finditer(text) if match[1].endswith(kind)
    )


log = structlog.get_logger(__name__)
_SILENT = logging.getLogger("regworkers.librdkafka")
# Requests to the brokers repeat within the time-out, because errors arrive between them.
_PIECE_SECONDS = 0.25


class Answer(Enum):
    """The result of an attempt to connect. SILENCE may be an outage, or brokers that close the connection."""

    CONNECTED = "connected"
    REFUSED = "refused"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class MaterialInUse:
    """Material in use, as librdkafka's settings. `verified`: the brokers accepted it."""

    options: Mapping[str, Any] = field(repr=False)
    fingerprint: str
    verified: bool


class Tried(NamedTuple):
    answer: Answer
    reason: str  # of a failure


# Tries to connect with librdkafka's settings. Returns the result and, in words, the reason for a failure.
Try = Callable[[Mapping[str, Any]], tuple[Answer, str]]
# Called at every check with the reason why the newest material is not in use, or None.
Watcher = Callable[[str | None], None]


class Credentials:
    """The material in use by a process. Safe to share between threads. Nothing is read before the first use."""

    def __init__(
        self,
        security: KafkaSecurity,
        try_out: Try,
        *,
        check_seconds: float,
        monotonic: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._security, self._try = security, try_out
        self.check_seconds = check_seconds
        self._monotonic = monotonic
        self._lock = scheduling.lock()
        self._accepted: MaterialInUse | None = None
        self._checked_at = 0.0
        # Why the newest material is not in use; None while it is.
        self.refused: str | None = None
        self.watcher: Watcher | None = None

    @property
    def may_change(self) -> bool:
        return self._security.may_change

    def accepted(self) -> MaterialInUse:
        """The material in use, read at the first use only. Raises UsageError and TransientFailure if there is none."""
        known = self._accepted
        return known if known is not None else self.check()

    def fresh(self) -> MaterialInUse:
        """What `accepted` gives, but checks again when the last check is `check_seconds` ago."""
        known = self._accepted
        due = self.may_change and self._monotonic() - self._checked_at >= self.check_seconds
        return self.check() if known is None or due else known

    def check(self) -> MaterialInUse:
        """Read the current material, and use it if it is new and the brokers accept it.

        Raises UsageError and TransientFailure only while nothing is in use yet.
        """
        with self._lock:
            self._checked_at = self._monotonic()
            before, refused = self._accepted, self.refused
            try:
                accepted = self._chosen(before)
            except TransientFailure as failure:
                if before is None:
                    raise
                # The store is unavailable, which says nothing about what it holds.
                log.warning("certificate check failed", error=str(failure))
                return before
            self._accepted = accepted
            if self.refused is not None and self.refused != refused:
                log.warning("new certificate rejected; keeping the current one", error=self.refused)
            elif self.refused != refused:
                log.info("newest certificate in use")
            if before is not None and accepted.fingerprint != before.fingerprint:
                log.info("new certificate in use", fingerprint=accepted.fingerprint[:12])
        if self.watcher is not None:
            self.watcher(self.refused)
        return accepted

    def _chosen(self, before: MaterialInUse | None) -> MaterialInUse:
        """The material to use from now on. Also sets `refused`."""
        try:
            material = self._security.material()
        except UsageError as error:
            kept = before or self._previous(None)
            if kept is None:
                raise
            self.refused = str(error)
            return kept
        newest = self._candidate(material)
        if not self._security.shows_certificate or not self._security.may_change:
            return newest
        if before is not None and before.verified and newest.fingerprint == before.fingerprint:
            self.refused = None
            return before
        answer, why = self._try(newest.options)
        if answer is Answer.CONNECTED:
            self.refused = None
            return MaterialInUse(newest.options, newest.fingerprint, verified=True)
        kept = self._working(before) if before is not None and before.verified else None
        kept = kept or self._previous(newest.fingerprint)
        if kept is not None:
            # Other material is accepted at the same time, so this is not an outage.
            self.refused = why
            return kept
        if answer is Answer.REFUSED:
            self.refused = why
        # In an outage the current material is as good as the former; the next check after it decides.
        return before or newest

    def _working(self, accepted: MaterialInUse) -> MaterialInUse | None:
        return accepted if self._try(accepted.options)[0] is Answer.CONNECTED else None

    def _previous(self, newest: str | None) -> MaterialInUse | None:
        """The previous version, if there is one and the brokers accept it."""
        if not self._security.has_stages:
            return None
        try:
            candidate = self._candidate(self._security.material(SecretStage.PREVIOUS))
        except UsageError:
            return None
        if candidate.fingerprint == newest or self._working(candidate) is None:
            return None
        return MaterialInUse(candidate.options, candidate.fingerprint, verified=True)

    def _candidate(self, material: Material) -> MaterialInUse:
        return MaterialInUse(self._security.options(material), material.fingerprint, verified=False)


def try_out(bootstrap: str, *, timeout_seconds: float) -> Try:
    """Returns a `Try` that asks the brokers for their metadata."""

    def attempt(options: Mapping[str, Any]) -> Tried:
        errors: list[int] = []
        fixed: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": lambda error: errors.append(error.code()),
        }
        try:
            client = AdminClient({**options, **fixed}, logger=_SILENT)
        except KafkaException:
            why = "the key does not belong to the certificate, or one of them is damaged"
            return Tried(Answer.REFUSED, why)
        give_up = scheduling.monotonic() + timeout_seconds
        while (left := give_up - scheduling.monotonic()) > 0:
            try:
                client.list_topics(timeout=min(_PIECE_SECONDS, left))
            except KafkaException:
                # Serves the errors of the connections.
                client.poll(0)
                if KafkaError._SSL in errors or KafkaError._AUTHENTICATION in errors:
                    why = "no TLS connection: brokers and this client do not trust each other"
                    return Tried(Answer.REFUSED, why)
                if KafkaError._ALL_BROKERS_DOWN in errors:
                    break
            else:
                return Tried(Answer.CONNECTED, "")
        why = "the brokers close the connection: the certificate expired, or its issuer is unknown"
        return Tried(Answer.SILENCE, why)

    return attempt
