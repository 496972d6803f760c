"""Move misplaced spots back onto the tissue, by a transformation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image
from h2e._sdata.masks import tissue_of
from h2e._sdata.pairing import paired_image, to_pixels
from h2e._sdata.placement import apply_correction, remove_correction
from h2e._sdata.provenance import replace_provenance
from h2e._sdata.rollback import all_or_nothing
from h2e._sdata.table import centres_of, get_table, region_keys
from h2e._slide.lattice import lattice
from h2e._slide.registration import Placement, place, rotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData

log = logging.getLogger(__name__)

FAR_ENOUGH = 0.5  # spacings; nothing is moved for less
MIN_SCORE, MIN_GAIN, MIN_LEAD = (
    0.65,
    0.02,
    0.1,
)  # ten whole real slides: 0.79 and more, –, 0.16 and more; a crop of one: 0.61, –, 0.08
FEW_COUNTS = 0.1  # of the median: such a spot is no evidence for tissue


def realign_spots(
    sdata: SpatialData,
    *,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    tissue_mask_key: str | None = None,
    max_shift: float = 3.0,
    max_rotation_deg: float = 0.0,
    max_zoom: float = 0.0,
    undo: bool = False,
) -> None:
    """Put the spots of each slide where the tissue is, if they are not.

    Spots outline the tissue: the best placement is that where "under spots" and "tissue" correlate best, over the
    spots and 1.5 spacings around them. A spot with less than a tenth of the median count does not count as a spot.
    Nothing is moved for less than half a spacing, nor on weak evidence: if the correlation stays under 0.65, gains
    less than 0.02, or if a placement more than a spacing away is within 0.1 of the best one (spots that cover
    the whole image, or a whole array of which the tissue is a part, carry no evidence).

    Coordinates are not touched: the correction is a transformation before those that the shapes have, in all their
    coordinate systems. ``realign_spots(sdata, undo=True)`` takes it away again. A second call starts from where
    the spots were at first.

    Parameters
    ----------
    sdata
        Slides with spots. Only spots under tissue (and few others) should be in the table.
    image_key
        Image that the spots lie on, or a mapping from region to image.
    table_key
        Table of the spots.
    tissue_mask_key
        Tissue mask. By default that of :func:`detect_tissue`; without one it is computed, and not stored.
    max_shift
        Largest shift, in spot spacings. Twice this would not be found.
    max_rotation_deg
        Largest rotation to try, in degrees; 0 tries none.
    max_zoom
        Largest stretch to try, 0.03 for 3 %; 0 tries none.
    undo
        Take away what an earlier call did, and do no more.

    Returns
    -------
    ``None``. Writes, for each region:

    ``sdata.shapes[region]`` : transformations
        The correction, if there is one.
    ``table.uns["h2e"]["realign"][region]`` : ``dict``
        ``shift_x_px``, ``shift_y_px`` (pixels of the image), ``shift`` (spacings), ``rotation_deg``, ``zoom``,
        ``score_before``, ``score``, ``gain``, ``lead`` (over the best placement elsewhere: small is ambiguous),
        ``moved`` and ``reason``; ``matrix`` is the correction in the coordinates of the shapes.

    Raises
    ------
    KeyError
        An image, a mask or the table is not there.
    ValueError
        Images cannot be paired with regions, or the table names instances that the shapes do not have.

    Examples
    --------
    >>> import h2e.datasets, h2e.pp
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.realign_spots(sdata)
    >>> [region for region, what in sdata["table"].uns["h2e"]["realign"].items() if what["moved"]]
    ['toy_A2']
    """
    table = get_table(sdata, table_key)
    region_key, _ = region_keys(table)
    regions = sorted(set(table.obs[region_key].astype(str)))
    images = {region: paired_image(sdata, region, image_key) for region in regions}
    limits = {"max_shift": max_shift, "max_rotation_deg": max_rotation_deg, "max_zoom": max_zoom}
    _check_limits(limits)
    with all_or_nothing(sdata, table_key):
        for region in regions:
            remove_correction(sdata, table, region)
        if undo:
            table.uns.get(_keys.PREDICTION, {}).pop(_keys.REALIGN, None)
            return
        report = {r: estimate(sdata, table, r, images[r], tissue_mask_key, **limits) for r in regions}
        for region, found in report.items():
            if found["moved"]:
                apply_correction(sdata, region, found["matrix"])
            log.info("region %r: %s", region, found["reason"])
        replace_provenance(table, _keys.REALIGN, report)


def estimate(
    sdata: SpatialData,
    table: AnnData,
    region: str,
    image_key: str,
    tissue_mask_key: str | None = None,
    *,
    max_shift: float = 3.0,
    **limits: float,
) -> dict[str, object]:
    """Where the spots of a region lie best, and whether the evidence would move them; nothing is moved."""
    rows = np.flatnonzero(table.obs[region_keys(table)[0]].astype(str) == region)
    image = open_image(sdata, image_key)
    mask = tissue_of(sdata, image, tissue_mask_key)
    to_px = to_pixels(sdata, region, image.key)
    every, index = centres_of(sdata.shapes[region], region, table.obs[region_keys(table)[1]].to_numpy()[rows], to_px)
    xy, spacing = every[index], lattice(every)[0]
    present = _present(table, rows)
    found = place(*mask, xy[present], spacing, max_shift=max_shift, **limits)
    correction = np.linalg.solve(to_px, _matrix(found, xy[present].mean(axis=0), spacing) @ to_px)
    return _describe(found, spacing, max_shift, correction)


def _check_limits(limits: Mapping[str, float]) -> None:
    """Refuse limits of the search that are none."""
    for name, value in limits.items():
        if not (value >= 0 and np.isfinite(value)) or (name == "max_zoom" and value >= 1):
            msg = f"{name}={value!r} is no limit; it must be 0 or more{', 0.03 for 3 %' if name == 'max_zoom' else ''}."
            raise ValueError(msg)


def _present(table: AnnData, rows: np.ndarray) -> np.ndarray:
    """Which spots have counts enough to be on tissue; all, if there is no expression, or values that are no amounts."""
    if table.X is None or table.n_vars == 0:
        return np.ones(len(rows), bool)
    counts = np.asarray(table.X[rows].sum(axis=1), dtype=float).ravel()
    if not (np.isfinite(counts) & (counts >= 0)).all():
        return np.ones(len(rows), bool)
    return counts >= FEW_COUNTS * np.median(counts)


def _matrix(found: Placement, centre: np.ndarray, spacing: float) -> np.ndarray:
    """3 × 3 matrix of a placement, in pixels."""
    matrix = np.eye(3)
    matrix[:2, :2] = found.zoom * rotation(found.rotation_deg)
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre + np.array(found.shift) * spacing
    return matrix


def _describe(found: Placement, spacing: float, max_shift: float, correction: np.ndarray) -> dict[str, object]:
    """What was found, and whether it is far and sure enough to move the spots."""
    shift = float(np.hypot(*found.shift))
    gain, lead = found.score - found.score_before, found.score - found.runner_up
    moved = False
    if found.score < MIN_SCORE:
        reason = f"not moved: spots and tissue agree too little anywhere (correlation {found.score:.2f})"
    elif lead < MIN_LEAD:
        reason = f"not moved: a placement elsewhere is nearly as good ({found.runner_up:.2f}, best {found.score:.2f})"
    elif shift > max_shift - 1 / 8:
        reason = f"not moved: the best shift is at the end of the search ({shift:.2f} of {max_shift:g} spacings)"
    elif shift < FAR_ENOUGH and not (found.rotation_deg or found.zoom != 1):
        reason = f"in place: the best shift is {shift:.2f} spacings"
    elif gain < MIN_GAIN:
        reason = f"not moved: {shift:.2f} spacings would gain too little ({gain:.3f})"
    else:
        moved = True
        reason = f"moved by {shift:.2f} spacings: correlation {found.score_before:.2f} → {found.score:.2f}"
    return {
        "shift_x_px": found.shift[0] * spacing,
        "shift_y_px": found.shift[1] * spacing,
        "shift": shift,
        "rotation_deg": float(found.rotation_deg),
        "zoom": float(found.zoom),
        "score_before": found.score_before,
        "score": found.score,
        "gain": gain,
        "lead": lead,
        "moved": moved,
        "reason": reason,
        "matrix": correction,
    }
