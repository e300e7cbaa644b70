// The whole draw again, from its published files: root, keys, ranks, seats, cut-offs and results of all phases.

import { CHAIN_FILE, chainOf, checkRound, verifyBeacon } from "./beacon.js";
import { canonicalText, parseCanonical } from "./canonical.js";
import { LeafColumns, RootHash, compareSpans } from "./columns.js";
import { OUTCOMES } from "./draw.js";
import { drawError, isAscii } from "./fields.js";
import { checkSeed, checkTerms, deriveSeed, parseManifest, parseSeed, parseStrikes } from "./manifest.js";
import { parseTrust, trustedLead } from "./keys.js";
import { NO_LEAD } from "./log.js";
import { leafHash, treeHash } from "./merkle.js";
import { checkOpened, findingsAgainst, openedName, parseOpened } from "./opened.js";
import { checkAnnulled, checkBeside, parseAccepted, parseAnnulled, parseNotice, parseReplaced, replacedName } from "./published.js";
import { Sha256, sha256Hex, toHex, utf8 } from "./sha256.js";

const [WON, WAITS, PAST, LIMITED, STRUCK_OUT, LAPSED] = OUTCOMES.keys();
const UNDECIDED = 255;
const BAR_BYTE = 124;
const ZERO_BYTE = 48;
const PIECE_BYTES = 1 << 20;
// More than the longest line of result.txt.
const LINE_BYTES = 256;

/** The numbers 0, 1, ... in the order of (high, low), 32 bits each; `compare` decides between equal ones. */
export function sortedByHead(high, low, compare) {
  let [order, other] = [Uint32Array.from(high.keys()), new Uint32Array(high.length)];
  for (const [digits, shift] of [[low, 0], [low, 16], [high, 0], [high, 16]]) {
    const ends = new Uint32Array(65537);
    for (let i = 0; i < digits.length; i++) ends[((digits[i] >>> shift) & 0xffff) + 1]++;
    for (let i = 0; i < 65536; i++) ends[i + 1] += ends[i];
    for (let i = 0; i < order.length; i++) other[ends[(digits[order[i]] >>> shift) & 0xffff]++] = order[i];
    [order, other] = [other, order];
  }
  for (let start = 0, end; start < order.length; start = end) {
    for (end = start + 1; end < order.length; end++) {
      if (high[order[end]] !== high[order[start]] || low[order[end]] !== low[order[start]]) break;
    }
    if (end - start > 1) order.set(Array.from(order.subarray(start, end)).sort(compare), start);
  }
  return order;
}

// The order of the draw: `candidates` are lines by rank, `ranks` has the rank of every line, 0 past a unit's limit.
class DrawOrder {
  constructor(leaves, seed, drawId, winsPerUnit, onShare) {
    const { units, unit: unitOf, count } = leaves;
    Object.assign(this, { leaves, hash: new Sha256(), ranks: new Uint32Array(count) });
    this.ticket = new Sha256().update(utf8(`vf2|${seed}|${drawId}|`));
    this.entry = new Sha256().update(utf8(`vf2e|${seed}|`));
    this.suffixes = Array.from({ length: 64 }, (_, ticket) => utf8(`|${ticket}`));
    const [high, low] = [new Uint32Array(units.size), new Uint32Array(units.size)];
    for (let unit = 0; unit < units.size; unit++) {
      const key = this.key(unit);
      high[unit] = (key[0] << 24) | (key[1] << 16) | (key[2] << 8) | key[3];
      low[unit] = (key[4] << 24) | (key[5] << 16) | (key[6] << 8) | key[7];
      if (unit % 4096 === 0) onShare(unit / units.size);
    }
    // Two units never share a whole key in practice; the rule is complete without that.
    const whole = (unit) => `${toHex(this.key(unit))}|${units.text(unit)}`;
    const order = sortedByHead(high, low, (one, other) => (whole(one) < whole(other) ? -1 : 1));
    const ends = new Uint32Array(units.size + 1);
    for (let line = 0; line < count; line++) ends[unitOf[line] + 1]++;
    for (let unit = 0; unit < units.size; unit++) ends[unit + 1] += ends[unit];
    const [next, members] = [ends.slice(), new Uint32Array(count)];
    for (let line = 0; line < count; line++) members[next[unitOf[line]]++] = line;
    const candidates = new Uint32Array(count);
    let rank = 0;
    for (const unit of order) {
      let lines = members.subarray(ends[unit], ends[unit + 1]);
      if (lines.length > 1) {
        const keyed = Array.from(lines, (line) => [toHex(this.entryKey(line)), line]);
        keyed.sort((one, other) => (one[0] < other[0] ? -1 : 1));
        lines = keyed.slice(0, winsPerUnit).map(([, line]) => line);
      }
      for (const line of lines) {
        candidates[rank++] = line;
        this.ranks[line] = rank;
      }
    }
    this.candidates = candidates.subarray(0, rank);
  }

