// The check of one receipt, step by step, as in proof/check.py, proof/checker.py and proof/drawn.py: the same verdict,
// states and words.

import { CHAIN_FILE, chainOf, checkRound, signedAt, verifyBeacon } from "./beacon.js";
import { parseCanonical, parseJson } from "./canonical.js";
import {
  entryKey, hasNoSeats, leafOf, marketOf, meetsCutoff, OUTCOMES, parseCutoffs, positionOf, unitKey,
} from "./draw.js";
import { drawError, fieldsOf, isAscii, isFilled, isHash, isId, short, shown, sorted, uncheckedError } from "./fields.js";
import { beaconKey, parseTrust, trustedLead } from "./keys.js";
import {
  checkLog, checkWitnesses, filesLogged, NO_LEAD, NO_LOG, NO_WITNESS, ONLY_THESE_LEAVES, parseLog, RECEIPTS_KEYS,
  registrationFindings,
} from "./log.js";
import { checkSeed, checkTerms, deriveSeed, parseManifest, parseSeed, parseStrikes, STRIKE_REASON } from "./manifest.js";
import { verifyInclusion } from "./merkle.js";
import { changesSince, checkOpened, findingsAgainst, openedName, parseOpened } from "./opened.js";
import { checkCode, checkPlanned, parseCode } from "./planned.js";
import {
  checkAnnulled, checkBeside, guaranteeOf, parseAnnulled, parsePublished, publishedLines, replacedName,
} from "./published.js";
import { NO_REGISTRATIONS, NOT_SHOWN, parseRegistration } from "./registered.js";
import { fromHex, sha256Hex } from "./sha256.js";

const VERSION = 4;
const COMMON_KEYS = [
  "annulled", "campaignId", "chain", "guarantee", "kind", "log", "opened", "ref", "registration", "roundAt", "version",
];
const DRAWN_KEYS = [
  "entryKey", "inclusion", "key", "market", "outcome", "phases", "rank", "seed", "siblings", "together",
];
const EXCLUDED_KEYS = ["after", "before", "manifest", "phases", "published", "reasons"];
const PHASE_KEYS = ["cutoffs", "manifest", "published", "result", "strike", "summary"];
const HEX_DIGITS = "64 lower-case hex digits";
/** What is left to trust where the campaign names no event. */
export const NO_EVENT = "The campaign names no event: that its event has no other draw is the operator's word alone.";
const NO_OPENED =
  "the campaign is not in the log as it opened: that its event has no other draw is the operator's word alone";
export const THE_LIST = "Entries that the operator invents before registration closes look like all others.";
const THE_STRIKE =
  "The reason of a strike is the operator's statement: a receipt shows that the entry is in the list of strikes, not" +
  " that it should be.";
const CHOSEN_LATER =
  "A later phase is chosen with every rank known: its seats, reserves and strikes are decided by those who can see" +
  " whom they help. What its reserves may take at most was fixed in phase 1.";

const DRAWN_LIMITS = (phases, together) => [
  "Only a replay of the whole draw (`fairdraw verify`) shows that the rank counts everyone ahead," +
    " that the cut-offs are those of the last admitted entries, and that no entry was inserted.",
  `You are drawn ${company(together)}: is that right? Which entries belong together is the operator's statement.` +
    " The number shows on the draw's public page and in a replay.",
  ...(isStruck(phases.at(-1)) ? [THE_STRIKE] : []),
  ...(phases.length > 1 ? [CHOSEN_LATER] : []),
  ...statements(phases.map((each) => each.published)),
  `This covers the draw up to phase ${phases.length}. A later phase may exist, with other strikes and more seats: these` +
    " files cannot tell. The published folder of the draw has every phase.",
];

/** With whom an entry was drawn, in words. */
export function company(others) {
  return others === 0 ? "alone" : `together with ${others === 1 ? "1 other" : `${others} others`}`;
}

function statements(parts) {
  const names = ["notice", "accepted"].filter((key) => parts.some((each) => each[key] !== null));
  // Only the manifest of the first phase may have been replaced.
  const files = [...names.map((key) => `${key}.json`), ...parts[0].replaced.map((_, at) => replacedName(at + 1))];
  const text =
    "The times, reasons and accepted findings of a phase are the operator's statements: compare them with" +
    ` ${files.join(", ")} beside the published artefacts.`;
  return files.length ? [text] : [];
}

const EXCLUDED_LIMITS = [
  "The reason is the operator's decision: a receipt shows that the entry was not in the draw, not that" +
    " it should not have been.",
  "Only a replay of the draw shows that all leaves are sorted by ref, so that it has none elsewhere.",
];

