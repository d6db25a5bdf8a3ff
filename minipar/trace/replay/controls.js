// Where the replay stands, and what moves it: buttons, keys, slider, address.  The last file.
const SPEEDS = [1, 4, 16, 64, 256]; // events a second
let playing = 0; // the number of the frame that is asked for

function show(n) {
  at = Math.max(0, Math.min(events.length, n));
  const event = at ? events[at - 1] : null;
  const now = event ? event.at : 0;
  $("slider").value = at;
  const begun = data.steps.filter(([, , begins]) => event && begins[event.rank] <= now).pop();
  const step = begun ? `${stepName(begun[0])}, ` : "";
  put(
    $("where"),
    `${step}event ${at} of ${events.length}, ${time(now)}${data.virtual ? " (virtual)" : ""}`,
  );
  put($("what"), event ? said(event) : "the beginning");
  put($("site"), event && event.site ? event.site : "");
  for (const view of views) view.draw(event);
  put(
    $("log"),
    events
      .slice(Math.max(0, at - 6), at)
      .map((e) => `${time(e.at).padStart(10)}  ${said(e)}`)
      .reverse()
      .join("\n"),
  );
}

function begin() {
  WIDE = Math.max(420, $("page").clientWidth);
  for (const view of views) view.start?.();
}

function play(on) {
  cancelAnimationFrame(playing);
  playing = 0;
  $("play").textContent = on ? "❚❚" : "▶";
  if (!on) return;
  let last = performance.now(), due = 0;
  const frame = (now) => {
    due += ((now - last) / 1000) * Number($("speed").value);
    last = now;
    if (due >= 1) show(at + Math.floor(due));
    due %= 1;
    if (at < events.length) playing = requestAnimationFrame(frame);
    else play(false);
  };
  playing = requestAnimationFrame(frame);
}

function nextWhere(test) {
  for (let n = at; n < events.length; n++) if (test(events[n])) return show(n + 1);
}

function lastWhere(test) {
  for (let n = at - 2; n >= 0; n--) if (test(events[n])) return show(n + 1);
  show(0);
}

function toStep(on) {
  const now = at ? events[at - 1].at : -1;
  const starts = data.steps
    .map(([, begin]) => events[until(begin - 1)]?.at)
    .filter((t) => t !== undefined);
  const found = on > 0 ? starts.find((t) => t > now) : starts.filter((t) => t < now).pop();
  if (found !== undefined) show(until(found - 1) + 1);
}

function faster(by) {
  const next = SPEEDS.indexOf(Number($("speed").value)) + by;
  if (SPEEDS[next]) $("speed").value = SPEEDS[next];
}

function help(on) {
  $("help").hidden = !on;
}

const keys = {
  ArrowRight: () => show(at + 1),
  ArrowLeft: () => show(at - 1),
  Home: () => show(0),
  End: () => show(events.length),
  " ": () => play(!playing),
  "+": () => faster(1),
  "-": () => faster(-1),
  "]": () => nextWhere((e) => at && e.rank === events[at - 1].rank),
  "[": () => lastWhere((e) => at && e.rank === events[at - 1].rank),
  c: () => nextWhere((e) => e.does === "calls"),
  C: () => lastWhere((e) => e.does === "calls"),
  v: () => nextWhere((e) => e.does === "version"),
  s: () => toStep(1),
  S: () => toStep(-1),
  "?": () => help($("help").hidden),
  Escape: () => help(false),
};
for (let r = 0; r < Math.min(10, ranks); r++) keys[r] = () => nextWhere((e) => e.rank === r);

document.title = data.title;
$("title").textContent = data.title;
$("slider").max = events.length;
for (const speed of SPEEDS)
  element("option", "", $("speed"), `${speed} event${speed > 1 ? "s" : ""}/s`).value = speed;
$("speed").value = 4;
$("slider").addEventListener("input", () => show(Number($("slider").value)));
for (const [button, key] of [
  ["first", "Home"],
  ["back", "ArrowLeft"],
  ["next", "ArrowRight"],
  ["play", " "],
  ["ask", "?"],
])
  $(button).addEventListener("click", keys[key]);
document.addEventListener("keydown", (key) => {
  if (!keys[key.key] || key.target.tagName === "SELECT" || key.ctrlKey || key.metaKey || key.altKey)
    return;
  key.preventDefault();
  keys[key.key]();
});
addEventListener("resize", () => {
  if (Math.max(420, $("page").clientWidth) === WIDE) return;
  begin();
  show(at);
});
const address = new URLSearchParams(location.hash.slice(1));
if (address.get("open"))
  for (const view of document.querySelectorAll("details"))
    view.open = address.get("open").split(",").includes(view.id);
begin();
show(Number(address.get("event") || 0));
for (const key of (address.get("keys") || "").split(",")) if (keys[key]) keys[key]();
