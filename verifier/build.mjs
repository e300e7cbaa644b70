// Writes curves.js, which sets the global `curves`, and packs it and page.js, which tools/build_verifier.py puts here.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";
import { gzipSync } from "fflate";

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
writeFileSync("curves.js", bundle.outputFiles[0].contents);
for (const name of ["curves.js", "page.js"]) {
  // Node's own zlib gives other bytes in other versions of Node.
  writeFileSync(`${name}.gz`, gzipSync(readFileSync(name), { level: 9, mem: 12, mtime: 0 }));
}
