"""An upload that kills itself after its first batch: arguments: prefix, id, csv, ttl."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from regworkers_core.domain.claim import InviteType
from regworkers_core.eligibility.invites.lists import Hooks, local_file
from regworkers_core.eligibility.invites.stored import upload_invites
from regworkers_core.runtime import Runtime
from tests.support.runtimes import test_settings


def main(prefix: str, campaign_id: str, file: str, ttl: str) -> None:
    upload_invites(
        Runtime(test_settings(prefix)),
        campaign_id,
        InviteType.EMAIL,
        local_file(Path(file)),
        name=file,
        ttl=int(ttl),
        rejects=Path(file + ".rejects"),
        run_id="victim",
        hooks=Hooks(on_step=lambda _name: os.kill(os.getpid(), signal.SIGKILL)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
