"""How often does the image tell that the size of a pixel is wrong? Cues learned from slides of other donors.

    H2E_DATA=../shared/data python benchmarks/scale_cue.py   # three minutes
    python benchmarks/scale_cue.py --table                   # prints the tables of docs/benchmarks.md, from the file

Of her2st a donor is left out, of mob (two animals) a slide. The slides left out are looked at with ``um_per_px`` times
each of ``FACTORS``. The cues: ``nuclei``, the typical diameter of dark blobs of haematoxylin; ``spectrum``, a ridge
regression on the strengths of the octaves of haematoxylin; ``texture``, that of ``h2e.tl.fit``, on all that it measures
of the octaves of both stains. Each is calibrated alike: it warns beyond a factor of 1.5, and beyond twice its largest
error on a training slide by those of other donors.

Further rows, of ``texture`` alone: each quarter of the tissue by itself; slides with other stains or out of focus, at
the right size; and slides of another tissue at the right size, of which a warning is as wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import dask.array as da
import numpy as np
import pandas as pd
from _data import load
from _record import CommandLine, read, write
from _tables import markdown, number
from scipy.ndimage import gaussian_filter, label
from skimage.filters import threshold_otsu
from sklearn.linear_model import RidgeCV

from h2e._ensemble.scale_cue import LEAST, TILE_PX, ScaleCue, fit_scale_cue, half_octaves, look
from h2e._learners.texture_features import feature_names, stain_maps
from h2e._sdata.cohort import open_cohort
from h2e._sdata.keys import Keys
from h2e._slide.slide import Slide

FACTORS = (0.25, 0.5, 2 / 3, 1.0, 1.5, 2.0, 4.0)
CUES = ("nuclei", "spectrum", "texture")

Off = Callable[[Slide], float]
"""Gives the log2 of the stated size of a pixel over the one that a slide seems to have."""


def diameter(tiles: np.ndarray) -> float:
    """Give the log2 of the diameter in pixels of the blob that a typical pixel of dark haematoxylin lies in."""
    dark = gaussian_filter(stain_maps(tiles)[:, 0], (0, 0.7, 0.7))
    labels, _ = label(
        dark > threshold_otsu(dark), structure=np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
    )
    areas = np.bincount(labels.ravel())[1:]
    return float(np.log2(np.median(np.repeat(areas, areas))) / 2)


def nuclei(slides: Sequence[Slide]) -> Off:
    """Compare diameters in µm with those of the training slides, seen with pixels of the same size."""
    sizes = [half_octaves(slide.require_size()) for slide in slides]
    at = np.log2(np.concatenate(sizes))
    seen = np.concatenate([look(slide, each, diameter) for slide, each in zip(slides, sizes, strict=True)])
    # Diameters in pixels fall with the size of the pixels, but less than they should: blobs merge.
    slope, start = np.polyfit(at, seen, 1)
    finest = min(each[0] for each in sizes)

    def off(slide: Slide) -> float:
        looked = np.sqrt(2) * max(slide.require_size(), finest) * 2 ** (np.arange(3) / 2)
        return float(np.mean(np.log2(looked) - (look(slide, looked, diameter) - start) / slope))

    return off


def spectrum(slides: Sequence[Slide]) -> Off:
    """Regress on how much stronger each octave of haematoxylin is than the mean of all."""
    names = [name for name in feature_names(TILE_PX) if "octave" in name]
    chosen = np.array([name.startswith("haematoxylin") and name.endswith("blob sd") for name in names])
    relative = np.eye(len(names))[:, chosen] - chosen[:, None] / chosen.sum()
    seen = [(at := half_octaves(slide.require_size()), look(slide, at)) for slide in slides]
    x = np.concatenate([np.concatenate(features) for _, features in seen]) @ relative
    y = np.concatenate([np.repeat(np.log2(sizes), features.shape[1]) for sizes, features in seen])
    ridge = RidgeCV(np.logspace(-2, 4, 7)).fit(x, y)
    return ScaleCue(relative @ ridge.coef_, ridge.intercept_, min(sizes[0] for sizes, _ in seen), 0.0).octaves_off


def calibrated(cue: str, slides: Sequence[Slide]) -> tuple[Off, float]:
    """Fit a cue; gives the octaves from which on it warns, too."""
    if cue == "texture":
        fitted = fit_scale_cue(slides)
        return fitted.octaves_off, fitted.threshold
    fit = nuclei if cue == "nuclei" else spectrum
    errors = []
    for group in {slide.group for slide in slides}:
        off = fit([slide for slide in slides if slide.group != group])
        errors += [abs(off(slide)) for slide in slides if slide.group == group]
    return fit(slides), max(LEAST, 2 * max(errors))


def quarters(slide: Slide) -> Iterator[Slide]:
    """Yield the slide with a quarter of its tissue, four times, cut at the median row and column."""
    mask, scale = slide.require_tissue()
    y, x = np.nonzero(mask)
    low, left = np.arange(mask.shape[0])[:, None] < np.median(y), np.arange(mask.shape[1]) < np.median(x)
    for rows in (low, ~low):
        for columns in (left, ~left):
            yield replace(slide, tissue=(mask & rows & columns, scale))


def stained(slide: Slide, gains: Sequence[float]) -> Slide:
    """Multiply the optical densities of red, green and blue."""
    tables = [np.round(256 * ((np.arange(256) + 1) / 256) ** gain - 1).clip(0, 255).astype(np.uint8) for gain in gains]

    def change(block: np.ndarray) -> np.ndarray:
        return np.stack([table[channel] for table, channel in zip(tables, block, strict=True)])

    levels = tuple(da.map_blocks(change, level.rechunk({0: 3}), dtype=np.uint8) for level in slide.image.levels)
    return replace(slide, image=replace(slide.image, levels=levels))


def blurred(slide: Slide, sigma_px: float) -> Slide:
    """Blur by a Gaussian of some pixels of level 0."""
    levels = []
    for level, scale in zip(slide.image.levels, slide.image.scales, strict=True):
        sigma = (0, sigma_px / scale, sigma_px / scale)
        levels.append(
            da.map_overlap(gaussian_filter, level.rechunk({0: 3}), depth=(0, 8, 8), sigma=sigma, dtype=np.uint8)
        )
    return replace(slide, image=replace(slide.image, levels=tuple(levels)))


STAINS = {
    "paler by 0.7": (0.7, 0.7, 0.7),
    "stronger by 1.4": (1.4, 1.4, 1.4),
    "bluer": (1.3, 1.0, 0.8),
    "redder": (0.8, 1.0, 1.3),
}
"""Factors of the optical density of red, green and blue."""

CHANGES: dict[str, Callable[[Slide], Slide]] = {
    **{name: partial(stained, gains=gains) for name, gains in STAINS.items()},
    "blurred by 1 px": partial(blurred, sigma_px=1.0),
    "blurred by 2 px": partial(blurred, sigma_px=2.0),
}


def splits(name: str, slides: Sequence[Slide]) -> Iterator[tuple[str, list[Slide], list[Slide]]]:
    """Yield what is left out, the slides to learn from, and those left out."""
    for out in sorted({slide.name if name == "mob" else slide.group for slide in slides}):
        test = [slide for slide in slides if out in (slide.name, slide.group)]
        yield out, [slide for slide in slides if slide not in test], test


def measure(
    data: dict[str, list[Slide]], factors: Sequence[float], changes: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Yield the rows of the table."""
    for name in [name for name in data if name != "visium_mini"]:
        for out, train, test in splits(name, data[name]):
            for cue in CUES:
                off, threshold = calibrated(cue, train)
                about = {"trained_on": name, "left_out": out, "cue": cue, "threshold": threshold}
                for slide in test:
                    shown = {"": [slide]}
                    if cue == "texture":
                        shown |= {"quarter": list(quarters(slide))}
                        shown |= {change: [CHANGES[change](slide)] for change in changes}
                    for change, several in shown.items():
                        for one in several:
                            for factor in factors if change in ("", "quarter") else (1.0,):
                                octaves = off(replace(one, um_per_px=one.require_size() * factor))
                                yield {**about, "slide": slide.name, "change": change, "factor": factor, "off": octaves}
        off, threshold = calibrated("texture", data[name])
        about = {"trained_on": name, "left_out": "", "cue": "texture", "threshold": threshold}
        for other in data.keys() - {name}:
            for slide in data[other]:
                yield {**about, "slide": slide.name, "change": f"of {other}", "factor": 1.0, "off": off(slide)}


