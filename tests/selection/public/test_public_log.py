"""Writing the log: once each leaf, in one order for all, whichever process dies."""

from __future__ import annotations

import json
import re

import pytest

from fairdraw.errors import DrawError
from fairdraw.log.leaves import CHANGE_SECONDS, Kind, LogLeaf, LogState, kept_path, key_leaf
from fairdraw.log.note import COSIGNATURE, Note, SignerKey, VerifierKey, signed
from fairdraw.maths.files import sha256_hex
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.selection.public.public_log import NotWitnessed, PublicLog
from tests.selection.public.fakes import NOW, ORIGIN, Bucket, cosigner, hash_of, log_on, witnesses
from tests.support.in_memory import MemorySecrets
from tests.support.waiting import Clock

STEPS = ("log.after_bundle", "log.after_tiles", "log.after_facts", "log.after_kept", "log.after_checkpoint")


class Died(Exception):
    pass


def dies_at(step: str):  # type: ignore[no-untyped-def]
    def on_step(name: str) -> None:
        if name == step:
            raise Died

    return on_step


def append(log: PublicLog, text: str, campaign: str = "summer") -> int:
    return log.append(Kind.RESULT, campaign, 1, hash_of(text)).index


def state_of(log: PublicLog) -> LogState:
    state = log.read()
    assert state is not None
    return state


def test_the_first_leaf_makes_the_key_and_the_log() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    log = log_on(bucket, secrets)
    assert log.read() is None
    placed = log.append(Kind.MANIFEST, "summer", 1, hash_of("m"))
    assert (placed.index, placed.waiting) == (0, None)
    assert placed.leaf == LogLeaf("summer", hash_of("m"), Kind.MANIFEST, 1, "2026-09-21T14:13:20.000Z")
    state = LogState.verified(bucket.file, log.verifier_keys())
    assert (state.size, state.origin) == (1, ORIGIN)
    assert secrets.values[0].startswith(f"PRIVATE+KEY+{ORIGIN}+")
    kept = kept_path(1, log.verifier_keys()[0])
    fact = f"facts/{sha256_hex(placed.leaf.fact)}"
    paths = ("checkpoint", fact, kept, "keys.json", "tile/0/000.p/1", "tile/entries/000.p/1")
    assert bucket.stored.keys() == {f"log/{path}" for path in paths}
    keys = {"log": [str(key) for key in log.verifier_keys()], "need": 0, "witnesses": []}
    assert json.loads(bucket.file("keys.json") or b"") == keys


def test_a_leaf_is_appended_once_and_keeps_its_time() -> None:
    bucket, clock = Bucket(), Clock(NOW)
    log = log_on(bucket, MemorySecrets(), clock=clock)
    first = log.append(Kind.RESULT, "summer", 1, hash_of("r"))
    written = len(bucket.writes)
    clock.now += 100
    again = log.append(Kind.RESULT, "summer", 1, hash_of("r"))
    assert (again, len(bucket.writes)) == (first, written)
    others = [("summer", Kind.RESULT, 2), ("summer", Kind.NOTICE, 1), ("winter", Kind.RESULT, 1)]
    assert [log.append(kind, campaign, phase, hash_of("r")).index for campaign, kind, phase in others] == [
        1,
        2,
        3,
    ]


def test_a_log_grows_over_the_end_of_a_tile() -> None:
    bucket = Bucket()
    log = log_on(bucket, MemorySecrets())
    assert [append(log, str(number)) for number in range(258)] == list(range(258))
    assert LogState.verified(bucket.file, log.verifier_keys()).size == 258
    assert {"log/tile/0/000", "log/tile/0/001.p/2", "log/tile/1/000.p/1"} <= bucket.stored.keys()


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_that_dies_at_a_step_loses_nothing(step: str) -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    append(log_on(bucket, secrets), "before")
    with pytest.raises(Died):
        append(log_on(bucket, secrets, on_step=dies_at(step)), "victim")
    log = log_on(bucket, secrets)
    # Another campaign continues behind it, and its own repeat finds it.
    assert append(log, "other", "winter") == 2
    assert append(log, "victim") == 1
    assert [leaf.hash for _, leaf in state_of(log).of_campaign("summer")] == [
        hash_of("before"),
        hash_of("victim"),
    ]


