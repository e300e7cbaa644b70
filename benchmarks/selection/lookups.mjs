// Looks refs up in static proofs, each as a new visitor, and prints requests and bytes as JSON.

import { open, readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { ProofTiles } from "../../fairdraw/verifier/lookup.js";

const [folder, refs] = process.argv.slice(2);
const found = { texts: [], requests: 0, bytes: [], slowestMs: 0 };
for (const ref of JSON.parse(await readFile(refs, "utf8"))) {
  let [requests, bytes] = [0, 0];
  const get = async (name, start = 0, end = undefined) => {
    const file = await open(`${folder}/${name}`);
    const data = new Uint8Array((end ?? (await file.stat()).size) - start);
    await file.read(data, 0, data.length, start);
    await file.close();
    requests += 1;
    bytes += Math.min(data.length, gzipSync(data).length);
    return data;
  };
  const started = performance.now();
  found.texts.push((await new ProofTiles(get).receipt(ref)).text);
  found.slowestMs = Math.max(found.slowestMs, performance.now() - started);
  found.requests = Math.max(found.requests, requests);
  found.bytes.push(bytes);
}
found.mostBytes = Math.max(...found.bytes);
found.bytes = found.bytes.sort((one, other) => one - other)[found.bytes.length >> 1];
console.log(JSON.stringify(found));
