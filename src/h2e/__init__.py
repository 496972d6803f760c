"""Predict spot-level gene expression from H&E histology, on your own slides, honestly scored."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("h2e")
