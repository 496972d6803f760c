"""Independent tasks in parallel, on the active dask.distributed client or in threads, and what can be made ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def in_parallel(
    function: Callable[[Any], T], items: Sequence[Any], *, progress: bool, desc: str, tiles: Sequence[int] | None = None
) -> list[T]:
    """``[function(item) for item in items]``, in any order but returned in theirs, with a progress bar.

    ``tiles`` is how many each item has: the bar counts them, and says how many a second.

    The first failure is raised at once: tasks that have not begun never do, and those that run are not waited for.

    Examples
    --------
    >>> in_parallel(abs, [-1, 2, -3], progress=False, desc="")
    [1, 2, 3]
    """
    import distributed
    from dask.system import cpu_count
    from tqdm.auto import tqdm

    futures: list[Future[T]] | list[distributed.Future[T]]
    client = _active_client()
    if client is None:
        pool = ThreadPoolExecutor(min(len(items), cpu_count()) or 1)
        futures = [pool.submit(function, item) for item in items]
        finished, stop = as_completed(futures), partial(pool.shutdown, wait=False, cancel_futures=True)
    else:
        futures = client.map(function, items, pure=False)
        finished, stop = distributed.as_completed(futures), partial(client.cancel, futures)
    results: dict[object, T] = {}
    size: dict[object, int] = dict(zip(futures, tiles or [1] * len(items), strict=True))
    try:
        bar = tqdm(total=sum(size.values()), disable=not progress, desc=desc, unit=" tiles" if tiles else "it")
        for future in finished:
            results[future] = future.result()
            bar.update(size[future])
        bar.close()
    finally:
        stop()
    return [results[future] for future in futures]


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Make the next of the items in a thread while one is used.

    With dask.distributed, whose tasks run side by side anyway, they are made in turn: on a worker, a thread would wait
    for a place that its own task holds.

    Examples
    --------
    >>> list(ahead(iter([1, 2, 3])))
    [1, 2, 3]
    """
    if _active_client() is not None:
        yield from items
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _active_client() -> Any:
    """The active client of dask.distributed, on a worker that of its task; ``None`` where there is none."""
    import distributed

    try:
        return distributed.get_client()
    except ValueError:
        return None
