"""Prepare what a model may see: tissue, stains, spots, ranks, targets."""

from h2e._stains.reference import StainReference
from h2e.pp._join import attach_features, join_slides
from h2e.pp._normalize import normalize
from h2e.pp._ranks import rank_transform
from h2e.pp._spots import make_spots, realign_spots
from h2e.pp._stains import fit_stain_reference, normalize_stains
from h2e.pp._targets import select_targets
from h2e.pp._tissue import detect_tissue, tissue_fraction

__all__ = [
    "StainReference", "attach_features", "detect_tissue", "fit_stain_reference", "join_slides", "make_spots",
    "normalize", "normalize_stains", "rank_transform", "realign_spots", "select_targets", "tissue_fraction",
]  # fmt: skip
