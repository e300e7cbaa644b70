// The check of a fan's confirmation against the published files, as in proof/confirmation.py. The leaf of a size is found by
// its fact. Only if none has the entry, the log is read from its end back to the campaign's opening: that shows whether
// there is a newer one. A file that is missing leaves a step unchecked.

import { parseCanonical } from "./canonical.js";
import { drawError, fieldsOf, isAny, isHash, isoTime, milliseconds, short, uncheckedError } from "./fields.js";
import { colludersOf, LOG_KEYS, metAt, parseTrust, readKeys, trustedKey, WEAK_QUORUM, witnessesOf } from "./keys.js";
import { NO_WITNESS, parseLogLeaf, seenBy } from "./log.js";
import { parseManifest } from "./manifest.js";
import { leafHash, treeHash, verifyInclusion } from "./merkle.js";
import { namedBy, parseCheckpoint, parseNote, verifyNote } from "./note.js";
import { endedStep, parsedObject, plain, THE_LIST, verdictOn, vouches } from "./receipt.js";
import { isRegistrationSalt, Registration, registrationLeaf, registrationNotice } from "./registered.js";
import { sha256Hex, toHex } from "./sha256.js";
import { textIn, TreeFiles, WIDTH } from "./tiles.js";

const CONFIRMATION = "confirmation";
// An honest host may lack such a file.
const MAY_LACK = { mayLack: true };
const CONFIRMATION_KEYS = ["at", "campaignId", "index", "kind", "ref", "salt", "unit", "version"];
const NO_NOTE = "the note is not UTF-8";
const ITS_KEYS =
  "Some keys are taken as the operator published them beside the log: compare their fingerprints with a source that" +
  " the operator cannot change, or give a file of trusted keys (`--trust`).";
const NOT_READ = "Notices about the registration were looked for in the newest entries alone";
const IN_THE_DRAW = "That the entry takes part in the draw shows its receipt, once there is one.";
// Bundles that are read at a time, and the newest ones in which notices are looked for.
const [AT_A_TIME, NEWEST] = [8, 64];

/** Whether a document is the confirmation of a registration, and no receipt. */
export const isConfirmation = (document) => document?.kind === "registration";

function contradiction(message) {
  throw drawError("receipt", message);
}

/**
 * Check a confirmation as a receipt is checked. `read(name, {mayLack})` resolves to the bytes of a published file, null for
 * none;
 * `onStep({name, at, of})` is awaited before each step; `onRead(done, of)` tells entries of the list; with `whole` notices are
 * looked for in every later entry. The answer has `listed`, too: since when the entry is in the list,
 * and how many witnesses saw it (null: none is needed), as `{at, by}`; or null.
 */
export async function checkConfirmation(text, read, { curves = null, trust = null, whole = false, onRead = () => {}, onStep = () => {} } = {}) {
  const keys = parseTrust(trust);
  const trusted = vouches(keys);
  const steps = [];
  let [document, own] = [null, null];
  try {
    document = parsedObject(text, CONFIRMATION);
    own = parseConfirmation(document);
  } catch (error) {
    steps.push(endedStep(CONFIRMATION, [], error, true));
    return { verdict: "fails", trusted, steps, findings: [], limits: [], keys: [], receipt: null, listed: null };
  }
  const checker = new ConfirmationCheck(own, read, keys, { curves, onRead, whole });
  const runs = Object.entries(checker.steps());
  for (const [name, run] of runs) {
    await onStep({ name, at: steps.length, of: runs.length });
    const values = [];
    try {
      steps.push({ name, state: "passed", detail: await run(values), values });
    } catch (error) {
      steps.push(endedStep(name, values, error));
    }
  }
  const found = await checker.log.then((log) => log.given, () => []);
  const ofKeys = found.some((key) => key.given === "log") ? [ITS_KEYS] : [];
  return {
    verdict: verdictOn(steps, trusted),
    trusted,
    steps,
    findings: checker.findings,
    limits: [IN_THE_DRAW, THE_LIST, ...checker.unread, ...ofKeys],
    keys: found,
    receipt: plain(document),
    listed: checker.listed,
  };
}

