// Of data parallel: backward as it goes from layer to layer, the buckets that are summed beside it,
// and how much of that was hidden behind computation so far.
{
  const BACKWARD = ["#0072B2", "#3D97CC"], FORWARD = "#CFE6F5", HIDDEN = "#009E73", MOST = 8, RIGHT = 96;
  const NAMES = { all_reduce: "bucket", reduce_scatter: "bucket" };
  const root = $("buckets"), scenes = data.overlaps;
  let scene = null, among = "", place, layer, rows = [];

  // The replicas that this rank sums its gradients with; of many, those around it.
  function peers(scene, rank) {
    const group = scene.groups.find((each) => each.includes(rank)) || scene.groups[0];
    const from = MOST * Math.floor(Math.max(0, group.indexOf(rank)) / MOST);
    return group.slice(from, from + MOST);
  }

  function build(numbers) {
    const shown = numbers.map((rank) => scene.ranks[rank]), high = 52;
    place = inTime(root, scene.begin, scene.end, RIGHT, shown.length * high + 18);
    const open = stripes(root, "open", "#FBE3D3", "#D55E00");
    layer = layers(root, "overlapped", shown.length * high);
    rows = shown.map((lane, i) => {
      const y = i * high, rank = numbers[i];
      for (const part of lane.forward) box(part, y + 2, 20, FORWARD);
      lane.layers.forEach(([begin, end, name], n) => box([begin, end], y + 2, 20, BACKWARD[n % 2], name));
      drawCalls(lane, y + 25, open);
      const label = svg("text", { x: LEFT - 8, y: y + 17, "text-anchor": "end", class: "row" }, root, `rank ${rank}`);
      const share = svg("text", { x: WIDE - RIGHT + 10, y: y + 40 }, root);
      return { rank, lane, label, share, moving: merged(lane.calls) };
    });
    ticks(root, place, shown.length * high + 13, scene.begin);
    const there = (name) => shown.some((lane) => lane[name].length);
    legend($("overlap-legend"), [
      ...(there("forward") ? [["forward", FORWARD]] : []), ["backward, layer by layer", BACKWARD[0]],
      ["hidden: sent while the rank computes", HIDDEN], ["not hidden", "open"], ...(there("ready") ? [["▾ ready: full, and waits for its turn", ""]] : []),
    ]);
  }

  function box([begin, end], y, height, fill, text, pale = "#fff") {
    const x = place.x(begin), width = Math.max(0.8, place.x(end) - x), at = { x, y, width, height };
    svg("rect", { ...at, fill: pale, stroke: "#ccc", "stroke-width": 0.8 }, layer.ahead);
    const node = svg("rect", { ...at, fill, stroke: "#fff", "stroke-width": width > 4 ? 0.8 : 0 }, layer.done);
    if (text) svg("title", {}, node, `${text} ${time(end - begin)}`);
    if (text && width > 6.4 * text.length + 4) caption(text, x + width / 2, y + height / 2 + 4, ink(fill));
  }

  function caption(text, x, y, fill) {
    const where = { x, y, "text-anchor": "middle", class: "small" };
    svg("text", { ...where, fill: "#999" }, layer.ahead, text);
    svg("text", { ...where, fill }, layer.done, text);
  }

  function drawCalls(lane, y, open) {
    let bucket = 0;
    for (const [begin, end, op, size] of lane.calls) {
      const x = place.x(begin), wide = Math.max(0.8, place.x(end) - x), at = { x, y, width: wide, height: 22 };
      const number = NAMES[op] ? ` ${bucket++}` : "", name = `${NAMES[op] || op}${number}`;
      svg("rect", { ...at, fill: "#fff", stroke: "#ccc", "stroke-width": 0.8 }, layer.ahead);
      const node = svg("rect", { ...at, fill: open }, layer.done);
      for (const [a, b] of lane.hidden) if (b > begin && a < end) {
        const left = place.x(Math.max(a, begin));
        svg("rect", { x: left, y, width: Math.max(0.4, place.x(Math.min(b, end)) - left), height: 22, fill: HIDDEN }, layer.done);
      }
      svg("rect", { ...at, fill: "none", stroke: "#fff", "stroke-width": wide > 4 ? 1 : 0 }, layer.done);
      svg("title", {}, node, `${name}: ${op}, ${bytes(size)}, ${time(end - begin)}`);
      const text = [`${name}: ${bytes(size)}`, name, number.trim()].find((words) => words && wide > 6.4 * words.length + 8);
      if (!text) continue;
      svg("rect", { x: x + wide / 2 - 3.2 * text.length - 3, y: y + 4, width: 6.4 * text.length + 6, height: 14, rx: 3, fill: "#fff", opacity: 0.85 }, layer.done);
      caption(text, x + wide / 2, y + 15, "#222");
    }
    for (const [when] of lane.ready) svg("path", { d: `M${place.x(when) - 4},${y - 5} h8 l-4,6 z`, fill: "#222" }, layer.done);
  }

  // The union of the calls: two may be under way at once.
  function merged(calls) {
    const found = [];
    for (const [begin, end] of [...calls].sort((a, b) => a[0] - b[0])) {
      const last = found[found.length - 1];
      if (last && begin <= last[1]) last[1] = Math.max(last[1], end);
      else found.push([begin, end]);
    }
    return found;
  }

  function draw(event) {
    const now = event ? event.at : 0, next = lastBegun(scenes, event), rank = event ? event.rank : 0;
    const numbers = peers(next, rank);
    if (next !== scene || `${numbers}` !== among) {
      [scene, among] = [next, `${numbers}`];
      build(numbers);
    }
    place.stand(now);
    layer.reveal(place.x(now));
    for (const row of rows) {
      const hidden = lasting(row.lane.hidden, now), moving = lasting(row.moving, now);
      put(row.share, moving ? `${percent(hidden / moving)} hidden` : "");
      row.label.classList.toggle("strong", row.rank === rank);
      if (row.rank === rank) say(rank, hidden, moving, Math.min(now, scene.end) - scene.begin);
    }
  }

  function say(rank, hidden, moving, passed) {
    const step = stepName(scene.step), of = moving ? `${time(hidden)} of ${time(moving)} of communication hidden` : "sent nothing yet";
    const shares = moving ? ` (${percent(hidden / moving)}), which is ${(100 * hidden / Math.max(1, passed)).toFixed(1)} % of the time so far` : "";
    put($("overlap-title"), `Communication beside backward${step ? ", " + step : ""}: rank ${rank} has ${of}${shares}`);
  }

  $("overlap").hidden = !scenes.length;
  if (scenes.length) views.push({ start() { scene = null; }, draw });
}