/**
 * Check a receipt, JSON as text or bytes.
 *
 * `curves` is what verifier/curves.mjs exports, or null: then signatures stay unchecked. `trust` is the text of a trust file,
 * or null. `opened` is the hash of one text of the campaign's record that the reader has from elsewhere, or null; `codes`
 * the text of a list of planned codes, or null. Never
 * throws for the content of the receipt, but for a malformed trust file.
 */
export function checkReceipt(text, options) {
  const checking = receiptSteps(text, options);
  let each;
  do each = checking.next();
  while (!each.done);
  return each.value;
}

/** The same with a pause before each step, whose name, place and number of all is yielded: a page can show it. */
export function* receiptSteps(text, { curves = null, trust = null, opened = null, codes = null } = {}) {
  const keys = parseTrust(trust);
  const trusted = vouches(keys);
  let [document, checker] = [null, null];
  try {
    document = parsedObject(text, "receipt");
    checker = checkerOf(document, { trust: keys, curves, codes, known: opened });
  } catch (error) {
    const step = endedStep("receipt", [], error, true);
    return { verdict: "fails", trusted, steps: [step], findings: [], limits: [], keys: [], receipt: null };
  }
  const steps = [];
  for (const each of checker.steps) {
    yield { name: each[0], at: steps.length, of: checker.steps.length };
    steps.push(runStep(each));
  }
  return {
    verdict: verdictOn(steps, trusted),
    trusted,
    steps,
    findings: checker.common.findings,
    limits: checker.limits,
    keys: checker.keys,
    receipt: plain(document),
    campaign: checker.common.record.at(-1)?.name ?? null,
  };
}

// A step is `[name, run]`; `run` returns the detail, and adds what it compares to `values`.
function runStep([name, run]) {
  const values = [];
  try {
    return { name, state: "passed", detail: run(values), values };
  } catch (error) {
    return endedStep(name, values, error);
  }
}

/** The step that an error ends; `named` with the artefact that is wrong. Any other error is thrown. */
export function endedStep(name, values, error, named = false) {
  if (error.unchecked) return { name, state: "unchecked", detail: error.message, values };
  if (error.artefact === undefined) throw error;
  return { name, state: "failed", detail: named ? `${error.artefact}: ${error.message}` : error.message, values };
}

/** Whether a trust file names the keys of log and witnesses: else they are those that the operator gave. */
export const vouches = ({ log, quorum }) => log.length > 0 && quorum.members.length > 0;

export function verdictOn(steps, trusted) {
  const has = (state) => steps.some((step) => step.state === state);
  return has("failed") ? "fails" : has("unchecked") || !trusted ? "incomplete" : "holds";
}

function wrong(message) {
  throw drawError("receipt", message);
}

// The error of a file as one of the receipt; any other is a defect of this page.
function wrongFile(error, where = "") {
  if (error.artefact === undefined) throw error;
  wrong(where + error.message);
}

export function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof Map)) return value;
  return Object.fromEntries(Array.from(value, ([key, each]) => [key, plain(each)]));
}

/** The JSON object in a text or in bytes, in any layout; `what` it should be. */
export function parsedObject(data, what) {
  let document;
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const text = typeof data === "string" ? data : decoder.decode(data);
    // Editors on Windows write a mark of the byte order (BOM) before it.
    document = parseJson(text.replace(/^\ufeff/, ""));
  } catch {
    throw drawError(what, `not a JSON document: give the ${what} in its JSON format`);
  }
  if (document instanceof Map) return document;
  throw drawError(what, "expected a JSON object");
}

function checkerOf(document, given) {
  const [kind, version] = ["kind", "version"].map((key) => document.get(key) ?? null);
  if (kind !== "draw" && kind !== "excluded") wrong(`kind: expected draw or excluded, found ${short(kind)}`);
  if (version !== VERSION) wrong(`version: expected ${VERSION}, found ${short(version)}`);
  // Only the winner's own receipt has a code.
  const own = kind === "draw" ? [...DRAWN_KEYS, ...(document.has("code") ? ["code"] : [])] : EXCLUDED_KEYS;
  const fields = fieldsOf("receipt", "", document, [...COMMON_KEYS, ...own]);
  const common = parseCommon(fields, given);
  const made = kind === "draw" ? drawnChecker(fields, common) : excludedChecker(fields, common);
  const { steps, phases, limits, unit = null } = made;
  Object.assign(common, { phases, first: phases[0].manifest });
  const { log } = common;
  const logged = (check) => (values) => (log === null ? unchecked(NO_LOG) : check(values));
  const keys = [...beaconKeys(common), ...(log?.keys ?? [])];
  const ofKeys = keys.some((key) => key.given === "receipt") ? [RECEIPTS_KEYS] : [];
  const hashes = () => common.opened.map((text) => sha256Hex(text));
  const without = () => (common.first.registrations === null ? NO_REGISTRATIONS : NOT_SHOWN);
  return {
    common,
    steps: [
      ...steps,
      ["registration", (values) => common.registration?.check(common.ref, unit, common.first, values) ?? without()],
      ["log", logged((values) => {
        const said = checkLog(log, common, phases, hashes(), given.curves, values);
        common.findings.push(...registrationFindings(log, phases[0]));
        return said;
      })],
      ["witnesses", logged((values) => {
        const due = signedAt(chainIn(common), common.first.source.round);
        return checkWitnesses(log, phases[0], due, leadIn(common), common, values);
      })],
    ],
    keys,
    // The record is known once its step has run.
    get limits() {
      const ofOpened = common.record.length && common.record[0].eventId === null ? [NO_EVENT] : [];
      return [
        ...limits,
        THE_LIST,
        ...(common.opened.length ? ofOpened : [sentence(NO_OPENED)]),
        ...(common.registration === null ? [sentence(without())] : []),
        ...logLimits(log),
        ...ofKeys,
      ];
    },
  };
}

