// The page: it takes a receipt, has every step checked, and shows what came of it. Everything from a receipt is put
// into the page as text, never as HTML.

import { bare, parsedOrNull, receiptIn, textOf } from "./given.js";
import { checkReceipt, receiptSteps, shownState } from "./receipt.js";
import { STRINGS } from "./strings.js";

const RELAYS = ["api.drand.sh", "api2.drand.sh", "drand.cloudflare.com"];
const CODE = /^[^ ]{24,}$/;

const page = { text: null, trust: null, run: 0 };
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

/** What the page shows of a receipt besides its check. The receipt may be malformed. */
function aboutReceipt(receipt) {
  const first = parsedOrNull(receipt.phases?.[0]?.manifest ?? receipt.manifest);
  const seed = parsedOrNull(receipt.seed);
  const trusted = parsedOrNull(page.trust);
  return {
    drawn: receipt.kind === "draw",
    logged: Boolean(receipt.log),
    undated: Boolean(receipt.log && !receipt.log.committed),
    phases: receipt.phases?.length ?? 1,
    source: first?.seedSource ?? {},
    signature: seed?.signature,
    annulled: receipt.annulled ? parsedOrNull(receipt.annulled) ?? {} : null,
    need: (trusted?.witnesses.length ? trusted : receipt.log?.keys)?.need ?? 0,
  };
}

/** Titles and sentences of a step. */
function wordsOf(name, about) {
  if (name.startsWith("outcome-")) {
    const { title, ...others } = STRINGS.steps.outcome;
    return { ...others, title: title(name.slice("outcome-".length)) };
  }
  if (name === "randomness") {
    return STRINGS.steps[`randomness-${about.source.kind === "commit-reveal" ? "commit-reveal" : "drand"}`];
  }
  const words = STRINGS.steps[name] ?? { title: name, fan: "", failed: "", auditor: "" };
  if (words.absent && !about.logged) return { ...words, unchecked: words.absent };
  if (name !== "witnesses") return words;
  return { ...words, ...(about.need === 0 && { fan: words.none }), ...(about.undated && { unchecked: words.undated }) };
}

function clear() {
  document.documentElement.removeAttribute("data-verdict");
  for (const id of ["says", "tiles", "trust", "checks", "keys", "values"]) part(id).hidden = true;
  part("mark").textContent = "";
  part("mark").className = "mark";
  say("open-all", STRINGS.openAll);
  say("refused", "");
}

function showHeadline({ headline, summary, mark = "" }, state = "") {
  say("headline", headline);
  say("summary", summary);
  part("mark").textContent = mark;
  part("mark").className = `mark ${state}`;
}

/** Check a receipt and show the steps one by one; `asked` by a person, who then finds the focus on the verdict. */
async function check(text, asked) {
  const run = ++page.run;
  page.text = text;
  clear();
  showHeadline(STRINGS.checking);
  part("status").textContent = STRINGS.checking.headline;
  say("input-title", STRINGS.inputAgain);
  await painted();
  const checking = receiptSteps(text, { curves: globalThis.curves ?? null, trust: page.trust });
  let step = checking.next();
  const receipt = parsedOrNull(bare(text)) ?? {};
  const about = aboutReceipt(receipt);
  const readable = step.value.name !== "receipt";
  part("steps").replaceChildren();
  part("checks").hidden = false;
  for (; !step.done; step = checking.next()) {
    part("steps").append(stepItem(step.value, wordsOf(step.value.name, about), about));
    await painted();
    // Another receipt was chosen meanwhile.
    if (run !== page.run) return;
  }
  const result = step.value;
  if (readable) showStatement(receipt, about, result.verdict);
  const trusts = readable && result.verdict !== "fails" ? showTrust(result, about, receipt) : [];
  showTiles(result, trusts);
  if (readable) showKeys(result.keys);
  showValues(text);
  const state = { holds: "passed", fails: "failed", incomplete: "unchecked" }[result.verdict];
  const shown = { ...STRINGS.verdicts[result.verdict], ...(readable ? {} : STRINGS.unreadable) };
  if (readable && state !== "passed") {
    const titles = result.steps.filter((each) => each.state === state).map((each) => wordsOf(each.name, about).title);
    shown.summary += `\n${STRINGS.states[state]}: ${titles.join(", ")}.`;
  }
  showHeadline(shown, state);
  document.title = `${shown.headline} – ${STRINGS.title}`;
  part("status").textContent = `${shown.headline}. ${shown.summary}`;
  if (asked) part("headline").focus();
  document.documentElement.dataset.verdict = result.verdict;
}

