// A tree as its static files have it, by C2SP tlog-tiles, as in log/tree.py: entries, and proofs from the hashes in tiles.

import { drawError, uncheckedError } from "./fields.js";
import { nodeHash } from "./merkle.js";
import { toHex } from "./sha256.js";

/** Hashes of one level in a tile, and entries in a bundle: 2^8. */
export const WIDTH = 256;
const [TILE_LEVELS, HASH_BYTES] = [8, 32];

/** The text of a published file; what is no UTF-8 is refused as `malformed`. */
export function textIn(name, bytes, malformed = "not canonical JSON (RFC 8785) with integers only") {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw drawError(name, malformed);
  }
}

/** How many levels a tree of `size` entries has above them. */
function heightOf(size) {
  let height = 0;
  while (2 ** height < size) height += 1;
  return height;
}

/** Where the right part of the tree over the entries from `start` to `end` begins. */
const middleOf = (start, end) => start + 2 ** (heightOf(end - start) - 1);

/** The files of a tree that has `size` entries, below `folder`; `read(name)` resolves to bytes, null for no file. */
export class TreeFiles {
  constructor(folder, size, read) {
    Object.assign(this, { folder, size, read, tiles: new Map() });
  }

  /** The name of the tile with this number, which has `width` of the `count` hashes of its level, or entries. */
  path(kind, number, count, width = Math.min(WIDTH, count - WIDTH * number)) {
    const digits = String(number).padStart(3 * Math.ceil(String(number).length / 3), "0");
    const path = digits.replace(/\d{3}(?=\d)/g, "x$&/");
    return `${this.folder}tile/${kind}/${path}${width < WIDTH ? `.p/${width}` : ""}`;
  }

  // The bytes of that tile.
  async file(kind, number, count) {
    const width = Math.min(WIDTH, count - WIDTH * number);
    const name = this.path(kind, number, count, width);
    const bytes = await this.read(name);
    if (bytes === null) throw uncheckedError(`${name} is missing`);
    return { bytes, name, width };
  }

  // The hashes of a tile, which is read once.
  tile(level, number) {
    const name = `${level}/${number}`;
    if (!this.tiles.has(name)) this.tiles.set(name, this.hashesOf(level, number));
    return this.tiles.get(name);
  }

  async hashesOf(level, number) {
    const { bytes, name, width } = await this.file(level, number, Math.floor(this.size / WIDTH ** level));
    if (bytes.length !== width * HASH_BYTES) throw drawError(name, `not a tile of ${width} hashes`);
    return Array.from({ length: width }, (_, at) => bytes.subarray(HASH_BYTES * at, HASH_BYTES * (at + 1)));
  }

  /** The bytes of the entries of the bundle with this number, in order. */
  async bundle(number) {
    const { bytes, name } = await this.file("entries", number, this.size);
    const found = [];
    let at = 0;
    while (at < bytes.length) {
      const start = at + 2;
      at = start + 256 * bytes[at] + bytes[at + 1];
      found.push(bytes.subarray(start, at));
    }
    if (at !== bytes.length || !found.length || found.length > WIDTH) {
      throw drawError(name, `not a bundle of 1 to ${WIDTH} entries`);
    }
    return found;
  }

  /** The root over the entries from `start` on, 2^`height` of them; `start` is a multiple of that number. */
  async node(height, start) {
    const level = Math.floor(height / TILE_LEVELS);
    const [first, count] = [start / WIDTH ** level, 2 ** (height % TILE_LEVELS)];
    let row = (await this.tile(level, Math.floor(first / WIDTH))).slice(first % WIDTH, (first % WIDTH) + count);
    while (row.length > 1) row = row.filter((_, at) => at % 2 === 0).map((left, at) => nodeHash(left, row[2 * at + 1]));
    return row[0];
  }

  /** The root over the entries from `start` to `end`, which are the right part of a tree. */
  async root(start, end) {
    const height = heightOf(end - start);
    if (2 ** height === end - start) return this.node(height, start);
    const middle = middleOf(start, end);
    return nodeHash(await this.root(start, middle), await this.root(middle, end));
  }

  /** The inclusion proof, in hex, of the entry at `index` in the tree of the first `size` entries. */
  async proof(index, size) {
    let [start, end, found] = [0, size, []];
    while (end - start > 1) {
      const middle = middleOf(start, end);
      const isLeft = index < middle;
      found = [toHex(await (isLeft ? this.root(middle, end) : this.root(start, middle))), ...found];
      [start, end] = isLeft ? [start, middle] : [middle, end];
    }
    return found;
  }
}