  key(unit) {
    const { units, weights, bytes } = this.leaves;
    let least = null;
    for (let ticket = 0; ticket < weights[unit]; ticket++) {
      this.hash.from(this.ticket).update(bytes, units.starts[unit], units.ends[unit]);
      const key = this.hash.update(this.suffixes[ticket]).finish();
      if (least === null || compareSpans(key, 0, 32, least, 0, 32) < 0) least = key;
    }
    return least;
  }

  entryKey(line) {
    const { bytes, starts, refEnds } = this.leaves;
    return this.hash.from(this.entry).update(bytes, starts[line], refEnds[line]).finish();
  }
}

// Seats with one rule; `held` is a heap of ranks with the worst on top.
class SeatGroup {
  constructor(seats, segment = -1) {
    Object.assign(this, { seats, segment, held: [] });
  }

  get full() {
    return this.held.length >= this.seats;
  }

  /** Take `rank` if there is room or a worse holder. Returns the rank that is rejected, 0 for none. */
  offer(rank) {
    const { held } = this;
    if (this.full) return !this.seats || rank > held[0] ? rank : this.replaceWorst(rank);
    let at = held.push(rank) - 1;
    for (let above; at && held[(above = (at - 1) >> 1)] < rank; at = above) held[at] = held[above];
    held[at] = rank;
    return 0;
  }

  replaceWorst(rank) {
    const { held } = this;
    const worst = held[0];
    let at = 0;
    for (let below; (below = 2 * at + 1) < held.length; at = below) {
      if (held[below + 1] > held[below]) below++;
      if (held[below] <= rank) break;
      held[at] = held[below];
    }
    held[at] = rank;
    return worst;
  }

  /** One seat less: a reserve took it. Returns the rank that loses it, 0 for none. */
  giveUp() {
    if (this.held.length <= --this.seats) return 0;
    const last = this.held.pop();
    return this.held.length ? this.replaceWorst(last) : last;
  }
}

// Deferred acceptance: candidates ask in rank order, each market in turn; one who is displaced asks on.
function takeSeats(markets, { leaves, candidates }, codes) {
  const asked = new Uint16Array(candidates.length + 1);
  const ask = ({ reserves, open }, rank) => {
    for (const group of reserves) {
      if (!leaves.rights[leaves.segment[candidates[rank - 1]]][group.segment]) continue;
      rank = group.offer(rank);
      if (!rank) return open.giveUp();
    }
    return open.offer(rank);
  };
  for (let first = 1; first <= candidates.length; first++) {
    if (codes[candidates[first - 1]] !== UNDECIDED) continue;
    for (let rank = first; rank; ) {
      const wanted = leaves.wanted[leaves.preference[candidates[rank - 1]]];
      let rejected = rank;
      while (rejected === rank && asked[rank] < wanted.length) rejected = ask(markets[wanted[asked[rank]++]], rank);
      rank = rejected === rank ? 0 : rejected;
    }
  }
}

