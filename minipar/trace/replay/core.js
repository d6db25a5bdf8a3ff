"use strict";
// The page of a recorded run: what all views share. page.py puts the files of this folder one after
// another into the page. A view is a block of its own, so its names are, too. It adds to `views`
//
//     start()        draws what does not change, if there is such; again when the width changes
//     draw(event)    called at every step; event: the one at hand, null at the beginning
//
// and hides its part of the page where there is nothing to show. What draw shows depends on `at`
// alone, never on what was shown before; what it needs for that is worked out once, so that a step
// is cheap however long the run. All that comes from the trace is put in as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { events, lanes, ranks, length, colours } = data;
const LABEL = { "text-anchor": "end", class: "row" }; // of a row: the name of its rank
const LEFT = 72; // of a drawing: where it begins, beside the names of ranks
let WIDE = 1140; // of a drawing: as many pixels as there are
let at = 0; // events so far; the one at hand is events[at - 1]
const views = [];

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

// A rectangle; a text.
function bar(parent, x, y, width, height, fill, more) {
  return svg("rect", { x, y, width, height, fill, ...more }, parent);
}

function write(parent, x, y, text, more) {
  return svg("text", { x, y, ...more }, parent, text);
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// -- words and numbers ------------------------------------------------------------------------
function bytes(n) {
  return n < 1024
    ? `${n} B`
    : n < 2 ** 20
      ? `${(n / 1024).toFixed(1)} KB`
      : `${(n / 2 ** 20).toFixed(2)} MB`;
}

function time(ns) {
  return ns < 1e6
    ? `${(ns / 1e3).toFixed(1)} µs`
    : ns < 1e10
      ? `${(ns / 1e6).toFixed(2)} ms`
      : `${(ns / 1e9).toFixed(2)} s`;
}

const percent = (share) => `${Math.round(100 * share)} %`;
const stepName = (step) => (step < 0 ? "" : `step ${step}`);

function said(e) {
  const call = e.op ? `${e.op} #${e.number}` : "";
  const by = e.algorithm ? ` by ${e.algorithm}` : "";
  const along = e.axis ? ` (${e.axis})` : "";
  switch (e.does) {
    case "begins":
      return `rank ${e.rank} begins ${e.kind} ${e.name}`.trim();
    case "ends":
      return `rank ${e.rank} has done ${e.kind} ${e.name}`.trim();
    case "calls":
      return `rank ${e.rank} calls ${call}${by}${along}, ${bytes(e.bytes)}`;
    case "returns":
      return `rank ${e.rank} returns from ${call}`;
    case "sends":
      return `rank ${e.rank} sends ${bytes(e.bytes)} to rank ${e.to} in ${call}${by}${along}`;
    case "gets":
      return `rank ${e.rank} gets ${bytes(e.bytes)} from rank ${e.source} in ${call}${by}${along}`;
    case "bound":
      return `server ${e.rank} gives weights to ${given(e.value)}`;
    case "clock":
      return e.value
        ? `worker ${e.rank} has made step ${e.value}: that is its clock now`
        : `worker ${e.rank} begins, at clock 0`;
    case "pulled":
      return `worker ${e.rank} has version ${e.value} of server ${e.whom}`;
    case "version":
      return (
        `server ${e.rank} has applied a push of worker ${e.whom}, ` +
        `${e.lag} updates stale: version ${e.value}`
      );
    case "given":
      return `server ${e.rank} has new weights from worker ${e.whom}: version ${e.value}`;
    case "held":
      return `server ${e.rank} lets worker ${e.whom} wait: worker ${e.value} is ${e.lag} behind`;
    case "granted":
      return `server ${e.rank} lets worker ${e.whom} go on`;
    case "gone":
      return `server ${e.rank} has no worker ${e.whom} any more`;
  }
  return "";
}

function given(bound) {
  if (bound < 0) return "whoever asks";
  return bound
    ? `a worker that is at most ${bound} ahead of the slowest`
    : "a worker that is no farther than the slowest";
}

// -- colours ----------------------------------------------------------------------------------
const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

function mixed(colour, white) {
  return (
    "#" +
    rgb(colour)
      .map((c) =>
        Math.round(c + (255 - c) * white)
          .toString(16)
          .padStart(2, "0"),
      )
      .join("")
  );
}

// What can be read on that colour: dark on light, white on dark.
function ink(colour) {
  const [r, g, b] = rgb(colour);
  return 0.299 * r + 0.587 * g + 0.114 * b > 150 ? "#222" : "#fff";
}

// -- drawings over time -----------------------------------------------------------------------
// A drawing with time to the right: where a moment is, and a line where the replay stands.
function inTime(root, begin, end, right, high) {
  root.replaceChildren();
  root.setAttribute("viewBox", `0 0 ${WIDE} ${high}`);
  const span = Math.max(1, end - begin);
  const wide = WIDE - LEFT - right;
  const x = (t) => LEFT + wide * Math.max(0, Math.min(1, (t - begin) / span));
  const line = root.parentNode.querySelector(".now") || element("div", "now", root.parentNode);
  root.onclick = (click) => {
    const box = root.getBoundingClientRect();
    const there = ((click.clientX - box.left) / box.width) * WIDE;
    show(until(begin + ((there - LEFT) / wide) * span));
  };
  return {
    x,
    begin,
    end,
    stand: (t) => {
      line.style.left = `${(100 * x(t)) / WIDE}%`;
    },
  };
}

// How many events there are until then.
function until(t) {
  let low = 0, high = events.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events[middle].at <= t) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Ticks of time below a drawing.
function ticks(root, place, y, from = 0) {
  const span = place.end - place.begin;
  const anchors = { 0: "start", 1: "end" };
  for (const share of WIDE > 700 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1]) {
    const t = place.begin + share * span;
    svg(
      "text",
      { x: place.x(t), y, "text-anchor": anchors[share] || "middle", class: "faint" },
      root,
      time(t - from),
    );
  }
}

