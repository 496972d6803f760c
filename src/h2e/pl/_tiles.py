"""Look at what the multiscale network sees of a spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from h2e._learners.multiscale import Multiscale
from h2e._sdata import keys as _keys
from h2e._sdata import masks, normalized, table
from h2e._sdata.slides import open_slides, require_inside
from h2e._slide.slide import Slide
from h2e._slide.tiles import read_views
from h2e._warnings import refuse_if
from h2e.pl._canvas import in_rows, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

OUTLINE, CENTRE, SPOT = "white", "#ffb000", "black"
GAP = 0.12
"""Spacings between the subtiles that are pulled apart."""


def tiles(
    sdata: SpatialData,
    *,
    n: int = 3,
    spots: Sequence[str] | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    seed: int = 0,
    ax: Axes | Sequence[Axes] | None = None,
) -> np.ndarray:
    """Show what the multiscale network sees of a few spots of each slide.

    On the left the tile, three spot spacings wide at the resolution that the network gets, with the outlines of its
    nine subtiles and the spot (dashed); on the right the subtiles pulled apart. The one in the centre, which has an
    encoder of its own, has a thick frame. Only the pixels of these tiles are read, from normalized images where
    there are any.

    Parameters
    ----------
    sdata
        Slides with spots.
    n
        Spots of each slide, drawn at random from those with tissue (from all, where there is no tissue mask).
    spots
        Spots to show instead, by their names in ``table.obs_names``.
    image_key
        Image that the spots lie on, or a mapping from region to image.
    table_key
        Table of the spots.
    library_key
        Column of ``obs`` that says which slide a spot is on; by default its region.
    seed
        Of the choice of spots.
    ax
        Axes to draw on, one for each spot, slide by slide; by default a new figure with a row for each slide.

    Returns
    -------
    Axes, one for each spot, slide by slide. Coordinates are spot spacings.

    Raises
    ------
    KeyError
        The table or a spot is not there.
    ValueError
        Images cannot be paired with regions, or ``ax`` has another number of Axes.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> axes = h2e.pl.tiles(sdata, spots=["toy_A1_3x5", "toy_B1_5x5"])
    """
    names = table.get_table(sdata, table_key).obs_names
    sources = require_inside(open_slides(sdata, _keys.Keys(table_key, image_key, library_key=library_key)))
    slides = normalized.on_normalized_images(sdata, sources)
    # Tiles are measured in spacings, so the size of a pixel does not matter.
    slides = [replace(slide, um_per_px=slide.um_per_px or 1.0) for slide in slides]
    if spots is None:
        refuse_if(n < 1, f"n must be at least 1 spot of each slide, got {n}.")
        chosen = [_draw(replace(one, tissue=masks.find_mask(sdata, one.image)), n, seed) for one in sources]
    else:
        chosen = _named(slides, names, [spots] if isinstance(spots, str) else list(spots))
    shown = [(slide, rows) for slide, rows in zip(slides, chosen, strict=True) if len(rows)]
    lengths = [len(rows) for _, rows in shown]
    axes = make_axes(ax, in_rows(lengths), "tiles, slide by slide", figsize=(4.2 * max(lengths), 2.4 * len(lengths)))
    network = Multiscale()
    remaining = iter(axes)
    for slide, rows in shown:
        (pixels,) = read_views(slide, slide.xy[rows], network.views)
        for tile, row in zip(pixels, slide.rows[rows], strict=True):
            axis = next(remaining)
            _draw_tile(axis, tile.transpose(1, 2, 0), network, slide.radius_px / slide.spacing_px)
            axis.set_title(f"{slide.name}: {names[row]}", fontsize="small")
    return axes


def _draw(slide: Slide, n: int, seed: int) -> np.ndarray:
    """A few spots of a slide, by their positions in it, in order; of those with tissue where there is a mask."""
    spots = np.arange(len(slide))
    if slide.tissue is not None:
        on_tissue = np.flatnonzero(slide.tissue_fraction() > 0)
        spots = on_tissue if len(on_tissue) else spots
    return np.sort(np.random.default_rng(seed).choice(spots, min(n, len(spots)), replace=False))


def _named(slides: list[Slide], names: Sequence[str], spots: list[str]) -> list[np.ndarray]:
    """The spots of each slide with these names, by their positions in it."""
    wanted = np.asarray(spots, dtype=str)
    positions = [np.flatnonzero(np.isin(np.asarray(names, dtype=str)[slide.rows], wanted)) for slide in slides]
    known = {names[row] for slide, rows in zip(slides, positions, strict=True) for row in slide.rows[rows]}
    if missing := [spot for spot in spots if spot not in known]:
        msg = f"spots {missing} are not in the table; its {len(names)} spots are called {list(names[:3])} and so on."
        raise KeyError(msg)
    refuse_if(not spots, "spots is empty; name at least one, or leave it out.")
    return positions


def _draw_tile(axis: Axes, tile: np.ndarray, network: Multiscale, radius: float) -> None:
    """Draw a tile (y, x, 3) with the outlines of its spot and subtiles, and beside it the subtiles pulled apart."""
    from matplotlib.patches import Circle, Rectangle
    from matplotlib.patheffects import withStroke

    axis.imshow(tile, extent=(0, network.extent, network.extent, 0), interpolation="nearest", origin="upper")
    px, size = network.subtile_px, network.extent * network.subtile_px / network.tile_px
    starts = [i * ((network.tile_px - px) // 2) for i in range(3)]
    for i, row in enumerate(starts):
        for j, column in enumerate(starts):
            x, y = (start * network.extent / network.tile_px for start in (column, row))
            apart = network.extent + 4 * GAP + j * (size + GAP), (i - 1) * GAP + y
            extent = (apart[0], apart[0] + size, apart[1] + size, apart[1])
            axis.imshow(tile[row : row + px, column : column + px], extent=extent, interpolation="nearest")
            centre = (i, j) == (1, 1)
            colour, width = (CENTRE, 2.5) if centre else (OUTLINE, 0.8)
            for corner in ((x, y), apart):
                outline = Rectangle(corner, size, size, facecolor="none", edgecolor=colour, linewidth=width)
                outline.set_zorder(3 + centre)
                axis.add_patch(outline)
    spot = Circle((network.extent / 2,) * 2, radius, facecolor="none", edgecolor=SPOT, linestyle=(0, (3, 2)))
    spot.set(linewidth=1.2, zorder=5, path_effects=[withStroke(linewidth=2.4, foreground="white")])
    axis.add_patch(spot)
    axis.set(xlim=(-GAP, 2 * network.extent + 7 * GAP), ylim=(network.extent + 2 * GAP, -2 * GAP), aspect="equal")
    axis.set(xticks=[], yticks=[], frame_on=False)