// One phase: `codes` are outcomes and `places` numbers of markets, by line. Throws for strikes or seats that do not fit.
class PhaseReplay {
  constructor(manifest, strikes, order, before) {
    const { leaves, candidates } = order;
    const none = manifest.markets.length;
    Object.assign(this, { manifest, order });
    this.codes = new Uint8Array(leaves.count).fill(UNDECIDED);
    this.places = new Uint16Array(leaves.count).fill(none);
    const decide = (line, code, place = none) => {
      this.codes[line] = code;
      this.places[line] = place;
    };
    before?.codes.forEach((code, line) => code === WON && decide(line, WON, before.places[line]));
    for (const [ref, reason] of strikes) {
      const line = leaves.find(ref);
      if (line < 0) throw drawError("strikes.txt", `${ref} is struck, but has no leaf`);
      const lapsed = reason === OUTCOMES[LAPSED];
      if (lapsed && ![WON, LAPSED].includes(before?.codes[line])) {
        throw drawError("strikes.txt", `${ref} is UNCLAIMED, and was no winner of the phase before`);
      }
      decide(line, lapsed ? LAPSED : STRUCK_OUT);
    }
    this.pinned = this.winners();
    this.markets = manifest.markets.map(({ marketId, capacity, reserves }, number) => {
      const offered = capacity - this.pinned[number];
      const kept = reserves.reduce((sum, reserve) => sum + reserve.seats, 0);
      if (offered < 0) throw drawError("manifest.json", `market ${marketId}: ${this.pinned[number]} have won seats already, of ${capacity}`);
      if (kept > offered) throw drawError("manifest.json", `market ${marketId}: ${kept} seats of ${offered} are reserved`);
      const groups = reserves.map(({ seats, segment }) => new SeatGroup(seats, leaves.segments.indexOf(segment)));
      return { reserves: groups, open: new SeatGroup(offered) };
    });
    takeSeats(this.markets, order, this.codes);
    this.markets.forEach(({ reserves, open }, number) => {
      for (const group of [...reserves, open]) group.held.forEach((rank) => decide(candidates[rank - 1], WON, number));
    });
    let waiting = manifest.waitlistSize ?? Infinity;
    for (const line of candidates) if (this.codes[line] === UNDECIDED) this.codes[line] = waiting-- > 0 ? WAITS : PAST;
    this.codes.forEach((code, line) => code === UNDECIDED && decide(line, LIMITED));
  }

  winners() {
    const found = this.manifest.markets.map(() => 0);
    for (let line = 0; line < this.codes.length; line++) if (this.codes[line] === WON) found[this.places[line]]++;
    return found;
  }

  outcomes() {
    const counts = OUTCOMES.map(() => 0);
    for (const code of this.codes) counts[code]++;
    return new Map(OUTCOMES.map((name, code) => [name, counts[code]]));
  }

  /** SHA-256 and root of result.txt, and the first line in which `published` differs, 0 if none does. */
  result(published, onShare) {
    const { leaves, ranks } = this.order;
    const names = [...this.manifest.markets.map((market) => market.marketId), ""].map(utf8);
    const ends = OUTCOMES.map((name) => utf8(`|${name}\n`));
    const [digest, root, piece] = [new Sha256(), new RootHash(), new Uint8Array(PIECE_BYTES)];
    let [at, done, differs] = [0, 0, 0];
    const put = (bytes, start = 0, end = bytes.length) => {
      while (start < end) piece[at++] = bytes[start++];
    };
    for (let line = 0; line < leaves.count; line++) {
      const from = at;
      put(leaves.bytes, leaves.starts[line], leaves.refEnds[line]);
      piece[at++] = BAR_BYTE;
      put(names[this.places[line]]);
      piece[at++] = BAR_BYTE;
      const start = at;
      for (let rest = ranks[line]; rest; rest = Math.floor(rest / 10)) piece[at++] = ZERO_BYTE + (rest % 10);
      piece.subarray(start, at).reverse();
      put(ends[this.codes[line]]);
      root.add(piece, from, at - 1);
      const stop = Math.min(done + at, published.length);
      if (!differs && compareSpans(piece, from, at, published, Math.min(done + from, stop), stop)) differs = line + 1;
      if (at > PIECE_BYTES - LINE_BYTES || line + 1 === leaves.count) {
        digest.update(piece, 0, at);
        [done, at] = [done + at, 0];
        onShare(line / leaves.count);
      }
    }
    if (!differs && done !== published.length) differs = leaves.count + 1;
    return { resultHash: toHex(digest.finish()), resultRoot: root.hex(), differs };
  }

