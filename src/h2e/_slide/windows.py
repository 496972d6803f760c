"""Windows of an image, a batch at a time: the only place where full-resolution pixels are decoded, each chunk once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import dask.array as da
import numpy as np

from h2e._parallel import scheduler_of
from h2e._slide.resampling import resample, weights

BATCH_BYTES = 2**26
"""Size of a batch, its tiles and the chunks that are decoded for it: 64 MiB."""

HELD_BYTES = 2**29
"""Most decoded chunks that are kept for later batches, for each slide that is read at a time: 512 MiB. Where windows
need more, the image is read in bands of columns, and the chunks under the windows at their borders are decoded twice."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Squares of a level, and the size that they are averaged to."""

    level: int
    origins: np.ndarray  # (n, 2) first pixels (x, y), may lie outside of the image
    side: int
    px: int


def read(pyramid: Sequence[da.Array], requests: Sequence[Windows], image_key: str) -> list[np.ndarray]:
    """Cut windows of a pyramid: of each request the tiles, ``uint8`` (n, 3, px, px)."""
    tiles = [np.empty((len(request.origins), 3, request.px, request.px), np.uint8) for request in requests]
    for at, parts in stream(pyramid, requests, image_key):
        for every, part in zip(tiles, parts, strict=True):
            every[at] = part
    return tiles


