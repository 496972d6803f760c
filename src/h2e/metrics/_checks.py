"""What every metric asks of its arrays and settings."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from h2e._warnings import refuse, refuse_if

NAMED = (pd.DataFrame, pd.Series)
"""Arrays that name their spots."""


def check_pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Bring prediction and truth into float64 (spots, targets); a vector is one target."""
    return align(prediction, truth)[:2]


def align(prediction: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray, list]:
    """Do the same, DataFrames in the order of the truth's targets, whose names come third."""
    predicted, measured = _spots(prediction), _spots(truth)
    if predicted is not None and measured is not None and not predicted.equals(measured):
        refuse("prediction and truth must have the same index, got different spots; pass prediction.loc[truth.index].")
    tables = [x for x in (truth, prediction) if isinstance(x, pd.DataFrame)]
    names = list(tables[0].columns) if tables else []
    x = matrix(in_order(prediction, names) if len(tables) == 2 else prediction, "prediction")
    y = matrix(truth, "truth")
    refuse_if(x.shape != y.shape, f"prediction and truth must have the same shape, got {x.shape} and {y.shape}.")
    return x, y, names if tables else list(range(y.shape[1]))


def in_order(values: ArrayLike, names: list) -> ArrayLike:
    """Bring a DataFrame's columns, or a Series' index, into the order of the targets."""
    if not isinstance(values, NAMED):
        return values
    targets = values.columns if isinstance(values, pd.DataFrame) else values.index
    differing = [name for name in names if name not in targets] or [name for name in targets if name not in names]
    if differing or len(targets) != len(names):
        refuse(f"tables must have the same targets, each once, got {differing} that are not in both.")
    return values.loc[..., names] if isinstance(values, pd.DataFrame) else values[names]


def per_spot(values: ArrayLike, truth: ArrayLike, name: str) -> np.ndarray:
    """Give every spot of the truth its value of each target, from one value per target or from those of all spots."""
    if isinstance(truth, pd.DataFrame):
        values = in_order(values, list(truth.columns))
    if np.ndim(values) == 2:
        check_order(truth, {name: values})
    values, shape = np.asarray(values, dtype=np.float64), matrix(truth, "truth").shape
    if values.shape not in {shape[1:], shape}:
        refuse(f"{name} must have shape {shape[1:]}, one value per target, or {shape}, got {values.shape}.")
    check_finite(np.atleast_2d(values), name)
    return np.broadcast_to(values, shape)


def check_order(truth: ArrayLike, others: Mapping[str, ArrayLike | None]) -> None:
    """Refuse a Series or a DataFrame whose index has the spots of the truth's in another order."""
    expected = _spots(truth)
    for name, values in others.items():
        spots = _spots(values)
        if spots is None or expected is None:
            continue
        if not spots.equals(expected) and set(spots) == set(expected):
            refuse(f"{name} has the spots of truth in another order; pass {name}.loc[truth.index].")


def _spots(values: ArrayLike | None) -> pd.Index | None:
    """Names of the spots, of a Series or a DataFrame."""
    return values.index if isinstance(values, NAMED) else None


def matrix(values: ArrayLike, name: str) -> np.ndarray:
    """Finite float64 values as (spots, targets), at least two spots; a vector is one target, sparse becomes dense."""
    values = values.toarray() if hasattr(values, "toarray") else values
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) < 2 or values.shape[1] < 1:
        refuse(f"{name} must be (spots, targets) with at least 2 spots and 1 target, got shape {values.shape}.")
    check_finite(values, name)
    return values


def positions(xy: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Coordinates of the spots of the truth as float64 (spots, 2)."""
    check_order(truth, {"xy": xy})
    xy, n_spots = np.asarray(xy, dtype=np.float64), len(matrix(truth, "truth"))
    refuse_if(xy.shape != (n_spots, 2), f"xy must have shape ({n_spots}, 2), one point per spot, got {xy.shape}.")
    check_finite(xy, "xy")
    return xy


def labels(values: ArrayLike, n_spots: int, name: str) -> np.ndarray:
    """One label per spot as strings; missing labels are refused."""
    column = pd.Series(np.asarray(values))
    n, missing = len(column), int(column.isna().sum())
    refuse_if(n != n_spots, f"{name} must have one label per spot, got {n} labels for {n_spots} spots.")
    refuse_if(missing, f"{name} must have a label for every spot, got none for {missing} of {n_spots}.")
    return column.astype(str).to_numpy(dtype=object)


def check_finite(values: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity, and say how many spots have them and where they come from."""
    bad = ~np.isfinite(values).reshape(len(values), -1)
    if not bad.any():
        return
    rows, whole_rows = int(bad.any(axis=1).sum()), int(bad.all(axis=1).sum())
    msg = f"{name} must be finite, got NaN or infinite for {rows} of {len(values)} spots ({whole_rows} rows entirely)."
    if name == "prediction":
        msg += " h2e.tl.predict leaves NaN where a spot has no tissue and where the ensemble was trained on it; "
        msg += "score its held-out predictions, in the key ending in '_loo', or pass only valid rows."
    raise ValueError(msg)


def check_non_negative(values: np.ndarray, name: str) -> None:
    """Refuse negative values where the metric has no meaning for them."""
    if (values < 0).any():
        n_targets = int((values < 0).any(axis=0).sum())
        refuse(f"{name} must be at least 0 for this metric, got negative for {n_targets} of {values.shape[1]} targets.")


def check_whole(value: float, name: str, *, least: int = 1) -> None:
    """Refuse a setting that is not a whole number, or too small."""
    refuse_if(not isinstance(value, Integral) or value < least, f"{name} must be whole and ≥ {least}, got {value}.")


def check_between(value: float, name: str, *, high: float) -> None:
    """Refuse a setting that is not a number between 0 and the highest, both excluded."""
    if not isinstance(value, Real) or not 0 < value < high:
        refuse(f"{name} must be a number between 0 and {high}, got {value}.")


def generator(seed: int) -> np.random.Generator:
    """Random numbers that are the same for the same seed."""
    check_whole(seed, "seed", least=0)
    return np.random.default_rng(seed)


def ratio(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray, *, otherwise: float) -> np.ndarray:
    """Divide where the quotient is defined, and give ``otherwise`` elsewhere."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), otherwise), where=defined)


def whole_counts(counts: ArrayLike, totals: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Bring counts and totals into whole numbers; refuse what cannot be counts, and totals that do not hold them."""
    counts = matrix(counts, "counts")
    check_non_negative(counts, "counts")
    if (counts != np.round(counts)).any():
        refuse("counts must be whole numbers, got values with a fraction; pass raw counts, not normalized values.")
    least = counts.sum(axis=1)
    totals = least if totals is None else np.ravel(totals).astype(np.float64)
    whole = np.isfinite(totals).all() and (totals == np.round(totals)).all()
    if totals.shape != least.shape or not whole or (totals < least).any():
        refuse(f"totals must be {len(counts)} whole numbers, each at least the sum of the targets' counts of its spot.")
    return counts.astype(np.int64), totals.astype(np.int64)
