"""The figures of a report against counting by hand, and its notes before the confirmation."""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.manifest import Manifest
from fairdraw.terms import QUICKNET_HASH
from regworkers_core.domain.reasons import UsageError
from regworkers_core.reporting import PLOT_BYTES, percent
from regworkers_core.reporting.figures import INK, figure, horizontal_bars
from regworkers_core.selection.report import notes as notes_of
from regworkers_core.selection.report.build import (
    DrawReport,
    build_report,
    html_page,
    images,
    measured,
    overview,
)
from regworkers_core.selection.report.inputs import ReportContext, ReportFiles
from regworkers_core.selection.report.notes import capacity_respected, win_rates_uniform
from tests.selection.report.world import Fan, Seats, World, by_lot, fans
from tests.support.beacon import OWN

MARKETS = {
    "east": Seats(30, (("access", 4), ("local", 10))),
    "north": Seats(40, (("local", 8),)),
    "south": Seats(25),
    "wide": Seats(90),
}


def crowd(count: int = 300) -> list[Fan]:
    """Fans with wishes, segments, weights, and some households of two."""
    rng = random.Random(7)
    made = []
    for n, fan in enumerate(fans(count, rng, list(MARKETS), choices=3)):
        segments = tuple(sorted(rng.sample(["access", "local"], rng.choice([0, 1, 1, 2]))))
        household = f"home{n // 2}" if n < 40 else ""
        weight = 1 if household else rng.choice([1, 1, 2, 5])
        wishes = tuple(market for market in fan.preferences if market != "wide" or n < 90)
        made.append(
            replace(fan, segments=segments, unit=household, weight=weight, preferences=wishes or ("south",))
        )
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    members = crowd()
    return World(
        tmp_path / "1",
        members,
        MARKETS,
        by_lot(3),
        waitlist=50,
        excluded={"NO_MARKET": 4, "INVALID_REF": 1},
        strikes=frozenset({members[5].ref, members[100].ref}),
    )


def report(world: World, context: ReportContext | None = None) -> DrawReport:
    return build_report(world.draw(), context, memory_mib=200)


def read(files: ReportFiles, context: ReportContext | None = None) -> DrawReport:
    """The report without the plots, which take the most time, and without the page."""
    return DrawReport(*measured(files, context or ReportContext(), memory_mib=200), {}, "")


def figures(world: World, context: ReportContext | None = None) -> DrawReport:
    return read(world.draw(), context)


def of_market(numbers: Any, market_id: str) -> dict[str, Any]:
    return next(market for market in numbers["markets"] if market["marketId"] == market_id)


def test_the_funnel_counts_every_entry_once(world: World) -> None:
    funnel = figures(world).numbers["funnel"]
    outcomes = Counter(outcome for _, _, outcome in world.result.values())
    assert funnel["outcomes"] == {name: outcomes[name] for name in funnel["outcomes"]}
    assert funnel["registered"] == 305 and funnel["eligible"] == 300
    assert funnel["reasons"] == {"NO_MARKET": 4, "INVALID_REF": 1} and funnel["excluded"] == 5
    assert funnel["candidates"] == sum(1 for _, rank, _ in world.result.values() if rank)
    left_out = sum(1 for ref in world.strikes if world.result[ref][1] == 0)
    assert outcomes["HOUSEHOLD_LIMIT"] == 20 - left_out and outcomes["STRUCK"] == 2
    assert funnel["addsUp"]


def test_a_result_with_an_entry_left_out_does_not_add_up(world: World) -> None:
    files = world.draw()
    loser = next(ref for ref, (_, _, outcome) in world.result.items() if outcome == "WAITLIST")
    world.result[loser] = ("", 0, "WAITLIST")
    world._tables()
    assert any("does not add up" in text for text in read(files).findings)


