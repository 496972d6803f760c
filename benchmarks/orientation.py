"""How often turned, mirrored and shifted spots are told by the outline of the tissue, and how often right ones are doubted.

    H2E_DATA=../shared/data python benchmarks/orientation.py
    python benchmarks/orientation.py --table     # prints the table of docs/benchmarks.md, from the file

The spots of each real slide are turned about the middle of the image in each of the seven wrong orientations, and
shifted by two to five spacings; ``crops`` are halves and 70 % of slides whose spots are right. a minute of one core.
Writes results/orientation.csv: of each kind, how many there were, and what was said of them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from _data import load
from _record import CommandLine, read, write
from _tables import markdown

from h2e._sdata.keys import Keys
from h2e._sdata.masks import with_tissue
from h2e._sdata.slides import open_slides
from h2e._slide.orientation import AS_THEY_ARE, ORIENTATIONS, orientation
from h2e._slide.slide import Slide

SHIFTS = ((2, 0), (0, -3), (-4, 0), (0, 5))
"""In spacings."""

FEWEST = 30
"""Spots of a crop that is looked at."""

BOXES = [box for s in (0.5, 0.7) for box in ((0, s, 0, 1), (1 - s, 1, 0, 1), (0, 1, 0, s), (0, 1, 1 - s, 1))]
"""First and last row and column of crops, as shares."""


def said(mask: np.ndarray, scale: float, xy: np.ndarray, slide: Slide) -> tuple[str, str]:
    """What is said of spots: the verdict, and the orientation that fits best."""
    fits = orientation(mask, scale, xy, slide.spacing_px)
    return fits.verdict, fits.name


def cases(slide: Slide) -> list[dict[str, object]]:
    """What is said of the spots of a slide, right, wrong, and of its crops."""
    (mask, scale), middle = slide.require_tissue(), np.array(slide.image.shape[::-1]) / 2
    rows = []
    for name, matrix in ORIENTATIONS.items():
        # What was done to the spots is undone by what should be named.
        xy = (slide.xy - middle) @ np.linalg.inv(np.array(matrix, float)).T + middle
        verdict, best = said(mask, scale, xy, slide)
        wanted = "right" if name == AS_THEY_ARE else "other orientation"
        rows.append(("as it is" if name == AS_THEY_ARE else "turned", verdict, verdict == wanted and best == name))
    for shift in SHIFTS:
        verdict, _ = said(mask, scale, slide.xy + np.array(shift) * slide.spacing_px, slide)
        rows.append(("shifted", verdict, verdict == "shifted"))
    height, width = mask.shape
    for box in BOXES:
        top, bottom, left, right = (np.array(box) * (height, height, width, width)).astype(int)
        xy = slide.xy - np.array([left, top]) * scale
        inside = ((xy >= 0) & (xy < np.array([right - left, bottom - top]) * scale)).all(axis=1)
        if inside.sum() >= FEWEST:
            verdict, _ = said(mask[top:bottom, left:right], scale, xy[inside], slide)
            rows.append(("crops", verdict, verdict in {"right", "cannot be told"}))
    return [{"slide": slide.name, "kind": kind, "verdict": verdict, "ok": ok} for kind, verdict, ok in rows]


def measured(*, smoke: bool) -> pd.DataFrame:
    """Of each data set and kind of spots: how many there were, and what was said of them."""
    found = []
    for name in ("her2st",) if smoke else ("her2st", "mob"):
        sdata = load(name, smoke=smoke)
        slides = with_tissue(sdata, open_slides(sdata, Keys()))
        found += [{"data": name, **case} for slide in slides for case in cases(slide)]
    by_kind = (
        pd.DataFrame(found).assign(unclear=lambda one: one["verdict"] == "cannot be told").groupby(["data", "kind"])
    )
    counts = by_kind.agg(n=("ok", "size"), as_they_should=("ok", "sum"), cannot_be_told=("unclear", "sum"))
    return counts.reset_index()


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    options = parser.parse_args()
    path = options.results / "orientation.csv"
    if not options.table:
        write(measured(smoke=options.smoke), path)
    kinds = read(path).groupby("kind", sort=False)[["n", "as_they_should", "cannot_be_told"]].sum()
    rows = [[kind, *map(str, row)] for kind, row in zip(kinds.index, kinds.to_numpy(), strict=True)]
    print("\n".join(markdown(("spots", "slides", "right answer", "cannot be told"), rows)))


if __name__ == "__main__":
    main()
