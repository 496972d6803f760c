"""Predict spot-level gene expression from H&E histology, on your own slides, honestly scored."""

from __future__ import annotations

from importlib.metadata import version

from h2e import datasets, get, metrics, pl, pp, tl
from h2e._ensemble.ensemble import Ensemble

__all__ = ["Ensemble", "datasets", "get", "metrics", "pl", "pp", "tl"]

__version__ = version("h2e")
