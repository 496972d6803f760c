"""Look at what was measured: spots of each slide, and targets before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import check_counts, gene_values, positions_of, slide_labels
from h2e._sdata.table import table_of
from h2e._sdata.targets import are_in_obs, measured
from h2e._statistics import unit_deviations
from h2e.pl._canvas import make_axes
from h2e.pl._dots import draw_map, name_slides, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

BOX: dict[str, Any] = {"widths": 0.7, "whis": (1, 99), "showfliers": False, "patch_artist": True}
BOX |= {"orientation": "horizontal", "boxprops": {"facecolor": "0.8"}, "medianprops": {"color": "k"}}
"""Boxes that stay readable with 10⁵ spots: whiskers from the 1st to the 99th percentile, no single points."""


def spots(
    sdata: SpatialData | AnnData,
    *,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    layer: str | None = None,
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Plot the spots of each slide: how many, their counts and detected genes, and where they are.

    A slide that is much shallower than the others, or spots beside the tissue,
    show here before they show as a bad score.

    Parameters
    ----------
    sdata
        SpatialData with a table of spots, or the table.
    table_key
        Name of the table in a SpatialData.
    library_key
        Column of ``obs`` that says which slide a spot belongs to; ``None`` takes
        the table's region key.
    layer
        Layer with counts; ``None`` takes ``X``.
    ax
        Four axes to draw on; ``None`` makes a figure.

    Returns
    -------
    Axes of the number of spots, the counts of a spot and the genes detected in
    it, one row per slide (boxes are quartiles, whiskers the 1st and the 99th
    percentile), and of a map of the counts with the slides beside each other.

    Raises
    ------
    KeyError
        The table, a layer or a column is not there.
    ValueError
        Values are no counts, or ``ax`` has another number of Axes.

    Examples
    --------
    >>> import h2e.datasets, h2e.pl
    >>> axes = h2e.pl.spots(h2e.datasets.toy_cohort())
    >>> [label.get_text() for label in axes[0].get_yticklabels()]
    ['toy_A1', 'toy_A2', 'toy_B1', 'toy_C1']
    """
    from matplotlib.ticker import SymmetricalLogLocator

    table = table_of(sdata, table_key)
    slides = slide_labels(table, library_key)
    counts, name = gene_values(table, layer)
    check_counts(counts, name)
    total, genes = (np.asarray(value.sum(axis=1)).ravel() for value in (counts, counts > 0))
    xy, names, middle = side_by_side(positions_of(table, slides), slides)
    figure = {"figsize": (10, 3.4 + 0.3 * len(names)), "height_ratios": [1.2 + 0.3 * len(names), 2.2]}
    axes = make_axes(ax, [[0, 1, 2], [3, 3, 3]], "spots, counts, genes and a map", **figure)

    rows = np.arange(len(names))
    axes[0].barh(rows, [int((slides == name).sum()) for name in names], height=0.7, color="0.6")
    axes[0].set_xlabel("spots")
    for one, values, label in ((axes[1], total, "counts of a spot"), (axes[2], genes, "genes detected in a spot")):
        _boxes(one, [values[slides == name] for name in names])
        # A spot may have no counts.
        one.set_xscale("symlog", linthresh=10)
        steps = (1,) if one.get_xlim()[1] > 100 * max(one.get_xlim()[0], 10) else (1, 2, 5)
        one.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=10, subs=steps))
        one.xaxis.set_major_formatter("{x:,.0f}")
        one.set_xlabel(label)
    for one in axes[:3]:
        one.set_yticks(rows, names if one is axes[0] else [""] * len(names))
        one.set_ylim(len(names) - 0.5, -0.5)
    draw_map(axes[3], xy, np.log10(1 + total), "", "log₁₀(1 + counts)")
    name_slides(axes[3], middle, names)
    return axes


