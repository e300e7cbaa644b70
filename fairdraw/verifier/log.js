// The public log in a receipt, as in proof/logged.py.

import { isoTime, milliseconds, drawError, fieldsOf, isFilled, isId, sorted, uncheckedError } from "./fields.js";
import { parseCanonical } from "./canonical.js";
import {
  colludersOf, metAt, quorumText, readKeys, refusedAt, LOG_KEYS, trustedKey, WEAK_QUORUM, witnessesOf,
} from "./keys.js";
import { verifyInclusion } from "./merkle.js";
import { namedBy, parseCheckpoint, parseNote, verifyNote } from "./note.js";
import { timeFindings } from "./opened.js";
import { sizeProblem } from "./registered.js";

export const NO_LOG =
  "this draw is in no public log: when it was committed to, and to what, is the operator's word alone";
export const NO_WITNESS =
  "no witness is needed: only the operator vouches that all see the same log, and for the times in it";
export const NO_LEAD =
  "lead unknown: how long before its round the draw had to be committed to, no trust file says for this beacon";
export const ONLY_THESE_LEAVES =
  "The log shows that these statements were in it, and in which order. That it has no other one about this draw shows" +
  " only to those who read all of it.";
export const RECEIPTS_KEYS =
  "Some keys are taken as this receipt has them: compare their fingerprints with a source that the operator cannot" +
  " change, or give a file of trusted keys (`--trust`).";
const LEAF_KINDS = [
  "opened", "amended", "manifest", "replaced", "notice", "result", "codes", "annulled", "registrations", "key",
];
const NO_PHASE = ["opened", "registrations", "key"];
// Kinds of leaves that are about the campaign, and about a phase.
const OF_RECORD = ["opened", "amended"];
// A leaf says at most so much later than its witnesses when it was decided; and a round is at most so long after its
// manifest.
const [CLOCKS_SECONDS, FAR_SECONDS] = [60, 7 * 86_400];
const OF_PHASE = ["manifest", "replaced", "notice", "result", "codes"];
const LOG_LEAF = "leaf of the log";

function logError(message) {
  return drawError("receipt", message);
}

/** The key `log` of a receipt, parsed, with the keys to trust. */
export function parseLog(fields, trust) {
  const newest = checkpointIn(fields);
  const entries = Array.from(fields.objects("entries", ["index", "leaf", "proof"]), parseEntry);
  entries.forEach((after, at) => {
    const before = entries[at - 1];
    if (before && before.index >= after.index) {
      fields.refuse("entries", `indexes must increase, ${after.index} follows ${before.index}`);
    }
  });
  const kept = Array.from(fields.objects("kept", ["checkpoint", "index", "proof"]), (each) => {
    return { ...checkpointIn(each), index: each.integer("index"), proof: each.list("proof") };
  });
  if (new Set(kept.map((each) => each.index)).size < kept.length) {
    fields.refuse("kept", "one checkpoint for each leaf is allowed");
  }
  const given = readKeys(fields.nested("keys", LOG_KEYS));
  const [logTrusted, witnessTrusted] = [trust.log.length > 0, trust.quorum.members.length > 0];
  const log = logTrusted ? trust.log : given.log;
  const { quorum } = witnessTrusted ? trust : given;
  const keys = [
    ...log.map((key) => trustedKey("log", key.name, key.publicKey, logTrusted ? "trust" : "receipt")),
    ...witnessesOf(quorum).map((key) =>
      trustedKey("witness", key.name, key.publicKey, witnessTrusted ? "trust" : "receipt"),
    ),
  ];
  return { ...newest, kept, entries, log, quorum, keys };
}

function checkpointIn(fields) {
  const text = fields.text("checkpoint", isFilled, "a checkpoint");
  return refusedAt(fields, "checkpoint", () => {
    const note = parseNote(text);
    return { note, checkpoint: parseCheckpoint(note.text) };
  });
}

function parseEntry(fields) {
  const line = fields.text("leaf", isFilled, "a leaf");
  const leaf = parseLogLeaf(line);
  return { line, leaf, index: fields.integer("index"), proof: fields.list("proof") };
}

export function parseLogLeaf(line, name = LOG_LEAF) {
  const document = parseCanonical(line, name);
  const fields = fieldsOf(name, "", document, ["campaignId", "hash", "kind", "phase", "time"]);
  const kind = fields.text("kind", (text) => LEAF_KINDS.includes(text), `one of ${LEAF_KINDS.join(", ")}`);
  const campaignId =
    kind === "key"
      ? fields.text("campaignId", (text) => text === "", "no campaign")
      : fields.text("campaignId", isId, "an id");
  const noPhase = NO_PHASE.includes(kind);
  const phase = fields.integer("phase", noPhase ? 0 : 1);
  if (phase && noPhase) fields.refuse("phase", `0 is needed for ${kind}, found ${phase}`);
  return { campaignId, hash: fields.hash("hash"), kind, phase, time: fields.time("time") };
}