def test_a_writer_that_dies_within_the_tiles_loses_nothing() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    log = log_on(bucket, secrets)
    for number in range(255):
        append(log, str(number))

    def before(key: str) -> None:
        if key.startswith("log/tile/1/"):
            raise Died

    bucket.before = before
    with pytest.raises(Died):
        append(log, "victim")
    bucket.before = lambda _key: None
    assert append(log, "other") == 256
    assert LogState.verified(bucket.file, log.verifier_keys()).size == 257
    assert "log/tile/1/000.p/1" in bucket.stored


@pytest.mark.parametrize("step", ["log/tile/entries/000.p/2", "log/tile/0/000.p/2", "log/checkpoint"])
def test_two_writers_at_once_agree_on_one_order(step: str) -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    append(log_on(bucket, secrets), "before")
    slow, fast = log_on(bucket, secrets), log_on(bucket, secrets)
    done: list[int] = []

    def before(key: str) -> None:
        if key == step and not done:
            done.append(-1)
            done[0] = append(fast, "fast", "winter")

    bucket.before = before
    assert {append(slow, "slow"), done[0]} == {1, 2}
    state = LogState.verified(bucket.file, slow.verifier_keys())
    assert state.size == 3
    assert len([key for key in bucket.writes if key.startswith("log/tile/entries")]) == 3


# The end of a log


def as_before_facts(bucket: Bucket) -> None:
    """The log as a version of this program left it that knew no facts."""
    for key in [key for key in bucket.stored if key.startswith("log/facts/")]:
        bucket.delete(key)


def test_a_log_without_facts_is_taken_over_once() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    log = log_on(bucket, secrets)
    log.append_all("summer", 1, [(Kind.CODES, hash_of(str(number))) for number in range(300)])
    as_before_facts(bucket)
    assert log.append(Kind.CODES, "summer", 1, hash_of("7")).index == 7
    read: list[str] = []
    bucket.reading = read.append
    assert log.append(Kind.CODES, "summer", 1, hash_of("new")).index == 300
    assert "log/tile/entries/000" not in read
    assert state_of(log).size == 301


@pytest.mark.parametrize("written", [0, 1, 9])
def test_taking_over_a_log_goes_on_wherever_it_died(written: int) -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    log = log_on(bucket, secrets)
    for number in range(10):
        append(log, str(number))
    as_before_facts(bucket)
    left = iter(range(written))

    def before(_key: str) -> None:
        if next(left, None) is None:
            raise Died

    bucket.before = before
    with pytest.raises(Died):
        append(log, "new")
    bucket.before = lambda _key: None
    assert [append(log, str(number)) for number in range(10)] == list(range(10))
    assert append(log, "new") == 10


def test_a_leaf_of_an_older_version_between_is_not_written_again() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    log = log_on(bucket, secrets)
    append(log, "one")
    known = set(bucket.stored)
    append(log, "two")
    log.decide([LogLeaf("summer", hash_of("three"), Kind.RESULT, 1, iso(NOW))])
    for key in [key for key in bucket.stored if key.startswith("log/facts/") and key not in known]:
        bucket.delete(key)
    # With the fact of the third leaf, that of the second is written, too.
    log.publish()
    assert [append(log, text) for text in ("three", "two", "one")] == [2, 1, 0]


def test_a_fact_that_names_another_entry_stops_the_writer() -> None:
    for data in (b"0", b"-1", b"x", b""):
        bucket, secrets = Bucket(), MemorySecrets()
        log = log_on(bucket, secrets)
        placed = [log.append(Kind.CODES, "summer", 1, hash_of(text)) for text in ("one", "two")]
        bucket.put_bytes(f"log/facts/{sha256_hex(placed[1].leaf.fact)}", data)
        with pytest.raises(DrawError, match="does not name the entry that says this"):
            log.append(Kind.CODES, "summer", 1, hash_of("two"))


