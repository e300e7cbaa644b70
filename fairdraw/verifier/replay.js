// The draw again from its leaves: keys, ranks, seats, cut-offs and results of each phase, as in maths/plain.py.

import { canonicalText } from "./canonical.js";
import { compareSpans, RootHash } from "./columns.js";
import { OUTCOMES } from "./draw.js";
import { drawError } from "./fields.js";
import { Sha256, toHex, utf8 } from "./sha256.js";

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
export class DrawOrder {
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
export class PhaseReplay {
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