const keptName = ({ checkpoint }) => `the checkpoint of ${checkpoint.size} leaves`;

/**
 * Check every leaf, that the log has what the receipt shows of each phase and of the record of the campaign (`opened`:
 * the hashes of its files), and the signatures of the log.
 */
export function checkLog(log, { campaignId, annulled }, phases, opened, curves, values) {
  const { checkpoint, kept, entries } = log;
  values.push(["log", checkpoint.origin], ["size", String(checkpoint.size)], ["root", checkpoint.root]);
  for (const { leaf, index } of entries) values.push([`leaf ${index}: ${leaf.kind}`, leaf.hash]);
  for (const each of entries) {
    if (each.leaf.campaignId !== campaignId) {
      throw logError(`leaf ${each.index} of the log belongs to campaign ${each.leaf.campaignId}`);
    }
    if (!verifyInclusion(each.line, each.index, checkpoint.size, each.proof, checkpoint.root)) {
      throw logError(`the proof of leaf ${each.index} does not lead to the root of the checkpoint`);
    }
    if (OF_PHASE.includes(each.leaf.kind) && each.leaf.phase > phases.length) throw unknown(each);
  }
  const logged = phases.map((phase) => checkLoggedPhase(entries, phase));
  checkOpenedLeaves(entries, opened);
  const notes = [["the checkpoint", log.note]];
  for (const each of kept) {
    checkKept(each, entries, checkpoint.origin);
    notes.push([keptName(each), each.note]);
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
  ].join("\n");
}

/** What is wrong with the size of the list of registrations in the manifest of the `first` phase. */
export function registrationFindings({ entries }, first) {
  const { index: end } = manifestIn(entries, first);
  const sizes = entries.filter(({ index, leaf }) => leaf.kind === "registrations" && index < end);
  return [sizeProblem(first.manifest, sizes.at(-1)?.leaf.hash ?? null)].filter(Boolean);
}

/**
 * Check that enough witnesses saw the checkpoint, and the manifest of the `first` phase `lead` seconds (null: unknown)
 * before its round is signed at `due`.
 */
export function checkWitnesses(log, first, due, lead, { record, findings, curves }, values) {
  const { quorum } = log;
  values.push(["needed", quorumText(quorum)]);
  const found = quorum.need ? [seenBy(log, values)] : [];
  verifyNote(log.note, witnessesOf(quorum), curves);
  const manifest = manifestIn(log.entries, first);
  const at = timeOf(log, manifest, curves);
  if (at === null) throw logError("no checkpoint shows when enough witnesses saw the manifest in the log");
  if (due !== null && lead !== null) {
    const before = milliseconds(due) / 1000 - at;
    if (before < lead) {
      throw logError(
        `the manifest was in the log at ${moment(at)}, its round was signed at ${due}: at least ${lead} s must` +
          " be between",
      );
    }
    found.push(`the manifest was in the log at ${moment(at)}, ${Math.floor(before)} s before its round`);
  }
  findings.push(...late(log, manifest, at, due, record, curves));
  if (!quorum.need) throw uncheckedError(NO_WITNESS);
  if (!colludersOf(quorum)) throw uncheckedError(WEAK_QUORUM);
  if (lead === null) throw uncheckedError(NO_LEAD);
  return found.join("\n");
}

const moment = (seconds) => isoTime(Math.round(seconds * 1000));

export const recordLeaves = ({ entries }) => entries.filter(({ leaf }) => OF_RECORD.includes(leaf.kind));

/** How many files of the campaign's record are in the log, and how many before the manifest of the `first` phase. */
export function filesLogged(log, first) {
  const [leaves, last] = [recordLeaves(log), manifestIn(log.entries, first).index];
  return { logged: leaves.length, before: leaves.filter(({ index }) => index < last).length };
}

// What of the record and of the manifest, which was in the log `at`, was late or says another time.
function* late(log, manifest, at, due, record, curves) {
  const timed = recordLeaves(log).map((entry) => ({ ...entry, at: timeOf(log, entry, curves) }));
  yield* timeFindings(record.slice(0, timed.length).map((opened, number) => ({ opened, at: timed[number].at })));
  for (const { index, leaf, at: seen } of [...timed, { ...manifest, at }]) {
    if (seen !== null && milliseconds(leaf.time) / 1000 > seen + CLOCKS_SECONDS) {
      yield `leaf ${index} (${leaf.kind}) says ${leaf.time}, and was in the log at ${moment(seen)} already`;
    }
  }
  if (due !== null && milliseconds(due) / 1000 - at > FAR_SECONDS) {
    yield `its round (${due}) is more than 7 days after its manifest was in the log (${moment(at)})`;
  }
}

