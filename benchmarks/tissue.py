"""Tissue masks and realignment on all real slides: overlap and time beside squidpy, and planted shifts found again.

    H2E_DATA=../shared/data python benchmarks/tissue.py [--no-squidpy]   # two minutes

Prints two tables and writes benchmarks/results/tissue.csv and benchmarks/results/realign.csv.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from _data import load
from _record import CommandLine, write

from h2e._sdata.keys import Keys
from h2e._sdata.masks import find_mask
from h2e._sdata.placement import FEW_COUNTS, MIN_LEAD, MIN_SCORE
from h2e._sdata.slides import open_slides
from h2e._slide.lattice import lattice
from h2e._slide.registration import place
from h2e._slide.slide import Slide
from h2e._slide.tissue import tissue_mask

if TYPE_CHECKING:
    from spatialdata import SpatialData

SIDE = 1000
"""Of the grid on which two masks are compared."""


def on_grid(mask: np.ndarray, scale: float, shape: tuple[int, int]) -> np.ndarray:
    """Look a mask up on a common grid over the image."""
    step = max(shape) / SIDE
    y, x = (((np.arange(int(n / step)) + 0.5) * step / scale).astype(int) for n in shape)
    return mask[np.minimum(y, mask.shape[0] - 1)[:, None], np.minimum(x, mask.shape[1] - 1)]


def timed(function: Callable, *args: object, **kwargs: object) -> tuple[Any, float]:
    """Call a function; returns its result and the seconds that it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def share_on(mask: np.ndarray, scale: float, xy: np.ndarray) -> float:
    """Give the share of the spots whose centre is on the mask."""
    at = np.minimum((xy / scale).astype(int), np.array(mask.shape)[::-1] - 1)
    return float(mask[at[:, 1], at[:, 0]].mean())


def compare(sdata: SpatialData, slide: Slide, *, squidpy: bool) -> dict[str, object]:
    """Make one row of the table of masks."""
    shape = slide.image.shape
    ours, seconds_ours = timed(tissue_mask, slide.image, um_per_px=slide.um_per_px)
    mean, seconds_mean = timed(tissue_mask, slide.image, method="mean")
    a, b = on_grid(*ours, shape), on_grid(*mean, shape)
    row = {
        "slide": slide.name, "tissue": a.mean(), "spots_on": share_on(*ours, slide.xy), "seconds": seconds_ours,
        "mean_tissue": b.mean(), "mean_spots_on": share_on(*mean, slide.xy), "mean_seconds": seconds_mean,
        "iou_mean": (a & b).sum() / (a | b).sum(),
    }  # fmt: skip
    if squidpy:
        import squidpy as sq

        detect = sq.experimental.im.detect_tissue
        _, row["squidpy_seconds"] = timed(detect, sdata, slide.image.key, new_labels_key="of_squidpy")
        theirs = find_mask(sdata, slide.image, "of_squidpy")
        del sdata.labels["of_squidpy"]
        c = on_grid(*theirs, shape)
        row |= {"squidpy_tissue": c.mean(), "squidpy_spots_on": share_on(*theirs, slide.xy)}
        row |= {"iou_squidpy": (a & c).sum() / (a | c).sum()}
    return row


def planted(slide: Slide, counts: np.ndarray, *, n: int = 8, seed: int = 0) -> dict[str, object]:
    """Make one row of the table of shifts: where the spots are, and how well planted shifts are recovered."""
    rng = np.random.default_rng(seed)
    mask = tissue_mask(slide.image, um_per_px=slide.um_per_px)
    xy = slide.xy[counts >= FEW_COUNTS * np.median(counts)]
    spacing = lattice(slide.xy)[0]
    placed, seconds = timed(place, *mask, xy, spacing)
    errors, moved = [], 0
    for _ in range(n):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2)
        shift = length * np.array([np.cos(angle), np.sin(angle)])
        again = place(*mask, xy + shift * spacing, spacing)
        errors.append(np.abs(np.subtract(again.shift, placed.shift) + shift).max())
        moved += is_sure(again)
    return {
        "slide": slide.name, "shift": np.hypot(*placed.shift), "score": placed.score,
        "gain": placed.score - placed.score_before, "lead": placed.score - placed.runner_up, "sure": is_sure(placed),
        "worst_error": max(errors), "planted_moved": moved / n, "seconds": seconds,
    }  # fmt: skip


def is_sure(placed: Any) -> bool:
    """Tell whether the evidence would be accepted, whatever the length of the shift."""
    return bool(placed.score >= MIN_SCORE and placed.score - placed.runner_up >= MIN_LEAD)


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--no-squidpy", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    masks, shifts = [], []
    for name in ("her2st",) if options.smoke else ("her2st", "mob", "visium_mini"):
        sdata = load(name, smoke=options.smoke)
        for slide in open_slides(sdata, Keys()):
            masks.append(compare(sdata, slide, squidpy=not options.no_squidpy))
            counts = np.asarray(sdata["table"].X[slide.rows].sum(axis=1)).ravel()
            shifts.append(planted(slide, counts))
    write(pd.DataFrame(masks).round(4), options.results / "tissue.csv")
    write(pd.DataFrame(shifts).round(4), options.results / "realign.csv")


if __name__ == "__main__":
    main()
