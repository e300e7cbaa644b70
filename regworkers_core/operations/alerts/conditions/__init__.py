"""The checks, by what they watch. Alerts, doctor and reviews print what they find."""

from regworkers_core.operations.alerts.conditions import (
    availability,
    blindness,
    campaigns,
    drains,
    objectives,
    work,
)
from regworkers_core.operations.alerts.conditions.condition import Check

# Also those that only reviews ask.
CHECKS = [
    each
    for module in (availability, blindness, drains, work, campaigns, objectives)
    for each in vars(module).values()
    if isinstance(each, Check)
]
# The conditions of alerts.
TABLE = tuple(each for each in CHECKS if each.key)
