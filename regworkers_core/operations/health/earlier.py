"""What the doctor asks for beside the snapshot: what earlier looks of the alerts have left behind."""

from __future__ import annotations

from typing import Any

from regworkers_core.domain.snapshot import Snapshot, Unread
from regworkers_core.operations.alerts.conditions.condition import Given
from regworkers_core.operations.alerts.evaluate import SENSOR
from regworkers_core.operations.alerts.outage import last_look
from regworkers_core.operations.health.at_once import at_once
from regworkers_core.operations.health.examination import Examination, examine
from regworkers_core.runtime import Runtime

# On top of the snapshot, and only where MongoDB has just answered.
_SECONDS = 1.0


def examined(runtime: Runtime, snapshot: Snapshot) -> Examination:
    """Reads only, for a second at most; without MongoDB nobody knows since when anything is."""
    found: dict[str, Any] = {}
    if snapshot.dependencies.get("mongo") is None:
        looks = runtime.alert_looks
        readers = {
            "incidents": runtime.incidents.all_open,
            "seen": lambda: last_look(runtime, looks.looks().get(SENSOR), runtime.clock()),
            "beats": looks.beats,
            "suspected": looks.suspected,
        }
        read = at_once(readers, _SECONDS)
        found = {name: each for name, each in read.items() if not isinstance(each, Unread)}
    still = _still(snapshot, found.get("beats", {}), runtime.clock())
    given = Given(snapshot, runtime.settings, found.get("seen"), still)
    return examine(given, found.get("incidents", ()), found.get("suspected"))


def _still(snapshot: Snapshot, beats: dict[str, tuple[str, float]], now: float) -> dict[str, float]:
    """For how long (s) the lease of each campaign is known to stand still."""
    if isinstance(snapshot.campaigns, Unread):
        return {}
    return {
        each.campaign_id: now - beats[each.campaign_id][1]
        for each in snapshot.campaigns
        if each.lease_owner and beats.get(each.campaign_id, ("",))[0] == each.lease_beat
    }
