"""How far off the prediction is: errors, and errors beside those of a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._checks import ROUNDING, check_finite, check_pair, is_constant, ratio

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def skill(prediction: ArrayLike, truth: ArrayLike, baseline: ArrayLike) -> np.ndarray:
    """Share of the baseline's squared error that the prediction removes, per target.

    ``1 − SSE(prediction) / SSE(baseline)``, where the baseline is the mean of the *training* slides: above 0 beats it.
    Unlike a correlation it sees a wrong level and a wrong scale.

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.
    baseline
        Mean of the training slides: one value per target, or spots × targets where spots have different training slides.

    Returns
    -------
    One value per target, 1 perfect, without lower limit; NaN where the baseline has no error (the truth equals it).

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.skill([1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [2.0])
    array([0.8])
    """
    prediction, truth = check_pair(prediction, truth)
    baseline = spread_baseline(baseline, truth.shape)
    error, reference = ((x - truth) ** 2 for x in (prediction, baseline))
    # below this the reference is what float32 leaves of an exact match
    floor = len(truth) * (ROUNDING * np.abs(truth).max(axis=0)) ** 2
    defined = reference.sum(axis=0) > floor
    return 1 - ratio(error.sum(axis=0), reference.sum(axis=0), defined, otherwise=np.nan)


def spread_baseline(baseline: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """Give every spot its baseline."""
    baseline = np.asarray(baseline, dtype=np.float64)
    if baseline.shape not in {(shape[1],), shape}:
        msg = f"baseline has shape {baseline.shape}; pass one value per target {shape[1:]} or spots × targets {shape}."
        raise ValueError(msg)
    check_finite(np.atleast_2d(baseline), "baseline")
    return np.broadcast_to(baseline, shape)


def r2(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Coefficient of determination of each target, against the mean of the *scored* spots.

    Stricter than :func:`skill`, whose baseline does not know the scored slide.

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.

    Returns
    -------
    One value per target; NaN where the truth is constant.

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    array([0.78571429])
    """
    prediction, truth = check_pair(prediction, truth)
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    return 1 - ratio(((prediction - truth) ** 2).sum(axis=0), total, ~is_constant(truth), otherwise=np.nan)


def rmse(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Root of the mean squared error of each target.

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.

    Returns
    -------
    One value per target, in the unit of the values.

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.rmse([1.0, 2.0], [4.0, 6.0])
    array([3.53553391])
    """
    prediction, truth = check_pair(prediction, truth)
    return np.sqrt(((prediction - truth) ** 2).mean(axis=0))


def mae(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Mean absolute error of each target.

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.

    Returns
    -------
    One value per target, in the unit of the values.

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.mae([1.0, 2.0], [4.0, 6.0])
    array([3.5])
    """
    prediction, truth = check_pair(prediction, truth)
    return np.abs(prediction - truth).mean(axis=0)


def nrmse_sd(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """:func:`rmse` divided by the standard deviation of the truth (that of the population).

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.

    Returns
    -------
    One value per target; NaN where the truth is constant.

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.nrmse_sd([2.0, 2.0], [1.0, 3.0])
    array([1.])
    """
    prediction, truth = check_pair(prediction, truth)
    return ratio(rmse(prediction, truth), truth.std(axis=0), ~is_constant(truth), otherwise=np.nan)


def nrmse_range(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """:func:`rmse` divided by the range of the truth.

    Papers divide by either; the two are not comparable.

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.

    Returns
    -------
    One value per target; NaN where the truth is constant.

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.nrmse_range([2.0, 2.0], [1.0, 3.0])
    array([0.5])
    """
    prediction, truth = check_pair(prediction, truth)
    return ratio(rmse(prediction, truth), np.ptp(truth, axis=0), ~is_constant(truth), otherwise=np.nan)


def variance_ratio(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Variance of the prediction over that of the truth: near 0 is a collapse to the mean.

    Parameters
    ----------
    prediction
        Predicted values, spots × targets; finite.
    truth
        Measured values of the same spots and targets.

    Returns
    -------
    One value per target; 0 for a constant prediction, NaN where the truth is constant.

    Raises
    ------
    ValueError
        Shapes differ, or values are NaN or infinite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.variance_ratio([1.0, 2.0], [2.0, 4.0])
    array([0.25])
    """
    prediction, truth = check_pair(prediction, truth)
    value = ratio(prediction.var(axis=0), truth.var(axis=0), ~is_constant(truth), otherwise=np.nan)
    return np.where(is_constant(prediction) & ~is_constant(truth), 0.0, value)
