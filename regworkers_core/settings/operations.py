"""Operations settings."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from regworkers_core.domain.snapshot import Severity
from regworkers_core.settings.connections import Section


class DeadLettersSettings(Section):
    """Looking at dead letters, sending them again, dropping them."""

    # Browsing a queue ends when no message came for this long.
    look_wait_seconds: float = Field(1.0, ge=0, le=5)
    # Browsing hides messages from others for this long, longer on deep queues, also after it was killed.
    hide_seconds: int = Field(60, ge=1, le=43_200)
    lease_seconds: float = Field(10.0, gt=0)
    redrive_items_per_second: float = Field(100.0, gt=0)
    # A redrive waits this long for the next outcome of what it sent.
    outcome_seconds: float = Field(120.0, gt=0)
    # What is dropped is kept so long on S3, under `dead-letters/`.
    keep_copies_days: int = Field(30, ge=1)


class QueueDepths(Section):
    """How many messages may wait on each queue before it is worth an alert. One holds up to 100 items."""

    replication: int = Field(20_000, ge=0)  # changed entries
    selection: int = Field(2_000, ge=0)  # winners to get their codes
    # What is owed to fans waits in the outbox; here it waits for the platform's mailer.
    notification: int = Field(20_000, ge=0)
    analytics: int = Field(50_000, ge=0)  # events for Kafka
    # A queue without a limit of its own has this one.
    others: int = Field(20_000, ge=0)

    def of(self, queue: str) -> int:
        """The limit of a queue, by its name without the environment's prefix."""
        own: int = getattr(self, queue.removesuffix("-queue"), self.others)
        return own


class AlertSeverities(Section):
    """How urgent each condition is, `critical` (PagerDuty and Slack) or `warning` (Slack). A condition of two kinds or
    two steps has a second field that begins with the name of its first. Alarms on CloudWatch have the same levels.
    """

    mongo_away: Severity = Severity.CRITICAL
    # DynamoDB, its streams, SQS, MongoDB, S3; and those without which the work only waits.
    dependency_down: Severity = Severity.CRITICAL
    dependency_down_others: Severity = Severity.WARNING
    # Daemons, and single sensors or schedules.
    scheduler: Severity = Severity.CRITICAL
    scheduler_ticks: Severity = Severity.WARNING
    watcher: Severity = Severity.CRITICAL  # the alerts themselves were not evaluated for long
    drain_fuse: Severity = Severity.CRITICAL
    drain_paused: Severity = Severity.CRITICAL
    # What waits and is not worked off; and events that wait for Kafka.
    drain_stalled: Severity = Severity.CRITICAL
    drain_stalled_analytics: Severity = Severity.WARNING
    error_rate: Severity = Severity.CRITICAL
    batch_time: Severity = Severity.WARNING
    # Above `streamLagSeconds`, and above `streamLagCriticalSeconds`.
    stream_lag: Severity = Severity.CRITICAL
    stream_lag_critical: Severity = Severity.CRITICAL
    queue_depth: Severity = Severity.WARNING
    dead_letters: Severity = Severity.CRITICAL
    forged_events: Severity = Severity.CRITICAL
    # Under `lossShareLeft`, and under `lossCriticalShareLeft`.
    data_loss: Severity = Severity.WARNING
    data_loss_critical: Severity = Severity.CRITICAL
    selection_run: Severity = Severity.CRITICAL
    campaign_stuck: Severity = Severity.CRITICAL
    round_stopped: Severity = Severity.CRITICAL  # seats that no one claimed stay empty
    campaign_paused: Severity = Severity.WARNING
    # Held by a further phase that is not confirmed; and those that raised an exception by themselves.
    messages_waiting: Severity = Severity.WARNING
    messages_failed: Severity = Severity.CRITICAL
    draw_input_differs: Severity = Severity.CRITICAL
    selection_not_judged: Severity = Severity.CRITICAL
    campaign_not_logged: Severity = Severity.WARNING
    registrations_not_logged: Severity = Severity.WARNING
    campaign_keys: Severity = Severity.CRITICAL
    beacon: Severity = Severity.WARNING  # it cannot seed draws
    # From `driftEntries` on, and from `driftCritical` on.
    drift: Severity = Severity.WARNING
    drift_critical: Severity = Severity.CRITICAL
    # Under `certificates.warnDays`, and under `certificates.criticalDays` or unusable.
    certificates: Severity = Severity.WARNING
    certificates_critical: Severity = Severity.CRITICAL
    # checkEligibility: calls close to its time-out; and errors, throttles, UNKNOWN.
    eligibility: Severity = Severity.WARNING
    eligibility_failing: Severity = Severity.CRITICAL
    log_lines: Severity = Severity.WARNING
    # Watched besides the conditions: a certificate that brokers refuse, an analytics queue that is never empty.
    certificate_renewal: Severity = Severity.WARNING
    analytics_age: Severity = Severity.WARNING
    # Watched by CloudWatch and reviews: throttling, many retries, single failed items, messages that wait long, lag
    # above its objective, error lines that are new or many more.
    performance: Severity = Severity.WARNING

    def first_of(self, condition: str) -> Severity:
        """That of the first kind or step of a condition (`stream-lag`). Raises ValueError for one that there is not."""
        found: Severity | None = getattr(self, condition.replace("-", "_"), None)
        return found or self.worst_of(condition)

    def worst_of(self, condition: str) -> Severity:
        """The highest that a condition (`stream-lag`) may have. Raises ValueError for one that there is not."""
        name = condition.replace("-", "_")
        return Severity.worst(
            getattr(self, field)
            for field in type(self).model_fields
            if field == name or field.startswith(f"{name}_")
        )


