// Replays the draw in a folder as a browser would, and prints what it took as JSON.

import { readFile } from "node:fs/promises";
import { replayDraw } from "../../fairdraw/verifier/replay.js";

const [folder] = process.argv.slice(2);
const started = performance.now();
const found = await replayDraw((name) => readFile(`${folder}/${name}`).catch(() => null), 1);
const seconds = (performance.now() - started) / 1000;
const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
const cpuSeconds = (userCPUTime + systemCPUTime) / 1e6;
console.log(JSON.stringify({ passed: found.passed, count: found.count, seconds, cpuSeconds, peakMib: maxRSS / 1024 }));
