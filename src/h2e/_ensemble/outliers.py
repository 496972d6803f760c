"""Slides that differ from all that an ensemble was trained on, in figures of their image or in its features."""

from __future__ import annotations

import numpy as np

from h2e._ensemble.ensemble import Ensemble
from h2e._sdata.cohort import Cohort
from h2e._slide.quality import TOLERANCES
from h2e._warnings import warn

NOVEL = 2.0
"""Median novelty of a slide that is too far. Slides of a donor left out have -0.5 to 0.6 (her2st, mob), mouse brain
predicted by breast tumours 1.6, a synthetic slide with red and blue exchanged 2.3, noise 3.8."""


def warn_of_outliers(cohort: Cohort, ensemble: Ensemble, novelty: np.ndarray) -> None:
    """Warn, once, of slides that lie outside of what the training slides showed; ``novelty`` is NaN at known spots."""
    odd = []
    for slide in cohort.slides:
        mine = novelty[cohort.names == slide.name]
        if np.isnan(mine).all():
            continue
        words = []
        for name, value in cohort.quality[slide.name].known().items():
            known = [figures[name] for figures in ensemble.quality.values() if name in figures]
            if known and not min(known) - TOLERANCES[name] <= value <= max(known) + TOLERANCES[name]:
                words.append(f"{name} {value:.3g} (training: {min(known):.3g} to {max(known):.3g})")
        if (median := np.nanmedian(mine)) > NOVEL:
            words.append(f"median novelty {median:.1f} (0 is typical)")
        if words:
            odd.append(f"{slide.name}: {', '.join(words)}")
    if odd:
        msg = "these slides look like none that the ensemble was trained on; do not trust what is predicted on them "
        msg += f"before you have looked at them: {'; '.join(odd)}."
        warn(msg)
