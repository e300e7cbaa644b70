// The check of one receipt, step by step, as in proof/check.py and proof/checker.py: the same verdict, states and words.

import { checkRound, signedAt, verifyBeacon } from "./beacon.js";
import { parseCanonical, parseJson } from "./canonical.js";
import {
  entryKey, hasNoSeats, leafOf, marketOf, meetsCutoff, parseCutoffs, positionOf, unitKey,
} from "./draw.js";
import { drawError, fieldsOf, isAscii, isFilled, isHash, isId, short, shown, sorted, uncheckedError } from "./fields.js";
import {
  beaconKeys, checkBeaconKey, checkLog, checkWitnesses, NO_LOG, NO_WITNESS, ONLY_THESE_LEAVES, OPERATORS_KEYS,
  parseLog, parseTrust,
} from "./log.js";
import { checkSeed, checkTerms, deriveSeed, parseManifest, parseSeed, parseStrikes, STRIKE_REASON } from "./manifest.js";
import { verifyInclusion } from "./merkle.js";
import {
  checkAnnulled, checkBeside, guaranteeFits, parseAnnulled, parsePublished, publishedLines, replacedName,
} from "./published.js";
import { sha256Hex } from "./sha256.js";

const RECEIPT_VERSIONS = [2, 3];
const COMMON_KEYS = ["annulled", "campaignId", "guarantee", "kind", "ref", "roundAt", "version"];
const DRAWN_KEYS = [
  "entryKey", "inclusion", "key", "market", "outcome", "phases", "rank", "seed", "siblings",
];
const EXCLUDED_KEYS = ["after", "before", "manifest", "published", "reasons"];
const PHASE_KEYS = [
  "cutoffs", "cutoffsHash", "manifest", "manifestHash", "published", "result", "resultHash", "strike",
];
const NO_STRIKES = sha256Hex("");
const HEX_DIGITS = "64 lower-case hex digits";

const DRAWN_LIMITS = (phases) => [
  "Only a replay of the whole draw (`fairdraw verify`) shows that the rank counts everyone ahead," +
    " that the cut-offs are those of the last admitted entries, and that no entry was inserted.",
  "The same applies to the other entries of the unit, and to the strikes.",
  "Compare manifestHash with where it was published before the seed existed, resultHash and cutoffsHash" +
    " with the published ones: a receipt that was forged as a whole would have other hashes.",
  ...statements(phases.map((each) => each.published)),
  `This covers the draw up to phase ${phases.length}. A later phase may exist, with other strikes and more seats: these` +
    " files cannot tell. The published folder of the draw has every phase.",
];

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
 * `curves` has `bls12_381` and `ed25519` of @noble/curves, or is null: then signatures stay unchecked. `trust` is the
 * text of a trust file, or null. Never throws for the content of the receipt, but for a malformed trust file.
 */
export function checkReceipt(text, options) {
  const checking = receiptSteps(text, options);
  let each;
  do each = checking.next();
  while (!each.done);
  return each.value;
}

/** The same with a pause after each step, which is yielded: a page can show it before the next one is checked. */
export function* receiptSteps(text, { curves = null, trust = null } = {}) {
  const trusted = parseTrust(trust);
  let [document, checker] = [null, null];
  try {
    document = parsedReceipt(text);
    checker = checkerOf(document, trusted, curves);
  } catch (error) {
    if (error.artefact === undefined) throw error;
    const step = { name: "receipt", state: "failed", detail: `${error.artefact}: ${error.message}`, values: [] };
    yield step;
    return { verdict: "fails", steps: [step], limits: [], receipt: null, keys: [] };
  }
  const steps = [];
  for (const each of checker.steps) {
    steps.push(runStep(each));
    yield steps.at(-1);
  }
  const has = (state) => steps.some((step) => step.state === state);
  const verdict = has("failed") ? "fails" : has("unchecked") ? "incomplete" : "holds";
  return { verdict, steps, limits: checker.limits, receipt: plain(document), keys: checker.keys };
}

