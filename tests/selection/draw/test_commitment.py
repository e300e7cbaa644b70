"""A manifest is public in time, or the record says that it was not, and no operator can quietly choose a round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from fairdraw.large.allocate import compute
from fairdraw.large.engine import Engine
from fairdraw.log.follow import follow
from regworkers_core.adapters.aws.objects import Tagged
from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import public_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys
from regworkers_core.selection.campaigns.opening import terms_of
from regworkers_core.selection.draw.held import InputDiffers
from regworkers_core.selection.draw.seeding import seed_of
from regworkers_core.selection.public.source import in_bucket
from tests.selection.draw.beacons import (
    START,
    Clock,
    Waiting,
    signature_of,
    taken_for_signatures,
    with_beacon,
)
from tests.selection.draw.replay import replay_of
from tests.selection.draw.world import CAMPAIGN, MARKETS, artefact, close_campaign, draw
from tests.support.draws import record_of
from tests.support.shared import purge

pytestmark = pytest.mark.namespace("module")

HOURS = 3600.0


class Died(Exception):
    """A run ends here, as by a kill."""


def dies_at(step: str) -> OnStep:
    def on_step(name: str) -> None:
        if name == step:
            raise Died

    return on_step


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own(runtime: Runtime, clock: Clock) -> Iterator[Runtime]:
    close_campaign(runtime)
    with taken_for_signatures():
        made = with_beacon(runtime.names.prefix, clock)
        purge(made, made.names.analytics_queue)
        yield made


def commit(runtime: Runtime, clock: Clock, on_step: OnStep = no_step) -> PhaseRecord:
    """To the commit and no further; the phase as it then is."""
    run = draw(runtime, stop=Waiting(clock), on_step=on_step)
    try:
        for step in (run.judge, run.freeze, run.commit):
            step()
    except Died:
        pass
    return record_of(runtime).latest


def slow_store(runtime: Runtime, clock: Clock, seconds: float) -> None:
    """The next write of the manifest takes so long."""
    put = runtime.objects.put_over

    def slow(key: str, data: bytes, tag: str | None) -> str | None:
        if not key.endswith("/manifest.json"):
            return put(key, data, tag)
        runtime.objects.put_over = put  # type: ignore[method-assign]
        clock.at += seconds
        return put(key, data, tag)

    runtime.objects.put_over = slow  # type: ignore[method-assign]


def events(runtime: Runtime) -> list[dict[str, Any]]:
    messages = runtime.queue(runtime.names.analytics_queue).receive(10, 0, 30)
    return [orjson.loads(message.body)["items"][0] for message in messages]


def round_of(manifest: str | bytes) -> int:
    return int(orjson.loads(manifest)["seedSource"]["round"])


def test_a_manifest_that_contradicts_the_record_of_its_campaign_is_not_committed(
    own: Runtime, clock: Clock
) -> None:
    # The settings name another chain than when the campaign opened: no receipt of the draw would hold.
    ensure_keys(own, own.campaigns.require_id(CAMPAIGN))
    opened = replace(terms_of(own, own.campaigns.require_id(CAMPAIGN)), chain="ab" * 32)
    own.objects.put_once(f"draws/{CAMPAIGN}/opened.json", opened.to_bytes())
    with pytest.raises(UsageError, match=r"would not verify.*seedSource\.chain.*then launch"):
        commit(own, clock)
    assert not record_of(own).latest.manifest_hash


def test_the_record_the_notice_and_the_event_say_when_the_manifest_was_public(
    own: Runtime, clock: Clock
) -> None:
    slow_store(own, clock, 7.0)
    phase = commit(own, clock)
    assert (phase.fields["committedAt"], phase.published_at) == (iso(START), iso(START + 7))
    assert not phase.published_late
    assert artefact(own, "notice.json") == phase.notice
    assert orjson.loads(phase.notice) == {
        "asOf": phase.as_of,
        "campaignId": CAMPAIGN,
        "capacities": {market["marketId"]: market["capacity"] for market in MARKETS},
        "committedAt": iso(START),
        "phase": 1,
        "publishedAt": iso(START + 7),
        "reason": "",
        "strikes": 0,
    }
    (event,) = events(own)
    assert event["data"]["publishedAt"] == iso(START + 7)
    assert event["data"]["manifestHash"] == phase.manifest_hash
    facts = draw(own, stop=Waiting(clock)).commit().facts
    assert facts["publishedAt"] == iso(START + 7) and facts["dueAt"] == iso(phase.round_due or 0)


def test_a_manifest_that_could_be_published_in_time_still_is_when_its_run_died(
    own: Runtime, clock: Clock
) -> None:
    before = commit(own, clock, dies_at("draw.after_commit"))
    assert before.published_at is None and before.published_late
    with pytest.raises(UsageError, match="its manifest is not published"):
        draw(own, stop=Waiting(clock)).seed()
    clock.at += 50
    after = commit(own, clock)
    assert (after.manifest, after.published_at) == (before.manifest, iso(START + 50))
    assert not after.replaced and not after.published_late


@pytest.mark.slow
@pytest.mark.parametrize("later", [61.5 + 2, 600.0])
def test_a_manifest_that_is_not_public_ten_minutes_before_its_round_makes_way_for_a_later_round(
    own: Runtime, clock: Clock, later: float
) -> None:
    before = commit(own, clock, dies_at("draw.after_commit"))
    clock.at += later
    after = commit(own, clock)
    assert after.published_at == iso(START + later) and not after.published_late
    one, other = orjson.loads(before.manifest), orjson.loads(after.manifest)
    assert one.pop("seedSource")["round"] < other.pop("seedSource")["round"]
    assert one == other
    assert orjson.loads(artefact(own, "replaced-1.json")) == {
        "committedAt": iso(START),
        "manifest": before.manifest.decode(),
        "publishedAt": None,
        "replacedAt": iso(START + later),
    }
    assert artefact(own, "manifest.json") == after.manifest
    *_, last = draw(own, stop=Waiting(clock)).steps(f"{CAMPAIGN}:1")
    assert last.state == "done"
    record = own.draws.get(CAMPAIGN)
    # Its round was not signed: there is no other result.
    assert record is not None and not record.latest.recommitted
    assert replay_of(own).passed


def test_a_manifest_that_was_published_late_is_written_over_as_long_as_its_round_is_to_come(
    own: Runtime, clock: Clock
) -> None:
    slow_store(own, clock, 120.0)
    phase = commit(own, clock)
    (replaced,) = phase.replaced
    assert replaced["publishedAt"] == iso(START + 120)
    assert round_of(replaced["manifest"]) < round_of(phase.manifest)
    assert not phase.published_late
    assert artefact(own, "manifest.json") == phase.manifest
    notice = orjson.loads(artefact(own, "notice.json"))
    assert (notice["committedAt"], notice["publishedAt"]) == (phase.fields["committedAt"], phase.published_at)
    assert orjson.loads(artefact(own, "replaced-1.json")) == replaced
    (event,) = events(own)
    assert event["data"]["manifestHash"] == phase.manifest_hash


def result_of(runtime: Runtime, phase: PhaseRecord, folder: Path) -> str:
    """The hash of what its manifest would have drawn, by the signature of its own round."""
    for name in ("leaves.txt", "strikes.txt"):
        (folder / name).write_bytes(artefact(runtime, name))
    (folder / "manifest.json").write_bytes(phase.manifest)
    signature = signature_of(round_of(phase.manifest))
    (folder / "seed.json").write_bytes(seed_of(phase.manifest, signature))
    made = compute(folder, None, folder, engine=Engine(folder / "scratch", threads=1, memory_mib=256))
    return made.result_hash


def test_of_a_manifest_that_is_replaced_when_its_round_is_out_the_other_result_is_counted(
    own: Runtime, clock: Clock, tmp_path: Path
) -> None:
    before = commit(own, clock, dies_at("draw.after_commit"))
    clock.at += 2 * HOURS
    *_, last = draw(own, stop=Waiting(clock)).steps()
    assert (last.name, last.state) == ("publish", "awaiting")
    record = record_of(own)
    (other,) = record.latest.recommitted
    assert (other["k"], other["round"]) == (1, round_of(before.manifest))
    assert (other["manifestHash"], len(other["resultHash"])) == (before.manifest_hash, 64)
    assert other["resultHash"] != record.latest.result_hash
    assert other["resultHash"] == result_of(own, before, tmp_path)
    assert 0 < other["differ"] <= 20
    assert not record.latest.published_late
    assert set(record.latest.signatures) == {
        str(round_of(each)) for each in (before.manifest, record.latest.manifest)
    }
    assert replay_of(own).passed


def test_a_manifest_that_was_public_in_time_stays_although_its_run_died_before_it_knew(
    own: Runtime, clock: Clock
) -> None:
    before = commit(own, clock, dies_at("draw.after_manifest"))
    assert before.published_at is None
    # The store remembers when it took the manifest; its clock is the real one, long before this test's.
    clock.at += 2 * HOURS
    after = commit(own, clock)
    assert (after.manifest, after.published_at) == (before.manifest, iso(START))
    assert not after.replaced and not after.published_late


def store_ahead(runtime: Runtime, clock: Clock, seconds: float) -> None:
    """The store's clock is so far ahead of the draw's, which is slow, or was set back."""
    look = runtime.objects.get_tagged

    def read(key: str) -> Tagged | None:
        found = look(key)
        return None if found is None else found._replace(at=clock.at + seconds)

    runtime.objects.get_tagged = read  # type: ignore[method-assign]


@pytest.mark.parametrize("step", ["draw.after_commit", "draw.after_manifest"])
def test_with_a_clock_that_was_set_back_no_manifest_becomes_public_in_time_that_did_not(
    own: Runtime, clock: Clock, step: str
) -> None:
    before = commit(own, clock, dies_at(step))
    store_ahead(own, clock, 2 * HOURS)
    after = commit(own, clock, dies_at("draw.after_notice"))
    late = iso(START + 2 * HOURS)
    if after.manifest == before.manifest:
        assert after.published_at == late and after.published_late
    # It makes way for one whose round comes long after that.
    assert commit(own, clock).replaced[0]["publishedAt"] == late
    assert not commit(own, clock).published_late


def test_a_manifest_that_was_public_before_its_round_stays_when_the_round_is_out_and_is_late(
    own: Runtime, clock: Clock
) -> None:
    slow_store(own, clock, 120.0)
    before = commit(own, clock, dies_at("draw.after_notice"))
    assert before.published_at == iso(START + 120)
    clock.at += 2 * HOURS
    after = commit(own, clock)
    assert after.manifest == before.manifest and not after.replaced
    assert after.published_late
    assert artefact(own, "notice.json") == after.notice


def test_each_manifest_that_makes_way_is_kept_and_counted(own: Runtime, clock: Clock) -> None:
    first = commit(own, clock, dies_at("draw.after_commit"))
    clock.at += HOURS
    second = commit(own, clock, dies_at("draw.after_replacement"))
    clock.at += HOURS
    third = commit(own, clock)
    assert [each["manifest"].encode() for each in third.replaced] == [first.manifest, second.manifest]
    for k, each in enumerate(third.replaced, 1):
        assert orjson.loads(artefact(own, f"replaced-{k}.json")) == each
    assert draw(own, stop=Waiting(clock)).commit().facts["replaced"] == 2


def test_no_manifest_is_replaced_while_the_store_is_unavailable(own: Runtime, clock: Clock) -> None:
    commit(own, clock, dies_at("draw.after_commit"))
    clock.at += HOURS
    look = own.objects.get_tagged

    def unavailable(_key: str) -> Any:
        raise Died

    own.objects.get_tagged = unavailable  # type: ignore[method-assign]
    assert not commit(own, clock).replaced
    own.objects.get_tagged = look  # type: ignore[method-assign]
    assert len(commit(own, clock).replaced) == 1


@pytest.mark.parametrize("step", ["draw.after_commit", "draw.after_replacement"])
def test_the_manifest_of_another_writer_is_not_overwritten(own: Runtime, clock: Clock, step: str) -> None:
    if step == "draw.after_replacement":
        commit(own, clock, dies_at("draw.after_commit"))
        clock.at += HOURS
    commit(own, clock, dies_at(step))
    own.objects.put_bytes(public_key(CAMPAIGN, 1, "manifest.json"), b"{}")
    with pytest.raises(InputDiffers, match=r"manifest\.json"):
        commit(own, clock)
    assert artefact(own, "manifest.json") == b"{}"
    assert record_of(own).latest.published_at is None


def test_a_manifest_written_between_the_read_and_the_write_is_not_overwritten(
    own: Runtime, clock: Clock
) -> None:
    commit(own, clock, dies_at("draw.after_commit"))
    put = own.objects.put_over

    def late(key: str, data: bytes, tag: str | None) -> str | None:
        if not key.endswith("/manifest.json"):
            return put(key, data, tag)
        own.objects.put_over = put  # type: ignore[method-assign]
        own.objects.put_bytes(key, b"{}")
        return put(key, data, tag)

    own.objects.put_over = late  # type: ignore[method-assign]
    with pytest.raises(InputDiffers, match=r"manifest\.json"):
        commit(own, clock)
    assert artefact(own, "manifest.json") == b"{}"


def test_a_manifest_that_is_in_the_log_too_late_is_replaced_although_the_store_had_it_in_time(
    own: Runtime, clock: Clock
) -> None:
    before = commit(own, clock, dies_at("draw.after_commit"))
    # As a run that died between the store and the log.
    own.objects.put_over(public_key(CAMPAIGN, 1, "manifest.json"), before.manifest, None)
    clock.at += 300
    after = commit(own, clock)
    assert [each["manifest"].encode() for each in after.replaced] == [before.manifest]
    assert after.logged_at == iso(START + 300) and not after.published_late
    found = follow(in_bucket(own.objects), now=clock())
    assert [leaf.kind for _, leaf in found.leaves] == ["manifest", "replaced", "manifest", "notice"]
    assert not found.findings
