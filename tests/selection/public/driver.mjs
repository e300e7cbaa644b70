// Answers calls of the tests, one JSON line each, with the page's own modules.
import { readFile, readdir } from "node:fs/promises";
import { createInterface } from "node:readline";
import { gzipSync } from "node:zlib";
import { ProofTiles } from "../../../fairdraw/verifier/lookup.js";
import { replayDraw } from "../../../fairdraw/verifier/folder.js";
import { sortedByHead } from "../../../fairdraw/verifier/replay.js";

const calls = {
  replay: async ({ folder }) => {
    const names = (await readdir(folder, { recursive: true })).filter((name) => /^(?:phase-[0-9]+\/)?[^/]+\.[a-z]+$/.test(name));
    return replayDraw(names, (name) => readFile(`${folder}/${name}`));
  },
  sorted: ({ high, low, keys }) =>
    Array.from(sortedByHead(Uint32Array.from(high), Uint32Array.from(low), (a, b) => (keys[a] < keys[b] ? -1 : 1))),
  // A new visitor for every ref: nothing is cached.
  receipts: async ({ folder, refs }) => {
    const found = [];
    for (const ref of refs) {
      let [requests, bytes] = [0, 0];
      const tiles = new ProofTiles(async (name, start, end) => {
        const data = new Uint8Array(await readFile(`${folder}/${name}`)).subarray(start, end);
        requests += 1;
        bytes += Math.min(data.length, gzipSync(data).length);
        return data;
      });
      found.push({ ...(await tiles.receipt(ref)), requests, bytes });
    }
    return found;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { ask, ...values } = JSON.parse(line);
  console.log(JSON.stringify(await calls[ask](values)));
}