  cutoffs() {
    const { candidates, leaves } = this.order;
    const cutoffOf = (group) => {
      if (!group.full) return null;
      const [rank, line] = group.seats ? [group.held[0], candidates[group.held[0] - 1]] : [0, -1];
      const keys = rank ? [this.order.entryKey(line), this.order.key(leaves.unit[line])].map(toHex) : Array(2).fill("0".repeat(64));
      return new Map([["entryKey", keys[0]], ["key", keys[1]], ["rank", rank]]);
    };
    const markets = this.markets.map(({ reserves, open }, number) => {
      const terms = this.manifest.markets[number];
      const groups = reserves.map((each, i) => new Map([["cutoff", cutoffOf(each)], ["segment", terms.reserves[i].segment]]));
      return [terms.marketId, new Map([["open", cutoffOf(open)], ["reserves", groups]])];
    });
    return canonicalText(new Map([["markets", new Map(markets)]]));
  }

  summary(resultHash, resultRoot, cutoffsHash) {
    const counts = this.winners().map((winners, number) => {
      const counted = new Map([["new", winners - this.pinned[number]], ["winners", winners]]);
      return [this.manifest.markets[number].marketId, counted];
    });
    const hashes = Object.entries({ manifestHash: this.manifest.hash, resultHash, resultRoot, cutoffsHash });
    return canonicalText(new Map([...hashes, ["outcomes", this.outcomes()], ["markets", new Map(counts)]]));
  }
}

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
  async text(name, malformed = "not canonical JSON (RFC 8785) with integers only") {
    const bytes = await this.bytes(name);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw drawError(name.split("/").at(-1), malformed);
    }
  }

  async textOrNull(name) {
    return this.names.has(name) ? this.text(name) : null;
  }

  /** The texts of numbered files in a folder, from the first number on. Throws for a gap. */
  async series(folder, nameOf, first) {
    const texts = [];
    const present = (number) => this.names.has(folder + nameOf(number));
    for (; present(first); first++) texts.push(await this.text(folder + nameOf(first)));
    const pattern = new RegExp(`^${folder}${nameOf(1).replace("1.json", "([1-9][0-9]*)\\.json$")}`);
    const beyond = [...this.names].map((name) => Number(pattern.exec(name)?.[1] ?? 0)).filter((number) => number > first);
    if (beyond.length) throw drawError(nameOf(Math.min(...beyond)), `${nameOf(first)} is missing before it`);
    return texts;
  }
}

