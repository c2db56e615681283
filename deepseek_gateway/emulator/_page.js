"use strict";
// Data from an exchange is set only with textContent, so that it never becomes markup.
const find = (selector) => document.querySelector(selector);
const form = find("form");
const shown = new Map();
let run = "", most = 0, cleared = 0;

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  return made;
}

// Shows pairs of text and class side by side.
function fill(cell, ...pieces) {
  const spans = pieces.filter(([text]) => text).map(([text, kind]) => element("span", text, kind));
  cell.replaceChildren(...spans.flatMap((span, index) => index ? [" ", span] : [span]));
}

const clock = (seconds) => {
  const date = new Date(seconds * 1000), two = (number) => String(number).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
};
const duration = (seconds) => seconds < 0.9995 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;

const broken = ({status, complete, seconds}) => seconds !== null && (status === null || !complete);

function status(row) {
  const {status, streamed, seconds, code, retry} = row;
  const kind = status === null ? "bad" : status < 300 ? "good" : status < 500 ? "warn" : "bad";
  const goes = status === null ? "waiting" : streamed ? "streaming" : "sending";
  const counted = [retry ? `try ${retry + 1}` : "", "muted"];
  if (seconds === null) return [[status ?? "", kind], [goes, "muted"], counted];
  if (status === null) return [["no answer", "bad"], counted];
  const ended = broken(row) ? ["cut off", "bad"] : [streamed ? "stream" : "", "muted"];
  return [[status, kind], [code, code ? kind : ""], ended, counted];
}

function draw(view) {
  const {began, method, route, endpoint, asked, sent, cache, tokens, seconds, prompt, retried} = view.row;
  const cell = (kind) => view.summary.querySelector(kind);
  const [asks, answers, hits] = tokens ?? [0, 0, 0];
  view.summary.classList.toggle("tried", retried);
  cell("button").textContent = clock(began);
  fill(cell(".route"), [route], [method === "POST" ? endpoint : `${method} ${endpoint}`, "muted"]);
  fill(cell(".model"), [asked || "–", asked ? "" : "muted none"],
    [sent !== null && sent !== asked ? `→ ${sent}` : "", "muted"], [prompt, "prompt"]);
  fill(cell(".status"), ...status(view.row));
  fill(cell(".cache"), [cache || "–", cache ? cache === "HIT" ? "good" : "muted" : "muted none"]);
  fill(cell(".tokens"), [hits ? `${hits.toLocaleString("en")} cached` : "", "muted"],
    [tokens ? `${asks.toLocaleString("en")} / ${answers.toLocaleString("en")}` : "–", tokens ? "" : "muted none"]);
  fill(cell(".time"), [seconds === null ? "…" : duration(seconds)]);
}

// The newest exchange is on top. The tries of one call stay together. Rows may arrive out of order after a reconnect.
const place = ({first, number}) => first * 2 ** 24 + number;

function show(row) {
  if (row.number <= cleared) return;
  let view = shown.get(row.number);
  if (!view) {
    const [summary, panel] = find("#row").content.cloneNode(true).children;
    view = {row, summary, panel, opened: false};
    panel.id = `exchange-${row.number}`;
    summary.querySelector("button").setAttribute("aria-controls", panel.id);
    summary.addEventListener("click", ({detail: byMouse}) => {
      if (!byMouse || getSelection().isCollapsed) open(view, !view.opened);  // selecting text is not a click
    });
    const older = [...shown.values()].filter((other) => place(other.row) < place(row));
    const below = older.sort((one, other) => place(other.row) - place(one.row))[0];
    find("tbody").insertBefore(summary, below?.summary ?? null);
    summary.after(panel);
    if (!shown.size) find("#connection").open = false;
    shown.set(row.number, view);
    if (shown.size > most) forget(Math.min(...shown.keys()));
  }
  view.row = row;
  view.text = [row.prompt, row.asked, row.sent, row.path, row.code].join(" ").toLowerCase();
  draw(view);
  if (view.opened) load(view);
  filter();
}

function forget(number) {
  shown.get(number).summary.remove();
  shown.get(number).panel.remove();
  shown.delete(number);
}

function filter() {
  const wanted = Object.fromEntries(new FormData(form)), text = wanted.text.toLowerCase().trim();
  let visible = 0;
  for (const view of shown.values()) {
    const kind = broken(view.row) ? "broken" : String(view.row.status)[0];
    const matches = (!wanted.status || kind === wanted.status)
      && (!wanted.route || view.row.route === wanted.route) && view.text.includes(text);
    visible += matches;
    view.summary.hidden = !matches;
    view.panel.hidden = !matches || !view.opened;
  }
  form.hidden = shown.size === 0;
  find("#exchanges").hidden = visible === 0;
  find("#none").textContent = visible ? "" : shown.size ? "No exchange matches." : "No exchanges yet.";
}

function clear() {
  cleared = Math.max(cleared, ...shown.keys());
  sessionStorage.setItem(run, cleared);  // so that a reload does not bring them back
  [...shown.keys()].forEach(forget);
  filter();
}

function open(view, opened) {
  view.opened = opened;
  view.summary.classList.toggle("open", opened);
  view.summary.querySelector("button").setAttribute("aria-expanded", opened);
  if (opened) load(view);
  filter();
}

async function load(view) {
  const asked = view.row;
  let parts = [], trouble = "The emulator does not answer.";
  try {
    const answer = await fetch(`/_exchanges/${asked.number}`);
    if (answer.ok) parts = await answer.json();
    else trouble = "The emulator no longer keeps this exchange.";
  } catch { /* shown as `trouble` */ }
  if (view.row !== asked) return;  // the row has changed, so its parts are loaded again
  const room = view.panel.querySelector(".parts");
  if (parts.length || !room.children.length) {
    room.replaceChildren(...parts.length ? parts.map(section) : [element("p", trouble, "note")]);
  }
}

function section({title, line, headers = [], body = "", note = "", curl = ""}) {
  const made = element("section", "");
  const names = element("dl", "");
  for (const [name, value] of headers) {
    const pair = element("div", "");
    pair.append(element("dt", `${name}: `), element("dd", value));
    names.append(pair);
  }
  if (curl) {
    const button = element("button", "Copy as curl", "plain");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(curl);
      button.textContent = "Copied";
    });
    made.append(button);
  }
  made.append(element("h3", title), element("p", line, "line"), names, element("pre", body));
  if (note) made.append(element("p", note, "note"));
  return made;
}

function state(text, live) {
  find("#state").textContent = text;
  find("#state").classList.toggle("live", live);
}

function connect() {
  const source = new EventSource("/_exchanges");
  source.addEventListener("run", ({data}) => {
    const about = JSON.parse(data);
    if (run !== about.run) [...shown.keys()].forEach(forget);  // the emulator was restarted
    ({run, most} = about);
    cleared = Number(sessionStorage.getItem(run));
    const settings = Object.entries(about.settings);
    find("#posix").textContent = settings.map(([name, value]) => `export ${name}='${value}'`).join("\n");
    find("#powershell").textContent = settings.map(([name, value]) => `$env:${name} = '${value}'`).join("\n");
    if (about.empty) find("#connection").open = true;
    state("Live", true);
    filter();
  });
  source.onmessage = ({data}) => show(JSON.parse(data));
  source.onerror = () => {
    state("Reconnecting", false);
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1000);  // the browser does not retry
  };
}

find("#address").textContent = location.origin;
find("#clear").addEventListener("click", clear);
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
connect();
