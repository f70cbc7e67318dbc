// The page of the sandbox: one WebSocket says what is running, one request reads the output of the chosen run, and
// another WebSocket is its terminal. xterm.js and uPlot are other people's; without them the rest works.

const $ = (id) => document.getElementById(id);
const scheme = matchMedia("(prefers-color-scheme: dark)");
const library = (path) => import(path).catch(() => null);
const [uplot, xterm, addonFit] = await Promise.all(["/lib/uplot.js", "/lib/xterm.js", "/lib/addon-fit.js"].map(library));

const PRESETS = {
  "Hello": 'echo "hello from $(hostname), I am $(id -un)"\nfor i in 1 2 3 4 5; do echo "line $i"; sleep 0.4; done\necho "this goes to stderr" >&2\nexit 3',
  "CPU and memory": 'echo "busy for a while, in waves"\ni=0\nwhile [ $i -lt 8 ]; do\n  until=$(($(date +%s) + 3))\n  while [ $(date +%s) -lt $until ]; do :; done\n  head -c $((i * 6000000)) /dev/zero >/tmp/wave; sleep 2\n  i=$((i + 1)); echo "wave $i"\ndone',
  "Too much memory": 'echo "eating memory"\nexec tail /dev/zero',
  "Fork bomb": 'bomb() { bomb | bomb & }\nbomb\nsleep 2\necho "still here: $(ls /proc | grep -c "^[0-9]") processes"',
  "Reach the host": 'echo "interfaces:"; ls /sys/class/net\necho "processes:"; ps\nnc -w 2 127.0.0.1 8080 || echo "no way out"\ntouch /bin/mine || echo "read-only"',
};
const SHELL = "# a container to type into\nwhile :; do sleep 3600; done";

let token = takeToken();
let runs = new Map();
let chosen = null; // the id of the run that is shown
let reading = null; // the AbortController of its output
let terminal = null; // {id, socket, close}
let plots = null; // {cpu, memory}
let most = {};

// -- asking the service ------------------------------------------------------------------------------------------

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", location.pathname); // not into bookmarks
  }
  return sessionStorage.getItem("token") ?? "";
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Authorization: `Bearer ${token}` } });
  if (answer.status === 401) {
    await login();
    return ask(path, options);
  }
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

let entering = null;
function login() {
  entering ??= new Promise((resolve) => {
    $("login").showModal();
    $("login").onclose = () => {
      token = $("token").value.trim();
      sessionStorage.setItem("token", token);
      entering = null;
      resolve();
    };
    $("login").oncancel = (event) => event.preventDefault();
  });
  return entering;
}

function socket(path) {
  const made = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}${path}`, ["sandbox", `bearer.${token}`]);
  made.binaryType = "arraybuffer";
  return made;
}

async function* lines(answer, signal) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done || signal.aborted) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

// -- the list ----------------------------------------------------------------------------------------------------

async function watch(pause = 500) {
  try {
    await ask("/runs"); // asks for the token, where a WebSocket could not say that it is wrong
    const live = socket("/live");
    live.onopen = () => { pause = 500; connected(true); };
    live.onmessage = (message) => update(JSON.parse(new TextDecoder().decode(message.data)));
    await new Promise((resolve) => { live.onclose = resolve; });
  } catch { /* it is asked again */ }
  connected(false);
  setTimeout(() => watch(Math.min(pause * 2, 8000)), pause);
}

function connected(yes) {
  $("link").textContent = yes ? "live" : "not connected";
  $("link").classList.toggle("live", yes);
}

function update(overview) {
  if (!most.running) allow(overview.most);
  if (!overview.statistics) notice("No plots: this runtime has no statistics. runc has, crun has not.");
  $("active").textContent = overview.active;
  $("most").textContent = overview.most.running;
  const before = runs;
  runs = new Map();
  for (const told of overview.runs) {
    const samples = before.get(told.id)?.samples ?? [];
    samples.push(...told.samples.map(([time, cpu, memory]) => ({ time, cpu, memory })));
    runs.set(told.id, { ...told, samples, row: before.get(told.id)?.row });
  }
  for (const [id, run] of before) if (!runs.has(id)) run.row.remove();
  $("none").hidden = runs.size > 0;
  let place = $("runs").firstElementChild;
  for (const run of runs.values()) {
    run.row ??= newRow(run.id);
    if (run.row !== place) $("runs").insertBefore(run.row, place);
    place = run.row.nextElementSibling;
    fillRow(run);
  }
  if (chosen && runs.has(chosen)) fillDetail(runs.get(chosen));
}

function kind(run) {
  if (run.state !== "ended") return "running";
  return run.status === 0 ? "good" : "bad";
}

function outcome(run) {
  if (run.state !== "ended") return run.state;
  if (run.reason) return run.reason;
  if (run.out_of_memory && run.status === 137) return "out of memory";
  const status = run.status === null ? "ended" : `exit ${run.status}`;
  return run.out_of_memory ? `${status}, short of memory` : status;
}

const percent = (cpu) => `${Math.round(cpu * 100)} %`;
const size = (bytes) => (bytes < 10 << 20 ? `${(bytes / (1 << 20)).toFixed(1)} MiB` : `${Math.round(bytes / (1 << 20))} MiB`);
const span = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`);

