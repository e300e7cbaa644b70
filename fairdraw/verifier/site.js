// The public page of a draw: looks a ref up, checks its receipt or one from a file, and replays the draw in a worker.
import { isId, withCommas } from "./fields.js";
import { checkConfirmation, isConfirmation } from "./confirmed.js";
import { bare, fromHost, parsedOrNull, receiptIn, rootOf, textOf } from "./given.js";
import { ProofTiles } from "./lookup.js";
import { checkReceipt } from "./receipt.js";
import { replayDraw } from "./folder.js";
import { STRINGS } from "./strings.js";
import { leftToTrust, registeredWords, verdictOf, wordsOf } from "./trusted.js";

const SITE_TEXT = {
  absent: "This reference is not in the draw: its neighbours in the list are next to each other.",
  capitals: "Capitals count in a reference: compare it with your confirmation.",
  absentWhy: "Why an entry was left out is not public. Ask the organiser for your receipt: it gives the reason.",
  noRef: "A reference has 1 to 64 of the characters A-Z a-z 0-9 _ -, as in your confirmation.",
  looking: "Fetching the proof and checking it …",
  fromDisk: "A page from disk cannot fetch the proofs: open it from a host of files, or check a receipt from a file.",
  replayFromDisk: "A page from disk cannot fetch the lists: open it from a host of files.",
  failed: (what, why) => `${what} could not be read: ${why}. Reload the page, and try again.`,
  proofs: "The proofs",
  files: "The files of the draw",
  save: "Save this receipt, to check it elsewhere",
  replayed: (count, phases) => {
    const draw = `${withCommas(count)} entries, ${phases === 1 ? "one phase" : `${phases} phases`}`;
    return `${draw}: every result follows from the committed list and the seed.`;
  },
  incomplete: "Nothing contradicts it, but not everything could be checked:",
  annulled: ({ annulledAt, reason }) => `${STRINGS.annulled}. The reason given at ${annulledAt}: ${reason}`,
  hashes: ({ phase, manifestHash, resultHash }) => `phase ${phase}: manifestHash ${manifestHash}, resultHash ${resultHash}`,
  differs: "These files do not follow from the committed list and the seed:",
  compare: "Compare these hashes with a copy from the time when they became public.",
};

/** The bytes of a range of a file beside `base`; also from a server that sends whole files only. */
export async function fetched(base, name, start, end) {
  const ranged = start !== undefined;
  const answer = await fetch(new URL(name, base), { headers: ranged ? { Range: `bytes=${start}-${end - 1}` } : {} });
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (!ranged) return bytes;
  const partial = answer.status === 206;
  const part = partial ? bytes : bytes.subarray(start, end);
  const other = partial && !answer.headers.get("Content-Range")?.startsWith(`bytes ${start}-${end - 1}/`);
  if (other || part.length !== end - start) {
    throw new Error(`${name}: the host sent other bytes than ${start} to ${end - 1}`);
  }
  return part;
}

