// The whole draw again, from its published files: root, keys, ranks, seats, cut-offs and results of all phases.
import { BAR, Flaw, LeafColumns, compareSpans, decoder, isId, sameBytes } from "./columns.js";
import { Sha256, fromHex, sha256Hex, toHex, utf8 } from "./sha256.js";

export const OUTCOME_NAMES = ["WINNER", "WAITLIST", "UNSELECTED", "HOUSEHOLD_LIMIT", "STRUCK"];
const [WON, WAITS, PAST, LIMITED, STRUCK_OUT] = OUTCOME_NAMES.keys();
const UNDECIDED = 255;
const ZERO = 48;
const PIECE = 1 << 20;

// The bytes of a JSON document by RFC 8785, as text.
export function canonicalJson(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonicalJson(value[name])}`).join(",")}}`;
}

// The numbers 0, 1, ... in the order of (high, low), two 32-bit halves of a number; `compare` decides between equal ones.
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
    if (end - start > 1) order.subarray(start, end).set(Array.from(order.subarray(start, end)).sort(compare));
  }
  return order;
}

// The order of the draw: `candidates` are lines by rank, `ranks` has the rank of every line, 0 past a unit's limit.
class DrawOrder {
  constructor(leaves, seed, drawId, winsPerUnit, onUnit) {
    this.leaves = leaves;
    this.ticket = new Sha256().update(utf8(`vf1|${seed}|${drawId}|`));
    this.entry = new Sha256().update(utf8(`vf1e|${seed}|`));
    this.hash = new Sha256();
    this.suffixes = Array.from({ length: 64 }, (_, ticket) => utf8(`|${ticket}`));
    const { units, count } = leaves;
    const [high, low] = [new Uint32Array(units.size), new Uint32Array(units.size)];
    for (let unit = 0; unit < units.size; unit++) {
      const key = this.key(unit);
      high[unit] = (key[0] << 24) | (key[1] << 16) | (key[2] << 8) | key[3];
      low[unit] = (key[4] << 24) | (key[5] << 16) | (key[6] << 8) | key[7];
      if (unit % 4096 === 0) onUnit(unit / units.size);
    }
    const order = sortedByHead(high, low, (one, other) => {
      const keys = [toHex(this.key(one)), toHex(this.key(other))];
      if (keys[0] === keys[1]) keys.splice(0, 2, units.text(one), units.text(other));
      return keys[0] < keys[1] ? -1 : 1;
    });
    const ends = new Uint32Array(units.size + 1);
    for (let line = 0; line < count; line++) ends[leaves.unit[line] + 1]++;
    for (let unit = 0; unit < units.size; unit++) ends[unit + 1] += ends[unit];
    const firsts = ends.slice();
    const members = new Uint32Array(count);
    for (let line = 0; line < count; line++) members[firsts[leaves.unit[line]]++] = line;
    this.ranks = new Uint32Array(count);
    this.candidates = new Uint32Array(count);
    let rank = 0;
    for (const unit of order) {
      let lines = members.subarray(ends[unit], ends[unit + 1]);
      if (lines.length > 1) {
        const keyed = Array.from(lines, (line) => [toHex(this.entryKey(line)), line]);
        lines = keyed.sort((one, other) => (one[0] < other[0] ? -1 : 1)).map((each) => each[1]).slice(0, winsPerUnit);
      }
      for (const line of lines) {
        this.candidates[rank] = line;
        this.ranks[line] = ++rank;
      }
    }
    this.candidates = this.candidates.subarray(0, rank);
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
    return this.hash.from(this.entry).update(bytes, starts[line], starts[line] + refEnds[line]).finish();
  }
}

// Seats with one rule; `held` is a heap of ranks with the worst on top.
class SeatGroup {
  constructor(seats, segment = -1) {
    this.seats = seats;
    this.segment = segment;
    this.held = [];
  }

  get full() {
    return this.held.length >= this.seats;
  }

  // Takes `rank` if there is room or a worse holder. Returns the rank that is rejected, 0 for none.
  offer(rank) {
    const { held } = this;
    if (held.length < this.seats) {
      let at = held.push(rank) - 1;
      for (let above; at && held[(above = (at - 1) >> 1)] < held[at]; at = above) this.swap(at, above);
      return 0;
    }
    if (!this.seats || rank > held[0]) return rank;
    return this.replaceWorst(rank);
  }

