// The page: it takes a receipt, has every step checked, and shows what came of it. Everything from a receipt is put
// into the page as text, never as HTML.

import { isHash, withCommas } from "./fields.js";
import { checkConfirmation, isConfirmation } from "./confirmed.js";
import { bare, byName, fromFolder, fromHost, parsedOrNull, receiptIn, rootOf, textOf } from "./given.js";
import { changesSince, parseOpened } from "./opened.js";
import { hasLines } from "./planned.js";
import { checkReceipt, company, receiptSteps } from "./receipt.js";
import { fromBinary } from "./sha256.js";
import { STRINGS } from "./strings.js";
import { leftToTrust, registeredWords, verdictOf, wordsOf } from "./trusted.js";

const RELAYS = ["api.drand.sh", "api2.drand.sh", "drand.cloudflare.com"];
const CODE = /^[^ ]{24,}$/;
// Steps with pairings, and how long others may take together before the page is painted.
const SLOW_STEPS = ["randomness", "code"];
const PAINT_MS = 100;
// A line for each of half a million winners.
const MOST_LIST_BYTES = 64_000_000;

// Names of files that are shown as missing.
const MOST_NAMES = 5;

const page = { text: null, files: null, trust: null, from: "receipt", known: null, codes: null, run: 0, fill() {} };
const part = (id) => document.getElementById(id);

/** An element with attributes and children; texts are escaped by the browser. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function say(id, text) {
  part(id).textContent = text;
  part(id).hidden = text === "";
}

/** Let the browser paint. A page in the background paints nothing and goes on at once. */
function painted() {
  return new Promise((resolve) => {
    if (document.hidden) resolve();
    else requestAnimationFrame(() => setTimeout(resolve));
  });
}

function clear() {
  for (const name of ["verdict", "annulled"]) delete document.documentElement.dataset[name];
  for (const id of ["trust", "code", "files", "compare", "compared", "keys", "audit", "progress"]) part(id).hidden = true;
  part("audit").open = false;
  part("steps").replaceChildren();
  for (const id of ["claimed", "where", "refused", "files-missing", "codes-refused", "trust-refused"]) say(id, "");
  part("facts").replaceChildren();
  say("open-all", STRINGS.openAll);
}

function showHeadline({ headline, summary, mark = "" }, state = "") {
  say("headline", headline);
  say("summary", summary);
  part("mark").textContent = mark;
  part("mark").className = `mark ${state}`;
}

/** Check a receipt; `asked` by a person, who then finds the focus on the result. */
async function check(text, asked, whole = false) {
  const run = ++page.run;
  page.text = text;
  clear();
  showHeadline({ ...STRINGS.waiting, summary: STRINGS.kicker });
  const given = { curves: globalThis.curves ?? null, trust: page.trust, opened: page.known, codes: page.codes };
  const parsed = parsedOrNull(bare(text));
  let paintedAt = performance.now();
  const onStep = async ({ name, at, of }) => {
    if (!SLOW_STEPS.includes(name) && performance.now() - paintedAt < PAINT_MS) return;
    say("summary", STRINGS.checking(wordsOf(name, isConfirmation(parsed) ? parsed : null).title, at + 1, of));
    Object.assign(part("progress"), { max: of, value: at, hidden: false });
    await painted();
    paintedAt = performance.now();
  };
  const onRead = (value, max) => run === page.run && Object.assign(part("progress"), { max, value, hidden: false });
  const missing = new Set();
  let result;
  if (isConfirmation(parsed)) result = await checkConfirmation(text, publicFiles(missing), { ...given, whole, onRead, onStep });
  else {
    const checking = receiptSteps(text, given);
    let step = checking.next();
    for (; !step.done && run === page.run; step = checking.next()) await onStep(step.value);
    result = step.value;
  }
  // Another one was chosen meanwhile.
  if (run !== page.run) return;
  showResult(result, text);
  if (isConfirmation(result.receipt)) showFiles(result, [...missing]);
  if (asked) part("headline").focus();
}

/** Reads public files: from the folder that was chosen, or from the host that the page came from. */
function publicFiles(missing) {
  const read = page.files ? (name) => fromFolder(page.files, name) : (name) => fromHost(rootOf(location.href), name);
  return async (name, { mayLack = false } = {}) => {
    const bytes = page.files || location.protocol !== "file:" ? await read(name) : null;
    if (bytes === null && !mayLack) missing.add(name);
    return bytes;
  };
}

