"""Secrets Manager: reading secrets, writing them once, and replacing them."""

from __future__ import annotations

from typing import Any

from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency

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

    def create(
        self,
        name: str,
        value: str,
        *,
        description: str = "Seed of a draw: revealed after the commit, changed never.",
    ) -> str:
        """Store `value` unless the secret exists; returns the stored value."""
        if self.make(name, value, description=description):
            return value
        # Also when our own write went through and only its answer was lost.
        stored = self.get(name)
        if stored is None:
            raise UsageError(f"secret {self._prefix}{name} can be neither created nor read")
        return stored