class BurnRate(Section):
    """Holds while the budget burns this many times faster than it may, in a long window and in the short one at its
    end, without which an incident would stay open long after its cause.
    """

    rate: float = Field(gt=0)
    long_seconds: float = Field(gt=0, le=7 * 86_400)
    # Two minutes of it may be bad without a page.
    short_seconds: float = Field(ge=240, le=86_400)


class ObjectivesSettings(Section):
    """Shares that are promised over `budgetDays`; the rest is the budget. Incidents are those of the conditions."""

    # Changes that are saved within `replication.lagObjectiveSeconds`.
    freshness: float = Field(0.99, gt=0, lt=1)
    # Items of the drains that neither went back nor became dead letters.
    delivery: float = Field(0.999, gt=0, lt=1)
    # Draws and top-ups that are drawn within these seconds, the wait for the beacon included.
    draws: float = Field(0.95, gt=0, lt=1)
    draw_seconds: float = Field(7200.0, gt=0)
    # Items that did not become dead letters: those stay wrong until a person repairs them.
    correctness: float = Field(0.9999, gt=0, lt=1)
    # `drain_log` keeps 40 days.
    budget_days: int = Field(30, ge=7, le=40)
    # With fewer events in the long window one failure is too large a share: then the thresholds judge alone.
    least_events: int = Field(100, ge=1)
    # The rates and windows of the SRE workbook: 2 % of a month's budget in an hour, 5 % in six, 10 % in three days.
    page_fast: BurnRate = BurnRate(rate=14.4, long_seconds=3600, short_seconds=300)
    page_slow: BurnRate = BurnRate(rate=6, long_seconds=21_600, short_seconds=1800)
    warn: BurnRate = BurnRate(rate=1, long_seconds=259_200, short_seconds=21_600)  # no page, but a ticket

    @model_validator(mode="after")
    def _every_page_can_fire(self) -> Self:
        for name in ("freshness", "delivery", "correctness"):
            if self.page_fast.rate * (1 - getattr(self, name)) >= 1:
                raise PydanticCustomError(
                    "objective",
                    "should be higher: its whole budget burns slower than pageFast.rate",
                    {"field": name},
                )
        return self


