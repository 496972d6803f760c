"""Loops over pixels and values, compiled by numba at their first use (about a second, then cached on disk)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


def compiled(function: Callable, **options: Any) -> Callable:
    """Compile a function, cache it on disk where that works, and let threads run it in parallel."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:
        # There is no folder where numba may keep what it compiled.
        return numba.njit(nogil=True, **options)(function)


@cache
def fast(function: Callable) -> Callable:
    """Compile a function at its first use, free to reorder sums, and without a check of each division."""
    return compiled(function, fastmath=True, error_model="numpy")
