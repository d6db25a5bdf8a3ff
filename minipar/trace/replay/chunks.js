// Of the collective under way: whose parts are in which chunk, on every rank.
{
  const PART_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C510A", "#7570B3", "#444444", "#C29B00"];

  function drawChunks(event) {
    const box = $("collective"), states = event && event.op && collectiveOf(event);
    box.hidden = !states;
    if (!states) return;
    const { members, table, parts } = states;
    $("collective-title").textContent = `${event.op} #${event.number}${event.algorithm ? " by " + event.algorithm : ""}: whose parts are in which chunk`;
    const root = $("chunks");
    root.replaceChildren();
    const head = element("tr", "", root);
    element("th", "", head, "");
    for (let c = 0; c < parts; c++) element("th", "", head, `chunk ${c}`);
    members.forEach((rank, i) => {
      const row = element("tr", rank === event.rank ? "here" : "", root);
      element("th", "", row, `rank ${rank}`);
      for (let c = 0; c < parts; c++) {
        const cell = element("td", "", row);
        members.forEach((other, q) => {
          const there = Math.floor(table[i][c] / 2 ** q) % 2 === 1;
          const part = element("span", there ? "part" : "part none", cell, there ? other : "");
          if (there) part.style.background = PART_COLOURS[q % PART_COLOURS.length];
        });
      }
    });
  }

  function collectiveOf(event) {
    const same = (e) => e.op === event.op && e.number === event.number && e.group === event.group;
    const begun = events.filter((e) => e.does === "calls" && same(e) && membersWith(e, event));
    const members = [...new Set(begun.map((e) => e.rank))].sort((a, b) => a - b);
    const states = data.collectives[`${event.op} ${event.algorithm} ${members.length}`];
    if (!states || !members.includes(event.rank)) return null;
    const got = new Map(members.map((r) => [r, 0]));
    for (let n = 0; n < at; n++) {
      const e = events[n];
      if (e.does === "gets" && same(e) && got.has(e.rank)) got.set(e.rank, got.get(e.rank) + 1);
    }
    const table = members.map((r, i) => states[i][Math.min(got.get(r), states[i].length - 1)]);
    return { members, table, parts: table[0].length };
  }

  function membersWith(a, b) { return a.algorithm === b.algorithm; }

  views.push({ draw: drawChunks });
}
