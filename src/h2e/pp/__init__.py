"""Prepare what a model may see: tissue, stains, spots, ranks, targets."""

from __future__ import annotations

from h2e.pp._ranks import rank_transform
from h2e.pp._stain_reference import StainReference
from h2e.pp._stains import fit_stain_reference, normalize_stains
from h2e.pp._targets import select_targets

__all__ = ["StainReference", "fit_stain_reference", "normalize_stains", "rank_transform", "select_targets"]