function element(name, text, className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function stepItem({ name, state, detail }, receipt) {
  const words = wordsOf(name, receipt);
  const shown = words.absent && state === "passed" ? "absent" : state;
  const item = element("li", `${words.title}: `);
  const mark = element("span", STRINGS.marks[shown], `mark ${{ passed: "good", failed: "bad" }[shown] ?? ""}`);
  mark.ariaHidden = "true";
  item.prepend(mark);
  item.append(element("span", STRINGS.states[shown].toLowerCase(), "state"), element("div", detail, "detail"));
  return item;
}

/** The parts of a fold under its title. */
function fold(title, ...parts) {
  const made = element("details", "");
  made.append(element("summary", title), ...parts);
  return made;
}

/** Result first, then what was checked, then what is left to trust; the steps one fold below. */
function showAnswer(text, checked, markets) {
  const { limits, receipt } = checked;
  const drawn = receipt?.kind === "draw";
  // What a ref alone gives does not have the reason of an exclusion.
  const steps = receipt?.kind !== "excluded" || receipt.reasons.length ? checked.steps : checked.steps.filter((step) => step.name !== "reason");
  const failed = steps.some((step) => step.state === "failed");
  const result = { ...checked, steps, verdict: failed ? "fails" : checked.trusted ? checked.verdict : "incomplete" };
  const { headline, summary, state } = verdictOf(result);
  const parts = [];
  if (receipt === null || failed) parts.push(element("p", headline, "bad outcome"));
  else if (isConfirmation(receipt)) parts.push(element("p", registeredWords(steps, checked.listed), "outcome"));
  else {
    const { market, outcome } = receipt;
    const where = market && markets[market] ? `${markets[market]} (${market})` : market;
    const words = drawn ? [STRINGS.outcomes[outcome], where].filter(Boolean).join(": ") : SITE_TEXT.absent;
    if (receipt.annulled) parts.push(element("p", STRINGS.annulled, "bad outcome"));
    parts.push(element("p", words, receipt.annulled ? "muted" : "outcome"));
    if (!drawn) parts.push(element("p", SITE_TEXT.capitals), element("p", SITE_TEXT.absentWhy));
  }
  parts.push(element("p", summary, state === "passed" ? "good lines" : "lines"));
  if (receipt !== null && !failed) parts.push(trustList(leftToTrust(result, false), text), keysFold(result.keys));
  const save = element("a", SITE_TEXT.save);
  save.download = "receipt.json";
  save.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const list = element("ol", "", "checks");
  list.append(...steps.map((step) => stepItem(step, receipt)));
  const all = fold(STRINGS.auditTitle, list, ...limits.map((limit) => element("p", limit, "muted")));
  all.open = failed;
  document.getElementById("answer").replaceChildren(...parts, save, all);
  document.documentElement.dataset.verdict = result.verdict;
}

function keysFold(keys) {
  const said = ({ what, name, fingerprint, given }) => `${STRINGS.keyKinds[what]}: ${name}, ${fingerprint}, ${STRINGS.keyGiven[given]}`;
  return fold(STRINGS.keysTitle, ...keys.map((key) => element("p", said(key), "detail")));
}

function trustList(items, receipt) {
  const [box, list] = [element("div", ""), element("ul", "", "trust")];
  list.append(
    ...items.map(({ title, text, act, again }) => {
      const item = element("li", "", act ? "act" : "");
      item.append(element("b", title), element("p", text));
      if (again) item.append(Object.assign(element("button", again), { type: "button", onclick: () => answerWith(() => receipt, { whole: true }) }));
      return item;
    }),
  );
  box.append(element("h3", STRINGS.trustTitle(items.length)), list);
  return box;
}

/** The curves of signatures, once `unpack.js` has unpacked them; null in a build without them. */
async function unpackedCurves() {
  const packed = document.querySelector('script[type="application/gzip"]');
  for (let tries = 0; packed && !globalThis.curves && tries < 200; tries++) await new Promise((next) => setTimeout(next, 25));
  return globalThis.curves ?? null;
}

/** The check of a confirmation against the files of this host. */
function confirmed(text, given) {
  if (location.protocol === "file:") throw SITE_TEXT.fromDisk;
  const onRead = (done, of) => (document.getElementById("answer").textContent = `${SITE_TEXT.looking} ${done} / ${of}`);
  return checkConfirmation(text, (name) => fromHost(rootOf(document.baseURI), name), { ...given, onRead });
}

/** Show what came of a receipt, which `work` resolves to, or why there is none: what it throws as a text. */
async function answerWith(work, { looked = false, whole = false } = {}) {
  const answer = document.getElementById("answer");
  delete document.documentElement.dataset.verdict;
  answer.textContent = SITE_TEXT.looking;
  try {
    const text = await work();
    const given = { curves: await unpackedCurves(), whole };
    const checked = isConfirmation(parsedOrNull(bare(text))) ? await confirmed(text, given) : checkReceipt(text, given);
    // This page made the receipt of them: it is no one's, so there is no verdict about it.
    if (looked && checked.receipt === null) throw new Error(checked.steps[0].detail);
    showAnswer(text, checked, JSON.parse(document.getElementById("check").dataset.markets ?? "{}"));
  } catch (error) {
    answer.textContent = typeof error === "string" ? error : SITE_TEXT.failed(SITE_TEXT.proofs, error.message);
  }
  // On a phone the form fills the screen.
  answer.scrollIntoView({ block: "nearest" });
}

async function startReplay() {
  const [button, bar, said] = ["replay", "progress", "replayed"].map((id) => document.getElementById(id));
  if (location.protocol === "file:") return said.replaceChildren(element("p", SITE_TEXT.replayFromDisk));
  button.disabled = true;
  await unpackedCurves();
  // The same code as here, which sees that it is in a worker; before it the curves.
  const scripts = [...document.querySelectorAll("head script"), document.getElementById("code")];
  const code = scripts.map((script) => script.textContent).join("\n");
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const end = (...parts) => {
    worker.terminate();
    button.disabled = false;
    bar.hidden = true;
    said.replaceChildren(...parts);
  };
  bar.hidden = false;
  worker.onerror = (event) => end(element("p", SITE_TEXT.failed(SITE_TEXT.files, event.message), "bad"));
  worker.onmessage = ({ data: { share, what, found, failure } }) => {
    if (failure) return end(element("p", SITE_TEXT.failed(SITE_TEXT.files, failure), "bad"));
    if (!found) {
      bar.value = share;
      said.textContent = what;
      return;
    }
    end(...replayedParts(found));
    document.documentElement.dataset.replay = found.verdict;
  };
  // What this page lists, as a folder would.
  const base = String(new URL("..", document.baseURI));
  const names = [...document.querySelectorAll("a[download]")].map((link) => link.href.slice(base.length));
  worker.postMessage({ base, names: names.filter((name) => !name.startsWith("page/")) });
}

/** What came of a replay: that a draw was annulled comes first, and is never good news. */
function replayedParts({ verdict, annulled, count, findings, notes, phases }) {
  const lines = (texts) => texts.map((text) => element("p", text, "detail"));
  const parts = annulled ? [element("p", SITE_TEXT.annulled(annulled), "bad outcome")] : [];
  if (findings.length) {
    return [...parts, element("p", SITE_TEXT.differs, "bad outcome"), ...lines(findings.map((each) => `${each.artefact}: ${each.message}`))];
  }
  const good = verdict === "holds" ? "good outcome" : "outcome";
  parts.push(element("p", SITE_TEXT.replayed(count, phases.length), annulled ? "muted" : good));
  if (verdict === "incomplete") parts.push(element("p", SITE_TEXT.incomplete));
  return [...parts, ...lines([...notes, ...phases.map(SITE_TEXT.hashes), SITE_TEXT.compare])];
}

function startPage() {
  const tiles = new ProofTiles((name, start, end) => fetched(document.baseURI, name, start, end));
  const [form, input, file] = ["check", "ref", "file"].map((id) => document.getElementById(id));
  const lookedUp = async () => {
    const ref = input.value.trim();
    if (!isId(ref)) throw SITE_TEXT.noRef;
    if (location.protocol === "file:") throw SITE_TEXT.fromDisk;
    return (await tiles.receipt(ref)).text;
  };
  const look = () => answerWith(lookedUp, { looked: true });
  for (const each of document.querySelectorAll("[data-script]")) each.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    look();
  });
  // The same file may be chosen again, after a change.
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    await answerWith(async () => receiptIn(await textOf(chosen)));
    file.value = "";
  });
  document.getElementById("replay").addEventListener("click", startReplay);
  // A link to one's own result: what follows # stays in the browser.
  const follow = () => {
    const [, ref] = /^#ref=(.+)$/.exec(location.hash) ?? [];
    if (!ref) return;
    input.value = ref;
    look();
  };
  addEventListener("hashchange", follow);
  follow();
}

function workOnReplay({ data: { base, names } }) {
  const onProgress = (share, what) => postMessage({ share, what });
  replayDraw(names, (name) => fetched(base, name), { onProgress, curves: globalThis.curves ?? null }).then(
    (found) => postMessage({ found }),
    (error) => postMessage({ failure: error.message }),
  );
}

if (typeof document !== "undefined") startPage();
else if (typeof postMessage === "function") globalThis.onmessage = workOnReplay;
