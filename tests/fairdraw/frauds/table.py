"""Frauds of an operator, as data: who sees each, where it is caught, and the tests that show it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Seer(StrEnum):
    """Who sees a fraud, by what everybody can run; the last three: what becomes of one that no reader sees."""

    FAN = "fan with receipt"
    LOG = "reader of the log"
    REPLAY = "one who replays"
    SHOWN = "**not caught**: it is shown, for people to judge"
    NONE = "**not caught**"
    IMPOSSIBLE = "impossible by construction"


@dataclass(frozen=True, slots=True)
class Fraud:
    """A row of the table in docs/fairness.md."""

    name: str
    seen_by: tuple[Seer, ...]
    # Where it is caught: steps of a receipt, files of a replay, words of a finding of `draw log`.
    places: tuple[str, ...]
    # What catches it, or why nothing does.
    why: str
    # Functions in this folder.
    tests: tuple[str, ...] = ()


FRAUDS = (
    Fraud(
        "an entry exchanged or added after the commit, or made heavier",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "inclusion",
            "leaves.txt",
        ),
        "its leaf does not lead to the root of the manifest",
        ("test_a_leaf_exchanged_or_made_heavier_after_the_commit",),
    ),
    Fraud(
        "seats moved to another market once the order is known",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "seed",
            "seed.json",
        ),
        "capacities are in the manifest, and the seed follows from its hash: other seats, another order",
        ("test_seats_moved_once_the_order_is_known",),
    ),
    Fraud(
        "cut-offs bent for everybody, so that a friend wins",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "outcome",
            "cutoffs.json",
        ),
        "the receipts of all whom it passes over say that they should have won",
        ("test_cutoffs_bent_for_everybody",),
    ),
    Fraud(
        "cut-offs bent in the receipt of one loser",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "log",
            "cutoffs.json",
        ),
        "the summary has the hash of `cutoffs.json`, and the log that of the summary: all have the same ones."
        " Without the log only a replay shows it",
        (
            "test_cutoffs_that_are_bent_for_one_loser_are_not_the_logged_ones",
            "test_cutoffs_bent_for_one_loser",
        ),
    ),
    Fraud(
        "another round than the one committed to, chosen or repeated",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "randomness",
            "seed.json",
        ),
        "the signature is not that of the manifest's round. The reader in Perl says that it does not check"
        " signatures",
        ("test_another_round_than_the_committed_one",),
    ),
    Fraud(
        "a round that was already signed when the list was frozen",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "randomness",
            "manifest.json",
        ),
        "the manifest's round must come 600 s after its `asOf`",
        ("test_a_round_that_was_signed_before_the_entries_were_frozen",),
    ),
    Fraud(
        "a receipt swapped for that of another loser",
        (Seer.FAN,),
        (
            "leaf",
            "result",
        ),
        "leaf and line are not those of the ref",
        ("test_a_receipt_swapped_with_that_of_another_loser",),
    ),
    Fraud(
        "a strike, or a lapsed seat, in the receipt of one who is not in the list of strikes",
        (Seer.FAN,),
        (
            "result",
            "strike",
        ),
        "the line of the result and that of the strike do not lead to their roots",
        (
            "test_a_strike_invented_for_a_winner",
            "test_a_lapsed_seat_invented_for_a_winner",
        ),
    ),
    Fraud(
        "a strike taken back in a later phase",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "outcome",
            "strikes.txt",
        ),
        "a strike of the phase before is missing",
        ("test_a_strike_taken_back",),
    ),
    Fraud(
        "a struck winner kept",
        (Seer.REPLAY,),
        ("result.txt",),
        "the friend's receipt leaves the strike out and holds. But the manifest has the hash of"
        " `strikes.txt`: with the strike, the rules give another result",
        ("test_a_struck_winner_kept",),
    ),
    Fraud(
        "another outcome in the receipt of one fan: no seat for a winner, or waiting list and not selected exchanged",
        (Seer.FAN,),
        ("result",),
        "the line does not lead to the root of the result, which the summary has, and the log its hash",
        (
            "test_a_winner_whose_receipt_has_no_seat",
            "test_waiting_and_not_selected_exchanged",
        ),
    ),
    Fraud(
        "a seat withdrawn by a later phase",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "outcome",
            "result.txt",
        ),
        "a winner who is not struck stays one",
        ("test_a_seat_withdrawn_by_a_later_phase",),
    ),
    Fraud(
        "an entry of the list whose receipt says that it was excluded",
        (Seer.FAN,),
        ("absence",),
        "its neighbours in the list are not adjacent",
        ("test_an_entry_of_the_list_whose_receipt_excludes_it",),
    ),
    Fraud(
        "a winner excluded under another list, which is committed as a second phase",
        (Seer.FAN,),
        ("manifest",),
        "who is excluded is absent under the manifest of phase 1",
        ("test_a_winner_who_is_excluded_under_another_list",),
    ),
    Fraud(
        "a top-up with a reserve that is made for a friend",
        (
            Seer.FAN,
            Seer.REPLAY,
        ),
        (
            "manifest",
            "manifest.json",
        ),
        "what later phases may reserve is declared in phase 1 (`laterReserves`), for all of them together",
        ("test_a_top_up_with_a_reserve_that_was_not_declared",),
    ),
    Fraud(
        "another campaign than the one that the fan registered for",
        (Seer.FAN,),
        ("opened",),
        "none of the texts in the receipt has the hash that the platform confirmed, or they are about another"
        " campaign, also where no log has them",
        ("test_a_receipt_of_another_campaign", "test_a_record_of_another_campaign"),
    ),
    Fraud(
        "the list or the terms of a draw tried out before its commit",
        (Seer.IMPOSSIBLE,),
        (),
        "a result needs a signature that no one can know before its round: there is nothing to compare lists"
        " by",
        ("test_a_round_that_was_signed_before_the_entries_were_frozen",),
    ),
    Fraud(
        "one event drawn under several ids, to use the best result",
        (Seer.LOG,),
        (
            "one list",
            "could know the result",
        ),
        "one list is a finding, also for the chosen id alone; so are two campaigns of one event at the same"
        " time, and an annulment when the round was out",
        ("test_an_event_that_is_drawn_under_many_ids",),
    ),
    Fraud(
        "the same with a few other entries in each list",
        (Seer.LOG,),
        ("are in the lists of all of these",),
        "one entry in two lists is a finding",
        ("test_an_entry_in_the_lists_of_two_campaigns",),
    ),
    Fraud(
        "the same with a list that is not sorted, so that a comparison misses them",
        (Seer.LOG,),
        ("is not sorted by ref",),
        "the order of a list is a finding",
        ("test_a_list_that_is_not_sorted_hides_no_entry",),
    ),
    Fraud(
        "the same by campaigns that name no event (`eventId` null), each with refs of its own",
        (Seer.SHOWN,),
        (),
        "nothing joins them. `draw log` says which campaigns name no event, and lists each without a result; a receipt"
        " says that it shows no event. That such campaigns are of one event is seen by those who know their names",
        ("test_campaigns_that_name_no_event_are_joined_by_nothing",),
    ),
    Fraud(
        "a second list without a winner, logged in time beside that of the draw for their receipt alone",
        (Seer.LOG,),
        ("2 manifests",),
        "the receipt itself holds. `draw log` finds two manifests of one phase, of which none is said to be replaced",
        ("test_a_second_list_that_is_logged_for_one_receipt",),
    ),
    Fraud(
        "a strike under the root that receipts are proven by, and not in the published file",
        (Seer.LOG,),
        ("not both the hash and the root",),
        "the receipt itself holds. `draw log` compares `strikes.txt` with hash and root in its manifest, and so does a"
        " replay",
        ("test_a_list_of_strikes_with_another_root",),
    ),
    Fraud(
        "a phase that follows an annulled one",
        (Seer.FAN,),
        ("published",),
        "nothing follows a phase that was annulled",
        ("test_a_phase_after_an_annulled_one",),
    ),
    Fraud(
        "two histories of the log, each for one fan",
        (
            Seer.FAN,
            Seer.LOG,
        ),
        ("witnesses",),
        "too few of the fan's witnesses cosign the other one: more than half are needed. A trust file with"
        " fewer is refused, a policy leaves the verdict `incomplete`, and `draw log` asks witnesses what they"
        " signed",
        (
            "test_another_log_that_is_shown_to_one_fan",
            "test_two_histories_that_honest_witnesses_sign",
        ),
    ),
    Fraud(
        "the same with 2 needed - n witnesses that collude",
        (Seer.NONE,),
        (),
        "both histories have enough witnesses: that number has to collude, and the receipt says it. Fans who"
        " compare the root of the log see it",
        ("test_one_witness_that_colludes",),
    ),
    Fraud(
        "a second log of the operator, with the same witnesses",
        (Seer.FAN,),
        ("log",),
        "its key is not that of the trust file, and a file with witnesses has to name one",
        ("test_a_second_log_with_the_same_witnesses",),
    ),
    Fraud(
        "draw, log and witnesses invented under the operator's names",
        (Seer.FAN,),
        (
            "log",
            "witnesses",
        ),
        "the keys are those of the receipt alone: without a trust file it is `incomplete`, with one it fails",
        ("test_a_draw_that_a_stranger_invents",),
    ),
    Fraud(
        "the log rewritten",
        (Seer.LOG,),
        (),
        "a witness signs only what continues the checkpoint before",
        ("test_a_log_that_is_rewritten",),
    ),
    Fraud(
        "an old log, or a receipt of an earlier phase",
        (Seer.LOG,),
        ("an old log is shown",),
        "the old receipt itself holds, and says which phases it covers. `draw log --checkpoint` shows an old"
        " log, and the log has the result of every phase",
        ("test_a_receipt_of_an_earlier_phase_is_found_by_reading_the_log",),
    ),
    Fraud(
        "a commit that is logged when its round is known, at its true time",
        (Seer.FAN,),
        ("witnesses",),
        "the leaf of the manifest must be 600 s before its round",
        ("test_a_commit_that_is_logged_when_its_round_is_known",),
    ),
    Fraud(
        "a backdated commit: logged late, at a false time",
        (
            Seer.FAN,
            Seer.LOG,
        ),
        (
            "witnesses",
            "less than 600 s before",
        ),
        "witnesses must have seen the log with the manifest 600 s before its round, by their own clocks",
        ("test_a_commit_that_is_backdated",),
    ),
    Fraud(
        "a draw abandoned for another id, or a result withheld",
        (Seer.LOG,),
        ("neither a result nor",),
        "a manifest without result or annulment a day after its round is a finding, and so is a leaf whose"
        " file is not published",
        ("test_a_draw_whose_result_did_not_please",),
    ),
    Fraud(
        "the same behind a time or a round of a far year",
        (Seer.LOG,),
        (
            "says 9999",
            "more than 7 days after",
        ),
        "the times are those of the witnesses, and a round comes at most 7 days after its manifest",
        (
            "test_a_draw_that_is_withheld_behind_a_far_time",
            "test_a_round_of_a_far_year",
        ),
    ),
    Fraud(
        "a top-up whose terms were logged after its result",
        (
            Seer.FAN,
            Seer.LOG,
        ),
        (
            "log",
            "a result without a manifest before it",
        ),
        "its manifest is in the log before its result",
        ("test_a_manifest_that_was_logged_after_its_result",),
    ),
    Fraud(
        "a manifest replaced by a more favourable one",
        (
            Seer.FAN,
            Seer.LOG,
        ),
        (
            "log",
            "2 manifests",
        ),
        "every manifest has a leaf. A receipt that shows it fails; where a receipt leaves it out, `draw log`"
        " finds it: what was replaced is in a file, differs in the round alone, and was given up before that"
        " round. Without the log those see it who noted the published hash",
        (
            "test_a_manifest_that_was_replaced_unnoticed",
            "test_a_manifest_that_no_receipt_names",
        ),
    ),
    Fraud(
        "a result, or a reason of a top-up, that is not the published one",
        (
            Seer.FAN,
            Seer.LOG,
        ),
        ("log",),
        "the hashes of `summary.json` and `notice.json` are in the log. Two receipts may show two notices"
        " that are both in it: `draw log` finds the second one. Whether a reason is true, no log knows",
        (
            "test_a_result_or_a_reason_that_is_not_the_logged_one",
            "test_another_reason_holds_without_the_log",
        ),
    ),
    Fraud(
        "an annulment kept from a fan",
        (
            Seer.FAN,
            Seer.LOG,
        ),
        ("log",),
        "a receipt with its leaf does not hold without it. A receipt that leaves the leaf out holds: `draw"
        " log` names every draw that was annulled",
        ("test_an_annulment_that_the_receipt_does_not_have",),
    ),
    Fraud(
        "one code planned for two winners, by mistake and on purpose",
        (Seer.FAN, Seer.LOG),
        ("code", "have the same code"),
        "the digests of planned codes are public before messages go out. A code has one salt, so one digest: a list"
        " that has it twice is a finding, and the proof of a salt that was invented fails. A key that"
        " is not in the log proves nothing: `incomplete`",
        (
            "test_a_code_that_is_planned_for_two_winners",
            "test_a_code_that_is_given_twice_under_salts_that_are_invented",
            "test_a_code_holds_only_with_its_key_and_its_list",
            "test_a_code_key_that_is_not_in_the_log",
        ),
    ),
    Fraud(
        "the same code in two campaigns",
        (Seer.NONE,),
        (),
        "each campaign has its own code key, so the digests differ. Winners who compare their codes see it, and the"
        " issuer, who accepts a code once",
        ("test_a_code_has_another_digest_in_another_campaign",),
    ),
    Fraud(
        "a registered entry left out before the commit, in no class",
        (Seer.REPLAY,),
        ("manifest.json",),
        "each registration is drawn, excluded, withdrawn or erased, and the classes of the manifest sum to its list",
        ("test_an_entry_that_is_left_out_of_every_class",),
    ),
    Fraud(
        "an entry added when registration is over",
        (Seer.LOG,),
        ("minutes after the campaign closed",),
        "what comes into the list of registrations more than 15 minutes after the close is a finding; before that it is"
        " counted by minute. An entry that the list does not have leaves the classes with a wrong sum, or takes the"
        " place of an excluded one, which an auditor sees who has all leaves opened",
        ("test_an_entry_that_is_registered_when_it_is_over",),
    ),
    Fraud(
        "an entry taken out of the list of registrations, or exchanged there",
        (Seer.LOG,),
        ("it did not only grow",),
        "each size and root of the list is a leaf of the log, and follows from the entries. Its fan sees it, too: the"
        " confirmation does not lead to the list, and that of an entry in its place fails, because the list does not"
        " begin with the first one that had that place",
        ("test_an_entry_that_is_taken_out_of_the_list",),
    ),
    Fraud(
        "an entry left out, whose receipt shows the registration of another one, or one that never was in the list",
        (Seer.FAN,),
        ("registration",),
        "the leaf follows from ref, unit, time and salt, and its proof leads to the list that the manifest commits to."
        " A receipt without a registration says so: the confirmation has it, and is checked without the receipt",
        (
            "test_an_entry_that_was_left_out_and_shown_as_another_one",
            "test_an_entry_that_never_was_in_the_list",
        ),
    ),
    Fraud(
        "an entry moved to another household after it was logged",
        (Seer.FAN,),
        ("registration",),
        "its leaf in the list has the household. With a notice the receipt shows that notice",
        ("test_an_entry_that_was_moved_to_another_household_after_it_was_logged",),
    ),
    Fraud(
        "an entry that was taken back, and drawn for another person",
        (Seer.FAN, Seer.LOG),
        ("registration", "the list has"),
        "the notice is about its leaf, and the manifest counts one withdrawn entry less than the list has",
        ("test_an_entry_that_was_taken_back_and_drawn",),
    ),
    Fraud(
        "another list in the manifest than the last one of the log",
        (Seer.LOG,),
        ("the log had last before the manifest",),
        "size and root in the manifest are those of the last leaf before it, also where the log never opened the"
        " campaign and the manifest has no list at all. A receipt has that leaf, too, and says so",
        ("test_another_list_than_the_last_one_of_the_log",),
    ),
    Fraud(
        "one registration shown to two fans",
        (Seer.LOG,),
        ("one leaf for two entries",),
        "a leaf is one entry's: its salt is random, so a second one is on purpose",
        ("test_one_registration_for_two_entries",),
    ),
    Fraud(
        "entries invented before registration closes",
        (Seer.SHOWN,),
        (),
        "an invented entry is registered as any other. Page and report have the curves of arrival and the share of"
        " entries that were vouched for: 10,000 in one night show; 10,000 whose times are spread over all days do not",
    ),
    Fraud(
        "strangers drawn as one household, or a household split",
        (Seer.SHOWN,),
        (),
        "who belongs together is the operator's statement. Each receipt says with how many its entry is"
        " drawn; page and report have households by size, and how each fared",
        ("test_strangers_who_are_drawn_as_one_household",),
    ),
    Fraud(
        "a weight or a segment given to a friend before the commit",
        (Seer.SHOWN,),
        (),
        "both are in the leaf on the friend's own receipt. Page and report have weights and segments, and how"
        " each fared",
        ("test_a_weight_and_a_segment_given_before_the_commit",),
    ),
    Fraud(
        "an entry left out with an invented reason",
        (Seer.SHOWN,),
        (),
        "the receipt shows that it is not in the list, and says that the reason is the operator's statement. Where"
        " registrations are logged, it shows that the entry was registered, and an auditor can ask for each reason",
        ("test_an_entry_that_is_left_out_with_an_invented_reason",),
    ),
    Fraud(
        "a strike that is invented, so that the next one wins",
        (Seer.SHOWN,),
        (),
        "later phases are chosen with every rank known. Page and report have strikes by reason, of winners"
        " apart, however few; the receipt says that the reason is the operator's statement",
        ("test_winners_who_are_struck_so_that_a_friend_wins",),
    ),
    Fraud(
        "the moment and the size of a top-up, chosen with every rank known",
        (Seer.SHOWN,),
        (),
        "the notice has the reason. The receipts, the page and the report that the manager confirms say how a"
        " later phase is chosen",
        ("test_winners_who_are_struck_so_that_a_friend_wins",),
    ),
)


def frauds_table() -> str:
    """The frauds in Markdown."""
    lines = ["| fraud | seen by | caught at | because | shown by |", "| --- | --- | --- | --- | --- |"]
    for each in FRAUDS:
        places = ", ".join(map(_shown, each.places)) or "–"
        tests = ", ".join(f"`{test.removeprefix('test_')}`" for test in each.tests) or "–"
        lines.append(f"| {each.name} | {', '.join(each.seen_by)} | {places} | {each.why} | {tests} |")
    return "\n".join(lines) + "\n"


def _shown(place: str) -> str:
    """A step or a file as code, a finding in italics."""
    if " " in place:
        return f"*{place}*"
    return f"`{place}-<n>`" if place in ("result", "strike", "outcome") else f"`{place}`"
