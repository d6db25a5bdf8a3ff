"""The page to play a run, and what a real browser shows of it."""

import json
import re

import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.parallel.schedule import gpipe
from minipar.spans import at_step, span
from minipar.trace.replay import page as replay
from minipar.trace.replay import replay_data, replay_page
from minipar.trace.totals import report, shares, window_of
from tests.trace.replay.browser import found_in
from tests.trace.replay.runs import (
    EVERY,
    SLOW,
    beside_backward,
    every_collective,
    staged,
    trace_of,
)

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)


def work(group):
    """A bit of everything, with names that would do something if they were HTML."""
    with span("forward", "F0", 0):
        group.spend(3e-6)
    with span(HOSTILE, HOSTILE):
        group.spend(3e-6)
    beside_backward(group, 2, name=HOSTILE)
    at_step(2)
    staged(group, gpipe(4, 2), {"F": 1e-3, "B": 2e-3})
    group.split(group.rank % 2).all_reduce(np.ones(4), algorithm=algorithm)


def algorithm(link, buf):
    link.add(buf, link.sendrecv(buf, 1 - link.rank, 1 - link.rank))


algorithm.__name__ = HOSTILE


@pytest.fixture(scope="module")
def trace():
    return trace_of(work, 4)


def test_nothing_in_the_page_can_end_the_script(trace):
    page = replay_page(trace, 0, trace.end + 1, HOSTILE)
    assert HOSTILE not in page and page.count("<script") == 2
    inside = re.search(r'id="data">(.*?)</script>', page, re.S)[1]
    assert json.loads(inside)["title"] == HOSTILE and inside.count("onerror") > 20
    assert not re.search(r'(src|href)="?http|@import|url\(http', page)  # nothing from a network


def test_too_much_for_a_page_is_refused(trace, monkeypatch):
    monkeypatch.setattr(replay, "MOST_EVENTS", 10)
    with pytest.raises(UsageError, match="events are too many for a page"):
        replay_page(trace, 0, trace.end + 1, "")


def test_bars_and_steps_of_the_timeline(trace):
    data = replay_data(trace, 0, trace.end + 1, "a run")
    assert [step for step, *_ in data["steps"]] == [0, 1, 2]
    for rank, lane in zip(trace.ranks, data["lanes"]):
        assert len(lane["calls"]) >= len(rank.calls)
        worked = sum(b - a for a, b, *_ in lane["work"])
        assert worked == shares(rank, 0, trace.end + 1).computing > 0
        assert all(0 <= a <= b <= data["length"] for bars in lane.values() for a, b, *_ in bars)


# -- in a browser -------------------------------------------------------------------------------

WALK = """
  let images = 0; // which only a name that was taken for HTML would make
  const N = events.length, page = () => {
    images += document.images.length;
    return $("page").innerHTML;
  };
  const places = [0, 40, N >> 1, N - 30].flatMap((from) => [...Array(26).keys()]
    .map((i) => from + i));
  const direct = new Map(), ways = { on: 0, back: 0, jumps: 0 };
  for (const n of places) {
    show(n < N / 2 ? N : 0);
    show(n);
    direct.set(n, page());
  }
  const same = () => page() === direct.get(at);
  for (const from of [0, 40, N >> 1, N - 30]) {
    show(from);
    for (let i = 0; i < 25; i++) { keys.ArrowRight(); ways.on += same(); }
    for (let i = 0; i < 25; i++) { keys.ArrowLeft(); ways.back += same(); }
  }
  for (let i = 0; i < 100; i++) { show(places[i * 37 % places.length]); ways.jumps += same(); }
  ways.differ = new Set(direct.values()).size;
"""
REACH = """
  const reach = (key, n) => { show(n); keys[key](); return at; };
  const reached = { opened, rank: reach("3", 10), call: reach("c", 0) };
  reached.steps = [reach("s", 0), reach("s", at), reach("s", at), reach("S", at)];
  keys["?"]();
  reached.help = !$("help").hidden;
  const hidden = ["pipeline", "overlap"].map((id) => $(id).hidden);
  const made = { images, scripts: document.scripts.length };
  return { ...ways, ...reached, ...made, hidden, title: document.title };
"""