def test_markets_count_wishes_winners_and_cutoffs(world: World) -> None:
    numbers = figures(world).numbers
    for market_id, seats in MARKETS.items():
        market = of_market(numbers, market_id)
        winners = [fan for fan in world.fans if world.result[fan.ref][0] == market_id]
        assert market["seats"] == seats.capacity and market["winners"] == market["new"] == len(winners)
        assert market["firstChoice"] == sum(fan.preferences[0] == market_id for fan in world.fans)
        assert market["anyChoice"] == sum(market_id in fan.preferences for fan in world.fans)
        assert market["wonFirstChoice"] == sum(fan.preferences[0] == market_id for fan in winners)
        assert market["winRate"] == pytest.approx(len(winners) / market["anyChoice"])
    assert of_market(numbers, "wide")["openCutoffRank"] is None
    assert of_market(numbers, "south")["openCutoffRank"] == max(
        rank for market, rank, _ in world.result.values() if market == "south"
    )


def test_winners_of_reserves_and_of_open_seats_are_counted_as_allocated(world: World) -> None:
    numbers = figures(world).numbers
    segments = {fan.ref: fan.segments for fan in world.fans}
    ranks = {ref: rank for ref, (_, rank, _) in world.result.items()}
    by_reserve: Counter[str] = Counter()
    for market_id, seats in MARKETS.items():
        left = {ref: ranks[ref] for ref, (market, _, _) in world.result.items() if market == market_id}
        chosen: dict[str, int] = {}
        for segment, limit in seats.reserves:
            entitled = [ref for ref in sorted(left, key=ranks.__getitem__) if segment in segments[ref]][
                :limit
            ]
            chosen[segment] = len(entitled)
            left = {ref: rank for ref, rank in left.items() if ref not in entitled}
        market = of_market(numbers, market_id)
        assert market["admittedOpen"] == len(left)
        assert {r["segment"]: r["admitted"] for r in market["reserves"]} == chosen
        by_reserve.update(chosen)
    for row in numbers["segments"]:
        of_it = (row["group"],) if row["group"] != "no segment" else ()
        members = [
            fan.ref for fan in world.fans if set(of_it) <= set(fan.segments) and (of_it or not fan.segments)
        ]
        assert row["entries"] == len(members)
        assert row["candidates"] == sum(ranks[ref] > 0 and ref not in world.strikes for ref in members)
        assert row["winners"] == sum(world.result[ref][2] == "WINNER" for ref in members)
        assert row["byReserve"] == by_reserve[row["group"]]
        assert row["byReserve"] + row["byOther"] == row["winners"]


def test_preferences_show_which_choice_winners_got(world: World) -> None:
    places = figures(world).numbers["preferences"]
    got = Counter(
        fan.preferences.index(world.result[fan.ref][0]) + 1
        for fan in world.fans
        if world.result[fan.ref][2] == "WINNER"
    )
    assert {place["place"]: place["winners"] for place in places} == {n: got[n] for n in (1, 2, 3)}
    assert sum(place["share"] for place in places) == pytest.approx(1)


def test_a_household_has_its_greatest_weight_in_every_entry(tmp_path: Path) -> None:
    made = [
        replace(fan, unit=f"home{n // 2}", weight=4 if n % 2 else 1)
        for n, fan in enumerate(fans(200, random.Random(1)))
    ]
    numbers = figures(World(tmp_path, made, {"north": Seats(20)}, by_lot(1), wins_per_unit=2)).numbers
    assert [(row["group"], row["entries"]) for row in numbers["weights"]] == [("4", 200)]


