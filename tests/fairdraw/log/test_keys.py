"""Who has to cosign, in a list of keys and in a policy as C2SP tlog-policy has it; and what a trust file has to say."""

from __future__ import annotations

import json
from itertools import combinations
from math import inf

import pytest

from fairdraw.errors import DrawError
from fairdraw.log.note import COSIGNATURE, SignerKey, VerifierKey
from fairdraw.log.trust import LOG_KEYS, LogKeys, Quorum, Trust, parse_policy
from fairdraw.maths.files import Fields
from fairdraw.terms import QUICKNET
from tests.selection.public.fakes import cosigner

LOG = SignerKey("log.example/draws", b"l" * 32).verifier()
W = [cosigner(number).verifier(COSIGNATURE) for number in range(1, 7)]
POLICY = f"""
# of two organisations
log {LOG} https://log.example
witness X1 {W[0]}
witness\tX2  {W[1]} https://x2.example/
 witness X3 {W[2]}
group X-witnesses 2 X1 X2 X3

witness Y1 {W[3]}
witness Y2 {W[4]}
witness Y3 {W[5]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def brute_force(quorum: Quorum) -> int:
    """The fewest witnesses that two sets share of which each is enough."""
    keys = quorum.witnesses
    sets = [{*each} for n in range(len(keys) + 1) for each in combinations(keys, n) if quorum.is_met_by(each)]
    return min(len(one & other) for one in sets for other in sets)


@pytest.mark.parametrize(
    "quorum",
    [
        Quorum(1, (W[0],)),
        Quorum(1, (W[0], W[1])),
        Quorum(2, (W[0], W[1], W[2])),
        Quorum(2, (*W[:4],)),
        Quorum(4, (*W[:5],)),
        parse_policy(POLICY.encode()).keys.quorum,
        Quorum(2, (Quorum(2, (*W[:3],)), Quorum(3, (*W[3:6],)))),
        Quorum(2, (Quorum(2, (*W[:2],)), Quorum(1, (W[2],)), Quorum(2, (*W[3:6],)))),
        Quorum(1, (Quorum(2, (*W[:2],)), W[2])),
    ],
)
def test_as_many_witnesses_must_collude_as_two_sets_that_are_enough_share(quorum: Quorum) -> None:
    assert quorum.colluders == brute_force(quorum)


def test_enough_have_cosigned_when_the_last_of_those_who_are_needed_has() -> None:
    quorum = Quorum(2, (Quorum(2, (*W[:3],)), Quorum(1, (*W[3:6],))))
    times = {W[0]: 50.0, W[1]: 10.0, W[2]: 20.0, W[5]: 30.0}
    assert quorum.met_at(times) == 30.0
    del times[W[5]]
    assert quorum.met_at(times) == inf


def test_the_example_of_the_policy_is_read() -> None:
    keys, addresses = parse_policy(POLICY.encode())
    assert keys == LogKeys((LOG,), Quorum(2, (Quorum(2, (*W[:3],)), Quorum(1, (*W[3:6],)))))
    assert addresses == {W[1]: "https://x2.example"}
    assert parse_policy(b"quorum none\n").keys == LogKeys()
    one = f"log {LOG}\nwitness w {W[0]}\nquorum w\n"
    assert parse_policy(one.encode()).keys.quorum == Quorum(1, (W[0],))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line says the quorum"),
        ("quorum none\nquorum none\n", "line 2: a second quorum"),
        ("quorum X\n", "line 1: no line before this one defines 'X'"),
        ("group G any X\n", "defines 'X'"),
        (f"witness none {W[0]}\n", "'none' is taken"),
        (f"witness X {W[0]}\nwitness X {W[1]}\n", "line 2: the name 'X' is taken"),
        (f"witness X {W[0]}\ngroup G any X\ngroup H any X\n", "line 3: 'X' is a member already"),
        (f"witness X {W[0]}\ngroup G 2 X\n", "'2' is neither"),
        (f"witness X {W[0]}\ngroup G 0 X\n", "'0' is neither"),
        ("group G any\n", "is no line of a policy"),
        ("wittness\n", "is no line of a policy"),
        (f"witness X {LOG}\n", "has type 0x01, not 0x04 or 0x06"),
        (f"log {W[0]}\n", "has type 0x04, not 0x01"),
        (f"log {LOG}\nlog {LOG}\nquorum none\n", "are the same"),
        (f"witness X {W[0]}\nwitness Y {W[0]}\ngroup G all X Y\nquorum G\n", "are the same"),
        ("# a comment\r\nquorum none\n", "control character"),
    ],
)
def test_a_policy_is_read_strictly(text: str, said: str) -> None:
    with pytest.raises(DrawError, match=said):
        parse_policy(text.encode())


def alias(key: VerifierKey, name: str) -> str:
    return str(VerifierKey(name, key.kind, key.public))


@pytest.mark.parametrize(
    ("witnesses", "need", "said"),
    [
        ([str(W[0]), alias(W[0], "other")], 2, "witness.example/w1 are the same"),
        ([str(W[0]), alias(W[1], W[0].name)], 2, "one would count as two"),
        ([str(W[0])], 2, "2 witnesses of 1 cannot be needed"),
        ([str(LOG)], 1, "has type 0x01, not 0x04 or 0x06"),
        ([7], 1, "texts of keys"),
    ],
)
def test_no_witness_counts_as_two(witnesses: list[object], need: int, said: str) -> None:
    document = {"log": [str(LOG)], "need": need, "witnesses": witnesses}
    with pytest.raises(DrawError, match=said):
        LogKeys.read(Fields("keys.json", "", document, LOG_KEYS))


# Trust files


def trust(**given: object) -> Trust:
    empty: dict[str, object] = {"beacon": {}, "log": [], "need": 0, "witnesses": []}
    return Trust.parse(json.dumps(empty | given).encode())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        # Two histories, each cosigned by half of the honest witnesses.
        (
            {"log": [str(LOG)], "witnesses": [*map(str, W[:2])], "need": 1},
            "need: 1 of 2 witnesses: more than half",
        ),
        (
            {"log": [str(LOG)], "witnesses": [*map(str, W[:4])], "need": 2},
            "need: 2 of 4 witnesses: more than half",
        ),
        ({"log": [str(LOG)], "witnesses": [str(W[0])], "need": 0}, "need: 0 of 1 witnesses: more than half"),
        ({"need": 1}, "1 witnesses of 0 cannot be needed"),
        # A second log of the same operator, with the same witnesses.
        ({"witnesses": [str(W[0])], "need": 1}, "log: witnesses, and no key of the log"),
        ({"beacon": {QUICKNET.hash: {"lead": 599}}}, "a lead of at least 600 s is needed for quicknet"),
        ({"beacon": {"ab" * 32: {"lead": 0}}}, "an integer of at least 1"),
        ({"beacon": {"ab" * 32: "key"}}, "a JSON object is needed"),
        ({"beacon": {"ab" * 32: {}}}, "missing lead"),
        ({"more": 1}, "unknown more"),
    ],
)
def test_a_trust_file_that_does_not_bind_the_operator_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(DrawError, match=said):
        trust(**given)
    for data in (b"{", b"{]", b"", b"\xff"):
        with pytest.raises(DrawError):
            Trust.parse(data)


def test_a_policy_with_witnesses_names_the_log_too() -> None:
    with pytest.raises(DrawError, match="log: witnesses, and no key of the log"):
        Trust.parse(f"witness w {W[0]}\nquorum w\n".encode())


def test_only_a_file_with_the_keys_of_log_and_witnesses_vouches() -> None:
    whole = trust(log=[str(LOG)], need=1, witnesses=[f"{W[0]} https://w1.example/"])
    assert whole.vouches and whole.addresses == {W[0]: "https://w1.example"}
    assert Trust.parse(POLICY.encode()).vouches
    for bare in (Trust(), trust(), trust(log=[str(LOG)]), Trust.parse(f"log {LOG}\nquorum none\n".encode())):
        assert not bare.vouches


def test_the_lead_is_that_of_the_file_and_of_quicknet_by_its_rules() -> None:
    other = "ab" * 32
    assert (Trust().lead(QUICKNET.hash), Trust().lead(other)) == (600, None)
    given = trust(beacon={QUICKNET.hash: {"lead": 900}, other: {"lead": 5}})
    assert (given.lead(QUICKNET.hash), given.lead(other)) == (900, 5)
    assert Trust().beacon_key(QUICKNET).given == "rules"
