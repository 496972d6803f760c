"""Maps of predictions beside what was measured, on the H&E."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.predictions import SPREAD, read_predictions
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import get_table
from h2e._sdata.table_slides import slides_of_table
from h2e._slide.slide import Slide
from h2e._warnings import log, refuse
from h2e.pl import _canvas
from h2e.pl._dots import Limits, draw_colorbar, draw_dots, limits_of
from h2e.pl._maps import Map, choose, maps_of, refuse_columns, rows_of, truth_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

WIDTH = 3.0
"""Inches of a map in a new figure."""

MANY = 12
"""Maps in a figure, at most, unless the slides are named."""


def spatial_pred(
    sdata: SpatialData | AnnData,
    targets: str | Sequence[str] | None = None,
    *,
    slides: str | Sequence[str] | None = None,
    key: str = _keys.PREDICTION,
    measured: bool | None = None,
    layer: str | None = None,
    log_normalized: bool = False,
    share_scale: bool | Literal["slides"] = True,
    alpha_by_std: bool = False,
    image: bool = True,
    image_alpha: float = 0.3,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    cmap: str = "viridis",
    size: float | None = None,
    scale_bar: bool = True,
    ncols: int = 6,
    ax: Axes | Sequence[Axes] | None = None,
) -> Axes | np.ndarray:
    """Map predictions beside what was measured, several targets on several slides, on the H&E.

    Spots nearly touch (bins are squares, which do); those without a value are light blue. Where the ensemble was
    trained on a slide, its held-out predictions are shown, and the title says so. The title gives the Pearson
    correlation with what was measured over the spots of this slide, unless the models have seen them. Of a single
    training slide, quarters were left out: dashed lines show where they meet. A jump there is one of models, not of
    tissue. Of the image only the part under the spots is read, from the pyramid level that fits the Axes. In vector
    graphics the image is the only part that is not vectors.

    Parameters
    ----------
    sdata
        Slides whose table :func:`h2e.tl.predict` wrote to, or such a table alone: then the positions are
        ``obsm["spatial"]``, and images and the size of the spots those of ``uns["spatial"]``, if it is there.
    targets
        What to show. ``None`` takes the first two.
    slides
        Slides to show. ``None`` takes those with a prediction, as far as a figure holds about a dozen maps.
    key
        Which predictions: ``"h2e"``; ``"h2e_loo"`` for the held-out ones only; ``"h2e_std"`` for their spread.
    measured
        Show what was measured beside each prediction: log-normalized expression, or the columns of ``obsm`` that were
        learned. ``None``: of a SpatialData, where the table has it. ``True`` refuses what the table does not have.
    layer
        Layer with the counts; ``None`` takes that which was learned from, if it is there, else ``X``.
    log_normalized
        The values are log-normalized already.
    share_scale
        The two maps of a target on a slide share their colours, from the lower of their first percentiles to the
        higher of their 99th. Predictions vary less than measurements, and this shows it. ``"slides"``: all maps of a
        target share theirs, so that slides compare. ``False`` shows the pattern of each.
    alpha_by_std
        The less certain a prediction, the more transparent: opacity falls with the rank of ``obsm["{key}_std"]``
        among the spots of the slide.
    image
        Show the image.
    image_alpha
        Opacity of the image; faded, its colours do not mix with those of the spots.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    table_key
        Table over all slides.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    um_per_px
        µm per pixel of the image at its finest level, or a mapping from slide or image to it, where nothing else tells
        it; refused where it contradicts what does.
    cmap
        Colour map; the default can be read by the colour-blind and in gray.
    size
        Size of the spots; 1 is their real one. ``None``: such that neighbours nearly touch.
    scale_bar
        Draw a scale bar in the first map of each slide, if the size of a pixel is known; slides of about one size have
        equally long ones.
    ncols
        How many maps stand in a row, at most.
    ax
        Axes to draw on, as many as there are maps; ``None`` makes a figure.

    Returns
    -------
    The Axes of a single map. Of more, all of them: slide by slide, in each target by target, what was predicted before
    what was measured. The first two collections of each are the spots without a value, and all spots with their values.

    Raises
    ------
    KeyError
        ``key``, a target or a slide is not there; the message lists what is.
    ValueError
        ``ax`` has another number of Axes; a slide has no value, or no spread to make spots transparent by.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=3, n_donors=3)
    >>> ensemble = h2e.tl.fit(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    >>> h2e.tl.predict(sdata, ensemble, progress=False)
    >>> axes = h2e.pl.spatial_pred(sdata, ensemble.targets[:2], slides="toy_B1", ncols=2)
    """
    if hasattr(sdata, "tables"):
        table = get_table(sdata, table_key)
        keys = _keys.Keys(table_key, image_key, library_key=library_key, um_per_px=um_per_px)
        opened = require_inside(open_slides(sdata, keys))
    else:
        table, measured = sdata, bool(measured)
        opened = slides_of_table(table, library_key=library_key, um_per_px=um_per_px)
    predicted = read_predictions(table, key)
    every = list(predicted.values)
    refuse_columns(predicted, targets)
    targets = choose(targets, every, every[:2], f"targets of obsm[{key!r}]")
    shown = _chosen(opened, slides, predicted.values)
    truth = truth_of(predicted, targets, measured=measured, layer=layer, log_normalized=log_normalized)
    predicted = replace(predicted, values=predicted.values[targets])
    maps = [maps_of(predicted, slide, truth, alpha_by_std=alpha_by_std) for slide in shown]
    fit_in = max(MANY // sum(map(len, maps[0])), 1)
    if slides is None and ax is None and fit_in < len(shown):
        log.warning("%d of %d slides are shown, more are drawn if named: slides=[…]", fit_in, len(shown))
        shown, maps = shown[:fit_in], maps[:fit_in]
    if share_scale not in (True, False, "slides"):
        refuse(f"share_scale must be True, False or 'slides', got {share_scale!r}.")
    rows = rows_of(maps, ncols)
    what = "maps, slide by slide, target by target, predicted and measured"
    unit = f"SD, {predicted.unit}" if predicted.title == SPREAD else predicted.unit
    boxes = [_canvas.box_of(slide) for slide in shown]
    axes = _canvas.make_axes(ax, _canvas.in_rows(rows), what, figsize=_size(rows, boxes))
    known = [slide.um_per_px if scale_bar else None for slide in shown]
    widths = [um and um * (right - left) for um, (left, _, right, _) in zip(known, boxes, strict=True)]
    lengths = _canvas.bar_lengths(widths)
    limits = _limits(maps, share=share_scale)
    remaining = iter(axes)
    for slide, groups, length, shared in zip(shown, maps, lengths, limits, strict=True):
        of_groups = [[next(remaining) for _ in group] for group in groups]
        of_slide = list(chain(*of_groups))
        _draw_slide(of_slide, slide, image_alpha=image_alpha if image else None)
        for of_group, group, limit in zip(of_groups, groups, shared, strict=True):
            dots = [draw_dots(axis, one, limit, cmap, size) for axis, one in zip(of_group, group, strict=True)]
            each = [slice(None)] if share_scale else [slice(i, i + 1) for i in range(len(group))]
            for at in each:
                draw_colorbar(dots[at][0], of_group[at], group[at], unit if axes[rows[0] - 1] in of_group[at] else "")
        if length is not None and slide.um_per_px is not None:
            _canvas.draw_scale_bar(of_slide[0], _canvas.box_of(slide), length, slide.um_per_px, slide.xy)
    return axes[0] if len(axes) == 1 else axes


def _size(rows: list[int], boxes: list[_canvas.Box]) -> tuple[float, float]:
    """Size of a new figure in inches, whose rows are as high as the slides are for their width."""
    aspect = np.clip(np.median([(bottom - top) / (right - left) for left, top, right, bottom in boxes]), 0.4, 2)
    return max(rows) * 1.15 * WIDTH + 0.4, len(rows) * (WIDTH * float(aspect) + 0.75)


def _draw_slide(axes: Sequence[Axes], slide: Slide, *, image_alpha: float | None) -> None:
    """Draw what lies under the maps of a slide; its image is read once."""
    box = _canvas.box_of(slide)
    for axis in axes:
        _canvas.frame(axis, box)
        spec = axis.get_subplotspec()
        if axis is axes[0] or (spec is not None and spec.is_first_col()):
            axis.set_ylabel(slide.name)
    if image_alpha is not None and slide.image.levels:
        picture, part = _canvas.read_box(slide.image, box, min(_canvas.scale_that_fits(axis, box) for axis in axes))
        for axis in axes:
            _canvas.draw_picture(axis, picture, part, alpha=image_alpha)
            # A picture sets the limits.
            _canvas.frame(axis, box)


def _limits(maps: Sequence[list[list[Map]]], *, share: bool | Literal["slides"]) -> list[list[Limits | None]]:
    """Limits that the maps of each slide and target share."""
    if share == "slides":
        maps = [[list(chain(*same)) for same in zip(*maps, strict=True)]] * len(maps)
    return [[limits_of([one.values for one in group]) if share else None for group in groups] for groups in maps]


def _chosen(opened: list[Slide], names: str | Sequence[str] | None, values: pd.DataFrame) -> list[Slide]:
    """Slides by their names; by default those with a prediction, or all if none has."""
    has_value = values.notna().any(axis=1).to_numpy()
    by_name = {slide.name: slide for slide in opened}
    filled = [slide.name for slide in opened if has_value[slide.rows].any()]
    return [by_name[name] for name in choose(names, list(by_name), filled or list(by_name), "slides")]