def test_strangers_who_were_put_into_one_household_are_seen_by_how_it_fared(tmp_path: Path) -> None:
    made = fans(1000, random.Random(2))
    friends = {fan.ref for fan in random.Random(3).sample(made, 50)}
    strangers = [
        replace(fan, unit=f"home{n // 6}") for n, fan in enumerate(f for f in made if f.ref not in friends)
    ]
    alone = [fan for fan in made if fan.ref in friends]
    world = World(tmp_path, alone + strangers, {"north": Seats(100)}, by_lot(1))
    made_of = figures(world)
    numbers = made_of.numbers
    ours, theirs, rest = numbers["householdSizes"]
    assert (ours["group"], ours["entries"], ours["winners"]) == (
        "1", 50, sum(world.result[ref][2] == "WINNER" for ref in friends)
    )  # fmt: skip
    assert (theirs["group"], theirs["entries"], theirs["candidates"]) == ("6", 948, 158)
    assert (rest["group"], rest["entries"]) == ("all others (1)", 2)
    assert ours["winRate"] > 4 * theirs["winRate"] and theirs["winRate"] < 0.1
    # All who listed the market, not the 209 candidates.
    assert of_market(numbers, "north")["winRate"] == 100 / 1000
    # It is none of the order.
    assert numbers["audit"]["passed"]
    assert f"<td>{percent(ours['winRate'])}</td>" in html_page(numbers, {}, ReportContext())


def test_a_weight_and_a_segment_of_a_friend_are_seen_however_few_have_them(tmp_path: Path) -> None:
    made = fans(1000, random.Random(2))
    made[4] = replace(made[4], weight=64)
    made[7] = replace(made[7], segments=("crew",))
    seats = {"north": Seats(20, (("crew", 1),))}
    numbers = figures(World(tmp_path, made, seats, lambda fan: -fan.weight - len(fan.segments))).numbers
    for name in ("weights", "segments"):
        most, few = numbers[name]
        assert most["entries"] == 999 and most["winRate"] < 0.02, name
        assert (few["group"], few["entries"], few["winRate"]) == ("all others (1)", 1, 1.0)
    (reserve,) = numbers["reserves"]
    assert (reserve["segment"], reserve["seats"], reserve["admitted"]) == ("crew", 1, 1)
    assert "<td>crew</td>" in html_page(numbers, {}, ReportContext())


def test_a_top_up_is_compared_with_the_previous_phase(world: World, tmp_path: Path) -> None:
    world.draw()
    winners = [ref for ref, (_, _, outcome) in world.result.items() if outcome == "WINNER"]
    struck = world.strikes | {winners[0], winners[1]}
    more = {name: Seats(seats.capacity + 5) for name, seats in MARKETS.items()}
    more["south"] = Seats(30, (("local", 2),), (("local", 3),))
    second = world.next_phase(tmp_path / "2", more, struck)
    made = report(second, ReportContext(reason="a second night"))
    changes = made.numbers["topUp"]
    now = [ref for ref, (_, _, outcome) in second.result.items() if outcome == "WINNER"]
    assert changes["keptWinners"] == len(winners) - 2 and changes["lostWinners"] == changes["struck"] == 2
    assert changes["newWinners"] == len(set(now) - set(winners)) > 10
    assert changes["moved"] == 0
    assert sum(change["entries"] for change in changes["changes"]) == 300
    for market in made.numbers["markets"]:
        assert market["pinned"] + market["new"] == market["winners"]
    notes = "\n".join(note.text for note in made.notes)
    for said in (
        "a second night",
        "every rank was known when this phase was chosen: left to trust are its moment and the reason of each strike",
        "south reserves 2 seats for local; the later phases so far use 2 of the 3 that phase 1 declared",
        "2 winners and 0 others are struck, with the reason BOT",
    ):
        assert said in notes
    assert "Left to trust are the reason of each strike" in made.html
    assert "Changes since the previous phase" in made.html and "not upgraded" in made.html


@pytest.mark.parametrize(
    ("strikes", "says"),
    [
        (("BOT", 1, 1), "1 winner and 1 other are struck, with the reason BOT"),
        (("BOT", 0, 1200), "0 winners and 1,200 others are struck, with the reason BOT"),
        (
            ("UNCLAIMED", 1, 0),
            "1 winner of the previous phase did not claim the seat in time, which others get",
        ),
        (
            ("UNCLAIMED", 2, 0),
            "2 winners of the previous phase did not claim the seat in time, which others get",
        ),
    ],
)
def test_strikes_and_lapsed_seats_are_said_in_plain_words(strikes: tuple[str, int, int], says: str) -> None:
    said = notes_of._struck(dict(zip(("reason", "winners", "others"), strikes, strict=True)))
    assert said.startswith(says)