// Compare the annulment of a phase without a result with its manifest, if it has one.
async function checkAlone(files, number, annulled) {
  const text = await files.textOrNull(`phase-${number}/manifest.json`);
  if (text !== null) checkAnnulled(annulled, parseManifest(text));
  else if (annulled.phase !== number) throw drawError("annulled.json", `of phase ${annulled.phase}: not this phase`);
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
  const lapsed = [...strikes].find(([, reason]) => reason === OUTCOMES[LAPSED]);
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
  const files = new DrawFiles(names, read);
  const [findings, notes, unchecked, done] = [new Map(), [], [], []];
  let [number, count] = [1, 0];
  // The first error of a file is the closest to its cause.
  const blame = (name, message) => {
    const artefact = name.includes("/") || OF_THE_DRAW.test(name) ? name : `phase-${number}/${name}`;
    if (!findings.has(artefact)) findings.set(artefact, { artefact, message });
  };
  const attempt = async (run) => {
    try {
      return await run();
    } catch (error) {
      if (error.artefact === undefined) throw error;
      blame(error.artefact, error.message);
      return null;
    }
  };
  const textOf = (name, malformed) => files.text(`phase-${number}/${name}`, malformed);

  // By number of the phase: also of one without a result.
  const annulments = new Map();
  await attempt(async () => {
    for (number = 1; number <= files.last; number++) {
      const text = await attempt(() => files.textOrNull(`phase-${number}/annulled.json`));
      const found = text === null ? null : await attempt(() => parseAnnulled(text));
      if (found !== null) annulments.set(number, found);
    }
    number = 1;
    if (!files.last) throw drawError("manifest.json", "is missing");
    if (files.missing) throw drawError(`phase-${files.missing}/manifest.json`, "is missing: all phases are needed");
    const record = await attempt(async () => parseOpened(await files.series("", openedName, 0)));
    const [annulledIn = null] = annulments.keys();
    if (annulledIn !== null && annulledIn < files.last) {
      blame(`phase-${annulledIn + 1}/manifest.json`, `phase-${annulledIn} was annulled: no phase follows it`);
    }
    let last = files.last;
    const drawn = ["result.txt", "cutoffs.json", "summary.json"].some((name) => files.names.has(`phase-${last}/${name}`));
    if (!drawn && (last > 1 || annulments.has(last))) {
      notes.push(`phase-${last} has no result yet, so it was not verified`);
      number = last--;
      if (annulments.has(number)) await attempt(() => checkAlone(files, number, annulments.get(number)));
    }
    if (!last) return;
    number = 1;
    const inputs = [];
    const seedText = await textOf("seed.json");
    const seed = parseSeed(seedText);
    for (number = 1; number <= last; number++) {
      const [manifest, summaryText] = [parseManifest(await textOf("manifest.json")), await textOf("summary.json")];
      const stated = parseCanonical(summaryText, "summary.json").get("manifestHash");
      inputs.push({ number, manifest, summaryText, stated });
    }
    number = 1;
    const first = inputs[0].manifest;
    const chain = chainOf(first.source.chain, await files.textOrNull(CHAIN_FILE), curves);
    const lead = trustedLead(parseTrust(trust), first.source.chain);
    if (record?.length) {
      checkOpened(record.at(-1), first);
      const where = openedName(record.length - 1);
      notes.push(...findingsAgainst(record.at(-1), first).map((each) => `warning: ${each} (${where})`));
    }
    for (const each of inputs) {
      number = each.number;
      const { manifest } = each;
      if (manifest.phase !== number) throw drawError("manifest.json", `the folder is phase ${number}, found ${manifest.phase}`);
      if (number > 1) checkTerms(inputs.slice(0, number - 1).map((earlier) => earlier.manifest), manifest);
      // Who contradicts all others is at fault; of two that differ, both may be.
      const found = manifest.hash;
      const others = [["summary.json", each.stated]];
      if (number === 1) others.push(["seed.json", deriveSeed(found, first.source, seed.randomness) === seed.seed ? found : ""]);
      if (inputs[number]) others.push([`phase-${number + 1}/manifest.json`, inputs[number].manifest.previous.manifestHash]);
      const against = others.filter(([, hash]) => hash !== found).map(([name]) => name);
      if (against.length && 2 * against.length >= others.length) blame("manifest.json", `SHA-256 is ${found}, which contradicts ${against.join(", ")}`);
      if (2 * against.length <= others.length || others.length === 1) against.forEach((name) => blame(name, `does not match the manifest, whose SHA-256 is ${found}`));
      await attempt(async () => {
        const strikes = (await textOf("strikes.txt", LINE_FEEDS)).split("\n").length - 1;
        const place = `phase-${number}/`;
        const parsed = async (name, parse) => {
          const text = await files.textOrNull(place + name);
          return text === null ? null : parse(text, name);
        };
        const replaced = await files.series(place, replacedName, 1);
        const published = {
          notice: await parsed("notice.json", parseNotice),
          accepted: await parsed("accepted.json", parseAccepted),
          replaced: replaced.map((text, at) => parseReplaced(text, replacedName(at + 1))),
        };
        checkBeside(published, manifest, strikes);
        if (annulments.has(number)) checkAnnulled(annulments.get(number), manifest);
      });
    }
    number = 1;
    if (findings.size) throw drawError([...findings.keys()][0], "");
    checkSeed(seed, first);
    checkRound(first, chain, lead);
    if (lead === null) unchecked.push(NO_LEAD);
    try {
      verifyBeacon(chain, first.source.round, seed.signature, curves);
    } catch (error) {
      if (!error.unchecked) throw error;
      unchecked.push(error.message);
    }

    onProgress(0, "leaves.txt");
    const bytes = await files.bytes("phase-1/leaves.txt");
    const segments = new Set(inputs.flatMap(({ manifest }) => manifest.markets.flatMap((each) => each.reserves.map((one) => one.segment))));
    const marketIds = first.markets.map((market) => market.marketId);
    const leaves = new LeafColumns(bytes, marketIds, [...segments], (share) => onProgress(0.4 * share, "root"));
    count = leaves.count;
    if (leaves.root !== first.root || count !== first.count) {
      throw drawError("leaves.txt", `${count} leaves with root ${leaves.root}; committed are ${first.count} with ${first.root}`);
    }
    const order = new DrawOrder(leaves, seed.seed, first.drawId, first.winsPerUnit, (share) => onProgress(0.4 + 0.3 * share, "ranks"));
    let before = null;
    for (const { manifest, summaryText } of inputs) {
      number = manifest.phase;
      const tell = (share) => onProgress(0.7 + (0.3 * (number - 1 + share)) / last, `phase ${number}`);
      tell(0);
      if (before) {
        if ((await textOf("seed.json")) !== seedText) blame("seed.json", "differs from that of phase 1");
        const again = await files.bytes(`phase-${number}/leaves.txt`);
        if (compareSpans(again, 0, again.length, bytes, 0, bytes.length)) blame("leaves.txt", "differs from that of phase 1");
        if (manifest.previous.resultHash !== before.resultHash) blame("manifest.json", `previous.resultHash: the replay gives ${before.resultHash}`);
      }
      const strikes = strikesIn(await textOf("strikes.txt", LINE_FEEDS), manifest);
      checkCumulative(before?.strikes ?? null, strikes);
      const phase = new PhaseReplay(manifest, strikes, order, before?.phase);
      tell(0.4);
      const published = await files.bytes(`phase-${number}/result.txt`);
      const { resultHash, resultRoot, differs } = phase.result(published, (share) => tell(0.4 + 0.6 * share));
      if (differs) blame("result.txt", `line ${differs}: the replay gives another one`);
      const cutoffs = phase.cutoffs();
      const cutoffsHash = sha256Hex(cutoffs);
      if ((await textOf("cutoffs.json")) !== cutoffs) blame("cutoffs.json", "the replay gives other cut-offs");
      if (summaryText !== phase.summary(resultHash, resultRoot, cutoffsHash)) blame("summary.json", "the replay gives another one");
      done.push({ phase: number, manifestHash: manifest.hash, resultHash, cutoffsHash, outcomes: Object.fromEntries(phase.outcomes()) });
      before = { phase, strikes, resultHash };
    }
  });
  onProgress(1, "done");
  const [annulled = null] = annulments.values();
  const verdict = annulled ? "annulled" : findings.size ? "fails" : unchecked.length ? "incomplete" : "holds";
  return { verdict, annulled, findings: [...findings.values()], notes: [...unchecked, ...notes], phases: done, count };
}
