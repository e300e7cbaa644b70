"""Creating campaigns, and finding them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from tests.support.campaigns import create

pytestmark = pytest.mark.namespace("module")


def test_a_taken_id_or_slug_is_refused_and_nothing_changes(runtime: Runtime) -> None:
    first = create(runtime, slug="hot-summer")
    with pytest.raises(UsageError, match=r"summer has that id or slug already.*campaign show summer"):
        create(runtime, name="Another")
    with pytest.raises(UsageError, match="summer has that id or slug already"):
        create(runtime, "other", slug="hot-summer")
    assert runtime.campaigns.list() == [first]


def test_a_campaign_that_was_faster_by_a_moment_is_met_by_the_store(runtime: Runtime) -> None:
    first = create(runtime)
    with pytest.raises(UsageError, match="summer exists already"):
        runtime.campaigns.create(replace(first, name="Another"))
    with pytest.raises(UsageError, match="another campaign has the slug 'summer'"):
        runtime.campaigns.create(replace(first, campaign_id="other"))
    runtime.campaigns.create(first)


def test_a_campaign_is_found_by_id_first_and_then_by_slug(runtime: Runtime) -> None:
    create(runtime, "one", slug="two")
    create(runtime, "two", slug="second")
    assert (
        runtime.campaigns.require("two").campaign_id
        == runtime.campaigns.require("second").campaign_id
        == "two"
    )
    with pytest.raises(UsageError, match="campaign list"):
        runtime.campaigns.require("third")


def test_a_secret_is_created_once_and_never_overwritten(runtime: Runtime) -> None:
    assert runtime.secrets.get("campaign-keys/x") is None
    assert runtime.secrets.create("campaign-keys/x", "first", description="test") == "first"
    assert runtime.secrets.create("campaign-keys/x", "second", description="test") == "first"
    assert runtime.secrets.get("campaign-keys/x") == "first"
