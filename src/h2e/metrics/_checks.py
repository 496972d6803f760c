"""What every metric asks of its arrays, and when a target counts as constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

ROUNDING = 1e-6
"""Values that differ by less than this share of the largest magnitude are one value written with rounding errors."""


def check_pair(prediction: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth as float64 (spots, targets); a vector is one target."""
    return align(prediction, truth)[:2]


def align(prediction: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray, list]:
    """The same, DataFrames brought into the order of the truth's targets, whose names come third."""
    both = [isinstance(x, pd.DataFrame | pd.Series) for x in (prediction, truth)]
    if all(both) and not prediction.index.equals(truth.index):
        msg = "prediction and truth have different spots in their index; pass prediction.loc[truth.index]."
        raise ValueError(msg)
    tables = [x for x in (truth, prediction) if isinstance(x, pd.DataFrame)]
    named = list(tables[0].columns) if tables else None
    prediction = in_order(prediction, named) if len(tables) == 2 else prediction
    prediction, truth = matrix(prediction, "prediction"), matrix(truth, "truth")
    if prediction.shape != truth.shape:
        msg = f"prediction has shape {prediction.shape}, truth {truth.shape}; pass the same spots and targets."
        raise ValueError(msg)
    return prediction, truth, list(range(truth.shape[1])) if named is None else named


def in_order(values: ArrayLike, names: list) -> ArrayLike:
    """Bring a DataFrame's columns, or a Series' index, into the order of the targets."""
    if not isinstance(values, pd.DataFrame | pd.Series):
        return values
    there = values.columns if isinstance(values, pd.DataFrame) else values.index
    missing = [name for name in names if name not in there]
    if missing or len(there) != len(names):
        msg = (
            f"targets differ: {missing or [x for x in there if x not in names]} are not in both; select the same ones."
        )
        raise ValueError(msg)
    return values.loc[..., names] if isinstance(values, pd.DataFrame) else values[names]


def check_order(truth: ArrayLike, beside: Mapping[str, ArrayLike]) -> None:
    """Refuse a Series or a DataFrame whose index has the spots of the truth's in another order."""
    for name, values in beside.items():
        if not all(isinstance(x, pd.DataFrame | pd.Series) for x in (truth, values)):
            continue
        there, index = values.index, truth.index
        if not there.equals(index) and len(there) == len(index) and there.isin(index).all():
            msg = f"{name} has the spots of truth in another order; pass {name}.loc[truth.index]."
            raise ValueError(msg)


def matrix(values: ArrayLike, name: str) -> np.ndarray:
    """Finite float64 values as (spots, targets) with at least two spots; a vector is one target, sparse becomes dense."""
    values = values.toarray() if hasattr(values, "toarray") else values
    values = np.asarray(values, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) < 2 or values.shape[1] < 1:
        msg = f"{name} must be (spots, targets) with at least 2 spots and 1 target, it has shape {values.shape}."
        raise ValueError(msg)
    check_finite(values, name)
    return values


def check_finite(values: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity, and say how many spots have them and where they come from."""
    bad = ~np.isfinite(values).reshape(len(values), -1)
    if not bad.any():
        return
    rows = int(bad.any(axis=1).sum())
    msg = f"{name} is NaN or infinite for {rows} of {len(values)} spots ({int(bad.all(axis=1).sum())} rows entirely)"
    if name == "prediction":
        msg += (
            "; h2e.tl.predict leaves NaN where a spot has no tissue and where the ensemble was trained on it "
            "(its held-out predictions are in the key ending in '_loo'); score those, or pass only valid rows"
        )
    raise ValueError(msg + ".")


def labels(values: ArrayLike, n: int, name: str) -> np.ndarray:
    """One label per spot as strings; missing labels are refused."""
    values = pd.Series(np.asarray(values))
    if len(values) != n:
        msg = f"{name} has {len(values)} labels for {n} spots; pass one per spot."
        raise ValueError(msg)
    if values.isna().any():
        msg = f"{name} is missing for {int(values.isna().sum())} of {n} spots; drop these spots or label them."
        raise ValueError(msg)
    return values.astype(str).to_numpy(dtype=object)


def is_constant(values: np.ndarray, *, scale: np.ndarray | None = None, axis: int = 0) -> np.ndarray:
    """Whether values are the same up to rounding, relative to their magnitude (or to ``scale``, that of their source)."""
    scale = np.abs(values).max(axis=axis) if scale is None else scale
    return np.ptp(values, axis=axis) <= ROUNDING * scale


def ratio(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray, *, otherwise: float) -> np.ndarray:
    """Divide where it makes sense, and ``otherwise`` elsewhere."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), otherwise), where=where)
