"""Independent tasks, on the active dask.distributed client or in this process, and what can be made ahead."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm.auto import tqdm

T = TypeVar("T")


def in_parallel(
    function: Callable[..., T],
    calls: Iterable[tuple[Any, ...]],
    *,
    bar: tqdm,
    sizes: Sequence[int] | None = None,
    threads: int = 1,
) -> list[T]:
    """``[function(*call) for call in calls]``: tasks of the active client of dask.distributed, else in this process.

    Arguments may be what :func:`send` gave. Calls are made while earlier ones run; ``bar`` counts those that are done,
    each by its size. In a task nothing is sent on, so no task waits for others.

    The first failure is raised at once: tasks that have not begun never do, and those that run are not waited for.

    Examples
    --------
    >>> from tqdm.auto import tqdm
    >>> in_parallel(pow, [(2, 2), (2, 3)], bar=tqdm(disable=True))
    [4, 8]
    """
    client = active_client()
    futures: list[Any]
    finished: Any
    if client is None and threads == 1:
        results = []
        for call in calls:
            results.append(function(*call))
            bar.update(sizes[len(results) - 1] if sizes else 1)
        return results
    if client is None:
        pool = ThreadPoolExecutor(threads)
        futures = [pool.submit(function, *call) for call in calls]
        finished, stop = as_completed, partial(pool.shutdown, wait=False, cancel_futures=True)
    else:
        import distributed

        futures = [client.submit(function, *call, pure=False) for call in calls]
        finished, stop = distributed.as_completed, partial(client.cancel, futures)
    position, done = {future: i for i, future in enumerate(futures)}, {}
    try:
        for future in finished(futures):
            done[position[future]] = future.result()
            bar.update(sizes[position[future]] if sizes else 1)
            if client is not None:
                # Its memory on the worker is free again.
                future.release()
    finally:
        stop()
    return [done[i] for i in range(len(futures))]


def send(items: Iterable[Any]) -> list[Any]:
    """The items as arguments of :func:`in_parallel`: on a cluster each is sent once, however many calls take it.

    Where the worker that holds one is lost, the scheduler has it still.
    """
    import dask

    client = active_client()
    if client is None:
        return list(items)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
        return [client.submit(_given, item, pure=False) for item in items]


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Make the next of the items in a thread while one is used; the thread knows of the task that it works for.

    Examples
    --------
    >>> list(ahead(iter([1, 2, 3])))
    [1, 2, 3]
    """
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(copy_context().run, partial(next, items, None))
        while (item := coming.result()) is not None:
            coming = pool.submit(copy_context().run, partial(next, items, None))
            yield item


def active_client() -> Any:
    """The active client of dask.distributed; ``None`` where there is none, and in a task."""
    # Who has a client has imported it, which takes half a second.
    distributed = sys.modules.get("distributed")
    if distributed is None or in_task():
        return None
    try:
        return distributed.get_client()
    except ValueError:
        return None


def in_task() -> bool:
    """Whether this is a task of dask.distributed, whose threads are used already."""
    distributed = sys.modules.get("distributed")
    try:
        return distributed is not None and distributed.get_worker() is not None
    except ValueError:
        return False


def scheduler_of(pixels: Any) -> Any:
    """The scheduler that computes a dask array in this process; the client of a cluster that holds parts of it."""
    import dask

    # Looking for what a cluster holds takes as long as the graph is large.
    if (in_task() or active_client()) and (held := sys.modules["distributed"].futures_of(pixels)):
        return held[0].client
    configured = dask.config.get("scheduler", None)
    # Having a client configures that.
    if configured is not None and configured != "dask.distributed":
        return configured
    return "sync" if in_task() else "threads"


def _given(item: T) -> T:
    """The item itself, as the result of a task."""
    return item
