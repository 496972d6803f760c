"""Tasks in parallel: results come back in order, the first failure at once, and what has not begun never does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from h2e._parallel import in_parallel

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
