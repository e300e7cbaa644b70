"""Least privilege of the archive and of the funnel."""

from __future__ import annotations

import contextlib

import pytest

from regworkers_core.analytics.archive.archived_events import frame
from regworkers_core.analytics.funnel.funnel_page import publish_funnel
from regworkers_core.runtime import Runtime
from tests.analytics.archive.fakes import Killed
from tests.analytics.archive.world import archived, event, produce
from tests.infrastructure.deploy.policies import ROLES, Recorder, policy
from tests.infrastructure.deploy.test_policies import compare
from tests.selection.draw.world import CAMPAIGN, close_campaign, drawn

pytestmark = pytest.mark.slow


def test_the_archive_needs_what_its_policy_allows(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(step: str) -> None:
        if step == "archive.before_manifest":
            raise Killed

    archive = runtime.settings.archive.model_copy(update={"compact_files": 2, "keep_replaced_seconds": 0})
    mine = Runtime(runtime.settings.model_copy(update={"archive": archive}))
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    for number in range(2):
        produce(runtime, event(number), b"broken")
        # The next run deletes the files that this leaves.
        with contextlib.suppress(Killed):
            archived(mine, on_step=die)
        archived(mine)
    frame(mine.objects, "SELECT * FROM events")
    compare("archive", recorder)


def test_a_funnel_needs_what_its_policy_allows(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    close_campaign(runtime)
    drawn(runtime)
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    campaign = mine.campaigns.get(CAMPAIGN)
    assert campaign is not None
    publish_funnel(mine, campaign)
    compare("funnel", recorder)


def test_few_roles_may_delete_objects_and_only_their_own() -> None:
    may = [
        (role, resource)
        for role in ROLES
        for statement in policy(role)
        if "s3:DeleteObject" in statement["Action"]
        for resource in statement["Resource"]
    ]
    assert may == [
        ("archive", "arn:aws:s3:::PREFIXregworkers-artefacts/archive/*"),
        ("erasure", "arn:aws:s3:::PREFIXregworkers-artefacts/dead-letters/*"),
        ("housekeeping", "arn:aws:s3:::PREFIXregworkers-artefacts/pipeline/*"),
        ("housekeeping", "arn:aws:s3:::PREFIXregworkers-artefacts/reviews/*"),
    ]