class AlertSettings(Section):
    """Alert channels (every configured one is notified, and always the log), and the thresholds of conditions."""

    slack_webhook: SecretStr | None = None
    # The key of a service's integration "Events API v2", which gets critical incidents.
    pagerduty_routing_key: SecretStr | None = None
    # Without TLS only on this machine: for tests.
    pagerduty_url: str = Field(
        "https://events.pagerduty.com", pattern=r"^(https://[^\s/?#@]+|http://127\.0\.0\.1(:\d+)?)$"
    )
    # One JSON document a line; relative to the project's root.
    file: str | None = None
    # Where the pages of docs/ can be read, for links in messages.
    docs_url: str = ""
    timeout_seconds: float = Field(3.0, gt=0)
    # For all that one evaluation sends to one channel; the next one continues.
    tell_seconds: float = Field(4.0, gt=0)
    # Longest time between two evaluations, by the sensor or `regworkers alerts evaluate`.
    look_seconds: float = Field(60.0, gt=0)
    # Up to this number of incidents of one condition are sent one by one, more of them as one.
    group_above: int = Field(3, ge=1)
    # After its cause is gone a consequence has so long to go, too.
    recovery_seconds: float = Field(600.0, ge=0)
    # A dependency must be down, or the scheduler silent, at two evaluations this far apart.
    patience_seconds: float = Field(20.0, ge=0)
    # What no look could read for this long is an incident itself; a drain without a successful receive for this long
    # fails.
    blind_seconds: float = Field(120.0, ge=0)
    severity: AlertSeverities = AlertSeverities()
    # A clock that differs more than this from MongoDB's judges no ages.
    clock_seconds: float = Field(60.0, gt=0)
    # Work is due and a drain of replication acknowledges nothing; and so the drains of selection and analytics.
    drain_stalled_seconds: float = Field(60.0, gt=0)
    drain_stalled_selection_seconds: float = Field(300.0, gt=0)
    # Share of the items that a drain received within the last minutes that failed, and the least number of them.
    error_rate: float = Field(0.05, gt=0, lt=1)
    error_items: int = Field(3, ge=1)
    stream_lag_seconds: float = Field(60.0, gt=0)
    stream_lag_critical_seconds: float = Field(600.0, gt=0)
    queue_depth: QueueDepths = QueueDepths()
    # How many dead letters may lie on a queue.
    dead_letters: int = Field(0, ge=0)
    # Share of the time that a batch is its own.
    batch_share: float = Field(0.8, gt=0, le=1)
    # Share of the retention time of a stream or queue that is left for what is unread.
    loss_share_left: float = Field(0.5, gt=0, lt=1)
    loss_critical_share_left: float = Field(0.25, gt=0, lt=1)
    # Time that a campaign may be in PROCESSING without work on its draw.
    stuck_seconds: float = Field(900.0, gt=0)
    # Time that the replication of a campaign may be paused before that is taken for forgotten.
    campaign_paused_seconds: float = Field(14_400.0, gt=0)
    # Messages that wait for the confirmation of a further phase.
    messages_wait_seconds: float = Field(86_400.0, gt=0)
    # Until `check_selection` has judged a phase that completed: a run may take 15 minutes, and be repeated once.
    not_judged_seconds: float = Field(1800.0, gt=0)
    # Until `log_campaigns` has logged a campaign, and `log_registrations` a size: a receipt says so where the first
    # took more than ten minutes, and a size that is logged more than 15 minutes after the close is a finding.
    not_logged_seconds: float = Field(300.0, gt=0)
    # Ticks are awaited for this many intervals, and at least for these seconds.
    silent_intervals: float = Field(3.0, ge=1)
    silent_seconds: float = Field(180.0, gt=0)
    # Entries in which the replica differs.
    drift_entries: int = Field(1, ge=1)
    drift_critical: int = Field(100, ge=1)


class CertificatesSettings(Section):
    """How many days before its end a certificate opens a warning, and a critical alert."""

    warn_days: float = Field(20.0, gt=0)
    critical_days: float = Field(5.0, ge=0)


class ReviewsSettings(Section):
    # What one process of the workers may take: the limit of its container.
    memory_limit_mib: int = Field(1024, ge=128)
    # The most that the recovery drill of every quarter rebuilds; `regworkers drill recovery` rebuilds all of them.
    drill_max_entries: int = Field(100_000, ge=1)