function unchecked(why) {
  throw uncheckedError(why);
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function logLimits(log) {
  if (log === null) return [sentence(NO_LOG)];
  return log.quorum.need === 0 ? [ONLY_THESE_LEAVES, sentence(NO_WITNESS)] : [ONLY_THESE_LEAVES];
}

function parseCommon(fields, given) {
  const textOrNull = (key, accept, what) => (fields.raw(key) === null ? null : fields.text(key, accept, what));
  const common = {
    ...given,
    ref: fields.text("ref", isId, "a ref"),
    guarantee: fields.text("guarantee", isFilled, "a sentence"),
    campaignId: fields.text("campaignId", isId, "a campaign's id"),
    roundAt: fields.raw("roundAt"),
    registration: parseRegistration(fields),
    findings: [],
    record: [],
  };
  const annulled = textOrNull("annulled", isFilled, "the text of annulled.json");
  common.annulled = annulled === null ? null : parseAnnulled(annulled);
  common.chain = textOrNull("chain", isAscii, `the text of ${CHAIN_FILE}`);
  common.opened = fields.list("opened");
  if (!common.opened.every((each) => typeof each === "string")) fields.refuse("opened", "texts are needed");
  common.log = null;
  if (fields.raw("log") !== null) {
    common.log = parseLog(fields.nested("log", ["checkpoint", "entries", "keys", "kept"]), given.trust);
  }
  return common;
}

const chainIn = ({ first, chain, curves }) => chainOf(first.source.chain, chain, curves);
const leadIn = ({ trust, first }) => trustedLead(trust, first.source.chain);

function beaconKeys(common) {
  try {
    return [beaconKey(common.trust, common.first.source.chain, chainIn(common))];
  } catch (error) {
    if (error.artefact === undefined) throw error;
    return [];
  }
}

function parseInclusion(path, document) {
  const fields = fieldsOf("receipt", path, document, ["index", "leaf", "proof"]);
  const line = fields.text("leaf", isFilled, "a leaf");
  return { line, leaf: leafOf(line), index: fields.integer("index"), proof: fields.list("proof") };
}

function checkInclusion({ line, leaf, index, proof }, manifest) {
  if (!verifyInclusion(line, index, manifest.count, proof, manifest.root)) {
    wrong(
      `the proof of leaf ${index} of ${manifest.count} (${leaf.ref}) does not lead to the root` +
        ` ${manifest.root} of the manifest`,
    );
  }
}

function checkCampaign(manifest, campaignId) {
  if (manifest.campaignId !== campaignId) {
    wrong(`the manifest belongs to campaign ${manifest.campaignId}, the receipt to ${campaignId}`);
  }
}

// The manifest of a phase and the summary of its results; null where the receipt has none.
function committedPhase(number, fields, withSummary) {
  const manifest = parseManifest(fields.text("manifest", isAscii, "the text of manifest.json"));
  const text = withSummary ? fields.text("summary", isAscii, "the text of summary.json") : null;
  return {
    number,
    manifest,
    summary: text === null ? null : parseSummary(text),
    summaryHash: text === null ? null : sha256Hex(text),
    published: null,
  };
}

function parseSummary(text) {
  const keys = ["cutoffsHash", "manifestHash", "markets", "outcomes", "resultHash", "resultRoot"];
  const fields = fieldsOf("summary.json", "", parseCanonical(text, "summary.json"), keys);
  const [outcomes, markets] = [fields.nested("outcomes", OUTCOMES), fields.nested("markets")];
  const counts = markets.names.map((name) => markets.nested(name, ["new", "winners"]));
  const summary = {
    manifestHash: fields.hash("manifestHash"),
    resultHash: fields.hash("resultHash"),
    resultRoot: fields.hash("resultRoot"),
    cutoffsHash: fields.hash("cutoffsHash"),
  };
  for (const outcome of OUTCOMES) outcomes.integer(outcome);
  for (const each of counts) for (const key of ["new", "winners"]) each.integer(key);
  return summary;
}

// Check that each phase follows from the one before, and that its summary is about it.
function checkPhases(phases, values) {
  for (const { number, manifest, summary } of phases) {
    values.push([`manifestHash of phase ${number}`, manifest.hash]);
    if (manifest.phase !== number) wrong(`the manifest says phase ${manifest.phase}, expected is ${number}`);
    if (summary !== null && summary.manifestHash !== manifest.hash) {
      wrong(`phase ${number}: the manifest has SHA-256 ${manifest.hash}, the summary says ${summary.manifestHash}`);
    }
  }
  phases.slice(1).forEach(({ number, manifest }, at) => {
    const before = phases[at];
    try {
      checkTerms(phases.slice(0, at + 1).map((each) => each.manifest), manifest);
    } catch (error) {
      wrongFile(error, `phase ${number}: `);
    }
    const { previous } = manifest;
    if (previous === null || previous.manifestHash !== before.manifest.hash) {
      wrong(`phase ${number} does not follow from the manifest of phase ${before.number}`);
    }
    if (before.summary !== null && previous.resultHash !== before.summary.resultHash) {
      wrong(`phase ${number} does not follow from the result of phase ${before.number}`);
    }
  });
  return phases
    .map(({ number, manifest, summaryHash }) => {
      return `phase ${number}: manifestHash ${manifest.hash}${summaryHash === null ? "" : `, summary ${summaryHash}`}`;
    })
    .join("\n");
}

// Compare what the operator published beside the artefacts of the phases with their manifests.
function checkPublished(phases, { annulled, campaignId, phases: all }, values) {
  for (const { manifest, published } of phases) {
    if (published.notice !== null) values.push([`notice of phase ${manifest.phase}`, published.notice.hash]);
    published.replaced.forEach((each, at) => values.push([`replaced manifest ${at + 1}`, each.manifest.hash]));
    try {
      checkBeside(published, manifest);
    } catch (error) {
      wrongFile(error, `phase ${manifest.phase}: ${error.artefact}: `);
    }
  }
  if (annulled !== null) {
    if (annulled.campaignId !== campaignId) wrong(`annulled.json belongs to campaign ${annulled.campaignId}`);
    if (annulled.phase < all.length) wrong(`phase ${annulled.phase} was annulled: no phase follows it`);
    for (const { manifest } of phases) if (manifest.phase === annulled.phase) checkAnnulled(annulled, manifest);
  }
  return phases.flatMap(({ manifest, published }) => publishedLines(manifest.phase, published)).join("\n");
}

// Compare the manifest of phase 1 with the campaign as it opened and as it was changed.
function checkRecord(common, values) {
  const { first, known, log } = common;
  const record = (common.record = parseOpened(common.opened));
  record.forEach((each, number) => values.push([number ? `amended (${number})` : "opened", each.hash]));
  if (!record.length && known === null) return NO_OPENED;
  const changes = changesSince(record, known ?? record[0].hash);
  if (changes === null) {
    wrong(`this receipt is of another campaign than the one that you know: none of its texts has hash ${known}`);
  }
  // Without the log the last one counts.
  const all = { logged: record.length, before: record.length };
  const { logged, ...found } = log === null ? all : filesLogged(log, common.phases[0]);
  // More leaves than texts are for the step of the log.
  const before = Math.min(found.before, record.length);
  const said = record.map((_, number) => {
    if (number >= logged) return `${openedName(number)}: not in the log, so it binds nothing`;
    return number >= before && `${openedName(number)}: in the log after the manifest, so it binds nothing`;
  });
  common.findings.push(...said.slice(logged));
  if (before) {
    try {
      checkOpened(record[before - 1], first);
    } catch (error) {
      wrongFile(error);
    }
  }
  // Also a file that is in no log, so that it binds nothing, is about this campaign.
  if (record[0].campaignId !== common.campaignId) {
    wrong(`${openedName(0)} is about campaign ${record[0].campaignId}, the receipt is of another one`);
  }
  common.findings.push(...said.slice(before, logged));
  if (before) common.findings.push(...findingsAgainst(record[before - 1], first));
  const lines = [`opened as ${record[0].name}, from ${record[0].opensAt} to ${record[0].closesAt}`];
  for (const change of changes) {
    lines.push(`amended (${change.number}), because: ${change.reason}`, ...change.lines.map((line) => `  ${line}`));
  }
  if (known !== null && !changes.length) lines.push(`nothing has changed since ${known}`);
  return lines.join("\n");
}

// Check the time of the randomness and the receipt's statement about it. `published` belongs to phase 1.
function checkSource(common, published) {
  const { first, roundAt, guarantee } = common;
  const chain = chainIn(common);
  checkRound(first, chain, leadIn(common));
  const at = signedAt(chain, first.source.round);
  if (roundAt !== at) {
    wrong(`roundAt: the round of the manifest is signed at ${at ?? "None"}, the receipt says ${short(roundAt)}`);
  }
  if (guarantee !== guaranteeOf(chain, first.source.chain, first.source.round, published)) {
    wrong("the stated guarantee does not belong to this seed source");
  }
}

function requireLead(common) {
  if (leadIn(common) === null) unchecked(NO_LEAD);
}

function parsePhase(number, document, ref) {
  const path = `phases[${number - 1}]`;
  const fields = fieldsOf("receipt", path, document, PHASE_KEYS);
  const phase = committedPhase(number, fields, true);
  const cutoffs = fields.text("cutoffs", isAscii, "the text of cutoffs.json");
  phase.cutoffsHash = sha256Hex(cutoffs);
  phase.cutoffs = parseCutoffs(parseCanonical(cutoffs, "cutoffs.json"));
  phase.published = parsePublished(`${path}.published`, fields.raw("published"));
  const result = fields.nested("result", ["line", "proof"]);
  phase.line = result.text("line", isFilled, "a line of result.txt");
  phase.proof = result.list("proof");
  phase.position = positionOf(phase.line, ref);
  phase.strike = null;
  if (fields.raw("strike") !== null) {
    phase.strike = parseStrike(fields.nested("strike", ["index", "line", "proof", "size"]), ref);
  }
  return phase;
}

// A line of strikes.txt and its path to the root.
function parseStrike(fields, ref) {
  const line = fields.text("line", isAscii, "a line of strikes.txt");
  const strikes = parseStrikes(line);
  if (strikes.size !== 1 || !strikes.has(ref)) {
    throw drawError("strikes.txt", `the strike ${short(line)} does not belong to ${ref}`);
  }
  const [index, size] = [fields.integer("index"), fields.integer("size")];
  return { line, index, size, reason: strikes.get(ref), proof: fields.list("proof") };
}

/** Whether the entry is struck by its line of the result, or by what the receipt says. */
function isStruck({ strike, position }) {
  return strike !== null || position.outcome === "STRUCK" || position.outcome === "UNCLAIMED";
}

// An entry that was not in the draw: its neighbours are adjacent, so no leaf is between them.
function excludedChecker(fields, common) {
  const first = committedPhase(1, fields, false);
  const later = Array.from(fields.objects("phases", ["manifest", "summary"]), (each, at) => committedPhase(at + 2, each, true));
  const phases = [first, ...later];
  first.published = parsePublished("published", fields.raw("published"));
  const reasons = fields.list("reasons");
  const [before, after] = ["before", "after"].map((side) =>
    fields.raw(side) === null ? null : parseInclusion(side, fields.raw(side)),
  );
  const { manifest } = first;

  const checkManifest = (values) => {
    values.push(["campaign", manifest.campaignId]);
    for (const each of phases) checkCampaign(each.manifest, common.campaignId);
    const found = checkPhases(phases, values);
    checkSource(common, first.published);
    requireLead(common);
    return found;
  };
  const checkAbsence = (values) => {
    values.push(["root", manifest.root], ["before", before?.line ?? ""], ["after", after?.line ?? ""]);
    for (const each of [before, after]) if (each !== null) checkInclusion(each, manifest);
    const [low, high] = [before?.index ?? -1, after?.index ?? manifest.count];
    if (high !== low + 1) {
      wrong(`leaves ${low} and ${high} are not adjacent: there are leaves between them`);
    }
    const { ref } = common;
    if ((before && !(before.leaf.ref < ref)) || (after && !(ref < after.leaf.ref))) {
      wrong(`${ref} does not belong between its neighbours`);
    }
    return `not among the ${manifest.count} leaves: it would be between leaves ${low} and ${high} (from 0)`;
  };
  const checkReason = (values) => {
    for (const reason of reasons) {
      if (typeof reason !== "string" || !STRIKE_REASON.test(reason)) {
        wrong(`${short(reason)} is not a reason: A-Z and _ only`);
      }
      values.push(["reason", reason]);
    }
    return reasons.length ? reasons.join(", ") : wrong("the receipt gives no reason");
  };

  return {
    phases,
    limits: EXCLUDED_LIMITS,
    steps: [
      ["manifest", checkManifest],
      ["published", (values) => checkPublished([first], common, values)],
      ["opened", (values) => checkRecord(common, values)],
      ["absence", checkAbsence],
      ["reason", checkReason],
    ],
  };
}

// An entry that was in the draw.
function drawnChecker(fields, common) {
  const documents = fields.list("phases");
  if (!documents.length) fields.refuse("phases", "at least one is needed");
  const phases = documents.map((each, at) => parsePhase(at + 1, each, common.ref));
  const own = parseInclusion("inclusion", fields.raw("inclusion"));
  const siblings = fields.list("siblings").map((each, at) => parseInclusion(`siblings[${at}]`, each));
  const seed = parseSeed(fields.text("seed", isAscii, "the text of seed.json"));
  const draw = {
    ref: common.ref,
    phases,
    own,
    siblings,
    seed,
    key: fields.text("key", isHash, HEX_DIGITS),
    entryKey: fields.text("entryKey", isHash, HEX_DIGITS),
    first: phases[0].manifest,
  };
  const rank = fields.raw("rank") === null ? "" : String(fields.integer("rank", 1));
  const stated = [fields.raw("market"), rank, fields.raw("outcome")];
  const together = fields.integer("together");
  const code = fields.names.includes("code") ? parseCode(fields) : null;
  return {
    phases,
    unit: own.leaf.unit,
    limits: DRAWN_LIMITS(phases, together),
    steps: [
      ["leaf", (values) => checkLeaf(draw, values)],
      ["inclusion", (values) => checkOwnInclusion(draw, values)],
      ["manifest", (values) => checkManifests(draw, common.campaignId, values)],
      ["published", (values) => checkPublished(phases, common, values)],
      ["opened", (values) => checkRecord(common, values)],
      ["randomness", (values) => checkRandomness(draw, common, values)],
      ["seed", (values) => checkSeedStep(draw, values)],
      ["key", (values) => checkKey(draw, values)],
      ["entryKey", (values) => checkEntryKey(draw, values)],
      ["candidate", (values) => checkCandidate(draw, values)],
      ...phases.flatMap((phase) => stepsOfPhase(draw, phase)),
      ["rank", (values) => checkRank(draw, values)],
      ["stated", (values) => checkStated(draw, stated, values)],
      ...(code === null ? [] : [
        ["code", (values) => checkCode(code, common, values)],
        ["planned", (values) => checkPlanned(code, common, values)],
      ]),
    ],
  };
}

function stepsOfPhase(draw, phase) {
  const steps = [[`result-${phase.number}`, (values) => checkResult(draw.own.index, phase, values)]];
  if (isStruck(phase)) steps.push([`strike-${phase.number}`, (values) => checkStrike(phase, values)]);
  return [...steps, [`outcome-${phase.number}`, (values) => checkOutcome(draw, phase, values)]];
}

// Check that the line of the entry, the `index`-th one, is in the result.
function checkResult(index, { line, proof, manifest, summary: { resultRoot: root } }, values) {
  values.push(["line", line], ["resultRoot", root]);
  const { count } = manifest;
  if (!verifyInclusion(line, index, count, proof, root)) {
    wrong(`the proof of line ${index} of ${count} (${line}) does not lead to the root ${root} of the result`);
  }
  return `${line}: line ${index} of ${count} (from 0) under root ${root}`;
}

// Check that the strike of the entry is in the list of strikes.
function checkStrike({ strike, position, manifest: { strikesRoot: root } }, values) {
  values.push(["strikesRoot", root]);
  if (strike === null) wrong(`the result says ${position.outcome}, the receipt has no strike`);
  const { line, index, size, proof } = strike;
  if (!verifyInclusion(line, index, size, proof, root)) {
    wrong(`the proof of the strike ${line} does not lead to the root ${root} of the strikes`);
  }
  return `${line}: line ${index} of ${size} (from 0) under root ${root}`;
}

function checkLeaf({ ref, own, first }, values) {
  const { leaf } = own;
  const known = new Set(first.markets.map((each) => each.marketId));
  values.push(["leaf", own.line], ["ref", ref]);
  if (leaf.ref !== ref) wrong(`the leaf belongs to ${leaf.ref}, the receipt to ${ref}`);
  for (const market of leaf.preferences) {
    if (!known.has(market)) {
      wrong(`market ${market} of the leaf is not in the manifest`);
    }
  }
  return `weight ${leaf.weight}, preferences ${leaf.preferences.join(", ")}`;
}

function checkOwnInclusion({ own, first }, values) {
  values.push(["index", own.index], ["count", first.count], ["root", first.root]);
  checkInclusion(own, first);
  return `leaf ${own.index} of ${first.count} (from 0) under root ${first.root}`;
}

function checkManifests({ phases }, campaignId, values) {
  for (const { manifest } of phases) checkCampaign(manifest, campaignId);
  return checkPhases(phases, values);
}

function checkRandomness({ first, seed, phases }, common, values) {
  const { source } = first;
  values.push(["chain", source.chain], ["round", source.round], ["randomness", seed.randomness]);
  // The seed that is expected: the next step checks the stated one.
  const expected = deriveSeed(first.hash, source, sha256Hex(fromHex(seed.signature)));
  checkSeed({ ...seed, seed: expected }, first);
  checkSource(common, phases[0].published);
  const chain = chainIn(common);
  const at = signedAt(chain, source.round);
  values.push(["signature", seed.signature], ["signed at", at]);
  verifyBeacon(chain, source.round, seed.signature, common.curves);
  requireLead(common);
  return `round ${source.round} was signed by the beacon at ${at ?? "None"} (UTC), by its rules`;
}

function checkSeedStep({ first, seed }, values) {
  values.push(["manifestHash", first.hash], ["randomness", seed.randomness], ["seed", seed.seed]);
  checkSeed(seed, first);
  return `${seed.seed} follows from the manifest of phase 1 and the randomness`;
}

function checkKey({ own, first, seed, key }, values) {
  const { unit, weight } = own.leaf;
  values.push(["unit", unit], ["weight", weight], ["key", key]);
  checkEqual(key, unitKey(seed.seed, first.drawId, unit, weight));
  const tickets = weight === 1 ? "the only ticket" : `the lowest of the ${weight} tickets`;
  return `${key}, ${tickets} of unit ${unit}`;
}

function checkEntryKey({ ref, seed, entryKey: stated }, values) {
  values.push(["entryKey", stated]);
  checkEqual(stated, entryKey(seed.seed, ref));
  return stated;
}

function checkEqual(stated, computed) {
  if (stated !== computed) wrong(`the rules give ${computed}, the receipt says ${stated}`);
}

// An entry without a rank has enough entries of its unit ahead; one with a rank is a candidate.
function checkCandidate({ ref, own, siblings, first, seed, phases, entryKey: ownEntryKey }, values) {
  const wins = first.winsPerUnit;
  values.push(["winsPerUnit", wins]);
  if (phases[0].position.rank) {
    const among = wins === 1 ? "the entry" : `one of the ${wins} entries`;
    return `has a rank, so it is ${among} of its unit that may win`;
  }
  const refs = new Set(siblings.map((each) => each.leaf.ref));
  if (refs.size !== wins || refs.has(ref)) {
    const others = wins === 1 ? "1 other entry" : `${wins} other entries`;
    wrong(`no rank, so ${others} of the unit must be ahead, found ${refs.size}`);
  }
  const { unit, weight } = own.leaf;
  for (const each of siblings) {
    values.push(["ahead", each.line]);
    checkInclusion(each, first);
    if (each.leaf.unit !== unit || each.leaf.weight !== weight) {
      wrong(`${each.leaf.ref} has another unit or weight than ${unit}, ${weight}`);
    }
    if (!(entryKey(seed.seed, each.leaf.ref) < ownEntryKey)) wrong(`${each.leaf.ref} is not ahead of ${ref}`);
  }
  const ahead = wins === 1 ? "1 entry of the unit is" : `${wins} entries of the unit are`;
  return `${ahead} ahead: ${sorted(refs).join(", ")}`;
}

function checkOutcome(draw, phase, values) {
  const { position, cutoffsHash, summary, number } = phase;
  values.push(["result", `${position.outcome} ${position.market}`.trim()], ["cutoffsHash", cutoffsHash]);
  if (cutoffsHash !== summary.cutoffsHash) {
    wrong(`the cut-offs have SHA-256 ${cutoffsHash}, the summary says ${summary.cutoffsHash}`);
  }
  checkGroups(phase);
  values.push(...ownCutoffs(draw.own.leaf, phase.cutoffs));
  const [market, outcomes, why] = expectedOutcome(draw, phase, draw.phases[number - 2] ?? null);
  if (outcomes[0] === "WINNER") {
    if (position.outcome !== "WINNER" || position.market !== market) {
      wrong(`${why} in ${market}, found ${position.outcome} ${position.market}`);
    }
    return `${why} in ${market}`;
  }
  if (position.market || !outcomes.includes(position.outcome)) {
    wrong(`the rules give ${why}, found ${position.outcome} ${position.market}`);
  }
  return `${position.outcome}: ${reasonOf(position.outcome, phase)}`;
}

// Market and outcomes by the rules. A receipt cannot always tell which of two outcomes it is.
function expectedOutcome({ own, key, entryKey: entry }, phase, before) {
  const one = (outcome) => ["", [outcome], outcome];
  const [struck, reason] = [before?.strike?.reason ?? null, phase.strike?.reason ?? null];
  if (struck !== null && struck !== reason) {
    wrong("a strike of the previous phase is missing: strikes are permanent");
  }
  if (reason !== null) {
    if (reason !== "UNCLAIMED") return one("STRUCK");
    if (struck === null && before?.position.outcome !== "WINNER") {
      wrong("UNCLAIMED, but the entry won no seat in the phase before");
    }
    return one("UNCLAIMED");
  }
  if (!phase.position.rank) return one("HOUSEHOLD_LIMIT");
  if (before && before.position.outcome === "WINNER") {
    return [before.position.market, ["WINNER"], `WINNER since phase ${before.number}`];
  }
  const market = marketOf(own.leaf.preferences, own.leaf.segments, key, entry, phase.cutoffs);
  if (market !== null) return [market, ["WINNER"], "WINNER, cut-off met"];
  const size = phase.manifest.waitlistSize;
  // Ranks have up to 16 digits, more than JavaScript's numbers.
  if (size === null || BigInt(phase.position.rank) <= size) return one("WAITLIST");
  if (size === 0) return one("UNSELECTED");
  return ["", ["WAITLIST", "UNSELECTED"], "WAITLIST or UNSELECTED"];
}

function reasonOf(outcome, { strike, manifest }) {
  if (strike !== null) return strike.reason;
  if (outcome === "HOUSEHOLD_LIMIT") return "other entries of the unit are ahead";
  if (outcome === "WAITLIST") return "no cut-off of a listed market is met";
  return `no cut-off of a listed market is met, past the waiting list of ${manifest.waitlistSize}`;
}

// The cut-offs of the markets and segments that the entry lists.
function ownCutoffs({ preferences, segments }, cutoffs) {
  const own = new Set(segments);
  const named = (name, cutoff) => [name, cutoff ? `${cutoff.key} ${cutoff.entryKey}, rank ${cutoff.rank}` : "none"];
  return preferences.flatMap((market) => {
    const { open, reserves } = cutoffs.get(market) ?? { open: null, reserves: [] };
    return [
      named(`cut-off of ${market}`, open),
      ...reserves.filter((each) => own.has(each.segment)).map((each) => named(`cut-off of ${market}, ${each.segment}`, each.cutoff)),
    ];
  });
}

const cutoffsIn = (groups) => [groups.open, ...groups.reserves.map((each) => each.cutoff)];

// Check that the cut-offs fit the manifest's markets and reserves, and that one without seats admits no entry.
function checkGroups({ manifest, cutoffs }) {
  const terms = new Map(manifest.markets.map((market) => [market.marketId, market.reserves]));
  if (terms.size !== cutoffs.size || [...cutoffs.keys()].some((market) => !terms.has(market))) {
    wrong("the cut-offs are not those of the manifest's markets");
  }
  for (const [market, groups] of cutoffs) {
    const reserves = terms.get(market);
    const fits = (each, at) => each.segment === reserves[at]?.segment;
    if (groups.reserves.length !== reserves.length || !groups.reserves.every(fits)) {
      wrong(`the cut-offs of market ${market} are not those of its reserves`);
    }
    reserves.forEach(({ segment, seats }, at) => {
      if ((seats === 0) !== (groups.reserves[at].cutoff?.rank === 0)) {
        wrong(`the cut-off of reserve ${segment} of ${market} does not match its ${seats} seats`);
      }
    });
    for (const cutoff of cutoffsIn(groups).filter((each) => each !== null)) {
      if (cutoff.rank === 0 && !hasNoSeats(cutoff)) {
        wrong(`a cut-off of market ${market} has rank 0 and is not all zeros`);
      }
      if (cutoff.rank > manifest.count) {
        wrong(`a cut-off of market ${market} has rank ${cutoff.rank} of ${manifest.count} leaves`);
      }
    }
  }
}

// Check that the rank is ahead of each cut-off exactly if the key is.
function checkRank({ phases, first, key, entryKey: entry }, values) {
  const ranks = new Set(phases.map((each) => each.position.rank));
  if (ranks.size !== 1) wrong(`a rank never changes between phases, found ${sorted(ranks).join(", ")}`);
  const [rank] = ranks;
  values.push(["rank", rank]);
  if (!rank) return "no rank: not a candidate";
  if (BigInt(rank) > first.count) wrong(`rank ${rank} of ${first.count} leaves`);
  for (const { cutoffs } of phases) {
    for (const [market, groups] of cutoffs) {
      for (const cutoff of cutoffsIn(groups).filter((each) => each !== null && each.rank !== 0)) {
        if (BigInt(rank) <= cutoff.rank !== meetsCutoff(cutoff, key, entry)) {
          wrong(`rank ${rank} and key contradict the cut-off of ${short(market)}, rank ${cutoff.rank}`);
        }
      }
    }
  }
  return `${rank}: agrees with every cut-off; the number itself is proven by the replay only`;
}

function checkStated({ phases }, stated, values) {
  const { market, rank, outcome } = phases.at(-1).position;
  const last = [market, rank, outcome];
  values.push(["market", market], ["rank", rank], ["outcome", outcome]);
  if (stated.some((each, at) => each !== last[at])) {
    wrong(`the receipt says ${excerptOf(stated)}, the last phase ${tupleOf(last)}`);
  }
  return `${outcome} ${market}`.trim();
}

const tupleOf = (items) => `(${items.map(shown).join(", ")})`;

function excerptOf(items) {
  const text = tupleOf(items);
  return text.length <= 160 ? text : `${text.slice(0, 160)}...`;
}
