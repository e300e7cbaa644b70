"""Least privilege in selection: what campaigns, draws and their drains do on AWS, compared with their policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations import downloads, uploads
from regworkers_core.replication.settled import lag_warnings, settled
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import resume_blocked
from regworkers_core.selection.campaigns.amending import delete
from regworkers_core.selection.campaigns.opening import decide, log_open, open_campaign
from regworkers_core.selection.codes.importing import CodesFile, import_codes
from regworkers_core.selection.codes.issuing import put_for_issuer
from regworkers_core.selection.drains import NOTIFICATIONS, REGISTER, SELECTIONS
from tests.infrastructure.deploy.policies import Recorder, compare
from tests.selection.draw.world import CAMPAIGN, close_campaign, drawn
from tests.selection.registrations.world import Fans, opened
from tests.support.campaigns import advance_to, create
from tests.support.drains import run
from tests.support.entries import key, put

pytestmark = [pytest.mark.slow, pytest.mark.namespace("test", observability={"cloudwatch_enabled": True})]


def import_for_berlin(runtime: Runtime, folder: Path, upload: str) -> None:
    """Enough codes for the market that waits, imported as the job does it."""
    campaign, rejects = runtime.campaigns.require(CAMPAIGN), folder / "rejects.csv"
    with uploads.fetched(runtime, upload) as file:
        done = import_codes(
            runtime,
            CodesFile(file, campaign, market_id="berlin", rejects=rejects),
            run_id="import",
            resume=resume_blocked,
        )
    assert "berlin" in done.resumed
    downloads.put(runtime, "import_codes", "rejects.csv", b"line,reason,found\n")


def draw_it(runtime: Runtime) -> None:
    """As a run does it, which asks whether replication has settled, first."""
    assert settled(runtime, CAMPAIGN).open, "nothing but the replica holds these entries"
    drawn(runtime)


def test_a_campaign_manager_needs_what_the_policy_allows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    close_campaign(runtime, codes=0)
    drawn(runtime)
    codes = "\n".join(["code", *(f"CODE-{number}" for number in range(20))]).encode()
    upload = uploads.put(runtime, "codes.csv", codes)
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    hers = Runtime(runtime.settings)
    create(hers, "winter")
    # What others opened is logged by a run with the same rights.
    assert not open_campaign(hers, "winter", reason="test", run_id="r").not_logged
    assert not log_open(hers).problems
    create(hers, "wrong")
    delete(hers, "wrong", run_id="r")
    advance_to(hers, "winter", CampaignStatus.CLOSED)
    import_for_berlin(hers, tmp_path, upload)
    # The preview of a draw warns when replication is behind.
    put(runtime, key("unread"))
    assert lag_warnings(hers)
    put_for_issuer(hers, hers.campaigns.require_id(CAMPAIGN), tmp_path / "issuer.csv")
    compare("campaigns", recorder)


def test_a_draw_and_its_drains_need_what_their_policies_allow(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_campaign(runtime, registration={"log": "on"})
    decide(runtime, CAMPAIGN)
    refused = [Outgoing(encode(MessageType.ASSIGN, "test", [{"market": "no chunk"}]))]
    assert runtime.queue(runtime.names.selection_queue).send(refused) == []
    for role, work in (
        ("draw", draw_it),
        ("selections", lambda mine: run(mine, SELECTIONS)),
        ("notifications", lambda mine: run(mine, NOTIFICATIONS)),
    ):
        recorder = Recorder(monkeypatch, runtime.names.prefix)
        work(Runtime(runtime.settings))
        compare(role, recorder)
        monkeypatch.undo()


def test_the_drain_of_registrations_needs_what_its_policy_allows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(runtime)
    log_open(runtime)
    Fans(runtime).save("e")
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    run(Runtime(runtime.settings), REGISTER)
    compare("register", recorder)


def test_the_application_around_the_ui_needs_what_its_policy_allows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = downloads.put(runtime, "make_receipt", "receipt.html", b"<p>")
    runtime.objects.put_bytes(f"reports/{CAMPAIGN}/funnel.html", b"<p>")
    runtime.objects.put_bytes("reviews/weekly/2026-01-05/report.html", b"<p>")
    runtime.objects.put_bytes(f"draws/{CAMPAIGN}/page/draw.json.gz", b"<p>")
    runtime.objects.put_bytes("log/checkpoint", b"<p>")
    runtime.objects.put_bytes(f"registrations/{CAMPAIGN}/tile/entries/000.p/7", b"<p>")
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    uploads.put(mine, "codes.csv", b"code\n")
    for each in (
        path,
        f"/reports/{CAMPAIGN}/funnel",
        "/reviews/weekly/2026-01-05",
        f"/draws/{CAMPAIGN}/page/draw.json.gz",
        "/log/checkpoint",
        f"/registrations/{CAMPAIGN}/tile/entries/000.p/7",
    ):
        page = downloads.open_page(mine, each)
        assert page is not None and page.body.read() == b"<p>"
    compare("web", recorder)