@pytest.mark.parametrize("size", [300, 512, 600])
def test_an_append_reads_and_writes_the_last_files_only(size: int) -> None:
    bucket, secrets, witness = Bucket(), MemorySecrets(), Cosigns()
    log = log_on(bucket, secrets, by=witnesses(witness))
    log.append_all("summer", 1, [(Kind.CODES, hash_of(str(number))) for number in range(size)])
    read: list[str] = []
    bucket.reading = read.append
    log.append(Kind.CODES, "summer", 1, hash_of("new"))
    tiles = [key for key in read if "/tile/" in key]
    assert len(tiles) == len(set(tiles)) <= 4
    assert not [key for key in tiles if key.endswith("/000")], "the first full tile and bundle"


def test_files_that_were_changed_stop_the_writer() -> None:
    for path, what in [
        ("tile/entries/000.p/2", "its root is not that"),
        ("checkpoint", "does not match the note"),
    ]:
        bucket, secrets = Bucket(), MemorySecrets()
        log = log_on(bucket, secrets)
        append(log, "one")
        append(log, "two")
        stored = bucket.stored[f"log/{path}"]
        bent = stored.replace(b"\n2\n", b"\n1\n").replace(b'"phase":1', b'"phase":2')
        bucket.put_bytes(f"log/{path}", bent)
        with pytest.raises(DrawError, match=what):
            append(log, "three")
    bucket.delete("log/tile/entries/000.p/2")
    bucket.put_bytes("log/checkpoint", stored)
    with pytest.raises(DrawError, match="is missing"):
        append(log, "three")


def test_a_next_file_that_does_not_continue_the_log_stops_the_writer() -> None:
    for path, data, what in [
        ("tile/entries/000.p/2", b"\x00\x02ab", "not canonical JSON"),
        ("tile/entries/000.p/2", "swapped", "does not continue the log"),
        ("tile/0/000.p/2", b"other hashes", "has other hashes than the entries"),
    ]:
        bucket, secrets = Bucket(), MemorySecrets()
        log = log_on(bucket, secrets)
        append(log, "one")
        stored = bucket.stored["log/tile/entries/000.p/1"]
        changed = stored.replace(b'"phase":1', b'"phase":7') + stored
        found = changed if isinstance(data, str) else data
        bucket.put_bytes(f"log/{path}", found)
        with pytest.raises(DrawError, match=what):
            append(log, "two")
        assert state_of(log).size == 1


def test_a_lost_key_stops_the_log_instead_of_being_replaced() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    append(log_on(bucket, secrets), "one")
    secrets.stored.clear()
    with pytest.raises(UsageError, match="not in the secret store"):
        append(log_on(bucket, secrets), "two")


def test_another_origin_stops_the_log() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    append(log_on(bucket, secrets), "one")
    log = log_on(bucket, secrets)
    log.origin = "example.com/other"
    with pytest.raises(UsageError, match=re.escape("selection.log.origin")):
        append(log, "two")


# The key


def signers(bucket: Bucket, *keys: VerifierKey) -> list[bool]:
    note = Note.parse(bucket.stored["log/checkpoint"])
    return [bool(note.verified([key])) for key in keys]


def test_a_changed_key_is_a_leaf_and_both_keys_sign_for_30_days() -> None:
    bucket, secrets, clock = Bucket(), MemorySecrets(), Clock(NOW)
    log = log_on(bucket, secrets, clock=clock)
    append(log, "one")
    [old] = log.verifier_keys()
    new = log.change_key()
    assert log.verifier_keys() == [new, old]
    assert [leaf for _, leaf in state_of(log).of_campaign("")] == [key_leaf(new, NOW)]
    assert signers(bucket, new, old) == [True, True]
    clock.now += CHANGE_SECONDS - 1
    append(log, "two")
    assert signers(bucket, new, old) == [True, True]
    with pytest.raises(UsageError, match="both keys sign until"):
        log.change_key()
    clock.now += 1
    append(log, "three")
    assert signers(bucket, new, old) == [True, False]
    newest = log.change_key()
    assert signers(bucket, newest, new, old) == [True, True, False]


