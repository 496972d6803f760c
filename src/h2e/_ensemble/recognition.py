"""Recognize slides and spots that an ensemble was trained on, and warn of slides that look like none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from h2e._ensemble.ensemble import Ensemble
from h2e._sdata.cohort import Cohort
from h2e._sdata.expression import values_of
from h2e._sdata.targets import AS_IN_OBS, measured
from h2e._slide.image import same_image
from h2e._slide.quality import TOLERANCES
from h2e._slide.slide import Slide
from h2e._warnings import log, warn

NEW, SAME_SLIDE = -1, -2
"""In place of the position of a training spot: the slide was not trained on; it was, but this spot was not."""

NEAR = 0.1
"""Spacings within which a spot of a slide that was trained on is the same spot."""

NOVEL, NOVEL_TO_TWO = 2.0, 3.5
"""Median novelty of a slide that is too far; two groups have only one distance between them, and one has none, which may
be small. Slides of a donor left out have -0.5 to 0.6 (her2st, mob), mouse brain predicted by breast tumours 1.6, a
synthetic slide with red and blue exchanged 2.3, noise 3.8; sections by a single one of her2st -0.1 to 3.1."""


def training_rows(cohort: Cohort, ensemble: Ensemble) -> np.ndarray:
    """For each spot of a cohort the training spot that it is, ``NEW`` or ``SAME_SLIDE``.

    A slide is recognized by the colours of its image, whatever its name and its resolution, and a spot on it by its
    place, whatever its name: instances are often plain numbers, which those of a grid are, too. A part of a slide
    shows other colours; its spots are recognized by their names and by what was measured at them.
    """
    from scipy.spatial import KDTree

    positions = np.full(len(cohort.rows), NEW)
    if "private" in ensemble.settings:
        log.warning("slides that this ensemble was trained on are not recognized, it was saved with private=True")
        return positions
    for slide, colours in zip(cohort.slides, cohort.thumbnails, strict=True):
        of_slide = np.flatnonzero(cohort.names == slide.name)
        mine = positions[of_slide]
        for region, known in ensemble.thumbnails.items():
            if not same_image(colours, known):
                continue
            rows = np.flatnonzero(ensemble.training.index.get_level_values("region") == region)
            xy = ensemble.training[["x", "y"]].to_numpy()[rows] * slide.image.shape[::-1]
            distance, nearest = KDTree(xy).query(slide.xy)
            same = distance * slide.um_per_px < NEAR * ensemble.spacing_um
            # Regions may share an image.
            mine = np.where(same, rows[nearest], np.where(mine == NEW, SAME_SLIDE, mine))
            log.info("slide %r is training slide %r: %d spots trained on", slide.name, region, same.sum())
        if (mine == NEW).all():
            mine = _rows_by_record(cohort, of_slide, ensemble)
        positions[of_slide] = mine
        if (mine == SAME_SLIDE).any():
            what = "slide %r was trained on: nothing is predicted for %d spots, where none was; with in_sample=True "
            what += "it is, but never score that"
            log.warning(what, slide.name, (mine == SAME_SLIDE).sum())
    return positions


def _rows_by_record(cohort: Cohort, spots: np.ndarray, ensemble: Ensemble) -> np.ndarray:
    """The same for spots of a slide whose image is not known: by region, instance, and measured values.

    Only values that one training spot has, and no other, are evidence: spots without counts are alike everywhere. Where
    genes were left out, the logarithms are others, but not the shares of the targets.
    """
    known = ensemble.training.index
    trained = known.get_indexer(cohort.identity[spots]) if known.is_unique else np.full(len(spots), -1)
    named = np.flatnonzero(trained >= 0)
    values = _measured(cohort, spots[named], ensemble) if len(named) else None
    positions = np.full(len(spots), NEW)
    if values is None:
        return positions
    setting = ensemble.settings.get
    counted = not (setting("obsm") or setting("log_normalized") or setting("unit") == AS_IN_OBS)
    for look in (np.asarray, _shares) if counted else (np.asarray,):
        truth = look(ensemble.truth)
        same = np.abs(look(values) - truth[trained[named]]).max(axis=1) < 1e-3
        evidence = _only_ones(truth)[trained[named]]
        if evidence.any() and same[evidence].mean() >= 0.9:
            positions[:] = SAME_SLIDE
            positions[named[same]] = trained[named[same]]
            log.info("%d spots are training spots by their names and by what was measured", same.sum())
            break
    return positions


def _shares(log_normalized: np.ndarray) -> np.ndarray:
    """Shares of the targets in the counts of a spot, which do not depend on the genes beside them."""
    counts = np.expm1(log_normalized.astype(float))
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)


def _only_ones(values: np.ndarray) -> np.ndarray:
    """Rows that no other row equals, and that are not zero."""
    _, which, n = np.unique(values.round(3), axis=0, return_inverse=True, return_counts=True)
    return (n[which.ravel()] == 1) & values.any(axis=1)


def _measured(cohort: Cohort, spots: np.ndarray, ensemble: Ensemble) -> np.ndarray | None:
    """The targets as they were measured for training, or None if the table has not got them all."""
    setting = ensemble.settings.get
    obsm, layer, obs = setting("obsm") or None, setting("layer") or None, setting("unit") == AS_IN_OBS
    of: dict[str, Any] = {"obsm": obsm, "layer": layer, "log_normalized": bool(setting("log_normalized"))}
    if cohort.table.isbacked and not (obs or obsm or layer):
        # Refused, and not taken for values that are not there.
        values_of(cohort.table, layer)
    try:
        table, targets = cohort.table[cohort.rows[spots]], list(ensemble.targets)
        return measured(table, targets, obs=obs, allow_missing=True, **of).to_numpy(float)
    except (KeyError, TypeError, ValueError):
        # No such target, layer or counts: not what was trained on.
        return None


def positions_on_image(slide: Slide) -> np.ndarray:
    """Where the spots are, (n, 2) as shares of the image's width and height."""
    return slide.xy / slide.image.shape[::-1]


def warn_of_outliers(cohort: Cohort, ensemble: Ensemble, novelty: np.ndarray) -> None:
    """Warn, once, of slides that lie outside of what the training slides showed; ``novelty`` is NaN at known spots."""
    novel = NOVEL if ensemble.n_groups > 2 else NOVEL_TO_TWO
    trained, odd = pd.DataFrame(list(ensemble.quality.values())), []
    for slide, median in pd.Series(novelty).groupby(cohort.names, sort=False).median().dropna().items():
        known, words = cohort.quality[str(slide)].known(), []
        for name in trained.columns.intersection(list(known)):
            low, high = trained[name].min(), trained[name].max()
            if not low - TOLERANCES[name] <= known[name] <= high + TOLERANCES[name]:
                words.append(f"{name} {known[name]:.3g} (training: {low:.3g} to {high:.3g})")
        words += [f"median novelty {median:.1f} (0 is typical)"] if median > novel else []
        odd += [f"{slide}: {', '.join(words)}"] if words else []
    if odd:
        msg = "these slides look like none that the ensemble was trained on; do not trust what is predicted on them "
        warn(f"{msg}before you have looked at them: {'; '.join(odd)}.")
