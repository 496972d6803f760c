"""Expression without the depth of the spots: thinned to one depth on each slide, and what depth does not explain."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from h2e._statistics import Matrix, log_normalize, unit_deviations
from h2e.metrics._depth import common_depth

N_DRAWS = 10


def thin(counts: Matrix, slides: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
    """Log-normalize counts that are thinned to one depth on each slide, and say which spots are deep enough for it.

    The depth is that of ``pearson_equal_depth``. Values are means of ten thinnings; spots that are too shallow (a tenth
    of them) stay as measured.
    """
    counts, rng = sparse.csr_array(counts), np.random.default_rng(0)
    thinned, totals = log_normalize(counts), np.asarray(counts.sum(axis=1)).ravel().astype(np.int64)
    deep = np.zeros(len(totals), bool)
    for slide in np.unique(slides):
        rows = np.flatnonzero(slides == slide)
        enough, depth = common_depth(totals[rows])
        deep[rows[enough]] = True
        for i in rows[enough]:
            of_spot = slice(*counts.indptr[i : i + 2])
            molecules = counts.data[of_spot].astype(np.int64)
            drawn = rng.multivariate_hypergeometric(molecules, depth, size=N_DRAWS)
            thinned.data[of_spot] = np.log1p(drawn * (1e4 / depth)).mean(axis=0)
    return thinned.astype(np.float32), deep


def beyond_depth(y: np.ndarray, totals: np.ndarray, slides: np.ndarray) -> np.ndarray:
    """Regress the logarithm of the totals out of each target within each slide, whose mean stays."""
    rest = y.copy()
    for slide in np.unique(slides):
        rows = slides == slide
        depth = unit_deviations(np.log1p(totals[rows])[:, None])
        rest[rows] -= depth @ (depth.T @ y[rows])
    return rest
