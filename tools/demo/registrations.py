"""In the middle of the demo: each registration of one campaign is in a public tree, and its fan gets a confirmation."""

from __future__ import annotations

import time
from pathlib import Path

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.registrations.tree import RegistrationFiles
from regworkers_local.load import CAMPAIGNS
from regworkers_local.platform import Platform
from tools.demo.life import Console

CAMPAIGN = CAMPAIGNS[0]
_PAUSE_SECONDS = 0.5


def confirm(
    runtime: Runtime, folder: Path, stop: StopSignal, console: Console, give_up_seconds: float
) -> bool:
    """Wait until the tree has every entry, and let the platform write a confirmation to each fan into `folder`.

    True if each has one. Raises UsageError if it does not end in time.
    """
    live, began = runtime.replica.count_campaign(CAMPAIGN.campaign_id).live, time.monotonic()
    files, platform, confirmed = (
        RegistrationFiles(runtime.objects, CAMPAIGN.campaign_id),
        Platform(runtime, folder),
        0,
    )
    console.print(
        f"{CAMPAIGN.campaign_id} logs its registrations; waiting until the tree has {live:,} entries"
    )
    while not stop.wait(_PAUSE_SECONDS):
        try:
            state = files.state()
            confirmed += platform.confirm()
        except Failure:
            # A busy server may miss its time-out; the next call decides.
            continue
        registered = state.size - state.notices - state.withdrawn - state.erased
        if registered == live and len(list(folder.iterdir())) >= live:
            logged = state.sizes[-1] if state.sizes else 0
            console.print(
                f"{registered:,} registrations are in the public tree, with {state.notices:,} notices; the log has its"
                f" first {logged:,} entries; the platform wrote {confirmed:,} confirmations"
            )
            return True
        if time.monotonic() - began > give_up_seconds:
            raise UsageError(
                f"{registered:,} of {live:,} registrations are in the tree: see the runs of log_registrations"
            )
    raise UsageError("stopped")