def target_overview(
    sdata: SpatialData | AnnData,
    targets: Sequence[str] | None = None,
    *,
    obsm: str | None = None,
    layer: str | None = None,
    log_normalized: bool = False,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    n_maps: int = 4,
    ax: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Plot the abundance of the targets, how they correlate, and where some of them are.

    Targets stand in the order of a hierarchical clustering of their
    correlations, so that what varies together stands together. Correlations are
    those over the spots of a slide, averaged over slides: spots of several
    slides are never pooled. The maps show targets that are spread evenly over
    that order.

    Parameters
    ----------
    sdata
        SpatialData with a table of spots, or the table.
    targets
        Genes, or columns of ``obsm`` or ``obs``. ``None`` takes the selected ones.
    obsm
        DataFrame in ``.obsm`` that holds the targets, such as proportions of
        cell types. ``None``: targets are genes.
    layer
        Layer with counts; ``None`` takes ``X``.
    log_normalized
        The values are log-normalized already.
    table_key
        Name of the table in a SpatialData.
    library_key
        Column of ``obs`` that says which slide a spot belongs to; ``None`` takes
        the table's region key.
    n_maps
        How many maps.
    ax
        Two axes and one per map to draw on; ``None`` makes a figure.

    Returns
    -------
    Axes of the distributions, the correlations and the maps. A map shows all
    slides beside each other in the order of their names, y pointing down.

    Raises
    ------
    KeyError
        The table, a layer, a column or a target is not there.
    ValueError
        Values are no counts, or ``ax`` has another number of Axes.

    Examples
    --------
    >>> import h2e.datasets, h2e.pl
    >>> axes = h2e.pl.target_overview(h2e.datasets.toy_cohort(), ["TOY01", "TOY02", "TOY03"])
    >>> axes[2].get_title() in {"TOY01", "TOY02", "TOY03"}
    True
    """
    table = table_of(sdata, table_key)
    slides = slide_labels(table, library_key)
    frame = measured(table, targets, obsm=obsm, layer=layer, log_normalized=log_normalized)
    correlation = mean_correlation(frame.to_numpy(), slides)
    order = _cluster(correlation)
    frame, correlation = frame.iloc[:, order], correlation[np.ix_(order, order)]
    n_maps = min(n_maps, frame.shape[1])
    rows = np.arange(frame.shape[1])
    mosaic: list[Any] = [[0, 1, 2 + row] for row in range(n_maps)] or [[0, 1, "."]]
    figure = {"figsize": (14, max(2.0 + 0.16 * len(rows), 1.6 * n_maps, 3.0)), "width_ratios": [1, 1.6, 2]}
    axes = make_axes(ax, mosaic, "distributions, correlations and the maps", **figure)

    _boxes(axes[0], list(frame.to_numpy().T))
    axes[0].set_yticks(rows, frame.columns, fontsize="small")
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    unit = obsm or ("obs" if are_in_obs(table, targets) else "log-normalized expression")
    axes[0].set_xlabel(unit)
    np.fill_diagonal(correlation, np.nan)
    end = np.nanmax(np.abs(correlation), initial=0.1)
    drawn = axes[1].imshow(
        correlation, cmap="RdBu_r", vmin=-end, vmax=end, interpolation="nearest", aspect="auto", origin="upper"
    )
    axes[1].grid(visible=False)
    axes[1].set_yticks(rows, [""] * len(rows))
    axes[1].set_xticks(rows, frame.columns, fontsize="x-small", rotation=90)
    axes[1].figure.colorbar(drawn, ax=axes[1], label="correlation within a slide, mean", shrink=0.6)
    xy, names, middle = side_by_side(positions_of(table, slides), slides)
    shown = ((np.arange(n_maps) + 0.5) * len(rows) / max(n_maps, 1)).astype(int)
    for one, column in zip(axes[2:], shown, strict=True):
        draw_map(one, xy, frame.iloc[:, column].to_numpy(), frame.columns[column], unit if one is axes[2] else "")
        name_slides(one, middle, names if one is axes[-1] else [""] * len(names))
    return axes


def mean_correlation(x: np.ndarray, slides: np.ndarray) -> np.ndarray:
    """Pearson correlation of the columns within each slide, averaged over slides; 0 where one is constant."""
    deviations = [unit_deviations(x[slides == slide]) for slide in np.unique(slides)]
    mean = np.mean([z.T @ z for z in deviations], axis=0)
    np.fill_diagonal(mean, 1)
    return np.clip(mean, -1, 1)


def _cluster(correlation: np.ndarray) -> np.ndarray:
    """An order in which what correlates stands together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(correlation) < 3:
        return np.arange(len(correlation))
    distance = squareform(1 - correlation, checks=False)
    return leaves_list(linkage(distance, "average", optimal_ordering=True))


def _boxes(ax: Axes, values: list[np.ndarray]) -> None:
    """Draw a gray box for each list of values."""
    ax.boxplot(values, positions=np.arange(len(values)), **BOX)
