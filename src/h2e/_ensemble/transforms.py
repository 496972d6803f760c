"""What a model learns instead of log-normalized expression, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from scipy.linalg import eigh

from h2e._statistics import Matrix, center_by_slide

TransformKind = Literal["log", "standardized", "gene_rank", "spot_rank", "mixed"]
TRANSFORMS: tuple[TransformKind, ...] = get_args(TransformKind)
"""As it is; standardized within each slide; ranked within slide and target; ranked within the spot over the targets;
and as it is beside standardized within each slide: two values a target, whose two ways back are averaged."""

MIXED: tuple[TransformKind, ...] = ("standardized", "log")

N_QUANTILES = 101

ROUNDING = 1e-6
"""A standard deviation of so small a share of the mean is none."""

FEW_SPOTS = 20
"""A slide with so many spots has half the say of a large one in the level: its own mean is not worth more."""


@dataclass(frozen=True, eq=False)
class Transform:
    """The way back from what models learn to the unit of the targets, fitted on training spots.

    Ranks go back through pooled quantiles: the k-th smallest rank of training means the k-th smallest value, and
    ranks that are tied mean the average of theirs. Standardized values go back through the mean and the standard
    deviation within the slides, averaged over the slides of a group and then over groups.
    """

    kind: TransformKind
    # (q, targets), rising; for "log" and "standardized" the two rows 0 and 1; "mixed" has twice as many columns
    ranks: np.ndarray
    values: np.ndarray  # (q, targets)
    limits: np.ndarray  # (2, targets), smallest and largest value of training, which no prediction leaves

    def within(self, y: np.ndarray) -> Transform:
        """The same, whose predictions do not leave the range of ``y``: what is learned may reach further."""
        limits = np.stack([y.min(axis=0), y.max(axis=0)])
        return replace(self, limits=np.tile(limits, self.limits.shape[1] // y.shape[1]))

    def invert(self, z: np.ndarray) -> np.ndarray:
        """Predictions in the unit of the targets, ``float32``, (n, targets)."""
        if self.kind == "mixed":
            halves = [np.split(a, 2, axis=1) for a in (self.ranks, self.values, self.limits, z)]
            parts = zip(MIXED, *halves, strict=True)
            return np.mean([Transform(kind, *arrays).invert(part) for kind, *arrays, part in parts], axis=0)
        if self.kind in ("log", "standardized"):
            # A straight line.
            y = self.values[0] + z * (self.values[1] - self.values[0])
        else:
            y = np.column_stack([np.interp(z[:, t], self.ranks[:, t], self.values[:, t]) for t in range(z.shape[1])])
        return np.clip(y, *self.limits).astype(np.float32)


def fit_transform(
    kind: TransformKind, y: np.ndarray, slides: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, Transform]:
    """What the model is to learn, (n, targets), and how to come back.

    Examples
    --------
    >>> z, transform = fit_transform(
    ...     "gene_rank", np.array([[0.0], [2.0], [8.0]]), np.array(list("AAA")), np.array(list("AAA"))
    ... )
    >>> z.ravel(), transform.invert(z).ravel()
    (array([0. , 0.5, 1. ], dtype=float32), array([0., 2., 8.], dtype=float32))
    """
    if kind == "spot_rank" and y.shape[1] == 1:
        msg = "transform 'spot_rank' must have several targets to rank at a spot, got one; pass another transform."
        raise ValueError(msg)
    if kind == "mixed":
        learned, parts = zip(*(fit_transform(part, y, slides, groups) for part in MIXED), strict=True)
        arrays = (np.hstack([getattr(part, name) for part in parts]) for name in ("ranks", "values", "limits"))
        return np.hstack(learned), Transform(kind, *arrays)
    limits = np.stack([y.min(axis=0), y.max(axis=0)])
    if kind in ("log", "standardized"):
        line = np.array([[0.0], [1.0]]) * np.ones(y.shape[1])
        if kind == "log":
            return y.astype(np.float32), Transform(kind, line, line, limits)
        z, mean, std = _standardize(y, slides, groups)
        return z, Transform(kind, line, np.stack([mean, mean + std]), limits)
    z = ranks(y, axis=1) if kind == "spot_rank" else np.empty(y.shape, np.float32)
    if kind == "gene_rank":
        for slide in np.unique(slides):
            z[slides == slide] = ranks(y[slides == slide], axis=0)
    grid = np.linspace(0, 1, N_QUANTILES)
    values = [np.interp(grid, *_matched(z[:, t], y[:, t])) for t in range(y.shape[1])]
    return z, Transform(kind, np.tile(grid[:, None], y.shape[1]), np.column_stack(values), limits)


def _standardize(y: np.ndarray, slides: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values standardized within slides, and their mean and standard deviation with groups weighing about alike."""
    names, first, position, count = np.unique(slides, return_index=True, return_inverse=True, return_counts=True)
    means = np.stack([y[slides == slide].mean(axis=0, dtype=float) for slide in names])
    stds = np.stack([y[slides == slide].std(axis=0, dtype=float) for slide in names])
    # One value, written with rounding errors.
    stds[stds <= ROUNDING * np.abs(means)] = 0
    z = (y - means[position]) / np.where(stds > 0, stds, np.inf)[position]
    group, trust = groups[first], count / (count + FEW_SPOTS)
    # Slides of a group share its weight, which is that of its largest slide.
    weight = [t / trust[group == g].sum() * trust[group == g].max() for g, t in zip(group, trust, strict=True)]
    mean, std = (np.average(values, axis=0, weights=weight) for values in (means, stds))
    return z.astype(np.float32), mean, std


def _matched(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks that occur, rising, and the mean of the values at the same places in their order."""
    rising, first = np.unique(np.sort(z), return_index=True)
    counts = np.diff(np.append(first, len(z)))
    return rising, np.add.reduceat(np.sort(y).astype(np.float64), first) / counts


def ranks(y: np.ndarray, *, axis: int) -> np.ndarray:
    """Ranks scaled to [0, 1]; ties share their mean rank, zeros too, which :func:`h2e.pp.rank_transform` leaves at 0.

    Examples
    --------
    >>> ranks(np.array([[5.0, 0.0, 0.0, 9.0]]), axis=1)
    array([[0.6666667 , 0.16666667, 0.16666667, 1.        ]], dtype=float32)
    """
    from scipy.stats import rankdata

    n = y.shape[axis]
    return ((rankdata(y, axis=axis) - 1) / max(n - 1, 1)).astype(np.float32)


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
