// The code of a winner in a receipt, and its list of planned codes, as in proof/planned.py and maths/codes.py.

import { verifyBls } from "./beacon.js";
import { drawError, isId, uncheckedError } from "./fields.js";
import { NO_LOG, recordLeaves } from "./log.js";
import { sha256Hex, utf8 } from "./sha256.js";

const DOMAIN = "REGWORKERS_VFCODE2_BLS12381G1_XMD:SHA-256_SSWU_RO_";
const CODE_FORM = /^[A-Za-z0-9._~-]{1,64}$/;
const SALT = /^[0-9a-f]{96}$/;
const LIST_NAME = /^codes-[1-9][0-9]{0,3}\.txt$/;
const LINE = /^[A-Za-z0-9_-]{1,64}\|[1-9][0-9]{0,15}\|[0-9a-f]{64}$/;
const NO_CODE_KEY = "code key not in the log: this code may have another salt, and another winner";
const NO_CURVES = "the signature was not checked here";

function wrongCode(message) {
  throw drawError("receipt", message);
}

/** The key `code` of a receipt, which only the winner's own one has. */
export function parseCode(fields) {
  const own = fields.nested("code", ["code", "list", "market", "position", "salt"]);
  const code = own.text("code", (text) => CODE_FORM.test(text), "a code");
  const salt = own.text("salt", (text) => SALT.test(text), "a signature of 96 lower-case hex digits");
  const [market, position] = [own.text("market", isId, "a market's id"), own.integer("position", 1)];
  const planned = own.nested("list", ["hash", "name", "phase"]);
  const [hash, phase] = [planned.hash("hash"), planned.integer("phase", 1)];
  const name = planned.text("name", (text) => LIST_NAME.test(text), "the name of a list of planned codes");
  return { code, salt, market, position, hash, phase, name: `phase-${phase}/${name}` };
}

const normal = (code, { caseless }) => (caseless ? code.replace(/[A-Z]/g, (each) => each.toLowerCase()) : code);

function lineOf({ code, salt, market, position }, opened) {
  return `${market}|${position}|${sha256Hex(`vfcode2|${salt}|${normal(code, opened)}`)}`;
}

// The last file of the campaign's record that is in the log.
function lastOpened({ record, log }) {
  const opened = log && record.slice(0, recordLeaves(log).length).at(-1);
  if (!opened?.codeKey) throw uncheckedError(NO_CODE_KEY);
  return opened;
}

/** Check that the salt is the one that the campaign's code key makes. */
export function checkCode(own, common, values) {
  const markets = common.phases.map((each) => each.position.market);
  if (!markets.includes(own.market)) {
    wrongCode(`the code is one of market ${own.market}, in which the entry won no seat`);
  }
  const opened = lastOpened(common);
  values.push(["codeKey", opened.codeKey], ["salt", own.salt]);
  if (!common.curves) throw uncheckedError(NO_CURVES);
  const message = utf8(`vfcode2|${common.campaignId}|${normal(own.code, opened)}`);
  if (!verifyBls(opened.codeKey, DOMAIN, message, own.salt, common.curves)) {
    wrongCode("the salt is not the signature of the code under the campaign's code key: it was invented");
  }
  return `the only salt of this code; its line is ${lineOf(own, opened)}`;
}

/** Whether any line has the form of those in codes-<k>.txt: else it is another file. */
export const hasLines = (text) => text.split("\n").some((each) => LINE.test(each));

/** The lines of codes-<k>.txt, and what is `wrong` with their form or order: "" for nothing. */
export function linesIn(text) {
  const lines = text.split("\n");
  if (lines.pop()) return { lines, wrong: "a line feed after every line is needed" };
  const bad = lines.findIndex((each) => !LINE.test(each)) + 1;
  if (bad) return { lines, wrong: `line ${bad} is not market|position|digest` };
  // A space is before all characters of an id, and a number has at most 16 digits.
  const order = lines.map((each) => each.split("|")).map(([market, position]) => `${market} ${position.padStart(16, "0")}`);
  const late = order.findIndex((each, at) => at && each <= order[at - 1]) + 1;
  return { lines, wrong: late ? `line ${late} does not follow the one before, by market and then by number` : "" };
}

/** Check that the code is at its place in the list of planned codes, a text or null, and in no other one. */
export function checkPlanned(own, common, values) {
  const { log, codes } = common;
  const { name, hash, phase } = own;
  if (log === null) throw uncheckedError(NO_LOG);
  values.push([name, hash]);
  if (!log.entries.some(({ leaf }) => leaf.kind === "codes" && leaf.phase === phase && leaf.hash === hash)) {
    wrongCode(`${name} with SHA-256 ${hash} is not in the log`);
  }
  const line = lineOf(own, lastOpened(common));
  values.push(["line", line]);
  if (codes === null) {
    throw uncheckedError(`list of planned codes not given: ${name} beside the published files, with SHA-256 ${hash}`);
  }
  const found = sha256Hex(codes);
  if (found !== hash) wrongCode(`the list that was given has SHA-256 ${found}, ${name} in the log ${hash}`);
  const { lines, wrong } = linesIn(codes);
  if (wrong) wrongCode(`${name}: ${wrong}`);
  if (!lines.includes(line)) wrongCode(`${name} has no line ${line}`);
  const digest = line.slice(-64);
  const other = lines.find((each) => each.endsWith(digest) && each !== line);
  if (other !== undefined) wrongCode(`${name} has this code for another winner, too: ${other}`);
  return `${line}: once among the ${lines.length} planned codes of ${name}`;
}
