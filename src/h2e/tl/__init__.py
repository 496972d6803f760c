"""Learn and predict: ``fit`` returns an ensemble, ``predict`` writes, ``evaluate`` scores."""

from __future__ import annotations

from h2e.tl._evaluate import evaluate
from h2e.tl._fit import fit
from h2e.tl._predict import predict

__all__ = ["evaluate", "fit", "predict"]
