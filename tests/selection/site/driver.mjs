// Answers calls of the tests, one JSON line each, with the page's own modules.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { replayDraw, sortedByHead } from "../../../regworkers_core/selection/verifier/replay.js";

const calls = {
  replay: ({ folder, phases }) => replayDraw((name) => readFile(`${folder}/${name}`).catch(() => null), phases),
  sorted: ({ high, low, keys }) =>
    Array.from(sortedByHead(Uint32Array.from(high), Uint32Array.from(low), (a, b) => (keys[a] < keys[b] ? -1 : 1))),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { call, ...values } = JSON.parse(line);
  console.log(JSON.stringify(await calls[call](values)));
}
