// The actions of each stage of a pipeline, as they are done.
{
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

  views.push({ draw: drawPipeline });
}
