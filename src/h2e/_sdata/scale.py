"""How large a pixel is, and who says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from numbers import Real

import numpy as np


def size_of(um_per_px: float | Mapping[str, float] | None, *names: str) -> float | None:
    """What was given as the size of a pixel: one number for all, or that of the slide or image, whichever is named."""
    if not isinstance(um_per_px, Mapping):
        return um_per_px
    return next((um_per_px[name] for name in names if name in um_per_px), None)


def positive(value: float, what: str) -> float:
    """A positive number of µm, or an error that says what is none."""
    if not isinstance(value, Real) or not (np.isfinite(value) and value > 0):
        msg = f"{what} is {value!r}; it must be a positive number of µm."
        raise ValueError(msg)
    return float(value)


def check_sizes(um_per_px: float | Mapping[str, float] | None, names: Collection[str]) -> None:
    """Refuse sizes that are none, and those of slides or images that are not there."""
    if not isinstance(um_per_px, Mapping):
        um_per_px = {"each image": um_per_px}
    elif unknown := sorted(set(um_per_px) - set(names)):
        msg = f"um_per_px names {unknown}, which are no slides and no images; there are {sorted(set(names))}."
        raise KeyError(msg)
    for name, value in um_per_px.items():
        if value is not None:
            positive(value, f"um_per_px of {name}")
