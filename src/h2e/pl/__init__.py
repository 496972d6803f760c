"""Plots: each takes data and ``ax`` and returns what it drew on."""

from h2e.pl._report import report, scores
from h2e.pl._slides import stains, tissue
from h2e.pl._spatial_pred import spatial_pred
from h2e.pl._targets import spots, target_overview
from h2e.pl._tiles import tiles
from h2e.pl._training import history, target_scores

__all__ = [
    "history", "report", "scores", "spatial_pred", "spots", "stains", "target_overview", "target_scores", "tiles", "tissue",
]  # fmt: skip
