"""Tiles around spots: the only place where full-resolution pixels are read, each chunk once per pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import dask.array as da
import numpy as np

from h2e._slide.image import Image
from h2e._slide.resampling import resample, weights
from h2e._slide.slide import Slide
from h2e._warnings import warn

BATCH_BYTES = 2**23
"""How many bytes of pixels are decoded at a time."""


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
            msg = f"extent and px of a view must be positive and unit 'spacing' or 'um', got {self}."
            raise ValueError(msg)

    def extent_um(self, spacing_um: float) -> float:
        """Side of the square in µm, given the spacing of the training slides."""
        return self.extent * (spacing_um if self.unit == "spacing" else 1.0)


def read_views(
    slide: Slide, xy: np.ndarray, views: Sequence[View], *, spacing_um: float | None = None
) -> list[np.ndarray]:
    """Cut every view around every point: for each view an ``uint8`` batch (n, 3, px, px).

    ``xy`` are pixels of level 0. ``spacing_um`` is the spacing that views in spacings mean, by default that of the
    slide. A view is cut from the coarsest level that has enough pixels and averaged over area to its size; views of
    one level share the reading of its chunks. Beyond its edge the image is continued by its outermost pixels.
    """
    image, xy = slide.image, np.asarray(xy, float).reshape(-1, 2)
    requests = []
    for view in views:
        level, side = _level_and_side(slide, view, slide.spacing_um if spacing_um is None else spacing_um)
        # To the nearest whole pixel of the level.
        origins = np.floor(xy / image.scales[level] - side / 2 + 0.5).astype(np.int64)
        requests.append(_Request(level, origins, side, view.px))
    for level in sorted({request.level for request in requests}):
        _fill(image, level, [request for request in requests if request.level == level])
    return [request.out for request in requests]


def warn_of_enlarging(slides: Sequence[Slide], views: Sequence[View], *, spacing_um: float | None = None) -> None:
    """Say, once for all, which slides have larger pixels than the finest view asks for."""
    finest, coarse = np.inf, []
    for slide in slides:
        spacing = slide.spacing_um if spacing_um is None else spacing_um
        pixel = min((view.extent_um(spacing) / view.px for view in views), default=np.inf)
        if pixel < 0.95 * slide.require_size():
            finest = min(finest, pixel)
            coarse.append(f"{slide.name!r} ({slide.um_per_px:.3g})")
    if coarse:
        msg = f"tiles ask for {finest:.3g} µm/px, and these slides have larger pixels (µm/px): {', '.join(coarse)}. "
        msg += "Their tiles are enlarged and show less than those of others."
        warn(msg)


def tile_bytes(slide: Slide, views: Sequence[View], *, spacing_um: float) -> int:
    """Memory that the views of one spot take: their windows, which may wait for a second chunk, and their tiles."""
    return sum(3 * (_level_and_side(slide, view, spacing_um)[1] ** 2 + view.px**2) for view in views)


def read_windows(image: Image, level: int, origins: np.ndarray, side: int) -> np.ndarray:
    """Windows of one level as they are, ``uint8`` (n, 3, side, side); ``origins`` are their first pixels (x, y)."""
    request = _Request(level, np.asarray(origins, np.int64).reshape(-1, 2), side, side)
    _fill(image, level, [request])
    return request.out


def _level_and_side(slide: Slide, view: View, spacing_um: float) -> tuple[int, int]:
    """The coarsest level that has enough pixels for a view, and the side of the view in whole pixels of it."""
    extent_px = view.extent_um(spacing_um) / slide.require_size()
    level = slide.image.level_at(extent_px / view.px)
    return level, max(1, round(extent_px / slide.image.scales[level]))


@dataclass(eq=False)
class _Request:
    """Windows of one level and the batch that they are averaged into."""

    level: int
    origins: np.ndarray  # (n, 2) first pixels (x, y), may lie outside of the image
    side: int
    px: int
    out: np.ndarray = field(init=False)  # (n, 3, px, px) uint8
    pending: dict[int, tuple[np.ndarray, int]] = field(init=False, default_factory=dict)  # windows, chunks to come

    def __post_init__(self) -> None:
        self.out = np.empty((len(self.origins), 3, self.px, self.px), np.uint8)

    def inside(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """First and last (exclusive) pixel (x, y) of the level that each window needs, at least one."""
        size = np.array(shape[::-1])
        first = np.clip(self.origins, 0, size - 1)
        return first, np.maximum(np.clip(self.origins + self.side, 0, size), first + 1)

    def place(self, tile: int, chunk: np.ndarray, corner: list[int], box: list[int], n: int) -> None:
        """Take what a chunk has of the box of a window, which ``n`` chunks share; average the window once complete."""
        (x0, y0), (left, top), (xa, ya, xb, yb) = self.origins[tile].tolist(), corner, box
        height, width = chunk.shape[1:]
        inside = left <= x0 and top <= y0 and x0 + self.side <= left + width and y0 + self.side <= top + height
        # The common case needs no copy; a TIFF has its channels last.
        if inside and chunk.flags.c_contiguous:
            self._average(tile, chunk, y0 - top, x0 - left)
            return
        window, n = self.pending.pop(tile, (None, n))
        if window is None:
            window = np.empty((3, yb - ya, xb - xa), np.uint8)
        x, y = max(left, xa), max(top, ya)
        part = chunk[:, y - top : yb - top, x - left : xb - left]
        window[:, y - ya : y - ya + part.shape[1], x - xa : x - xa + part.shape[2]] = part
        if n > 1:
            self.pending[tile] = (window, n - 1)
            return
        if window.shape[1:] != (self.side, self.side):
            window = _continued(window, x0 - xa, y0 - ya, self.side)
        self._average(tile, window, 0, 0)

    def _average(self, tile: int, source: np.ndarray, y0: int, x0: int) -> None:
        """Average the window of a tile over area to its size."""
        if self.side == self.px:
            self.out[tile] = source[:, y0 : y0 + self.side, x0 : x0 + self.side]
        else:
            resample()(source, y0, x0, *weights(self.side, self.px), self.out[tile])


def _continued(window: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    """Repeat the outermost pixels of a window so that it starts at (x0, y0) and has its full side."""
    height, width = window.shape[1:]
    rows, columns = np.clip(np.arange(y0, y0 + side), 0, height - 1), np.clip(np.arange(x0, x0 + side), 0, width - 1)
    return np.ascontiguousarray(window[:, rows[:, None], columns])


def _fill(image: Image, level: int, requests: list[_Request]) -> None:
    """Decode every chunk of a level under the windows once, and hand it to the tiles that touch it."""
    pixels = image.levels[level].rechunk({0: -1})
    # Of columns, of rows.
    edges = [np.concatenate([[0], np.cumsum(pixels.chunks[axis])]) for axis in (2, 1)]
    touched: dict[tuple[int, int], list[tuple]] = {}
    for request in requests:
        first, last = request.inside(pixels.shape[1:])
        boxes = np.column_stack([first, last]).tolist()
        spans = [
            np.column_stack([np.searchsorted(e, first[:, k], "right") - 1, np.searchsorted(e, last[:, k])]).tolist()
            for k, e in enumerate(edges)
        ]
        for tile, ((j0, j1), (i0, i1)) in enumerate(zip(*spans, strict=True)):
            for at in product(range(i0, i1), range(j0, j1)):
                touched.setdefault(at, []).append((request, tile, boxes[tile], (i1 - i0) * (j1 - j0)))
    try:
        for (i, j), chunk in _decode(pixels, sorted(touched)):
            corner = [int(edges[0][j]), int(edges[1][i])]
            for request, tile, box, n in touched[i, j]:
                request.place(tile, chunk, corner, box, n)
    except Exception as error:
        error.add_note(f"This happened while level {level} of image {image.key!r} was read; is its file complete?")
        raise


def _decode(pixels: da.Array, wanted: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Compute chunks (row, column), a bounded number at a time and each once.

    Chunks that are cut from the same source, such as a file that can only be decoded as a whole, are computed
    together, however many they are: in several batches the source would be decoded as often.
    """
    from dask.base import get_scheduler
    from dask.optimization import cull

    names = {at: (pixels.name, 0, *at) for at in wanted}
    graph = dict(pixels.__dask_optimize__(pixels.__dask_graph__(), list(names.values())))
    get = get_scheduler(collections=[pixels])
    groups: dict[frozenset, list[tuple[int, int]]] = {}
    for at in wanted:
        groups.setdefault(_sources(graph, names[at]), []).append(at)
    step = max(1, BATCH_BYTES // (3 * max(pixels.chunks[1]) * max(pixels.chunks[2])))
    batch: list[tuple[int, int]] = []
    for n_left, group in zip(reversed(range(len(groups))), groups.values(), strict=True):
        batch += group
        if len(batch) >= step or not n_left:
            wanted_keys = [names[at] for at in batch]
            chunks = list(get(cull(graph, wanted_keys)[0], wanted_keys))
            # A chunk is let go as soon as its tiles are cut.
            while batch:
                yield batch.pop(), np.asarray(chunks.pop())


def _sources(graph: dict, name: tuple) -> frozenset:
    """Keys of the tasks that a chunk starts from, which take no other task's result; its own if it is there already."""
    from dask.core import istask
    from dask.optimization import cull

    tasks, uses = cull(graph, [name])
    starts = (key for key in tasks if istask(tasks[key]) and not any(istask(tasks[use]) for use in uses[key]))
    return frozenset(starts) or frozenset([name])
