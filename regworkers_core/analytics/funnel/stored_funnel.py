"""The funnel kept where other reports of the campaign lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from regworkers_core.analytics.funnel.funnel_report import Funnel, make_funnel
from regworkers_core.analytics.funnel.page import Shown, shown
from regworkers_core.domain.campaign import Campaign
from regworkers_core.runtime import Runtime


class Published(NamedTuple):
    """`where` is the address of the page."""

    funnel: Funnel
    shown: Shown
    where: str


def publish_funnel(
    runtime: Runtime, campaign: Campaign, tell: Callable[[str], None] = lambda _text: None
) -> Published:
    """Make it and put its page over the one before. Raises TransientFailure."""
    funnel = make_funnel(runtime, campaign, tell)
    made = shown(funnel)
    key = f"reports/{campaign.campaign_id}/funnel.html"
    runtime.objects.put_bytes(key, made.html.encode())
    return Published(funnel, made, f"s3://{runtime.objects.bucket}/{key}")