  replaceWorst(rank) {
    const { held } = this;
    const worst = held[0];
    held[0] = rank;
    for (let at = 0, below; (below = 2 * at + 1) < held.length; at = below) {
      if (below + 1 < held.length && held[below + 1] > held[below]) below++;
      if (held[below] <= held[at]) break;
      this.swap(at, below);
    }
    return worst;
  }

  swap(one, other) {
    [this.held[one], this.held[other]] = [this.held[other], this.held[one]];
  }

  // One seat less: a reserve took it. Returns the rank that loses it, 0 for none.
  giveUp() {
    this.seats--;
    if (this.held.length <= this.seats) return 0;
    const last = this.held.pop();
    return this.held.length ? this.replaceWorst(last) : last;
  }
}

// Deferred acceptance: candidates ask in rank order, a displaced one asks on. `markets` have `reserves` and `open`.
function takeSeats(markets, leaves, candidates, isFree) {
  const asked = new Uint16Array(candidates.length + 1);
  const groups = markets.flatMap((market) => [...market.reserves, market.open]);
  for (let first = 1; first <= candidates.length; first++) {
    if (first % 4096 === 1 && groups.every((group) => group.full)) break;
    if (!isFree(candidates[first - 1])) continue;
    for (let rank = first; rank; ) {
      const wanted = leaves.wanted[leaves.preference[candidates[rank - 1]]];
      let rejected = rank;
      while (rejected === rank && asked[rank] < wanted.length) {
        rejected = askMarket(markets[wanted[asked[rank]++]], rank, leaves, candidates);
      }
      rank = rejected === rank ? 0 : rejected;
    }
  }
}

function askMarket(market, rank, leaves, candidates) {
  for (const group of market.reserves) {
    if (!leaves.rights[leaves.segment[candidates[rank - 1]]][group.segment]) continue;
    rank = group.offer(rank);
    if (!rank) return market.open.giveUp();
  }
  return market.open.offer(rank);
}

// One phase after its inputs are checked: `codes` and `places` (a market's number) by line.
class PhaseReplay {
  constructor(manifest, manifestHash, strikes, order, before, artefact) {
    Object.assign(this, { manifest, manifestHash, order });
    const { leaves } = order;
    const none = manifest.markets.length;
    this.codes = new Uint8Array(leaves.count).fill(UNDECIDED);
    this.places = new Uint16Array(leaves.count).fill(none);
    if (before) {
      for (let line = 0; line < leaves.count; line++) {
        if (before.codes[line] !== WON) continue;
        this.codes[line] = WON;
        this.places[line] = before.places[line];
      }
    }
    for (const ref of strikes.keys()) {
      const line = leaves.find(ref);
      if (line < 0) throw new Flaw(artefact("strikes.txt"), `${ref} is struck, but has no leaf`);
      this.codes[line] = STRUCK_OUT;
      this.places[line] = none;
    }
    this.pinned = this.winners();
    this.markets = manifest.markets.map((market, number) => {
      const offered = market.capacity - this.pinned[number];
      const kept = market.reserves.reduce((sum, reserve) => sum + reserve.seats, 0);
      if (offered < 0 || kept > offered) {
        throw new Flaw(artefact("manifest.json"), `market ${market.marketId}: ${offered} seats offered, ${kept} reserved`);
      }
      const reserves = market.reserves.map((each) => new SeatGroup(each.seats, leaves.segments.indexOf(each.segment)));
      return { reserves, open: new SeatGroup(offered) };
    });
    takeSeats(this.markets, leaves, order.candidates, (line) => this.codes[line] === UNDECIDED);
    this.markets.forEach((market, number) => {
      for (const group of [...market.reserves, market.open]) {
        for (const rank of group.held) {
          this.codes[order.candidates[rank - 1]] = WON;
          this.places[order.candidates[rank - 1]] = number;
        }
      }
    });
    let waiting = manifest.waitlistSize ?? Infinity;
    for (const line of order.candidates) {
      if (this.codes[line] === UNDECIDED) this.codes[line] = waiting-- > 0 ? WAITS : PAST;
    }
    for (let line = 0; line < leaves.count; line++) if (this.codes[line] === UNDECIDED) this.codes[line] = LIMITED;
  }

