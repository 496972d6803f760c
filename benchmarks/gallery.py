"""Pictures for docs/gallery.md: predictions of spots that the models did not see, on all real data; and of all plots.

    H2E_DATA=../shared/data python benchmarks/gallery.py [--ensembles FOLDER] [--only mob visium_mini]   # 10 minutes

Writes gallery_*.jpg to docs/_static, each under 300 kB, and pl_*.jpg for the pages of the functions of ``h2e.pl``
(``--only api``: a minute). Nothing is picked by eye: the targets shown are those with the best, the middle and the
worst correlation over all held-out spots. With --ensembles, ensembles are kept in that
folder and used again.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from doctest import DocTestParser
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from _data import load
from _record import CommandLine, save_picture

import h2e

if TYPE_CHECKING:
    from spatialdata import SpatialData

TRAINING, NEW = ["A1", "B4"], "C2"
"""Sections for the picture of a new slide."""


def save(axes: object, options: Namespace, name: str) -> None:
    """Write the figure of some Axes."""
    save_picture(np.ravel(axes)[0].figure, options.pictures / f"gallery_{name}.jpg", dpi=125)


def fit(sdata: SpatialData, options: Namespace, name: str, **settings: object) -> h2e.Ensemble:
    """Train an ensemble, or load the one that was kept."""
    folder = options.ensembles and options.ensembles / name
    if folder and folder.is_dir():
        return h2e.Ensemble.load(folder)
    quick = {"learners": "texture", "n_targets": 4} if options.smoke else {}
    ensemble = h2e.tl.fit(sdata, progress=False, **(settings | quick))
    if folder:
        ensemble.save(folder)
    return ensemble


def best_middle_worst(sdata: SpatialData, **measured: object) -> list[str]:
    """Choose targets by their held-out correlation, mean over slides."""
    scores = h2e.metrics.score_adata(sdata["table"], key="h2e_loo", metrics="pearson", **measured)
    by_target = scores.groupby("target")["value"].mean().sort_values(ascending=False)
    print(by_target.round(2).to_dict())
    return [by_target.index[i] for i in (0, len(by_target) // 2, -1)]


@cache
def sections(*, smoke: bool) -> SpatialData:
    """Prepare the sections that two pictures show."""
    sdata = load("her2st", smoke=smoke, slides=["C3", "A1", "B4"])
    h2e.pp.normalize(sdata)
    return sdata


def her2st(options: Namespace) -> None:
    """Show genes on three sections, each predicted without its donor."""
    sdata = sections(smoke=options.smoke)
    h2e.tl.predict(sdata, fit(sdata, options, "her2st", group_key="donor"), progress=False)
    targets = best_middle_worst(sdata)
    save(h2e.pl.spatial_pred(sdata, targets, slides=["B4", "C3"], ncols=2), options, "her2st")


def cell_types(options: Namespace) -> None:
    """Show proportions of cell types on two sections."""
    sdata = sections(smoke=options.smoke)
    h2e.tl.predict(sdata, fit(sdata, options, "her2st_major", group_key="donor", obsm="major"), progress=False)
    targets = best_middle_worst(sdata, obsm="major")
    save(h2e.pl.spatial_pred(sdata, targets, slides=["B4", "C3"], cmap="magma", ncols=2), options, "cell_types")


def mob(options: Namespace) -> None:
    """Show genes of mouse olfactory bulbs, each predicted without its animal."""
    sdata = load("mob", smoke=options.smoke, slides=["MOB1", "MOB2", "MOB4"])
    h2e.pp.normalize(sdata)
    h2e.tl.predict(sdata, fit(sdata, options, "mob", group_key="donor"), progress=False)
    targets = best_middle_worst(sdata)
    save(h2e.pl.spatial_pred(sdata, targets, slides=["MOB2", "MOB4"], share_scale="slides", ncols=2), options, "mob")


def visium_mini(options: Namespace) -> None:
    """Show genes of one slide, each quarter predicted by the others."""
    sdata = load("visium_mini", smoke=options.smoke, slides=["V1"], side=10)
    h2e.pp.normalize(sdata)
    h2e.tl.predict(sdata, fit(sdata, options, "visium_mini", n_targets=8, log_normalized=True), progress=False)
    targets = best_middle_worst(sdata, log_normalized=True)
    save(h2e.pl.spatial_pred(sdata, targets, log_normalized=True, ncols=2), options, "visium_mini")


def new_slide(options: Namespace) -> None:
    """Show a section that is no part of the ensemble: with its spread, and on a grid of spots laid over its image."""
    sdata = load("her2st", smoke=options.smoke, slides=[*TRAINING, NEW])
    known, new = (sdata.filter_by_coordinate_system(names) for names in (TRAINING, NEW))
    h2e.pp.normalize(known)
    ensemble = fit(known, options, "her2st_two", group_key="donor")
    h2e.tl.predict(new, ensemble, progress=False)
    target = ensemble.targets[0]
    figure, axes = plt.subplots(2, 2, figsize=(7.4, 6.6), layout="constrained")
    axes = axes.ravel()
    h2e.pl.spatial_pred(new, target, alpha_by_std=True, ax=axes[:2])
    h2e.pl.spatial_pred(new, target, key="h2e_std", cmap="magma", ax=axes[2])
    only_image = sdata.filter_by_coordinate_system(NEW)
    del only_image.tables["table"], only_image.shapes[NEW]
    um_per_px = float(new["table"].obs["um_per_px"].iloc[0])
    h2e.pp.make_spots(only_image, spacing_um=100, um_per_px=um_per_px)
    h2e.tl.predict(only_image, ensemble, progress=False)
    h2e.pl.spatial_pred(only_image, target, ax=axes[3])
    axes[3].set_title(f"{target}\npredicted on a grid of 100 µm", fontsize="medium")
    save(figure.axes[0], options, "new_slide")


def api(options: Namespace) -> None:
    """Show what the example in the docstring of each function of ``h2e.pl`` draws, on synthetic slides."""
    for name in h2e.pl.__all__[: 2 if options.smoke else None]:
        names: dict[str, object] = {}
        for example in DocTestParser().get_examples(getattr(h2e.pl, name).__doc__):
            exec(example.source, names)
        save_picture(plt.gcf(), options.pictures / f"pl_{name}.jpg", dpi=80)


GALLERY = {f.__name__: f for f in (visium_mini, mob, her2st, new_slide, cell_types, api)}


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--ensembles", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=GALLERY, default=list(GALLERY))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in options.only:
        GALLERY[name](options)


if __name__ == "__main__":
    main()
