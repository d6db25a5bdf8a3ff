// What has just gone from whom to whom.
{
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

  drawRanks();
  views.push({ draw: drawMessage });
}
