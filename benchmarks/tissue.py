"""Tissue masks and realignment on all real slides: overlap and time beside squidpy, and planted shifts found again.

H2E_DATA=../shared/data python benchmarks/tissue.py [--no-squidpy]

Prints two tables and writes benchmarks/results/tissue.csv and benchmarks/results/realign.csv.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from h2e import datasets
from h2e._sdata.keys import Keys
from h2e._sdata.masks import find_mask
from h2e._sdata.slides import open_slides
from h2e._slide.lattice import lattice
from h2e._slide.registration import place
from h2e._slide.slide import Slide
from h2e._slide.tissue import tissue_mask
from h2e.pp._realign import FEW_COUNTS, MIN_LEAD, MIN_SCORE

RESULTS = Path(__file__).parent / "results"
SIDE = 1000  # grid on which two masks are compared


def on_grid(mask: np.ndarray, scale: float, shape: tuple[int, int]) -> np.ndarray:
    """Look a mask up on a common grid over the image."""
    step = max(shape) / SIDE
    y, x = (((np.arange(int(n / step)) + 0.5) * step / scale).astype(int) for n in shape)
    return mask[np.minimum(y, mask.shape[0] - 1)[:, None], np.minimum(x, mask.shape[1] - 1)]


def seconds(function: object, *args: object, **kwargs: object) -> tuple[object, float]:
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def under(mask: np.ndarray, scale: float, xy: np.ndarray) -> float:
    """Share of the spots whose centre is on the mask."""
    at = np.minimum((xy / scale).astype(int), np.array(mask.shape)[::-1] - 1)
    return float(mask[at[:, 1], at[:, 0]].mean())


def compare(sdata: object, slide: Slide, *, squidpy: bool) -> dict[str, object]:
    """One row of the table of masks."""
    shape = slide.image.shape
    ours, seconds_ours = seconds(tissue_mask, slide.image, um_per_px=slide.um_per_px)
    mean, seconds_mean = seconds(tissue_mask, slide.image, method="mean")
    a, b = on_grid(*ours, shape), on_grid(*mean, shape)
    row = {
        "slide": slide.name, "tissue": a.mean(), "spots_on": under(*ours, slide.xy), "seconds": seconds_ours,
        "mean_tissue": b.mean(), "mean_spots_on": under(*mean, slide.xy), "mean_seconds": seconds_mean,
        "iou_mean": (a & b).sum() / (a | b).sum(),
    }  # fmt: skip
    if squidpy:
        import squidpy as sq

        detect = sq.experimental.im.detect_tissue
        _, row["squidpy_seconds"] = seconds(detect, sdata, slide.image.key, new_labels_key="of_squidpy")
        theirs = find_mask(sdata, slide.image, "of_squidpy")
        del sdata.labels["of_squidpy"]
        c = on_grid(*theirs, shape)
        row |= {"squidpy_tissue": c.mean(), "squidpy_spots_on": under(*theirs, slide.xy)}
        row |= {"iou_squidpy": (a & c).sum() / (a | c).sum()}
    return row


def planted(slide: Slide, counts: np.ndarray, *, n: int = 8, seed: int = 0) -> dict[str, object]:
    """One row of the table of shifts: where the spots are said to be, and how well planted shifts are found again."""
    rng = np.random.default_rng(seed)
    mask = tissue_mask(slide.image, um_per_px=slide.um_per_px)
    xy = slide.xy[counts >= FEW_COUNTS * np.median(counts)]
    spacing = lattice(slide.xy)[0]
    found, took = seconds(place, *mask, xy, spacing)
    errors, moved = [], 0
    for _ in range(n):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2)
        plant = length * np.array([np.cos(angle), np.sin(angle)])
        again = place(*mask, xy + plant * spacing, spacing)
        errors.append(np.abs(np.subtract(again.shift, found.shift) + plant).max())
        moved += sure(again)
    return {
        "slide": slide.name, "shift": np.hypot(*found.shift), "score": found.score,
        "gain": found.score - found.score_before, "lead": found.score - found.runner_up, "sure": sure(found),
        "worst_error": max(errors), "planted_moved": moved / n, "seconds": took,
    }  # fmt: skip


def sure(found: object) -> bool:
    """Whether the evidence would be accepted, whatever the length of the shift."""
    return bool(found.score >= MIN_SCORE and found.score - found.runner_up >= MIN_LEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-squidpy", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    masks, shifts = [], []
    for load in (datasets.her2st, datasets.mob, datasets.visium_mini):
        sdata = load()
        for slide in open_slides(sdata, Keys()):
            masks.append(compare(sdata, slide, squidpy=not arguments.no_squidpy))
            counts = np.asarray(sdata["table"].X[slide.rows].sum(axis=1)).ravel()
            shifts.append(planted(slide, counts))
    RESULTS.mkdir(exist_ok=True)
    for name, rows in (("tissue", masks), ("realign", shifts)):
        table = pd.DataFrame(rows)
        table.round(4).to_csv(RESULTS / f"{name}.csv", index=False)
        print(f"\n{name}\n{table.round(3).to_string(index=False)}")


if __name__ == "__main__":
    main()