def test_a_winner_who_changed_the_market_is_a_finding(world: World, tmp_path: Path) -> None:
    world.draw()
    no_more = {market: Seats(seats.capacity) for market, seats in MARKETS.items()}
    second = world.next_phase(tmp_path / "2", no_more, world.strikes)
    files = second.draw()
    ref = next(ref for ref, (market, _, _) in second.result.items() if market == "south")
    second.result[ref] = ("wide", second.result[ref][1], "WINNER")
    second._tables()
    assert any("got another market" in text for text in read(files).findings)


def test_warnings_name_market_and_numbers(world: World) -> None:
    context = ReportContext(
        market_names={"north": "North Arena"}, codes={"east": 30, "north": 12, "south": 25}
    )
    made = figures(world, context)
    warnings = "\n".join(made.warnings)
    wide = of_market(made.numbers, "wide")
    assert f"wide is undersubscribed and leaves {wide['unfilled']} of 90 seats empty" in warnings
    assert "North Arena has 12 available codes for 40 new winners: import 28 more" in warnings
    assert f"wide has 0 available codes for {wide['winners']} new winners" in warnings
    assert "east" not in warnings and "south" not in warnings
    assert made.findings == ()


def test_an_unfilled_reserve_is_a_warning(tmp_path: Path) -> None:
    made = figures(
        World(tmp_path, fans(60, random.Random(1)), {"north": Seats(20, (("access", 5),))}, by_lot(1))
    )
    assert any("the reserve for access filled 0 of its 5 seats" in text for text in made.warnings)


def test_more_winners_than_seats_is_a_finding(world: World) -> None:
    files = world.draw()
    document = orjson.loads((files.artefacts / "manifest.json").read_bytes())
    document["markets"][2]["capacity"] = 24
    (files.artefacts / "manifest.json").write_bytes(orjson.dumps(document))
    assert "south has 25 winners for 24 seats" in read(files).findings


def test_a_round_of_the_public_beacon_needs_no_trust(world: World) -> None:
    world.seed_source = {"kind": "drand", "chain": QUICKNET_HASH, "round": 1234}
    made = figures(world)
    assert "public randomness" in made.numbers["seedSource"]["guarantee"]
    assert "1234" in made.numbers["seedSource"]["guarantee"]
    assert not any("seed source" in text for text in made.warnings)


def test_a_beacon_of_this_machine_is_a_warning(world: World) -> None:
    world.seed_source = {"kind": "drand", "chain": OWN.chain.hash, "round": 1234}
    made = figures(world, ReportContext(chain=OWN.chain, lead=5))
    assert any("a beacon of this machine: for trying out only" in text for text in made.warnings)
    assert "public randomness" not in made.numbers["seedSource"]["guarantee"]


def test_the_report_has_the_times_of_the_round_and_of_the_publication(world: World) -> None:
    world.seed_source = {"kind": "drand", "chain": QUICKNET_HASH, "round": 1000}
    files = world.draw()
    made = read(files, ReportContext(published_at="2023-08-23T15:40:00.000Z"))
    source = made.numbers["seedSource"]
    assert source["roundAt"] == "2023-08-23T15:59:24.000Z" and source["leadSeconds"] == 1164
    assert source["publishedAt"] == "2023-08-23T15:40:00.000Z"
    assert "signed at 2023-08-23T15:59:24.000Z (UTC)" in source["guarantee"]
    assert "public at 2023-08-23T15:40:00.000Z, 1,164 s before" in source["guarantee"]
    assert not [text for text in made.warnings if "round" in text]
    for public, late_by_a_second in (("15:49:24", False), ("15:49:25", True)):
        edge = read(files, ReportContext(published_at=f"2023-08-23T{public}.000Z"))
        assert any("at least 600 s" in text for text in edge.warnings) is late_by_a_second
    for public, said in (("15:58:24", "60 s before its round"), ("16:00:24", "60 s AFTER its round")):
        late = read(files, ReportContext(published_at=f"2023-08-23T{public}.000Z"))
        assert any(said in text for text in late.warnings)


