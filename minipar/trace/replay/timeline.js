// What every rank does: above what it computes, pale where it waits or moves bytes; below what it
// moves or waits for.
{
  const root = $("timeline");
  const BAND = Math.max(18, Math.min(38, 480 / ranks));
  const numbered = data.steps.length > 1;
  let place;

  function start() {
    const top = numbered ? 14 : 0;
    const high = top + BAND * ranks;
    place = inTime(root, 0, length, 6, high + 20);
    const hatch = stripes(root, "waits", "none", "#9a9a9a");
    const used = new Map();
    const bars = painter(used);
    lanes.forEach((lane, row) => {
      const y = top + row * BAND;
      svg("text", { x: LEFT - 8, y: y + BAND * 0.6, "text-anchor": "end" }, root, `rank ${row}`);
      const colour = (span) => colours[span[2]] || colours[""];
      for (const span of lane.spans) {
        bars(y + 2, BAND * 0.5, span, mixed(colour(span), 0.65));
        used.set(span[2], colour(span));
      }
      for (const part of lane.work) bars(y + 2, BAND * 0.5, part, colour(part), "", part[3]);
      for (const wait of lane.waits) bars(y + BAND * 0.55, BAND * 0.3, wait, colours.wait);
      for (const call of lane.calls)
        bars(
          y + BAND * 0.55,
          BAND * 0.3,
          call,
          colours[call[2]] || colours[""],
          `moving: ${call[2]}`,
        );
      for (const idle of lane.idle) bars(y + BAND * 0.55, BAND * 0.3, idle, hatch, "waiting");
    });
    if (numbered) drawSteps(high);
    ticks(root, place, high + 15);
    legend(
      $("legend"),
      [...used].map(([label, fill]) => [label, fill === hatch ? "striped" : fill]),
    );
  }

  // Draws bars, but no two of a kind in one place: a trace has more bars than a screen has points.
  function painter(used) {
    const reach = new Map();
    return (y, height, [begin, end, kind, name], fill, label, text) => {
      const left = place.x(begin);
      const wide = Math.max(0.8, place.x(end) - left);
      const key = `${y} ${fill}`;
      if (label) used.set(label, fill);
      if (left + wide < (reach.get(key) ?? -1) + 0.5) return;
      reach.set(key, left + wide);
      const bar = svg("rect", { x: left, y, width: wide, height, fill }, root);
      svg("title", {}, bar, `${kind} ${name} ${time(end - begin)}`);
      if (text && wide > 7 * text.length + 4 && height > 9)
        svg(
          "text",
          {
            x: left + wide / 2,
            y: y + height / 2 + 4,
            class: "small",
            "text-anchor": "middle",
            fill: ink(fill),
          },
          root,
          text,
        );
    };
  }

  function drawSteps(high) {
    let free = WIDE + 1; // to the right, what is left for a name
    for (const [step, begin] of [...data.steps].reverse()) {
      const x = place.x(begin);
      if (begin > 0) svg("line", { x1: x, x2: x, y1: 0, y2: high, stroke: "#bbb" }, root);
      if (x + 48 > free) continue;
      svg("text", { x: x + 3, y: 10, class: "small faint" }, root, stepName(step));
      free = x;
    }
  }

  views.push({ start, draw: (event) => place.stand(event ? event.at : 0) });
}