@pytest.mark.parametrize("step", ["log.after_new_key", *STEPS])
def test_a_change_of_the_key_that_dies_at_a_step_is_ended_by_the_next_writer(step: str) -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    append(log_on(bucket, secrets), "one")
    with pytest.raises(Died):
        log_on(bucket, secrets, on_step=dies_at(step)).change_key()
    log = log_on(bucket, secrets)
    append(log, "two")
    new, old = log.verifier_keys()
    assert [leaf.hash for _, leaf in state_of(log).of_campaign("")] == [key_leaf(new, NOW).hash]
    assert signers(bucket, new, old) == [True, True]
    assert len(secrets.values) == 2


def test_a_repeated_change_ends_the_one_that_died() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    append(log_on(bucket, secrets), "one")
    with pytest.raises(Died):
        log_on(bucket, secrets, on_step=dies_at("log.after_new_key")).change_key()
    log = log_on(bucket, secrets)
    assert str(log.change_key()) == str(log.verifier_keys()[0])
    assert len(secrets.values) == 2


def test_a_change_of_the_key_that_no_witness_saw_is_repeated() -> None:
    bucket, secrets, witness = Bucket(), MemorySecrets(), Cosigns()
    log = log_on(bucket, secrets, by=witnesses(witness))
    append(log, "one")
    witness.up = False
    with pytest.raises(NotWitnessed):
        log.change_key()
    witness.up = True
    new = log.change_key()
    assert len(secrets.values) == 2
    assert signers(bucket, new, log.verifier_keys()[1]) == [True, True]


def test_a_new_key_signs_the_kept_checkpoints_too() -> None:
    bucket, secrets = Bucket(), MemorySecrets()
    append(log_on(bucket, secrets), "one")
    with pytest.raises(Died):
        log_on(bucket, secrets, on_step=dies_at("log.after_kept")).change_key()
    log = log_on(bucket, secrets)
    append(log, "two")
    for size in (1, 3):
        for key in log.verifier_keys():
            assert Note.parse(bucket.file(kept_path(size, key)) or b"").verified([key])


# Checkpoints from the time of a commit


def times_of(bucket: Bucket, log: PublicLog, size: int) -> list[int | None]:
    data = bucket.file(kept_path(size, log.verifier_keys()[0]))
    note = Note(" ", ()) if data is None else Note.parse(data)
    return [each.at for each in note.verified([cosigner().verifier(COSIGNATURE)])]


@pytest.mark.parametrize("step", ["log.after_kept", "log.after_checkpoint"])
def test_the_first_cosigned_checkpoint_of_a_leaf_is_kept_whatever_dies(step: str) -> None:
    bucket, secrets, witness = Bucket(), MemorySecrets(), Cosigns()
    with pytest.raises(Died):
        append(log_on(bucket, secrets, by=witnesses(witness), on_step=dies_at(step)), "one")
    witness.now += 900
    log = log_on(bucket, secrets, by=witnesses(witness))
    append(log, "one")
    log.catch_up()
    append(log, "two")
    assert [times_of(bucket, log, size) for size in (1, 2)] == [[int(NOW)], [int(NOW) + 900]]


def test_a_leaf_without_witnesses_has_no_kept_checkpoint_until_they_saw_it() -> None:
    bucket, witness = Bucket(), Cosigns()
    log = log_on(bucket, MemorySecrets(), by=witnesses(witness))
    witness.up = False
    append(log, "one")
    assert times_of(bucket, log, 1) == []
    witness.up, witness.now = True, NOW + 900
    append(log, "two")
    assert times_of(bucket, log, 1) == [] and times_of(bucket, log, 2) == [int(NOW) + 900]


def test_a_kept_checkpoint_of_other_entries_stops_the_writer() -> None:
    for other in (b"no note", "signed", "by no key"):
        bucket, secrets = Bucket(), MemorySecrets()
        log = log_on(bucket, secrets)
        log.ensure_key()
        [key] = log.verifier_keys()
        signer = SignerKey.parse(secrets.values[0]) if other == "signed" else cosigner()
        data = other if isinstance(other, bytes) else str(signed("x\n", signer)).encode()
        bucket.put_bytes(f"log/{kept_path(1, key)}", data)
        with pytest.raises(DrawError, match="checkpoints/1"):
            append(log, "one")
        assert bucket.file("checkpoint") is None


