"""What the calendar starts: the reviews, the look at Kafka's certificate, and retention."""

from typing import Any

import dagster as dg

from regworkers_core.acts import every_operation
from regworkers_core.operation import Operation
from regworkers_core.settings import load_settings
from regworkers_dagster.factories import Flow, schedule
from regworkers_dagster.launching import asset

_OPERATIONS, _CERTIFICATES = (Flow(name, owner="operations") for name in ("operations", "certificates"))


def _spec(operation: Operation[Any]) -> dg.AssetSpec:
    if operation.asset == "kafka_certificate":
        return _CERTIFICATES.asset(
            operation.asset,
            "The client certificate with which this environment's workers connect to Kafka. Inspected daily: one "
            "materialisation with its days left. docs/certificates.md says how to renew it.",
            {"kafka"},
        )
    return _OPERATIONS.asset(
        operation.asset,
        f"{operation.description} As a page, Markdown and numbers on S3; docs/maintenance.md explains each line.",
        {"s3", "html"},
    )


# By the job that materialises it.
ASSETS = {each.job: asset(each, _spec(each)) for each in every_operation() if each.warns}
# In working hours of Europe: on Mondays, on the first of a month, on the second day of a quarter, and every day, when a
# certificate can be renewed.
SCHEDULES = (
    schedule("review_weekly", "weekly_review", "0 6 * * 1", "Writes the review of the week."),
    schedule("review_monthly", "monthly_review", "30 6 1 * *", "Writes the review of the month."),
    schedule("review_quarterly", "quarterly_review", "0 7 2 1,4,7,10 *", "Writes the review of the quarter."),
    schedule(
        "check_certificate_daily",
        "check_certificate",
        "0 7 * * *",
        "Inspects Kafka's client certificate once a day.",
    ),
    schedule(
        "housekeeping_weekly",
        "housekeeping",
        "0 4 * * 0",
        "Deletes every Sunday what is older than the settings under `housekeeping` say.",
        {"confirm": load_settings().environment},
    ),
)
