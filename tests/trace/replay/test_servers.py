"""Parameter servers in the replay: marks are events, and what is shown is what they add up to."""

import re
import subprocess

import pytest

from minipar.trace.replay import replay_data, replay_page
from minipar.trace.replay.servers import servers_of
from minipar.trace.trace_file import nothing_of
from tests.parallel.parameter_server.test_marks import SERVERS, WORKERS, traced
from tests.trace.replay.browser import BROWSER
from tests.trace.test_served import TRACE, trace_of


@pytest.fixture(scope="module")
def trace():
    return traced("ssp(1)")[0]


@pytest.fixture(scope="module")
def events(trace):
    return replay_data(trace, 0, trace.end + 1, "")["events"]


def of_marks(events):
    return [e for e in events if "lag" in e]


def test_every_mark_is_an_event_of_its_rank_in_its_order(trace, events):
    for rank in trace.ranks:
        mine = [(e["does"], e["whom"], e["value"], e["lag"], e["at"])
                for e in of_marks(events) if e["rank"] == rank.rank]  # fmt: skip
        assert mine == [(m.kind, m.whom, m.value, m.lag, m.at) for m in rank.marks]


def test_at_one_moment_a_push_comes_before_its_version_and_that_before_an_answer(events):
    """In virtual time all of it is at the same time."""
    server, held = [e for e in events if e["rank"] == WORKERS], set()
    for n, e in enumerate(server):
        if e["does"] == "version":
            before = next(x for x in reversed(server[:n]) if x["does"] != "version")
            assert before["does"] == "gets" and before["at"] == e["at"]
        if e["does"] == "held":
            held.add(e["whom"])
        if e["does"] == "granted":
            held.remove(e["whom"])
            assert any(x["does"] == "version" and x["at"] == e["at"] for x in server[:n])
        assert e["does"] != "sends" or e["to"] not in held


def test_who_is_who_and_nothing_without_servers(trace):
    known = servers_of(trace, 0)
    assert known["bound"] == 1 and known["before"] == []
    assert known["workers"] == 3 and known["servers"] == [3, 4] and known["silent"] == []
    killed = trace._replace(ranks=[trace.ranks[0], nothing_of(1), *trace.ranks[2:]])
    assert servers_of(killed, 0)["silent"] == [1]
    assert servers_of(trace_of(([], [])), 0) is None


def test_before_a_window_the_last_of_each_is_enough():
    found = servers_of(TRACE, 503)["before"]
    assert [(e["rank"], e["does"], e["whom"], e["value"]) for e in found] == [
        *((2, "bound", 2, 1), (1, "pulled", 2, 0), (0, "pulled", 2, 1), (0, "clock", 0, 2)),
        *((2, "version", 0, 2), (2, "held", 0, 1), (1, "clock", 1, 1), (2, "granted", 0, 2)),
    ]


# -- in a browser -------------------------------------------------------------------------------


def pages(trace, begin, folder):
    """ask("event=3"): the page from `begin` on as a browser has it then."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    path = folder / "replay.html"
    path.write_text(replay_page(trace, begin, trace.end + 1, "servers"), encoding="utf-8")

    def ask(place):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        command = [BROWSER, *options, "--dump-dom", f"file://{path}#{place}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return ask


def shown(dom):
    """By worker: its clock, its cells, whom it waits for; by server: its version, last pushes."""
    workers, servers = {}, {}
    for rank, inside in re.findall(r'<g class="worker" data-worker="(\d+)".*?>(.*?)</g>', dom):
        texts = re.findall(r"<text[^>]*>(.*?)</text>", inside)
        versions = [tuple(map(int, re.findall(r"\d+", text))) for text in texts[3:]]
        workers[int(rank)] = int(texts[1]), inside.count('class="step"'), texts[2], versions
    for rank, inside in re.findall(r'<g class="server" data-server="(\d+)".*?>(.*?)</g>', dom):
        texts = re.findall(r"<text[^>]*>(.*?)</text>", inside)
        servers[int(rank)] = texts[1], [int(text) for text in texts[2:]]
    return workers, servers


def added_up(trace, events):
    """The same, from the marks among these events."""
    seen = [[e for e in of_marks(events) if e["rank"] == rank.rank] for rank in trace.ranks]

    def last(rank, kind, whom=None):
        mine = [e for e in seen[rank] if e["does"] == kind and whom in (None, e["whom"])]
        return mine[-1] if mine else None

    servers, workers = {}, {}
    for s in range(WORKERS, WORKERS + SERVERS):
        versions = [e for e in seen[s] if e["does"] == "version"]
        servers[s] = len(versions), [e["lag"] for e in versions[-10:]]
    for w in range(WORKERS):
        says = ""
        for s in servers:
            turns = [e for e in seen[s] if e["does"] in ("held", "granted") and e["whom"] == w]
            if turns and turns[-1]["does"] == "held":
                says = says or f"waits for worker {turns[-1]['value']}"
        if all(last(s, "gone", w) for s in servers):
            says = "has left"
        clock = last(w, "clock")["value"]
        pulled = [(last(w, "pulled", s), s) for s in servers]
        has = [
            (e["value"], s, *[n for n in [servers[s][0] - e["value"]] if n]) for e, s in pulled if e
        ]
        workers[w] = clock, clock, says, has
    return workers, {s: (f"version {n}", lags) for s, (n, lags) in servers.items()}


@pytest.mark.slow
def test_what_is_shown_is_what_the_trace_adds_up_to(trace, events, tmp_path):
    ask = pages(trace, 0, tmp_path)
    held = [n for n, e in enumerate(events, 1) if e["does"] == "held"]
    for place in (held[3], held[3] + 40, len(events)):
        dom = ask(f"event={place}")
        assert shown(dom) == added_up(trace, events[:place])
    (says,) = set(re.findall(r"waits for worker \d", ask(f"event={held[3]}")))
    assert says == "waits for worker 1"


@pytest.mark.slow
def test_steps_move_pushes_and_are_told_in_words(trace, events, tmp_path):
    ask = pages(trace, 0, tmp_path)
    dom = ask("event=0&keys=v,v,v,v")
    place = [n for n, e in enumerate(events, 1) if e["does"] == "version"][3]
    event = events[place - 1]
    words = (
        f"server {event['rank']} has applied a push of worker {event['whom']}, {event['lag']} "
        f"updates stale: version {event['value']}"
    )
    assert f">{words}<" in dom and f">{event['lag']} stale</text>" in dom
    before = ask(f"event={place - 1}")
    assert 'stroke-dasharray="5 4"' in before  # it is on its way
    assert before.count('stroke-dasharray="5 4"') == dom.count('stroke-dasharray="5 4"') + 1
    assert shown(before) != shown(dom)


@pytest.mark.slow
def test_a_window_begins_with_what_was_before(trace, events, tmp_path):
    begin = next(e["at"] for e in events if e["does"] == "held") + 1
    workers, servers = shown(pages(trace, begin, tmp_path)("event=0"))
    expected = added_up(trace, [e for e in events if e["at"] < begin])
    assert workers == expected[0]
    assert {s: text for s, (text, _) in servers.items()} == {
        s: text for s, (text, _) in expected[1].items()
    }
