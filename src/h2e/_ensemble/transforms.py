"""What a model learns instead of log-normalized expression, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

TRANSFORMS = ("log", "standardized", "gene_rank", "spot_rank", "mixed")
"""As it is; standardized within each slide; ranked within slide and target; ranked within the spot over the targets; and as it is
beside standardized within each slide: two values a target, whose two ways back are averaged."""

MIXED = ("standardized", "log")

N_QUANTILES = 101

ROUNDING = 1e-6
"""A standard deviation of so small a share of the mean is none."""

FEW_SPOTS = 20
"""A slide with so many spots has half the say of a large one in the level: its own mean is not worth more."""


@dataclass(frozen=True, eq=False)
class Transform:
    """A target transform fitted on training spots: what maps its predictions back to the unit of the targets.

    Ranks go back through pooled quantiles: the k-th smallest rank of training means the k-th smallest value, and
    ranks that are tied mean the average of theirs. Standardized values go back through the mean and the spread within
    the slides, averaged over the slides of a group and then over groups.
    """

    kind: str
    ranks: np.ndarray  # (q, targets), rising; for "log" and "standardized" the two rows 0 and 1; "mixed": 2 · targets
    values: np.ndarray  # (q, targets)
    limits: np.ndarray  # (2, targets), smallest and largest value of training, which no prediction leaves

    def within(self, y: np.ndarray) -> Transform:
        """The same, whose predictions do not leave the range of ``y``: what is learned may reach further."""
        limits = np.stack([y.min(axis=0), y.max(axis=0)])
        return replace(self, limits=np.tile(limits, self.limits.shape[1] // y.shape[1]))

    def invert(self, z: np.ndarray) -> np.ndarray:
        """Predictions in the unit of the targets, ``float32``, (n, targets)."""
        if self.kind == "mixed":
            parts = zip(
                MIXED, *(np.split(a, 2, axis=1) for a in (self.ranks, self.values, self.limits, z)), strict=True
            )
            return np.mean([Transform(kind, *arrays).invert(part) for kind, *arrays, part in parts], axis=0)
        if self.kind in ("log", "standardized"):  # a straight line
            y = self.values[0] + z * (self.values[1] - self.values[0])
        else:
            y = np.column_stack([np.interp(z[:, t], self.ranks[:, t], self.values[:, t]) for t in range(z.shape[1])])
        return np.clip(y, *self.limits).astype(np.float32)


def fit_transform(kind: str, y: np.ndarray, slides: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, Transform]:
    """What the model is to learn, (n, targets), and how to come back.

    Examples
    --------
    >>> z, transform = fit_transform(
    ...     "gene_rank", np.array([[0.0], [2.0], [8.0]]), np.array(list("AAA")), np.array(list("AAA"))
    ... )
    >>> z.ravel(), transform.invert(z).ravel()
    (array([0. , 0.5, 1. ], dtype=float32), array([0., 2., 8.], dtype=float32))
    """
    if kind not in TRANSFORMS:
        msg = f"transform {kind!r} is not one of {list(TRANSFORMS)}."
        raise ValueError(msg)
    if kind == "spot_rank" and y.shape[1] == 1:
        msg = "transform 'spot_rank' ranks the targets of a spot, and there is one target; pass more, or another transform."
        raise ValueError(msg)
    if kind == "mixed":
        learned, parts = zip(*(fit_transform(part, y, slides, groups) for part in MIXED), strict=True)
        arrays = (np.hstack([getattr(part, name) for part in parts]) for name in ("ranks", "values", "limits"))
        return np.hstack(learned), Transform(kind, *arrays)
    ends, limits = np.array([[0.0], [1.0]]) * np.ones(y.shape[1]), np.stack([y.min(axis=0), y.max(axis=0)])
    if kind == "log":
        return y.astype(np.float32), Transform(kind, ends, ends, limits)
    names = np.unique(slides)
    if kind == "standardized":
        means = np.stack([y[slides == s].mean(axis=0, dtype=float) for s in names])
        spreads = np.stack([y[slides == s].std(axis=0, dtype=float) for s in names])
        spreads[spreads <= ROUNDING * np.abs(means)] = 0  # one value, written with rounding errors
        position = np.searchsorted(names, slides)
        z = (y - means[position]) / np.where(spreads > 0, spreads, np.inf)[position]
        group = np.array([groups[slides == s][0] for s in names])
        count = np.array([(slides == s).sum() for s in names])
        trust = count / (count + FEW_SPOTS)
        weight = np.array([t / trust[group == g].sum() for g, t in zip(group, trust, strict=True)])
        weight = weight * [trust[group == g].max() for g in group]  # slides of a group share its weight
        mean, spread = np.average(means, axis=0, weights=weight), np.average(spreads, axis=0, weights=weight)
        return z.astype(np.float32), Transform(kind, ends, np.stack([mean, mean + spread]), limits)
    z = ranks(y, axis=1) if kind == "spot_rank" else np.empty(y.shape, np.float32)
    if kind == "gene_rank":
        for s in names:
            z[slides == s] = ranks(y[slides == s], axis=0)
    grid = np.linspace(0, 1, N_QUANTILES)
    values = [np.interp(grid, *_matched(z[:, t], y[:, t])) for t in range(y.shape[1])]
    return z, Transform(kind, np.tile(grid[:, None], y.shape[1]), np.column_stack(values), limits)


def _matched(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks that occur, rising, and the mean of the values at the same places in their order."""
    found, first = np.unique(np.sort(z), return_index=True)
    counts = np.diff(np.append(first, len(z)))
    return found, np.add.reduceat(np.sort(y).astype(np.float64), first) / counts


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