def test_replaced_manifests_are_counted_and_so_are_the_outcomes_that_another_round_would_have_given(
    world: World,
) -> None:
    world.seed_source = {"kind": "drand", "chain": QUICKNET_HASH, "round": 1000}
    again = {"k": 1, "round": 900, "resultHash": "a" * 64, "differ": 1234}
    context = ReportContext(replaced=2, recommitted=[again])
    numbers, found = measured(world.draw(), context, memory_mib=200)
    assert numbers["seedSource"]["replaced"] == 2 and numbers["seedSource"]["recommitted"] == [again]
    assert any("the manifest replaced 2" in note.text for note in found)
    (warning,) = (note.text for note in found if note.level == "warning" and "after its round" in note.text)
    assert "1,234 entries another outcome" in warning
    page = html_page(numbers, {}, context)
    for shown in ("1,234 entries", "manifests replaced", "2023-08-23T15:59:24.000Z"):
        assert shown in page


def test_an_empty_campaign_has_a_report(tmp_path: Path) -> None:
    made = report(World(tmp_path, [], {"north": Seats(10)}, by_lot(1)))
    assert made.findings == () and made.numbers["funnel"]["registered"] == 0
    assert any("no entry is eligible" in text for text in made.warnings)
    assert of_market(made.numbers, "north")["winRate"] is None


def test_markets_without_seats_or_without_candidates_are_in_the_report(tmp_path: Path) -> None:
    made = figures(
        World(tmp_path, fans(50, random.Random(1)), {"north": Seats(0), "void": Seats(3)}, by_lot(1))
    )
    assert of_market(made.numbers, "north")["openCutoffRank"] == 0
    assert of_market(made.numbers, "void")["anyChoice"] == 0
    assert any("void is undersubscribed" in text for text in made.warnings)


@pytest.mark.usefixtures("pictures")
def test_the_page_is_self_contained_and_shows_no_fan(world: World) -> None:
    name = "Tour <script>alert(1)</script>"
    made = report(world, ReportContext(campaign_name=name, market_names={"north": "A & <b>B</b>"}, codes={}))
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', made.html)
    assert "<script" not in made.html and "<b>B</b>" not in made.html and "url(" not in made.html
    assert "prefers-color-scheme: dark" in made.html
    for fan in world.fans:
        assert fan.ref not in made.html and fan.entry_id not in made.html
    for value in made.numbers["hashes"].values():
        assert value in made.html
    assert "exclusions.parquet" in made.html and "no market" in made.html
    numbers = orjson.dumps(made.numbers).decode()
    assert not any(fan.ref in numbers or fan.entry_id in numbers for fan in world.fans)


@pytest.mark.usefixtures("pictures")
def test_every_plot_is_a_small_picture_and_fits_into_markdown(world: World) -> None:
    made = report(world)
    assert {"funnel", "markets", "win-rates", "preferences", "segments", "audit-registrationTime"} <= set(
        made.plots
    )
    for name, png in made.plots.items():
        assert len(png) < PLOT_BYTES, name
        with Image.open(io.BytesIO(png)) as image:
            assert image.width == 840
    assert all(text.startswith("![") and "](data:image/png;base64," in text for text in images(made).values())
    text = overview(made)
    assert "| registered | 305 |" in text and "| south | 25 |" in text and "Bias audit **passed**" in text
    assert "| – no market | 4 |" in text and "winners |" in text and "<td>no market</td>" in made.html
    assert not {"NO_MARKET", *made.numbers["funnel"]["outcomes"]} & {
        *re.findall(r"[A-Z_]{4,}", text + made.html)
    }


