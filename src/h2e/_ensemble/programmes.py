"""Programmes: what many genes do together, which is known better than what one gene does at one spot."""

from __future__ import annotations

import numpy as np

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
    from sklearn.decomposition import PCA

    n = min(n, len(y) // MIN_SPOTS)
    if genes is None or n < 1:
        return y
    x = genes[:, _most_variable(genes, slides)]
    z = center_by_slide(x if isinstance(x, np.ndarray) else x.toarray(), slides)
    # Sums of squares of large constants leave more than nothing.
    z = z[:, z.std(axis=0) > 1e-6]
    if not z.shape[1]:
        return y
    scores = PCA(min(n, z.shape[1]), svd_solver="covariance_eigh").fit_transform(z / z.std(axis=0))
    length = np.linalg.norm(scores, axis=0)
    varies = length > 1e-6 * length.max()
    basis = scores[:, varies] / length[varies]
    deviation = center_by_slide(y, slides)
    return (y - (deviation - basis @ (basis.T @ deviation)) / 2).astype(np.float32)


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
