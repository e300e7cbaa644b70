// leaves.txt as columns of numbers over its bytes: of a million entries none becomes an object or a string. Up to 4 GB.

import { unitFlaw } from "./draw.js";
import { drawError, isId } from "./fields.js";
import { Sha256, sha256Hex, toHex, utf8 } from "./sha256.js";

const [BAR_SIGN, COMMA_SIGN, LINE_FEED] = [124, 44, 10];
const LONGEST_ID = 64;
const UNIT_CHARS = 45;
const ID_SIGNS = new Uint8Array(256);
for (const sign of utf8("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")) ID_SIGNS[sign] = 1;

/** Negative, 0 or positive, as one span of bytes is before, equal to or after another one. */
export function compareSpans(bytes, start, end, others, otherStart, otherEnd) {
  const length = Math.min(end - start, otherEnd - otherStart);
  for (let i = 0; i < length; i++) {
    const difference = bytes[start + i] - others[otherStart + i];
    if (difference) return difference;
  }
  return end - start - (otherEnd - otherStart);
}

// Numbers spans of bytes from 0, equal ones alike, in the order in which they are first seen. Open addressing.
class SpanTable {
  constructor(bytes) {
    Object.assign(this, { bytes, size: 0, starts: new Uint32Array(0), ends: new Uint32Array(0), hashes: new Uint32Array(0) });
    this.grow(512);
  }

  grow(room) {
    for (const name of ["starts", "ends", "hashes"]) {
      const former = this[name];
      this[name] = new Uint32Array(room);
      this[name].set(former);
    }
    this.slots = new Int32Array(2 * room).fill(-1);
    for (let number = 0; number < this.size; number++) {
      let slot = this.hashes[number] & (2 * room - 1);
      while (this.slots[slot] >= 0) slot = (slot + 1) & (2 * room - 1);
      this.slots[slot] = number;
    }
  }

  number(start, end) {
    const { bytes, slots, hashes, starts, ends } = this;
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
    hash = (hash ^ (hash >>> 15)) >>> 0;
    let slot = hash & (slots.length - 1);
    for (let found; (found = slots[slot]) >= 0; slot = (slot + 1) & (slots.length - 1)) {
      if (hashes[found] === hash && !compareSpans(bytes, starts[found], ends[found], bytes, start, end)) return found;
    }
    const made = this.size++;
    [slots[slot], starts[made], ends[made], hashes[made]] = [made, start, end, hash];
    if (this.size === starts.length) this.grow(2 * this.size);
    return made;
  }

  text(number) {
    return textOfSpan(this.bytes, this.starts[number], this.ends[number]);
  }
}

function textOfSpan(bytes, start, end) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

/** The Merkle root over lines that come one by one, without allocation. */
export class RootHash {
  constructor() {
    Object.assign(this, { count: 0, depth: 0, stack: new Uint8Array(32 * 64), hash: new Sha256() });
    [this.leaf, this.node] = [0, 1].map((first) => new Sha256().update(Uint8Array.of(first)));
  }

  add(bytes, start, end) {
    this.hash.from(this.leaf).update(bytes, start, end).finish(this.stack, 32 * this.depth++);
    for (let left = ++this.count; left % 2 === 0; left /= 2) this.join();
  }

  join() {
    const at = 32 * (--this.depth - 1);
    this.hash.from(this.node).update(this.stack, at, at + 64).finish(this.stack, at);
  }

  hex() {
    if (!this.count) return sha256Hex("");
    while (this.depth > 1) this.join();
    return toHex(this.stack.subarray(0, 32));
  }
}

/**
 * Columns by line, from 0: where a line starts and its ref ends, the number of its `unit`, of its list of
 * `preference`s (`wanted`: numbers of markets) and of its `segment`s (`rights`: which of the given segments).
 * `weights` are by unit. Throws for a malformed file.
 */
