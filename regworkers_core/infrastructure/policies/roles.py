"""The roles of a deployment: which policies hang on which, by the names of Kubernetes' service accounts."""

from __future__ import annotations

from regworkers_core.infrastructure.policies.statement import Place

# More than AWS attaches to a role by default (10): its quota goes up to 20 on request.
ROLES: dict[str, tuple[str, ...]] = {
    "sensors": ("compute-logs", "kafka-certificate", "sensors"),
    "web": ("compute-logs", "web"),
    "run": (
        "archive",
        "campaigns",
        "compute-logs",
        "dead-letters",
        "discovery",
        "doctor",
        "draw",
        "enqueue",
        "erasure",
        "funnel",
        "housekeeping",
        "invites",
        "kafka-certificate",
        "notifications",
        "publish",
        "reconcile",
        "reviews",
        "save",
        "selections",
        "services",
    ),
}


def resource_name(place: Place, short: str) -> str:
    """Of a role or a policy on AWS."""
    return f"{place.names.prefix}regworkers-{short}"
