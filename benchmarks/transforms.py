"""Which target transform is best, on real slides that were held out: the tables and the figure of docs/targets.md.

    python benchmarks/transforms.py --table     # prints the tables, from results/accuracy.csv (see
    benchmarks/accuracy.py) H2E_DATA=../shared/data python benchmarks/transforms.py --umap   # draws the figure

The rows are runs of ``h2e.tl.evaluate`` that benchmarks/accuracy.py made; the parts "measured", "transforms" and
"transforms-normalized" of it are what is compared here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from accuracy import DEFAULTS, GENES, MEASURED, read, wide_of

import h2e
from h2e._ensemble.transforms import TRANSFORMS, fit_transform
from h2e._learners.registry import DEFAULT_LEARNERS

if TYPE_CHECKING:
    from anndata import AnnData

PICTURE = Path(__file__).parent.parent / "docs" / "_static" / "targets_umap.jpg"

KEY = ["split", "images", "transform"]
METHODS = {"ensemble": "ensemble", **{name: name for name in DEFAULT_LEARNERS}, "baseline: coordinates": "coordinates"}
NAMES = {
    "mixed": "log and standardized",
    "log": "log-normalized",
    "standardized": "standardized in slide",
    "gene_rank": "rank in slide and gene",
    "spot_rank": "rank in spot",
}


def runs() -> pd.DataFrame:
    """What was measured with the default learners and stack, on genes as measured."""
    found = read()
    wanted = {**DEFAULTS, **MEASURED}
    same = np.all([found[name] == wanted[name] for name in ("learners", "programmes", "stack")], axis=0)
    return found[same & found["split"].isin(GENES)]


def tables(found: pd.DataFrame) -> Iterator[str]:
    """Lines of Markdown: of each run each learner, and beside it what the ensemble does for each group."""
    everything = wide_of(found[found["group"] == "all"], [*KEY, "method"])
    each = wide_of(found[(found["group"] != "all") & (found["method"] == "ensemble")], [*KEY, "group"])
    both = sorted({key[:2] for key in everything.index}, key=lambda run: (run[1] != "raw", GENES.index(run[0])))
    for what in ("method", "group"):
        for run in both:
            table = (everything if what == "method" else each).loc[run]
            there = [name for name in NAMES if name in table.index.unique("transform")]
            if len(there) < 2:
                continue
            columns = list(METHODS) if what == "method" else sorted(table.index.unique("group"))
            beside = ["ensemble − coordinates", "variance ratio"] if what == "method" else []
            heads = [METHODS.get(column, str(column)) for column in columns] + beside
            yield f"| **{run[0]}**, {run[1]} images | {' | '.join(heads)} |"
            yield "|---|" + "---|" * len(heads)
            for transform in there:
                cells = [cell(table, transform, column) for column in columns]
                if beside:
                    ours, place = (table.loc[(transform, name)] for name in ("ensemble", "baseline: coordinates"))
                    cells += [f"{ours['pearson'] - place['pearson']:.3f}", f"{ours['variance_ratio']:.2f}"]
                yield f"| {NAMES[transform]} | {' | '.join(cells)} |"
            yield ""


def cell(table: pd.DataFrame, transform: str, column: str) -> str:
    """Pearson and skill; what is the highest of all transforms, to the digits that are shown, is bold."""
    values = table.xs(column, level=1)[["pearson", "skill"]].round(3)
    best = values.loc[transform] == values.max()
    texts = [f"{value:.3f}".replace("-", "−") for value in values.loc[transform]]
    return " / ".join(f"**{text}**" if wins else text for text, wins in zip(texts, best, strict=True))


COLOURS = {
    "A1": "#e69f00",
    "B4": "#0072b2",
    "C2": "#c7e9c0",
    "C3": "#74c476",
    "C4": "#238b45",
    "C5": "#00441b",
}
"""One hue a donor."""


def target_space(table: AnnData, transform: str, targets: list[str]) -> AnnData:
    """What is learned of each spot, and its UMAP."""
    import scanpy as sc
    from anndata import AnnData

    values = table[:, targets].X
    slides, donors = (table.obs[key].astype(str).to_numpy() for key in ("region", "donor"))
    learned, _ = fit_transform(transform, np.asarray(values), slides, donors)
    space = AnnData(learned, obs=pd.DataFrame({"slide": slides, "donor": donors}, index=table.obs_names))
    sc.pp.neighbors(space, n_neighbors=15, use_rep="X", random_state=0)
    sc.tl.umap(space, random_state=0)
    return space


def mixing(space: AnnData) -> float:
    """Neighbours from another donor, over what neighbours drawn by lot would give; donors weigh the same."""
    donors = space.obs["donor"].to_numpy()
    near = space.obsp["distances"].tocoo()
    other = pd.Series(donors[near.row] != donors[near.col]).groupby(donors[near.row]).mean()
    return float(np.mean([other[d] / (donors != d).mean() for d in other.index]))


def draw() -> None:
    """UMAP of the targets of her2st under each transform, coloured by slide and by two targets."""
    import matplotlib.pyplot as plt
    import scanpy as sc

    table = h2e.datasets.her2st(progress=False)["table"]
    h2e.pp.select_targets(table, group_key="donor")
    targets = list(table.var_names[table.var["h2e_target"]])
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    table = table[:, targets].to_memory() if table.isbacked else table[:, targets].copy()
    table.X = table.X.toarray() if hasattr(table.X, "toarray") else np.asarray(table.X)
    correlation = np.corrcoef(table.X.T)
    one = int(np.argmax(np.abs(correlation).sum(axis=1)))  # what most others go along with, and what least goes with it
    shown = [targets[one], targets[int(np.argmin(correlation[one]))]]
    print(len(targets), "targets:", *targets)
    shown_transforms = [t for t in TRANSFORMS if t != "mixed"]
    figure, axes = plt.subplots(3, len(shown_transforms), figsize=(12, 8.6), layout="constrained")
    order = np.random.default_rng(0).permutation(table.n_obs)  # no slide lies on top
    for column, transform in zip(axes.T, shown_transforms, strict=True):
        space = target_space(table, transform, targets)
        print(f"{transform:>14}  neighbours from another donor / by lot: {mixing(space):.2f}")
        xy = space.obsm["X_umap"][order]
        slides = space.obs["slide"].to_numpy()[order]
        column[0].set_title(NAMES[transform])
        column[0].scatter(*xy.T, s=5, c=[COLOURS[name] for name in slides], linewidths=0)
        for ax, gene in zip(column[1:], shown, strict=True):
            values = table[:, gene].X.ravel()[order]
            ax.scatter(*xy.T, s=5, c=values, cmap="viridis", vmax=np.quantile(values, 0.99), linewidths=0)
        for ax in column:
            ax.set(xticks=[], yticks=[])
    handles = [plt.Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in COLOURS.items()]
    axes[0, -1].legend(handles=handles, title="slide", loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for row, gene in zip(axes[1:], shown, strict=True):
        bar = figure.colorbar(row[-1].collections[0], ax=row, fraction=0.04, pad=0.01)
        bar.set_label(f"{gene}, log-normalized")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=90, pil_kwargs={"quality": 85})
    print(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--umap", action="store_true")
    options = parser.parse_args()
    if options.umap:
        draw()
    if options.table:
        sys.stdout.write("\n".join(tables(runs())))


if __name__ == "__main__":
    main()
