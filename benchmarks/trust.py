"""What makes scores too good and where predictions fail, on real slides, for docs/trust.md.

    H2E_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/trust.py   # 4 minutes

Writes results/trust.csv and, to docs/_static, leak.jpg (a section and a donor left out, beside position alone),
failures.jpg (held-out maps: the best gene, one that is flat, the worst) and wrong_organ.jpg (an ensemble of breast
tumours asked about mouse brain). ``python benchmarks/trust.py --table`` prints the table of the page.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from spatialdata import SpatialData

import h2e

ROOT = Path(__file__).parents[1]
OUT, CSV = ROOT / "docs" / "_static", ROOT / "benchmarks" / "results" / "trust.csv"
METHODS = {"ensemble": "#0072B2", "baseline: coordinates": "#D55E00"}
SPLITS = {"region": "section left out", "donor": "donor left out"}


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(OUT / name, dpi=110, pil_kwargs={"quality": 84, "optimize": True})
    plt.close(figure)
    print(f"{name}: {(OUT / name).stat().st_size / 1024:.0f} kB")


def evaluate(sdata: SpatialData) -> pd.DataFrame:
    """Pearson of each section, with it or its donor left out."""
    parts = []
    for group_key, split in SPLITS.items():
        options = {"baselines": ["coordinates"], "metrics": "pearson", "progress": False}
        scores = h2e.tl.evaluate(sdata, group_key=group_key, **options)
        pearson = scores[scores["metric"] == "pearson"]  # the coverage of the intervals is beside it
        parts.append(h2e.metrics.summarize(pearson, by="slide").assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    return table.loc[table["method"].isin(METHODS), ["split", "method", "slide", "mean"]]


def draw_leak(table: pd.DataFrame) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True, layout="constrained")
    sections = sorted(table["slide"].unique())
    for ax, (split, rows) in zip(axes, table.groupby("split", sort=False), strict=True):
        for shift, (method, colour) in zip((-0.2, 0.2), METHODS.items(), strict=True):
            values = rows[rows["method"] == method].set_index("slide")["mean"].reindex(sections)
            label = "image: the ensemble" if method == "ensemble" else "position on the slide alone"
            ax.bar(np.arange(len(sections)) + shift, values, width=0.38, color=colour, label=label)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(sections)), sections)
        ax.set_title(split, fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Pearson, mean over 35 genes")
    axes[1].legend(frameon=False, fontsize="small")
    save(figure, "leak.jpg")


def draw_failures(sdata: SpatialData) -> h2e.Ensemble:
    """Held-out maps on C3, whose donor is left out: the gene with the best, a middling and the worst correlation."""
    ensemble = h2e.tl.fit(sdata, group_key="donor", progress=False)
    h2e.tl.predict(sdata, ensemble, progress=False)
    scores = h2e.metrics.score_adata(sdata["table"], key="h2e_loo", metrics="pearson")
    of_slide = scores[scores["slide"] == "C3"].set_index("target")["value"].sort_values()
    genes = [of_slide.index[i] for i in (-1, len(of_slide) // 2, 0)]
    print(of_slide.loc[genes].round(2).to_dict())
    axes = h2e.pl.spatial_pred(sdata, genes, slides="C3", ncols=2)  # readable on a phone, too
    save(axes[0].figure, "failures.jpg")
    return ensemble


def draw_wrong_organ(sdata: SpatialData, ensemble: h2e.Ensemble) -> pd.DataFrame:
    """Mouse brain, predicted by the ensemble of breast tumours; spread and novelty there and on tissue of its own kind."""
    brain = h2e.datasets.visium_mini(progress=False)
    h2e.tl.predict(brain, ensemble, progress=False)
    gene = "EPCAM" if "EPCAM" in ensemble.targets else ensemble.targets[0]
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.9), layout="constrained")
    h2e.pl.spatial_pred(brain, gene, measured=False, ax=axes[0])
    h2e.pl.spatial_pred(brain, gene, key="h2e_std", ax=axes[1])
    save(figure, "wrong_organ.jpg")
    without = sdata.filter_by_coordinate_system(["A1", "C2", "C3", "C4", "C5"])
    other = sdata.filter_by_coordinate_system("B4")
    ensemble = h2e.tl.fit(without, targets=ensemble.targets, group_key="donor", progress=False)
    slides = {
        "a new breast tumour (B4)": other,
        "mouse brain": brain,
        "mouse olfactory bulbs": h2e.datasets.mob(progress=False),
    }
    parts = []
    for name, slide in slides.items():
        h2e.tl.predict(slide, ensemble, progress=False)
        table = slide["table"]
        spread, novelty = table.obsm["h2e_std"][gene].median(), table.obs["h2e_novelty"].median()
        parts += [["median spread", gene, name, spread], ["median novelty", "", name, novelty]]
    return pd.DataFrame(parts, columns=["split", "method", "slide", "mean"])


def print_table() -> None:
    """The table of the page: means over the sections of a donor, then over donors."""
    table = pd.read_csv(CSV)
    scores = table[table["split"].isin(list(SPLITS.values()))]
    by_donor = scores.assign(donor=scores["slide"].str[0]).groupby(["split", "method", "donor"])["mean"].mean()
    means = by_donor.groupby(["split", "method"]).mean().unstack("split")[list(SPLITS.values())]
    print("| Pearson, mean over donors | " + " | ".join(means.columns) + " |\n|---|---|---|")
    for method in METHODS:
        print(f"| {method} | " + " | ".join(f"{value:.2f}".replace("-", "−") for value in means.loc[method]) + " |")
    told = table[table["split"].str.startswith("median")].pivot_table(
        index="slide", columns="split", values="mean", sort=False
    )
    print("\n| predicted by an ensemble of breast tumours | median spread | median novelty |\n|---|---|---|")
    for slide, row in told.iterrows():
        print(f"| {slide} | " + " | ".join(f"{value:.2f}".replace("-", "−") for value in row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true")
    if parser.parse_args().table:
        print_table()
        return
    warnings.filterwarnings("ignore")
    sdata = h2e.datasets.her2st(progress=False)
    h2e.pp.normalize(sdata)
    table = evaluate(sdata)
    draw_leak(table)
    ensemble = draw_failures(sdata)
    table = pd.concat([table, draw_wrong_organ(sdata, ensemble)])
    table.round(4).to_csv(CSV, index=False)
    print(table.to_string(index=False))
    print_table()


if __name__ == "__main__":
    main()