/** Ask for the folder of public files where a step could not be checked for want of one. */
function showFiles({ steps }, missing) {
  part("files").hidden = !missing.length || steps.every((step) => step.state !== "unchecked");
  say("files-missing", STRINGS.filesMissing(missing.slice(0, MOST_NAMES)));
}

function showResult(result, text) {
  const { verdict, receipt } = result;
  const shown = verdictOf(result);
  part("progress").hidden = true;
  say("input-title", STRINGS.inputAgain);
  if (receipt === null || verdict === "fails") showHeadline(shown, shown.state);
  if (receipt !== null) {
    if (isConfirmation(receipt)) showRegistered(result, shown);
    else {
      showOutcome(result, shown);
      showCompared(result);
    }
    part("code").hidden = receipt.code === undefined;
    showKeys(result.keys);
  }
  part("trust").hidden = receipt === null || verdict === "fails";
  if (!part("trust").hidden) showTrust(leftToTrust(result, page.known !== null));
  showAudit(result, text);
  document.title = `${part("headline").textContent} – ${STRINGS.title}`;
  part("status").textContent = `${part("headline").textContent}. ${shown.summary}`;
  document.documentElement.dataset.verdict = verdict;
}

/** A registration first: that it is in the list, since when, and who saw that. */
function showRegistered({ verdict, receipt, listed, steps }, shown) {
  const { facts } = STRINGS;
  if (verdict !== "fails") showHeadline({ ...shown, headline: registeredWords(steps, listed) }, shown.state);
  say("where", receipt.campaignId);
  const pairs = [
    [facts.reference, receipt.ref],
    [facts.number, withCommas(receipt.index)],
    [facts.registered, receipt.at],
    ...notedIn(steps),
  ];
  part("facts").replaceChildren(...factList(pairs).children);
}

/** A fact for what was noted about the entry in the list of registrations. */
function notedIn(steps) {
  const { state, detail } = steps.find((step) => step.name === "registration");
  const [, ...lines] = state === "passed" ? detail.split("\n") : [];
  return lines.length ? [[STRINGS.facts.noted, lines.join("; ")]] : [];
}

/** The result first: the outcome in words, of which campaign, and one line on what was checked. */
function showOutcome({ verdict, receipt, campaign, steps }, shown) {
  const drawn = receipt.kind === "draw";
  const words = STRINGS.outcomes[drawn ? receipt.outcome : "excluded"] ?? String(receipt.outcome);
  const outcome = drawn && receipt.market ? `${words}: ${receipt.market}` : words;
  const annulled = receipt.annulled === null ? null : JSON.parse(receipt.annulled);
  const { facts } = STRINGS;
  const reasons = drawn ? receipt.phases.at(-1).strike?.line.split("|")[1] : receipt.reasons.join(", ");
  if (verdict === "fails") {
    part("claimed").replaceChildren(`${STRINGS.claims} `, make("s", {}, outcome));
    part("claimed").hidden = false;
  }
  if (annulled) document.documentElement.dataset.annulled = "";
  if (verdict !== "fails" && annulled) showHeadline({ ...shown, headline: STRINGS.annulled, mark: "✗" }, "failed");
  else if (verdict !== "fails") showHeadline({ ...shown, headline: outcome }, shown.state);
  say("where", campaign ?? receipt.campaignId);
  const pairs = [
    annulled && [facts.annulled, `${annulled.annulledAt}: ${annulled.reason}`],
    annulled && verdict !== "fails" && [facts.outcome, outcome],
    [facts.reference, receipt.ref],
    drawn && !annulled && receipt.rank !== null && [facts.rank, withCommas(receipt.rank)],
    reasons && [facts.reasons, reasons],
    receipt.registration?.at && [facts.registered, receipt.registration.at],
    ...notedIn(steps),
  ];
  part("facts").replaceChildren(...factList(pairs.filter(Boolean)).children);
}

function showTrust(items) {
  say("trust-title", STRINGS.trustTitle(items.length));
  part("trust-list").replaceChildren(
    ...items.map(({ title, text, act, again }) => {
      const item = make("li", act ? { class: "act" } : {}, make("h3", {}, title), make("p", {}, text));
      if (again) item.append(Object.assign(make("button", { type: "button" }, again), { onclick: () => check(page.text, true, true) }));
      return item;
    }),
  );
}

/** The field for what the ticket shop confirmed, and what it says. */
function showCompared({ receipt, steps }) {
  part("compare").hidden = !receipt.opened.length;
  if (page.known === null || part("compare").hidden) return;
  const changes = steps.find((step) => step.name === "opened").state === "failed"
    ? null
    : changesSince(parseOpened(receipt.opened), page.known);
  const { other, same, changed, change } = STRINGS.compared;
  const lines = changes === null ? [other] : changes.length ? [changed, ...changes.map(change)] : [same];
  say("compared", lines.join("\n"));
  part("compared").className = changes === null ? "refused" : changes.length ? "act" : "";
}

