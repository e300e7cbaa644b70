// Every text of the page. For each step: `fan` is for the entrant when the step passed, `failed` when it did not;
// `auditor` says what is computed, and comes before what the check itself reports.

export const STRINGS = {
  kicker: "Checked on this device",
  title: "Check a receipt of a draw",
  waiting: {
    headline: "Check a receipt of a draw",
    summary:
      "Open the file that you got after the draw, or when you registered. This page computes every step of it again, on " +
      "this device.",
  },
  checking: (title, at, of) => `Checking step ${at} of ${of}: ${title} …`,
  verdicts: {
    holds: {
      mark: "✓",
      headline: "This receipt holds",
      summary: (steps, what) => `This ${what} holds: each of ${steps} was computed again on this device, and agrees.`,
    },
    noted: {
      mark: "i",
      headline: "Every step agrees, and something else was found",
      summary: (steps) => `Each of ${steps} was computed again on this device, and agrees. But read what else was found below.`,
    },
    fits: {
      mark: "i",
      headline: "Everything fits together",
      summary: (steps) => `Everything fits together, by the keys that came with it: ${steps}, each computed on this device.`,
    },
    fails: {
      mark: "✗",
      headline: "This receipt does not hold",
      otherHeadline: "This confirmation does not hold",
      summary: () =>
        "Do not rely on what it says. Keep this file, and show it to the organiser or to an auditor.",
    },
    incomplete: {
      mark: "i",
      headline: "Nothing is wrong, but not everything was checked",
      summary: (steps) => `Nothing contradicts it, but not everything could be checked: of ${steps}, these were not.`,
    },
  },
  countOfSteps: (count) => (count === 1 ? "1 step" : `${count} steps`),
  unreadable: {
    headline: "This is not a receipt that this page can read",
    summary: () => "The file is damaged, or it is no receipt of a draw. Use the file exactly as you got it.",
  },
  broken: {
    headline: "The check could not be finished",
    summary: "This page met an error of its own, and vouches for nothing. Try another browser. The error:",
  },
  claims: "The receipt claims:",
  outcomes: {
    WINNER: "Selected",
    WAITLIST: "On the waiting list",
    UNSELECTED: "Not selected",
    HOUSEHOLD_LIMIT: "Not selected: the household’s limit was reached",
    STRUCK: "Removed from the draw",
    UNCLAIMED: "Selected, and not claimed in time: the seat lapsed",
    excluded: "Not in the draw",
  },
  annulled: "This draw was annulled: its results do not count",
  registered: "Registered",
  notRegistered: "Not found in the list",
  notLooked: "Not checked: public files are missing",
  listed: (time, by) =>
    `Registered: in the list since ${time}, by ${by === null ? "the organiser’s word" : by === 1 ? "1 witness" : `${by} witnesses`}`,
  facts: {
    reference: "Reference",
    rank: "Rank",
    registered: "Registered",
    noted: "Noted about it since",
    number: "Number in the list",
    reasons: "Reason that the operator gives",
    annulled: "Annulled",
    outcome: "Result that does not count",
  },
  states: { passed: "Passed", failed: "Failed", unchecked: "Not checked", absent: "Not applicable" },
  marks: { passed: "✓", failed: "✗", unchecked: "–", absent: "–" },
  auditTitle: "For auditors: every step",
  checksLead: "No tick on this page comes from a server: each is computed here, from the receipt alone.",
  openAll: "Show all details",
  closeAll: "Hide all details",
  details: "Details",

  steps: {
    receipt: {
      title: "The receipt can be read",
      fan: "The file is a receipt of a draw.",
      failed: "The file is no receipt of a draw, or a part of it is missing or changed.",
      auditor: "Every field is parsed strictly: no unknown key, no missing one, no other type.",
    },
    confirmation: {
      title: "The confirmation can be read",
      fan: "The file is the confirmation of a registration.",
      failed: "The file is no confirmation, or a part of it is missing or changed.",
      auditor: "Every field is parsed strictly.",
    },
    leaf: {
      title: "Your entry",
      fan: "This is how you took part: your reference, your household, your wishes in your order.",
      failed: "The entry in this receipt is not the one that the receipt is about.",
      auditor: "The leaf is well formed, has the receipt’s ref, and lists only markets of the manifest.",
    },
    inclusion: {
      title: "Your entry is in the list",
      fan: "Your entry is in the list that was fixed before the draw. No one can change that list unnoticed.",
      failed: "Your entry, as shown here, does not belong to the list that was fixed before the draw.",
      auditor: "The RFC 6962 inclusion proof leads from the leaf to the root in the manifest.",
    },
    manifest: {
      title: "The terms of the draw",
      fan: "The list, the seats and the rules are those of this campaign, and later phases keep to what the first allows.",
      failed: "The terms in this receipt are not those of its fingerprint, or they changed between phases.",
      auditor:
        "SHA-256 of every manifest against its summary; campaign, phase, root, markets and seed source; the key previous " +
        "joins each phase to the one before; capacities do not fall, and reserves stay within laterReserves.",
    },
    published: {
      title: "What the operator published beside it",
      fan: "The times and reasons that the operator published do not contradict the terms.",
      failed: "The times or reasons that the operator published contradict the terms.",
      auditor:
        "notice.json, replaced-<k>.json, accepted.json and annulled.json against the manifests. Their times and " +
        "reasons are statements of the operator.",
    },
    opened: {
      title: "The campaign as it opened",
      fan: "The draw is that of the campaign which opened, with its markets and its beacon.",
      failed: "The draw is not that of the campaign which opened, or not of the one that you know.",
      absent: "This receipt does not show how the campaign opened: there was nothing to compare.",
      auditor:
        "opened.json and every amended-<k>.json, each with the hash of the one before; campaign, chain and markets of the " +
        "manifest against the last one that was logged before it. Other differences are findings.",
    },
    randomness: {
      title: "The random number",
      fan: "It comes from a public beacon which no one controls alone, in the round that was named before.",
      failed: "The random number is not that of the beacon’s round, or the round does not fit the terms.",
      unchecked:
        "It fits the receipt, but something is missing here: the code that checks the beacon’s signature, or a trust " +
        "file that says how long before its round a list must be fixed.",
      auditor:
        "Randomness = SHA-256(signature); the signature of the round is verified under the chain’s key " +
        "(BLS12-381, signatures in G1); the round is signed at least the lead (quicknet: 600 s) after asOf.",
    },
    seed: {
      title: "The start value of the draw",
      fan: "It follows from the terms and the random number, and from nothing else.",
      failed: "The start value does not follow from the terms and the random number.",
      auditor: 'seed = SHA-256("vfseed2|" + manifestHash of phase 1 + "|" + chain + "|" + round + "|" + randomness).',
    },
    key: {
      title: "Your household’s lot",
      fan: "The lot of your household follows from the start value. The smallest lots come first.",
      failed: "The lot in this receipt is not the one that the start value gives your household.",
      auditor: 'key = the least SHA-256("vf2|" + seed + "|" + drawId + "|" + unit + "|" + j), j from 0 below the weight.',
    },
    entryKey: {
      title: "Your own lot",
      fan: "Your own lot, which decides within a household, follows from the start value, too.",
      failed: "Your own lot in this receipt is not the one that the start value gives your entry.",
      auditor: 'entryKey = SHA-256("vf2e|" + seed + "|" + ref).',
    },
    candidate: {
      title: "Your household’s limit",
      fan: "The limit of winners for each household was applied to you as the terms say.",
      failed: "The receipt does not show that the limit for households was applied as the terms say.",
      auditor:
        "An entry without a rank has winsPerUnit leaves of its unit and weight ahead of it, each with a proof and a " +
        "smaller entryKey.",
    },
    result: {
      title: (phase) => `Your line of the result of phase ${phase}`,
      fan: "The published result has exactly this line for you.",
      failed: "The published result does not have this line for you: you were given another result.",
      auditor: "The inclusion proof leads from the line to resultRoot of summary.json; its index is that of the leaf.",
    },
    strike: {
      title: (phase) => `Your strike in phase ${phase}`,
      fan: "Your entry is in the published list of strikes, with this reason. Whether it is right no receipt can show.",
      failed: "Your entry is not in the published list of strikes as the receipt says.",
      auditor: "The inclusion proof leads from the line of strikes.txt to strikesRoot of the manifest.",
    },
    outcome: {
      title: (phase) => `Your result in phase ${phase}`,
      fan: "This result fits your lot, the last lots admitted, and the list of strikes.",
      failed: "By the rules, your lot and the last lots admitted give another result than the receipt says.",
      auditor:
        "SHA-256 of the cut-offs against the summary; their groups against the manifest; the first preference whose " +
        "cut-off is met by (key, entryKey), with strikes, kept seats and waitlistSize.",
    },
    rank: {
      title: "Your rank",
      fan: "Your rank fits all limits of admission. Only a replay of the whole draw counts everyone ahead of you.",
      failed: "The rank contradicts your lot.",
      auditor: "The rank is the same in all phases, and ahead of each cut-off’s rank exactly if the key is.",
    },
    stated: {
      title: "The result at the top",
      fan: "The result that the receipt states is the one of its last phase.",
      failed: "The receipt states another result than its last phase.",
      auditor: "market, rank and outcome against the last phase’s line of result.txt.",
    },
    code: {
      title: "Your code has this salt and no other one",
      fan: "The salt is the signature of your code under the campaign’s code key. There is no second one.",
      failed: "The salt was invented: the same code may be planned for someone else under another one.",
      unchecked: "The code key is not in the log, or this page cannot check signatures.",
      auditor: "A BLS signature in G1 under codeKey of the last text about the campaign; the point is checked, too.",
    },
    planned: {
      title: "Your code was planned for you alone",
      fan: "The list of planned codes in the log has your code once, at your place.",
      failed: "The list of planned codes does not have your code at your place, or has it twice.",
      unchecked: "Choose the list of planned codes above: the details have its name.",
      auditor: "SHA-256 of the list is a leaf of the log; market, position and digest are one line of it, once.",
    },
    absence: {
      title: "Your entry was not in the list",
      fan: "The list is sorted, and where your reference would be, its two neighbours touch.",
      failed: "The receipt does not show that your reference is missing from the list.",
      auditor: "Inclusion proofs of the two leaves around the ref; their indices are adjacent.",
    },
    reason: {
      title: "Why",
      fan: "The operator gives a reason. Whether it is right is the operator’s judgement.",
      failed: "The receipt gives no reason.",
      auditor: "At least one reason; nothing about it is proven.",
    },
    registration: {
      title: "You were in the list before the draw",
      fan: "Your registration is in the list that only grew while registration was open, and the draw answers for it.",
      failed: "Your registration, as shown here, does not belong to the list that the draw answers for.",
      unchecked: "What would show it is gone: only the organiser’s word is left.",
      absent: "This receipt shows no registration: the details say why.",
      auditor:
        'SHA-256("vfreg1|" + campaignId + "|" + ref + "|" + unit + "|" + at + "|" + salt) is the entry at the index, or ' +
        "what the last notice of another unit says; RFC 6962 proofs of it and of every notice lead to registrations.root.",
      ofConfirmation: {
        title: "You are in the list of registrations",
        fan: "Your registration is in the newest list that is in the public log, at the number in your confirmation.",
        failed: "At the number in your confirmation the published list does not have your registration.",
        unchecked: "It is not in the list yet, or files are missing here: the details say which.",
        auditor: "As in a receipt; the root of the list is computed again from the entries that were read and the hashes of the others.",
      },
    },
    log: {
      title: "The public log",
      fan: "The fingerprints of this draw are in a public log, from which nothing disappears unnoticed.",
      failed: "The public log does not show this draw as the receipt does.",
      unchecked: "This page cannot check the log’s signature. All else about it fits the receipt.",
      absent: "This draw is in no public log: there was nothing to check.",
      auditor:
        "The signatures of every checkpoint under a trusted key; RFC 6962 proofs of all entries; the campaign’s record, " +
        "manifests, one summary for each phase, and annulment against the receipt.",
      ofConfirmation: {
        fan: "The fingerprint of that list is in a public log, from which nothing disappears unnoticed.",
        failed: "The public log does not have this list.",
        unchecked: "Files are missing here, or this page cannot check signatures: the details say which.",
        auditor: "The checkpoint’s signature under a trusted key; an RFC 6962 proof of the leaf of the size.",
      },
    },
    witnesses: {
      title: "Witnesses of the log",
      fan: "As many independent witnesses as required have signed what the log showed, in time where time matters.",
      failed: "Fewer witnesses than required have signed what the log showed, or they signed it too late.",
      unchecked: "Not enough of this could be checked: the details say what is missing.",
      absent: "Without a public log there was nothing that witnesses could sign.",
      auditor:
        "Cosignatures of distinct trusted witnesses under the checkpoint, at least as many as the quorum says; the time of " +
        "the manifest’s leaf is that of the needed-th cosignature, and at least the lead before the round.",
      ofConfirmation: {
        title: "Witnesses who saw the list",
        fan: "As many independent witnesses as required saw a list with your registration, at the time above.",
        failed: "Fewer witnesses than required saw a list with your registration.",
        auditor: "Cosignatures as in a receipt; the time is that of the first size of the list that has the index.",
      },
    },
  },

  relaysLead:
    "Open the round at the beacon’s relays, and compare the signature with the one below. These are links: the " +
    "page itself loads nothing.",
  relay: (host, round) => `Round ${round} at ${host}`,

  trustTitle: (count) => `What is left to trust: ${count} things`,
  // A title and a text; `act` where the reader has something to do.
  trust: {
    findings: (found) => ({
      title: "The draw is not quite as the campaign opened",
      text: `Ask the organiser why. ${found.join(". ")}.`,
      act: true,
    }),
    noted: (found) => ({
      title: "Something was noted about your registration",
      text: `Ask the organiser why, unless you wished it. ${found.join(". ")}.`,
      act: true,
    }),
    // It can be read again, whole.
    unread: (text) => ({ title: "What was not read", text, again: "Look in all entries" }),
    asOf: (text) => ({ title: "What came later", text }),
    inTheDraw: {
      title: "That you take part in the draw",
      text: "Only the receipt after the draw shows that. Keep this confirmation until then.",
    },
    keys: {
      title: "Whose keys these are",
      text:
        "The keys came with what you check: the organiser chose them. Compare their fingerprints below with those of " +
        "the log and of its witnesses, or choose a trust file.",
      act: true,
    },
    campaign: {
      title: "That this is the draw you registered for",
      text: "Compare the fingerprint of its campaign with the one in your confirmation.",
      act: true,
    },
    notOpened: {
      title: "That the event has one draw",
      text:
        "The receipt does not show how the campaign opened. That the operator did not draw several times, under other " +
        "names, is the operator’s word.",
    },
    noEvent: {
      title: "That the event has one draw",
      text:
        "The campaign names no event. That the operator did not draw it several times, under other names, is the " +
        "operator’s word.",
    },
    together: (company) => ({
      title: `You are drawn ${company}: is that right?`,
      text: "Who belongs to one household is the operator’s statement. If it is wrong, tell the organiser.",
      act: company !== "alone",
    }),
    list: {
      title: "Who is in the list",
      text: "Entries that the operator invented before registration closed look like all others.",
    },
    notRegistered: {
      title: "That no entry was left out",
      text:
        "This receipt does not show that you were in a public list before the draw: that no entry was left out is the " +
        "organiser’s word.",
    },
    noLog: {
      title: "When the list was fixed",
      text:
        "That the list was fixed before the random number was known is the operator’s statement, unless its fingerprint " +
        "(manifestHash) was public before: compare it with that place.",
    },
    noWitness: {
      title: "That all fans see the same draw",
      text:
        "No independent witness has signed for this: nothing but the operator’s word says that other fans got the " +
        "same fingerprints. Compare yours with theirs.",
    },
    strike: {
      title: "Why you were removed",
      text: "The receipt shows that you are in the published list of strikes, not that you should be.",
    },
    chosenLater: {
      title: "What later phases do",
      text:
        "Seats, reserves and strikes of a later phase are decided by those who can see whom they help. What its reserves " +
        "may take at most was fixed in phase 1.",
    },
    replay: {
      title: "The other entries",
      text:
        "This receipt shows your entry. A replay of the whole draw shows whether all others were treated by the same " +
        "rules: one honest auditor is enough.",
    },
    later: (last) => ({
      title: "Whether more phases follow",
      text: `This receipt covers the draw up to phase ${last}. The published folder of the draw shows whether more followed.`,
    }),
    judgement: {
      title: "The reason for the exclusion",
      text: "The receipt shows that the entry was not in the draw, not that it should not have been.",
    },
    page: {
      title: "This page may be forged: check elsewhere",
      text:
        "A forged page can show any tick. Give the receipt to a checker of someone whom you trust, or compare the page " +
        "with the release.",
      act: true,
    },
  },
  limitsTitle: "The limits, in an auditor’s words",

  codeTitle: "Was your code planned for you alone?",
  codeField: "The list of planned codes",
  codeHelp: "A file such as codes-1.txt, from the published files of the draw.",
  compareTitle: "Is it the draw that you registered for?",
  knownField: "The campaign’s fingerprint from your confirmation",
  knownHelp: "64 characters, 0 to 9 and a to f, as the ticket shop confirmed them to you.",
  knownButton: "Compare",
  knownRefused: "A fingerprint has exactly 64 characters, 0 to 9 and a to f.",
  compared: {
    other: "This is the fingerprint of another campaign. This receipt is not of the draw that you registered for.",
    same: "This is the campaign’s fingerprint, and nothing has changed since.",
    changed: "This is the campaign’s fingerprint. Since then the organiser has changed:",
    change: ({ number, reason, lines }) => `(${number}) ${lines.join("; ")}. The reason given: ${reason}`,
  },

  keysTitle: "Keys",
  keysLead: {
    receipt: "These keys are in the receipt itself: no trust file was used.",
    log: "These keys are beside the log: no trust file was used.",
    file: "These are the keys of the trust file that you chose.",
    page: "These are the keys that the publisher of this page put into it.",
    none: "No key was needed: this receipt has no signature to verify.",
  },
  keyKinds: { beacon: "Random beacon", log: "Public log", witness: "Witness" },
  keyGiven: { receipt: "in the receipt", log: "published beside the log", rules: "in the rules of the draw", trust: "from the trust file" },
  keyFrom: "Given",
  fingerprint: "Fingerprint",
  trustField: "Use keys that you trust: choose a trust file",
  trustHelp: "A file with the keys of the log and its witnesses, or a policy of such keys.",

  filesTitle: "The public files that are needed",
  folderField: "Choose the folder with the public files",
  folderHelp: "A copy of what the organiser publishes, with draws, log and registrations. A page from disk can fetch nothing.",
  filesMissing: (names) => `These files were not there: ${names.join(", ")}`,

  inputTitle: "Your receipt, or your confirmation",
  inputAgain: "Check another one",
  fileField: "Choose the file of a receipt or a confirmation",
  fileHelp: "The page or the JSON file that you got. You can also drop it anywhere on this page.",
  pasteField: "Or paste its text",
  pasteButton: "Check this text",
  privacy:
    "What you check stays on this device: this page sends nothing. For a confirmation it reads public files of the host " +
    "that it came from.",

  refused: {
    empty: "This file is empty. Choose the file that you got after the draw.",
    big: (megabytes) => `This file has ${megabytes} MB. A receipt is much smaller: choose the file that you got.`,
    binary: "This is no receipt or confirmation, and no text: perhaps a picture. Choose the page (.html) or JSON file (.json) that you got.",
    html: "This page has no receipt in it. Choose the page that you got after the draw, or its JSON file.",
    text: "This is no receipt or confirmation. In JSON they start with { and end with }: use all of it.",
    other: "This is JSON, but no receipt or confirmation. Choose the file that you got.",
    codes: "This is no list of planned codes: no line of it is market|position|digest.",
    unreadable: "This browser could not read the file. Choose it again.",
    trust: (reason) => `This is no trust file, so the keys stay as they were: ${reason}`,
  },

  valuesTitle: "The whole receipt",
  valuesHelp: "Other checkers take this text, or this file itself.",
  footerPage:
    "This page is one file, the same for every receipt. It sends nothing, and loads nothing but public files, for a " +
    "confirmation. To compare it with the release: regworkers draw verify-page FILE, or the SHA-256 in docs/fairness.md.",
};
