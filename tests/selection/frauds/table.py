"""Frauds of an operator, as data: what becomes of each, and the tests that show it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What becomes of a fraud. A receipt is one that the fan checks, without any file of the draw."""

    IMPOSSIBLE = "impossible by construction"
    RECEIPT = "caught by the receipt alone"
    LOG = "caught with the log and k witnesses"
    MISSED = "**not caught**"


@dataclass(frozen=True, slots=True)
class Fraud:
    """`why` says what catches it, or why nothing does. `tests` are functions in this folder."""

    name: str
    answer: Answer
    why: str
    tests: tuple[str, ...] = ()


FRAUDS = (
    Fraud(
        "an entry exchanged or added after the commit",
        Answer.RECEIPT,
        "its leaf does not lead to the root of the manifest (`inclusion`); a replay names `leaves.txt`",
        ("test_a_leaf_exchanged_or_made_heavier_after_the_commit",),
    ),
    Fraud(
        "a weight raised after the commit",
        Answer.RECEIPT,
        "the same",
        ("test_a_leaf_exchanged_or_made_heavier_after_the_commit",),
    ),
    Fraud(
        "seats moved to another market once the order is known",
        Answer.RECEIPT,
        "capacities are in the manifest, and the seed follows from its hash (`seed`): other seats, another order",
        ("test_seats_moved_once_the_order_is_known",),
    ),
    Fraud(
        "a cut-off bent so that a friend wins",
        Answer.RECEIPT,
        "the receipts of all whom it passes over say that they should have won (`outcome-<n>`)",
        ("test_cutoffs_bent_for_everybody",),
    ),
    Fraud(
        "another round than the one committed to, chosen or repeated",
        Answer.RECEIPT,
        "the signature is not that of the manifest's round (`randomness`)",
        ("test_another_round_than_the_committed_one",),
    ),
    Fraud(
        "a round that was already signed when the list was frozen",
        Answer.RECEIPT,
        "the manifest's round must come 600 s after its `asOf` (`randomness`)",
        ("test_a_round_that_was_signed_before_the_entries_were_frozen",),
    ),
    Fraud(
        "a receipt swapped for that of another loser",
        Answer.RECEIPT,
        "the leaf is not that of the ref (`leaf`)",
        ("test_a_receipt_swapped_with_that_of_another_loser",),
    ),
    Fraud(
        "a strike taken back in a later phase",
        Answer.RECEIPT,
        "a strike of the phase before is missing (`outcome-<n>`)",
        ("test_a_strike_taken_back",),
    ),
    Fraud(
        "a strike invented for one fan, in a draw without strikes",
        Answer.RECEIPT,
        "the manifest commits to an empty list of strikes (`outcome-<n>`)",
        ("test_a_strike_invented_where_the_manifest_has_none",),
    ),
    Fraud(
        "a seat taken away by a later phase",
        Answer.RECEIPT,
        "a winner who is not struck stays one (`outcome-<n>`)",
        ("test_a_seat_taken_away_by_a_later_phase",),
    ),
    Fraud(
        "an entry of the list that is told it was excluded",
        Answer.RECEIPT,
        "its neighbours in the list are not adjacent (`absence`)",
        ("test_an_entry_of_the_list_that_is_told_it_was_excluded",),
    ),
    Fraud(
        "lottery numbers chosen for a list that is ground before the commit, drand",
        Answer.IMPOSSIBLE,
        "the seed needs a signature that nobody can know before its round",
        ("test_a_round_that_was_signed_before_the_entries_were_frozen",),
    ),
    Fraud(
        "a struck winner kept",
        Answer.LOG,
        "the friend's receipt leaves the strike out and holds. The hashes of `strikes.txt` and `result.txt` are in the"
        " log, and one replay by anybody names `result.txt`",
        ("test_a_struck_winner_kept",),
    ),
    Fraud(
        "a manifest replaced by a more favourable one after its round",
        Answer.LOG,
        "every earlier manifest has a leaf; without the log only those see it who noted the published hash",
        ("test_a_manifest_replaced_by_a_favourable_one_has_another_hash_than_the_published_one",),
    ),
    Fraud(
        "a receipt of an earlier phase",
        Answer.LOG,
        "the log has the result of every phase; the old receipt itself holds",
        ("test_a_receipt_of_an_earlier_phase_and_another_reason_hold_without_the_log",),
    ),
    Fraud(
        "a forged reason of a top-up",
        Answer.LOG,
        "the hash of `notice.json` is in the log: all see the same reason. Whether it is true, no log knows",
        ("test_a_receipt_of_an_earlier_phase_and_another_reason_hold_without_the_log",),
    ),
    Fraud(
        "entries invented before the commit",
        Answer.MISSED,
        "the list is the operator's. An invented entry has the same chance as any other",
    ),
    Fraud(
        "a household split into several before the commit",
        Answer.MISSED,
        "units are random ids that the operator gives: who belongs together is not in the files",
    ),
    Fraud(
        "the holder of a commit-reveal secret tries lists or terms until a friend wins",
        Answer.MISSED,
        "who knows the secret can compute every result before the commit; receipts say *trust in the operator*",
        ("test_a_manifest_replaced_by_a_favourable_one_has_another_hash_than_the_published_one",),
    ),
)


def frauds_table() -> str:
    """The frauds in Markdown."""
    lines = ["| fraud | answer | because |", "| --- | --- | --- |"]
    lines += [f"| {each.name} | {each.answer} | {each.why} |" for each in FRAUDS]
    return "\n".join(lines) + "\n"
