"""Slides that differ from all that an ensemble was trained on, in figures of their image or in its features."""

from __future__ import annotations

import numpy as np
import pandas as pd

from h2e._ensemble.ensemble import Ensemble
from h2e._sdata.cohort import Cohort
from h2e._slide.quality import TOLERANCES
from h2e._warnings import warn

NOVEL, NOVEL_TO_TWO = 2.0, 3.5
"""Median novelty of a slide that is too far; two groups have only one distance between them, and one has none, which may
be small. Slides of a donor left out have -0.5 to 0.6 (her2st, mob), mouse brain predicted by breast tumours 1.6, a
synthetic slide with red and blue exchanged 2.3, noise 3.8; sections by a single one of her2st -0.1 to 3.1."""


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