function parseConfirmation(document) {
  const fields = fieldsOf(CONFIRMATION, "", document, CONFIRMATION_KEYS);
  fields.text("kind", (kind) => kind === "registration", '"registration"');
  if (fields.integer("version") !== 1) fields.refuse("version", "1 is needed");
  const own = {
    at: fields.time("at"),
    campaignId: fields.id("campaignId"),
    index: fields.integer("index"),
    ref: fields.text("ref", isAny, "a ref"),
    salt: fields.text("salt", isRegistrationSalt, "32 lower-case hex digits"),
    unit: fields.raw("unit") === null ? null : fields.text("unit", isAny, "a unit"),
  };
  return { ...own, leaf: registrationLeaf(own.campaignId, own.ref, own.unit ?? own.ref, own.at, own.salt) };
}

// How far a campaign's tree is, as its checkpoint says.
function parseTreeState(text, name) {
  const keys = ["campaignId", "erased", "notices", "root", "size", "sizes", "withdrawn"];
  const fields = fieldsOf(name, "", parseCanonical(text, name), keys);
  const [most, sizes] = [fields.integer("size"), fields.list("sizes")];
  sizes.forEach((each, at) => {
    if (typeof each === "number" && each > (sizes[at - 1] ?? 0) && each <= most) return;
    fields.refuse("sizes", `numbers from 1 to ${most} that increase are needed, found ${short(each)}`);
  });
  const about = fields.id("campaignId");
  for (const key of ["erased", "withdrawn", "notices"]) fields.integer(key);
  fields.hash("root");
  return { about, sizes };
}

class ConfirmationCheck {
  constructor(own, read, trust, options) {
    Object.assign(this, { ...options, own, read, findings: [], unread: [], listed: null, folder: `registrations/${own.campaignId}/` });
    this.log = this.publishedLog(trust);
    this.closed = this.closedSize();
    this.sizes = this.loggedSizes();
    // Each step that awaits them meets the error.
    for (const each of [this.log, this.closed, this.sizes]) each.catch(() => {});
  }

  steps() {
    return {
      registration: () => this.checkRegistration(),
      log: () => this.checkLog(),
      witnesses: (values) => this.checkWitnesses(values),
    };
  }

  async text(name, { malformed, ...options } = {}) {
    const bytes = await this.read(name, options);
    return bytes === null ? null : textIn(name, bytes, malformed);
  }

  // The log by its signed checkpoint.
  async publishedLog(trust) {
    const text = await this.text("log/keys.json");
    const none = { log: [], quorum: { need: 0, members: [] } };
    const own = text === null ? none : readKeys(fieldsOf("keys.json", "", parseCanonical(text, "keys.json"), LOG_KEYS));
    const [log, quorum] = [trust.log.length ? trust.log : own.log, trust.quorum.members.length ? trust.quorum : own.quorum];
    if (!log.length) throw uncheckedError("no log: nothing shows when the list of registrations was what it is");
    const signed = await this.text("log/checkpoint", { malformed: NO_NOTE });
    if (signed === null) throw uncheckedError("log/checkpoint is missing");
    const note = parseNote(signed);
    const { origin, size, root } = parseCheckpoint(note.text);
    const keys = log.filter((key) => key.name === origin);
    if (!namedBy(note, keys).length) throw drawError("checkpoint", "it is signed by none of the log's keys");
    verifyNote(note, keys, this.curves);
    const tree = new TreeFiles("log/", Number(size), this.read);
    const of = (what, given) => (key) => trustedKey(what, key.name, key.publicKey, given.length ? "trust" : "log");
    const given = [...log.map(of("log", trust.log)), ...witnessesOf(quorum).map(of("witness", trust.quorum.members))];
    return { note, origin, size: Number(size), root, keys: log, quorum, tree, given };
  }

