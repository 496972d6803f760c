"""Independent tasks in parallel: on the active dask.distributed client, else in threads of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")


def in_parallel(function: Callable[[Any], T], items: Sequence[Any], *, progress: bool, desc: str) -> list[T]:
    """``[function(item) for item in items]``, in any order but returned in theirs, with a progress bar.

    Examples
    --------
    >>> in_parallel(abs, [-1, 2, -3], progress=False, desc="")
    [1, 2, 3]
    """
    from distributed import as_completed as cluster_as_completed
    from distributed import get_client
    from tqdm.auto import tqdm

    try:
        client = get_client()
    except ValueError:  # none is active
        with ThreadPoolExecutor(min(len(items), _cores()) or 1) as pool:
            futures = [pool.submit(function, item) for item in items]
            for _ in tqdm(as_completed(futures), total=len(items), disable=not progress, desc=desc):
                pass
            return [future.result() for future in futures]
    futures = client.map(function, items, pure=False)
    for _ in tqdm(cluster_as_completed(futures), total=len(items), disable=not progress, desc=desc):
        pass
    return client.gather(futures)


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
