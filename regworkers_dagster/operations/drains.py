"""Drains as operators without a terminal control them: pause one, and let it work again."""

import dagster as dg
from pydantic import Field

from regworkers_core.flows import DRAINS
from regworkers_core.operations.drain_control import PAUSE
from regworkers_dagster.by_hand import REASON, Launch, LaunchOutcome, launchable, require

_DRAIN = "Which drain: " + ", ".join(spec.name for spec in DRAINS) + "."


class PauseConfig(dg.Config):
    drain: str = Field(default="", description=_DRAIN)
    reason: str = Field(default="", description=REASON + "Shown wherever the drain is.")
    lasts: str = Field(default=PAUSE, description="For how long: 30m or 2h, 1d at most.")


class ResumeConfig(dg.Config):
    """Which drain may work again."""

    drain: str = Field(default="", description=_DRAIN)


@launchable(
    "pause_drain",
    description="Keeps a drain from its work until `resume_drain`: no sensor starts one, and one at work stops within "
    "seconds. What it works on waits. Once its time is over, an alert asks for it.",
)
def pause_drain(launch: Launch, config: PauseConfig) -> LaunchOutcome:
    """A drain that is paused already keeps its first pause."""
    from regworkers_core.operations.drain_control import pause_drain as pause

    paused = pause(
        launch.runtime,
        require("drain", config.drain),
        require("reason", config.reason),
        by=launch.who,
        lasts=require("lasts", config.lasts),
    )
    launch.tell(f"the drain {paused.drain} is {paused.text}")
    return LaunchOutcome("", {"drain": paused.drain, **paused.as_dict()})


@launchable(
    "resume_drain",
    description="Ends the pause of a drain and resets its fuse; its sensor starts it at the next tick with work.",
)
def resume_drain(launch: Launch, config: ResumeConfig) -> LaunchOutcome:
    """Changes nothing if the drain is not paused and its fuse is intact."""
    from regworkers_core.operations.drain_control import resume_drain as resume

    name = require("drain", config.drain)
    fuse, paused = resume(launch.runtime, name)
    launch.result.update(removed=int(fuse is not None), wasPaused=int(paused is not None))
    facts = {
        "drain": name,
        "was": paused.text if paused else "not paused",
        "fuse": f"had blown at {fuse.tripped_at} with {fuse.reason}" if fuse else "was intact",
    }
    return LaunchOutcome("", facts)


JOBS = (pause_drain, resume_drain)