  // How the leaf that says this begins, and the file that has its index.
  factOf({ kind, phase, hash }) {
    const fact = `{"campaignId":"${this.own.campaignId}","hash":"${hash}","kind":"${kind}","phase":${phase},"time":"`;
    return { fact, fileOfFact: `log/facts/${sha256Hex(fact)}` };
  }

  // The leaf of the log that says this, and its index; null if it has none.
  async leafOf(said) {
    const log = await this.log;
    const { fact, fileOfFact } = this.factOf(said);
    const index = await this.text(fileOfFact, MAY_LACK);
    // What is decided and not published yet is not in the log.
    if (index === null || !(Number(index) < log.size)) return null;
    const entry = (await log.tree.bundle(Math.floor(index / WIDTH)))[index % WIDTH];
    const line = entry === undefined ? "" : textIn(fileOfFact, entry);
    if (!line.startsWith(fact)) throw drawError(fileOfFact, "does not name the entry that says this");
    const leaf = parseLogLeaf(line);
    if (!verifyInclusion(line, Number(index), log.size, await log.tree.proof(Number(index), log.size), log.root)) {
      contradiction(`the proof of leaf ${index} does not lead to the root of the checkpoint`);
    }
    return { index: Number(index), leaf };
  }

  get manifestName() {
    return `draws/${this.own.campaignId}/phase-1/manifest.json`;
  }

  // How many entries the list of the draw has; null if no manifest in the log is published here.
  async closedSize() {
    await this.log;
    const bytes = await this.read(this.manifestName, MAY_LACK);
    if (bytes === null || (await this.leafOf({ kind: "manifest", phase: 1, hash: sha256Hex(bytes) })) === null) return null;
    return parseManifest(textIn("manifest.json", bytes)).registrations?.size ?? 0;
  }

  // Why the entry cannot be in the list of the draw; empty if nothing speaks against it.
  async beyond() {
    const closed = await this.closed;
    return closed === null || this.own.index < closed ? "" : `not in the list: the draw closed it at ${closed} entries`;
  }

  // The first and the newest size of the list that is in the log and has the entry.
  async loggedSizes() {
    const { index, campaignId } = this.own;
    const beyond = await this.beyond();
    if (beyond) throw uncheckedError(beyond);
    const name = `${this.folder}checkpoint`;
    const text = await this.text(name);
    const { about, sizes } = text === null ? { about: campaignId, sizes: [] } : parseTreeState(text, name);
    if (about !== campaignId) throw drawError(name, `is about ${about}`);
    const firstOf = async (some) => {
      for (const size of some) {
        const found = await this.loggedSize(size);
        if (found) return found;
      }
      return null;
    };
    const having = sizes.filter((size) => size > index);
    const newest = await firstOf([...having].reverse());
    if (newest) return { newest, first: await firstOf(having) };
    const last = await this.lastLeaves();
    if (text === null && last.registrations) throw uncheckedError(`${name} is missing`);
    const before = await firstOf(sizes.filter((size) => size <= index).reverse());
    await this.requireOpen(last, before?.index);
    throw uncheckedError(`not in the list yet: no list of registrations in the log has an entry ${index}`);
  }

  // Refuse "not yet" where the entry cannot come any more, or where the log has a newer list than that of the leaf `before`:
  // then the published files were changed.
  async requireOpen({ registrations, manifest }, before) {
    for (const { index, leaf } of [registrations, manifest].filter(Boolean)) {
      const { fileOfFact } = this.factOf(leaf);
      const found = await this.text(fileOfFact);
      if (found === null) throw uncheckedError(`${fileOfFact} is missing`);
      if (Number(found) !== index) throw drawError(fileOfFact, "does not name the entry that says this");
    }
    if (registrations && registrations.index !== before) {
      const what = `names no list of registrations that is leaf ${registrations.index} of the log`;
      throw drawError(`${this.folder}checkpoint`, `${what}: it was changed, or a file in sizes`);
    }
    if (!manifest) return;
    const closed = await this.closed;
    if (closed === null) {
      const bytes = await this.read(this.manifestName);
      if (bytes === null) throw uncheckedError(`${this.manifestName} is missing`);
      if (sha256Hex(bytes) !== manifest.leaf.hash) throw drawError(this.manifestName, "is not the one in the log");
    }
    contradiction(`not in the list: the draw counts ${closed} entries, and no list of registrations in the log has as many`);
  }

