// Of data parallel: backward as it goes from layer to layer, the buckets that are summed beside it,
// and how much of that was hidden behind computation so far.
{
  const BACKWARD = ["#0072B2", "#3D97CC"];
  const FORWARD = "#CFE6F5";
  const HIDDEN = "#009E73";
  const MOST = 8;
  const RIGHT = 96;
  const PALE = { stroke: "#ccc", "stroke-width": 0.8 }; // of what is still ahead
  const NAMES = { all_reduce: "bucket", reduce_scatter: "bucket" };
  const root = $("buckets");
  const scenes = data.overlaps;
  let scene = null, among = "", place, layer, rows = [];

  // The replicas that this rank sums its gradients with; of many, those around it.
  function peers(scene, rank) {
    const group = scene.groups.find((each) => each.includes(rank)) || scene.groups[0];
    const from = MOST * Math.floor(Math.max(0, group.indexOf(rank)) / MOST);
    return group.slice(from, from + MOST);
  }

  function build(numbers) {
    const shown = numbers.map((rank) => scene.ranks[rank]);
    const high = 52;
    place = inTime(root, scene.begin, scene.end, RIGHT, shown.length * high + 18);
    const open = stripes(root, "open", "#FBE3D3", "#D55E00");
    layer = layers(root, "overlapped", shown.length * high);
    rows = shown.map((lane, i) => {
      const y = i * high;
      const rank = numbers[i];
      for (const part of lane.forward) box(part, y + 2, 20, FORWARD);
      lane.layers.forEach(([begin, end, name], n) =>
        box([begin, end], y + 2, 20, BACKWARD[n % 2], name),
      );
      drawCalls(lane, y + 25, open);
      const label = write(root, LEFT - 8, y + 17, `rank ${rank}`, LABEL);
      const share = write(root, WIDE - RIGHT + 10, y + 40, "");
      return { rank, lane, label, share, moving: merged(lane.calls) };
    });
    ticks(root, place, shown.length * high + 13, scene.begin);
    const there = (name) => shown.some((lane) => lane[name].length);
    legend($("overlap-legend"), [
      ...(there("forward") ? [["forward", FORWARD]] : []),
      ["backward, layer by layer", BACKWARD[0]],
      ["hidden: sent while the rank computes", HIDDEN],
      ["not hidden", "open"],
      ...(there("ready") ? [["▾ ready: full, and waits for its turn", ""]] : []),
    ]);
  }

  function box([begin, end], y, height, fill, text) {
    const x = place.x(begin);
    const width = Math.max(0.8, place.x(end) - x);
    const edge = { stroke: "#fff", "stroke-width": width > 4 ? 0.8 : 0 };
    bar(layer.ahead, x, y, width, height, "#fff", PALE);
    const node = bar(layer.done, x, y, width, height, fill, edge);
    if (!text) return;
    svg("title", {}, node, `${text} ${time(end - begin)}`);
    if (width > 6.4 * text.length + 4) caption(text, x + width / 2, y + height / 2 + 4, ink(fill));
  }

  function caption(text, x, y, fill) {
    const where = { x, y, "text-anchor": "middle", class: "small" };
    svg("text", { ...where, fill: "#999" }, layer.ahead, text);
    svg("text", { ...where, fill }, layer.done, text);
  }

  function drawCalls(lane, y, open) {
    let bucket = 0;
    for (const [begin, end, op, size] of lane.calls) {
      const x = place.x(begin);
      const wide = Math.max(0.8, place.x(end) - x);
      const number = NAMES[op] ? ` ${bucket++}` : "";
      const name = `${NAMES[op] || op}${number}`;
      bar(layer.ahead, x, y, wide, 22, "#fff", PALE);
      const node = bar(layer.done, x, y, wide, 22, open);
      for (const [a, b] of lane.hidden)
        if (b > begin && a < end) {
          const left = place.x(Math.max(a, begin));
          const width = Math.max(0.4, place.x(Math.min(b, end)) - left);
          bar(layer.done, left, y, width, 22, HIDDEN);
        }
      const edge = { stroke: "#fff", "stroke-width": wide > 4 ? 1 : 0 };
      bar(layer.done, x, y, wide, 22, "none", edge);
      svg("title", {}, node, `${name}: ${op}, ${bytes(size)}, ${time(end - begin)}`);
      const text = [`${name}: ${bytes(size)}`, name, number.trim()].find(
        (words) => words && wide > 6.4 * words.length + 8,
      );
      if (!text) continue;
      const half = 3.2 * text.length + 3;
      const paper = { rx: 3, opacity: 0.85 };
      bar(layer.done, x + wide / 2 - half, y + 4, 2 * half, 14, "#fff", paper);
      caption(text, x + wide / 2, y + 15, "#222");
    }
    for (const [when] of lane.ready)
      svg("path", { d: `M${place.x(when) - 4},${y - 5} h8 l-4,6 z`, fill: "#222" }, layer.done);
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
    const now = event ? event.at : 0;
    const next = lastBegun(scenes, event);
    const rank = event ? event.rank : 0;
    const numbers = peers(next, rank);
    if (next !== scene || `${numbers}` !== among) {
      [scene, among] = [next, `${numbers}`];
      build(numbers);
    }
    place.stand(now);
    layer.reveal(place.x(now));
    for (const row of rows) {
      const hidden = lasting(row.lane.hidden, now);
      const moving = lasting(row.moving, now);
      put(row.share, moving ? `${percent(hidden / moving)} hidden` : "");
      row.label.classList.toggle("strong", row.rank === rank);
      if (row.rank === rank) say(rank, hidden, moving, Math.min(now, scene.end) - scene.begin);
    }
  }

  function say(rank, hidden, moving, passed) {
    const step = stepName(scene.step);
    const of = moving
      ? `${time(hidden)} of ${time(moving)} of communication hidden`
      : "sent nothing yet";
    const share = ((100 * hidden) / Math.max(1, passed)).toFixed(1);
    const part = moving ? percent(hidden / moving) : "";
    const shares = moving ? ` (${part}), which is ${share} % of the time so far` : "";
    put(
      $("overlap-title"),
      `Communication beside backward${step ? ", " + step : ""}: rank ${rank} has ${of}${shares}`,
    );
  }

  $("overlap").hidden = !scenes.length;
  if (scenes.length)
    views.push({
      start() {
        scene = null;
      },
      draw,
    });
}