class HousekeepingSettings(Section):
    """Retention periods in days. Empty: never deleted."""

    # Claims of a campaign whose draw is over: from the moment its last phase is COMPLETED, or its draw annulled. No
    # top-up is possible once pipeline files, outbox, selections or codes are gone. Claims of a campaign that is CLOSED
    # and was never drawn: from the end of its registration.
    claims_days: int | None = Field(90, ge=1)
    pipeline_days: int | None = Field(180, ge=1)
    outbox_days: int | None = Field(365, ge=1)
    selections_days: int | None = Field(365, ge=1)
    codes_days: int | None = Field(365, ge=1)
    # Days of the event archive (by the day of the events), which is the company's record.
    archive_days: int | None = Field(1095, ge=1)
    alerts_days: int | None = Field(180, ge=1)
    dead_letters_days: int | None = Field(180, ge=1)
    # The audit log.
    operator_actions_days: int | None = Field(1095, ge=1)
    reviews_days: int | None = Field(1095, ge=1)
    # The tombstone of a removed entry: it keeps an older state from being saved again, so it stays longer than any
    # message or stream record lives (14 days).
    tombstones_days: int | None = Field(30, ge=21)
    # What `reconcile --accept-source` replaced; that long `reconcile undo` brings it back.
    superseded_days: int = Field(30, ge=1)
    # The tombstone of an erased fan: the longest time for which a backup of either store is kept, and a week. Not
    # below what point-in-time recovery of the demand table keeps (35 days); longer where MongoDB's backups are.
    erased_tombstone_days: int = Field(42, ge=42)


Limited = Literal["viewer", "manager"]
Role = Limited | Literal["operator"]


class WebSettings(Section):
    """The application around Dagster's UI (`regworkers-web`): whom it answers, and whose name a launch gets."""

    # Names without a port, by which browsers, probes and programs reach it; localhost, 127.0.0.1 and [::1] always do.
    hosts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")], ...] = ()
    # The header in which a proxy says who is logged in. Empty: there is no proxy, and what is done here counts as done
    # by the account that runs the application.
    operator_header: str = Field("", pattern=r"^[A-Za-z0-9-]*$")
    # Addresses or networks of that proxy. No other header is believed.
    proxies: tuple[str, ...] = ()
    # The header in which that proxy lists the person's groups, separated by commas. Empty: everyone is an operator.
    groups_header: str = Field("", pattern=r"^[A-Za-z0-9-]*$")
    # The groups whose members have a role. Members of no such group may only read.
    groups: dict[Role, tuple[str, ...]] = Field(default_factory=dict)
    # The jobs that a role may launch, where it differs from their declarations: a manager launches every step of a
    # campaign. An operator launches every job, and only an operator makes other changes.
    jobs: dict[Limited, tuple[str, ...]] = Field(default_factory=dict)
    # Jobs that act only after two people launched them with the same config, the second one within this time. They act
    # by their field `confirm` or `apply`: without, one person may launch them.
    two_people: tuple[
        Literal["amend_campaign", "annul_draw", "confirm_draw", "pass_on", "set_pass_on", "top_up"], ...
    ] = ()
    two_people_minutes: float = Field(30.0, gt=0, le=1440)
    # The address of MongoDB with the user of the role `desk`, which only reads, and no entries: pages of the desk read
    # with it. Empty: as mongo.uri.
    desk_uri: SecretStr | None = None

    @field_validator("proxies")
    @classmethod
    def _are_addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                wrong = ip_network(proxy).prefixlen == 0
            except ValueError:
                wrong = True
            if wrong:
                raise PydanticCustomError(
                    "proxy",
                    "should be addresses (10.0.4.7) or networks (10.0.4.0/24) of the proxy, not of all",
                )
        return proxies

    @model_validator(mode="after")
    def _a_header_has_a_proxy(self) -> Self:
        if self.operator_header and not self.proxies:
            raise PydanticCustomError(
                "proxy", "should be set with operatorHeader: from whom is it believed?", {"field": "proxies"}
            )
        if not self.operator_header and (self.groups_header or self.two_people):
            raise PydanticCustomError(
                "proxy",
                "should be set with groupsHeader and twoPeople: who is it?",
                {"field": "operatorHeader"},
            )
        if bool(self.groups_header) != bool(self.groups.get("operator")):
            raise PydanticCustomError(
                "proxy",
                "should name the operators' groups, and be set with groupsHeader: without both, roles mean nothing",
                {"field": "groups"},
            )
        return self


class ObservabilitySettings(Section):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # Share of the entries whose way is logged, one line a hop; by the correlation id, so that it is the whole way or
    # nothing.
    entry_log_rate: float = Field(1.0, ge=0, le=1)
    log_retention_days: int = Field(14, ge=1)
    run_retention_days: int = Field(14, ge=1)
    cloudwatch_namespace: str = "regworkers"
    # Metrics, and the lines that no agent collects.
    cloudwatch_enabled: bool = True