  winners() {
    const found = this.manifest.markets.map(() => 0);
    for (let line = 0; line < this.codes.length; line++) if (this.codes[line] === WON) found[this.places[line]]++;
    return found;
  }

  // The SHA-256 of result.txt, and the first line that differs in `published`, 0 if none does.
  result(published, onLine) {
    const { leaves, ranks } = this.order;
    const names = [...this.manifest.markets.map((market) => market.marketId), ""].map((name) => utf8(name));
    const ends = OUTCOME_NAMES.map((name) => utf8(`|${name}\n`));
    const digest = new Sha256();
    const piece = new Uint8Array(PIECE);
    let [at, done, differs, line] = [0, 0, 0, 0];
    const put = (bytes, start = 0, end = bytes.length) => {
      while (start < end) piece[at++] = bytes[start++];
    };
    for (; line < leaves.count; line++) {
      const [from, start] = [at, leaves.starts[line]];
      put(leaves.bytes, start, start + leaves.refEnds[line]);
      piece[at++] = BAR;
      put(names[this.places[line]]);
      piece[at++] = BAR;
      if (ranks[line]) at = putNumber(piece, at, ranks[line]);
      put(ends[this.codes[line]]);
      const place = done + from;
      if (!differs && compareSpans(piece, from, at, published, place, Math.min(place + at - from, published.length))) {
        differs = line + 1;
      }
      if (at > PIECE - 1024) {
        digest.update(piece, 0, at);
        done += at;
        at = 0;
        onLine(line / leaves.count);
      }
    }
    digest.update(piece, 0, at);
    if (!differs && done + at !== published.length) differs = line + 1;
    return [toHex(digest.finish()), differs];
  }

  cutoffs() {
    const { order, manifest } = this;
    const zeros = "0".repeat(64);
    const cutoff = (group) => {
      if (!group.full) return null;
      if (!group.seats) return { entryKey: zeros, key: zeros, rank: 0 };
      const rank = group.held[0];
      const line = order.candidates[rank - 1];
      return { entryKey: toHex(order.entryKey(line)), key: toHex(order.key(order.leaves.unit[line])), rank };
    };
    const markets = {};
    this.markets.forEach((market, number) => {
      const terms = manifest.markets[number];
      const reserves = market.reserves.map((each, i) => ({ cutoff: cutoff(each), segment: terms.reserves[i].segment }));
      markets[terms.marketId] = { open: cutoff(market.open), reserves };
    });
    return canonicalJson({ markets });
  }

  outcomes() {
    const counts = OUTCOME_NAMES.map(() => 0);
    for (let line = 0; line < this.codes.length; line++) counts[this.codes[line]]++;
    return Object.fromEntries(OUTCOME_NAMES.map((name, code) => [name, counts[code]]));
  }

  summary(resultHash, cutoffsHash) {
    const markets = {};
    this.winners().forEach((winners, number) => {
      markets[this.manifest.markets[number].marketId] = { new: winners - this.pinned[number], winners };
    });
    const { manifestHash } = this;
    return canonicalJson({ manifestHash, resultHash, cutoffsHash, outcomes: this.outcomes(), markets });
  }
}

function putNumber(piece, at, number) {
  let digits = 1;
  for (let rest = number; rest >= 10; rest = Math.floor(rest / 10)) digits++;
  for (let place = at + digits - 1; place >= at; place--, number = Math.floor(number / 10)) piece[place] = ZERO + (number % 10);
  return at + digits;
}

function reservedSegments(manifest) {
  return [...new Set(manifest.markets.flatMap((market) => market.reserves.map((reserve) => reserve.segment)))];
}

function parsedJson(bytes, artefact) {
  try {
    const text = decoder.decode(bytes);
    const document = JSON.parse(text);
    if (document !== null && typeof document === "object" && canonicalJson(document) === text) return document;
  } catch {
    // Told below.
  }
  throw new Flaw(artefact, "not an object in canonical JSON (RFC 8785)");
}

