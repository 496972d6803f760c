"""Where spots lie, whether that fits the tissue, and what is done and said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from h2e._sdata import expression, provenance, rollback
from h2e._sdata import keys as _keys
from h2e._slide.orientation import AS_THEY_ARE, CLEAR, ORIENTATIONS, Orientation, orientation, score_here
from h2e._slide.orientation import MIN_LEAD as FITS_BETTER
from h2e._slide.registration import Placement, place, rotation
from h2e._slide.slide import Slide, by_region
from h2e._warnings import log, warn

if TYPE_CHECKING:
    from spatialdata import SpatialData

FAR_ENOUGH = 0.5
"""Spacings; nothing is moved for less."""

MIN_SCORE, MIN_GAIN, MIN_LEAD = 0.65, 0.02, 0.1
"""Evidence without which nothing is moved. Ten whole real slides have a score of 0.79 and a lead of 0.16 and more; a
crop of one 0.61 and 0.08."""

BESIDE = 1.0
"""Spacings from which on spots beside the tissue are warned of."""

FEW_COUNTS = 0.1
"""Share of the median count under which a spot is no evidence for tissue."""


def move_spots(
    sdata: SpatialData, table: AnnData, slides: Sequence[Slide], *, reorient: bool = False, **limits: float
) -> tuple[dict[str, dict[str, Any]], list[Slide]]:
    """Move the spots of each region where the evidence says; returns the evidence by region and the slides after that.

    Corrections of earlier calls must have been removed, and the slides know their tissue.
    """
    report: dict[str, dict[str, Any]] = {}
    pixels = {}
    for region, slide in by_region(slides).items():
        report[region], pixels[region] = estimate(table, slide, reorient=reorient, **limits)
        if report[region]["moved"]:
            rollback.apply_correction(sdata, region, report[region]["matrix"])
        log.info("region %r: %s", region, report[region]["reason"])
    provenance.replace_provenance(table, _keys.REALIGN, report)
    moved = {region for region, facts in report.items() if facts["moved"]}
    return report, [_moved(slide, pixels[slide.region]) if slide.region in moved else slide for slide in slides]


def placement_of(sdata: SpatialData, table: AnnData, region: str, slide: Slide) -> dict[str, Any]:
    """What was done about the place of the spots of a region or, if nothing was, what ``move_spots`` would do."""
    done = provenance.get_provenance(table, _keys.REALIGN).get(region)
    # What was not moved may lie elsewhere since.
    if done is not None and done["moved"] and rollback.is_in_place(sdata, region, done):
        return dict(done)
    facts, _ = estimate(table, slide)
    if facts["moved"]:
        facts["moved"] = False
        facts["reason"] = f"{facts['shift']:.2f} spacings beside the tissue: not moved, realign=True was not asked for"
    return facts


def warn_of_misplaced(placements: Mapping[str, Mapping[str, Any]]) -> None:
    """Say aloud, once for all regions, which spots fit the tissue better elsewhere, and how to put them there."""
    turned, beside = [], []
    for region, facts in placements.items():
        scores = f"correlation {facts.get('score_before', np.nan):.2f} → {facts.get('score', np.nan):.2f}"
        if facts["moved"] or not facts.get("misplaced"):
            continue
        if facts["orientation"] in ORIENTATIONS.keys() - {AS_THEY_ARE}:
            turned.append(f"{region!r} {facts['orientation']} ({scores})")
        elif facts["shift"] >= BESIDE:
            beside.append(f"{region!r} by {facts['shift']:.1f} spacings ({scores})")
    if turned:
        msg = f"spots fit the tissue better in another orientation: {', '.join(turned)}. Are rows taken for columns, "
        msg += "or the image another's? h2e.pp.realign_spots(sdata, reorient=True) turns the spots; see h2e.pl.tissue."
        warn(msg)
    if beside:
        msg = f"spots lie beside the tissue: {', '.join(beside)}. h2e.pp.realign_spots(sdata, max_shift=…) moves them "
        msg += "back; look at h2e.pl.tissue before and after."
        warn(msg)


def check_placed(table: AnnData, slides: Sequence[Slide]) -> None:
    """Warn of spots that fit the tissue better elsewhere; where they fit well as they are, no more is looked for."""
    doubtful = {}
    for region, slide in by_region(slides).items():
        (mask, scale), xy = slide.require_tissue(), _evident(table, slide)
        if len(xy) > 1 and score_here(mask, scale, xy, slide.spacing_px) < CLEAR:
            doubtful[region], _ = estimate(table, slide)
            # Nothing is moved here, whatever would be.
            doubtful[region]["moved"] = False
    warn_of_misplaced(doubtful)


def estimate(
    table: AnnData, slide: Slide, *, reorient: bool = False, max_shift: float = 3.0, **limits: float
) -> tuple[dict[str, Any], np.ndarray]:
    """Where the spots of a region lie best, whether the evidence would move them, and the move in pixels, 3 × 3."""
    xy, (mask, scale) = _evident(table, slide), slide.require_tissue()
    spacing, first = slide.spacing_px, np.eye(3)
    fits = orientation(mask, scale, xy, spacing)
    if reorient and fits.verdict == "other orientation":
        first = _about_middle(np.array(ORIENTATIONS[fits.name], float), xy.mean(axis=0), np.array(fits.shift))
        xy = xy @ first[:2, :2].T + first[:2, 2]
    placement = place(mask, scale, xy, spacing, max_shift=max_shift, **limits)
    turned = placement.zoom * rotation(placement.rotation_deg)
    in_pixels = _about_middle(turned, xy.mean(axis=0), np.array(placement.shift) * spacing) @ first
    correction = np.linalg.solve(slide.to_px, in_pixels @ slide.to_px)
    facts = _describe(placement, spacing, max_shift, correction)
    _describe_orientation(facts, fits, spacing, reoriented=not np.array_equal(first, np.eye(3)))
    return facts, in_pixels


def _moved(slide: Slide, matrix: np.ndarray) -> Slide:
    """A slide whose spots were moved by a matrix in pixels."""
    return replace(slide, xy=slide.xy @ matrix[:2, :2].T + matrix[:2, 2], to_px=matrix @ slide.to_px)


def _evident(table: AnnData, slide: Slide) -> np.ndarray:
    """Positions of the spots that ought to lie on tissue, (n, 2): those not said to lie beside it, with counts."""
    counted = with_counts(table, slide.rows, FEW_COUNTS)
    present = slide.in_tissue if counted is None else slide.in_tissue & counted
    return slide.xy[present] if present.any() else slide.xy


def with_counts(table: AnnData, rows: np.ndarray, share: float) -> np.ndarray | None:
    """Which of some rows have more than a share of the median count, (n,); ``None`` where there are no amounts."""
    if table.X is not None and len(expression.genes_of(table)):
        counts = np.asarray(expression.gene_values(table[rows], None)[0].sum(axis=1), dtype=float).ravel()
        if (np.isfinite(counts) & (counts >= 0)).all():
            return (counts > 0) & (counts >= share * np.median(counts))
    return None


def _about_middle(linear: np.ndarray, centre: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """3 × 3 matrix that turns about a centre, and then shifts."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre - linear @ centre + shift
    return matrix