/** When a leaf was in the log, in seconds: by the witnesses, or by its own time where none is needed; null: not shown. */
function timeOf({ kept, quorum }, { leaf, index }, curves) {
  if (!quorum.need) return milliseconds(leaf.time) / 1000;
  const own = kept.find((each) => each.index === index);
  if (!own) return null;
  const at = metAt(quorum, verifyNote(own.note, witnessesOf(quorum), curves));
  return at < Infinity ? at : null;
}

/** Which witnesses saw a log's newest checkpoint, in words. Throws where they are too few. */
export function seenBy({ note, quorum }, values) {
  const keys = namedBy(note, witnessesOf(quorum));
  for (const { name, id } of keys) values.push(["witness", `${name}+${id}`]);
  const witnesses = keys.length === 1 ? "1 trusted witness" : `${keys.length} trusted witnesses`;
  const found = `${witnesses} cosigned the checkpoint (needed: ${quorumText(quorum)})`;
  if (metAt(quorum, new Map(keys.map((key) => [key, 0]))) === Infinity) throw logError(found);
  return (
    `${found}: ${sorted(keys.map((key) => key.name)).join(", ")}; ${colludersOf(quorum)} of them would have to collude` +
    " with the operator to vouch for two histories"
  );
}

// Check that every leaf of the campaign's record is that of one of its files, in their order.
function checkOpenedLeaves(entries, opened) {
  const found = entries.filter(({ leaf }) => OF_RECORD.includes(leaf.kind));
  for (const each of found) if (opened[each.leaf.phase] !== each.leaf.hash) throw unknown(each);
  // The last files may wait for the log.
  if (found.some(({ leaf }, at) => leaf.phase !== at)) {
    throw logError("the leaves of the campaign's record are not in its order, or one is missing");
  }
}

// Check that a leaf was in the log of that checkpoint.
function checkKept(kept, entries, origin) {
  const what = keptName(kept);
  const entry = entries.find((each) => each.index === kept.index);
  if (!entry) throw logError(`${what} is about no leaf of the receipt`);
  const { checkpoint } = kept;
  if (checkpoint.origin !== origin) throw logError(`${what} is of the log ${checkpoint.origin}, not of ${origin}`);
  if (!verifyInclusion(entry.line, entry.index, checkpoint.size, kept.proof, checkpoint.root)) {
    throw logError(`the proof of leaf ${entry.index} does not lead to the root of ${what}`);
  }
}

function unknown({ leaf, index }) {
  return logError(
    `phase ${leaf.phase}: leaf ${index} of the log is ${leaf.kind} ${leaf.hash}, which the receipt does not name`,
  );
}

const leavesOf = (entries, kind, number) => entries.filter(({ leaf }) => leaf.kind === kind && leaf.phase === number);

function manifestIn(entries, { number, manifest }) {
  const own = leavesOf(entries, "manifest", number).find(({ leaf }) => leaf.hash === manifest.hash);
  if (own === undefined) throw logError(`phase ${number}: the log has no manifest ${manifest.hash}`);
  return own;
}

// Check the leaves of a phase; return that of its manifest.
function checkLoggedPhase(entries, phase) {
  const { number, published, summaryHash } = phase;
  const own = manifestIn(entries, phase);
  const before = published?.replaced ?? [];
  const earlier = before.map((each) => each.manifest.hash);
  for (const each of leavesOf(entries, "manifest", number)) {
    const isReplaced = each.index < own.index && earlier.includes(each.leaf.hash);
    if (each.leaf.hash !== own.leaf.hash && !isReplaced) throw unknown(each);
  }
  const replaced = before.map((each) => each.hash);
  for (const each of leavesOf(entries, "replaced", number)) if (!replaced.includes(each.leaf.hash)) throw unknown(each);
  if (published !== null) {
    const notice = published.notice?.hash ?? null;
    const last = leavesOf(entries, "notice", number).at(-1);
    if (last && last.leaf.hash !== notice) throw unknown(last);
    if (notice !== null && !last) throw logError(`phase ${number}: the log has no notice ${notice}`);
  }
  const results = leavesOf(entries, "result", number);
  if (results.length !== 1 || (summaryHash !== null && results[0].leaf.hash !== summaryHash)) {
    const found = results.map(({ leaf }) => leaf.hash).join(", ") || "-";
    throw logError(`phase ${number}: the log has the results ${found}, not one: ${summaryHash ?? "-"}`);
  }
  if (results[0].index < own.index) throw logError(`phase ${number}: its result was in the log before its manifest`);
  return own;
}
