// The pipelines of the step at hand in time, filled up to where the replay stands; what is empty by
// then is the bubble.
{
  const PHASES = {
    F: ["forward", "#56B4E9"],
    B: ["backward", "#0072B2"],
    I: ["gradient by the input", "#0072B2"],
    W: ["gradient by the weights", "#009E73"],
  };
  const AGAIN = ["forward again", "#CC79A7"];
  const MOST = 16; // rows
  const RIGHT = 96; // room for the bubbles
  const root = $("grid");
  const SUBSCRIPT = "₀₁₂₃₄₅₆₇₈₉";
  const scenes = grouped(data.pipelines);
  let scene = null, place, layer, rows = [];

  // The pipelines of all replicas in one step.
  function grouped(pipelines) {
    const found = new Map();
    for (const one of pipelines) {
      const key = `${one.step} ${one.time}`;
      const scene = found.get(key) || {
        begin: one.begin,
        end: one.end,
        step: one.step,
        begins: {},
        pipelines: [],
      };
      found.set(key, scene);
      scene.begin = Math.min(scene.begin, one.begin);
      scene.end = Math.max(scene.end, one.end);
      scene.pipelines.push(one);
      for (const [stage, , , , [part]] of one.actions)
        if (part) scene.begins[one.ranks[stage]] ??= part[0];
    }
    for (const scene of found.values()) scene.pipelines.sort((a, b) => a.ranks[0] - b.ranks[0]);
    return [...found.values()].sort((a, b) => a.begin - b.begin);
  }

  // What is to be seen: all replicas, or, where these are too many, that of the rank at hand.
  function sceneOf(event) {
    const found = lastBegun(scenes, event);
    if (found.pipelines.reduce((sum, one) => sum + one.ranks.length, 0) <= MOST) return found;
    const one =
      found.pipelines.find((each) => event && each.ranks.includes(event.rank)) ||
      found.pipelines[0];
    one.alone = one.alone || { ...found, begin: one.begin, end: one.end, pipelines: [one] };
    return one.alone;
  }

  function build() {
    const count = scene.pipelines.reduce((sum, one) => sum + one.ranks.length, 0);
    const high = count > 8 ? 22 : 30;
    const gap = scene.pipelines.length > 1 ? 8 : 0;
    const whole = count * high + (scene.pipelines.length - 1) * gap;
    place = inTime(root, scene.begin, scene.end, RIGHT, whole + 20);
    const empty = stripes(root, "bubble");
    const [only, ...others] = scene.pipelines;
    const plain = !others.length && only.ranks.every((rank, stage) => rank === stage);
    const name = (rank, stage) => (plain ? `stage ${stage}` : `${stage} · rank ${rank}`);
    layer = layers(root, "piped", whole);
    rows = [];
    let y = 0;
    for (const one of scene.pipelines) {
      one.ranks.forEach((rank, stage) => {
        const row = {
          rank,
          stage,
          one,
          parts: [],
          bubble: write(root, WIDE - RIGHT + 10, y + high / 2 + 4, ""),
          label: write(root, LEFT - 6, y + high / 2 + 4, name(rank, stage), LABEL),
        };
        svg("title", {}, row.label, `stage ${stage} on rank ${rank}`);
        const left = place.x(one.begin);
        const wide = place.x(one.end) - left;
        bar(layer.done, left, y + 1, wide, high - 2, empty);
        for (const action of one.actions)
          if (action[0] === stage) drawAction(row, action, y + 1, high - 2);
        row.parts.sort((a, b) => a[0] - b[0]);
        rows.push(row);
        y += high;
      });
      y += gap;
    }
    ticks(root, place, whole + 15, scene.begin);
    showLegend();
  }

  function drawAction(row, [stage, phase, micro, chunk, parts, again], y, height) {
    const chunks = 1 + Math.max(...row.one.actions.map((action) => action[3]));
    const colour = mixed(PHASES[phase][1], chunks > 1 ? (0.5 * chunk) / (chunks - 1) : 0);
    const small = [...`${chunk}`].map((digit) => SUBSCRIPT[digit]).join("");
    const text = `${micro}${chunks > 1 ? small : ""}`;
    const box = ([begin, end], fill, parent, stroke) => {
      const x = place.x(begin);
      const width = Math.max(0.6, place.x(end) - x);
      return bar(parent, x, y, width, height, fill, { stroke, "stroke-width": 0.8 });
    };
    for (const part of parts) {
      row.parts.push(part);
      box(part, "#fff", layer.ahead, "#ccc");
      const node = box(part, colour, layer.done, "#fff");
      const lasted = time(part[1] - part[0]);
      const name = `${phase}${micro}${chunk ? "." + chunk : ""}`;
      svg("title", {}, node, `${name} on stage ${stage}: ${lasted}`);
    }
    for (const part of again) box(part, AGAIN[1], layer.done, "#fff");
    const [begin, end] = longest(parts, again);
    const wide = place.x(end) - place.x(begin);
    const size = Math.min(13, height - 8);
    const fits =
      wide > size * 0.62 * text.length + 2
        ? text
        : wide > size * 0.62 * `${micro}`.length + 1
          ? `${micro}`
          : "";
    if (!fits) return;
    const style = {
      x: place.x(begin) + wide / 2,
      y: y + height / 2 + size * 0.36,
      "text-anchor": "middle",
      style: `font-size:${size}px`,
      class: "number",
    };
    svg("text", { ...style, fill: "#999" }, layer.ahead, fits);
    svg("text", { ...style, fill: ink(colour) }, layer.done, fits);
  }

  // Where there is most room for a number: in the longest part that is not forward again.
  function longest(parts, again) {
    const plain = parts.flatMap(([begin, end]) => {
      const inside = again.filter((part) => part[1] > begin && part[0] < end).flat();
      const edges = [begin, ...inside, end];
      return edges.flatMap((edge, i) => (i % 2 ? [] : [[edge, edges[i + 1]]]));
    });
    return plain.reduce((a, b) => (b[1] - b[0] > a[1] - a[0] ? b : a), [0, 0]);
  }

  function showLegend() {
    const actions = scene.pipelines.flatMap((one) => one.actions);
    const there = new Set(actions.map((action) => action[1]));
    const entries = Object.entries(PHASES)
      .filter(([phase]) => there.has(phase))
      .map(([phase, [label, colour]]) => [`${phase} ${label}`, colour]);
    if (actions.some((action) => action[5].length)) entries.push(AGAIN);
    entries.push(["bubble", "striped"]);
    legend($("phases"), entries);
    if (actions.some((action) => action[3]))
      element(
        "span",
        "",
        $("phases"),
        "3₁: micro-batch 3, chunk 1 of its stage; paler: a later chunk",
      );
  }

  // The share of the time so far in which the stage of that row had nothing to do.
  function bubbleOf(row, now) {
    const end = Math.min(now, row.one.end);
    const passed = end - row.one.begin;
    return passed > 0 ? 1 - lasting(row.parts, end) / passed : 0;
  }

  function draw(event) {
    const now = event ? event.at : 0;
    const next = sceneOf(event);
    if (next !== scene) {
      scene = next;
      build();
    }
    place.stand(now);
    layer.reveal(place.x(now));
    let sum = 0;
    for (const row of rows) {
      const share = bubbleOf(row, now);
      sum += share;
      put(row.bubble, `${percent(share)} bubble`);
      row.label.classList.toggle("strong", event !== null && event.rank === row.rank);
    }
    const count = scene.pipelines.length;
    const replicas = count > 1 ? `${count} replicas, rows are stage · rank` : "";
    const which = ["Pipeline", stepName(scene.step), replicas].filter(Boolean).join(", ");
    put($("pipeline-title"), `${which}: bubble so far ${percent(sum / rows.length)}`);
  }

  $("pipeline").hidden = !scenes.length;
  if (scenes.length)
    views.push({
      start() {
        scene = null;
      },
      draw,
    });
}
