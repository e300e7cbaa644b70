"""Following a log from its files: what everybody can verify, and which draws are not accounted for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairdraw.errors import DrawError, UsageError
from fairdraw.log.follow import FollowedLog, follow
from fairdraw.log.http import HttpAnswer, NoAnswer
from fairdraw.log.leaves import Kind, kept_path
from fairdraw.log.note import COSIGNATURE, Checkpoint, Note
from fairdraw.log.parts import log_parts
from fairdraw.log.place import Place as follow_place
from fairdraw.log.place import at_place
from fairdraw.log.trust import LogKeys, Quorum, Trust
from fairdraw.maths.beside import Annulled, ReplacedManifest
from fairdraw.maths.files import sha256_hex
from fairdraw.maths.manifest import Manifest, ManifestSeedSource, MarketTerms
from fairdraw.maths.merkle import TreeHash, leaf_hash, verify_proof
from fairdraw.maths.opened import Amended, Opened, opened_name
from fairdraw.terms import QUICKNET, iso, seconds
from regworkers_core.selection.public.public_log import PublicLog
from tests.selection.public.fakes import NOW, ORIGIN, Bucket, cosigner, hash_of, log_on, witnesses
from tests.selection.public.test_public_log import Cosigns
from tests.support.in_memory import MemorySecrets
from tests.support.waiting import Clock

DAY = 86_400.0
EMPTY = sha256_hex(b"")


def manifest(
    campaign: str = "summer", *, round_at: float = NOW + 700, phase: int = 1, refs: Sequence[str] = ()
) -> bytes:
    """Its round is signed at `round_at`, at most three seconds before."""
    lines = leaves_of(refs)
    tree = TreeHash()
    for line in lines:
        tree.add(leaf_hash(line))
    number = int(round_at - QUICKNET.genesis) // QUICKNET.period + 1
    return Manifest(
        as_of=iso(NOW),
        campaign_id=campaign,
        count=len(lines),
        draw_id=campaign,
        markets=(MarketTerms("berlin", 1, ()),),
        phase=phase,
        previous=None if phase == 1 else {"manifestHash": hash_of("m"), "resultHash": hash_of("r")},
        registrations=None,
        root=tree.root().hex(),
        seed_source=ManifestSeedSource(QUICKNET.hash, number),
        strikes_hash=EMPTY,
        strikes_root=EMPTY,
        waitlist_size=None,
        wins_per_unit=1,
    ).to_bytes()


def leaves_of(refs: Sequence[str]) -> list[bytes]:
    return [f"{ref}|{ref}|1||berlin".encode() for ref in refs]


def opened(campaign: str = "summer", *, opens: float = -9.0, closes: float = 0.0, **given: Any) -> Opened:
    """`opens` and `closes` are in seconds after NOW."""
    fields: dict[str, Any] = {
        "campaign_id": campaign,
        "caseless": False,
        "chain": QUICKNET.hash,
        "closes_at": iso(NOW + closes),
        "code_key": None,
        "eligibility": {},
        "event_id": None,
        "issuer_keys": (),
        "markets": (MarketTerms("berlin", 1, ()),),
        "name": campaign.capitalize(),
        "opens_at": iso(NOW + opens),
        "registration": False,
        "unit_key_hash": hash_of("unit key"),
        "waitlist_size": None,
        "wins_per_unit": 1,
    }
    return Opened(**{**fields, **given})


def amended(before: Opened, **changes: Any) -> Amended:
    fields = {each.name: getattr(before, each.name) for each in dataclasses.fields(Opened)}
    return Amended(**{**fields, **changes}, previous=before.hash, reason="x")


class Place:
    """A log with the files of draws beside it."""

    def __init__(self, **options: Any) -> None:
        self.bucket, self.secrets, self.clock = Bucket(), MemorySecrets(), Clock(NOW)
        self.log: PublicLog = log_on(self.bucket, self.secrets, clock=self.clock, **options)

    def read(self, path: str) -> bytes | None:
        stored = self.bucket.get_tagged(path)
        return None if stored is None else stored.data

    def put(self, name: str, data: bytes, campaign: str = "summer", phase: int = 1) -> str:
        self.bucket.put_bytes(f"draws/{campaign}/phase-{phase}/{name}", data)
        return sha256_hex(data)

    def leaf(self, kind: Kind, hash_: str, campaign: str = "summer", phase: int = 1) -> None:
        self.log.append(kind, campaign, phase, hash_)

    def open(self, *files: Opened) -> None:
        """Log the record of a campaign."""
        for number, each in enumerate(files):
            self.record(each, number)

    def record(self, file: Opened, number: int = 0) -> None:
        self.bucket.put_bytes(f"draws/{file.campaign_id}/{opened_name(number)}", file.to_bytes())
        self.leaf(Kind.AMENDED if number else Kind.OPENED, file.hash, file.campaign_id, number)

    def commit(self, data: bytes, campaign: str = "summer", phase: int = 1) -> None:
        self.put("strikes.txt", b"", campaign, phase)
        self.leaf(Kind.MANIFEST, self.put("manifest.json", data, campaign, phase), campaign, phase)

    def result(self, campaign: str = "summer", phase: int = 1) -> None:
        said = self.put("summary.json", b"summary.json", campaign, phase)
        self.leaf(Kind.RESULT, said, campaign, phase)

    def annul(self, campaign: str = "summer", phase: int = 1) -> None:
        said = Annulled("2026-09-21T12:00:00.000Z", campaign, None, phase, "a technical fault").to_bytes()
        self.leaf(Kind.ANNULLED, self.put("annulled.json", said, campaign, phase), campaign, phase)

    def draw(self, campaign: str = "summer", **terms: Any) -> None:
        """A whole draw, with its list."""
        self.put(
            "leaves.txt", b"".join(b"%s\n" % line for line in leaves_of(terms.get("refs", ()))), campaign
        )
        self.commit(manifest(campaign, **terms), campaign)
        self.result(campaign)

    def codes(self, number: int, *lines: str) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        self.leaf(Kind.CODES, self.put(f"codes-{number}.txt", data))

    def follow(self, days: float = 0.0, **options: Any) -> FollowedLog:
        return follow(follow_place.of(self.read), now=NOW + days * DAY, **options)

    def findings(self, days: float = 0.0, **options: Any) -> Sequence[str]:
        return self.follow(days, **options).findings


def witnessed(needed: int = 1, number: int = 1) -> tuple[Place, Cosigns]:
    """A log whose witnesses have a clock of their own, and the operator one that can lie."""
    witness = Cosigns()
    witness.now = NOW
    return Place(by=witnesses(witness, needed=needed, number=number)), witness


def test_a_draw_with_a_result_is_accounted_for() -> None:
    place = Place()
    place.open(opened())
    place.commit(manifest())
    place.result()
    found = place.follow(days=9)
    assert (found.findings, found.remarks, found.without_result) == ((), (), ())
    assert (found.size, found.waiting) == (3, 0)
    assert [leaf.kind for _, leaf in found.leaves] == [Kind.OPENED, Kind.MANIFEST, Kind.RESULT]
    assert found.keys == tuple(map(str, place.log.verifier_keys()))


def test_a_manifest_without_a_result_a_day_after_its_round_is_found() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 2 * DAY))
    assert not place.findings(days=2.9)
    [finding] = place.findings(days=3.1)
    assert "summer, phase 1: neither a result nor an annulment" in finding
    place.leaf(Kind.ANNULLED, hash_of("no file"))
    assert ["annulled.json is not published" in each for each in place.findings(days=9)] == [True, False]


@pytest.mark.parametrize("dated", [9999, 2027])
def test_a_draw_that_is_withheld_is_found_whatever_time_its_leaf_says(dated: int) -> None:
    place, _ = witnessed()
    place.draw()
    # The operator's clock.
    place.clock.now = seconds(f"{dated}-01-01T00:00:00Z") or 0.0
    place.commit(manifest(phase=2), phase=2)
    findings = place.findings(days=2)
    assert any("phase 2: neither a result nor an annulment, a day after" in each for each in findings)
    assert any(f"(manifest) says {dated}-01-01" in each for each in findings)
    bare = Place()
    bare.clock.now = place.clock.now
    bare.commit(manifest())
    assert any(f"says {dated}-01-01" in each for each in bare.findings(days=2)), "without witnesses"


def test_a_leaf_may_say_as_much_later_as_clocks_differ() -> None:
    for seconds_later, found in ((60.0, []), (61.0, ["2026-09-21T14:14:21.000Z, and was in the log at"])):
        place, _ = witnessed()
        place.clock.now = NOW + seconds_later
        place.commit(manifest(round_at=NOW + 5_000))
        assert [text in each for each in place.findings(days=0.1) for text in found] == [True] * len(found)
        assert bool(place.findings(days=0.1)) is bool(found)


def test_without_its_file_a_manifest_is_due_a_day_after_its_leaf() -> None:
    place = Place()
    place.commit(manifest("spring"), "spring")
    place.leaf(Kind.MANIFEST, hash_of("not published"), "autumn")
    assert place.findings(days=0.9) == (
        "autumn, phase 1: manifest.json is not published",
        "autumn, phase 1: strikes.txt is not published: whom this phase struck cannot be read",
    )
    assert len(place.findings(days=1.1)) == 4
    assert len(place.findings(days=1.1, campaign_id="spring")) == 1


def test_a_top_up_without_a_result_is_found() -> None:
    place = Place()
    place.commit(manifest())
    place.result()
    place.commit(manifest(phase=2), phase=2)
    [finding] = place.findings(days=2)
    assert "summer, phase 2" in finding


def test_a_manifest_that_was_logged_too_late_for_its_round_is_found() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 597))
    [finding] = place.findings()
    assert "less than 600 s before its round" in finding


def test_the_lead_of_a_trust_file_is_what_counts() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 700))
    assert not place.findings()
    [finding] = place.findings(trust=Trust({QUICKNET.hash: 900}))
    assert "less than 900 s before its round" in finding


def test_a_round_of_a_far_day_is_found() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 7 * DAY - 3))
    assert not place.findings()
    for far in (7 * DAY + 4, 7_600 * 365 * DAY):
        other = Place()
        other.commit(manifest(round_at=NOW + far))
        [finding] = other.findings()
        assert "is more than 7 days after its manifest" in finding


def test_a_published_manifest_that_is_not_the_logged_one_is_found() -> None:
    place = Place()
    place.commit(manifest())
    place.put("manifest.json", manifest("winter"))
    assert place.findings(days=0.5) == ("summer, phase 1: manifest.json is not the one in the log",)


def test_strikes_that_are_not_published_are_found_once_their_leaf_is_an_hour_old() -> None:
    place = Place()
    place.draw()
    place.bucket.delete("draws/summer/phase-1/strikes.txt")
    assert not place.findings(days=0.03)
    [finding] = place.findings(days=0.05)
    assert finding.startswith("summer, phase 1: strikes.txt is not published")


def test_a_result_that_was_logged_before_its_manifest_is_found() -> None:
    place = Place()
    place.draw()
    place.result(phase=2)
    place.commit(manifest(phase=2), phase=2)
    assert place.findings(days=0.5) == ("summer, phase 2: a result without a manifest before it",)


# Annulments


def test_an_annulment_before_the_round_is_accounted_for_and_shown() -> None:
    place = Place()
    place.open(opened())
    place.commit(manifest())
    place.annul()
    found = place.follow(days=9)
    assert (found.findings, found.annulled) == ((), ("summer",))
    assert [(each.name, each.annulled) for each in found.without_result] == [("Summer", True)]


def test_an_annulment_after_the_round_is_found_by_the_time_of_the_witnesses() -> None:
    place, witness = witnessed()
    place.commit(manifest())
    witness.now = NOW + 800
    place.annul()
    [finding] = place.findings(days=0.1)
    assert "after its round" in finding and "could know the result" in finding


def test_an_annulment_of_a_later_phase_is_found_always() -> None:
    place = Place()
    place.draw()
    place.commit(manifest(phase=2), phase=2)
    place.annul(phase=2)
    [finding] = place.findings(days=0.1)
    assert "phase 2: annulled when every rank was known" in finding


# The record of a campaign


def test_a_campaign_that_opened_and_is_forgotten_is_found_and_shown_for_every_campaign() -> None:
    place = Place()
    place.open(opened(closes=DAY))
    place.draw("winter")
    assert not place.findings(days=7.9)
    [finding] = place.findings(days=8.1)
    assert finding.startswith("summer, opened, closed at") and "neither drawn nor annulled in time" in finding
    found = place.follow(days=8.1, campaign_id="winter")
    assert not found.findings
    assert [(each.campaign_id, each.name) for each in found.without_result] == [("summer", "Summer")]
    # One that its operator annuls when the result could be known is not annulled in time.
    place.commit(manifest())
    place.clock.now = NOW + 3 * DAY
    place.annul()
    assert any("neither drawn nor annulled in time" in each for each in place.findings(days=8.1))


def test_closes_at_cannot_be_put_off_when_it_is_over() -> None:
    first = opened(closes=600.0)
    for after, found in ((500.0, []), (700.0, ["amended-1.json: closesAt was changed at"])):
        place, witness = witnessed()
        place.record(first)
        witness.now = NOW + after
        place.record(amended(first, closes_at=iso(NOW + 30 * DAY)), 1)
        findings = place.findings(days=0.1)
        assert [text in each for each, text in zip(findings, found, strict=True)] == [True] * len(found)
        assert bool(place.findings(days=8)) is bool(found), "the end that counts is the one in time"


def test_a_campaign_that_was_logged_late_or_never_is_said() -> None:
    for after, found in (
        (591, []),
        (592, ["opened.json: in the log at 2026-09-21T14:23:12.000Z, more than 10"]),
    ):
        place, witness = witnessed()
        witness.now = NOW + after
        place.record(opened(closes=DAY))
        assert [text in each for each, text in zip(place.findings(days=0.1), found, strict=True)] == [
            True
        ] * len(found)
    place = Place()
    place.draw()
    said = place.follow(days=2)
    assert not said.findings
    assert said.remarks == ("summer: no leaf says when it opened, for which event and with which terms",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"markets": (MarketTerms("berlin", 2, ()),)}, "seats of berlin: 1, opened with 2"),
        ({"waitlist_size": 3}, "waiting list: no limit, opened with 3"),
        ({"chain": hash_of("c")}, "seedSource.chain: the campaign opened with"),
        ({"markets": (MarketTerms("bern", 1, ()),)}, "markets: the campaign opened with"),
    ],
)
def test_a_draw_by_other_terms_than_the_campaign_opened_with_is_found(
    change: dict[str, Any], said: str
) -> None:
    place = Place()
    place.open(opened(**change))
    place.draw()
    [finding] = place.findings(days=0.1)
    assert finding.startswith("summer, ") and said in finding


def test_an_amendment_after_the_manifest_binds_nothing() -> None:
    first = opened(markets=(MarketTerms("berlin", 2, ()),))
    place = Place()
    place.open(first)
    place.draw()
    place.record(amended(first, markets=(MarketTerms("berlin", 1, ()),)), 1)
    assert place.findings(days=0.1) == (
        "summer, amended-1.json: in the log after the manifest, so it binds nothing",
        "summer, seats of berlin: 1, opened with 2",
    )


def test_a_record_that_has_a_gap_two_versions_or_other_files_is_found() -> None:
    first = opened(closes=DAY)
    place = Place()
    place.record(first)
    place.record(amended(first, name="Other"), 2)
    assert ["amended-2.json where amended-1.json is due" in each for each in place.findings()] == [True]
    place = Place()
    place.record(first)
    place.record(opened(closes=2 * DAY))
    due, changed = place.findings()
    assert "opened.json where amended-1.json is due" in due and "opened.json is not the one" in changed
    place = Place()
    place.record(first)
    place.bucket.put_bytes("draws/summer/opened.json", opened(closes=2 * DAY).to_bytes())
    for days in (0, 0.5):
        assert place.findings(days) == ("summer, opened.json is not the one in the log",)
    place = Place()
    place.record(first)
    place.record(amended(opened(closes=2 * DAY)), 1)
    assert ["previous" in each for each in place.findings()] == [True]


# Several campaigns


def test_many_campaigns_with_one_list_are_found_whatever_becomes_of_them() -> None:
    place = Place()
    for number, campaign in enumerate(("a", "b", "c")):
        place.draw(campaign, refs=("x", "y"), round_at=NOW + 700 + number)
    one = "a and b and c: one list: drawn more than once, so the operator could choose among the results"
    assert place.findings(days=2) == (one,)
    assert place.findings(days=2, campaign_id="b") == (one,)
    assert not place.findings(days=2, campaign_id="d")
    # Annulled after the round, with results that are never published.
    place, witness = witnessed()
    place.draw("a", refs=("x", "y"))
    place.commit(manifest("b", refs=("x", "y")), "b")
    witness.now = NOW + 800
    place.annul("b")
    findings = place.findings(days=2, campaign_id="a")
    assert findings == (
        "a and b: one list: drawn more than once, so the operator could choose among the results",
    )


def test_lists_that_share_entries_are_found() -> None:
    place = Place()
    place.draw("a", refs=("u", "v", "x"))
    place.draw("b", refs=("v", "x", "z"))
    place.draw("c", refs=("w",))
    assert place.findings(days=2) == ("a and b: 2 entries are in the lists of all of these",)
    place.put("leaves.txt", b"y|y|1||berlin\n", "b")
    assert place.findings(days=2) == ("b: leaves.txt is not the list of its manifest",)
    place.bucket.delete("draws/b/phase-1/leaves.txt")
    found = place.follow(days=2)
    assert not found.findings and any("b: leaves.txt is not published" in each for each in found.remarks)


def test_campaigns_that_name_no_event_are_said_where_another_one_opened() -> None:
    for events, said in (
        ((None,), []),
        (("tour", "gala"), []),
        ((None, "tour"), ["1 of 2 opened campaigns name no event (a)"]),
        ((None, "tour", None), ["2 of 3 opened campaigns name no event (a, c)"]),
    ):
        place = Place()
        for campaign, event in zip("abc", events, strict=False):
            place.open(opened(campaign, event_id=event))
        for chosen in (None, "a"):
            found = place.follow(campaign_id=chosen)
            assert not found.findings and [each.partition(":")[0] for each in found.remarks] == said


def test_campaigns_of_one_event_that_are_open_at_the_same_time_are_found() -> None:
    for opens, event, found in ((599.0, "tour", True), (600.0, "tour", False), (0.0, "gala", False)):
        place = Place()
        place.open(opened("a", event_id="tour", closes=600.0))
        place.open(opened("b", event_id=event, opens=opens, closes=opens + 600.0))
        wanted = ("a and b: open at the same time for one event, tour",) if found else ()
        assert place.findings() == wanted
    # An amendment does not undo that it was open.
    place = Place()
    first = opened("a", event_id="tour", closes=DAY)
    place.open(first)
    place.open(opened("b", event_id="tour", opens=100.0, closes=700.0))
    place.clock.now = NOW + 500
    place.record(amended(first, closes_at=iso(NOW + 1)), 1)
    assert place.findings(days=0.5) == ("a and b: open at the same time for one event, tour",)


# Witnesses that are asked


def monitored(place: Place, **answers: HttpAnswer) -> FollowedLog:
    """The log as it is followed with three witnesses, of which those in `answers` have an address."""
    keys = [cosigner(number).verifier(COSIGNATURE) for number in (1, 2, 3)]
    trust = Trust(
        keys=LogKeys((*place.log.verifier_keys(),), Quorum(2, (*keys,))),
        addresses={key: f"http://{name}" for key, name in zip(keys, answers, strict=False)},
    )
    asked: list[str] = []

    def get(url: str) -> HttpAnswer:
        asked.append(url)
        answer = answers[url.split("/")[2]]
        if answer.status == 0:
            raise NoAnswer("TimeoutError")
        return answer

    found = place.follow(trust=trust, get=get)
    assert asked == [f"http://{name}/{sha256_hex(ORIGIN.encode())}/checkpoint" for name in answers]
    return found


def last_signed(place: Place, by: int) -> HttpAnswer:
    note = Note.parse(place.read("log/checkpoint") or b"")
    return HttpAnswer(200, str(note.with_signatures(cosigner(by).cosign(note.text, int(NOW)))).encode())


def test_witnesses_say_what_they_signed_last_and_those_without_an_address_are_not_asked() -> None:
    place, _ = witnessed(2, 3)
    place.open(opened())
    first = last_signed(place, 1)
    place.draw()
    found = monitored(place, w1=first, w2=HttpAnswer(0, b""))
    assert not found.findings
    assert [each.text for each in found.asked] == [
        "signed the same first 1 leaves",
        "no answer: TimeoutError",
        "not asked: its address is not known",
    ]
    note = Note.parse(place.read("log/checkpoint") or b"")
    for answer in (
        HttpAnswer(404, b""),
        HttpAnswer(200, str(Note(note.text, note.signatures[:1])).encode()),
        HttpAnswer(200, place.read("log/keys.json") or b""),
    ):
        assert monitored(place, w1=answer).asked[0].text.startswith("no answer: ")


def test_a_witness_that_signed_another_history_shows_that_the_view_is_split() -> None:
    place, _ = witnessed(2, 3)
    other, _ = witnessed(2, 3)
    other.secrets = place.secrets
    other.log = log_on(other.bucket, other.secrets, by=witnesses(Cosigns(), needed=2, number=3))
    place.open(opened())
    other.open(opened("winter"))
    found = monitored(place, w1=last_signed(other, 1))
    assert found.findings == (
        "witness.example/w1 signed other first 1 leaves: two people are shown two logs",
    )
    place.draw()
    behind = monitored(other, w1=last_signed(place, 1))
    assert "signed 3 leaves, and only 1 are here" in behind.findings[0]


def test_a_quorum_that_two_disjoint_sets_meet_is_said() -> None:
    place, _ = witnessed(2, 3)
    place.open(opened())
    keys = tuple(cosigner(number).verifier(COSIGNATURE) for number in (1, 2))
    trust = Trust(keys=LogKeys((*place.log.verifier_keys(),), Quorum(1, keys)))
    assert [
        "two sets of witnesses that share none" in each for each in place.follow(trust=trust).remarks
    ] == [True]


def replaced(before: bytes) -> bytes:
    at = "2026-09-21T12:00:00.000Z"
    return ReplacedManifest(at, before.decode(), None, at).to_bytes()


def test_each_replaced_manifest_is_in_a_file_that_is_the_logged_one() -> None:
    first, second = manifest(round_at=NOW + 700), manifest(round_at=NOW + 4_000)
    place = Place()
    place.commit(first)
    said = replaced(first)
    place.leaf(Kind.REPLACED, place.put("replaced-1.json", said))
    place.commit(second)
    place.result()
    assert not place.findings(days=0.5)
    place.put("replaced-1.json", said + b" ")
    for days in (0, 0.5):
        assert place.findings(days) == ("summer, phase 1: replaced-1.json is not the one in the log",)
    place.bucket.delete("draws/summer/phase-1/replaced-1.json")
    assert place.findings(days=0.5) == ("summer, phase 1: replaced-1.json is not published",)


def test_a_replaced_manifest_may_stand_for_an_hour_in_the_place_of_the_next_one_and_no_other_file() -> None:
    first, second = manifest(round_at=NOW + 700), manifest(round_at=NOW + 4_000)
    place = Place()
    place.commit(first)
    place.leaf(Kind.REPLACED, place.put("replaced-1.json", replaced(first)))
    place.leaf(Kind.MANIFEST, sha256_hex(second))
    assert not place.findings()
    differs = "summer, phase 1: manifest.json is not the one in the log"
    assert differs in place.findings(days=0.5)
    place.put("manifest.json", manifest(round_at=NOW + 900))
    assert differs in place.findings()


def test_a_manifest_that_was_replaced_by_more_than_another_round_is_found() -> None:
    place = Place()
    place.commit(manifest(round_at=NOW + 700))
    place.leaf(Kind.REPLACED, place.put("replaced-1.json", replaced(manifest("winter", round_at=NOW + 700))))
    place.commit(manifest(round_at=NOW + 4_000))
    assert place.findings() == (
        "summer, phase 1: replaced-1.json: more than seedSource.round differs from manifest.json",
        "summer, phase 1: 2 manifests, and only 0 of them are said to be replaced",
    )
    other = Place()
    seats = manifest(round_at=NOW + 700).replace(b'"capacity":1', b'"capacity":2')
    other.commit(seats)
    other.leaf(Kind.REPLACED, other.put("replaced-1.json", replaced(seats)))
    other.commit(manifest(round_at=NOW + 4_000))
    assert other.findings() == (
        "summer, phase 1: replaced-1.json: more than seedSource.round differs from manifest.json",
    )


@pytest.mark.parametrize(
    ("after", "later", "needed", "found"),
    [(0, 0, 1, False), (800, 0, 1, True), (0, 800, 1, False), (0, 800, 2, True)],
    ids=["in time", "late", "one of them late", "one that is needed late"],
)
def test_a_manifest_that_was_replaced_when_its_round_was_out_is_found(
    after: float, later: float, needed: int, found: bool
) -> None:
    witness = Cosigns()
    place = Place(by=witnesses(witness, needed=needed, number=2))
    first = manifest(round_at=NOW + 700)
    place.commit(first)
    # Leaves have the time that the operator gives them.
    witness.now, witness.later = NOW + after, later
    place.leaf(Kind.REPLACED, place.put("replaced-1.json", replaced(first)))
    place.commit(manifest(round_at=NOW + 4_000))
    assert ["the operator could know the result" in each for each in place.findings()] == [True] * found


def test_a_replaced_manifest_of_a_later_phase_is_found() -> None:
    place = Place()
    place.commit(manifest())
    place.result()
    place.commit(manifest(phase=2), phase=2)
    place.result(phase=2)
    assert not place.findings(days=0.5)
    place.leaf(Kind.REPLACED, hash_of("r"), phase=2)
    assert ["only that of phase 1" in each for each in place.findings()] == [True]


@pytest.mark.parametrize("name", ["summary.json", "notice.json"])
def test_a_published_file_that_is_changed_or_gone_is_found(name: str) -> None:
    place = Place()
    place.commit(manifest())
    place.leaf(Kind.NOTICE, place.put("notice.json", b"n"))
    place.result()
    assert not place.findings(days=2)
    path = f"draws/summer/phase-1/{name}"
    place.bucket.put_bytes(path, b"other")
    for days in (0, 2):
        assert place.findings(days) == (f"summer, phase 1: {name} is not the one in the log",)
    place.bucket.delete(path)
    assert place.findings(days=2) == (f"summer, phase 1: {name} is not published",)
    assert not place.findings(), "it may still come"


def test_a_logged_file_that_cannot_be_read_is_a_finding_and_hides_no_other() -> None:
    place = Place()
    place.leaf(Kind.MANIFEST, place.put("manifest.json", b"{"))
    place.commit(manifest("winter"), "winter")
    first, second = place.findings(days=2)[0], place.findings(days=2)[-1]
    assert first.startswith("summer, phase 1: ") and second.startswith("winter, phase 1: neither a result")


def test_a_second_notice_is_found() -> None:
    place = Place()
    place.draw()
    for text in (b"a", b"b"):
        place.leaf(Kind.NOTICE, place.put("notice.json", text))
    assert place.findings(days=2) == ("summer, phase 1: 2 notices: fans may have read different ones",)


@pytest.mark.parametrize("named", [None, "a third key"])
def test_another_key_of_the_log_that_no_leaf_names_is_found(named: str | None) -> None:
    place, other = Place(), Place()
    for each in (place, other):
        each.leaf(Kind.CODES, hash_of("a"))
    if named:
        other.log.append(Kind.KEY, "", 0, hash_of(named))
    [finding] = other.findings(kept=place.read("log/checkpoint"))
    assert "has another key than the one that signed" in finding


def test_a_second_result_and_one_without_a_manifest_are_found() -> None:
    place = Place()
    place.result()
    place.leaf(Kind.RESULT, hash_of("another summary"))
    assert place.findings() == (
        "summer, phase 1: 2 results: another one was drawn",
        "summer, phase 1: a result without a manifest before it",
    )


def test_a_code_that_was_changed_and_codes_without_a_file_are_found() -> None:
    place = Place()
    place.codes(1, f"berlin|1|{hash_of('A')}")
    place.codes(2, f"berlin|1|{hash_of('B')}")
    place.codes(3, "berlin|1|secret")
    place.leaf(Kind.CODES, hash_of("no file"))
    assert place.findings(days=0.5) == (
        "summer, phase 1: codes-2.txt: the code of berlin|1 was changed after it was published",
        "summer, phase 1: codes-3.txt: line 1 is not market|position|digest",
        f"summer, phase 1: no file has the hash {hash_of('no file')} of the planned codes",
    )


@pytest.mark.parametrize("changed", [1, 2])
def test_changed_planned_codes_are_found_at_once_and_missing_ones_may_still_come(changed: int) -> None:
    place, lines = Place(), [f"berlin|{number}|{hash_of(str(number))}" for number in (1, 2)]
    place.codes(1, lines[0])
    place.codes(2, *lines)
    place.leaf(Kind.CODES, hash_of("to come"))
    assert not place.findings()
    logged = sha256_hex(place.read(f"draws/summer/phase-1/codes-{changed}.txt") or b"")
    place.put(f"codes-{changed}.txt", b"berlin|1|" + b"0" * 64 + b"\n")
    assert place.findings() == (f"summer, phase 1: no file has the hash {logged} of the planned codes",)


def test_planned_codes_are_in_order_and_each_has_one_place_in_one_phase() -> None:
    a, b = hash_of("A"), hash_of("B")
    for lines, found in (
        ((f"berlin|2|{a}", f"berlin|10|{b}"), None),
        ((f"berlin|10|{a}", f"berlin|2|{b}"), "line 2 does not follow the one before"),
        ((f"berlin|1|{a}", f"berlin|1|{a}"), "line 2 does not follow the one before"),
        ((f"berlin|1|{a}", f"berlin|2|{a}"), "berlin|2 and berlin|1 have the same code"),
        ((f"paris|1|{a}",), "market paris is not in the manifest"),
    ):
        place = Place()
        place.draw()
        place.codes(1, *lines)
        assert [found in each for each in place.findings() if found] == [True] * bool(found)
        assert bool(place.findings()) is bool(found)
    place = Place()
    place.draw()
    place.codes(1, f"berlin|1|{a}")
    place.commit(manifest(phase=2), phase=2)
    place.result(phase=2)
    data = f"berlin|1|{a}\n".encode()
    place.leaf(Kind.CODES, place.put("codes-1.txt", data, phase=2), phase=2)
    [finding] = place.findings()
    assert finding.startswith(
        "summer, phase 2: codes-1.txt: the code of berlin|1 was planned in phase 1 already"
    )


def test_codes_under_a_key_that_is_not_in_the_log_are_no_proof_and_that_is_said() -> None:
    for key, said in (("ab" * 96, []), (None, ["summer, phase 1: code key not in the log"])):
        place = Place()
        place.open(opened(code_key=key))
        place.draw()
        place.codes(1, f"berlin|1|{hash_of('A')}")
        found = place.follow()
        assert not found.findings
        assert [each.rpartition(":")[0] for each in found.remarks] == said


def test_a_rewritten_log_and_an_old_one_are_found_by_a_kept_checkpoint() -> None:
    place, other = Place(), Place()
    other.secrets = place.secrets
    other.log = log_on(other.bucket, other.secrets, clock=other.clock)
    place.leaf(Kind.CODES, hash_of("a"))
    first = place.read("log/checkpoint")
    place.leaf(Kind.CODES, hash_of("b"))
    kept = place.read("log/checkpoint")
    assert not place.findings(kept=first) and not place.findings(kept=kept)
    other.leaf(Kind.CODES, hash_of("a"))
    [finding] = other.findings(kept=kept)
    assert "1 leaves, an earlier checkpoint (signed by this log) had 2" in finding
    other.leaf(Kind.CODES, hash_of("c"))
    other.leaf(Kind.CODES, hash_of("d"))
    [finding] = other.findings(kept=kept)
    assert "the log was rewritten: its first 2 leaves" in finding
    with pytest.raises(UsageError, match="is not one"):
        other.findings(kept=b"a note")


def test_a_missing_and_a_changed_tile_are_found() -> None:
    place = Place()
    for number in range(257):
        place.leaf(Kind.CODES, hash_of(f"{number}"))
    place.bucket.delete("log/tile/0/001.p/1")
    place.bucket.put_bytes("log/tile/1/000.p/1", b"x" * 32)
    assert [finding.partition(":")[0] for finding in place.findings()] == [
        "tile/0/001.p/1 is missing",
        "tile/1/000.p/1 has other hashes than the entries",
    ]


@pytest.mark.parametrize(
    ("after", "later", "needed", "found"),
    [(90, 0, 1, False), (110, 0, 1, True), (90, 30, 1, False), (90, 30, 2, True)],
)
def test_a_manifest_that_witnesses_saw_too_late_is_found(
    after: float, later: float, needed: int, found: bool
) -> None:
    place, witness = witnessed(needed, 2)
    witness.now, witness.later = NOW + after, later
    # Leaves have the time that the operator gives them.
    place.commit(manifest(round_at=NOW + 700))
    late = ["less than 600 s before its round" in each for each in place.findings()]
    assert late == [True] * found


def test_the_time_of_a_leaf_is_that_of_the_first_checkpoint_with_enough_cosignatures() -> None:
    place, witness = witnessed(1, 2)
    place.commit(manifest(round_at=NOW + 700))
    witness.now = NOW + 110
    place.leaf(Kind.CODES, hash_of("codes"))
    # One of two signed in time; a reader who needs both does not know of the first checkpoint that the second one did.
    [key] = place.log.verifier_keys()
    path = f"log/{kept_path(1, key)}"
    note = Note.parse(place.read(path) or b"")
    place.bucket.put_bytes(path, str(Note(note.text, note.signatures[:2])).encode())
    by = [cosigner(number).verifier(COSIGNATURE) for number in (1, 2)]
    for need, found in ((1, 0), (2, 1)):
        trust = Trust(keys=LogKeys((key,), Quorum(need, (*by,))))
        late = [each for each in place.findings(trust=trust) if "less than 600 s" in each]
        assert len(late) == found


def test_a_commit_without_its_checkpoint_or_with_that_of_another_log_is_found() -> None:
    place, _ = witnessed()
    place.draw()
    [key] = place.log.verifier_keys()
    for size in (1, 2):
        place.bucket.delete(f"log/{kept_path(size, key)}")
    assert place.findings() == (
        "summer, phase 1: no checkpoint shows when enough witnesses saw its manifest",
    )
    part = log_parts(place.read)("summer", 1)
    assert part is not None and part["kept"] == []
    place.bucket.put_bytes(f"log/{kept_path(1, key)}", place.read("log/checkpoint") or b"")
    with pytest.raises(DrawError, match="checkpoint of these entries"):
        place.findings()


def test_too_few_cosignatures_are_found_and_leaves_that_wait_are_counted() -> None:
    witness = Cosigns()
    place = Place(by=witnesses(witness))
    place.leaf(Kind.CODES, hash_of("a"))
    witness.up = False
    place.leaf(Kind.CODES, hash_of("b"))
    found = place.follow()
    assert (found.findings, found.size, found.waiting) == ((), 1, 1)
    assert found.witnesses == {"witness.example/w1": "2026-09-21T14:13:20.000Z"}
    keys = LogKeys(
        tuple(place.log.verifier_keys()),
        Quorum(2, (cosigner(1).verifier(COSIGNATURE), cosigner(2).verifier(COSIGNATURE))),
    )
    assert place.findings(trust=Trust(keys=keys))[:1] == (
        "1 witnesses cosigned the checkpoint (needed: 2 of 2)",
    )


def test_other_keys_than_the_trusted_ones_prove_nothing() -> None:
    place = Place()
    place.leaf(Kind.CODES, hash_of("a"))
    with pytest.raises(DrawError, match="none of the log's keys"):
        place.findings(trust=Trust(keys=LogKeys((cosigner().verifier(),))))


def test_a_place_without_a_log_is_no_log() -> None:
    with pytest.raises(UsageError, match="there is no log"):
        Place().follow()


def test_a_folder_is_read_as_the_bucket(tmp_path: Path) -> None:
    place = Place()
    place.commit(manifest())
    for key, data in place.bucket.stored.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    assert follow(at_place(str(tmp_path)), now=NOW) == place.follow()
    with pytest.raises(UsageError, match="has no folder log"):
        at_place(str(tmp_path / "log"))
    found = at_place(str(tmp_path))
    for read in (found.read, found.digest):
        with pytest.raises(UsageError, match="Is a directory"):
            read("log")


# Receipts


def test_a_receipt_gets_the_leaves_of_its_phases_with_their_proofs_and_times() -> None:
    place, _ = witnessed(2, 3)
    place.leaf(Kind.CODES, hash_of("c"), "winter")
    first = opened(closes=DAY)
    place.record(first)
    place.commit(manifest())
    place.result()
    place.record(amended(first), 1)
    place.commit(manifest(phase=2), phase=2)
    part = log_parts(place.read)("summer", 1)
    assert part is not None
    assert part["checkpoint"].encode() == place.read("log/checkpoint")
    [key] = place.log.verifier_keys()
    names = [str(cosigner(number).verifier(COSIGNATURE)) for number in (1, 2, 3)]
    assert part["keys"] == {"log": [str(key)], "need": 2, "witnesses": names}
    assert [each["index"] for each in part["entries"]] == [1, 2, 3, 4]
    root = place.follow().root
    for each in part["entries"]:
        assert verify_proof(each["leaf"], each["index"], 6, each["proof"], root)
    assert [each["index"] for each in part["kept"]] == [1, 2, 4]
    for each in part["kept"]:
        size = each["index"] + 1
        assert each["checkpoint"].encode() == place.read(f"log/{kept_path(size, key)}")
        at = Checkpoint.parse(Note.parse(each["checkpoint"]).text).root.hex()
        line = next(entry["leaf"] for entry in part["entries"] if entry["index"] == each["index"])
        assert verify_proof(line, each["index"], size, each["proof"], at)


def test_a_receipt_of_a_draw_without_leaves_gets_none() -> None:
    assert log_parts(Place().read)("summer", 1) is None
    place = Place()
    place.leaf(Kind.CODES, hash_of("c"))
    assert log_parts(place.read)("summer", 1) is None
    place.commit(manifest())
    place.leaf(Kind.ANNULLED, hash_of("a"), phase=2)
    part = log_parts(place.read)("summer", 1)
    assert part is not None and len(part["entries"]) == 3
    assert part["kept"] == [], "without witnesses no checkpoint gives a time"
