"""Programmes: what many genes do together, which is known better than what one gene does at one spot."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from h2e._statistics import Matrix, center_by_slide

N_GENES = 1000
"""Genes that programmes are found in: those that vary most within slides."""

MIN_FRAC = 0.1
"""Share of the spots in which such a gene is detected."""

MIN_SPOTS = 10
"""Of each programme."""


def denoise_targets(y: np.ndarray, genes: Matrix | None, slides: np.ndarray, n: int) -> np.ndarray:
    """Average training values with their projection on the leading principal components of expression within slides.

    The projection of a gene keeps what it has in common with others at the spot. Much of what is lost is noise of its
    few counts, but not all, hence the average. Slide means stay as they are. A programme needs ten spots.

    Parameters
    ----------
    y
        (n, targets), values to train on.
    genes
        (n, all genes), log-normalized expression of the same spots; ``None`` changes nothing.
    slides
        (n,) names.
    n
        Number of components; 0 changes nothing.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> programme = rng.normal(size=(200, 1))
    >>> genes = 5 + programme + rng.normal(size=(200, 50))
    >>> y = denoise_targets(genes, genes, np.repeat("A", 200), 1)
    >>> bool(np.square(y - 5 - programme).mean() < 0.4 * np.square(genes - 5 - programme).mean())
    True
    """
    n = min(n, len(y) // MIN_SPOTS)
    if genes is None or n < 1:
        return y
    x = genes[:, _most_variable(genes, slides)]
    z = center_by_slide(x if isinstance(x, np.ndarray) else x.toarray(), slides)
    # Sums of squares of large constants leave more than nothing.
    z = z[:, z.std(axis=0) > 1e-6]
    if not z.shape[1]:
        return y
    basis = _unit_scores(z / z.std(axis=0), min(n, z.shape[1]))
    deviation = center_by_slide(y, slides)
    return (y - (deviation - basis @ (basis.T @ deviation)) / 2).astype(np.float32)


def _unit_scores(z: np.ndarray, n: int) -> np.ndarray:
    """Scores of the rows of a centred matrix on the ``n`` leading principal components that vary, of length 1 each."""
    # The smaller of spots × spots and genes × genes is decomposed: the one gives scores, the other loadings.
    tall = z if len(z) > z.shape[1] else z.T
    few = tall.shape[1]
    vectors = eigh(tall.T @ tall, subset_by_index=(few - n, few - 1))[1]
    products = tall @ vectors
    length = np.linalg.norm(products, axis=0)
    varies = length > 1e-6 * length.max()
    return products[:, varies] / length[varies] if tall is z else vectors[:, varies]


def _most_variable(genes: Matrix, slides: np.ndarray) -> np.ndarray:
    """Columns of the genes that vary most within slides, among those that are detected often enough."""
    squares = genes * genes if isinstance(genes, np.ndarray) else genes.multiply(genes)
    variance = np.asarray(squares.sum(axis=0), np.float64).ravel()
    for slide in np.unique(slides):
        rows = slides == slide
        variance -= rows.sum() * np.asarray(genes[rows].mean(axis=0), np.float64).ravel() ** 2
    detected = np.asarray((genes > 0).sum(axis=0)).ravel() >= MIN_FRAC * len(slides)
    variance = np.where(detected, variance / len(slides), 0)
    most = np.argsort(-variance, kind="stable")[:N_GENES]
    return np.sort(most[variance[most] > 1e-6])
