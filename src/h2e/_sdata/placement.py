"""Where spots lie, and the correction of that: a transformation before those that their shapes have."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import gene_values, genes_of
from h2e._sdata.provenance import get_provenance, replace_provenance, set_provenance
from h2e._slide.registration import Placement, place, rotation
from h2e._slide.slide import Slide, by_region

if TYPE_CHECKING:
    from spatialdata import SpatialData

log = logging.getLogger(__name__)

FAR_ENOUGH = 0.5
"""Spacings; nothing is moved for less."""

MIN_SCORE, MIN_GAIN, MIN_LEAD = 0.65, 0.02, 0.1
"""Evidence without which nothing is moved. Ten whole real slides have a score of 0.79 and a lead of 0.16 and more; a
crop of one 0.61 and 0.08."""

FEW_COUNTS = 0.1
"""Share of the median count under which a spot is no evidence for tissue."""


def move_spots(
    sdata: SpatialData, table: AnnData, slides: Sequence[Slide], **limits: float
) -> tuple[dict[str, dict[str, Any]], list[Slide]]:
    """Move the spots of each region where the evidence says; returns the evidence by region and the slides after that.

    Corrections of earlier calls must have been removed, and the slides know their tissue.
    """
    report: dict[str, dict[str, Any]] = {}
    pixels = {}
    for region, slide in by_region(slides).items():
        report[region], pixels[region] = estimate(table, slide, **limits)
        if report[region]["moved"]:
            _apply_correction(sdata, region, report[region]["matrix"])
        log.info("region %r: %s", region, report[region]["reason"])
    replace_provenance(table, _keys.REALIGN, report)
    moved = {region for region, facts in report.items() if facts["moved"]}
    return report, [_moved(slide, pixels[slide.region]) if slide.region in moved else slide for slide in slides]


def placement_of(sdata: SpatialData, table: AnnData, region: str, slide: Slide) -> dict[str, Any]:
    """What was done about the place of the spots of a region or, if nothing was, what ``move_spots`` would do."""
    done = get_provenance(table, _keys.REALIGN).get(region)
    if done is not None and (not done["moved"] or is_in_place(sdata, region, done)):
        return dict(done)
    facts, _ = estimate(table, slide)
    if facts["moved"]:
        facts["moved"] = False
        facts["reason"] = f"{facts['shift']:.2f} spacings beside the tissue: not moved, realign=True was not asked for"
    return facts


def estimate(
    table: AnnData, slide: Slide, *, max_shift: float = 3.0, **limits: float
) -> tuple[dict[str, Any], np.ndarray]:
    """Where the spots of a region lie best, whether the evidence would move them, and the move in pixels, 3 × 3."""
    xy, (mask, scale) = slide.xy[_present(table, slide.rows)], slide.require_tissue()
    placement = place(mask, scale, xy, slide.spacing_px, max_shift=max_shift, **limits)
    in_pixels = _matrix(placement, xy.mean(axis=0), slide.spacing_px)
    correction = np.linalg.solve(slide.to_px, in_pixels @ slide.to_px)
    return _describe(placement, slide.spacing_px, max_shift, correction), in_pixels


def _moved(slide: Slide, matrix: np.ndarray) -> Slide:
    """A slide whose spots were moved by a matrix in pixels."""
    return replace(slide, xy=slide.xy @ matrix[:2, :2].T + matrix[:2, 2], to_px=matrix @ slide.to_px)


def _apply_correction(sdata: SpatialData, region: str, matrix: np.ndarray) -> None:
    """Apply a matrix to the shapes before each of their transformations."""
    from spatialdata.transformations import Affine, Sequence, get_transformation, set_transformation

    first = Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
    placed = get_transformation(sdata.shapes[region], get_all=True)
    set_transformation(sdata.shapes[region], {s: Sequence([first, to]) for s, to in placed.items()}, set_all=True)


def remove_corrections(sdata: SpatialData, table: AnnData) -> None:
    """Take the corrections of earlier calls away; the transformations are then those of before, not equivalents."""
    for region, earlier in get_provenance(table, _keys.REALIGN).items():
        if region not in sdata.shapes or not earlier["moved"]:
            continue
        if is_in_place(sdata, region, earlier):
            _remove_correction(sdata, region, np.asarray(earlier["matrix"]))
            log.info("region %r: the earlier realignment was taken away", region)
        else:
            what = "region %r: the spots are on record as moved, but their transformations do not move them (stored "
            what += "without them?); the record is dropped"
            log.warning(what, region)
        set_provenance(table, _keys.REALIGN, region, {**earlier, "moved": False})


def _remove_correction(sdata: SpatialData, region: str, matrix: np.ndarray) -> None:
    """Take a matrix away that is the first thing that each transformation of the shapes does."""
    from spatialdata.transformations import Affine, Sequence, get_transformation, set_transformation

    placed = get_transformation(sdata.shapes[region], get_all=True)
    back = Affine(np.linalg.inv(matrix), input_axes=("x", "y"), output_axes=("x", "y"))
    before = {}
    for system, to in placed.items():
        ours = isinstance(to, Sequence) and len(to.transformations) == 2 and isinstance(to.transformations[0], Affine)
        before[system] = to.transformations[1] if ours else Sequence([back, to])
    set_transformation(sdata.shapes[region], before, set_all=True)


def is_in_place(sdata: SpatialData, region: str, earlier: Mapping[str, Any]) -> bool:
    """Whether the correction that was noted is the first thing that each transformation of the shapes does.

    It is not where a store holds the table, with the note, and the shapes as they were before.
    """
    from spatialdata.transformations import Affine, Sequence, get_transformation

    for to in get_transformation(sdata.shapes[region], get_all=True).values():
        while isinstance(to, Sequence):
            to = to.transformations[0]
        if not (isinstance(to, Affine) and np.allclose(to.matrix, np.asarray(earlier["matrix"]))):
            return False
    return True


def _present(table: AnnData, rows: np.ndarray) -> np.ndarray:
    """Which spots have counts enough to be on tissue; all, if there is no expression, or values that are no amounts."""
    if table.X is not None and len(genes_of(table)):
        counts = np.asarray(gene_values(table[rows], None)[0].sum(axis=1), dtype=float).ravel()
        if (np.isfinite(counts) & (counts >= 0)).all():
            return counts >= FEW_COUNTS * np.median(counts)
    return np.ones(len(rows), bool)


def _matrix(placement: Placement, centre: np.ndarray, spacing: float) -> np.ndarray:
    """3 × 3 matrix of a placement, in pixels."""
    matrix = np.eye(3)
    matrix[:2, :2] = placement.zoom * rotation(placement.rotation_deg)
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre + np.array(placement.shift) * spacing
    return matrix


def _describe(best: Placement, spacing: float, max_shift: float, correction: np.ndarray) -> dict[str, Any]:
    """The best placement, and whether it is far and sure enough to move the spots."""
    shift = float(np.hypot(*best.shift))
    gain, lead = best.score - best.score_before, best.score - best.runner_up
    moved = False
    if best.score < MIN_SCORE:
        reason = f"not moved: spots and tissue agree too little anywhere (correlation {best.score:.2f})"
    elif lead < MIN_LEAD:
        reason = f"not moved: a placement elsewhere is nearly as good ({best.runner_up:.2f}, best {best.score:.2f})"
    elif shift > max_shift - 1 / 8:
        reason = f"not moved: the best shift is at the end of the search ({shift:.2f} of {max_shift:g} spacings)"
    elif shift < FAR_ENOUGH and not (best.rotation_deg or best.zoom != 1):
        reason = f"in place: the best shift is {shift:.2f} spacings"
    elif gain < MIN_GAIN:
        reason = f"not moved: {shift:.2f} spacings would gain too little ({gain:.3f})"
    else:
        moved = True
        reason = f"moved by {shift:.2f} spacings: correlation {best.score_before:.2f} → {best.score:.2f}"
    return {
        "shift_x_px": best.shift[0] * spacing,
        "shift_y_px": best.shift[1] * spacing,
        "shift": shift,
        "rotation_deg": best.rotation_deg,
        "zoom": best.zoom,
        "score_before": best.score_before,
        "score": best.score,
        "gain": gain,
        "lead": lead,
        "moved": moved,
        "reason": reason,
        "matrix": correction,
    }
