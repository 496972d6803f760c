"""Public data sets as one lazy multi-slide SpatialData."""

from __future__ import annotations

from h2e.datasets._her2st import her2st
from h2e.datasets._toy import toy_cohort

__all__ = ["her2st", "toy_cohort"]
