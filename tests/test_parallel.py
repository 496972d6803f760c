"""Tasks in parallel: results come back in order, the first failure at once, and what has not begun never does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tqdm.auto import tqdm

from h2e._parallel import ahead, in_parallel, in_task, send

LONG = 20
"""Seconds after which a task that is to be left behind is taken to have been waited for."""


@contextmanager
def two_workers(where: str) -> Iterator[int]:
    """Run tasks by two threads, of this process or of a cluster; gives how many threads to ask for."""
    if where == "threads":
        yield 2
        return
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster):
        yield 1


each_place = pytest.mark.parametrize("where", ["threads", "cluster"])


@pytest.fixture
def bar() -> tqdm:
    return tqdm(disable=True)


@each_place
def test_results_come_back_in_the_order_of_the_calls(where: str):
    class Bar:
        n = 0

        def update(self, n: int) -> None:
            self.n += n

    with two_workers(where) as threads:
        bar = Bar()
        assert in_parallel(pow, [(i, 2) for i in range(9)], bar=bar, threads=threads) == [i * i for i in range(9)]
        assert bar.n == 9
        sizes = [5, 7]
        assert in_parallel(pow, iter([(2, 2), (3, 2)]), bar=bar, sizes=sizes, threads=threads) == [4, 9]
        assert bar.n == 9 + sum(sizes)
        assert in_parallel(abs, [], bar=bar, threads=threads) == []


def test_here_a_call_is_made_when_the_one_before_is_done(bar):
    told = []

    def calls() -> Iterator[tuple[int]]:
        for i in range(3):
            told.append(f"call {i}")
            yield (i,)

    in_parallel(lambda i: told.append(f"done {i}"), calls(), bar=bar)
    assert told == ["call 0", "done 0", "call 1", "done 1", "call 2", "done 2"]


@each_place
def test_the_first_failure_is_reported_at_once_and_the_rest_is_cancelled(where: str, bar):
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
    with two_workers(where) as threads:
        try:
            with pytest.raises(ValueError, match="slide 0 is damaged"):
                in_parallel(Shared(task), [(i,) for i in range(12)], bar=bar, threads=threads)
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


def test_in_a_task_nothing_is_sent_on(bar):
    from distributed import Client, LocalCluster

    def task() -> tuple[list[int], list[int], bool, list[int]]:
        import threading

        threads = {threading.get_ident()}
        in_parallel(lambda i: threads.add(threading.get_ident()), [(i,) for i in range(3)], bar=bar)
        return send([5]), list(ahead(iter(range(3)))), in_task(), len(threads)

    assert not in_task()
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        assert not in_task()
        assert client.submit(task).result(timeout=LONG) == ([5], [0, 1, 2], True, 1)
        # Here it is.
        (sent,) = send([5])
        assert in_parallel(pow, [(sent, 2), (sent, 3)], bar=bar) == [25, 125]
        assert not client.futures or all(future.key == sent.key for future in client.futures.values())


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
