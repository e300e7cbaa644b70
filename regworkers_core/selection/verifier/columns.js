// leaves.txt as columns of numbers over its bytes: no line of a million becomes an object or a string.
import { Sha256, sha256Hex, toHex, utf8 } from "./sha256.js";

export const BAR = 124, COMMA = 44, LINE_FEED = 10;
const ID_BYTES = new Uint8Array(256);
for (const sign of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") ID_BYTES[sign.charCodeAt(0)] = 1;
const LONGEST_ID = 64;

export const decoder = new TextDecoder("utf-8", { fatal: true });

// A file that is malformed or contradicts the others; `artefact` is `phase-1/result.txt`.
export class Flaw extends Error {
  constructor(artefact, message) {
    super(message);
    this.artefact = artefact;
  }
}

// Numbers spans of bytes from 0, equal spans alike, in the order in which they are first seen.
class SpanTable {
  constructor(bytes) {
    this.bytes = bytes;
    this.size = 0;
    this.slots = new Int32Array(1024).fill(-1);
    this.starts = this.ends = this.hashes = new Uint32Array(0);
    this.grow(512);
  }

  grow(room) {
    for (const name of ["starts", "ends", "hashes"]) {
      const larger = new Uint32Array(room);
      larger.set(this[name]);
      this[name] = larger;
    }
  }

  number(start, end) {
    const { bytes } = this;
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
    hash = (hash ^ (hash >>> 15)) >>> 0;
    const mask = this.slots.length - 1;
    let slot = hash & mask;
    for (let found; (found = this.slots[slot]) >= 0; slot = (slot + 1) & mask) {
      if (this.hashes[found] === hash && this.same(found, start, end)) return found;
    }
    const made = this.size++;
    this.slots[slot] = made;
    this.starts[made] = start;
    this.ends[made] = end;
    this.hashes[made] = hash;
    if (this.size === this.starts.length) this.rehash();
    return made;
  }

  same(number, start, end) {
    let other = this.starts[number];
    if (this.ends[number] - other !== end - start) return false;
    for (let i = start; i < end; i++, other++) if (this.bytes[i] !== this.bytes[other]) return false;
    return true;
  }

  rehash() {
    this.grow(2 * this.size);
    const slots = (this.slots = new Int32Array(4 * this.size).fill(-1));
    for (let number = 0; number < this.size; number++) {
      let slot = this.hashes[number] & (slots.length - 1);
      while (slots[slot] >= 0) slot = (slot + 1) & (slots.length - 1);
      slots[slot] = number;
    }
  }

  text(number) {
    return textOf(this.bytes, this.starts[number], this.ends[number]);
  }
}

function textOf(bytes, start, end) {
  return String.fromCharCode.apply(null, bytes.subarray(start, end));
}

export function compareSpans(bytes, start, end, others, otherStart, otherEnd) {
  const length = Math.min(end - start, otherEnd - otherStart);
  for (let i = 0; i < length; i++) {
    const difference = bytes[start + i] - others[otherStart + i];
    if (difference) return difference;
  }
  return end - start - (otherEnd - otherStart);
}

export function sameBytes(some, others) {
  return some.length === others.length && compareSpans(some, 0, some.length, others, 0, others.length) === 0;
}

// The root of a Merkle tree (RFC 6962) over leaves that come one by one.
class RootHash {
  constructor() {
    this.count = 0;
    this.stack = new Uint8Array(32 * 64);
    this.depth = 0;
    this.hash = new Sha256();
    this.leaf = new Sha256().update(Uint8Array.of(0));
    this.node = new Sha256().update(Uint8Array.of(1));
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

// Columns over leaves.txt by line, from 0. `preferences` and `segments` number lists, each of which is read once.
export class LeafColumns {
  constructor(bytes, artefact, markets, segments, onLine) {
    this.bytes = bytes;
    this.artefact = artefact;
    this.segments = segments;
    const most = bytes.length ? this.lines() : 0;
    this.starts = new Uint32Array(most + 1);
    this.refEnds = new Uint8Array(most);
    this.units = new SpanTable(bytes);
    this.unit = new Uint32Array(most);
    this.weights = new Uint8Array(most);
    this.preference = new Uint32Array(most);
    this.segment = new Uint32Array(most);
    this.count = most;
    const root = new RootHash();
    const [preferences, lists] = [new SpanTable(bytes), new SpanTable(bytes)];
    for (let line = 0, at = 0; line < most; line++) {
      this.starts[line] = at;
      const refEnd = this.id(at, "ref");
      this.refEnds[line] = refEnd - at;
      if (line) this.mustIncrease(line);
      const unitEnd = this.id(refEnd + 1, "unit");
      const weightEnd = bytes.indexOf(BAR, unitEnd + 1);
      const weight = this.weight(line, unitEnd + 1, weightEnd);
      const segmentsEnd = this.bar(weightEnd + 1);
      const end = bytes.indexOf(LINE_FEED, segmentsEnd + 1);
      const unit = this.units.number(refEnd + 1, unitEnd);
      // Each weight would be another key, and a chance.
      if (unit === this.units.size - 1 && !this.weights[unit]) this.weights[unit] = weight;
      else if (this.weights[unit] !== weight) this.refuse(line, "one unit, several weights");
      this.unit[line] = unit;
      this.segment[line] = lists.number(weightEnd + 1, segmentsEnd);
      this.preference[line] = preferences.number(segmentsEnd + 1, end);
      root.add(bytes, at, end);
      at = this.starts[line + 1] = end + 1;
      if (line % 4096 === 0) onLine(line / most);
    }
    this.root = root.hex();
    this.wanted = this.listsOf(preferences, (names) => {
      const numbers = names.map((name) => markets.indexOf(name));
      if (numbers.includes(-1) || new Set(numbers).size < names.length) return null;
      return numbers;
    });
    this.rights = this.listsOf(lists, (names) => {
      if (names.length === 1 && names[0] === "") return segments.map(() => false);
      const sorted = names.every((name, i) => isId(name) && (!i || names[i - 1] < name));
      return sorted ? segments.map((segment) => names.includes(segment)) : null;
    });
  }

  lines() {
    let count = 0;
    for (let at = -1; (at = this.bytes.indexOf(LINE_FEED, at + 1)) >= 0; ) count++;
    if (this.bytes[this.bytes.length - 1] !== LINE_FEED) throw new Flaw(this.artefact, "the last line has no line feed");
    return count;
  }

  refuse(line, why) {
    throw new Flaw(this.artefact, `line ${line + 1}: ${why}`);
  }

  id(start, what) {
    let at = start;
    while (ID_BYTES[this.bytes[at]]) at++;
    if (this.bytes[at] !== BAR || at === start || at - start > LONGEST_ID) {
      throw new Flaw(this.artefact, `byte ${at}: a ${what} is 1 to 64 of A-Z a-z 0-9 _ -, then |`);
    }
    return at;
  }

  bar(start) {
    let at = start;
    while (ID_BYTES[this.bytes[at]] || this.bytes[at] === COMMA) at++;
    if (this.bytes[at] !== BAR) throw new Flaw(this.artefact, `byte ${at}: ref|unit|weight|segments|preferences is needed`);
    return at;
  }

  weight(line, start, end) {
    const text = end - start <= 2 && end > start ? textOf(this.bytes, start, end) : "";
    const weight = /^[1-9][0-9]?$/.test(text) ? Number(text) : 0;
    if (!weight || weight > 64) this.refuse(line, "a weight is 1 to 64 without leading zero");
    return weight;
  }

  mustIncrease(line) {
    const [before, at] = [this.starts[line - 1], this.starts[line]];
    const { bytes, refEnds } = this;
    if (compareSpans(bytes, before, before + refEnds[line - 1], bytes, at, at + refEnds[line]) >= 0) {
      this.refuse(line, "refs must increase strictly");
    }
  }

  listsOf(table, parse) {
    const made = [];
    for (let number = 0; number < table.size; number++) {
      const list = parse(table.text(number).split(","));
      if (list === null) throw new Flaw(this.artefact, `byte ${table.starts[number]}: an invalid list ${table.text(number)}`);
      made.push(list);
    }
    return made;
  }

  // The line of a ref, -1 if it has none.
  find(ref) {
    const sought = utf8(ref);
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >> 1;
      const at = this.starts[middle];
      const order = compareSpans(this.bytes, at, at + this.refEnds[middle], sought, 0, sought.length);
      if (!order) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -1;
  }
}

export function isId(text) {
  return /^[A-Za-z0-9_-]{1,64}$/.test(text);
}
