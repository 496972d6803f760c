"""Tasks in parallel: results come back in order, the first failure at once, and what has not begun never does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from h2e._parallel import ahead, in_parallel

LONG = 20
"""Seconds after which a task that is to be left behind is taken to have been waited for."""


@contextmanager
def two_workers(where: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run tasks by two threads, of this process or of a cluster."""
    if where == "threads":
        monkeypatch.setattr("dask.system.cpu_count", lambda: 2)
        yield
        return
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        yield


each_place = pytest.mark.parametrize("where", ["threads", "cluster"])


@each_place
def test_results_come_back_in_the_order_of_the_items(where: str, monkeypatch):
    with two_workers(where, monkeypatch):
        assert in_parallel(lambda i: i * i, range(9), progress=False, desc="") == [i * i for i in range(9)]
        assert in_parallel(abs, [], progress=False, desc="") == []


@each_place
def test_the_first_failure_is_reported_at_once_and_the_rest_is_cancelled(where: str, monkeypatch):
    begun, running, release = [], threading.Event(), threading.Event()

    def task(i: int) -> int:
        begun.append(i)
        if i == 0:
            running.wait(LONG)
            msg = "slide 0 is damaged"
            raise ValueError(msg)
        running.set()
        release.wait(LONG)
        return i

    # The functions stay what they are on a worker of this process, so that events are shared.
    with two_workers(where, monkeypatch):
        try:
            with pytest.raises(ValueError, match="slide 0 is damaged"):
                in_parallel(Shared(task), range(12), progress=False, desc="")
            assert not release.is_set()
            # The other worker is still in its first task, and the failed one had time for one more at most.
            assert len(begun) <= 3
        finally:
            release.set()
    # The word that the rest is cancelled may reach a worker of a cluster after it began one more.
    assert not {8, 9, 10, 11} & set(begun)


def test_one_item_is_made_ahead_in_another_thread_and_no_more():
    made, threads = [], set()

    def items() -> Iterator[int]:
        for i in range(6):
            made.append(i)
            threads.add(threading.get_ident())
            yield i

    for used, item in enumerate(ahead(items())):
        assert item == used
        assert len(made) <= used + 2
    assert used == 5
    assert threading.get_ident() not in threads


def test_what_fails_ahead_is_raised_where_the_item_is_used():
    def items() -> Iterator[int]:
        yield 0
        msg = "the file is damaged"
        raise OSError(msg)

    used = []
    with pytest.raises(OSError, match="the file is damaged"):
        used.extend(ahead(items()))
    assert used == [0]


def test_who_stops_early_leaves_no_thread_behind():
    before = threading.active_count()
    making = ahead(iter(range(9)))
    assert next(making) == 0
    making.close()
    assert threading.active_count() == before


def test_on_a_worker_nothing_waits_for_a_place_that_its_own_task_holds():
    from distributed import Client, LocalCluster, get_client

    def task() -> list[int]:
        # What dask does to read pixels on a worker.
        return list(ahead(get_client().get({f"x{i}": i}, f"x{i}") for i in range(3)))

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        assert client.submit(task).result(timeout=LONG) == [0, 1, 2]


class Shared:
    """A function that is handed to workers of this process as it is, not as a copy."""

    functions: dict[int, object] = {}

    def __init__(self, function: object) -> None:
        self.number = id(function)
        self.functions[self.number] = function

    def __call__(self, item: object) -> object:
        return self.functions[self.number](item)

    def __reduce__(self) -> tuple:
        return _shared, (self.number,)


def _shared(number: int) -> Shared:
    """Give the function of that number."""
    return Shared(Shared.functions[number])