function newRow(id) {
  const row = document.createElement("li");
  row.innerHTML = '<button type="button"><span class="dot"></span><span class="title"></span><span class="what"></span><span class="spark"></span></button>';
  row.dataset.id = id;
  row.firstElementChild.onclick = () => choose(id);
  return row;
}

function fillRow(run) {
  run.row.className = kind(run);
  run.row.ariaCurrent = run.id === chosen;
  run.row.querySelector(".title").textContent = run.title;
  const usage = run.state === "running" && run.usage ? ` · ${percent(run.usage.cpu)} · ${size(run.usage.memory)}` : "";
  run.row.querySelector(".what").textContent = `${outcome(run)} · ${span(run.seconds)}${usage}`;
  const place = run.row.querySelector(".spark");
  if (!uplot || run.samples.length < 2) return;
  const data = [run.samples.map((s) => s.time), run.samples.map((s) => s.cpu)];
  if (place.plot) return place.plot.setData(data);
  place.plot = new uplot.default({
    width: 92, height: 30, cursor: { show: false }, legend: { show: false }, axes: [{ show: false }, { show: false }],
    padding: [2, 0, 2, 0], scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(high, run.limits.cpus)] } },
    series: [{}, { stroke: color("--live"), fill: faded("--live"), width: 1.5, points: { show: false } }],
  }, data, place);
}

// -- the chosen run ----------------------------------------------------------------------------------------------

async function choose(id, tab = "output") {
  if (chosen !== id) {
    reading?.abort();
    terminal?.close();
    chosen = id;
    for (const name of ["output", "source"]) $(name).textContent = "";
    dropPlots();
  }
  $("welcome").hidden = true;
  $("detail").hidden = false;
  if (runs.has(id)) {
    for (const run of runs.values()) run.row.ariaCurrent = run.id === chosen;
    fillDetail(runs.get(id));
  }
  show(tab);
  if (matchMedia("(max-width: 900px)").matches) $("detail").scrollIntoView({ behavior: "smooth" });
  reading = new AbortController();
  await read(id, reading.signal).catch((error) => { if (error.name !== "AbortError") say(error.message); });
}

async function read(id, signal) {
  const run = await (await ask(`/runs/${id}`, { signal })).json();
  $("source").textContent = run.program;
  $("output").textContent = "";
  const answer = await ask(`/runs/${id}/logs?follow=1`, { signal });
  for await (const { stream, text } of lines(answer, signal)) {
    const pane = $("output");
    const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
    pane.append(Object.assign(document.createElement("span"), { className: stream, textContent: text }));
    if (atEnd) pane.scrollTop = pane.scrollHeight;
  }
  if (!$("output").textContent) say("it printed nothing");
}

function say(text) {
  $("output").append(Object.assign(document.createElement("span"), { className: "note", textContent: text }));
}

function fillDetail(run) {
  $("title").textContent = run.title;
  const { memory, cpus, pids, timeout } = run.limits;
  const began = new Date(run.began).toLocaleTimeString();
  $("facts").textContent = `${run.id} · since ${began} · ${span(run.seconds)} · up to ${memory} MiB, ${cpus} CPU, ${pids} processes, ${timeout} s`;
  $("state").textContent = outcome(run);
  $("state").className = `pill ${kind(run)}`;
  $("kill").hidden = run.state === "ended";
  const tab = document.querySelector('[data-tab="terminal"]');
  tab.disabled = !xterm || (run.state !== "running" && terminal?.id !== run.id);
  if (tab.ariaSelected === "true" && !terminal && run.state === "running") openTerminal(run.id);
  $("cpu-now").textContent = run.usage ? `${percent(run.usage.cpu)} of ${percent(cpus)}` : "";
  $("memory-now").textContent = run.usage ? `${size(run.usage.memory)} of ${memory} MiB` : "";
  draw(run);
}

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
function faded(name) { return `color-mix(in srgb, ${color(name)} 16%, transparent)`; }

function draw(run) {
  if (!uplot || run.samples.length === 0) return;
  const begun = Date.parse(run.began) / 1000;
  const last = run.samples.at(-1).time - begun;
  const times = [0, ...run.samples.map((sample) => sample.time - begun), Math.max(last, 10)]; // the limit is a whole line
  const around = (values, limit) => [times, [null, ...values, null], times.map(() => limit)];
  const cpu = around(run.samples.map((s) => s.cpu * 100), run.limits.cpus * 100);
  const memory = around(run.samples.map((s) => s.memory / (1 << 20)), run.limits.memory);
  plots ??= { cpu: plot($("cpu-plot"), "--live", "%"), memory: plot($("memory-plot"), "--memory", "") };
  plots.cpu.setData(cpu);
  plots.memory.setData(memory);
}