function showKeys(keys) {
  const own = ["receipt", "log"].find((by) => keys.some((key) => key.given === by));
  const given = own ?? (keys.length ? page.from : "none");
  say("keys-lead", STRINGS.keysLead[given]);
  part("key-list").replaceChildren(
    ...keys.map(({ what, name, fingerprint, given: by }) =>
      make(
        "li",
        {},
        make("h3", {}, `${STRINGS.keyKinds[what]}: ${name}`),
        factList([
          [STRINGS.fingerprint, fingerprint],
          [STRINGS.keyFrom, STRINGS.keyGiven[by]],
        ]),
      ),
    ),
  );
  part("keys").hidden = false;
}

/** Every step, one fold below, which is filled when it is opened: at once where a step failed. */
function showAudit({ verdict, steps, limits, receipt }, text) {
  page.fill = () => {
    part("steps").replaceChildren(...steps.map((step) => stepItem(step, receipt)));
    const list = make("ul", {}, ...[receipt?.guarantee, ...limits].filter(Boolean).map((each) => make("li", {}, String(each))));
    part("limits").hidden = receipt === null;
    part("limits").replaceChildren(make("summary", {}, STRINGS.limitsTitle), list);
    part("values").querySelector("pre").textContent = text;
    page.fill = () => {};
  };
  part("audit").hidden = false;
  part("audit").open = verdict === "fails";
  if (verdict === "fails") page.fill();
}

function stepItem({ name, state, detail, values }, receipt) {
  const words = wordsOf(name, receipt);
  const sentence = words.absent ?? (state === "passed" ? words.fan : words[state] ?? words.failed);
  const shown = words.absent && state === "passed" ? "absent" : state;
  const more = make("details", {}, make("summary", {}, STRINGS.details, make("span", { class: "unseen" }, `: ${words.title}`)));
  more.open = state !== "passed";
  more.append(make("p", {}, words.auditor), make("p", { class: "detail" }, detail));
  if (values.length > 0) more.append(factList(values));
  const head = [make("h3", {}, words.title), make("span", { class: `state ${shown}` }, STRINGS.states[shown])];
  const item = make("div", {}, make("div", { class: "head" }, ...head), make("p", {}, sentence));
  if (name === "randomness" && state === "unchecked") item.append(relays(receipt));
  item.append(more);
  const mark = make("span", { class: `mark ${shown}`, "aria-hidden": "true" }, STRINGS.marks[shown]);
  return make("li", { id: `step-${name}`, "data-state": state, tabindex: "-1" }, mark, item);
}

/** Names and values; hashes and lines of files are set in a fixed width. */
function factList(pairs) {
  const list = make("dl");
  for (const [name, value] of pairs) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    list.append(make("dt", {}, name), make("dd", CODE.test(text) ? { class: "code" } : {}, text));
  }
  return list;
}

/** Links to the round at the beacon's relays: nothing is fetched. */
function relays({ phases, seed }) {
  const { chain, round } = JSON.parse(phases[0].manifest).seedSource;
  const box = make("div", { class: "relays" }, make("p", {}, STRINGS.relaysLead));
  for (const host of RELAYS) {
    const href = `https://${host}/${encodeURIComponent(chain)}/public/${encodeURIComponent(round)}`;
    const link = make("a", { href, rel: "noopener noreferrer", target: "_blank" }, STRINGS.relay(host, round));
    box.append(make("div", {}, link));
  }
  box.append(factList([["signature", JSON.parse(seed).signature]]));
  return box;
}

/** Check what a person gave, or what came with the page: a file or a text. */
async function take(given, asked = true) {
  try {
    page.codes = null;
    const text = receiptIn(typeof given === "string" ? given : await textOf(given));
    await finish(text, asked);
  } catch (sentence) {
    page.run += 1;
    clear();
    showHeadline(STRINGS.waiting);
    say("refused", String(sentence));
    part("refused").scrollIntoView({ block: "nearest" });
  }
}

/** Check, and say so if the page itself fails: no verdict comes from a check that stopped. */
async function finish(text, asked) {
  try {
    await check(text, asked);
  } catch (error) {
    clear();
    showHeadline({ ...STRINGS.broken, summary: `${STRINGS.broken.summary} ${error}` });
    document.documentElement.dataset.verdict = "incomplete";
  }
}

