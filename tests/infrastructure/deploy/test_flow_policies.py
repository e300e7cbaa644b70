"""Least privilege of the flows: what each does on AWS, compared with the statements of its worker."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import pytest
from pydantic import SecretStr

from regworkers_core.adapters.kafka.security import SecretStage
from regworkers_core.adapters.vault import Issued
from regworkers_core.analytics.archive.reading import frame
from regworkers_core.analytics.funnel import publish_funnel
from regworkers_core.domain.claim import InviteType
from regworkers_core.eligibility.invites.lists import Listed, read_values
from regworkers_core.eligibility.invites.stored import (
    Upload,
    check_invite,
    count_invites,
    remove_invites,
    upload_object,
)
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations import downloads, uploads
from regworkers_core.operations.certificates import store, verified
from regworkers_core.operations.dependencies import DependencyReport
from regworkers_core.operations.dependency_status import ServiceName, check_service
from regworkers_core.operations.erasure.erase import erase
from regworkers_core.operations.erasure.operations import pending, replay
from regworkers_core.operations.retention import all_parts, apply_retention
from regworkers_core.operations.reviews.sections import ReviewKind, publish
from regworkers_core.operations.table_check import check_tables
from regworkers_core.operations.upkeep import make_review
from regworkers_core.replication.cut_over import cut_over
from regworkers_core.replication.shadow import shadow
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ServicesSettings, load_settings
from regworkers_local.services import TOKEN
from tests.analytics.archive.fakes import Killed
from tests.analytics.archive.world import archived, event, produce
from tests.eligibility.world import create, one
from tests.infrastructure.deploy.policies import ROLES, Recorder, actions, compare, needs, policy
from tests.operations.erasure.world import dead_letters, draw
from tests.operations.erasure.world import plant as plant_a_fan
from tests.operations.test_retention_of_campaigns import done, plant
from tests.replication.moving.lambdas import Lambdas
from tests.selection.draw.world import CAMPAIGN, close_campaign, drawn
from tests.support import campaigns
from tests.support.certificates import Authority
from tests.support.entries import key, put, source
from tests.support.runtimes import test_settings
from tests.support.services import NAMES, served_to


def test_a_check_and_its_transfer_need_what_the_policy_allows(runtime: Runtime) -> None:
    create(runtime, eligibility={"maxPerUnit": 1})
    with needs("eligibility", runtime) as mine:
        # As the function begins.
        assert mine.secrets.get("eligibility-settings") is None
        for state in ("created", "existing"):
            assert one(mine, doTransfer=True, unit="u1")["transfer"]["state"] == state
        # The fan's record is unknown, which is counted.
        watched = runtime.settings.observability.model_copy(update={"cloudwatch_enabled": True})
        silent = runtime.settings.mongo.model_copy(
            update={"uri": SecretStr("mongodb://127.0.0.1:1"), "server_selection_timeout_seconds": 0.2}
        )
        down = runtime.settings.model_copy(update={"observability": watched, "mongo": silent})
        assert one(Runtime(down), email="other@example.com")["status"] == "UNKNOWN"


EMAIL = InviteType.EMAIL


def test_work_on_invites_needs_what_the_policy_allows(runtime: Runtime, tmp_path: Path) -> None:
    campaigns.create(runtime, "summer")
    runtime.objects.put_bytes("invites/summer.csv", b"email\nuser1@example.com\nnobody\n")
    ttl = int(runtime.clock()) + 3600
    upload = uploads.put(runtime, "list.csv", b"email\nuser2@example.com\n")
    with needs("invites", runtime) as mine:
        for again in range(2):
            given = Upload(campaign="summer", type=EMAIL, ttl=ttl + again, run_id="upload")
            upload_object(mine, given, "invites/summer.csv")
        count_invites(mine, "summer")
        check_invite(mine, "summer", EMAIL, "user1@example.com")
        values = read_values(["user1@example.com"], EMAIL)
        rejects = tmp_path / "rejects.csv"
        removal = Listed(campaign="summer", type=EMAIL, run_id="remove", dry_run=False)
        remove_invites(mine, removal, values, rejects=rejects)
        # As the job does it.
        with uploads.fetched(mine, upload):
            downloads.put(mine, "upload_invites", "rejects.csv", b"line,reason,found\n")


def test_only_they_and_an_erasure_may_write_many_items_of_the_demand_table_at_once() -> None:
    may = {role for role in ROLES for each in policy(role) if "dynamodb:BatchWriteItem" in each["Action"]}
    assert may == {"erasure", "invites"}


@pytest.mark.slow
def test_the_archive_needs_what_its_policy_allows(runtime: Runtime) -> None:
    def die(step: str) -> None:
        if step == "archive.before_manifest":
            raise Killed

    archive = runtime.settings.archive.model_copy(update={"compact_files": 2, "keep_replaced_seconds": 0})
    mine = Runtime(runtime.settings.model_copy(update={"archive": archive}))
    with needs("archive", runtime):
        for number in range(2):
            produce(runtime, event(number), b"broken")
            # The next run deletes the files that this leaves.
            with contextlib.suppress(Killed):
                archived(mine, on_step=die)
            archived(mine)
        frame(mine.objects, "SELECT * FROM events")


@pytest.mark.slow
def test_a_funnel_needs_what_its_policy_allows(runtime: Runtime) -> None:
    close_campaign(runtime)
    drawn(runtime)
    with needs("funnel", runtime) as mine:
        campaign = mine.campaigns.require_id(CAMPAIGN)
        publish_funnel(mine, campaign)


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


@pytest.mark.slow
def test_check_shadow_and_cut_over_need_what_their_policies_allow(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(runtime, key("e1"))
    Lambdas(runtime).work()
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    check_tables(mine, per_second=1000)
    shadow(mine, stop=StopSignal(), max_seconds=30, idle_seconds=0.1)
    compare("shadow", recorder)

    recorder = Recorder(monkeypatch, runtime.names.prefix)
    assert cut_over(Runtime(runtime.settings), apply=True, back_seconds=0).applied
    # Its own checkpoints are there by now.
    assert cut_over(Runtime(runtime.settings), apply=True, back_seconds=0, replace=True).applied
    compare("cut-over", recorder)


def test_an_erasure_needs_what_its_policy_allows(runtime: Runtime) -> None:
    e1 = key("e1")
    plant_a_fan(runtime, e1)
    draw(runtime, e1)
    dead_letters(runtime, e1)
    image = source(runtime, e1) or {}
    with needs("erasure", runtime) as mine:
        assert erase(mine, e1, dry_run=False).finished
        put(runtime, e1, **image)
        assert pending(mine, confirmed=1).finished
        assert replay(mine).finished and replay(mine, "summer").finished
        # As the job hands out the codes.
        downloads.put(mine, "export_codes", "codes.csv", b"code,market,position,status\n")


def test_reviews_need_what_their_policy_allows(runtime: Runtime) -> None:
    runtime.objects.put_bytes("reviews/monthly/2026-01-01/report.json", b"{}")
    with needs("reviews", runtime) as mine:
        for kind in ReviewKind:
            publish(
                mine,
                make_review(mine, kind, locked=lambda: DependencyReport(0, (), ()), provider=lambda: None),
            )


def test_the_housekeeping_needs_what_its_policy_allows(runtime: Runtime) -> None:
    produce(runtime, event(1, time="2020-01-01T00:00:00.000Z"))
    archived(runtime)
    runtime.objects.put_bytes("reviews/weekly/2020-01-01/report.html", b"x")
    plant(runtime, "old", done(91))
    with needs("housekeeping", runtime):
        kept = runtime.settings.housekeeping.model_copy(update={"archive_days": 30, "pipeline_days": 90})
        applied = apply_retention(
            all_parts(Runtime(runtime.settings.model_copy(update={"housekeeping": kept}))), dry_run=False
        )
        assert applied.fine and applied.deleted == 4, applied.as_dict()


def test_asking_the_services_needs_their_tokens_as_every_environment_names_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONFIG_ENV", "prod")
    secrets = {name: str(getattr(load_settings().services, name).token_secret) for name in NAMES}
    runtime = Runtime(test_settings(f"t{uuid.uuid4().hex[:8]}-"))
    for secret in secrets.values():
        runtime.secrets.create(secret, TOKEN, description="test")
    with served_to(runtime) as served:
        section = {
            name: {"base_url": f"{served.url}/{name}", "token_secret": secret}
            for name, secret in secrets.items()
        }
        services = ServicesSettings.model_validate(section)
        recorder = Recorder(monkeypatch, runtime.names.prefix)
        asking = Runtime(runtime.settings.model_copy(update={"services": services}))
        for name in ServiceName:
            assert check_service(asking, name).fine
    compare("services", recorder)
    runtime.mongo.close()


ROOT = Authority()


@pytest.fixture
def with_certificate(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """With the secrets that every environment names."""
    monkeypatch.setenv("CONFIG_ENV", "prod")
    tls = load_settings().kafka.tls.model_dump()
    made = Runtime(test_settings(f"t{uuid.uuid4().hex[:8]}-", kafka={"tls": tls}))
    made.secrets.put("kafka-certificate/ca", ROOT.pem, description="test")
    return made


def issued() -> Issued:
    pair = ROOT.client()
    return Issued(pair.certificate, pair.key, (ROOT.pem,))


def test_speaking_to_kafka_needs_to_read_the_certificate(with_certificate: Runtime) -> None:
    store(with_certificate, issued())
    with needs("kafka-certificate", with_certificate) as reading:
        for stage in SecretStage:
            reading.kafka_security.material(stage)


def test_renewing_needs_what_its_policy_allows(with_certificate: Runtime) -> None:
    with needs("certificates", with_certificate):
        kafka = with_certificate.settings.kafka
        for key_secret in (None, "kafka-certificate/key"):
            tls = kafka.tls.model_copy(update={"key_secret": key_secret})
            own = {"kafka": kafka.model_copy(update={"tls": tls})}
            renewing = Runtime(with_certificate.settings.model_copy(update=own))
            for _ in ("the first", "another"):
                verified(renewing, issued())
                store(renewing, issued())


def test_no_worker_may_delete_a_version_or_a_secret_of_it() -> None:
    assert not [each for each in actions("certificates") if "Delete" in each or "UpdateSecretVersion" in each]
