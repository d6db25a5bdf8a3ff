// What has just gone from whom to whom.
{
  const root = $("ring");
  const AGO = 6; // events that a message stays for
  const small = ranks > 16;
  const RADIUS = small ? 6 : 17;
  let places = [], circles = [], centre, arrows, shown = -1;

  function start() {
    const wide = Math.min(WIDE, ranks > 2 ? 470 : 400);
    const round = ranks > 2;
    const radius = round ? Math.min(105, 34 + 10 * ranks) : 0;
    const high = round ? 2 * radius + 50 : 84;
    const across = Math.min(wide / 2 - 28, round ? 2 * radius : 150);
    root.replaceChildren();
    root.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    centre = [wide / 2, high / 2];
    root.style.width = `${wide}px`;
    arrows = svg("g", {}, root);
    places = Array.from({ length: ranks }, (_, r) => {
      const angle = (2 * Math.PI * r) / ranks - (round ? Math.PI / 2 : Math.PI);
      return [wide / 2 + across * Math.cos(angle), high / 2 + radius * Math.sin(angle)];
    });
    circles = places.map(([cx, cy], r) => {
      const circle = svg("circle", { cx, cy, r: RADIUS, class: "rank" }, root);
      if (!small) svg("text", { x: cx, y: cy + 4, "text-anchor": "middle" }, root, r);
      return circle;
    });
    shown = -1;
  }

  function draw(event) {
    const here = event ? event.rank : -1;
    if (here !== shown) {
      for (const r of [shown, here]) if (r >= 0) circles[r].classList.toggle("here", r === here);
      shown = here;
    }
    arrows.replaceChildren();
    for (const e of events.slice(Math.max(0, at - AGO), at - 1))
      if (e.does === "sends") arrow(e.rank, e.to, e, false);
    if (event && event.does === "sends") arrow(event.rank, event.to, event, true);
    if (event && event.does === "gets") arrow(event.source, event.rank, event, true);
  }

  function arrow(from, to, e, now) {
    const [a, b] = [places[from], places[to]];
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const far = Math.hypot(dx, dy) || 1;
    const [ux, uy] = [dx / far, dy / far];
    const room = RADIUS + 3;
    const side = 3; // messages there and back run beside each other
    const start_ = [a[0] + room * ux - side * uy, a[1] + room * uy + side * ux];
    const tip = [b[0] - room * ux - side * uy, b[1] - room * uy + side * ux];
    const colour = now ? "#222" : strong(colours[e.axis] || "#444444");
    const opacity = now ? 1 : 0.45;
    const [backX, backY] = [tip[0] - 10 * ux, tip[1] - 10 * uy];
    const corners = [tip, [backX - 5 * uy, backY + 5 * ux], [backX + 5 * uy, backY - 5 * ux]];
    const ends = { x1: start_[0], y1: start_[1], x2: tip[0] - 7 * ux, y2: tip[1] - 7 * uy };
    svg("line", { ...ends, stroke: colour, "stroke-width": now ? 3 : 1.6, opacity }, arrows);
    svg("polygon", { points: corners.join(" "), fill: colour, opacity }, arrows);
    if (!now) return;
    const chunks = chunksOf(at),
      what =
        chunks.length && chunks.length < 4
          ? `${chunks.length > 1 ? "chunks" : "chunk"} ${chunks.join(", ")}: `
          : "";
    svg(
      "text",
      { ...beside((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, dx, dy), class: "halo" },
      arrows,
      what + bytes(e.bytes),
    );
  }

  // Where the words go: outside of the circle, away from the middle of their arrow.
  function beside(x, y, dx, dy) {
    let [outX, outY] = [x - centre[0], y - centre[1]];
    if (Math.hypot(outX, outY) < 12)
      [outX, outY] = dy < 0 || (dy === 0 && dx > 0) ? [dy, -dx] : [-dy, dx];
    const far = Math.hypot(outX, outY) || 1;
    const side = outX / far;
    return {
      x: x + 10 * side,
      y: y + (14 * outY) / far + 4,
      "text-anchor": side > 0.3 ? "start" : side < -0.3 ? "end" : "middle",
    };
  }

  views.push({ start, draw });
}