function parsedStrikes(bytes, artefact) {
  const strikes = new Map();
  const lines = decoder.decode(bytes).split("\n");
  if (lines.pop() !== "") throw new Flaw(artefact, "the last line has no line feed");
  let before = "";
  for (const line of lines) {
    const [ref, reason, ...more] = line.split("|");
    if (!isId(ref) || !/^[A-Z_]+$/.test(reason ?? "") || more.length || ref <= before) {
      throw new Flaw(artefact, "a line ref|REASON for each strike, in ref order, is needed");
    }
    strikes.set(ref, reason);
    before = ref;
  }
  return strikes;
}

const FREE_TERMS = ["markets", "phase", "previous", "strikesHash", "waitlistSize"];

function fixedTerms(manifest) {
  const fixed = Object.entries(manifest).filter(([name]) => !FREE_TERMS.includes(name));
  return canonicalJson([Object.fromEntries(fixed), manifest.markets.map((market) => market.marketId)]);
}

function checkManifest(manifest, number, first, artefact) {
  if (manifest.algorithm !== "vf1" || manifest.drawId !== manifest.campaignId || manifest.phase !== number) {
    throw new Flaw(artefact, `expected vf1, drawId = campaignId and phase ${number}`);
  }
  if (first && fixedTerms(first) !== fixedTerms(manifest)) {
    throw new Flaw(artefact, `other than in phase 1 are more than ${FREE_TERMS.join(", ")}`);
  }
}

function seedSource(manifest) {
  const source = manifest.seedSource;
  return source.kind === "drand" ? [source.chain, source.round] : ["commit-reveal", 0];
}

function checkSeed(seed, manifest, artefact) {
  const [, round] = seedSource(manifest);
  const { kind, commitment } = manifest.seedSource;
  if (!/^[0-9a-f]{64}$/.test(seed.randomness)) throw new Flaw(artefact, "randomness: 64 lower-case hex digits are needed");
  if (seed.kind !== kind || seed.round !== round) throw new Flaw(artefact, "not of the source in the manifest");
  const hashed = kind === "drand" ? sha256Hex(fromHex(String(seed.signature))) : sha256Hex(fromHex(seed.randomness));
  if (hashed !== (kind === "drand" ? seed.randomness : commitment)) {
    throw new Flaw(artefact, "the randomness is not the one that was committed to");
  }
}

function derivedSeed(manifest, manifestHash, seed) {
  const [source, round] = seedSource(manifest);
  return sha256Hex(`vfseed1|${manifestHash}|${source}|${round}|${seed.randomness}`);
}

// The manifest against the files that name its hash: whoever stands alone is at fault, both of two that differ.
function blameForHash(found, witnesses, artefact) {
  const against = Object.keys(witnesses).filter((name) => witnesses[name] !== found);
  const blamed = 2 * against.length > Object.keys(witnesses).length ? [artefact] : against;
  if (against.length && Object.keys(witnesses).length === 1) blamed.push(against[0]);
  return blamed.map((name) => new Flaw(name, `the manifest has SHA-256 ${found}, this is about another one`));
}

