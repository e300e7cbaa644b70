"""The checks, by what they watch. Alerts, doctor and reviews print what they find."""

from regworkers_core.operations.alerts.conditions import availability, blindness, campaigns, drains, work
from regworkers_core.operations.alerts.conditions.condition import Check

TABLE: tuple[Check, ...] = tuple(
    each
    for module in (availability, blindness, drains, work, campaigns)
    for each in vars(module).values()
    if isinstance(each, Check)
)