function stepItem({ name, state, detail, values }, words, about) {
  const as = shownState({ name, state, detail });
  const sentence = state === "passed" ? words.fan : words[state] ?? words.failed;
  const more = make("details", {}, make("summary", {}, STRINGS.details, make("span", { class: "unseen" }, `: ${words.title}`)));
  more.open = state !== "passed";
  more.append(make("p", {}, words.auditor), make("p", { class: "detail" }, detail));
  if (values.length > 0) more.append(factList(values));
  const item = make(
    "div",
    {},
    make(
      "div",
      { class: "head" },
      make("h3", {}, words.title),
      make("span", { class: `state ${as}` }, STRINGS.states[as]),
    ),
    make("p", {}, sentence),
  );
  if (name === "randomness" && state === "unchecked") item.append(relays(about));
  item.append(more);
  const mark = make("span", { class: `mark ${as}`, "aria-hidden": "true" }, STRINGS.marks[as]);
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
function relays({ source, signature }) {
  const box = make("div", { class: "relays" }, make("p", {}, STRINGS.relaysLead));
  const [chain, round] = [encodeURIComponent(source.chain), encodeURIComponent(source.round)];
  for (const host of RELAYS) {
    const href = `https://${host}/${chain}/public/${round}`;
    const link = make("a", { href, rel: "noopener noreferrer", target: "_blank" }, STRINGS.relay(host, source.round));
    box.append(make("div", {}, link));
  }
  if (signature) box.append(factList([["signature", signature]]));
  return box;
}

function showStatement(receipt, about, verdict) {
  const outcome = STRINGS.outcomes[about.drawn ? receipt.outcome : "excluded"] ?? String(receipt.outcome);
  say("says-title", verdict === "fails" ? STRINGS.claims : STRINGS.says);
  say("outcome", about.drawn && receipt.market ? `${outcome}: ${receipt.market}` : outcome);
  say("annulled", about.annulled ? STRINGS.annulled : "");
  const { facts } = STRINGS;
  const pairs = [
    [facts.campaign, receipt.campaignId],
    [facts.reference, receipt.ref],
  ];
  if (about.drawn) pairs.push([facts.rank, receipt.rank?.toLocaleString("en") ?? STRINGS.noRank]);
  if (about.drawn) pairs.push([facts.phases, String(about.phases)]);
  else pairs.push([facts.reasons, [receipt.reasons].flat().join(", ")]);
  if (receipt.roundAt) pairs.push([facts.round, `${String(receipt.roundAt).slice(0, 19).replace("T", " ")} UTC`]);
  if (about.annulled) pairs.push([facts.annulled, `${about.annulled.annulledAt}: ${about.annulled.reason}`]);
  part("facts").replaceChildren(...factList(pairs).children);
  part("says").className = verdict === "fails" ? "card doubt" : "card";
  part("says").hidden = false;
}

/** Show what is left to trust, and return it. */
function showTrust({ steps, keys, limits }, about, receipt) {
  const { trust } = STRINGS;
  const passed = (name) => steps.some((step) => step.name === name && step.state === "passed");
  const items = [];
  if (about.source.kind === "commit-reveal") items.push(trust.commitReveal);
  else if (!passed("log") || !passed("witnesses") || about.need === 0) items.push(trust.drandNoLog);
  if (!passed("witnesses") || about.need === 0) items.push(trust.noWitness);
  if (keys.some((key) => key.given === "operator")) items.push(trust.operatorKeys);
  if (about.drawn) items.push(trust.list, trust.replay, trust.later(about.phases));
  else items.push(trust.judgement);
  items.push(trust.page);
  part("trust-list").replaceChildren(
    ...items.map(([title, text]) => make("li", {}, make("h3", {}, title), make("p", {}, text))),
  );
  const list = make("ul", {}, ...[receipt.guarantee, ...limits].map((text) => make("li", {}, text)));
  part("limits").replaceChildren(make("summary", {}, STRINGS.limitsTitle), list);
  part("trust").hidden = false;
  return items;
}

/** Two figures of one size: what was checked, and what is left to trust, or what failed. */
function showTiles({ steps: all, verdict }, trusts) {
  const steps = all.filter((step) => shownState(step) !== "none");
  const count = (state) => steps.filter((step) => step.state === state).length;
  const tile = (href, state, number, text) =>
    make("a", { href, class: `tile ${state}` }, make("b", {}, number), make("span", {}, text));
  const { tiles } = STRINGS;
  const figure = tiles.passed(count("passed"), steps.length);
  const first = tile("#checks", count("passed") === steps.length ? "passed" : "unchecked", figure, tiles.passedText);
  const failed = steps.find((step) => step.state === "failed");
  const second =
    verdict === "fails"
      ? tile(`#step-${failed.name}`, "failed", String(count("failed")), tiles.failedText(count("failed")))
      : tile("#trust", "unchecked", String(trusts.length), tiles.leftText);
  part("tiles").replaceChildren(first, second);
  part("tiles").hidden = false;
}

function showKeys(keys) {
  const given = new Set(keys.map((key) => key.given));
  const lead = given.size === 0 ? "none" : given.size === 2 ? "mixed" : [...given][0];
  say("keys-lead", STRINGS.keysLead[lead]);
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

function showValues(text) {
  const box = part("values");
  box.querySelector("pre").textContent = text;
  box.hidden = false;
}

/** Check what a person gave: a file or a text. */
async function take(given) {
  try {
    const text = receiptIn(typeof given === "string" ? given : await textOf(given));
    await finish(text, true);
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
    page.trust = trust;
  } catch (reason) {
    say("trust-refused", STRINGS.refused.trust(reason.message ?? reason));
    return;
  }
  say("trust-refused", "");
  await finish(page.text, true);
}

function fillTexts() {
  const texts = { kicker: "kicker", about: "footerPage", "trust-title": "trustTitle", "trust-lead": "trustLead" };
  Object.assign(texts, { "checks-title": "checksTitle", "checks-lead": "checksLead", "open-all": "openAll" });
  Object.assign(texts, { "keys-title": "keysTitle", "trust-help": "trustHelp", "input-title": "inputTitle" });
  Object.assign(texts, { "file-help": "fileHelp", "check-text": "pasteButton", privacy: "privacy" });
  for (const [id, name] of Object.entries(texts)) say(id, STRINGS[name]);
  for (const label of document.querySelectorAll("label")) {
    label.textContent = { file: STRINGS.fileField, text: STRINGS.pasteField, "trust-file": STRINGS.trustField }[label.htmlFor];
  }
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
  part("check-text").addEventListener("click", () => take(part("text").value));
  document.addEventListener("paste", (event) => {
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
  part("open-all").addEventListener("click", () => {
    const all = [...part("steps").querySelectorAll("details")];
    const open = all.some((each) => !each.open);
    for (const each of all) each.open = open;
    say("open-all", open ? STRINGS.closeAll : STRINGS.openAll);
  });
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details:not(#values)")) each.open = true;
  });
}

fillTexts();
listen();
const embedded = part("receipt").textContent;
if (bare(embedded) === "") showHeadline(STRINGS.waiting);
else finish(embedded, false);
