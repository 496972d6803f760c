"""Which target transform is best, on real slides that were held out: a table and a figure of docs/benchmarks.md.

    python benchmarks/transforms.py --table   # from results/accuracy.csv (python benchmarks/accuracy.py)
    H2E_DATA=../shared/data python benchmarks/transforms.py --umap   # draws the figure, in a minute

The rows are runs of ``h2e.tl.evaluate`` that benchmarks/accuracy.py made: its parts "measured" and "transforms".
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _data import load
from _record import RESULTS, CommandLine, read, save_picture, select
from _tables import markdown, number, wide
from accuracy import DEFAULTS, GENES, MEASURED

import h2e
from h2e._ensemble.transforms import TRANSFORMS, fit_transform

if TYPE_CHECKING:
    from anndata import AnnData

METRICS = ("pearson", "pearson_equal_depth", "skill")
NAMES = {
    "mixed": "log and standardized",
    "log": "log-normalized",
    "standardized": "standardized in slide",
    "gene_rank": "rank in slide and gene",
    "spot_rank": "rank in spot",
}
COLOURS = {"A1": "#e69f00", "B4": "#0072b2", "C2": "#c7e9c0", "C3": "#74c476", "C4": "#238b45", "C5": "#00441b"}
"""One hue a donor."""


def runs() -> pd.DataFrame:
    """Give what was measured with the default learners and stack, on genes as measured."""
    wanted = {name: (DEFAULTS | MEASURED)[name] for name in ("learners", "programmes", "stack")}
    measured = select(read(RESULTS / "accuracy.csv"), **wanted)
    return measured[measured["split"].isin(GENES)]


def tables(measured: pd.DataFrame) -> Iterator[str]:
    """Yield the Markdown: Pearson, at equal depth and skill of the ensemble; the best of a column is bold."""
    means = wide(select(measured, group="all", method="ensemble", images="raw"), ["split", "transform"])
    rows = []
    for transform, name in NAMES.items():
        cells = []
        for split in GENES:
            values = means.loc[split, [*METRICS]].round(3)
            best = values.loc[transform] == values.max()
            texts = zip(map(number, values.loc[transform]), best, strict=True)
            cells.append("\u00a0/\u00a0".join(f"**{text}**" if wins else text for text, wins in texts))
        rows.append([name, *cells])
    yield from markdown(["what is learned", *GENES], rows)


def target_space(table: AnnData, transform: str, *, smoke: bool) -> AnnData:
    """Compute what is learned of each spot, and its UMAP."""
    import scanpy as sc
    from anndata import AnnData

    slides, donors = (table.obs[key].astype(str).to_numpy() for key in ("region", "donor"))
    learned, _ = fit_transform(transform, table.X, slides, donors)
    space = AnnData(learned, obs=pd.DataFrame({"slide": slides, "donor": donors}, index=table.obs_names))
    # UMAP is compiled for half a minute, a Gaussian kernel and principal components are not.
    sc.pp.neighbors(space, n_neighbors=15, use_rep="X", random_state=0, method="gauss" if smoke else "umap")
    if smoke:
        sc.pp.pca(space, n_comps=2, random_state=0)
        space.obsm["X_umap"] = space.obsm["X_pca"]
    else:
        sc.tl.umap(space, random_state=0)
    return space


def mixing(space: AnnData) -> float:
    """Compare neighbours from another donor with what neighbours drawn by lot would give; donors weigh the same."""
    donors = space.obs["donor"].to_numpy()
    near = space.obsp["distances"].tocoo()
    other = pd.Series(donors[near.row] != donors[near.col]).groupby(donors[near.row]).mean()
    return float(np.mean([other[d] / (donors != d).mean() for d in other.index]))


def log_normalized_targets(options: Namespace) -> AnnData:
    """Choose the targets of her2st; returns their dense log-normalized expression."""
    import scanpy as sc

    table = load("her2st", smoke=options.smoke)["table"]
    h2e.pp.select_targets(table, group_key="donor", n_targets=4 if options.smoke else 35)
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    table = table[:, table.var["h2e_target"].to_numpy()].copy()
    table.X = table.X.toarray()
    return table


def two_targets(table: AnnData) -> list[str]:
    """Name the target that most others go along with, and the one that goes least with it."""
    correlation = np.corrcoef(table.X.T)
    first = int(np.argmax(np.abs(correlation).sum(axis=1)))
    return list(table.var_names[[first, int(np.argmin(correlation[first]))]])


def draw(options: Namespace) -> None:
    """Draw UMAPs of the targets of her2st under each transform, coloured by slide and by two targets."""
    import matplotlib.pyplot as plt

    table = log_normalized_targets(options)
    genes = two_targets(table)
    print(table.n_vars, "targets:", *table.var_names)
    transforms = [name for name in TRANSFORMS if name != "mixed"]
    figure, axes = plt.subplots(3, len(transforms), figsize=(12, 8.6), layout="constrained")
    # In a random order no slide lies on top.
    order = np.random.default_rng(0).permutation(table.n_obs)
    for column, transform in zip(axes.T, transforms, strict=True):
        space = target_space(table, transform, smoke=options.smoke)
        print(f"{transform:>14}  neighbours from another donor / by lot: {mixing(space):.2f}")
        xy = space.obsm["X_umap"][order]
        slides = space.obs["slide"].to_numpy()[order]
        column[0].set_title(NAMES[transform])
        column[0].scatter(*xy.T, s=5, c=[COLOURS[name] for name in slides], linewidths=0)
        for ax, gene in zip(column[1:], genes, strict=True):
            values = table[:, gene].X.ravel()[order]
            ax.scatter(*xy.T, s=5, c=values, cmap="viridis", vmax=np.quantile(values, 0.99), linewidths=0)
        for ax in column:
            ax.set(xticks=[], yticks=[])
    handles = [plt.Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in COLOURS.items()]
    axes[0, -1].legend(handles=handles, title="slide", loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for row, gene in zip(axes[1:], genes, strict=True):
        bar = figure.colorbar(row[-1].collections[0], ax=row, fraction=0.04, pad=0.01)
        bar.set_label(f"{gene}, log-normalized")
    save_picture(figure, options.pictures / "targets_umap.jpg", dpi=90)


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--table", action="store_true", help="print the tables")
    parser.add_argument("--umap", action="store_true", help="draw the figure")
    options = parser.parse_args()
    if options.umap or options.smoke:
        draw(options)
    if options.table or options.smoke:
        print("\n".join(tables(runs())))


if __name__ == "__main__":
    main()