export class LeafColumns {
  constructor(bytes, markets, segments, onShare) {
    let count = 0;
    for (let at = -1; (at = bytes.indexOf(LINE_FEED, at + 1)) >= 0; ) count++;
    Object.assign(this, { bytes, segments, count, units: new SpanTable(bytes) });
    if (bytes.length && bytes[bytes.length - 1] !== LINE_FEED) this.refuse(count, "the last line has no line feed");
    this.starts = new Uint32Array(count + 1);
    for (const name of ["refEnds", "unit", "preference", "segment"]) this[name] = new Uint32Array(count);
    this.weights = new Uint8Array(count);
    const [root, preferences, lists] = [new RootHash(), new SpanTable(bytes), new SpanTable(bytes)];
    for (let line = 0, at = 0; line < count; line++) {
      this.starts[line] = at;
      const refEnd = (this.refEnds[line] = this.idEnd(line, at));
      if (line && compareSpans(bytes, this.starts[line - 1], this.refEnds[line - 1], bytes, at, refEnd) >= 0) {
        this.refuse(line, "refs must increase strictly");
      }
      const unitEnd = this.idEnd(line, refEnd + 1);
      // Most units are one entry and have its ref.
      if (refEnd - at === UNIT_CHARS || compareSpans(bytes, at, refEnd, bytes, refEnd + 1, unitEnd)) {
        const wrong = unitFlaw(textOfSpan(bytes, at, refEnd), textOfSpan(bytes, refEnd + 1, unitEnd));
        if (wrong) this.refuse(line, wrong);
      }
      const weightEnd = bytes.indexOf(BAR_SIGN, unitEnd + 1);
      const weight = weightEnd - unitEnd <= 3 ? textOfSpan(bytes, unitEnd + 1, weightEnd) : "";
      if (!/^([1-9]|[1-5][0-9]|6[0-4])$/.test(weight)) this.refuse(line, "a weight is 1 to 64 without leading zero");
      let segmentsEnd = weightEnd + 1;
      while (ID_SIGNS[bytes[segmentsEnd]] || bytes[segmentsEnd] === COMMA_SIGN) segmentsEnd++;
      if (bytes[segmentsEnd] !== BAR_SIGN) this.refuse(line, "ref|unit|weight|segments|preferences is needed");
      const end = bytes.indexOf(LINE_FEED, segmentsEnd + 1);
      const unit = (this.unit[line] = this.units.number(refEnd + 1, unitEnd));
      // Each weight would be another key, and a chance.
      if ((this.weights[unit] ||= Number(weight)) !== Number(weight)) this.refuse(line, "one unit, several weights");
      this.segment[line] = lists.number(weightEnd + 1, segmentsEnd);
      this.preference[line] = preferences.number(segmentsEnd + 1, end);
      root.add(bytes, at, end);
      at = this.starts[line + 1] = end + 1;
      if (line % 4096 === 0) onShare(line / count);
    }
    this.root = root.hex();
    const numbers = new Map(markets.map((market, number) => [market, number]));
    this.wanted = this.listsOf(preferences, (names) => {
      const found = names.map((name) => numbers.get(name));
      return !found.includes(undefined) && new Set(found).size === names.length && found;
    });
    this.rights = this.listsOf(lists, (names) => {
      const own = names.join() ? names : [];
      const valid = own.every((name, i) => isId(name) && (!i || own[i - 1] < name));
      return valid && segments.map((segment) => own.includes(segment));
    });
  }

  refuse(line, why) {
    throw drawError("leaves.txt", `line ${line + 1}: ${why}`);
  }

  idEnd(line, start) {
    let at = start;
    while (ID_SIGNS[this.bytes[at]]) at++;
    if (this.bytes[at] !== BAR_SIGN || at === start || at - start > LONGEST_ID) {
      this.refuse(line, "ids are 1 to 64 of A-Z a-z 0-9 _ -");
    }
    return at;
  }

  // Each list is read once, however many lines have it.
  listsOf(table, parse) {
    return Array.from({ length: table.size }, (_, number) => {
      const found = parse(table.text(number).split(","));
      if (!found) throw drawError("leaves.txt", `byte ${table.starts[number]}: an unknown, unsorted or repeated name`);
      return found;
    });
  }

  /** The line of a ref, -1 if it has none. */
  find(ref) {
    const sought = utf8(ref);
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >> 1;
      const order = compareSpans(this.bytes, this.starts[middle], this.refEnds[middle], sought, 0, sought.length);
      if (!order) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -1;
  }
}
