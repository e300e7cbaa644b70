// Every text of the page. For each step: `fan` is for the entrant when the step passed, `failed` when it did not;
// `auditor` says what is computed, and comes before what the check itself reports.

export const STRINGS = {
  kicker: "Checked on this device",
  title: "Check a receipt of a draw",
  waiting: {
    headline: "Check a receipt of a draw",
    summary: "Open the file that you got after the draw. This page computes every step of it again, on this device.",
  },
  checking: { headline: "Checking …", summary: "Every step is computed again on this device." },
  verdicts: {
    holds: {
      mark: "✓",
      headline: "This receipt holds",
      summary: "Every step was computed again on this device, and every value agrees.",
    },
    fails: {
      mark: "✗",
      headline: "This receipt does not hold",
      summary:
        "Do not rely on the result below. Keep this file, and show it to the organiser or to an auditor.",
    },
    incomplete: {
      mark: "?",
      headline: "Nothing is wrong, but not everything was checked",
      summary: "Every step that could be checked here agrees.",
    },
  },
  unreadable: {
    headline: "This is not a receipt that this page can read",
    summary: "The file is damaged, or it is no receipt of a draw. Use the file exactly as you got it.",
  },
  broken: {
    headline: "The check could not be finished",
    summary: "This page met an error of its own, and vouches for nothing. Try another browser. The error:",
  },
  says: "Your result",
  claims: "What the receipt claims: do not rely on this",
  outcomes: {
    WINNER: "Selected",
    WAITLIST: "On the waiting list",
    UNSELECTED: "Not selected",
    HOUSEHOLD_LIMIT: "Not selected: the household’s limit was reached",
    STRUCK: "Removed from the draw",
    excluded: "Not in the draw",
  },
  annulled: "This draw was annulled: its results do not count.",
  facts: {
    campaign: "Campaign",
    reference: "Reference",
    rank: "Rank",
    reasons: "Reasons",
    annulled: "Annulled",
    phases: "Phases",
    round: "Random number made",
  },
  noRank: "none",
  tiles: {
    passed: (passed, all) => `${passed} of ${all}`,
    passedText: "steps checked and passed",
    leftText: "things left to trust",
    failedText: (count) => (count === 1 ? "step failed" : "steps failed"),
  },
  states: { passed: "Passed", failed: "Failed", unchecked: "Not checked", none: "Not applicable" },
  marks: { passed: "✓", failed: "✗", unchecked: "?", none: "–" },
  checksTitle: "What was checked, step by step",
  checksLead: "No tick on this page comes from a server: each is computed here, from the receipt alone.",
  openAll: "Show all details",
  closeAll: "Hide all details",
  details: "For auditors",

  steps: {
    receipt: {
      title: "The receipt can be read",
      fan: "The file is a receipt of a draw.",
      failed: "The file is no receipt of a draw, or a part of it is missing or changed.",
      auditor: "Every field is parsed strictly: no unknown key, no missing one, no other type.",
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
      fan: "The list, the seats and the rules are those with the fingerprint (manifestHash) that the receipt names.",
      failed: "The terms in this receipt are not those of its fingerprint, or they changed between phases.",
      auditor:
        "SHA-256 of every manifest; campaign, phase, root, markets and seed source; the key previous joins each phase " +
        "to the one before.",
    },
    published: {
      title: "What the operator published beside it",
      fan: "The times and reasons that the operator published do not contradict the terms.",
      failed: "The times or reasons that the operator published contradict the terms.",
      auditor:
        "notice.json, replaced-<k>.json, accepted.json and annulled.json against the manifests. Their times and " +
        "reasons are statements of the operator.",
    },
    "randomness-drand": {
      title: "The random number",
      fan: "It comes from a public beacon which no one controls alone, in the round that was named before.",
      failed: "The random number is not that of the beacon’s round, or the round does not fit the terms.",
      unchecked: "It fits the receipt, but this copy of the page has no code to check the beacon’s signature.",
      auditor:
        "Randomness = SHA-256(signature); the signature of the round is verified under the chain’s key " +
        "(BLS12-381, signatures in G1); the round is signed at least 600 s after asOf.",
    },
    "randomness-commit-reveal": {
      title: "The random number",
      fan: "It is a secret of the operator, and the one whose fingerprint the terms name.",
      failed: "The operator’s secret is not the one whose fingerprint the terms name.",
      auditor: "SHA-256(secret) is the commitment in the manifest.",
    },
    seed: {
      title: "The start value of the draw",
      fan: "It follows from the terms and the random number, and from nothing else.",
      failed: "The start value does not follow from the terms and the random number.",
      auditor: 'seed = SHA-256("vfseed1|" + manifestHash of phase 1 + "|" + source + "|" + round + "|" + randomness).',
    },
    key: {
      title: "Your household’s lot",
      fan: "The lot of your household follows from the start value. The smallest lots come first.",
      failed: "The lot in this receipt is not the one that the start value gives your household.",
      auditor: 'key = the least SHA-256("vf1|" + seed + "|" + drawId + "|" + unit + "|" + j), j from 0 below the weight.',
    },
    entryKey: {
      title: "Your own lot",
      fan: "Your own lot, which decides within a household, follows from the start value, too.",
      failed: "Your own lot in this receipt is not the one that the start value gives your entry.",
      auditor: 'entryKey = SHA-256("vf1e|" + seed + "|" + ref).',
    },
    candidate: {
      title: "Your household’s limit",
      fan: "The limit of winners for each household was applied to you as the terms say.",
      failed: "The receipt does not show that the limit for households was applied as the terms say.",
      auditor:
        "An entry without a rank has winsPerUnit leaves of its unit and weight ahead of it, each with a proof and a " +
        "smaller entryKey.",
    },
    outcome: {
      title: (phase) => `Your result in phase ${phase}`,
      fan: "By the rules, your lot and the last lots admitted give exactly this result.",
      failed: "By the rules, your lot and the last lots admitted give another result than the receipt says.",
      auditor:
        "SHA-256 of the cut-offs; their groups against the manifest; the first preference whose cut-off is met by " +
        "(key, entryKey), with strikes, kept seats and waitlistSize.",
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
    log: {
      title: "The public log",
      fan: "The fingerprints of this draw are in a public log, from which nothing disappears unnoticed.",
      failed: "The public log does not show this draw as the receipt does.",
      unchecked: "This page cannot check the log’s signature. All else about it fits the receipt.",
      absent: "This draw is in no public log: there was nothing to check.",
      auditor:
        "The checkpoint’s signature under a trusted key; RFC 6962 proofs of all entries; commitment, manifests, " +
        "results with their cut-offs and annulment against the receipt; the manifest’s entry is at least 600 s before " +
        "the round, and in the checkpoint of the commit.",
    },
    witnesses: {
      title: "Witnesses of the log",
      fan: "As many independent witnesses as required have signed what the log showed, in time where time matters.",
      none: "No witness is required for this draw, so none vouches for the log.",
      failed: "Fewer witnesses than required have signed what the log showed, or they signed it too late.",
      unchecked: "This page cannot check the witnesses’ signatures.",
      absent: "Without a public log there was nothing that witnesses could sign.",
      undated: "When witnesses first saw the terms of this draw in the log, the receipt does not show.",
      auditor:
        "Cosignatures of distinct trusted witnesses under the checkpoint, at least as many as the keys say (need); with " +
        "the beacon also under the checkpoint of the commit, with a time at least 600 s before the round.",
    },
  },

  relaysLead:
    "Open the round at the beacon’s relays, and compare the signature with the one below. These are links: the " +
    "page itself loads nothing.",
  relay: (host, round) => `Round ${round} at ${host}`,

  trustTitle: "What is left to trust",
  trustLead: "No receipt can show everything. This is what the steps below do not show.",
  trust: {
    drandNoLog: [
      "When the list was fixed",
      "The random number could not be known before its moment. That the list was fixed earlier is the operator’s " +
        "statement, unless its fingerprint (manifestHash) was public before: compare it with that place.",
    ],
    commitReveal: [
      "The operator’s random number",
      "The operator made it, and could know it before the list was fixed. Its holder could have tried out lists " +
        "until one suited. No arithmetic shows that this did not happen.",
    ],
    noWitness: [
      "That all fans see the same draw",
      "No independent witness has signed for this: nothing but the operator’s word says that other fans got the " +
        "same fingerprints. Compare yours with theirs.",
    ],
    operatorKeys: [
      "The keys",
      "You used the keys as the operator gave them. Compare their fingerprints below with those of the beacon, the " +
        "log and the witnesses, or choose a trust file.",
    ],
    list: [
      "Who is in the list",
      "Entries that were invented, or a household that was split, before the list was fixed look like all others.",
    ],
    replay: [
      "The other entries",
      "This receipt shows your entry. A replay of the whole draw shows whether all others were treated by the same " +
        "rules: one honest auditor is enough.",
    ],
    later: (last) => [
      "Later phases",
      `This receipt covers the draw up to phase ${last}. The published folder of the draw shows whether more followed.`,
    ],
    judgement: [
      "The reason for the exclusion",
      "The receipt shows that the entry was not in the draw, not that it should not have been.",
    ],
    page: [
      "This page",
      "A forged page can show any tick. Compare the page with the release (how: at the end), or give the receipt to " +
        "a checker of someone whom you trust.",
    ],
  },
  limitsTitle: "In an auditor’s words",

  keysTitle: "Keys",
  keysLead: {
    operator: "These are the keys as the operator gave them: no trust file was used.",
    trust: "These are the keys of the trust file that you chose.",
    mixed: "Some keys are from your trust file. The others are keys as the operator gave them.",
    none: "No key was needed: this receipt has no signature to verify.",
  },
  keyKinds: { beacon: "Random beacon", log: "Public log", witness: "Witness" },
  keyGiven: { operator: "as the operator gave it", trust: "from your trust file" },
  keyFrom: "Given",
  fingerprint: "Fingerprint",
  trustField: "Use other keys: choose a trust file",
  trustHelp: "A JSON file with the keys that you trust: of the beacon, the log and its witnesses.",

  inputTitle: "Your receipt",
  inputAgain: "Check another receipt",
  fileField: "Choose the file of a receipt",
  fileHelp: "The page or the JSON file that you got. You can also drop it anywhere on this page.",
  pasteField: "Or paste its text",
  pasteButton: "Check this text",
  privacy: "The receipt stays on this device: this page cannot send anything.",

  refused: {
    empty: "This file is empty. Choose the file that you got after the draw.",
    big: (megabytes) => `This file has ${megabytes} MB. A receipt is much smaller: choose the file that you got.`,
    binary: "This is no text: perhaps a picture or an archive. A receipt is a page (.html) or a JSON file (.json).",
    html: "This page has no receipt in it. Choose the page that you got after the draw, or its JSON file.",
    text: "This text is no receipt. A receipt in JSON starts with { and ends with }: use all of it.",
    other: "This is JSON, but no receipt of a draw. Choose the file that you got after the draw.",
    unreadable: "This browser could not read the file. Choose it again.",
    trust: (reason) => `This is no trust file, so the keys stay as they were: ${reason}`,
  },

  valuesTitle: "The whole receipt",
  valuesHelp: "Other checkers take this text, or this file itself.",
  footerPage:
    "This page is one file, the same for every receipt. It loads nothing and sends nothing. To compare it with the " +
    "release: regworkers draw verify-page FILE, or the SHA-256 in docs/fairness.md.",
};
