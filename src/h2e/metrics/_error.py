"""How far off the prediction is: errors, and errors beside those of a baseline."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from h2e._statistics import ROUNDING, is_constant

from ._checks import check_pair, per_spot, ratio


def skill(prediction: ArrayLike, truth: ArrayLike, baseline: ArrayLike) -> np.ndarray:
    """Share of the baseline's squared error that the prediction removes, per target.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.
    baseline
        Mean of the training slides: one value per target, or spots × targets where these differ between spots.

    Returns
    -------
    One value per target; NaN where the truth equals the baseline.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.skill([1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [2.0])
    array([0.8])
    """
    baseline = per_spot(baseline, truth, "baseline")
    prediction, truth = check_pair(prediction, truth)
    error, reference = (((x - truth) ** 2).sum(axis=0) for x in (prediction, baseline))
    # Below this the reference is what float32 leaves of an exact match.
    floor = len(truth) * (ROUNDING * np.abs(truth).max(axis=0)) ** 2
    return 1 - ratio(error, reference, reference > floor, otherwise=np.nan)


def r2(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Coefficient of determination of each target, against the mean of the scored spots.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.

    Returns
    -------
    One value per target; NaN for a constant truth.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    array([0.78571429])
    """
    prediction, truth = check_pair(prediction, truth)
    error, total = (((x - truth) ** 2).sum(axis=0) for x in (prediction, truth.mean(axis=0)))
    return 1 - ratio(error, total, ~is_constant(truth), otherwise=np.nan)


def rmse(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Root of the mean squared error of each target.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.

    Returns
    -------
    One value per target, in the unit of the values.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

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
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.

    Returns
    -------
    One value per target, in the unit of the values.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

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
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.

    Returns
    -------
    One value per target; NaN for a constant truth.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

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

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.

    Returns
    -------
    One value per target; NaN for a constant truth.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

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
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.

    Returns
    -------
    One value per target: 0 for a constant prediction, NaN for a constant truth.

    Raises
    ------
    ValueError
        Shapes differ, or values are not finite.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.variance_ratio([1.0, 2.0], [2.0, 4.0])
    array([0.25])
    """
    prediction, truth = check_pair(prediction, truth)
    variance = np.where(is_constant(prediction), 0.0, prediction.var(axis=0))
    return ratio(variance, truth.var(axis=0), ~is_constant(truth), otherwise=np.nan)
