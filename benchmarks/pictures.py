"""Pictures of real slides before and after preparation, for docs/preprocessing.md.

    H2E_DATA=../shared/data python benchmarks/pictures.py   # half a minute

Writes stains.jpg, tissue.jpg and placement.jpg to docs/_static.
"""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
from _data import load
from _record import CommandLine, save_picture
from matplotlib.figure import Figure
from spatialdata import SpatialData
from spatialdata.transformations import Affine, Sequence, Translation, get_transformation, set_transformation

import h2e
from h2e._sdata.images import levels_of

SECTIONS = ["A1", "B4", "C2", "C4"]
SHIFT_PX = np.array([380.0, -270.0])
"""By which section C4 is displaced: 1.6 spacings."""


def main() -> None:
    options = CommandLine(__doc__).parse_args()
    warnings.filterwarnings("ignore")
    sdata = load("her2st", smoke=options.smoke, slides=SECTIONS)
    shift = SHIFT_PX / 8 if options.smoke else SHIFT_PX
    h2e.pp.normalize(sdata)
    print(h2e.get.report(sdata).round(3).to_string())
    axes = h2e.pl.stains(sdata, image_key=[f"{name}_image" for name in SECTIONS])
    save_picture(axes[0, 0].figure, options.pictures / "stains.jpg", dpi=100)

    figure, axes = plt.subplots(2, 2, figsize=(9, 8.4), layout="constrained")
    h2e.pp.detect_tissue(sdata, image_key="A1_image", method="mean", key_added="A1_mean")
    for ax, mask, name in zip(axes[:, 0], ["A1_mean", "A1_image_tissue"], ["mean", "otsu"], strict=True):
        h2e.pl.tissue(sdata, image_key="A1_image", tissue_mask_key=mask, ax=ax)
        ax.set_title(f'A1, method="{name}"')
    shapes = sdata["C4"]
    set_transformation(shapes, Sequence([Translation(shift, ("x", "y")), get_transformation(shapes, "C4")]), "C4")
    for ax, name in zip(axes[:, 1], ["spots displaced by hand", "realign_spots"], strict=True):
        (ax,) = h2e.pl.tissue(sdata, image_key="C4_image", ax=ax)
        ax.set_title(f"C4, {name}: {ax.get_title().split(', ')[1]}")
        h2e.pp.realign_spots(sdata)
    save_picture(figure, options.pictures / "tissue.jpg", dpi=100)
    save_picture(
        placements(sdata, "C2", spacings=1 if options.smoke else 3), options.pictures / "placement.jpg", dpi=100
    )


def placements(sdata: SpatialData, name: str, *, spacings: int) -> Figure:
    """The spots of a slide as they are, mirrored, and some spacings away, each with what the report says."""
    slide, shapes = sdata[f"{name}_image"], sdata[name]
    width = levels_of(slide)[0].sizes["x"]
    pitch = 200 / sdata["table"].obs.query("region == @name")["um_per_px"].iloc[0]
    moves = {
        "right": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "mirrored": [[-1, 0, width], [0, 1, 0], [0, 0, 1]],
        "shifted": [[1, 0, spacings * pitch], [0, 1, 0], [0, 0, 1]],
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
    recorded = get_transformation(shapes, name)
    for (title, matrix), ax in zip(moves.items(), axes, strict=True):
        set_transformation(shapes, Sequence([recorded, Affine(matrix, ("x", "y"), ("x", "y"))]), name)
        h2e.pp.normalize(sdata)
        row = h2e.get.report(sdata).loc[name]
        h2e.pl.tissue(sdata, image_key=f"{name}_image", ax=ax)
        where = "" if title == "mirrored" else f"; shift: {row['shift']:.1f} spacings"
        ax.set_title(f"{title}\norientation: {row['orientation']}{where}", fontsize=10)
    return figure


if __name__ == "__main__":
    main()
