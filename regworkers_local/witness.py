"""A witness of this machine, which cosigns the logs of the embedded stack, so that receipts hold by its trust file. For
trying out only: who runs the log runs its witness, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import boto3

from fairdraw.log.note import SignerKey, VerifierKey
from fairdraw.log.witness import Refused, Server, Witness
from regworkers_core.adapters.files import private_folder
from regworkers_core.selection.public.public_log import SECRET
from regworkers_core.settings.documents import TRUST_FILE, VKEY_FILE
from regworkers_local.beacon import write_trust
from regworkers_local.servers import HOST

# Each receipt and each view of a log shows the name.
NAME = "witness-of-this-machine/for-trying-out-only"
_STATE = "state"
# A log that it does not know, or a key of one.
_UNKNOWN = (403, 404)


class OwnWitness(Witness):
    """The witness of a stack. Its operator need not hand the key of a log over: it looks where the stack keeps it."""

    aws, trust = "", Path()

    def add_checkpoint(self, body: bytes) -> str:
        """Check and cosign as its parent does, also for a log that is new. Raises Refused."""
        try:
            return super().add_checkpoint(body)
        except Refused as refused:
            if refused.status not in _UNKNOWN:
                raise
        self.look()
        return super().add_checkpoint(body)

    def look(self) -> None:
        """Know each log whose key the stack has, and name them and the witness in the trust file."""
        with self._one_at_a_time:
            keys = [*_log_keys(self.aws)]
            for key in keys:
                self.know(key)
            if keys:
                write_trust(self.trust, log=[*map(str, keys)], need=1, witnesses=[str(self.key)])


def _log_keys(aws: str) -> Iterator[VerifierKey]:
    """The public keys of the logs of a stack, one for each prefix of its resources, whose secrets are at `aws`."""
    given = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    store = boto3.client("secretsmanager", endpoint_url=aws, **given)
    for page in store.get_paginator("list_secrets").paginate():
        for each in page["SecretList"]:
            if each["Name"].endswith(SECRET):
                yield SignerKey.parse(
                    store.get_secret_value(SecretId=each["Name"])["SecretString"]
                ).verifier()


def main(folder: Path, port: int, aws: str) -> None:
    """Serve the witness of this folder, beside which the trust file is."""
    private_folder(folder)
    own = OwnWitness.opened(folder / _STATE, NAME, [])
    own.aws, own.trust = aws, folder.with_name(TRUST_FILE)
    (folder / VKEY_FILE).write_text(str(own.key))
    own.look()
    Server((HOST, port), own).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