/** How a page shows a step: where no witness is named, there is nothing that could have passed. */
export function shownState({ name, state, detail }) {
  return name === "witnesses" && detail === NO_WITNESS ? "none" : state;
}

// A step is `[name, run]`; `run` returns the detail, and adds what it compares to `values`.
function runStep([name, run]) {
  const values = [];
  try {
    return { name, state: "passed", detail: run(values), values };
  } catch (error) {
    if (error.unchecked) return { name, state: "unchecked", detail: error.message, values };
    if (error.artefact === undefined) throw error;
    return { name, state: "failed", detail: error.message, values };
  }
}

function wrong(message) {
  throw drawError("receipt", message);
}

function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof Map)) return value;
  return Object.fromEntries(Array.from(value, ([key, each]) => [key, plain(each)]));
}

function parsedReceipt(data) {
  let document;
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const text = typeof data === "string" ? data : decoder.decode(data);
    // Editors on Windows write a mark of the byte order (BOM) before it.
    document = parseJson(text.replace(/^\ufeff/, ""));
  } catch {
    wrong("not a JSON document: give the receipt in its JSON format");
  }
  return document instanceof Map ? document : wrong("expected a JSON object");
}

function checkerOf(document, trust, curves) {
  const [kind, version] = ["kind", "version"].map((key) => document.get(key) ?? null);
  if (kind !== "draw" && kind !== "excluded") wrong(`kind: expected draw or excluded, found ${short(kind)}`);
  if (!RECEIPT_VERSIONS.includes(version)) wrong(`version: expected 2 or 3, found ${short(version)}`);
  const keys = [...COMMON_KEYS, ...(kind === "draw" ? DRAWN_KEYS : EXCLUDED_KEYS)];
  const fields = fieldsOf("receipt", "", document, version === 2 ? keys : [...keys, "log"]);
  const common = parseCommon(fields, version, trust);
  const own = kind === "draw" ? drawnChecker(fields, common, trust, curves) : excludedChecker(fields, common);
  const { log } = common;
  const logged = (check) => (values) => (log === null ? noLog() : check(values));
  const result = {
    steps: [
      ...own.steps,
      ["log", logged((values) => checkLog(log, common, own.phases, curves, values))],
      ["witnesses", logged((values) => checkWitnesses(log, own.phases[0].manifest, curves, values))],
    ],
    keys: [...own.keys, ...(log?.keys ?? [])],
    limits: [...own.limits, ...logLimits(log)],
  };
  if (result.keys.some((key) => key.given === "operator")) result.limits.push(OPERATORS_KEYS);
  return result;
}

