// The public log in a receipt, and the trusted keys, as in proof/logged.py.

import { CHAINS, LEAD_SECONDS, signedAt } from "./beacon.js";
import { parseCanonical, parseJson } from "./canonical.js";
import { drawError, fieldsOf, isFilled, isId, milliseconds, sorted, uncheckedError } from "./fields.js";
import { verifyInclusion } from "./merkle.js";
import {
  cosignedAt, LOG_KEY, namedBy, parseCheckpoint, parseKey, parseNote, verifyNote, WITNESS_KEY,
} from "./note.js";
import { fromHex, sha256Hex } from "./sha256.js";

export const NO_LOG =
  "this draw is in no public log: when it was committed to, and to what, is the operator's word alone";
export const NO_WITNESS =
  "no witness is needed: only the operator vouches that all see the same log, and for the times in it";
const AT_COMMIT = "the checkpoint of the commit";
const NO_COMMITTED =
  "the log has no checkpoint from the time of the commit: only the operator vouches that the manifest was in it" +
  " before its round";
export const ONLY_THESE_LEAVES =
  "The log shows that these statements were in it, and in which order; their times are the operator's. That it has" +
  " no other one about this draw shows only to those who read all of it.";
export const OPERATORS_KEYS =
  "Some keys are taken as the operator gave them: compare their fingerprints with a source that the operator cannot" +
  " change, or give a file of trusted keys (`--trust`).";
const LOG_KEYS = ["log", "need", "witnesses"];
const LEAF_KINDS = ["commitment", "manifest", "replaced", "notice", "result", "codes", "annulled", "key"];
// Of result.txt, then of cutoffs.json.
const RESULT_LEAVES = 2;
const BEACON_KEY = /^[0-9a-f]{192}$/;
const LOG_LEAF = "leaf of the log";

function logError(message) {
  return drawError("receipt", message);
}

/** Read the text of a trust file. Throws an error with the key and what was found; null: no file. */
export function parseTrust(text) {
  if (text === null) return { beacon: new Map(), log: [], witnesses: [], need: 0 };
  let document;
  try {
    document = parseJson(text);
  } catch {
    throw drawError("trust file", "not a JSON document");
  }
  const fields = fieldsOf("trust file", "", document, ["beacon", ...LOG_KEYS]);
  const chains = fields.nested("beacon");
  const keyOf = (chain) => chains.text(chain, (key) => BEACON_KEY.test(key), "192 lower-case hex digits");
  return { beacon: new Map(chains.names.map((chain) => [chain, keyOf(chain)])), ...readKeys(fields) };
}

function readKeys(fields) {
  const log = keysOf(fields, "log", LOG_KEY);
  const witnesses = keysOf(fields, "witnesses", WITNESS_KEY);
  const need = fields.integer("need");
  if (need > witnesses.length) {
    fields.refuse("need", `${need} witnesses of ${witnesses.length} cannot be needed`);
  }
  return { log, witnesses, need };
}

function keysOf(fields, name, kind) {
  return fields.list(name).map((text) => {
    if (typeof text !== "string") fields.refuse(name, "texts of keys are needed");
    const key = refusedAt(fields, name, () => parseKey(text));
    if (key.kind !== kind) {
      fields.refuse(name, `the key of ${key.name} has type 0x0${key.kind}, not 0x0${kind}`);
    }
    return key;
  });
}

// The error of a note, as one of the field that it is in.
function refusedAt(fields, name, parse) {
  try {
    return parse();
  } catch (error) {
    return fields.refuse(name, error.message);
  }
}

function trustedKey(what, name, publicKey, trusted) {
  const fingerprint = sha256Hex(publicKey).slice(0, 16).match(/.{4}/g).join(" ");
  return { what, name, fingerprint, given: trusted ? "trust" : "operator" };
}

/** The key of the beacon that the manifest's randomness comes from: a list of one, empty for all else. */
export function beaconKeys(manifest, trust) {
  const chain = CHAINS.get(manifest.source.source);
  if (chain === undefined) return [];
  const trusted = trust.beacon.get(manifest.source.source);
  return [trustedKey("beacon", chain.beaconId, fromHex(trusted ?? chain.publicKey), trusted !== undefined)];
}

/** Throw if another key is trusted for the chain than that of which its hash was made. */
export function checkBeaconKey(chainHash, trust) {
  const pinned = CHAINS.get(chainHash).publicKey;
  if ((trust.beacon.get(chainHash) ?? pinned) !== pinned) {
    throw drawError("seed.json", `the trusted key of chain ${chainHash} is not the one that the hash is of`);
  }
}

