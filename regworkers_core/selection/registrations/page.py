"""The page of a campaign before its draw: how many are in its list, and the verifier, by which a fan checks that. The
page of the draw takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdraw.documents import as_document
from fairdraw.verifier.assemble import verifier_hash, verifier_page
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso, to_second
from regworkers_core.reporting import page
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.page import INDEX, POLICY, own_policy
from regworkers_core.selection.public.publish import PAGE_FOLDER, VERIFIER, put_named
from regworkers_core.selection.registrations.tree import RegistrationFiles


@dataclass(frozen=True, slots=True)
class ListPublished:
    """What was published, or would be."""

    campaign_id: str
    page: str  # its address
    put: tuple[str, ...]  # files that the store lacks or has in another form
    size: int  # of the tree

    def as_dict(self) -> dict[str, Any]:
        return as_document(self)


def publish_list(runtime: Runtime, campaign: Campaign, *, output: Path | None, apply: bool) -> ListPublished:
    """Build the page. With `apply` put it where that of the draw will be; with `output` write it there, too.

    Raises UsageError if another run publishes at the same time, TransientFailure.
    """
    files = RegistrationFiles(runtime.objects, campaign.campaign_id)
    state = files.state()
    made_at = files.made_at(state.last_size)
    html = page(
        "registrations_page",
        title=f"Registrations of {campaign.name}",
        policy=POLICY,
        state=state,
        registered=state.size - state.notices - state.withdrawn - state.erased,
        logged_size=state.last_size,
        logged_at=to_second(iso(made_at)) if made_at else "",
        verifier=verifier_hash(),
    )
    made = {VERIFIER: verifier_page(), INDEX: html.replace(POLICY, own_policy(html)).encode()}
    prefix = f"draws/{campaign.campaign_id}/{PAGE_FOLDER}/"
    if output is not None:
        (output / PAGE_FOLDER).mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            (output / PAGE_FOLDER / name).write_bytes(data)
    put = tuple(put_named(runtime.objects, prefix, made, apply=apply))
    address = f"s3://{runtime.objects.bucket}/{prefix}{INDEX}"
    return ListPublished(campaign.campaign_id, address, put, state.size)
