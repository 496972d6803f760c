"""Does the prediction rise and fall with the truth: correlations over the spots of a slide, or over targets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from h2e._statistics import ROUNDING, center_by_slide, correlate, is_constant
from h2e._warnings import refuse_if

from ._checks import check_order, check_pair, labels, per_spot, ratio


def pearson(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Pearson correlation of each target over spots.

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
    >>> import numpy as np
    >>> import h2e.metrics
    >>> truth = np.array([[0.0, 5.0, 1.0], [1.0, 6.0, 1.0], [2.0, 7.0, 1.0]])
    >>> prediction = np.array([[1.0, 0.1, 0.0], [3.0, 0.1, 1.0], [5.0, 0.1, 0.0]])
    >>> h2e.metrics.pearson(prediction, truth)
    array([ 1.,  0., nan])
    """
    return correlate(*check_pair(prediction, truth))


def spearman(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Spearman correlation of each target over spots; ties share their mean rank.

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
    >>> h2e.metrics.spearman([1.0, 10.0, 100.0], [0.1, 0.2, 0.3])
    array([1.])
    """
    return correlate(*(ranks(values) for values in check_pair(prediction, truth)))


def ccc(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Lin's concordance correlation of each target over spots, which also sees level and scale.

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
    >>> h2e.metrics.ccc([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])  # perfectly correlated, one too low
    array([0.57142857])
    """
    prediction, truth = check_pair(prediction, truth)
    shift = prediction.mean(axis=0) - truth.mean(axis=0)
    a, b = prediction - prediction.mean(axis=0), truth - truth.mean(axis=0)
    total = (a**2).mean(axis=0) + (b**2).mean(axis=0) + shift**2
    defined = ~is_constant(prediction) & ~is_constant(truth)
    value = ratio(2 * (a * b).mean(axis=0), total, defined, otherwise=0.0)
    return np.where(is_constant(truth), np.nan, value)


def within_domain(prediction: ArrayLike, truth: ArrayLike, domains: ArrayLike) -> np.ndarray:
    """Pearson correlation of each target over spots after the mean of each tissue domain is subtracted from both.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.
    domains
        Domain of each spot, for instance a pathologist's label or a cluster; nothing missing.

    Returns
    -------
    One value per target: 0 for a prediction that is constant within the domains, NaN for such a truth.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or a label is missing.

    Examples
    --------
    >>> import numpy as np
    >>> import h2e.metrics
    >>> truth = np.array([1.0, 2.0, 8.0, 9.0])
    >>> domains = ["stroma", "stroma", "tumour", "tumour"]
    >>> h2e.metrics.within_domain([1.0, 1.0, 9.0, 9.0], truth, domains)
    array([0.])
    >>> h2e.metrics.within_domain([1.0, 2.0, 3.0, 4.0], truth, domains)
    array([1.])
    """
    check_order(truth, {"domains": domains})
    prediction, truth = check_pair(prediction, truth)
    domains = labels(domains, len(truth), "domains")
    return correlate(_residuals(prediction, domains), _residuals(truth, domains))


def spot_rho(prediction: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Spearman correlation of each spot over targets; read it only beside :func:`constant_profile_rho`.

    Parameters
    ----------
    prediction, truth
        Predicted and measured values of the same spots, spots × targets; finite.

    Returns
    -------
    One value per spot; NaN where all targets of a spot have the same measured value.

    Raises
    ------
    ValueError
        Shapes differ, values are not finite, or there is one target.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.spot_rho([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [[0.0, 1.0, 9.0], [9.0, 1.0, 0.0]])
    array([ 1., -1.])
    """
    prediction, truth = check_pair(prediction, truth)
    refuse_if(truth.shape[1] < 2, "spot_rho needs at least 2 targets, over which it correlates, got 1.")
    return spearman(prediction.T, truth.T)


def constant_profile_rho(truth: ArrayLike, profile: ArrayLike) -> np.ndarray:
    """What :func:`spot_rho` gives to one profile predicted for every spot: the value to beat.

    Parameters
    ----------
    truth
        Measured values, spots × targets; finite.
    profile
        One value per target, for instance the mean of the training slides.

    Returns
    -------
    One value per spot; NaN where all targets of a spot have the same measured value.

    Raises
    ------
    ValueError
        Shapes do not fit, values are not finite, or there is one target.

    Examples
    --------
    >>> import h2e.metrics
    >>> h2e.metrics.constant_profile_rho([[0.0, 1.0, 9.0], [1.0, 0.0, 9.0]], [0.5, 0.6, 8.0])
    array([1. , 0.5])
    """
    return spot_rho(per_spot(profile, truth, "profile"), truth)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank the values of each column; ties share a rank, as all values do where they are equal up to rounding."""
    from scipy.stats import rankdata

    return rankdata(np.where(is_constant(values), 0.0, values), axis=0)


def _residuals(values: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Subtract the mean of each domain; 0 where only rounding is left, which is small against the values."""
    residuals = center_by_slide(values, domains)
    return np.where(np.ptp(residuals, axis=0) <= ROUNDING * np.abs(values).max(axis=0), 0.0, residuals)