  // The last leaf of the campaign about its list, and about a manifest of phase 1, by kind: the log is read from its end back
  // to the campaign's opening.
  async lastLeaves() {
    const { size, root, tree } = await this.log;
    const isWhole = size > 0 && toHex(await tree.root(0, size)) === root;
    const [begin, last] = [`{"campaignId":"${this.own.campaignId}",`, {}];
    for (let number = Math.ceil(size / WIDTH) - 1; number >= 0 && !last.opened; number--) {
      const [start, entries] = [number * WIDTH, await tree.bundle(number)];
      const hashes = treeHash();
      for (const entry of entries) hashes.add(leafHash(entry));
      if (!isWhole || toHex(hashes.root()) !== toHex(await tree.root(start, Math.min(start + WIDTH, size)))) {
        throw drawError("checkpoint", `its root is not that of the ${size} entries`);
      }
      for (let at = entries.length - 1; at >= 0 && !last.opened; at--) {
        const line = String.fromCharCode(...entries[at]);
        if (!line.startsWith(begin)) continue;
        const leaf = parseLogLeaf(textIn(`entry ${start + at}`, entries[at]));
        if (leaf.phase <= 1) last[leaf.kind] ??= { index: start + at, leaf };
      }
    }
    return last;
  }

  // One size of the list, and its leaf in the log; null if it has none.
  async loggedSize(size) {
    const { campaignId } = this.own;
    const name = `${this.folder}sizes/${size}.json`;
    const bytes = await this.read(name);
    if (bytes === null) throw uncheckedError(`${name} is missing`);
    const found = await this.leafOf({ kind: "registrations", phase: 0, hash: sha256Hex(bytes) });
    if (found === null) return null;
    const fields = fieldsOf(name, "", parseCanonical(textIn(name, bytes), name), ["campaignId", "root", "size"]);
    const [about, root] = [fields.id("campaignId"), fields.hash("root")];
    if (about !== campaignId || fields.integer("size") !== size) throw drawError(name, "is about another campaign or size");
    return { ...found, root, size };
  }

  async checkRegistration() {
    const beyond = await this.beyond();
    if (beyond) contradiction(beyond);
    const [{ newest }, { index, at, leaf }] = [await this.sizes, this.own];
    const { size } = newest;
    let since = this.whole ? 0 : Math.max(0, Math.ceil(size / WIDTH) - NEWEST) * WIDTH;
    const leavesOf = (registration) => [registration.leaf, ...registration.notices.map((each) => each.leaf).filter(Boolean)];
    let found = await this.registrationIn(newest, since);
    if (!leavesOf(found).includes(leaf) && since > index) {
      // A notice before may have given it this unit.
      since = 0;
      found = await this.registrationIn(newest, since);
    }
    const leaves = leavesOf(found);
    if (!leaves.includes(leaf)) {
      contradiction(`entry ${index} of the list is another one: ref, unit, time and salt do not give its leaf`);
    }
    // Notices before the unit of the confirmation are known to its fan.
    const isNews = (each, number) => each.leaf === null || !leaves.slice(number + 1).includes(leaf);
    this.findings.push(...found.noted.filter((_, number) => isNews(found.notices[number], number)));
    if (since > index) this.unread = [`${NOT_READ}, from entry ${since} on: \`check-receipt --whole\` looks in all later ones.`];
    return [`entry ${index} of ${size} in the list of registrations (from 0), registered at ${at}`, ...found.noted].join("\n");
  }

