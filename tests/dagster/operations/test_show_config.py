"""The job `show_config`: what a deployed run has, without a secret."""

from __future__ import annotations

import dagster as dg
import orjson

from regworkers_core.settings import load_settings
from regworkers_dagster.operations.deployment import settings_in_force, show_config
from regworkers_dagster.resources import connections
from tests.dagster.support import plain
from tests.support.runtimes import test_settings

SECRETS = {"mongo": {"uri": "mongodb://u:p4ssw0rd@h"}, "alerts": {"slack_webhook": "https://h/s3cr3t"}}


def test_every_setting_is_shown_with_its_origin_and_no_secret() -> None:
    given = dict.fromkeys(("aws", "mongo", "redis", "kafka"), "127.0.0.1:1")
    settings = test_settings("t-", given, **SECRETS)
    shown = settings_in_force(settings, {"REGWORKERS_MONGO__URI": "mongodb://u:p4ssw0rd@h", "HOME": "/root"})
    text = orjson.dumps(shown).decode()
    assert "p4ssw0rd" not in text and "s3cr3t" not in text
    assert shown["variables"] == "REGWORKERS_MONGO__URI"
    assert shown["file"].endswith("local-dev.config.yml")
    assert shown["settings"]["mongo"]["uri"] == shown["settings"]["alerts"]["slackWebhook"] == "***"


def test_the_run_has_them_in_its_metadata_and_its_log() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        done = show_config.execute_in_process(instance=instance, resources=connections())
    assert done.success
    (metadata,) = [
        plain(event.step_output_data.metadata)
        for event in done.all_events
        if event.event_type_value == "STEP_OUTPUT"
    ]
    assert metadata["environment"] == load_settings().environment
    assert metadata["settings"]["aws"]["region"] == load_settings().aws.region
