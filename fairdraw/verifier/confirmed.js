// The check of a fan's confirmation against the published files, as in proof/confirmation.py. Of a long log the newest
// entries are read: what is before these is found by its fact. A file that is missing leaves a step unchecked.

import { parseCanonical } from "./canonical.js";
import { drawError, fieldsOf, isAny, isHash, isoTime, milliseconds, short, uncheckedError } from "./fields.js";
import { colludersOf, LOG_KEYS, metAt, parseTrust, readKeys, trustedKey, WEAK_QUORUM, witnessesOf } from "./keys.js";
import { NO_WITNESS, parseLogLeaf, seenBy } from "./log.js";
import { parseManifest } from "./manifest.js";
import { leafHash, treeHash, verifyInclusion } from "./merkle.js";
import { namedBy, parseCheckpoint, parseNote, verifyNote } from "./note.js";
import { endedStep, parsedObject, plain, THE_LIST, verdictOn, vouches } from "./receipt.js";
import { isRegistrationSalt, Registration, registrationLeaf, registrationNotice, sizeHash, sizeProblem } from "./registered.js";
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
const NOT_YET = "not in the list yet";
const NOT_READ = "Notices about the registration were looked for in the newest entries alone";
const LOG_NOT_READ = "Newer lists, and the draw, were looked for in the newest leaves of the log alone";
const AS_OF = "The log was read as witnesses saw it at";
const IN_THE_DRAW = "That the entry takes part in the draw shows its receipt, once there is one.";
// Bundles that are read at a time, and the newest ones in which leaves of the campaign and notices are looked for.
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
      steps.push(endedStep(name, values, error, error.artefact !== "receipt"));
    }
  }
  const found = await checker.log.then(({ given }) => given, () => []);
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

// What is wrong with a file by its whole path.
function named(artefact, run) {
  try {
    return run();
  } catch (error) {
    throw error.artefact === undefined ? error : Object.assign(error, { artefact });
  }
}

// The root over hashes of subtrees, in hex.
function hexRoot(nodes) {
  const hashes = treeHash();
  for (const each of nodes) hashes.add(each);
  return toHex(hashes.root());
}

// The root over entries.
function rootOver(entries) {
  const hashes = treeHash();
  for (const each of entries) hashes.add(leafHash(each));
  return hashes.root();
}

class ConfirmationCheck {
  constructor(own, read, trust, options) {
    Object.assign(this, { ...options, own, read, findings: [], unread: [], listed: null, folder: `registrations/${own.campaignId}/` });
    this.log = this.publishedLog(trust);
    this.logged = this.campaignLeaves();
    this.drawn = this.drawnList();
    this.sizes = this.listedSizes();
    this.newest = this.newestList();
    // The first size of the list in the log that has what is confirmed; null until that was found.
    this.first = null;
    // Each step that awaits them meets the error.
    for (const each of [this.log, this.logged, this.drawn, this.sizes, this.newest]) each.catch(() => {});
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
    const [keysFile, noteFile] = ["log/keys.json", "log/checkpoint"];
    const text = await this.text(keysFile);
    const none = { log: [], quorum: { need: 0, members: [] } };
    const own = text === null ? none : readKeys(fieldsOf(keysFile, "", parseCanonical(text, keysFile), LOG_KEYS));
    const [log, quorum] = [trust.log.length ? trust.log : own.log, trust.quorum.members.length ? trust.quorum : own.quorum];
    if (!log.length) throw uncheckedError("no log: nothing shows when the list of registrations was what it is");
    const signed = await this.text(noteFile, { malformed: NO_NOTE });
    if (signed === null) throw uncheckedError(`${noteFile} is missing`);
    const [note, { origin, size, root }] = named(noteFile, () => {
      const note = parseNote(signed);
      return [note, parseCheckpoint(note.text)];
    });
    const keys = log.filter((key) => key.name === origin);
    if (!namedBy(note, keys).length) throw drawError(noteFile, "it is signed by none of the log's keys");
    named(noteFile, () => verifyNote(note, keys, this.curves));
    const tree = new TreeFiles("log/", Number(size), this.read);
    const of = (what, given) => (key) => trustedKey(what, key.name, key.publicKey, given.length ? "trust" : "log");
    const given = [...log.map(of("log", trust.log)), ...witnessesOf(quorum).map(of("witness", trust.quorum.members))];
    const found = { note, origin, size: Number(size), root, keys: log, quorum, tree, given };
    return { ...found, ...(await this.campaignLines(found)) };
  }