// Stripes for what is empty time; each drawing has its own.
function stripes(root, id, background = "#fff", line = "#a8a8a8") {
  const defs = svg("defs", {}, root);
  const pattern = svg(
    "pattern",
    { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    defs,
  );
  svg("rect", { width: 6, height: 6, fill: background }, pattern);
  svg("rect", { width: 1.6, height: 6, fill: line }, pattern);
  return `url(#${id})`;
}

// Two layers of one drawing: how it will be, pale, and above it, up to where the replay stands,
// how it has been. The second one is cut by a rectangle that `reveal` sets.
function layers(root, id, high) {
  const clip = svg("clipPath", { id }, svg("defs", {}, root));
  const cut = svg("rect", { x: 0, y: 0, width: 0, height: high }, clip);
  const ahead = svg("g", {}, root);
  const done = svg("g", { "clip-path": `url(#${id})` }, root);
  return { ahead, done, reveal: (x) => cut.setAttribute("width", x) };
}

// The same, or darker if it could not be seen as a line on white.
const strong = (colour) =>
  ink(colour) === "#fff"
    ? colour
    : "#" +
      rgb(colour)
        .map((c) =>
          Math.round(0.72 * c)
            .toString(16)
            .padStart(2, "0"),
        )
        .join("");

function legend(node, entries) {
  node.replaceChildren();
  for (const [label, fill] of entries) {
    const item = element("span", "", node);
    const mark = element("i", "", item);
    if (fill.startsWith("#")) mark.style.background = fill;
    else mark.className = fill;
    item.append(label);
  }
}

// Of rows sorted by their begin: how long they last in all, up to now. They do not overlap.
function lasting(rows, now) {
  let sum = 0;
  for (const [begin, end] of rows) {
    if (begin >= now) break;
    sum += Math.min(end, now) - begin;
  }
  return sum;
}

// Of things that begin one after another: the last one that the rank of the event has begun, or
// else the first. Some ranks are ahead of others: begins[rank].
function lastBegun(things, event) {
  let found = things[0];
  for (const thing of things) {
    if (!event || thing.begin > event.at) break;
    if ((thing.begins[event.rank] ?? thing.begin) <= event.at) found = thing;
  }
  return found;
}
