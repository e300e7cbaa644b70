"""The sensor that evaluates all conditions and notifies the channels."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time

import dagster as dg
import orjson

from regworkers_core.domain.timestamps import iso
from regworkers_core.infrastructure.dashboards.alarms import HEARTBEAT
from regworkers_core.operations.alerts.conditions.availability import ALERTS_SENSOR
from regworkers_core.operations.alerts.evaluate import SENSOR, Evaluation, evaluate
from regworkers_core.operations.alerts.outage import Outage
from regworkers_core.operations.health.snapshot import read_system
from regworkers_dagster.drains.sensing import Answer, safely
from regworkers_dagster.operations.scheduler import scheduler_of
from regworkers_dagster.resources import Workers

# As `alerts.lookSeconds` by default: an evaluation costs about a second of CPU, and every other sensor waits for it.
_INTERVAL_SECONDS = 60


def build_sensors(*, on: bool) -> list[dg.SensorDefinition]:
    """`on` makes it run without being switched on in the UI."""
    return [
        dg.sensor(
            name=ALERTS_SENSOR,
            minimum_interval_seconds=_INTERVAL_SECONDS,
            default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
            description="Evaluates the whole system every minute, opens and closes incidents, and notifies PagerDuty "
            "and Slack. docs/alerts.md lists the conditions; `regworkers alerts` shows what is open.",
        )(alerts_tick)
    ]


def alerts_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Reads a snapshot (at most about 4 s), evaluates it, and notifies the channels (at most about 4 s)."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        snapshot = read_system(
            runtime, lambda: scheduler_of(context.instance, context.repository_def, time.time())
        )
        found = evaluate(runtime, snapshot, by=SENSOR, outage=outage_of(context.cursor))
        if runtime.settings.observability.cloudwatch_enabled and found.outage is None:
            runtime.metrics.gauges({}, {HEARTBEAT: (1.0, "Count")})
        context.update_cursor(orjson.dumps(found.outage.as_state()).decode() if found.outage else "")
        return dg.SkipReason(in_words(found))

    return safely(context, answer)


def outage_of(cursor: str | None) -> Outage | None:
    """The outage of MongoDB that the previous evaluation knew. A cursor is a hint: an invalid one is ignored."""
    try:
        state = orjson.loads(cursor or "")
    except orjson.JSONDecodeError:
        return None
    return Outage.parse(state) if isinstance(state, dict) else None


def in_words(found: Evaluation) -> str:
    """The evaluation as text, for the sensor's page in the UI."""
    if found.outage:
        channels = ", ".join(sorted(found.outage.notified)) or "no channel yet"
        since = iso(found.outage.since)
        return f"MongoDB does not answer since {since}: no incident is opened or closed; notified: {channels}"
    lines = [f"{len(found.open)} incidents are open"]
    lines += [f"{each.alert.severity.value} {each.alert.key}: {each.alert.summary}" for each in found.open]
    by_reason: dict[str, list[str]] = {}
    for name, why in found.unknown.items():
        by_reason.setdefault(why, []).append(name)
    lines += [f"could not be read: {', '.join(names)} ({why})" for why, names in by_reason.items()]
    return "\n".join(lines)
