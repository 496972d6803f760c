"""Pictures of real slides before and after preparation, for docs/preprocessing.md.

H2E_DATA=../shared/data python benchmarks/pictures.py [--out docs/_static]

Writes stains.jpg, tissue.jpg and tiles.jpg.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from spatialdata.transformations import Sequence, Translation, get_transformation, set_transformation

import h2e

OUT = Path(__file__).parents[1] / "docs" / "_static"
PLANTED = [380.0, -270.0]  # pixels of section C4: 1.6 spacings


def save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 82, "optimize": True})
    plt.close(figure)
    print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    warnings.filterwarnings("ignore")
    sdata = h2e.datasets.her2st()
    h2e.pp.normalize(sdata)
    print(h2e.get.report(sdata).round(3).to_string())
    save(
        h2e.pl.stains(sdata, image_key=["A1_image", "B4_image", "C2_image", "C4_image"])[0, 0].figure,
        out / "stains.jpg",
    )
    save(h2e.pl.tiles(sdata, spots=["B4_18x28", "B4_11x26", "C4_22x20", "C4_13x17"])[0].figure, out / "tiles.jpg")

    figure, axes = plt.subplots(2, 2, figsize=(9, 8.4), layout="constrained")
    h2e.pp.detect_tissue(sdata, image_key="A1_image", method="mean", key_added="A1_mean")
    for ax, mask, name in zip(axes[:, 0], ["A1_mean", "A1_image_tissue"], ["mean", "otsu"], strict=True):
        h2e.pl.tissue(sdata, image_key="A1_image", tissue_mask_key=mask, ax=ax)
        ax.set_title(f'A1, method="{name}"')
    shapes = sdata["C4"]
    set_transformation(shapes, Sequence([Translation(PLANTED, ("x", "y")), get_transformation(shapes, "C4")]), "C4")
    for ax, name in zip(axes[:, 1], ["spots displaced by hand", "realign_spots"], strict=True):
        (ax,) = h2e.pl.tissue(sdata, image_key="C4_image", ax=ax)
        ax.set_title(f"C4, {name}: {ax.get_title().split(', ')[1]}")
        h2e.pp.realign_spots(sdata)
    save(figure, out / "tissue.jpg")


if __name__ == "__main__":
    main()
