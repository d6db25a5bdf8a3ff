// Where the replay stands, and what moves it: buttons, keys, the address.  The last file.
let timer = null;

function show(n) {
  at = Math.max(0, Math.min(events.length, n));
  const event = at ? events[at - 1] : null;
  $("slider").value = at;
  $("where").textContent = `event ${at} of ${events.length}, ${time(event ? event.at : 0)}${data.virtual ? " (virtual)" : ""}`;
  $("what").textContent = event ? said(event) : "the beginning";
  for (const view of views) view.draw(event);
  $("log").textContent = events.slice(Math.max(0, at - 6), at).map((e, i) => `${time(e.at).padStart(10)}  ${said(e)}`).reverse().join("\n");
}

function play(on) {
  if (timer) clearInterval(timer);
  timer = on ? setInterval(() => (at < events.length ? show(at + 1) : play(false)), 1000 / Number($("speed").value)) : null;
  $("play").textContent = timer ? "❚❚" : "▶";
}

function nextWhere(test) {
  for (let n = at; n < events.length; n++) if (test(events[n])) return show(n + 1);
}

const keys = {
  ArrowRight: () => show(at + 1),
  ArrowLeft: () => show(at - 1),
  Home: () => show(0),
  End: () => show(events.length),
  " ": () => play(!timer),
  "]": () => nextWhere((e) => at && e.rank === events[at - 1].rank),
  c: () => nextWhere((e) => e.does === "calls"),
  v: () => nextWhere((e) => e.does === "version"),
};

document.title = data.title;
$("title").textContent = data.title;
$("slider").max = events.length;
$("slider").addEventListener("input", () => show(Number($("slider").value)));
$("first").addEventListener("click", keys.Home);
$("back").addEventListener("click", keys.ArrowLeft);
$("next").addEventListener("click", keys.ArrowRight);
$("play").addEventListener("click", keys[" "]);
$("speed").addEventListener("change", () => timer && play(true));
document.addEventListener("keydown", (key) => {
  if (keys[key.key] && key.target.tagName !== "SELECT") {
    key.preventDefault();
    keys[key.key]();
  }
});
const place = new URLSearchParams(location.hash.slice(1));
show(Number(place.get("event") || 0));
for (const key of (place.get("keys") || "").split(",")) if (keys[key]) keys[key]();
