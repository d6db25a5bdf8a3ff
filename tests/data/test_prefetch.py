import gc
import itertools
import threading
import traceback

import pytest

from minipar.data.prefetch import Prefetch
from minipar.data.sources import Wait


def running():
    return [t for t in threading.enumerate() if t.name == "minipar prefetch"]


def test_items_arrive_in_order_and_the_thread_ends_with_them():
    items = Prefetch((n for n in range(1000)), ahead=3)
    assert list(items) == list(range(1000))
    assert items.close() and not running()


def test_no_more_is_made_than_may_wait():
    """The maker is stopped in its put: `ahead` lie in the queue, one more is in its hand."""
    made, full = [], threading.Event()

    def endless():
        for n in itertools.count():
            made.append(n)
            if n == 4:
                full.set()
            yield n

    items = Prefetch(endless(), ahead=3)
    assert [next(items), full.wait(5)] == [0, True]  # 0 taken, 1 2 3 wait, 4 in its hand
    assert made == [0, 1, 2, 3, 4]
    assert next(items) == 1
    items.close()
    assert len(made) <= 6 and not running()


def test_an_error_arrives_after_what_was_made_before_it_with_its_traceback():
    def breaks():
        yield 1
        yield 2
        raise KeyError("in the source")

    items = Prefetch(breaks(), ahead=5)
    assert [next(items), next(items)] == [1, 2]
    for _ in range(2):
        with pytest.raises(KeyError, match="in the source") as caught:
            next(items)
        assert "in breaks" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert items.close()


@pytest.mark.parametrize("item", [0, Wait(1000)])
def test_close_ends_a_thread_that_waits_at_once_and_closes_the_source(item):
    began, closed = threading.Event(), []

    def source():
        try:
            while True:
                began.set()
                yield item
        finally:
            closed.append(threading.current_thread().name)

    items = Prefetch(source(), ahead=1)
    assert began.wait(5) and len(running()) == 1
    assert items.close(timeout_s=5) and not running()
    assert closed == ["minipar prefetch"]
    assert list(items) == []


def test_close_wakes_a_consumer():
    items = Prefetch((Wait(1000) for _ in itertools.count()), ahead=1)
    found = []
    consumer = threading.Thread(target=lambda: found.extend(items))
    consumer.start()
    assert items.close()
    consumer.join(5)
    assert not consumer.is_alive() and found == []


def test_close_says_if_the_source_hangs_in_a_call_of_its_own():
    go_on = threading.Event()

    def hangs():
        go_on.wait()
        yield 1

    items = Prefetch(hangs(), ahead=1)
    assert not items.close(timeout_s=0.01)
    go_on.set()
    assert items.close(timeout_s=5)


def test_one_that_is_dropped_ends_its_thread():
    items = Prefetch((n for n in itertools.count()), ahead=1)
    next(items)
    (thread,) = running()
    del items
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