# Witnesses


class Cosigns:
    """Witnesses that cosign whatever they get, while they are `up`. The clock of the second one is ahead by `later`."""

    def __init__(self) -> None:
        self.up = True
        self.now = NOW
        self.later = 0.0
        self.asked: list[bytes] = []

    def __call__(self, url: str, body: bytes) -> tuple[int, bytes]:
        self.asked.append(body)
        note = Note.parse(body.partition(b"\n\n")[2])
        number = int(url.partition("//w")[2].partition(".")[0])
        line = str(cosigner(number).cosign(note.text, int(self.now + self.later * (number > 1))))
        return (200, f"{line}\n".encode()) if self.up else (500, b"")


def test_a_checkpoint_has_the_cosignatures_of_all_witnesses() -> None:
    bucket = Bucket()
    log = log_on(bucket, MemorySecrets(), by=witnesses(Cosigns(), needed=2, number=3))
    append(log, "one")
    keys = [cosigner(number).verifier(COSIGNATURE) for number in (1, 2, 3)]
    assert signers(bucket, *keys) == [True, True, True]


def test_with_too_few_witnesses_a_leaf_waits_and_is_not_lost() -> None:
    bucket, secrets, witness = Bucket(), MemorySecrets(), Cosigns()
    log = log_on(bucket, secrets, by=witnesses(witness))
    append(log, "one")
    witness.up = False
    placed = log.append(Kind.RESULT, "summer", 1, hash_of("two"))
    assert placed.index == 1
    with pytest.raises(NotWitnessed, match=r"0 of 1 needed witnesses .*: witness.example/w1: status 500"):
        placed.require()
    with pytest.raises(NotWitnessed):
        log.catch_up()
    assert (state_of(log).size, log.waiting()) == (1, 1)
    append(log, "three")
    assert log.waiting() == 2
    witness.up = True
    log.catch_up()
    assert (state_of(log).size, log.waiting()) == (3, 0)


def test_catching_up_asks_the_witnesses_although_nothing_waits() -> None:
    witness = Cosigns()
    log = log_on(Bucket(), MemorySecrets(), by=witnesses(witness))
    log.catch_up()
    log.catch_up()
    assert len(witness.asked) == 2
    witness.up = False
    with pytest.raises(NotWitnessed):
        log.catch_up()


def test_a_witness_is_asked_again_from_the_size_that_it_knows() -> None:
    asked: list[bytes] = []
    cosigns = Cosigns()

    def ask(url: str, body: bytes) -> tuple[int, bytes]:
        asked.append(body.partition(b"\n")[0])
        return cosigns(url, body) if body.startswith(b"old 1\n") else (409, b"1\n")

    bucket, secrets = Bucket(), MemorySecrets()
    plain = log_on(bucket, secrets)
    for text in ("one", "two", "three"):
        append(plain, text)
    assert append(log_on(bucket, secrets, by=witnesses(ask)), "four") == 3
    assert asked == [b"old 3", b"old 1"]
    assert signers(bucket, cosigner().verifier(COSIGNATURE)) == [True]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((409, b"9\n"), "it knows a log of size 9, this one has 1"),
        ((409, b"0\n"), "status 409"),
        ((409, b"no size"), "status 409"),
        ((404, b""), "status 404"),
        ((200, b""), "no signatures"),
        ((200, b"\xff"), "UTF-8"),
        ((200, f"{cosigner(2).cosign('x', 1)}\n".encode()), "no cosignature by its key"),
        ((200, f"{cosigner(1).cosign('x', 1)}\n".encode()), "does not match the note"),
    ],
)
def test_an_answer_without_a_cosignature_says_what_is_wrong(answer: tuple[int, bytes], message: str) -> None:
    log = log_on(Bucket(), MemorySecrets(), by=witnesses(lambda _url, _body: answer))
    waiting = log.append(Kind.RESULT, "summer", 1, hash_of("one")).waiting
    assert message in str(waiting)