def right(rows: pd.DataFrame) -> pd.Series:
    """Tell where a wrong size is warned of in the right direction; of a right one, where it is warned of."""
    wrong = rows["off"].abs() > rows["threshold"]
    return wrong & ((rows["factor"] == 1) | (np.sign(rows["off"]) == np.sign(np.log2(rows["factor"]))))


def tables(measured: pd.DataFrame) -> Iterator[str]:
    """Yield the tables of the page: how many are warned of, by factor, and at the right size."""
    rows = measured.assign(warned=right(measured), change=measured["change"].fillna(""))
    factors = sorted(rows["factor"].unique())
    lines = []
    texture = rows[rows["cue"] == "texture"]
    for change, what in {"": "whole slides", "quarter": "quarters of slides"}.items():
        part = texture[texture["change"] == change]
        shares = [part.loc[part["factor"] == factor, "warned"] for factor in factors]
        lines.append([what, *(f"{share.sum()}/{len(share)}" for share in shares)])
    yield from markdown(["warned of", *(f"{factor:.2g} ×" for factor in factors)], lines)
    yield ""
    same = rows[~rows["change"].isin(("", "quarter"))]
    kinds = same["change"].where(~same["change"].str.startswith("of "), "another tissue")
    kinds = kinds.replace(list(STAINS), f"stain {', '.join(STAINS)}")
    parts = same.groupby(kinds, sort=False)
    lines = [
        [str(what), f"{part['warned'].sum()}/{len(part)}", number(part["off"].abs().max(), 2)] for what, part in parts
    ]
    yield from markdown(["at the right size", "warned of", "most octaves off"], lines)


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    path = options.results / "scale_cue.csv"
    if not options.table:
        data = {}
        for name in ("her2st",) if options.smoke else ("her2st", "mob", "visium_mini"):
            group_key = "donor" if name != "visium_mini" else None
            data[name] = list(open_cohort(load(name, smoke=options.smoke), Keys(group_key=group_key)).slides)
        few = ((0.5, 1.0), ["redder"]) if options.smoke else (FACTORS, list(CHANGES))
        rows = pd.DataFrame(measure(data, *few))
        write(rows.round(4), path)
    print("\n".join(tables(read(path))))


if __name__ == "__main__":
    main()