  // The entry at the index with the notices about it from the entry `since` on, from a list whose root is computed again:
  // over the entries that are read, and the hashes of other bundles.
  async registrationIn({ root, size }, since) {
    const { index } = this.own;
    const files = new TreeFiles(this.folder, size, this.read);
    const [blocks, own] = [treeHash(), index - (index % WIDTH)];
    let found = null;
    const take = (entries, start) => {
      const bundle = treeHash();
      entries.forEach((entry, number) => {
        bundle.add(leafHash(entry));
        const [at, text] = [start + number, String.fromCharCode(...entry)];
        if (at === index) {
          if (!isHash(text)) contradiction(`entry ${at} of the list is no registration`);
          found = new Registration(at, text);
        } else if (found !== null) {
          const notice = registrationNotice(text);
          if (notice?.about === index) found.note(at, notice);
        }
      });
      return bundle.root();
    };
    const isRead = (start) => start === own || start >= Math.max(own, since);
    for (let start = 0; start < size; start += AT_A_TIME * WIDTH) {
      this.onRead(start, size);
      const starts = Array.from({ length: AT_A_TIME }, (_, each) => start + each * WIDTH).filter((each) => each < size);
      const parts = starts.map((each) => (isRead(each) ? files.bundle(each / WIDTH) : files.node(8, each)));
      (await Promise.all(parts)).forEach((part, each) => blocks.add(isRead(starts[each]) ? take(part, starts[each]) : part));
    }
    if (found === null || toHex(blocks.root()) !== root) {
      contradiction(`the ${size} entries of the list do not have the root that is in the log`);
    }
    return found;
  }

  async checkLog() {
    const [{ newest }, log] = [await this.sizes, await this.log];
    return `the list of ${newest.size} entries with root ${newest.root} is leaf ${newest.index} of the log ${log.origin} of ${log.size} leaves`;
  }

  async checkWitnesses(values) {
    const [{ first }, { note, quorum }] = [await this.sizes, await this.log];
    const when = (seconds) => isoTime(Math.round(seconds * 1000));
    if (!quorum.need) {
      this.listed = { at: when(milliseconds(first.leaf.time) / 1000), by: null };
      throw uncheckedError(NO_WITNESS);
    }
    const kept = await this.keptAfter(first);
    if (kept === null) contradiction("no checkpoint shows when enough witnesses saw the entry in the list");
    verifyNote(note, witnessesOf(quorum), this.curves);
    const found = seenBy({ note, quorum }, values);
    this.listed = { at: when(kept.at), by: kept.seen };
    if (!colludersOf(quorum)) throw uncheckedError(WEAK_QUORUM);
    return `${sinceText(this.listed)}\n${found}`;
  }

  // The smallest checkpoint with the leaf that enough witnesses cosigned: when they had, and how many they are.
  async keptAfter({ index }) {
    const { origin, size: last, keys, quorum, tree } = await this.log;
    for (let size = index + 1; size <= last; size++) {
      for (const key of keys) {
        const name = `checkpoints/${size}-${key.id}`;
        const text = await this.text(`log/${name}`, { malformed: NO_NOTE, ...MAY_LACK });
        if (text === null) continue;
        const note = parseNote(text);
        const isSigned = verifyNote(note, [key], this.curves).size > 0;
        const checkpoint = isSigned && parseCheckpoint(note.text);
        const isOurs = isSigned && checkpoint.origin === origin && Number(checkpoint.size) === size;
        if (!isOurs || checkpoint.root !== toHex(await tree.root(0, size))) {
          throw drawError(name, "is no checkpoint of these entries: find out who wrote it");
        }
        const times = verifyNote(note, witnessesOf(quorum), this.curves);
        const at = metAt(quorum, times);
        if (at < Infinity) return { at, seen: times.size };
      }
    }
    return null;
  }
}

/** What a check did not read of the list, among its limits. */
export const unreadOf = (limits) => limits.find((each) => each.startsWith(NOT_READ));

/** Since when an entry is in the list, and by whom, in words. */
export function sinceText({ at, by }) {
  const who = by === null ? "the operator's word" : by === 1 ? "1 witness" : `${by} witnesses`;
  return `in the list since ${at}, by ${who}`;
}