  // The leaves of the campaign as they are in the entries that are read, in order, and whether it has no others.
  async campaignLines({ size, root, tree }) {
    const [begin, lines, roots] = [`{"campaignId":"${this.own.campaignId}",`, [], new Map()];
    const last = Math.ceil(size / WIDTH);
    const least = this.whole ? 0 : Math.max(0, last - NEWEST);
    const requireRoot = (isRight) => {
      if (!isRight) throw drawError("log/checkpoint", `its root is not that of the ${size} entries`);
    };
    for (let number = last - 1; number >= least; number--) {
      const [start, entries] = [number * WIDTH, await tree.bundle(number)];
      requireRoot(entries.length === Math.min(WIDTH, size - start));
      roots.set(number, rootOver(entries));
      const own = entries.map((entry, at) => [start + at, entry]);
      lines.unshift(...own.filter(([, entry]) => String.fromCharCode(...entry).startsWith(begin)));
    }
    const blocks = treeHash();
    for (let number = 0; number < last; number++) blocks.add(roots.get(number) ?? (await tree.node(8, number * WIDTH)));
    requireRoot(toHex(blocks.root()) === root);
    return { lines, least: least * WIDTH };
  }

  // The leaves of the campaign in the entries that are read, and whether it has no others: it opened among them.
  async campaignLeaves() {
    const { lines, least } = await this.log;
    const leaves = lines.map(([index, entry]) => ({ index, leaf: parseLogLeaf(textIn(`entry ${index}`, entry), `entry ${index}`) }));
    const opened = leaves.filter(({ leaf }) => leaf.kind === "opened");
    const [first, again] = [opened.at(0), opened.at(-1)];
    if (first !== again) {
      contradiction(`leaf ${again.index} of the log opens the campaign again, after leaf ${first.index}: a campaign opens once`);
    }
    const isWhole = least === 0 || first !== undefined;
    if (!isWhole) this.unread.push(`${LOG_NOT_READ}, from leaf ${least} on: \`check-receipt\` looks in all.`);
    return { leaves, isWhole };
  }

  // The sizes of the list among them; one that the log has twice running is where it was first.
  async loggedLists() {
    const { leaves } = await this.logged;
    const found = [];
    for (const each of leaves.filter(({ leaf }) => leaf.kind === "registrations")) {
      const before = found.find(({ leaf }) => leaf.hash === each.leaf.hash);
      if (before && before !== found.at(-1)) {
        contradiction(`leaf ${each.index} of the log is the list of leaf ${before.index} again: it did not only grow`);
      }
      if (!before) found.push(each);
    }
    return found;
  }

