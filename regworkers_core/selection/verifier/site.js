// The public page of a draw: looks a ref up, checks its receipt or one from a file, and replays the draw in a worker.
import { ProofTiles } from "./lookup.js";
import { checkReceipt } from "./receipt.js";
import { replayDraw } from "./replay.js";

const SITE_TEXT = {
  outcomes: {
    WINNER: (market) => `Selected: ${market}.`,
    WAITLIST: () => "On the waiting list.",
    UNSELECTED: () => "Not selected.",
    HOUSEHOLD_LIMIT: () => "Not selected: the limit of the household was reached.",
    STRUCK: () => "Removed from the draw.",
  },
  verdicts: {
    holds: "The proof holds: every step was recomputed here.",
    incomplete: "Every step that could be recomputed here holds. Marked ? is what could not be checked here.",
    fails: "The proof does not hold: a step failed.",
  },
  marks: { passed: "✓", failed: "✗", unchecked: "?" },
  absent: "This reference is not in the draw: its neighbours in the list are next to each other.",
  absentWhy: "Why an entry was left out is not public. Ask the organiser for your receipt; it gives the reason.",
  noRef: "A reference has 1 to 64 of the characters A-Z a-z 0-9 _ -, as in your confirmation.",
  looking: "Looking up and checking …",
  failed: (why) => `This could not be read: ${why}. Reload the page and try again.`,
  save: "Save this receipt",
  replayed: (count, phases) => `${count.toLocaleString("en")} entries, ${phases} phase(s): every file follows from the committed list and the seed.`,
  findings: "The draw does not follow from its files:",
  limit: "Whether the randomness is the beacon's is checked with each receipt. When the hashes became public, only a copy from that time shows.",
};

/** The bytes of a range of a file beside `base`; also from a server that sends whole files only. */
export async function fetched(base, name, start, end) {
  const headers = start === undefined ? {} : { Range: `bytes=${start}-${end - 1}` };
  const answer = await fetch(new URL(name, base), { headers });
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  return answer.status === 206 ? bytes : bytes.subarray(start, end);
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function showAnswer(found, checked) {
  const answer = document.getElementById("answer");
  const steps = found.drawn ? checked.steps : checked.steps.filter((step) => step.name !== "reason");
  const failed = steps.some((step) => step.state === "failed");
  const verdict = failed ? "fails" : steps.some((step) => step.state === "unchecked") ? "incomplete" : "holds";
  const { outcome, market } = checked.receipt ?? {};
  const headline = found.drawn ? SITE_TEXT.outcomes[outcome]?.(market) : SITE_TEXT.absent;
  const list = element("ol", "", "checks");
  for (const { name, state, detail } of steps) {
    const item = element("li", name);
    item.prepend(element("span", SITE_TEXT.marks[state], `mark ${state === "failed" ? "bad" : "good"}`));
    item.append(element("div", detail, "detail"));
    list.append(item);
  }
  const save = element("a", SITE_TEXT.save);
  save.download = "receipt.json";
  save.href = URL.createObjectURL(new Blob([found.text], { type: "application/json" }));
  const parts = [element("p", SITE_TEXT.verdicts[verdict], failed ? "bad" : "good"), list];
  if (headline && !failed) parts.unshift(element("p", headline, "outcome"));
  if (!found.drawn) parts.push(element("p", SITE_TEXT.absentWhy));
  answer.replaceChildren(...parts, ...checked.limits.map((limit) => element("p", limit, "muted")), save);
  document.documentElement.dataset.verdict = verdict;
}

async function answerWith(work) {
  const answer = document.getElementById("answer");
  delete document.documentElement.dataset.verdict;
  answer.textContent = SITE_TEXT.looking;
  try {
    const found = await work();
    if (typeof found === "string") answer.textContent = found;
    else showAnswer(found, checkReceipt(found.text, { curves: globalThis.curves ?? null, trust: null }));
  } catch (error) {
    answer.textContent = SITE_TEXT.failed(error.message);
  }
}

function startReplay(phases) {
  const [button, bar, said] = ["replay", "progress", "replayed"].map((id) => document.getElementById(id));
  const code = new Blob([document.getElementById("code").textContent], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(code));
  const end = (...parts) => {
    worker.terminate();
    button.disabled = false;
    bar.hidden = true;
    said.replaceChildren(...parts);
  };
  button.disabled = true;
  bar.hidden = false;
  worker.onerror = (event) => end(element("p", SITE_TEXT.failed(event.message), "bad"));
  worker.onmessage = ({ data: { share, what, found, failure } }) => {
    if (failure) return end(element("p", SITE_TEXT.failed(failure), "bad"));
    if (!found) {
      bar.value = share;
      said.textContent = what;
      return;
    }
    document.documentElement.dataset.replay = found.passed ? "holds" : "fails";
    const hashes = found.phases.map((each) => element("p", `phase ${each.phase}: manifestHash ${each.manifestHash}, resultHash ${each.resultHash}`, "detail"));
    if (found.passed) end(element("p", SITE_TEXT.replayed(found.count, found.phases.length), "good"), ...hashes, element("p", SITE_TEXT.limit, "muted"));
    else end(element("p", SITE_TEXT.findings, "bad"), ...found.findings.map((each) => element("p", `${each.artefact}: ${each.message}`, "bad")));
  };
  worker.postMessage({ base: String(new URL("..", document.baseURI)), phases });
}

function startPage() {
  const tiles = new ProofTiles((name, start, end) => fetched(document.baseURI, name, start, end));
  const [form, input, file] = ["check", "ref", "file"].map((id) => document.getElementById(id));
  const look = () => answerWith(() => (/^[A-Za-z0-9_-]{1,64}$/.test(input.value.trim()) ? tiles.receipt(input.value.trim()) : SITE_TEXT.noRef));
  for (const each of document.querySelectorAll("[data-script]")) each.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    look();
  });
  file.addEventListener("change", () => answerWith(async () => {
    const text = await file.files[0].text();
    return { text, drawn: !/"kind"\s*:\s*"excluded"/.test(text) };
  }));
  document.getElementById("replay").addEventListener("click", (event) => startReplay(Number(event.target.dataset.phases)));
  // A link to one's own result: what follows # stays in the browser.
  input.value = decodeURIComponent(location.hash.replace(/^#ref=|^#.*/, ""));
  if (input.value) look();
}

function workOnReplay({ data: { base, phases } }) {
  const onProgress = (share, what) => postMessage({ share, what });
  replayDraw((name) => fetched(base, name), phases, { onProgress }).then(
    (found) => postMessage({ found }),
    (error) => postMessage({ failure: error.message }),
  );
}

if (typeof document !== "undefined") startPage();
else if (typeof postMessage === "function") globalThis.onmessage = workOnReplay;
