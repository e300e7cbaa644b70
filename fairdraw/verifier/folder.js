// A whole draw again, from the files that its folder has: every one is recomputed and compared, as in proof/verify.py.

import { CHAIN_FILE, chainOf, checkRound, verifyBeacon } from "./beacon.js";
import { parseCanonical } from "./canonical.js";
import { compareSpans, LeafColumns } from "./columns.js";
import { drawError, isAscii } from "./fields.js";
import { parseTrust, trustedLead } from "./keys.js";
import { NO_LEAD } from "./log.js";
import { checkSeed, checkTerms, deriveSeed, parseManifest, parseSeed, parseStrikes } from "./manifest.js";
import { leafHash, treeHash } from "./merkle.js";
import { checkOpened, findingsAgainst, openedName, parseOpened } from "./opened.js";
import { linesIn } from "./planned.js";
import { checkAnnulled, checkBeside, parseAccepted, parseAnnulled, parseNotice, parseReplaced, replacedName } from "./published.js";
import { DrawOrder, PhaseReplay } from "./replay.js";
import { NO_REGISTRATIONS } from "./registered.js";
import { sha256Hex, toHex } from "./sha256.js";
import { textIn } from "./tiles.js";

const OUTPUTS = ["result.txt", "cutoffs.json", "summary.json"];
// Files beside the phases.
const OF_THE_DRAW = /^(?:chain|opened|amended-[1-9][0-9]*)\.json$/;

