"""The drains that a play runs."""

from __future__ import annotations

from typing import Any, NamedTuple

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.drains.runner import DrainSpec
from regworkers_core.replication.drains import ENQUEUE, SAVE

# What is imported late would be imported within a play, with its clocks and locks.
from regworkers_core.selection.assign import assigner  # noqa: F401
from regworkers_core.selection.drains import NOTIFICATIONS, REDEEM, REGISTER, SELECTIONS
from regworkers_core.selection.notify import counts  # noqa: F401
from tests.simulation.plan import Plan


class Played(NamedTuple):
    """`draw`: only in plays with a draw; `registers`: only where registrations are logged; `passes`: only where seats
    pass on.
    """

    spec: DrainSpec[Any]
    draw: bool = False
    registers: bool = False
    passes: bool = False

    def is_in(self, plan: Plan) -> bool:
        registers = plan.registering or plan.drawing or not self.registers
        return (plan.drawing or not self.draw) and registers and (plan.passing or not self.passes)


SPECS = {
    "enqueue": Played(ENQUEUE),
    "save": Played(SAVE),
    "publish": Played(PUBLISH),
    "selections": Played(SELECTIONS, draw=True),
    "notifications": Played(NOTIFICATIONS, draw=True),
    "register": Played(REGISTER, registers=True),
    "redeem": Played(REDEEM, passes=True),
}