/** The key `log` of a receipt, parsed, with the keys to trust. */
export function parseLog(fields, trust) {
  const newest = checkpointIn(fields);
  const committed =
    fields.raw("committed") === null
      ? null
      : parseCommitted(fields.nested("committed", ["checkpoint", "proof"]));
  const entries = Array.from(fields.objects("entries", ["index", "leaf", "proof"]), parseEntry);
  entries.forEach((after, at) => {
    const before = entries[at - 1];
    if (before && before.index >= after.index) {
      fields.refuse("entries", `indexes must increase, ${after.index} follows ${before.index}`);
    }
  });
  const given = readKeys(fields.nested("keys", LOG_KEYS));
  const [logTrusted, witnessTrusted] = [trust.log.length > 0, trust.witnesses.length > 0];
  const log = logTrusted ? trust.log : given.log;
  const { witnesses, need } = witnessTrusted ? trust : given;
  const keys = [
    ...log.map((key) => trustedKey("log", key.name, key.publicKey, logTrusted)),
    ...witnesses.map((key) => trustedKey("witness", key.name, key.publicKey, witnessTrusted)),
  ];
  return { ...newest, committed, entries, log, witnesses, need, keys };
}

function checkpointIn(fields) {
  const text = fields.text("checkpoint", isFilled, "a checkpoint");
  return refusedAt(fields, "checkpoint", () => {
    const note = parseNote(text);
    return { note, checkpoint: parseCheckpoint(note.text) };
  });
}

// A checkpoint from the time of the commit, and the path of the manifest's leaf to its root.
function parseCommitted(fields) {
  return { ...checkpointIn(fields), proof: fields.list("proof") };
}

function parseEntry(fields) {
  const line = fields.text("leaf", isFilled, "a leaf");
  const leaf = parseLogLeaf(line);
  return { line, leaf, index: fields.integer("index"), proof: fields.list("proof") };
}

function parseLogLeaf(line) {
  const document = parseCanonical(line, LOG_LEAF);
  const fields = fieldsOf(LOG_LEAF, "", document, ["campaignId", "hash", "kind", "phase", "time"]);
  const kind = fields.text("kind", (text) => LEAF_KINDS.includes(text), `one of ${LEAF_KINDS.join(", ")}`);
  const ofKey = kind === "key";
  const campaignId = ofKey
    ? fields.text("campaignId", (text) => text === "", "no campaign")
    : fields.text("campaignId", isId, "an id");
  const phase = fields.integer("phase", ofKey ? 0 : 1);
  const most = ofKey ? 0 : 1;
  if ((ofKey || kind === "commitment") && phase > most) {
    fields.refuse("phase", `${most} is needed for a ${kind}, found ${phase}`);
  }
  return { campaignId, hash: fields.hash("hash"), kind, phase, time: fields.time("time") };
}

/** Check every leaf, that the log has what the receipt shows of each phase, and the signature. */
export function checkLog(log, { campaignId, annulled }, phases, curves, values) {
  const { checkpoint, committed, entries } = log;
  values.push(["log", checkpoint.origin], ["size", String(checkpoint.size)], ["root", checkpoint.root]);
  for (const { leaf, index } of entries) values.push([`leaf ${index}: ${leaf.kind}`, leaf.hash]);
  for (const each of entries) {
    if (each.leaf.campaignId !== campaignId) {
      throw logError(`leaf ${each.index} of the log belongs to campaign ${each.leaf.campaignId}`);
    }
    if (!verifyInclusion(each.line, each.index, checkpoint.size, each.proof, checkpoint.root)) {
      throw logError(`the proof of leaf ${each.index} does not lead to the root of the checkpoint`);
    }
  }
  const logged = phases.map((phase) => checkLoggedPhase(entries, phase));
  const notes = [["the checkpoint", log.note]];
  if (committed !== null) {
    values.push(["size at the commit", String(committed.checkpoint.size)]);
    checkCommitted(committed, checkpoint.origin, logged[0]);
    notes.push([AT_COMMIT, committed.note]);
  }
  for (const { leaf, index } of entries) {
    if (leaf.kind === "annulled" && leaf.hash !== (annulled?.hash ?? null)) {
      throw logError(`leaf ${index} of the log annuls the draw, the receipt does not`);
    }
  }
  const keys = log.log.filter((key) => key.name === checkpoint.origin);
  for (const [what, note] of notes) {
    if (!namedBy(note, keys).length) {
      throw logError(`no trusted key of a log named ${checkpoint.origin} signed ${what}`);
    }
  }
  for (const [, note] of notes) verifyNote(note, keys, curves);
  return [
    `${entries.length} leaves about this draw are in the log ${checkpoint.origin} of ${checkpoint.size} leaves`,
    ...logged.map(({ leaf, index }, at) => {
      const { number, manifest } = phases[at];
      return `phase ${number}: manifest ${manifest.hash} is leaf ${index}, logged at ${leaf.time}`;
    }),
    ...(committed === null ? [] : [`${AT_COMMIT} has ${committed.checkpoint.size} leaves`]),
  ].join("\n");
}

