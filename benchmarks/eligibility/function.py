"""checkEligibility as Lambda runs it, beside a function that makes the same calls and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.eligibility.world import OPEN, World, world
from benchmarks.figures import ratio, spread
from regworkers_local.state import StackState
from tests.support.environment import environment_of
from tests.support.lambda_api import HANDLER, function

BARE = "benchmarks.eligibility.bare_function.handler"
_WARM_CALLS = 300

Say = Callable[[str], None]


def measure(state: StackState, starts: int, say: Say) -> dict[str, Any]:
    """Milliseconds: of a start, from the process to its request for an event and the first answer (medians), and of
    the warm calls of all starts. Both functions start in turns.
    """
    with world(state) as made, TemporaryDirectory() as folder:
        contestants = {
            "checkEligibility": (HANDLER, environment_of(made.runtime), [made.asked(OPEN, "slug", 0)]),
            "bare": (BARE, _bare_environment(made), _bare_event(made)),
        }
        found: dict[str, dict[str, list[float]]] = {
            name: {"prepared": [], "first": [], "warm": []} for name in contestants
        }
        for number in range(starts):
            for name, (handler, environment, event) in contestants.items():
                with function(environment, stderr=Path(folder) / "log", handler=handler) as one:
                    found[name]["prepared"].append(one.prepared_seconds * 1e3)
                    call = partial(one.invoke, event)
                    found[name]["first"].append(_milliseconds(call))
                    found[name]["warm"] += [_milliseconds(call) for _ in range(_WARM_CALLS)]
            say(
                f"function, start {number + 1}: first answer after {found['checkEligibility']['first'][-1]:.0f} ms"
            )
    return {
        "starts": starts,
        "warmCalls": _WARM_CALLS,
        **{name: _figures(each) for name, each in found.items()},
        "ofBare": {
            part: ratio(found["checkEligibility"][part], found["bare"][part])
            for part in ("prepared", "first")
        },
    }


def _milliseconds(call: Callable[[], object]) -> float:
    before = time.perf_counter()
    call()
    return (time.perf_counter() - before) * 1e3


def _figures(found: Mapping[str, list[float]]) -> dict[str, Any]:
    hundredths = quantiles(found["warm"], n=100)
    return {
        "prepared": spread(found["prepared"]),
        "first": spread(found["first"]),
        "warmP50": round(hundredths[49], 1),
        "warmP99": round(hundredths[98], 1),
    }


def _bare_environment(made: World) -> dict[str, str]:
    settings = made.runtime.settings
    assert settings.mongo.uri is not None and settings.redis.url is not None
    return {
        "BARE_AWS": str(settings.aws.endpoint_url),
        "BARE_REDIS": settings.redis.url.get_secret_value(),
        "BARE_MONGO": settings.mongo.uri.get_secret_value(),
        "BARE_DATABASE": made.runtime.database.name,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def _bare_event(made: World) -> dict[str, Any]:
    campaign = made.campaigns[OPEN]
    keys = [{"PK": {"S": pk}, "SK": {"S": sk}} for pk, sk in made.keys[OPEN][0]]
    return {
        "cached": f"campaign:{campaign.campaign_id}",
        "items": {made.runtime.names.demand_table: {"Keys": keys, "ConsistentRead": True}},
        "entries": {"campaignId": campaign.campaign_id, "_identity.email": "fan0@example.com"},
    }