def _describe_orientation(facts: dict[str, Any], fits: Orientation, spacing: float, *, reoriented: bool) -> None:
    """Add to the facts of a placement whether the spots are turned, mirrored, or farther away than was looked for."""
    facts["orientation"] = fits.verdict if fits.verdict == "cannot be told" else fits.name
    # Up to a spacing away, a few spots are well placed at many places.
    facts["misplaced"] = facts["moved"] and facts["score"] - fits.score_here >= FITS_BETTER
    if reoriented:
        facts["moved"] = True
        facts["reason"] = f"{fits.name}: correlation {fits.score_here:.2f} → {facts['score']:.2f}"
    elif fits.verdict == "other orientation":
        facts |= {"moved": False, "misplaced": True, "score_before": fits.score_here, "score": fits.score}
        facts["reason"] = f"spots fit the tissue better {fits.name} ({fits.score_here:.2f} → {fits.score:.2f})"
    elif fits.verdict == "shifted" and not facts["moved"] and (far := float(np.hypot(*fits.shift)) / spacing) >= BESIDE:
        facts |= {"shift": far, "misplaced": True, "score_before": fits.score_here, "score": fits.score}
        facts["reason"] = f"not moved: {far:.1f} spacings beside the tissue, farther than was looked for"


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
    facts = {"shift_x_px": best.shift[0] * spacing, "shift_y_px": best.shift[1] * spacing, "shift": shift}
    facts |= {"rotation_deg": best.rotation_deg, "zoom": best.zoom, "score_before": best.score_before}
    facts |= {"score": best.score, "gain": gain, "lead": lead}
    return facts | {"moved": moved, "reason": reason, "matrix": correction}
