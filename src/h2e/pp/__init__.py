"""Prepare what a model may see: tissue, stains, spots, ranks, targets."""

from __future__ import annotations

__all__: list[str] = []
