"""Secrets Manager: reading secrets, writing them once and replacing them; and the keys of those who send events, which
are secrets: read once, read again now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.domain.events import (
    ProducerKey,
    ProducerRole,
    Signature,
    key_description,
    secret_name,
)
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import Dependency

_PAGE = 100
_EXISTS = frozenset({"ResourceExistsException", "InvalidRequestException"})


class SecretStore:
    """Secrets under the environment's `prefix`. No error and no log line has a value.

    Every method raises TransientFailure when the service cannot answer.
    """

    def __init__(self, client: Any, dependency: Dependency, prefix: str = "") -> None:
        self._client, self._dependency, self._prefix = client, dependency, prefix

    def get(self, name: str, *, previous: bool = False) -> str | None:
        """The value, or None if there is no such secret. Raises UsageError for one that is being deleted or has no
        text. `previous`: the version before, or None if it was never replaced.
        """
        secret_id = self._prefix + name
        stage = {"VersionStage": "AWSPREVIOUS"} if previous else {}
        try:
            answer = self._dependency.call(self._client.get_secret_value, SecretId=secret_id, **stage)
        except AwsRefusal as error:
            code = error.code
            if code == "ResourceNotFoundException":
                return None
            if code == "InvalidRequestException":
                raise UsageError(
                    f"secret {secret_id} is marked for deletion: restore it with "
                    f"`aws secretsmanager restore-secret --secret-id {secret_id}`"
                ) from None
            raise
        value: str | None = answer.get("SecretString")
        if value is None:
            raise UsageError(f"secret {secret_id} holds binary data: store it as text")
        return value

    def names(self, begin: str) -> list[str]:
        """The full names of all secrets whose name begins so and that are not being deleted. Reads none."""
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            answer = self._dependency.call(
                self._client.list_secrets,
                MaxResults=_PAGE,
                Filters=[{"Key": "name", "Values": [self._prefix + begin]}],
                **more,
            )
            found += [each["Name"] for each in answer["SecretList"]]
            if not (token := answer.get("NextToken")):
                return found
            more = {"NextToken": token}

    def put(self, name: str, value: str, *, description: str) -> None:
        """Make `value` the current version; the former one stays readable as the previous."""
        secret_id = self._prefix + name
        try:
            self._dependency.call(self._client.put_secret_value, SecretId=secret_id, SecretString=value)
        except AwsRefusal as error:
            if error.code != "ResourceNotFoundException":
                raise
            self._dependency.call(
                self._client.create_secret, Name=secret_id, SecretString=value, Description=description
            )

    def make(self, name: str, value: str, *, description: str) -> bool:
        """Store `value` unless the secret exists; returns whether it did. Needs no right to read it."""
        try:
            self._dependency.call(
                self._client.create_secret,
                Name=self._prefix + name,
                SecretString=value,
                Description=description,
            )
        except AwsRefusal as error:
            # Also a secret that is being deleted: `get` says what to do.
            if error.code not in _EXISTS:
                raise
            return False
        return True

    def create(self, name: str, value: str, *, description: str) -> str:
        """Store `value` unless the secret exists; returns the stored value."""
        if self.make(name, value, description=description):
            return value
        # Also when our own write went through and only its answer was lost.
        stored = self.get(name)
        if stored is None:
            raise UsageError(f"secret {self._prefix}{name} can be neither created nor read")
        return stored


log = structlog.get_logger(__name__)
# A key that was replaced is used, or accepted without end, for so long at most.
_REFRESH_SECONDS = 300.0
# How much the clocks of this host and of the queue may differ.
_CLOCK_SECONDS = 2.0


class ProducerKeys:
    """The keys that this process may read. Safe to share between threads.

    The methods raise TransientFailure if a key was never read and the secret store does not answer, UsageError for a
    malformed key and for one that the process may not read. While the store does not answer, keys that are known stay
    in use.
    """

    def __init__(
        self,
        secrets: Callable[[], SecretStore],
        *,
        clock: Callable[[], float] = scheduling.now,
        monotonic: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._secrets, self._clock, self._monotonic = secrets, clock, monotonic
        self._lock = scheduling.lock()
        # The current key, then the one before it; and when they are read again.
        self._known: dict[ProducerRole, tuple[list[ProducerKey], float]] = {}
        # When (epoch seconds) the store was last asked for the keys of a role.
        self._read_at: dict[ProducerRole, float] = {}

    def sign(self, role: ProducerRole, body: bytes) -> str:
        """The attribute `producer`. Raises UsageError if the role has no key yet."""
        keys = self._keys(role)
        if not keys:
            raise UsageError(f"secret {secret_name(role)} does not exist: run `regworkers provision`")
        return keys[0].sign(body)

    def accepted(self, signature: Signature, sent_at: float | None = None) -> ProducerKey | None:
        """The key that it names, if that is accepted now. An id that is not known is looked for in the store, unless
        that was read since the message was sent (epoch seconds, None: unknown): made-up ids do not slow others down.
        """
        role = signature.role
        found = self._find(signature, self._keys(role))
        if found or (sent_at is not None and self._read_at.get(role, 0.0) > sent_at + _CLOCK_SECONDS):
            return found
        return self._find(signature, self._keys(role, fresh=True))

    def current(self, role: ProducerRole) -> list[ProducerKey]:
        """The role's accepted keys as they are stored now, the one that signs first."""
        return [key for key in self._keys(role, fresh=True) if self._is_accepted(key)]

    def make(self, role: ProducerRole) -> bool:
        """Make the role's key unless there is one; returns whether it did. Reads none."""
        key = ProducerKey.generate(role, self._clock())
        return self._secrets().make(secret_name(role), key.text, description=key_description(role))

    def change(self, role: ProducerRole, *, leaked: bool = False) -> ProducerKey:
        """Replace the role's key. The former one is accepted for 29 days; one that has `leaked` no longer, and nothing
        that it has signed.

        Raises UsageError for a role without key, and while the former key is accepted unless the key has leaked.
        """
        keys = self._keys(role, fresh=True)
        if not keys:
            raise UsageError(f"secret {secret_name(role)} does not exist: run `regworkers provision`")
        if not leaked and len(keys) > 1 and self._clock() < keys[0].former_until:
            raise UsageError(
                f"the key of {role} was changed at {keys[0].since}: what the former one signed may wait until "
                f"{iso(keys[0].former_until)}, change it again after that, or with --leaked"
            )
        # The store keeps of a secret the current version and the one before it.
        for _ in range(2 if leaked else 1):
            new = ProducerKey.generate(role, self._clock())
            self._secrets().put(secret_name(role), new.text, description=key_description(role))
        return self._keys(role, fresh=True)[0]

    def _find(self, signature: Signature, keys: list[ProducerKey]) -> ProducerKey | None:
        return next((key for key in keys if key.id == signature.key_id and self._is_accepted(key)), None)

    def _is_accepted(self, key: ProducerKey) -> bool:
        newest = self._known[key.role][0][0]
        return key == newest or self._clock() < newest.former_until

    def _keys(self, role: ProducerRole, *, fresh: bool = False) -> list[ProducerKey]:
        """The role's keys, the newest first; none if the role has none."""
        with self._lock:
            known = self._known.get(role)
            now = self._monotonic()
            if known is not None and not fresh and now < known[1]:
                return known[0]
            try:
                keys = self._read(role)
            except TransientFailure as failure:
                if known is None or fresh:
                    raise
                log.warning(
                    "the key of a producer not read again: the known one stays in use",
                    role=role.value,
                    dependency=failure.dependency,
                    error=failure.error,
                )
                keys = known[0]
            if keys:
                self._known[role] = keys, now + _REFRESH_SECONDS
            return keys

    def _read(self, role: ProducerRole) -> list[ProducerKey]:
        secrets, name, now = self._secrets(), secret_name(role), self._clock()
        current = secrets.get(name)
        texts = [current, secrets.get(name, previous=True)] if current is not None else []
        keys = [ProducerKey.parse(role, text) for text in texts if text is not None]
        self._read_at[role] = now
        return keys
