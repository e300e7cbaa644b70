// From a ref to its receipt, from the static files of a draw's public page: at most five requests.
import { entryKey, unitKey } from "./draw.js";
import { leafHash, nodeHash } from "./merkle.js";
import { canonicalJson } from "./replay.js";
import { toHex, utf8 } from "./sha256.js";

async function unpacked(bytes) {
  // A server may have unpacked it already.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return new TextDecoder().decode(bytes);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

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
    this.get = get;
  }

  async open() {
    this.draw ??= JSON.parse(await unpacked(await this.get("draw.json.gz")));
    return this.draw;
  }

  async range(start, size) {
    return this.get(this.draw.file, start, start + size);
  }

  /** The tile that may have the ref, or the one `beside` it (-1, 1); null past the ends. */
  async tile(ref, beside = 0) {
    const { pages, fan, directory, count, block } = this.draw;
    let number = this.near?.number;
    if (!beside) {
      const page = await this.page(lastUpTo(pages.map(([text]) => text), ref));
      number = page.number * fan + lastUpTo(page.texts, ref);
    }
    number += beside;
    if (number < 0 || number * block >= count) return null;
    const page = await this.page(Math.floor(number / fan));
    const [start, size] = page.spans[number % fan];
    const sections = [[]];
    for (const line of (await unpacked(await this.range(start, size))).split("\n")) {
      if (line) sections.at(-1).push(line);
      else sections.push([]);
    }
    const [leaves, path, records, ...phases] = sections;
    return (this.near = { number, leaves, path, records, phases });
  }

  async page(number) {
    if (this.pageNear?.number === number) return this.pageNear;
    const { pages, directory } = this.draw;
    const start = pages.slice(0, number).reduce((sum, [, size]) => sum + size, directory);
    const [first, ...lines] = (await unpacked(await this.range(start, pages[number][1]))).trimEnd().split("\n");
    let at = Number(first);
    const rows = lines.map((line) => line.split("|"));
    const spans = rows.map(([, size]) => [at, (at += Number(size)) && Number(size)]);
    return (this.pageNear = { number, texts: rows.map(([text]) => text), spans });
  }

  /** The receipt of a ref in canonical JSON: {text, drawn}. Not drawn: its neighbours prove that it has no leaf. */
  async receipt(ref) {
    await this.open();
    if (!this.draw.count) return this.absent(ref, null, null);
    const tile = await this.tile(ref);
    const at = tile.leaves.findIndex((leaf) => leaf.split("|", 1)[0] >= ref);
    if (at >= 0 && tile.leaves[at].split("|", 1)[0] === ref) return this.drawn(ref, tile, at);
    const after = at < 0 ? await this.tile(ref, 1).then((next) => next && this.inclusion(next, 0)) : this.inclusion(tile, at);
    if (at) return this.absent(ref, this.inclusion(tile, (at < 0 ? tile.leaves.length : at) - 1), after);
    const before = await this.tile(ref, -1);
    return this.absent(ref, before && this.inclusion(before, before.leaves.length - 1), after);
  }

  absent(ref, before, after) {
    const { seed, phases, ...common } = this.draw.receipt;
    const { manifest, published } = phases[0];
    const receipt = { ...common, kind: "excluded", ref, manifest, published, before, after, reasons: [] };
    return { drawn: false, text: canonicalJson(receipt) };
  }

  async drawn(ref, tile, at) {
    const { receipt: common } = this.draw;
    const [, unit, weight] = tile.leaves[at].split("|");
    const { seed } = JSON.parse(common.seed);
    const { drawId } = JSON.parse(common.phases[0].manifest);
    const phases = common.phases.map((phase, i) => ({
      ...phase,
      result: tile.phases[2 * i][at],
      strike: tile.phases[2 * i + 1].find((line) => line.startsWith(`${ref}|`)) ?? null,
    }));
    const [, market, rank, outcome] = phases.at(-1).result.split("|");
    const record = tile.records.find((line) => line.startsWith(`${ref}|`));
    const receipt = {
      ...common,
      ref,
      inclusion: this.inclusion(tile, at),
      key: unitKey(seed, drawId, unit, Number(weight)),
      entryKey: entryKey(seed, ref),
      market,
      rank: rank ? Number(rank) : null,
      outcome,
      siblings: record ? await this.siblings(record) : [],
      phases,
    };
    return { drawn: true, text: canonicalJson(receipt) };
  }

  inclusion(tile, at) {
    const { block } = this.draw;
    const proof = [];
    let nodes = tile.leaves.map((leaf) => leafHash(leaf));
    for (let place = at; nodes.length > 1; place >>= 1) {
      if ((place ^ 1) < nodes.length) proof.push(toHex(nodes[place ^ 1]));
      const above = [];
      for (let i = 0; i < nodes.length; i += 2) above.push(i + 1 < nodes.length ? nodeHash(nodes[i], nodes[i + 1]) : nodes[i]);
      nodes = above;
    }
    return { leaf: tile.leaves[at], index: tile.number * block + at, proof: [...proof, ...tile.path] };
  }

  async siblings(record) {
    const [, start, size] = record.split("|");
    const bytes = await this.range(Number(start), Number(size));
    const found = [];
    for (let at = 0; at < bytes.length; ) {
      const end = bytes.indexOf(10, at);
      const line = new TextDecoder().decode(bytes.subarray(at, end));
      const bar = line.indexOf("|");
      const index = Number(line.slice(0, bar));
      const proof = [];
      at = end + 1;
      for (let place = index, width = this.draw.count; width > 1; place >>= 1, width = (width + 1) >> 1) {
        if ((place ^ 1) < width) proof.push(toHex(bytes.subarray(at, (at += 32))));
      }
      found.push({ leaf: line.slice(bar + 1), index, proof });
    }
    return found;
  }
}
