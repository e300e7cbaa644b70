"""What does not answer, and what cannot be read for it."""

from __future__ import annotations

from regworkers_core.operations.alerts.conditions.condition import SEVERAL, Finding, Given, Judgement

# Without them nothing is replicated or drawn. The others become critical by what they bring about.
ESSENTIAL = ("dynamodb", "streams", "sqs", "mongo", "s3")
_AWS = ("dynamodb", "streams", "sqs", "s3", "cloudwatch", "secretsmanager")
_PAGES = {
    "kafka": "kafka.md",
    "redis": "campaign-configuration.md",
    "service-campaign": "campaign-configuration.md",
}


def away(_: Given) -> Judgement:
    """Never, since MongoDB has answered by then: `evaluate` notifies of it while MongoDB keeps no incidents."""
    return Judgement()


def blind(given: Given) -> Judgement:
    """What the other conditions could not read for too long, as `blindness` has found it."""
    return Judgement(given.blind)


def down(given: Given) -> Judgement:
    """One finding for each dependency that does not answer; those of one provider belong together."""
    found = [
        Finding(
            name,
            given.severity.dependency_down if name in ESSENTIAL else given.severity.dependency_down_others,
            f"{name} does not answer: {trouble}",
            {"dependency": name, "trouble": trouble},
            group=_provider(name),
            page=_PAGES.get(name, ""),
        )
        for name, trouble in given.snapshot.dependencies.items()
        if trouble is not None
    ]
    return Judgement(tuple(found))


def _provider(name: str) -> str:
    if name in _AWS:
        return "aws"
    return "services" if name.startswith("service-") else SEVERAL