function noLog() {
  throw uncheckedError(NO_LOG);
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function logLimits(log) {
  if (log === null) return [sentence(NO_LOG)];
  return log.need === 0 ? [ONLY_THESE_LEAVES, sentence(NO_WITNESS)] : [ONLY_THESE_LEAVES];
}

function parseCommon(fields, version, trust) {
  const common = {
    ref: fields.text("ref", isId, "a ref"),
    guarantee: fields.text("guarantee", isFilled, "a sentence"),
    campaignId: fields.text("campaignId", isId, "a campaign's id"),
    roundAt: fields.raw("roundAt"),
    annulled: null,
    log: null,
  };
  if (fields.raw("annulled") !== null) {
    common.annulled = parseAnnulled(fields.text("annulled", () => true, "the text of annulled.json"));
  }
  if (version !== 2 && fields.raw("log") !== null) {
    common.log = parseLog(fields.nested("log", ["checkpoint", "committed", "entries", "keys"]), trust);
  }
  return common;
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

// Compare what the operator published beside the artefacts of the phases with their manifests.
function checkPublished(phases, { annulled, campaignId }, values) {
  for (const { manifest, published } of phases) {
    if (published.notice !== null) values.push([`notice of phase ${manifest.phase}`, published.notice.hash]);
    published.replaced.forEach((each, at) => values.push([`replaced manifest ${at + 1}`, each.manifest.hash]));
    try {
      checkBeside(published, manifest);
    } catch (error) {
      wrong(`phase ${manifest.phase}: ${error.artefact}: ${error.message}`);
    }
  }
  if (annulled !== null) {
    if (annulled.campaignId !== campaignId) wrong(`annulled.json belongs to campaign ${annulled.campaignId}`);
    for (const { manifest } of phases) if (manifest.phase === annulled.phase) checkAnnulled(annulled, manifest);
  }
  return phases.flatMap(({ manifest, published }) => publishedLines(manifest.phase, published)).join("\n");
}

// Check the time of the randomness and the receipt's statement about it.
function checkSource({ manifest, published }, { roundAt, guarantee }) {
  checkRound(manifest);
  const at = signedAt(manifest.source);
  if (roundAt !== at) {
    wrong(`roundAt: the round of the manifest is signed at ${at ?? "None"}, the receipt says ${short(roundAt)}`);
  }
  if (!guaranteeFits(guarantee, manifest.source, published)) {
    wrong("the stated guarantee does not belong to this seed source");
  }
}

function parsePhase(number, document, ref) {
  const path = `phases[${number - 1}]`;
  const fields = fieldsOf("receipt", path, document, PHASE_KEYS);
  const manifest = parseManifest(fields.text("manifest", isAscii, "the text of manifest.json"));
  const statedManifestHash = fields.text("manifestHash", isHash, HEX_DIGITS);
  const resultHash = fields.text("resultHash", isHash, HEX_DIGITS);
  const cutoffs = fields.text("cutoffs", isAscii, "the text of cutoffs.json");
  const statedCutoffsHash = fields.text("cutoffsHash", isHash, HEX_DIGITS);
  return {
    number,
    manifest,
    statedManifestHash,
    resultHash,
    cutoffsHash: sha256Hex(cutoffs),
    results: [resultHash, sha256Hex(cutoffs)],
    statedCutoffsHash,
    cutoffs: parseCutoffs(parseCanonical(cutoffs, "cutoffs.json")),
    published: parsePublished(`${path}.published`, fields.raw("published")),
    position: positionOf(fields.text("result", isFilled, "a line of result.txt"), ref),
    strike: fields.raw("strike") === null ? null : parseStrikeOf(fields, ref),
  };
}

function parseStrikeOf(fields, ref) {
  const line = fields.text("strike", isAscii, "a line of strikes.txt");
  const strikes = parseStrikes(line);
  if (strikes.size !== 1 || !strikes.has(ref)) {
    throw drawError("strikes.txt", `the strike ${short(line)} does not belong to ${ref}`);
  }
  return strikes.get(ref);
}

// An entry that was not in the draw: its neighbours are adjacent, so no leaf is between them.
function excludedChecker(fields, common) {
  const manifest = parseManifest(fields.text("manifest", isAscii, "the text of manifest.json"));
  const published = parsePublished("published", fields.raw("published"));
  const reasons = fields.list("reasons");
  const [before, after] = ["before", "after"].map((side) =>
    fields.raw(side) === null ? null : parseInclusion(side, fields.raw(side)),
  );
  const phase = { number: manifest.phase, manifest, results: [], published };

  const checkManifest = (values) => {
    values.push(["campaign", manifest.campaignId], ["manifestHash", manifest.hash]);
    checkCampaign(manifest, common.campaignId);
    checkSource(phase, common);
    return `manifestHash ${manifest.hash}`;
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
    phases: [phase],
    keys: [],
    limits: EXCLUDED_LIMITS,
    steps: [
      ["manifest", checkManifest],
      ["published", (values) => checkPublished([phase], common, values)],
      ["absence", checkAbsence],
      ["reason", checkReason],
    ],
  };
}

// An entry that was in the draw.
function drawnChecker(fields, common, trust, curves) {
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
  return {
    phases,
    keys: beaconKeys(draw.first, trust),
    limits: DRAWN_LIMITS(phases),
    steps: [
      ["leaf", (values) => checkLeaf(draw, values)],
      ["inclusion", (values) => checkOwnInclusion(draw, values)],
      ["manifest", (values) => checkManifests(draw, common.campaignId, values)],
      ["published", (values) => checkPublished(phases, common, values)],
      ["randomness", (values) => checkRandomness(draw, common, trust, curves, values)],
      ["seed", (values) => checkSeedStep(draw, values)],
      ["key", (values) => checkKey(draw, values)],
      ["entryKey", (values) => checkEntryKey(draw, values)],
      ["candidate", (values) => checkCandidate(draw, values)],
      ...phases.map((phase) => [`outcome-${phase.number}`, (values) => checkOutcome(draw, phase, values)]),
      ["rank", (values) => checkRank(draw, values)],
      ["stated", (values) => checkStated(draw, stated, values)],
    ],
  };
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

function checkManifests({ phases, first }, campaignId, values) {
  for (const { number, manifest, statedManifestHash } of phases) {
    values.push([`manifestHash of phase ${number}`, statedManifestHash]);
    checkCampaign(manifest, campaignId);
    if (manifest.hash !== statedManifestHash) {
      wrong(
        `phase ${number}: the manifest has SHA-256 ${manifest.hash}, the receipt says` +
          ` ${statedManifestHash}`,
      );
    }
    if (manifest.phase !== number) wrong(`the manifest says phase ${manifest.phase}, expected is ${number}`);
    try {
      checkTerms(first, manifest);
    } catch (error) {
      wrong(`phase ${number}: ${error.message}`);
    }
  }
  phases.slice(1).forEach(({ number, manifest }, at) => {
    const { previous } = manifest;
    const before = phases[at];
    if (previous === null || previous.manifestHash !== before.manifest.hash) {
      wrong(`phase ${number} does not follow from the manifest of phase ${before.number}`);
    }
    if (previous.resultHash !== before.resultHash) {
      wrong(`phase ${number} does not follow from the result of phase ${before.number}`);
    }
  });
  return phases
    .map(
      ({ number, manifest, resultHash, cutoffsHash }) =>
        `phase ${number}: manifestHash ${manifest.hash}, resultHash ${resultHash}, cutoffsHash ${cutoffsHash}`,
    )
    .join("\n");
}

function checkRandomness({ first, seed, phases }, common, trust, curves, values) {
  const { source } = first;
  values.push(["source", source.source], ["round", source.round], ["randomness", seed.randomness]);
  // The expected seed: the next step checks the stated one.
  const expected = deriveSeed(first.hash, source.source, source.round, seed.randomness);
  checkSeed({ ...seed, seed: expected }, first);
  checkSource(phases[0], common);
  if (source.commitment !== null) return `the secret ${seed.randomness} is the one that was committed to`;
  values.push(["signature", seed.signature], ["signed at", signedAt(source)]);
  checkBeaconKey(source.source, trust);
  verifyBeacon(source, seed.signature ?? "", curves);
  return `round ${source.round} was signed by the beacon at ${signedAt(source)} (UTC), by its rules`;
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
  const { position, cutoffsHash, statedCutoffsHash, number } = phase;
  values.push(["result", `${position.outcome} ${position.market}`.trim()], ["cutoffsHash", statedCutoffsHash]);
  if (cutoffsHash !== statedCutoffsHash) {
    wrong(`the cut-offs have SHA-256 ${cutoffsHash}, the receipt says ${statedCutoffsHash}`);
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
  if (before && before.strike !== null && before.strike !== phase.strike) {
    wrong("a strike of the previous phase is missing: strikes are permanent");
  }
  if (phase.strike !== null) {
    if (phase.manifest.strikesHash === NO_STRIKES) {
      wrong("a strike, but the manifest commits to an empty list of strikes");
    }
    return one("STRUCK");
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
  if (outcome === "STRUCK") return `${strike} (the list of strikes has SHA-256 ${manifest.strikesHash})`;
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
