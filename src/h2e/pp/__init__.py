"""Prepare what a model may see: tissue, stains, spots, ranks, targets."""

from __future__ import annotations

from h2e.pp._ranks import rank_transform
from h2e.pp._targets import select_targets

__all__ = ["rank_transform", "select_targets"]