/** The files of a draw by name, as a folder has them: `phase-1/leaves.txt`, `opened.json` and so on. */
class DrawFiles {
  constructor(names, read) {
    Object.assign(this, { names: new Set(names), read });
    const numbers = names.map((name) => Number(/^phase-([1-9][0-9]*)\//.exec(name)?.[1] ?? 0));
    this.last = Math.max(...numbers, 0);
    this.missing = Array.from({ length: this.last }, (_, at) => at + 1).find((each) => !numbers.includes(each));
  }

  async bytes(name) {
    if (!this.names.has(name)) throw drawError(name.split("/").at(-1), "is missing");
    return this.read(name);
  }

  /** The text of a file; what is no UTF-8 is refused as `malformed`. */
  async text(name, malformed) {
    return textIn(name.split("/").at(-1), await this.bytes(name), malformed);
  }

  async textOrNull(name) {
    return this.names.has(name) ? this.text(name) : null;
  }

  /** The texts of numbered files in a folder, from the first number on. Throws for a gap. */
  async series(folder, nameOf, first, digits = 4) {
    const texts = [];
    const present = (number) => this.names.has(folder + nameOf(number));
    for (; present(first); first++) texts.push(await this.text(folder + nameOf(first)));
    const form = nameOf(1).replace("1.", `([1-9][0-9]{0,${digits - 1}})\\.`);
    const pattern = new RegExp(`^${folder}${form}$`);
    const beyond = [...this.names].map((name) => Number(pattern.exec(name)?.[1] ?? 0)).filter((number) => number > first);
    if (beyond.length) throw drawError(nameOf(Math.min(...beyond)), `${nameOf(first)} is missing before it`);
    return texts;
  }
}

const OF_CODES = (count) =>
  `The lists of planned codes name ${count} places. Without the codes only form and order were checked, and that none is` +
  " planned twice: that a digest is that of a code and of its only salt shows to the winner who has both" +
  " (`check-receipt --codes`).";

// The planned codes of a campaign, from all of its lists: each code has one place and each place one code.
class PlannedCodes {
  constructor() {
    Object.assign(this, { codes: new Map(), places: new Map() });
  }

  /** What is wrong with a list of the phase, by itself and beside those before it; "" for nothing. */
  problem(phase, text, markets) {
    const { lines, wrong } = linesIn(text);
    if (wrong) return wrong;
    for (const line of lines) {
      const [market, , digest] = line.split("|");
      const place = line.slice(0, -65);
      if (!markets.includes(market)) return `market ${market} is not in the manifest`;
      if (!this.codes.has(place)) this.codes.set(place, { digest, phase });
      const first = this.codes.get(place);
      if (first.digest !== digest) return `the code of ${place} was changed after it was published`;
      if (first.phase !== phase) return `the code of ${place} was planned in phase ${first.phase} already, for another winner`;
      if (!this.places.has(digest)) this.places.set(digest, place);
      const other = this.places.get(digest);
      if (other !== place) return `${place} and ${other} have the same code`;
    }
    return "";
  }
}

// Compare the annulment of a phase without a result with its manifest, if it has one.
async function checkAlone(files, number, annulled) {
  const text = await files.textOrNull(`phase-${number}/manifest.json`);
  if (text !== null) checkAnnulled(annulled, parseManifest(text));
  else if (annulled.phase !== number) throw drawError("annulled.json", `of phase ${annulled.phase}: not this phase`);
}

const codesName = (number) => `codes-${number}.txt`;
// What the manifest of phase 1 says of registrations.
function registrationNote({ count, document }) {
  const found = document.get("registrations");
  if (found === null) return NO_REGISTRATIONS;
  const classes = ["excluded", "withdrawn", "erased", "notices"].map((key) => `${found.get(key)} ${key}`);
  return `registrations: ${found.get("size")} entries in the list before the draw: ${count} drawn, ${classes.join(", ")}`;
}

const LINE_FEEDS = "ASCII with a line feed after every line is needed";

function strikesIn(text, manifest) {
  if (!isAscii(text) || (text && !text.endsWith("\n"))) throw drawError("strikes.txt", LINE_FEEDS);
  const strikes = text ? parseStrikes(text.slice(0, -1)) : new Map();
  if (sha256Hex(text) !== manifest.strikesHash) {
    throw drawError("strikes.txt", "its SHA-256 is not the strikesHash of the manifest");
  }
  const tree = treeHash();
  for (const line of text.split("\n").slice(0, -1)) tree.add(leafHash(line));
  if (toHex(tree.root()) !== manifest.strikesRoot) {
    throw drawError("strikes.txt", "the root over its lines is not the strikesRoot of the manifest");
  }
  return strikes;
}

// Throw unless every strike of the phase before is there as it was, and no seat lapses in the first phase.
function checkCumulative(before, strikes) {
  for (const [ref, reason] of before ?? []) {
    const found = strikes.get(ref) ?? "no strike";
    if (found !== reason) throw drawError("strikes.txt", `${ref} was struck (${reason}) in the phase before: found ${found}`);
  }
  const lapsed = [...strikes].find(([, reason]) => reason === "UNCLAIMED");
  if (before === null && lapsed) {
    throw drawError("strikes.txt", `${lapsed[0]} is UNCLAIMED in phase 1, in which no one has won yet`);
  }
}

/**
 * Replay a whole draw. `names` are those of its files, `read(name)` resolves to their bytes, and `onProgress(share, what)`
 * gets shares from 0 to 1. `trust` is the text of a trust file, or null.
 *
 * Resolves to `{verdict, annulled, findings: [{artefact, message}], notes, count, phases: [{phase, manifestHash, resultHash,
 * cutoffsHash, outcomes}]}`. The verdict is `annulled` whether the rest holds or not, else `fails`, `incomplete` (a note says
 * what was not checked) or `holds`. A file that cannot be used ends the replay.
 */
export async function replayDraw(names, read, { onProgress = () => {}, curves = null, trust = null } = {}) {
  const replay = new FolderReplay(new DrawFiles(names, read), onProgress);
  await replay.attempt(() => replay.run(curves, trust));
  onProgress(1, "done");
  const { findings, notes, unchecked, done, count } = replay;
  const [annulled = null] = replay.annulments.values();
  const verdict = annulled ? "annulled" : findings.size ? "fails" : unchecked.length ? "incomplete" : "holds";
  return { verdict, annulled, findings: [...findings.values()], notes: [...unchecked, ...notes], phases: done, count };
}

// One replay; `number` is the phase that is looked at.
class FolderReplay {
  constructor(files, onProgress) {
    Object.assign(this, { files, onProgress, number: 1, count: 0, findings: new Map(), notes: [], unchecked: [], done: [] });
    // By number of the phase: also of one without a result.
    this.annulments = new Map();
    // The last phase, if it is committed to and has no result yet; 0: none.
    this.pending = 0;
    this.planned = new PlannedCodes();
  }

  // The first error of a file is the closest to its cause.
  blame(name, message) {
    const artefact = name.includes("/") || OF_THE_DRAW.test(name) ? name : `phase-${this.number}/${name}`;
    if (!this.findings.has(artefact)) this.findings.set(artefact, { artefact, message });
  }

  /** What `run` resolves to, null for a malformed file, which is blamed. */
  async attempt(run) {
    try {
      return await run();
    } catch (error) {
      if (error.artefact === undefined) throw error;
      this.blame(error.artefact, error.message);
      return null;
    }
  }

  text(name, malformed) {
    return this.files.text(`phase-${this.number}/${name}`, malformed);
  }

  get isPending() {
    return this.number === this.pending;
  }

  async run(curves, trust) {
    const { files } = this;
    const last = await this.lastCommitted();
    const record = await this.attempt(async () => parseOpened(await files.series("", openedName, 0, 6)));
    if (!last) return;
    const [seedText, inputs] = [await this.text("seed.json"), []];
    const seed = parseSeed(seedText);
    for (this.number = 1; this.number <= last; this.number++) {
      const manifest = parseManifest(await this.text("manifest.json"));
      const summaryText = this.isPending ? null : await this.text("summary.json");
      const stated = this.isPending ? manifest.hash : parseCanonical(summaryText, "summary.json").get("manifestHash");
      inputs.push({ number: this.number, manifest, summaryText, stated });
    }
    this.number = 1;
    const first = inputs[0].manifest;
    const chain = chainOf(first.source.chain, await files.textOrNull(CHAIN_FILE), curves);
    if (record?.length) this.compareRecord(record, first);
    this.notes.push(registrationNote(first));
    for (const each of inputs) {
      this.number = each.number;
      this.checkManifest(each, inputs, seed);
      await this.attempt(() => this.checkPublished(each.manifest));
      await this.attempt(() => this.checkCodes(each.manifest));
    }
    this.number = 1;
    if (this.planned.places.size) this.notes.push(OF_CODES(this.planned.places.size));
    if (this.findings.size) return;
    checkSeed(seed, first);
    this.checkBeacon(first, chain, seed, trustedLead(parseTrust(trust), first.source.chain), curves);
    await this.draw(inputs, seed, seedText);
  }

  // The last phase that is drawn again, 0 for none: the last one may have no result yet, and the first one be annulled before.
  async lastCommitted() {
    const { files, annulments, notes } = this;
    for (this.number = 1; this.number <= files.last; this.number++) {
      const text = await this.attempt(() => files.textOrNull(`phase-${this.number}/annulled.json`));
      const found = text === null ? null : await this.attempt(() => parseAnnulled(text));
      if (found !== null) annulments.set(this.number, found);
    }
    this.number = 1;
    if (!files.last) throw drawError("manifest.json", "is missing");
    if (files.missing) throw drawError(`phase-${files.missing}/manifest.json`, "is missing: all phases are needed");
    const [annulledIn = files.last] = annulments.keys();
    if (annulledIn < files.last) {
      this.blame(`phase-${annulledIn + 1}/manifest.json`, `phase-${annulledIn} was annulled: no phase follows it`);
    }
    const { last } = files;
    const annulled = annulments.get(last);
    const drawn = OUTPUTS.some((name) => files.names.has(`phase-${last}/${name}`));
    if (drawn || (last === 1 && !annulled)) return last;
    if (!annulled && files.names.has(`phase-${last}/manifest.json`)) {
      notes.push(`phase-${last} has no result yet: what it is drawn from was checked`);
      this.pending = last;
      return last;
    }
    notes.push(`phase-${last} has no result yet, so it was not verified`);
    this.number = last;
    if (annulled) await this.attempt(() => checkAlone(files, last, annulled));
    this.number = 1;
    return last - 1;
  }

  compareRecord(record, first) {
    checkOpened(record.at(-1), first);
    const where = openedName(record.length - 1);
    this.notes.push(...findingsAgainst(record.at(-1), first).map((each) => `warning: ${each} (${where})`));
  }

  checkManifest({ number, manifest, stated }, inputs, seed) {
    const { hash, phase } = manifest;
    if (phase !== number) throw drawError("manifest.json", `the folder is phase ${number}, found ${phase}`);
    if (number > 1) checkTerms(inputs.slice(0, number - 1).map((earlier) => earlier.manifest), manifest);
    // Who contradicts all others is at fault; of two that differ, both may be.
    const others = [["summary.json", stated]];
    if (number === 1) others.push(["seed.json", deriveSeed(hash, manifest.source, seed.randomness) === seed.seed ? hash : ""]);
    if (inputs[number]) others.push([`phase-${number + 1}/manifest.json`, inputs[number].manifest.previous?.manifestHash]);
    const against = others.filter(([, found]) => found !== hash).map(([name]) => name);
    if (against.length && 2 * against.length >= others.length) {
      this.blame("manifest.json", `SHA-256 is ${hash}, which contradicts ${against.join(", ")}`);
    }
    if (2 * against.length <= others.length || others.length === 1) {
      for (const name of against) this.blame(name, `does not match the manifest, whose SHA-256 is ${hash}`);
    }
  }

  async checkPublished(manifest) {
    const { files, number, annulments } = this;
    const place = `phase-${number}/`;
    const parsed = async (name, parse) => {
      const text = await files.textOrNull(place + name);
      return text === null ? null : parse(text, name);
    };
    const strikes = (await this.text("strikes.txt", LINE_FEEDS)).split("\n").length - 1;
    const replaced = await files.series(place, replacedName, 1);
    const published = {
      notice: await parsed("notice.json", parseNotice),
      accepted: await parsed("accepted.json", parseAccepted),
      replaced: replaced.map((text, at) => parseReplaced(text, replacedName(at + 1))),
    };
    checkBeside(published, manifest, strikes);
    if (annulments.has(number)) checkAnnulled(annulments.get(number), manifest);
  }

  // Look for codes that are planned twice: equal ones have equal digests, whatever the code.
  async checkCodes({ markets }) {
    const ids = markets.map((each) => each.marketId);
    const lists = await this.files.series(`phase-${this.number}/`, codesName, 1);
    lists.forEach((text, at) => {
      const wrong = this.planned.problem(this.number, text, ids);
      if (wrong) this.blame(codesName(at + 1), wrong);
    });
  }

  checkBeacon(first, chain, seed, lead, curves) {
    checkRound(first, chain, lead);
    if (lead === null) this.unchecked.push(NO_LEAD);
    try {
      verifyBeacon(chain, first.source.round, seed.signature, curves);
    } catch (error) {
      if (!error.unchecked) throw error;
      this.unchecked.push(error.message);
    }
  }

  async draw(inputs, seed, seedText) {
    const { files, onProgress } = this;
    const first = inputs[0].manifest;
    onProgress(0, "leaves.txt");
    const bytes = await files.bytes("phase-1/leaves.txt");
    const segments = new Set(inputs.flatMap(({ manifest }) => manifest.markets.flatMap((each) => each.reserves.map((one) => one.segment))));
    const marketIds = first.markets.map((market) => market.marketId);
    const leaves = new LeafColumns(bytes, marketIds, [...segments], (share) => onProgress(0.4 * share, "root"));
    this.count = leaves.count;
    if (leaves.root !== first.root || leaves.count !== first.count) {
      throw drawError("leaves.txt", `${leaves.count} leaves with root ${leaves.root}; committed are ${first.count} with ${first.root}`);
    }
    const order = new DrawOrder(leaves, seed.seed, first.drawId, first.winsPerUnit, (share) => onProgress(0.4 + 0.3 * share, "ranks"));
    let before = null;
    for (const input of inputs) {
      this.number = input.number;
      if (before) await this.checkSame(input.manifest, before, bytes, seedText);
      const share = (own) => onProgress(0.7 + (0.3 * (input.number - 1 + own)) / inputs.length, `phase ${input.number}`);
      before = await this.drawPhase(input, order, before, share);
    }
  }

  // Compare what is the same in all phases, and the result that the manifest names.
  async checkSame(manifest, before, bytes, seedText) {
    const own = (name) => !this.isPending || this.files.names.has(`phase-${this.number}/${name}`);
    if (own("seed.json") && (await this.text("seed.json")) !== seedText) this.blame("seed.json", "differs from that of phase 1");
    const again = own("leaves.txt") ? await this.files.bytes(`phase-${this.number}/leaves.txt`) : bytes;
    if (compareSpans(again, 0, again.length, bytes, 0, bytes.length)) this.blame("leaves.txt", "differs from that of phase 1");
    if (manifest.previous.resultHash !== before.resultHash) {
      this.blame("manifest.json", `previous.resultHash: the replay gives ${before.resultHash}`);
    }
  }

  async drawPhase({ number, manifest, summaryText }, order, before, onShare) {
    onShare(0);
    const strikes = strikesIn(await this.text("strikes.txt", LINE_FEEDS), manifest);
    checkCumulative(before?.strikes ?? null, strikes);
    const phase = new PhaseReplay(manifest, strikes, order, before?.phase);
    if (this.isPending) return null;
    onShare(0.4);
    const published = await this.files.bytes(`phase-${number}/result.txt`);
    const { resultHash, resultRoot, differs } = phase.result(published, (share) => onShare(0.4 + 0.6 * share));
    if (differs) this.blame("result.txt", `line ${differs}: the replay gives another one`);
    const cutoffs = phase.cutoffs();
    const cutoffsHash = sha256Hex(cutoffs);
    if ((await this.text("cutoffs.json")) !== cutoffs) this.blame("cutoffs.json", "the replay gives other cut-offs");
    if (summaryText !== phase.summary(resultHash, resultRoot, cutoffsHash)) this.blame("summary.json", "the replay gives another one");
    const outcomes = Object.fromEntries(phase.outcomes());
    this.done.push({ phase: number, manifestHash: manifest.hash, resultHash, cutoffsHash, outcomes });
    return { phase, strikes, resultHash };
  }
}