  // The first leaf of the log that says this, and its index; null if it has none. One before those that were read is found
  // by its fact.
  async leafOf({ kind, phase, hash }) {
    const [{ root, size, tree }, { leaves, isWhole }] = [await this.log, await this.logged];
    const known = leaves.find(({ leaf }) => leaf.kind === kind && leaf.phase === phase && leaf.hash === hash);
    if (known || isWhole) return known ?? null;
    const fact = `{"campaignId":"${this.own.campaignId}","hash":"${hash}","kind":"${kind}","phase":${phase},"time":"`;
    const name = `log/facts/${sha256Hex(fact)}`;
    const text = await this.text(name, MAY_LACK);
    const index = /^(0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : size;
    // What is decided and not published yet is not in the log.
    if (index >= size) return null;
    const entry = (await tree.bundle(Math.floor(index / WIDTH)))[index % WIDTH];
    const line = entry === undefined ? "" : textIn(name, entry);
    if (!line.startsWith(fact)) throw drawError(name, "does not name the entry that says this");
    const leaf = parseLogLeaf(line);
    if (!verifyInclusion(line, index, size, await tree.proof(index, size), root)) {
      contradiction(`the proof of leaf ${index} does not lead to the root of the checkpoint`);
    }
    return { index, leaf };
  }

  get manifestName() {
    return `draws/${this.own.campaignId}/phase-1/manifest.json`;
  }

  // The list that the draw counts; null before the draw.
  async drawnList() {
    const [{ leaves, isWhole }, { campaignId }, name] = [await this.logged, this.own, this.manifestName];
    const manifests = leaves.filter(({ leaf }) => leaf.kind === "manifest" && leaf.phase === 1);
    if (!manifests.length && isWhole) return null;
    const bytes = await this.read(name, manifests.length ? {} : MAY_LACK);
    if (!manifests.length) {
      const said = bytes && (await this.leafOf({ kind: "manifest", phase: 1, hash: sha256Hex(bytes) }));
      if (!said) return null;
      manifests.push(said);
    }
    if (bytes === null) throw uncheckedError(`${name} is missing`);
    const [first, last] = [manifests.at(0), manifests.at(-1)];
    const own = manifests.findLast(({ leaf }) => leaf.hash === sha256Hex(bytes));
    if (!own) throw drawError(name, `is not the one that is leaf ${last.index} of the log`);
    // The log has a manifest before it is published.
    if (own !== last) {
      throw uncheckedError(`${name} is still that of leaf ${own.index} of the log, which leaf ${last.index} replaced: try again`);
    }
    const manifest = parseManifest(textIn("manifest.json", bytes));
    const counted = manifest.registrations ?? { root: sha256Hex(""), size: 0 };
    // One that replaces another counts the same list.
    const isBefore = (each) => each !== null && each.index < first.index;
    const said = { kind: "registrations", phase: 0, hash: sizeHash(campaignId, counted) };
    const before = (await this.loggedLists()).findLast(isBefore) ?? (isWhole ? null : await this.leafOf(said));
    const problem = sizeProblem(manifest, isBefore(before) ? before.leaf.hash : null);
    if (problem) contradiction(problem);
    return counted;
  }

  // Why the entry cannot be in the list of the draw; empty if nothing speaks against it.
  async beyond() {
    const drawn = await this.drawn;
    return drawn === null || this.own.index < drawn.size ? "" : `not in the list: the draw closed it at ${drawn.size} entries`;
  }

  // Those of the list that have a file, ascending.
  async listedSizes() {
    await this.logged;
    const name = `${this.folder}checkpoint`;
    const text = await this.text(name);
    if (text === null) {
      if ((await this.loggedLists()).length) throw uncheckedError(`${name} is missing`);
      return [];
    }
    const { about, sizes } = parseTreeState(text, name);
    if (about !== this.own.campaignId) throw drawError(name, `is about ${about}`);
    return sizes;
  }

  async firstLogged(sizes) {
    for (const size of sizes) {
      const found = await this.loggedSize(size);
      if (found) return found;
    }
    return null;
  }

  // The newest size of the list in the log, which has the entry. An older one would hide notices.
  async newestList() {
    const beyond = await this.beyond();
    if (beyond) throw uncheckedError(beyond);
    const { index } = this.own;
    const last = (await this.loggedLists()).at(-1);
    const newest = await this.firstLogged([...(await this.sizes)].reverse());
    if (last && newest?.index !== last.index) {
      const what = `names no list of registrations that is leaf ${last.index} of the log`;
      throw drawError(`${this.folder}checkpoint`, `${what}: it was changed, or a file in sizes`);
    }
    if (newest === null || newest.size <= index) {
      throw uncheckedError(`${NOT_YET}: no list of registrations in the log has an entry ${index}`);
    }
    return newest;
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
    const [newest, drawn, { index, at, leaf }] = [await this.newest, await this.drawn, this.own];
    const { size } = newest;
    let since = this.whole ? 0 : Math.max(0, Math.ceil(size / WIDTH) - NEWEST) * WIDTH;
    const leavesOf = (registration) => [registration, ...registration.notices].filter((each) => each.leaf);
    const isOwn = (each) => each.leaf === leaf;
    let { found, requireStart } = await this.registrationIn(newest, since);
    if (!leavesOf(found).some(isOwn) && since > index) {
      // A notice before may have given it this unit.
      since = 0;
      ({ found, requireStart } = await this.registrationIn(newest, since));
    }
    const leaves = leavesOf(found);
    if (!leaves.some(isOwn)) {
      contradiction(`entry ${index} of the list is another one: ref, unit, time and salt do not give its leaf`);
    }
    // A notice with the unit of the confirmation proves its ref no earlier: the entry before it may be of any.
    const shownAt = leaves.findLast(isOwn).index;
    const first = (await this.firstLogged((await this.sizes).filter((each) => each > shownAt))) ?? newest;
    for (const each of [first, drawn].filter(Boolean)) await requireStart(each);
    this.first = first;
    // Notices before the unit of the confirmation are known to its fan.
    this.findings.push(...found.noted.filter((_, number) => found.notices[number].index > shownAt));
    if (drawn !== null && shownAt >= drawn.size && !isOwn(leaves.findLast((each) => each.index < drawn.size))) {
      const what = "what is confirmed came into the list after the draw, which has another leaf";
      this.findings.push(`entry ${shownAt}: ${what} for entry ${index}`);
    }
    if (since > index) this.unread.push(`${NOT_READ}, from entry ${since} on: \`check-receipt --whole\` looks in all later ones.`);
    const annulled = (await this.logged).leaves
      .filter((each) => each.leaf.kind === "annulled")
      .map((each) => `leaf ${each.index} of the log annuls the draw`);
    this.findings.push(...annulled);
    const line = `entry ${index} of ${size} in the list of registrations (from 0), registered at ${at}`;
    return [line, ...found.noted, ...annulled].join("\n");
  }

  // The entry at the index with the notices about it from the entry `since` on, from a list whose root is computed again:
  // over the entries that are read, and the hashes of other bundles. `requireStart` refuses it unless it begins with an
  // earlier one.
  async registrationIn({ root, size }, since) {
    const { index } = this.own;
    const files = new TreeFiles(this.folder, size, this.read);
    const [blocks, own] = [[], index - (index % WIDTH)];
    const requireRoot = (isRight) => {
      if (!isRight) contradiction(`the ${size} entries of the list do not have the root that is in the log`);
    };
    const requireCount = (entries, start) => {
      const due = Math.min(WIDTH, size - start);
      if (entries.length !== due) throw drawError(files.path("entries", start / WIDTH, size), `not a bundle of ${due} entries`);
    };
    let found = null;
    const take = (entries, start) => {
      requireCount(entries, start);
      entries.forEach((entry, number) => {
        const [at, text] = [start + number, String.fromCharCode(...entry)];
        if (at === index) {
          if (!isHash(text)) contradiction(`entry ${at} of the list is no registration`);
          found = new Registration(at, text);
        } else if (found !== null) {
          const notice = registrationNotice(text);
          if (notice?.about === index) found.note(at, notice);
        }
      });
      return rootOver(entries);
    };
    const isRead = (start) => start === own || start >= Math.max(own, since);
    for (let start = 0; start < size; start += AT_A_TIME * WIDTH) {
      this.onRead(start, size);
      const starts = Array.from({ length: AT_A_TIME }, (_, each) => start + each * WIDTH).filter((each) => each < size);
      const parts = starts.map((each) => (isRead(each) ? files.bundle(each / WIDTH) : files.node(8, each)));
      // The first that cannot be read is named.
      parts.forEach((part) => part.catch(() => {}));
      for (const [each, begin] of starts.entries()) {
        const part = await parts[each];
        blocks.push(isRead(begin) ? take(part, begin) : part);
      }
    }
    requireRoot(found !== null && hexRoot(blocks) === root);
    const requireStart = async (part) => {
      // It has none of a later one.
      const end = Math.min(part.size, size);
      const whole = Math.floor(end / WIDTH);
      const nodes = blocks.slice(0, whole);
      if (end % WIDTH) {
        const entries = await files.bundle(whole);
        requireCount(entries, whole * WIDTH);
        requireRoot(toHex(rootOver(entries)) === toHex(blocks[whole]));
        nodes.push(rootOver(entries.slice(0, end % WIDTH)));
      }
      if (part.size <= size && hexRoot(nodes) === part.root) return;
      contradiction(`the list of ${size} entries does not begin with the ${part.size} that the log has: it did not only grow`);
    };
    return { found, requireStart };
  }

  async checkLog() {
    const [newest, log] = [await this.newest, await this.log];
    return `the list of ${newest.size} entries with root ${newest.root} is leaf ${newest.index} of the log ${log.origin} of ${log.size} leaves`;
  }

  async checkWitnesses(values) {
    const newest = await this.newest;
    const [first, { note, quorum }] = [this.first ?? newest, await this.log];
    const when = (seconds) => isoTime(Math.round(seconds * 1000));
    if (!quorum.need) {
      this.listed = { at: when(milliseconds(first.leaf.time) / 1000), by: null };
      throw uncheckedError(NO_WITNESS);
    }
    const kept = await this.keptAfter(first);
    if (kept === null) contradiction("no checkpoint shows when enough witnesses saw the entry in the list");
    const times = named("log/checkpoint", () => verifyNote(note, witnessesOf(quorum), this.curves));
    const found = seenBy({ note, quorum }, values);
    this.unread.push(`${AS_OF} ${when(metAt(quorum, times))}: what the list got after that, and a later draw, does not show.`);
    this.listed = { at: when(kept.at), by: kept.seen };
    if (!colludersOf(quorum)) throw uncheckedError(WEAK_QUORUM);
    return `${sinceText(this.listed)}\n${found}`;
  }

  // The smallest checkpoint with the leaf that enough witnesses cosigned: when they had, and how many they are.
  async keptAfter({ index }) {
    const { origin, size: last, keys, quorum, tree } = await this.log;
    for (let size = index + 1; size <= last; size++) {
      for (const key of keys) {
        const name = `log/checkpoints/${size}-${key.id}`;
        const text = await this.text(name, { malformed: NO_NOTE, ...MAY_LACK });
        if (text === null) continue;
        const expected = await tree.root(0, size);
        const times = named(name, () => {
          const note = parseNote(text);
          const isSigned = verifyNote(note, [key], this.curves).size > 0;
          const checkpoint = isSigned && parseCheckpoint(note.text);
          const isOurs = isSigned && checkpoint.origin === origin && Number(checkpoint.size) === size;
          if (!isOurs || checkpoint.root !== toHex(expected)) {
            throw drawError(name, "is no checkpoint of these entries: find out who wrote it");
          }
          return verifyNote(note, witnessesOf(quorum), this.curves);
        });
        const at = metAt(quorum, times);
        if (at < Infinity) return { at, seen: times.size };
      }
    }
    return null;
  }
}

/** Whether the step found no list with the entry. */
export const isNotYet = ({ detail }) => detail.startsWith(NOT_YET);

/** What a check did not read of the list, among its limits. */
export const unreadOf = (limits) => limits.filter((each) => [NOT_READ, LOG_NOT_READ].some((begin) => each.startsWith(begin)));

/** Until when a check read the log, among its limits. */
export const asOf = (limits) => limits.filter((each) => each.startsWith(AS_OF));

/** Since when an entry is in the list, and by whom, in words. */
export function sinceText({ at, by }) {
  const who = by === null ? "the operator's word" : by === 1 ? "1 witness" : `${by} witnesses`;
  return `in the list since ${at}, by ${who}`;
}
