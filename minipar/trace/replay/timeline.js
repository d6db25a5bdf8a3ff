// What every rank does, with a line where the replay stands.
{
  const BAND = Math.max(18, Math.min(40, 480 / ranks));
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

  drawTimeline();
  views.push({
    draw(event) {
      const now = x(event ? event.at : 0);
      cursor.setAttribute("x1", now);
      cursor.setAttribute("x2", now);
    },
  });
}
