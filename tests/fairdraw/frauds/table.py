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
        "as above",
        ("test_a_leaf_exchanged_or_made_heavier_after_the_commit",),
    ),
    Fraud(
        "seats moved to another market once the order is known",
        Answer.RECEIPT,
        "capacities are in the manifest, and the seed follows from its hash (`seed`): other seats, another order",
        ("test_seats_moved_once_the_order_is_known",),
    ),
    Fraud(
        "cut-offs bent for everybody, so that a friend wins",
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
        "a strike, or a lapsed seat, invented for one fan",
        Answer.RECEIPT,
        "the line of the result and that of the strike do not lead to their roots (`result-<n>`, `strike-<n>`)",
        (
            "test_a_strike_invented_for_a_winner",
            "test_a_lapsed_seat_invented_for_a_winner",
        ),
    ),
    Fraud(
        "another outcome in the receipt of one fan",
        Answer.RECEIPT,
        "the line does not lead to the root of the result (`result-<n>`), which the summary has, and the log its hash",
        ("test_a_winner_whose_receipt_has_no_seat", "test_waiting_and_not_selected_exchanged"),
    ),
    Fraud(
        "a seat withdrawn by a later phase",
        Answer.RECEIPT,
        "a winner who is not struck stays one (`outcome-<n>`)",
        ("test_a_seat_withdrawn_by_a_later_phase",),
    ),
    Fraud(
        "an entry of the list whose receipt says that it was excluded",
        Answer.RECEIPT,
        "its neighbours in the list are not adjacent (`absence`), and the list is that of phase 1 (`manifest`)",
        (
            "test_an_entry_of_the_list_whose_receipt_excludes_it",
            "test_a_winner_who_is_excluded_under_another_list",
        ),
    ),
    Fraud(
        "a list or terms ground before the commit, with the beacon",
        Answer.IMPOSSIBLE,
        "the seed needs a signature that no one can know before its round: there is nothing to compare lists by",
        ("test_a_round_that_was_signed_before_the_entries_were_frozen",),
    ),
    Fraud(
        "a split view: another history of the log, with another draw, for one fan",
        Answer.LOG,
        "too few of the fan's witnesses cosign it (`witnesses`): more than half are needed, so that two histories"
        " share at least 2 needed - n of them, which would have to collude. A trust file with fewer is refused, a"
        " policy leaves the verdict `incomplete`, and `regworkers draw log` asks witnesses what they signed",
        (
            "test_another_log_that_is_shown_to_one_fan",
            "test_two_histories_that_honest_witnesses_sign",
            "test_one_witness_that_colludes",
        ),
    ),
    Fraud(
        "a second log of the operator, with the same witnesses",
        Answer.LOG,
        "its key is not that of the trust file (`log`), and a file with witnesses has to name one",
        ("test_a_second_log_with_the_same_witnesses",),
    ),
    Fraud(
        "draw, log and witnesses invented under the operator's names",
        Answer.LOG,
        "the keys are those of the receipt alone: without a trust file it is `incomplete`, with one it fails (`log`)",
        ("test_a_draw_that_a_stranger_invents",),
    ),
    Fraud(
        "one event drawn under several ids, to use the best result",
        Answer.LOG,
        "one list, or one entry in two lists, is a finding of `regworkers draw log`, also for the chosen id alone; so"
        " are two campaigns of one event at the same time, and an annulment when the round was out",
        (
            "test_an_event_that_is_drawn_under_many_ids",
            "test_an_entry_in_the_lists_of_two_campaigns",
        ),
    ),
    Fraud(
        "the log rewritten",
        Answer.LOG,
        "a witness signs only what continues the checkpoint before",
        ("test_a_log_that_is_rewritten",),
    ),
    Fraud(
        "an old checkpoint, or a receipt of an earlier phase",
        Answer.LOG,
        "the old receipt itself holds. `regworkers draw log --checkpoint` shows an old log, and the log has the result"
        " of every phase",
        ("test_a_receipt_of_an_earlier_phase_is_found_by_reading_the_log",),
    ),
    Fraud(
        "a commit that is logged late, at its true time",
        Answer.LOG,
        "the leaf of the manifest must be 600 s before its round (`witnesses`)",
        ("test_a_commit_that_is_logged_when_its_round_is_known",),
    ),
    Fraud(
        "a backdated commit: logged late, at a false time",
        Answer.LOG,
        "witnesses must have seen the log with the manifest 600 s before its round (`witnesses`), by their own clocks."
        " A receipt without such a checkpoint does not hold, and `regworkers draw log` checks the one of every draw",
        ("test_a_commit_that_is_backdated",),
    ),
    Fraud(
        "a draw abandoned for another id, or a result withheld",
        Answer.LOG,
        "a manifest without result or annulment a day after its round is a finding of `regworkers draw log`, and so is"
        " a leaf whose file is not published. The times are those of the witnesses: a leaf that is dated ahead, or a"
        " round of a far year, does not put it off",
        (
            "test_a_draw_whose_result_did_not_please",
            "test_a_draw_that_is_withheld_behind_a_far_time",
            "test_a_round_of_a_far_year",
        ),
    ),
    Fraud(
        "a top-up whose terms were logged after its result",
        Answer.LOG,
        "its manifest is in the log before its result (`log`)",
        ("test_a_manifest_that_was_logged_after_its_result",),
    ),
    Fraud(
        "a manifest replaced by a more favourable one",
        Answer.LOG,
        "every manifest has a leaf. A receipt that shows it fails (`log`); where a receipt leaves it out,"
        " `regworkers draw log` finds it: what was replaced is in a file, differs in the round alone, and was given up"
        " before that round. Without the log those see it who noted the published hash",
        (
            "test_a_manifest_that_was_replaced_unnoticed",
            "test_a_manifest_that_no_receipt_names",
        ),
    ),
    Fraud(
        "a result, or a reason of a top-up, that is not the published one",
        Answer.LOG,
        "the hashes of `summary.json` and `notice.json` are in the log (`log`). Two receipts may show two notices that"
        " are both in it: `regworkers draw log` finds the second one. Whether a reason is true, no log knows",
        ("test_a_result_or_a_reason_that_is_not_the_logged_one", "test_another_reason_holds_without_the_log"),
    ),
    Fraud(
        "an annulment kept from a fan",
        Answer.LOG,
        "a receipt with its leaf does not hold without it (`log`). A receipt that leaves the leaf out holds:"
        " `regworkers draw log` names every draw that was annulled",
        ("test_an_annulment_that_the_receipt_does_not_have",),
    ),
    Fraud(
        "a struck winner kept",
        Answer.LOG,
        "the friend's receipt leaves the strike out and holds. But the log fixes manifest and result: `strikes.txt` has"
        " the hash in the manifest, and one replay by any reader names `result.txt`",
        ("test_a_struck_winner_kept",),
    ),
    Fraud(
        "cut-offs bent in the receipt of one loser",
        Answer.LOG,
        "the summary has the hash of `cutoffs.json`, and the log that of the summary (`log`): all have the same ones."
        " Without the log a replay names"
        " `cutoffs.json`",
        (
            "test_cutoffs_that_are_bent_for_one_loser_are_not_the_logged_ones",
            "test_cutoffs_bent_for_one_loser",
        ),
    ),
    Fraud(
        "one code planned for two winners, by mistake and on purpose",
        Answer.LOG,
        "the digests of planned codes are public before messages go out. A code has one salt, so one digest: a list"
        " that has it twice is a finding of `regworkers draw log`, and the proof of a salt that was invented fails"
        " (`code`)",
        (
            "test_a_code_that_is_planned_for_two_winners",
            "test_a_code_that_is_given_twice_under_salts_that_are_invented",
            "test_a_code_holds_only_with_its_key_and_its_list",
        ),
    ),
    Fraud(
        "the same code in two campaigns",
        Answer.MISSED,
        "each campaign has its own code key, so the digests differ. Winners who compare their codes see it, and the"
        " issuer, who accepts a code once",
        ("test_a_code_has_another_digest_in_another_campaign",),
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
)


def frauds_table() -> str:
    """The frauds in Markdown."""
    lines = ["| fraud | answer | because | shown by |", "| --- | --- | --- | --- |"]
    for each in FRAUDS:
        tests = ", ".join(f"`{test.removeprefix('test_')}`" for test in each.tests) or "–"
        lines.append(f"| {each.name} | {each.answer} | {each.why} | {tests} |")
    return "\n".join(lines) + "\n"
