"""Secrets Manager: versions with stages, deletion with a recovery window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Refused, operation

MAX_BYTES = 65_536


@dataclass(slots=True)
class _Secret:
    """Values from the first to the current one. `deleted_at` is when its recovery window began."""

    name: str
    arn: str
    description: str
    created_at: float
    values: list[tuple[str, str]] = field(default_factory=list)
    deleted_at: float | None = None


class Secrets:
    """An account's secrets in a region."""

    def __init__(self, region: str, account: str) -> None:
        self._place = f"arn:aws:secretsmanager:{region}:{account}:secret:"
        self.secrets: dict[str, _Secret] = {}
        self._number = 0

    def _secret(self, id_: str) -> _Secret:
        name = id_.removeprefix(self._place).rpartition("-")[0] if id_.startswith(self._place) else id_
        found = self.secrets.get(name)
        if found is None:
            raise Refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        if found.deleted_at is not None:
            raise Refused(
                "InvalidRequestException",
                "You can't perform this operation on the secret because it was marked for deletion.",
            )
        return found

    def _version(self) -> str:
        self._number += 1
        return f"00000000-0000-4000-8000-{self._number:012x}"

    def _add(self, secret: _Secret, value: str) -> dict[str, Any]:
        if not value or len(value.encode()) > MAX_BYTES:
            raise Refused("ValidationException", "SecretString must have between 1 and 65536 bytes")
        version = self._version()
        secret.values.append((version, value))
        return {
            "ARN": secret.arn,
            "Name": secret.name,
            "VersionId": version,
        }

    @operation
    def create_secret(
        self, gate: Gate, *, Name: str, SecretString: str, Description: str = ""
    ) -> dict[str, Any]:
        found = self.secrets.get(Name)
        if found is not None and found.deleted_at is not None:
            raise Refused(
                "InvalidRequestException",
                "You can't create this secret because a secret with this name is already scheduled for deletion.",
            )
        if found is not None:
            raise Refused("ResourceExistsException", f"The secret {Name} already exists.")
        secret = _Secret(Name, f"{self._place}{Name}-AbCdEf", Description, gate.now())
        answer = self._add(secret, SecretString)
        self.secrets[Name] = secret
        return answer

    @operation
    def put_secret_value(self, gate: Gate, *, SecretId: str, SecretString: str) -> dict[str, Any]:
        return self._add(self._secret(SecretId), SecretString)

    @operation
    def get_secret_value(
        self, gate: Gate, *, SecretId: str, VersionStage: str = "AWSCURRENT"
    ) -> dict[str, Any]:
        secret = self._secret(SecretId)
        at = {"AWSCURRENT": 1, "AWSPREVIOUS": 2}.get(VersionStage, len(secret.values) + 1)
        if at > len(secret.values):
            message = (
                f"Secrets Manager can't find the specified secret value for staging label: {VersionStage}"
            )
            raise Refused("ResourceNotFoundException", message)
        version, value = secret.values[-at]
        return {
            "ARN": secret.arn,
            "Name": secret.name,
            "VersionId": version,
            "SecretString": value,
            "VersionStages": [VersionStage],
            "CreatedDate": datetime.fromtimestamp(secret.created_at, UTC),
        }

    @operation
    def list_secrets(
        self, gate: Gate, *, MaxResults: int = 100, Filters: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """The first page. A filter by name takes beginnings."""
        starts = tuple(start for each in Filters for start in each["Values"]) or ("",)
        kept = [each for name, each in sorted(self.secrets.items()) if name.startswith(starts)]
        shown = [each for each in kept if each.deleted_at is None][:MaxResults]
        rows = [{"Name": each.name, "ARN": each.arn, "Description": each.description} for each in shown]
        return {"SecretList": rows}

    @operation
    def delete_secret(
        self, gate: Gate, *, SecretId: str, ForceDeleteWithoutRecovery: bool = False
    ) -> dict[str, Any]:
        if ForceDeleteWithoutRecovery:
            self.secrets.pop(SecretId, None)
        else:
            self._secret(SecretId).deleted_at = gate.now()
        return {"Name": SecretId}
