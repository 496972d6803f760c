"""Pictures for docs/gallery.md: predictions of spots that the models did not see, on all real data.

H2E_DATA=../shared/data python benchmarks/gallery.py [--out docs/_static] [--ensembles folder] [--only mob visium_mini]

Writes gallery_*.jpg, each under 300 kB. Nothing is picked by eye: the targets shown are those with the best, the
middle and the worst correlation over all held-out spots. With --ensembles, ensembles are kept in that folder and used
again.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np

import h2e

if TYPE_CHECKING:
    from spatialdata import SpatialData

OUT = Path(__file__).parents[1] / "docs" / "_static"
BYTES = 300 * 1024
TRAINING, NEW = ["A1", "B4"], "C2"  # of her2st, for pictures of a new slide


def save(axes: np.ndarray | plt.Axes, path: Path) -> None:
    figure = np.ravel(axes)[0].figure
    for quality in (85, 75, 65, 55, 45, 35):
        options = {"quality": quality, "optimize": True, "progressive": True}
        figure.savefig(path, dpi=90, pil_kwargs=options)
        if path.stat().st_size < BYTES:
            break
    plt.close(figure)
    print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


def fitted(sdata: SpatialData, keep: Path | None, name: str, **options: object) -> h2e.Ensemble:
    if keep is not None and (keep / name).is_dir():
        return h2e.Ensemble.load(keep / name)
    ensemble = h2e.tl.fit(sdata, progress=False, **options)
    if keep is not None:
        ensemble.save(keep / name)
    return ensemble


def best_middle_worst(sdata: SpatialData, **truth: object) -> list[str]:
    """Of the targets by their held-out correlation, mean over slides."""
    scores = h2e.metrics.score_adata(sdata["table"], key="h2e_loo", metrics="pearson", **truth)
    by_target = scores.groupby("target")["value"].mean().sort_values(ascending=False)
    print(by_target.round(2).to_dict())
    return [by_target.index[i] for i in (0, len(by_target) // 2, -1)]


def her2st(out: Path, keep: Path | None) -> None:
    sdata = h2e.datasets.her2st(progress=False)
    h2e.pp.normalize(sdata)
    h2e.tl.predict(sdata, fitted(sdata, keep, "her2st", group_key="donor"), progress=False)
    targets = best_middle_worst(sdata)
    save(h2e.pl.spatial_pred(sdata, targets, slides=["A1", "B4", "C3"]), out / "gallery_her2st.jpg")


def cell_types(out: Path, keep: Path | None) -> None:
    sdata = h2e.datasets.her2st(progress=False)
    h2e.pp.normalize(sdata)
    h2e.tl.predict(sdata, fitted(sdata, keep, "her2st_major", group_key="donor", obsm="major"), progress=False)
    targets = best_middle_worst(sdata, obsm="major")
    save(h2e.pl.spatial_pred(sdata, targets, slides=["B4", "C3"], cmap="magma"), out / "gallery_cell_types.jpg")


def mob(out: Path, keep: Path | None) -> None:
    sdata = h2e.datasets.mob(progress=False)
    h2e.pp.normalize(sdata)
    h2e.tl.predict(sdata, fitted(sdata, keep, "mob", group_key="donor"), progress=False)
    targets = best_middle_worst(sdata)
    axes = h2e.pl.spatial_pred(sdata, targets, slides=["MOB2", "MOB4"], share_scale="slides")
    save(axes, out / "gallery_mob.jpg")


def visium_mini(out: Path, keep: Path | None) -> None:
    sdata = h2e.datasets.visium_mini(progress=False)
    h2e.pp.normalize(sdata)
    ensemble = fitted(sdata, keep, "visium_mini", n_targets=8, log_normalized=True)
    h2e.tl.predict(sdata, ensemble, progress=False)
    targets = best_middle_worst(sdata, log_normalized=True)
    save(h2e.pl.spatial_pred(sdata, targets, log_normalized=True), out / "gallery_visium_mini.jpg")


def new_slide(out: Path, keep: Path | None) -> None:
    sdata = h2e.datasets.her2st(progress=False)
    known, new = (sdata.filter_by_coordinate_system(names) for names in (TRAINING, NEW))
    h2e.pp.normalize(known)
    ensemble = fitted(known, keep, "her2st_two", group_key="donor")
    h2e.tl.predict(new, ensemble, progress=False)
    target = ensemble.targets[0]
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    h2e.pl.spatial_pred(new, target, alpha_by_std=True, ax=axes[:2])
    h2e.pl.spatial_pred(new, target, key="h2e_std", cmap="magma", ax=axes[2])
    only_image = sdata.filter_by_coordinate_system(NEW)
    del only_image.tables["table"], only_image.shapes[NEW]
    um_per_px = float(new["table"].obs["um_per_px"].iloc[0])
    h2e.pp.make_spots(only_image, spacing_um=100, um_per_px=um_per_px)
    h2e.tl.predict(only_image, ensemble, progress=False)
    h2e.pl.spatial_pred(only_image, target, ax=axes[3])
    axes[3].set_title(f"{target}\npredicted on a grid of 100 µm", fontsize="medium")
    save(figure.axes[0], out / "gallery_new_slide.jpg")


PICTURES = {f.__name__: f for f in (visium_mini, mob, her2st, new_slide, cell_types)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--ensembles", type=Path)
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in arguments.only:
        PICTURES[name](arguments.out, arguments.ensembles)


if __name__ == "__main__":
    main()
