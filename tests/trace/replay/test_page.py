"""The page to play a run: what it is given, and what a real browser shows of it."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import minipar
from minipar import Cluster
from minipar.comm.tracing import tracing
from minipar.errors import UsageError
from minipar.spans import span
from minipar.trace.replay import page as replay
from minipar.trace.replay import replay_data, replay_page
from minipar.trace.replay.happenings import messages_of
from minipar.trace.trace_file import load

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)


def work(group, folder):
    with tracing(group, folder):
        with span("forward", "F0", 0):
            group.spend(3e-6)
        group.all_reduce(np.ones(8) * group.rank, algorithm="ring")
        with span("backward", HOSTILE):
            group.spend(5e-6)
        pair = group.split(group.rank % 2)
        pair.all_reduce(np.ones(4))


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Four ranks in virtual time: the same on every machine."""
    folder = tmp_path_factory.mktemp("trace")
    minipar.run(work, 4, args=(folder,), cluster=Cluster())
    return load(folder)


@pytest.fixture(scope="module")
def data(trace):
    return replay_data(trace, 0, trace.end + 1, "a run")


def test_all_that_happened_is_there_in_the_order_of_time(trace, data):
    events = data["events"]
    assert [e["at"] for e in events] == sorted(e["at"] for e in events)
    sent = [(m.rank, m.peer) for rank in trace.ranks for m in rank.messages]
    assert messages_of(events) == {pair: sent.count(pair) for pair in sent}
    assert sum(e["does"] == "gets" for e in events) == len(sent)
    calls = sum(len(rank.calls) for rank in trace.ranks)
    assert sum(e["does"] == "calls" for e in events) == calls
    assert [e["name"] for e in events if e.get("action")] == ["F0"] * 8  # begins and ends


def test_chunks_come_with_the_collectives_that_can_be_shown(data):
    states = data["collectives"]["all_reduce ring 4"]
    assert [rank[0] for rank in states] == [[1 << r] * 4 for r in range(4)]
    assert all(set(rank[-1]) == {15} for rank in states)  # at the end everybody's parts
    assert not any(key.startswith("split") for key in data["collectives"])


def test_nothing_in_the_page_can_end_the_script(trace):
    page = replay_page(trace, 0, trace.end + 1, HOSTILE)
    assert HOSTILE not in page and page.count("<script") == 2
    inside = re.search(r'id="data">(.*?)</script>', page, re.S)[1]
    assert json.loads(inside)["title"] == HOSTILE
    assert not re.search(r'(src|href)="?http|@import|url\(http', page)  # nothing from a network


def test_too_much_for_a_page_is_refused(trace, monkeypatch):
    monkeypatch.setattr(replay, "MOST_EVENTS", 10)
    with pytest.raises(UsageError, match="events are too many for a page"):
        replay_page(trace, 0, trace.end + 1, "")


# -- in a browser -------------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def browser(trace, tmp_path_factory):
    """browser("event=3"): the page as a browser has it then, its texts by id."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    path = tmp_path_factory.mktemp("page") / "replay.html"
    path.write_text(replay_page(trace, 0, trace.end + 1, HOSTILE), encoding="utf-8")

    def ask(place):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        command = [BROWSER, *options, "--dump-dom", f"file://{path}#{place}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return ask


def text_of(dom, ident):
    return re.sub(
        r"<[^>]*>", "", re.search(rf'id="{ident}"[^>]*>(.*?)</(p|h1|span|div|table)>', dom, re.S)[1]
    )


@pytest.mark.slow
def test_it_opens_without_errors_and_runs_no_name(browser):
    dom = browser("")
    assert re.search(r"<title>(.*?)</title>", dom)[1].startswith("&lt;/script&gt;")
    assert text_of(dom, "what") == "the beginning" and "owned&lt;" not in dom
    assert dom.count("<img") == 0


@pytest.mark.slow
def test_stepping_changes_what_is_shown_and_the_figures_are_the_traces(browser, data):
    sends = next(n for n, e in enumerate(data["events"], 1) if e["does"] == "sends")
    event = data["events"][sends - 1]
    dom = browser(f"event={sends}")
    words = f"rank {event['rank']} sends {event['bytes']} B to rank {event['to']} in all_reduce #0"
    assert text_of(dom, "what").startswith(words)
    assert f"event {sends} of {len(data['events'])}" in text_of(dom, "where")
    there = browser(f"event={sends}&keys=ArrowRight,ArrowRight,ArrowLeft,ArrowLeft")
    assert text_of(there, "what") == text_of(dom, "what")
    assert text_of(browser(f"event={sends}&keys=ArrowRight"), "what") != text_of(dom, "what")


@pytest.mark.slow
def test_chunks_fill_up_until_every_part_is_in_every_chunk(browser, data):
    last = max(
        n
        for n, e in enumerate(data["events"], 1)
        if e.get("op") == "all_reduce" and e["group"] == 0
    )
    first = next(n for n, e in enumerate(data["events"], 1) if e["does"] == "calls")
    count = [browser(f"event={n}").count('class="part"') for n in (first, last)]
    assert count == [4 * 4, 4 * 4 * 4]
