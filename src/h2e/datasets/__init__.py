"""Public data sets as one lazy multi-slide SpatialData."""

from __future__ import annotations

from h2e.datasets._toy import toy_cohort

__all__ = ["toy_cohort"]
