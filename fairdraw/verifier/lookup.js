// From a ref to its receipt, by the static files of a draw's public page (site/tiles.py): at most five requests.

import { canonicalText, parseJson } from "./canonical.js";
import { entryKey, leafOf, positionOf, unitKey } from "./draw.js";
import { parseManifest, parseSeed } from "./manifest.js";
import { leafHash, nodeHash } from "./merkle.js";
import { toHex } from "./sha256.js";

const PER_DRAWN = ["phases", "seed"];
// Per phase: lines of the result, the hashes above them, strikes.
const SECTIONS = 3;

async function unpacked(bytes) {
  // Some servers unpack such a file on the way.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return new TextDecoder().decode(bytes);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const malformed = () => new Error("a part of them is missing or changed");
const refOf = (line) => line.slice(0, line.indexOf("|"));

// The index of the last of the sorted texts that is at most `ref`; the first is empty.
function lastUpTo(texts, ref) {
  let [low, high] = [0, texts.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (texts[middle] <= ref) low = middle;
    else high = middle;
  }
  return low;
}

/** One draw; `get(name, start, end)` resolves to the bytes of a range of a file, or to the whole file. */
export class ProofTiles {
  constructor(get) {
    Object.assign(this, { get, draw: null, page: null });
  }

  /** The receipt of a ref: `{text, drawn}`, canonical JSON. Not drawn: two neighbours show that it has no leaf. */
  async receipt(ref) {
    this.draw ??= Object.fromEntries(parseJson(await unpacked(await this.get("draw.json.gz"))));
    if (!this.draw.count) return this.absent(ref, null, null);
    const { pages, fan } = this.draw;
    const page = await this.pageOf(lastUpTo(pages.map(([text]) => text), ref));
    const tile = await this.tile(page.number * fan + lastUpTo(page.texts, ref));
    const found = tile.leaves.findIndex((leaf) => refOf(leaf) >= ref);
    if (found >= 0 && refOf(tile.leaves[found]) === ref) return this.drawn(ref, tile, found);
    const at = found < 0 ? tile.leaves.length : found;
    // A neighbour may be at the end of the tile before, or at the start of the next one.
    const [before, after] = [
      at ? this.inclusion(tile, at - 1) : this.inclusion(await this.tile(tile.number - 1), -1),
      found < 0 ? this.inclusion(await this.tile(tile.number + 1), 0) : this.inclusion(tile, found),
    ];
    return this.absent(ref, before, after);
  }

  range(start, size) {
    return this.get(this.draw.file, start, start + size);
  }

  async pageOf(number) {
    if (this.page?.number === number) return this.page;
    const { pages, directory } = this.draw;
    const start = pages.slice(0, number).reduce((sum, [, size]) => sum + size, directory);
    const [first, ...lines] = (await unpacked(await this.range(start, pages[number][1]))).trimEnd().split("\n");
    const rows = lines.map((line) => line.split("|"));
    let end = Number(first);
    const spans = rows.map(([, size]) => [(end += Number(size)) - Number(size), Number(size)]);
    this.page = { number, spans, texts: rows.map(([text]) => text) };
    return this.page;
  }

  /** The tile with this number, null past the ends. */
  async tile(number) {
    const { fan, count, block } = this.draw;
    if (number < 0 || number * block >= count) return null;
    const page = await this.pageOf(Math.floor(number / fan));
    const span = page.spans[number % fan];
    if (!span) throw malformed();
    const sections = [[]];
    for (const line of (await unpacked(await this.range(...span))).split("\n")) {
      if (line) sections.at(-1).push(line);
      else sections.push([]);
    }
    const [leaves, path, records, shared, ...rest] = sections;
    const phases = this.draw.receipt.get("phases").map((_, at) => rest.slice(SECTIONS * at, SECTIONS * (at + 1)));
    if (!leaves.length || phases.some(([lines]) => lines?.length !== leaves.length)) throw malformed();
    return { number, leaves, path, records, shared, phases };
  }

  absent(ref, before, after) {
    const common = [...this.draw.receipt].filter(([name]) => !PER_DRAWN.includes(name));
    const [first, ...later] = this.draw.receipt.get("phases");
    const only = (phase, names) => names.map((name) => [name, phase.get(name)]);
    const phases = later.map((phase) => new Map(only(phase, ["manifest", "summary"])));
    const own = { kind: "excluded", ref, before, after, phases, reasons: [] };
    const copied = only(first, ["manifest", "published"]);
    return { drawn: false, text: canonicalText(new Map([...common, ...copied, ...Object.entries(own)])) };
  }

  async drawn(ref, tile, at) {
    const common = this.draw.receipt;
    const { unit, weight } = leafOf(tile.leaves[at]);
    const { seed } = parseSeed(common.get("seed"));
    const { drawId } = parseManifest(common.get("phases")[0].get("manifest"));
    const ofRef = (lines) => lines.find((line) => refOf(line) === ref) ?? null;
    const phases = common.get("phases").map((phase, i) => {
      const [lines, path, strikes] = tile.phases[i];
      const result = new Map([["line", lines[at]], ["proof", [...pathIn(lines, at), ...path]]]);
      return new Map([...phase, ["result", result], ["strike", strikeOf(ofRef(strikes))]]);
    });
    const { market, rank, outcome } = positionOf(phases.at(-1).get("result").get("line"), ref);
    const [record, shared] = [ofRef(tile.records), ofRef(tile.shared)];
    const own = {
      ref,
      market,
      outcome,
      phases,
      rank: rank ? Number(rank) : null,
      key: unitKey(seed, drawId, unit, weight),
      entryKey: entryKey(seed, ref),
      inclusion: this.inclusion(tile, at),
      siblings: record ? await this.siblings(record) : [],
      together: shared ? Number(shared.split("|")[1]) : 0,
    };
    return { drawn: true, text: canonicalText(new Map([...common, ...Object.entries(own)])) };
  }

  /** The leaf at a place of the tile, from its end if negative, with its proof; null without tile. */
  inclusion(tile, at) {
    if (tile === null) return null;
    const place = at < 0 ? tile.leaves.length + at : at;
    const proof = [...pathIn(tile.leaves, place), ...tile.path];
    return inclusionOf(tile.leaves[place], tile.number * this.draw.block + place, proof);
  }

  /** The leaves of the unit that are ahead, in one range. */
  async siblings(record) {
    const bytes = await this.range(...record.split("|").slice(1).map(Number));
    const found = [];
    for (let at = 0; at < bytes.length; ) {
      const end = bytes.indexOf(10, at);
      if (end < 0) throw malformed();
      const [index, ...leaf] = new TextDecoder().decode(bytes.subarray(at, end)).split("|");
      const proof = [];
      at = end + 1;
      for (let own = Number(index), width = this.draw.count; width > 1; own >>= 1, width = (width + 1) >> 1) {
        if ((own ^ 1) < width) proof.push(toHex(bytes.subarray(at, (at += 32))));
      }
      found.push(inclusionOf(leaf.join("|"), Number(index), proof));
    }
    return found;
  }
}

// The hashes from a line up to the root over these lines.
function pathIn(lines, place) {
  const proof = [];
  let nodes = lines.map(leafHash);
  for (let own = place; nodes.length > 1; own >>= 1) {
    if ((own ^ 1) < nodes.length) proof.push(toHex(nodes[own ^ 1]));
    const pairs = Array.from({ length: (nodes.length + 1) >> 1 }, (_, i) => nodes.slice(2 * i, 2 * i + 2));
    nodes = pairs.map(([left, right]) => (right ? nodeHash(left, right) : left));
  }
  return proof;
}

function strikeOf(line) {
  if (line === null) return null;
  const [ref, reason, index, size, proof] = line.split("|");
  const hashes = proof ? proof.split(",") : [];
  return new Map([["index", Number(index)], ["line", `${ref}|${reason}`], ["proof", hashes], ["size", Number(size)]]);
}

const inclusionOf = (leaf, index, proof) => new Map([["leaf", leaf], ["index", index], ["proof", proof]]);
