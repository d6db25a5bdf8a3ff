"use strict";
// The page of a recorded run: what all views share. page.py puts the files of this folder one after
// another into the page. A view is a block of its own, so its names are, too: it adds { draw(event) }
// to `views`, which is called at every step (event: the one at hand, null at the beginning), and
// hides its part of the page where there is nothing to show. All that comes from the trace is put
// in with textContent.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { events, lanes, ranks, length, colours } = data;
const LEFT = 60, WIDE = 1140; // of a drawing: where it begins, beside the names of ranks, and ends
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
    case "bound": return `server ${e.rank} gives weights to ${given(e.value)}`;
    case "clock": return e.value ? `worker ${e.rank} has made step ${e.value}: that is its clock now` : `worker ${e.rank} begins, at clock 0`;
    case "pulled": return `worker ${e.rank} has version ${e.value} of server ${e.whom}`;
    case "version": return `server ${e.rank} has applied a push of worker ${e.whom}, ${e.lag} updates stale: version ${e.value}`;
    case "given": return `server ${e.rank} has new weights from worker ${e.whom}: version ${e.value}`;
    case "held": return `server ${e.rank} lets worker ${e.whom} wait: worker ${e.value} is ${e.lag} behind`;
    case "granted": return `server ${e.rank} lets worker ${e.whom} go on`;
    case "gone": return `server ${e.rank} has no worker ${e.whom} any more`;
  }
  return "";
}

function given(bound) {
  if (bound < 0) return "whoever asks";
  return bound ? `a worker that is at most ${bound} ahead of the slowest` : "a worker that is no farther than the slowest";
}
