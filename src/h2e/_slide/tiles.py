"""Tiles around spots: what learners see of a slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from h2e._slide.image import Image
from h2e._slide.slide import Slide
from h2e._slide.windows import Windows, read
from h2e._warnings import refuse, warn

NUCLEI_UM_PER_PX = 2.0
"""In larger pixels a nucleus of 6 to 10 µm is a few pixels wide, and cannot be seen."""


@dataclass(frozen=True)
class View:
    """What a learner sees around a spot: a square of the image.

    Parameters
    ----------
    extent
        Side of the square, in spot spacings of the training slides or in µm.
    px
        Side of the tile in pixels.
    unit
        Of ``extent``: ``"spacing"`` or ``"um"``.
    """

    extent: float
    px: int
    unit: str = "spacing"

    def __post_init__(self) -> None:
        if self.unit not in ("spacing", "um") or self.extent <= 0 or self.px < 1:
            refuse(f"extent and px of a view must be positive and unit 'spacing' or 'um', got {self}.")

    def extent_um(self, spacing_um: float) -> float:
        """Side of the square in µm, given the spacing of the training slides."""
        return self.extent * (spacing_um if self.unit == "spacing" else 1.0)


def view_windows(
    slide: Slide, xy: np.ndarray, views: Sequence[View], *, spacing_um: float | None = None
) -> list[Windows]:
    """For each view its windows around every point, which :func:`stream` cuts.

    ``xy`` are pixels of level 0. ``spacing_um`` is the spacing that views in spacings mean, by default that of the
    slide. A view is cut from the coarsest level that has enough pixels and averaged over area to its size.
    """
    xy, windows = np.asarray(xy, float).reshape(-1, 2), []
    for view in views:
        extent_px = view.extent_um(slide.spacing_um if spacing_um is None else spacing_um) / slide.require_size()
        level = slide.image.level_at(extent_px / view.px)
        side = max(1, round(extent_px / slide.image.scales[level]))
        # To the nearest whole pixel of the level.
        origins = np.floor(xy / slide.image.scales[level] - side / 2 + 0.5).astype(np.int64)
        windows.append(Windows(level, origins, side, view.px))
    return windows


def read_views(
    slide: Slide, xy: np.ndarray, views: Sequence[View], *, spacing_um: float | None = None
) -> list[np.ndarray]:
    """Cut every view around every point: for each view an ``uint8`` batch (n, 3, px, px)."""
    return read(slide.image.levels, view_windows(slide, xy, views, spacing_um=spacing_um), slide.image.key)


def warn_of_enlarging(slides: Sequence[Slide], views: Sequence[View], *, spacing_um: float | None = None) -> None:
    """Say, once for all, which slides have larger pixels than the finest view asks for."""
    finest, coarse = np.inf, {}
    for slide in slides:
        spacing = slide.spacing_um if spacing_um is None else spacing_um
        pixel = min((view.extent_um(spacing) / view.px for view in views), default=np.inf)
        if pixel < 0.95 * slide.require_size():
            finest = min(finest, pixel)
            coarse[repr(slide.name)] = slide.require_size()
    if coarse:
        coarsest, subject = max(coarse.values()), "Your image has" if len(coarse) == 1 else "Your images have up to"
        msg = f"{subject} {coarsest:.3g} µm/px and the model wants {finest:.2g}: "
        msg += f"{'no nuclei are visible' if coarsest > NUCLEI_UM_PER_PX else 'nuclei are blurred'}. "
        warn(f"{msg}Use the full-resolution image of {', '.join(coarse)}.")


def read_windows(image: Image, level: int, origins: np.ndarray, side: int) -> np.ndarray:
    """Windows of one level as they are, ``uint8`` (n, 3, side, side); ``origins`` are their first pixels (x, y)."""
    request = Windows(level, np.asarray(origins, np.int64).reshape(-1, 2), side, side)
    return read(image.levels, [request], image.key)[0]
