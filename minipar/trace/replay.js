"use strict";
// The page of a recorded run. All that comes from the trace is put in with textContent.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { events, lanes, ranks, length, colours } = data;
const PART_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C510A", "#7570B3", "#444444", "#C29B00"];
let at = 0; // events so far; the one at hand is events[at - 1]
let timer = null;

function svg(name, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function element(name, className, parent, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function bytes(n) {
  return n < 1024 ? `${n} B` : n < 2 ** 20 ? `${(n / 1024).toFixed(1)} KB` : `${(n / 2 ** 20).toFixed(2)} MB`;
}

function time(ns) {
  return ns < 1e6 ? `${(ns / 1e3).toFixed(1)} µs` : `${(ns / 1e6).toFixed(2)} ms`;
}

function said(e) {
  const call = e.op ? `${e.op} #${e.number}` : "";
  const by = e.algorithm ? ` by ${e.algorithm}` : "";
  const along = e.axis ? ` (${e.axis})` : "";
  switch (e.does) {
    case "begins": return `rank ${e.rank} begins ${e.kind} ${e.name}`.trim();
    case "ends": return `rank ${e.rank} has done ${e.kind} ${e.name}`.trim();
    case "calls": return `rank ${e.rank} calls ${call}${by}${along}, ${bytes(e.bytes)}`;
    case "returns": return `rank ${e.rank} returns from ${call}`;
    case "sends": return `rank ${e.rank} sends ${bytes(e.bytes)} to rank ${e.to} in ${call}${by}${along}`;
    case "gets": return `rank ${e.rank} gets ${bytes(e.bytes)} from rank ${e.source} in ${call}${by}${along}`;
  }
  return "";
}

// -- timeline -----------------------------------------------------------------------------------
const LEFT = 60, WIDE = 1140, BAND = Math.max(18, Math.min(40, 480 / ranks));
const x = (t) => LEFT + (WIDE - LEFT - 6) * Math.max(0, Math.min(1, t / length));
let cursor;

function drawTimeline() {
  const root = $("timeline");
  root.setAttribute("viewBox", `0 0 ${WIDE} ${BAND * ranks + 22}`);
  const defs = svg("defs", {}, root);
  const hatch = svg("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, defs);
  svg("rect", { width: 5, height: 5, fill: colours.wait }, hatch);
  svg("rect", { width: 1.2, height: 5, fill: "#9a9a9a" }, hatch);
  const used = new Map();
  const bar = (row, top, height, [begin, end, kind, name], fill, label) => {
    const left = x(begin), wide = Math.max(0.6, x(end) - left);
    const node = svg("rect", { x: left, y: row * BAND + top, width: wide, height, fill }, root);
    svg("title", {}, node, `${kind} ${name} ${time(end - begin)}`);
    used.set(label, fill);
    return [left, wide];
  };
  lanes.forEach((lane, row) => {
    svg("text", { x: LEFT - 8, y: row * BAND + BAND * 0.6, "text-anchor": "end" }, root, `rank ${row}`);
    for (const span of lane.spans) {
      const [left, wide] = bar(row, 2, BAND * 0.5, span, colours[span[2]] || colours[""], span[2]);
      if (wide > 9 * Math.max(2, span[3].length) && span[3])
        svg("text", { x: left + wide / 2, y: row * BAND + BAND * 0.38, "text-anchor": "middle", style: "font-size:10px" }, root, span[3]);
    }
    for (const call of lane.calls) bar(row, BAND * 0.55, BAND * 0.3, call, colours[call[2]] || colours[""], `moving: ${call[2]}`);
    for (const wait of lane.waits) bar(row, BAND * 0.55, BAND * 0.3, wait, "url(#hatch)", "waiting");
  });
  for (const share of [0, 0.25, 0.5, 0.75, 1])
    svg("text", { x: x(share * length), y: BAND * ranks + 16, "text-anchor": share ? (share === 1 ? "end" : "middle") : "start" }, root, time(share * length));
  cursor = svg("line", { x1: 0, x2: 0, y1: 0, y2: BAND * ranks, stroke: "#d00", "stroke-width": 1.5 }, root);
  for (const [label, fill] of used) {
    const item = element("span", "", $("legend"));
    element("i", "", item).style.background = fill.startsWith("url") ? "repeating-linear-gradient(45deg,#e4e4e4 0 3px,#9a9a9a 3px 4px)" : fill;
    item.append(label);
  }
  root.addEventListener("click", (click) => {
    const box = root.getBoundingClientRect();
    const t = ((click.clientX - box.left) / box.width * WIDE - LEFT) / (WIDE - LEFT - 6) * length;
    show(events.filter((e) => e.at <= t).length);
  });
}

// -- messages -----------------------------------------------------------------------------------
const places = [];

function drawRanks() {
  const root = $("ring"), round = ranks > 2, radius = Math.min(95, 40 + 9 * ranks);
  const high = round ? 2 * radius + 60 : 70;
  root.setAttribute("viewBox", `0 0 ${WIDE} ${high}`);
  for (let r = 0; r < ranks; r++) {
    const angle = 2 * Math.PI * r / ranks - Math.PI / 2;
    places.push(round ? [WIDE / 2 + 2 * radius * Math.cos(angle), high / 2 + radius * Math.sin(angle)] : [WIDE / 2 - 150 + 300 * r, 35]);
  }
}

function drawMessage(event) {
  const root = $("ring");
  root.replaceChildren();
  const recent = events.slice(Math.max(0, at - 6), at).filter((e) => e.does === "sends");
  recent.forEach((e) => {
    const [a, b] = [places[e.rank], places[e.to]];
    const now = e === event, [dx, dy] = [b[0] - a[0], b[1] - a[1]], far = Math.hypot(dx, dy) || 1;
    const [ux, uy] = [dx / far, dy / far], tip = [b[0] - 20 * ux, b[1] - 20 * uy];
    const colour = colours[e.axis] || "#444", style = { stroke: colour, "stroke-width": now ? 3 : 1.5, opacity: now ? 1 : 0.55 };
    svg("line", { x1: a[0] + 20 * ux, y1: a[1] + 20 * uy, x2: tip[0] - 6 * ux, y2: tip[1] - 6 * uy, ...style }, root);
    svg("polygon", { points: `${tip} ${[tip[0] - 10 * ux - 5 * uy, tip[1] - 10 * uy + 5 * ux]} ${[tip[0] - 10 * ux + 5 * uy, tip[1] - 10 * uy - 5 * ux]}`, fill: colour, opacity: style.opacity }, root);
    if (now) svg("text", { x: (a[0] + b[0]) / 2 + 8, y: (a[1] + b[1]) / 2 - 6, style: "font-weight:600" }, root, bytes(e.bytes));
  });
  places.forEach(([cx, cy], r) => {
    const here = event && event.rank === r;
    svg("circle", { cx, cy, r: 18, fill: here ? "#222" : "#fff", stroke: "#222", "stroke-width": 1.5 }, root);
    svg("text", { x: cx, y: cy + 4, "text-anchor": "middle", style: here ? "fill:#fff" : "" }, root, r);
  });
}

// -- the chunks of a collective -----------------------------------------------------------------
function drawChunks(event) {
  const box = $("collective"), states = event && event.op && collectiveOf(event);
  box.hidden = !states;
  if (!states) return;
  const { members, table, parts } = states;
  $("collective-title").textContent = `${event.op} #${event.number}${event.algorithm ? " by " + event.algorithm : ""}: whose parts are in which chunk`;
  const root = $("chunks");
  root.replaceChildren();
  const head = element("tr", "", root);
  element("th", "", head, "");
  for (let c = 0; c < parts; c++) element("th", "", head, `chunk ${c}`);
  members.forEach((rank, i) => {
    const row = element("tr", rank === event.rank ? "here" : "", root);
    element("th", "", row, `rank ${rank}`);
    for (let c = 0; c < parts; c++) {
      const cell = element("td", "", row);
      members.forEach((other, q) => {
        const there = Math.floor(table[i][c] / 2 ** q) % 2 === 1;
        const part = element("span", there ? "part" : "part none", cell, there ? other : "");
        if (there) part.style.background = PART_COLOURS[q % PART_COLOURS.length];
      });
    }
  });
}

function collectiveOf(event) {
  const same = (e) => e.op === event.op && e.number === event.number && e.group === event.group;
  const begun = events.filter((e) => e.does === "calls" && same(e) && membersWith(e, event));
  const members = [...new Set(begun.map((e) => e.rank))].sort((a, b) => a - b);
  const states = data.collectives[`${event.op} ${event.algorithm} ${members.length}`];
  if (!states || !members.includes(event.rank)) return null;
  const got = new Map(members.map((r) => [r, 0]));
  for (let n = 0; n < at; n++) {
    const e = events[n];
    if (e.does === "gets" && same(e) && got.has(e.rank)) got.set(e.rank, got.get(e.rank) + 1);
  }
  const table = members.map((r, i) => states[i][Math.min(got.get(r), states[i].length - 1)]);
  return { members, table, parts: table[0].length };
}

function membersWith(a, b) { return a.algorithm === b.algorithm; }

// -- pipeline -----------------------------------------------------------------------------------
const actions = events.filter((e) => e.does === "ends" && e.action);

function drawPipeline() {
  $("pipeline").hidden = actions.length === 0;
  if (!actions.length) return;
  const root = $("grid"), rows = [...new Set(actions.map((e) => e.rank))].sort((a, b) => a - b);
  const most = Math.max(...rows.map((r) => actions.filter((e) => e.rank === r).length));
  const wide = Math.min(46, (WIDE - LEFT) / most), done = new Map(rows.map((r) => [r, 0]));
  root.replaceChildren();
  root.setAttribute("viewBox", `0 0 ${WIDE} ${26 * rows.length + 4}`);
  const ended = new Set(events.slice(0, at).filter((e) => e.does === "ends" && e.action));
  rows.forEach((r, row) => svg("text", { x: LEFT - 8, y: 26 * row + 17, "text-anchor": "end" }, root, `rank ${r}`));
  for (const e of actions) {
    const column = done.get(e.rank), over = ended.has(e), row = rows.indexOf(e.rank);
    done.set(e.rank, column + 1);
    svg("rect", { x: LEFT + column * wide, y: 26 * row + 2, width: wide - 2, height: 22, rx: 3, fill: over ? colours[e.kind] || colours[""] : "#f2f2f2", stroke: "#ddd" }, root);
    if (wide > 18) svg("text", { x: LEFT + column * wide + wide / 2 - 1, y: 26 * row + 17, "text-anchor": "middle", style: over && e.kind === "backward" ? "fill:#fff;font-size:11px" : "font-size:11px" }, root, e.name);
  }
}

// -- where the replay stands ----------------------------------------------------------------------
function show(n) {
  at = Math.max(0, Math.min(events.length, n));
  const event = at ? events[at - 1] : null;
  const now = event ? event.at : 0;
  $("slider").value = at;
  $("where").textContent = `event ${at} of ${events.length}, ${time(now)}${data.virtual ? " (virtual)" : ""}`;
  $("what").textContent = event ? said(event) : "the beginning";
  cursor.setAttribute("x1", x(now));
  cursor.setAttribute("x2", x(now));
  drawMessage(event);
  drawChunks(event);
  drawPipeline();
  $("log").textContent = events.slice(Math.max(0, at - 6), at).map((e, i) => `${time(e.at).padStart(10)}  ${said(e)}`).reverse().join("\n");
}

function play(on) {
  if (timer) clearInterval(timer);
  timer = on ? setInterval(() => (at < events.length ? show(at + 1) : play(false)), 1000 / Number($("speed").value)) : null;
  $("play").textContent = timer ? "❚❚" : "▶";
}

function nextWhere(test) {
  for (let n = at; n < events.length; n++) if (test(events[n])) return show(n + 1);
}

const keys = {
  ArrowRight: () => show(at + 1),
  ArrowLeft: () => show(at - 1),
  Home: () => show(0),
  End: () => show(events.length),
  " ": () => play(!timer),
  "]": () => nextWhere((e) => at && e.rank === events[at - 1].rank),
  c: () => nextWhere((e) => e.does === "calls"),
};

document.title = data.title;
$("title").textContent = data.title;
$("slider").max = events.length;
$("slider").addEventListener("input", () => show(Number($("slider").value)));
$("first").addEventListener("click", keys.Home);
$("back").addEventListener("click", keys.ArrowLeft);
$("next").addEventListener("click", keys.ArrowRight);
$("play").addEventListener("click", keys[" "]);
$("speed").addEventListener("change", () => timer && play(true));
document.addEventListener("keydown", (key) => {
  if (keys[key.key] && key.target.tagName !== "SELECT") {
    key.preventDefault();
    keys[key.key]();
  }
});
drawTimeline();
drawRanks();
const place = new URLSearchParams(location.hash.slice(1));
show(Number(place.get("event") || 0));
for (const key of (place.get("keys") || "").split(",")) if (keys[key]) keys[key]();
