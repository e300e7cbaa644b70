// Sends forms, says what is wrong while one types, and follows what goes on.
"use strict";

const at = (id) => document.getElementById(id);
const post = (body) =>
  fetch(location.pathname + location.search, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

// The sentence of the server for each field, and for the whole. While one types, only what was touched is said to be wrong.
function show(form, answer, touched) {
  for (const field of form.elements) {
    if (!field.name) continue;
    const named = answer.wrong && answer.wrong.field === field.name;
    const wrong = named && (!touched || touched.has(field.name)) ? answer.wrong.why : "";
    at("wrong-" + field.name).textContent = wrong;
    field.setAttribute("aria-invalid", wrong ? "true" : "false");
    if (wrong && !touched) {
      const folded = field.closest("details");
      if (folded) folded.open = true;
      field.focus();
    }
  }
  if (touched) return;
  const whole = answer.said || (answer.wrong && !form.elements[answer.wrong.field] ? answer.wrong.why : "");
  at("said").textContent = whole || "";
}

function typed(form, uploads) {
  const found = {};
  for (const field of form.elements) {
    if (!field.name) continue;
    if (field.type === "checkbox") found[field.name] = field.checked;
    else if (field.type === "file") found[field.name] = uploads[field.name] || "";
    else found[field.name] = field.value;
  }
  return found;
}

// Each chosen file goes to the private store first; the form has the name that it got there.
async function upload(form) {
  const names = {};
  for (const field of form.elements) {
    if (field.type !== "file" || !field.files.length) continue;
    const file = field.files[0];
    if (file.size > Number(form.dataset.mostMib) * 1024 * 1024)
      return { wrong: { field: field.name, why: "The file is larger than " + form.dataset.mostMib + " MiB." } };
    at("said").textContent = "Sending " + file.name + " …";
    const answer = await fetch(form.dataset.uploads + encodeURIComponent(file.name), {
      method: "PUT",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    if (!answer.ok) return { wrong: { field: field.name, why: await answer.text() } };
    names[field.name] = (await answer.json()).upload;
  }
  return { names };
}

async function send(form) {
  const sent = await upload(form);
  if (!sent.names) return sent;
  const fields = typed(form, sent.names);
  const answer = await post("word" in fields || !form.dataset.uploads ? { word: fields.word || "" } : { typed: fields });
  return answer.headers.get("Content-Type").startsWith("application/json")
    ? answer.json()
    : { said: await answer.text() };
}

function serve(form) {
  const button = form.querySelector("button");
  const touched = new Set();
  let waiting;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    button.disabled = true;
    try {
      const answer = await send(form);
      if (answer.at) location.assign(answer.at);
      else show(form, answer);
    } catch {
      show(form, { said: "The connection broke: look at the runs of the campaign before you send it again." });
    }
    button.disabled = false;
  });
  if (!form.dataset.uploads) return;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    touched.add(event.target.name);
    waiting = setTimeout(async () => {
      const answer = await post({ typed: typed(form, {}), check: true });
      if (answer.headers.get("Content-Type").startsWith("application/json")) show(form, await answer.json(), touched);
    }, 300);
  });
}

// While something goes on, the part of the page that shows it is read again; what a person types in stays.
async function follow() {
  const live = at("live");
  if (!live || !live.dataset.every) return;
  await new Promise((done) => setTimeout(done, 1000 * Number(live.dataset.every)));
  const focused = live.contains(document.activeElement) ? document.activeElement : null;
  if (!document.hidden && !(focused && focused.form)) {
    try {
      const answer = await fetch(location.href);
      const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (answer.ok && found && found.innerHTML !== live.innerHTML) {
        live.replaceWith(found);
        const address = focused && focused.getAttribute("href");
        if (address) [...found.querySelectorAll("a")].find((link) => link.getAttribute("href") === address)?.focus();
        const form = at("form");
        if (form && found.contains(form)) serve(form);
      }
    } catch {
      // The next time.
    }
  }
  follow();
}

if (at("form")) serve(at("form"));
follow();
