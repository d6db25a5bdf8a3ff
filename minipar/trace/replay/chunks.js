// Of the collective at hand, or else the last one: whose parts are in which chunk, on every rank.
//
// data.collectives.calls    ranks: of the world, by their place in the story; names: of the chunks;
//                           before: what each has sent and got before the page begins; rounds
// data.collectives.stories  by place: states after each message, and what was in those that it has
//                           sent and got. A large array goes in rounds, and tells its story in each
const { chunksOf } = (() => {
  const PARTS = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#8C510A",
    "#56B4E9",
    "#444444",
    "#F0E442",
  ];
  const { calls, stories } = data.collectives;
  const happens = calls.map(() => []); // the events of each call, as numbers of events so far
  const latest = new Int32Array(events.length + 1).fill(-1); // by events so far: what is shown
  events.forEach((e, n) => {
    if (e.call !== undefined) happens[e.call].push(n + 1);
    latest[n + 1] = e.call ?? latest[n];
  });
  const root = $("chunks");
  const moves = matchMedia("(prefers-reduced-motion: no-preference)").matches;
  let table = null, before = 0;

  // How far each rank of a call is after so many events: messages sent and got; whether it is done.
  function progress(number, n) {
    const call = calls[number];
    const far = new Map(
      call.ranks.map((rank, i) => [
        rank,
        { sent: call.before[i][0], got: call.before[i][1], over: false },
      ]),
    );
    for (const m of happens[number]) {
      if (m > n) break;
      const e = events[m - 1];
      const rank = far.get(e.rank);
      if (e.does === "sends") rank.sent++;
      else if (e.does === "gets") rank.got++;
      else if (e.does === "returns") rank.over = true;
    }
    return far;
  }

  // The chunks in the message that event n is about; none if it is about none, or nothing is known.
  function chunksOf(n) {
    const e = events[n - 1];
    if (!e || e.call === undefined || (e.does !== "sends" && e.does !== "gets")) return [];
    const call = calls[e.call];
    const story = stories[call.story][call.ranks.indexOf(e.rank)];
    const far = progress(e.call, n).get(e.rank);
    const list = e.does === "sends" ? story.sent : story.got;
    const count = e.does === "sends" ? far.sent : far.got;
    return list.length ? list[(count - 1) % list.length].map((c) => call.names[c]) : [];
  }

  const inOrder = (numbers) => [...numbers].sort((a, b) => a - b).join(", ");

  function stateOf(story, { got, over }) {
    const all = story.got.length;
    const last = story.states.length - 1;
    if (over || !all) return story.states[over ? last : 0];
    return story.states[got ? ((got - 1) % all) + 1 : 0];
  }

  function build(number) {
    const call = calls[number];
    const p = call.ranks.length;
    const rows = [...call.ranks.keys()].sort((a, b) => call.ranks[a] - call.ranks[b]);
    const columns = [...call.names.keys()].sort((a, b) => call.names[a] - call.names[b]);
    root.replaceChildren();
    const head = element("tr", "", root);
    element("th", "", head, "chunk");
    for (const c of columns) element("th", "", head, `${call.names[c]}`);
    const cells = rows.map((place) => {
      const row = element("tr", "", root);
      element("th", "", row, `rank ${call.ranks[place]}`);
      return columns.map((c) => {
        const cell = element("td", "", row);
        const grid = element("div", "parts", cell);
        grid.style.gridTemplateColumns = `repeat(${p > 4 ? Math.ceil(p / 2) : p}, 15px)`;
        return {
          cell,
          place,
          c,
          mask: -1,
          parts: rows.map((q) => [q, element("span", "part", grid)]),
        };
      });
    });
    table = { number, cells };
  }

  function draw(event) {
    const number = latest[at];
    $("collective").hidden = number < 0;
    if (number < 0) {
      for (const id of ["chunks", "collective-title", "moved"]) $(id).replaceChildren();
      table = null;
      return;
    }
    if (!table || table.number !== number) build(number);
    const call = calls[number];
    const far = progress(number, at);
    const mine = event.call === number;
    const moved = mine ? new Set(chunksOf(at)) : new Set();
    const from = event.does === "gets" ? event.source : event.rank;
    const to = event.does === "gets" ? event.rank : event.to;
    table.cells.forEach((row) =>
      row.forEach((one) => {
        const rank = call.ranks[one.place];
        const mask = stateOf(stories[call.story][one.place], far.get(rank))[one.c];
        if (mask !== one.mask) fill(one, mask, call);
        const moving = moved.has(call.names[one.c]);
        one.cell.className = moving && rank === from ? "from" : moving && rank === to ? "to" : "";
      }),
    );
    root.querySelectorAll("tr").forEach((row, i) => {
      if (i)
        row.className =
          mine && call.ranks[table.cells[i - 1][0].place] === event.rank ? "here" : "";
    });
    put($("collective-title"), titleOf(call, number, far));
    put($("moved"), sentence(event, moved, from, to));
    if (moves && at === before + 1 && event.does === "gets") fly(call, moved, from, to);
    before = at;
  }

  function fill(one, mask, call) {
    one.mask = mask;
    for (const [q, part] of one.parts) {
      const there = (mask >> q) % 2 === 1;
      const colour = PARTS[call.ranks[q] % PARTS.length];
      part.className = there ? "part in" : "part";
      part.textContent = there ? call.ranks[q] : "";
      if (there) part.style.cssText = `background: ${colour}; color: ${ink(colour)}`;
      else part.removeAttribute("style");
    }
  }

  function titleOf(call, number, far) {
    const e = events[happens[number][0] - 1];
    const by = e.algorithm ? ` by ${e.algorithm}` : "";
    const length = stories[call.story].map((story) => story.got.length);
    const most = Math.max(
      ...call.ranks.map((rank, i) => (length[i] ? Math.ceil(far.get(rank).got / length[i]) : 0)),
    );
    const round =
      call.rounds > 1
        ? `, round ${Math.max(1, Math.min(most, call.rounds))} of ${call.rounds}`
        : "";
    return `${e.op} #${e.number}${by} on ranks ${inOrder(call.ranks)}${round}`;
  }

  function sentence(event, moved, from, to) {
    if (!moved.size)
      return calls[latest[at]].rounds
        ? ""
        : "before and after: what goes on in between is not known";
    const whole = moved.size > 1 && moved.size === calls[latest[at]].names.length;
    const several = moved.size > 1 && !whole;
    const which = whole ? "the array" : `${several ? "chunks" : "chunk"} ${inOrder(moved)}`;
    return event.does === "gets"
      ? `${which} of rank ${from} ${several ? "have" : "has"} come to rank ${to}`
      : `${which} of rank ${from} ${several ? "set" : "sets"} out for rank ${to}`;
  }

  // The chunk comes from where it was, which the eye can follow.
  function fly(call, moved, from, to) {
    const cells = table.cells.flat();
    const place = (rank, name) =>
      cells.find((one) => call.ranks[one.place] === rank && call.names[one.c] === name).cell
        .firstChild;
    for (const name of moved) {
      const [there, here] = [place(from, name), place(to, name)];
      const up = there.getBoundingClientRect().top - here.getBoundingClientRect().top;
      here.animate(
        [
          { transform: `translateY(${up}px)`, opacity: 0.4 },
          { transform: "none", opacity: 1 },
        ],
        { duration: 220, easing: "ease-in-out" },
      );
    }
  }

  views.push({ start() {}, draw });
  return { chunksOf };
})();