/** Check that enough witnesses saw the checkpoint, and that of the commit in time, where a round says what that is. */
export function checkWitnesses(log, manifest, curves, values) {
  values.push(["needed", log.need]);
  if (log.need === 0) return NO_WITNESS;
  const { note, committed } = log;
  const found = [seenBy(note, log, "the checkpoint", values)];
  const notes = [note];
  const at = signedAt(manifest.source);
  if (at !== null && committed !== null) {
    const latest = milliseconds(at) / 1000 - LEAD_SECONDS;
    const inTime = committed.note.signatures.filter((each) => cosignedAt(each) <= latest);
    const what = `${AT_COMMIT} at least ${LEAD_SECONDS} s before its round`;
    found.push(seenBy({ signatures: inTime }, log, what, values));
    notes.push(committed.note);
  }
  for (const each of notes) verifyNote(each, log.witnesses, curves);
  if (at !== null && committed === null) throw uncheckedError(NO_COMMITTED);
  return found.join("\n");
}

function seenBy(note, { witnesses, need }, what, values) {
  const keys = namedBy(note, witnesses);
  for (const { name, id } of keys) values.push(["witness", `${name}+${id}`]);
  // One key under two names is one witness.
  const count = new Set(keys.map((key) => String(key.publicKey))).size;
  const found = `${count} trusted ${count === 1 ? "witness" : "witnesses"} cosigned ${what} (needed: ${need})`;
  if (count < need) throw logError(found);
  return `${found}: ${sorted(new Set(keys.map((key) => key.name))).join(", ")}`;
}

// Check that the manifest was in the log of that checkpoint.
function checkCommitted({ checkpoint, proof }, origin, manifest) {
  if (checkpoint.origin !== origin) {
    throw logError(`${AT_COMMIT} is of the log ${checkpoint.origin}, not of ${origin}`);
  }
  if (!verifyInclusion(manifest.line, manifest.index, checkpoint.size, proof, checkpoint.root)) {
    throw logError(`the proof of leaf ${manifest.index} does not lead to the root of ${AT_COMMIT}`);
  }
}

// Check the leaves of a phase; return that of its manifest.
function checkLoggedPhase(entries, { number, manifest, results, published }) {
  const leavesOf = (kind) => entries.filter(({ leaf }) => leaf.kind === kind && leaf.phase === number);
  const unknown = ({ leaf, index }) =>
    logError(
      `phase ${leaf.phase}: leaf ${index} of the log is ${leaf.kind} ${leaf.hash}, which the receipt does not name`,
    );
  const manifests = leavesOf("manifest");
  const own = manifests.find(({ leaf }) => leaf.hash === manifest.hash);
  if (own === undefined) throw logError(`phase ${number}: the log has no manifest ${manifest.hash}`);
  const earlier = published.replaced.map((each) => each.manifest.hash);
  for (const each of manifests) {
    const isReplaced = each.index < own.index && earlier.includes(each.leaf.hash);
    if (each.leaf.hash !== own.leaf.hash && !isReplaced) throw unknown(each);
  }
  const replaced = published.replaced.map((each) => each.hash);
  for (const each of leavesOf("replaced")) if (!replaced.includes(each.leaf.hash)) throw unknown(each);
  const notice = published.notice?.hash ?? null;
  const lastNotice = leavesOf("notice").at(-1);
  if (lastNotice && lastNotice.leaf.hash !== notice) throw unknown(lastNotice);
  if (notice !== null && !lastNotice) throw logError(`phase ${number}: the log has no notice ${notice}`);
  const found = leavesOf("result").map(({ leaf }) => leaf.hash);
  if (found.length !== RESULT_LEAVES || (results.length && String(found) !== String(results))) {
    throw logError(
      `phase ${number}: the log has the results ${found.join(", ") || "-"}, not one with its cut-offs:` +
        ` ${results.join(", ") || "-"}`,
    );
  }
  if (number === 1) checkCommit(manifest.source, own, leavesOf("commitment"));
  return own;
}

// Check what had to be in the log before the randomness was known, or before the manifest.
function checkCommit(source, own, commitments) {
  const at = signedAt(source);
  if (at !== null && milliseconds(own.leaf.time) + LEAD_SECONDS * 1000 > milliseconds(at)) {
    throw logError(
      `the manifest was logged at ${own.leaf.time}, its round was signed at ${at}: at least` +
        ` ${LEAD_SECONDS} s must be between`,
    );
  }
  const committed = ({ leaf, index }) => leaf.hash === source.commitment && index < own.index;
  if (source.commitment !== null && !commitments.some(committed)) {
    throw logError(`the log has no commitment ${source.commitment} before the manifest`);
  }
}