def stream(
    pyramid: Sequence[da.Array], requests: Sequence[Windows], image_key: str
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """The same in batches, in the order of the chunks: positions of the windows, and their tiles.

    A chunk is let go as soon as no later window needs it. Beyond its edge the image is continued by its outermost
    pixels. Pixels are decoded by the process that asks, also where there is a cluster.
    """
    names = {request.level: f"level {request.level} of image {image_key!r}" for request in requests}
    levels = {level: _Level(pyramid[level], name) for level, name in names.items()}
    # Of the finest level, which takes most memory, the widest windows set the order.
    lead = min(requests, key=lambda request: (request.level, -request.side))
    column, row = levels[lead.level].chunks_under(lead)[:, 2:].T
    bands = [np.lexsort((column, row))] if len(row) else []
    while bands:
        order = bands.pop()
        cost = np.full(len(order), sum(3.0 * request.px**2 for request in requests))
        for k, level in levels.items():
            level.plan([request for request in requests if request.level == k], order)
            np.add.at(cost, level.first, level.sizes)
        _, starts, batch = np.unique(np.cumsum(cost) // BATCH_BYTES, return_index=True, return_inverse=True)
        left = column[order] <= (column[order].min() + column[order].max()) / 2
        held = np.max(sum(level.held_bytes(batch) for level in levels.values()))
        if held > HELD_BYTES and not left.all() and not any(level.shares_sources for level in levels.values()):
            bands += [order[~left], order[left]]
            continue
        for start, stop in pairwise([*starts, len(order)]):
            for level in levels.values():
                level.decode(start, stop)
            tiles = [levels[request.level].cut(request, order[start:stop]) for request in requests]
            for level in levels.values():
                level.release(start, stop)
            yield order[start:stop], tiles


class _Level:
    """The chunks of a level: where they lie, which windows need them first and last, and those that are decoded."""

    def __init__(self, pixels: da.Array, name: str) -> None:
        self.name, self.pixels, self.scheduler = name, pixels.rechunk({0: -1}), scheduler_of(pixels)
        # Of columns, of rows.
        self.edges = [np.concatenate([[0], np.cumsum(self.pixels.chunks[axis])]) for axis in (2, 1)]
        self.held: dict[tuple[int, int], np.ndarray] = {}

    def boxes(self, request: Windows, at: np.ndarray | slice = slice(None)) -> np.ndarray:
        """First and last (exclusive) pixel that each window needs, at least one, (n, 4): x, y, x, y."""
        size = np.array(self.pixels.shape[:0:-1])
        first, last = (np.clip(request.origins[at] + side, 0, size) for side in (0, request.side))
        first = np.minimum(first, size - 1)
        return np.column_stack([first, np.maximum(last, first + 1)])

    def chunks_under(self, request: Windows, at: np.ndarray | slice = slice(None)) -> np.ndarray:
        """First and last chunk that each window needs, (n, 4): column, row, column, row."""
        ends = self.boxes(request, at) - (0, 0, 1, 1)
        return np.column_stack([np.searchsorted(self.edges[k % 2], ends[:, k], "right") - 1 for k in range(4)])

    def plan(self, requests: Sequence[Windows], order: np.ndarray) -> None:
        """Find which chunks the windows need in this order, the first and the last that need each, and its bytes."""
        first, last = (np.full(self.pixels.numblocks[1:], value) for value in (len(order), -1))
        for request in requests:
            j0, i0, j1, i1 = self.chunks_under(request, order).T
            for down, right in product(range(int((i1 - i0).max()) + 1), range(int((j1 - j0).max()) + 1)):
                at = np.flatnonzero((i0 + down <= i1) & (j0 + right <= j1))
                np.minimum.at(first, (i0[at] + down, j0[at] + right), at)
                np.maximum.at(last, (i0[at] + down, j0[at] + right), at)
        wanted = np.argwhere(last >= 0)
        self.last = last[last >= 0]
        self.sizes = 3.0 * np.prod([np.diff(self.edges[1 - k])[wanted[:, k]] for k in (0, 1)], axis=0)
        self.names = [(self.pixels.name, 0, *at) for at in wanted.tolist()]
        # Chunks that are cut from the same source, such as a file that is one task, are decoded at one time.
        self.graph = dict(self.pixels.__dask_optimize__(self.pixels.__dask_graph__(), self.names))
        sources: dict[frozenset, int] = {}
        group = [sources.setdefault(_sources(self.graph, name), len(sources)) for name in self.names]
        earliest = np.full(len(sources), len(order))
        np.minimum.at(earliest, group, first[last >= 0])
        self.first, self.shares_sources = earliest[group], len(sources) < len(group)

    def held_bytes(self, batch: np.ndarray) -> np.ndarray:
        """Bytes of the chunks that are held while each batch is cut, given the batch of each window."""
        n = batch[-1] + 2
        begun, ended = (np.bincount(batch[at] + k, self.sizes, n) for k, at in ((0, self.first), (1, self.last)))
        return np.cumsum(begun - ended)

    def decode(self, start: int, stop: int) -> None:
        """Decode the chunks that some windows, in the order of the plan, are the first to need."""
        from dask.base import get_scheduler
        from dask.optimization import cull

        names = [self.names[k] for k in np.flatnonzero((start <= self.first) & (self.first < stop))]
        try:
            chunks = get_scheduler(scheduler=self.scheduler)(cull(self.graph, names)[0], names) if names else ()
        except Exception as error:
            error.add_note(f"This happened while {self.name} was read; is its file complete?")
            raise
        self.held |= {name[2:]: np.asarray(chunk) for name, chunk in zip(names, chunks, strict=True)}

    def release(self, start: int, stop: int) -> None:
        """Let go of the chunks that the same windows are the last to need."""
        for k in np.flatnonzero((start <= self.last) & (self.last < stop)):
            del self.held[self.names[k][2:]]

    def cut(self, request: Windows, at: np.ndarray) -> np.ndarray:
        """Cut windows out of the decoded chunks and average them over area to their size, (n, 3, px, px)."""
        side, px = request.side, request.px
        # New memory for every window would take longer than copying into it.
        tiles, window = np.empty((len(at), 3, px, px), np.uint8), np.empty((3, side, side), np.uint8)
        boxes, chunks = self.boxes(request, at).tolist(), self.chunks_under(request, at).tolist()
        for tile, (x0, y0), box, (j, i, *last) in zip(tiles, request.origins[at].tolist(), boxes, chunks, strict=True):
            source, x, y = self.held[i, j], x0 - self.edges[0][j], y0 - self.edges[1][i]
            # The common case needs no copy; a TIFF has its channels last.
            if [j, i, x0 + side, y0 + side] != last + box[2:] or box[:2] != [x0, y0] or not source.flags.c_contiguous:
                self._copy(window, (x0, y0), box, (j, i, *last))
                source, x, y = window, 0, 0
            if side == px:
                tile[:] = source[:, y : y + side, x : x + side]
            else:
                resample()(source, y, x, *weights(side, px), tile)
        return tiles

    def _copy(self, window: np.ndarray, origin: tuple[int, int], box: list[int], chunks: tuple[int, ...]) -> None:
        """Fill a window from the box of pixels that it needs, and continue it by the outermost of them."""
        (xa, ya, xb, yb), (j0, i0, j1, i1) = box, chunks
        # Beside the image a window needs a line of pixels that is not in it.
        left, top = (min(max(a - o, 0), window.shape[1] - 1) for a, o in zip((xa, ya), origin, strict=True))
        for i, j in product(range(i0, i1 + 1), range(j0, j1 + 1)):
            x, y = int(self.edges[0][j]), int(self.edges[1][i])
            part = self.held[i, j][:, max(ya - y, 0) : yb - y, max(xa - x, 0) : xb - x]
            down, right = top + max(y - ya, 0), left + max(x - xa, 0)
            window[:, down : down + part.shape[1], right : right + part.shape[2]] = part
        bottom, right = top + yb - ya, left + xb - xa
        window[:, :top], window[:, bottom:] = window[:, top : top + 1], window[:, bottom - 1 : bottom]
        window[..., :left], window[..., right:] = window[..., left : left + 1], window[..., right - 1 : right]


def _sources(graph: dict, name: tuple) -> frozenset:
    """Keys of the tasks that a chunk starts from, which take no other task's result; its own if it is there already."""
    from dask.core import istask
    from dask.optimization import cull

    tasks, uses = cull(graph, [name])
    starts = (key for key in tasks if istask(tasks[key]) and not any(istask(tasks[use]) for use in uses[key]))
    return frozenset(starts) or frozenset([name])
