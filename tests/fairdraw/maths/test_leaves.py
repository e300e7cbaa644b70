"""Leaves: from the pool's rows to the lines that are committed to, and what is refused on the way."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

import pytest

from fairdraw.errors import DrawError
from fairdraw.large.columns import LeafCounts, read_leaves, write_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.leaves import Leaf, parse_leaf, unit_of
from tests.fairdraw.maths.draws import write_pool
from tests.fairdraw.maths.oracle import OracleLeaf

HOME = unit_of(b"k" * 32, "summer", "home")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "spill")


def write(tmp_path: Path, engine: Engine, *rows: OracleLeaf) -> LeafCounts:
    return write_leaves(write_pool(tmp_path / "pool.parquet", rows), tmp_path / "leaves.txt", engine=engine)


def test_leaves_are_in_byte_order_of_ref_with_the_heaviest_weight_of_the_unit(
    tmp_path: Path, engine: Engine
) -> None:
    counts = write(
        tmp_path,
        engine,
        ("b", HOME, 1, ("vip", "member"), ("south", "north")),
        ("B", "B", 1, (), ("north",)),
        ("_", HOME, 7, (), ("north",)),
        ("a-1", "a-1", 1, ("member", "member"), ("north",)),
    )
    assert (tmp_path / "leaves.txt").read_text() == (
        f"B|B|1||north\n_|{HOME}|7||north\na-1|a-1|1|member|north\nb|{HOME}|7|member,vip|south,north\n"
    )
    assert counts == LeafCounts(leaves=4, weighted=2)


def test_a_pool_without_rows_makes_an_empty_file(tmp_path: Path, engine: Engine) -> None:
    assert write(tmp_path, engine) == LeafCounts(0, 0)
    assert (tmp_path / "leaves.txt").read_bytes() == b""


def test_a_ref_that_is_repeated_also_across_batches_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    rows: list[OracleLeaf] = [(ref, HOME, 1, (), ("north",)) for ref in ("r1", "r2", "r2")]
    for batch_rows in (1, 2, 3):
        with pytest.raises(DrawError, match="duplicate ref r2") as caught:
            write(tmp_path, Engine(tmp_path / "spill", batch_rows=batch_rows), *rows)
        assert caught.value.artefact == "leaves.txt" and not (tmp_path / "leaves.txt").exists()


GOOD: OracleLeaf = ("r1", "r1", 1, ("a",), ("north", "south"))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ((0, "r|1"), "6 fields"),
        ((0, "r\n1"), "ids are 1 to 64"),
        ((0, ""), "ids are 1 to 64"),
        ((0, "r" * 65), "ids are 1 to 64"),
        ((0, "ré"), "ids are 1 to 64"),
        ((1, "u 1"), "ids are 1 to 64"),
        ((1, None), "ref|unit|weight"),
        ((1, "u1"), "a unit is the ref, or u- and"),
        ((1, HOME[:-1]), "a unit is the ref, or u- and"),
        ((1, HOME[:-1] + "l"), "a unit is the ref, or u- and"),
        ((0, HOME[:-1] + "l"), "a ref may not look like a unit"),
        ((2, 0), "a weight is 1 to 64"),
        ((2, -1), "a weight is 1 to 64"),
        ((2, 65), "a weight is 1 to 64"),
        ((3, ("a,b", "c|d")), "6 fields"),
        ((4, ()), "at least one preference"),
        ((4, ("north", "south", "north")), "duplicate preference in"),
        ((4, ("north\n",)), "ids are 1 to 64"),
    ],
)
def test_a_row_that_makes_no_well_formed_leaf_is_refused(
    tmp_path: Path, engine: Engine, changed: tuple[int, object], complaint: str
) -> None:
    row = list(GOOD)
    row[changed[0]] = changed[1]
    with pytest.raises(DrawError, match=complaint.replace("|", r"\|")) as caught:
        write(tmp_path, engine, ("r0", "r0", 1, (), ("north",)), tuple(row))  # type: ignore[arg-type]
    assert caught.value.artefact == "leaves.txt"


def test_a_leaf_is_read_back_as_it_was_written() -> None:
    leaf = Leaf("r1", HOME, 64, ("a", "b"), ("south", "north"))
    assert leaf.line == f"r1|{HOME}|64|a,b|south,north"
    assert parse_leaf(leaf.line) == leaf
    assert (
        "u-"
        + base64.urlsafe_b64encode(hmac.digest(b"k" * 32, b"vfunit2|summer|home", "sha256"))[:43].decode()
        == HOME
    )
    assert parse_leaf("r1|r1|1||m") == Leaf("r1", "r1", 1, (), ("m",))


@pytest.mark.parametrize(
    "line",
    [
        "r1|r1|01|a|m", "r1|r1|0|a|m", "r1|r1|65|a|m", "r1|r1||a|m", "r1|r1|1|a|", "r1|r1|1|a", "r1|r1|1|a|m|x",
        "|r1|1|a|m", "r1||1|a|m", "r1|r1|1|b,a|m", "r1|r1|1|a,a|m", "r1|r1|1|,|m", "r1|r1|1|a|m,m", "r1|r1|1|a|m,",
        "r1|u1|1|a|m", f"r1|{HOME[:-1]}l|1|a|m", f"{HOME}|{HOME}|1|a|m", f"{HOME[:-1]}l|{HOME}|1|a|m",
        "r1|r1|1|a|m\n", " r1|r1|1|a|m", "r1|r1|\u0661|a|m",
    ],
)  # fmt: skip
def test_a_malformed_line_is_no_leaf(line: str) -> None:
    with pytest.raises(DrawError):
        parse_leaf(line)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"r1|r1|1|a|m", "no line feed"),
        (b"r1|r1|1|a|m\r\n", r"byte 11: b'\\r'"),
        (b"r1|r1|1|a|m\n\n", "found ''"),
        (b"r1|r1|1|a\n", "5 fields"),
        (b"r1|r1|1|a|m|\n", "5 fields"),
        (b'r1|"u1"|1|a|m\n', "byte 3"),
        (b"r2|r2|1|a|m\nr1|r1|1|a|m\n", "r1 follows r2"),
        (b"r1|r1|1|a|m\nr1|r1|1|a|m\n", "duplicate ref r1"),
        (b"r1|r1|01|a|m\n", "found '01'"),
        (b"r1|r1|65|a|m\n", "found '65'"),
        (b"r1|r1|0|a|m\n", "found '0'"),
        (b"r,1|r1|1|a|m\n", "found 'r,1'"),
        (b"r1|u1|1|a|m\n", "a unit is the ref, or u- and"),
        (f"r1|{HOME[:-1]}l|1|a|m\n".encode(), "a unit is the ref, or u- and"),
        (f"{HOME[:-1]}l|{HOME}|1|a|m\n".encode(), "may not look like a unit"),
        (b"|r1|1|a|m\n", "found ''"),
        (b"r" * 65 + b"|r1|1|a|m\n", "1 to 64"),
    ],
)
def test_a_file_of_leaves_is_refused_for_each_flaw(tmp_path: Path, text: bytes, complaint: str) -> None:
    path = tmp_path / "leaves.txt"
    path.write_bytes(text)
    with pytest.raises(DrawError, match=complaint) as caught:
        list(read_leaves(path))
    assert caught.value.artefact == "leaves.txt"


def test_disorder_between_two_batches_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairdraw.large.columns._BLOCK_BYTES", 40)
    path = tmp_path / "leaves.txt"
    lines = [f"r{number:03d}|r{number:03d}|1|a|m\n" for number in range(50)]
    path.write_text("".join(lines))
    assert sum(batch.num_rows for batch in read_leaves(path)) == 50
    for at in range(49):
        swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
        path.write_text("".join(swapped))
        with pytest.raises(DrawError, match="increase strictly"):
            list(read_leaves(path))
