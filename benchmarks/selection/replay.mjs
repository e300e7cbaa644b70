// Replays the draw in a folder as a browser would, and prints what it took as JSON.

import { readFile, readdir } from "node:fs/promises";
import { replayDraw } from "../../fairdraw/verifier/folder.js";

const [folder] = process.argv.slice(2);
const started = performance.now();
const names = (await readdir(`${folder}/phase-1`)).map((name) => `phase-1/${name}`);
const found = await replayDraw(names, (name) => readFile(`${folder}/${name}`));
const seconds = (performance.now() - started) / 1000;
const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
const cpuSeconds = (userCPUTime + systemCPUTime) / 1e6;
console.log(JSON.stringify({ verdict: found.verdict, count: found.count, seconds, cpuSeconds, peakMib: maxRSS / 1024 }));