@pytest.mark.slow
def test_it_opens_and_steps_and_runs_no_name(trace, tmp_path):
    """100 steps on and 100 back show what going there at once shows; keys go where they say."""
    page = replay_page(trace, 0, trace.end + 1, HOSTILE)
    page = page.replace("</body>", "<script>const opened = at;</script></body>")
    place = "#event=7&keys=ArrowRight,ArrowLeft,ArrowRight"
    found = found_in(page, tmp_path, WALK + REACH, place)
    assert (found["on"], found["back"], found["jumps"]) == (100, 100, 100)
    assert found["differ"] == 104 and found["opened"] == 8 and found["help"]
    assert found["title"] == HOSTILE and found["images"] == 0 and found["scripts"] == 4
    assert found["hidden"] == [False, False]
    events = replay_data(trace, 0, trace.end + 1, "")["events"]
    assert events[found["rank"] - 1]["rank"] == 3
    assert events[found["call"] - 1]["does"] == "calls"
    begun = [window_of(trace, step)[0] for step in range(3)]
    assert [events[n - 1]["at"] for n in found["steps"]] == [*begun, begun[1]]


NUMBERS = """
  const bubbles = (t) => { show(until(t)); return [...$("grid").querySelectorAll("text")]
    .map((text) => text.textContent).filter((text) => text.includes("bubble")); };
  const filled = () => Number($("grid").querySelector("clipPath rect").getAttribute("width"));
  const { begin, end } = data.pipelines[0];
  const early = bubbles(begin + 3e6), before = filled();
  const late = bubbles(end), title = $("pipeline-title").textContent;
  const grew = filled() - before, boxes = $("grid").querySelectorAll("g[clip-path] text").length;
  const titles = events.map((event, n) => {
    show(n + 1);
    return [event.rank, event.at, $("overlap-title").textContent];
  });
  return { early, late, title, grew, boxes, titles };
"""


@pytest.mark.slow
def test_numbers_are_those_of_the_formula_and_of_the_totals(tmp_path):
    """Bubbles of a GPipe; what is hidden of the gradients, at every event of a step after it."""
    p, m = 3, 4

    def work(group):
        at_step(0)
        staged(group, gpipe(p, m), {"F": 1e-3, "B": 2e-3}, 0)
        beside_backward(group, 3, first=1)

    trace = trace_of(work, p, cluster=SLOW)
    found = found_in(replay_page(trace, 0, trace.end + 1, ""), tmp_path, NUMBERS)
    assert found["early"] == ["0 % bubble", "33 % bubble", "67 % bubble"]  # begin after 0, 1, 2 ms
    assert found["late"] == [f"{round(100 * (p - 1) / (m + p - 1))} % bubble"] * p
    assert found["title"] == "Pipeline, step 0: bubble so far 33 %"
    assert found["boxes"] == 2 * m * p and found["grew"] > 0
    begin, end = window_of(trace, 2)
    shares = []
    for rank, at, title in found["titles"]:
        if "step 2: " in title and begin < at <= end:
            expected = 100 * report(trace, begin, at)[rank]["overlapped"]
            seen = re.search(r"which is ([\d.]+) % of the time so far", title)
            shares.append(float(seen[1]) if seen else 0.0)
            assert f"step 2: rank {rank} has" in title
            assert shares[-1] == pytest.approx(expected, abs=0.051)
    assert len(shares) > 50 and max(shares) > 1


CHUNKS = """
  const chunks = document.getElementById("chunks"), cells = (what) => chunks.querySelectorAll(what);
  const calls = data.collectives.calls.map(() => ({ unmarked: 0, empty: 0 }));
  events.forEach((event, n) => {
    if (event.call === undefined) return;
    show(n + 1);
    const call = calls[event.call];
    call.name = `${event.op} ${event.algorithm}`;
    call.full = cells(".part.in").length;
    if (event.does !== "sends" && event.does !== "gets") return;
    const [to, from] = [cells("td.to"), cells("td.from")];
    call.unmarked += !to.length || to.length !== from.length || !$("moved").textContent;
    if (event.does === "gets") call.empty += [...to].some((cell) => !cell.querySelector(".in"));
  });
  return calls;
"""


@pytest.mark.slow
def test_chunks_fill_up_and_what_moves_is_marked(tmp_path):
    """In every collective of four ranks; the root of those that have one is the last rank."""
    p = 4
    trace = trace_of(every_collective, p, p - 1)
    found = found_in(replay_page(trace, 0, trace.end + 1, ""), tmp_path, CHUNKS)
    assert [call["name"] for call in found] == [f"{op} {name}" for op, name in EVERY]
    least = {"broadcast": p * p, "all_reduce": p**3, "all_gather": p * p, "all_to_all": p * p}
    least |= {"reduce": p * p, "gather": p, "scatter": p, "reduce_scatter": p * p}
    for call in found:
        assert call["full"] >= least[call["name"].split()[0]], call
        assert not call["unmarked"] and not call["empty"], call