function plot(place, stroke, unit) {
  const font = `11px ${color("--sans")}`;
  const axis = { stroke: color("--faint"), font, ticks: { show: false }, grid: { stroke: color("--line"), width: 1 } };
  const made = new uplot.default({
    width: place.clientWidth, height: place.clientHeight, cursor: { y: false, points: { size: 6 } }, legend: { show: false },
    padding: [10, 16, 0, 0],
    scales: { x: { time: false, range: (_, low, high) => [low, high] }, y: { range: (_, low, high) => [0, high * 1.1] } },
    axes: [
      { ...axis, grid: { show: false }, size: 26, space: 60, values: (_, marks) => marks.map((mark) => `${mark} s`) },
      { ...axis, size: 44, space: 34, values: (_, marks) => marks.map((mark) => `${mark}${unit && ` ${unit}`}`) },
    ],
    series: [
      {},
      { stroke: color(stroke), fill: faded(stroke), width: 2, points: { show: false } },
      { stroke: color("--faint"), width: 1, dash: [4, 4], points: { show: false } },
    ],
  }, [[], [], []], place);
  new ResizeObserver(() => made.setSize({ width: place.clientWidth, height: place.clientHeight })).observe(place);
  return made;
}

function dropPlots() {
  plots?.cpu.destroy();
  plots?.memory.destroy();
  plots = null;
}

function show(tab) {
  for (const button of document.querySelectorAll("[data-tab]")) {
    button.ariaSelected = button.dataset.tab === tab;
    $(button.dataset.tab).hidden = button.dataset.tab !== tab;
  }
  const run = runs.get(chosen);
  if (tab === "terminal" && run?.state === "running" && !terminal) openTerminal(run.id);
  terminal?.focus();
}

// -- the terminal ------------------------------------------------------------------------------------------------

function openTerminal(id) {
  const term = new xterm.Terminal({
    fontFamily: color("--mono"), fontSize: 13, cursorBlink: true,
    theme: { background: color("--console"), foreground: color("--console-text"), cursor: color("--console-text") },
  });
  const fit = new addonFit.FitAddon();
  term.loadAddon(fit);
  term.open($("terminal"));
  const link = socket(`/runs/${id}/terminal`);
  const resize = ({ cols, rows }) => link.readyState === WebSocket.OPEN && link.send(JSON.stringify({ rows, columns: cols }));
  const seen = new ResizeObserver(() => $("terminal").clientWidth && fit.fit());
  const bytes = new TextEncoder();
  link.onopen = () => { fit.fit(); resize(term); term.focus(); };
  link.onmessage = (message) => term.write(new Uint8Array(message.data));
  link.onclose = (event) => term.write(`\r\n\x1b[2m[${event.reason || "the terminal is closed"}]\x1b[0m\r\n`);
  term.onData((text) => link.readyState === WebSocket.OPEN && link.send(bytes.encode(text)));
  term.onResize(resize);
  seen.observe($("terminal"));
  terminal = {
    id,
    term,
    focus: () => term.focus(),
    close() { seen.disconnect(); link.onclose = null; link.close(); term.dispose(); terminal = null; },
  };
}

// -- a new run ---------------------------------------------------------------------------------------------------

function allow(limits) {
  most = limits;
  for (const [name, usual] of Object.entries({ memory: 64, cpus: 0.5, pids: 32, timeout: 60 })) {
    const field = $("new").elements[name];
    field.max = most[name];
    field.value = Math.min(usual, most[name]);
  }
}

async function run(program, limits) {
  $("refusal").hidden = true;
  try {
    const answer = await ask("/runs", { method: "POST", body: JSON.stringify({ program, limits, detach: true }) });
    return (await answer.json()).id;
  } catch (error) {
    $("refusal").textContent = error.message;
    $("refusal").hidden = false;
    return null;
  }
}

function limits() {
  const names = ["memory", "cpus", "pids", "timeout"];
  return Object.fromEntries(names.map((name) => [name, Number($("new").elements[name].value)]).filter(([, value]) => value));
}

$("new").onsubmit = async (event) => {
  event.preventDefault();
  const id = await run($("program").value, limits());
  if (id) choose(id);
};
$("program").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("new").requestSubmit();
};
$("shell").onclick = async () => {
  const id = await run(SHELL, { ...limits(), timeout: most.timeout });
  if (id) choose(id, "terminal");
};
$("kill").onclick = () => ask(`/runs/${chosen}/kill`, { method: "POST" }).catch((error) => say(error.message));
for (const button of document.querySelectorAll("[data-tab]")) button.onclick = () => show(button.dataset.tab);
for (const name of Object.keys(PRESETS)) $("preset").append(new Option(name));
$("preset").onchange = () => { $("program").value = PRESETS[$("preset").value]; };
$("program").value = PRESETS.Hello;
scheme.onchange = () => {
  dropPlots();
  for (const place of document.querySelectorAll(".spark")) { place.plot?.destroy(); place.plot = null; }
};

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
}

if (!uplot || !xterm || !addonFit) {
  const answer = await fetch("/lib/xterm.js");
  notice(answer.ok ? "No plots: uPlot could not be loaded." : (await answer.json()).error);
}
watch();
