// Parameter servers: the clock of each worker, what it has pulled, and the versions of each server.
if (data.servers) {
  const { bound, silent, servers, before, colours: tints } = data.servers;
  const workers = [...Array(data.servers.workers).keys()];
  const WIDE = 1140; // it is drawn in this size, and made smaller where there is less room
  const KINDS = ["clock", "pulled", "version", "given", "held", "granted", "gone"];
  const marks = [];
  events.forEach((e, n) => { if (KINDS.includes(e.does)) marks.push([n, e]); });
  const tint = (worker) => tints[worker % tints.length];
  const TRACK = 80, TRACK_END = 520, HAS = 530, FROM = 735, BOX = 850, TOP = 44;
  const ROW = workers.length > 8 ? 30 : 48, LOW = TOP + ROW * workers.length, SQUARE = 24, SQUARES = 10;
  const high = Math.max(LOW + 8, TOP + 74 * servers.length);
  const farthest = Math.max(1, ...[...before, ...events].filter((e) => e.does === "clock").map((e) => e.value));

  // What is known after the events so far.
  function state() {
    const now = { clocks: {}, versions: {}, pulled: {}, flying: {}, held: {}, gone: {}, pushes: {} };
    for (const s of servers) { now.versions[s] = 0; now.pushes[s] = []; }
    for (const w of workers) { now.clocks[w] = 0; now.pulled[w] = {}; now.flying[w] = {}; now.held[w] = {}; }
    for (const e of before) account(now, e);
    for (const [n, e] of marks) {
      if (n >= at) break;
      account(now, e);
    }
    return now;
  }

  function account(now, e) {
    const of = now.flying[e.whom] || {}, held = now.held[e.whom] || {};
    if (e.does === "clock") {
      if (e.value > now.clocks[e.rank]) for (const s of servers) now.flying[e.rank][s] = true;
      now.clocks[e.rank] = e.value;
      delete now.gone[e.rank];
    } else if (e.does === "pulled") now.pulled[e.rank][e.whom] = e.value;
    else if (e.does === "version" || e.does === "given") {
      now.versions[e.rank] = e.value;
      if (e.does === "given") return;
      now.pushes[e.rank].push(e);
      delete of[e.rank];
    } else if (e.does === "held") held[e.rank] = e.value;
    else if (e.does === "granted") delete held[e.rank];
    else if (e.does === "gone") {
      now.gone[e.whom] = true;
      delete held[e.rank];
    }
  }

  function arrow(root, [ax, ay], [bx, by], colour, { dashed = false, label = "" }) {
    const far = Math.hypot(bx - ax, by - ay), [ux, uy] = [(bx - ax) / far, (by - ay) / far];
    const dash = dashed ? { "stroke-dasharray": "5 4" } : {};
    svg("line", { x1: ax, y1: ay, x2: bx - 8 * ux, y2: by - 8 * uy, stroke: colour, "stroke-width": dashed ? 1.8 : 3, ...dash }, root);
    svg("polygon", { points: `${bx},${by} ${bx - 11 * ux - 5 * uy},${by - 11 * uy + 5 * ux} ${bx - 11 * ux + 5 * uy},${by - 11 * uy - 5 * ux}`, fill: colour }, root);
    if (!label) return;
    const text = svg("text", { x: (ax + bx) / 2, y: (ay + by) / 2 - 7, "text-anchor": "middle", style: "font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:4px" }, root, label);
    text.setAttribute("fill", colour);
  }

  // The clocks on a track: cells from `first` on, and the band in which the rule gives weights.
  function drawClocks(root, now, event) {
    const present = workers.filter((w) => !now.gone[w] && !silent.includes(w)).map((w) => now.clocks[w]);
    const slowest = Math.min(...(present.length ? present : Object.values(now.clocks)));
    const fastest = Math.max(...Object.values(now.clocks));
    const first = farthest <= 24 ? 0 : Math.max(0, slowest - 3);
    const cells = farthest <= 24 ? farthest + 1 : Math.max(18, fastest - first + 3);
    const wide = (TRACK_END - TRACK) / cells, x = (clock) => TRACK + (clock - first) * wide;
    svg("text", { x: HAS, y: TOP - 25, class: "faint" }, root, "weights that it has");
    svg("text", { x: BOX, y: TOP - 25, class: "faint" }, root, "last pushes, by worker; the number: how stale");
    svg("text", { x: TRACK - 10, y: TOP - 7, "text-anchor": "end", class: "faint" }, root, "clock");
    if (bound >= 0) {
      const end = Math.min(TRACK_END, x(slowest + bound));
      svg("rect", { x: x(slowest), y: TOP - 4, width: Math.max(2, end - x(slowest)), height: LOW - TOP + 4, fill: "#ececec" }, root);
      svg("line", { x1: end, x2: end, y1: TOP - 4, y2: LOW, stroke: "#555", "stroke-dasharray": "4 3" }, root);
      svg("text", { x: end, y: TOP - 25, "text-anchor": "middle", class: "faint" }, root, bound ? `slowest + ${bound}` : "slowest");
    }
    const every = Math.max(1, Math.ceil(cells / 12));
    for (let c = first; c < first + cells; c++)
      if (c % every === 0) svg("text", { x: x(c), y: TOP - 7, "text-anchor": "middle", class: "faint" }, root, c);
    workers.forEach((w, row) => {
      const y = TOP + ROW * row, clock = now.clocks[w], bar = Math.min(22, ROW - 8);
      const group = svg("g", { class: "worker", "data-worker": w, opacity: now.gone[w] ? 0.4 : 1 }, root);
      svg("text", { x: TRACK - 10, y: y + 17, "text-anchor": "end", style: event && event.rank === w ? "font-weight:700" : "" }, group, `worker ${w}`);
      for (let c = first; c < clock; c++)
        svg("rect", { x: x(c) + 1, y: y + 3, width: Math.max(1, wide - 2), height: bar, rx: 2, fill: tint(w), class: "step" }, group);
      const whom = Object.values(now.held[w]);
      const says = silent.includes(w) ? "has left no trace" : now.gone[w] ? "has left" : whom.length ? `waits for worker ${whom[0]}` : "";
      svg("text", { x: x(clock) + 6, y: y + 18, style: "font-weight:600" }, group, silent.includes(w) ? "" : `${clock}`);
      svg("text", { x: x(clock) + 10 + 8 * `${clock}`.length, y: y + 18, class: "faint" }, group, says);
      drawPulled(group, now, w, y);
    });
  }

  // The versions that a worker computes with, and by how many its servers are farther.
  function drawPulled(group, now, w, y) {
    const there = servers.filter((s) => now.pulled[w][s] !== undefined);
    const lines = there.map((s) => [now.pulled[w][s], now.versions[s] - now.pulled[w][s], s]);
    const shown = ROW > 40 && lines.length <= 2 ? lines : lines.slice(0, 1);
    shown.forEach(([version, behind, s], n) => {
      const of = servers.length > 1 ? ` of server ${s}` : "";
      svg("text", { x: HAS, y: y + 12 + 16 * n }, group, `version ${version}${of}${behind > 0 ? `, ${behind} behind` : ""}`);
    });
  }

  function drawServers(root, now, event) {
    const each = (high - TOP) / servers.length;
    servers.forEach((s, n) => {
      const y = TOP + each * n, last = now.pushes[s].slice(-SQUARES), here = event && event.rank === s;
      const group = svg("g", { class: "server", "data-server": s }, root);
      svg("rect", { x: BOX, y: y - 4, width: WIDE - BOX - 2, height: 66, rx: 6, fill: "#fff", stroke: here ? "#000" : "#999", "stroke-width": here ? 2 : 1 }, group);
      svg("text", { x: BOX + 12, y: y + 15 }, group, `server ${s}`);
      svg("text", { x: WIDE - 14, y: y + 16, "text-anchor": "end", style: "font-size:16px;font-weight:700" }, group, `version ${now.versions[s]}`);
      last.forEach((e, i) => {
        const left = BOX + 12 + (SQUARE + 2) * i, newest = event === e;
        svg("rect", { x: left, y: y + 28, width: SQUARE, height: SQUARE, rx: 3, fill: tint(e.whom), stroke: newest ? "#000" : "none", "stroke-width": 2.5 }, group);
        svg("text", { x: left + SQUARE / 2, y: y + 45, "text-anchor": "middle", style: "fill:#fff;font-weight:600" }, group, e.lag);
      });
    });
    const box = (s) => TOP + each * servers.indexOf(s) + 29, row = (w) => TOP + ROW * w + 15;
    for (const w of workers)
      for (const s of servers)
        if (now.flying[w][s]) arrow(root, [FROM, row(w)], [BOX - 4, box(s)], tint(w), { dashed: true });
    if (!event) return;
    if (event.does === "version" && event.whom >= 0)
      arrow(root, [FROM, row(event.whom)], [BOX - 4, box(event.rank)], tint(event.whom), { label: `${event.lag} stale` });
    if (event.does === "pulled" && servers.includes(event.whom))
      arrow(root, [BOX - 4, box(event.whom)], [FROM, row(event.rank)], "#222", { label: `version ${event.value}` });
  }

  const rule = bound < 0 ? "async: nobody waits" : bound ? `a worker may be ${bound} ahead of the slowest` : "sync: all wait for the slowest";
  $("servers").hidden = false;
  $("servers-title").textContent = `Parameter servers: ${rule}`;
  $("servers-picture").setAttribute("viewBox", `0 0 ${WIDE} ${high}`);
  views.push({
    draw(event) {
      const root = $("servers-picture"), now = state();
      root.replaceChildren();
      drawClocks(root, now, event);
      drawServers(root, now, event);
    },
  });
}