// Replays `phases` phases. `read(name)` resolves to the bytes of `phase-1/leaves.txt` and so on, null if there is none;
// `onProgress(share, what)` is told from 0 to 1. Resolves to {passed, findings: [{artefact, message}], phases: [{phase,
// manifestHash, resultHash, cutoffsHash, outcomes}], count}; a file that cannot be used ends the replay as a finding.
export async function replayDraw(read, phases, onProgress = () => {}) {
  const findings = [];
  const done = [];
  const blame = (flaw) => findings.push({ artefact: flaw.artefact, message: flaw.message });
  const needed = async (artefact) => {
    const bytes = await read(artefact);
    if (!bytes) throw new Flaw(artefact, "is missing");
    return bytes;
  };
  let count = 0;
  try {
    const inputs = [];
    for (let number = 1; number <= phases; number++) {
      const artefact = (name) => `phase-${number}/${name}`;
      const bytes = await needed(artefact("manifest.json"));
      const summaryBytes = await needed(artefact("summary.json"));
      inputs.push({ artefact, hash: sha256Hex(bytes), manifest: parsedJson(bytes, artefact("manifest.json")), summaryBytes });
    }
    const seedBytes = await needed("phase-1/seed.json");
    const seed = parsedJson(seedBytes, "phase-1/seed.json");
    const first = inputs[0].manifest;
    for (const [i, { artefact, manifest, hash, summaryBytes }] of inputs.entries()) {
      checkManifest(manifest, i + 1, first, artefact("manifest.json"));
      const witnesses = { [artefact("summary.json")]: parsedJson(summaryBytes, artefact("summary.json")).manifestHash };
      if (!i) witnesses["phase-1/seed.json"] = derivedSeed(manifest, hash, seed) === seed.seed ? hash : "";
      const next = inputs[i + 1]?.manifest.previous;
      if (next) witnesses[inputs[i + 1].artefact("manifest.json")] = next.manifestHash;
      blameForHash(hash, witnesses, artefact("manifest.json")).forEach(blame);
    }
    checkSeed(seed, first, "phase-1/seed.json");
    if (findings.length) throw null;

    onProgress(0, "leaves");
    const bytes = await needed("phase-1/leaves.txt");
    const segments = [...new Set(inputs.flatMap((each) => reservedSegments(each.manifest)))];
    const markets = first.markets.map((market) => market.marketId);
    const leaves = new LeafColumns(bytes, "phase-1/leaves.txt", markets, segments, (share) => onProgress(0.4 * share, "root"));
    count = leaves.count;
    if (leaves.root !== first.root || count !== first.count) {
      throw new Flaw("phase-1/leaves.txt", `${count} leaves with root ${leaves.root}; committed are ${first.count} with ${first.root}`);
    }
    const order = new DrawOrder(leaves, seed.seed, first.drawId, first.winsPerUnit, (share) => onProgress(0.4 + 0.3 * share, "ranks"));
    let [before, strikesBefore, resultHash] = [null, new Map(), ""];
    for (const [i, { artefact, manifest, hash, summaryBytes }] of inputs.entries()) {
      const tell = (share) => onProgress(0.7 + (0.3 * (i + share)) / phases, `phase ${i + 1}`);
      tell(0);
      if (i) {
        for (const [name, expected] of [["seed.json", seedBytes], ["leaves.txt", bytes]]) {
          if (!sameBytes(await needed(artefact(name)), expected)) blame(new Flaw(artefact(name), "differs from that of phase 1"));
        }
        if (manifest.previous?.resultHash !== resultHash) {
          blame(new Flaw(artefact("manifest.json"), `previous.resultHash: the replay gives ${resultHash}`));
        }
      }
      const strikesBytes = await needed(artefact("strikes.txt"));
      if (sha256Hex(strikesBytes) !== manifest.strikesHash) {
        throw new Flaw(artefact("strikes.txt"), "its SHA-256 is not the strikesHash of the manifest");
      }
      const strikes = parsedStrikes(strikesBytes, artefact("strikes.txt"));
      for (const [ref, reason] of strikesBefore) {
        if (strikes.get(ref) !== reason) throw new Flaw(artefact("strikes.txt"), `${ref} was struck in the phase before`);
      }
      const phase = new PhaseReplay(manifest, hash, strikes, order, before, artefact);
      tell(0.4);
      const [madeHash, line] = phase.result(await needed(artefact("result.txt")), (share) => tell(0.4 + 0.6 * share));
      if (line) blame(new Flaw(artefact("result.txt"), `line ${line}: the replay gives another one`));
      const cutoffs = phase.cutoffs();
      const expected = { "cutoffs.json": cutoffs, "summary.json": phase.summary(madeHash, sha256Hex(cutoffs)) };
      for (const [name, text] of Object.entries(expected)) {
        const published = name === "summary.json" ? summaryBytes : await needed(artefact(name));
        if (!sameBytes(published, utf8(text))) blame(new Flaw(artefact(name), "the replay gives another one"));
      }
      done.push({ phase: i + 1, manifestHash: hash, resultHash: madeHash, cutoffsHash: sha256Hex(cutoffs), outcomes: phase.outcomes() });
      [before, strikesBefore, resultHash] = [phase, strikes, madeHash];
    }
  } catch (error) {
    if (error instanceof Flaw) blame(error);
    else if (error !== null) throw error;
  }
  onProgress(1, "done");
  return { passed: !findings.length, findings, phases: done, count };
}