def test_an_audit_without_a_test_has_nothing_to_compare(tmp_path: Path) -> None:
    made = report(World(tmp_path, fans(3, random.Random(1)), {"north": Seats(2)}, by_lot(1)))
    assert made.numbers["audit"]["testsMade"] == 0
    for text in (made.html, overview(made)):
        assert "nothing to compare" in text and "passed" not in text


def test_an_axis_of_few_entries_has_whole_numbers_only() -> None:
    made, (axis,) = figure(rows=2)
    horizontal_bars(axis, ["a", "b"], [1, 2], [INK, INK])
    made.canvas.draw()
    ticks = [float(tick) for tick in axis.get_xticks()]
    assert len(ticks) > 1 and all(tick == int(tick) for tick in ticks)


@pytest.mark.usefixtures("pictures")
def test_many_markets_with_long_names_still_make_small_plots(tmp_path: Path) -> None:
    markets = {f"market-{n:02d}": Seats(4) for n in range(50)}
    made = report(
        World(tmp_path, fans(800, random.Random(1), list(markets), choices=5), markets, by_lot(1)),
        ReportContext(
            market_names={name: f"The Great Hall of the Northern Riverside {name}" for name in markets}
        ),
    )
    assert max(map(len, made.plots.values())) < PLOT_BYTES
    assert "30 more in report.html" in overview(made)


def test_files_of_two_draws_are_refused(world: World, tmp_path: Path) -> None:
    files = world.draw()
    other = World(tmp_path / "other", crowd(299), MARKETS, by_lot(1)).draw()
    with pytest.raises(UsageError, match="belong to different draws"):
        read(ReportFiles(files.artefacts, files.pool, None, other.outcomes))


def test_missing_and_damaged_artefacts_are_named(world: World) -> None:
    files = world.draw()
    (files.artefacts / "cutoffs.json").write_bytes(b'{"markets":{}}')
    with pytest.raises(UsageError, match="are inconsistent"):
        read(files)
    (files.artefacts / "cutoffs.json").write_bytes(b"{")
    with pytest.raises(UsageError, match=r"cutoffs\.json: not canonical JSON"):
        read(files)
    (files.artefacts / "cutoffs.json").unlink()
    with pytest.raises(UsageError, match=r"no such file"):
        read(files)


def manifest_of(world: World, capacities: dict[str, int]) -> Manifest:
    markets = {name: Seats(seats) for name, seats in sorted(capacities.items())}
    return Manifest.parse(canonical_bytes(replace(world, markets=markets).manifest()))


def test_the_capacity_check_passes_a_draw_and_names_the_market_that_is_overfull(world: World) -> None:
    outcomes = world.draw().outcomes
    seats = {name: market.capacity for name, market in MARKETS.items()}
    fine = capacity_respected(outcomes, manifest_of(world, seats))
    assert fine.passed and fine.numbers["seats"] == 185
    overfull = capacity_respected(outcomes, manifest_of(world, {**seats, "south": 24}))
    assert not overfull.passed and overfull.description == "south has 25 winners for 24 seats"
    unknown = capacity_respected(outcomes, manifest_of(world, {"east": 30, "north": 40, "wide": 90}))
    assert not unknown.passed and unknown.numbers["overfull"] == 1


def test_the_check_of_win_rates_reports_the_findings_of_the_audit(tmp_path: Path) -> None:
    made = fans(2000, random.Random(1))
    fair = win_rates_uniform(figures(World(tmp_path / "a", made, {"north": Seats(300)}, by_lot(1))).numbers)
    assert fair.passed and fair.numbers["tests"] == 10 and "found nothing" in fair.description
    biased = World(tmp_path / "b", made, {"north": Seats(300)}, lambda fan: fan.created.timestamp())
    verdict = win_rates_uniform(figures(biased).numbers)
    assert not verdict.passed and "registration day" in verdict.description
    empty = win_rates_uniform(figures(World(tmp_path / "c", [], {"north": Seats(3)}, by_lot(1))).numbers)
    assert empty.passed and "too few" in empty.description
