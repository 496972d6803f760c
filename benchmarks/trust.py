"""What makes scores too good and where predictions fail, on real slides, for docs/trust.md.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/trust.py   # 6 minutes
    python benchmarks/trust.py --table   # prints the tables of docs/trust.md, from the file
    python benchmarks/trust.py --choice   # measures again what a choice of targets on all donors adds, and keeps the rest

Writes results/trust.csv and, to docs/_static, leak.jpg (a section and a donor left out, beside position alone),
failures.jpg (held-out maps: the best gene, one that is flat, the worst) and wrong_organ.jpg (an ensemble of breast
tumours asked about mouse brain).
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _data import load
from _record import CommandLine, read, save_picture, select, stamp
from _tables import markdown, number
from spatialdata import SpatialData

import h2e

METHODS = {"ensemble": "#0072B2", "baseline: coordinates": "#D55E00"}
SPLITS = {"region": "section left out", "donor": "donor left out"}
CHOICES = ("targets chosen without each donor", "targets chosen on all donors")
"""Of the texture learners, donors left out: who has a say in which genes are scored."""
NEW = "B4"
"""The section that the ensemble of the others does not know."""


def evaluate(sdata: SpatialData, **options: object) -> pd.DataFrame:
    """Give the Pearson correlation of each section, with it or its donor left out."""
    parts = []
    for group_key, split in SPLITS.items():
        scores = h2e.tl.evaluate(
            sdata, group_key=group_key, baselines=["coordinates"], metrics="pearson", progress=False, **options
        )
        # The coverage of the intervals stands beside it.
        pearson = select(scores, metric="pearson")
        parts.append(h2e.metrics.summarize(pearson, by="slide").assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    return table.loc[table["method"].isin(METHODS), ["split", "method", "slide", "mean"]]


def evaluate_choices(sdata: SpatialData, *, n_targets: int = 35) -> pd.DataFrame:
    """Give the Pearson correlation of each section, of targets that its donor had a say in, and of others."""
    h2e.pp.select_targets(sdata["table"], n_targets=n_targets, group_key="donor")
    chosen = sdata["table"].var_names[sdata["table"].var["h2e_target"]]
    options = {"learners": ["texture", "knn", "pls"], "group_key": "donor", "baselines": [], "metrics": "pearson"}
    parts = []
    for choice, targets in zip(CHOICES, (None, chosen), strict=True):
        scores = h2e.tl.evaluate(sdata, targets=targets, n_targets=n_targets, progress=False, **options)
        pearson = select(scores, metric="pearson", method="ensemble")
        parts.append(h2e.metrics.summarize(pearson, by="slide").assign(split=choice))
    return pd.concat(parts, ignore_index=True)[["split", "method", "slide", "mean"]]


def draw_leak(table: pd.DataFrame, options: Namespace) -> None:
    """Draw the correlation of each section: of the ensemble, and of position alone."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True, layout="constrained")
    sections = sorted(table["slide"].unique())
    for ax, (split, rows) in zip(axes, table.groupby("split", sort=False), strict=True):
        for shift, (method, colour) in zip((-0.2, 0.2), METHODS.items(), strict=True):
            values = select(rows, method=method).set_index("slide")["mean"].reindex(sections)
            label = "image: the ensemble" if method == "ensemble" else "position on the slide alone"
            ax.bar(np.arange(len(sections)) + shift, values, width=0.38, color=colour, label=label)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(sections)), sections)
        ax.set_title(split, fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Pearson, mean over 35 genes")
    axes[1].legend(frameon=False, fontsize="small")
    save_picture(figure, options.pictures / "leak.jpg", dpi=110)


def draw_failures(sdata: SpatialData, ensemble: h2e.Ensemble, options: Namespace) -> None:
    """Draw held-out maps on C3, whose donor is left out: the best, a middling and the worst gene."""
    h2e.tl.predict(sdata, ensemble, progress=False)
    scores = h2e.metrics.score_adata(sdata["table"], key="h2e_loo", metrics="pearson")
    by_target = select(scores, slide="C3").set_index("target")["value"].sort_values()
    genes = [by_target.index[i] for i in (-1, len(by_target) // 2, 0)]
    print(by_target.loc[genes].round(2).to_dict())
    # Two columns are readable on a phone, too.
    axes = h2e.pl.spatial_pred(sdata, genes, slides="C3", ncols=2)
    save_picture(axes[0].figure, options.pictures / "failures.jpg", dpi=110)


def draw_wrong_organ(ensemble: h2e.Ensemble, gene: str, options: Namespace) -> None:
    """Draw mouse brain, predicted by the ensemble of breast tumours, and the spread of its models."""
    brain = load("visium_mini", smoke=options.smoke, slides=["V1"])
    h2e.tl.predict(brain, ensemble, progress=False)
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.9), layout="constrained")
    h2e.pl.spatial_pred(brain, gene, measured=False, ax=axes[0])
    h2e.pl.spatial_pred(brain, gene, key="h2e_std", ax=axes[1])
    save_picture(figure, options.pictures / "wrong_organ.jpg", dpi=110)


def spread_and_novelty(sdata: SpatialData, ensemble: h2e.Ensemble, gene: str, options: Namespace) -> pd.DataFrame:
    """Give the median spread and novelty on tissue that is new to an ensemble: of its own kind, and of mouse."""
    slides = {
        "a new breast tumour (B4)": sdata.filter_by_coordinate_system(NEW),
        "mouse brain": load("visium_mini", smoke=options.smoke, slides=["V1"]),
        "mouse olfactory bulbs": load("mob", smoke=options.smoke),
    }
    rows = []
    for name, slide in slides.items():
        h2e.tl.predict(slide, ensemble, progress=False)
        table = slide["table"]
        rows.append(["median spread", gene, name, table.obsm["h2e_std"][gene].median()])
        rows.append(["median novelty", "", name, table.obs["h2e_novelty"].median()])
    return pd.DataFrame(rows, columns=["split", "method", "slide", "mean"])


def tables(measured: pd.DataFrame) -> Iterator[str]:
    """Yield the tables of the page: means over the sections of a donor, then over donors; spread and novelty."""
    by_donor = measured.assign(donor=measured["slide"].str[0]).groupby(["split", "method", "donor"])["mean"].mean()
    means = by_donor.groupby(["split", "method"]).mean().unstack("split")
    rows = [[method, *(number(means.loc[method, split], 2) for split in SPLITS.values())] for method in METHODS]
    yield from markdown(["Pearson, mean over donors", *SPLITS.values()], rows)
    yield ""
    row = [number(means.loc["ensemble", choice]) for choice in CHOICES]
    yield from markdown(["Pearson, mean over donors", *CHOICES], [["three texture learners, donor left out", *row]])
    yield ""
    medians = measured[measured["split"].str.startswith("median")]
    medians = medians.pivot_table(index="slide", columns="split", values="mean", sort=False)
    rows = [[slide, *(number(value, 2) for value in row)] for slide, row in medians.iterrows()]
    yield from markdown(["predicted by an ensemble of breast tumours", *medians.columns], rows)


def measure(options: Namespace) -> pd.DataFrame:
    """Evaluate, train and draw."""
    quick = {"learners": "texture", "n_targets": 4} if options.smoke else {}
    sdata = load("her2st", smoke=options.smoke, slides=["C2", "C3", "A1", "B4"])
    h2e.pp.normalize(sdata)
    choices = evaluate_choices(sdata, n_targets=quick.get("n_targets", 35)).round(4)
    if options.choice:
        measured = read(options.results / "trust.csv")
        return pd.concat([measured[~measured["split"].isin(CHOICES)], stamp(choices)])
    scores = evaluate(sdata, **quick)
    draw_leak(scores, options)
    ensemble = h2e.tl.fit(sdata, group_key="donor", progress=False, **quick)
    draw_failures(sdata, ensemble, options)
    gene = "EPCAM" if "EPCAM" in ensemble.targets else ensemble.targets[0]
    draw_wrong_organ(ensemble, gene, options)
    others = sdata.filter_by_coordinate_system([name for name in sdata.shapes if name != NEW])
    quick["targets"] = ensemble.targets
    ensemble = h2e.tl.fit(others, group_key="donor", progress=False, **quick)
    return stamp(pd.concat([scores, choices, spread_and_novelty(sdata, ensemble, gene, options)]).round(4))


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    parser.add_argument("--choice", action="store_true", help="measure what choosing targets on all donors adds")
    options = parser.parse_args()
    path = options.results / "trust.csv"
    if not options.table:
        warnings.filterwarnings("ignore")
        measure(options).to_csv(path, index=False)
    print("\n".join(tables(read(path))))


if __name__ == "__main__":
    main()