async function takeTrust(file) {
  try {
    const trust = await textOf(file);
    // Throws for a malformed trust file, and only for that.
    checkReceipt("", { trust });
    Object.assign(page, { trust, from: "file" });
  } catch (reason) {
    say("trust-refused", STRINGS.refused.trust(reason.message ?? reason));
    return;
  }
  await finish(page.text, true);
}

async function takeCodes(file) {
  try {
    const codes = await textOf(file, MOST_LIST_BYTES);
    if (!hasLines(codes)) throw STRINGS.refused.codes;
    page.codes = codes;
  } catch (sentence) {
    say("codes-refused", String(sentence));
    return;
  }
  await finish(page.text, true);
}

async function takeFolder(files) {
  page.files = byName(files);
  await finish(page.text, true);
}

async function takeKnown() {
  const known = part("known").value.trim().toLowerCase();
  if (!isHash(known)) {
    part("compared").className = "refused";
    return say("compared", STRINGS.knownRefused);
  }
  page.known = known;
  await finish(page.text, false);
  part("compared").scrollIntoView({ block: "nearest" });
}

function fillTexts() {
  const texts = { kicker: "kicker", about: "footerPage", "checks-lead": "checksLead", "open-all": "openAll" };
  texts["audit-title"] = "auditTitle";
  Object.assign(texts, { "compare-title": "compareTitle", "known-help": "knownHelp", "check-known": "knownButton" });
  Object.assign(texts, { "files-title": "filesTitle", "folder-help": "folderHelp" });
  Object.assign(texts, { "keys-title": "keysTitle", "code-title": "codeTitle", "code-help": "codeHelp", "trust-help": "trustHelp", "input-title": "inputTitle" });
  Object.assign(texts, { "file-help": "fileHelp", "check-text": "pasteButton", privacy: "privacy" });
  for (const [id, name] of Object.entries(texts)) say(id, STRINGS[name]);
  const fields = { file: "fileField", text: "pasteField", "trust-file": "trustField", known: "knownField", codes: "codeField", folder: "folderField" };
  for (const label of document.querySelectorAll("label")) label.textContent = STRINGS[fields[label.htmlFor]];
  part("values").querySelector("summary").textContent = STRINGS.valuesTitle;
  part("values").querySelector("pre").ariaLabel = STRINGS.valuesTitle;
  part("values").querySelector("p").textContent = STRINGS.valuesHelp;
  part("input").hidden = false;
}

function listen() {
  const chosen = (event, taken) => {
    const [file] = event.target.files;
    // The same file may be chosen again, after a change.
    if (file) taken(file).then(() => (event.target.value = ""));
  };
  part("file").addEventListener("change", (event) => chosen(event, take));
  part("trust-file").addEventListener("change", (event) => chosen(event, takeTrust));
  part("codes").addEventListener("change", (event) => chosen(event, takeCodes));
  part("folder").addEventListener("change", (event) => takeFolder([...event.target.files]));
  part("check-text").addEventListener("click", () => take(part("text").value));
  part("check-known").addEventListener("click", takeKnown);
  document.addEventListener("paste", (event) => {
    // What is pasted into a field is no receipt yet.
    if (event.target.id === "known") return;
    const { files } = event.clipboardData;
    const given = files[0] ?? event.clipboardData.getData("text");
    if (given) take(given);
  });
  for (const type of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", type === "dragover");
      const given = type === "drop" && (event.dataTransfer.files[0] ?? event.dataTransfer.getData("text"));
      if (given) take(given);
    });
  }
  part("audit").addEventListener("toggle", () => part("audit").open && page.fill());
  part("open-all").addEventListener("click", () => {
    const all = [...part("steps").querySelectorAll("details")];
    const open = all.some((each) => !each.open);
    for (const each of all) each.open = open;
    say("open-all", open ? STRINGS.closeAll : STRINGS.openAll);
  });
  addEventListener("beforeprint", () => {
    page.fill();
    for (const each of document.querySelectorAll("details:not(#values)")) each.open = true;
  });
}

/** The trust file that the publisher of this page put into it. */
function takeOwnTrust() {
  const own = part("trusted").textContent;
  if (!own) return;
  Object.assign(page, { trust: new TextDecoder().decode(fromBinary(atob(own))), from: "page" });
}

fillTexts();
listen();
takeOwnTrust();
const embedded = part("receipt").textContent;
if (bare(embedded) === "") showHeadline(STRINGS.waiting);
else take(embedded, false);
