"""How large a pixel is, and who says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Real

import numpy as np
import pandas as pd

from h2e._sdata import keys as _keys
from h2e._slide.lattice import PITCH_UM
from h2e._slide.slide import Slide

SPACED = 0.4
"""Spots of Visium and Spatial Transcriptomics have a smaller radius, in pitches; bins read as circles touch, at 0.5."""

Sizes = float | Mapping[str, float] | None
"""µm per pixel: one number for all, or by the name of the slide or of the image."""


def pixel_size(
    name: str, given: float | None, obs: pd.DataFrame, *, factor: float, radius_frac: float, kind: str, pitch_px: float
) -> tuple[float | None, str]:
    """µm per pixel of level 0, and what tells it; ``None`` and what would be needed where nothing does.

    ``factor`` is pixels per unit of the spots' coordinates, ``radius_frac`` the radius of a spot in spacings (NaN of
    what is no circle).
    """
    if given is not None:
        return positive(given, f"um_per_px of slide {name!r}"), "um_per_px="
    if _keys.UM_PER_PX in obs and obs[_keys.UM_PER_PX].notna().any():
        stored = positive(float(obs[_keys.UM_PER_PX].median()), f"table.obs[{_keys.UM_PER_PX!r}] of slide {name!r}")
        return stored / factor, "table.obs"
    if radius_frac < SPACED:
        return PITCH_UM[kind] / pitch_px, f"lattice: {kind}, {PITCH_UM[kind]:g} µm"
    return None, "its shapes have no gaps between them (bins?), so their pitch is that of no technology that h2e knows"


def require_size(slides: Sequence[Slide]) -> list[Slide]:
    """The same slides, if the size of a pixel is known of all."""
    for slide in slides:
        slide.require_size()
    return list(slides)


def given_size(um_per_px: Sizes, *names: str) -> float | None:
    """What the user gave as the size of a pixel: one number for all, or that of the first name that has one."""
    if not isinstance(um_per_px, Mapping):
        return um_per_px
    return next((um_per_px[name] for name in names if name in um_per_px), None)


def positive(value: float, what: str) -> float:
    """A positive number of µm, or an error that says what is not."""
    if not isinstance(value, Real) or not (np.isfinite(value) and value > 0):
        msg = f"{what} must be a positive number of µm, got {value!r}."
        raise ValueError(msg)
    return float(value)


def check_sizes(um_per_px: Sizes, names: Collection[str]) -> None:
    """Refuse sizes that are not positive, and those of slides or images that are not there."""
    if um_per_px is None:
        return
    if not isinstance(um_per_px, Mapping):
        um_per_px = {"each image": um_per_px}
    elif unknown := sorted(set(um_per_px) - set(names)):
        msg = f"um_per_px names {unknown}, which are neither slides nor images; there are {sorted(set(names))}."
        raise KeyError(msg)
    for name, value in um_per_px.items():
        positive(value, f"um_per_px of {name}")
