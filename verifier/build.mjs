// node build.mjs FOLDER: write curves.js, which sets the global `curves`, and the same compressed, for the page.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";
import { gzipSync } from "fflate";

const folder = process.argv[2];
const licence = readFileSync("node_modules/@noble/curves/LICENSE", "utf8").replace(/[“”]/g, '"').trim();
const bundle = await build({
  entryPoints: ["curves.mjs"],
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "curves",
  target: "es2022",
  charset: "ascii",
  legalComments: "none",
  // The licence asks for its whole text in every copy.
  banner: { js: `/* @noble/curves and @noble/hashes\n\n${licence} */` },
  write: false,
});
const code = bundle.outputFiles[0].contents;
writeFileSync(`${folder}/curves.js`, code);
// Node's own zlib gives other bytes in other versions of Node.
writeFileSync(`${folder}/curves.js.gz`, gzipSync(code, { level: 9, mem: 12, mtime: 0 }));
